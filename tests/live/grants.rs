//! The relay's role has the rights that `outboxd migrate --roles` prints, and no other. Each of them is taken away in turn: who starts
//! without it leaves and names it; who runs waits, names it, and goes on when it is given back.

use std::time::Duration;

use crate::stage::{Mark, Stage, answer};
use crate::support::{Daemon, DaemonOptions, Kafka, Postgres, Version, eventually};

const SOON: Duration = Duration::from_secs(45);

/// The role of the relay. Roles belong to the whole server.
const PORTER: &str = "porter_of_grants";

/// What a person selects from with the relay's role; the relay itself does not.
const NOT_ITS_OWN: [&str; 2] = ["SELECT on outbox_pending", "SELECT on outboxd_audit"];

/// What a relay that has claimed does not need until it prunes, parks, holds, or starts again.
const SELDOM: [&str; 9] = [
    "DELETE on outbox",
    "SELECT on outboxd_migrations",
    "DELETE on outboxd_applied",
    "INSERT on outboxd_parked",
    "UPDATE on outboxd_parked",
    "INSERT on outboxd_held",
    "UPDATE on outboxd_held",
    "DELETE on outboxd_held",
    "INSERT on outboxd_audit",
];

/// One right, as it is granted.
#[derive(Debug)]
struct Right {
    what: String,
    object: String,
}

impl Right {
    /// Without quotes and schema, as the lists above have it.
    fn plain(&self) -> String {
        let object = self.object.trim_start_matches("SEQUENCE ").trim_start_matches("SCHEMA ").replace('"', "");
        format!("{} on {}", self.what, object.rsplit('.').next().unwrap())
    }

    fn is_among(&self, list: &[&str]) -> bool {
        list.contains(&self.plain().as_str())
    }

    fn take(&self, stage: &Stage<'_>) {
        sql(stage, &format!("REVOKE {} ON {} FROM {PORTER}", self.what, self.object));
    }

    fn give(&self, stage: &Stage<'_>) {
        sql(stage, &format!("GRANT {} ON {} TO {PORTER}", self.what, self.object));
    }

    /// Whether a line of the log says that this right is missing. A schema that may not be used hides what is in it.
    fn is_named_in(&self, log: &str) -> bool {
        let plain = self.plain();
        let (what, object) = plain.split_once(" on ").unwrap();
        let what = what.replace('"', "");
        let words = match what.as_str() {
            "USAGE" => format!("schema {object}"),
            // the books of migrations are read before the rights are looked at
            _ if object == "outboxd_migrations" => object.to_owned(),
            _ if self.object.starts_with("SEQUENCE ") => format!("{what} on sequence public.{object}"),
            _ => format!("{what} on public.{object}"),
        };
        let is_whole = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
        let names = |line: String| line.match_indices(&words).any(|(at, _)| is_whole(&line[at + words.len()..]));
        log.lines().filter(|line| line.contains("OBX203")).any(|line| names(line.replace("\\\"", "")))
    }
}

fn sql(stage: &Stage<'_>, statements: &str) -> String {
    stage.postgres.sql(&stage.database, statements)
}

/// Every right of the relay, out of what is printed.
fn rights(printed: &str) -> Vec<Right> {
    let mut rights = Vec::new();
    for grant in printed.lines().filter(|line| line.contains(PORTER)) {
        let (what, rest) = grant.trim_start_matches("GRANT ").split_once(" ON ").expect("a grant");
        let (objects, _) = rest.split_once(" TO ").expect("to somebody");
        for what in what.split(", ") {
            rights.extend(objects.split(", ").map(|object| Right { what: what.to_owned(), object: object.to_owned() }));
        }
    }
    rights
}

/// An outbox whose relay has the least rights.
fn stage(name: &str) -> (Stage<'static>, Vec<Right>) {
    let postgres = Postgres::shared(Version::V15);
    postgres.sql("postgres", &format!("DROP ROLE IF EXISTS {PORTER}; CREATE ROLE {PORTER} LOGIN PASSWORD 'right'"));
    let mut stage = Stage::new(name, Mark::Row, postgres, Kafka::shared());
    sql(&stage, "REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO shop");
    let printed =
        answer(&stage.options.of_role("postgres"), &["migrate", "--roles", "--writer", "shop", "--relay", PORTER, "--apply"]);
    let url = postgres.url(&stage.database, &format!("{PORTER}:right"));
    stage.options = stage.options.set("database.url", &url);
    let rights = rights(&printed);
    assert!(rights.len() > 20, "{rights:?}");
    (stage, rights)
}

fn exits_with(options: &DaemonOptions, code: i32) -> String {
    let daemon = options.start();
    assert_eq!(daemon.wait_exit(SOON), code, "{}", daemon.log());
    daemon.log()
}

