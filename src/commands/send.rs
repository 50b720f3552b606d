//! `outboxd send`: one event through the table, as a service would write it.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::{EXIT_DONE, Failure, Format, NOT_TAKEN, UNREADABLE_EVENT, assembly};
use crate::config::Config;
use crate::fault::EXIT_NOT_NOW;
use crate::fault::Fault;
use crate::sink::kafka::Place;
use crate::source::desk::{Insert, Inserted};

/// An event to send.
#[derive(Debug)]
pub struct Sending {
    /// Its identity.
    pub id: Uuid,
    /// Its topic, as a service would write it.
    pub topic: String,
    /// Its key.
    pub key: Option<String>,
    /// Which event.
    pub kind: String,
    /// Its value; `-` reads it from standard input.
    pub payload: String,
    /// A JSON object.
    pub headers: Option<String>,
    /// How long to wait until it is published.
    pub wait: Option<Duration>,
    /// How to print.
    pub format: Format,
}

/// Inserts an event; with `wait`, tells where it was published.
pub async fn send(config: &Config, sending: Sending) -> Result<u8, Failure> {
    let source = assembly::database(config, config.kafka.delivery);
    let payload = match sending.payload.as_str() {
        "-" => standard_input()?,
        text => text.to_owned(),
    };
    let watch = match sending.wait {
        Some(most) => Some((assembly::kafka(config, config.kafka.delivery)?.watch().await?, most)),
        None => None,
    };
    let (id, topic, kind) = (sending.id, sending.topic, sending.kind);
    let insert = Insert { id, topic, key: sending.key, kind, payload: Some(payload), headers: sending.headers };
    let inserted = source.insert(&insert).await.map_err(not_inserted)?;
    let begun = Instant::now();
    let Some((watch, most)) = watch else {
        print(&inserted, None, sending.format);
        return Ok(EXIT_DONE);
    };
    let Some(fingerprint) = inserted.fingerprint else {
        print(&inserted, None, sending.format);
        let cause = "the event is in the table, and this role may not read there what becomes of it: its id is no uuid";
        return Err(Failure::new(UNREADABLE_EVENT, cause, "Grant it SELECT on the table, or ask `outboxd trace`"));
    };
    match watch.find(inserted.seq, fingerprint, most).await? {
        Some(place) => {
            print(&inserted, Some((place, begun.elapsed())), sending.format);
            Ok(EXIT_DONE)
        }
        None => {
            print(&inserted, None, sending.format);
            let most = humantime::format_duration(most);
            eprintln!("event {} is in the table, but was not published within {most}", shown(&inserted));
            Ok(EXIT_NOT_NOW)
        }
    }
}

/// A value that its column does not take is no outage. The server's own message could quote it, so only its code is told.
fn not_inserted(fault: Fault) -> Failure {
    match fault {
        Fault::Unavailable { ref detail, .. } if fault.is_rejection() => {
            let remedy = "Are payload and headers valid JSON, is the topic not empty, and has every other column a default?";
            Failure::new(NOT_TAKEN, format!("the table does not take this event ({detail})"), remedy)
        }
        _ => fault.into(),
    }
}

fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| Failure::refused_by_system("standard input cannot be read", &error))?;
    Ok(text)
}

fn print(inserted: &Inserted, published: Option<(Place, Duration)>, format: Format) {
    match (format, published) {
        (Format::Json, published) => {
            let place = published.map(|(place, took)| {
                let (topic, partition, offset) = (place.topic, place.partition, place.offset);
                json!({ "topic": topic, "partition": partition, "offset": offset, "seconds": took.as_secs_f64() })
            });
            println!("{}", json!({ "id": inserted.id, "seq": inserted.seq, "published": place }));
        }
        (Format::Text, None) => println!("{}", shown(inserted)),
        (Format::Text, Some((place, took))) => {
            let Place { topic, partition, offset } = place;
            println!("{} {topic}[{partition}]@{offset} after {} ms", shown(inserted), took.as_millis());
        }
    }
}

fn shown(inserted: &Inserted) -> &str {
    inserted.id.as_deref().unwrap_or("inserted")
}
