//! Names on the Kafka side: topics, the journal, the transactional id.

/// Longest topic name that Kafka takes.
const LONGEST: usize = 249;

/// The journal topic of the outbox `name`.
pub fn journal(name: &str) -> String {
    format!("outboxd.{name}.journal")
}

/// The transactional id of the outbox `name`: who holds it shuts every older holder out.
pub fn transactional_id(name: &str) -> String {
    format!("outboxd-{name}")
}

/// Why events may not be published to `topic` (its name in Kafka), as a stable code and a sentence.
pub fn refusal(topic: &str) -> Option<(&'static str, String)> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let valid = (1..=LONGEST).contains(&topic.len()) && topic.bytes().all(fits) && topic != "." && topic != "..";
    if !valid {
        let detail = format!("Kafka takes topic names of 1 to {LONGEST} letters, digits, dots, underscores and hyphens");
        return Some(("topic_invalid", detail));
    }
    if topic.starts_with("__") {
        return Some(("topic_not_allowed", format!("topic {topic} is Kafka's own: names that begin with __ are")));
    }
    // Any outbox's journal: a record in it that its owner did not write would stop that outbox.
    if topic.starts_with("outboxd.") && topic.ends_with(".journal") {
        return Some(("topic_not_allowed", format!("topic {topic} is a journal of outboxd")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kafka_or_outboxd_keep_are_refused() {
        let code = |topic: &str| refusal(topic).map(|(code, _)| code);
        for good in ["orders", "a.b_c-D9", &"x".repeat(249), "outboxd.shop", "journal"] {
            assert_eq!(code(good), None, "{good}");
        }
        for bad in ["", ".", "..", "a b", "ä", "a/b", "a\0", &"x".repeat(250)] {
            assert_eq!(code(bad), Some("topic_invalid"), "{bad}");
        }
        for kept in ["__consumer_offsets", "__x", &journal("shop"), &journal("other.one")] {
            assert_eq!(code(kept), Some("topic_not_allowed"), "{kept}");
        }
    }
}
