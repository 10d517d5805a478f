//! `provisioning diff`: what `apply` would change, as the API server sees it: a server-side dry run.

use std::path::PathBuf;

use clap::Args;
use kube::Api;
use kube::api::DynamicObject;
use serde_json::Value;
use similar::TextDiff;

use crate::applying::{self, How, place};
use crate::cluster::{Cluster, ClusterArguments};
use crate::error::Error;
use crate::exit::Exit;
use crate::manifest::{self, Document};
use crate::output::{self, Colour, Style, print, tell};
use crate::request::{RequestError, check_address};
use crate::safe::visible;

/// Lines around a change.
const CONTEXT: usize = 3;

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A file, a folder (its .yaml, .yml and .json files by name), or - for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// As `apply --force-conflicts` would
    #[arg(long)]
    force_conflicts: bool,
}

/// Compares manifests with what is there. As in kubectl, 1 says that there are differences, so what is 1 elsewhere, an
/// unexpected failure, is 2 here.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    match compare(arguments, cluster, style).await {
        Err(error) if error.exit() == Exit::Failed => {
            output::error(&error.into());
            Ok(Exit::Usage)
        }
        other => other,
    }
}

async fn compare(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    let checked = manifest::read(&arguments.files, cluster.namespace.as_deref())?;
    let cluster = Cluster::find(cluster).await?;
    let mut exit = Exit::Done;
    let mut differ = false;
    for document in checked {
        let document = document.within(&cluster.namespace);
        match one(&cluster, &document, arguments.force_conflicts).await {
            Ok((before, after)) => {
                let text = unified(&document.to_string(), &plain(before)?, &plain(Some(after))?);
                differ |= !text.is_empty();
                print(&coloured(&text, style));
            }
            Err(error @ RequestError::NoAnswer(_)) => return Err(error.into()),
            Err(error) => {
                tell(&format!("error: {error}"));
                let code = if error.exit() == Exit::Failed { Exit::Usage } else { error.exit() };
                exit = if exit == Exit::Done { code } else { exit };
            }
        }
    }
    Ok(if exit == Exit::Done && differ { Exit::Failed } else { exit })
}

/// An object as it is, if it is there, and as it would be.
async fn one(
    cluster: &Cluster,
    document: &Document,
    force: bool,
) -> Result<(Option<DynamicObject>, DynamicObject), RequestError> {
    let (resource, namespace) = place(document);
    check_address(namespace, &document.name)?;
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        None => Api::all_with(cluster.client.clone(), &resource),
    };
    let before = api.get_opt(&document.name).await;
    let before = before.map_err(|error| RequestError::new(cluster, "get", applying::named(document), error))?;
    match applying::apply(cluster, document, How { dry_run: true, force }).await {
        Ok(written) => Ok((before, written.object)),
        // Its namespace comes with the same files, perhaps: then all of it is new.
        Err(RequestError::NoNamespace { .. }) if before.is_none() => {
            let read = serde_json::from_value(document.json.clone());
            let answer = |error: serde_json::Error| RequestError::Answer {
                verb: "compare",
                what: applying::named(document),
                text: error.to_string(),
            };
            Ok((None, read.map_err(answer)?))
        }
        Err(error) => Err(error),
    }
}

/// An object as YAML, without what no manifest says.
fn plain(object: Option<DynamicObject>) -> Result<String, Error> {
    let Some(object) = object else { return Ok(String::new()) };
    let mut json = serde_json::to_value(object)?;
    if let Some(top) = json.as_object_mut() {
        top.remove("status");
    }
    if let Some(metadata) = json.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"] {
            metadata.remove(field);
        }
    }
    Ok(serde_saphyr::to_string(&json)?)
}

/// The unified form; nothing where both are equal.
fn unified(name: &str, before: &str, after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    let text = diff
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&format!("live/{name}"), &format!("applied/{name}"))
        .to_string();
    if before == after { String::new() } else { text }
}

fn coloured(text: &str, style: Style) -> String {
    let line = |line: &str| {
        let line = &visible(line);
        let colour = match line.as_bytes().first() {
            Some(b'+') => Colour::Green,
            Some(b'-') => Colour::Red,
            Some(b'@') => Colour::Dim,
            _ => return format!("{line}\n"),
        };
        format!("{}\n", style.paint(colour, line))
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::tests::documents;
    use crate::stub::{Stub, reply};

    const WORKSPACE: &str = "\
apiVersion: provisioning.dev/v1alpha1
kind: Workspace
metadata: {name: workspace, namespace: first}
spec: {parallelism: 3}
";

    fn workspace(parallelism: i32, generation: i32) -> Value {
        json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace", "metadata": {"name": "workspace",
            "namespace": "first", "uid": "u", "generation": generation, "resourceVersion": "7",
            "managedFields": [{"manager": "x"}]},
            "spec": {"parallelism": parallelism, "suspend": false}, "status": {"epoch": generation}})
    }

    /// What is printed about an object that is `before`, which would be `after`, and what was asked.
    async fn told(before: Option<Value>, after: Value) -> (String, Vec<String>) {
        let missing = json!({"kind": "Status", "code": 404, "reason": "NotFound", "details": {"name": "workspace"}});
        let stub = Stub::new(move |request| match (request.method().as_str(), &before) {
            ("GET", None) => reply(404, missing.clone()),
            ("GET", Some(before)) => reply(200, before.clone()),
            _ => reply(200, after.clone()),
        });
        let [document] = documents(WORKSPACE).try_into().unwrap();
        let (before, after) = one(&stub.cluster(), &document, false).await.unwrap();
        (unified("workspace/workspace", &plain(before).unwrap(), &plain(Some(after)).unwrap()), stub.requests())
    }

    #[tokio::test]
    async fn a_change_is_shown_with_its_surroundings() {
        let (text, requests) = told(Some(workspace(8, 1)), workspace(3, 2)).await;
        let expected = "\
--- live/workspace/workspace
+++ applied/workspace/workspace
@@ -4,5 +4,5 @@
   name: workspace
   namespace: first
 spec:
-  parallelism: 8
+  parallelism: 3
   suspend: false
";
        assert_eq!(text, expected);
        let url = "/apis/provisioning.dev/v1alpha1/namespaces/first/workspaces/workspace";
        let parameters = "?&dryRun=All&fieldManager=provisioning-cli&fieldValidation=Strict";
        assert_eq!(requests, [format!("GET {url}"), format!("PATCH {url}{parameters}")]);
    }

    #[tokio::test]
    async fn what_the_server_counts_is_no_difference() {
        assert_eq!(told(Some(workspace(3, 1)), workspace(3, 2)).await.0, "");
    }

    #[tokio::test]
    async fn what_is_not_there_is_all_new() {
        let (text, _) = told(None, workspace(3, 1)).await;
        assert!(
            text.starts_with(
                "--- live/workspace/workspace\n+++ applied/workspace/workspace\n@@ -0,0 +1,8 @@\n+apiVersion"
            ),
            "{text}"
        );
    }

    #[test]
    fn colours_are_those_of_git() {
        let style = Style { colour: true, ..Style::PLAIN };
        assert_eq!(coloured("-a\n+b\n c\n", style), "\u{1b}[31m-a\u{1b}[0m\n\u{1b}[32m+b\u{1b}[0m\n c\n");
        assert_eq!(coloured("-a\n", Style::PLAIN), "-a\n");
    }
}
