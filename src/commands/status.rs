//! `outboxd status`: read from the database alone, so that it answers while no relay runs.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::{Value, json};

use super::{EXIT_DONE, Failure, Format, assembly};
use crate::check::printable;
use crate::config::Config;
use crate::fault::{EVENTS_TRUNCATED, Fault, HaltCode};
use crate::source::any::AnySource;
use crate::source::desk::{Figures, OpenWriter};

/// The source counts no further.
const COUNTED_TO: u64 = 10_000;

/// Code of a table that a relay refuses to serve.
const UNFIT: &str = "OBX204";

/// The page that has a part for each code.
const ERRORS: &str = "docs/errors.md";

/// Where the outbox stands.
pub(super) struct Report {
    name: String,
    figures: Figures,
    writers: Vec<OpenWriter>,
}

/// Prints where the outbox stands.
pub async fn status(config: &Config, format: Format) -> Result<u8, Failure> {
    let report = report(&assembly::database(config, config.kafka.delivery), &config.outbox.name).await?;
    match format {
        Format::Text => print!("{}", report.text()),
        Format::Json => println!("{}", report.json()),
    }
    Ok(EXIT_DONE)
}

/// Shortest time between two reports: each asks the database.
const LEAST: Duration = Duration::from_millis(200);

/// Prints where the outbox stands again and again, on a terminal in place, until the process is ended. An outage is told and outlasted.
pub async fn watch_status(config: &Config, every: Duration, format: Format) -> Result<u8, Failure> {
    let source = assembly::database(config, config.kafka.delivery);
    let in_place = format == Format::Text && std::io::stdout().is_terminal();
    loop {
        if in_place {
            print!("\x1b[H\x1b[2J");
        }
        match (report(&source, &config.outbox.name).await, format) {
            (Ok(report), Format::Text) => println!("{}", report.text()),
            (Ok(report), Format::Json) => println!("{}", report.json()),
            (Err(fault @ Fault::Unavailable { .. }), _) => eprintln!("{}", Failure::from(fault)),
            (Err(fault), _) => return Err(fault.into()),
        }
        tokio::time::sleep(every.max(LEAST)).await;
    }
}

/// Reads the report.
pub(super) async fn report(source: &AnySource, name: &str) -> Result<Report, Fault> {
    let (figures, writers) = (source.figures().await?, source.open_writers().await?);
    Ok(Report { name: name.to_owned(), figures, writers })
}

impl Report {
    /// One object; names are stable, times are seconds.
    pub(super) fn json(&self) -> Value {
        let figures = &self.figures;
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        json!({
            "outbox": self.name,
            "sentence": self.sentence(),
            "delivery": figures.delivery,
            "pending_events": figures.pending.min(COUNTED_TO),
            "pending_is_more": figures.pending > COUNTED_TO,
            "oldest_pending_seconds": seconds(figures.oldest),
            "parked_events": figures.parked,
            "blocked_events": figures.blocked,
            "held_topics": figures.held,
            "last_batch": figures.applied,
            "owner": figures.owner,
            "lease_epoch": figures.epoch,
            "lease_left_seconds": seconds(figures.lease_left),
            "paused": figures.paused.as_ref().map(|(by, reason, age)| json!({
                "by": by, "reason": reason, "seconds": age.as_secs_f64(),
            })),
            "halted": figures.halted.as_ref().map(|(code, evidence, age)| json!({
                "code": code, "evidence": evidence, "seconds": age.as_secs_f64(),
                "error": HaltCode::named(code).map(HaltCode::obx), "remedy": HaltCode::named(code).map(HaltCode::remedy),
            })),
            "refused": figures.refused.as_ref().map(|(cause, remedy)| json!({
                "code": UNFIT, "cause": cause, "remedy": remedy,
            })),
            "alarms": self.truncated().map(|(topic, evidence)| json!({
                "code": EVENTS_TRUNCATED.name, "topic": topic, "evidence": evidence,
            })).collect::<Vec<_>>(),
            "open_writers": self.writers.iter().map(|writer| json!({
                "pid": writer.pid, "prepared": writer.gid, "seconds": seconds(writer.age),
            })).collect::<Vec<_>>(),
        })
    }

