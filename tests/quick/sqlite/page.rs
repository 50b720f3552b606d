//! What `docs/sqlite.md` tells to type is typed here.

use outboxd::source::Source;

use super::*;
use crate::source_conformance::{batch, relaying};

/// The blocks of SQL of the page, in order.
fn blocks() -> Vec<&'static str> {
    let page = include_str!("../../../docs/sqlite.md");
    page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().expect("a block ends")).collect()
}

#[tokio::test]
async fn a_service_writes_as_the_page_says() {
    let world = World::fresh(Setup::default()).await;
    world.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT NOT NULL); INSERT INTO orders VALUES (42, 'new')").await;
    world.sql(blocks()[0]).await;
    let (mut reader, _) = relaying(&world, 1).await;
    let read = batch(&mut reader).await;
    let event = read.events().next().expect("one");
    assert_eq!((event.topic, event.key, event.kind), ("orders", Some(&b"order-42"[..]), "OrderPlaced"));
    assert_eq!(event.payload, Some(&b"{\"total\": 3}"[..]));
    assert_eq!(world.numbers("SELECT count(*) FROM orders WHERE state = 'placed'").await, [1]);
}

#[tokio::test]
async fn a_copy_is_made_an_outbox_of_its_own_as_the_page_says() {
    let mut world = World::fresh(Setup::default()).await;
    world.insert(&["1"]).await;
    let before = world.source().look().await.expect("look").outbox;
    world.settings.file = world.copy("copy.db").await;
    assert_eq!(blocks().len(), 2, "all blocks are typed");
    world.sql(blocks()[1]).await;
    world.source().look().await.expect_err("it was never an outbox");
    world.settings.outbox.name = "staging".into();
    world.source().migrate().await.expect("migrated");
    let standing = world.source().look().await.expect("look");
    assert!(standing.outbox != before && standing.applied.n == 0, "{standing:?}");
    assert!(world.unsent().await.is_empty(), "what the other one publishes does not come from here");
    let late = world.insert(&["2"]).await;
    assert_eq!(world.unsent().await, late);
}
