//! The pages for those who move and for those who read: what they tell to type is typed here.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::check::Checked;
use crate::history;
use crate::stage::{answer, status};
use crate::support::{DaemonOptions, Kafka, Postgres, Version, eventually, let_pass};

const MIGRATING: &str = include_str!("../../docs/migrating.md");
const CONSUMERS: &str = include_str!("../../docs/consumers.md");
const SOON: Duration = Duration::from_secs(60);

/// The only block in this language below a heading of a page.
fn block<'a>(page: &'a str, heading: &str, language: &str) -> &'a str {
    let part = page.split("\n## ").find(|part| part.lines().next() == Some(heading)).expect("the heading is there");
    let fence = format!("```{language}\n");
    let mut blocks = part.split(&fence).skip(1).map(|rest| rest.split("```").next().expect("a block ends"));
    let block = blocks.next().expect("there is a block");
    assert!(blocks.next().is_none(), "{heading} has another block, which nobody types");
    block
}

/// Words of a line, of which some stand in single quotes.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    parts.flat_map(|(at, part)| if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }).collect()
}

#[test]
fn a_poller_is_replaced_as_the_page_says() {
    let (postgres, kafka) = (Postgres::shared(Version::V18), Kafka::shared());
    let (database, topic) = (postgres.create_database("moving"), kafka.unique_topic("moving"));
    let table = "CREATE TABLE events (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid NOT NULL DEFAULT gen_random_uuid(), \
        topic text NOT NULL, key text, payload json, created_at timestamptz NOT NULL DEFAULT now(), published bool NOT NULL DEFAULT false)";
    postgres.sql(&database, table);
    let insert = |payloads: &str, published: bool| {
        let rows = format!("SELECT '{topic}', 'k', to_json(p), {published} FROM unnest(ARRAY[{payloads}]) p");
        postgres.sql(&database, &format!("INSERT INTO events (topic, key, payload, published) {rows}"));
    };
    insert("1, 2, 3", true);
    insert("4, 5", false);
    postgres.sql(&database, block(MIGRATING, "From a home-made poller", "sql"));
    let columns = r#"{ type = "", source = "", headers = "" }"#;
    let options = DaemonOptions::new(&topic, &postgres.url(&database, "outboxd"), &kafka.brokers());
    let options = options.set("outbox.table", "events").set("outbox.columns", columns);
    let typed = block(MIGRATING, "Before either", "sh").replace("orders", &topic);
    let typed = typed.replace("postgres://owner@127.0.0.1:5432/shop", &postgres.url(&database, "postgres"));
    let lines: Vec<&str> = typed.lines().collect();
    let (run, before) = lines.split_last().expect("there are lines");
    assert!(*run == "outboxd run" && before.len() == 4, "{lines:?}");
    for line in before {
        match *line {
            // the servers of these tests write nothing safely
            "outboxd check" => assert_eq!(Checked::of(&options).titles("failed"), BTreeSet::from(["fsync".to_owned()])),
            line => drop(answer(&options, &words(line)[1..])),
        }
    }
    let daemon = options.start();
    daemon.wait_log("paused: nothing is published");
    let told = status(&options);
    assert!(told["paused"].is_object() && told["pending_events"] == 2, "{told}");
    insert("6", false);
    let_pass(Duration::from_millis(500));
    assert!(history::read(kafka, &topic, 12).is_empty(), "nothing is published while it is paused");
    answer(&options, &["resume", "--reason", "the poller is stopped"]);
    eventually("what was unsent is published", SOON, || status(&options)["pending_events"] == 0);
    let payloads: Vec<_> =
        history::read(kafka, &topic, 12).iter().map(|seen| String::from_utf8(seen.payload.clone().unwrap()).unwrap()).collect();
    assert_eq!(payloads, ["4", "5", "6"], "and nothing that the poller had published");
    let kept = postgres.sql(&database, "SELECT count(*), count(sent_at) FROM events");
    assert_eq!(kept, "6|6", "the history stays");
}

#[test]
fn what_debezium_has_published_goes_as_the_page_says() {
    let postgres = Postgres::shared(Version::V18);
    let database = postgres.create_database("debezium");
    let id = |n: u32| format!("00000000-0000-4000-8000-00000000000{n}");
    let rows: Vec<String> = (1..=3).map(|n| format!("('{}')", id(n))).collect();
    let copied = format!("INSERT INTO published VALUES {};", rows[..2].join(", "));
    let typed = block(MIGRATING, "From Debezium", "sql");
    let (copy, _) = typed.lines().find_map(|line| Some((line, line.strip_prefix("-- \\copy published FROM ")?))).expect("a copy");
    let table = format!("CREATE TABLE outboxevent (id uuid PRIMARY KEY); INSERT INTO outboxevent VALUES {};", rows.join(", "));
    postgres.sql(&database, &format!("{table}{}", typed.replace(copy, &copied)));
    assert_eq!(postgres.sql(&database, "SELECT id FROM outboxevent"), id(3));
}

#[test]
fn a_consumer_remembers_what_it_has_seen_as_the_page_says() {
    let postgres = Postgres::shared(Version::V18);
    let database = postgres.create_database("consumers");
    postgres.sql(&database, "CREATE TABLE stock (sku text PRIMARY KEY, reserved int); INSERT INTO stock VALUES ('A-1', 0)");
    let typed = block(CONSUMERS, "Exactly once ends at the topic", "sql");
    postgres.sql(&database, typed);
    let seen = "SELECT (SELECT count(*) FROM seen_events), reserved FROM stock";
    assert_eq!(postgres.sql(&database, seen), "1|3");
    let again = typed.lines().find(|line| line.starts_with("INSERT INTO seen_events")).expect("the line is there");
    let again = again.replace("ON CONFLICT DO NOTHING;", "ON CONFLICT DO NOTHING RETURNING 'done again';");
    assert_eq!(postgres.sql(&database, &again), "", "no row: it was done");
}
