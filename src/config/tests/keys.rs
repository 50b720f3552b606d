//! Every key: a value it takes, how that is shown, and a value it refuses.

use std::collections::BTreeSet;

use super::super::draft::Draft;
use super::super::keys::{KEYS, find};
use super::super::layers::file_entries;
use super::*;

/// A key, a good value as TOML and as it is shown, a bad one and a part of what is said about it.
struct Case(&'static str, &'static str, &'static str, &'static str, ErrorCode, &'static str);

use ErrorCode::{BadUnit, Malformed, NotInThisVersion, OutOfRange, UnknownKey, UnknownWord, WrongType};

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case("database.url", "'postgres://a:b@db:6432/shop'", "postgres://a:***@db:6432/shop", "'mysql://a@db/shop'", NotInThisVersion, "mysql is not in this version"),
    Case("database.url_file", "'/run/url'", "/run/url", "1", WrongType, "a string belongs here"),
    Case("database.tls", "'verify-full'", "verify-full", "'disable'", UnknownWord, "prefer, require, verify-full"),
    Case("database.ca_file", "'ca.pem'", "ca.pem", "true", WrongType, "this is a boolean"),
    Case("database.password_file", "'/run/pw'", "/run/pw", "['/run/pw']", WrongType, "this is a list"),
    Case("database.connect_timeout", "'2s'", "2s", "'1h'", OutOfRange, "1h is out of range. Write something from 100ms to 10m"),
    Case("database.statement_timeout", "'90s'", "90s", "30", BadUnit, "30 has no unit. Write \"30s\" or \"30ms\""),
    Case("outbox.name", "'shop.eu-1_a'", "shop.eu-1_a", "'Shop'", Malformed, "\"Shop\" cannot be the name of an outbox"),
    Case("outbox.table", "'sales.\"out.box\"'", "sales.\"out.box\"", "'a.b.c'", Malformed, "more than two parts"),
    Case("outbox.mark", "'delete'", "delete", "'ledger'", NotInThisVersion, "\"ledger\" is not in this version"),
    Case("outbox.retention", "'forever'", "forever", "'0s'", OutOfRange, "from 1s to 3650d"),
    Case("outbox.order", "'none'", "none", "'seq'", UnknownWord, "key, none"),
    Case("outbox.on_poison", "'park_event'", "park_event", "'skip'", UnknownWord, "park_key, park_event"),
    Case("outbox.source", "'shop \"eu\"'", "shop \"eu\"", "'a\0b'", Malformed, "NUL"),
    Case("outbox.columns", "{ id = 'Event\"Id', headers = '' }", "id=Event\"Id,headers=", "{ tpoic = 'x' }", UnknownKey, "no \"tpoic\". Did you mean topic?"),
    Case("kafka.brokers", "'a:9092, [::1]:9093,c'", "a:9092,[::1]:9093,c", "'PLAINTEXT://a:9092'", Malformed, "kafka.security"),
    Case("kafka.delivery", "'at_least_once'", "at_least_once", "'at_most_once'", UnknownWord, "exactly_once, at_least_once"),
    Case("kafka.topic", "'eu.{topic}-v1'", "eu.{topic}-v1", "'orders'", Malformed, "does not hold {topic}"),
    Case("kafka.allow_topics", "['orders', 'a.*.b']", "orders,a.*.b", "['a b']", Malformed, "\"a b\" cannot be the name of a topic"),
    Case("kafka.journal_retention", "'36h'", "36h", "'500ms'", OutOfRange, "from 1s to 3650d"),
    Case("kafka.transaction_timeout", "'1m'", "1m", "'16m'", OutOfRange, "from 1s to 15m"),
    Case("kafka.security", "'sasl_ssl'", "sasl_ssl", "'SSL'", UnknownWord, "plaintext, ssl, sasl_ssl, sasl_plaintext"),
    Case("kafka.sasl_mechanism", "'SCRAM-SHA-512'", "SCRAM-SHA-512", "'GSSAPI'", UnknownWord, "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER"),
    Case("kafka.username", "\"o'brien\"", "o'brien", "7", WrongType, "this is an integer"),
    Case("kafka.password", "'s3cret'", "***", "9351", WrongType, "this is an integer"),
    Case("kafka.password_file", "'/run/pw'", "/run/pw", "0.5", WrongType, "a number with a fraction"),
    Case("kafka.token_file", "'/run/token'", "/run/token", "{ a = 1 }", WrongType, "this is a table"),
    Case("kafka.ca_file", "'ca.pem'", "ca.pem", "1979-05-27", WrongType, "this is a date"),
    Case("kafka.certificate_file", "'c.pem'", "c.pem", "1", WrongType, "a string belongs here"),
    Case("kafka.key_file", "'k.pem'", "k.pem", "1", WrongType, "a string belongs here"),
    Case("kafka.key_password", "'s3cret'", "***", "1", WrongType, "a string belongs here"),
    Case("kafka.key_password_file", "'/run/pw'", "/run/pw", "1", WrongType, "a string belongs here"),
    Case("relay.instance", "'pod-1'", "pod-1", "'a\\nb'", Malformed, "control characters"),
    Case("relay.batch_max_events", "20_000", "20000", "20001", OutOfRange, "from 1 to 20000"),
    Case("relay.batch_max_bytes", "'1.5MiB'", "1536KiB", "'1GiB'", OutOfRange, "1GiB is out of range. Write something from 64KiB to 512MiB"),
    Case("relay.linger", "'0ms'", "0s", "'11s'", OutOfRange, "from 0s to 10s"),
    Case("relay.idle_interval", "'1s'", "1s", "'-1s'", BadUnit, "is not a duration"),
    Case("relay.lease", "'1s'", "1s", "'999ms'", OutOfRange, "999ms is out of range. Write something from 1s to 10m"),
    Case("relay.shutdown_grace", "'1h'", "1h", "'2h'", OutOfRange, "from 1s to 1h"),
    Case("http.listen", "'off'", "off", "':9640'", Malformed, "is not an IP address with a port"),
    Case("log.format", "'json'", "json", "'xml'", UnknownWord, "auto, text, json"),
    Case("log.level", "'debug'", "debug", "'verbose'", UnknownWord, "error, warn, info, debug, trace"),
];

