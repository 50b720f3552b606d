//! Health, metrics and status over HTTP. Read only; on a loopback address unless configured otherwise.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::fault::Fault;
use crate::metrics::Metrics;

mod client;
mod health;

pub use client::{HealthAnswer, healthcheck};
pub use health::{Health, Strictness};

/// Connections at a time; more wait to be accepted.
const MOST_CONNECTIONS: usize = 64;

/// A client that has not sent its next request after this long is let go.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);

/// The status asks the database; whoever asks for it while that takes longer gets an answer all the same.
const STATUS_WITHIN: Duration = Duration::from_secs(10);

/// The address could not be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address} (http.listen): {error}")]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

impl BindError {
    /// What a person can do about it, in one sentence.
    pub fn remedy(&self) -> &'static str {
        match self.error.kind() {
            io::ErrorKind::AddrInUse => "Another process listens there: give this one another address in http.listen, or \"off\".",
            io::ErrorKind::PermissionDenied => "Choose a port above 1023 in http.listen.",
            _ => "Write an address of this machine in http.listen, or \"off\".",
        }
    }
}

/// A server that has its address and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the address. Port 0 is some free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let refused = |error| BindError { address, error };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until dropped. `status` is asked for `/api/v1/status`, once at a time.
    pub async fn serve<F, Answer>(self, health: Health, metrics: Metrics, status: F) -> Infallible
    where
        F: Fn() -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<Value, Fault>> + Send + 'static,
    {
        let router = router(Arc::new(Served { health, metrics, status, one_status: Semaphore::new(1) }));
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let place = places.clone().acquire_owned().await.expect("the places are never closed");
            let stream = accept(&self.listener).await;
            let service = router.clone();
            connections.spawn(async move {
                answer(stream, service).await;
                drop(place);
            });
            while connections.try_join_next().is_some() {}
        }
    }
}

/// A failed accept belongs to one client, or to a process without free descriptors; that passes.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What goes wrong on a connection is the client's matter.
async fn answer(stream: TcpStream, router: Router) {
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
}

struct Served<F> {
    health: Health,
    metrics: Metrics,
    status: F,
    one_status: Semaphore,
}

fn router<F, Answer>(served: Arc<Served<F>>) -> Router
where
    F: Fn() -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Value, Fault>> + Send + 'static,
{
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .fallback(nothing_here)
        .method_not_allowed_fallback(read_only)
        .with_state(served)
}

async fn healthz<F>(State(served): State<Arc<Served<F>>>) -> Response {
    report(served.health.alive())
}

async fn readyz<F>(State(served): State<Arc<Served<F>>>, RawQuery(query): RawQuery) -> Response {
    report(served.health.ready(Strictness::asked(query.as_deref().unwrap_or_default())))
}

async fn metrics<F>(State(served): State<Arc<Served<F>>>) -> Response {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], served.metrics.text()).into_response()
}

async fn status<F, Answer>(State(served): State<Arc<Served<F>>>) -> Response
where
    F: Fn() -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Value, Fault>> + Send + 'static,
{
    let asked = async {
        let _turn = served.one_status.acquire().await;
        (served.status)().await
    };
    match timeout(STATUS_WITHIN, asked).await {
        Ok(Ok(status)) => reply(StatusCode::OK, &status),
        Ok(Err(fault)) => refuse(StatusCode::SERVICE_UNAVAILABLE, fault.obx(), &fault.to_string(), &fault.remedy()),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "OBX503", "the database did not answer in time", "Ask again."),
    }
}

async fn nothing_here() -> Response {
    let remedy = "There are /healthz, /readyz, /metrics and /api/v1/status.";
    refuse(StatusCode::NOT_FOUND, "OBX501", "there is nothing here", remedy)
}

async fn read_only() -> Response {
    refuse(StatusCode::METHOD_NOT_ALLOWED, "OBX502", "this interface is read only", "Use GET; the commands change things.")
}

fn report(report: health::Report) -> Response {
    let code = if report.reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply(code, &report.json())
}

fn refuse(status: StatusCode, code: &str, cause: &str, remedy: &str) -> Response {
    reply(status, &json!({ "error": { "code": code, "cause": cause, "remedy": remedy } }))
}

fn reply(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests;
