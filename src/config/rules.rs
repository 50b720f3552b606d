//! What cannot be together. One rule a line of thought: which keys it is about, when it is broken, and
//! what to do. A rule is not asked while one of its keys is refused already.

use super::Config;
use super::columns::Column;
use super::draft::Draft;
use super::error::{ErrorCode, Refusal};
use super::url::Host;
use super::words::{DatabaseTls, Mark, SaslMechanism};

/// What a build of the program can do.
#[derive(Clone, Copy)]
pub(super) enum Build {
    /// Made with the feature `full`: TLS and all of SASL to Kafka.
    Full,
    /// Made without it: plaintext and SASL PLAIN to Kafka.
    Slim,
}

impl Build {
    /// The build that is running.
    pub const THIS: Self = if cfg!(feature = "full") { Self::Full } else { Self::Slim };
}

/// A combination that is refused.
pub(super) struct Rule {
    /// The keys it looks at; the error names the first.
    pub keys: &'static [&'static str],
    code: ErrorCode,
    broken: fn(&Config, Build) -> bool,
    /// What the error says.
    pub cause: &'static str,
    remedy: &'static str,
}

/// Asks every rule.
pub(super) fn check(draft: &mut Draft, build: Build) {
    for rule in RULES {
        if !draft.any_failed(rule.keys) && (rule.broken)(&draft.config, build) {
            let refusal = Refusal::new(rule.code, rule.cause, rule.remedy);
            draft.errors.push(refusal.at(draft.place(rule.keys), rule.keys[0]));
        }
    }
}

