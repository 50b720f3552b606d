//! A SQLite file: what is said of it, and what it is promised.

use super::cases::{FAILED, MISCONFIGURED};
use super::*;
use crate::config::{self, Sources};
use crate::source::sqlite;

fn config() -> Config {
    let flags = [("database.url", "sqlite:///srv/shop.db"), ("outbox.name", "shop")];
    let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    config::load(&Sources { flags, ..Sources::default() }).expect("a configuration").config
}

fn sound() -> sqlite::Checkup {
    let Outbox { row, .. } = outbox();
    let path = "/srv/shop.db".to_owned();
    sqlite::Checkup {
        table: "Outbox".into(),
        journal_mode: "wal".into(),
        writing: Ok(()),
        fit: Ok(()),
        triggers: Ok(Vec::new()),
        unsent_index: Ok(Some("outbox_unsent".into())),
        create_unsent: "CREATE INDEX;".into(),
        schema: Ok(()),
        row,
        acceptance: Ok(Acceptance {
            address: path.clone(),
            database: DatabaseIdentity { system: "sqlite".into(), timeline: 0 },
            addresses: vec![path],
            systems: vec!["sqlite".into()],
        }),
        aside: Ok(Aside { parked: 0, held: Vec::new() }),
        neighbours: Ok(Vec::new()),
        topics: Ok(Vec::new()),
    }
}

fn report(config: &Config, file: sqlite::Checkup) -> Report {
    let settings = vec![("max.message.bytes", "1048588".to_owned())];
    let seen = Seen {
        database: Some(Ok(Checkup::Sqlite(Box::new(file)))),
        cluster: Some(Ok(cluster())),
        journal: Some(TopicPlan { name: JOURNAL.into(), partitions: 1, replicas: 3, settings }),
        agreement: Some(Ok(())),
    };
    Report::new(config, &seen)
}

fn fault(code: &'static str) -> Fault {
    Fault::database(code, "somebody holds the lock")
}

fn missing() -> Fault {
    Fault::Missing { detail: "table outbox is not there".into(), remedy: "create it".into() }
}

const TURNS: (Name, State) = (Name::OneWriter, WARNING);

#[test]
fn a_sound_file_is_promised_all_but_that_nobody_waits() {
    let report = report(&config(), sound());
    assert_eq!(not_ok(&report), [TURNS]);
    assert_eq!(report.exit_code(), 0);
    let told: BTreeSet<Name> = report.findings.iter().map(|finding| finding.name).collect();
    assert_eq!(told, Name::ALL.iter().copied().filter(|name| name.is_of(Kind::File)).collect(), "every name is told");
    let waits = |promise: Promise| promise == Promise::WritersNeverWait;
    for guarantee in &report.guarantees {
        let expected = if waits(guarantee.promise) { Verdict::DoesNotHold } else { Verdict::Holds };
        assert_eq!((guarantee.promise, guarantee.verdict), (guarantee.promise, expected), "{:?}", guarantee.because);
        assert!(guarantee.rests_on.iter().all(|name| name.is_of(Kind::File)), "{:?}", guarantee.rests_on);
    }
}

#[test]
fn each_fault_of_a_file_is_named_and_nothing_else_is() {
    type Plant = fn(&mut Config, &mut sqlite::Checkup);
    let trigger = |file: &mut sqlite::Checkup, on_mark| {
        file.triggers = Ok(vec![Obstacle { name: "swallower".into(), on_mark, on_delete: !on_mark }]);
    };
    let cases: [(Plant, &[(Name, State)]); 15] = [
        (|_, file| file.journal_mode = "delete".into(), &[(Name::WalMode, WARNING)]),
        (|_, file| file.writing = Err(refused()), &[(Name::DatabaseRight, REFUSED)]),
        (|_, file| file.writing = Err(fault("timeout")), &[(Name::DatabaseRight, UNREACHABLE)]),
        (|_, file| file.fit = Err(missing()), &[(Name::Table, MISCONFIGURED)]),
        (|_, file| file.unsent_index = Ok(None), &[(Name::UnsentIndex, WARNING)]),
        (
            |config, file| {
                config.outbox.mark = Mark::Delete;
                file.unsent_index = Ok(None);
            },
            &[],
        ),
        (|_, file| file.triggers = Err(refused()), &[(Name::Triggers, State::Unseen)]),
        (|_, file| file.schema = Err(missing()), &[(Name::Schema, MISCONFIGURED)]),
        (|_, file| file.row = Ok(None), &[(Name::Outbox, MISCONFIGURED), (Name::Topics, State::Unseen)]),
        (
            |_, file| file.row.as_mut().expect("read").as_mut().expect("a row").table = "other".into(),
            &[(Name::Outbox, MISCONFIGURED)],
        ),
        (|_, file| file.acceptance.as_mut().expect("read").address = "/srv/copy.db".into(), &[(Name::Identity, FAILED)]),
        (|_, file| file.aside = Ok(Aside { parked: 2, held: Vec::new() }), &[(Name::Parked, WARNING)]),
        (
            |_, file| file.aside = Ok(Aside { parked: 0, held: vec![("a".into(), "topic_missing".into())] }),
            &[(Name::Held, WARNING)],
        ),
        (|config, _| config.outbox.order = Order::None, &[(Name::Order, WARNING)]),
        (|_, file| file.neighbours = Ok(vec!["other".into()]), &[]),
    ];
    for (place, (plant, expected)) in cases.into_iter().enumerate() {
        let (mut config, mut file) = (config(), sound());
        plant(&mut config, &mut file);
        let report = report(&config, file);
        let found: Vec<_> = not_ok(&report).into_iter().filter(|found| *found != TURNS).collect();
        assert_eq!(found, *expected, "case {place}");
        for finding in report.findings.iter().filter(|finding| finding.state != State::Ok) {
            assert!(finding.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()), "{finding:?} has no remedy");
        }
    }
    for (mark, on_mark, warned) in [(Mark::Row, true, true), (Mark::Delete, true, false), (Mark::Delete, false, true)] {
        let (mut config, mut file) = (config(), sound());
        config.outbox.mark = mark;
        trigger(&mut file, on_mark);
        let report = report(&config, file);
        assert_eq!(not_ok(&report).contains(&(Name::Triggers, WARNING)), warned, "{mark:?} {on_mark}");
    }
}

#[test]
fn what_a_server_alone_has_is_not_missed_of_a_file() {
    let offline = Report::new(&config(), &Seen::default());
    let missed: Vec<Name> = offline.guarantees.iter().flat_map(|g| g.because.iter().map(|reason| reason.name)).collect();
    assert!(missed.contains(&Name::WalMode) && missed.iter().all(|name| name.is_of(Kind::File)), "{missed:?}");
    assert_eq!(not_ok(&offline), [TURNS], "what follows from the kind of database needs no look");
    let server = Report::new(&super::config(), &Seen::default());
    let missed: Vec<Name> = server.guarantees.iter().flat_map(|g| g.because.iter().map(|reason| reason.name)).collect();
    assert!(missed.contains(&Name::Fsync) && missed.iter().all(|name| name.is_of(Kind::Server)), "{missed:?}");
}
