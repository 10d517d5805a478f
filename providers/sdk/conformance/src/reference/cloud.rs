//! The small cloud's API: the few calls that are needed, each bounded, each answer sorted into a class.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use provisioning_api::steps::FailureClass;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;

use super::fault::Fault;
use crate::worlds::cloud::{ENV_KEY_FILE, ENV_URL};

/// Longest duration of one call (protocols §2).
const CALL: Duration = Duration::from_secs(60);
/// Largest answer that is read, bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Most pages of one list; more machines than that are an error and no shorter list.
const MAX_PAGES: usize = 1000;

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloudError {
    /// Address or key are not where they should be.
    #[error("failed to read the address and key of the small cloud: {0}")]
    ReadCredentials(String),
    /// The cloud answered with an error.
    #[error("failed to {verb}: the small cloud answers {code}: {message}")]
    Answer { verb: &'static str, code: u16, message: String, retry_after: Option<i64> },
    /// There was no answer. The call may still have had its effect.
    #[error("failed to {verb}: {why}")]
    Connection { verb: &'static str, why: String },
    /// A list has no end.
    #[error("the list of machines has more than {MAX_PAGES} pages")]
    ReadPages,
}

impl CloudError {
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            CloudError::Answer { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(super) fn class(&self) -> FailureClass {
        match self {
            CloudError::ReadCredentials(_) => FailureClass::Unauthorized,
            CloudError::Answer { code: 401 | 403, .. } => FailureClass::Unauthorized,
            CloudError::Answer { code: 429, .. } => FailureClass::Throttled,
            CloudError::Answer { code: 400..=499, .. } | CloudError::ReadPages => FailureClass::Invalid,
            CloudError::Answer { .. } | CloudError::Connection { .. } => FailureClass::Transient,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self.class() {
            FailureClass::Unauthorized => "NotAuthorized",
            FailureClass::Throttled => "TooManyRequests",
            FailureClass::Invalid => "RequestDenied",
            _ => "CloudUnavailable",
        }
    }

    pub(super) fn retry_after_seconds(&self) -> Option<i64> {
        match self {
            CloudError::Answer { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// A machine as the cloud shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    pub(super) id: String,
    state: String,
    tags: BTreeMap<String, String>,
    pub(super) cores: i64,
    pub(super) address: String,
    pub(super) host_key: String,
}

impl Machine {
    pub(super) fn tag(&self, key: &str) -> &str {
        self.tags.get(key).map_or("", String::as_str)
    }

    pub(super) fn is_running(&self) -> bool {
        self.state == "Running"
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.state == "Leaving"
    }
}

#[derive(Deserialize)]
struct Page {
    machines: Vec<Machine>,
    next: Option<usize>,
}

/// Address and key.
pub(super) struct Cloud {
    host: String,
    key: String,
    fault: Option<Fault>,
}

impl Cloud {
    pub(super) fn from_environment(fault: Option<Fault>) -> Result<Self, CloudError> {
        let variable =
            |name: &str| std::env::var(name).map_err(|_| CloudError::ReadCredentials(format!("{name} is not set")));
        let file = variable(ENV_KEY_FILE)?;
        let key =
            std::fs::read_to_string(&file).map_err(|error| CloudError::ReadCredentials(format!("{file}: {error}")))?;
        let url = variable(ENV_URL)?;
        let host = url.strip_prefix("http://").unwrap_or(&url).trim_end_matches('/').to_owned();
        if fault == Some(Fault::Leaky) {
            tracing::info!(key, "the key of the small cloud");
        }
        Ok(Cloud { host, key: key.trim().to_owned(), fault })
    }

    pub(super) async fn offers(&self) -> Result<Value, CloudError> {
        self.call("read the offers", "GET", "/cloud/offers", None, None).await
    }

    /// All machines with these tags, over all pages.
    pub(super) async fn machines(&self, tags: &[(&str, &str)]) -> Result<Vec<Machine>, CloudError> {
        let verb = "list machines";
        let filter: String = tags.iter().map(|(key, value)| format!("&tag.{key}={value}")).collect();
        let mut machines = Vec::new();
        let mut page = 0;
        for _ in 0..MAX_PAGES {
            let answer = self.call(verb, "GET", &format!("/cloud/machines?page={page}{filter}"), None, None).await?;
            let read: Page = serde_json::from_value(answer)
                .map_err(|error| CloudError::Connection { verb, why: format!("no list: {error}") })?;
            machines.extend(read.machines);
            match read.next.filter(|_| self.fault != Some(Fault::UnlistedResource)) {
                Some(next) => page = next,
                None => return Ok(machines),
            }
        }
        Err(CloudError::ReadPages)
    }

    /// Creates a machine, or returns the one that the token made before.
    pub(super) async fn create(&self, wanted: Value, token: Option<&str>) -> Result<Machine, CloudError> {
        let verb = "create a machine";
        let answer = self.call(verb, "POST", "/cloud/machines", token, Some(wanted)).await?;
        serde_json::from_value(answer)
            .map_err(|error| CloudError::Connection { verb, why: format!("no machine: {error}") })
    }

    /// Deletes a machine. Fine where it is gone.
    pub(super) async fn delete(&self, id: &str) -> Result<(), CloudError> {
        match self.call("delete a machine", "DELETE", &format!("/cloud/machines/{id}"), None, None).await {
            Ok(_) | Err(CloudError::Answer { code: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// One call within its time.
    async fn call(
        &self,
        verb: &'static str,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<Value, CloudError> {
        let limit = if self.fault == Some(Fault::ShortCalls) { Duration::from_secs(1) } else { CALL };
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        request = request.header("authorization", format!("Bearer {}", self.key));
        if let Some(token) = token {
            request = request.header("idempotency-token", token);
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let lost = |why: String| CloudError::Connection { verb, why };
        let request = request.body(Full::from(body)).map_err(|error| lost(error.to_string()))?;
        let (code, retry_after, answer) = match tokio::time::timeout(limit, self.send(request)).await {
            Ok(sent) => sent.map_err(|error| lost(error.to_string()))?,
            Err(_) => return Err(lost(format!("no answer within {} s", limit.as_secs()))),
        };
        if code < 300 {
            return Ok(answer);
        }
        let message = answer["message"].as_str().unwrap_or("no words").to_owned();
        Err(CloudError::Answer { verb, code, message, retry_after })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(u16, Option<i64>, Value), Failure> {
        let stream = TcpStream::connect(&self.host).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        let response = sender.send_request(request).await?;
        let code = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|wish| wish.to_str().ok()?.parse().ok());
        let bytes = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
        Ok((code, retry_after, serde_json::from_slice(&bytes).unwrap_or_default()))
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
