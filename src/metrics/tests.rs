use super::*;
use crate::event::{BatchBuilder, BatchLimits, Event, Pushed};
use crate::metrics::topics::MOST_TOPICS;

/// As in the contract. What has no value of its own yet is there with HELP and TYPE.
const NAMES: &[(&str, &str)] = &[
    ("outboxd_events_published_total", "counter"),
    ("outboxd_batches_total", "counter"),
    ("outboxd_published_bytes_total", "counter"),
    ("outboxd_pending_events", "gauge"),
    ("outboxd_oldest_pending_seconds", "gauge"),
    ("outboxd_seen_to_published_seconds", "histogram"),
    ("outboxd_created_to_published_seconds", "histogram"),
    ("outboxd_fetch_seconds", "histogram"),
    ("outboxd_publish_seconds", "histogram"),
    ("outboxd_mark_seconds", "histogram"),
    ("outboxd_batch_events", "histogram"),
    ("outboxd_claims_total", "counter"),
    ("outboxd_faults_total", "counter"),
    ("outboxd_rescued_events_total", "counter"),
    ("outboxd_parked_total", "counter"),
    ("outboxd_parked_events", "gauge"),
    ("outboxd_blocked_events", "gauge"),
    ("outboxd_held_topics", "gauge"),
    ("outboxd_truncated_topics", "gauge"),
    ("outboxd_open_gaps", "gauge"),
    ("outboxd_oldest_gap_seconds", "gauge"),
    ("outboxd_fetch_form", "gauge"),
    ("outboxd_phase", "gauge"),
    ("outboxd_leader", "gauge"),
    ("outboxd_halted", "gauge"),
    ("outboxd_last_poll_timestamp_seconds", "gauge"),
    ("outboxd_dependency_up", "gauge"),
    ("outboxd_build_info", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_resident_memory_bytes", "gauge"),
];

fn batch<'a>(topics: impl IntoIterator<Item = &'a str>) -> Batch {
    let mut builder = BatchBuilder::new(BatchLimits { events: 1000, bytes: 1 << 20 });
    for (seq, topic) in (1..).zip(topics) {
        let event = Event {
            seq,
            id: uuid::Uuid::nil().into(),
            topic,
            key: None,
            kind: "",
            source: None,
            payload: Some(b"12345"),
            headers: None,
            created_at_us: Some(now_us() - 2_000_000),
        };
        assert_eq!(builder.push(&event), Pushed::Kept);
    }
    builder.build().expect("events were pushed")
}

/// The value of a series, written as in the text but without the label of the outbox.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.text().replace("{outbox=\"shop\"}", "").replace("outbox=\"shop\",", "").replace(",outbox=\"shop\"", "");
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok())
}

#[test]
fn every_name_is_there_from_the_start() {
    let text = Metrics::new("shop").text();
    for (name, kind) in NAMES {
        assert!(text.contains(&format!("\n# HELP {name} ")) || text.starts_with(&format!("# HELP {name} ")), "{name}");
        assert!(text.contains(&format!("\n# TYPE {name} {kind}\n")), "{name}");
    }
    let announced = text.lines().filter(|line| line.starts_with("# TYPE outboxd_")).count();
    assert_eq!(announced, NAMES.iter().filter(|(name, _)| name.starts_with("outboxd_")).count());
}

#[test]
fn a_family_is_announced_once_when_it_has_samples() {
    let metrics = Metrics::new("shop");
    metrics.published(&batch(["orders"]), Instant::now(), Duration::ZERO);
    metrics.fault(&Fault::Standby);
    for name in ["outboxd_events_published_total", "outboxd_published_bytes_total", "outboxd_faults_total"] {
        assert_eq!(metrics.text().matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
    }
}

#[test]
fn every_sample_carries_the_outbox() {
    let metrics = Metrics::new("shop");
    metrics.published(&batch(["orders"]), Instant::now(), Duration::ZERO);
    for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
        assert!(line.contains("outbox=\"shop\""), "{line}");
    }
}

