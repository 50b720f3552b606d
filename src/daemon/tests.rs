use tokio::time::advance;

use super::*;
use crate::fault::{Cause, Fault};
use crate::source::Takeover;

mod stage;

use stage::{Act, Actor, Diary, LEASE, NoChores, Row, SECOND, settings, start, start_with};

fn outage() -> Option<Fault> {
    Some(Fault::database("connect", "connection refused"))
}

#[tokio::test(start_paused = true)]
async fn a_restarted_process_takes_the_lease_of_its_own_name_once() {
    let row = Row::default();
    row.give("a", 1, LEASE);
    let process = start(&row, "a", 2, &[Act::Ends(SECOND, || End::LeaseLost)]);
    sleep(5 * SECOND).await;
    assert_eq!(process.diary.words(), ["leads", "leads"]);
    assert_eq!(row.content().takeovers, [Takeover::OwnInstance, Takeover::Expired]);
    assert_eq!(row.holder(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_takeover_is_used_up_by_an_answer_not_by_an_outage() {
    let row = Row::default();
    row.give("a", 1, LEASE);
    row.fails_with(outage());
    let process = start(&row, "a", 2, &[]);
    sleep(3 * SECOND).await;
    assert!(!process.metrics.vitals().database_reached);
    row.fails_with(None);
    sleep(6 * SECOND).await;
    assert_eq!((process.diary.words(), process.metrics.vitals().leader), (vec!["leads"], true));
    assert!(process.metrics.vitals().database_up);
}

#[tokio::test(start_paused = true)]
async fn of_two_processes_with_one_name_the_older_leaves_for_its_configuration() {
    let row = Row::default();
    let older = start(&row, "a", 1, &[]);
    sleep(SECOND).await;
    let younger = start(&row, "a", 2, &[]);
    let (outcome, after) = older.left().await;
    assert_eq!(outcome.exit_code(), 78);
    assert!(matches!(&outcome, Outcome::Failed(fault) if fault.to_string().contains("relay.instance = \"a\"")), "{outcome:?}");
    assert!(after < 5 * SECOND, "{after:?}");
    assert!(younger.is_running() && row.holder() == Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_sees_its_own_name_leaves_too() {
    let row = Row::default();
    row.give("b", 9, LEASE);
    let standby = start(&row, "a", 1, &[]);
    sleep(SECOND).await;
    row.give("a", 2, LEASE);
    assert_eq!(standby.left().await.0.exit_code(), 78);
}

#[tokio::test(start_paused = true)]
async fn a_dead_predecessor_that_a_failover_brings_back_is_waited_for() {
    let row = Row::default();
    row.give("a", 1, LEASE);
    let process = start(&row, "a", 2, &[]);
    sleep(SECOND).await;
    assert_eq!((row.holder(), row.content().epoch), (Some(2), 2));
    row.content().epoch = 0;
    row.give("a", 1, LEASE);
    sleep(2 * LEASE).await;
    assert!(process.is_running(), "the predecessor is dead: nobody shares the name");
    assert_eq!(row.holder(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_replaced_while_it_drains_leaves_in_peace() {
    let row = Row::default();
    let older = start(&row, "a", 1, &[Act::Relays { drain: 5 * SECOND }]);
    sleep(SECOND).await;
    older.signal().await;
    sleep(SECOND / 10).await;
    let _younger = start(&row, "a", 2, &[]);
    assert_eq!(older.left().await.0.exit_code(), 0);
    assert_eq!(row.holder(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_within_a_second_of_a_clean_stop() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[]);
    sleep(SECOND).await;
    let standby = start(&row, "b", 2, &[]);
    sleep(20 * SECOND).await;
    assert_eq!((standby.diary.words().len(), standby.metrics.vitals().phase), (0, Phase::Standby));
    leader.signal().await;
    assert_eq!(leader.left().await.0.exit_code(), 0);
    sleep(SECOND).await;
    let after = standby.diary.when("leads");
    assert!(after <= 21 * SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_when_the_lease_of_a_dead_leader_has_run_out() {
    let row = Row::default();
    row.give("a", 1, LEASE);
    let standby = start(&row, "b", 2, &[]);
    sleep(LEASE + SECOND).await;
    let after = standby.diary.when("leads");
    assert!(after >= LEASE && after <= LEASE + SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_for_as_long_as_its_leader_lives() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[]);
    let standby = start(&row, "b", 2, &[]);
    sleep(600 * SECOND).await;
    assert_eq!((leader.diary.words().len(), standby.diary.words().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_renewals_fail_is_stopped_when_the_lease_has_run_out() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[]);
    sleep(SECOND).await;
    row.fails_with(outage());
    sleep(60 * SECOND).await;
    let lost = leader.diary.when("lost");
    assert!(lost >= SECOND && lost <= LEASE + SECOND, "{lost:?}");
    assert!(!leader.metrics.vitals().leader && !leader.metrics.vitals().database_up);
    row.fails_with(None);
    sleep(6 * SECOND).await;
    assert_eq!(leader.diary.words(), ["leads", "lost", "leads"]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_renewals_get_no_answer_is_stopped_too() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[]);
    sleep(SECOND).await;
    row.content().mute = true;
    sleep(LEASE).await;
    assert_eq!(leader.diary.words(), ["leads", "lost"]);
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_costs_no_lease() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[]);
    sleep(SECOND).await;
    row.fails_with(outage());
    sleep(6 * SECOND).await;
    row.fails_with(None);
    sleep(60 * SECOND).await;
    assert_eq!(leader.diary.words(), ["leads"]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stood_still_for_longer_than_its_lease_steps_down() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[]);
    sleep(SECOND).await;
    let other = start(&row, "b", 2, &[]);
    sleep(SECOND).await;
    row.give("b", 2, LEASE);
    advance(30 * SECOND).await;
    sleep(SECOND).await;
    assert_eq!((leader.diary.words(), leader.metrics.vitals().leader), (vec!["leads", "lost"], false));
    assert!(other.metrics.vitals().leader);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_has_run_out_is_not_renewed_but_asked_for_again() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[]);
    sleep(SECOND).await;
    advance(30 * SECOND).await;
    sleep(SECOND).await;
    assert_eq!(leader.diary.words(), ["leads", "lost", "leads"]);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_leader_gives_the_lease_up_and_waits_a_turn() {
    let row = Row::default();
    let stuck = start(&row, "a", 1, &[Act::Ends(30 * SECOND, || End::GaveUp)]);
    sleep(SECOND).await;
    let other = start(&row, "b", 2, &[]);
    sleep(60 * SECOND).await;
    let after = other.diary.when("leads");
    assert!(after <= 30 * SECOND, "{after:?}");
    assert_eq!(stuck.diary.words(), ["leads"]);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_leader_that_is_alone_begins_anew() {
    let row = Row::default();
    let stuck = start(&row, "a", 1, &[Act::Ends(30 * SECOND, || End::GaveUp)]);
    sleep(33 * SECOND).await;
    assert_eq!(stuck.diary.words(), ["leads", "leads"]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_hangs_is_dropped_and_another_one_takes_over() {
    let row = Row::default();
    let hanging = start(&row, "a", 1, &[Act::Hangs]);
    sleep(SECOND).await;
    let other = start(&row, "b", 2, &[]);
    sleep(80 * SECOND).await;
    let after = other.diary.when("leads");
    assert!(after >= 59 * SECOND && after <= 70 * SECOND, "{after:?}");
    assert_eq!(hanging.metrics.vitals().phase, Phase::Standby);
}

#[tokio::test(start_paused = true)]
async fn a_halted_leader_keeps_the_lease() {
    let row = Row::default();
    let halted = start(&row, "a", 1, &[Act::Halts]);
    let other = start(&row, "b", 2, &[]);
    sleep(900 * SECOND).await;
    assert_eq!((halted.metrics.vitals().leader, other.diary.words().len()), (true, 0));
    halted.signal().await;
    assert_eq!(halted.left().await.0.exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_standby_is_no_silence_of_the_leader() {
    let row = Row::default();
    row.give("b", 9, 900 * SECOND);
    let process = start(&row, "a", 1, &[Act::Ends(50 * SECOND, || End::LeaseLost)]);
    sleep(940 * SECOND).await;
    assert_eq!(process.diary.words(), ["leads"]);
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_released_at_a_clean_stop() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[Act::Relays { drain: 3 * SECOND }]);
    sleep(SECOND).await;
    leader.signal().await;
    let diary = leader.diary.clone();
    let (outcome, after) = leader.left().await;
    assert_eq!((outcome.exit_code(), diary.words()), (0, vec!["leads", "drained"]));
    assert!(after < 5 * SECOND, "{after:?}");
    assert_eq!(row.holder(), None);
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_kept_while_draining() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[Act::Relays { drain: 20 * SECOND }]);
    let other = start(&row, "b", 2, &[]);
    sleep(SECOND).await;
    leader.signal().await;
    sleep(19 * SECOND).await;
    assert_eq!(other.diary.words().len(), 0);
    assert_eq!(leader.left().await.0.exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_is_given_up() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[Act::Relays { drain: 300 * SECOND }]);
    sleep(SECOND).await;
    leader.signal().await;
    let (outcome, after) = leader.left().await;
    assert_eq!((outcome.exit_code(), after), (1, 26 * SECOND));
    assert_eq!(row.holder(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_leaves_at_once() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[Act::Relays { drain: 300 * SECOND }]);
    sleep(SECOND).await;
    leader.signal().await;
    sleep(2 * SECOND).await;
    assert!(leader.is_running());
    leader.signal().await;
    let (outcome, after) = leader.left().await;
    assert_eq!((outcome.exit_code(), after), (1, 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_standby_leaves_at_once_also_while_the_database_is_silent() {
    let row = Row::default();
    row.content().mute = true;
    let standby = start(&row, "a", 1, &[]);
    sleep(SECOND).await;
    standby.signal().await;
    let (outcome, after) = standby.left().await;
    assert_eq!(outcome.exit_code(), 0);
    assert!(after <= 3 * SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_granted_to_a_process_that_leaves_is_released() {
    let row = Row::default();
    row.content().answers_after = SECOND / 2;
    let standby = start(&row, "a", 1, &[]);
    sleep(SECOND / 4).await;
    standby.signal().await;
    let diary = standby.diary.clone();
    assert_eq!(standby.left().await.0.exit_code(), 0);
    assert_eq!((diary.words().len(), row.holder()), (0, None));
    assert_eq!(row.content().takeovers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_no_retry_helps_ends_the_process_with_its_code() {
    let refused = || Fault::Refused { detail: "UPDATE on outbox".into(), remedy: "Grant it.".into() };
    let row = Row::default();
    let leader =
        start(&row, "a", 1, &[Act::Ends(SECOND, || End::Exit(Fault::Misconfigured { detail: "x".into(), remedy: "y".into() }))]);
    assert_eq!(leader.left().await.0.exit_code(), 78);
    assert_eq!(row.holder(), None);
    row.fails_with(Some(refused()));
    assert_eq!(start(&row, "a", 2, &[]).left().await.0.exit_code(), 77);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_has_claimed_outlives_a_right_that_is_taken_away() {
    let row = Row::default();
    let leader = start(&row, "a", 1, &[]);
    sleep(SECOND).await;
    leader.metrics.claimed(Cause::Start);
    row.fails_with(Some(Fault::Refused { detail: "UPDATE on state".into(), remedy: "Grant it.".into() }));
    sleep(60 * SECOND).await;
    assert!(leader.is_running() && !leader.metrics.vitals().leader);
    row.fails_with(None);
    sleep(LEASE).await;
    assert!(leader.metrics.vitals().leader);
}

fn once(instance: &str, start: u64) -> Settings {
    Settings { until: Until::Drained, ..settings(instance, start) }
}

#[tokio::test(start_paused = true)]
async fn a_run_until_drained_leaves_when_drained() {
    let row = Row::default();
    let process = start_with(&row, once("a", 1), &[Act::Ends(SECOND, || End::Stopped)]);
    assert_eq!(process.left().await.0.exit_code(), 0);
    assert_eq!(row.holder(), None);
}

#[tokio::test(start_paused = true)]
async fn a_run_until_drained_waits_for_a_dead_owner_but_disturbs_no_living_one() {
    let row = Row::default();
    row.give("a", 9, LEASE);
    let process = start_with(&row, once("a", 1), &[Act::Ends(SECOND, || End::Stopped)]);
    assert_eq!(process.left().await.0.exit_code(), 0);
    row.give("a", 9, 900 * SECOND);
    let (outcome, after) = start_with(&row, once("a", 2), &[]).left().await;
    assert_eq!(outcome.exit_code(), 75);
    assert!(after <= LEASE + 3 * SECOND, "{after:?}");
    assert_eq!(row.holder(), Some(9));
}

#[tokio::test(start_paused = true)]
async fn a_run_until_drained_tells_what_it_could_not_reach() {
    let row = Row::default();
    let process = start_with(&row, once("a", 1), &[Act::Ends(30 * SECOND, || End::GaveUp)]);
    assert_eq!(process.left().await.0.exit_code(), 69);
    row.fails_with(outage());
    assert_eq!(start_with(&row, once("a", 2), &[]).left().await.0.exit_code(), 69);
}

#[tokio::test(start_paused = true)]
async fn the_heart_beats_while_waiting_and_while_leading() {
    let row = Row::default();
    row.give("b", 9, 30 * SECOND);
    let heart = Heartbeat::new();
    let (metrics, (_signals, received)) = (Metrics::new("shop"), mpsc::channel(2));
    let actor = Actor::new(&[], Diary::new(), metrics.clone());
    let daemon = Daemon::new(Arc::new(row), actor, NoChores, settings("a", 1), metrics, heart.clone());
    tokio::spawn(daemon.run(received));
    for _ in 0..60 {
        sleep(SECOND).await;
        assert!(heart.silence() <= SECOND);
    }
}

#[test]
fn only_what_no_retry_helps_keeps_a_service_manager_from_restarting() {
    let codes = [Outcome::NotDrained, Outcome::NotNow, Outcome::Unreachable, Outcome::Panicked].map(|outcome| outcome.exit_code());
    assert_eq!(codes, [1, 75, 69, 1]);
    assert_eq!(Outcome::Failed(Fault::in_doubt(Cause::Mark, "")).exit_code(), 1);
}
