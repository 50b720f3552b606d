//! The live view: from figures to lines. Pure; whoever draws decides where.

use std::time::Duration;

use super::account::{Delays, Tally};
use super::paint::{Colour, Paint, grouped, milliseconds};

/// The bar is full at this many pending events, or at the most there were.
const LEAST_SCALE: u64 = 50;
/// Cells of the bar where there is room.
const BAR: usize = 40;
/// What stands before the bar: label, number and gaps.
const BEFORE_BAR: usize = 26;
/// No terminal is narrower, or it shows what fits.
pub const LEAST_WIDTH: usize = 20;

/// What the relay is doing, as far as the demo knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// Its process lives.
    Running,
    /// It was killed, and is started again soon.
    Killed,
    /// It was asked to leave, and did.
    Stopped,
}

impl Relay {
    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Killed => "dead",
            Self::Stopped => "stopped",
        }
    }
}

/// What the demo is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The shop writes.
    Writing,
    /// The shop is closed, and what is left is published.
    Draining,
}

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// What the demo is doing.
    pub stage: Stage,
    /// Since the shop opened.
    pub elapsed: Duration,
    /// When the shop closes.
    pub limit: Duration,
    /// What the account says.
    pub tally: Tally,
    /// Events that the relay has not marked yet.
    pub pending: u64,
    /// The most there were.
    pub most_pending: u64,
    /// Of the events that were read lately.
    pub delays: Option<Delays>,
    /// What the relay is doing.
    pub relay: Relay,
    /// How often it was killed.
    pub kills: u32,
}

/// Characters that a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    /// Blocks.
    Unicode,
    /// Nothing beyond ASCII.
    Ascii,
}

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal.
    pub width: usize,
    /// Whether colours may be used.
    pub colour: Colour,
    /// Characters of the bar.
    pub glyphs: Glyphs,
}

impl Figures {
    /// Committed and not pending. The shop notes a commit a moment after the table shows it, so this may lag by an event.
    fn published(&self) -> u64 {
        self.tally.committed.saturating_sub(self.pending)
    }

    fn delays(&self) -> String {
        self.delays.map_or_else(
            || "nothing read yet".to_owned(),
            |delays| format!("p50 {}, p99 {}", milliseconds(delays.p50), milliseconds(delays.p99)),
        )
    }

    fn times(&self) -> String {
        match self.kills {
            0 => "not killed yet".to_owned(),
            1 => "killed once".to_owned(),
            many => format!("killed {many} times"),
        }
    }

    fn clock(&self) -> String {
        match self.stage {
            Stage::Writing => format!("{} s of {} s", self.elapsed.as_secs(), self.limit.as_secs()),
            Stage::Draining => "the shop is closed".to_owned(),
        }
    }
}

/// One line for those who read a file or a pipe.
pub fn line(figures: &Figures) -> String {
    let tally = &figures.tally;
    format!(
        "{} s: committed {}, published {}, pending {}, read back {}, duplicated {}, {}, relay {} ({})",
        figures.elapsed.as_secs(),
        tally.committed,
        figures.published(),
        figures.pending,
        tally.read_back,
        tally.duplicated,
        figures.delays(),
        figures.relay.word(),
        figures.times(),
    )
}

/// The block that is drawn again and again: always as many lines, none wider than the terminal.
pub fn block(figures: &Figures, style: Style) -> Vec<String> {
    let tally = &figures.tally;
    let origin = format!("in {} transactions; {} more rolled back", grouped(tally.transactions), grouped(tally.rolled_back));
    let way = if figures.delays.is_some() { " from commit to reader" } else { "" };
    let repeated = format!("{} of them again, {} out of order", grouped(tally.duplicated), grouped(tally.reordered));
    let repeated_paint = if tally.reordered > 0 { Paint::Bad } else { Paint::Faint };
    let (relay_paint, relay) = (relay_paint(figures.relay), figures.relay.word());
    let lines = [
        Line::new().add(Paint::Strong, "outboxd demo").add(Paint::Faint, &format!("   {}, Ctrl-C ends it", figures.clock())),
        Line::new(),
        Line::count("committed", tally.committed).add(Paint::Faint, &format!("   {origin}")),
        Line::count("published", figures.published()),
        Line::count("pending", figures.pending).add(Paint::Plain, "   ").add(relay_paint, &bar(figures, style)),
        Line::count("read back", tally.read_back).add(repeated_paint, &format!("   {repeated}")),
        Line::label("delay").add(Paint::Plain, &figures.delays()).add(Paint::Faint, way),
        Line::label("relay").add(relay_paint, relay).add(Paint::Faint, &format!(", {}", figures.times())),
    ];
    lines.into_iter().map(|line| line.painted(style)).collect()
}

fn relay_paint(relay: Relay) -> Paint {
    match relay {
        Relay::Running => Paint::Good,
        Relay::Killed => Paint::Bad,
        Relay::Stopped => Paint::Faint,
    }
}

