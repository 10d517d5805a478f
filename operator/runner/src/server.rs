//! What is done on a server, a typed call each. The server's side is `helper.sh`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use provisioning_extensions::Bundle;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use crate::fence::Fence;
use crate::layout::{Layout, Place, hex};
use crate::protocol::{Execution, Marker};
use crate::quote;
use crate::ssh::{Destination, Output, Session, SshError};

const HELPER: &str = include_str!("helper.sh");
/// Small calls.
const SHORT: Duration = Duration::from_secs(30);
/// Uploads, and the start of a unit: no mutating call lasts longer (protocols §2).
const LONG: Duration = Duration::from_secs(60);
/// How long one [`Server::follow`] waits for news, in quarter seconds.
const FOLLOW_TICKS: u32 = 24;

/// Exit codes of `helper.sh`.
const ABSENT: u32 = 3;
const INCOMPLETE: u32 = 74;
const CONFLICT: u32 = 76;
/// How much of a script's stderr is read; `helper.sh` has the same number.
pub const STDERR_TAIL: usize = 65536;

/// Why something could not be done on a server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No session, or it broke.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// Something of ours failed there.
    #[error("failed to {action} on the server (exit code {code}): {stderr}")]
    Command {
        /// What was to be done.
        action: String,
        /// Exit code.
        code: u32,
        /// What it said.
        stderr: String,
    },
    /// The marker changed since it was read. Nothing was done.
    #[error("the marker changed meanwhile")]
    Conflict,
    /// The marker is not readable by this build.
    #[error(
        "failed to read {path} on the server, where it is written how far this step is ({problem}): move that file away, and \
         try again; what the step has done there is done anew"
    )]
    ParseMarker {
        /// Where.
        path: String,
        /// Why.
        problem: String,
    },
    /// An answer is not what the helper prints.
    #[error("failed to understand the answer to {action}: {answer:?}")]
    ParseAnswer {
        /// What was asked.
        action: String,
        /// The beginning of the answer.
        answer: String,
    },
    /// The image's own `nu` can't be read.
    #[error("failed to read {path}")]
    ReadNu {
        /// Where it should be.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The run may not act any more.
    #[error(transparent)]
    Claim(#[from] provisioning_sdk::claim::ClaimError),
}

/// Who a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// /etc/machine-id
    pub machine_id: String,
    /// Node name.
    pub hostname: String,
}

/// A marker as it was read, with the digest that a write compares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What it says; `None`: there is none.
    pub marker: Option<Marker>,
    digest: Option<String>,
}

/// What is new about an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// State.
    pub execution: Execution,
    /// What stdout holds from the asked offset on, at most 64 KiB.
    pub stdout: Vec<u8>,
}

/// What is to be started.
pub struct Start<'a> {
    /// Files of the step.
    pub place: &'a Place,
    /// Marker that was seen.
    pub seen: &'a Seen,
    /// Marker that takes its place.
    pub marker: &'a Marker,
    /// The request for the script, JSON. It may hold secrets and is never on a disk.
    pub request: &'a [u8],
    /// The fields of its lines in runs.ndjson.
    pub log: &'a str,
    /// Digest of the bundle.
    pub digest: &'a str,
    /// Path of the script in the bundle.
    pub script: &'a str,
    /// After how many seconds the unit is stopped.
    pub seconds: i64,
}

/// A server with an open session.
pub struct Server<'a> {
    session: Session,
    layout: &'a Layout,
    helper: String,
    sudo: bool,
}

impl<'a> Server<'a> {
    /// Connects and makes sure that the helper is there.
    ///
    /// # Errors
    /// As of [`Destination::connect`], or where the helper can't be written.
    pub async fn open(
        to: &Destination,
        layout: &'a Layout,
        fence: &mut impl Fence,
        until: Instant,
    ) -> Result<Self, ServerError> {
        let session = to.connect(until).await?;
        let digest = hex(&Sha256::digest(HELPER));
        let helper = layout.helper(&digest);
        let server = Server { session, layout, helper, sudo: to.user() != "root" };
        let probe = server.command(["test", "-r", &server.helper]);
        let found = server.session.exec("the look for the helper", &probe, tokio::io::empty(), SHORT).await?;
        if found.code != 0 {
            fence.confirm().await?;
            let install = server.command(["/bin/sh", "-c", HELPER, "helper", "put", &server.helper, "0755", &digest]);
            let output = server.session.exec("the upload of the helper", &install, HELPER.as_bytes(), LONG).await?;
            expect_success("write the helper", &output)?;
        }
        Ok(server)
    }

    /// Machine id and host name.
    ///
    /// # Errors
    /// [`ServerError`]
    pub async fn facts(&self) -> Result<Facts, ServerError> {
        let text = self.ask("read the machine id", &["facts"]).await?;
        match text.lines().collect::<Vec<_>>().as_slice() {
            // It gets into a status, and a server may say anything.
            [machine_id, hostname] if is_machine_id(machine_id) => {
                Ok(Facts { machine_id: (*machine_id).to_owned(), hostname: (*hostname).to_owned() })
            }
            _ => Err(bad_answer("read the machine id", &text)),
        }
    }

