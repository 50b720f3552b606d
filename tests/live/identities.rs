//! Ids that are no uuid tell an event only together with what it says: `verify`, `trace` and `reconcile` on tables that have such.

use serde_json::{Value, json};

use crate::stage::answer;
use crate::tables::{Kitchen, LARAVEL, RAILS, Recipe};

/// Exit code and what is told.
fn ask(kitchen: &Kitchen, arguments: &[&str]) -> (i32, Value) {
    let (code, stdout, stderr) = kitchen.options.run_command(arguments);
    (code, serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("exit code {code}: {stdout}{stderr}")))
}

fn sql(kitchen: &Kitchen, sql: &str) -> String {
    kitchen.postgres.sql(&kitchen.database, sql)
}

/// Two batches of a table, the second of ten events.
fn published(recipe: &'static Recipe, keep: &str) -> Kitchen {
    let kitchen = Kitchen::new(recipe);
    kitchen.migrate();
    kitchen.write(1..=20);
    kitchen.relay();
    kitchen.write(21..=30);
    sql(&kitchen, keep);
    kitchen.relay();
    let (code, report) = ask(&kitchen, &["verify", "--json"]);
    let topic = &report["topics"][0];
    assert_eq!((code, &topic["published"], &topic["found"]), (0, &30.into(), &json!([])), "{report:#}");
    kitchen
}

/// The database lost the last mark, and Kafka the journal; one row says something else by now, and is another event.
async fn nothing_comes_twice(kitchen: &Kitchen, back: &str, change: &str) {
    sql(kitchen, "DELETE FROM outboxd_applied WHERE n = (SELECT max(n) FROM outboxd_applied)");
    sql(kitchen, back);
    sql(kitchen, change);
    kitchen.kafka.delete_topic(&format!("outboxd.{}.journal", kitchen.topic)).await;
    tokio::task::block_in_place(|| {
        answer(&kitchen.owner(), &["migrate"]);
        let told = answer(&kitchen.options, &["reconcile", "--dry-run"]);
        assert!(told.contains("10 unsent rows; 9 of them lie in the topic, 1 were not published"), "{told}");
        let told = answer(&kitchen.options, &["reconcile", "--reason", "it is gone"]);
        assert!(told.contains("reconciled: 9 rows are marked"), "{told}");
        let before = kitchen.records();
        kitchen.relay();
        let after = kitchen.records();
        assert_eq!((&after[..before.len()], after.len()), (&before[..], before.len() + 1), "only what says something else comes");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_number_as_id_is_verified_traced_and_reconciled() {
    let kitchen = tokio::task::block_in_place(|| {
        let kitchen = published(&RAILS, "SELECT 1");
        let (code, life) = ask(&kitchen, &["trace", "25", "--json"]);
        assert_eq!((code, &life["stage"], &life["read_back"]), (0, &"published".into(), &"equal".into()), "{life}");
        sql(&kitchen, "UPDATE outbox_events SET payload = '{\"n\": 0}' WHERE id = 25");
        let (code, life) = ask(&kitchen, &["trace", "25", "--json"]);
        assert_eq!((code, &life["stage"]), (3, &"unaccounted".into()), "that event was never published: {life}");
        let (code, report) = ask(&kitchen, &["verify", "--json"]);
        let found = report["topics"][0]["found"].to_string();
        assert!(code == 3 && found.contains("lost") && found.contains("phantom"), "{report:#}");
        sql(&kitchen, "UPDATE outbox_events SET payload = '{\"n\": 25}' WHERE id = 25");
        assert_eq!(ask(&kitchen, &["verify", "--json"]).0, 0);
        kitchen
    });
    let back = "UPDATE outbox_events SET published_at = NULL WHERE id > 20";
    nothing_comes_twice(&kitchen, back, "UPDATE outbox_events SET payload = '{\"n\": 0}' WHERE id = 25").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn text_as_id_is_verified_traced_and_reconciled_also_without_rows() {
    let kitchen = tokio::task::block_in_place(|| {
        let kitchen = published(&LARAVEL, "CREATE TABLE kept AS SELECT * FROM outbox_messages");
        let id = sql(&kitchen, "SELECT uuid FROM kept WHERE id = 25");
        // the row is gone with its mark: the id alone is not enough, and that is said; the record tells the rest
        let (code, told, _) = kitchen.options.run_command(&["trace", &id]);
        assert!(code == 3 && told.contains("not the journal"), "{code} {told}");
        let (code, life) = ask(&kitchen, &["trace", &format!("{}:0:7", kitchen.topic), "--json"]);
        assert_eq!((code, &life["stage"], &life["read_back"]), (0, &"published".into(), &"same_id".into()), "{life}");
        assert_eq!(life["published"]["offset"], 7, "{life}");
        kitchen
    });
    let back = "INSERT INTO outbox_messages SELECT * FROM kept";
    nothing_comes_twice(&kitchen, back, "UPDATE outbox_messages SET payload = '{\"n\":  0}' WHERE id = 25").await;
}
