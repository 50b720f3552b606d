//! Events and batches: pure data, no input or output.
//!
//! A [`Batch`] keeps the bytes of all its events in one buffer, so that reading 5,000 rows costs a handful of allocations instead
//! of one for each column of each row. An [`Event`] is a view into that buffer, or into a database row on its way there.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

mod id;

pub use id::{EventId, Fingerprint, Identity};

/// One row of the outbox table, borrowed from wherever it lies at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Position in the table; larger is later.
    pub seq: i64,
    /// Identity; its text is the record header `id`.
    pub id: EventId<'a>,
    /// Topic as the service wrote it, before a configured prefix or suffix.
    pub topic: &'a str,
    /// Decides order and partition; `None`: no order.
    pub key: Option<&'a [u8]>,
    /// Which kind of event; the record header `type`, left out when empty.
    pub kind: &'a str,
    /// Which service wrote it; `None`: the configured one.
    pub source: Option<&'a str>,
    /// The value; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// JSON object of further headers.
    pub headers: Option<&'a [u8]>,
    /// When the service inserted it, microseconds since 1970 (UTC); `None`: the table does not tell.
    pub created_at_us: Option<i64>,
}

impl Event<'_> {
    /// Bytes this event occupies in a batch.
    pub fn size(&self) -> usize {
        let optional = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        optional(self.key) + self.kind.len() + self.source.map_or(0, str::len) + optional(self.payload) + optional(self.headers)
    }

    /// What the journal remembers of this event beside its `seq`.
    pub fn fingerprint(&self) -> Fingerprint {
        self.id.fingerprint()
    }
}

/// How much one batch may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Events at most.
    pub events: usize,
    /// The batch is closed by the event that reaches this many bytes, so one event larger than this still fits alone.
    pub bytes: usize,
}

/// Where an event stands among those of its topic and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It can be published: it is good, and so are those before it.
    Free,
    /// It cannot be published, and nothing good comes before it.
    FirstUnfit,
    /// It cannot be published before something else was: it is behind an unfit one, or is unfit behind a good one.
    Behind,
}

/// A run of events in ascending `seq`, never empty.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    topics: Vec<Box<str>>,
    full: bool,
}

#[derive(Debug)]
struct Row {
    seq: i64,
    id: RowId,
    created_at_us: Option<i64>,
    start: usize,
    topic: u32,
    key: u32,
    kind: u32,
    source: u32,
    payload: u32,
    headers: u32,
}

#[derive(Clone, Copy, Debug)]
enum RowId {
    Uuid(Uuid),
    /// The text stands before the other bytes of its row.
    Text {
        length: u32,
        fingerprint: Fingerprint,
    },
}

/// Length that stands for NULL; no column of one gigabyte or less reaches it.
const NULL: u32 = u32::MAX;

impl Batch {
    /// Number of events, at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of keys, types, sources, payloads and headers together.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a limit closed this batch, so that there is probably more to fetch.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The topics that occur, each once, in order of first occurrence.
    pub fn topics(&self) -> &[Box<str>] {
        &self.topics
    }

    /// Index into [`Batch::topics`] of the event at `position`.
    pub fn topic_index(&self, position: usize) -> usize {
        self.rows[position].topic as usize
    }

