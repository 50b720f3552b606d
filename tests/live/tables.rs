//! Tables as others make them, with the real binary: the recipes of `docs/tables.md`, each from its table to the topic and back.

use std::time::Duration;

use crate::checker::Seen;
use crate::history;
use crate::stage::{answer, status};
use crate::support::{DaemonOptions, Kafka, Postgres, Version};

const SOON: Duration = Duration::from_secs(60);

/// How the service of a table writes, and what comes of it. The table and its configuration stand in the page.
pub struct Recipe {
    /// Name of the database, and of the topic.
    name: &'static str,
    /// Heading in the page.
    title: &'static str,
    /// Inserts event `{n}` of key `{key}`.
    insert: &'static str,
    /// id, key, payload of each row in order, as a reader should see them.
    expected: &'static str,
    /// Rows that are not marked.
    unsent: &'static str,
    /// How it is read: `full` or `cursor`.
    form: &'static str,
}

const PAGE: &str = include_str!("../../docs/tables.md");

/// The first block of code in this language below a heading of the page.
fn block(title: &str, language: &str) -> &'static str {
    let part = PAGE.split_once(&format!("\n## {title}\n")).expect("the heading is in the page").1;
    let block = part.split_once(&format!("```{language}\n")).expect("it has a block").1;
    block.split_once("\n```").expect("the block ends").0
}

impl Recipe {
    /// The first block of code in this language below the heading.
    fn block(&self, language: &str) -> &'static str {
        block(self.title, language)
    }

    /// The keys of `[outbox]`, with `[outbox.columns]` as one of them.
    fn settings(&self) -> Vec<(String, String)> {
        let (outbox, columns) = self.block("toml").split_once("[outbox.columns]\n").expect("columns");
        let pairs = outbox.lines().filter_map(|line| line.split_once(" = "));
        let unquoted = |text: &str| text[1..text.len() - 1].to_owned();
        let mut settings: Vec<_> = pairs.map(|(key, value)| (format!("outbox.{key}"), unquoted(value))).collect();
        settings.push(("outbox.columns".into(), format!("{{ {} }}", columns.lines().collect::<Vec<_>>().join(", "))));
        settings
    }
}

/// A recipe that is being followed.
pub struct Kitchen {
    recipe: &'static Recipe,
    /// As `outbox.table` names it.
    table: String,
    pub postgres: &'static Postgres,
    pub kafka: &'static Kafka,
    pub database: String,
    pub topic: String,
    pub options: DaemonOptions,
}

impl Kitchen {
    /// Creates the table, and everything else by `migrate`.
    pub fn new(recipe: &'static Recipe) -> Kitchen {
        let (postgres, kafka) = (Postgres::shared(Version::V18), Kafka::shared());
        let database = postgres.create_database(recipe.name);
        let topic = kafka.unique_topic(recipe.name);
        // nothing may rest on the time zone of a session
        postgres.sql("postgres", &format!("ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'"));
        postgres.sql(&database, recipe.block("sql"));
        let options = DaemonOptions::new(&topic, &postgres.url(&database, "outboxd"), &kafka.brokers());
        let settings = recipe.settings();
        let table = settings.iter().find(|(key, _)| key == "outbox.table").expect("a table").1.clone();
        let options = settings.iter().fold(options.set("relay.lease", "1s"), |options, (key, value)| options.set(key, value));
        Kitchen { recipe, table, postgres, kafka, database, topic, options }
    }

    /// The options of the role that owns the table.
    pub fn owner(&self) -> DaemonOptions {
        self.options.clone().set("database.url", &self.postgres.url(&self.database, "postgres"))
    }

    /// Runs `migrate`, first as a plan, then twice, and gives both roles their rights. Returns the plan.
    pub fn migrate(&self) -> String {
        let before = self.described();
        let plan = answer(&self.owner(), &["migrate", "--plan"]);
        answer(&self.owner(), &["migrate", "--topics", &format!("{}:1", self.topic)]);
        assert!(answer(&self.owner(), &["migrate"]).starts_with("nothing to do\n"));
        assert_eq!(self.described(), before, "the table is not ours to alter");
        answer(&self.owner(), &["migrate", "--roles", "--writer", "shop", "--relay", "outboxd", "--apply"]);
        plan
    }

