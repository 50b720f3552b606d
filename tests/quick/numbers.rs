//! Numbers in the pages are those of the code: what a page says of a time or a size follows from the default configuration.

use std::time::Duration;

use outboxd::config::{self, Bytes, Config, Retention, Sources};
use outboxd::heartbeat::SILENCE_AT_MOST;
use outboxd::waits::Waits;

fn defaults() -> Config {
    let flags = vec![("outbox.name".to_owned(), "shop".to_owned())];
    config::load(&Sources { flags, ..Sources::default() }).expect("a configuration").config
}

/// The page without its line breaks.
fn page(path: &str) -> String {
    let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect("the page is there");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn times_of_the_protocol_are_those_that_the_pages_tell() {
    let config = defaults();
    let waits = Waits::new(config.relay.lease, config.relay.linger, config.relay.idle_interval);
    let lease = waits.lease;
    let told = [
        ("docs/guarantees.md", "renewed four times in that while", lease == 4 * waits.renewal),
        ("docs/guarantees.md", "neither a claim nor a batch for three leases gives the lease up", waits.stuck == 3 * lease),
        (
            "docs/guarantees.md",
            "looks again every six leases (a minute by default)",
            (waits.halted, 6 * lease) == (60 * SECOND, 60 * SECOND),
        ),
        ("docs/guarantees.md", "The evidence is taken twice, one lease apart", waits.evidence == lease),
        ("docs/guarantees.md", "are noticed within a second or two", waits.paused <= SECOND),
        ("docs/guarantees.md", "**Proof scan**: once a minute", waits.proof_scan == 60 * SECOND),
        ("docs/guarantees.md", "the relay watches for three leases before it claims", waits.went_back == 3 * lease),
        ("docs/guarantees.md", "(relay, asks every ten seconds)", waits.held == 10 * SECOND),
        ("docs/errors.md", "asks for held topics every ten seconds", waits.held == 10 * SECOND),
        ("docs/errors.md", "after each pause, of up to five seconds", waits.back_off_most == 5 * SECOND),
        ("docs/operating.md", "it first watches for three leases", waits.went_back == 3 * lease),
        ("docs/kubernetes.md", "has not ticked for ten seconds", SILENCE_AT_MOST == 10 * SECOND),
    ];
    assert_all(&told);
}

#[test]
fn defaults_are_those_that_the_pages_tell() {
    let Config { relay, kafka, outbox, .. } = defaults();
    let per_second = |linger: u32| SECOND.as_millis() / u128::from(linger);
    let told = [
        ("README.md", "(10 ms by default while there is work)", relay.linger == SECOND / 100),
        ("docs/operating.md", "| `10ms` (default) | 100 | 10 ms |", relay.linger == SECOND / 100 && per_second(10) == 100),
        ("docs/operating.md", "| `50ms` | 20 | 50 ms |", per_second(50) == 20),
        ("docs/operating.md", "| `200ms` | 5 | 200 ms |", per_second(200) == 5),
        ("docs/operating.md", "polls every `relay.idle_interval` (100 ms)", relay.idle_interval == SECOND / 10),
        ("docs/operating.md", "`kafka.journal_retention` (2 days)", kafka.journal_retention == 2 * DAY),
        ("docs/operating.md", "`outbox.retention` (24 h)", outbox.retention == Retention::For(DAY)),
        ("docs/operating.md", "`relay.batch_max_bytes` (4 MiB): 80 MiB", relay.batch_max_bytes == Bytes(4 << 20)),
        ("docs/operating.md", "`relay.lease`, 10 s", relay.lease == 10 * SECOND),
        ("docs/operating.md", "`kafka.transaction_timeout` (15 s) at most", kafka.transaction_timeout == 15 * SECOND),
        ("docs/kubernetes.md", "relay.shutdown_grace (25 s)", relay.shutdown_grace == 25 * SECOND),
        ("docs/guarantees.md", "`kafka.transaction_timeout` (15 s)", kafka.transaction_timeout == 15 * SECOND),
        // 1,000 events a second for a day
        (
            "docs/operating.md",
            "1,000 events/s × 86,400 s × 14 bytes = 1.2 GB a day, 2.4 GB kept",
            1_000 * 86_400 * 14 / 100_000_000 == 12,
        ),
        (
            "docs/operating.md",
            "At 400 bytes, 1,000 events/s for a day are 35 GB",
            (345..355).contains(&(1_000_u64 * 86_400 * 400 / 100_000_000)),
        ),
    ];
    assert_all(&told);
}

#[track_caller]
fn assert_all(told: &[(&str, &str, bool)]) {
    let missing: Vec<_> = told.iter().filter(|(path, sentence, _)| !page(path).contains(sentence)).collect();
    assert!(missing.is_empty(), "no page says this any more: {missing:?}");
    let wrong: Vec<_> = told.iter().filter(|(.., holds)| !holds).collect();
    assert!(wrong.is_empty(), "the code does otherwise: {wrong:?}");
}

/// What `verify` sorts of each event, in words of eight bytes: its row, its entry and place in the journal, its record, its key, and what
/// is claimed to lie where it lies. Discarded events come once more.
#[test]
fn verify_keeps_as_much_of_an_event_as_its_page_says() {
    let sources = ["src/verify/books.rs", "src/verify/comparing.rs"].map(page).join(" ");
    let fields = ["rows", "entries", "places", "records", "claims", "keys"];
    let words = fields.map(|field| {
        let (_, rest) = sources.split_once(&format!("{field}: Sorter<")).unwrap_or_else(|| panic!("no field {field}"));
        rest.split('>').next().and_then(|words| words.parse::<usize>().ok()).expect("a number of words")
    });
    let told = format!("up to {} bytes an event", 8 * words.iter().sum::<usize>());
    for path in ["docs/verify.md", "docs/errors.md"] {
        assert!(page(path).contains(&told), "{path} does not say: {told}");
    }
}
