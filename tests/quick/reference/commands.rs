//! From the command line to a page: usage, arguments and examples of each command.

use clap::{Arg, Command};

pub(super) fn page() -> String {
    let mut command = outboxd::cli::command();
    command.build();
    let mut page = format!("# Commands\n\n{}\n\n", super::WRITTEN);
    page += "Data goes to stdout, talk to stderr. Every command takes these:\n\n";
    page += &table(command.get_arguments());
    page += &format!("\n{}\n", paragraph(&command.get_after_help().unwrap().to_string()));
    for sub in subcommands(&command) {
        describe(&mut page, sub);
    }
    page
}

fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| sub.get_name() != "help")
}

/// A command that only holds others is told by them.
fn describe(page: &mut String, command: &Command) {
    let mut inner = subcommands(command).peekable();
    if inner.peek().is_some() {
        inner.for_each(|sub| describe(page, sub));
        return;
    }
    let mut command = command.clone().term_width(0);
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let name = command.get_display_name().unwrap_or(command.get_name()).replace('-', " ");
    *page += &format!("\n## {name}\n\n{}.\n\n```text\n{usage}\n```\n\n", command.get_about().unwrap());
    *page += &table(command.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help"));
    *page += &format!("\n{}\n", paragraph(&command.get_after_help().unwrap().to_string()));
}

/// The examples as a block, what stands around them as text.
fn paragraph(after_help: &str) -> String {
    let (before, examples) = after_help.split_once("Examples:\n").expect("help has examples");
    let (examples, rest) = examples.split_once("\n\n").unwrap_or((examples, ""));
    let lines = examples.lines();
    let lines: Vec<&str> = lines.map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
    let block = format!("```text\n{}\n```\n", lines.join("\n"));
    format!("{before}{block}\n{rest}").trim_end().to_owned()
}

fn table<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let rows: Vec<String> = arguments.filter(|arg| !arg.is_hide_set()).map(row).collect();
    if rows.is_empty() {
        return "It has no arguments of its own.\n".into();
    }
    format!("| argument | default | meaning |\n|---|---|---|\n{}", rows.concat())
}

fn row(arg: &Arg) -> String {
    let takes_value = arg.get_action().takes_values();
    let value = arg.get_value_names().and_then(|names| names.first()).map(|name| name.to_string()).unwrap_or_default();
    let optional = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    let name = match (arg.get_long(), takes_value) {
        (None, _) if arg.is_required_set() => format!("<{value}>"),
        (None, _) => format!("[{value}]"),
        (Some(long), false) => format!("--{long}"),
        (Some(long), true) if optional => format!("--{long} [<{value}>]"),
        (Some(long), true) => format!("--{long} <{value}>"),
    };
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match defaults.join(" ") {
        text if text.is_empty() || !takes_value => String::new(),
        text => format!("`{text}`"),
    };
    let words: Vec<String> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let words = if words.is_empty() || !takes_value { String::new() } else { format!(": {}", words.join(", ")) };
    format!("| `{name}` | {default} | {}{words} |\n", arg.get_help().unwrap().to_string().replace('|', "\\|"))
}
