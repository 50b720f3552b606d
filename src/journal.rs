//! The journal record: which events batch n held. Encoding, decoding and the checks that make the journal a proof.
//!
//! One record is written inside the Kafka transaction of its batch, as its last message. Layout, little endian, `varint` = LEB128:
//!
//! ```text
//! version u8 | outbox 16 | n varint | owner: text, u64, varint | database: text, varint | checksum of record n-1 u64
//! topics: count, text… | lanes: count, (topic, partition, first offset)… varint
//! entries: count, (seq delta zigzag, fingerprint u64, lane varint, offset delta varint)… | checksum u64
//! ```
//! A lane is one partition of one topic; the offset delta counts from the lane's previous entry. 11 bytes an event in large batches.

use std::future::Future;

use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

use crate::event::Fingerprint;
use crate::failpoint::lacks;
use crate::fault::{Fault, Halt, HaltCode};

mod wire;

/// The only record format this binary writes and reads.
pub const FORMAT: u8 = 1;

/// What one committed batch held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which outbox, and who wrote the record.
    pub writer: Writer,
    /// Number of the batch, from 1, without holes.
    pub n: u64,
    /// Checksum of record n-1 (0 for the first).
    pub previous: Checksum,
    /// Names of the Kafka topics that occur.
    pub topics: Vec<String>,
    /// One entry an event, ascending by `seq`.
    pub entries: Vec<Entry>,
}

/// Who writes records: the same for all records of one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The outbox's uuid from the state row.
    pub outbox: Uuid,
    /// The process.
    pub owner: Owner,
    /// The database it read from.
    pub database: DatabaseIdentity,
}

/// One process that holds, or held, the lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Configured instance name.
    pub instance: String,
    /// Random number drawn when the process started.
    pub start: u64,
    /// Number of the lease grant it publishes under.
    pub epoch: u64,
}

/// Which database, and which of its pasts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DatabaseIdentity {
    /// System identifier of the cluster.
    pub system: String,
    /// Timeline: grows with every promotion.
    pub timeline: u32,
}

/// One event of a batch: what it was and where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position in the table.
    pub seq: i64,
    /// Tells events with a reused `seq` apart.
    pub fingerprint: Fingerprint,
    /// Index into [`Record::topics`].
    pub topic: u32,
    /// Kafka partition.
    pub partition: i32,
    /// Offset at which the broker acknowledged it.
    pub offset: i64,
}

/// First eight bytes of the SHA-256 of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Checksum(pub u64);

impl Checksum {
    fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(u64::from_le_bytes(first))
    }
}

/// Why bytes are not a journal record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// A format this binary does not know.
    #[error("format {0} is not known")]
    Format(u8),
    /// The bytes end early, run on, or contradict themselves.
    #[error("{0}")]
    Broken(&'static str),
}

impl Record {
    /// The record as bytes, and its checksum.
    pub fn encode(&self) -> (Vec<u8>, Checksum) {
        let mut bytes = wire::encode(self);
        let checksum = Checksum::of(&bytes);
        bytes.extend_from_slice(&checksum.0.to_le_bytes());
        (bytes, checksum)
    }

    /// The record that `bytes` hold, and its checksum.
    pub fn decode(bytes: &[u8]) -> Result<(Self, Checksum), Damage> {
        match bytes.first() {
            None => return Err(Damage::Broken("it is empty")),
            Some(&FORMAT) if !lacks!(Format) => {}
            Some(&other) => return Err(Damage::Format(other)),
        }
        let (body, tail) = bytes.split_last_chunk::<8>().ok_or(Damage::Broken("it is too short"))?;
        let checksum = Checksum::of(body);
        if checksum.0 != u64::from_le_bytes(*tail) {
            return Err(Damage::Broken("its checksum does not match"));
        }
        wire::decode(body).map(|record| (record, checksum))
    }
}

/// The newest batch whose rows are marked, and where its record is: n = 0 for an outbox that never published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Number of the batch.
    pub n: u64,
    /// Offset of its journal record.
    pub offset: i64,
    /// Checksum of its journal record.
    pub checksum: Checksum,
}

/// What the journal holds from the newest applied record on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The last record: batch k. Equals the base when nothing lies above it.
    pub last: Applied,
    /// True high watermark: where the next record will lie.
    pub end: i64,
    /// Last stable offset: below `end` while somebody's transaction is open.
    pub stable: i64,
    /// Who wrote the last record, when there is one.
    pub newest: Option<Writer>,
    /// The different owners of the records above the base, in order of appearance; at most [`OWNERS_KEPT`].
    pub owners_above: Vec<Owner>,
}