/// All rules, in the order of the keys they are reported at.
pub(super) const RULES: &[Rule] = &[
    Rule {
        keys: &["database.tls", "database.url"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.database.tls != DatabaseTls::Prefer && is_on_this_machine(config),
        cause: "TLS is asked for, and the URL names a socket or file of this machine",
        remedy: "Write \"prefer\": nothing leaves the machine.",
    },
    Rule {
        keys: &["database.ca_file", "database.tls"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.database.ca_file.is_some() && config.database.tls != DatabaseTls::VerifyFull,
        cause: "a CA is given, and no certificate is looked at",
        remedy: "Set database.tls to \"verify-full\", or remove this key.",
    },
    Rule {
        keys: &["database.password_file", "database.url"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.database.password_file.is_some() && config.database.url.password.is_some(),
        cause: "the URL holds a password too",
        remedy: "Remove the password from the URL, or remove this key.",
    },
    Rule {
        keys: &["database.password_file", "database.url"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.database.password_file.is_some() && is_file(config),
        cause: "a SQLite file asks for no password",
        remedy: "Remove this key: the permissions of the file say who may open it.",
    },
    Rule {
        keys: &["outbox.table", "database.url"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.outbox.table.schema.is_some() && is_file(config),
        cause: "a schema is named, and SQLite has none",
        remedy: "Write the table alone.",
    },
    Rule {
        keys: &["outbox.columns", "database.url"],
        code: ErrorCode::NotInThisVersion,
        broken: |config, _| !config.outbox.columns.are_standard() && is_file(config),
        cause: "a SQLite table with columns of its own names is not in this version",
        remedy: "Remove this key, and let `outboxd migrate` create the table.",
    },
    Rule {
        keys: &["outbox.name"],
        code: ErrorCode::Required,
        broken: |config, _| config.outbox.name.is_empty(),
        cause: "the key is required, and has no default",
        remedy: "Write a name of this outbox that no other one on the Kafka cluster has: \
                 it names the journal topic and the transactional id.",
    },
    Rule {
        keys: &["outbox.mark", "outbox.columns"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.outbox.mark == Mark::Row && config.outbox.columns.of(Column::SentAt).is_none(),
        cause: "the table has no sent_at, so its rows cannot be marked",
        remedy: "Set outbox.mark to \"delete\", or name a column for sent_at in outbox.columns.",
    },
    Rule {
        keys: &["kafka.security"],
        code: ErrorCode::NotInThisBuild,
        broken: |config, build| matches!(build, Build::Slim) && config.kafka.security.uses_tls(),
        cause: "this build has no TLS to Kafka",
        remedy: "Build with `cargo build --release --features full`, or use a package or image: they have it.",
    },
    Rule {
        keys: &["kafka.sasl_mechanism"],
        code: ErrorCode::NotInThisBuild,
        broken: |config, build| matches!(build, Build::Slim) && needs_full_build(config.kafka.sasl_mechanism),
        cause: "this build knows no SASL mechanism but PLAIN",
        remedy: "Build with `cargo build --release --features full`, or use a package or image: they have it.",
    },
    Rule {
        keys: &["kafka.sasl_mechanism", "kafka.security"],
        code: ErrorCode::Required,
        broken: |config, _| config.kafka.security.uses_sasl() && config.kafka.sasl_mechanism.is_none(),
        cause: "kafka.security asks for SASL, and no mechanism is named",
        remedy: "Write PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.",
    },
    Rule {
        keys: &["kafka.sasl_mechanism", "kafka.security"],
        code: ErrorCode::Conflict,
        broken: |config, _| !config.kafka.security.uses_sasl() && config.kafka.sasl_mechanism.is_some(),
        cause: "a SASL mechanism is named, and kafka.security does not ask for SASL",
        remedy: "Set kafka.security to \"sasl_ssl\" (or \"sasl_plaintext\"), or remove this key.",
    },
    Rule {
        keys: &["kafka.username", "kafka.sasl_mechanism"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.kafka.username.is_some() && !asks_password(config),
        cause: "a user name is given, and nothing asks for it",
        remedy: "Set kafka.sasl_mechanism to PLAIN or SCRAM-…, or remove this key.",
    },
    Rule {
        keys: &["kafka.username", "kafka.sasl_mechanism"],
        code: ErrorCode::Required,
        broken: |config, _| config.kafka.username.is_none() && asks_password(config),
        cause: "kafka.sasl_mechanism needs a user name",
        remedy: "Set this key.",
    },
    Rule {
        keys: &["kafka.password", "kafka.password_file", "kafka.sasl_mechanism"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.kafka.password.is_some() && !asks_password(config),
        cause: "a password is given, and nothing asks for it",
        remedy: "Set kafka.sasl_mechanism to PLAIN or SCRAM-…, or remove the password.",
    },
    Rule {
        keys: &["kafka.password", "kafka.password_file", "kafka.sasl_mechanism"],
        code: ErrorCode::Required,
        broken: |config, _| config.kafka.password.is_none() && asks_password(config),
        cause: "kafka.sasl_mechanism needs a password",
        remedy: "Set this key, or kafka.password_file.",
    },
    Rule {
        keys: &["kafka.token_file", "kafka.sasl_mechanism"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.kafka.token_file.is_some() && !asks_token(config),
        cause: "a token is given, and nothing asks for it",
        remedy: "Set kafka.sasl_mechanism to OAUTHBEARER, or remove this key.",
    },
    Rule {
        keys: &["kafka.token_file", "kafka.sasl_mechanism"],
        code: ErrorCode::Required,
        broken: |config, _| config.kafka.token_file.is_none() && asks_token(config),
        cause: "OAUTHBEARER needs a token",
        remedy: "Set this key to the file that holds it.",
    },
    Rule {
        keys: &["kafka.ca_file", "kafka.security"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.kafka.ca_file.is_some() && !config.kafka.security.uses_tls(),
        cause: "a CA is given, and kafka.security does not ask for TLS",
        remedy: "Set kafka.security to \"ssl\" or \"sasl_ssl\", or remove this key.",
    },
    Rule {
        keys: &["kafka.certificate_file", "kafka.security"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.kafka.certificate_file.is_some() && !config.kafka.security.uses_tls(),
        cause: "a certificate is given, and kafka.security does not ask for TLS",
        remedy: "Set kafka.security to \"ssl\" or \"sasl_ssl\", or remove this key.",
    },
    Rule {
        keys: &["kafka.certificate_file", "kafka.key_file"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.kafka.certificate_file.is_some() && config.kafka.key_file.is_none(),
        cause: "a certificate is given without its private key",
        remedy: "Set kafka.key_file too.",
    },
    Rule {
        keys: &["kafka.key_file", "kafka.certificate_file"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.kafka.key_file.is_some() && config.kafka.certificate_file.is_none(),
        cause: "a private key is given without its certificate",
        remedy: "Set kafka.certificate_file too.",
    },
    Rule {
        keys: &["kafka.key_password", "kafka.key_password_file", "kafka.key_file"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.kafka.key_password.is_some() && config.kafka.key_file.is_none(),
        cause: "the password of a private key is given without the key",
        remedy: "Set kafka.key_file too, or remove the password.",
    },
    Rule {
        keys: &["relay.linger", "relay.lease"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.relay.linger >= config.relay.lease,
        cause: "the lease would run out between two transactions",
        remedy: "Write less than relay.lease.",
    },
    Rule {
        keys: &["relay.idle_interval", "relay.lease"],
        code: ErrorCode::Conflict,
        broken: |config, _| config.relay.idle_interval >= config.relay.lease,
        cause: "the lease would run out between two polls",
        remedy: "Write less than relay.lease.",
    },
];

fn is_on_this_machine(config: &Config) -> bool {
    match config.database.url.address.host {
        Host::Socket(_) | Host::File(_) => true,
        Host::Name(_) => false,
    }
}

fn is_file(config: &Config) -> bool {
    config.database.url.file().is_some()
}

fn asks_password(config: &Config) -> bool {
    config.kafka.sasl_mechanism.is_some_and(SaslMechanism::uses_password)
}

fn asks_token(config: &Config) -> bool {
    config.kafka.sasl_mechanism == Some(SaslMechanism::OauthBearer)
}

/// SCRAM and OAUTHBEARER need OpenSSL in librdkafka, PLAIN does not.
fn needs_full_build(mechanism: Option<SaslMechanism>) -> bool {
    mechanism.is_some_and(|mechanism| mechanism != SaslMechanism::Plain)
}
