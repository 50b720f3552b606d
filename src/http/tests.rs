use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;

use super::*;
use crate::fault::{Dependency, HaltCode};
use crate::heartbeat::{Heartbeat, SILENCE_AT_MOST};
use crate::phase::Phase;

struct Setup {
    address: SocketAddr,
    metrics: Metrics,
    heart: Heartbeat,
}

/// A server on a port of its own, of a relay that publishes and to which nothing is wrong.
async fn well() -> Setup {
    let setup = starting().await;
    setup.metrics.dependency(Dependency::Database, true);
    setup.metrics.dependency(Dependency::Kafka, true);
    setup.metrics.leader(true);
    setup.metrics.phase(Phase::Relaying);
    setup
}

/// A server of a relay that has just started.
async fn starting() -> Setup {
    let (metrics, heart) = (Metrics::new("shop"), Heartbeat::new());
    let address = serve(&metrics, &heart, || async { Ok(json!({ "pending": 3 })) }).await;
    Setup { address, metrics, heart }
}

async fn serve<F, Answer>(metrics: &Metrics, heart: &Heartbeat, status: F) -> SocketAddr
where
    F: Fn() -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Value, Fault>> + Send + 'static,
{
    let server = Server::bind(([127, 0, 0, 1], 0).into()).await.expect("some port is free");
    let address = server.address();
    tokio::spawn(server.serve(Health::new(heart.clone(), metrics.clone()), metrics.clone(), status));
    address
}

struct Answered {
    status: u16,
    kind: String,
    body: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn reasons(&self) -> Vec<String> {
        let json = self.json();
        let reasons = json["reasons"].as_array().expect("reasons are a list");
        reasons.iter().map(|reason| reason["code"].as_str().expect("a code is a word").to_owned()).collect()
    }
}

async fn request(address: SocketAddr, method: &str, path: &str) -> Answered {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri(path).header("host", "test").body(Empty::<Bytes>::new());
    let response = sender.send_request(request.expect("a request")).await.expect("an answer");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let kind = head.headers.get("content-type").map(|kind| kind.to_str().expect("text").to_owned());
    Answered { status: head.status.as_u16(), kind: kind.unwrap_or_default(), body: String::from_utf8(body.to_vec()).expect("text") }
}

async fn get(setup: &Setup, path: &str) -> Answered {
    request(setup.address, "GET", path).await
}

/// Status and reasons of `/readyz`, lenient and strict.
async fn both(setup: &Setup) -> (u16, u16, Vec<String>) {
    let (lenient, strict) = (get(setup, "/readyz").await, get(setup, "/readyz?strict").await);
    (lenient.status, strict.status, strict.reasons())
}

#[tokio::test]
async fn a_relay_that_publishes_is_ready_also_strictly() {
    let setup = well().await;
    assert_eq!(both(&setup).await, (200, 200, vec![]));
    let answer = get(&setup, "/readyz?strict=true").await;
    let expected = json!({
        "ready": true, "strict": true, "phase": "relaying", "leader": true, "halted": null, "reasons": [],
    });
    assert_eq!((answer.json(), answer.kind.as_str()), (expected, "application/json"));
}

#[tokio::test]
async fn an_outage_of_kafka_is_told_only_to_who_asks_strictly() {
    let setup = well().await;
    setup.metrics.dependency(Dependency::Kafka, false);
    setup.metrics.phase(Phase::BackingOff);
    assert_eq!(both(&setup).await, (200, 503, vec!["kafka_down".to_owned(), "backing_off".to_owned()]));
}

#[tokio::test]
async fn a_standby_is_ready_but_not_strictly() {
    let setup = well().await;
    setup.metrics.leader(false);
    setup.metrics.phase(Phase::Standby);
    assert_eq!(both(&setup).await, (200, 503, vec!["standby".to_owned()]));
}

#[tokio::test]
async fn a_halted_relay_is_ready_but_not_strictly_and_names_its_halt() {
    let setup = well().await;
    setup.metrics.phase(Phase::Halted);
    setup.metrics.halted(Some(HaltCode::KafkaBehind));
    assert_eq!(both(&setup).await, (200, 503, vec!["halted".to_owned()]));
    let strict = get(&setup, "/readyz?strict").await;
    assert_eq!(strict.json()["halted"], "kafka-behind");
    assert!(strict.body.contains(HaltCode::KafkaBehind.remedy()), "{}", strict.body);
}

