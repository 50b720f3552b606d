//! Every rule: a configuration that breaks it and nothing else.

use super::super::rules::RULES;
use super::*;

/// A part of the rule's cause, the key it is reported at, and sections that break it; `FILE` is a file that is there.
struct Case(&'static str, &'static str, &'static str);

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case("names a socket", "database.tls", "[database]\nurl = 'postgres://a@%2Frun/shop'\ntls = 'require'"),
    Case("no certificate is looked at", "database.ca_file", "[database]\nca_file = 'FILE'\ntls = 'require'"),
    Case("the URL holds a password too", "database.password_file", "[database]\nurl = 'postgres://a:b@h/shop'\npassword_file = 'FILE'"),
    Case("a SQLite file asks for no password", "database.password_file", "[database]\nurl = 'sqlite:///shop.db'\npassword_file = 'FILE'"),
    Case("SQLite has none", "outbox.table", "[outbox]\nname = 'x'\ntable = 'sales.outbox'\n[database]\nurl = 'sqlite:///shop.db'"),
    Case("columns of its own names", "outbox.columns", "[outbox]\nname = 'x'\ncolumns = { id = 'event' }\n[database]\nurl = 'sqlite:///shop.db'"),
    Case("the key is required", "outbox.name", "[outbox]\nname = ''"),
    Case("the table has no sent_at", "outbox.mark", "[outbox]\nname = 'x'\ncolumns = { sent_at = '' }"),
    Case("this build has no TLS", "kafka.security", "[kafka]\nsecurity = 'ssl'"),
    Case("no SASL mechanism but PLAIN", "kafka.sasl_mechanism", "[kafka]\nsecurity = 'sasl_plaintext'\nsasl_mechanism = 'SCRAM-SHA-256'\nusername = 'u'\npassword = 'p'"),
    Case("no mechanism is named", "kafka.sasl_mechanism", "[kafka]\nsecurity = 'sasl_ssl'"),
    Case("does not ask for SASL", "kafka.sasl_mechanism", "[kafka]\nsasl_mechanism = 'PLAIN'\nusername = 'u'\npassword = 'p'"),
    Case("a user name is given", "kafka.username", "[kafka]\nusername = 'u'"),
    Case("needs a user name", "kafka.username", "[kafka]\nsecurity = 'sasl_ssl'\nsasl_mechanism = 'PLAIN'\npassword = 'p'"),
    Case("a password is given", "kafka.password", "[kafka]\npassword = 'p'"),
    Case("needs a password", "kafka.password", "[kafka]\nsecurity = 'sasl_ssl'\nsasl_mechanism = 'PLAIN'\nusername = 'u'"),
    Case("a token is given", "kafka.token_file", "[kafka]\ntoken_file = 'FILE'"),
    Case("OAUTHBEARER needs a token", "kafka.token_file", "[kafka]\nsecurity = 'sasl_ssl'\nsasl_mechanism = 'OAUTHBEARER'"),
    Case("a CA is given, and kafka.security", "kafka.ca_file", "[kafka]\nca_file = 'FILE'"),
    Case("a certificate is given, and kafka.security", "kafka.certificate_file", "[kafka]\ncertificate_file = 'FILE'\nkey_file = 'FILE'"),
    Case("without its private key", "kafka.certificate_file", "[kafka]\nsecurity = 'ssl'\ncertificate_file = 'FILE'"),
    Case("without its certificate", "kafka.key_file", "[kafka]\nsecurity = 'ssl'\nkey_file = 'FILE'"),
    Case("without the key", "kafka.key_password", "[kafka]\nkey_password = 'p'"),
    Case("between two transactions", "relay.linger", "[relay]\nlinger = '1s'\nlease = '1s'"),
    Case("between two polls", "relay.idle_interval", "[relay]\nidle_interval = '2s'\nlease = '1s'"),
];

#[test]
fn every_rule_has_a_case() {
    assert_eq!(CASES.len(), RULES.len());
    for rule in RULES {
        let matches = CASES.iter().filter(|Case(fragment, ..)| rule.cause.contains(fragment));
        assert_eq!(matches.count(), 1, "{}", rule.cause);
    }
}

#[test]
fn every_rule_is_kept_alone_at_its_key() {
    for Case(fragment, key, sections) in CASES {
        let named = if sections.starts_with("[outbox]") { "" } else { NAMED };
        let text = format!("{named}{}", sections.replace("FILE", PRESENT));
        let build = if fragment.contains("build") || fragment.contains("but PLAIN") { Build::Slim } else { Build::Full };
        let error = only_error(load_in(build, &text, &[], &[]));
        assert_eq!(error.key, *key, "{error}");
        assert!(error.cause.contains(fragment), "{error}");
        assert!(error.remedy.ends_with('.'), "{error}");
    }
}

#[test]
fn a_broken_rule_is_placed_at_what_is_written() {
    for (text, key, line) in [
        ("[outbox]\nname='x'\n[relay]\nlease = '1s'\nidle_interval = '2s'", "relay.idle_interval", 5),
        ("[outbox]\nname='x'\n[kafka]\nsecurity = 'sasl_ssl'", "kafka.sasl_mechanism", 4),
        ("[log]\n[outbox]\ntable = 'x'", "outbox.name", 2),
    ] {
        let error = only_error(load_text(text));
        let path = FILE.into();
        assert_eq!((error.key.as_str(), error.origin), (key, Origin::File { path, line }));
    }
    assert_eq!(only_error(load_text("")).origin, Origin::Default);
}

#[test]
fn a_refused_value_breaks_no_rule_besides() {
    let text = format!("{NAMED}[database]\ntls = 'verify_full'\nca_file = '{PRESENT}'");
    let error = only_error(load_text(&text));
    assert_eq!((error.key.as_str(), error.code), ("database.tls", ErrorCode::UnknownWord));
}

#[test]
fn what_belongs_together_is_accepted() {
    let file = PRESENT;
    for sections in [
        "[outbox]\nmark = 'delete'\nretention = '24h'".to_owned(),
        "[kafka]\ndelivery = 'at_least_once'".to_owned(),
        format!("[database]\ntls = 'verify-full'\nca_file = '{file}'\npassword_file = '{file}'"),
        format!(
            "[kafka]\nsecurity = 'ssl'\nca_file = '{file}'\ncertificate_file = '{file}'\nkey_file = '{file}'\nkey_password = 'p'"
        ),
        format!("[kafka]\nsecurity = 'sasl_ssl'\nsasl_mechanism = 'OAUTHBEARER'\ntoken_file = '{file}'"),
        format!("[kafka]\nsecurity = 'sasl_ssl'\nsasl_mechanism = 'SCRAM-SHA-256'\nusername = 'u'\npassword_file = '{file}'"),
        "[kafka]\nsecurity = 'sasl_plaintext'\nsasl_mechanism = 'PLAIN'\nusername = 'u'\npassword = 'p'".to_owned(),
    ] {
        let text = sections.replacen("[outbox]\n", NAMED, 1);
        let text = if text.contains(NAMED) { text } else { format!("{NAMED}{text}") };
        config(load_text(&text));
    }
}

#[test]
fn a_slim_build_takes_sasl_plain() {
    let flags =
        [("kafka.security", "sasl_plaintext"), ("kafka.sasl_mechanism", "PLAIN"), ("kafka.username", "u"), ("kafka.password", "p")];
    config(load_in(Build::Slim, NAMED, &[], &flags));
}
