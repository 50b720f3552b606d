//! Lengths: of lines, files and functions.

use super::Finding;

const LINE_CHARACTERS: usize = 140;
/// Tests hold tables of cases, one a line.
const TEST_LINE_CHARACTERS: usize = 180;
const FILE_LINES: usize = 500;
const RELAY_LINES: usize = 300;
const FUNCTION_LINES: usize = 70;

/// Prose and tables may be wide, code may not.
pub fn lines_are_short(path: &str, text: &str) -> Vec<Finding> {
    if path.ends_with(".md") || path.starts_with("packaging/") {
        return Vec::new();
    }
    let is_test = path.contains("/tests/") || path.starts_with("tests/") || path.ends_with("/tests.rs");
    let bound = if is_test { TEST_LINE_CHARACTERS } else { LINE_CHARACTERS };
    let long = text.lines().enumerate().filter(|(_, line)| line.chars().count() > bound);
    long.map(|(i, line)| Finding { line: i + 1, what: format!("{} characters in a line", line.chars().count()) }).collect()
}

/// A file is one thought; the relay's fits on one screen.
pub fn files_are_short(path: &str, text: &str) -> Vec<Finding> {
    let bound = match path {
        "src/relay.rs" => RELAY_LINES,
        _ if path.starts_with("src/") => FILE_LINES,
        _ => return Vec::new(),
    };
    let lines = text.lines().count();
    if lines > bound {
        vec![Finding { line: lines, what: format!("{lines} lines in a file, the bound is {bound}") }]
    } else {
        Vec::new()
    }
}

/// A function does steps or decides, not both.
pub fn functions_are_short(path: &str, text: &str) -> Vec<Finding> {
    if !path.starts_with("src/") {
        return Vec::new();
    }
    let long = functions(text).into_iter().filter(|(_, length)| *length > FUNCTION_LINES);
    long.map(|(line, length)| Finding { line, what: format!("a function of {length} lines") }).collect()
}

/// First line and length of each function with a body of its own lines. rustfmt has laid them out: the closing brace stands
/// under the first letter of the line with `fn`.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let starts = (0..lines.len()).filter(|&i| starts_function(lines[i]));
    starts.filter_map(|start| Some((start + 1, function_length(&lines[start..])?))).collect()
}

fn starts_function(line: &str) -> bool {
    let mut words = line.trim_start().split(' ');
    let qualifier = |word: &&str| {
        matches!(*word, "const" | "async" | "unsafe" | "extern" | "\"C\"" | "pub")
            || word.starts_with("pub(")
            || word.ends_with(')')
    };
    words.find(|word| !qualifier(word)) == Some("fn")
}

fn function_length(lines: &[&str]) -> Option<usize> {
    let indent = lines[0].len() - lines[0].trim_start().len();
    if lines[0].ends_with(['}', ';']) {
        return None;
    }
    for (i, line) in lines.iter().enumerate().skip(1) {
        if line.is_empty() || line.len() - line.trim_start().len() > indent {
            continue;
        }
        match line.trim_start() {
            rest if rest.starts_with('}') => return Some(i + 1),
            rest if rest.ends_with([';', '}']) => return None,
            _ => {}
        }
    }
    None
}

#[test]
fn a_long_line_is_found() {
    let text = format!("short\n{}\n{}", "x".repeat(140), "ü".repeat(141));
    super::assert_bites(lines_are_short, "src/a.rs", &text, &[3]);
    super::assert_bites(lines_are_short, "README.md", &text, &[]);
    super::assert_bites(lines_are_short, "src/a/tests.rs", &format!("{text}\n{}", "x".repeat(181)), &[4]);
}

#[test]
fn a_long_file_is_found() {
    super::assert_bites(files_are_short, "src/a.rs", &"x\n".repeat(500), &[]);
    super::assert_bites(files_are_short, "src/a.rs", &"x\n".repeat(501), &[501]);
    super::assert_bites(files_are_short, "src/relay.rs", &"x\n".repeat(301), &[301]);
    super::assert_bites(files_are_short, "tests/quick/a.rs", &"x\n".repeat(501), &[]);
}

#[test]
fn a_long_function_is_found_wherever_it_stands() {
    let body = |count: usize| "        step();\n\n".repeat(count / 2);
    let text = format!(
        "fn short() {{}}\nimpl A {{\n    pub(crate) async fn long(\n        a: u8,\n    ) -> u8 {{\n{}    }}\n\n    fn good() {{\n{}    }}\n}}\n",
        body(68),
        body(68),
    );
    super::assert_bites(functions_are_short, "src/a.rs", &text, &[3]);
    super::assert_bites(functions_are_short, "tests/a.rs", &text, &[]);
}

#[test]
fn functions_without_a_body_have_no_length() {
    let text = "trait T {\n    fn a(\n        &self,\n    ) -> u8;\n    fn b(&self);\n    fn c(&self) {\n        x\n    }\n}\n";
    assert_eq!(functions(text), [(6, 3)]);
    assert_eq!(functions("let fn_name = 1;\nconst fn f() {\n}\nlet f: fn() = g;\n"), [(2, 2)]);
}
