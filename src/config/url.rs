//! The address of the database. Parsed here and nowhere else, so that what identity rests on
//! (guarantee: a copy of the database must not publish) is exactly what is connected to.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::{ErrorCode, Refusal};
use super::names::{LONGEST_IDENTIFIER, is_host, split_port};
use super::secret::{MASK, Secret};
use super::value::{Raw, Shown, Value};

/// The port PostgreSQL listens on when nothing else is said.
const DEFAULT_PORT: u16 = 5432;

/// Where a database is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// By name or address over TCP; an IPv6 address is without brackets.
    Name(String),
    /// By the socket in this folder.
    Socket(PathBuf),
    /// It is this file: SQLite has no server.
    File(PathBuf),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) if name.contains(':') => write!(f, "[{name}]"),
            Self::Name(name) => f.write_str(name),
            Self::Socket(path) | Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Host, port and database as configured: what tells one database from another by its address. A file has neither port nor name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The server.
    pub host: Host,
    /// Its port; with a socket, the number in the name of the socket.
    pub port: u16,
    /// The database on it.
    pub database: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::File(_) => write!(f, "{}", self.host),
            Host::Name(_) | Host::Socket(_) => write!(f, "{}:{}/{}", self.host, self.port, self.database),
        }
    }
}

/// `postgres://user:password@host:port/database` or `sqlite:///path`, taken apart and decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseUrl {
    /// The URL as it was written.
    pub raw: Secret,
    /// Host, port and database.
    pub address: Address,
    /// The role to log in as; a file asks for none.
    pub user: String,
    /// The password, if the URL holds one.
    pub password: Option<Secret>,
    /// `application_name`, if the URL holds one.
    pub application_name: Option<String>,
    masked: String,
}

impl DatabaseUrl {
    /// Takes a URL apart. No refusal ever quotes it, since it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, Refusal> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return Self::of_file(url, path);
        }
        let rest = without_scheme(url)?;
        let (before_query, query) = rest.split_once('?').map_or((rest, ""), |(left, right)| (left, right));
        let Some((authority, database)) = before_query.split_once('/') else {
            return Err(malformed("the URL names no database"));
        };
        let Some((login, place)) = authority.rsplit_once('@') else {
            return Err(malformed("the URL names no user"));
        };
        let parameters = Parameters::parse(query)?;
        let (host, port) = host_and_port(place, parameters.host)?;
        let (user, password) = login.split_once(':').map_or((login, None), |(user, word)| (user, Some(word)));
        let database = identifier(database, "database")?;
        Ok(Self {
            raw: Secret::new(url),
            address: Address { host, port, database },
            user: identifier(user, "user")?,
            password: password.filter(|word| !word.is_empty()).map(decoded).transpose()?.map(Secret::new),
            application_name: parameters.application_name,
            masked: masked(url, rest, login, password),
        })
    }

    /// `sqlite://` and an absolute path: what is relative would depend on where the process was started.
    fn of_file(url: &str, path: &str) -> Result<Self, Refusal> {
        let refuse = |cause: &str| {
            let remedy = "Write sqlite:///path/to/file.db; in the path write ? as %3F, # as %23 and % as %25.";
            Err(Refusal::new(ErrorCode::Malformed, cause, remedy))
        };
        let Some(path) = path.strip_prefix("//").filter(|path| path.starts_with('/')) else {
            return refuse("the URL has no absolute path behind sqlite://");
        };
        if path.contains(['?', '#']) {
            return refuse("the URL holds a bare ? or #");
        }
        let Ok(path) = decoded(path) else { return refuse("the path of the URL is not well encoded") };
        if path.ends_with('/') {
            return refuse("the URL names a folder, not a file");
        }
        let address = Address { host: Host::File(PathBuf::from(path)), port: 0, database: String::new() };
        let (raw, masked) = (Secret::new(url), url.to_owned());
        Ok(Self { raw, address, user: String::new(), password: None, application_name: None, masked })
    }

    /// The file, when it is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.address.host {
            Host::File(path) => Some(path),
            Host::Name(_) | Host::Socket(_) => None,
        }
    }

    /// The URL with `***` in place of its password.
    pub fn masked(&self) -> &str {
        &self.masked
    }
}

impl Value for DatabaseUrl {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        Self::parse(raw.text()?)
    }

    fn shown(&self) -> Shown {
        Shown::Text(self.masked.clone())
    }
}

