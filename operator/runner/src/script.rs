//! One run of a script on a server: look, decide (protocol.rs), do, until there is a result.

use std::collections::BTreeMap;

use provisioning_extensions::Bundle;
use provisioning_sdk::request::{Envelope, Extension, Peer, RunnerRequest, ScriptRequest};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::events::{Collector, Line, MAX_STDOUT, bounded};
use crate::failure::{Failure, last_words};
use crate::fence::Fence;
use crate::layout::Place;
use crate::protocol::{Ask, Decision, Execution, Marker, Phase, decide};
use crate::secrets::Secrets;
use crate::server::{Facts, STDERR_TAIL, Seen, Server, ServerError, Start};
use crate::ssh::Destination;
use crate::{Outputs, Settings, with_sessions};

/// How often one run starts its script anew after the unit ended without a word.
const MAX_STARTS: u32 = 3;
/// How much longer than the step's deadline the unit may live, seconds: it is stopped when nobody waits any more.
const GRACE: i64 = 30;

/// Runs the script, or takes up what an earlier run of it left. Outputs: what the script reported.
///
/// # Errors
/// [`Failure`]
pub async fn run(
    settings: &Settings,
    fence: &mut impl Fence,
    envelope: &Envelope<RunnerRequest>,
    what: &ScriptRequest,
    deadline: Instant,
) -> Result<Outputs, Failure> {
    let bundle = load_bundle(settings, &what.extension)?;
    let destination = Destination::new(&what.target, &settings.key).map_err(ServerError::from)?;
    let place = settings
        .layout
        .place(&envelope.owner.uid, &envelope.step)
        .ok_or_else(|| Failure::BadRequest(format!("{:?} is no uid", envelope.owner.uid)))?;
    let ask = Ask {
        run: envelope.run,
        epoch: envelope.epoch,
        direction: envelope.direction,
        script: what.script.clone(),
        input_hash: envelope.input_hash.clone(),
    };
    let secrets = Secrets::read(&settings.secrets, &what.secrets)?;
    let mut run = ScriptRun { settings, envelope, what, bundle, place, ask, secrets, starts: 0, followed: None };
    let work = with_sessions(deadline, async |until| {
        let server = Server::open(&destination, &settings.layout, fence, until).await?;
        run.drive(&server, fence).await
    });
    match timeout_at(deadline, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Deadline {
            script: what.script.path(),
            seconds: envelope.timeout_seconds,
            server: what.target.server.clone(),
            last: run
                .followed
                .and_then(|(_, collector)| collector.last_progress().map(|text| run.secrets.redact(text))),
        }),
    }
}

fn load_bundle(settings: &Settings, extension: &Extension) -> Result<Bundle, Failure> {
    let bundle = Bundle::load_mount(&settings.bundle)?;
    if bundle.digest() != extension.digest {
        return Err(Failure::DigestMismatch { found: bundle.digest().to_owned(), expected: extension.digest.clone() });
    }
    Ok(bundle)
}

struct ScriptRun<'a> {
    settings: &'a Settings,
    envelope: &'a Envelope<RunnerRequest>,
    what: &'a ScriptRequest,
    bundle: Bundle,
    place: Place,
    ask: Ask,
    secrets: Secrets,
    starts: u32,
    /// Which execution's stdout was read, and how far. Outlives a lost session.
    followed: Option<(i64, Collector)>,
}

