//! Rights on a Kafka with an authorizer: given and taken, each time until the broker knows. The safe wrapper has no such calls.

use std::ffi::CString;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;

use super::kafka::{Kafka, KafkaOptions, USER};
use super::wait::eventually;

pub use rd::rd_kafka_AclOperation_t as Operation;
pub use rd::rd_kafka_ResourceType_t as Resource;

const PATIENCE: Duration = Duration::from_secs(20);

pub const TOPIC: Resource = Resource::RD_KAFKA_RESOURCE_TOPIC;
pub const TRANSACTIONAL_ID: Resource = Resource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID;
pub const READ: Operation = Operation::RD_KAFKA_ACL_OPERATION_READ;
pub const WRITE: Operation = Operation::RD_KAFKA_ACL_OPERATION_WRITE;
pub const DESCRIBE: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE;

/// One right of [`USER`].
pub type Right<'a> = (Resource, &'a str, Operation);

/// Broker settings with which nobody may do anything without a right, except who comes without a password.
pub fn strict() -> KafkaOptions {
    KafkaOptions {
        secure: true,
        settings: vec![
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("super.users", "User:ANONYMOUS"),
        ],
        ..KafkaOptions::default()
    }
}

/// What is asked of the broker about a right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    Give,
    Take,
    Count,
}

impl Kafka {
    /// Gives [`USER`] a right.
    pub fn give(&self, right: Right<'_>) {
        self.ask(right, Request::Give);
        eventually("the right is given", PATIENCE, || self.ask(right, Request::Count) == 1);
    }

    /// Takes a right from [`USER`].
    pub fn take(&self, right: Right<'_>) {
        self.ask(right, Request::Take);
        eventually("the right is taken", PATIENCE, || self.ask(right, Request::Count) == 0);
    }

    fn ask(&self, (resource, name, operation): Right<'_>, request: Request) -> usize {
        let client = self.admin();
        let (name, user) = (CString::new(name).unwrap(), CString::new(format!("User:{}", USER.0)).unwrap());
        let literal = rd::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL;
        let allow = rd::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW;
        let (rk, none) = (client.inner().native_ptr(), ptr::null_mut());
        // SAFETY: the client is alive; what is made here is destroyed at the end, after the answer came.
        unsafe {
            let new = match request {
                Request::Give => rd::rd_kafka_AclBinding_new,
                Request::Take | Request::Count => rd::rd_kafka_AclBindingFilter_new,
            };
            let mut binding = new(resource, name.as_ptr(), literal, user.as_ptr(), c"*".as_ptr(), operation, allow, none, 0);
            assert!(!binding.is_null(), "a valid right");
            let queue = rd::rd_kafka_queue_new(rk);
            match request {
                Request::Give => rd::rd_kafka_CreateAcls(rk, &mut binding, 1, ptr::null(), queue),
                Request::Take => rd::rd_kafka_DeleteAcls(rk, &mut binding, 1, ptr::null(), queue),
                Request::Count => rd::rd_kafka_DescribeAcls(rk, binding, ptr::null(), queue),
            }
            let event = rd::rd_kafka_queue_poll(queue, 20_000);
            assert!(!event.is_null(), "an answer");
            assert_eq!(rd::rd_kafka_event_error(event), rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
            let mut count = 0;
            if request == Request::Count {
                rd::rd_kafka_DescribeAcls_result_acls(rd::rd_kafka_event_DescribeAcls_result(event), &mut count);
            }
            rd::rd_kafka_event_destroy(event);
            rd::rd_kafka_queue_destroy(queue);
            rd::rd_kafka_AclBinding_destroy(binding);
            count
        }
    }
}
