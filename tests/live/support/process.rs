//! Child processes that cannot outlive the tests: killed on drop, at exit of the test process, and by the kernel if
//! the test process itself is killed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use super::place;
use super::wait::eventually;

static LIVING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A running child with its own process group; what it prints goes to a file.
pub struct Process {
    name: String,
    pid: i32,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command`; stdout and stderr are appended to `log`, stdin is empty.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Process {
        let file = File::options().create(true).append(true).open(log).unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).process_group(0);
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
        unsafe { command.pre_exec(die_with_parent) };
        let child = spawn_on_lasting_thread(command).unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        let pid = child.id() as i32;
        LIVING.lock().unwrap().insert(pid);
        Process { name: name.to_owned(), pid, log: log.to_owned(), child: Mutex::new(child) }
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Everything it printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it printed: for the message of a failed test.
    pub fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Sends a signal to the process alone; nothing happens if it has ended.
    pub fn signal(&self, signal: i32) {
        if self.exit_status().is_none() {
            // Not reaped yet, so the number is still its own.
            send_signal(self.pid, signal);
        }
    }

    /// How it ended; `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Waits for the end; returns the exit code, or minus the number of the signal that ended it.
    ///
    /// # Panics
    /// If it still runs after `within`.
    pub fn wait(&self, within: Duration) -> i32 {
        eventually(&format!("{} ends", self.name), within, || self.exit_status().is_some());
        LIVING.lock().unwrap().remove(&self.pid);
        let status = self.exit_status().unwrap();
        status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
    }

    /// SIGKILL to its group, and waits until it is gone.
    pub fn kill(&self) {
        if self.exit_status().is_none() {
            kill_group(self.pid);
            let _ = self.child.lock().unwrap().wait();
        }
        LIVING.lock().unwrap().remove(&self.pid);
    }

    /// The living direct children.
    pub fn children(&self) -> Vec<i32> {
        let of = |pid: i32| -> Option<i32> {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
        };
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|&pid| of(pid) == Some(self.pid)).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `command` to its end; returns what it printed on stdout.
///
/// # Errors
/// What it printed on stderr, if it failed.
pub fn try_run(mut command: Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    } else {
        Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

/// [`try_run`] for commands that must not fail.
#[track_caller]
pub fn run(command: Command) -> String {
    try_run(command).unwrap_or_else(|e| panic!("{e}"))
}

/// Sends a signal to a process that may be gone already; a negative number means a process group.
pub fn send_signal(pid: i32, signal: i32) {
    // SAFETY: plain system call.
    unsafe { libc::kill(pid, signal) };
}

/// Whether a process with this number exists (a zombie does not count).
pub fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The kernel's parent-death signal follows the *thread* that forked, and a test's thread ends with the test. So one
/// thread that never ends starts all children.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        // SAFETY: registers a plain function that neither panics nor unwinds.
        unsafe { libc::atexit(clean_up) };
        let (sender, requests) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in requests {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, result) = mpsc::channel();
    spawner.lock().unwrap().send((command, answer)).expect("the spawning thread never ends");
    result.recv().expect("the spawning thread answers each request")
}

fn die_with_parent() -> io::Result<()> {
    // SAFETY: plain system call.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn kill_group(pid: i32) {
    send_signal(-pid, libc::SIGKILL);
}

/// Shared servers live in statics, which are never dropped: this ends them when the test process ends normally.
extern "C" fn clean_up() {
    if let Ok(living) = LIVING.try_lock() {
        living.iter().copied().for_each(kill_group);
    }
    place::remove_root();
}