#[test]
fn every_right_is_named_when_it_is_missing_and_waited_for_when_it_is_taken_away() {
    let (mut stage, rights) = stage("grants");
    for right in &rights {
        right.take(&stage);
        if !right.is_among(&NOT_ITS_OWN) {
            let log = exits_with(&stage.options, 77);
            assert!(right.is_named_in(&log), "{}: {log}", right.plain());
        }
        right.give(&stage);
    }
    stage.write();
    let daemon = stage.start("one");
    stage.wait_for_batches(3, SOON);
    // without these it works on, also after a claim
    let seldom: Vec<&Right> = rights.iter().filter(|right| right.is_among(&SELDOM) || right.is_among(&NOT_ITS_OWN)).collect();
    assert_eq!(seldom.len(), SELDOM.len() + NOT_ITS_OWN.len(), "{seldom:?}");
    seldom.iter().for_each(|right| right.take(&stage));
    claims_again(&stage);
    stage.wait_for_batches(3, SOON);
    seldom.iter().for_each(|right| right.give(&stage));
    for right in rights.iter().filter(|right| !seldom.iter().any(|seldom| seldom.plain() == right.plain())) {
        comes_back(&stage, &daemon, right);
    }
    parking_waits_for_its_right(&mut stage, &daemon);
    another_password_is_an_outage(&stage, &daemon);
    let aside = "SELECT (SELECT count(*) FROM outboxd_parked), (SELECT count(*) FROM outboxd_held)";
    assert_eq!(sql(&stage, aside), "0|0");
    assert_eq!(daemon.metric("outboxd_rescued_events_total"), 0.0);
    stage.prove();
}

/// Makes the relay connect and claim anew.
fn claims_again(stage: &Stage<'_>) {
    sql(stage, &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{PORTER}'"));
}

/// What the log says beyond what it said before.
fn told_since(daemon: &Daemon, before: usize) -> String {
    daemon.log()[before..].to_owned()
}

fn comes_back(stage: &Stage<'_>, daemon: &Daemon, right: &Right) {
    let before = daemon.log().len();
    right.take(stage);
    claims_again(stage);
    eventually(&format!("{} is named", right.plain()), SOON, || {
        assert!(daemon.is_running(), "{}: {}", right.plain(), told_since(daemon, before));
        right.is_named_in(&told_since(daemon, before))
    });
    let applied = stage.applied();
    stage.wait_for_writers(20);
    assert!(stage.applied() <= applied + 1, "it goes on without {}", right.plain());
    right.give(stage);
    stage.wait_for_batches(2, SOON);
}

/// Who may not park must not drop the event either, nor publish what waits behind it.
fn parking_waits_for_its_right(stage: &mut Stage<'_>, daemon: &Daemon) {
    let before = daemon.log().len();
    let right = Right { what: "INSERT".into(), object: "outboxd_parked".into() };
    right.take(stage);
    let topic = stage.topics.keys().next().unwrap();
    let spoilt = format!("INSERT INTO outbox (topic, key, payload, headers) VALUES ('{topic}', 'spoilt', '1', '[]') RETURNING id");
    let id = sql(stage, &spoilt);
    eventually("the right is named", SOON, || right.is_named_in(&told_since(daemon, before)));
    right.give(stage);
    eventually("it is parked", SOON, || sql(stage, "SELECT id FROM outboxd_parked") == id);
    answer(&stage.options, &["parked", "discard", &id, "--reason", "a test"]);
    stage.wait_for_batches(2, SOON);
}

/// Whoever comes from afar must know the password; the relay's connections are cut, and it is another one by then.
fn another_password_is_an_outage(stage: &Stage<'_>, daemon: &Daemon) {
    let hba = sql(stage, "SHOW hba_file");
    let kept = sql(stage, &format!("SELECT pg_read_file('{hba}')"));
    let rewrite = |text: &str| {
        let copy = format!("COPY (SELECT unnest(string_to_array($hba${text}$hba$, E'\\n'))) TO '{hba}'");
        sql(stage, &format!("{copy}; SELECT pg_reload_conf()"));
    };
    let before = daemon.log().len();
    rewrite(&format!("host all {PORTER} 127.0.0.1/32 scram-sha-256\n{kept}"));
    sql(stage, &format!("ALTER ROLE {PORTER} PASSWORD 'wrong'"));
    eventually("the password is asked for", SOON, || {
        claims_again(stage);
        told_since(daemon, before).contains("password authentication failed")
    });
    assert!(daemon.is_running());
    let log = exits_with(&stage.options.clone().set("relay.instance", "other"), 77);
    assert!(log.contains("OBX203") && log.contains("Correct role and password"), "{log}");
    sql(stage, &format!("ALTER ROLE {PORTER} PASSWORD 'right'"));
    stage.wait_for_batches(2, SOON);
    rewrite(&kept);
}
