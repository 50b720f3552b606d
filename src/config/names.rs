//! Names of things that live elsewhere: tables, topics, brokers. Each is checked where it is read.

use std::fmt;
use std::net::Ipv6Addr;

use super::error::{ErrorCode, Refusal, quoted};
use super::value::{Raw, Shown, Value};

/// The longest identifier PostgreSQL keeps (NAMEDATALEN - 1); it cuts longer ones silently.
pub(super) const LONGEST_IDENTIFIER: usize = 63;
/// The longest topic name Kafka accepts.
const LONGEST_TOPIC: usize = 249;

/// Refuses an outbox name that could not stand in a topic name and a transactional id.
/// The empty name passes: it means "not set", which is refused as a missing key.
pub(super) fn check_outbox_name(name: &str) -> Result<(), Refusal> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let starts = !name.starts_with(['.', '_', '-']);
    if name.len() <= 80 && name.chars().all(fits) && starts {
        return Ok(());
    }
    Err(malformed(
        format!("{} cannot be the name of an outbox", quoted(name)),
        "Write 1 to 80 of a-z, 0-9, dot, underscore and hyphen, beginning with a letter or digit.",
    ))
}

/// Refuses an instance name that would not fit into the journal and one line of a log.
pub(super) fn check_instance(name: &str) -> Result<(), Refusal> {
    if name.len() <= 120 && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(malformed(
        format!("{} cannot be the name of an instance", quoted(name)),
        "Write at most 120 bytes without control characters.",
    ))
}

/// A table, by schema where one is given. Both parts are as they stand in the catalog: nothing is folded to lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// The schema; without one the search path of the connection decides.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
}

impl TableName {
    /// Reads `table` or `schema.table`; a part in double quotes may hold dots, and quotes written twice.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let (first, rest) = identifier(text)?;
        let Some(rest) = rest else {
            return Ok(Self { schema: None, table: first });
        };
        match identifier(rest)? {
            (table, None) => Ok(Self { schema: Some(first), table }),
            (_, Some(_)) => Err(malformed(
                format!("{} has more than two parts", quoted(text)),
                "Write table or schema.table; put a name that holds a dot in double quotes.",
            )),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", identifier_text(schema))?;
        }
        f.write_str(&identifier_text(&self.table))
    }
}

impl Value for TableName {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        Self::parse(raw.text()?)
    }

    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

/// The first identifier of a text, and what follows after its dot.
fn identifier(text: &str) -> Result<(String, Option<&str>), Refusal> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(inner) => quoted_identifier(inner)?,
        None => match text.split_once('.') {
            Some((name, rest)) => (name.to_owned(), Some(rest)),
            None => (text.to_owned(), None),
        },
    };
    if name.is_empty() {
        return Err(malformed("a part of the name is empty", "Write table or schema.table."));
    }
    if name.len() > LONGEST_IDENTIFIER {
        return Err(malformed(
            format!("{} is longer than {LONGEST_IDENTIFIER} bytes", quoted(&name)),
            "Write the name as the catalog has it: PostgreSQL cut it when the table was created.",
        ));
    }
    Ok((name, rest))
}

/// What stands before the closing quote, and what follows after the dot behind it.
fn quoted_identifier(inner: &str) -> Result<(String, Option<&str>), Refusal> {
    let mut name = String::new();
    let mut rest = inner;
    while let Some((part, after)) = rest.split_once('"') {
        name.push_str(part);
        match after.chars().next() {
            Some('"') => name.push('"'),
            Some('.') => return Ok((name, Some(&after[1..]))),
            Some(_) => return Err(malformed("text follows a closing quote", QUOTES)),
            None => return Ok((name, None)),
        }
        rest = &after[1..];
    }
    Err(malformed("a double quote is not closed", QUOTES))
}

const QUOTES: &str = "Write \"name\" as in SQL, a quote inside it twice.";

/// The identifier as `TableName::parse` reads it back.
fn identifier_text(name: &str) -> String {
    if name.contains('.') || name.starts_with('"') {
        return format!("\"{}\"", name.replace('"', "\"\""));
    }
    name.to_owned()
}

/// How the topic of a row becomes the topic in Kafka: unchanged, between a prefix and a suffix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    /// What stands before the row's topic.
    pub prefix: String,
    /// What stands behind it.
    pub suffix: String,
}

impl TopicPattern {
    /// The topic in Kafka for the topic of a row. Whether Kafka takes the name is not looked at here.
    pub fn apply(&self, topic: &str) -> String {
        [self.prefix.as_str(), topic, self.suffix.as_str()].concat()
    }

