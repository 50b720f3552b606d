//! The effective configuration as text and as JSON, each value with its origin, secrets masked.

use serde_json::{Map, Value as Json, json};

use super::draft::Draft;
use super::keys::{KEYS, SECTIONS};
use super::origin::Origin;
use super::properties;
use super::secret::MASK;
use super::value::Shown;

/// One effective setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The section: `relay`, also `kafka.properties`.
    pub section: &'static str,
    /// The key in its section.
    pub name: String,
    /// Its value; `***` if it is a secret.
    pub value: Shown,
    /// Where it came from.
    pub origin: Origin,
}

/// Every key in the order of the documentation, the properties behind the section `kafka`.
pub(super) fn settings(draft: &Draft) -> Vec<Setting> {
    let mut settings = Vec::new();
    for section in SECTIONS {
        let keys = KEYS.iter().filter_map(|key| Some((key, key.name.strip_prefix(section)?.strip_prefix('.')?)));
        settings.extend(keys.map(|(key, name)| Setting {
            section,
            name: name.to_owned(),
            value: (key.show)(&draft.config),
            origin: draft.origin(key.name),
        }));
        if section == "kafka" {
            settings.extend(property_settings(draft));
        }
    }
    settings
}

fn property_settings(draft: &Draft) -> impl Iterator<Item = Setting> {
    draft.config.kafka.properties.iter().map(|(name, value)| Setting {
        section: properties::SECTION,
        name: name.clone(),
        value: Shown::Text(if properties::is_secret(name) { MASK.to_owned() } else { value.clone() }),
        origin: draft.origin(&format!("{}.{name}", properties::SECTION)),
    })
}

/// TOML that reads back as the same configuration (secrets excepted), the origin of each value in its comment.
pub fn text(settings: &[Setting]) -> String {
    let mut text = String::new();
    let mut section = "";
    for setting in settings {
        if setting.section != section {
            let line_break = if section.is_empty() { "" } else { "\n" };
            section = setting.section;
            text.push_str(&format!("{line_break}[{section}]\n"));
        }
        let name = if section == properties::SECTION { toml_string(&setting.name) } else { setting.name.clone() };
        let value = match &setting.value {
            Shown::Text(text) => toml_string(text),
            Shown::Integer(number) => number.to_string(),
            Shown::List(texts) => format!("[{}]", texts.iter().map(|text| toml_string(text)).collect::<Vec<_>>().join(", ")),
            Shown::Table(pairs) => toml_table(pairs),
        };
        text.push_str(&format!("{name} = {value}  # {}\n", setting.origin));
    }
    text
}

/// `{"relay": {"linger": {"value": "10ms", "origin": "file", "file": "/etc/…", "line": 31}}, …}`.
pub fn json(settings: &[Setting]) -> Json {
    let mut sections = Map::new();
    for setting in settings {
        let section = sections.entry(setting.section).or_insert_with(|| json!({}));
        section[&setting.name] = json_setting(setting);
    }
    Json::Object(sections)
}

fn json_setting(setting: &Setting) -> Json {
    let value = match &setting.value {
        Shown::Text(text) => json!(text),
        Shown::Integer(number) => json!(number),
        Shown::List(texts) => json!(texts),
        Shown::Table(pairs) => pairs.iter().map(|(name, text)| (name.clone(), json!(text))).collect::<Map<_, _>>().into(),
    };
    match &setting.origin {
        Origin::Default => json!({ "value": value, "origin": "default" }),
        Origin::Follows { why } => json!({ "value": value, "origin": "default", "why": why }),
        Origin::File { path, line } => {
            json!({ "value": value, "origin": "file", "file": path.to_string_lossy(), "line": line })
        }
        Origin::Environment { variable } => {
            json!({ "value": value, "origin": "environment", "variable": variable })
        }
        Origin::Flag => json!({ "value": value, "origin": "flag" }),
    }
}

/// A TOML table on one line; its names need no quotes.
fn toml_table(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, text)| format!("{name} = {}", toml_string(text))).collect();
    if pairs.is_empty() { "{}".into() } else { format!("{{ {} }}", pairs.join(", ")) }
}

/// A TOML string on one line. Its escapes are those of JSON, but for one character that JSON leaves alone.
fn toml_string(text: &str) -> String {
    Json::from(text).to_string().replace('\u{7f}', "\\u007F")
}
