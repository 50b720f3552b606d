//! What befalls the servers, and what persons do meanwhile.

use std::time::Duration;

use outboxd::source::ClaimNumber;
use tokio::time::sleep;

use super::database::{Database, HERE};
use super::kafka::{JOURNAL, TOPICS};
use super::mutants::Mutant;
use super::plan::Plan;
use super::world::{Handle, World};

/// Between two throws of the dice.
const TICK: Duration = Duration::from_millis(50);
/// How many copies of the database are kept.
const COPIES: usize = 6;

/// Until the services have done their work, and then no more.
pub async fn blow(world: Handle) {
    let ticks = {
        let world = world.lock();
        world.plan.lasts.as_millis() / TICK.as_millis()
    };
    for _ in 0..ticks {
        sleep(TICK).await;
        world.lock().throw();
    }
    world.lock().heal();
}

impl World {
    fn throw(&mut self) {
        let plan = self.plan.clone();
        if self.chance(300) {
            let step = self.step();
            self.copies.push((step, self.database.clone()));
            if self.copies.len() > COPIES {
                self.copies.remove(0);
            }
        }
        for (side, name) in ["the database", "Kafka"].into_iter().enumerate() {
            if self.chance(plan.outages) {
                let lasts = if self.chance(800) { self.ms(5..=300) } else { self.ms(300..=2500) };
                self.down[side] = self.now + lasts;
                self.hit(format!("{name} could not be reached"));
            }
        }
        if self.chance(plan.crashes) {
            self.hit("the database crashed");
            self.database.crash();
        }
        if self.chance(plan.failovers) {
            self.fail_over();
        }
        if self.chance(plan.restores) {
            self.restore();
        }
        if self.chance(60) {
            self.give_way();
        }
        if self.chance(plan.splits) && self.other.is_none() {
            self.divide();
        }
        if self.chance(plan.triggers) {
            self.database.swallows = true;
            let lasts = self.ms(20..=4000);
            self.later(lasts, |world| world.database.swallows = false);
        }
        if self.chance(plan.stale) {
            self.kafka.stale = Some(self.kafka.lanes[JOURNAL].records.len());
            let lasts = self.ms(10..=600);
            self.later(lasts, |world| world.kafka.stale = None);
        }
        if self.chance(plan.missing) {
            let topic = TOPICS[self.chance.usize(0..TOPICS.len())];
            self.hit("a topic went missing");
            self.kafka.missing.insert(topic);
            let lasts = self.ms(50..=1500);
            self.later(lasts, move |world| {
                world.kafka.missing.remove(topic);
            });
        }
        self.throw_at_the_disks(&plan);
        if self.chance(200) {
            self.decide(500);
        }
        if self.chance(10) {
            self.repin();
        }
    }

    /// Locks, disks and replicas.
    fn throw_at_the_disks(&mut self, plan: &Plan) {
        if self.chance(plan.locks) {
            let lasts = if self.chance(700) { self.ms(1..=300) } else { self.ms(300..=6000) };
            self.database.locked = Some(self.now + lasts);
        }
        if self.chance(plan.full) {
            self.hit("the database's disk was full");
            self.database.full = true;
            let lasts = self.ms(20..=1500);
            self.later(lasts, |world| world.database.full = false);
        }
        if self.chance(plan.sick) {
            let (lane, lasts) = (self.chance.usize(0..=JOURNAL), self.ms(10..=2500));
            self.hit("a partition took nothing");
            self.sicken(lane, lasts);
        }
        if self.chance(plan.grows) {
            self.hit("a topic grew");
            let topic = TOPICS[self.chance.usize(0..TOPICS.len())];
            self.kafka.grown.insert(topic);
        }
    }

    /// A person accepts what has become of a topic.
    fn repin(&mut self) {
        let Some(topic) = self.kafka.grown.iter().copied().find(|topic| !self.repinned.contains(topic)) else { return };
        self.hit("a grown topic was accepted");
        self.repinned.insert(topic);
        self.database.pins.remove(topic);
        self.database.claim = ClaimNumber(self.chance.i64(..));
    }

    /// There are two databases for a while, and some processes are led to the other one.
    fn divide(&mut self) {
        let mut other = Database { full: false, locked: None, ..self.database.clone() };
        let what = match self.chance.u8(0..3) {
            0 => {
                self.fail_over();
                "an old primary lived on"
            }
            1 => {
                other.crash();
                "the database was copied"
            }
            _ => {
                other.crash();
                other.address = "there";
                "the database was copied to another address"
            }
        };
        self.hit(what);
        (self.other, self.divided) = (Some(other), true);
        let astray = self.chance.usize(0..self.astray.len());
        self.astray[astray] = true;
        self.processes[astray].doomed = what.ends_with("address");
        let lasts = self.ms(100..=6000);
        self.later(lasts, World::unite);
    }

    fn unite(&mut self) {
        let moved = self.other.take().is_some_and(|other| other.address != HERE);
        for (process, astray) in self.processes.iter_mut().zip(&self.astray) {
            process.doomed |= moved && *astray;
        }
        self.astray.iter_mut().for_each(|astray| *astray = false);
    }

    /// The standby takes over: with everything, or with what it has.
    fn fail_over(&mut self) {
        let lossy = self.chance(600) && !self.copies.is_empty();
        let generation = self.database.generation;
        if lossy {
            let last = self.copies.len() - 1;
            let which = if self.chance(700) { last } else { self.chance.usize(0..=last) };
            let (step, copy) = self.copies[which].clone();
            self.copies.truncate(which + 1);
            let timeline = self.database.timeline;
            let swallows = self.database.swallows;
            let full = self.database.full;
            self.database = Database { timeline, swallows, full, ..copy };
            self.forget_since(step);
            self.hit("a failover lost the tail");
        } else {
            self.hit("a failover lost nothing");
        }
        self.database.open.retain(|_, open| open.prepared && !lossy);
        self.database.generation = generation;
        self.database.crash();
        self.database.timeline += 1;
    }

    /// A person looks at what is parked: corrects and retries some, gives some up.
    fn decide(&mut self, share: u32) {
        let parked: Vec<i64> = self.database.parked.keys().copied().collect();
        let (mut decided, silent) = (false, self.is(Mutant::SilentRelease));
        for seq in parked {
            if !self.chance(share) {
                continue;
            }
            let Some(entry) = self.database.parked.remove(&seq) else { continue };
            decided = true;
            let is_it = self.database.rows.get(&seq).is_some_and(|row| row.id == entry.id && !row.sent);
            if is_it && self.chance(300) {
                self.hit("a parked event was discarded");
                self.event(entry.id).discarded = true;
                self.database.audit.push((seq, entry.id, entry.topic));
                if self.plan.deletes {
                    self.database.rows.remove(&seq);
                } else if let Some(row) = self.database.rows.get_mut(&seq) {
                    row.sent = true;
                }
            } else {
                self.hit("a parked event was retried");
                let event = self.event(entry.id);
                (event.unfit, event.refused) = (false, false);
            }
        }
        if decided && !silent {
            self.database.claim = ClaimNumber(self.chance.i64(..));
        }
    }

    /// The end of all faults. Some of what is parked stays so.
    fn heal(&mut self) {
        self.healed = true;
        self.tell(|| "healed".into());
        self.unite();
        self.down = [self.now; 2];
        self.kafka.missing.clear();
        self.kafka.stale = None;
        (self.database.swallows, self.database.full, self.database.locked) = (false, false, None);
        self.kafka.sick.clear();
        self.kafka.dying = false;
        self.decide(500);
    }
}
