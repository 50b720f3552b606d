//! Asks another process's health answers: `outboxd healthcheck`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Strictness;
use crate::fault::{EXIT_NO, EXIT_UNREACHABLE};

/// Far more than any answer has.
const ANSWER_AT_MOST: usize = 64 * 1024;

/// What a process said of its readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthAnswer {
    /// It is ready.
    Ready,
    /// It is not, for these reasons, one sentence each.
    NotReady(Vec<String>),
    /// It could not be asked, or did not answer in time, or it is something else that answered.
    Unreachable(String),
}

impl HealthAnswer {
    /// Exit code of the command: 0, 3 or 69.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::NotReady(_) => EXIT_NO,
            Self::Unreachable(_) => EXIT_UNREACHABLE,
        }
    }
}

/// Asks the process that listens on `listen` (as configured there: any address of the machine is asked on loopback) whether it is ready.
pub async fn healthcheck(listen: SocketAddr, strictness: Strictness, within: Duration) -> HealthAnswer {
    let path = match strictness {
        Strictness::Lenient => "/readyz",
        Strictness::Strict => "/readyz?strict",
    };
    let address = reachable(listen);
    let unreachable = |why: String| HealthAnswer::Unreachable(format!("http://{address}{path}: {why}"));
    match tokio::time::timeout(within, ask(address, path)).await {
        Ok(Ok((status, body))) => {
            read(status, &body).unwrap_or_else(|| unreachable(format!("an answer with status {status} that is not ours")))
        }
        Ok(Err(error)) => unreachable(error.to_string()),
        Err(_) => unreachable(format!("no answer within {} s", within.as_secs_f32())),
    }
}

/// "Any address" can be listened on, not connected to.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn ask(address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), Failure> {
    let response = get(address, path).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_AT_MOST).collect().await?;
    Ok((status, body.to_bytes()))
}

async fn get(address: SocketAddr, path: &str) -> Result<Response<Incoming>, Failure> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, address.to_string()).header(header::CONNECTION, "close");
    Ok(sender.send_request(request.body(Body::empty())?).await?)
}

/// Nothing if this is not an answer of ours.
fn read(status: StatusCode, body: &[u8]) -> Option<HealthAnswer> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    match (status, answer.get("ready")?.as_bool()?) {
        (StatusCode::OK, true) => Some(HealthAnswer::Ready),
        (StatusCode::SERVICE_UNAVAILABLE, false) => {
            let details = answer.get("reasons")?.as_array()?.iter().filter_map(|reason| reason.get("detail")?.as_str());
            Some(HealthAnswer::NotReady(details.map(str::to_owned).collect()))
        }
        _ => None,
    }
}
