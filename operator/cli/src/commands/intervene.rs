//! `provisioning retry`, `skip`, `suspend`, `resume`: what a person tells the operator about objects that are there, each
//! one field or annotation.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use jiff::Timestamp;
use provisioning_api::conditions::types;
use provisioning_api::names::{ANNOTATION_RECONCILE, ANNOTATION_SKIP_STEPS};
use provisioning_api::steps::{StepPhase, StepStatus};
use provisioning_plan::nearest::hint;
use serde_json::{Value, json};

use crate::cluster::{Cluster, ClusterArguments};
use crate::complete;
use crate::dry_run::{DryRun, Where};
use crate::error::Error;
use crate::exit::Exit;
use crate::item::{Item, Typed};
use crate::kinds::{Kind, KindError, Target, targets};
use crate::output::{print, tell};
use crate::request::{RequestError, explained, get, merge};

/// Arguments of `retry`, `suspend` and `resume`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// KIND NAME…, or KIND/NAME…; a workspace needs no name
    #[arg(required = true, value_name = "KIND NAME", add = ArgValueCompleter::new(complete::objects))]
    objects: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Arguments of `skip`.
#[derive(Debug, Args)]
pub(crate) struct SkipArguments {
    /// The workflow, and the names of its steps
    #[arg(required = true, num_args = 2.., value_name = "WORKFLOW STEP", add = ArgValueCompleter::new(complete::workflow_and_steps))]
    words: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

/// What a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Another try of what failed, or another look.
    Retry,
    /// Nothing forward starts.
    Suspend,
    /// It goes on.
    Resume,
}

impl Wish {
    fn change(self, now: Timestamp) -> Value {
        match self {
            Wish::Retry => json!({"metadata": {"annotations": {ANNOTATION_RECONCILE: now.to_string()}}}),
            Wish::Suspend => json!({"spec": {"suspend": true}}),
            Wish::Resume => json!({"spec": {"suspend": false}}),
        }
    }

