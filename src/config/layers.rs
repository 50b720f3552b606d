//! The sources of settings: file, environment, command line. Each gives entries; which one wins, and
//! whether it is right, is decided later.

use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;

use toml_edit::{Document, Item, TableLike, TomlError};

use super::columns;
use super::error::{ConfigError, ErrorCode, Refusal};
use super::keys::SECTIONS;
use super::origin::Origin;
use super::properties;
use super::value::Raw;

/// What every environment variable that sets a key begins with.
pub(super) const VARIABLE_PREFIX: &str = "OUTBOXD__";

/// One setting as a source gives it.
pub(super) struct Entry {
    pub key: String,
    pub raw: Raw,
    pub origin: Origin,
}

/// What a file gives.
pub(super) struct FileEntries {
    /// Its settings.
    pub entries: Vec<Entry>,
    /// Its sections, and where each begins.
    pub sections: Vec<(String, Origin)>,
}

/// The entries of a TOML file. The error of one that is none quotes nothing of it: it may hold secrets.
pub(super) fn file_entries(path: &Path, text: &str) -> Result<FileEntries, ConfigError> {
    let document = Document::parse(text).map_err(|error| syntax_error(path, text, &error))?;
    let mut file = File { path, text, found: FileEntries { entries: Vec::new(), sections: Vec::new() } };
    file.walk(document.as_table(), "");
    Ok(file.found)
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
    found: FileEntries,
}

impl File<'_> {
    /// Adds what the table holds; sections and properties are gone into, everything else is a value.
    fn walk(&mut self, table: &dyn TableLike, prefix: &str) {
        for (name, item) in table.iter() {
            let key = format!("{prefix}{name}");
            let span = table.get_key_value(name).and_then(|(key, _)| key.span());
            let origin = self.origin(span.or_else(|| item.span()));
            match item.as_table_like() {
                Some(inner) if is_container(&key) => {
                    self.walk(inner, &format!("{key}."));
                    self.found.sections.push((key, origin));
                }
                Some(_) | None => {
                    let raw = raw(item);
                    self.found.entries.push(Entry { key, raw, origin });
                }
            }
        }
    }

    fn origin(&self, span: Option<Range<usize>>) -> Origin {
        let (line, _) = line_and_column(self.text, span.map_or(0, |span| span.start));
        let path = self.path.to_owned();
        Origin::File { path, line }
    }
}

/// Whether a table of this name holds settings. Names of properties hold dots, which TOML reads as tables.
fn is_container(key: &str) -> bool {
    let inside_properties = key.strip_prefix(properties::SECTION).is_some_and(|rest| rest.starts_with('.'));
    SECTIONS.contains(&key) || key == properties::SECTION || inside_properties
}

fn raw(item: &Item) -> Raw {
    use toml_edit::Value;
    match item {
        Item::Value(Value::String(text)) => Raw::Quoted(text.value().clone()),
        Item::Value(Value::Integer(number)) => Raw::Integer(*number.value()),
        Item::Value(Value::Boolean(boolean)) => Raw::Boolean(*boolean.value()),
        Item::Value(Value::Float(_)) => Raw::Other("a number with a fraction"),
        Item::Value(Value::Datetime(_)) => Raw::Other("a date"),
        Item::Value(Value::Array(list)) => {
            let texts: Option<Vec<String>> = list.iter().map(|value| value.as_str().map(str::to_owned)).collect();
            texts.map_or(Raw::Other("a list of more than strings"), Raw::List)
        }
        Item::Value(Value::InlineTable(_)) | Item::Table(_) => columns::pairs(item).map_or(Raw::Other("a table"), Raw::Table),
        Item::ArrayOfTables(_) => Raw::Other("a list of tables"),
        Item::None => Raw::Other("nothing"),
    }
}

fn syntax_error(path: &Path, text: &str, error: &TomlError) -> ConfigError {
    let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
    let cause = format!("column {column}: {}", error.message());
    let remedy = "Correct the TOML; what stands behind this place was not looked at.";
    let origin = Origin::File { path: path.to_owned(), line };
    Refusal::new(ErrorCode::Syntax, cause, remedy).at(origin, "")
}

/// Line and column of a byte, both counted from 1, the column in characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = 1 + before.matches('\n').count();
    (line, 1 + before[line_start..].chars().count())
}

/// The entries of the variables that begin with `OUTBOXD__`, ordered by name.
pub(super) fn environment_entries(variables: &[(OsString, OsString)]) -> Vec<Entry> {
    let entry = |(name, value): &(OsString, OsString)| {
        let variable = name.to_str()?;
        let key = key_of_variable(variable.strip_prefix(VARIABLE_PREFIX)?);
        let raw = value.to_str().map_or(Raw::Other("not UTF-8"), |text| Raw::Word(text.to_owned()));
        let origin = Origin::Environment { variable: variable.to_owned() };
        Some(Entry { key, raw, origin })
    };
    let mut entries: Vec<_> = variables.iter().filter_map(entry).collect();
    entries.sort_by(|left, right| left.origin.cmp(&right.origin));
    entries
}

/// `RELAY__LINGER` is `relay.linger`; in `KAFKA__PROPERTIES__COMPRESSION_TYPE` the underscore is a dot.
fn key_of_variable(name: &str) -> String {
    if let Some(property) = name.strip_prefix("KAFKA__PROPERTIES__") {
        return format!("{}.{}", properties::SECTION, properties::from_variable(property));
    }
    name.replace("__", ".").to_ascii_lowercase()
}

/// The variable that sets a key.
pub(super) fn variable_of_key(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// The entries of the command line.
pub(super) fn flag_entries(flags: &[(String, String)]) -> Vec<Entry> {
    let entry = |(key, value): &(String, String)| Entry { key: key.clone(), raw: Raw::Word(value.clone()), origin: Origin::Flag };
    flags.iter().map(entry).collect()
}