    /// Columns, indexes and constraints of the table.
    fn described(&self) -> String {
        let table = &self.table;
        self.postgres.sql(
            &self.database,
            &format!(
                "SELECT string_agg(attname || atttypid::text || attnotnull, ',' ORDER BY attnum), \
                 (SELECT count(*) FROM pg_index WHERE indrelid = attrelid), (SELECT count(*) FROM pg_trigger WHERE tgrelid = attrelid) \
                 FROM pg_attribute WHERE attrelid = '{table}'::regclass GROUP BY attrelid"
            ),
        )
    }

    /// Inserts events with the rights of a writer.
    pub fn write(&self, numbers: std::ops::RangeInclusive<u32>) {
        let insert = |n: u32| {
            let sql = self.recipe.insert.replace("{topic}", &self.topic).replace("{n}", &n.to_string());
            sql.replace("{key}", &format!("00000000-0000-4000-8000-00000000000{}", n % 3))
        };
        let all: Vec<String> = numbers.map(insert).collect();
        self.postgres.sql(&self.database, &format!("SET ROLE shop; {}", all.join("; ")));
    }

    fn rows(&self) -> Vec<String> {
        self.postgres.sql(&self.database, self.recipe.expected).lines().map(str::to_owned).collect()
    }

    /// Relays everything that is there, with the least rights, and leaves.
    pub fn relay(&self) {
        let once = self.options.clone().argument("--once").start();
        assert_eq!(once.wait_exit(SOON), 0, "{}", once.log());
        assert_eq!(self.postgres.sql(&self.database, self.recipe.unsent), "0");
        assert_eq!(status(&self.options)["pending_events"], 0);
    }

    fn seen(&self) -> Vec<Seen> {
        history::read(self.kafka, &self.topic, 1)
    }

    /// id, key and payload of every record, in order.
    pub fn records(&self) -> Vec<String> {
        self.seen().iter().map(shown).collect()
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or(String::new(), |bytes| String::from_utf8(bytes.to_vec()).expect("text"))
}

fn header<'a>(record: &'a Seen, name: &str) -> Option<&'a [u8]> {
    record.headers.iter().find(|(found, _)| found == name).and_then(|(_, value)| value.as_deref())
}

fn shown(record: &Seen) -> String {
    [header(record, "id"), record.key.as_deref(), record.payload.as_deref()].map(text).join("|")
}

/// From the empty table to a drained one: what a reader sees is what the rows said, in order, once.
fn follow(recipe: &'static Recipe) -> Kitchen {
    let kitchen = Kitchen::new(recipe);
    let plan = kitchen.migrate();
    assert_eq!(plan.contains("is read in full form"), recipe.form == "full", "{plan}");
    kitchen.write(1..=20);
    let first = kitchen.rows();
    assert_eq!(first.len(), 20);
    let view =
        format!("SELECT count(*) FROM {}_pending WHERE reason = 'pending' AND topic::text = '{}'", kitchen.table, kitchen.topic);
    assert_eq!(kitchen.postgres.sql(&kitchen.database, &view), "20");
    assert_eq!(status(&kitchen.options)["pending_events"], 20);
    kitchen.relay();
    assert_eq!(kitchen.records(), first);
    kitchen.write(21..=30);
    let rows = kitchen.rows();
    let second: Vec<String> = rows.iter().filter(|row| !first.contains(row)).cloned().collect();
    kitchen.relay();
    kitchen.relay();
    assert_eq!(kitchen.records(), [first, second].concat());
    kitchen
}

/// As after a crash between publishing and marking: the journal tells what was published, and only a row that says something else by
/// now is another event.
fn forget_marks(kitchen: &Kitchen, mark: &str, change: &str) {
    let before = kitchen.records();
    let sql = |sql: &str| kitchen.postgres.sql(&kitchen.database, &sql.replace("{table}", &kitchen.table));
    sql("DELETE FROM outboxd_applied WHERE n = (SELECT max(n) FROM outboxd_applied)");
    assert_eq!(sql("SELECT max(n) FROM outboxd_applied"), "1", "twenty events are marked for good");
    sql(&format!("UPDATE {{table}} SET {mark} = NULL WHERE id > 20; {change}"));
    kitchen.relay();
    let after = kitchen.records();
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 1, "{after:?}");
}

