//! `provisioning logs`: what the executors of steps wrote, also of failed runs whose Job is gone.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use futures::stream::FuturesUnordered;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, LogParams};
use kube::runtime::wait::await_condition;
use provisioning_api::names::{LABEL_LOG_OF, LABEL_OWNER_UID, LABEL_RUN};
use provisioning_api::steps::StepStatus;
use provisioning_plan::ids::{job_name, step_label};
use provisioning_plan::nearest::hint;

use super::tree::{below, child_of};
use crate::changes::failure;
use crate::cluster::{Cluster, ClusterArguments};
use crate::complete;
use crate::error::Error;
use crate::exit::Exit;
use crate::item::Item;
use crate::kinds::{Kind, Target, targets};
use crate::logline::readable;
use crate::output::{Style, print, program, tell};
use crate::request::{RequestError, Scope, get};
use crate::watching::{Selection, Update, watch};

/// Container of an executor's Pod.
const EXECUTOR: &str = "executor";
/// How long a Pod may take to appear and start; what the operator allows a run on top of its own time.
const START: Duration = Duration::from_secs(120);

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// KIND NAME, or KIND/NAME
    #[arg(required = true, value_name = "KIND NAME", add = ArgValueCompleter::new(complete::objects))]
    object: Vec<String>,
    /// Which step. Default: those that run; else those that failed; else the one that ended last
    #[arg(long, value_name = "STEP", add = ArgValueCompleter::new(complete::steps))]
    step: Option<String>,
    /// Go on, with the steps that follow too, until the object is Ready or Stalled
    #[arg(short, long, conflicts_with = "previous")]
    follow: bool,
    /// Of the run before the last one
    #[arg(short, long)]
    previous: bool,
    /// As it was written: JSON lines
    #[arg(long)]
    raw: bool,
}

/// No log can be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogsError {
    #[error("{target} has no step '{step}'{}; it has: {}", hint(.step, .known.iter().map(String::as_str)), .known.join(", "))]
    UnknownStep { target: Target, step: String, known: Vec<String> },
    #[error("{0}: no step has run yet; wait for the first one with --follow")]
    NothingRan(Target),
    #[error("{target}, step {step}: {text}")]
    NoRun { target: Target, step: String, text: &'static str },
    #[error("{0}, step {1}: no executor does it, so there is no log; see how it stands: {program} show {0}", program = program())]
    NoExecutor(Target, String),
    #[error("{target}, step {step}: its executor has not started yet; wait for it with --follow")]
    NotStarted { target: Target, step: String },
    #[error("a {0} runs no steps and has no logs; see what happens in it: {program} tree {0}", program = program())]
    NoSteps(Kind),
    #[error(
        "{target}, step {step}: the log of run {run} is gone; logs of successful runs are kept for ten minutes, that of the \
         last failed run as long as the object"
    )]
    Gone { target: Target, step: String, run: i64 },
    #[error("failed to read the log of {target}, step {step}")]
    Read {
        target: Target,
        step: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl LogsError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::UnknownStep { .. } | Self::NoExecutor(..) | Self::NoSteps(_) => Exit::Usage,
            Self::NothingRan(_) | Self::NoRun { .. } | Self::NotStarted { .. } | Self::Gone { .. } => Exit::No,
            Self::Read { .. } => Exit::Failed,
            Self::Request(error) => error.exit(),
        }
    }
}

impl LogsError {
    /// There is no log of one run, not yet or not any more; others may have theirs.
    fn is_gap(&self) -> bool {
        matches!(
            self,
            Self::NothingRan(_)
                | Self::NoRun { .. }
                | Self::NotStarted { .. }
                | Self::Gone { .. }
                | Self::Request(RequestError::NotFound { .. })
        )
    }
}

/// How lines are shown.
#[derive(Clone, Copy, Debug)]
struct Shown {
    raw: bool,
    style: Style,
}

impl Shown {
    fn line(self, prefix: &str, line: &str) {
        let line = if self.raw { line.to_owned() } else { readable(line, self.style) };
        print(&format!("{prefix}{line}\n"));
    }
}

