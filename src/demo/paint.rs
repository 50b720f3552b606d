//! Words and numbers as the demo prints them.

use std::time::Duration;

/// Whether colours may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// On a terminal that takes them, unless `NO_COLOR` is set.
    On,
    /// Everywhere else.
    Off,
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Text as it is.
    Plain,
    /// What is read first.
    Strong,
    /// What need not be read.
    Faint,
    /// All is well.
    Good,
    /// Not as it should be.
    Bad,
}

impl Paint {
    /// The text as this terminal shows it.
    pub fn on(self, text: &str, colour: Colour) -> String {
        let code = match (colour, self) {
            (Colour::Off, _) | (_, Self::Plain) => return text.to_owned(),
            (Colour::On, Self::Strong) => 1,
            (Colour::On, Self::Faint) => 2,
            (Colour::On, Self::Good) => 32,
            (Colour::On, Self::Bad) => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for group in digits.as_bytes()[first..].chunks(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.extend(group.iter().map(|&digit| char::from(digit)));
    }
    text
}

/// A delay in whole milliseconds; below ten with one decimal.
pub fn milliseconds(delay: Duration) -> String {
    let ms = delay.as_secs_f64() * 1_000.0;
    if ms < 9.95 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345, "12,345"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn delays_are_told_as_finely_as_they_are_known() {
        for (us, text) in [(0, "0.0 ms"), (1_240, "1.2 ms"), (9_960, "10 ms"), (12_400, "12 ms"), (2_500_000, "2500 ms")] {
            assert_eq!(milliseconds(Duration::from_micros(us)), text);
        }
    }

    #[test]
    fn without_colour_nothing_is_added() {
        assert_eq!(Paint::Bad.on("lost", Colour::Off), "lost");
        assert_eq!(Paint::Bad.on("lost", Colour::On), "\x1b[31mlost\x1b[0m");
        assert_eq!(Paint::Plain.on("lost", Colour::On), "lost");
    }
}
