//! `outboxd parked`: events that were set aside, and what becomes of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{EXIT_DONE, Failure, Format, assembly, operator};
use crate::check::printable;
use crate::config::Config;
use crate::fault::EXIT_NO;
use crate::source::desk::{Chosen, Decision, ParkedEvent};

/// Events that are listed at most.
const MOST: u32 = 1_000;

/// What is to be done with parked events.
#[derive(Clone, Debug)]
pub struct Deciding {
    /// Retry or discard.
    pub decision: Decision,
    /// Which events.
    pub chosen: Chosen,
    /// Why; stands in the audit.
    pub reason: String,
    /// Only say how many it would be.
    pub dry_run: bool,
    /// How to print.
    pub format: Format,
}

/// Prints parked events, grouped by reason.
pub async fn parked_list(config: &Config, chosen: &Chosen, format: Format) -> Result<u8, Failure> {
    let source = assembly::database(config, config.kafka.delivery);
    let (events, all) = (source.parked(chosen, MOST).await?, source.count_parked(chosen).await?);
    match format {
        Format::Json => println!("{}", json!({ "parked": all, "events": events.iter().map(as_json).collect::<Vec<_>>() })),
        Format::Text => print!("{}", as_text(&events, all)),
    }
    Ok(EXIT_DONE)
}

/// Prints one parked event.
pub async fn parked_show(config: &Config, id: &str, format: Format) -> Result<u8, Failure> {
    let chosen = Chosen { ids: vec![id.to_owned()], ..Chosen::default() };
    let events = assembly::database(config, config.kafka.delivery).parked(&chosen, 1).await?;
    let Some(event) = events.first() else {
        eprintln!("event {id} is not parked");
        return Ok(EXIT_NO);
    };
    match format {
        Format::Json => println!("{}", as_json(event)),
        Format::Text => print!("{}", described(event)),
    }
    Ok(EXIT_DONE)
}

/// Retries or discards parked events; with none of them the answer is no.
pub async fn parked_decide(config: &Config, deciding: &Deciding) -> Result<u8, Failure> {
    let source = assembly::database(config, config.kafka.delivery);
    let count = match deciding.dry_run {
        true => source.count_parked(&deciding.chosen).await?,
        false => source.decide(deciding.decision, &deciding.chosen, &operator(), &deciding.reason).await?,
    };
    let done = match (deciding.dry_run, deciding.decision) {
        (true, Decision::Retry) => "would be retried",
        (true, Decision::Discard) => "would be discarded",
        (false, Decision::Retry) => "retried",
        (false, Decision::Discard) => "discarded",
    };
    match deciding.format {
        Format::Json => {
            println!("{}", json!({ "action": deciding.decision.action(), "events": count, "dry_run": deciding.dry_run }))
        }
        Format::Text => println!("{count} {} {done}", if count == 1 { "event" } else { "events" }),
    }
    Ok(if count == 0 { EXIT_NO } else { EXIT_DONE })
}

fn as_json(event: &ParkedEvent) -> Value {
    json!({
        "seq": event.seq,
        "id": event.id,
        "topic": event.topic,
        "key": event.key,
        "code": event.code,
        "detail": event.detail,
        "blocking": event.blocking,
        "parked_seconds": event.age.as_secs_f64(),
        "waiting_behind": event.waiting,
    })
}

fn as_text(events: &[ParkedEvent], all: u64) -> String {
    if events.is_empty() {
        return "no such event is parked\n".into();
    }
    let mut text = String::new();
    for group in events.chunk_by(|one, next| one.code == next.code) {
        let shown = if all > events.len() as u64 { " shown" } else { "" };
        text += &format!("{}: {}{shown}\n", group[0].code, counted(group.len() as u64));
        for event in group {
            let key = event.key.as_deref().map_or("no key".into(), |key| format!("key {}", printable(key)));
            let waiting = if event.waiting > 0 { format!(", {} behind it", event.waiting) } else { String::new() };
            let [id, topic, detail] = [&event.id, &event.topic, &event.detail].map(|text| printable(text));
            text += &format!("  {id}  seq {}  {topic}  {key}{waiting}\n      {detail}\n", event.seq);
        }
    }
    let rest = all.saturating_sub(events.len() as u64);
    if rest > 0 {
        text += &format!("and {rest} more: choose with --code or --topic\n");
    }
    text + "Correct the cause, then `outboxd parked retry --all`; or `outboxd parked discard --all --reason …`; or choose by ID.\n"
}

fn counted(count: u64) -> String {
    if count == 1 { "1 event".into() } else { format!("{count} events") }
}

fn described(event: &ParkedEvent) -> String {
    let age = humantime::format_duration(Duration::from_secs(event.age.as_secs()));
    let lines = [
        format!("id       {}", printable(&event.id)),
        format!("seq      {}", event.seq),
        format!("topic    {}", printable(&event.topic)),
        format!("key      {}", event.key.as_deref().map_or("-".into(), printable)),
        format!("reason   {}: {}", event.code, printable(&event.detail)),
        format!("parked   {age} ago"),
        format!("waiting  {} behind it{}", event.waiting, if event.blocking { "" } else { " (its key does not wait)" }),
    ];
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_services_wrote_cannot_move_the_cursor_or_begin_a_line() {
        let evil = "a\u{1b}[2J\nno such event is parked\u{9b}é".to_owned();
        let (id, topic, detail) = (evil.clone(), evil.clone(), evil.clone());
        let (key, code, age) = (Some(evil), "too_large".to_owned(), Duration::ZERO);
        let event = ParkedEvent { seq: 1, id, topic, key, code, detail, blocking: true, age, waiting: 0 };
        for (shown, lines) in [(described(&event), 7), (as_text(std::slice::from_ref(&event), 1), 4)] {
            assert_eq!(shown.lines().count(), lines, "{shown:?}");
            assert!(!shown.contains(['\u{1b}', '\u{9b}']) && shown.contains("a\\u{1b}[2J\\nno such"), "{shown:?}");
            assert!(shown.contains('é'), "letters stay: {shown:?}");
        }
    }
}
