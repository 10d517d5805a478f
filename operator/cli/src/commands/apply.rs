//! `provisioning apply`: everything is checked first, then one request for each object.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::client::Body;
use kube::core::{Request, Status};
use kube::{Resource, ResourceExt};

use crate::cluster::{Cluster, ClusterArguments};
use crate::error::Error;
use crate::exit::Exit;
use crate::goal::{Goal, Waiting};
use crate::manifest::{self, Document, DocumentKind};
use crate::output::print;
use crate::request::RequestError;
use crate::times::parse_duration;

/// Who applies, for server-side apply.
pub(super) const FIELD_MANAGER: &str = "provisioning-cli";

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A file, a folder (its .yaml, .yml and .json files by name), or - for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Let the API server check everything and change nothing
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_missing_value = "server")]
    dry_run: Option<DryRun>,
    /// Take over fields that somebody else manages
    #[arg(long)]
    force_conflicts: bool,
    /// Wait until all applied objects are Ready; what happens meanwhile goes to standard error
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait at most
    #[arg(long, default_value = "30m", value_parser = parse_duration, requires = "wait")]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DryRun {
    Server,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Created,
    Configured,
    Unchanged,
    /// It is as it was asked for; whether it was before, the answer does not tell.
    Applied,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Created => "created",
            Outcome::Configured => "configured",
            Outcome::Unchanged => "unchanged",
            Outcome::Applied => "applied",
        }
    }
}

/// Applies manifests.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments) -> Result<Exit, Error> {
    // First what needs no cluster: a wrong file is told also where there is none.
    let checked = manifest::read(&arguments.files, cluster.namespace.as_deref())?;
    let cluster = Cluster::find(cluster).await?;
    let documents: Vec<Document> = checked.into_iter().map(|document| document.within(&cluster.namespace)).collect();
    let mut exit = Exit::Done;
    let mut applied = Vec::new();
    for document in &documents {
        match apply(&cluster, document, arguments.dry_run, arguments.force_conflicts).await {
            Ok(outcome) => {
                let dry = if arguments.dry_run.is_some() { " (server dry run)" } else { "" };
                print(&format!("{document} {}{dry}\n", outcome.word()));
                applied.push(document);
            }
            // Without a cluster the rest can't work either.
            Err(error @ RequestError::NoAnswer(_)) => return Err(error.into()),
            Err(error) => {
                eprintln!("error: {error}");
                exit = if exit == Exit::Done { error.exit() } else { exit };
            }
        }
    }
    if arguments.wait && exit == Exit::Done {
        wait(&cluster, &applied, arguments.timeout).await?;
    }
    Ok(exit)
}

async fn wait(cluster: &Cluster, documents: &[&Document], timeout: Duration) -> Result<(), Error> {
    let end = Instant::now() + timeout;
    for document in documents {
        let DocumentKind::Ours(kind) = document.kind else { continue };
        let timeout = Some(end.saturating_duration_since(Instant::now()));
        let waiting = Waiting { goal: Goal::Ready, timeout, keep_waiting: false };
        let mut told = super::wait::teller();
        crate::goal::wait(
            cluster,
            kind,
            &document.namespace,
            std::slice::from_ref(&document.name),
            &waiting,
            &mut told,
        )
        .await?;
        print(&format!("{document} ready\n"));
    }
    Ok(())
}

async fn apply(
    cluster: &Cluster,
    document: &Document,
    dry_run: Option<DryRun>,
    force: bool,
) -> Result<Outcome, RequestError> {
    let (resource, namespace) = match document.kind {
        DocumentKind::Namespace => (ApiResource::erase::<Namespace>(&()), None),
        DocumentKind::Ours(kind) => (kind.resource(), Some(document.namespace.as_str())),
    };
    let within = namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
    let what = format!("{document}{within}");
    let mut parameters = PatchParams::apply(FIELD_MANAGER).validation_strict();
    parameters.dry_run = dry_run.is_some();
    parameters.force = force;
    let url = DynamicObject::url_path(&resource, namespace);
    let failed = |error| RequestError::new(cluster, "apply", what.clone(), error);
    let request = Request::new(url).patch(&document.name, &parameters, &Patch::Apply(&document.json));
    let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
    let begin = Instant::now();
    let reply = cluster.client.send(request.map(Body::from)).await.map_err(failed)?;
    let (code, date) = (reply.status(), reply.headers().get("date").cloned());
    let body = reply.into_body().collect_bytes().await.map_err(failed)?;
    if !code.is_success() {
        let text = String::from_utf8_lossy(&body);
        let status = serde_json::from_str::<Status>(&text)
            .unwrap_or_else(|_| Status::failure(text.trim(), "").with_code(code.as_u16()));
        return Err(RequestError::from_status("apply", what, status.boxed()));
    }
    let object: DynamicObject =
        serde_json::from_slice(&body).map_err(|error| failed(kube::Error::SerdeError(error)))?;
    let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok()).map(|date| date.timestamp());
    Ok(outcome(code.as_u16() == 201, last_change(&object), date, begin.elapsed()))
}

