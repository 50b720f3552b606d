//! The program under test: the real binary as a child process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::place;
use super::process::Process;
use super::wait::{eventually, eventually_get};

const PATIENCE: Duration = Duration::from_secs(60);

/// A word that tests put into keys, payloads and headers: it must never appear in a log.
pub const MARKER: &str = "okapi";

/// How to start a daemon: a configuration file with what every test needs, and the rest as environment.
#[derive(Clone)]
pub struct DaemonOptions {
    name: String,
    database_url: String,
    brokers: String,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    /// Where the log goes, if not beside the configuration.
    log_folder: Option<PathBuf>,
}

impl DaemonOptions {
    /// `name` is `outbox.name`; the others are `database.url` and `kafka.brokers`.
    pub fn new(name: &str, database_url: &str, brokers: &str) -> DaemonOptions {
        DaemonOptions {
            name: name.to_owned(),
            database_url: database_url.to_owned(),
            brokers: brokers.to_owned(),
            environment: Vec::new(),
            arguments: Vec::new(),
            log_folder: None,
        }
    }

    /// Sets a key, e.g. `.set("relay.lease", "2s")`: it goes through the environment as `OUTBOXD__RELAY__LEASE`.
    pub fn set(mut self, key: &str, value: &str) -> DaemonOptions {
        self.environment.push((format!("OUTBOXD__{}", key.to_uppercase().replace('.', "__")), value.to_owned()));
        self
    }

    /// The same for another role of the database.
    pub fn of_role(&self, role: &str) -> DaemonOptions {
        let set = self.environment.iter().rfind(|(name, _)| name == "OUTBOXD__DATABASE__URL");
        let url = set.map_or(&self.database_url, |(_, url)| url);
        let (_, place) = url.rsplit_once('@').expect("the URL names a role");
        self.clone().set("database.url", &format!("postgres://{role}@{place}"))
    }

    /// Sets any environment variable.
    pub fn variable(mut self, name: &str, value: &str) -> DaemonOptions {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an argument behind `run`, e.g. `--once`.
    pub fn argument(mut self, argument: &str) -> DaemonOptions {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Lets the log go into another folder.
    pub fn log_into(mut self, folder: &Path) -> DaemonOptions {
        self.log_folder = Some(folder.to_owned());
        self
    }

    /// Writes the configuration file and returns a command for a subcommand, e.g. `["migrate"]`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let folder = place::folder("daemon");
        self.command_with(arguments, &folder, place::free_port())
    }

    fn command_with(&self, arguments: &[&str], folder: &Path, http_port: u16) -> Command {
        let config = folder.join("outboxd.toml");
        let text = format!(
            "[database]\nurl = \"{}\"\n\n[outbox]\nname = \"{}\"\n\n[kafka]\nbrokers = \"{}\"\n\n\
             [http]\nlisten = \"127.0.0.1:{http_port}\"\n\n[log]\nformat = \"json\"\n",
            self.database_url, self.name, self.brokers
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
        command.arg("--config").arg(config).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).current_dir(folder);
        command
    }

    /// Runs a subcommand to its end; returns its exit code, stdout and stderr.
    pub fn run_command(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(!stderr.contains("panicked at"), "{stderr}");
        (output.status.code().unwrap_or(-1), stdout, stderr)
    }

    /// Starts `outboxd run`.
    pub fn start(&self) -> Daemon {
        let folder = place::folder("daemon");
        let http_port = place::free_port();
        let arguments: Vec<&str> = ["run"].into_iter().chain(self.arguments.iter().map(String::as_str)).collect();
        let command = self.command_with(&arguments, &folder, http_port);
        let log = self.log_folder.as_ref().unwrap_or(&folder).join("log");
        let process = Process::spawn("outboxd", command, &log);
        Daemon { process, folder, http_port, is_harmed: AtomicBool::new(false) }
    }
}

/// A running daemon. When it is dropped it is killed, and it must never have panicked.
pub struct Daemon {
    process: Process,
    folder: PathBuf,
    http_port: u16,
    is_harmed: AtomicBool,
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// What it logged so far (stdout and stderr).
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Waits until the log contains `text`.
    pub fn wait_log(&self, text: &str) {
        eventually(&format!("the daemon logs {text:?}"), PATIENCE, || {
            let found = self.log().contains(text);
            assert!(found || self.is_running(), "the daemon ended without {text:?}:\n{}", self.process.last_words());
            found
        });
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.process.exit_status().is_none()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn sigkill(&self) {
        self.process.kill();
    }

    /// SIGSTOP: it stands still and does not know.
    pub fn sigstop(&self) {
        self.process.signal(libc::SIGSTOP);
    }

    /// Takes from it all memory beyond what it has, as far as the system lets us; says whether it did. No program can do without:
    /// it may panic from now on.
    pub fn limit_memory(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
        let Some(bytes) = size.and_then(|size| size.parse::<u64>().ok()).map(|size| size * 1024) else { return false };
        self.is_harmed.store(true, Ordering::Relaxed);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: plain system call; the limit lives as long as it takes.
        unsafe { libc::prlimit(self.pid(), libc::RLIMIT_AS, &raw const limit, std::ptr::null_mut()) == 0 }
    }

    /// Whether it stands still after a SIGSTOP, its own or somebody's.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// SIGCONT.
    pub fn sigcont(&self) {
        self.process.signal(libc::SIGCONT);
    }

    /// SIGTERM: it is to drain and leave.
    pub fn sigterm(&self) {
        self.process.signal(libc::SIGTERM);
    }

    /// Waits for the end; returns the exit code, or minus the signal's number.
    pub fn wait_exit(&self, within: Duration) -> i32 {
        self.process.wait(within)
    }

    /// The most memory it ever had (VmHWM), in bytes; ask while it runs.
    pub fn peak_rss_bytes(&self) -> u64 {
        self.peak_rss_while_it_runs().expect("the daemon runs")
    }

    /// The same; nothing when it has ended.
    pub fn peak_rss_while_it_runs(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024)
    }

    /// The processor time it used, in seconds; ask while it runs.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the daemon runs");
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // SAFETY: plain library call.
        let ticks_a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
        ticks / ticks_a_second
    }

    /// Gets a path from its HTTP port; `None` when nobody answers. Returns status and body.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http_port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The sum of a metric over all its label sets; 0 if it is absent. Waits for the port to answer.
    pub fn metric(&self, name: &str) -> f64 {
        self.metric_of(name, "")
    }

    /// The same over the label sets that contain `label`, e.g. `cause="start"`.
    pub fn metric_of(&self, name: &str, label: &str) -> f64 {
        let (_, text) = eventually_get("the daemon shows its metrics", PATIENCE, || self.get("/metrics"));
        let lines = text.lines().filter(|line| line.contains(label)).filter_map(|line| line.strip_prefix(name));
        let values =
            lines.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill();
        if !std::thread::panicking() {
            let log = self.log();
            assert!(self.is_harmed.load(Ordering::Relaxed) || !log.contains("panicked"), "the daemon panicked:\n{log}");
            let leak = log.lines().find(|line| line.contains(MARKER));
            assert!(leak.is_none(), "the daemon logged what belongs to the service: {leak:?}");
            let _ = std::fs::remove_dir_all(&self.folder);
        } else {
            eprintln!("the last words of daemon {}:\n{}", self.pid(), self.process.last_words());
        }
    }
}
