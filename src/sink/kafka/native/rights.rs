//! What we may do with topics, as the brokers tell it. The safe wrapper has no such question.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaErrorCode;

use super::{OK, milliseconds};

/// Something that may be done with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// READ
    Read,
    /// WRITE
    Write,
    /// DESCRIBE
    Describe,
    /// DELETE, which also lets go of records
    Delete,
    /// DESCRIBE_CONFIGS
    DescribeConfigs,
}

impl Operation {
    /// Its name in Kafka.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::Describe => "DESCRIBE",
            Self::Delete => "DELETE",
            Self::DescribeConfigs => "DESCRIBE_CONFIGS",
        }
    }

    /// Those that the relay may need; others are nothing to us.
    fn of(native: rd::rd_kafka_AclOperation_t) -> Option<Self> {
        use rd::rd_kafka_AclOperation_t as operation;
        Some(match native {
            operation::RD_KAFKA_ACL_OPERATION_READ => Self::Read,
            operation::RD_KAFKA_ACL_OPERATION_WRITE => Self::Write,
            operation::RD_KAFKA_ACL_OPERATION_DESCRIBE => Self::Describe,
            operation::RD_KAFKA_ACL_OPERATION_DELETE => Self::Delete,
            operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Self::DescribeConfigs,
            _ => return None,
        })
    }
}

/// What we may do with each topic; nothing where a broker too old does not tell; an error where the topic has none to tell of.
pub type Rights = BTreeMap<String, Result<Option<BTreeSet<Operation>>, RDKafkaErrorCode>>;

/// Asks for our rights on `topics`.
pub fn topic_rights<C: ClientContext>(client: &Client<C>, topics: &[String], most: Duration) -> Result<Rights, RDKafkaErrorCode> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(topic.as_str()).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the client is alive for the whole call. What is created here is destroyed here, once, in the reverse order and after its
    // last use; the names are copied into the collection. The event owns the result, and its texts are copied before it goes. The
    // error objects that the option's setters return are destroyed when there are any.
    unsafe {
        let collection = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options = rd::rd_kafka_AdminOptions_new(client.native_ptr(), rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, milliseconds(most), ptr::null_mut(), 0);
        let error = rd::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !error.is_null() {
            rd::rd_kafka_error_destroy(error);
        }
        let queue = rd::rd_kafka_queue_new(client.native_ptr());
        rd::rd_kafka_DescribeTopics(client.native_ptr(), collection, options, queue);
        let event = rd::rd_kafka_queue_poll(queue, milliseconds(most + Duration::from_secs(1)));
        let answer = if event.is_null() { Err(RDKafkaErrorCode::RequestTimedOut) } else { read(event) };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_TopicCollection_destroy(collection);
        answer
    }
}

/// # Safety
/// `event` is alive.
unsafe fn read(event: *mut rd::rd_kafka_event_t) -> Result<Rights, RDKafkaErrorCode> {
    // SAFETY: the event is alive, and owns what is read from it; each array has the length that came with it.
    unsafe {
        let code = rd::rd_kafka_event_error(event);
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if code != OK || result.is_null() {
            return Err(code.into());
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        Ok((0..count).map(|i| described(*topics.add(i))).collect())
    }
}

/// # Safety
/// `topic` is alive.
unsafe fn described(
    topic: *const rd::rd_kafka_TopicDescription_t,
) -> (String, Result<Option<BTreeSet<Operation>>, RDKafkaErrorCode>) {
    // SAFETY: the description is alive, and owns what is read from it; the array has the length that came with it.
    unsafe {
        let name = CStr::from_ptr(rd::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
        let error = rd::rd_kafka_TopicDescription_error(topic);
        let code = if error.is_null() { OK } else { rd::rd_kafka_error_code(error) };
        if code != OK {
            return (name, Err(code.into()));
        }
        let mut count = 0;
        let operations = rd::rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
        if operations.is_null() {
            return (name, Ok(None));
        }
        (name, Ok(Some((0..count).filter_map(|i| Operation::of(*operations.add(i))).collect())))
    }
}