    /// Topics that lack events that were published to them, with the evidence.
    fn truncated(&self) -> impl Iterator<Item = (&str, &str)> {
        self.figures.pins.iter().filter_map(|(topic, pin)| Some((&**topic, pin.truncated.as_deref()?)))
    }

    fn text(&self) -> String {
        let figures = &self.figures;
        let mut lines = vec![
            self.sentence(),
            String::new(),
            format!("pending      {}", self.pending()),
            format!("oldest       {}", figures.oldest.map_or("-".into(), rounded)),
            format!("last batch   {}", figures.applied),
            format!("owner        {}", self.owner()),
            format!("delivery     {}", figures.delivery),
        ];
        if figures.parked > 0 {
            lines.push(format!("parked       {} (outboxd parked list)", figures.parked));
        }
        if figures.held > 0 {
            lines.push(format!("held topics  {} (why: reason in the view …_pending)", figures.held));
        }
        if figures.blocked > 0 {
            lines.push(format!("blocked      {} wait behind these", figures.blocked.min(COUNTED_TO)));
        }
        if let Some((by, reason, age)) = &figures.paused {
            lines.push(format!("paused       for {} by {}: {}", rounded(*age), printable(by), printable(reason)));
        }
        if let Some((code, evidence, age)) = &figures.halted {
            lines.push(format!("halted       {code} for {}: {}", rounded(*age), printable(evidence)));
            lines.extend(HaltCode::named(code).into_iter().flat_map(way_out));
        }
        if let Some((cause, remedy)) = &figures.refused {
            lines.push(format!("refused      {UNFIT}: {}. {remedy}", printable(cause)));
        }
        lines.extend(self.truncated().map(|(topic, evidence)| {
            format!("alarm        {} of {}: {}", EVENTS_TRUNCATED.name, printable(topic), printable(evidence))
        }));
        if self.truncated().next().is_some() {
            lines.push(format!("remedy       {}", EVENTS_TRUNCATED.remedy));
        }
        lines.extend(self.writers.iter().map(|writer| format!("open writer  {}", described(writer))));
        lines.join("\n") + "\n"
    }

    fn sentence(&self) -> String {
        let (name, trouble) = (&self.name, self.trouble());
        let waiting = if self.figures.pending == 1 { "1 event waits".into() } else { format!("{} events wait", self.pending()) };
        let what = match (&self.figures.halted, &self.figures.owner) {
            (Some((code, ..)), _) => format!("halted ({code}): {waiting} for a person"),
            (None, _) if self.figures.paused.is_some() => format!("paused; {waiting}"),
            (None, None) => format!("relayed by nobody; {waiting}"),
            (None, Some(owner)) if self.figures.pending > 0 => format!("relayed by {owner}; {waiting}"),
            (None, Some(owner)) if trouble.is_empty() => format!("relayed by {owner}; nothing waits"),
            (None, Some(owner)) => format!("relayed by {owner}; nothing waits for its turn"),
        };
        format!("Outbox {name} is {what}{trouble}.")
    }

    /// What does not become better by itself, or is no longer in its turn: nobody may read "nothing waits" over it.
    fn trouble(&self) -> String {
        let figures = &self.figures;
        let alarms = self.truncated().count() as u64;
        let counts = [
            ("parked events", figures.parked),
            ("held topics", figures.held),
            ("events behind these", figures.blocked.min(COUNTED_TO)),
            ("topics that lack what was published to them", alarms),
        ];
        let told: Vec<String> =
            counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what}: {count}")).collect();
        if told.is_empty() { String::new() } else { format!("; {}", told.join(", ")) }
    }

    fn pending(&self) -> String {
        if self.figures.pending > COUNTED_TO { format!("more than {COUNTED_TO}") } else { self.figures.pending.to_string() }
    }

    fn owner(&self) -> String {
        match (&self.figures.owner, self.figures.lease_left) {
            (Some(owner), Some(left)) => format!("{owner} (lease {}, {} left)", self.figures.epoch, rounded(left)),
            (Some(owner), None) => owner.clone(),
            (None, _) => "-".into(),
        }
    }
}

