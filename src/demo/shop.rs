//! The shop of the demo: writers that place and change orders, side by side, each change with its event in one transaction. Some
//! transactions are rolled back, some take their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::reader::{Shared, lock};
use super::table::{self, Table};
use super::trouble::Trouble;

/// Writers side by side.
pub const WRITERS: u32 = 4;
/// Changes of one transaction: one to three, as likely each.
const MOST_CHANGES: u32 = 3;
/// One transaction in so many is rolled back.
const ROLLED_BACK_ONE_IN: u32 = 10;
/// One transaction in so many takes its time.
const SLOW_ONE_IN: u32 = 40;
/// How long a slow one does: SQLite lets one write at a time, so that everybody waits for it.
const SLOW: Duration = Duration::from_millis(30);
/// Orders are changed while they are among so many newest ones.
const OPEN_ORDERS: i64 = 50;

/// A shop at work.
pub struct Shop {
    writers: JoinSet<Result<(), Trouble>>,
    closing: watch::Sender<Open>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Yes,
    No,
}

impl Shop {
    /// Opens it: about so many events a second go into the account.
    pub fn open(table: &Table, account: &Shared, rate: u32) -> Self {
        let (closing, open) = watch::channel(Open::Yes);
        let newest = Arc::new(AtomicI64::new(0));
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let (table, account, newest, open) = (table.clone(), Arc::clone(account), Arc::clone(&newest), open.clone());
            let writer = Writer { table, account, newest, chance: fastrand::Rng::new() };
            writers.spawn(writer.write(pause(rate), open));
        }
        Self { writers, closing }
    }

    /// Waits until a writer fails. May be dropped and called again.
    pub async fn failed(&mut self) -> Trouble {
        loop {
            match self.writers.join_next().await {
                Some(ended) => {
                    if let Err(trouble) = told(ended) {
                        return trouble;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Closes it: every transaction that was begun is ended.
    pub async fn close(&mut self) -> Result<(), Trouble> {
        self.closing.send_replace(Open::No);
        while let Some(ended) = self.writers.join_next().await {
            told(ended)?;
        }
        Ok(())
    }
}

fn told(ended: Result<Result<(), Trouble>, tokio::task::JoinError>) -> Result<(), Trouble> {
    ended.unwrap_or_else(|error| Err(Trouble::Table(sqlx::Error::Io(error.into()))))
}

/// The mean pause of one writer between two transactions.
fn pause(rate: u32) -> Duration {
    let events = f64::from(1 + MOST_CHANGES) / 2.0 * (1.0 - 1.0 / f64::from(ROLLED_BACK_ONE_IN));
    Duration::from_secs_f64(events * f64::from(WRITERS) / f64::from(rate))
}

/// What a transaction is going to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    changes: u32,
    ending: Ending,
    /// How long it stays open after its last change.
    lasts: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Commit,
    RollBack,
}

impl Plan {
    fn draw(chance: &mut fastrand::Rng) -> Self {
        Self {
            changes: chance.u32(1..=MOST_CHANGES),
            ending: if chance.u32(..ROLLED_BACK_ONE_IN) == 0 { Ending::RollBack } else { Ending::Commit },
            lasts: if chance.u32(..SLOW_ONE_IN) == 0 { SLOW } else { Duration::ZERO },
        }
    }
}

struct Writer {
    table: Table,
    account: Shared,
    /// The newest order of all writers.
    newest: Arc<AtomicI64>,
    chance: fastrand::Rng,
}

impl Writer {
    async fn write(mut self, pause: Duration, mut open: watch::Receiver<Open>) -> Result<(), Trouble> {
        let mut due = Instant::now();
        while *open.borrow() == Open::Yes {
            // from half to one and a half: never in step with the others
            due += pause.mul_f64(0.5 + self.chance.f64());
            let wait = due.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                // a slow disk decides how much is written: what was missed is not caught up
                due = Instant::now();
            }
            tokio::select! {
                () = sleep(wait) => {}
                // or nobody is left to close it
                _closed = open.changed() => break,
            }
            let plan = Plan::draw(&mut self.chance);
            self.transact(plan).await?;
        }
        Ok(())
    }

    async fn transact(&mut self, plan: Plan) -> Result<(), Trouble> {
        let mut transaction = self.table.begin().await?;
        let mut events = Vec::with_capacity(plan.changes as usize);
        let mut newest = 0;
        for _ in 0..plan.changes {
            let number = self.pick();
            let (order, id) = table::change(&mut transaction, number).await?;
            newest = order.number.max(newest);
            events.push(id);
        }
        sleep(plan.lasts).await;
        match plan.ending {
            Ending::RollBack => {
                transaction.rollback().await?;
                lock(&self.account).rolled_back();
            }
            Ending::Commit => {
                transaction.commit().await?;
                lock(&self.account).committed(&events, Instant::now());
                self.newest.fetch_max(newest, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// An order to change, or nothing for a new one.
    fn pick(&mut self) -> Option<i64> {
        let newest = self.newest.load(Ordering::Relaxed);
        let lowest = (newest - OPEN_ORDERS).max(1);
        (newest > 0 && self.chance.u32(..3) > 0).then(|| self.chance.i64(lowest..=newest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_makes_the_rate() {
        // 1.8 committed events a transaction on average, four writers
        assert_eq!(pause(72), Duration::from_millis(100));
    }

    #[test]
    fn transactions_of_every_kind_are_drawn() {
        let mut chance = fastrand::Rng::with_seed(1);
        let plans: Vec<Plan> = (0..4_000).map(|_| Plan::draw(&mut chance)).collect();
        let count = |fits: fn(&Plan) -> bool| plans.iter().filter(|plan| fits(plan)).count();
        assert!((300..500).contains(&count(|plan| plan.ending == Ending::RollBack)));
        assert!((50..150).contains(&count(|plan| !plan.lasts.is_zero())));
        for changes in 1..=3 {
            assert!(plans.iter().filter(|plan| plan.changes == changes).count() > 1_000);
        }
    }
}
