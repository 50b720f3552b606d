//! `outboxd completions`

use clap_complete::{Shell, generate};

use super::EXIT_DONE;

/// Prints the script that lets this shell complete `command`.
pub fn completions(mut command: clap::Command, shell: Shell) -> u8 {
    let mut script = Vec::new();
    generate(shell, &mut command, "outboxd", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    EXIT_DONE
}
