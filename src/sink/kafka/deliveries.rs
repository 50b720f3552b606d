//! What became of the records of one batch: filled by delivery reports, read when the queue is empty.

use std::sync::Mutex;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message as _;
use rdkafka::producer::DeliveryResult;

use super::client::lock;
use super::faults;

/// Offset of a record that is not acknowledged.
pub(super) const UNKNOWN: i64 = -1;

/// The reports of one producer. A record is known by its position in the batch; the journal record has the one after the last.
#[derive(Default)]
pub(super) struct Deliveries(Mutex<Reports>);

#[derive(Default)]
struct Reports {
    offsets: Vec<i64>,
    refused: Option<Refused>,
}

impl Reports {
    /// The first one counts. But one that fell only because others did, in any order, tells nothing about the reason.
    fn refuse(&mut self, refused: Refused) {
        if self.refused.is_none_or(|known| faults::is_consequence(known.code) && !faults::is_consequence(refused.code)) {
            self.refused = Some(refused);
        }
    }
}

/// The first record that was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) position: usize,
    pub(super) code: RDKafkaErrorCode,
}

impl Deliveries {
    /// Forgets the batch before and awaits `count` records.
    pub(super) fn expect(&self, count: usize) {
        let mut reports = lock(&self.0);
        reports.refused = None;
        reports.offsets.clear();
        reports.offsets.resize(count, UNKNOWN);
    }

    pub(super) fn report(&self, result: &DeliveryResult<'_>, position: usize) {
        match result {
            Ok(message) => self.acknowledge(position, message.offset()),
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                lock(&self.0).refuse(Refused { position, code });
            }
        }
    }

    fn acknowledge(&self, position: usize, offset: i64) {
        if let Some(slot) = lock(&self.0).offsets.get_mut(position) {
            *slot = offset;
        }
    }

    /// The first record that was refused.
    pub(super) fn refused(&self) -> Option<Refused> {
        lock(&self.0).refused
    }

    /// The offset of one record, [`UNKNOWN`] unless it is acknowledged.
    pub(super) fn offset(&self, position: usize) -> i64 {
        lock(&self.0).offsets.get(position).copied().unwrap_or(UNKNOWN)
    }

    /// Calls `each` with the offsets of the first `count` records, in order.
    pub(super) fn offsets<T>(&self, count: usize, each: impl FnOnce(&[i64]) -> T) -> T {
        let reports = lock(&self.0);
        each(&reports.offsets[..count.min(reports.offsets.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts_and_not_what_follows_from_it() {
        let mut reports = Reports::default();
        let mut told = |position, code| {
            reports.refuse(Refused { position, code });
            reports.refused.map(|refused| refused.position)
        };
        assert_eq!(told(4, RDKafkaErrorCode::PurgeQueue), Some(4));
        assert_eq!(told(5, RDKafkaErrorCode::PurgeInflight), Some(4));
        assert_eq!(told(2, RDKafkaErrorCode::InvalidTimestamp), Some(2));
        assert_eq!(told(1, RDKafkaErrorCode::MessageTimedOut), Some(2));
        assert_eq!(told(0, RDKafkaErrorCode::PurgeQueue), Some(2));
    }
}
