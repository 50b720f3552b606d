//! The few calls to the system and to librdkafka that the safe libraries lack. All unsafe code of the demo is here.
#![allow(unsafe_code)]

use std::io;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaErrorCode;
use tokio::process::Command;

/// Lets the process die with us, even when we are killed. With the thread that starts it, to be exact: that one must live as long as we.
pub(super) fn die_together(command: &mut Command) {
    let us = std::process::id();
    // SAFETY: between fork and exec only calls that are safe in a signal handler are made: prctl and getppid; the errors are made
    // without allocating.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // we may have died before the call
            if libc::getppid().unsigned_abs() == us { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        });
    }
}

/// Asks a process to leave that has not been waited for, so that its number is still its own.
pub(super) fn terminate(process: u32) -> io::Result<()> {
    let Ok(number) = libc::pid_t::try_from(process) else { return Err(io::ErrorKind::InvalidInput.into()) };
    // SAFETY: a plain call without pointers.
    match unsafe { libc::kill(number, libc::SIGTERM) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Adds a broker to the mock cluster of this client.
pub(super) fn add_broker<C: ClientContext>(client: &Client<C>, number: i32) -> Result<(), RDKafkaErrorCode> {
    // SAFETY: the client is alive, and with it the cluster that belongs to it, if it has one.
    let code = unsafe {
        let cluster = rd::rd_kafka_handle_mock_cluster(client.native_ptr());
        if cluster.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        rd::rd_kafka_mock_broker_add(cluster, number)
    };
    if code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(code.into()) }
}
