//! What stands in the pages is what it says: command lines are ours, configurations are taken, links lead to headings, the tongues agree.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}

/// Every page that a person reads, from the top of the repository.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = ["README.md", "README.ko.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(str::to_owned).into();
    for folder in ["docs", "docs/reference", "docs/decisions"] {
        let names = std::fs::read_dir(repository(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        pages.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}/{name}")));
    }
    pages.sort();
    assert!(pages.len() > 20, "{pages:?}");
    pages
}

/// The blocks of a page with their language.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (language, body) = after.split_once('\n').unwrap();
        let (block, next) = body.split_once("```").expect("a block ends");
        found.push((language, block));
        rest = next;
    }
    found
}

/// Words of a command line, with quotes as a shell takes them; without what is behind a `#`, `>`, `|`, `;` or `&`.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '#' | '>' | '|' | ';' | '&') => break,
            (Some(_) | None, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_line_in_a_block_is_one() {
    let mut looked_at = 0;
    for page in pages() {
        let text = read(&page);
        for (_, block) in blocks(&text).into_iter().filter(|(language, _)| ["sh", "text"].contains(language)) {
            // usage lines of the reference name what they want in brackets; an arrow is a picture
            let lines = block.lines().filter(|line| line.starts_with("outboxd ") && !line.contains(['<', '[', '─']));
            for line in lines.map(|line| line.split("      ").next().unwrap()).filter(|line| !line.contains('…')) {
                looked_at += 1;
                let parsed = outboxd::cli::command().try_get_matches_from(words(line));
                assert!(parsed.is_ok(), "{page}: {line}\n{}", parsed.unwrap_err());
            }
        }
    }
    assert!(looked_at > 30, "{looked_at}");
}

#[test]
fn every_toml_block_is_a_configuration() {
    let mut looked_at = 0;
    for page in pages() {
        for (_, block) in blocks(&read(&page)).into_iter().filter(|(language, _)| *language == "toml") {
            looked_at += 1;
            let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("block-{}-{looked_at}.toml", std::process::id()));
            std::fs::write(&path, block).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
            command.env_clear().env("OUTBOXD__OUTBOX__NAME", "shop").args(["config", "show", "--config"]).arg(&path);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{page}: {block}\n{}", String::from_utf8_lossy(&output.stderr));
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(looked_at > 3, "{looked_at}");
}

/// What a heading's link is called, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept =
        heading.trim().to_lowercase().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c)).collect::<String>();
    kept.replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn every_link_to_a_heading_leads_to_one() {
    let mut looked_at = 0;
    for page in pages() {
        let text = read(&page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|target| !target.contains("://"));
        for (path, heading) in targets.filter_map(|target| target.split_once('#')) {
            looked_at += 1;
            let beside = repository(&page).parent().unwrap().join(path);
            let target = if path.is_empty() { text.clone() } else { std::fs::read_to_string(beside).unwrap() };
            assert!(anchors(&target).contains(heading), "{page}: {path}#{heading}");
        }
    }
    assert!(looked_at > 5, "{looked_at}");
}

#[test]
fn the_readme_is_short_and_both_tongues_show_the_same() {
    let (english, korean) = (read("README.md"), read("README.ko.md"));
    for text in [&english, &korean] {
        assert!(text.lines().count() <= 200, "{} lines", text.lines().count());
    }
    let shape = |text: &str| {
        let headings: Vec<usize> =
            text.lines().filter(|line| line.starts_with('#')).map(|line| line.split(' ').next().unwrap().len()).collect();
        let rows = text.lines().filter(|line| line.starts_with("| ")).count();
        (headings, rows)
    };
    assert_eq!(shape(&korean), shape(&english), "headings and rows");
    assert_eq!(blocks(&korean), blocks(&english), "what is to be typed is the same in every tongue");
    let links = |text: &str| -> BTreeSet<String> {
        text.split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .filter(|link| !link.starts_with("README"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(links(&korean), links(&english));
}

/// The part of a program between its two marks, without its indentation; tabs are four blanks on the page.
fn region(program: &str) -> String {
    let is_mark = |line: &&str, word: &str| ["// ", "# "].iter().any(|comment| line.trim() == format!("{comment}{word}"));
    let lines: Vec<&str> =
        program.lines().skip_while(|line| !is_mark(line, "begin")).skip(1).take_while(|line| !is_mark(line, "end")).collect();
    assert!(!lines.is_empty(), "no marks");
    let blank = lines.iter().map(|line| line.len() - line.trim_start().len()).min().unwrap();
    lines.iter().map(|line| format!("{}\n", line[blank..].replace('\t', "    "))).collect()
}

#[test]
fn what_a_service_writes_stands_in_the_readme_as_in_the_program() {
    let readme = read("README.md");
    let blocks = blocks(&readme);
    let shown = |language: &str| blocks.iter().find(|(found, _)| *found == language).unwrap_or_else(|| panic!("no {language}")).1;
    let programs = [
        ("python", "docs/writers/write.py"),
        ("java", "docs/writers/Write.java"),
        ("go", "docs/writers/write.go"),
        ("ts", "docs/writers/write.mts"),
        ("rust", "tests/live/writers.rs"),
    ];
    for (language, program) in programs {
        assert_eq!(shown(language), region(&read(program)), "{program}");
    }
    assert!(read("docs/writers/write.sql").ends_with(shown("sql")));
}

#[test]
fn words_of_a_shell_are_found() {
    assert_eq!(words("a  'b c' \"d'\" ''# e"), ["a", "b c", "d'", ""]);
    assert_eq!(words("a --b=1 > c"), ["a", "--b=1"]);
    assert_eq!(blocks("x\n```sh\na\n```\ny\n```toml\nb\n```\n"), [("sh", "a\n"), ("toml", "b\n")]);
    assert_eq!(anchor(" A copy of `it`, too"), "a-copy-of-it-too");
}
