//! Where the live view goes: a block that is drawn in place on a terminal, plain lines everywhere else. It is talk, so it goes to stderr.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use terminal_size::{Width, terminal_size_of};

use super::paint::Colour;
use super::view::{self, Figures, Glyphs, Style};

/// A block is calm when it changes four times a second.
const BLOCK_EVERY: Duration = Duration::from_millis(250);
/// A line a second is enough to follow.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// Where the width is not told.
const USUAL_WIDTH: usize = 80;

/// The live view of one demo.
pub struct Screen {
    shape: Shape,
    colour: Colour,
    glyphs: Glyphs,
    /// Lines of the block that is on the terminal.
    drawn: usize,
    /// Nobody is there to see it any more.
    gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Block,
    Lines,
}

impl Screen {
    /// What stderr is fit for.
    pub fn of_stderr() -> Self {
        let is_terminal = io::stderr().is_terminal() && is_clever(std::env::var_os("TERM"));
        let shape = if is_terminal { Shape::Block } else { Shape::Lines };
        let glyphs = glyphs(["LC_ALL", "LC_CTYPE", "LANG"].map(std::env::var_os));
        Self { shape, colour: colour(&io::stderr()), glyphs, drawn: 0, gone: false }
    }

    /// How often it is drawn.
    pub fn every(&self) -> Duration {
        match self.shape {
            Shape::Block => BLOCK_EVERY,
            Shape::Lines => LINE_EVERY,
        }
    }

    /// Says something, once, above what is drawn later.
    pub fn say(&mut self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Draws the figures: over what was drawn before, or as the next line.
    pub fn draw(&mut self, figures: &Figures) {
        let text = match self.shape {
            Shape::Lines => view::line(figures) + "\n",
            Shape::Block => {
                let width = terminal_size_of(io::stderr()).map_or(USUAL_WIDTH, |(Width(width), _)| width.into());
                let lines = view::block(figures, Style { width, colour: self.colour, glyphs: self.glyphs });
                let text = over(self.drawn, &lines);
                self.drawn = lines.len();
                text
            }
        };
        self.write(&text);
    }

    /// Without anybody to look at it the demo goes on: its verdict goes elsewhere.
    fn write(&mut self, text: &str) {
        self.gone |= !self.gone && io::stderr().lock().write_all(text.as_bytes()).is_err();
    }
}

/// The lines in place of the `drawn` ones above the cursor.
fn over(drawn: usize, lines: &[String]) -> String {
    // what a person types stands below: the cursor may be anywhere in that line
    let up = if drawn > 0 { format!("\r\x1b[{drawn}A") } else { String::new() };
    lines.iter().fold(up, |text, line| text + line + "\x1b[K\n") + "\x1b[J"
}

/// Whether colours may be used there: on a terminal that takes them, unless `NO_COLOR` is set.
pub fn colour(stream: &impl IsTerminal) -> Colour {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let able = stream.is_terminal() && is_clever(std::env::var_os("TERM"));
    if able && !unwanted { Colour::On } else { Colour::Off }
}

fn is_clever(term: Option<OsString>) -> bool {
    term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// The first variable that is set decides, as for every program.
fn glyphs(locale: [Option<OsString>; 3]) -> Glyphs {
    let set = locale.into_iter().flatten().find(|value| !value.is_empty());
    let charset = set.map_or_else(String::new, |value| value.to_string_lossy().to_lowercase());
    if charset.contains("utf-8") || charset.contains("utf8") { Glyphs::Unicode } else { Glyphs::Ascii }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_replaces_the_one_before() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(over(0, &lines), "a\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(over(2, &lines), "\r\x1b[2Aa\x1b[K\nb\x1b[K\n\x1b[J");
    }

    #[test]
    fn a_terminal_without_a_cursor_gets_lines() {
        for (term, clever) in [(None, false), (Some(""), false), (Some("dumb"), false), (Some("xterm"), true)] {
            assert_eq!(is_clever(term.map(OsString::from)), clever, "{term:?}");
        }
    }

    #[test]
    fn blocks_are_drawn_where_the_charset_has_them() {
        let set = |values: [Option<&str>; 3]| glyphs(values.map(|value| value.map(OsString::from)));
        assert_eq!(set([None, None, Some("en_US.UTF-8")]), Glyphs::Unicode);
        assert_eq!(set([Some("C"), None, Some("en_US.UTF-8")]), Glyphs::Ascii);
        assert_eq!(set([Some(""), Some("C.utf8"), Some("C")]), Glyphs::Unicode);
        assert_eq!(set([None, None, None]), Glyphs::Ascii);
    }
}
