-- 0001 outbox: the table of events, and what the relay keeps beside it.
--
-- Three parts, each begun by a line that starts with "--@": the relay's own tables (once a schema), the table of events (where there
-- is none yet), and what belongs to each table of events. {names in braces} are filled in, quoted and with their schema.

--@ relay: once a schema

-- One row an outbox: its identity, who may publish it and how, and what a claim moves.
CREATE TABLE {state} (
    name               text PRIMARY KEY,
    table_name         text NOT NULL CONSTRAINT outboxd_state_one_name UNIQUE,     -- one table has one name
    outbox             uuid NOT NULL DEFAULT gen_random_uuid(),                    -- stands in every journal record
    delivery           text NOT NULL CHECK (delivery IN ('exactly_once', 'at_least_once')),
    format             int NOT NULL,                                               -- of the journal records that are written
    accepted_addresses text[] NOT NULL,                                            -- host:port/database it may be published from
    accepted_systems   text[] NOT NULL,                                            -- system identifiers it may be published from
    claim              bigint NOT NULL DEFAULT 0,                                  -- random, new with every claim and every command
    lease_instance     text,
    lease_start        bigint,                                                     -- random number of the process
    lease_epoch        bigint NOT NULL DEFAULT 0,                                  -- number of the grant
    lease_starts       bigint[] NOT NULL DEFAULT '{}',                             -- of the last 64 grants
    lease_until        timestamptz,                                                -- NULL: free
    pins               jsonb NOT NULL DEFAULT '{}',                                -- partitions, id and more by topic
    paused_at          timestamptz,                                                -- NULL: not paused
    paused_by          text,
    paused_reason      text,
    halted_code        text,
    halted_evidence    text,
    halted_at          timestamptz,
    created_at         timestamptz NOT NULL DEFAULT now()
);

-- One row a batch whose rows are marked, with the place of its journal record. Append-only: a counter that is updated for each batch
-- gets thirty times slower under somebody's long snapshot.
CREATE TABLE {applied} (
    name           text NOT NULL,
    n              bigint NOT NULL,
    journal_offset bigint NOT NULL,
    checksum       bigint NOT NULL,
    applied_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, n)
);

-- Unlogged on purpose: PostgreSQL empties it after a crash, a promotion and a physical restore, and keeps it over a clean restart.
-- A claim whose token is gone belongs to another past of this database.
CREATE UNLOGGED TABLE {token} (
    name  text PRIMARY KEY,
    token bigint NOT NULL
);

-- Events that can never be published as they are. One that blocks keeps every later event of its (topic, key) waiting.
CREATE TABLE {parked} (
    name        text NOT NULL,
    seq         bigint NOT NULL,
    id          text NOT NULL,
    fingerprint bytea,                                                             -- what the event said, where its id is no uuid
    topic       text NOT NULL,
    key         text,                                                              -- bytea: \x and hexadecimal
    code        text NOT NULL,                                                     -- why, as a short word
    detail      text NOT NULL,                                                     -- why, as a sentence
    blocking    boolean NOT NULL,                                                  -- outbox.on_poison when it was parked
    parked_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, seq)
);

-- Topics that cannot be published to now: their events wait, those of other topics do not.
CREATE TABLE {held} (
    name    text NOT NULL,
    topic   text NOT NULL,                                                         -- as in the table of events
    code    text NOT NULL,
    detail  text NOT NULL,
    held_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, topic)
);

-- Who did what by command.
CREATE TABLE {audit} (
    n          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    who        text NOT NULL DEFAULT session_user,
    action     text NOT NULL,
    reason     text NOT NULL DEFAULT '',
    detail     jsonb NOT NULL DEFAULT '{}'
);

--@ table: where there is none

CREATE TABLE {outbox} (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,      -- order inside the database; never CACHE > 1
    -- Identity of the event, the `id` header. By default UUIDv7: new entries of the index lie side by side. Of entries all over the index,
    -- which UUIDv4 makes, each costs a page, and again when the row is marked. From PostgreSQL 18 on the same is uuidv7().
    id         uuid NOT NULL UNIQUE DEFAULT (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7'
        || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid,
    topic      text NOT NULL CHECK (topic <> ''),
    key        text,                                                 -- order and partition; NULL: no order
    type       text NOT NULL DEFAULT '',                             -- which event
    source     text,                                                 -- by which service; NULL: the configured one
    payload    json,                                                 -- passed on byte for byte; NULL is a tombstone
    headers    json,                                                 -- {"name": "text", …}
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),       -- when
    sent_at    timestamptz
) WITH (
    -- A queue: every row dies once or twice. By default autovacuum waits until a fifth of the table is dead, which are millions of dead
    -- index entries where the relay reads; here it comes every 10,000 dead rows or 100,000 new ones, however large the table is.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 100000
);
CREATE INDEX {unsent_index} ON {outbox} (seq) WHERE sent_at IS NULL;

--@ outbox: once a table of events; the view is made anew when the columns are other ones

-- What is not published yet, and why: it waits for its turn (pending), it was set aside (parked), it waits behind such an event of its
-- key (blocked), or its topic cannot be published to now (held).
CREATE VIEW {pending} AS
    SELECT {seq} AS seq, {id} AS id, {topic} AS topic, {key} AS key, {type} AS type, {source} AS source, {payload} AS payload,
        {headers} AS headers, {created} AS created_at, CASE
        WHEN EXISTS (SELECT FROM {parked} p WHERE p.name = s.name AND p.seq = {seq} AND p.id = {id}::text) THEN 'parked'
        WHEN EXISTS (SELECT FROM {held} h WHERE h.name = s.name AND h.topic = {topic}::text) THEN 'held'
        WHEN EXISTS (SELECT FROM {parked} p WHERE p.name = s.name AND p.blocking AND p.topic = {topic}::text AND p.key = {key_text})
            THEN 'blocked'
        ELSE 'pending' END AS reason
    FROM {outbox} o CROSS JOIN (SELECT name FROM {state} WHERE table_name = {table_name}) s WHERE {sent_at} IS NULL;
