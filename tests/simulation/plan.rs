//! What a seed decides beforehand. Everything else is chance under way, from the same seed.

use std::time::Duration;

use outboxd::waits::Waits;

use super::breach::Breach;
use super::mutants::Mutant;

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Broken rules; none in an honest run.
    pub mutants: Vec<Mutant>,
    /// Whether a person reads along.
    pub told: bool,
    /// Relay processes.
    pub processes: usize,
    /// The second process is a clone of the first: both have the same lease.
    pub twins: bool,
    /// Transactions of services, and how many aggregates they are about.
    pub transactions: u32,
    pub keys: u32,
    /// Events a batch may hold.
    pub batch: usize,
    /// Marked rows are deleted.
    pub deletes: bool,
    /// The table keeps the rules of the cursor.
    pub cursor: bool,
    /// Connections lead on to whatever the database is now.
    pub pooler: bool,
    /// Numbers that a crash skips.
    pub ahead: i64,
    pub proof_scan: Duration,
    /// Requests in a thousand that go wrong, for database and Kafka.
    pub trouble: [u32; 2],
    /// Commits in a thousand whose connection breaks.
    pub resent: u32,
    /// After about so many steps a leader is killed, or stands still; 0: never.
    pub kills: u32,
    pub freezes: u32,
    /// Outages, crashes, failovers; per mille in each tenth of a second.
    pub outages: u32,
    pub crashes: u32,
    pub failovers: u32,
    pub stale: u32,
    /// The database comes back from a backup.
    pub restores: u32,
    /// What gives way under everything, once.
    pub breach: Option<Breach>,
    /// A failover leaves the old primary alive; the database is copied.
    pub splits: u32,
    /// Events in a thousand that can never be published.
    pub poison: u32,
    /// Topics go missing now and then.
    pub missing: u32,
    /// A trigger keeps rows from being marked.
    pub triggers: u32,
    /// Somebody locks the state row; the database's disk is full; partitions take nothing; topics grow.
    pub locks: u32,
    pub full: u32,
    pub sick: u32,
    pub grows: u32,
    /// Kafka lets go of the journal by itself.
    pub fades: bool,
    /// The relays trim the journal and prune the table.
    pub chores: bool,
    /// How long services write and faults come.
    pub lasts: Duration,
}

impl Plan {
    pub fn of(seed: u64, mutants: &[Mutant]) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6f75_7462_6f78);
        let c = &mut chance;
        // most seeds leave some kinds of trouble out, so that the others can do their worst
        let mut some = |share: u32, range: std::ops::Range<u32>| if c.u32(0..100) < share { c.u32(range) } else { 0 };
        let trouble = [some(60, 2..60), some(60, 2..60)];
        let (resent, kills, freezes) = (some(60, 10..400), some(60, 20..400), some(40, 30..600));
        let (outages, crashes, failovers) = (some(25, 5..60), some(35, 5..60), some(35, 10..100));
        let (stale, poison, missing) = (some(25, 10..100), some(25, 10..150), some(20, 5..60));
        let triggers = some(15, 5..60);
        let splits = some(20, 10..60);
        let (locks, full, sick, grows) = (some(20, 10..150), some(20, 10..80), some(20, 10..80), some(20, 10..80));
        let restores = some(10, 10..60);
        let twins = c.u32(0..100) < 10;
        let breach = [Breach::JournalDeleted, Breach::JournalCut, Breach::MarkersLost].get(c.usize(0..20)).copied();
        let plan = Self {
            seed,
            mutants: mutants.to_vec(),
            told: false,
            processes: c.usize(if twins || splits > 0 { 2..=3 } else { 1..=3 }),
            twins,
            transactions: c.u32(8..40),
            keys: c.u32(1..6),
            batch: c.usize(1..9),
            deletes: c.u32(0..100) < 20,
            cursor: c.u32(0..100) < 85,
            pooler: c.bool(),
            ahead: c.i64(0..5),
            proof_scan: if c.bool() { Duration::from_millis(c.u64(300..2000)) } else { Duration::from_secs(3600) },
            trouble,
            resent,
            kills,
            freezes,
            outages,
            crashes,
            failovers,
            stale,
            poison,
            missing,
            triggers,
            locks,
            full,
            sick,
            grows,
            splits,
            restores,
            breach: None,
            fades: c.u32(0..100) < 20,
            chores: c.u32(0..100) < 50,
            // halts take their time
            lasts: Duration::from_millis(if splits + triggers > 0 { c.u64(2500..6000) } else { c.u64(500..3000) }),
        };
        match breach {
            // nothing else that changes the past
            Some(_) => Self { breach, failovers: 0, splits: 0, restores: 0, twins: false, ..plan },
            None => plan,
        }
    }
}

/// The waits of the product, a tenth as long.
pub fn waits(plan: &Plan) -> Waits {
    let usual = Waits::new(Duration::from_secs(1), Duration::from_millis(2), Duration::from_millis(40));
    let ms = Duration::from_millis;
    Waits { halted: ms(2000), back_off_least: ms(5), back_off_most: ms(500), proof_scan: plan.proof_scan, held: ms(300), ..usual }
}
