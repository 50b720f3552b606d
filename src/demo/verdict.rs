//! The verdict of a demo: the account held against the table as it is at the end. Pure.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::account::{Account, Delays};
use super::paint::{Colour, Paint, grouped, milliseconds};

/// A row of the outbox table at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Identity of the event.
    pub id: Uuid,
    /// Whether the relay has marked it as sent.
    pub sent: Sent,
}

/// Whether a row is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Published, and marked.
    Yes,
    /// Not yet.
    No,
}

/// What happened beside the events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// From the first transaction to the last look.
    pub took: Duration,
    /// How often the relay was killed.
    pub kills: u32,
    /// What went wrong with the demo itself, if anything.
    pub trouble: Option<String>,
}

/// What became of everything that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What happened beside the events.
    pub course: Course,
    /// Transactions that were committed.
    pub transactions: u64,
    /// Transactions that were rolled back.
    pub rolled_back: u64,
    /// Events of committed transactions: those whose commit said so, and all that the table has.
    pub written: u64,
    /// Rows that are marked as sent.
    pub published: u64,
    /// Different events of `written` that were read.
    pub read_back: u64,
    /// Written, not read, and not waiting in the table either.
    pub lost: u64,
    /// Rows that are not marked: whatever became of them, the outbox still has them.
    pub waiting: u64,
    /// Records beyond the first of an event.
    pub duplicated: u64,
    /// Events that came for the first time after a later one of their key.
    pub reordered: u64,
    /// Events that were read and never committed.
    pub phantoms: u64,
    /// Records that some other client wrote.
    pub foreign: u64,
    /// Records that the broker let go of before they were read.
    pub skipped: u64,
    /// From commit to reader; nothing when nothing was read.
    pub delays: Option<Delays>,
}

impl Verdict {
    /// Holds what was read against what was written.
    pub fn of(account: &Account, rows: &[Row], course: Course) -> Self {
        let table: HashMap<Uuid, Sent> = rows.iter().map(|row| (row.id, row.sent)).collect();
        let committed = account.events().iter().filter(|(_, known)| known.committed.is_some()).map(|(id, _)| *id);
        // the outcome of a commit that failed is not known to the shop, but to the table
        let written: HashSet<Uuid> = committed.chain(table.keys().copied()).collect();
        let read = |id: &Uuid| account.events().get(id).is_some_and(|known| known.copies > 0);
        let is_waiting = |id: &&Uuid| table.get(*id) == Some(&Sent::No);
        let lost = written.iter().filter(|id| !read(id) && !is_waiting(id));
        let phantoms = account.events().keys().filter(|id| read(id) && !written.contains(*id));
        let tally = account.tally();
        let count = |number: usize| number as u64;
        Self {
            course,
            transactions: tally.transactions,
            rolled_back: tally.rolled_back,
            written: count(written.len()),
            published: count(table.values().filter(|sent| **sent == Sent::Yes).count()),
            read_back: count(written.iter().filter(|id| read(id)).count()),
            lost: count(lost.count()),
            waiting: count(table.keys().filter(is_waiting).count()),
            duplicated: tally.duplicated,
            reordered: tally.reordered,
            phantoms: count(phantoms.count()),
            foreign: tally.foreign,
            skipped: tally.skipped,
            delays: account.overall(),
        }
    }

    /// Whether everything that was written was published and read back, and nothing else.
    pub fn is_good(&self) -> bool {
        let faults = [self.lost, self.waiting, self.reordered, self.phantoms, self.skipped];
        self.course.trouble.is_none() && self.written > 0 && faults.iter().all(|&count| count == 0)
    }

    /// The verdict in one sentence.
    pub fn sentence(&self) -> String {
        if let Some(trouble) = &self.course.trouble {
            return format!("The demo did not end well: {trouble}.");
        }
        let found = [
            (self.written == 0, "nothing was written"),
            (self.lost > 0, "events were lost"),
            (self.phantoms > 0, "events of rolled-back transactions were published"),
            (self.reordered > 0, "events came out of order"),
            (self.waiting > 0, "not everything was published before the demo ended"),
            (self.skipped > 0, "the broker let go of records before they were read"),
        ];
        let found: Vec<&str> = found.iter().filter(|(is, _)| *is).map(|(_, words)| *words).collect();
        if !found.is_empty() {
            return format!("Bad: {}.", found.join("; "));
        }
        let repeated = if self.duplicated == 0 { "once" } else { "some of it twice" };
        format!("Good: all that was committed was read back, in order per key, {repeated}.")
    }

