//! Bytes of a journal record, without its checksum.

use uuid::Uuid;

use super::{Checksum, Damage, DatabaseIdentity, Entry, FORMAT, Owner, Record, Writer};
use crate::event::Fingerprint;

/// A lane while its record is written or read: where its next entry is expected to lie.
struct Lane {
    topic: u32,
    partition: i32,
    next_offset: i64,
}

pub(super) fn encode(record: &Record) -> Vec<u8> {
    let (lanes, lane_of) = lanes(&record.entries);
    let mut out = Vec::with_capacity(160 + record.entries.len() * 12);
    out.push(FORMAT);
    out.extend_from_slice(record.writer.outbox.as_bytes());
    put(&mut out, record.n);
    put_text(&mut out, &record.writer.owner.instance);
    out.extend_from_slice(&record.writer.owner.start.to_le_bytes());
    put(&mut out, record.writer.owner.epoch);
    put_text(&mut out, &record.writer.database.system);
    put(&mut out, record.writer.database.timeline.into());
    out.extend_from_slice(&record.previous.0.to_le_bytes());
    put(&mut out, record.topics.len() as u64);
    record.topics.iter().for_each(|topic| put_text(&mut out, topic));
    put(&mut out, lanes.len() as u64);
    for lane in &lanes {
        put(&mut out, lane.topic.into());
        put(&mut out, zigzag(lane.partition.into()));
        put(&mut out, zigzag(lane.next_offset));
    }
    put_entries(&mut out, &record.entries, lanes, &lane_of);
    out
}

/// The lanes in order of first use, and for each entry the index of its lane.
fn lanes(entries: &[Entry]) -> (Vec<Lane>, Vec<usize>) {
    let mut known = std::collections::HashMap::new();
    let mut lanes = Vec::new();
    let lane_of = entries
        .iter()
        .map(|entry| {
            *known.entry((entry.topic, entry.partition)).or_insert_with(|| {
                lanes.push(Lane { topic: entry.topic, partition: entry.partition, next_offset: entry.offset });
                lanes.len() - 1
            })
        })
        .collect();
    (lanes, lane_of)
}

fn put_entries(out: &mut Vec<u8>, entries: &[Entry], mut lanes: Vec<Lane>, lane_of: &[usize]) {
    put(out, entries.len() as u64);
    let mut last_seq = 0_i64;
    for (entry, &index) in entries.iter().zip(lane_of) {
        let lane = &mut lanes[index];
        put(out, zigzag(entry.seq.wrapping_sub(last_seq)));
        out.extend_from_slice(&entry.fingerprint.0.to_le_bytes());
        put(out, index as u64);
        put(out, zigzag(entry.offset.wrapping_sub(lane.next_offset)));
        last_seq = entry.seq;
        lane.next_offset = entry.offset.wrapping_add(1);
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Record, Damage> {
    let mut input = Input(bytes);
    input.take::<1>()?;
    let outbox = Uuid::from_bytes(input.take()?);
    let n = input.number()?;
    let owner = Owner { instance: input.text()?, start: u64::from_le_bytes(input.take()?), epoch: input.number()? };
    let database = DatabaseIdentity { system: input.text()?, timeline: narrow(input.number()?)? };
    let previous = Checksum(u64::from_le_bytes(input.take()?));
    let topics = (0..input.count()?).map(|_| input.text()).collect::<Result<Vec<_>, _>>()?;
    let mut lanes = (0..input.count()?).map(|_| input.lane(topics.len())).collect::<Result<Vec<_>, _>>()?;
    let mut last_seq = 0;
    let entries = (0..input.count()?).map(|_| input.entry(&mut lanes, &mut last_seq)).collect::<Result<Vec<_>, _>>()?;
    if !input.0.is_empty() {
        return Err(Damage::Broken("it runs on after its last entry"));
    }
    Ok(Record { writer: Writer { outbox, owner, database }, n, previous, topics, entries })
}

/// What is still to be read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Damage::Broken("it ends early"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u64, Damage> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).ok_or(Damage::Broken("a number is too long"))?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damage::Broken("a number is too long"))
    }

    /// A count of things that take at least one byte each, so that a damaged one cannot make us allocate the moon.
    fn count(&mut self) -> Result<usize, Damage> {
        let count = self.number()?;
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= self.0.len())
            .ok_or(Damage::Broken("a count is larger than the record"))
    }

    fn text(&mut self) -> Result<String, Damage> {
        let length = self.count()?;
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Damage::Broken("a name is not text"))
    }

    fn lane(&mut self, topics: usize) -> Result<Lane, Damage> {
        let topic = narrow(self.number()?)?;
        if topic as usize >= topics {
            return Err(Damage::Broken("a lane names no topic"));
        }
        let partition = i32::try_from(unzigzag(self.number()?)).map_err(|_| Damage::Broken("a partition is out of range"))?;
        Ok(Lane { topic, partition, next_offset: unzigzag(self.number()?) })
    }

    fn entry(&mut self, lanes: &mut [Lane], last_seq: &mut i64) -> Result<Entry, Damage> {
        let seq = last_seq.wrapping_add(unzigzag(self.number()?));
        let fingerprint = Fingerprint(u64::from_le_bytes(self.take()?));
        let index = self.number()?;
        let lane =
            usize::try_from(index).ok().and_then(|index| lanes.get_mut(index)).ok_or(Damage::Broken("an entry names no lane"))?;
        let offset = lane.next_offset.wrapping_add(unzigzag(self.number()?));
        lane.next_offset = offset.wrapping_add(1);
        *last_seq = seq;
        Ok(Entry { seq, fingerprint, topic: lane.topic, partition: lane.partition, offset })
    }
}

fn narrow(value: u64) -> Result<u32, Damage> {
    u32::try_from(value).map_err(|_| Damage::Broken("a number is out of range"))
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Small negative numbers become small positive ones.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
