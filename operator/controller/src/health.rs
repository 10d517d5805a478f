//! `/healthz` (the process runs), `/readyz` (the caches are filled), `/metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Most connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// A client that has not sent its header by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for one answer that `helm test` asks for.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two questions.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Most bytes of an answer.
const MAX_ANSWER: u64 = 64 * 1024;

/// Whether the operator is ready to be relied on.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on it is.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Serves until the process ends.
///
/// # Errors
/// Where the address cannot be bound.
pub async fn serve(address: SocketAddr, metrics: Metrics, ready: Readiness) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (metrics, ready) = (metrics.clone(), ready.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &metrics, &ready);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
}

/// Asks `/readyz` until the answer is yes. For `helm test`.
///
/// # Errors
/// After `patience`, the last answer in words for people: nobody there, or not ready.
pub async fn ask(host: &str, port: u16, patience: Duration) -> Result<String, String> {
    let end = Instant::now() + patience;
    loop {
        let answer = ask_once(host, port).await;
        if answer.is_ok() || Instant::now() + ASK_AGAIN > end {
            return answer;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn ask_once(host: &str, port: u16) -> Result<String, String> {
    let whom = format!("port {port} of {host}");
    let answer = match tokio::time::timeout(ANSWER_PATIENCE, get(host, port, "/readyz")).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(format!("nobody answers at {whom}: {error}")),
        Err(_) => return Err(format!("{whom} did not answer within {} s", ANSWER_PATIENCE.as_secs())),
    };
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.trim().to_owned()),
        Some((_, body)) => Err(format!("{whom} is not ready: {}", body.trim())),
        None => Err(format!("{whom} answers something else")),
    }
}

async fn get(host: &str, port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: operator\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, ready: &Readiness) -> Response<Full<Bytes>> {
    let (status, body) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, Bytes::from_static(b"ok\n")),
        "/readyz" if ready.0.load(Ordering::Relaxed) => (StatusCode::OK, Bytes::from_static(b"ok\n")),
        "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(b"caches are not filled yet\n")),
        "/metrics" => (StatusCode::OK, Bytes::from(metrics.text())),
        _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"/healthz /readyz /metrics\n")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        super::get(&address.ip().to_string(), address.port(), path).await.unwrap()
    }

    #[tokio::test]
    async fn alive_from_the_start_ready_once_the_caches_are_filled_and_counted() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (metrics, ready) = (Metrics::new().unwrap(), Readiness::default());
        metrics.jobs_created.inc();
        let server = tokio::spawn(serve(address, metrics, ready.clone()));
        while TcpStream::connect(address).await.is_err() {
            assert!(!server.is_finished(), "it does not listen");
            tokio::task::yield_now().await;
        }
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        let refused = ask("127.0.0.1", address.port(), Duration::ZERO).await.unwrap_err();
        assert_eq!(refused, format!("port {} of 127.0.0.1 is not ready: caches are not filled yet", address.port()));
        ready.set();
        assert_eq!(ask("127.0.0.1", address.port(), Duration::ZERO).await, Ok("ok".to_owned()));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.contains("\nprovisioning_jobs_created_total 1\n"));
        assert!(get(address, "/secrets").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn an_address_without_an_operator_is_named() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let refused = ask("127.0.0.1", port, Duration::ZERO).await.unwrap_err();
        assert!(refused.starts_with(&format!("nobody answers at port {port} of 127.0.0.1: ")), "{refused}");
    }
}
