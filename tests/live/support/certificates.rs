//! A certificate authority and what it signed, made by openssl once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{place, process};

/// Paths of PEM files. The server's certificate is for `localhost` and `127.0.0.1`.
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// The certificates of this test process.
    pub fn shared() -> &'static Certificates {
        static SHARED: OnceLock<Certificates> = OnceLock::new();
        SHARED.get_or_init(|| {
            let folder = place::folder("certificates");
            authority(&folder, "ca");
            authority(&folder, "other-ca");
            leaf(&folder, "server", "subjectAltName=DNS:localhost,IP:127.0.0.1");
            leaf(&folder, "client", "subjectAltName=DNS:relay");
            Certificates { folder }
        })
    }

    /// The authority's certificate: what a client has to trust.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// An authority that signed nothing here: trusting it must not help.
    pub fn other_ca(&self) -> PathBuf {
        self.folder.join("other-ca.pem")
    }

    /// `server` or `client`: its certificate.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }

    /// `server` or `client`: its private key (PKCS #8).
    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    /// `server` or `client`: key and certificate chain in one file, as Kafka wants its PEM key stores.
    pub fn key_store(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-store.pem"))
    }
}

fn openssl_req(folder: &Path, name: &str) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(["req", "-x509", "-nodes", "-days", "3650", "-newkey", "ec"]);
    command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", &format!("/CN={name}")]);
    command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
    command
}

fn authority(folder: &Path, name: &str) {
    let mut command = openssl_req(folder, name);
    command.args(["-addext", "keyUsage=critical,keyCertSign"]);
    process::run(command);
}

/// Not an authority itself: rustls refuses an authority's certificate as a server's.
fn leaf(folder: &Path, name: &str, alternative_names: &str) {
    let mut command = openssl_req(folder, name);
    command.args([
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        alternative_names,
    ]);
    process::run(command);
    let parts = [format!("{name}.key"), format!("{name}.pem"), "ca.pem".to_owned()];
    let store: String = parts.iter().map(|part| std::fs::read_to_string(folder.join(part)).unwrap()).collect();
    std::fs::write(folder.join(format!("{name}-store.pem")), store).unwrap();
}