/// When this program last changed the object, as the API server remembers it.
fn last_change(object: &DynamicObject) -> Option<Timestamp> {
    let own = object.managed_fields().iter().find(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.is_none()
    });
    own?.time.as_ref().map(|time| time.0)
}

/// Whether this request changed anything.
///
/// 201 says that it created. Otherwise the API server moves the time of our entry in `managedFields` exactly when something
/// changed, and the reply's own `Date` is of the same clock: an entry from before the request means that nothing did. Both
/// have whole seconds, so an object that was changed within the second before is told as changed once too often.
fn outcome(created: bool, changed: Option<Timestamp>, date: Option<Timestamp>, took: Duration) -> Outcome {
    if created {
        return Outcome::Created;
    }
    let (Some(changed), Some(date)) = (changed, date) else { return Outcome::Applied };
    let since = date.duration_since(changed).as_secs_f64();
    if since > took.as_secs_f64() + 1.0 { Outcome::Unchanged } else { Outcome::Configured }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::documents;
    use crate::stub::{Stub, reply};

    const TWO: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: first}
---
apiVersion: provisioning.dev/v1alpha1
kind: Workspace
metadata: {name: workspace, namespace: first}
spec: {}
";

    #[test]
    fn only_what_the_answer_tells_is_said() {
        let at = |second| Timestamp::from_second(second).ok();
        let moment = Duration::from_millis(5);
        assert_eq!(outcome(true, None, None, moment), Outcome::Created);
        assert_eq!(outcome(false, at(100), at(100), moment), Outcome::Configured);
        assert_eq!(outcome(false, at(100), at(102), moment), Outcome::Unchanged);
        assert_eq!(outcome(false, at(100), at(102), Duration::from_secs(3)), Outcome::Configured);
        assert_eq!(outcome(false, None, at(102), moment), Outcome::Applied);
        assert_eq!(outcome(false, at(100), None, moment), Outcome::Applied);
    }

    #[tokio::test]
    async fn each_object_is_one_request() {
        let stub = Stub::new(|request| {
            let created = request.uri().path().ends_with("/namespaces/first");
            reply(if created { 201 } else { 200 }, serde_json::json!({"metadata": {"name": "x"}}))
        });
        let cluster = stub.cluster();
        let mut outcomes = Vec::new();
        for document in &documents(TWO) {
            outcomes.push(apply(&cluster, document, Some(DryRun::Server), false).await.unwrap());
        }
        assert_eq!(outcomes, [Outcome::Created, Outcome::Applied]);
        let parameters = "&dryRun=All&fieldManager=provisioning-cli&fieldValidation=Strict";
        let expected = [
            format!("PATCH /api/v1/namespaces/first?{parameters}"),
            format!("PATCH /apis/provisioning.dev/v1alpha1/namespaces/first/workspaces/workspace?{parameters}"),
        ];
        assert_eq!(stub.requests(), expected);
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_with_its_fields() {
        let stub = Stub::new(|_| {
            reply(
                422,
                serde_json::json!({"kind": "Status", "code": 422, "reason": "Invalid", "details": {"name": "first",
                "causes": [{"field": "spec.parallelism", "message": "too many"}]}}),
            )
        });
        let error = apply(&stub.cluster(), &documents(TWO)[1], None, false).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Refused);
        assert!(error.to_string().ends_with("\n  spec.parallelism: too many"), "{error}");
    }
}
