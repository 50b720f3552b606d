//! A server that follows another one, and takes its place.

use std::time::Duration;

use super::postgres::Postgres;
use super::process;
use super::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// As which it shows at the primary.
const NAME: &str = "standby";

impl Postgres {
    /// A standby of this server, which it follows over `port`: its own, or that of a proxy before it.
    pub fn start_standby(&self, port: u16) -> Postgres {
        let standby = Postgres::prepare(self.version(), self.options.clone());
        let source = format!("host=127.0.0.1 port={port} user=postgres application_name={NAME}");
        let mut copy = self.command("pg_basebackup");
        copy.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", &source, "-D"]).arg(standby.data());
        process::run(copy);
        standby.start_again();
        standby
    }

    /// Whether commits wait for the standby: from when this returns, what is acknowledged is on both.
    pub fn wait_for_standby(&self, waits: bool) {
        let set =
            if waits { format!("SET synchronous_standby_names = '{NAME}'") } else { "RESET synchronous_standby_names".to_owned() };
        self.sql("postgres", &format!("ALTER SYSTEM {set}"));
        self.sql("postgres", "SELECT pg_reload_conf()");
        if !waits {
            return;
        }
        let reached = self.sql("postgres", "SELECT pg_current_wal_lsn()");
        let follows = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{NAME}' AND state = 'streaming' \
             AND sync_state = 'sync' AND flush_lsn >= '{reached}'"
        );
        eventually("the standby keeps up", PATIENCE, || self.sql("postgres", &follows) == "1");
    }

    /// Whether a standby streams from it.
    pub fn is_followed(&self) -> bool {
        let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        self.try_sql("postgres", streams).is_ok_and(|count| count == "1")
    }

    /// Makes a primary of a standby.
    pub fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote()"), "t");
        self.wait_for_standby(false);
    }
}