    fn done(self) -> &'static str {
        match self {
            Wish::Retry => "is asked for another try",
            Wish::Suspend => "suspended",
            Wish::Resume => "resumed",
        }
    }

    /// Whether a kind knows it.
    fn check(self, kind: Kind) -> Result<(), Error> {
        match (self, kind) {
            (Wish::Retry, Kind::Workspace) => Err(Error::Usage(
                "a workspace runs no steps that could be tried again; name the object that failed".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// Changes objects, one request for each; one that can't be changed stops no other.
pub(crate) async fn run(arguments: Arguments, wish: Wish, cluster: &ClusterArguments) -> Result<Exit, Error> {
    let targets = targets(&arguments.objects)?;
    targets.iter().try_for_each(|target| wish.check(target.kind))?;
    let dry_run = arguments.dry_run;
    if dry_run.is_client() {
        targets.iter().for_each(|target| print(&format!("{target} {}{}\n", wish.done(), dry_run.suffix())));
        return Ok(Exit::Done);
    }
    let cluster = Cluster::find(cluster).await?;
    let mut exit = Exit::Done;
    let change = wish.change(Timestamp::now());
    for target in &targets {
        match merge(&cluster, target, &change, dry_run.is_server()).await {
            Ok(item) => {
                print(&format!("{target} {}{}\n", wish.done(), dry_run.suffix()));
                if let Some(note) = nothing_to_retry(&item).filter(|_| wish == Wish::Retry) {
                    tell(&format!("note: {note}"));
                }
            }
            Err(error @ RequestError::NoAnswer(_)) => return Err(error.into()),
            Err(error) => {
                tell(&format!("error: {}", explained(&error, target.kind, &cluster.namespace)));
                exit = if exit == Exit::Done { error.exit() } else { exit };
            }
        }
    }
    Ok(exit)
}

/// What is said where nothing has failed: steps that succeeded with equal input are not executed again. A Server and a
/// ProviderConfig look again at what is outside all the same.
fn nothing_to_retry(item: &Item) -> Option<String> {
    let looks_again = matches!(item.kind, Kind::Server | Kind::ProviderConfig);
    let is_done = |step: &StepStatus| matches!(step.phase, StepPhase::Succeeded | StepPhase::Skipped);
    let has_only_done = !item.steps().is_empty() && item.steps().iter().all(is_done);
    // Of a newer spec nobody knows yet. Nor is the wish itself heard yet.
    if looks_again || item.is_deleting() || !item.is_of_newest_spec() || !has_only_done {
        return None;
    }
    let target = item.target();
    let ready = item.condition(types::READY).filter(|ready| ready.status != "True");
    let stands = ready.map_or_else(String::new, |ready| format!(" ({}: {})", ready.reason, ready.message));
    Some(format!("no step of {target} has failed, so none runs again{stands}"))
}

/// Passes steps over.
pub(crate) async fn skip(arguments: SkipArguments, cluster: &ClusterArguments) -> Result<Exit, Error> {
    let SkipArguments { words, dry_run } = arguments;
    let Some((first, steps)) = words.split_first() else { return Err(KindError::NoName("batchworkflow").into()) };
    let workflow = workflow(first)?;
    let cluster = Cluster::find(cluster).await?;
    match pass_over(&cluster, &workflow, steps, dry_run.place()).await {
        Ok((added, done)) => {
            let told = if added.is_empty() { "is asked to already".to_owned() } else { added.join(", ") };
            print(&format!("{workflow} passes over {told}{}\n", dry_run.suffix()));
            if !done.is_empty() {
                tell(&format!("note: {} succeeded and stays; later changes of it are passed over", done.join(", ")));
            }
            Ok(Exit::Done)
        }
        Err(Error::Request(error @ RequestError::NotFound { .. })) => {
            tell(&format!("error: {}", explained(&error, Kind::BatchWorkflow, &cluster.namespace)));
            Ok(error.exit())
        }
        Err(error) => Err(error),
    }
}

/// `first`, `bwf/first` or `batch/first`.
fn workflow(word: &str) -> Result<Target, Error> {
    match word.split_once('/') {
        None => Ok(Target::named(Kind::BatchWorkflow, word)?),
        Some(_) => match targets(&[word.to_owned()])?.as_slice() {
            [target] if target.kind == Kind::BatchWorkflow => Ok(target.clone()),
            _ => Err(Error::Usage(format!("{word} is no BatchWorkflow; only its steps can be passed over"))),
        },
    }
}

/// Adds steps to those that are passed over; two requests, because those that are named already stay named. Gives the
/// steps that are new there, and those of them that have succeeded.
async fn pass_over(
    cluster: &Cluster,
    workflow: &Target,
    steps: &[String],
    dry_run: Option<Where>,
) -> Result<(Vec<String>, Vec<String>), Error> {
    let item = get(cluster, workflow).await?;
    let known = known(&item);
    if let Some(unknown) = steps.iter().find(|step| !known.contains(step)) {
        let near = hint(unknown, known.iter().map(String::as_str));
        return Err(Error::Usage(format!("{workflow} has no step '{unknown}'{near}; it has: {}", known.join(", "))));
    }
    let written = item.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_SKIP_STEPS));
    let mut all: Vec<String> =
        written.into_iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_owned()).collect();
    all.retain(|name| !name.is_empty());
    let mut added = Vec::new();
    for step in steps {
        if !all.contains(step) {
            all.push(step.clone());
            added.push(step.clone());
        }
    }
    let has_succeeded =
        |id: &String| item.steps().iter().any(|step| step.id == *id && step.phase == StepPhase::Succeeded);
    let done = added.iter().filter(|id| has_succeeded(id)).cloned().collect();
    if added.is_empty() || dry_run == Some(Where::Client) {
        return Ok((added, done));
    }
    let change = json!({"metadata": {"annotations": {ANNOTATION_SKIP_STEPS: all.join(",")},
        // Of two people at the same time one is refused, and none forgotten.
        "resourceVersion": item.metadata.resource_version}});
    merge(cluster, workflow, &change, dry_run.is_some()).await?;
    Ok((added, done))
}

/// The steps that a workflow wants.
fn known(item: &Item) -> Vec<String> {
    match &item.typed {
        Ok(Typed::BatchWorkflow(workflow)) => workflow.spec.steps.iter().map(|step| step.name.clone()).collect(),
        _ => item.steps().iter().map(|step| step.id.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::tests::{conditions, item, server, step};
    use crate::stub::{Stub, reply};

    const URL: &str = "/apis/provisioning.dev/v1alpha1/namespaces/first/batchworkflows/first";

    fn stub(skipped: Option<&'static str>) -> Stub {
        Stub::new(move |_| {
            let mut workflow = json!({"metadata": {"name": "first", "namespace": "first", "resourceVersion": "7"},
                "spec": {"steps": [
                    {"name": "db", "delete": {"kind": "Server", "name": "heron"}},
                    {"name": "proxy", "delete": {"kind": "Server", "name": "curlew"}}]}});
            if let Some(names) = skipped {
                workflow["metadata"]["annotations"] = json!({ANNOTATION_SKIP_STEPS: names});
            }
            workflow["status"]["steps"] = json!([
                {"id": "proxy", "action": "Delete", "undo": "None", "inputHash": "v1:0", "phase": "Succeeded", "run": 1}]);
            reply(200, workflow)
        })
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn steps_that_are_passed_over_already_stay_so() {
        let (stub, target) = (stub(Some("db")), workflow("bwf/first").unwrap());
        let (added, done) = pass_over(&stub.cluster(), &target, &words("proxy db"), None).await.unwrap();
        assert_eq!((added, done), (vec!["proxy".to_owned()], vec!["proxy".to_owned()]));
        let expected =
            json!({"metadata": {"annotations": {ANNOTATION_SKIP_STEPS: "db,proxy"}, "resourceVersion": "7"}});
        assert_eq!(stub.bodies(), [expected]);
        assert_eq!(stub.requests(), [format!("GET {URL}"), format!("PATCH {URL}?&fieldManager=provisioning-cli")]);
    }

    #[tokio::test]
    async fn nothing_new_and_a_client_dry_run_write_nothing() {
        let target = workflow("first").unwrap();
        for (there, asked, dry_run) in [(Some("db"), "db", None), (None, "db", Some(Where::Client))] {
            let stub = stub(there);
            pass_over(&stub.cluster(), &target, &words(asked), dry_run).await.unwrap();
            assert_eq!(stub.requests(), [format!("GET {URL}")]);
        }
    }

    #[tokio::test]
    async fn an_unknown_step_is_told_with_the_nearest_one() {
        let stub = stub(None);
        let error = pass_over(&stub.cluster(), &workflow("first").unwrap(), &words("prxy"), None).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert_eq!(
            error.to_string(),
            "batchworkflow/first has no step 'prxy' (did you mean 'proxy'?); it has: db, proxy"
        );
    }

    #[test]
    fn who_asks_for_a_retry_of_what_has_not_failed_is_told() {
        let of = |kind, phase: &str| {
            let steps = json!([step("check/heron", "Check", phase), step("install/heron", "Install", "Succeeded")]);
            let conditions = conditions(("False", "Unhealthy", "probe 'tcp' on heron: connection refused"));
            let status = json!({"observedGeneration": 1, "conditions": conditions, "steps": steps});
            item(
                kind,
                json!({"metadata": {"name": "redis", "namespace": "first", "generation": 1}, "status": status,
                "spec": {"extension": {"name": "redis"}, "servers": ["heron"]}}),
            )
        };
        let told = nothing_to_retry(&of(Kind::Taskserv, "Succeeded")).unwrap();
        let words = "(Unhealthy: probe 'tcp' on heron: connection refused)";
        assert_eq!(told, format!("no step of taskserv/redis has failed, so none runs again {words}"));
        for phase in ["Failed", "Pending", "Running", "UndoFailed", "Undone", "Omitted"] {
            assert_eq!(nothing_to_retry(&of(Kind::Taskserv, phase)), None, "{phase}");
        }
        let mut newer = of(Kind::Taskserv, "Succeeded").json;
        newer["metadata"]["generation"] = json!(2);
        assert_eq!(nothing_to_retry(&item(Kind::Taskserv, newer)), None);
        assert_eq!(nothing_to_retry(&server("heron", ("True", "Succeeded", ""), json!([]))), None);
    }

    #[test]
    fn each_wish_is_one_field() {
        let now: Timestamp = "2026-05-04T10:00:00Z".parse().unwrap();
        let expected = json!({"metadata": {"annotations": {ANNOTATION_RECONCILE: "2026-05-04T10:00:00Z"}}});
        assert_eq!(Wish::Retry.change(now), expected);
        assert_eq!(Wish::Suspend.change(now), json!({"spec": {"suspend": true}}));
        assert_eq!(Wish::Resume.change(now), json!({"spec": {"suspend": false}}));
        assert_eq!(Wish::Retry.check(Kind::Workspace).unwrap_err().exit(), Exit::Usage);
        assert!(Wish::Suspend.check(Kind::Workspace).is_ok());
        assert!(workflow("srv/heron").is_err());
    }
}