/// What a person can do about a halt, and where all of it is told.
fn way_out(code: HaltCode) -> [String; 2] {
    [format!("remedy       {}", code.remedy()), format!("more         {} in {ERRORS}", code.obx())]
}

fn described(writer: &OpenWriter) -> String {
    let who = match (&writer.gid, writer.pid) {
        (Some(gid), _) => format!("prepared transaction {gid}"),
        (None, Some(pid)) => format!("server process {pid}"),
        (None, None) => "a transaction that this role may not see".into(),
    };
    format!("{who}, open for {}", writer.age.map_or("an unknown time".into(), rounded))
}

/// A time for a person: whole seconds above ten, tenths below.
fn rounded(time: Duration) -> String {
    if time.as_secs() >= 10 {
        humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
    } else {
        format!("{:.1}s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Pin, Pins};

    fn sentence(change: impl FnOnce(&mut Figures)) -> String {
        report_of(change).sentence()
    }

    fn report_of(change: impl FnOnce(&mut Figures)) -> Report {
        let mut figures = Figures {
            outbox: uuid::Uuid::nil(),
            delivery: "exactly_once".into(),
            pending: 0,
            oldest: None,
            parked: 0,
            blocked: 0,
            held: 0,
            applied: 9,
            owner: Some("one".into()),
            epoch: 1,
            lease_left: None,
            paused: None,
            refused: None,
            halted: None,
            pins: Pins::new(),
        };
        change(&mut figures);
        Report { name: "shop".into(), figures, writers: Vec::new() }
    }

    #[test]
    fn a_reason_cannot_move_the_cursor_or_begin_a_line() {
        let (mut report, before) = (report_of(|_| ()), report_of(|_| ()).text().lines().count());
        report.figures.paused = Some(("anna\u{1b}[H".into(), "moving\nowner        nobody".into(), Duration::ZERO));
        let shown = report.text();
        assert!(!shown.contains('\u{1b}') && shown.contains("moving\\nowner"), "{shown:?}");
        assert_eq!(shown.lines().count(), before + 1);
    }

    #[test]
    fn a_halt_is_told_with_its_remedy_and_its_page() {
        for code in HaltCode::ALL {
            let report = report_of(|figures| figures.halted = Some((code.name().into(), "evidence".into(), Duration::ZERO)));
            let (text, json) = (report.text(), report.json());
            let told = format!("\nremedy       {}\nmore         {} in docs/errors.md\n", code.remedy(), code.obx());
            assert!(text.contains(&told), "{text}");
            assert_eq!((&json["halted"]["error"], &json["halted"]["remedy"]), (&json!(code.obx()), &json!(code.remedy())));
        }
        let newer = report_of(|figures| figures.halted = Some(("of-tomorrow".into(), "evidence".into(), Duration::ZERO)));
        assert!(!newer.text().contains("remedy") && newer.json()["halted"]["remedy"].is_null(), "{}", newer.text());
    }

    #[test]
    fn nothing_waits_only_where_nothing_does() {
        assert_eq!(sentence(|_| ()), "Outbox shop is relayed by one; nothing waits.");
        let truncated = Pin { truncated: Some("orders[0] ends early".into()), ..Pin::of(1) };
        let troubles = [
            (sentence(|figures| figures.parked = 2), "parked events: 2"),
            (sentence(|figures| figures.held = 1), "held topics: 1"),
            (sentence(|figures| figures.blocked = 5), "events behind these: 5"),
        ];
        for (found, told) in troubles {
            assert_eq!(found, format!("Outbox shop is relayed by one; nothing waits for its turn; {told}."));
        }
        let alarm = sentence(|figures| drop(figures.pins.insert("orders".into(), truncated)));
        assert!(alarm.contains("nothing waits for its turn; topics that lack what was published to them: 1"), "{alarm}");
        assert_eq!(sentence(|figures| figures.pending = 1), "Outbox shop is relayed by one; 1 event waits.");
        let all = sentence(|figures| (figures.pending, figures.parked, figures.held) = (3, 1, 1));
        assert_eq!(all, "Outbox shop is relayed by one; 3 events wait; parked events: 1, held topics: 1.");
    }
}
