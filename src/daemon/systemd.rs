//! What the service manager is told, where there is one: ready, status, watchdog, stopping. Without one nothing happens.

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::sleep;

use crate::heartbeat::Heartbeat;
use crate::metrics::{Metrics, Vitals};
use crate::phase::Phase;

/// Between two looks at what there is to tell.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Says that the process is up, and from then on what it does, and that it lives, for as long as its heart beats. Up does not mean that
/// database or Kafka could be reached: an outage at the start is waited out like any other.
pub(super) async fn report(heart: &Heartbeat, metrics: &Metrics) -> Infallible {
    let every = sd_notify::watchdog_enabled().map_or(LOOK_EVERY, |watchdog| LOOK_EVERY.min(watchdog / 3));
    let mut told = String::new();
    tell(&[NotifyState::Ready]);
    loop {
        if heart.is_alive() {
            tell(&[NotifyState::Watchdog]);
        }
        // at first nobody has been asked yet, and what leaves at once has its reason in the log
        sleep(every).await;
        let status = sentence(&metrics.vitals());
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
    }
}

/// Says that the process drains.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// A service manager that does not listen is no reason to stop relaying.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

fn sentence(vitals: &Vitals) -> String {
    if let Some(code) = vitals.halted {
        return format!("halted: {}. {}", code.name(), code.remedy());
    }
    let doing = if vitals.leader { format!("leader, {}", vitals.phase) } else { vitals.phase.to_string() };
    match silent(vitals) {
        Some(who) => format!("{doing}; {who} has not answered"),
        None => doing,
    }
}

/// Who keeps it from working. Without a database it looks like a standby, and without Kafka like a leader that looks.
fn silent(vitals: &Vitals) -> Option<&'static str> {
    let asks_kafka = vitals.leader && vitals.phase != Phase::Paused;
    match (vitals.database_up, vitals.kafka_up) {
        (false, _) => Some("the database"),
        (true, None | Some(false)) if asks_kafka => Some("Kafka"),
        (true, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Dependency, HaltCode};

    #[test]
    fn the_status_is_one_line() {
        let metrics = Metrics::new("shop");
        assert_eq!(sentence(&metrics.vitals()), "standby; the database has not answered");
        metrics.dependency(Dependency::Database, true);
        metrics.dependency(Dependency::Kafka, false);
        assert_eq!(sentence(&metrics.vitals()), "standby", "which has no need of Kafka");
        metrics.leader(true);
        metrics.phase(Phase::Looking);
        assert_eq!(sentence(&metrics.vitals()), "leader, looking; Kafka has not answered");
        metrics.phase(Phase::Paused);
        assert_eq!(sentence(&metrics.vitals()), "leader, paused", "which has no need of Kafka either");
        metrics.dependency(Dependency::Kafka, true);
        metrics.phase(Phase::Relaying);
        assert_eq!(sentence(&metrics.vitals()), "leader, relaying");
        metrics.halted(Some(HaltCode::OldPrimary));
        assert!(sentence(&metrics.vitals()).starts_with("halted: old-primary. "));
    }
}
