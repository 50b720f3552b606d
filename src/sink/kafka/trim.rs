//! Letting go of old journal records: the relay's own retention, because Kafka's would not spare the last one.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::admin::with_admin;
use super::blocking::{Caller, drop_aside, wait};
use super::client::{self, Context, Sight};
use super::{Shared, faults, journal};
use crate::fault::Fault;

/// One question to the cluster.
const ASK: Duration = Duration::from_secs(10);

/// Deletes records below `keep_from` that are older than the configured retention, but for the newest of these: a database that is put
/// back to any moment within the retention has that one or a younger one for its newest applied batch. Returns the topic's new start.
pub(super) fn trim(shared: &Arc<Shared>, keep_from: i64, caller: &Caller<'_>) -> Result<i64, Fault> {
    let reader = client::reader(&shared.settings, Sight::Committed)?;
    let found = bounds(&reader, shared);
    drop_aside(reader);
    let (start, old_until) = found?;
    let until = match old_until {
        Some(young) => journal::newest_below(shared, young, caller)?.unwrap_or(start).min(keep_from),
        None => keep_from,
    };
    if until <= start {
        return Ok(start);
    }
    delete(shared, until)
}

/// The topic's start, and the offset of the first record that is young enough to stay; nothing when none is.
fn bounds(reader: &BaseConsumer<Context>, shared: &Shared) -> Result<(i64, Option<i64>), Fault> {
    let asked = |error| faults::asked(&error, "the journal's age cannot be looked up");
    let (start, _) = reader.fetch_watermarks(&shared.journal, 0, ASK).map_err(asked)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let oldest = now.saturating_sub(shared.settings.kafka.journal_retention).as_millis();
    let mut times = TopicPartitionList::new();
    let oldest = Offset::Offset(i64::try_from(oldest).unwrap_or(i64::MAX));
    times.add_partition_offset(&shared.journal, 0, oldest).map_err(asked)?;
    let offsets = reader.offsets_for_times(times, ASK).map_err(asked)?;
    let place = offsets.find_partition(&shared.journal, 0);
    if let Some(Err(error)) = place.as_ref().map(rdkafka::topic_partition_list::TopicPartitionListElem::error) {
        return Err(asked(error));
    }
    Ok((start, place.and_then(|place| if let Offset::Offset(first) = place.offset() { Some(first) } else { None })))
}

fn delete(shared: &Shared, until: i64) -> Result<i64, Fault> {
    let mut range = TopicPartitionList::new();
    let asked = |error| faults::asked(&error, "the journal cannot be trimmed");
    range.add_partition_offset(&shared.journal, 0, Offset::Offset(until)).map_err(asked)?;
    let options = AdminOptions::new().request_timeout(Some(ASK)).operation_timeout(Some(ASK));
    let deleted = with_admin(&shared.settings, |admin| wait(admin.delete_records(&range, &options)).map_err(asked))?;
    let place = deleted.find_partition(&shared.journal, 0);
    let place = place.ok_or_else(|| Fault::kafka("kafka", "the journal cannot be trimmed: no answer for its partition"))?;
    match (place.error().map_err(|error| error.rdkafka_error_code()), place.offset()) {
        (Ok(()), Offset::Offset(start)) => Ok(start),
        (Ok(()), _) => Ok(until),
        (Err(Some(Code::TopicAuthorizationFailed)), _) => Err(Fault::Refused {
            detail: format!("records of {} may not be deleted", shared.journal),
            remedy: format!("Grant DELETE on topic {}; until then the journal only grows", shared.journal),
        }),
        (Err(code), _) => Err(faults::unavailable(code.unwrap_or(Code::Unknown), "the journal cannot be trimmed", None)),
    }
}