/// One run of a step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    target: Target,
    uid: String,
    step: String,
    run: i64,
}

impl Run {
    fn of(item: &Item, step: &StepStatus) -> Self {
        Self { target: item.target(), uid: item.uid().to_owned(), step: step.id.clone(), run: step.run }
    }

    /// The run whose log is wanted, if there was one.
    fn past(item: &Item, step: &StepStatus, previous: bool) -> Result<Self, LogsError> {
        let last = Self::of(item, step);
        match (last.run, previous) {
            (1.., false) => Ok(last),
            (2.., true) => Ok(Self { run: last.run - 1, ..last }),
            (run, _) => {
                let text = if run < 1 { "it has not run yet" } else { "it has run once; there is no run before that" };
                Err(LogsError::NoRun { target: last.target, step: last.step, text })
            }
        }
    }

    fn pod(&self) -> String {
        job_name(&self.uid, &self.step, self.run)
    }

    fn gone(&self) -> LogsError {
        LogsError::Gone { target: self.target.clone(), step: self.step.clone(), run: self.run }
    }
}

/// Shows logs.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    let [target] = targets(&arguments.object)?
        .try_into()
        .map_err(|_| Error::Usage("logs shows those of one object".to_owned()))?;
    if target.kind == Kind::Workspace {
        return Err(LogsError::NoSteps(target.kind).into());
    }
    let cluster = Cluster::find(cluster).await?;
    let item = get(&cluster, &target).await?;
    let step = arguments.step.as_deref();
    if let Some(step) = step {
        known(&item, step)?;
    }
    let shown = Shown { raw: arguments.raw, style };
    if arguments.follow && !ended(&item, step) {
        follow(&cluster, &item, step, shown).await?;
    } else {
        past(&cluster, &item, step, arguments.previous, shown).await?;
    }
    Ok(Exit::Done)
}

fn known<'a>(item: &'a Item, step: &str) -> Result<&'a StepStatus, LogsError> {
    item.steps().iter().find(|known| known.id == step).ok_or_else(|| LogsError::UnknownStep {
        target: item.target(),
        step: step.to_owned(),
        known: item.steps().iter().map(|known| known.id.clone()).collect(),
    })
}

/// Nothing more will be written by itself.
fn ended(item: &Item, step: Option<&str>) -> bool {
    match step.and_then(|step| item.steps().iter().find(|known| known.id == step)) {
        Some(step) => step.phase.is_terminal(),
        None => item.is_ready() || item.stalled().is_some(),
    }
}

/// Logs of what has run so far. In mid-run some objects of a workflow have no log yet, or none any more: that is a note
/// beside the logs of the others, and an error where there is no log at all.
async fn past(
    cluster: &Cluster,
    item: &Item,
    step: Option<&str>,
    previous: bool,
    shown: Shown,
) -> Result<(), LogsError> {
    let mut gaps = Vec::new();
    let runs = runs(cluster, item, step, previous, &mut gaps).await?;
    let mut any = false;
    for run in &runs {
        match text(cluster, run).await {
            Ok(text) => {
                if runs.len() > 1 {
                    tell(&format!("--- {}, step {}, run {}", run.target, run.step, run.run));
                }
                text.lines().for_each(|line| shown.line("", line));
                if text.trim().is_empty() {
                    tell(&format!("note: {}, step {} has written nothing", run.target, run.step));
                }
                any = true;
            }
            Err(error) if error.is_gap() => gaps.push(error),
            Err(error) => return Err(error),
        }
    }
    if any {
        gaps.iter().for_each(|gap| tell(&format!("note: {gap}")));
        return Ok(());
    }
    gaps.into_iter().next().map_or_else(|| Err(LogsError::NothingRan(item.target())), Err)
}

