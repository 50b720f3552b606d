//! What breaks the ground that the promise stands on: Kafka that loses what it had acknowledged, a journal that somebody deletes, a
//! database that comes back from a backup. Once a run at most, and with nothing else that changes the past. Then events that were in it
//! may be lost or come twice, no others, and the relay halts where it can see what has happened.

use std::collections::BTreeSet;

use outboxd::fault::HaltCode;

use super::database::Database;
use super::kafka::{Content, JOURNAL, OURS, Outcome, Partition};
use super::oracle;
use super::world::World;

/// Broken ground.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// The journal is deleted and made anew.
    JournalDeleted,
    /// An unclean election cuts the journal's newest records off.
    JournalCut,
    /// A lone broker is killed right after it has answered a commit: its markers are never written.
    MarkersLost,
}

impl World {
    /// Breaks the ground, if it is to be broken in this run and was not yet.
    pub fn give_way(&mut self) {
        let Some(breach) = self.plan.breach.filter(|_| self.breached.is_none()) else { return };
        match breach {
            // who has never published cannot tell an empty journal from a lost one
            Breach::JournalDeleted if self.database.applied().n == 0 => return,
            Breach::JournalDeleted => self.delete_the_journal(),
            Breach::JournalCut => self.cut_the_journal(),
            Breach::MarkersLost => {
                self.kafka.dying = true;
                return;
            }
        }
        self.breached = Some(breach);
        self.hit(format!("{breach:?}"));
    }

    fn delete_the_journal(&mut self) {
        let old = std::mem::take(&mut self.kafka.lanes[JOURNAL]);
        self.kafka.graves.push(old);
    }

    fn cut_the_journal(&mut self) {
        let newest = self.chance.usize(1..=6);
        let partition = &mut self.kafka.lanes[JOURNAL];
        let keep = partition.records.len().saturating_sub(newest).max(partition.start);
        let cut = partition.cut(keep);
        self.kafka.stale = None;
        let held: Vec<_> = cut.iter().flat_map(|content| oracle::events_of(self, content)).collect();
        self.excused.extend(held);
    }

    /// A commit is decided and answered. Says whether the broker dies now, before it has written the markers.
    pub fn markers_are_lost(&mut self, lanes: &BTreeSet<usize>, outcome: Outcome) -> bool {
        if !self.kafka.dying || outcome != Outcome::Committed || !lanes.contains(&JOURNAL) {
            return false;
        }
        self.kafka.dying = false;
        self.breached = Some(Breach::MarkersLost);
        self.hit("MarkersLost");
        let open = lanes.iter().flat_map(|lane| self.kafka.lanes[*lane].unfinished(OURS));
        let events: Vec<usize> =
            open.filter_map(|content| if let Content::Event(index) = content { Some(*index) } else { None }).collect();
        self.excused.extend(events);
        self.down[1] = self.now + self.ms(100..=500);
        true
    }

    /// The database comes back as it was when a backup of it was made.
    pub fn restore(&mut self) {
        if self.copies.is_empty() {
            return;
        }
        let which = self.chance.usize(0..self.copies.len());
        let (step, copy) = self.copies[which].clone();
        self.copies.truncate(which + 1);
        let (swallows, full, generation) = (self.database.swallows, self.database.full, self.database.generation);
        self.database = Database { swallows, full, generation, ..copy };
        self.database.open.clear();
        self.database.crash();
        self.forget_since(step);
        self.restored = true;
        self.hit("the database was restored from a backup");
    }

    /// What was committed after a step is lost by the database.
    pub fn forget_since(&mut self, step: u64) {
        self.lossy = true;
        for event in self.happened.iter_mut().filter(|event| event.committed.is_some_and(|committed| committed > step)) {
            event.lost = true;
        }
    }

    /// Whether a halt is what this run's breach leads to.
    pub fn breach_explains(&self, halt: HaltCode) -> bool {
        match self.breached {
            Some(Breach::JournalDeleted | Breach::JournalCut) => halt == HaltCode::KafkaBehind,
            Some(Breach::MarkersLost) => matches!(halt, HaltCode::KafkaBehind | HaltCode::JournalBlocked),
            None => false,
        }
    }
}

impl Partition {
    /// Cuts everything off from an offset on, and gives what was committed there.
    fn cut(&mut self, keep: usize) -> Vec<Content> {
        let cut = self.records.split_off(keep.min(self.records.len()));
        self.open.retain(|_, first| *first < keep);
        self.last.clear();
        cut.into_iter().filter(|stored| stored.outcome != Some(Outcome::Aborted)).map(|stored| stored.content).collect()
    }

    /// Records of a transaction that has no end yet.
    fn unfinished(&self, tid: usize) -> impl Iterator<Item = &Content> {
        let ours = self.records.iter().filter(move |stored| stored.by == tid && stored.outcome.is_none());
        ours.map(|stored| &stored.content)
    }
}
