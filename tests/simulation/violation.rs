//! What a run can find to be wrong.

/// Which sentence of the promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A committed event is not visible, and does not wait for a good reason.
    Lost,
    /// An event is visible more than once.
    Duplicated,
    /// An event comes after a later one of its key.
    Reordered,
    /// Events of a key are in two partitions.
    Scattered,
    /// An event was published before an earlier one of its key that is set aside.
    Overtaken,
    /// An event of a transaction that was never committed is visible.
    Phantom,
    /// Entries of the journal and visible events are not the same.
    Torn,
    /// Numbers of the journal are not dense and chained.
    Journal,
    /// What is applied is not in the journal.
    Applied,
    /// A row is marked, and its event is not visible.
    Marked,
    /// More batches are published and not marked than the one that is published and the one before.
    Behind,
    /// What is set aside is published, or gone.
    Parked,
    /// The relays came to no end in time.
    Stuck,
    /// A relay shut another one out that it had to leave alone.
    Trespass,
    /// A halt was written whose evidence is not so.
    FalseHalt,
    /// A relay left for good, or panicked.
    Left,
}

/// Something that must never be.
#[derive(Clone, Debug)]
pub struct Violation {
    pub class: Class,
    pub what: String,
}

impl Class {
    /// A violation of this class.
    pub fn is(self, what: String) -> Violation {
        Violation { class: self, what }
    }
}
