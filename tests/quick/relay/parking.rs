//! What is set aside: only the culprit and what must wait for it.

use outboxd::park::Ailing;

use super::*;

/// These events are found unfit by a look, or refused when they are sent.
fn cannot_be_published(world: &World, refused_when_sent: bool, seqs: &[i64]) {
    let mut log = world.sink.log();
    if refused_when_sent { &mut log.refused } else { &mut log.unfit }.extend(seqs);
}

#[tokio::test(start_paused = true)]
async fn only_the_culprit_and_its_key_wait() {
    for refused_when_sent in [false, true] {
        let world = World::new();
        for n in 0..40 {
            world.source.insert("orders", Some(["k", "l"][n % 2]), &n.to_string());
        }
        cannot_be_published(&world, refused_when_sent, &[31]);
        let relay = world.start("a", 1).await;
        until("all but the culprit and those behind it are marked", || world.unsent() == 5).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.parked(), [31]);
        assert_eq!(world.unsent(), 5, "31, 33, … 39 wait");
        assert_eq!(relay.claims(Cause::SetAside), f64::from(u8::from(refused_when_sent)), "a look costs no claim");
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_not_kept_waiting_where_order_matters_less() {
    let world = World::new();
    world.source.database().parks_keys = false;
    world.insert("orders", "k", 10);
    world.sink.log().unfit.insert(4);
    let _relay = world.start("a", 1).await;
    until("all but the culprit are marked", || world.unsent() == 1).await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn what_is_before_an_unfit_event_of_its_key_goes_first() {
    for refused_when_sent in [false, true] {
        let world = World::new();
        world.insert("orders", "k", 10);
        cannot_be_published(&world, refused_when_sent, &[4, 8]);
        let _relay = world.start("a", 1).await;
        until("the first three are marked", || world.unsent() == 7).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!((world.parked()[0], world.unsent()), (4, 7), "the others wait behind it");
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn several_culprits_of_one_batch_do_not_hide_each_other() {
    for refused_when_sent in [false, true] {
        let world = World::new();
        world.insert("orders", "k", 3);
        world.insert("orders", "l", 3);
        cannot_be_published(&world, refused_when_sent, &[2, 5]);
        let _relay = world.start("a", 1).await;
        until("what comes before them is marked", || world.unsent() == 4).await;
        until("both are parked", || world.parked() == [2, 5]).await;
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_retried_event_comes_before_those_that_waited_behind_it() {
    let world = World::new();
    world.insert("orders", "k", 100);
    world.sink.log().unfit.insert(4);
    let relay = world.start("a", 1).await;
    until("the first three are marked", || world.parked() == [4] && world.unsent() == 97).await;
    world.sink.log().unfit.clear();
    world.source.database().retry(4);
    world.drained().await;
    assert_eq!(relay.claims(Cause::ClaimChanged), 1.0);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_discarded_event_is_never_published_and_its_key_goes_on() {
    let world = World::new();
    world.insert("orders", "k", 20);
    world.sink.log().unfit.insert(4);
    let _relay = world.start("a", 1).await;
    until("it is parked", || world.parked() == [4]).await;
    world.source.database().discard(4);
    world.drained().await;
    assert_eq!(world.sink.log().topics["orders"].len(), 19);
}

#[tokio::test(start_paused = true)]
async fn an_entry_whose_row_is_gone_or_sent_goes_away_with_the_next_claim() {
    for gone in [false, true] {
        let world = World::new();
        world.insert("orders", "k", 6);
        world.sink.log().unfit.insert(2);
        let _relay = world.start("a", 1).await;
        until("it is parked", || world.parked() == [2]).await;
        match gone {
            true => drop(world.source.database().rows.remove(&2)),
            false => world.source.database().rows.get_mut(&2).expect("a row").sent = true,
        }
        world.source.fail(Verb::Fetch, TableFailure::Before(Fault::in_doubt(Cause::Mark, "test")));
        until("its key goes on", || world.unsent() == 0 && world.parked().is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_topic_is_held_and_goes_on_when_it_is_there() {
    let world = World::new();
    world.sink.log().missing.insert("nowhere".into());
    for n in 0..60 {
        world.source.insert(["orders", "nowhere"][n % 2], Some("k"), &n.to_string());
    }
    let relay = world.start("a", 1).await;
    until("the others are marked", || world.unsent() == 30).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!((world.unsent(), world.parked().len()), (30, 0));
    world.sink.log().missing.clear();
    world.drained().await;
    assert_eq!(relay.claims(Cause::SetAside), 0.0);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_held_before_a_claim_is_asked_for_after_it() {
    let world = World::new();
    world.source.database().standing.held.insert("orders".into());
    world.source.insert("orders", Some("k"), "1");
    let _relay = world.start("a", 1).await;
    world.drained().await;
    assert!(world.source.database().standing.held.is_empty());
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_thousand_unfit_events_are_parked_without_a_claim_for_each() {
    let world = World::new();
    for n in 0..2_000 {
        let seq = world.source.insert("orders", Some(&n.to_string()), "x");
        if n % 2 == 0 {
            world.sink.log().unfit.insert(seq);
        }
    }
    let begun = Instant::now();
    let _relay = world.start("a", 1).await;
    until("the good ones are marked", || world.unsent() == 1_000).await;
    assert_eq!(world.parked().len(), 1_000);
    assert!(begun.elapsed() < Duration::from_secs(30) && world.fences() == 1, "{:?}, {}", begun.elapsed(), world.fences());
}

#[tokio::test(start_paused = true)]
async fn a_zombie_cannot_set_aside_or_let_go() {
    for verb in [Verb::SetAside, Verb::LetGo] {
        let world = World::new();
        world.insert("orders", "k", 4);
        match verb {
            Verb::SetAside => drop(world.sink.log().unfit.insert(2)),
            _ => drop(world.source.database().standing.held.insert("orders".into())),
        }
        // another claim comes between the look and the change
        world.source.fail(verb, TableFailure::Before(Fault::in_doubt(Cause::ClaimChanged, "test")));
        let relay = world.start("a", 1).await;
        until("it has claimed again", || relay.claims(Cause::ClaimChanged) == 1.0).await;
        until("what is good is marked", || world.unsent() == if verb == Verb::SetAside { 3 } else { 0 }).await;
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn good_and_bad_events_of_one_key_by_turns_wait_only_for_what_is_before_them() {
    for refused_when_sent in [false, true] {
        let world = World::new();
        world.insert("orders", "k", 20);
        world.insert("orders", "l", 20);
        cannot_be_published(&world, refused_when_sent, &[2, 4, 6, 8, 33]);
        let _relay = world.start("a", 1).await;
        // the other key is free up to its own culprit
        until("what is before the culprits is marked", || world.unsent() == 19 + 8).await;
        for (culprit, unsent) in [(2, 17), (4, 15), (6, 13), (8, 0)] {
            until("the next culprit is parked", || world.parked().contains(&culprit)).await;
            assert_eq!(world.parked().len(), 2, "{:?}", world.parked());
            world.source.database().discard(culprit);
            until("those behind it go on", || world.unsent() == unsent + 8).await;
        }
        world.check_all_but(&[2, 4, 6, 8]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_unfit_twice_is_parked_once() {
    let world = World::new();
    world.insert("orders", "k", 3);
    cannot_be_published(&world, false, &[2]);
    cannot_be_published(&world, true, &[2]);
    let _relay = world.start("a", 1).await;
    until("it is parked", || world.parked() == [2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_before_an_unfit_event_is_parked_all_the_same() {
    let world = World::new();
    world.source.insert("orders", None, "refused when it is sent");
    world.insert("orders", "k", 2);
    cannot_be_published(&world, true, &[1]);
    cannot_be_published(&world, false, &[3]);
    let relay = world.start("a", 1).await;
    until("both are parked", || world.parked() == [1, 3] && world.unsent() == 2).await;
    assert!(world.fences() <= 4, "{}", world.fences());
    drop(relay);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_looks_well_and_refuses_is_not_tried_without_a_pause() {
    let world = World::new();
    let ailing = Ailing { topic: "locked".into(), code: "not_authorised", detail: "on demand".into() };
    world.sink.log().refused_topics.insert("locked".into(), ailing);
    for n in 0..100 {
        world.source.insert(["orders", "locked"][n % 2], Some("k"), &n.to_string());
    }
    let relay = world.start("a", 1).await;
    until("the others are marked", || world.unsent() == 50).await;
    let before = world.fences();
    sleep(Duration::from_secs(1_000)).await;
    assert!(world.fences() - before < 12, "{} claims in a thousand seconds", world.fences() - before);
    world.source.insert("orders", Some("k"), "later");
    until("the others go on", || world.unsent() == 50).await;
    world.sink.log().refused_topics.clear();
    world.drained().await;
    world.check();
    drop(relay);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_gone_does_not_stand_in_the_way() {
    let world = World::new();
    world.insert("orders", "k", 3);
    cannot_be_published(&world, true, &[2]);
    world.source.fail(Verb::SetAside, TableFailure::Before(Fault::in_doubt(Cause::ClaimChanged, "test")));
    let relay = world.start("a", 1).await;
    until("it was refused", || relay.metrics.text().contains("outboxd_faults_total{code=\"too_large\"")).await;
    world.source.database().rows.remove(&2);
    until("the others are marked", || world.unsent() == 0).await;
    let ailing = Ailing { topic: "locked".into(), code: "not_authorised", detail: "on demand".into() };
    world.sink.log().refused_topics.insert("locked".into(), ailing);
    world.source.insert("locked", Some("k"), "x");
    until("the topic is held", || world.source.database().standing.held.contains("locked")).await;
}

#[tokio::test(start_paused = true)]
async fn topics_that_are_held_one_after_the_other_are_asked_for_every_ten_seconds_all_the_same() {
    let world = World::new();
    let topics: Vec<String> = (0..8).map(|n| format!("missing-{n}")).collect();
    world.sink.log().missing.extend(topics.iter().cloned());
    let _relay = world.start("a", 1).await;
    for topic in &topics {
        world.source.insert(topic, Some("k"), "1");
        until("it is held", || world.source.database().standing.held.contains(topic)).await;
    }
    world.sink.log().missing.clear();
    let begun = Instant::now();
    world.drained().await;
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    world.check();
}

/// A topic that a look finds well and that refuses: it is tried later each time.
async fn tried_in_vain() -> (World, Running) {
    let world = World::new();
    let ailing = Ailing { topic: "locked".into(), code: "not_authorised", detail: "on demand".into() };
    world.sink.log().refused_topics.insert("locked".into(), ailing);
    world.source.insert("locked", Some("k"), "1");
    let relay = world.start("a", 1).await;
    until("it is tried for the fifth time", || relay.claims(Cause::SetAside) >= 5.0).await;
    (world, relay)
}

#[tokio::test(start_paused = true)]
async fn a_command_makes_the_relay_try_held_topics_at_once() {
    let (world, _relay) = tried_in_vain().await;
    world.sink.log().refused_topics.clear();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.unsent(), 1, "it is not tried yet");
    let begun = Instant::now();
    world.source.database().standing.claim.0 += 1;
    world.drained().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_topic_of_which_the_look_tells_the_truth_is_not_kept_waiting() {
    let (world, _relay) = tried_in_vain().await;
    // from now on the brokers say what is wrong
    world.sink.log().refused_topics.clear();
    world.sink.log().missing.insert("locked".into());
    sleep(Duration::from_secs(30)).await;
    world.sink.log().missing.clear();
    let begun = Instant::now();
    world.drained().await;
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
}
