//! What a verification found: counts, first examples, and what could not be looked at.

use std::collections::BTreeMap;

/// Examples that are kept of each kind in each topic.
const EXAMPLES: usize = 5;

/// What can be found of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Marked or journalled, and in no record of the topic.
    Lost,
    /// More than once in its topic.
    Duplicated,
    /// Behind a later one of its key in the same batch, or in another partition than its key's.
    Reordered,
    /// Journal and topic differ: of a batch only a part is there, or at another place, or without its journal record.
    Torn,
    /// Published in a batch that counts as applied, or given up, and still unsent in the table.
    Unmarked,
    /// Published, and no row is there that says so; or given up, and published all the same.
    Phantom,
    /// A record of somebody else.
    Foreign,
    /// Behind one of its key with a higher number from an earlier batch: no breach, since nothing tells whether they had an order.
    Overtaken,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] =
        [Self::Lost, Self::Duplicated, Self::Reordered, Self::Torn, Self::Unmarked, Self::Phantom, Self::Foreign, Self::Overtaken];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Torn => "torn",
            Self::Unmarked => "unmarked",
            Self::Phantom => "phantom",
            Self::Foreign => "foreign",
            Self::Overtaken => "overtaken",
        }
    }
}

/// Why an event could not be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unchecked {
    /// The topic begins later: its retention, or a person, has let go of it.
    Trimmed,
    /// The topic is compacted, so that what is missing may have been replaced.
    Compacted,
    /// Whether the topic is compacted may not be read, and something is missing.
    Untold,
    /// A transaction stays open before it, so that readers do not come so far.
    Hidden,
    /// The topic or the partition is not there.
    NoTopic,
    /// Published to an earlier topic of this name: a person has accepted another one since.
    EarlierTopic,
    /// Of `reconcile`: the topic was deleted and made anew since it was published to.
    Recreated,
    /// Of `reconcile`: nothing tells whether the topic is the one that was published to.
    Unpinned,
    /// A record from before what is left of the journal, or in a partition that it does not name: only repetitions are found there.
    BeforeJournal,
    /// A row that was marked before what is left of the journal, perhaps by somebody else; without a journal, of the topic.
    Forgotten,
}

impl Unchecked {
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Compacted => "compacted",
            Self::Untold => "settings_not_readable",
            Self::Hidden => "hidden",
            Self::NoTopic => "no_topic",
            Self::EarlierTopic => "earlier_topic",
            Self::Recreated => "topic_recreated",
            Self::Unpinned => "topic_not_pinned",
            Self::BeforeJournal => "before_journal",
            Self::Forgotten => "forgotten",
        }
    }

    /// What that means, for a person.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Trimmed => "the topic begins later",
            Self::Compacted => "the topic is compacted",
            Self::Untold => "DESCRIBE_CONFIGS is not granted, so nothing tells whether the topic is compacted",
            Self::Hidden => "a transaction stays open before it: readers of committed records stand still there",
            Self::NoTopic => "the topic is not there",
            Self::EarlierTopic => "in an earlier topic of this name",
            Self::Recreated => "the topic was deleted and made anew, and the old one may have had them",
            Self::Unpinned => "nothing tells that the topic is not one that was made anew since they were inserted",
            Self::BeforeJournal => "older than what is left of the journal, or where it names nothing",
            Self::Forgotten => "marked before what is left of the journal, or by somebody else",
        }
    }
}

/// One event of which something was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Where its record lies, or should lie: partition and offset.
    pub place: Option<(i32, i64)>,
    /// Its number in the table.
    pub seq: Option<i64>,
    /// The batch that the journal names it in.
    pub batch: Option<u64>,
    /// What is the matter.
    pub why: &'static str,
}

impl Example {
    pub(super) fn new(why: &'static str) -> Self {
        Self { place: None, seq: None, batch: None, why }
    }

    pub(super) fn at(mut self, partition: i32, offset: i64) -> Self {
        self.place = Some((partition, offset));
        self
    }

