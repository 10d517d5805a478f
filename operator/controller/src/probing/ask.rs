//! One question over the network (client of services, not of Kubernetes): bounded in time and in bytes. What a service
//! says beyond its status code is neither read on nor told to anybody.

use std::convert::Infallible;
use std::error::Error as _;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, pending, select};
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use provisioning_extensions::ProbeKind;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A connection, and then an answer, that takes longer has not come.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Most bytes that are read of an answer; its head must be within.
const MAX_BYTES: usize = 16 * 1024;

/// What went wrong, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody listens.
    Refused,
    /// There is no way to the address.
    Unreachable,
    /// Nothing came in time.
    Silent,
    /// The connection ended before the answer.
    Closed,
    /// An answer that is no HTTP, or too much of it.
    Garbled,
    /// An answer with another status than the wanted one.
    Wrong,
}

impl Trouble {
    /// Value of a label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Trouble::Refused => "refused",
            Trouble::Unreachable => "unreachable",
            Trouble::Silent => "silent",
            Trouble::Closed => "closed",
            Trouble::Garbled => "garbled",
            Trouble::Wrong => "wrong",
        }
    }
}

/// A question that was not answered as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// For metrics.
    pub(super) trouble: Trouble,
    /// For people; of a small vocabulary, so that the same trouble has the same words each time.
    pub(super) words: String,
}

impl Failure {
    fn new(trouble: Trouble, words: impl Into<String>) -> Self {
        Failure { trouble, words: words.into() }
    }
}

/// Asks once.
pub(super) async fn ask(address: SocketAddr, kind: &ProbeKind, patience: Duration) -> Result<(), Failure> {
    let connected = timeout(patience, TcpStream::connect(address)).await;
    let silent = |what: &str| Failure::new(Trouble::Silent, format!("no {what} within {} s", patience.as_secs()));
    let stream = connected.map_err(|_| silent("connection"))?.map_err(|error| of_io(&error))?;
    match kind {
        ProbeKind::Tcp => Ok(()),
        ProbeKind::Http { path, status } => {
            let found = timeout(patience, status_of(stream, address, path)).await.map_err(|_| silent("answer"))??;
            judge(found, *status)
        }
    }
}

fn judge(found: StatusCode, wanted: Option<u16>) -> Result<(), Failure> {
    let (is_well, wanted) = match wanted {
        Some(wanted) => (found.as_u16() == wanted, wanted.to_string()),
        None => (found.is_success() || found.is_redirection(), "2xx or 3xx".to_owned()),
    };
    match is_well {
        true => Ok(()),
        false => Err(Failure::new(Trouble::Wrong, format!("HTTP {} instead of {wanted}", found.as_u16()))),
    }
}

/// The status of the answer to `GET path`. A redirection is an answer and is not followed; the body stays where it is.
async fn status_of(stream: TcpStream, address: SocketAddr, path: &str) -> Result<StatusCode, Failure> {
    let request = Request::get(path)
        .header(HOST, host_of(address))
        .header(USER_AGENT, "provisioning-probe")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::new(Trouble::Garbled, format!("the path cannot be asked for: {error}")))?;
    let handshake = http1::Builder::new().max_buf_size(MAX_BYTES).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| of_http(&error))?;
    // The connection moves the bytes, and its end is heard by the one who waits for the answer.
    let moving = pin!(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a probe's connection ended early");
        }
        pending::<Infallible>().await
    });
    let answer = pin!(sender.send_request(request));
    match select(answer, moving).await {
        Either::Left((answer, _)) => answer.map(|answer| answer.status()).map_err(|error| of_http(&error)),
        Either::Right((never, _)) => match never {},
    }
}

fn host_of(address: SocketAddr) -> String {
    match (address.ip(), address.port()) {
        (IpAddr::V4(ip), 80) => ip.to_string(),
        (IpAddr::V6(ip), 80) => format!("[{ip}]"),
        (_, _) => address.to_string(),
    }
}

fn of_io(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::new(Trouble::Refused, "connection refused"),
        ErrorKind::HostUnreachable => Failure::new(Trouble::Unreachable, "the host is unreachable"),
        ErrorKind::NetworkUnreachable => Failure::new(Trouble::Unreachable, "the network is unreachable"),
        ErrorKind::TimedOut => Failure::new(Trouble::Silent, "the connection timed out"),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            Failure::new(Trouble::Closed, "the connection was reset")
        }
        other => Failure::new(Trouble::Unreachable, format!("no connection: {other}")),
    }
}