/// The runs whose logs are wanted, of an object and of what it applies; objects that have none are among the gaps.
async fn runs(
    cluster: &Cluster,
    item: &Item,
    step: Option<&str>,
    previous: bool,
    gaps: &mut Vec<LogsError>,
) -> Result<Vec<Run>, LogsError> {
    let mut runs = Vec::new();
    let mut todo = VecDeque::from([(item.clone(), step)]);
    while let Some((item, step)) = todo.pop_front() {
        let chosen = match chosen(&item, step) {
            Err(error) if error.is_gap() => {
                gaps.push(error);
                continue;
            }
            chosen => chosen?,
        };
        for step in chosen {
            match child_of(step) {
                None => match Run::past(&item, step, previous) {
                    Ok(run) => runs.push(run),
                    Err(error) => gaps.push(error),
                },
                // A step that applies an object has no executor: the object's own steps have, or those of its parts.
                Some(child) => match get(cluster, &child).await {
                    Ok(child) => todo.push_back((child, None)),
                    Err(error @ RequestError::NotFound { .. }) => gaps.push(error.into()),
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }
    Ok(runs)
}

/// The steps whose logs matter most.
fn chosen<'a>(item: &'a Item, step: Option<&str>) -> Result<Vec<&'a StepStatus>, LogsError> {
    if let Some(step) = step {
        let step = known(item, step)?;
        let can = step.action.has_executor() || child_of(step).is_some();
        return if can { Ok(vec![step]) } else { Err(LogsError::NoExecutor(item.target(), step.id.clone())) };
    }
    let ran =
        || item.steps().iter().filter(|step| step.run > 0 && (step.action.has_executor() || child_of(step).is_some()));
    let open: Vec<_> = ran().filter(|step| step.is_open()).collect();
    if !open.is_empty() {
        return Ok(open);
    }
    let failed: Vec<_> = ran().filter(|step| failure(step).is_some()).collect();
    if !failed.is_empty() {
        return Ok(failed);
    }
    let last = ran().max_by_key(|step| step.finished_at.as_ref().map(|time| time.0));
    last.map(|step| vec![step]).ok_or_else(|| LogsError::NothingRan(item.target()))
}

/// The log of a run: from its Pod while that is there, else what the operator kept.
async fn text(cluster: &Cluster, run: &Run) -> Result<String, LogsError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let parameters = LogParams { container: Some(EXECUTOR.to_owned()), ..LogParams::default() };
    let what = format!("the log of {}, step {}", run.target, run.step);
    match pods.logs(&run.pod(), &parameters).await {
        Ok(text) => Ok(text),
        Err(kube::Error::Api(status)) if status.code == 404 => kept(cluster, run).await,
        // What the kubelet says while the container is made.
        Err(kube::Error::Api(status)) if status.code == 400 => {
            Err(LogsError::NotStarted { target: run.target.clone(), step: run.step.clone() })
        }
        Err(error) => Err(RequestError::new(cluster, "read", what, error).into()),
    }
}

/// What the operator kept of the last failed run of a step.
async fn kept(cluster: &Cluster, run: &Run) -> Result<String, LogsError> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let labels = format!("{LABEL_OWNER_UID}={},{LABEL_LOG_OF}={}", run.uid, step_label(&run.step));
    let found = maps.list(&ListParams::default().labels(&labels)).await;
    let found =
        found.map_err(|error| RequestError::new(cluster, "list", format!("kept logs of {}", run.target), error))?;
    let map = found.items.into_iter().next().ok_or_else(|| run.gone())?;
    let of = map.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_RUN)).cloned().unwrap_or_default();
    if of != run.run.to_string() {
        tell(&format!("note: the log of run {} is gone; this is that of run {of}, the last one that failed", run.run));
    }
    map.data.and_then(|mut data| data.remove("log")).ok_or_else(|| run.gone())
}