static DEBEZIUM: Recipe = Recipe {
    name: "debezium",
    title: "Debezium",
    insert: "INSERT INTO outboxevent (id, aggregatetype, aggregateid, type, payload) \
             VALUES (gen_random_uuid(), '{topic}', '{key}', 'Placed', '{\"n\":{n}}')",
    expected: "SELECT id, aggregateid, payload FROM outboxevent ORDER BY seq",
    unsent: "SELECT count(*) FROM outboxevent",
    form: "cursor",
};

#[test]
fn the_table_of_debezium() {
    let kitchen = follow(&DEBEZIUM);
    let record = &kitchen.seen()[0];
    assert_eq!((header(record, "type"), header(record, "time")), (Some(&b"Placed"[..]), None), "nothing tells when");
    let refused = kitchen.options.clone().set("outbox.mark", "row").run_command(&["status"]);
    assert!(refused.0 == 78 && refused.2.contains("the table has no sent_at"), "{refused:?}");
    let sent = ["send", "--topic", &kitchen.topic, "--key", "k", "--type", "Sent", "{}"];
    answer(&kitchen.owner(), &sent);
    kitchen.relay();
    assert_eq!(kitchen.seen().last().map(|record| text(header(record, "type"))).as_deref(), Some("Sent"));
}

static SPRING: Recipe = Recipe {
    name: "spring",
    title: "Spring and JPA",
    insert: "INSERT INTO \"OutboxEvent\" (id, \"eventId\", destination, \"aggregateId\", \"eventType\", payload, \"createdAt\") \
             VALUES (nextval('\"OutboxEvent_SEQ\"') - 49, gen_random_uuid(), '{topic}', '{key}', 'Placed', '{n}', now() AT TIME ZONE 'UTC')",
    expected: "SELECT \"eventId\", \"aggregateId\", payload FROM \"OutboxEvent\" ORDER BY id",
    unsent: "SELECT count(*) FROM \"OutboxEvent\" WHERE \"publishedAt\" IS NULL",
    form: "full",
};

#[test]
fn the_table_of_an_entity_whose_numbers_are_drawn_by_hibernate() {
    let kitchen = Kitchen::new(&SPRING);
    kitchen.postgres.sql(&kitchen.database, "GRANT USAGE ON SEQUENCE \"OutboxEvent_SEQ\" TO shop");
    let (code, _, stderr) = kitchen.owner().set("outbox.order", "key").run_command(&["migrate"]);
    assert!(code == 78 && stderr.contains("draws from no sequence") && stderr.contains("outbox.order = \"none\""), "{stderr}");
    let plan = kitchen.migrate();
    assert!(plan.contains("CREATE INDEX CONCURRENTLY \"OutboxEvent_unsent\" ON \"public\".\"OutboxEvent\" (\"id\")"), "{plan}");
    kitchen.write(1..=20);
    let rows = kitchen.rows();
    kitchen.relay();
    assert_eq!(kitchen.records(), rows);
    let ages = "SELECT count(*) FROM \"OutboxEvent\" WHERE \"publishedAt\" - \"createdAt\" BETWEEN '0' AND '1 minute'";
    assert_eq!(kitchen.postgres.sql(&kitchen.database, ages), "20", "both are UTC");
}

pub static RAILS: Recipe = Recipe {
    name: "rails",
    title: "Rails",
    insert: "INSERT INTO outbox_events (topic, key, event_type, payload, created_at, updated_at) VALUES \
             ('{topic}', '{key}', 'Placed', '{\"n\": {n}}', now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC')",
    expected: "SELECT id, key, payload FROM outbox_events ORDER BY id",
    unsent: "SELECT count(*) FROM outbox_events WHERE published_at IS NULL",
    form: "full",
};

