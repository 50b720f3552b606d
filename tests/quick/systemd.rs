//! What the real binary tells a service manager. Nobody listens where its database should be: up means up all the same.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// A service manager that listens.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message; panics when there is none in time.
    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).expect("the process tells something in time");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// Reads until it is told this; returns everything it was told before.
    fn until(&self, told: &str) -> Vec<String> {
        let (begun, mut before) = (Instant::now(), Vec::new());
        loop {
            let message = self.next();
            if message.lines().any(|line| line == told) {
                return before;
            }
            before.push(message);
            assert!(begun.elapsed() < SOON, "not told {told}, but {before:?}");
        }
    }
}

/// A relay that does not outlive a test that fails.
struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_manager_is_told_ready_alive_and_stopping() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("notify-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    manager.0.set_read_timeout(Some(SOON)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    command.env_clear().env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000").env("OUTBOXD_CONFIG", "/dev/null");
    command.args(["run", "--set", "outbox.name=shop", "--set", "http.listen=off", "--set", "kafka.brokers=127.0.0.1:1"]);
    command.args(["--set", "database.url=postgres://outboxd@127.0.0.1:1/shop"]);
    let mut relay = Relay(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    assert_eq!(manager.until("READY=1"), Vec::<String>::new(), "ready comes first");
    manager.until("STATUS=standby; the database has not answered");
    let begun = Instant::now();
    (0..10).for_each(|_| drop(manager.until("WATCHDOG=1")));
    assert!(begun.elapsed() < Duration::from_secs(6), "ten signs of life within ten times the watchdog: {:?}", begun.elapsed());
    assert!(relay.0.try_wait().unwrap().is_none(), "an outage at the start is waited out");
    // SAFETY: plain system call on a child that was not waited for yet.
    assert_eq!(unsafe { libc::kill(relay.0.id() as i32, libc::SIGTERM) }, 0);
    manager.until("STOPPING=1");
    assert_eq!(relay.0.wait().unwrap().code(), Some(0));
    let _ = std::fs::remove_file(&path);
}
