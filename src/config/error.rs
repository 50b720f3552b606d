//! What can be wrong with a configuration: one code per kind, and a list that holds all of it at once.

use std::fmt;

use super::origin::Origin;

/// The kinds of configuration errors. The codes are stable: scripts and `docs/errors.md` refer to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCode {
    /// The configuration file cannot be read.
    UnreadableConfig,
    /// The configuration file is no TOML.
    Syntax,
    /// A section that does not exist.
    UnknownSection,
    /// A key that does not exist in its section.
    UnknownKey,
    /// A number where a string belongs, and the like.
    WrongType,
    /// A duration or size without a unit, or with one that does not exist.
    BadUnit,
    /// A value outside its bounds.
    OutOfRange,
    /// A word that is none of the words of its key.
    UnknownWord,
    /// A name, address, pattern or URL that is not well formed.
    Malformed,
    /// A key without default that is not set.
    Required,
    /// Two keys that cannot both be as they are.
    Conflict,
    /// Something that is planned, and not there yet.
    NotInThisVersion,
    /// A Kafka property that the relay sets itself, because its promise rests on it.
    ProtectedProperty,
    /// A file named by a key that cannot be read, or holds nothing.
    UnreadableFile,
    /// Something this build was made without.
    NotInThisBuild,
}

impl ErrorCode {
    /// Every code, in the order of the numbers.
    pub const ALL: [ErrorCode; 15] = [
        Self::UnreadableConfig,
        Self::Syntax,
        Self::UnknownSection,
        Self::UnknownKey,
        Self::WrongType,
        Self::BadUnit,
        Self::OutOfRange,
        Self::UnknownWord,
        Self::Malformed,
        Self::Required,
        Self::Conflict,
        Self::NotInThisVersion,
        Self::ProtectedProperty,
        Self::UnreadableFile,
        Self::NotInThisBuild,
    ];

    /// The stable name, `OBX101` to `OBX115`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnreadableConfig => "OBX101",
            Self::Syntax => "OBX102",
            Self::UnknownSection => "OBX103",
            Self::UnknownKey => "OBX104",
            Self::WrongType => "OBX105",
            Self::BadUnit => "OBX106",
            Self::OutOfRange => "OBX107",
            Self::UnknownWord => "OBX108",
            Self::Malformed => "OBX109",
            Self::Required => "OBX110",
            Self::Conflict => "OBX111",
            Self::NotInThisVersion => "OBX112",
            Self::ProtectedProperty => "OBX113",
            Self::UnreadableFile => "OBX114",
            Self::NotInThisBuild => "OBX115",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong, where it was written, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The kind.
    pub code: ErrorCode,
    /// Where the value came from; `Origin::Default` if it was written nowhere.
    pub origin: Origin,
    /// The key, `section.key`; empty where the error belongs to a whole file.
    pub key: String,
    /// What is wrong, in a sentence without its full stop. Never holds a secret.
    pub cause: String,
    /// What to do, in a sentence.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code)?;
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}. {}", self.cause, self.remedy)
    }
}

/// All that is wrong with a configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Orders the errors by where they were written: file by line, then environment, then flags.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by(|left, right| left.origin.cmp(&right.origin));
        Self(errors)
    }

    /// The errors, at least one.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

/// An error before it is known where the value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: ErrorCode,
    pub cause: String,
    pub remedy: String,
}

impl Refusal {
    pub fn new(code: ErrorCode, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, cause: cause.into(), remedy: remedy.into() }
    }

    /// Puts the refusal where the value was written.
    pub fn at(self, origin: Origin, key: impl Into<String>) -> ConfigError {
        ConfigError { code: self.code, origin, key: key.into(), cause: self.cause, remedy: self.remedy }
    }
}

/// A value as it is quoted in an error: escaped, and cut where it is long.
pub(super) fn quoted(value: &str) -> String {
    const LONGEST: usize = 60;
    let mut text: String = value.chars().take(LONGEST).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    format!("{text:?}")
}
