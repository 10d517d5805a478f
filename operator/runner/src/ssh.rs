//! Transport: one SSH session, commands in it, every call bounded.

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use provisioning_sdk::request::Target;
use russh::client::{self, AuthResult, Handle};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, ChannelMsg, Preferred};
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep, timeout};

/// One try to connect, with key exchange and authentication.
const TRY: Duration = Duration::from_secs(15);
/// First and longest wait between two tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// A silent server is asked this often; three unanswered questions end the session.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Most bytes that a command may answer.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why a server could not be talked to.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// Our own key can't be read.
    #[error("failed to read the SSH key {path}")]
    ReadKey {
        /// Where it should be.
        path: String,
        /// The library's error.
        #[source]
        source: russh::keys::Error,
    },
    /// The request's host key is none.
    #[error("failed to read the host key in the request: {0}")]
    ParseHostKey(String),
    /// The server has another host key.
    #[error("host key of {address} is {found}, expected {expected}")]
    HostKeyMismatch {
        /// Address and port.
        address: String,
        /// Fingerprint of the key that was expected.
        expected: String,
        /// Fingerprint of the key that the server has.
        found: String,
    },
    /// The server does not accept our key.
    #[error("{address} refuses the workspace's key for user {user}")]
    Unauthorized {
        /// Address and port.
        address: String,
        /// Account.
        user: String,
    },
    /// Nothing answered as it should, up to the last try.
    #[error("failed to connect to {address} within {seconds} s: {last}")]
    Unreachable {
        /// Address and port.
        address: String,
        /// How long it was tried.
        seconds: u64,
        /// The last try's error.
        last: String,
    },
    /// The session broke while this was done; whether it was done is unknown.
    #[error("connection lost during {during}: {cause}")]
    Lost {
        /// What was being done.
        during: String,
        /// What is known.
        cause: String,
    },
}

/// What a command left.
#[derive(Debug)]
pub struct Output {
    /// Exit code; 255 where a signal ended it.
    pub code: u32,
    /// Its stdout.
    pub stdout: Vec<u8>,
    /// The beginning of its stderr.
    pub stderr: String,
}

/// How to reach a server, all parsed.
pub struct Destination {
    address: String,
    host: String,
    port: u16,
    user: String,
    host_key: PublicKey,
    key: Arc<PrivateKey>,
}

impl Destination {
    /// Reads the workspace's key and the request's host key.
    ///
    /// # Errors
    /// [`SshError::ReadKey`], [`SshError::ParseHostKey`].
    pub fn new(target: &Target, key: &Path) -> Result<Self, SshError> {
        let private = russh::keys::load_secret_key(key, None)
            .map_err(|source| SshError::ReadKey { path: key.display().to_string(), source })?;
        let host_key = PublicKey::from_openssh(target.host_key.trim())
            .map_err(|error| SshError::ParseHostKey(error.to_string()))?;
        let host = target.address.trim_matches(['[', ']']).to_owned();
        let address =
            if host.contains(':') { format!("[{host}]:{}", target.port) } else { format!("{host}:{}", target.port) };
        Ok(Destination {
            address,
            host,
            port: target.port,
            user: target.user.clone(),
            host_key,
            key: Arc::new(private),
        })
    }

    /// Account that is used.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Connects, with as many tries as fit before `until`.
    ///
    /// # Errors
    /// At once where another try can't help (host key, authentication); else [`SshError::Unreachable`].
    pub async fn connect(&self, until: Instant) -> Result<Session, SshError> {
        let began = Instant::now();
        let mut pause = BACKOFF.0;
        loop {
            let room = until.saturating_duration_since(Instant::now()).clamp(Duration::from_secs(1), TRY);
            let last = match timeout(room, self.try_once()).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(TryError::Final(error))) => return Err(error),
                Ok(Err(TryError::Passing(text))) => text,
                Err(_) => format!("no answer within {} s", room.as_secs()),
            };
            tracing::debug!(address = self.address, last, "not reachable yet");
            if Instant::now() + pause >= until {
                let seconds = began.elapsed().as_secs();
                return Err(SshError::Unreachable { address: self.address.clone(), seconds, last });
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    async fn try_once(&self) -> Result<Session, TryError> {
        let seen = Arc::new(OnceLock::new());
        let verifier = Verifier { expected: self.host_key.clone(), seen: Arc::clone(&seen) };
        let config = Arc::new(client::Config {
            keepalive_interval: Some(KEEPALIVE),
            keepalive_max: 3,
            nodelay: true,
            preferred: Preferred { key: Cow::Owned(host_key_algorithms(&self.host_key)), ..Preferred::default() },
            ..client::Config::default()
        });
        let connected = client::connect(config, (self.host.as_str(), self.port), verifier).await;
        let mut handle = connected.map_err(|error| self.connect_error(error, seen.get()))?;
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&self.key), None);
        match handle.authenticate_publickey(&self.user, key).await {
            Ok(AuthResult::Success) => Ok(Session { handle }),
            Ok(AuthResult::Failure { .. }) => {
                Err(TryError::Final(SshError::Unauthorized { address: self.address.clone(), user: self.user.clone() }))
            }
            Err(error) => Err(TryError::Passing(flatten(&error))),
        }
    }

    fn connect_error(&self, error: russh::Error, seen: Option<&String>) -> TryError {
        let found = match (seen, &error) {
            (Some(fingerprint), _) => fingerprint.clone(),
            // We ask for the known key's algorithm only: a server without it has another key.
            (None, russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. }) => {
                format!("of another kind ({})", theirs.join(", "))
            }
            (None, _) => return TryError::Passing(flatten(&error)),
        };
        let expected = fingerprint(&self.host_key);
        TryError::Final(SshError::HostKeyMismatch { address: self.address.clone(), expected, found })
    }
}