/// What follows `postgres://`, or why the scheme is refused.
fn without_scheme(url: &str) -> Result<&str, Refusal> {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    match (scheme, rest.strip_prefix("//")) {
        ("postgres" | "postgresql", Some(rest)) if rest.contains('#') => Err(malformed("the URL holds a bare #")),
        ("postgres" | "postgresql", Some(rest)) => Ok(rest),
        ("mysql" | "mariadb", _) => Err(Refusal::new(
            ErrorCode::NotInThisVersion,
            format!("{scheme} is not in this version"),
            "Write postgres://user@host:5432/database, or sqlite:///path/to/file.db.",
        )),
        _ => Err(malformed("the value does not begin with postgres:// or sqlite://")),
    }
}

/// What the URL may say behind its question mark.
#[derive(Default)]
struct Parameters {
    host: Option<String>,
    application_name: Option<String>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let mut parameters = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "host" => parameters.host = Some(decoded(value)?),
                "application_name" => parameters.application_name = Some(decoded(value)?),
                _ => return Err(unknown_parameter(name)),
            }
        }
        Ok(parameters)
    }
}

/// Names the key that a parameter known from other clients has here; the name of any other is not
/// quoted, since an unescaped `?` in a password makes its end look like one.
fn unknown_parameter(name: &str) -> Refusal {
    let instead = match name {
        "sslmode" | "ssl-mode" => "Use the key database.tls.",
        "sslrootcert" | "ssl-root-cert" => "Use the key database.ca_file.",
        "password" => "Use the key database.password_file, or write it before the @.",
        "connect_timeout" => "Use the key database.connect_timeout.",
        "user" | "port" | "dbname" => "Write it as in postgres://user@host:port/database.",
        _ => {
            let remedy = "Only host and application_name may follow the question mark; in a password it is %3F.";
            return Refusal::new(ErrorCode::Malformed, "the URL holds a parameter that is not known", remedy);
        }
    };
    Refusal::new(ErrorCode::Malformed, format!("the URL holds the parameter {name}"), instead)
}

/// Host and port out of what follows the `@`, or out of the parameter `host` where that is empty.
fn host_and_port(place: &str, parameter: Option<String>) -> Result<(Host, u16), Refusal> {
    if place.contains(',') {
        let remedy = "Name one host: the one that can be written to.";
        return Err(Refusal::new(ErrorCode::NotInThisVersion, "a list of hosts is not in this version", remedy));
    }
    let (host, port) = split_port(place);
    let port = match port.map(str::parse) {
        None => DEFAULT_PORT,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err(malformed("the URL has no valid port")),
    };
    let host = match (decoded(host)?, parameter) {
        (host, None) => host,
        (host, Some(parameter)) if host.is_empty() => parameter,
        (_, Some(_)) => return Err(malformed("the URL names two hosts")),
    };
    Ok((checked_host(host)?, port))
}

fn checked_host(host: String) -> Result<Host, Refusal> {
    if host.starts_with('/') {
        return Ok(Host::Socket(PathBuf::from(host)));
    }
    if !is_host(&host) {
        return Err(malformed("the URL has no valid host"));
    }
    Ok(Host::Name(host.trim_matches(['[', ']']).to_owned()))
}

/// A decoded user or database: never empty, and short enough not to be cut by the server.
fn identifier(text: &str, what: &str) -> Result<String, Refusal> {
    let name = decoded(text)?;
    if name.is_empty() {
        return Err(malformed(&format!("the URL names no {what}")));
    }
    if name.len() > LONGEST_IDENTIFIER {
        return Err(malformed(&format!("the {what} is longer than {LONGEST_IDENTIFIER} bytes")));
    }
    Ok(name)
}

/// Undoes percent-encoding, strictly: what is not a whole `%XX`, not UTF-8 or NUL is refused.
fn decoded(text: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|digits| !digits.contains('+')).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| malformed("a % is not followed by two hexadecimal digits"))?);
        rest = &after[2..];
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) | Err(_) => Err(malformed("the percent-encoding gives NUL, or is not UTF-8")),
    }
}

/// The URL with `***` instead of the password, which is the end of the login.
fn masked(url: &str, rest: &str, login: &str, password: Option<&str>) -> String {
    let Some(password) = password.filter(|password| !password.is_empty()) else {
        return url.to_owned();
    };
    let scheme = &url[..url.len() - rest.len()];
    let user = &login[..login.len() - password.len()];
    format!("{scheme}{user}{MASK}{}", &rest[login.len()..])
}

fn malformed(cause: &str) -> Refusal {
    let remedy = "Write postgres://user@host:5432/database; in a user, password or name write \
                  @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25.";
    Refusal::new(ErrorCode::Malformed, cause, remedy)
}