/// Bound on [`View::owners_above`]: one that the database never knew is enough to act.
pub const OWNERS_KEPT: usize = 64;

/// Checks a journal record by record: identity, density, chain.
#[derive(Debug)]
pub struct Reading {
    outbox: Uuid,
    base: Applied,
    window: Option<Halt>,
    base_seen: bool,
    last: Applied,
    newest: Option<Writer>,
    owners_above: Vec<Owner>,
}

impl Reading {
    /// Starts at the offset of `base`, or at `log_start`, the first offset that the topic still has, when that is later: then the
    /// first record tells whether this is another outbox's journal before the missing part is held against it.
    pub fn start(outbox: Uuid, base: Applied, log_start: i64) -> Self {
        let window = (log_start > base.offset).then(|| {
            let evidence = format!("batch {} is journalled at offset {}, the journal starts at {log_start}", base.n, base.offset);
            Halt::new(HaltCode::JournalWindow, evidence)
        });
        Self { outbox, base, window, base_seen: base.n == 0, last: base, newest: None, owners_above: Vec::new() }
    }

    /// Where to read from.
    pub fn from(&self, log_start: i64) -> i64 {
        self.base.offset.max(log_start)
    }

    /// Takes the next record. `None` for the base itself, which is applied already.
    pub fn accept(&mut self, offset: i64, bytes: &[u8]) -> Result<Option<Record>, Halt> {
        let (record, checksum) = Record::decode(bytes).map_err(|damage| damaged(offset, &damage))?;
        if record.writer.outbox != self.outbox {
            let evidence = format!("offset {offset} holds a record of outbox {}, this is {}", record.writer.outbox, self.outbox);
            return Err(Halt::new(HaltCode::ForeignJournal, evidence));
        }
        if let Some(halt) = &self.window {
            return Err(halt.clone());
        }
        let found = Applied { n: record.n, offset, checksum };
        self.newest = Some(record.writer.clone());
        if !self.base_seen {
            self.base_seen = true;
            return if found == self.base { Ok(None) } else { Err(not_the_base(self.base, found)) };
        }
        if record.n != self.last.n + 1 || record.previous != self.last.checksum {
            let evidence = format!("offset {offset} holds batch {}, which does not follow batch {}", record.n, self.last.n);
            return Err(Halt::new(HaltCode::KafkaBehind, evidence));
        }
        self.last = found;
        if !self.owners_above.contains(&record.writer.owner) && self.owners_above.len() < OWNERS_KEPT {
            self.owners_above.push(record.writer.owner.clone());
        }
        Ok(Some(record))
    }

    /// Ends the reading at the true high watermark `end`.
    pub fn finish(self, end: i64, stable: i64) -> Result<View, Halt> {
        if let Some(halt) = self.window {
            return Err(halt);
        }
        if !self.base_seen {
            let evidence = format!(
                "batch {} was journalled at offset {}, the journal ends at {end} without it",
                self.base.n, self.base.offset
            );
            return Err(Halt::new(HaltCode::KafkaBehind, evidence));
        }
        Ok(View { last: self.last, end, stable, newest: self.newest, owners_above: self.owners_above })
    }
}

fn damaged(offset: i64, damage: &Damage) -> Halt {
    let code = match damage {
        Damage::Format(_) => HaltCode::JournalVersion,
        Damage::Broken(_) => HaltCode::ForeignJournal,
    };
    Halt::new(code, format!("offset {offset} of the journal holds no record that can be read: {damage}"))
}

fn not_the_base(base: Applied, found: Applied) -> Halt {
    let evidence = format!(
        "offset {} should hold batch {} (checksum {:016x}), but offset {} holds batch {} ({:016x})",
        base.offset, base.n, base.checksum.0, found.offset, found.n, found.checksum.0
    );
    Halt::new(HaltCode::KafkaBehind, evidence)
}

/// The records above the base, one after the other, so that a long journal is never held in memory.
pub trait History: Send {
    /// The next record with its place, or nothing after batch k.
    fn next(&mut self) -> impl Future<Output = Result<Option<(Record, Applied)>, Fault>> + Send;
}

#[cfg(test)]
mod tests;
