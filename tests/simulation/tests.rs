//! What must be clean, what must fail, and what must have happened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::mutants::Mutant::{self, *};
use super::plan::Plan;
use super::world::Hits;
use super::{Report, run};

/// Seeds of every test run, and of every control.
const SEEDS: u64 = 2000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// What a search came to.
#[derive(Default)]
struct Found {
    /// The first seed that was not clean.
    failed: Option<(u64, Report)>,
    hits: Hits,
}

impl Found {
    fn add(&mut self, seed: u64, report: Report) {
        for (what, times) in &report.hits {
            *self.hits.entry(what.clone()).or_default() += times;
        }
        let lower = self.failed.as_ref().is_none_or(|(known, _)| seed < *known);
        if !report.violations.is_empty() && lower {
            self.failed = Some((seed, report));
        }
    }
}

/// Runs these seeds on all cores, up to the first that is not clean.
fn search(seeds: std::ops::Range<u64>, mutants: &[Mutant]) -> Found {
    let (next, found) = (AtomicU64::new(seeds.start), Mutex::new(Found::default()));
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds.end) {
            let report = run(Plan::of(seed, mutants));
            if !report.violations.is_empty() {
                next.store(seeds.end, Ordering::Relaxed);
            }
            found.lock().unwrap_or_else(PoisonError::into_inner).add(seed, report);
        }
    };
    std::thread::scope(|scope| {
        (0..std::thread::available_parallelism().map_or(1, usize::from)).for_each(|_| drop(scope.spawn(work)));
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Situations without which a run of all seeds proves little.
const MUST_HAPPEN: &[&str] = &[
    "a claim found 0 batches to settle",
    "a claim found 1 batches to settle",
    "a claim found 2 batches to settle",
    "a clone had the same lease",
    // crashes of the relay: P2, P3, P4, P6, P7
    "killed while Fencing",
    "killed while Claiming",
    "killed while Settling",
    "killed while Sending",
    "killed while Acknowledged",
    "killed while Committing",
    "killed while Committed",
    "killed while Elsewhere",
    "killed while Committed and marking",
    "killed while Sending and marking",
    "a dead process's request arrived",
    // P5, P18, P8, P9
    "init waited for markers",
    "init aborted an open transaction",
    "a transaction ran into its timeout",
    "a late or fenced produce was refused",
    "frozen while Sending",
    "frozen while Acknowledged",
    "frozen while Committing",
    "frozen while Committed and marking",
    "frozen while Elsewhere",
    "a mark met another claim",
    "a mark met other rows or another batch",
    "a set-aside met another claim",
    "a fetch met another claim",
    "a lease was lost while leading",
    "a relay stepped down",
    "a claim came without the lease",
    // P24
    "an EndTxn was held back and sent again",
    "a commit was late",
    "the outcome of a commit was unknown",
    "a late EndTxn met a newer producer's transaction",
    // P10, P11, P12, P22
    "a fetch met no token",
    "a failover lost the tail",
    "a failover lost nothing",
    "settle met another event under the same number",
    "events that the database lost later were published",
    // P15, P21, P25
    "a stale leader answered a reader of the journal",
    "the journal record did not lie where it should",
    "an old primary lived on",
    "halted: old-primary",
    "halted: moved-database",
    "halted: two-databases",
    "halted: journal-window",
    "halted: mark-refused",
    "a settlement's marks did not take",
    // P14, P20, P26
    "an event was parked",
    "the brokers refused an event",
    "a parked event was retried",
    "a parked event was discarded",
    "a held topic was let go",
    // the cursor
    "a late commit filled a gap",
    "a lower number was committed later",
    "a transaction was prepared",
    "a transaction was rolled back",
    "the journal was trimmed",
    "a record without events was written",
];

#[test]
fn all_seeds_keep_the_promise() {
    if let Some(seed) = number("OUTBOXD_SIM_SEED") {
        let report = run(Plan { told: true, ..Plan::of(seed, &[]) });
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
        return;
    }
    let (begun, seeds) = (std::time::Instant::now(), number("OUTBOXD_SIM_SEEDS").unwrap_or(SEEDS));
    let found = search(0..seeds, &[]);
    let took = begun.elapsed().as_secs_f64();
    if let Some((seed, report)) = found.failed {
        panic!("seed {seed} (OUTBOXD_SIM_SEED={seed} replays it): {:#?}", report.violations);
    }
    println!("{seeds} seeds in {took:.1} s, {:.0} a second", seeds as f64 / took);
    found.hits.iter().for_each(|(what, times)| println!("{times:>9} {what}"));
    let never: Vec<&&str> = MUST_HAPPEN.iter().filter(|what| found.hits.get(**what).is_none_or(|times| *times < 10)).collect();
    assert!(seeds < SEEDS || never.is_empty(), "hardly ever happened: {never:#?}");
}

#[test]
fn a_seed_is_one_run() {
    for seed in 0..40 {
        let (first, second) = (run(Plan::of(seed, &[])), run(Plan::of(seed, &[])));
        assert_eq!((first.digest, &first.hits), (second.digest, &second.hits), "seed {seed} gave two different runs");
    }
}

/// Broken rules, alone or with the one that covers them. Each must be caught.
const CONTROLS: &[&[Mutant]] = &[
    &[NoNewProducer],
    &[AbortAndGoOn],
    &[NoNewProducer, JournalFirst],
    &[MatchBySeq],
    &[NoGuards],
    &[JournalBeforeFence, NoExpectedOffset],
    &[OwnTransactionalId, NoExpectedOffset],
    &[NoJournal],
    &[MarkBeforeCommit],
    &[LastRecordOnly],
    &[TwoStatements],
    &[GraceTime],
    &[HoldersFirst],
    &[NoHoldersAtStart],
    &[HoldersBeforeNumber],
    &[PreparedUnseen],
    &[NoToken],
    &[NoToken, NoLastValue],
    &[IsCalledIgnored],
    &[RetryInPlace, NoExpectedOffset],
    &[MarkIgnored],
    &[Overtake],
    &[ParkUnguarded],
    &[SilentRelease],
    &[NoExpectedOffset],
    &[ResetToEnd],
    &[TrimAll],
    &[SendIgnored],
    &[NoIdentity],
    &[InitBeforeLook],
    &[SettleBlind],
    &[HaltBlind],
    &[MarkBySeq],
    &[SeqAboveLast],
];

#[test]
fn every_broken_rule_is_caught() {
    let mut clean = Vec::new();
    for mutants in CONTROLS {
        let begun = std::time::Instant::now();
        match search(0..SEEDS, mutants).failed {
            Some((seed, report)) => {
                println!("{mutants:?}: seed {seed}, {:.1} s: {}", begun.elapsed().as_secs_f64(), report.violations[0]);
            }
            None => clean.push(mutants),
        }
    }
    assert!(clean.is_empty(), "came out clean in {SEEDS} seeds: {clean:?}");
}
