-- 0001 outbox: the table of events, and what the relay keeps beside it.
--
-- Three parts, each begun by a line that starts with "--@": the relay's own tables (once a file), the table of events (where there is
-- none yet), and what belongs to each table of events. {names in braces} are filled in, quoted.
--
-- Services open this file with a SQLite of their own, perhaps an old one, and a schema that it cannot read would shut them out. Hence
-- nothing here is younger than SQLite 3.9: no STRICT, no unixepoch(), no ->>. Moments are text, 2026-01-31T12:34:56.789Z, by UTC.

--@ relay: once a file

-- One row an outbox: its identity, who may publish it and how, and what a claim moves.
CREATE TABLE outboxd_state (
    name               TEXT NOT NULL PRIMARY KEY,
    table_name         TEXT NOT NULL UNIQUE,                                       -- one table has one name
    outbox             TEXT NOT NULL,                                              -- uuid; stands in every journal record
    delivery           TEXT NOT NULL CHECK (delivery IN ('exactly_once', 'at_least_once')),
    format             INTEGER NOT NULL,                                           -- of the journal records that are written
    accepted_addresses TEXT NOT NULL,                                              -- JSON: paths it may be published from
    accepted_systems   TEXT NOT NULL,                                              -- JSON; SQLite has no system identifier
    claim              INTEGER NOT NULL DEFAULT 0,                                 -- random, new with every claim and every command
    lease_instance     TEXT,
    lease_start        INTEGER,                                                    -- random number of the process
    lease_epoch        INTEGER NOT NULL DEFAULT 0,                                 -- number of the grant
    lease_starts       TEXT NOT NULL DEFAULT '[]',                                 -- JSON: of the last 64 grants
    lease_until        TEXT,                                                       -- NULL: free
    pins               TEXT NOT NULL DEFAULT '{}',                                 -- JSON: partitions, id and more by topic
    paused_at          TEXT,                                                       -- NULL: not paused
    paused_by          TEXT,
    paused_reason      TEXT,
    halted_code        TEXT,
    halted_evidence    TEXT,
    halted_at          TEXT,
    created_at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- One row a batch whose rows are marked, with the place of its journal record. Append-only, as on the other databases.
CREATE TABLE outboxd_applied (
    name           TEXT NOT NULL,
    n              INTEGER NOT NULL,
    journal_offset INTEGER NOT NULL,
    checksum       INTEGER NOT NULL,
    applied_at     TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (name, n)
) WITHOUT ROWID;

-- The claim number once more. SQLite has no unlogged tables; that the file went back in time is told by the newest applied batch.
CREATE TABLE outboxd_token (
    name  TEXT NOT NULL PRIMARY KEY,
    token INTEGER NOT NULL
);

-- Events that can never be published as they are. One that blocks keeps every later event of its (topic, key) waiting.
CREATE TABLE outboxd_parked (
    name        TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    id          TEXT NOT NULL,
    fingerprint BLOB,                                                              -- what the event said, where its id is no uuid
    topic       TEXT NOT NULL,
    key         TEXT,                                                              -- a blob: \x and hexadecimal
    code        TEXT NOT NULL,                                                     -- why, as a short word
    detail      TEXT NOT NULL,                                                     -- why, as a sentence
    blocking    INTEGER NOT NULL,                                                  -- outbox.on_poison when it was parked
    parked_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (name, seq)
);

-- Topics that cannot be published to now: their events wait, those of other topics do not.
CREATE TABLE outboxd_held (
    name    TEXT NOT NULL,
    topic   TEXT NOT NULL,                                                         -- as in the table of events
    code    TEXT NOT NULL,
    detail  TEXT NOT NULL,
    held_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (name, topic)
);

-- Who did what by command.
CREATE TABLE outboxd_audit (
    n      INTEGER PRIMARY KEY AUTOINCREMENT,
    name   TEXT NOT NULL,
    at     TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    who    TEXT NOT NULL,
    action TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '{}'                                              -- JSON
);

--@ table: where there is none

CREATE TABLE {outbox} (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,                    -- order; without AUTOINCREMENT numbers would come again
    -- Identity of the event, the `id` header: a uuid as text in either case, so that a person can read it and any library can write it.
    -- By default UUIDv7: new entries of the index lie side by side.
    id         TEXT NOT NULL UNIQUE CHECK (length(id) = 36) DEFAULT (lower(
        substr(printf('%012x', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)), 1, 8) || '-' ||
        substr(printf('%012x', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)), 9) || '-7' ||
        substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' ||
        hex(randomblob(6)))),
    topic      TEXT NOT NULL CHECK (topic <> ''),
    key        TEXT,                                                 -- order and partition; NULL: no order; text or blob
    type       TEXT NOT NULL DEFAULT '',                             -- which event
    source     TEXT,                                                 -- by which service; NULL: the configured one
    payload    TEXT,                                                 -- text or blob, passed on byte for byte; NULL is a tombstone
    headers    TEXT,                                                 -- {"name": "text", …}
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    sent_at    TEXT
);
CREATE INDEX {unsent_index} ON {outbox} (seq) WHERE sent_at IS NULL;

--@ outbox: once a table of events

-- What is not published yet, and why: it waits for its turn (pending), it was set aside (parked), it waits behind such an event of its
-- key (blocked), or its topic cannot be published to now (held).
CREATE VIEW {pending} AS
    SELECT o.seq, o.id, o.topic, o.key, o.type, o.source, o.payload, o.headers, o.created_at, CASE
        WHEN EXISTS (SELECT 1 FROM outboxd_parked p WHERE p.name = s.name AND p.seq = o.seq AND p.id = lower(o.id)) THEN 'parked'
        WHEN EXISTS (SELECT 1 FROM outboxd_held h WHERE h.name = s.name AND h.topic = o.topic) THEN 'held'
        WHEN EXISTS (SELECT 1 FROM outboxd_parked p WHERE p.name = s.name AND p.blocking AND p.topic = o.topic
            AND p.key = CASE typeof(o.key) WHEN 'blob' THEN '\x' || lower(hex(o.key)) ELSE o.key END) THEN 'blocked'
        ELSE 'pending' END AS reason
    FROM {outbox} o CROSS JOIN (SELECT name FROM outboxd_state WHERE table_name = {table_name}) s WHERE o.sent_at IS NULL;
