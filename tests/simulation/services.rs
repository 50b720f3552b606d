//! The services: transactions that insert events, with and without a lock on the aggregate, short and long, committed, rolled back as
//! a whole or to a savepoint, prepared.

use std::collections::BTreeSet;
use std::time::Duration;

use uuid::Uuid;

use super::database::{Open, Row};
use super::kafka::TOPICS;
use super::net::pause;
use super::world::{Handle, Happened, World};

/// All services, until they have done their work.
pub async fn work(world: Handle) {
    let (transactions, lasts) = {
        let world = world.lock();
        (world.plan.transactions, world.plan.lasts)
    };
    let most = 2 * lasts.as_millis() as u64 / u64::from(transactions);
    for _ in 0..transactions {
        let time = world.lock().ms(0..=most);
        pause(time).await;
        tokio::spawn(transaction(world.clone()));
    }
    // the last one begins
    pause(Duration::from_millis(1)).await;
}

/// How often a lock is asked for before the service gives up.
const PATIENCE: u32 = 300;

/// One transaction. Ends early when the server breaks the connection.
async fn transaction(world: Handle) {
    let (number, keys, locks) = world.lock().begin();
    for key in keys.iter().filter(|_| locks) {
        let mut tries = 0;
        while !world.lock().lock_key(number, key) {
            tries += 1;
            if tries > PATIENCE {
                world.lock().database.open.remove(&number);
                return;
            }
            pause(Duration::from_millis(2)).await;
        }
    }
    let (events, long) = {
        let mut world = world.lock();
        (world.chance.u32(1..=5), world.chance(100))
    };
    for _ in 0..events {
        let time = world.lock().think(long);
        pause(time).await;
        if insert(&world, number, &keys).await.is_none() {
            return;
        }
    }
    let (time, rolls_back, prepares) = {
        let mut world = world.lock();
        (world.think(long), world.chance(120), world.chance(40))
    };
    pause(time).await;
    if rolls_back {
        let mut world = world.lock();
        world.hit("a transaction was rolled back");
        world.database.open.remove(&number);
        return;
    }
    if prepares {
        let time = {
            let mut world = world.lock();
            let Some(open) = world.database.open.get_mut(&number) else { return };
            open.prepared = true;
            world.hit("a transaction was prepared");
            world.ms(0..=600)
        };
        pause(time).await;
    }
    let Some(time) = world.lock().commit(number) else { return };
    pause(time).await;
    world.lock().database.open.remove(&number);
}

/// One INSERT: lock, number, row.
async fn insert(world: &Handle, number: u64, keys: &BTreeSet<String>) -> Option<()> {
    let (index, time) = world.lock().begin_insert(number, keys)?;
    pause(time).await;
    let (seq, time) = world.lock().draw(number)?;
    pause(time).await;
    let mut world = world.lock();
    let Happened { id, topic, key, .. } = world.happened[index].clone();
    let to_savepoint = world.chance(50);
    let open = world.database.open.get_mut(&number)?;
    if to_savepoint {
        world.hit("an insert was rolled back to a savepoint");
    } else {
        open.rows.push((seq, Row { id, topic, key, sent: false }));
    }
    Some(())
}

impl World {
    fn begin(&mut self) -> (u64, BTreeSet<String>, bool) {
        let (number, aggregates) = (self.step(), self.plan.keys);
        let keys = (0..self.chance.u32(1..=2)).map(|_| format!("k{}", self.chance.u32(0..aggregates))).collect();
        let open = Open { since: Some(self.now), ..Open::default() };
        self.database.open.insert(number, open);
        let locks = self.chance(800);
        (number, keys, locks)
    }

    fn lock_key(&mut self, number: u64, key: &str) -> bool {
        let free = !self.database.open.iter().any(|(other, open)| *other != number && open.keys.contains(key));
        match self.database.open.get_mut(&number) {
            Some(open) if free => {
                open.keys.insert(key.to_owned());
                true
            }
            // broken: the INSERT will tell
            None => true,
            Some(_) => false,
        }
    }

    fn think(&mut self, long: bool) -> Duration {
        match (long, self.chance(500)) {
            (true, _) => self.ms(1..=400),
            (false, true) => self.ms(1..=5),
            (false, false) => Duration::ZERO,
        }
    }

    fn moment(&mut self) -> Duration {
        if self.chance(300) { self.ms(1..=3) } else { Duration::ZERO }
    }

    /// The statement begins: it locks the table. Gives the event's place in the list of all.
    fn begin_insert(&mut self, number: u64, keys: &BTreeSet<String>) -> Option<(usize, Duration)> {
        if self.database.full {
            self.database.open.remove(&number);
        }
        let open = self.database.open.get_mut(&number)?;
        open.holder = Some(format!("9/{number}"));
        let (index, inserted, poison) = (self.happened.len(), self.step(), self.plan.poison);
        let id = Uuid::from_u64_pair(self.chance.u64(..), index as u64);
        let topic = TOPICS[self.chance.usize(0..TOPICS.len())];
        let key = keys.iter().nth(self.chance.usize(0..keys.len())).cloned().filter(|_| self.chance(900));
        let (unfit, refused) = (self.chance(poison), self.chance(poison));
        let (lost, discarded) = (false, false);
        let transaction = number;
        self.happened.push(Happened { id, topic, key, transaction, inserted, committed: None, lost, discarded, unfit, refused });
        let time = self.moment();
        Some((index, time))
    }

    fn draw(&mut self, number: u64) -> Option<(i64, Duration)> {
        self.database.open.get(&number)?;
        let seq = self.database.draw(self.plan.ahead);
        let time = self.moment();
        Some((seq, time))
    }

    /// The rows become visible; the name stays among the writers for a moment.
    fn commit(&mut self, number: u64) -> Option<Duration> {
        if self.database.full && self.database.open.get(&number).is_some_and(|open| !open.prepared) {
            self.hit("a transaction found no room");
            self.database.open.remove(&number);
        }
        let open = self.database.open.get_mut(&number)?;
        open.keys.clear();
        let rows = std::mem::take(&mut open.rows);
        let step = self.step();
        for (seq, row) in rows {
            self.event(row.id).committed = Some(step);
            let above = self.database.rows.last_key_value().is_some_and(|(last, _)| *last > seq);
            if above {
                self.hit("a lower number was committed later");
            }
            self.database.rows.insert(seq, row);
        }
        let time = self.moment();
        Some(time)
    }
}
