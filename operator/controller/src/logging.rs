//! What a line of the log looks like: docs/metrics.md.

use clap::ValueEnum;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    #[default]
    Json,
    /// Text without colours, for people.
    Text,
}

/// Level from `RUST_LOG`; `info` where it says nothing or nonsense.
pub fn filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into())
}

/// What writes the log.
pub fn subscriber<W>(format: LogFormat, filter: EnvFilter, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let plain = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    match format {
        // The innermost span is the pass; kube's own around it says the same in other words.
        LogFormat::Json => Box::new(plain.json().with_span_list(false).finish()),
        LogFormat::Text => Box::new(plain.finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::context::lock;

    /// A log that can be read again.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(lock(&self.0).clone()).unwrap()
        }
    }

    fn page(format: LogFormat, level: &str) -> (Page, Box<dyn Subscriber + Send + Sync>) {
        let page = Page::default();
        let writer = page.clone();
        (page, subscriber(format, EnvFilter::new(level), move || writer.clone()))
    }

    fn a_step_begins() {
        let _pass = crate::pass_span("Server", "marsh", "blue-heron").entered();
        tracing::info!(step = "create", run = 2, phase = "Running", "step");
    }

    #[test]
    fn a_line_of_json_says_which_object_and_which_run_of_which_step() {
        let (page, subscriber) = page(LogFormat::Json, "info");
        tracing::subscriber::with_default(subscriber, a_step_begins);
        let text = page.text();
        assert_eq!(text.lines().count(), 1);
        let mut line: Value = serde_json::from_str(&text).unwrap();
        let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert!(timestamp.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{timestamp}");
        let expected = json!({"level": "INFO", "target": "provisioning_controller::logging::tests",
            "fields": {"message": "step", "step": "create", "run": 2, "phase": "Running"},
            "span": {"name": "pass", "kind": "Server", "namespace": "marsh", "object": "blue-heron"}});
        assert_eq!(line, expected);
    }

    #[test]
    fn a_line_of_text_says_the_same() {
        let (page, subscriber) = page(LogFormat::Text, "info");
        tracing::subscriber::with_default(subscriber, a_step_begins);
        let text = page.text();
        let words = r#"pass{kind="Server" namespace="marsh" object="blue-heron"}"#;
        assert!(text.contains(words) && text.contains(r#"step="create" run=2 phase="Running""#), "{text}");
        assert!(!text.contains('\u{1b}'), "colours: {text}");
    }

    /// At the most talkative level the client tells of each request and its headers.
    #[tokio::test]
    async fn the_token_is_in_no_line_whatever_the_level() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let (page, subscriber) = page(LogFormat::Json, "trace");
        let guard = tracing::subscriber::set_default(subscriber);
        let mut config = kube::Config::new(format!("http://{address}/").parse().unwrap());
        config.auth_info.token = Some("sedge-warbler-4711".to_owned().into());
        let requests = crate::metrics::Metrics::new().unwrap().api_requests;
        let client = crate::requests::client(config, requests).unwrap();
        let _ = client.request_text(http::Request::get("/api/v1/nodes").body(Vec::new()).unwrap()).await;
        drop(guard);
        let asked = server.await.unwrap();
        assert!(asked.to_lowercase().contains("authorization: bearer sedge-warbler-4711"), "{asked}");
        let text = page.text();
        assert!(text.contains("/api/v1/nodes"), "the request itself is not in the log: {text}");
        assert!(!text.contains("sedge-warbler"), "{text}");
    }
}