    /// What `systemctl is-system-running` says.
    ///
    /// # Errors
    /// [`ServerError`]
    pub async fn boot_state(&self) -> Result<String, ServerError> {
        Ok(self.ask("ask systemd for its state", &["booted"]).await?.trim().to_owned())
    }

    /// Brings `nu`, once: skipped where the server's copy has the same digest.
    ///
    /// # Errors
    /// [`ServerError`]
    pub async fn ensure_nu(&self, local: &Path, fence: &mut impl Fence) -> Result<(), ServerError> {
        let unreadable = |source| ServerError::ReadNu { path: local.to_owned(), source };
        let digest = digest_of_file(local).await.map_err(unreadable)?;
        let remote = self.layout.nu.as_str();
        let output = self.call("look at nu", &["has", remote, &digest], tokio::io::empty(), SHORT).await?;
        if output.code == ABSENT {
            let file = tokio::fs::File::open(local).await.map_err(unreadable)?;
            fence.confirm().await?;
            tracing::info!(digest, "bringing nu to the server");
            self.put(remote, "0755", &digest, file).await?;
            return Ok(());
        }
        expect_success("look at nu", &output)
    }

    /// Brings a bundle, once, whole or not at all: skipped where what is there is what it should be, file by file.
    ///
    /// # Errors
    /// [`ServerError`]
    pub async fn ensure_bundle(&self, bundle: &Bundle, tag: &str, fence: &mut impl Fence) -> Result<(), ServerError> {
        let folder = self.layout.bundle(bundle.digest());
        let expected: BTreeMap<String, String> =
            bundle.files().iter().map(|(path, content)| (path.to_string(), hex(&Sha256::digest(content)))).collect();
        let output = self.call("look at the bundle", &["bundle-list", &folder], tokio::io::empty(), SHORT).await?;
        if output.code != ABSENT {
            expect_success("look at the bundle", &output)?;
            let found: BTreeMap<String, String> = String::from_utf8_lossy(&output.stdout)
                .lines()
                .filter_map(|line| line.split_once("  ./"))
                .map(|(digest, path)| (path.to_owned(), digest.to_owned()))
                .collect();
            if found == expected {
                return Ok(());
            }
            tracing::warn!(folder, "the bundle on the server was changed; bringing it again");
        }
        let upload = format!("{folder}.tmp-{tag}");
        for (path, content) in bundle.files() {
            fence.confirm().await?;
            let digest = expected.get(path.as_str()).map_or("", String::as_str);
            self.put(&format!("{upload}/{path}"), "0644", digest, content.as_slice()).await?;
        }
        fence.confirm().await?;
        self.ask("place the bundle", &["bundle-commit", &upload, &folder]).await?;
        Ok(())
    }

    /// Reads a step's marker.
    ///
    /// # Errors
    /// [`ServerError`]
    pub async fn read_marker(&self, place: &Place) -> Result<Seen, ServerError> {
        let path = place.marker();
        let output = self.call("read the marker", &["read", &path], tokio::io::empty(), SHORT).await?;
        if output.code == ABSENT {
            return Ok(Seen::default());
        }
        expect_success("read the marker", &output)?;
        let marker = serde_json::from_slice(&output.stdout)
            .map_err(|error| ServerError::ParseMarker { path, problem: error.to_string() })?;
        Ok(Seen { marker: Some(marker), digest: Some(hex(&Sha256::digest(&output.stdout))) })
    }

    /// Puts a marker in the place of the one that was seen; returns it as the seen one.
    ///
    /// # Errors
    /// [`ServerError::Conflict`] where another one is there now.
    pub async fn write_marker(
        &self,
        place: &Place,
        seen: &Seen,
        marker: &Marker,
        fence: &mut impl Fence,
    ) -> Result<Seen, ServerError> {
        let text = marker_text(marker);
        let digest = hex(&Sha256::digest(&text));
        let upload = place.staging(&digest);
        fence.confirm().await?;
        self.put(&upload, "0600", &digest, text.as_bytes()).await?;
        fence.confirm().await?;
        let expected = seen.digest.as_deref().unwrap_or("-");
        let output =
            self.call("write the marker", &["mark", &place.base, expected, &upload], tokio::io::empty(), LONG).await?;
        expect_success("write the marker", &output)?;
        Ok(Seen { marker: Some(marker.clone()), digest: Some(digest) })
    }

