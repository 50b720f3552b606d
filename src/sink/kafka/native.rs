//! The few calls into librdkafka that its safe wrapper lacks, or makes slow. All `unsafe` code of the Kafka sink is here.
//!
//! The wrapper's `send` allocates a C string for the topic of each record and one for each header name, its `flush` and
//! `commit_transaction` poll in steps of 100 ms while another thread serves the queue: a commit takes 100 ms instead of 1.4 ms.
#![allow(unsafe_code)]

pub(super) mod rights;

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::types::RDKafkaErrorCode;

use super::headers;

mod asking;

pub(super) use asking::{Described, Lane, describe_topics, ends};

const OK: rd::rd_kafka_resp_err_t = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// A list of record headers in librdkafka's own memory, which `produce` takes over as it is.
pub(super) struct Headers(NonNull<rd::rd_kafka_headers_t>);

impl Headers {
    /// An empty list with room for `count`.
    pub(super) fn with_capacity(count: usize) -> Self {
        // SAFETY: no preconditions.
        let list = unsafe { rd::rd_kafka_headers_new(count) };
        Self(NonNull::new(list).expect("librdkafka ends the process when memory runs out"))
    }
}

impl headers::Headers for Headers {
    fn add(&mut self, name: &str, value: Option<&[u8]>) {
        let (bytes, length) = raw(value);
        // SAFETY: the list is alive; name and value are copied, with their lengths given, before the call returns.
        unsafe {
            rd::rd_kafka_header_add(self.0.as_ptr(), name.as_ptr().cast(), name.len() as isize, bytes, length as isize);
        }
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        // SAFETY: the list is ours: `produce` forgets it when librdkafka has taken it over.
        unsafe { rd::rd_kafka_headers_destroy(self.0.as_ptr()) };
    }
}

/// A topic as one client knows it, so that its name is looked up once and not for each record. Must be dropped before the client.
pub(super) struct Topic(NonNull<rd::rd_kafka_topic_t>);

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Topic {}

impl Topic {
    /// The handle of the topic `name`; nothing when librdkafka takes no such name.
    pub(super) fn new<C: ClientContext>(client: &Client<C>, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the client is alive, the name is copied.
        let topic = unsafe { rd::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        NonNull::new(topic).map(Self)
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: one reference was counted for us when the handle was made.
        unsafe { rd::rd_kafka_topic_destroy(self.0.as_ptr()) };
    }
}

/// One record on its way into the producer's queue.
pub(super) struct Message<'a> {
    pub(super) topic: &'a Topic,
    pub(super) partition: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) payload: Option<&'a [u8]>,
    pub(super) headers: Option<Headers>,
    /// Comes back with the delivery report.
    pub(super) position: usize,
}

/// Queues a record; key and payload are copied. When it is refused the record comes back, with the reason.
pub(super) fn produce<'a, C: ClientContext>(
    client: &Client<C>,
    message: Message<'a>,
) -> Result<(), (RDKafkaErrorCode, Message<'a>)> {
    use rd::rd_kafka_vtype_t as tag;
    let ((key, key_length), (payload, payload_length)) = (raw(message.key), raw(message.payload));
    let headers = message.headers.as_ref().map_or(ptr::null_mut(), |headers| headers.0.as_ptr());
    // SAFETY: client, topic and headers are alive; each tag is followed by the arguments that rd_kafka_producev documents for it;
    // F_COPY makes librdkafka copy key and payload before it returns.
    let code = unsafe {
        rd::rd_kafka_producev(
            client.native_ptr(),
            tag::RD_KAFKA_VTYPE_RKT,
            message.topic.0.as_ptr(),
            tag::RD_KAFKA_VTYPE_PARTITION,
            message.partition,
            tag::RD_KAFKA_VTYPE_MSGFLAGS,
            rd::RD_KAFKA_MSG_F_COPY,
            tag::RD_KAFKA_VTYPE_VALUE,
            payload,
            payload_length,
            tag::RD_KAFKA_VTYPE_KEY,
            key,
            key_length,
            tag::RD_KAFKA_VTYPE_OPAQUE,
            message.position as *mut c_void,
            tag::RD_KAFKA_VTYPE_HEADERS,
            headers,
            tag::RD_KAFKA_VTYPE_END,
        )
    };
    if code != OK {
        return Err((code.into(), message));
    }
    // librdkafka owns the headers now.
    std::mem::forget(message.headers);
    Ok(())
}

fn raw(bytes: Option<&[u8]>) -> (*const c_void, usize) {
    bytes.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr().cast(), bytes.len()))
}

/// Waits until every record is acknowledged or refused and its report was delivered; says whether that is so. While it runs,
/// librdkafka does not linger.
pub(super) fn flush<C: ClientContext>(client: &Client<C>, timeout: Duration) -> bool {
    // SAFETY: the client is alive.
    unsafe { rd::rd_kafka_flush(client.native_ptr(), milliseconds(timeout)) == OK }
}

/// What librdkafka says of a transaction call that did not end well.
pub(super) struct Failure {
    pub(super) code: RDKafkaErrorCode,
    pub(super) text: String,
}

/// Commits the open transaction. Every record must be acknowledged already.
pub(super) fn commit<C: ClientContext>(client: &Client<C>, timeout: Duration) -> Result<(), Failure> {
    // SAFETY: the client is alive; the error object is ours and is destroyed once, after its text was copied.
    unsafe {
        let error = rd::rd_kafka_commit_transaction(client.native_ptr(), milliseconds(timeout));
        if error.is_null() {
            return Ok(());
        }
        let text = CStr::from_ptr(rd::rd_kafka_error_string(error)).to_string_lossy().into_owned();
        let code = rd::rd_kafka_error_code(error).into();
        rd::rd_kafka_error_destroy(error);
        Err(Failure { code, text })
    }
}

/// The high watermark of a partition as the last fetch answer told it: the true one, also for a reader of committed records. Nothing
/// before the first fetch.
pub(super) fn high_watermark<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is alive, the name ends with NUL, both numbers outlive the call.
    let code = unsafe { rd::rd_kafka_get_watermark_offsets(client.native_ptr(), topic.as_ptr(), partition, &mut low, &mut high) };
    (code == OK && high >= 0).then_some(high)
}

/// Hands a bearer token to a client whose queue nobody polls, or not yet: the wrapper would only do so from a poll.
pub(super) fn set_token<C: ClientContext>(client: &Client<C>, token: &OAuthToken) -> Result<(), String> {
    let unfit = |_| "the token holds a NUL byte".to_owned();
    let value = CString::new(&*token.token).map_err(unfit)?;
    let principal = CString::new(&*token.principal_name).map_err(unfit)?;
    let mut text = [0_u8; 256];
    // SAFETY: the client is alive; both strings end with NUL and are copied; librdkafka writes at most the given length, with a NUL.
    let code = unsafe {
        rd::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            text.as_mut_ptr().cast::<c_char>(),
            text.len(),
        )
    };
    if code == OK {
        return Ok(());
    }
    Err(CStr::from_bytes_until_nul(&text).map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned()))
}

fn milliseconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}