    /// For a person, on lines of at most 80 characters (a trouble may be longer).
    pub fn text(&self, colour: Colour) -> String {
        let mut lines = vec![String::new(), self.opening(), String::new()];
        for (label, count, remark) in self.counts() {
            lines.push(format!("  {label:<12} {:>9}   {remark}", grouped(count)).trim_end().to_owned());
        }
        let paint = if self.is_good() { Paint::Good } else { Paint::Bad };
        lines.extend([String::new(), paint.on(&self.sentence(), colour), String::new()]);
        lines.extend(MODE.map(|line| Paint::Faint.on(line, colour)));
        lines.join("\n") + "\n"
    }

    fn opening(&self) -> String {
        let kills = match self.course.kills {
            0 => "its relay was not killed".to_owned(),
            1 => "its relay was killed once".to_owned(),
            many => format!("its relay was killed {many} times"),
        };
        format!("The demo ran for {} s; {kills}.", self.course.took.as_secs())
    }

    /// Each count with its name and a remark. What is usually nothing is left out while it is nothing.
    fn counts(&self) -> Vec<(&'static str, u64, String)> {
        let origin = format!("events of {} transactions; {} rolled back", grouped(self.transactions), grouped(self.rolled_back));
        let kills = if self.course.kills > 0 { ", kills included" } else { "" };
        let delay = self.delays.map_or(String::new(), |delays| {
            format!("p50 {}, p99 {} after commit{kills}", milliseconds(delays.p50), milliseconds(delays.p99))
        });
        let always = [
            ("written", self.written, origin),
            ("published", self.published, "marked in the outbox table".to_owned()),
            ("read back", self.read_back, delay),
            ("lost", self.lost, String::new()),
            ("duplicated", self.duplicated, self.why_duplicated().to_owned()),
            ("out of order", self.reordered, String::new()),
        ];
        let seldom = [
            ("waiting", self.waiting, "still in the outbox table when time was up"),
            ("phantoms", self.phantoms, "read, but never committed"),
            ("unread", self.skipped, "records that were gone before they were read"),
            ("foreign", self.foreign, "records of some other client"),
        ];
        let seldom = seldom.into_iter().filter(|(_, count, _)| *count > 0);
        always.into_iter().chain(seldom.map(|(label, count, remark)| (label, count, remark.to_owned()))).collect()
    }

    fn why_duplicated(&self) -> &'static str {
        match (self.duplicated, self.course.kills) {
            (0, 0) => "",
            (0, _) => "no kill met events between publish and mark",
            (_, 0) => "at_least_once may publish events again",
            (_, _) => "a kill between publish and mark repeats events",
        }
    }

    /// One object; names are stable, times are seconds.
    pub fn json(&self) -> Value {
        let seconds = |delay: fn(Delays) -> Duration| self.delays.map(|delays| delay(delays).as_secs_f64());
        json!({
            "good": self.is_good(),
            "sentence": self.sentence(),
            "delivery": "at_least_once",
            "took_seconds": self.course.took.as_secs_f64(),
            "relay_kills": self.course.kills,
            "transactions": self.transactions,
            "rolled_back": self.rolled_back,
            "written": self.written,
            "published": self.published,
            "read_back": self.read_back,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "out_of_order": self.reordered,
            "waiting": self.waiting,
            "phantoms": self.phantoms,
            "unread": self.skipped,
            "foreign": self.foreign,
            "p50_seconds": seconds(|delays| delays.p50),
            "p99_seconds": seconds(|delays| delays.p99),
        })
    }
}