impl ScriptRun<'_> {
    async fn drive(&mut self, server: &Server<'_>, fence: &mut impl Fence) -> Result<Outputs, Failure> {
        let facts = server.facts().await?;
        server.ensure_nu(&self.settings.nu, fence).await?;
        let tag = format!("{}-{}", self.envelope.owner.uid, self.ask.run);
        server.ensure_bundle(&self.bundle, &tag, fence).await?;
        loop {
            match self.turn(server, fence, &facts).await {
                Ok(Some(outputs)) => return Ok(outputs),
                // Somebody else wrote the marker since we read it: look again.
                Ok(None) | Err(Failure::Server(ServerError::Conflict)) => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Looks, decides, does one thing. `None`: look again.
    async fn turn(
        &mut self,
        server: &Server<'_>,
        fence: &mut impl Fence,
        facts: &Facts,
    ) -> Result<Option<Outputs>, Failure> {
        let seen = server.read_marker(&self.place).await?;
        let Some(marker) = seen.marker.clone() else {
            self.start(server, fence, facts, &seen).await?;
            return Ok(None);
        };
        let execution = server.look(&self.place, marker.execution).await?;
        let decision = decide(&self.ask, Some(&marker), execution);
        tracing::debug!(?decision, ?execution, run = marker.run, "decided");
        match decision {
            Decision::Refuse => Err(self.superseded(&marker)),
            Decision::Start => {
                self.start(server, fence, facts, &seen).await?;
                Ok(None)
            }
            Decision::Attach => {
                if marker.run != self.ask.run {
                    tracing::info!(execution = marker.execution, "attaching to the script that an earlier run started");
                    self.mark(server, fence, &seen, Phase::Running, marker.execution, Outputs::new()).await?;
                }
                while still_runs(self.read_more(server, marker.execution).await?) {}
                Ok(None)
            }
            Decision::Await => {
                tracing::info!(execution = marker.execution, "waiting for the end of another run of this step");
                server.follow(&self.place, marker.execution, MAX_STDOUT * 2).await?;
                Ok(None)
            }
            Decision::TakeExit(code) => self.conclude(server, fence, &seen, marker.execution, code).await.map(Some),
            Decision::TakeOutputs => {
                tracing::info!(run = marker.run, "done by an earlier run; taking its result");
                let outputs = bounded(marker.outputs.clone()).and_then(|outputs| self.secrets.refuse_in(outputs));
                let outputs = match outputs {
                    Ok(outputs) => outputs,
                    // As of a script that has just ended: the next run starts it anew.
                    Err(problem) => {
                        self.mark(server, fence, &seen, Phase::Failed, marker.execution, Outputs::new()).await?;
                        return Err(self.bad_output(&problem));
                    }
                };
                if marker.run != self.ask.run {
                    self.mark(server, fence, &seen, Phase::Succeeded, marker.execution, outputs.clone()).await?;
                }
                Ok(Some(outputs))
            }
        }
    }

    async fn start(
        &mut self,
        server: &Server<'_>,
        fence: &mut impl Fence,
        facts: &Facts,
        seen: &Seen,
    ) -> Result<(), Failure> {
        if self.starts >= MAX_STARTS {
            return Err(Failure::Interrupted(self.starts));
        }
        let request = self.request(facts).to_string();
        self.followed = None;
        let script = self.what.script.path();
        tracing::info!(script, run = self.ask.run, "starting the script");
        let start = Start {
            place: &self.place,
            seen,
            marker: &self.marker(Phase::Running, self.ask.run, Outputs::new()),
            request: request.as_bytes(),
            log: &self.log_fields(),
            digest: self.bundle.digest(),
            script: &script,
            seconds: self.envelope.timeout_seconds.saturating_add(GRACE),
        };
        server.start(&start, fence).await?;
        self.starts += 1;
        Ok(())
    }

    /// Reads what is new on stdout, waiting a little for it.
    async fn read_more(&mut self, server: &Server<'_>, execution: i64) -> Result<(Execution, bool), Failure> {
        let collector = match &mut self.followed {
            Some((run, collector)) if *run == execution => collector,
            other => &mut other.insert((execution, Collector::default())).1,
        };
        // What is beyond the limit is not fetched; that it is there was noted.
        if collector.offset() > MAX_STDOUT {
            let news = server.follow(&self.place, execution, MAX_STDOUT * 2).await?;
            return Ok((news.execution, true));
        }
        let news = server.follow(&self.place, execution, collector.offset()).await?;
        for line in collector.feed(&news.stdout) {
            pass_on(&self.secrets, &line);
        }
        Ok((news.execution, news.stdout.is_empty()))
    }

    /// Turns the end of an execution into the result, and marks it.
    async fn conclude(
        &mut self,
        server: &Server<'_>,
        fence: &mut impl Fence,
        seen: &Seen,
        execution: i64,
        code: i32,
    ) -> Result<Outputs, Failure> {
        loop {
            let (_, was_all) = self.read_more(server, execution).await?;
            if was_all {
                break;
            }
        }
        let (last, outputs) = self.followed.take().map(|(_, collector)| collector).unwrap_or_default().finish();
        last.iter().for_each(|line| pass_on(&self.secrets, line));
        let outputs = outputs.and_then(|outputs| self.secrets.refuse_in(outputs));
        let outcome = if code == 0 {
            outputs.map_err(|problem| self.bad_output(&problem))
        } else {
            Err(self.script_failure(server, execution, code).await?)
        };
        let (phase, outputs) = match &outcome {
            Ok(outputs) => (Phase::Succeeded, outputs.clone()),
            Err(_) => (Phase::Failed, Outputs::new()),
        };
        self.mark(server, fence, seen, phase, execution, outputs).await?;
        outcome
    }

    /// Names of outputs are a script's own words too.
    fn bad_output(&self, problem: &str) -> Failure {
        Failure::BadOutput(self.secrets.redact(problem))
    }

    async fn script_failure(&self, server: &Server<'_>, execution: i64, code: i32) -> Result<Failure, Failure> {
        let end = server.stderr(&self.place, execution).await?;
        let stderr = self.secrets.redact_tail(&end, end.len() >= STDERR_TAIL);
        for line in stderr.lines() {
            tracing::error!(event = "stderr", message = line);
        }
        let room = provisioning_api::names::MAX_STEP_MESSAGE - format!("exit code {code}: ").len();
        let words = match last_words(&stderr, room) {
            words if words.is_empty() => "the script said nothing on stderr".to_owned(),
            words => words,
        };
        Ok(Failure::Script { code, words })
    }

    async fn mark(
        &self,
        server: &Server<'_>,
        fence: &mut impl Fence,
        seen: &Seen,
        phase: Phase,
        execution: i64,
        outputs: Outputs,
    ) -> Result<(), Failure> {
        server.write_marker(&self.place, seen, &self.marker(phase, execution, outputs), fence).await?;
        Ok(())
    }

    fn marker(&self, phase: Phase, execution: i64, outputs: Outputs) -> Marker {
        let Ask { run, epoch, direction, script, input_hash } = &self.ask;
        Marker {
            step: self.envelope.step.clone(),
            run: *run,
            epoch: *epoch,
            direction: *direction,
            script: script.clone(),
            input_hash: input_hash.clone(),
            phase,
            execution,
            outputs,
        }
    }

    fn superseded(&self, marker: &Marker) -> Failure {
        Failure::Superseded(format!(
            "run {} of epoch {} finds run {} of epoch {} on server {}",
            self.ask.run, self.ask.epoch, marker.run, marker.epoch, self.what.target.server
        ))
    }

    /// request.json: what the script is told.
    fn request(&self, facts: &Facts) -> Value {
        let ScriptRequest { target, extension, script, parameters, secrets: _, servers, peers } = self.what;
        let told = |peers: &[Peer]| -> Vec<Value> {
            peers
                .iter()
                .map(|peer| json!({"name": peer.name, "hostname": peer.name, "address": peer.address}))
                .collect()
        };
        let peers: BTreeMap<&String, Vec<Value>> = peers.iter().map(|(group, peers)| (group, told(peers))).collect();
        json!({
            "extension": { "name": extension.name, "version": extension.version },
            "server": { "name": target.server, "address": target.address, "hostname": facts.hostname },
            "servers": told(servers),
            "peers": peers,
            "parameters": parameters,
            "secrets": self.secrets.values(),
            "direction": self.ask.direction,
            "script": script,
            "run": self.ask.run,
        })
    }

    /// The fields of this run's lines in runs.ndjson: an object's JSON without its braces.
    fn log_fields(&self) -> String {
        let fields = json!({
            "owner": self.envelope.owner,
            "step": self.envelope.step,
            "run": self.ask.run,
            "epoch": self.ask.epoch,
            "direction": self.ask.direction,
            "extension": self.what.extension.name,
            "script": self.what.script,
        })
        .to_string();
        fields.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default().to_owned()
    }
}

fn still_runs((execution, _): (Execution, bool)) -> bool {
    execution.alive && execution.exit.is_none()
}

fn pass_on(secrets: &Secrets, line: &Line) {
    match line {
        Line::Progress(message) => tracing::info!(event = "progress", message = secrets.redact(message)),
        Line::Text(text) => tracing::info!(event = "stdout", message = secrets.redact(text)),
    }
}
