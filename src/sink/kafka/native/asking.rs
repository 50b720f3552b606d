//! Questions to the cluster that the safe wrapper does not know: what topics are, and where their partitions end. Each is one request
//! with a bounded wait.

use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaErrorCode;

use super::{Failure, OK, milliseconds};

/// The wait ends so long after the request's own timeout, should librdkafka never answer.
const GRACE: Duration = Duration::from_secs(1);
/// What stands for the end of a partition in a question about offsets.
const LATEST: i64 = rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST as i64;

/// A topic as the cluster describes it.
#[derive(Clone, Debug)]
pub(in super::super) struct Described {
    /// Its name.
    pub(in super::super) name: String,
    /// Why it is not described.
    pub(in super::super) error: Option<RDKafkaErrorCode>,
    /// Its id, as Kafka's own tools print it; nothing where the cluster is too old to have one.
    pub(in super::super) id: Option<String>,
    /// How many partitions it has.
    pub(in super::super) partitions: usize,
    /// Whether we may write to it; nothing where the cluster does not tell.
    pub(in super::super) may_write: Option<bool>,
}

/// One partition of a topic.
pub(in super::super) type Lane = (String, i32);

/// What the cluster says of these topics, which must be different ones. It creates none of them.
pub(in super::super) fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<Vec<Described>, Failure> {
    let names = topics.iter().map(|name| c_string(name)).collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let question = Question::new(client, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
    // SAFETY: client, options and queue are alive; the names end with NUL and are copied into the collection, the collection into the
    // request. The option exists for this request, so setting it gives no error object.
    let answer = unsafe {
        rd::rd_kafka_AdminOptions_set_include_authorized_operations(question.options.as_ptr(), 1);
        let collection = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        rd::rd_kafka_DescribeTopics(client.native_ptr(), collection, question.options.as_ptr(), question.queue.as_ptr());
        rd::rd_kafka_TopicCollection_destroy(collection);
        question.answer(timeout)?
    };
    // SAFETY: the result, its topics and all that belongs to them live as long as the answer.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(answer.0.as_ptr());
        let mut count = 0;
        let described = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        Ok(listed(described, count).filter(|topic| !topic.is_null()).map(|topic| described_as(topic)).collect())
    }
}

/// The ends of these partitions, whatever readers can see of them, as far as they are told.
pub(in super::super) fn ends<C: ClientContext>(
    client: &Client<C>,
    lanes: &[Lane],
    timeout: Duration,
) -> Result<Vec<(Lane, i64)>, Failure> {
    let names = lanes.iter().map(|(topic, _)| c_string(topic)).collect::<Result<Vec<_>, _>>()?;
    let question = Question::new(client, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout);
    // SAFETY: client, options and queue are alive; the list is ours, its entries copy the names, the request copies the list.
    let answer = unsafe {
        let list = rd::rd_kafka_topic_partition_list_new(i32::try_from(lanes.len()).unwrap_or(i32::MAX));
        for ((_, partition), name) in lanes.iter().zip(&names) {
            (*rd::rd_kafka_topic_partition_list_add(list, name.as_ptr(), *partition)).offset = LATEST;
        }
        rd::rd_kafka_ListOffsets(client.native_ptr(), list, question.options.as_ptr(), question.queue.as_ptr());
        rd::rd_kafka_topic_partition_list_destroy(list);
        question.answer(timeout)?
    };
    // SAFETY: the result and its entries live as long as the answer; each names its topic.
    unsafe {
        let result = rd::rd_kafka_event_ListOffsets_result(answer.0.as_ptr());
        let mut count = 0;
        let infos = rd::rd_kafka_ListOffsets_result_infos(result, &mut count);
        let read = |info| {
            let place = &*rd::rd_kafka_ListOffsetsResultInfo_topic_partition(info);
            let topic = CStr::from_ptr(place.topic).to_string_lossy().into_owned();
            (place.err == OK).then_some(((topic, place.partition), place.offset))
        };
        Ok(listed(infos, count).filter_map(read).collect())
    }
}

/// The elements of one of librdkafka's arrays of pointers.
///
/// # Safety
/// The array has `count` elements and outlives the iterator.
unsafe fn listed<'a, T>(array: *mut *const T, count: usize) -> impl Iterator<Item = *const T> + 'a
where
    T: 'a,
{
    // SAFETY: the caller's promise; an empty array may be a null pointer, which is not read.
    (0..count).map(move |index| unsafe { *array.add(index) })
}