    /// The event at `position` (0-based).
    pub fn event(&self, position: usize) -> Event<'_> {
        let row = &self.rows[position];
        let id = self.id(row);
        let mut at = row.start + row.id.length();
        let mut next = |length: u32| {
            (length != NULL).then(|| {
                let from = at;
                at += length as usize;
                &self.bytes[from..at]
            })
        };
        let (key, kind, source) = (next(row.key), next(row.kind), next(row.source));
        Event {
            seq: row.seq,
            id,
            topic: &self.topics[row.topic as usize],
            key,
            kind: text(kind.unwrap_or_default()),
            source: source.map(text),
            payload: next(row.payload),
            headers: next(row.headers),
            created_at_us: row.created_at_us,
        }
    }

    /// The events at those positions, as a batch of their own; nothing when there are none. There is more to fetch after it.
    pub fn select(&self, keep: impl Fn(usize) -> bool) -> Option<Self> {
        let mut builder = BatchBuilder::new(BatchLimits { events: usize::MAX, bytes: usize::MAX });
        for position in (0..self.len()).filter(|&position| keep(position)) {
            builder.push(&self.event(position));
        }
        builder.cut();
        builder.build()
    }

    /// Where each event stands in its lane, the events of one topic and key, when those numbered `unfit` cannot be published.
    pub fn places(&self, unfit: &HashSet<i64>) -> Vec<Place> {
        let mut lanes: HashMap<(u32, &[u8]), Place> = HashMap::new();
        let mut places = Vec::with_capacity(self.len());
        for (position, event) in self.events().enumerate() {
            let good = !unfit.contains(&event.seq);
            let alone = if good { Place::Free } else { Place::FirstUnfit };
            let lane = event.key.map(|key| (self.rows[position].topic, key));
            let before = lane.and_then(|lane| lanes.get(&lane).copied());
            let place = match before {
                None => alone,
                Some(Place::Free) if good => Place::Free,
                Some(Place::Free | Place::FirstUnfit | Place::Behind) => Place::Behind,
            };
            places.push(place);
            lane.and_then(|lane| lanes.insert(lane, place));
        }
        places
    }

    /// All events in order.
    pub fn events(&self) -> impl ExactSizeIterator<Item = Event<'_>> {
        (0..self.len()).map(|position| self.event(position))
    }

    /// `seq` of every event, ascending.
    pub fn seqs(&self) -> impl ExactSizeIterator<Item = i64> + '_ {
        self.rows.iter().map(|row| row.seq)
    }

    /// `id` of every event, in the order of [`Batch::seqs`].
    pub fn ids(&self) -> impl ExactSizeIterator<Item = EventId<'_>> + '_ {
        self.rows.iter().map(|row| self.id(row))
    }

    fn id(&self, row: &Row) -> EventId<'_> {
        match row.id {
            RowId::Uuid(id) => EventId::Uuid(id),
            RowId::Text { length, fingerprint } => {
                EventId::Text { text: text(&self.bytes[row.start..row.start + length as usize]), fingerprint }
            }
        }
    }

    /// `seq` of the last event.
    pub fn last_seq(&self) -> i64 {
        self.rows[self.rows.len() - 1].seq
    }
}

impl RowId {
    fn length(self) -> usize {
        match self {
            Self::Uuid(_) => 0,
            Self::Text { length, .. } => length as usize,
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("only text was copied here")
}

/// Collects rows into a [`Batch`] until a limit is reached.
#[derive(Debug)]
pub struct BatchBuilder {
    limits: BatchLimits,
    batch: Batch,
}

/// What became of a pushed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the batch.
    Kept,
    /// The batch was already full; the event is not in it.
    Refused,
    /// Its `seq` is not above the last one: whoever fetched broke the order. It is not in the batch.
    OutOfOrder,
}

impl BatchBuilder {
    /// An empty builder.
    pub fn new(limits: BatchLimits) -> Self {
        let batch = Batch { bytes: Vec::new(), rows: Vec::new(), topics: Vec::new(), full: false };
        Self { limits, batch }
    }

    /// Copies `event` into the batch unless a limit is reached.
    pub fn push(&mut self, event: &Event<'_>) -> Pushed {
        if self.batch.full {
            return Pushed::Refused;
        }
        if self.batch.rows.last().is_some_and(|last| last.seq >= event.seq) {
            return Pushed::OutOfOrder;
        }
        let row = Row {
            seq: event.seq,
            created_at_us: event.created_at_us,
            start: self.batch.bytes.len(),
            id: self.copy_id(event.id),
            topic: self.topic(event.topic),
            key: self.copy(event.key),
            kind: self.copy(Some(event.kind.as_bytes())),
            source: self.copy(event.source.map(str::as_bytes)),
            payload: self.copy(event.payload),
            headers: self.copy(event.headers),
        };
        self.batch.rows.push(row);
        self.batch.full = self.batch.rows.len() >= self.limits.events || self.batch.bytes.len() >= self.limits.bytes;
        Pushed::Kept
    }

    /// Says that the source itself left something out for size, so that there is more to fetch although no limit was reached here.
    pub fn cut(&mut self) {
        self.batch.full = true;
    }

    /// The batch, or nothing when no event was pushed.
    pub fn build(self) -> Option<Batch> {
        (!self.batch.rows.is_empty()).then_some(self.batch)
    }

    fn copy_id(&mut self, id: EventId<'_>) -> RowId {
        match id {
            EventId::Uuid(id) => RowId::Uuid(id),
            EventId::Text { text, fingerprint } => RowId::Text { length: self.copy(Some(text.as_bytes())), fingerprint },
        }
    }

    fn copy(&mut self, bytes: Option<&[u8]>) -> u32 {
        bytes.map_or(NULL, |bytes| {
            self.batch.bytes.extend_from_slice(bytes);
            u32::try_from(bytes.len()).expect("a database column is below 4 GiB")
        })
    }