/// One key as a file of its own, in which it stands on line 2.
fn file_of(key: &str, value: &str) -> String {
    let (section, name) = key.split_once('.').expect("a key has a section");
    let value = value.replace('\0', "\\u0000");
    // A literal string takes no escapes; those that hold one are written as basic strings.
    let value = if value.contains('\\') { value.replace('\'', "\"") } else { value };
    format!("[{section}]\n{name} = {value}\n")
}

/// The defaults with the entries of a file, before anything is looked at together.
fn draft_of(text: &str) -> Draft {
    let mut draft = Draft::new();
    draft.apply_file(file_entries(Path::new(FILE), text).unwrap_or_else(|error| panic!("{error}")));
    draft
}

#[test]
fn every_key_has_a_case() {
    let cases: BTreeSet<_> = CASES.iter().map(|Case(key, ..)| *key).collect();
    let keys: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(cases, keys);
    assert_eq!(CASES.len(), KEYS.len(), "a key stands twice");
}

#[test]
fn every_key_takes_a_good_value_and_shows_it() {
    for Case(key, good, shown, ..) in CASES {
        let draft = draft_of(&file_of(key, good));
        assert_eq!(draft.errors, [], "{key}");
        let found = find(key).expect("the key exists");
        assert_eq!((found.show)(&draft.config).to_string(), *shown, "{key}");
        assert_ne!(draft.config, Config::default(), "{key} = {good} is the default: it proves nothing");
        assert_eq!(draft.origin(key), Origin::File { path: FILE.into(), line: 2 }, "{key}");
    }
}

#[test]
fn every_key_refuses_a_bad_value_with_file_line_and_reason() {
    for Case(key, _, _, bad, code, fragment) in CASES {
        let draft = draft_of(&file_of(key, bad));
        let [error] = draft.errors.as_slice() else {
            panic!("{key} = {bad}: {:?}", draft.errors);
        };
        assert_eq!((error.key.as_str(), error.code), (*key, *code), "{error}");
        assert!(error.to_string().contains(fragment), "{key}: {error}");
        let start = format!("{code}: outboxd.toml:2: {key}: ");
        assert!(error.to_string().starts_with(&start), "{error}");
        assert_eq!(draft.config, Config::default(), "{key}: a refused value was taken over");
    }
}

