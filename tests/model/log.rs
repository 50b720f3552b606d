//! Kafka, as far as the protocol can tell: transactions of a transactional id, their end, and the journal's offsets.

use crate::relay::Halt;
use crate::rules::{Rule, Rules};
use crate::state::{Applied, Log, Producer, Record, Slot, Stored};

/// What a reading of the journal gives.
pub struct View {
    pub last: Applied,
    /// The latest timeline that wrote.
    pub timeline: u8,
}

impl Log {
    /// Whether a transaction of this id has records.
    pub fn is_open(&self, id: usize) -> bool {
        self.has_open_events(id) || self.journal.iter().any(|slot| slot.open && slot.id as usize == id)
    }

    pub fn has_open_events(&self, id: usize) -> bool {
        self.events.iter().any(|stored| stored.open && stored.id as usize == id)
    }

    /// Ends the open transaction of this id, if there is one. The marker on the journal takes an offset, an aborted record stays away.
    pub fn finish(&mut self, id: usize, commit: bool) {
        let mine = |open: bool, by: u8| open && by as usize == id;
        let journalled = self.journal.iter().any(|slot| mine(slot.open, slot.id));
        self.end += u8::from(journalled);
        if !commit {
            self.events.retain(|stored| !mine(stored.open, stored.id));
            self.journal.retain(|slot| !mine(slot.open, slot.id));
        }
        self.events.iter_mut().filter(|stored| mine(stored.open, stored.id)).for_each(|stored| stored.open = false);
        self.journal.iter_mut().filter(|slot| mine(slot.open, slot.id)).for_each(|slot| slot.open = false);
    }

    /// init_transactions: the open transaction is aborted, every request of an older epoch will be refused.
    pub fn init(&mut self, id: usize, relay: usize) {
        self.finish(id, false);
        self.producers[id] = Producer { owner: relay as u8 + 1, late_commits: 0, late_aborts: 0 };
    }

    /// The coordinator aborts a transaction that took too long, and shuts its owner out.
    pub fn time_out(&mut self, id: usize) {
        self.finish(id, false);
        self.producers[id] = Producer::default();
    }

    pub fn send(&mut self, id: usize, uid: u8) {
        self.events.push(Stored { uid, open: true, id: id as u8 });
    }

    /// Returns where the record was acknowledged.
    pub fn journal(&mut self, id: usize, record: Record) -> u8 {
        let offset = self.end;
        self.journal.push(Slot { offset, record, open: true, id: id as u8 });
        self.end += 1;
        offset
    }

    /// Last stable offset of the journal.
    pub fn stable(&self) -> u8 {
        self.journal.iter().find(|slot| slot.open).map_or(self.end, |slot| slot.offset)
    }

    /// Committed records, also those that were trimmed.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = (u8, &Record)> {
        self.journal.iter().filter(|slot| !slot.open).map(|slot| (slot.offset, &slot.record))
    }

    /// Reads from the applied record up to `until`, and checks what is there.
    pub fn read(&self, base: Applied, until: u8, rules: Rules) -> Result<View, Halt> {
        let mut view = View { last: base, timeline: 0 };
        let cut = self.start > base.offset;
        if cut && rules.keep(Rule::ResetIsError) {
            return Err(Halt::JournalWindow);
        }
        if cut {
            // a reader that begins at the end, where there is nothing
            return Ok(view);
        }
        let mut records = self.records().filter(|(offset, _)| (base.offset..until).contains(offset));
        if base.n > 0 {
            match records.next() {
                Some((offset, record)) if (Applied { n: record.n, offset, checksum: record.checksum }) == base => {
                    view.timeline = record.timeline;
                }
                _ => return Err(Halt::KafkaBehind),
            }
        }
        for (offset, record) in records {
            if record.n != view.last.n + 1 || record.previous != view.last.checksum {
                return Err(Halt::KafkaBehind);
            }
            view.last = Applied { n: record.n, offset, checksum: record.checksum };
            view.timeline = view.timeline.max(record.timeline);
        }
        Ok(view)
    }
}

impl Record {
    /// With its checksum, which goes over all of it and over that of its predecessor.
    pub fn sealed(mut self, writer: u8) -> Self {
        let entries = self.batch.iter().flat_map(|entry| [entry.seq, entry.uid]);
        let bytes = [self.n, self.timeline, writer].into_iter().chain(self.previous.to_le_bytes()).chain(entries);
        self.checksum = bytes.fold(0x811c_9dc5, |sum: u32, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        self
    }
}