fn of_http(error: &hyper::Error) -> Failure {
    if let Some(io) = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()) {
        return of_io(io);
    }
    if error.is_parse_too_large() {
        return Failure::new(Trouble::Garbled, format!("the head of the answer is longer than {MAX_BYTES} bytes"));
    }
    if error.is_parse() {
        return Failure::new(Trouble::Garbled, "the answer is no HTTP");
    }
    Failure::new(Trouble::Closed, "the connection was closed without an answer")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    /// Long enough for a machine that is busy, where an answer is expected.
    const LONG: Duration = Duration::from_secs(30);
    /// Where none is.
    const SHORT: Duration = Duration::from_millis(200);

    fn http(status: Option<u16>) -> ProbeKind {
        ProbeKind::Http { path: "/health".to_owned(), status }
    }

    /// A server for one connection: reads the request and then does as said. The task ends with what was read.
    async fn server<F, Behaviour>(behaviour: Behaviour) -> (SocketAddr, JoinHandle<String>)
    where
        F: Future<Output = ()> + Send,
        Behaviour: FnOnce(TcpStream) -> F + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            behaviour(stream).await;
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (address, task)
    }

    async fn answers(text: &'static str) -> (SocketAddr, JoinHandle<String>) {
        server(move |mut stream| async move {
            // Who has heard enough may be gone already.
            let _ = stream.write_all(text.as_bytes()).await;
        })
        .await
    }

    async fn trouble(text: &'static str, status: Option<u16>) -> (Trouble, String) {
        let (address, _server) = answers(text).await;
        let failure = ask(address, &http(status), LONG).await.unwrap_err();
        (failure.trouble, failure.words)
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(ask(address, &ProbeKind::Tcp, LONG).await, Ok(()), "a connection is all that TCP asks for");
        drop(listener);
        let refused = Failure::new(Trouble::Refused, "connection refused");
        for kind in [ProbeKind::Tcp, http(Some(200))] {
            assert_eq!(ask(address, &kind, LONG).await, Err(refused.clone()));
        }
    }

    #[tokio::test]
    async fn the_path_is_asked_for_and_the_status_is_the_answer() {
        let (address, server) = answers("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno").await;
        assert_eq!(ask(address, &http(Some(200)), LONG).await, Ok(()));
        let request = server.await.unwrap();
        assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("host: {address}\r\n")), "{request}");
        assert!(request.contains("connection: close\r\n"), "{request}");
    }

    #[tokio::test]
    async fn another_status_is_told_and_a_redirection_is_not_followed() {
        let unavailable = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 6\r\n\r\nsecret";
        assert_eq!(trouble(unavailable, Some(200)).await, (Trouble::Wrong, "HTTP 503 instead of 200".to_owned()));
        assert_eq!(trouble(unavailable, None).await, (Trouble::Wrong, "HTTP 503 instead of 2xx or 3xx".to_owned()));
        let moved = "HTTP/1.0 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n";
        assert_eq!(trouble(moved, Some(200)).await, (Trouble::Wrong, "HTTP 302 instead of 200".to_owned()));
        let (address, _server) = answers(moved).await;
        assert_eq!(ask(address, &http(None), LONG).await, Ok(()));
    }

    #[tokio::test]
    async fn what_is_no_http_or_no_answer_is_told() {
        let garbled = (Trouble::Garbled, "the answer is no HTTP".to_owned());
        assert_eq!(trouble("SSH-2.0-OpenSSH_9.2\r\n\r\n", None).await, garbled);
        assert_eq!(trouble("\0\u{1}\u{2}\r\n\r\n\r\n", None).await, garbled);
        let closed = (Trouble::Closed, "the connection was closed without an answer".to_owned());
        assert_eq!(trouble("", None).await, closed);
        assert_eq!(trouble("HTTP/1.1 200 OK\r\nx-half: ", None).await, closed);
    }

    #[tokio::test]
    async fn silence_ends_the_question() {
        let (address, server) = server(|stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        let failure = ask(address, &http(None), SHORT).await.unwrap_err();
        assert_eq!((failure.trouble, failure.words.as_str()), (Trouble::Silent, "no answer within 0 s"));
        server.abort();
    }

    #[tokio::test]
    async fn an_answer_that_drips_ends_with_the_patience() {
        let (address, server) = server(|mut stream| async move {
            for byte in "HTTP/1.1 200 OK\r\nx-drip: ".bytes().chain(std::iter::repeat(b'x')) {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(ask(address, &http(None), SHORT).await.unwrap_err().trouble, Trouble::Silent);
        timeout(LONG, server).await.expect("the server was never hung up on").unwrap();
    }

    #[tokio::test]
    async fn neither_an_endless_head_nor_an_endless_body_is_read_on() {
        let endless = |head: &'static str| {
            server(move |mut stream| async move {
                let mut sent = stream.write_all(head.as_bytes()).await;
                while sent.is_ok() {
                    sent = stream.write_all(&[b'x'; 1024]).await;
                }
            })
        };
        let (address, server) = endless("HTTP/1.1 200 OK\r\n\r\n").await;
        assert_eq!(ask(address, &http(Some(200)), LONG).await, Ok(()));
        timeout(LONG, server).await.expect("the body was read on").unwrap();
        let (address, server) = endless("HTTP/1.1 200 OK\r\nx-long: ").await;
        let failure = ask(address, &http(Some(200)), LONG).await.unwrap_err();
        let words = "the head of the answer is longer than 16384 bytes";
        assert_eq!((failure.trouble, failure.words.as_str()), (Trouble::Garbled, words));
        timeout(LONG, server).await.expect("the head was read on").unwrap();
    }
}