/// Logs as they are written, of all steps as they start; with a step, of that one, or of the object that it applies.
async fn follow(cluster: &Cluster, root: &Item, step: Option<&str>, shown: Shown) -> Result<(), LogsError> {
    let scope = Scope::Namespace(cluster.namespace.clone());
    let own = Selection { kind: root.kind, scope: scope.clone(), name: Some(root.name().to_owned()), labels: None };
    // All that was made by somebody; what a cluster of a workflow made carries the cluster's uid.
    let children = below(root.kind).iter().map(|kind| Selection {
        kind: *kind,
        scope: scope.clone(),
        name: None,
        labels: Some(LABEL_OWNER_UID.to_owned()),
    });
    let mut family = Family::of(root, step);
    let mut updates = watch(cluster, std::iter::once(own).chain(children).collect::<Vec<_>>());
    let mut seen = BTreeSet::new();
    let mut streams = FuturesUnordered::new();
    let mut done = false;
    loop {
        tokio::select! {
            Some(result) = streams.next(), if !streams.is_empty() => result?,
            update = updates.next(), if !done => match update.transpose()? {
                None => done = true,
                Some(Update::Complete) => {}
                Some(Update::Object { before, after }) => {
                    let is_root = after.as_deref().or(before.as_deref()).is_some_and(|item| item.target() == root.target());
                    done = is_root && after.as_deref().is_none_or(|item| ended(item, step));
                    let Some(item) = after else { continue };
                    for item in family.with(*item) {
                        for step in starting(&item, family.only.as_deref()) {
                            let run = Run::of(&item, step);
                            if seen.insert(run.clone()) {
                                streams.push(stream(cluster, run, shown));
                            }
                        }
                    }
                }
            },
            else => return Ok(()),
        }
    }
}

/// The objects whose logs are followed.
struct Family {
    /// The object that was asked for, and all that was made by it, directly or not; or those of one child.
    uids: BTreeSet<String>,
    /// The child that the step which was asked for applies, and the uid of the object that makes it: it may not be there yet.
    child: Option<(Target, String)>,
    /// The one step, where that has an executor of its own.
    only: Option<String>,
    /// Objects whose owner was not seen yet, or belongs to somebody else.
    strangers: Vec<Item>,
}

impl Family {
    fn of(root: &Item, step: Option<&str>) -> Self {
        let asked = step.and_then(|id| root.steps().iter().find(|known| known.id == id));
        let child = asked.and_then(child_of).map(|target| (target, root.uid().to_owned()));
        let only = step.filter(|_| child.is_none()).map(str::to_owned);
        let uids = if child.is_some() { BTreeSet::new() } else { BTreeSet::from([root.uid().to_owned()]) };
        Self { uids, child, only, strangers: Vec::new() }
    }

    fn belongs(&self, item: &Item) -> bool {
        let owner = item.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_OWNER_UID));
        let is_child = self.child.as_ref().is_some_and(|(target, uid)| item.target() == *target && owner == Some(uid));
        // A step with an executor has no objects below it.
        let by_owner = self.only.is_none() && owner.is_some_and(|uid| self.uids.contains(uid));
        self.uids.contains(item.uid()) || is_child || by_owner
    }

    /// What belongs to it by this object: itself, and those that were made by it and seen before.
    fn with(&mut self, item: Item) -> Vec<Item> {
        self.strangers.retain(|other| other.uid() != item.uid());
        let mut found = Vec::new();
        let mut todo = vec![item];
        while let Some(item) = todo.pop() {
            if !self.belongs(&item) {
                self.strangers.push(item);
                continue;
            }
            if self.uids.insert(item.uid().to_owned()) {
                todo.append(&mut self.strangers);
            }
            found.push(item);
        }
        found
    }
}

/// Open steps that have an executor.
fn starting<'a>(item: &'a Item, only: Option<&'a str>) -> impl Iterator<Item = &'a StepStatus> {
    let wanted = move |step: &&StepStatus| only.is_none_or(|only| step.id == only);
    item.steps().iter().filter(|step| step.is_executed()).filter(wanted)
}