/// # Safety
/// The description is alive.
unsafe fn described_as(topic: *const rd::rd_kafka_TopicDescription_t) -> Described {
    // SAFETY: the caller's promise; whatever is returned lives as long as the description.
    unsafe {
        let name = CStr::from_ptr(rd::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            let code = rd::rd_kafka_error_code(error).into();
            return Described { name, error: Some(code), id: None, partitions: 0, may_write: None };
        }
        let (mut partitions, mut operations) = (0, 0);
        rd::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let allowed = rd::rd_kafka_TopicDescription_authorized_operations(topic, &mut operations);
        let write = rd::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE as u32;
        // Who may see a topic has at least one right: an empty list tells nothing.
        let told = !allowed.is_null() && (1..=64).contains(&operations);
        let may_write = told.then(|| std::slice::from_raw_parts(allowed.cast::<u32>(), operations).contains(&write));
        Described { name, error: None, id: id_of(rd::rd_kafka_TopicDescription_topic_id(topic)), partitions, may_write }
    }
}

/// # Safety
/// The id is alive, or a null pointer.
unsafe fn id_of(id: *const rd::rd_kafka_Uuid_t) -> Option<String> {
    if id.is_null() {
        return None;
    }
    // SAFETY: the caller's promise; the text belongs to the id.
    unsafe {
        let bits = (rd::rd_kafka_Uuid_most_significant_bits(id), rd::rd_kafka_Uuid_least_significant_bits(id));
        let text = rd::rd_kafka_Uuid_base64str(id);
        if bits == (0, 0) || text.is_null() {
            return None;
        }
        // Kafka prints the alphabet that is safe in addresses.
        Some(CStr::from_ptr(text).to_string_lossy().replace('+', "-").replace('/', "_"))
    }
}

fn c_string(name: &str) -> Result<CString, Failure> {
    CString::new(name)
        .map_err(|_| Failure { code: RDKafkaErrorCode::InvalidTopic, text: "a topic's name holds a NUL byte".to_owned() })
}

/// Options of one request, and the queue that its answer comes to. Both may go before the answer is there.
struct Question {
    options: NonNull<rd::rd_kafka_AdminOptions_t>,
    queue: NonNull<rd::rd_kafka_queue_t>,
}

impl Question {
    fn new<C: ClientContext>(client: &Client<C>, request: rd::rd_kafka_admin_op_t, timeout: Duration) -> Self {
        let memory = "librdkafka ends the process when memory runs out";
        // SAFETY: the client is alive. Without room for a text, librdkafka writes none.
        unsafe {
            let options = NonNull::new(rd::rd_kafka_AdminOptions_new(client.native_ptr(), request)).expect(memory);
            rd::rd_kafka_AdminOptions_set_request_timeout(options.as_ptr(), milliseconds(timeout), ptr::null_mut(), 0);
            Self { options, queue: NonNull::new(rd::rd_kafka_queue_new(client.native_ptr())).expect(memory) }
        }
    }

    /// Waits for the answer to the request that was made with these options and this queue.
    fn answer(&self, timeout: Duration) -> Result<Answer, Failure> {
        // SAFETY: the queue is alive; the event is ours and is destroyed once.
        let event = unsafe { rd::rd_kafka_queue_poll(self.queue.as_ptr(), milliseconds(timeout + GRACE)) };
        let late = Failure { code: RDKafkaErrorCode::OperationTimedOut, text: "no answer".to_owned() };
        let answer = Answer(NonNull::new(event).ok_or(late)?);
        // SAFETY: the event is alive, and so is its text.
        unsafe {
            let code = rd::rd_kafka_event_error(event);
            if code == OK {
                return Ok(answer);
            }
            let text = CStr::from_ptr(rd::rd_kafka_event_error_string(event)).to_string_lossy().into_owned();
            Err(Failure { code: code.into(), text })
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // SAFETY: both are ours; librdkafka keeps what a request under way still needs.
        unsafe {
            rd::rd_kafka_AdminOptions_destroy(self.options.as_ptr());
            rd::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// An answer, and all that can be read from it.
struct Answer(NonNull<rd::rd_kafka_event_t>);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the event is ours.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}
