//! How services write events: the programs of `docs/writers`, and the one in Rust, each with the rights of a writer. What the README shows
//! of them is held equal by the quick tests.

use std::process::Command;

use sqlx::PgPool;

use crate::stage::answer;
use crate::support::{DaemonOptions, Postgres, Version, process};

/// Languages that every machine with our tests has.
const AT_HAND: [&str; 2] = ["sql", "python"];

/// A database with a service's table and ours, the rights given; how the service logs in.
fn service() -> (&'static Postgres, String, String) {
    let postgres = Postgres::shared(Version::V18);
    let database = postgres.create_database("writers");
    postgres.sql(&database, "CREATE TABLE orders (id int PRIMARY KEY, state text NOT NULL); INSERT INTO orders VALUES (42, 'new')");
    postgres.sql(&database, "GRANT SELECT, UPDATE ON orders TO shop");
    let name = crate::support::Kafka::shared().unique_topic("writers");
    let brokers = crate::support::Kafka::shared().brokers();
    let owner = DaemonOptions::new(&name, &postgres.url(&database, "postgres"), &brokers);
    answer(&owner, &["migrate"]);
    answer(&owner, &["migrate", "--roles", "--writer", "shop", "--relay", "outboxd", "--apply"]);
    let url = postgres.url(&database, "shop");
    (postgres, database, url)
}

/// Order and events, as the database has them.
const WRITTEN: &str =
    "SELECT (SELECT state FROM orders), topic, key, type, payload->>'total', count(*) FROM outbox GROUP BY 1, 2, 3, 4, 5";

#[test]
fn every_language_at_hand_writes_its_event() {
    let (postgres, database, url) = service();
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/writers"));
    let told = process::run({
        script.arg(&url);
        script
    });
    println!("{told}");
    let ok: Vec<&str> = told.lines().filter_map(|line| line.strip_suffix(": ok")).collect();
    assert!(AT_HAND.iter().all(|language| ok.contains(language)), "{told}");
    assert_eq!(postgres.sql(&database, WRITTEN), format!("placed|orders|order-42|OrderPlaced|3|{}", ok.len()));
}

#[tokio::test]
async fn a_service_in_rust_writes_its_event() {
    let (postgres, database, url) = service();
    write(&PgPool::connect(&url).await.unwrap()).await.unwrap();
    assert_eq!(postgres.sql(&database, WRITTEN), "placed|orders|order-42|OrderPlaced|3|1");
}

async fn write(pool: &PgPool) -> Result<(), sqlx::Error> {
    // begin
    // Rust, sqlx
    let mut transaction = pool.begin().await?;
    sqlx::query("UPDATE orders SET state = 'placed' WHERE id = $1").bind(42).execute(&mut *transaction).await?;
    let insert = "INSERT INTO outbox (topic, key, type, payload) VALUES ($1, $2, $3, $4::json)";
    let insert = sqlx::query(insert).bind("orders").bind("order-42").bind("OrderPlaced");
    insert.bind(r#"{"total": 3}"#).execute(&mut *transaction).await?;
    transaction.commit().await?;
    // end
    Ok(())
}
