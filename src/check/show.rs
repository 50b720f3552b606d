//! The report for a person, and for a script.

use serde_json::{Value, json};

use super::{Finding, Guarantee, NOT_LOOKED, Part, Reason, Report, State, Verdict};

/// Width of the states, and of most names.
const STATE_WIDTH: usize = 14;
const NAME_WIDTH: usize = 20;

impl Report {
    /// For a person: a line each, with the remedy below it where there is something to do.
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for part in Part::ALL {
            let of_part: Vec<&Finding> = self.findings.iter().filter(|finding| finding.name.part() == part).collect();
            if !of_part.is_empty() {
                lines.push(part.as_str().to_owned());
                lines.extend(of_part.into_iter().flat_map(finding_lines));
                lines.push(String::new());
            }
        }
        if !self.guarantees.is_empty() {
            lines.push("what follows".to_owned());
            lines.extend(self.guarantees.iter().flat_map(|guarantee| self.guarantee_lines(guarantee)));
            lines.push(String::new());
        }
        lines.push(self.sum());
        lines.join("\n") + "\n"
    }

    fn sum(&self) -> String {
        let count = |state: State| format!("{} {}", self.count(state.as_str()), state.as_str());
        [State::Ok, State::Warning, State::Failed(0), State::Unseen].map(count).join(", ")
    }

    fn guarantee_lines(&self, guarantee: &Guarantee) -> Vec<String> {
        let (word, promise) = (guarantee.verdict.as_str(), guarantee.promise);
        let mut lines = vec![format!("  {word:STATE_WIDTH$}  {:NAME_WIDTH$}  {}", promise.as_str(), promise.sentence())];
        let of = |wanted: &dyn Fn(&Reason) -> bool| -> Vec<&str> {
            guarantee.because.iter().filter(|reason| wanted(reason)).map(|reason| reason.title.as_str()).collect()
        };
        let could_not = State::Unseen.as_str();
        for (introduction, titles) in [
            ("because of", of(&|reason| reason.verdict == Verdict::DoesNotHold)),
            (
                "these must do no harm",
                of(&|reason| reason.verdict != Verdict::DoesNotHold && ![NOT_LOOKED, could_not].contains(&reason.state)),
            ),
            ("these could not be looked at", of(&|reason| reason.state == could_not)),
            ("these were not looked at", self.unlooked(guarantee)),
        ] {
            if !titles.is_empty() {
                lines.push(format!("  {:STATE_WIDTH$}  {:NAME_WIDTH$}  {introduction}: {}", "", "", titles.join(", ")));
            }
        }
        lines
    }

    /// Names of what was not looked at; of a part that nothing was looked at of, the part alone.
    fn unlooked<'a>(&self, guarantee: &'a Guarantee) -> Vec<&'a str> {
        let mut titles: Vec<&str> = Vec::new();
        for reason in guarantee.because.iter().filter(|reason| reason.state == NOT_LOOKED) {
            let part = reason.name.part();
            let title = if self.findings.iter().any(|finding| finding.name.part() == part) { &reason.title } else { part.as_str() };
            if !titles.contains(&title) {
                titles.push(title);
            }
        }
        titles
    }

    /// One object; names and states are stable.
    pub fn json(&self) -> Value {
        json!({
            "outbox": self.outbox,
            "exit_code": self.exit_code(),
            "findings": self.findings.iter().map(finding_json).collect::<Vec<_>>(),
            "guarantees": self.guarantees.iter().map(guarantee_json).collect::<Vec<_>>(),
        })
    }
}

fn finding_lines(finding: &Finding) -> Vec<String> {
    let mut lines =
        vec![format!("  {:STATE_WIDTH$}  {:NAME_WIDTH$}  {}", finding.state.as_str(), finding.title(), one_line(&finding.found))];
    if let Some(remedy) = &finding.remedy {
        lines.push(format!("  {:STATE_WIDTH$}  {:NAME_WIDTH$}  -> {}", "", "", one_line(remedy)));
    }
    lines
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "part": finding.name.part().as_str(),
        "name": finding.name.as_str(),
        "about": finding.about,
        "state": word(finding.state.as_str()),
        "found": finding.found,
        "remedy": finding.remedy,
    })
}

fn guarantee_json(guarantee: &Guarantee) -> Value {
    json!({
        "name": guarantee.promise.as_str(),
        "promise": guarantee.promise.sentence(),
        "verdict": word(guarantee.verdict.as_str()),
        "rests_on": guarantee.rests_on.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "because": guarantee.because.iter().map(reason_json).collect::<Vec<_>>(),
    })
}

fn reason_json(reason: &Reason) -> Value {
    json!({ "finding": reason.title, "state": word(reason.state), "verdict": word(reason.verdict.as_str()) })
}

/// A word of several as one.
fn word(words: &str) -> String {
    words.replace(' ', "_")
}

/// What servers say may have line breaks, and must not look like lines of ours.
fn one_line(text: &str) -> String {
    printable(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What others wrote, without characters that move a terminal's cursor or end a line: those are escaped.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() { shown.extend(letter.escape_default()) } else { shown.push(letter) }
    }
    shown
}
