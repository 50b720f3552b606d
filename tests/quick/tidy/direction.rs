//! Who may name whom: `cli -> commands -> daemon -> relay -> {source, sink} -> event, journal, cursor, fault -> nothing`.

use super::{Finding, code_lines};

/// From the bottom up. A module that is not named here (metrics, http …) stands beside the daemon.
const LAYERS: [&[&str]; 6] =
    [&["event", "journal", "cursor", "park", "fault"], &["source", "sink"], &["relay"], &["daemon"], &["commands"], &["cli"]];
const SINK_OR_BELOW: usize = 1;
const BESIDE_DAEMON: usize = 3;

/// Nobody names a layer above the own one; the seams get sections, never the whole configuration; a database does not know
/// a log, nor a log a database, only each other's seam.
pub fn modules_look_down_only(path: &str, text: &str) -> Vec<Finding> {
    let Some(module) = module(path) else { return Vec::new() };
    let code = code_lines(path, text);
    let numbers: Vec<usize> = code.iter().flat_map(|(number, line)| std::iter::repeat_n(*number, line.len() + 1)).collect();
    let text: String = code.iter().flat_map(|(_, line)| [*line, "\n"]).collect();
    let used =
        text.match_indices("crate::").flat_map(|(at, root)| expand(&text[at + root.len()..]).into_iter().map(move |p| (at, p)));
    let findings = used.filter_map(|(at, used)| Some(Finding { line: numbers[at], what: objection(module, path, &used)? }));
    findings.collect()
}

fn module(path: &str) -> Option<&str> {
    let module = path.strip_prefix("src/")?.split(['/', '.']).next()?;
    (!["main", "lib"].contains(&module)).then_some(module)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn objection(module: &str, path: &str, used: &str) -> Option<String> {
    let mut parts = used.split("::");
    let (first, second) = (parts.next()?, parts.next().unwrap_or_default());
    let own = layer(module).unwrap_or(BESIDE_DAEMON);
    if layer(first).is_some_and(|other| other > own) {
        return Some(format!("{module} must not know {first}"));
    }
    // one's own section is a fine thing to know, the whole is not
    if first == "config" && ["", "self", "Config", "*"].contains(&second) && own <= SINK_OR_BELOW {
        return Some(format!("{module} must not know the whole configuration"));
    }
    let other_seam = matches!((module, first), ("source", "sink") | ("sink", "source"));
    let concrete = second.starts_with(|c: char| c.is_ascii_lowercase());
    (other_seam && concrete && path.matches('/').count() > 1).then(|| format!("{module} must not know crate::{first}::{second}"))
}

/// The paths behind `crate::`, with groups in braces written out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let Some(inside) = rest.strip_prefix('{').filter(|_| path.is_empty() || path.ends_with("::")) else {
        return vec![path.trim_end_matches(':').to_owned()];
    };
    let parts = split_group(inside).into_iter().filter(|part| !part.is_empty());
    parts.flat_map(|part| expand(part).into_iter().map(|tail| format!("{path}{tail}"))).collect()
}

/// The parts between the commas of a group, up to its closing brace.
fn split_group(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(text[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

#[test]
fn groups_are_written_out() {
    assert_eq!(expand("event::Event;"), ["event::Event"]);
    assert_eq!(expand("{a, b::{C, d::E},\n f::*};\nuse x::{y};"), ["a", "b::C", "b::d::E", "f"]);
    assert_eq!(expand("relay::run() {\n a }"), ["relay::run"]);
}

#[test]
fn a_look_upwards_is_found() {
    let text = "use crate::event::Event;\n// crate::relay\nuse crate::{\n    fault::Fault,\n    relay::Relay,\n};\nlet a = crate::cli::A;\n";
    super::assert_bites(modules_look_down_only, "src/journal/wire.rs", text, &[3, 7]);
    super::assert_bites(modules_look_down_only, "src/http.rs", text, &[7]);
    super::assert_bites(modules_look_down_only, "src/commands/run.rs", text, &[7]);
    super::assert_bites(modules_look_down_only, "src/cli.rs", text, &[]);
    super::assert_bites(modules_look_down_only, "src/main.rs", text, &[]);
}

#[test]
fn a_seam_that_knows_too_much_is_found() {
    super::assert_bites(modules_look_down_only, "src/source/postgres.rs", "use crate::config::Config;\n", &[1]);
    super::assert_bites(modules_look_down_only, "src/sink.rs", "use crate::config::{self, Config};\n", &[1, 1]);
    super::assert_bites(modules_look_down_only, "src/sink/kafka.rs", "use crate::config::Kafka;\n", &[]);
    super::assert_bites(modules_look_down_only, "src/daemon.rs", "use crate::config::Config;\n", &[]);
    super::assert_bites(modules_look_down_only, "src/source/postgres.rs", "use crate::sink::{Published, kafka::X};\n", &[1]);
    super::assert_bites(
        modules_look_down_only,
        "src/sink/kafka.rs",
        "use crate::sink::memory;\nuse crate::source::postgres;\n",
        &[2],
    );
}
