//! Where servers live: folders, ports, the user who runs what refuses root, and the cache of downloads.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "outboxd-test-";

/// A new empty folder, readable by everybody, removed when the test process ends.
pub fn folder(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let path = root().join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn root_path() -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()))
}

fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        sweep();
        let path = root_path();
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    })
}

/// Removes what test processes left that were killed.
fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if pid.parse().is_ok_and(|pid: i32| !super::process::alive(pid)) {
            super::disk::unmount_below(&entry.path());
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes everything below the temporary folder of this process; `OUTBOXD_TEST_KEEP=1` keeps it for a look.
pub fn remove_root() {
    if std::env::var_os("OUTBOXD_TEST_KEEP").is_none() {
        // A dying server may still create a file: a second try is enough in practice, the next run sweeps the rest.
        let _ = std::fs::remove_dir_all(root_path()).or_else(|_| std::fs::remove_dir_all(root_path()));
    }
}

/// A port of 127.0.0.1 nobody listens on, below the kernel's range for outgoing connections, so that a server that is
/// down for a while finds it free again. Test processes start at different places.
pub fn free_port() -> u16 {
    const FIRST: u32 = 15_000;
    const COUNT: u32 = 17_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    (0..COUNT)
        .map(|_| FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .map(|port| port as u16)
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("one of thousands of ports is free")
}

/// Who runs servers that refuse root: nobody else but us, unless we are root.
#[derive(Clone, Copy)]
pub struct ServerUser(Option<(u32, u32)>);

impl ServerUser {
    /// Ourselves, or, for root, `postgres` or else `nobody`.
    pub fn find() -> ServerUser {
        // SAFETY: plain system call.
        if unsafe { libc::geteuid() } != 0 {
            return ServerUser(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
        let ids = |user: &str| {
            let mut fields = passwd.lines().find_map(|line| line.strip_prefix(&format!("{user}:")))?.split(':').skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        ServerUser(Some(ids("postgres").or_else(|| ids("nobody")).expect("the system has a user `nobody`")))
    }

    /// Makes `command` run as this user.
    pub fn run(self, command: &mut Command) {
        command.current_dir("/");
        if let ServerUser(Some((uid, gid))) = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file or folder to this user.
    pub fn give(self, path: &Path) {
        if let ServerUser(Some((uid, gid))) = self {
            chown(path, Some(uid), Some(gid)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}

/// Where `scripts/servers download` puts Kafka and PostgreSQL 18; the rule is the same as there.
///
/// # Panics
/// If `name` is not there.
pub fn downloaded(name: &str) -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // SAFETY: plain system call.
    let root = unsafe { libc::geteuid() } == 0;
    let cache = variable("OUTBOXD_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("outboxd")))
        .or_else(|| root.then(|| "/var/cache/outboxd".into()))
        .or_else(|| variable("HOME").map(|path| path.join(".cache/outboxd")))
        .expect("HOME is set");
    let path = cache.join(name);
    assert!(path.join("complete").exists(), "{} is missing: run scripts/install-test-needs", path.display());
    path
}