/// How much is pending, compared with the most there was.
fn bar(figures: &Figures, style: Style) -> String {
    let cells = style.width.saturating_sub(BEFORE_BAR).min(BAR) as u64;
    let scale = figures.most_pending.max(figures.pending).max(LEAST_SCALE);
    let filled = (figures.pending * cells).div_ceil(scale);
    let (full, empty) = match style.glyphs {
        Glyphs::Unicode => ("█", "░"),
        Glyphs::Ascii => ("#", "."),
    };
    full.repeat(filled as usize) + &empty.repeat((cells - filled) as usize)
}

/// A line of painted pieces, cut to the width of the terminal before it is painted.
struct Line(Vec<(Paint, String)>);

impl Line {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn label(label: &str) -> Self {
        Self::new().add(Paint::Faint, &format!("  {label:<12}"))
    }

    fn count(label: &str, count: u64) -> Self {
        Self::label(label).add(Paint::Strong, &format!("{:>9}", grouped(count)))
    }

    fn add(mut self, paint: Paint, text: &str) -> Self {
        self.0.push((paint, text.to_owned()));
        self
    }

    fn painted(self, style: Style) -> String {
        let mut left = style.width.max(LEAST_WIDTH);
        let mut line = String::new();
        for (paint, text) in self.0 {
            let text: String = text.chars().take(left).collect();
            left -= text.chars().count();
            line += &paint.on(&text, style.colour);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let ms = Duration::from_millis;
        Figures {
            stage: Stage::Writing,
            elapsed: ms(12_700),
            limit: ms(60_000),
            tally: Tally {
                transactions: 612,
                rolled_back: 68,
                committed: 1_234,
                read_back: 1_199,
                duplicated: 3,
                ..Tally::default()
            },
            pending: 25,
            most_pending: 40,
            delays: Some(Delays { p50: ms(12), p99: ms(48) }),
            relay: Relay::Killed,
            kills: 2,
        }
    }

    fn plain(width: usize) -> Style {
        Style { width, colour: Colour::Off, glyphs: Glyphs::Ascii }
    }

    /// What a terminal shows of it.
    fn without_escapes(line: &str) -> String {
        let mut parts = line.split('\x1b');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + part.split_once('m').expect("only colours are used").1)
    }

    #[test]
    fn the_block_says_it_all_on_eighty_columns() {
        let expected = "\
outboxd demo   12 s of 60 s, Ctrl-C ends it

  committed       1,234   in 612 transactions; 68 more rolled back
  published       1,209
  pending            25   ####################....................
  read back       1,199   3 of them again, 0 out of order
  delay       p50 12 ms, p99 48 ms from commit to reader
  relay       dead, killed 2 times";
        assert_eq!(block(&figures(), plain(80)).join("\n"), expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_their_number_never_changes() {
        let mut figures = figures();
        for pending in [0, 25, 40, 1_000_000_000] {
            figures.pending = pending;
            for width in [20, 26, 27, 40, 79, 80, 200] {
                let lines = block(&figures, Style { width, colour: Colour::On, glyphs: Glyphs::Unicode });
                assert_eq!(lines.len(), 8);
                for line in &lines {
                    assert!(without_escapes(line).chars().count() <= width, "{width}: {line:?}");
                }
            }
        }
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let coloured = block(&figures(), Style { colour: Colour::On, ..plain(80) });
        assert_ne!(coloured, block(&figures(), plain(80)));
        let bare: Vec<String> = coloured.iter().map(|line| without_escapes(line)).collect();
        assert_eq!(bare, block(&figures(), plain(80)));
    }

    #[test]
    fn the_bar_is_empty_only_when_nothing_is_pending() {
        let mut figures = Figures { pending: 0, most_pending: 0, ..figures() };
        assert_eq!(bar(&figures, plain(36)), "..........");
        (figures.pending, figures.most_pending) = (1, 1_000_000);
        assert_eq!(bar(&figures, plain(36)), "#.........");
        figures.pending = 1_000_000;
        assert_eq!(bar(&figures, Style { glyphs: Glyphs::Unicode, ..plain(36) }), "██████████");
    }

    #[test]
    fn without_a_terminal_it_is_one_line() {
        let expected = "12 s: committed 1234, published 1209, pending 25, read back 1199, duplicated 3, \
            p50 12 ms, p99 48 ms, relay dead (killed 2 times)";
        assert_eq!(line(&figures()), expected);
        let none = Figures { delays: None, kills: 0, relay: Relay::Running, stage: Stage::Draining, ..figures() };
        assert!(line(&none).ends_with("duplicated 3, nothing read yet, relay running (not killed yet)"), "{}", line(&none));
        assert!(block(&none, plain(80))[0].contains("the shop is closed"));
        assert_eq!(block(&none, plain(80))[6], "  delay       nothing read yet");
    }
}
