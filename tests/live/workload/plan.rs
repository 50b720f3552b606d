//! What a writer does next: drawn by chance, with the habits of real services.

use std::time::Duration;

use fastrand::Rng;

/// How the services write.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Concurrent writers.
    pub writers: usize,
    /// Events a second, all writers together, at most.
    pub events_per_second: f64,
    /// Number of keys.
    pub keys: usize,
    /// Percent of transactions that keep their locks for half a second to two seconds.
    pub long_percent: u8,
    /// Percent of transactions that are prepared first.
    pub prepared_percent: u8,
    /// Bytes of an occasional large payload; 0: none.
    pub large_bytes: usize,
    /// Of a thousand events with a key, how many have headers that are refused.
    pub spoilt_permille: u16,
}

/// What is wrong with the headers of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoilt {
    /// They are no object.
    Malformed,
    /// They have a name that is not the service's.
    Reserved,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            writers: 12,
            events_per_second: 800.0,
            keys: 300,
            long_percent: 2,
            prepared_percent: 2,
            large_bytes: 100_000,
            spoilt_permille: 0,
        }
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Commit,
    Rollback,
    /// PREPARE TRANSACTION, then COMMIT PREPARED.
    PrepareCommit,
    /// PREPARE TRANSACTION, then ROLLBACK PREPARED.
    PrepareRollback,
}

/// One transaction to be.
#[derive(Debug)]
pub struct Plan {
    /// Its events. Keys ascend, so that two transactions never wait for each other.
    pub events: Vec<Draft>,
    /// These events go into a savepoint that is rolled back.
    pub undone: Option<std::ops::Range<usize>>,
    /// How long it stays open before it ends.
    pub pause: Option<Duration>,
    /// How it ends.
    pub ending: Ending,
}

/// One event to be.
#[derive(Debug)]
pub struct Draft {
    /// Number of the aggregate; `None`: no key.
    pub key: Option<usize>,
    /// Number of the topic.
    pub topic: usize,
    /// Bytes to blow the payload up by.
    pub filler: usize,
    /// What is wrong with it.
    pub spoilt: Option<Spoilt>,
}

/// Draws plans.
pub struct Planner {
    habits: Habits,
    topics: usize,
    /// Of each key, the chance that it or an earlier one is drawn (Zipf).
    cumulative: Vec<f64>,
    pub chance: Rng,
}

impl Planner {
    pub fn new(habits: &Habits, topics: usize, seed: u64) -> Planner {
        let weights = (1..=habits.keys).map(|rank| 1.0 / rank as f64);
        let total: f64 = weights.clone().sum();
        let cumulative =
            weights.scan(0.0, |sum, weight| Some(std::mem::replace(sum, *sum + weight) + weight)).map(|sum| sum / total);
        Planner { habits: habits.clone(), topics, cumulative: cumulative.collect(), chance: Rng::with_seed(seed) }
    }

    /// The next transaction.
    pub fn draw(&mut self) -> Plan {
        let is_long = self.percent(self.habits.long_percent);
        // Mostly few events, sometimes twenty.
        let most = if is_long { 3.0 } else { 20.0 };
        let count = 1 + (self.chance.f64().powi(2) * most) as usize;
        let mut events: Vec<Draft> = (0..count).map(|_| self.draft(is_long)).collect();
        events.sort_by_key(|event| event.key);
        let undone = (count > 1 && self.percent(5)).then(|| {
            let start = self.chance.usize(0..count);
            start..self.chance.usize(start + 1..=count)
        });
        let pause = is_long.then(|| Duration::from_millis(self.chance.u64(500..2000)));
        let is_rolled_back = self.percent(10);
        let ending = match (self.percent(self.habits.prepared_percent), is_rolled_back) {
            (false, false) => Ending::Commit,
            (false, true) => Ending::Rollback,
            (true, false) => Ending::PrepareCommit,
            (true, true) => Ending::PrepareRollback,
        };
        Plan { events, undone, pause, ending }
    }

    fn draft(&mut self, is_long: bool) -> Draft {
        let key = match self.percent(5) {
            true => None,
            // A long transaction on a frequent key would stop everybody.
            false if is_long => Some(self.chance.usize(self.habits.keys * 9 / 10..self.habits.keys)),
            false => {
                let drawn = self.chance.f64();
                Some(self.cumulative.partition_point(|sum| *sum < drawn).min(self.habits.keys - 1))
            }
        };
        let is_large = self.chance.usize(0..500) == 0;
        let filler = if is_large { self.habits.large_bytes } else { self.chance.usize(0..200) };
        let is_spoilt = key.is_some() && self.chance.u16(0..1000) < self.habits.spoilt_permille;
        let spoilt = is_spoilt.then(|| if self.chance.bool() { Spoilt::Malformed } else { Spoilt::Reserved });
        Draft { key, topic: self.chance.usize(0..self.topics), filler, spoilt }
    }

    fn percent(&mut self, percent: u8) -> bool {
        self.chance.u8(0..100) < percent
    }
}