    /// The topic of a row for the one in Kafka, if it can be one of ours.
    pub fn in_table<'t>(&self, topic: &'t str) -> Option<&'t str> {
        topic.strip_prefix(self.prefix.as_str())?.strip_suffix(self.suffix.as_str())
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.apply("{topic}"))
    }
}

impl Value for TopicPattern {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        let text = raw.text()?;
        let remedy = "Write \"{topic}\", with letters, digits, dots, underscores and hyphens around it.";
        let Some((prefix, suffix)) = text.split_once("{topic}") else {
            return Err(malformed(format!("{} does not hold {{topic}}", quoted(text)), remedy));
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !prefix.chars().chain(suffix.chars()).all(fits) {
            return Err(malformed(format!("{} holds more than {{topic}} and a name", quoted(text)), remedy));
        }
        if prefix.starts_with("__") {
            return Err(malformed("topics that start with __ belong to Kafka", "Write another prefix."));
        }
        if prefix.len() + suffix.len() >= LONGEST_TOPIC {
            return Err(malformed("no room is left for the topic", "Kafka's names have at most 249 bytes."));
        }
        Ok(Self { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
    }

    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

/// Which topics of rows may be published to: names in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPatterns(pub Vec<String>);

impl TopicPatterns {
    /// Whether one of the patterns fits the whole name.
    pub fn allow(&self, topic: &str) -> bool {
        self.0.iter().any(|pattern| fits(pattern, topic))
    }
}

/// Greedy from the left: the first part is a prefix, the last one a suffix, each between them is looked for where the one before ended.
fn fits(pattern: &str, topic: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else { return pattern == topic };
    let Some(mut left) = topic.strip_prefix(prefix) else { return false };
    let (between, suffix) = rest.rsplit_once('*').map_or((None, rest), |(between, suffix)| (Some(between), suffix));
    for part in between.into_iter().flat_map(|between| between.split('*')) {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.len() >= suffix.len() && left.ends_with(suffix)
}

impl Value for TopicPatterns {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        let texts = match raw {
            Raw::List(texts) => texts.clone(),
            Raw::Word(text) => text.split(',').map(|text| text.trim().to_owned()).collect(),
            Raw::Quoted(_) | Raw::Integer(_) | Raw::Boolean(_) | Raw::Table(_) | Raw::Other(_) => {
                return Err(raw.wrong_type("a list of strings", "Write it as [\"orders\", \"payments.*\"]."));
            }
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*');
        let bad = texts.iter().find(|text| text.is_empty() || !text.chars().all(fits));
        let remedy = "Write names of topics, with * for any characters.";
        match bad {
            Some(text) => Err(malformed(format!("{} cannot be the name of a topic", quoted(text)), remedy)),
            None if texts.is_empty() => Err(malformed("no topic is allowed at all", remedy)),
            None => Ok(Self(texts)),
        }
    }

    fn shown(&self) -> Shown {
        Shown::List(self.0.clone())
    }
}

/// The brokers to begin with; displayed as Kafka's clients want them, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brokers(pub Vec<String>);

impl fmt::Display for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Value for Brokers {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        let brokers = raw.text()?.split(',').map(str::trim);
        brokers.map(|broker| check_broker(broker).map(|()| broker.to_owned())).collect::<Result<_, _>>().map(Self)
    }

    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

/// Accepts `host`, `host:port` and `[IPv6]:port`.
fn check_broker(broker: &str) -> Result<(), Refusal> {
    let remedy = "Write host:port, several of them separated by commas.";
    if broker.contains("://") {
        return Err(malformed(
            format!("{} begins with a protocol", quoted(broker)),
            "Write host:port, and say the protocol in kafka.security.",
        ));
    }
    let (host, port) = split_port(broker);
    if !is_host(host) {
        return Err(malformed(format!("{} is not the address of a broker", quoted(broker)), remedy));
    }
    match port.map(str::parse::<u16>) {
        None => Ok(()),
        Some(Ok(port)) if port > 0 => Ok(()),
        Some(_) => Err(malformed(format!("{} has no valid port", quoted(broker)), remedy)),
    }
}

/// Splits `host:port`; the colons inside the brackets of an IPv6 address are its own.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after_bracket = authority.rfind(']').unwrap_or(0);
    match authority.rfind(':') {
        Some(colon) if colon >= after_bracket => (&authority[..colon], Some(&authority[colon + 1..])),
        Some(_) | None => (authority, None),
    }
}

/// Whether this can be a host name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !host.is_empty() && host.chars().all(fits)
}

fn malformed(cause: impl Into<String>, remedy: &str) -> Refusal {
    Refusal::new(ErrorCode::Malformed, cause, remedy)
}
