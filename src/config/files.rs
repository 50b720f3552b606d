//! What the configuration takes from elsewhere: secrets out of files, the name of the host.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Config;
use super::draft::Draft;
use super::error::{ErrorCode, Refusal};
use super::secret::Secret;
use super::url::DatabaseUrl;

/// More than any secret, certificate or configuration has.
const LARGEST_FILE: u64 = 1 << 20;
/// Where Linux says the name of the host.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";

/// Reads what the keys name, and decides between a key and its `…_file`.
pub(super) fn resolve(draft: &mut Draft) {
    resolve_url(draft);
    for pair in PAIRS {
        resolve_pair(draft, pair);
    }
    for (key, path) in READ_LATER {
        if let Some(path) = path(&draft.config).clone() {
            read_secret(draft, key, &path);
        }
    }
    resolve_database_password(draft);
    resolve_instance(draft);
}

/// A secret that stands in the configuration or in a file of its own.
struct Pair {
    key: &'static str,
    file_key: &'static str,
    secret: fn(&mut Config) -> &mut Option<Secret>,
    path: fn(&mut Config) -> &mut Option<PathBuf>,
}

const PAIRS: &[Pair] = &[
    Pair {
        key: "kafka.password",
        file_key: "kafka.password_file",
        secret: |config| &mut config.kafka.password,
        path: |config| &mut config.kafka.password_file,
    },
    Pair {
        key: "kafka.key_password",
        file_key: "kafka.key_password_file",
        secret: |config| &mut config.kafka.key_password,
        path: |config| &mut config.kafka.key_password_file,
    },
];

/// A file that a client library reads by itself, later.
type ReadLater = (&'static str, fn(&Config) -> &Option<PathBuf>);

const READ_LATER: &[ReadLater] = &[
    ("database.ca_file", |config| &config.database.ca_file),
    ("kafka.token_file", |config| &config.kafka.token_file),
    ("kafka.ca_file", |config| &config.kafka.ca_file),
    ("kafka.certificate_file", |config| &config.kafka.certificate_file),
    ("kafka.key_file", |config| &config.kafka.key_file),
];

/// Which of a key and its `…_file` counts.
enum Winner {
    Key,
    File,
    Neither,
}

fn resolve_pair(draft: &mut Draft, pair: &Pair) {
    let Some(path) = (pair.path)(&mut draft.config).clone() else {
        return;
    };
    let is_set = (pair.secret)(&mut draft.config).is_some();
    match winner(draft, is_set, pair.key, pair.file_key) {
        Winner::Neither => {}
        Winner::Key => *(pair.path)(&mut draft.config) = None,
        Winner::File => {
            if let Some(text) = read_secret(draft, pair.file_key, &path) {
                *(pair.secret)(&mut draft.config) = Some(Secret::new(text));
                draft.came_with(pair.key, pair.file_key);
            }
        }
    }
}

fn resolve_url(draft: &mut Draft) {
    let (key, file_key) = ("database.url", "database.url_file");
    let Some(path) = draft.config.database.url_file.clone() else {
        return;
    };
    let is_set = draft.origin(key).rank() > 0;
    match winner(draft, is_set, key, file_key) {
        Winner::Neither => {}
        Winner::Key => draft.config.database.url_file = None,
        Winner::File => match read_secret(draft, file_key, &path).map(|text| DatabaseUrl::parse(&text)) {
            None => {}
            Some(Err(refusal)) => draft.refuse(file_key, refusal),
            Some(Ok(url)) => {
                draft.config.database.url = url;
                draft.came_with(key, file_key);
            }
        },
    }
}

/// The one of the higher source; two of the same source are refused.
fn winner(draft: &mut Draft, is_set: bool, key: &str, file_key: &str) -> Winner {
    let (own, other) = (draft.origin(key).rank(), draft.origin(file_key).rank());
    if !is_set || own < other {
        return Winner::File;
    }
    if own > other {
        return Winner::Key;
    }
    let cause = format!("{key} is set too");
    draft.refuse(file_key, Refusal::new(ErrorCode::Conflict, cause, "Remove one of the two."));
    Winner::Neither
}

fn resolve_database_password(draft: &mut Draft) {
    let key = "database.password_file";
    let from_file = match draft.config.database.password_file.clone() {
        Some(path) => read_secret(draft, key, &path).map(Secret::new),
        None => None,
    };
    let database = &mut draft.config.database;
    database.password = from_file.or_else(|| database.url.password.clone());
}

/// Without a name of its own, an instance has the name of its host.
fn resolve_instance(draft: &mut Draft) {
    if !draft.config.relay.instance.is_empty() {
        return;
    }
    let name = read_bounded(Path::new(HOST_NAME_FILE)).or_else(|_| read_bounded(Path::new("/etc/hostname")));
    match name.map(|name| name.trim().to_owned()) {
        Ok(name) if !name.is_empty() => {
            draft.config.relay.instance = name;
            draft.came_by_default("relay.instance");
        }
        Ok(_) | Err(_) => draft
            .refuse("relay.instance", Refusal::new(ErrorCode::Required, "the name of the host cannot be found", "Set this key.")),
    }
}

/// The text of a secret's file without its last line break; what is wrong is noted at the key.
fn read_secret(draft: &mut Draft, key: &str, path: &Path) -> Option<String> {
    let text = match read_bounded(path) {
        Ok(text) => text,
        Err(error) => {
            let cause = format!("{} cannot be read: {error}", path.display());
            let remedy = "Name a file that the user of this program may read.";
            draft.refuse(key, Refusal::new(ErrorCode::UnreadableFile, cause, remedy));
            return None;
        }
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let secret = line.strip_suffix('\r').unwrap_or(line);
    if secret.is_empty() || secret.contains('\0') {
        let fault = if secret.is_empty() { "is empty" } else { "holds a NUL character" };
        let cause = format!("{} {fault}", path.display());
        draft.refuse(key, Refusal::new(ErrorCode::UnreadableFile, cause, "Write the secret into it, as text."));
        return None;
    }
    Some(secret.to_owned())
}

/// The text of a file, if it is one and not absurdly large.
pub(super) fn read_bounded(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let mut text = String::new();
    file.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}
