//! From `config/outboxd.toml`, which another test holds equal to the code, to a page.

pub(super) fn page() -> String {
    let file = std::fs::read_to_string(super::repository("config/outboxd.toml")).unwrap();
    let (head, body) = file.split_once("\n\n").unwrap();
    let mut page = format!("# Configuration\n\n{}\n\n", super::WRITTEN);
    for paragraph in head.replacen("# outboxd: every", "# Every", 1).split("\n#\n") {
        page += &format!("{}\n\n", prose(paragraph.lines()));
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page += &sections(body);
    format!("{}\n", page.trim_end())
}

/// Comments stand before the key, or before the section without keys of its own, that they are about.
fn sections(body: &str) -> String {
    let (mut page, mut comment) = (String::new(), Vec::new());
    for line in body.lines() {
        if line.starts_with('#') {
            comment.push(line);
        } else if let Some(section) = line.strip_prefix('[') {
            page += &format!("\n## {}\n\n", section.trim_end_matches(']'));
            page += match comment.is_empty() {
                true => "| key | default | meaning |\n|---|---|---|\n".to_owned(),
                false => format!("{}\n", prose(comment.drain(..))),
            }
            .as_str();
        } else if let Some((name, default)) = line.split_once(" = ") {
            let meaning = prose(comment.drain(..)).replace('|', "\\|");
            assert!(!meaning.is_empty(), "{name} has no comment");
            page += &format!("| `{name}` | `{default}` | {meaning} |\n");
        }
    }
    page
}

/// The text of comments, with back ticks around what Markdown would take for its own.
fn prose<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let text: Vec<&str> = lines.map(|line| line.trim_start_matches('#').trim()).collect();
    let text = text.join(" ");
    let outside = |(i, span): (usize, &str)| match i % 2 {
        0 => span.split(' ').map(quoted).collect::<Vec<_>>().join(" "),
        _ => format!("`{span}`"),
    };
    text.split('`').enumerate().map(outside).collect()
}

fn quoted(word: &str) -> String {
    let core = word.trim_matches(|c: char| "()[],;:\"'.".contains(c));
    if core.contains(['_', '*', '<']) || core.starts_with("--") { word.replace(core, &format!("`{core}`")) } else { word.into() }
}
