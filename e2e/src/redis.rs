//! As much of Redis' protocol as a proof needs.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest time for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub struct Redis(BufReader<TcpStream>);

impl Redis {
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// Where nobody listens there.
    pub async fn connect(address: &str) -> Result<Self> {
        let stream =
            tokio::time::timeout(ANSWER, TcpStream::connect(address)).await.with_context(|| address.to_owned())?;
        Ok(Redis(BufReader::new(stream.with_context(|| address.to_owned())?)))
    }

    /// Sends a command; gives the words of the answer, one for a simple one.
    ///
    /// # Errors
    /// An error that Redis answered, or no answer in time.
    pub async fn ask(&mut self, command: &[&str]) -> Result<Vec<String>> {
        let asked = async {
            let mut text = format!("*{}\r\n", command.len());
            for word in command {
                text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
            }
            self.0.write_all(text.as_bytes()).await?;
            let (kind, head) = self.line().await?;
            if kind != '*' {
                return Ok(vec![self.word(kind, head).await?]);
            }
            let mut words = Vec::new();
            for _ in 0..head.parse::<usize>()? {
                let (kind, head) = self.line().await?;
                words.push(self.word(kind, head).await?);
            }
            Ok(words)
        };
        tokio::time::timeout(ANSWER, asked).await.context("no answer from redis")?
    }

    async fn line(&mut self) -> Result<(char, String)> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        let mut characters = line.trim_end().chars();
        let kind = characters.next().context("redis closed the connection")?;
        Ok((kind, characters.collect()))
    }

    async fn word(&mut self, kind: char, head: String) -> Result<String> {
        match kind {
            '+' | ':' => Ok(head),
            '-' => bail!("redis answered {head}"),
            '$' if head == "-1" => Ok(String::new()),
            '$' => {
                let mut bytes = vec![0; head.parse::<usize>()? + 2];
                self.0.read_exact(&mut bytes).await?;
                bytes.truncate(bytes.len() - 2);
                Ok(String::from_utf8(bytes)?)
            }
            other => bail!("redis answered {other}{head}"),
        }
    }
}
