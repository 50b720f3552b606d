//! `outboxd config show`

use super::{EXIT_DONE, Failure, Format};
use crate::config::{self, Loaded};

/// Prints the effective configuration with the origin of each value, secrets masked.
pub fn config_show(loaded: &Loaded, format: Format) -> Result<u8, Failure> {
    match format {
        Format::Text => print!("{}", config::text(&loaded.settings)),
        Format::Json => println!("{}", config::json(&loaded.settings)),
    }
    Ok(EXIT_DONE)
}