#[tokio::test]
async fn the_database_must_have_been_reached_once() {
    let setup = starting().await;
    setup.metrics.dependency(Dependency::Kafka, true);
    assert_eq!(get(&setup, "/readyz").await.status, 503);
    assert_eq!(get(&setup, "/readyz").await.reasons(), ["database_never_reached"]);
    setup.metrics.leader(true);
    setup.metrics.dependency(Dependency::Database, true);
    setup.metrics.dependency(Dependency::Database, false);
    assert_eq!(both(&setup).await, (200, 503, vec!["database_down".to_owned()]));
}

#[tokio::test]
async fn a_loop_that_hangs_is_neither_alive_nor_ready() {
    let setup = well().await;
    assert_eq!(get(&setup, "/healthz").await.json(), json!({ "alive": true, "reasons": [] }));
    tokio::time::pause();
    tokio::time::advance(SILENCE_AT_MOST * 2).await;
    tokio::time::resume();
    let answer = get(&setup, "/healthz").await;
    assert_eq!((answer.status, answer.reasons()), (503, vec!["loop_hangs".to_owned()]));
    assert_eq!(get(&setup, "/readyz").await.reasons(), ["loop_hangs"]);
    setup.heart.beat();
    assert_eq!(get(&setup, "/healthz").await.status, 200);
}

#[tokio::test]
async fn healthz_knows_neither_database_nor_kafka() {
    let setup = starting().await;
    assert_eq!(get(&setup, "/healthz").await.status, 200);
}

#[tokio::test]
async fn metrics_are_served_as_text() {
    let setup = well().await;
    let answer = get(&setup, "/metrics").await;
    assert_eq!((answer.status, answer.kind.as_str()), (200, "text/plain; version=0.0.4"));
    assert!(answer.body.contains("outboxd_leader{outbox=\"shop\"} 1\n"), "{}", answer.body);
}

#[tokio::test]
async fn the_status_is_that_of_the_closure() {
    let setup = well().await;
    assert_eq!(get(&setup, "/api/v1/status").await.json(), json!({ "pending": 3 }));
}

#[tokio::test]
async fn a_status_that_fails_says_why() {
    let (metrics, heart) = (Metrics::new("shop"), Heartbeat::new());
    let address = serve(&metrics, &heart, || async { Err(Fault::database("refused", "connection refused")) }).await;
    let answer = request(address, "GET", "/api/v1/status").await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!("OBX201")));
}

#[tokio::test]
async fn nothing_can_be_changed() {
    let setup = well().await;
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/status"] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let answer = request(setup.address, method, path).await;
            assert_eq!((answer.status, &answer.json()["error"]["code"]), (405, &json!("OBX502")), "{method} {path}");
        }
        assert_eq!(request(setup.address, "HEAD", path).await.status, 200, "{path}");
    }
    assert_eq!(get(&setup, "/").await.status, 404);
}

#[tokio::test]
async fn an_address_in_use_is_told_with_its_key() {
    let setup = well().await;
    let error = Server::bind(setup.address).await.expect_err("somebody listens there");
    assert!(error.to_string().contains("http.listen"), "{error}");
    assert!(error.remedy().contains("Another process"), "{}", error.remedy());
}

const WITHIN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_healthcheck_tells_ready_from_not_ready() {
    let setup = well().await;
    assert_eq!(healthcheck(setup.address, Strictness::Strict, WITHIN).await, HealthAnswer::Ready);
    setup.metrics.leader(false);
    assert_eq!(healthcheck(setup.address, Strictness::Lenient, WITHIN).await.exit_code(), 0);
    let answer = healthcheck(setup.address, Strictness::Strict, WITHIN).await;
    assert_eq!(answer.exit_code(), 3);
    assert_eq!(answer, HealthAnswer::NotReady(vec!["another process holds the lease, or none could be had".to_owned()]));
}

#[tokio::test]
async fn the_healthcheck_tells_who_does_not_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("some port is free");
    let address = silent.local_addr().expect("it has an address");
    let answer = healthcheck(address, Strictness::Lenient, Duration::from_millis(50)).await;
    assert_eq!(answer.exit_code(), 69);
    drop(silent);
    assert_eq!(healthcheck(address, Strictness::Lenient, WITHIN).await.exit_code(), 69);
}

#[tokio::test]
async fn the_healthcheck_asks_any_address_on_loopback() {
    let (metrics, heart) = (Metrics::new("shop"), Heartbeat::new());
    metrics.dependency(Dependency::Database, true);
    let port = serve(&metrics, &heart, || async { Ok(Value::Null) }).await.port();
    assert_eq!(healthcheck(([0, 0, 0, 0], port).into(), Strictness::Lenient, WITHIN).await, HealthAnswer::Ready);
}