    /// Writes the marker and starts the script's unit, or, on [`ServerError::Conflict`], nothing.
    ///
    /// # Errors
    /// [`ServerError`]; other than Conflict: the marker may be written and the unit started.
    pub async fn start(&self, start: &Start<'_>, fence: &mut impl Fence) -> Result<(), ServerError> {
        let marker = marker_text(start.marker);
        let marker_digest = hex(&Sha256::digest(&marker));
        let staging = start.place.staging(&marker_digest);
        let request = start.place.request(&self.layout.volatile, &marker_digest);
        let files = [
            (request.clone(), start.request),
            (format!("{staging}/log"), start.log.as_bytes()),
            (format!("{staging}/marker.json"), marker.as_bytes()),
        ];
        for (path, content) in files {
            let digest = hex(&Sha256::digest(content));
            fence.confirm().await?;
            self.put(&path, "0600", &digest, content).await?;
        }
        let run = start.marker.execution;
        let (layout, expected) = (self.layout, start.seen.digest.as_deref().unwrap_or("-"));
        let words = [
            "start",
            &start.place.base,
            expected,
            &staging,
            &run.to_string(),
            &start.place.unit(run),
            &start.seconds.to_string(),
            &layout.nu,
            &layout.bundle(start.digest),
            start.script,
            &layout.root,
            &layout.volatile,
            &request,
        ];
        fence.confirm().await?;
        let output = self.call("start the script", &words, tokio::io::empty(), LONG).await?;
        expect_success("start the script", &output)
    }

    /// Waits a few seconds for news of an execution.
    ///
    /// # Errors
    /// [`ServerError`]
    pub async fn follow(&self, place: &Place, run: i64, offset: u64) -> Result<News, ServerError> {
        self.news(place, run, offset, FOLLOW_TICKS).await
    }

    /// Looks at an execution.
    ///
    /// # Errors
    /// [`ServerError`]
    pub async fn look(&self, place: &Place, run: i64) -> Result<Execution, ServerError> {
        Ok(self.news(place, run, i64::MAX.unsigned_abs() >> 1, 0).await?.execution)
    }

    async fn news(&self, place: &Place, run: i64, offset: u64, ticks: u32) -> Result<News, ServerError> {
        const ACTION: &str = "follow the script";
        let words = ["follow", &place.execution(run), &place.unit(run), &offset.to_string(), &ticks.to_string()];
        let output = self.call(ACTION, &words, tokio::io::empty(), SHORT).await?;
        expect_success(ACTION, &output)?;
        let garbled = || bad_answer(ACTION, &String::from_utf8_lossy(&output.stdout));
        let end = output.stdout.iter().position(|byte| *byte == b'\n').ok_or_else(garbled)?;
        let (head, rest) = output.stdout.split_at(end);
        let head = String::from_utf8_lossy(head);
        let (alive, exit) = head.split_once(' ').ok_or_else(garbled)?;
        let exit = match exit.trim() {
            "-" => None,
            code => Some(code.parse().map_err(|_| garbled())?),
        };
        let stdout = rest.get(1..).unwrap_or_default().to_vec();
        Ok(News { execution: Execution { alive: alive == "yes", exit }, stdout })
    }

    /// The last [`STDERR_TAIL`] bytes of an execution's stderr.
    ///
    /// # Errors
    /// [`ServerError`]
    pub async fn stderr(&self, place: &Place, run: i64) -> Result<String, ServerError> {
        self.ask("read the script's stderr", &["stderr", &self.layout.volatile, &place.unit(run)]).await
    }

    async fn put(
        &self,
        path: &str,
        mode: &str,
        digest: &str,
        content: impl AsyncRead + Unpin + Send,
    ) -> Result<(), ServerError> {
        let action = format!("write {path}");
        let output = self.call(&action, &["put", path, mode, digest], content, LONG).await?;
        expect_success(&action, &output)
    }

    async fn ask(&self, action: &str, words: &[&str]) -> Result<String, ServerError> {
        let output = self.call(action, words, tokio::io::empty(), SHORT).await?;
        expect_success(action, &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn call(
        &self,
        action: &str,
        words: &[&str],
        input: impl AsyncRead + Unpin + Send,
        limit: Duration,
    ) -> Result<Output, ServerError> {
        let command = self.command(["/bin/sh", self.helper.as_str()].into_iter().chain(words.iter().copied()));
        Ok(self.session.exec(action, &command, input, limit).await?)
    }

    fn command<'w>(&self, words: impl IntoIterator<Item = &'w str>) -> String {
        let sudo = if self.sudo { "sudo -n -- " } else { "" };
        format!("{sudo}{}", quote::command(words))
    }
}

fn expect_success(action: &str, output: &Output) -> Result<(), ServerError> {
    match output.code {
        0 => Ok(()),
        CONFLICT => Err(ServerError::Conflict),
        INCOMPLETE => Err(SshError::Lost { during: action.to_owned(), cause: output.stderr.trim().to_owned() }.into()),
        code => Err(ServerError::Command { action: action.to_owned(), code, stderr: output.stderr.trim().to_owned() }),
    }
}

/// machine-id(5): 32 lower-case hexadecimal digits.
fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn bad_answer(action: &str, answer: &str) -> ServerError {
    ServerError::ParseAnswer { action: action.to_owned(), answer: answer.chars().take(80).collect() }
}

fn marker_text(marker: &Marker) -> String {
    // A struct of plain fields always has a JSON.
    serde_json::to_string(marker).unwrap_or_default() + "\n"
}

async fn digest_of_file(path: &Path) -> std::io::Result<String> {
    let mut file = tokio::fs::File::open(path).await?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer).await? {
            0 => return Ok(hex(&hasher.finalize())),
            count => hasher.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}
