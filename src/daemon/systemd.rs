//! What the service manager is told, where there is one: ready, status, watchdog, stopping. Without one nothing happens.

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::sleep;

use crate::heartbeat::Heartbeat;
use crate::metrics::{Metrics, Vitals};

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
        let status = sentence(&metrics.vitals());
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        sleep(every).await;
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
    match vitals.halted {
        Some(code) => format!("halted: {}. {}", code.name(), code.remedy()),
        None if vitals.leader => format!("leader, {}", vitals.phase),
        None => vitals.phase.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::HaltCode;
    use crate::phase::Phase;

    #[test]
    fn the_status_is_one_line() {
        let metrics = Metrics::new("shop");
        assert_eq!(sentence(&metrics.vitals()), "standby");
        metrics.leader(true);
        metrics.phase(Phase::Relaying);
        assert_eq!(sentence(&metrics.vitals()), "leader, relaying");
        metrics.halted(Some(HaltCode::OldPrimary));
        assert!(sentence(&metrics.vitals()).starts_with("halted: old-primary. "));
    }
}
