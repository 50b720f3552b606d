//! The keeper of the relay: runs it as a process of its own, from the same binary and with a real configuration; kills it now and then,
//! and starts it again.

use std::fs::{self, File};
use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until, timeout};

use super::folder::Folder;
use super::native;
use super::trouble::Trouble;
use super::view;

/// Our own binary, also when it has been replaced since.
const OURSELVES: &str = "/proc/self/exe";
/// A relay that was killed is missed for so long: enough to see what waits, also in lines that come every second.
const DOWN: Duration = Duration::from_millis(1_200);
/// The first kill comes so soon, so that it is seen.
const FIRST_KILL: Duration = Duration::from_secs(4);
/// The others come in between so many seconds of work.
const KILL_SECONDS: std::ops::Range<f32> = 6.0..10.0;
/// How long a relay may take to leave: its `relay.shutdown_grace` and a bit.
const LEAVE_MOST: Duration = Duration::from_secs(30);
/// How long `migrate` may take.
const MIGRATE_MOST: Duration = Duration::from_secs(60);
/// So many of its last lines are told when it fails.
const TAIL_LINES: usize = 8;

/// What the relay is, at this moment.
enum State {
    /// A living process, and when to kill it: nothing after the shop has closed.
    Running(Child, Option<Instant>),
    /// Dead until then.
    Killed(Instant),
    /// It left because it was asked to.
    Stopped,
}

/// Keeps one relay.
pub struct Keeper {
    config: PathBuf,
    log: PathBuf,
    state: State,
    kills: u32,
    spared: bool,
}

impl Keeper {
    /// Writes the configuration; nothing is started yet.
    pub fn new(folder: &Folder, broker: &str) -> Result<Self, Trouble> {
        let (config, log) = (folder.file("outboxd.toml"), folder.file("relay.log"));
        fs::write(&config, configuration(folder, broker)?).map_err(|error| Trouble::file(&config, &error))?;
        Ok(Self { config, log, state: State::Stopped, kills: 0, spared: false })
    }

    /// Creates the tables.
    pub async fn migrate(&self) -> Result<(), Trouble> {
        let mut command = outboxd(&self.config, "migrate");
        let migrated = timeout(MIGRATE_MOST, command.stdout(Stdio::piped()).stderr(Stdio::piped()).output()).await;
        let migrated = migrated.map_err(|_| Trouble::relay(format!("migrate took longer than {MIGRATE_MOST:?}")))??;
        if migrated.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&migrated.stderr).into_owned();
        Err(Trouble::Relay { what: format!("migrate failed, {}", migrated.status), log })
    }

    /// Starts the relay. It dies with the thread that calls this.
    pub fn start(&mut self) -> Result<(), Trouble> {
        self.launch(FIRST_KILL)
    }

    /// How often it was killed, by whomever.
    pub fn kills(&self) -> u32 {
        self.kills
    }

    /// What is shown of it.
    pub fn shown(&self) -> view::Relay {
        match self.state {
            State::Running(..) => view::Relay::Running,
            State::Killed(_) => view::Relay::Killed,
            State::Stopped => view::Relay::Stopped,
        }
    }

    /// No more kills.
    pub fn spare(&mut self) {
        self.spared = true;
        if let State::Running(_, kill_at) = &mut self.state {
            *kill_at = None;
        }
    }

    /// Waits for the next thing to happen to the relay, and does it. May be dropped and called again. To be called from the thread that
    /// called `start`.
    pub async fn next(&mut self) -> Result<(), Trouble> {
        match &mut self.state {
            State::Running(child, kill_at) => {
                let kill = async {
                    match *kill_at {
                        Some(at) => sleep_until(at).await,
                        None => pending().await,
                    }
                };
                let ended = tokio::select! {
                    ended = child.wait() => ended?,
                    () = kill => {
                        child.start_kill()?;
                        *kill_at = None;
                        return Ok(());
                    }
                };
                self.bury(ended)
            }
            State::Killed(back_at) => {
                sleep_until(*back_at).await;
                self.launch(Duration::from_secs_f32(fastrand::f32() * (KILL_SECONDS.end - KILL_SECONDS.start) + KILL_SECONDS.start))
            }
            State::Stopped => pending().await,
        }
    }

    /// Asks it to finish and leave, and waits until it has.
    pub async fn stop(&mut self) -> Result<(), Trouble> {
        let State::Running(child, _) = &mut self.state else {
            self.state = State::Stopped;
            return Ok(());
        };
        if let Some(process) = child.id() {
            native::terminate(process)?;
        }
        let Ok(ended) = timeout(LEAVE_MOST, child.wait()).await else {
            child.start_kill()?;
            return Err(Trouble::relay(format!("it did not leave within {LEAVE_MOST:?}")));
        };
        let ended = ended?;
        self.state = State::Stopped;
        if ended.success() { Ok(()) } else { Err(self.failed(ended)) }
    }

    fn launch(&mut self, lives: Duration) -> Result<(), Trouble> {
        let log = File::options().create(true).append(true).open(&self.log).map_err(|error| Trouble::file(&self.log, &error))?;
        let mut command = outboxd(&self.config, "run");
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().map_err(|error| Trouble::relay(format!("it cannot be started: {error}")))?;
        self.state = State::Running(child, (!self.spared).then(|| Instant::now() + lives));
        Ok(())
    }

    /// Whoever kills it, it comes back. One that leaves by itself has a reason.
    fn bury(&mut self, ended: ExitStatus) -> Result<(), Trouble> {
        if ended.signal().is_none() && !ended.success() {
            self.state = State::Stopped;
            return Err(self.failed(ended));
        }
        self.kills += 1;
        self.state = State::Killed(Instant::now() + DOWN);
        Ok(())
    }

    fn failed(&self, ended: ExitStatus) -> Trouble {
        // without a log there is nothing to tell
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        Trouble::Relay { what: format!("it left by itself, {ended}"), log: tail }
    }
}

/// A command of our own binary that knows this configuration and no other.
fn outboxd(config: &Path, command: &str) -> Command {
    let mut process = Command::new(OURSELVES);
    process.arg0("outboxd").arg(command).arg("--config").arg(config).stdin(Stdio::null()).kill_on_drop(true);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OUTBOXD_")) {
        process.env_remove(name);
    }
    // Ctrl-C is for the demo, which then lets the relay finish
    process.process_group(0);
    native::die_together(&mut process);
    process
}

fn configuration(folder: &Folder, broker: &str) -> Result<String, Trouble> {
    let database = folder.file("shop.db");
    let path = database.to_str().ok_or_else(|| Trouble::relay(format!("{database:?} is not UTF-8")))?;
    let mut document = toml_edit::DocumentMut::new();
    let settings = [
        ("database", "url", format!("sqlite://{}", encoded(path))),
        ("outbox", "name", "demo".to_owned()),
        ("kafka", "brokers", broker.to_owned()),
        ("kafka", "delivery", "at_least_once".to_owned()),
        // the same instance takes its own lease at once
        ("relay", "instance", "demo".to_owned()),
        ("http", "listen", "off".to_owned()),
        ("log", "format", "text".to_owned()),
    ];
    for (section, key, value) in settings {
        document.entry(section).or_insert(toml_edit::table())[key] = toml_edit::value(value);
    }
    Ok(document.to_string())
}

/// A path as it stands in an address.
fn encoded(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3F").replace('#', "%23")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_any_characters_stands_in_an_address() {
        assert_eq!(encoded("/tmp/50% a?b#c/x"), "/tmp/50%25 a%3Fb%23c/x");
    }
}
