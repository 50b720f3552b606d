//! What a setting looks like before it is read and when it is shown, and the plain types between.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{ErrorCode, Refusal, quoted};
use super::secret::{MASK, Secret};

/// A value as a source gives it.
/// Not to be printed: it may be a secret.
#[derive(Clone)]
pub(super) enum Raw {
    /// A string of the file, in quotes.
    Quoted(String),
    /// What an environment variable or flag holds: a string, or anything that can be read from one.
    Word(String),
    /// An integer of the file.
    Integer(i64),
    /// `true` or `false` in the file.
    Boolean(bool),
    /// A list of strings in the file.
    List(Vec<String>),
    /// A table of strings in the file.
    Table(Vec<(String, String)>),
    /// Anything else, by what it is called.
    Other(&'static str),
}

impl Raw {
    /// The text of a string; anything else is refused without being quoted, since it may be a secret.
    pub fn text(&self) -> Result<&str, Refusal> {
        match self {
            Self::Quoted(text) | Self::Word(text) if text.contains('\0') => Err(Refusal::new(
                ErrorCode::Malformed,
                "the value holds a NUL character",
                "Remove it: neither PostgreSQL nor Kafka's client can take it.",
            )),
            Self::Quoted(text) | Self::Word(text) => Ok(text),
            Self::Integer(_) | Self::Boolean(_) | Self::List(_) | Self::Table(_) | Self::Other(_) => {
                Err(self.wrong_type("a string", "Write it in quotes."))
            }
        }
    }

    /// The refusal of a value of another type than `wanted`.
    pub fn wrong_type(&self, wanted: &str, remedy: &str) -> Refusal {
        let found = match self {
            Self::Quoted(_) | Self::Word(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        };
        Refusal::new(ErrorCode::WrongType, format!("this is {found}, {wanted} belongs here"), remedy)
    }
}

/// A value as `config show` prints it: secrets are masked already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A string.
    Text(String),
    /// An integer.
    Integer(u32),
    /// A list of strings.
    List(Vec<String>),
    /// Strings by name.
    Table(Vec<(String, String)>),
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::List(texts) => f.write_str(&texts.join(",")),
            Self::Table(pairs) => {
                f.write_str(&pairs.iter().map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// A type that a setting can have.
pub(super) trait Value: Sized {
    /// Reads it, or says what is wrong.
    fn read(raw: &Raw) -> Result<Self, Refusal>;

    /// What reads back as the same value, secrets excepted.
    fn shown(&self) -> Shown;
}

/// Refuses a value outside `least..=most`.
pub(super) fn within<T: Value + PartialOrd>(value: &T, least: T, most: T) -> Result<(), Refusal> {
    if *value >= least && *value <= most {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::OutOfRange,
        format!("{} is out of range", value.shown()),
        format!("Write something from {} to {}.", least.shown(), most.shown()),
    ))
}

/// A size in bytes, written with its unit: `4MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// So many times 1,024 bytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many times 1,048,576 bytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let exact = |shift: u32| self.0 > 0 && self.0.trailing_zeros() >= shift;
        match units.into_iter().find(|(_, shift)| exact(*shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// How long rows that are published stay in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Removed when they were sent so long ago.
    For(Duration),
    /// Never removed by the relay.
    Forever,
}

/// Where health, metrics and the reading commands are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At this address.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl Value for String {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        raw.text().map(str::to_owned)
    }

    fn shown(&self) -> Shown {
        Shown::Text(self.clone())
    }
}

impl Value for PathBuf {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        raw.text().map(PathBuf::from)
    }

    fn shown(&self) -> Shown {
        Shown::Text(self.to_string_lossy().into_owned())
    }
}

impl Value for Secret {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        raw.text().map(Secret::new)
    }

    fn shown(&self) -> Shown {
        Shown::Text(MASK.to_owned())
    }
}

/// The empty string is "not set".
impl<T: Value> Value for Option<T> {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        match raw {
            Raw::Quoted(text) | Raw::Word(text) if text.is_empty() => Ok(None),
            Raw::Quoted(_) | Raw::Word(_) | Raw::Integer(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => {
                T::read(raw).map(Some)
            }
        }
    }