#[test]
fn a_refused_secret_is_not_quoted() {
    for key in ["kafka.password", "kafka.key_password"] {
        let error = &draft_of(&file_of(key, "93517")).errors[0];
        assert!(!error.to_string().contains("93517"), "{error}");
    }
}

/// What people with bad intentions or strange names write.
const HOSTILE: &[&str] = &[
    "'; DROP TABLE outbox; --",
    "\"; DROP TABLE outbox; --",
    "\"quoted\"",
    "O'Brien",
    "$1 || $(id) || `id` || ${HOME}",
    "{topic}'; --",
    "back\\slash\\n",
    "two\nlines\r\n",
    "# comment = \"x\"",
    "tab\tand \u{7f} and \u{1f600} and \u{202e}",
    "[section]",
    "%00%27 %s {} {0}",
];

#[test]
fn a_hostile_string_is_refused_or_survives_verbatim() {
    for (key, hostile) in KEYS.iter().flat_map(|key| HOSTILE.iter().map(move |text| (key, *text))) {
        let mut config = Config::default();
        let raw = super::super::value::Raw::Word(hostile.to_owned());
        if (key.set)(&mut config, &raw).is_err() {
            assert_eq!(config, Config::default(), "{}", key.name);
            continue;
        }
        let kept = match key.name {
            "kafka.password" => config.kafka.password.map(|secret| secret.reveal().to_owned()),
            "kafka.key_password" => config.kafka.key_password.map(|secret| secret.reveal().to_owned()),
            "outbox.table" => Some(TableName::parse(&config.outbox.table.to_string()).map_or_else(
                |refusal| panic!("{refusal:?}"),
                |read_again| {
                    assert_eq!(read_again, config.outbox.table);
                    hostile.to_owned()
                },
            )),
            _ => Some((key.show)(&config).to_string()),
        };
        assert_eq!(kept.as_deref(), Some(hostile), "{}", key.name);
    }
}

#[test]
fn hostile_strings_survive_being_shown_and_read_again() {
    for hostile in HOSTILE {
        let flags = [("outbox.source", *hostile), ("kafka.properties.client.id", *hostile)];
        let loaded = load_all(NAMED, &[], &flags).unwrap_or_else(|errors| panic!("{errors}"));
        let again = load_text(&text(&loaded.settings)).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(again.config, loaded.config, "{hostile}");
        assert_eq!(again.config.outbox.source.as_deref(), Some(*hostile));
        assert_eq!(again.config.kafka.properties["client.id"], *hostile);
    }
}

#[test]
fn a_number_without_unit_is_refused_in_quotes_too() {
    for (key, value, remedy) in [
        ("relay.lease", "'10'", "Write \"10s\" or \"10ms\""),
        ("relay.lease", "10", "Write \"10s\" or \"10ms\""),
        ("relay.batch_max_bytes", "'4'", "Write \"4KiB\" or \"4MiB\""),
        ("relay.batch_max_bytes", "4", "Write \"4KiB\" or \"4MiB\""),
        ("outbox.retention", "24", "Write \"24s\" or \"24ms\""),
    ] {
        let error = &draft_of(&file_of(key, value)).errors[0];
        assert_eq!(error.code, BadUnit);
        assert!(error.remedy.starts_with(remedy), "{error}");
    }
}

#[test]
fn an_unknown_unit_is_refused() {
    for (key, value) in [("relay.lease", "'10 parsecs'"), ("relay.batch_max_bytes", "'4MiBB'")] {
        assert_eq!(draft_of(&file_of(key, value)).errors[0].code, BadUnit);
    }
}

#[test]
fn an_integer_is_not_written_in_quotes() {
    let error = &draft_of(&file_of("relay.batch_max_events", "'5000'")).errors[0];
    assert_eq!((error.code, error.cause.as_str()), (WrongType, "this is a string, an integer belongs here"));
}