#[test]
fn the_table_of_rails() {
    let kitchen = follow(&RAILS);
    let hour = |record: &Seen| text(header(record, "time"))[..13].to_owned();
    let now = kitchen.postgres.sql(&kitchen.database, "SELECT to_char(min(created_at), 'YYYY-MM-DD\"T\"HH24') FROM outbox_events");
    assert_eq!(hour(&kitchen.seen()[0]), now, "in UTC");
    forget_marks(&kitchen, "published_at", "UPDATE outbox_events SET payload = '{\"n\": 0}' WHERE id = 25");
    let (code, _, stderr) = kitchen.owner().run_command(&["send", "--topic", &kitchen.topic, "{}"]);
    assert!(code == 1 && stderr.contains("has every other column a default?"), "{stderr}");
    numbers_by_identity_go_on(&kitchen);
}

/// The way to the cursor, as the page has it: no number comes twice, and none below one that was published.
fn numbers_by_identity_go_on(kitchen: &Kitchen) {
    let sql = |sql: &str| kitchen.postgres.sql(&kitchen.database, sql);
    let (last, before) = (sql("SELECT max(id) FROM outbox_events"), kitchen.records().len());
    // numbers of rows that are gone count too
    sql("DELETE FROM outbox_events WHERE id > 25");
    sql(block("Numbers by identity", "sql"));
    answer(&kitchen.owner(), &["migrate", "--roles", "--writer", "shop", "--relay", "outboxd", "--apply"]);
    assert!(!answer(&kitchen.owner(), &["migrate", "--plan"]).contains("is read in full form"));
    kitchen.write(31..=35);
    assert_eq!(sql(&format!("SELECT count(*) FROM outbox_events WHERE id > {last}")), "5");
    kitchen.relay();
    assert_eq!(kitchen.records().len(), before + 5);
}

static DJANGO: Recipe = Recipe {
    name: "django",
    title: "Django",
    insert: "INSERT INTO shop_outboxevent (event_id, topic, key, kind, payload, headers, created_at) \
             VALUES (gen_random_uuid(), '{topic}', '{key}', 'Placed', '{\"n\": {n}}', '{\"traceparent\": \"00-{n}\"}', now())",
    expected: "SELECT event_id, key, payload FROM shop_outboxevent ORDER BY id",
    unsent: "SELECT count(*) FROM shop_outboxevent WHERE sent_at IS NULL",
    form: "full",
};

#[test]
fn the_table_of_django() {
    let kitchen = follow(&DJANGO);
    assert_eq!(header(&kitchen.seen()[6], "traceparent"), Some(&b"00-7"[..]));
    forget_marks(&kitchen, "sent_at", "UPDATE shop_outboxevent SET event_id = gen_random_uuid() WHERE id = 25");
}

pub static LARAVEL: Recipe = Recipe {
    name: "laravel",
    title: "Laravel",
    insert: "INSERT INTO outbox_messages (uuid, topic, aggregate_id, type, payload) \
             VALUES (gen_random_uuid(), '{topic}', {n} % 3, 'Paid', '{\"n\":  {n}}')",
    expected: "SELECT uuid, aggregate_id, payload FROM outbox_messages ORDER BY id",
    unsent: "SELECT count(*) FROM outbox_messages",
    form: "full",
};

#[test]
fn the_table_of_laravel() {
    let kitchen = follow(&LARAVEL);
    assert_eq!(header(&kitchen.seen()[0], "time"), None, "the column is there, and empty");
    let wait = ["send", "--topic", &kitchen.topic, "--key", "5", "--type", "Paid", "--json", "{}"];
    let (code, stdout, stderr) = kitchen.owner().run_command(&wait);
    assert_eq!(code, 0, "{stderr}");
    let sent: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    kitchen.relay();
    assert_eq!(kitchen.seen().last().map(|record| text(header(record, "id"))).as_deref(), sent["id"].as_str());
    let (code, _, stderr) = kitchen.owner().run_command(&["send", "--topic", &kitchen.topic, "--key", "x", "--type", "Paid", "{}"]);
    assert!(code == 1 && stderr.contains("22P02"), "{stderr}");
}
