//! The configuration from outside: one case per key, per rule, per kind of error.

mod addresses;
mod keys;
mod properties;
mod rules;
mod sources;

use super::*;

/// The name under which the file stands in messages.
const FILE: &str = "outboxd.toml";
/// What every configuration needs.
const NAMED: &str = "[outbox]\nname = \"shop\"\n";
/// A file that is there, for keys that name one.
const PRESENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

/// Loads a text as the file, and the other sources, in a build that can do everything.
fn load_all(text: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    load_in(Build::Full, text, environment, flags)
}

fn load_in(build: Build, text: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let variables = environment.iter().map(owned);
    let sources = Sources {
        file: None,
        environment: variables.map(|(name, value)| (name.into(), value.into())).collect(),
        flags: flags.iter().map(owned).collect(),
    };
    assemble(Ok((Path::new(FILE), text.to_owned())), &sources, build)
}

fn load_text(text: &str) -> Result<Loaded, ConfigErrors> {
    load_all(text, &[], &[])
}

/// The errors of a configuration that must have some.
fn errors(loaded: Result<Loaded, ConfigErrors>) -> Vec<ConfigError> {
    match loaded {
        Ok(_) => panic!("the configuration was accepted"),
        Err(errors) => errors.iter().cloned().collect(),
    }
}

/// The error of a configuration that must have exactly one.
fn only_error(loaded: Result<Loaded, ConfigErrors>) -> ConfigError {
    let mut errors = errors(loaded);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.remove(0)
}

/// The configuration, which must be right.
fn config(loaded: Result<Loaded, ConfigErrors>) -> Config {
    loaded.unwrap_or_else(|errors| panic!("{errors}")).config
}

/// A file of this content, removed with the guard.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &str) -> Self {
        let file = format!("outboxd-config-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, content).expect("the temporary folder can be written to");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("the temporary folder has a UTF-8 name")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