/// One run's log until its end. A Pod that does not start is no error of this program: its step tells.
async fn stream(cluster: &Cluster, run: Run, shown: Shown) -> Result<(), LogsError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let name = run.pod();
    let started = await_condition(pods.clone(), &name, |pod: Option<&Pod>| pod.is_some_and(has_started));
    if !matches!(tokio::time::timeout(START, started).await, Ok(Ok(_))) {
        tell(&format!(
            "note: the executor of {}, step {} has not started within {} s",
            run.target,
            run.step,
            START.as_secs()
        ));
        return Ok(());
    }
    let parameters = LogParams { container: Some(EXECUTOR.to_owned()), follow: true, ..LogParams::default() };
    let what = format!("the log of {}, step {}", run.target, run.step);
    let log = match pods.log_stream(&name, &parameters).await {
        Ok(log) => log,
        Err(error) => return Err(RequestError::new(cluster, "read", what, error).into()),
    };
    let prefix = if shown.raw { String::new() } else { format!("{} {} | ", run.target, run.step) };
    let mut lines = log.lines();
    let failed = |source| LogsError::Read { target: run.target.clone(), step: run.step.clone(), source };
    while let Some(line) = lines.try_next().await.map_err(failed)? {
        shown.line(&prefix, &line);
    }
    Ok(())
}

