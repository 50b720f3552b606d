//! Ways to a Kafka that asks who is there. What only the feature `full` has is refused at once without it; `scripts/test` builds both.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use outboxd::config::{Brokers, SaslMechanism, Secret, Security};
use outboxd::fault::Fault;
use outboxd::journal::Applied;
use outboxd::sink::kafka::KafkaSink;
use outboxd::sink::{Fenced, Sink};

use crate::kafka_world::KafkaWorld;
use crate::sink_conformance as suite;
use crate::support::certificates::Certificates;
use crate::support::kafka::USER;
use crate::support::place;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authentication_works_where_the_build_has_it_and_is_refused_at_once_where_not() {
    let world = KafkaWorld::new().await;
    let try_it = async |security, mechanism, password: &str| {
        let mut settings = world.settings.clone();
        let listener = if security == Security::SaslSsl { "SASL_SSL" } else { "SASL_PLAINTEXT" };
        settings.kafka.brokers = Brokers(vec![world.kafka.secure_brokers(listener)]);
        (settings.kafka.security, settings.kafka.sasl_mechanism) = (security, Some(mechanism));
        settings.kafka.username = Some(USER.0.to_owned());
        settings.kafka.password = Some(Secret::new(password));
        settings.kafka.ca_file = Some(Certificates::shared().ca());
        settings.kafka.token_file = Some(token_file());
        let sink = KafkaSink::new(settings)?;
        let fenced = sink.fence().await?;
        sink.plan_journal(10).await?;
        fenced.recover(suite::writer(1), Applied::default()).await.map(drop)
    };
    try_it(Security::SaslPlaintext, SaslMechanism::Plain, USER.1).await.expect("PLAIN works in every build");
    let wrong = try_it(Security::SaslPlaintext, SaslMechanism::Plain, "wrong").await.expect_err("a fault");
    assert_eq!(wrong.label(), "authentication", "{wrong}");
    assert!(!wrong.to_string().contains("wrong"), "{wrong}");
    for (security, mechanism) in [
        (Security::SaslPlaintext, SaslMechanism::ScramSha256),
        (Security::SaslSsl, SaslMechanism::ScramSha512),
        (Security::SaslPlaintext, SaslMechanism::OauthBearer),
    ] {
        let outcome = try_it(security, mechanism, USER.1).await;
        if cfg!(feature = "full") {
            outcome.expect("the full build has TLS and SCRAM");
        } else {
            assert!(matches!(outcome, Err(Fault::Misconfigured { .. })), "{outcome:?}");
        }
    }
}

#[cfg(feature = "full")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_prove_both_sides() {
    let world = KafkaWorld::new().await;
    let certificates = Certificates::shared();
    let try_it = async |listener, ca, own: Option<&str>| {
        let mut settings = world.settings.clone();
        settings.kafka.brokers = Brokers(vec![world.kafka.secure_brokers(listener)]);
        (settings.kafka.security, settings.kafka.ca_file) = (Security::Ssl, Some(ca));
        settings.kafka.certificate_file = own.map(|name| certificates.certificate(name));
        settings.kafka.key_file = own.map(|name| certificates.key(name));
        KafkaSink::new(settings)?.fence().await.map(drop)
    };
    try_it("SSL", certificates.ca(), None).await.expect("a trusted server");
    try_it("MTLS", certificates.ca(), Some("client")).await.expect("a client with a certificate");
    for (listener, ca) in [("SSL", certificates.other_ca()), ("MTLS", certificates.ca())] {
        let fault = try_it(listener, ca, None).await.expect_err("a fault");
        assert!(matches!(fault, Fault::Unavailable { .. }) && fault.to_string().contains("SSL"), "{fault}");
    }
}

/// A bearer token that is not signed, as the test servers take it.
fn token_file() -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(r#"{{"sub":"relay","iat":{now},"exp":{}}}"#, now + 3_600);
    let token = format!("{}.{}.", base64_url(br#"{"alg":"none"}"#), base64_url(claims.as_bytes()));
    let file = place::folder("token").join("token");
    std::fs::write(&file, token + "\n").unwrap();
    file
}

fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |three: &[u8]| {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        (0..=three.len()).map(|i| char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize])).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}
