//! A configuration while it is put together: the values so far, where they came from, and all that is wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::Config;
use super::error::{ConfigError, ErrorCode, Refusal, quoted};
use super::keys::{self, KEYS, SECTIONS};
use super::layers::{Entry, FileEntries, variable_of_key};
use super::origin::Origin;
use super::properties;
use super::value::Raw;

/// The configuration so far.
pub(super) struct Draft {
    pub config: Config,
    pub errors: Vec<ConfigError>,
    origins: BTreeMap<String, Origin>,
    sections: BTreeMap<String, Origin>,
    failed: BTreeSet<String>,
}

impl Draft {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            config: Config::default(),
            errors: Vec::new(),
            origins: BTreeMap::new(),
            sections: BTreeMap::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Takes over the entries of the file.
    pub fn apply_file(&mut self, file: FileEntries) {
        self.sections.extend(file.sections);
        file.entries.into_iter().for_each(|entry| self.apply(entry));
    }

    /// Takes over one entry, over whatever was there, or notes what is wrong with it.
    pub fn apply(&mut self, entry: Entry) {
        let Entry { key, raw, origin } = entry;
        match self.set(&key, &raw, &origin) {
            Ok(()) => {
                self.origins.insert(key, origin);
            }
            Err(refusal) => {
                self.failed.insert(key.clone());
                self.errors.push(refusal.at(origin, key));
            }
        }
    }

    /// Where the value of a key came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Where to look for what is wrong with some keys: at the first that is written anywhere, else where
    /// the section of the first begins.
    pub fn place(&self, keys: &[&str]) -> Origin {
        let written = keys.iter().find_map(|key| self.origins.get(*key));
        let section = || self.sections.get(keys.first()?.split('.').next()?);
        written.or_else(section).cloned().unwrap_or(Origin::Default)
    }

    /// Lets a key have come from nowhere: an empty string that something else stands in for.
    pub fn came_by_default(&mut self, key: &str) {
        self.origins.remove(key);
    }

    /// Lets a key have come from where another one did: the file that holds its value.
    pub fn came_with(&mut self, key: &str, other: &str) {
        self.origins.insert(key.to_owned(), self.origin(other));
    }

    /// Gives a key that is written nowhere another default, because of what is written elsewhere.
    pub fn follows(&mut self, key: &'static str, why: &'static str, set: impl FnOnce(&mut Config)) {
        if self.origin(key) == Origin::Default {
            set(&mut self.config);
            self.origins.insert(key.to_owned(), Origin::Follows { why });
        }
    }

    /// Notes what is wrong with the effective value of a key.
    pub fn refuse(&mut self, key: &str, refusal: Refusal) {
        self.failed.insert(key.to_owned());
        self.errors.push(refusal.at(self.origin(key), key));
    }

    /// Whether one of these was refused already, so that nothing can be said about them together.
    pub fn any_failed(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.failed.contains(*key))
    }

    fn set(&mut self, key: &str, raw: &Raw, origin: &Origin) -> Result<(), Refusal> {
        if let Some(key) = keys::find(key) {
            return (key.set)(&mut self.config, raw);
        }
        match key.strip_prefix(properties::SECTION).and_then(|rest| rest.strip_prefix('.')) {
            Some(name) => self.set_property(key, name, raw, origin),
            None => Err(unknown(key, raw, origin)),
        }
    }

    fn set_property(&mut self, key: &str, name: &str, raw: &Raw, origin: &Origin) -> Result<(), Refusal> {
        let before = self.origins.get(key);
        if before.is_some_and(|before| before.rank() == origin.rank()) {
            let remedy = "Remove one of them; `a.b` and `\"a.b\"` are the same property.";
            return Err(Refusal::new(ErrorCode::Conflict, "the property is set twice", remedy));
        }
        let value = properties::read(name, raw)?;
        self.config.kafka.properties.insert(name.to_owned(), value);
        Ok(())
    }
}

/// The refusal of a key that does not exist. Its value is not looked at.
fn unknown(key: &str, raw: &Raw, origin: &Origin) -> Refusal {
    if SECTIONS.contains(&key) || key == properties::SECTION {
        return raw.wrong_type("a section", &format!("Write [{key}], and its keys below it."));
    }
    let section = key.split_once('.').map_or(key, |(section, _)| section);
    if SECTIONS.contains(&section) {
        return unknown_key(key, section, origin);
    }
    let elsewhere = same_name_elsewhere(key);
    let cause = match elsewhere {
        Some(_) => format!("{} belongs into a section", quoted(key)),
        None => format!("there is no section {}", quoted(section)),
    };
    let list = format!("The sections are {}.", SECTIONS.join(", "));
    let nearest = elsewhere.or_else(|| nearest_in_section(key, section));
    Refusal::new(ErrorCode::UnknownSection, cause, suggestion(nearest, origin).unwrap_or(list))
}

/// The section that was probably meant, with the key if it has one of that name.
fn nearest_in_section<'a>(key: &str, section: &str) -> Option<&'a str> {
    let meant = nearest(section, SECTIONS.into_iter())?;
    let found = keys::find(&format!("{meant}.{}", leaf(key)));
    Some(found.map_or(meant, |key| key.name))
}

fn unknown_key(key: &str, section: &str, origin: &Origin) -> Refusal {
    let names = || KEYS.iter().map(|key| key.name).filter(|name| name.split('.').next() == Some(section));
    let leaf = key.rsplit('.').next().unwrap_or(key);
    // `password` where only `password_file` is known is not meant for another section
    let longer = names().find(|name| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('_')));
    let nearest = longer.or_else(|| same_name_elsewhere(leaf)).or_else(|| nearest(key, names()));
    let cause = format!("there is no key {}", quoted(key));
    let list = || format!("The keys of this section are {}.", names().collect::<Vec<_>>().join(", "));
    Refusal::new(ErrorCode::UnknownKey, cause, suggestion(nearest, origin).unwrap_or_else(list))
}

/// How to write what was probably meant, in the manner of the source it was written in.
fn suggestion(nearest: Option<&str>, origin: &Origin) -> Option<String> {
    let name = nearest?;
    Some(match origin {
        Origin::Environment { .. } => format!("Did you mean {}?", variable_of_key(name)),
        Origin::Default | Origin::Follows { .. } | Origin::File { .. } | Origin::Flag => format!("Did you mean {name}?"),
    })
}

/// The key that has this name in another section.
fn same_name_elsewhere(leaf: &str) -> Option<&'static str> {
    KEYS.iter().map(|key| key.name).find(|name| name.rsplit('.').next() == Some(leaf))
}

/// The name that looks most like this one, if any looks like it at all. The sections of both are the
/// same, or there is none: what is compared is what follows them.
pub(super) fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    let wrong = leaf(wrong).to_ascii_lowercase();
    let likeness = |name: &str| strsim::jaro_winkler(&wrong, leaf(name));
    let best = names.max_by(|left, right| likeness(left).total_cmp(&likeness(right)))?;
    (likeness(best) >= ALIKE).then_some(best)
}

fn leaf(key: &str) -> &str {
    key.split_once('.').map_or(key, |(_, leaf)| leaf)
}
