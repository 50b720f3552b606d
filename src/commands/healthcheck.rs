//! `outboxd healthcheck`

use std::time::Duration;

use serde_json::json;

use super::{Failure, Format, NOBODY_LISTENS};
use crate::config::{Config, Listen};
use crate::http::{self, HealthAnswer, Strictness};

/// Longer than a healthy process ever takes, shorter than probes wait.
const WITHIN: Duration = Duration::from_secs(5);

impl From<bool> for Strictness {
    fn from(strict: bool) -> Self {
        if strict { Self::Strict } else { Self::Lenient }
    }
}

/// Asks the relay on this machine whether it is ready.
pub async fn healthcheck(config: &Config, strictness: Strictness, format: Format) -> Result<u8, Failure> {
    let Listen::At(address) = config.http.listen else {
        let cause = "http.listen is off: there is nobody to ask";
        return Err(Failure::new(NOBODY_LISTENS, cause, "Set it to an address such as 127.0.0.1:9640, here and for the relay"));
    };
    let answer = http::healthcheck(address, strictness, WITHIN).await;
    let (ready, reasons) = match &answer {
        HealthAnswer::Ready => (true, Vec::new()),
        HealthAnswer::NotReady(reasons) => (false, reasons.clone()),
        HealthAnswer::Unreachable(why) => (false, vec![why.clone()]),
    };
    match format {
        Format::Json => println!("{}", json!({ "ready": ready, "reasons": reasons })),
        Format::Text if ready => println!("ready"),
        Format::Text => reasons.iter().for_each(|reason| eprintln!("not ready: {reason}")),
    }
    Ok(answer.exit_code())
}
