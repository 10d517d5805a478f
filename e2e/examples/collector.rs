//! Stands in for an OpenTelemetry collector: `collector ADDRESS FILE` answers every request with 200 and appends its body, a
//! JSON document, to the file as a line. Ends when it is killed.
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Largest request, bytes.
const MOST: usize = 16 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let (address, file) = words.next().zip(words.next()).context("usage: collector ADDRESS FILE")?;
    let file = Arc::new(Mutex::new(std::fs::File::options().append(true).create(true).open(&file).context(file)?));
    let listener = TcpListener::bind(&address).await.context(address)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let file = Arc::clone(&file);
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &file).await {
                eprintln!("collector: {error:#}");
            }
        });
    }
}

/// One request of a connection; the operator makes a connection for each.
async fn serve(mut stream: TcpStream, file: &Mutex<std::fs::File>) -> Result<()> {
    let mut text = Vec::new();
    loop {
        let mut part = [0; 8192];
        let read = stream.read(&mut part).await?;
        ensure!(read > 0 && text.len() < MOST, "a request that is cut off, or without end");
        text.extend_from_slice(&part[..read]);
        let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let (head, body) = (String::from_utf8_lossy(&text[..end]).to_lowercase(), &text[end + 4..]);
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if body.len() < length.context("no content-length")? {
            continue;
        }
        let body: serde_json::Value = serde_json::from_slice(body)?;
        writeln!(file.lock().unwrap_or_else(PoisonError::into_inner), "{body}")?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}").await?;
        return Ok(());
    }
}
