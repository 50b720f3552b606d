//! What is passed on to librdkafka, and what is not.

use std::collections::BTreeSet;

use super::super::properties::refused_names;
use super::*;

fn with_property(name: &str, value: &str) -> Result<Loaded, ConfigErrors> {
    load_all(NAMED, &[], &[(&format!("kafka.properties.{name}"), value)])
}

#[test]
fn every_property_that_the_promise_rests_on_is_refused() {
    let families = [
        "dr_msg_cb",
        "log_cb",
        "oauthbearer_token_refresh_cb",
        "sasl.oauthbearer.method",
        "group.id",
        "enable.auto.commit",
        "auto.offset.reset",
        "fetch.min.bytes",
        "offset.store.method",
    ];
    let names: Vec<_> = refused_names().chain(families).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a property stands twice");
    for name in names {
        let error = only_error(with_property(name, "1"));
        assert_eq!(error.code, ErrorCode::ProtectedProperty, "{error}");
        assert_eq!(error.key, format!("kafka.properties.{name}"));
        let cause = format!("{name} cannot be set here: ");
        assert!(error.cause.starts_with(&cause) && error.cause.len() > cause.len(), "{error}");
        assert!(error.remedy.starts_with("Remove it"), "{error}");
    }
}

#[test]
fn the_reason_of_a_refusal_is_said() {
    for (name, fragment) in [
        ("acks", "fewer than all replicas"),
        ("retry.backoff.ms", "the time it took"),
        ("transactional.id", "it follows outbox.name"),
        ("bootstrap.servers", "set kafka.brokers instead"),
        ("isolation.level", "consumers"),
        ("dr_cb", "only the program"),
    ] {
        let error = only_error(with_property(name, "all"));
        assert!(error.to_string().contains(fragment), "{error}");
    }
}

#[test]
fn everything_else_is_passed_on() {
    for name in [
        "client.id",
        "compression.type",
        "compression.level",
        "linger.ms",
        "batch.num.messages",
        "message.max.bytes",
        "socket.keepalive.enable",
        "reconnect.backoff.max.ms",
        "ssl.cipher.suites",
        "ssl.endpoint.identification.algorithm",
        "debug",
    ] {
        let config = config(with_property(name, "x"));
        assert_eq!(config.kafka.properties[name], "x");
    }
}

#[test]
fn a_property_may_be_written_with_or_without_quotes_and_as_a_number() {
    let text = format!(
        "{NAMED}[kafka.properties]\nlinger.ms = 1\n'batch.num.messages' = 2\nsocket.keepalive.enable = true\ndebug = 'eos'\n"
    );
    let loaded = load_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let written: Vec<_> = loaded.config.kafka.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(written, ["batch.num.messages=2", "debug=eos", "linger.ms=1", "socket.keepalive.enable=true"]);
    let origin = loaded.settings.iter().find(|setting| setting.name == "linger.ms").map(|setting| &setting.origin);
    assert_eq!(origin, Some(&Origin::File { path: FILE.into(), line: 4 }));
}

#[test]
fn a_property_is_not_set_twice() {
    let text = format!("{NAMED}[kafka.properties]\nlinger.ms = 1\n'linger.ms' = 2\n");
    let error = only_error(load_text(&text));
    assert_eq!((error.code, error.key.as_str()), (ErrorCode::Conflict, "kafka.properties.linger.ms"));
}

#[test]
fn a_property_in_the_environment_has_underscores_for_dots() {
    let variable = ("OUTBOXD__KAFKA__PROPERTIES__COMPRESSION_TYPE", "zstd");
    let text = format!("{NAMED}[kafka.properties]\ncompression.type = 'lz4'\n");
    let config = config(load_all(&text, &[variable], &[]));
    assert_eq!(config.kafka.properties["compression.type"], "zstd");
    let error = only_error(load_all(NAMED, &[("OUTBOXD__KAFKA__PROPERTIES__ACKS", "1")], &[]));
    let start = "OBX113: environment variable OUTBOXD__KAFKA__PROPERTIES__ACKS: kafka.properties.acks: ";
    assert!(error.to_string().starts_with(start), "{error}");
}

#[test]
fn a_property_has_a_name_as_librdkafka_writes_it() {
    for name in ["Linger.Ms", "linger..ms", "", "linger ms", "x'; --"] {
        assert_eq!(only_error(with_property(name, "1")).code, ErrorCode::Malformed, "{name}");
    }
    let error = only_error(load_text(&format!("{NAMED}[kafka.properties]\ndebug = ['eos']\n")));
    assert_eq!(error.code, ErrorCode::WrongType);
    let error = only_error(load_text(&format!("{NAMED}[kafka]\nproperties = 'debug=eos'\n")));
    assert!(error.remedy.contains("[kafka.properties]"), "{error}");
}

#[test]
fn a_property_that_smells_of_a_secret_is_masked() {
    let loaded = with_property("ssl.some.passphrase", "s3cret").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.config.kafka.properties["ssl.some.passphrase"], "s3cret");
    assert!(!text(&loaded.settings).contains("s3cret"));
    assert!(text(&loaded.settings).contains("\"ssl.some.passphrase\" = \"***\""));
}