/// What no verdict of the demo may be read without.
const MODE: [&str; 3] = [
    "The broker inside knows no transactions, so the relay ran at_least_once. With",
    "Kafka, exactly_once is the default: nobody who reads committed records sees an",
    "event twice, whenever the relay is killed.",
];

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::account::Record;
    use super::*;

    /// Three events of one key, written, marked and read.
    struct World {
        account: Account,
        rows: Vec<Row>,
        course: Course,
    }

    fn record(number: u128) -> Record {
        Record { id: Uuid::from_u128(number), key: "order-1".into(), version: number as u64 }
    }

    fn row(number: u128, sent: Sent) -> Row {
        Row { id: Uuid::from_u128(number), sent }
    }

    impl World {
        fn new() -> Self {
            let mut account = Account::default();
            account.committed(&[1, 2, 3].map(Uuid::from_u128), Instant::now());
            account.rolled_back();
            let rows = [1, 2, 3].map(|number| row(number, Sent::Yes)).to_vec();
            Self { account, rows, course: Course { took: Duration::from_secs(60), kills: 2, trouble: None } }
        }

        fn read(mut self, numbers: &[u128]) -> Self {
            numbers.iter().for_each(|number| self.account.read(record(*number), Instant::now()));
            self
        }

        fn verdict(&self) -> Verdict {
            Verdict::of(&self.account, &self.rows, self.course.clone())
        }
    }

    #[test]
    fn a_run_in_which_everything_arrived_once_is_good() {
        let verdict = World::new().read(&[1, 2, 3]).verdict();
        assert!(verdict.is_good());
        let counts = (verdict.written, verdict.published, verdict.read_back, verdict.lost, verdict.duplicated);
        assert_eq!(counts, (3, 3, 3, 0, 0));
        assert_eq!((verdict.transactions, verdict.rolled_back), (1, 1));
    }

    #[test]
    fn duplicates_are_counted_explained_and_no_fault() {
        let verdict = World::new().read(&[1, 2, 1, 2, 3]).verdict();
        assert_eq!((verdict.duplicated, verdict.read_back, verdict.is_good()), (2, 3, true));
        let text = verdict.text(Colour::Off);
        assert!(text.contains("duplicated           2   a kill between publish and mark repeats events"), "{text}");
        assert!(verdict.sentence().contains("some of it twice"));
    }

    #[test]
    fn an_event_that_was_never_read_is_lost() {
        let verdict = World::new().read(&[1, 3]).verdict();
        assert_eq!((verdict.lost, verdict.read_back, verdict.is_good()), (1, 2, false));
        assert_eq!(verdict.sentence(), "Bad: events were lost.");
    }

    #[test]
    fn what_the_table_still_has_is_waiting_and_not_lost() {
        let mut world = World::new().read(&[1, 2]);
        world.rows[2] = row(3, Sent::No);
        let verdict = world.verdict();
        assert_eq!((verdict.waiting, verdict.lost, verdict.published, verdict.is_good()), (1, 0, 2, false));
    }

    #[test]
    fn a_committed_event_that_the_table_lacks_must_have_been_read() {
        let mut world = World::new().read(&[1, 2]);
        world.rows.pop();
        assert_eq!(world.verdict().lost, 1);
        assert_eq!(world.read(&[3]).verdict().lost, 0);
    }

    #[test]
    fn a_commit_whose_answer_was_lost_counts_as_the_table_says() {
        let mut world = World::new().read(&[1, 2, 3, 4]);
        world.rows.push(row(4, Sent::Yes));
        let verdict = world.verdict();
        assert_eq!((verdict.written, verdict.phantoms, verdict.is_good()), (4, 0, true));
    }

    #[test]
    fn an_event_that_was_never_committed_is_a_phantom() {
        let verdict = World::new().read(&[1, 2, 3, 4]).verdict();
        assert_eq!((verdict.phantoms, verdict.read_back, verdict.is_good()), (1, 3, false));
    }

    #[test]
    fn events_out_of_order_and_records_gone_are_faults_and_foreign_records_none() {
        assert!(!World::new().read(&[1, 3, 2]).verdict().is_good());
        let mut world = World::new().read(&[1, 2, 3]);
        world.account.foreign();
        assert!(world.verdict().is_good());
        world.account.skipped(1);
        assert!(!world.verdict().is_good());
    }

    #[test]
    fn a_demo_that_failed_or_wrote_nothing_proved_nothing() {
        let mut world = World::new().read(&[1, 2, 3]);
        world.course.trouble = Some("the disk is full".into());
        assert_eq!(world.verdict().sentence(), "The demo did not end well: the disk is full.");
        assert!(!world.verdict().is_good());
        assert!(!Verdict::of(&Account::default(), &[], Course::default()).is_good());
    }

    #[test]
    fn the_text_fits_on_eighty_columns_and_is_plain_without_colour() {
        let mut world = World::new().read(&[1, 3, 2, 3, 9]);
        world.account.foreign();
        world.account.skipped(1);
        world.rows.push(row(8, Sent::No));
        for kills in [0, 1, 2] {
            world.course.kills = kills;
            let text = world.verdict().text(Colour::Off);
            assert!(!text.contains('\x1b'));
            for line in text.lines().filter(|line| !line.starts_with("Bad: ")) {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
        assert!(World::new().read(&[1, 2, 3]).verdict().text(Colour::On).contains("\x1b[32mGood: "));
        assert!(world.verdict().text(Colour::On).contains("\x1b[31mBad: "));
    }

    #[test]
    fn the_object_says_the_same() {
        let verdict = World::new().read(&[1, 2, 2]).verdict();
        let object = verdict.json();
        for (name, value) in [("written", 3), ("read_back", 2), ("lost", 1), ("duplicated", 1), ("relay_kills", 2)] {
            assert_eq!(object[name], value, "{name}");
        }
        assert_eq!((&object["good"], &object["delivery"]), (&json!(false), &json!("at_least_once")));
    }
}