    /// Topics repeat from row to row: the last one is tried first, and there are few of them.
    fn topic(&mut self, name: &str) -> u32 {
        let last = self.batch.rows.last().map(|row| row.topic as usize);
        let known = last
            .filter(|&index| &*self.batch.topics[index] == name)
            .or_else(|| self.batch.topics.iter().position(|topic| &**topic == name));
        let index = known.unwrap_or_else(|| {
            self.batch.topics.push(name.into());
            self.batch.topics.len() - 1
        });
        u32::try_from(index).expect("a batch has fewer topics than events")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64, topic: &'static str, payload: &'static [u8]) -> Event<'static> {
        Event {
            seq,
            id: Uuid::from_u128(seq as u128).into(),
            topic,
            key: Some(b"k"),
            kind: "Placed",
            source: None,
            payload: Some(payload),
            headers: None,
            created_at_us: Some(7),
        }
    }

    const LIMITS: BatchLimits = BatchLimits { events: 3, bytes: 100 };

    #[test]
    fn an_event_comes_back_as_it_was_pushed() {
        let mut builder = BatchBuilder::new(LIMITS);
        let text = EventId::Text { text: "é-1", fingerprint: Fingerprint(9) };
        let last = Event { id: text, key: None, payload: None, created_at_us: None, ..event(5, "a", b"") };
        let pushed = [event(1, "a", b"x"), Event { id: text, ..event(2, "b", b"") }, last];
        for one in &pushed {
            assert_eq!(builder.push(one), Pushed::Kept);
        }
        let batch = builder.build().expect("three events");
        assert_eq!(batch.events().collect::<Vec<_>>(), pushed);
        assert_eq!(batch.ids().collect::<Vec<_>>(), pushed.map(|event| event.id));
        assert_eq!(batch.topics().len(), 2);
        assert!(batch.is_full());
    }

    #[test]
    fn a_limit_closes_the_batch_and_one_large_event_fits_alone() {
        let mut builder = BatchBuilder::new(LIMITS);
        assert_eq!(builder.push(&event(1, "a", &[0; 200])), Pushed::Kept);
        assert_eq!(builder.push(&event(2, "a", b"")), Pushed::Refused);
        assert_eq!(builder.build().map(|batch| batch.len()), Some(1));
    }

    #[test]
    fn a_row_out_of_order_is_told() {
        let mut builder = BatchBuilder::new(LIMITS);
        builder.push(&event(2, "a", b""));
        assert_eq!(builder.push(&event(2, "a", b"")), Pushed::OutOfOrder);
    }

    #[test]
    fn chosen_events_are_a_batch_with_their_topics_only() {
        let mut builder = BatchBuilder::new(LIMITS);
        let pushed = [event(1, "a", b"x"), event(2, "b", b"yy"), event(5, "a", b"z")];
        pushed.iter().for_each(|one| assert_eq!(builder.push(one), Pushed::Kept));
        let batch = builder.build().expect("three events");
        let chosen = batch.select(|position| position != 1).expect("two");
        assert_eq!(chosen.events().collect::<Vec<_>>(), [pushed[0], pushed[2]]);
        assert_eq!((chosen.topics().len(), chosen.is_full()), (1, true));
        assert!(batch.select(|_| false).is_none());
    }

    #[test]
    fn each_event_has_its_place_behind_those_of_its_key() {
        let mut builder = BatchBuilder::new(BatchLimits { events: 9, ..LIMITS });
        let keyless = Event { key: None, ..event(6, "a", b"") };
        let pushed = [event(1, "a", b""), event(2, "b", b""), event(3, "a", b""), event(4, "a", b""), event(5, "b", b""), keyless];
        pushed.iter().for_each(|one| assert_eq!(builder.push(one), Pushed::Kept));
        let batch = builder.build().expect("six events");
        let places = |unfit: &[i64]| batch.places(&unfit.iter().copied().collect());
        use Place::{Behind, FirstUnfit, Free};
        assert_eq!(places(&[2, 3, 6]), [Free, FirstUnfit, Behind, Behind, Behind, FirstUnfit]);
        assert_eq!(places(&[1, 3]), [FirstUnfit, Free, Behind, Behind, Free, Free]);
        assert_eq!(places(&[]), [Free; 6]);
    }

    #[test]
    fn nothing_is_not_a_batch() {
        assert!(BatchBuilder::new(LIMITS).build().is_none());
    }
}