fn has_started(pod: &Pod) -> bool {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().filter(|container| container.name == EXECUTOR).any(|container| {
        container.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    })
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;

    use futures::FutureExt;
    use serde_json::json;
    use tokio::sync::Notify;

    use super::*;
    use crate::item::tests::{conditions, item, server, step};
    use crate::stub::{Stub, reply};

    const RUNNING: (&str, &str, &str) = ("False", "Running", "x");

    #[test]
    fn what_a_cluster_made_belongs_to_its_workflow_in_whatever_order_it_is_seen() {
        let of = |name: &str, owner: &str| {
            let mut item = server(name, RUNNING, json!([]));
            item.metadata.labels = Some([(LABEL_OWNER_UID.to_owned(), owner.to_owned())].into());
            item
        };
        let mut family = Family::of(&of("first", ""), None);
        let mut with = |item: Item| family.with(item).iter().map(|item| item.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(with(of("heron", "uid-web")), [""; 0]);
        assert_eq!(with(of("curlew", "uid-other")), [""; 0]);
        assert_eq!(with(of("web", "uid-first")), ["web", "heron"]);
        assert_eq!(with(of("heron", "uid-web")), ["heron"]);
    }

    /// A workflow two of whose steps run: `cache` applies the Taskserv redis, `box` the Server heron.
    fn two_children(phase: &str) -> Item {
        let apply = |id: &str, why: &str| {
            let mut apply = step(id, "Apply", phase);
            apply["why"] = json!(why);
            apply
        };
        item(
            Kind::BatchWorkflow,
            json!({"metadata": {"name": "first", "namespace": "first", "uid": "uid-first", "generation": 1,
                    "resourceVersion": "7"},
                "spec": {"steps": []}, "status": {"observedGeneration": 1, "schema": 1, "conditions": conditions(RUNNING),
                    "steps": [apply("cache", "Taskserv redis"), apply("box", "Server heron")]}}),
        )
    }

    /// What the workflow made.
    fn child(kind: Kind, name: &str, id: &str, action: &str) -> Item {
        let spec = match kind {
            Kind::Taskserv => json!({"extension": {"name": "redis"}, "servers": ["heron"]}),
            _ => server("x", RUNNING, json!([])).json["spec"].take(),
        };
        item(
            kind,
            json!({"metadata": {"name": name, "namespace": "first", "uid": format!("uid-{name}"), "generation": 1,
                    "labels": {LABEL_OWNER_UID: "uid-first"}},
                "spec": spec, "status": {"observedGeneration": 1, "schema": 1, "conditions": conditions(RUNNING),
                    "steps": [step(id, action, "Running")]}}),
        )
    }

    #[tokio::test]
    async fn a_step_that_applies_is_followed_in_its_own_child_and_in_no_other() {
        let objects = [
            two_children("Running"),
            child(Kind::Server, "heron", "create", "Create"),
            child(Kind::Taskserv, "redis", "install/heron", "Install"),
        ];
        let (known, read) = (objects.clone(), Arc::new(Notify::new()));
        let stub = Stub::slow(move |request| {
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            let kind = known.iter().find(|item| path.ends_with(item.kind.plural()));
            let list = |items: serde_json::Value| json!({"metadata": {"resourceVersion": "1"}, "items": items});
            let pod = json!({"metadata": {"name": query.rsplit("%3D").next().and_then(|rest| rest.split('&').next())}, "status": {"containerStatuses": [
                {"name": "executor", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                 "state": {"running": {}}}]}});
            let answer = match kind {
                _ if path.ends_with("/log") => {
                    read.notify_one();
                    json!("one line")
                }
                _ if path.ends_with("/pods") => list(json!([pod])),
                // The workflow ends once a log was read; all else is at rest.
                Some(item) if query.contains("watch=true") && item.kind == Kind::BatchWorkflow => {
                    let (read, ended) = (read.clone(), two_children("Succeeded").json);
                    return async move {
                        read.notified().await;
                        reply(200, json!({"type": "MODIFIED", "object": ended}))
                    }
                    .boxed();
                }
                _ if query.contains("watch=true") => return pending().boxed(),
                Some(item) => list(json!([item.json])),
                None => list(json!([])),
            };
            ready(reply(200, answer)).boxed()
        });
        let shown = Shown { raw: false, style: Style::PLAIN };
        let cluster = stub.cluster();
        let work = follow(&cluster, &objects[0], Some("cache"), shown);
        // A test that hangs tells nothing.
        tokio::time::timeout(Duration::from_secs(20), work).await.unwrap().unwrap();
        let logs: Vec<String> = stub.requests().into_iter().filter(|request| request.contains("/log?")).collect();
        let pod = job_name("uid-redis", "install/heron", 1);
        assert_eq!(logs, [format!("GET /api/v1/namespaces/first/pods/{pod}/log?&container=executor&follow=true")]);
    }

    #[test]
    fn a_step_with_an_executor_is_followed_alone() {
        let steps = json!([step("create", "Create", "Running"), step("reach", "Reach", "Running")]);
        let heron = server("heron", RUNNING, steps);
        let mut family = Family::of(&heron, Some("reach"));
        let found = family.with(heron);
        let started: Vec<&str> = starting(&found[0], family.only.as_deref()).map(|step| step.id.as_str()).collect();
        assert_eq!(started, ["reach"]);
    }

    fn ids(item: &Item) -> Vec<&str> {
        chosen(item, None).unwrap().iter().map(|step| step.id.as_str()).collect()
    }

    #[test]
    fn running_steps_come_before_failed_ones_and_those_before_the_rest() {
        let ended = |id: &str, phase: &str, second: u8, class: serde_json::Value| {
            let mut step = step(id, "Reach", phase);
            step["finishedAt"] = json!(format!("2026-05-04T10:00:{second:02}Z"));
            step["class"] = class;
            step
        };
        let done = [ended("a", "Succeeded", 30, json!(null)), ended("b", "Succeeded", 10, json!(null))];
        assert_eq!(ids(&server("heron", RUNNING, json!(done))), ["a"]);
        let mut steps = done.to_vec();
        steps.push(ended("c", "Failed", 5, json!("Invalid")));
        assert_eq!(ids(&server("heron", RUNNING, json!(steps))), ["c"]);
        steps.push(step("d", "Check", "Running"));
        assert_eq!(ids(&server("heron", RUNNING, json!(steps))), ["d"]);
        let error = chosen(&server("heron", RUNNING, json!([])), None).unwrap_err();
        assert_eq!(error.exit(), Exit::No);
        let error = known(&server("heron", RUNNING, json!(steps)), "dd").unwrap_err().to_string();
        assert_eq!(error, "server/heron has no step 'dd' (did you mean 'd'?); it has: a, b, c, d");
    }

    /// A server of some objects where the log of one Pod can be read and one container is being made.
    fn in_mid_run(objects: &[Item], read: String, made: String) -> Stub {
        let known = objects.to_vec();
        Stub::new(move |request| {
            let path = request.uri().path();
            let (url, missing) = (path.rsplit('/').take(2).collect::<Vec<_>>(), json!({"name": "x"}));
            let status = |code: u16| json!({"kind": "Status", "code": code, "reason": "x", "details": missing});
            let found = known.iter().find(|item| url == [item.name(), item.kind.plural()]);
            match found {
                Some(item) => reply(200, item.json.clone()),
                None if path.ends_with("/configmaps") => reply(200, json!({"metadata": {}, "items": []})),
                None if path.contains(&read) => reply(200, json!("one line")),
                None if path.contains(&made) => reply(400, status(400)),
                None => reply(404, status(404)),
            }
        })
    }

    #[tokio::test]
    async fn in_mid_run_those_that_have_no_log_yet_hide_no_other() {
        let mut first = two_children("Running").json;
        let mut more = |id: &str, action: &str, why: &str| {
            let mut more = step(id, action, "Running");
            more["why"] = json!(why);
            first["status"]["steps"].as_array_mut().unwrap().push(more);
        };
        more("made", "Apply", "Server tern");
        more("later", "Apply", "Server curlew");
        more("away", "Apply", "Server egret");
        more("await", "Wait", "Server heron");
        more("old", "Delete", "Server wren");
        let mut curlew = child(Kind::Server, "curlew", "create", "Create").json;
        curlew["status"]["steps"] = json!([]);
        let objects = [
            item(Kind::BatchWorkflow, first),
            child(Kind::Taskserv, "redis", "install/heron", "Install"),
            // Its Pod is gone.
            child(Kind::Server, "heron", "create", "Create"),
            child(Kind::Server, "tern", "create", "Create"),
            item(Kind::Server, curlew),
        ];
        let (read, made) = (job_name("uid-redis", "install/heron", 1), job_name("uid-tern", "create", 1));
        let (stub, shown) = (in_mid_run(&objects, read, made.clone()), Shown { raw: false, style: Style::PLAIN });
        let cluster = stub.cluster();
        past(&cluster, &objects[0], None, false, shown).await.unwrap();
        let mut gaps = Vec::new();
        let found = runs(&cluster, &objects[0], None, false, &mut gaps).await.unwrap();
        let names = |runs: &[Run]| runs.iter().map(|run| run.target.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found), ["redis", "heron", "tern"]);
        let gaps: Vec<String> = gaps.iter().map(ToString::to_string).collect();
        assert!(
            matches!(gaps.as_slice(), [away, later] if away.contains("egret in namespace first: not found")
                && later.contains("curlew: no step has run yet")),
            "{gaps:?}"
        );
        // Where there is no log at all, that is the answer.
        let none = in_mid_run(&objects, "nowhere".to_owned(), made);
        let error = past(&none.cluster(), &objects[0], None, false, shown).await.unwrap_err();
        assert_eq!(error.exit(), Exit::No);
        let error = past(&cluster, &objects[0], Some("await"), false, shown).await.unwrap_err();
        assert_eq!((error.exit(), error.to_string().contains("no executor does it")), (Exit::Usage, true));
    }

    #[tokio::test]
    async fn the_log_of_a_run_whose_pod_is_gone_is_the_kept_one() {
        let stub = Stub::new(|request| match request.uri().path().ends_with("/configmaps") {
            true => reply(
                200,
                json!({"metadata": {}, "items": [
                    {"metadata": {"labels": {"provisioning.dev/run": "1"}}, "data": {"log": "kept\n"}}]}),
            ),
            false => reply(404, json!({"kind": "Status", "code": 404, "reason": "NotFound", "details": {"name": "x"}})),
        });
        let heron = server("heron", RUNNING, json!([step("create", "Create", "Failed")]));
        let run = Run::past(&heron, &heron.steps()[0], false).unwrap();
        assert_eq!(Run::past(&heron, &heron.steps()[0], true).unwrap_err().exit(), Exit::No);
        assert_eq!(text(&stub.cluster(), &run).await.unwrap(), "kept\n");
        let pod = job_name("uid-heron", "create", 1);
        let expected = [
            format!("GET /api/v1/namespaces/first/pods/{pod}/log?&container=executor"),
            "GET /api/v1/namespaces/first/configmaps?&labelSelector=provisioning.dev%2Fowner-uid%3Duid-heron%2C\
             provisioning.dev%2Flog-of%3Dfa8847b0c3318327"
                .to_owned(),
        ];
        assert_eq!(stub.requests(), expected);
    }
}