#[test]
fn fixed_label_values_are_there_from_the_start() {
    let metrics = Metrics::new("shop");
    for cause in Cause::ALL {
        assert_eq!(value(&metrics, &format!("outboxd_claims_total{{cause=\"{cause}\"}}")), Some(0.0));
    }
    for code in HaltCode::ALL {
        assert_eq!(value(&metrics, &format!("outboxd_halted{{code=\"{}\"}}", code.name())), Some(0.0));
    }
    for phase in Phase::ALL {
        let expected = if phase == Phase::Standby { 1.0 } else { 0.0 };
        assert_eq!(value(&metrics, &format!("outboxd_phase{{phase=\"{phase}\"}}")), Some(expected));
    }
    assert_eq!(value(&metrics, "outboxd_dependency_up{dependency=\"kafka\"}"), Some(0.0));
    assert_eq!(value(&metrics, "outboxd_fetch_form{form=\"cursor\"}"), Some(0.0));
    assert_eq!(value(&metrics, &format!("outboxd_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), Some(1.0));
}

#[test]
fn a_published_batch_is_counted_by_topic() {
    let metrics = Metrics::new("shop");
    metrics.published(&batch(["orders", "invoices", "orders"]), Instant::now(), Duration::from_millis(4));
    assert_eq!(value(&metrics, "outboxd_events_published_total{topic=\"orders\"}"), Some(2.0));
    assert_eq!(value(&metrics, "outboxd_published_bytes_total{topic=\"orders\"}"), Some(10.0));
    assert_eq!(value(&metrics, "outboxd_events_published_total{topic=\"invoices\"}"), Some(1.0));
    assert_eq!(value(&metrics, "outboxd_batches_total"), Some(1.0));
    assert_eq!(value(&metrics, "outboxd_batch_events_sum"), Some(3.0));
    assert_eq!(value(&metrics, "outboxd_seen_to_published_seconds_count"), Some(3.0));
    let created = value(&metrics, "outboxd_created_to_published_seconds_sum").expect("is there");
    assert!((6.0..9.0).contains(&created), "{created}");
}

#[test]
fn topics_above_the_bound_share_a_label() {
    let metrics = Metrics::new("shop");
    let names: Vec<String> = (0..MOST_TOPICS + 20).map(|number| format!("topic-{number}")).collect();
    metrics.published(&batch(names.iter().map(String::as_str)), Instant::now(), Duration::ZERO);
    metrics.published(&batch(["topic-0", "topic-119"]), Instant::now(), Duration::ZERO);
    let text = metrics.text();
    let series = text.lines().filter(|line| line.starts_with("outboxd_events_published_total{")).count();
    assert_eq!(series, MOST_TOPICS + 1);
    assert_eq!(value(&metrics, "outboxd_events_published_total{topic=\"other\"}"), Some(21.0));
    assert_eq!(value(&metrics, "outboxd_events_published_total{topic=\"topic-0\"}"), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn ages_grow_while_nobody_tells_anything() {
    let metrics = Metrics::new("shop");
    metrics.leader(true);
    metrics.pending(Pending { events: 7, oldest_created_us: Some(now_us() - 3_000_000), ..Pending::default() });
    metrics.gaps(2, Some(Instant::now()));
    tokio::time::advance(Duration::from_secs(40)).await;
    let pending = value(&metrics, "outboxd_oldest_pending_seconds").expect("is there");
    assert!((43.0..44.0).contains(&pending), "{pending}");
    assert_eq!(value(&metrics, "outboxd_oldest_gap_seconds"), Some(40.0));
    assert_eq!(value(&metrics, "outboxd_pending_events"), Some(7.0));
    metrics.leader(false);
    assert_eq!(value(&metrics, "outboxd_oldest_pending_seconds"), Some(0.0));
    assert_eq!(value(&metrics, "outboxd_open_gaps"), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn silence_is_what_passed_since_the_relay_told_anything() {
    let metrics = Metrics::new("shop");
    metrics.phase(Phase::Relaying);
    tokio::time::advance(Duration::from_secs(9)).await;
    metrics.dependency(Dependency::Database, true);
    assert_eq!(metrics.silence(), Duration::from_secs(9));
    metrics.fetched(Duration::ZERO, Form::Cursor);
    assert_eq!(metrics.silence(), Duration::ZERO);
    tokio::time::advance(Duration::from_secs(9)).await;
    metrics.signs().beat();
    assert_eq!(metrics.silence(), Duration::ZERO, "a long reading shows that it goes on");
}

#[test]
fn who_steps_down_is_not_halted_any_more() {
    let metrics = Metrics::new("shop");
    metrics.leader(true);
    metrics.halted(Some(HaltCode::OldPrimary));
    metrics.leader(false);
    assert_eq!(metrics.vitals().halted, None);
}

#[test]
fn what_was_told_last_is_shown() {
    let metrics = Metrics::new("shop");
    metrics.phase(Phase::Halted);
    metrics.halted(Some(HaltCode::KafkaBehind));
    metrics.dependency(Dependency::Database, true);
    metrics.dependency(Dependency::Database, false);
    metrics.fetched(Duration::from_millis(1), Form::Cursor);
    assert_eq!(value(&metrics, "outboxd_phase{phase=\"standby\"}"), Some(0.0));
    assert_eq!(value(&metrics, "outboxd_phase{phase=\"halted\"}"), Some(1.0));
    assert_eq!(value(&metrics, "outboxd_halted{code=\"kafka-behind\"}"), Some(1.0));
    assert_eq!(value(&metrics, "outboxd_fetch_form{form=\"cursor\"}"), Some(1.0));
    let vitals = metrics.vitals();
    assert!(vitals.database_reached && !vitals.database_up);
}

#[test]
fn a_dependency_that_is_not_available_is_down() {
    let metrics = Metrics::new("shop");
    metrics.dependency(Dependency::Kafka, true);
    assert_eq!(value(&metrics, "outboxd_dependency_up{dependency=\"kafka\"}"), Some(1.0));
    metrics.fault(&Fault::kafka("transport", "connection refused"));
    assert_eq!(value(&metrics, "outboxd_dependency_up{dependency=\"kafka\"}"), Some(0.0));
    assert_eq!(value(&metrics, "outboxd_faults_total{code=\"transport\"}"), Some(1.0));
}

#[test]
fn a_clock_behind_the_database_gives_no_negative_age() {
    let metrics = Metrics::new("shop");
    metrics.pending(Pending { events: 1, oldest_created_us: Some(now_us() + 60_000_000), ..Pending::default() });
    let pending = value(&metrics, "outboxd_oldest_pending_seconds").expect("is there");
    assert!((0.0..1.0).contains(&pending), "{pending}");
}