enum TryError {
    Final(SshError),
    Passing(String),
}

/// Accepts one host key; remembers the fingerprint of any other.
struct Verifier {
    expected: PublicKey,
    seen: Arc<OnceLock<String>>,
}

impl client::Handler for Verifier {
    type Error = russh::Error;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let found = match presented {
            PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.expected.key_data() => {
                return Ok(true);
            }
            PublicKeyOrCertificate::PublicKey { key, .. } => fingerprint(key),
            PublicKeyOrCertificate::Certificate(_) => "a certificate".to_owned(),
        };
        // Only the first is kept: there is one key exchange before the end.
        let _ = self.seen.set(found);
        Ok(false)
    }
}

/// An open, authenticated session.
pub struct Session {
    handle: Handle<Verifier>,
}

impl Session {
    /// Runs a command with this input, within a limit of time.
    ///
    /// # Errors
    /// [`SshError::Lost`] where it has no exit code: the connection broke, or the limit passed.
    pub async fn exec<R>(&self, during: &str, command: &str, input: R, limit: Duration) -> Result<Output, SshError>
    where
        R: AsyncRead + Unpin + Send,
    {
        let lost = |cause: String| SshError::Lost { during: during.to_owned(), cause };
        match timeout(limit, self.exec_unbounded(command, input)).await {
            Ok(Ok(Some(output))) => Ok(output),
            Ok(Ok(None)) => Err(lost("the connection was closed".to_owned())),
            Ok(Err(error)) => Err(lost(flatten(&error))),
            Err(_) => Err(lost(format!("no end within {} s", limit.as_secs()))),
        }
    }

    async fn exec_unbounded<R>(&self, command: &str, input: R) -> Result<Option<Output>, russh::Error>
    where
        R: AsyncRead + Unpin + Send,
    {
        let channel = self.handle.channel_open_session().await?;
        let (mut reader, writer) = channel.split();
        writer.exec(true, command).await?;
        let feed = async {
            writer.data(input).await?;
            writer.eof().await
        };
        let collect = async {
            let mut output = Output { code: 0, stdout: Vec::new(), stderr: String::new() };
            let mut code = None;
            while let Some(message) = reader.wait().await {
                match message {
                    ChannelMsg::Data { data } => append(&mut output.stdout, &data),
                    ChannelMsg::ExtendedData { data, .. } if output.stderr.len() < 4096 => {
                        output.stderr.push_str(&String::from_utf8_lossy(&data));
                    }
                    ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
                    ChannelMsg::ExitSignal { .. } => code = Some(255),
                    // Failure: the server does not run commands for us.
                    ChannelMsg::Close | ChannelMsg::Failure => break,
                    _ => {}
                }
            }
            code.map(|code| Output { code, ..output })
        };
        tokio::pin!(feed, collect);
        tokio::select! {
            output = &mut collect => Ok(output),
            // A command may end before it has read everything: what it says counts more than that we could not write.
            _ = &mut feed => Ok(collect.await),
        }
    }
}

fn append(answer: &mut Vec<u8>, data: &[u8]) {
    let room = MAX_ANSWER.saturating_sub(answer.len());
    answer.extend(data.iter().take(room));
}

fn host_key_algorithms(key: &PublicKey) -> Vec<Algorithm> {
    match key.algorithm() {
        // One key, several ways to sign.
        Algorithm::Rsa { .. } => {
            [Some(HashAlg::Sha512), Some(HashAlg::Sha256)].map(|hash| Algorithm::Rsa { hash }).into()
        }
        other => vec![other],
    }
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// An error with its causes in one line.
fn flatten(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
