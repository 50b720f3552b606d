//! `outboxd check`: looks at everything, changes nothing, fences nobody.

use std::time::Duration;

use super::{Format, assembly};
use crate::check::{self, Report, Seen};
use crate::config::{Config, ConfigErrors, Delivery};
use crate::fault::{Fault, Halt};
use crate::identity;
use crate::journal::View;
use crate::sink::Sink;
use crate::sink::kafka::KafkaSink;
use crate::source::any::{AnySource, Checkup};
use crate::source::{Source, Standing};

/// How long reading the journal may take beyond the longest transaction.
const MARGIN: Duration = Duration::from_secs(20);

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At the configuration alone.
    Offline,
    /// At database and Kafka too.
    Everything,
}

impl From<bool> for Reach {
    fn from(offline: bool) -> Self {
        if offline { Self::Offline } else { Self::Everything }
    }
}

/// Prints what was found, and what follows; the exit code is that of the worst failure.
pub async fn check(config: &Config, reach: Reach, format: Format) -> u8 {
    let seen = match reach {
        Reach::Offline => Seen::default(),
        Reach::Everything => look(config).await,
    };
    print(&Report::new(config, &seen), format)
}

/// The same of a configuration that does not hold together.
pub fn check_errors(errors: &ConfigErrors, format: Format) -> u8 {
    print(&Report::of_errors(errors), format)
}

fn print(report: &Report, format: Format) -> u8 {
    match format {
        Format::Text => print!("{}", report.text()),
        Format::Json => println!("{}", report.json()),
    }
    report.exit_code()
}

async fn look(config: &Config) -> Seen {
    let source = assembly::database(config, config.kafka.delivery);
    let database = source.checkup().await;
    let sink = match assembly::kafka(config, config.kafka.delivery) {
        Ok(sink) => sink,
        Err(fault) => return Seen { database: Some(database), cluster: Some(Err(fault)), ..Seen::default() },
    };
    let mut topics: Vec<String> =
        check::wanted(config, database.as_ref().ok()).topics.into_iter().map(|topic| topic.name).collect();
    let mut seen = Seen::default();
    if config.kafka.delivery == Delivery::ExactlyOnce {
        topics.push(sink.journal_topic().to_owned());
    }
    let mut cluster = sink.checkup(topics).await;
    if config.kafka.delivery == Delivery::ExactlyOnce && cluster.is_ok() {
        match sink.plan_journal(config.relay.batch_max_events as usize).await {
            Ok(plan) => seen.journal = Some(plan),
            Err(fault) => cluster = Err(fault),
        }
        let mut topics = cluster.iter().flat_map(|cluster| &cluster.topics);
        if topics.any(|topic| topic.name == sink.journal_topic() && topic.state.is_some()) {
            seen.agreement = agreement(config, &database, &source, &sink).await;
        }
    }
    Seen { database: Some(database), cluster: Some(cluster), ..seen }
}

/// Whether journal and database agree, by the look that the relay takes before it fences anybody.
async fn agreement(
    config: &Config,
    database: &Result<Checkup, Fault>,
    source: &AnySource,
    sink: &KafkaSink,
) -> Option<Result<(), Fault>> {
    database.as_ref().ok()?;
    let standing = match source.look().await {
        Ok(standing) => standing,
        // told where the outbox itself is
        Err(Fault::Misconfigured { .. } | Fault::Refused { .. } | Fault::Standby) => return None,
        Err(fault) => return Some(Err(fault)),
    };
    let looking = sink.look(standing.outbox, standing.applied);
    let view = tokio::time::timeout(config.kafka.transaction_timeout + MARGIN, looking).await;
    let late = || Fault::kafka("timeout", "the journal could not be read to its end in time");
    Some(view.unwrap_or_else(|_| Err(late())).and_then(|view| judge(&standing, &view).map_err(Fault::from)))
}

/// What went before is not known here, so that only a later primary can be told from this one.
fn judge(standing: &Standing, view: &View) -> Result<(), Halt> {
    identity::judge_journal(standing, view, view.last.n)
}