    fn shown(&self) -> Shown {
        self.as_ref().map_or(Shown::Text(String::new()), T::shown)
    }
}

impl Value for u32 {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        let number = match raw {
            Raw::Integer(number) => Some(*number),
            Raw::Word(text) => text.parse().ok(),
            Raw::Quoted(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => None,
        };
        let Some(number) = number else {
            return Err(raw.wrong_type("an integer", "Write it in digits, without quotes."));
        };
        u32::try_from(number).map_err(|_| {
            let cause = format!("{number} is out of range");
            Refusal::new(ErrorCode::OutOfRange, cause, "Write a number above 0 and below 2^32.")
        })
    }

    fn shown(&self) -> Shown {
        Shown::Integer(*self)
    }
}

impl Value for Bytes {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        let text = measure(raw, "a size, as 512KiB or 4MiB", ["KiB", "MiB"])?;
        let size: Result<bytesize::ByteSize, _> = text.parse();
        size.map(|size| Bytes(size.as_u64())).map_err(|_| {
            let cause = format!("{} is not a size", quoted(text));
            Refusal::new(ErrorCode::BadUnit, cause, "Write it as 512KiB, 4MiB or 1GiB.")
        })
    }

    fn shown(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

impl Value for Duration {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        let text = measure(raw, "a duration, as 10s or 10ms", ["s", "ms"])?;
        humantime::parse_duration(text).map_err(|_| {
            let cause = format!("{} is not a duration", quoted(text));
            Refusal::new(ErrorCode::BadUnit, cause, "Write it as 10ms, 10s, 15m, 24h or 7d.")
        })
    }

    fn shown(&self) -> Shown {
        Shown::Text(duration_text(*self))
    }
}

impl Value for Retention {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        match raw.text() {
            Ok("forever") => Ok(Self::Forever),
            Ok(_) | Err(_) => Duration::read(raw).map(Self::For),
        }
    }

    fn shown(&self) -> Shown {
        match self {
            Self::For(time) => time.shown(),
            Self::Forever => Shown::Text("forever".to_owned()),
        }
    }
}

impl Value for Listen {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        let text = raw.text()?;
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            let cause = format!("{} is not an IP address with a port", quoted(text));
            let remedy = "Write 127.0.0.1:9640, 0.0.0.0:9640 or [::]:9640, or off.";
            Refusal::new(ErrorCode::Malformed, cause, remedy)
        })
    }

    fn shown(&self) -> Shown {
        match self {
            Self::At(address) => Shown::Text(address.to_string()),
            Self::Off => Shown::Text("off".to_owned()),
        }
    }
}

/// The text of a number with a unit; a bare number is refused with two ways to write it.
fn measure<'a>(raw: &'a Raw, wanted: &str, units: [&str; 2]) -> Result<&'a str, Refusal> {
    let bare = match raw {
        Raw::Integer(number) => number.to_string(),
        Raw::Quoted(text) | Raw::Word(text) => text.clone(),
        Raw::Boolean(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => {
            return Err(raw.wrong_type(wanted, "Write it in quotes."));
        }
    };
    let number = bare.trim().trim_start_matches('-');
    if !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        let [one, other] = units;
        return Err(Refusal::new(
            ErrorCode::BadUnit,
            format!("{bare} has no unit"),
            format!("Write \"{number}{one}\" or \"{number}{other}\", whichever is meant."),
        ));
    }
    raw.text()
}

/// A duration as a person would write it into the configuration: in the largest unit that gives a whole number; days from two on.
pub fn duration_text(time: Duration) -> String {
    const HOUR: u128 = 3_600_000_000_000;
    let nanoseconds = time.as_nanos();
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    if nanoseconds >= 48 * HOUR && nanoseconds.is_multiple_of(24 * HOUR) {
        return format!("{}d", nanoseconds / (24 * HOUR));
    }
    let units = [("h", HOUR), ("m", HOUR / 60), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    match units.into_iter().find(|(_, unit)| nanoseconds.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", nanoseconds / unit),
        None => format!("{nanoseconds}ns"),
    }
}