    pub(super) fn of_row(mut self, seq: i64) -> Self {
        self.seq = Some(seq);
        self
    }

    pub(super) fn of_batch(mut self, n: u64) -> Self {
        self.batch = Some(n);
        self
    }
}

/// What was found of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicReport {
    /// Its name in Kafka.
    pub topic: String,
    /// Committed records that were read.
    pub records: u64,
    /// Events that the journal names and that lie where it says.
    pub published: u64,
    /// Rows in the table.
    pub rows: u64,
    /// Rows that wait to be published.
    pub waiting: u64,
    /// Rows that are published and not marked yet, of batches above the newest applied one.
    pub underway: u64,
    /// Rows that a person has given up, as the audit says.
    pub discarded: u64,
    /// How often each kind was found; what is not named was not found.
    pub found: BTreeMap<Kind, u64>,
    /// The first ones of each kind.
    pub examples: BTreeMap<Kind, Vec<Example>>,
    /// How many events could not be looked at, and why.
    pub unchecked: BTreeMap<Unchecked, u64>,
}

impl TopicReport {
    pub(super) fn new(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            records: 0,
            published: 0,
            rows: 0,
            waiting: 0,
            underway: 0,
            discarded: 0,
            found: BTreeMap::new(),
            examples: BTreeMap::new(),
            unchecked: BTreeMap::new(),
        }
    }

    pub(super) fn found(&mut self, kind: Kind, example: Example) {
        self.found_more(kind, 1, example);
    }

    pub(super) fn found_more(&mut self, kind: Kind, count: u64, example: Example) {
        *self.found.entry(kind).or_default() += count;
        let examples = self.examples.entry(kind).or_default();
        if examples.len() < EXAMPLES {
            examples.push(example);
        }
    }

    pub(super) fn unchecked(&mut self, why: Unchecked) {
        *self.unchecked.entry(why).or_default() += 1;
    }

    /// How often this was found.
    pub fn count(&self, kind: Kind) -> u64 {
        self.found.get(&kind).copied().unwrap_or(0)
    }
}

/// What was found of the journal itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalReport {
    /// Number of the first record that is left.
    pub first: Option<u64>,
    /// Number of the last record.
    pub last: Option<u64>,
    /// Records that were read.
    pub records: u64,
    /// Events that they name.
    pub events: u64,
    /// How often a person has made it begin anew (`adopt`).
    pub adopted: u64,
    /// How often it is not dense, not chained, or not what the table says.
    pub broken: u64,
    /// The first of these.
    pub examples: Vec<String>,
}

impl JournalReport {
    pub(super) fn broken(&mut self, what: String) {
        self.broken += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(what);
        }
    }
}

/// What was found of an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The journal; nothing in a mode without one.
    pub journal: Option<JournalReport>,
    /// The topics, by name.
    pub topics: Vec<TopicReport>,
}

impl Report {
    /// Whether a kind breaks the promise: records of others and events without an order do not, and without a journal a repetition
    /// does not.
    pub fn is_breach(&self, kind: Kind) -> bool {
        match kind {
            Kind::Lost | Kind::Reordered | Kind::Torn | Kind::Unmarked | Kind::Phantom => true,
            Kind::Duplicated => self.journal.is_some(),
            Kind::Foreign | Kind::Overtaken => false,
        }
    }

    /// How many breaches were found.
    pub fn breaches(&self) -> u64 {
        let of_kind = |topic: &TopicReport| {
            Kind::ALL.into_iter().filter(|kind| self.is_breach(*kind)).map(|kind| topic.count(kind)).sum::<u64>()
        };
        self.topics.iter().map(of_kind).sum::<u64>() + self.journal.as_ref().map_or(0, |journal| journal.broken)
    }

    /// How often this was found in all topics.
    pub fn count(&self, kind: Kind) -> u64 {
        self.topics.iter().map(|topic| topic.count(kind)).sum()
    }
}
