//! PgBouncer in transaction pooling: what many services have between themselves and PostgreSQL.

use std::process::Command;
use std::time::Duration;

use super::place::{self, ServerUser};
use super::postgres::Postgres;
use super::process::Process;
use super::wait::eventually;

/// A pooler before all databases of one server; it trusts the roles `postgres`, `outboxd` and `shop`.
pub struct PgBouncer {
    port: u16,
    process: Process,
}

impl PgBouncer {
    /// Starts one before `postgres`, or before whatever listens on the given port (a proxy).
    pub fn start(postgres: &Postgres) -> PgBouncer {
        PgBouncer::start_before(postgres.port())
    }

    /// [`PgBouncer::start`] for any port.
    pub fn start_before(server_port: u16) -> PgBouncer {
        let folder = place::folder("pgbouncer");
        let port = place::free_port();
        let users = folder.join("users.txt");
        std::fs::write(&users, "\"postgres\" \"\"\n\"outboxd\" \"\"\n\"shop\" \"\"\n").unwrap();
        let config = folder.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\nmax_client_conn = 500\n\
             default_pool_size = 20\nserver_login_retry = 1\n",
            users.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg(&config);
        ServerUser::find().run(&mut command);
        let process = Process::spawn("PgBouncer", command, &folder.join("log"));
        eventually("PgBouncer listens", Duration::from_secs(20), || {
            assert!(process.exit_status().is_none(), "PgBouncer ended:\n{}", process.last_words());
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        PgBouncer { port, process }
    }

    /// `postgres://user@127.0.0.1:port/database` through the pooler.
    pub fn url(&self, database: &str, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// SIGKILL: every pooled connection is lost.
    pub fn kill(&self) {
        self.process.kill();
    }
}
