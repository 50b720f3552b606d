//! `outboxd demo`: plays the demo, and prints its verdict.

use std::io::{self, Write};

use super::{EXIT_DONE, Failure, Format};
use crate::demo::{self, Asks, Screen, Trouble, Verdict};
use crate::fault::EXIT_NO;

pub use crate::demo::Settings;

/// Plays the demo. Exit code 0 means: nothing was lost.
pub async fn demo(settings: Settings, format: Format) -> Result<u8, Failure> {
    let mut asks = Asks::listen().map_err(|error| Failure::refused_by_system("signals cannot be received", &error))?;
    let verdict = demo::run(settings, &mut asks, &mut Screen::of_stderr()).await;
    let verdict = verdict?;
    print(&verdict, format).map_err(Trouble::from)?;
    Ok(if verdict.is_good() { EXIT_DONE } else { EXIT_NO })
}

fn print(verdict: &Verdict, format: Format) -> io::Result<()> {
    let mut stdout = io::stdout();
    match format {
        Format::Text => write!(stdout, "{}", verdict.text(demo::colour(&stdout)))?,
        Format::Json => writeln!(stdout, "{}", verdict.json())?,
    }
    stdout.flush()
}
