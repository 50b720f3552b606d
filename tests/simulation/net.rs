//! The way to a server and back: it takes time, and what is sent may get lost, or arrive when nobody waits for it any more.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::world::{Deed, Handle, World};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Database = 0,
    Kafka = 1,
}

/// A process's way to a server.
#[derive(Clone)]
pub struct Net {
    pub world: Handle,
    pub process: usize,
    pub side: Side,
}

/// A statement that waits for a lock is given up after so long.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3);

/// What a statement locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Locks {
    Nothing,
    StateRow,
}

/// What a caller knows who gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It was not sent.
    Before,
    /// It may have been done, or may still be.
    Unknown,
    /// The server has no room for it.
    Full,
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// It never arrives.
    Lost,
    /// It is done, and the answer does not come.
    AnswerLost,
    /// It arrives so much later.
    Strays(Duration),
}

struct Fate {
    there: Duration,
    back: Duration,
    trouble: Option<Trouble>,
}

impl World {
    fn fate(&mut self, side: Side) -> Fate {
        let there = if self.chance(700) { self.ms(1..=1) } else { self.ms(1..=5) };
        let back = if self.chance(500) { Duration::ZERO } else { self.ms(1..=3) };
        let usual = Fate { there, back, trouble: None };
        if self.healed || !self.chance(self.plan.trouble[side as usize]) {
            return usual;
        }
        let noticed = if self.chance(800) { self.ms(1..=30) } else { self.ms(30..=1500) };
        match self.chance.u8(0..5) {
            0 => Fate { there: self.ms(5..=700), ..usual },
            1 => Fate { back: noticed, trouble: Some(Trouble::Lost), ..usual },
            2 | 3 => Fate { back: noticed, trouble: Some(Trouble::AnswerLost), ..usual },
            _ => {
                let strays = Trouble::Strays(self.ms(1..=2500));
                Fate { back: noticed, trouble: Some(strays), ..usual }
            }
        }
    }

    fn is_down(&self, side: Side) -> bool {
        self.down[side as usize] > self.now
    }
}

impl Net {
    /// Has something done by the server, at one instant there.
    pub async fn call<T: Send>(&self, effect: impl FnOnce(&mut World) -> T + Send + 'static) -> Result<T, Broken> {
        self.request(Locks::Nothing, effect).await
    }

    /// The same for a statement that locks the state row, to write: when somebody else has it locked, it waits.
    pub async fn write<T: Send>(&self, effect: impl FnOnce(&mut World) -> T + Send + 'static) -> Result<T, Broken> {
        self.request(Locks::StateRow, effect).await
    }

    async fn request<T: Send>(&self, locks: Locks, effect: impl FnOnce(&mut World) -> T + Send + 'static) -> Result<T, Broken> {
        let fate = self.world.lock().fate(self.side);
        let mut flight = Flight { net: self, locks, effect: Some(effect) };
        pause(fate.there).await;
        flight.queue().await?;
        let done = flight.land(fate.trouble)?;
        pause(fate.back).await;
        match (fate.trouble, done) {
            (None, Some(done)) => Ok(done),
            (Some(Trouble::Lost), _) if self.world.lock().chance(500) => Err(Broken::Before),
            (Some(_), _) | (None, None) => Err(Broken::Unknown),
        }
    }
}

impl Net {
    fn arrive<T>(&self, world: &mut World, effect: impl FnOnce(&mut World) -> T) -> T {
        match self.side {
            Side::Database => world.seen_by(self.process, effect),
            Side::Kafka => effect(world),
        }
    }

    fn stray<T>(&self, world: &mut World, locks: Locks, after: Duration, effect: impl FnOnce(&mut World) -> T + Send + 'static) {
        let net = self.clone();
        world.later(after, move |world| match net.waits(world, locks) {
            Some(left) => net.again(world, locks, left, Box::new(move |world: &mut World| drop(effect(world)))),
            None if net.is_full(world, locks) => {}
            None => drop(net.arrive(world, effect)),
        });
    }

    fn again(&self, world: &mut World, locks: Locks, after: Duration, effect: Deed) {
        self.stray(world, locks, after, effect);
    }

    /// For how long somebody else still has it locked.
    fn waits(&self, world: &mut World, locks: Locks) -> Option<Duration> {
        let until = self.arrive(world, |world| (world.database.locked, world.now));
        let left = until.0.filter(|locked| *locked > until.1).map(|locked| locked - until.1);
        left.filter(|_| locks == Locks::StateRow)
    }

    fn is_full(&self, world: &mut World, locks: Locks) -> bool {
        let full = self.arrive(world, |world| world.database.full);
        full && locks == Locks::StateRow
    }
}

/// A request under way. Who is killed now does not know whether it was sent.
struct Flight<'a, T, F: FnOnce(&mut World) -> T + Send + 'static> {
    net: &'a Net,
    locks: Locks,
    effect: Option<F>,
}

impl<T, F: FnOnce(&mut World) -> T + Send + 'static> Flight<'_, T, F> {
    /// Waits for the lock; who waits too long is told so, and nothing was done.
    async fn queue(&mut self) -> Result<(), Broken> {
        let until = Instant::now() + STATEMENT_TIMEOUT;
        loop {
            let left = {
                let mut world = self.net.world.lock();
                let left = self.net.waits(&mut world, self.locks);
                left.inspect(|_| world.hit("a statement waited for the state row"))
            };
            let Some(left) = left else { return Ok(()) };
            if Instant::now() >= until {
                self.net.world.lock().hit("a statement waited for the state row in vain");
                self.effect = None;
                return Err(Broken::Before);
            }
            pause(left.min(until - Instant::now())).await;
        }
    }

    fn land(&mut self, trouble: Option<Trouble>) -> Result<Option<T>, Broken> {
        let Some(effect) = self.effect.take() else { return Ok(None) };
        let mut world = self.net.world.lock();
        if world.is_down(self.net.side) {
            return Err(Broken::Before);
        }
        if self.net.is_full(&mut world, self.locks) {
            world.hit("a write found no room");
            return Err(Broken::Full);
        }
        match trouble {
            None | Some(Trouble::AnswerLost) => Ok(Some(self.net.arrive(&mut world, effect))),
            Some(Trouble::Lost) => Ok(None),
            Some(Trouble::Strays(after)) => {
                self.net.stray(&mut world, self.locks, after, effect);
                Ok(None)
            }
        }
    }
}

impl<T, F: FnOnce(&mut World) -> T + Send + 'static> Drop for Flight<'_, T, F> {
    fn drop(&mut self) {
        let Some(effect) = self.effect.take() else { return };
        let mut world = self.net.world.lock();
        if world.chance(500) {
            world.hit("a dead process's request arrived");
            let after = if world.chance(800) { world.ms(0..=5) } else { world.ms(5..=2000) };
            self.net.stray(&mut world, self.locks, after, effect);
        }
    }
}

/// Lets time pass; where none is to pass nobody else gets a turn.
pub async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}