#[test]
fn the_shipped_file_holds_every_key_with_its_default() {
    let text = include_str!("../../../config/outboxd.toml");
    let file = file_entries(Path::new(FILE), text).unwrap_or_else(|error| panic!("{error}"));
    let written: Vec<_> = file.entries.iter().map(|entry| entry.key.clone()).collect();
    let keys: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(written, keys, "the keys, in the same order");
    let draft = draft_of(text);
    assert_eq!(draft.errors, []);
    assert_eq!(draft.config, Config::default());
    assert!(text.contains("\n[kafka.properties]\n"));
}

#[test]
fn the_shipped_file_has_a_comment_above_every_key() {
    let mut above = "";
    for line in include_str!("../../../config/outboxd.toml").lines() {
        let is_key = !line.is_empty() && !line.starts_with(['#', '[']);
        assert!(!is_key || above.starts_with('#'), "no comment above: {line}");
        above = line;
    }
}

#[test]
fn a_table_name_is_taken_apart_at_its_dot() {
    let parts = |text: &str| {
        let name = TableName::parse(text).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        (name.schema, name.table)
    };
    let some = |schema: &str, table: &str| (Some(schema.to_owned()), table.to_owned());
    assert_eq!(parts("Outbox"), (None, "Outbox".to_owned()));
    assert_eq!(parts("sales.outbox"), some("sales", "outbox"));
    assert_eq!(parts("\"a.b\".\"c\"\"d\""), some("a.b", "c\"d"));
    assert_eq!(parts("it's a \"table\""), (None, "it's a \"table\"".to_owned()));
    for (wrong, fragment) in [
        ("", "empty"),
        (".outbox", "empty"),
        ("sales.", "empty"),
        ("\"\"", "empty"),
        ("\"open", "not closed"),
        ("\"a\"b", "follows a closing quote"),
        ("a.b.c", "more than two parts"),
        ("äääääääääääääääääääääääääääääääää", "longer than 63 bytes"),
    ] {
        let refusal = TableName::parse(wrong).expect_err(wrong);
        assert!(refusal.cause.contains(fragment), "{wrong}: {}", refusal.cause);
    }
}

#[test]
fn names_keep_to_their_bounds() {
    let long = "x".repeat(81);
    for (key, value) in [
        ("outbox.name", long.as_str()),
        ("outbox.name", ".shop"),
        ("outbox.name", "-shop"),
        ("outbox.name", "sh/op"),
        ("kafka.topic", "{topic}{topic}"),
        ("kafka.topic", "__{topic}"),
        ("kafka.topic", "a b{topic}"),
        ("kafka.topic", &("y".repeat(249) + "{topic}")),
        ("kafka.brokers", ""),
        ("kafka.brokers", "a:9092,,b:9092"),
        ("kafka.brokers", "a:0"),
        ("kafka.brokers", "a:65536"),
        ("kafka.brokers", "[::g]:1"),
        ("relay.instance", &"z".repeat(121)),
        ("http.listen", "localhost:9640"),
    ] {
        let error = only_error(load_all(NAMED, &[], &[(key, value)]));
        assert_eq!((error.code, error.key.as_str()), (Malformed, key), "{value}");
    }
    let topic = config(load_all(NAMED, &[], &[("kafka.topic", "eu.{topic}.v1")])).kafka.topic;
    assert_eq!(topic.apply("orders"), "eu.orders.v1");
}

#[test]
fn a_pattern_fits_whole_names_of_topics() {
    let allowed = config(load_all(NAMED, &[], &[("kafka.allow_topics", "orders, pay.*, *.a*b.*z")])).kafka.allow_topics;
    for topic in ["orders", "pay.", "pay.x.y", "x.ab.z", "x.a--b.b.zz"] {
        assert!(allowed.allow(topic), "{topic}");
    }
    for topic in ["orders2", "order", "", "pay", "xpay.y", "x.a.z", "x.ab.zx", ".ab."] {
        assert!(!allowed.allow(topic), "{topic}");
    }
    assert!(config(load_all(NAMED, &[], &[])).kafka.allow_topics.allow("any"));
}
