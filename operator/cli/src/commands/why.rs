//! `provisioning why`: from an object that is not Ready to the cause, one request for each link.

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use provisioning_api::conditions::{reasons, types};
use serde_json::{Value, json};

use crate::advice::{about_class, about_missing, about_words, advice};
use crate::chain::{Link, State, given, next};
use crate::cluster::{Cluster, ClusterArguments};
use crate::complete;
use crate::error::Error;
use crate::exit::Exit;
use crate::item::Item;
use crate::kinds::{Target, targets};
use crate::output::{Colour, Style, print, program, tell};
use crate::request::{RequestError, explained, get};

/// Most links: workflow, Taskserv, Server, ProviderConfig and Workspace are five.
const MAX_LINKS: usize = 8;

/// Arguments of `why`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// KIND NAME, or KIND/NAME; a workspace needs no name
    #[arg(required = true, value_name = "KIND NAME", add = ArgValueCompleter::new(complete::objects))]
    object: Vec<String>,
    /// The chain as a list, the cause last
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As JSON
    Json,
    /// As YAML
    Yaml,
}

/// Says why an object is not Ready.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    let [target] =
        targets(&arguments.object)?.try_into().map_err(|_| Error::Usage("why explains one object".to_owned()))?;
    let cluster = Cluster::find(cluster).await?;
    match follow(&cluster, &target).await {
        Ok(chain) => {
            print(&shown(&chain, &cluster.namespace, arguments.output, style)?);
            Ok(Exit::Done)
        }
        Err(error @ RequestError::NotFound { .. }) => {
            tell(&format!("error: {}", explained(&error, target.kind, &cluster.namespace)));
            Ok(error.exit())
        }
        Err(error) => Err(error.into()),
    }
}

/// The links from what was asked for to the cause.
struct Chain {
    links: Vec<Link>,
    /// The last object that exists.
    last: Item,
    /// The object that is referred to and does not exist.
    missing: Option<Target>,
    /// Object and step that have a log.
    log: Option<(Target, String)>,
}

/// Walks from object to object.
async fn follow(cluster: &Cluster, root: &Target) -> Result<Chain, RequestError> {
    let mut item = get(cluster, root).await?;
    let mut chain = Chain { links: Vec::new(), last: item.clone(), missing: None, log: None };
    let mut seen = vec![root.clone()];
    loop {
        let link = Link::of(&item);
        let ran = link.step.as_ref().filter(|step| step.run > 0 && step.action.has_executor());
        if let Some(step) = ran {
            chain.log = Some((item.target(), step.id.clone()));
        }
        let ended = link.state == State::Ready && !holds_others(&item);
        chain.links.push(link);
        chain.last = item;
        let target = next(&chain.last, &seen).filter(|_| !ended && chain.links.len() < MAX_LINKS);
        let Some(target) = target else { break };
        seen.push(target.clone());
        match get(cluster, &target).await {
            // What is Ready is no cause: it has become so meanwhile, or the words only mention it.
            Ok(found) if found.is_ready() && !holds_others(&found) => break,
            Ok(found) => item = found,
            Err(RequestError::NotFound { .. }) => {
                chain.links.push(Link::missing(&target));
                chain.missing = Some(target);
                return Ok(chain);
            }
            Err(error) => return Err(error),
        }
    }
    chain.links.extend(given(&chain.last));
    Ok(chain)
}

/// A Workspace that is suspended is Ready, and holds up all others.
fn holds_others(item: &Item) -> bool {
    item.condition(types::READY).is_some_and(|ready| ready.reason == reasons::SUSPENDED)
}

impl Chain {
    /// What to do, a sentence each.
    fn advice(&self, namespace: &str, program: &str) -> Vec<String> {
        if let Some(missing) = &self.missing {
            return vec![about_missing(missing, &self.last.target(), program, namespace)];
        }
        let cause = self.links.iter().rev().find(|link| link.state != State::Given);
        let failed = cause.and_then(|link| link.step.as_ref()).and_then(|step| Some((step.action, step.class?)));
        let mut lines: Vec<String> =
            failed.map(|(action, class)| about_class(action, class).to_owned()).into_iter().collect();
        let words = cause.and_then(|link| link.step.as_ref()).map_or("", |step| step.message.as_str());
        lines.extend(about_words(words).map(str::to_owned));
        lines.extend(advice(&self.last, program));
        let objects: Vec<&Link> = self.links.iter().filter(|link| link.state != State::Given).collect();
        let above = objects.split_last().map(|(_, above)| above).unwrap_or_default();
        // Also where its step has failed or come too late by this one: the operator takes that up again.
        if !above.is_empty() && self.last.stalled().is_some() {
            lines.push("what is above it goes on by itself then".to_owned());
        }
        lines
    }

    /// The command that shows the log of the step that failed or runs.
    fn log(&self, namespace: &str, program: &str) -> Option<String> {
        let (target, step) = self.log.as_ref()?;
        Some(format!("{program} -n {namespace} logs {target} --step {step}"))
    }

    fn json(&self, namespace: &str) -> Result<Value, serde_json::Error> {
        let mut list = self.links.iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>()?;
        if let Some(last) = list.last_mut() {
            last["advice"] = json!(self.advice(namespace, program()));
            last["log"] = json!(self.log(namespace, program()));
        }
        Ok(Value::Array(list))
    }
}

fn shown(chain: &Chain, namespace: &str, format: Option<Format>, style: Style) -> Result<String, Error> {
    Ok(match format {
        Some(Format::Json) => format!("{}\n", serde_json::to_string_pretty(&chain.json(namespace)?)?),
        Some(Format::Yaml) => serde_saphyr::to_string(&chain.json(namespace)?)?,
        None => describe(chain, namespace, program(), style),
    })
}

fn describe(chain: &Chain, namespace: &str, program: &str, style: Style) -> String {
    let mut text = String::new();
    for (depth, link) in chain.links.iter().enumerate() {
        let because = match link.state {
            _ if depth == 0 => "",
            State::Given => "by ",
            _ => "because ",
        };
        let line = format!("{because}{}", link.line());
        let line = match link.state {
            State::Stalled | State::Missing => style.paint(Colour::Red, &line),
            State::Going | State::NotSeen => style.paint(Colour::Yellow, &line),
            State::Ready => style.paint(Colour::Green, &line),
            State::Given => line,
        };
        text.push_str(&format!("{}{line}\n", "  ".repeat(depth)));
    }
    let advice = chain.advice(namespace, program);
    if !advice.is_empty() {
        let lines: String = advice.iter().map(|line| format!("  {line}\n")).collect();
        text.push_str(&format!("\n{}\n{lines}", style.paint(Colour::Bold, "What to do:")));
    }
    if let Some(log) = chain.log(namespace, program) {
        text.push_str(&format!("\n{} {log}\n", style.paint(Colour::Bold, "Log:")));
    }
    text
}

#[cfg(test)]
mod tests {
    mod cases;
    mod recorded;

    use std::collections::BTreeMap;

    use super::*;
    use crate::item::tests::{conditions, item, server, step};
    use crate::kinds::Kind;
    use crate::stub::{Stub, reply};

    type Ready<'a> = (&'a str, &'a str, &'a str);

    fn object(kind: Kind, name: &str, ready: Ready<'_>, spec: Value, steps: Value) -> Item {
        item(
            kind,
            json!({"metadata": {"name": name, "namespace": "first", "uid": format!("uid-{name}"), "generation": 1},
                "spec": spec, "status": {"observedGeneration": 1, "conditions": conditions(ready), "steps": steps}}),
        )
    }

    fn failed(id: &str, action: &str, class: &str, reason: &str, message: &str) -> Value {
        let mut failed = step(id, action, "Failed");
        failed["class"] = json!(class);
        failed["reason"] = json!(reason);
        failed["message"] = json!(message);
        failed
    }

    fn workflow(ready: Ready<'_>, mut apply: Value, why: &str) -> Item {
        apply["why"] = json!(why);
        object(Kind::BatchWorkflow, "first", ready, json!({"steps": []}), json!([apply]))
    }

    fn taskserv(ready: Ready<'_>, steps: Value) -> Item {
        let spec = json!({"extension": {"name": "redis"}, "servers": ["heron"], "parameters": {"maxmemory": "1tb"}});
        let mut taskserv = object(Kind::Taskserv, "redis", ready, spec, steps);
        let resolved = json!({"name": "redis", "version": "0.1.0", "digest": "sha256:1", "generation": 1});
        taskserv.json["status"]["resolved"] = resolved;
        item(Kind::Taskserv, taskserv.json)
    }

    fn provider(ready: Ready<'_>, steps: Value) -> Item {
        object(Kind::ProviderConfig, "local", ready, json!({"type": "Local"}), steps)
    }

    /// What is said of an object in a namespace of these, and which objects were asked for.
    async fn why(what: &str, items: &[Item]) -> (String, Value, Vec<String>) {
        let url = |item: &Item| format!("/{}/{}", item.kind.plural(), item.name());
        let known: BTreeMap<String, Value> = items.iter().map(|item| (url(item), item.json.clone())).collect();
        let stub = Stub::new(move |request| {
            let path = request.uri().path();
            let found = known.iter().find(|(end, _)| path.ends_with(end.as_str()));
            let name = path.rsplit('/').next().unwrap_or_default();
            let missing = json!({"kind": "Status", "code": 404, "reason": "NotFound", "details": {"name": name}});
            found.map_or_else(|| reply(404, missing), |(_, json)| reply(200, json.clone()))
        });
        let [target] = targets(&[what.to_owned()]).unwrap().try_into().unwrap();
        let chain = follow(&stub.cluster(), &target).await.unwrap();
        let prefix = "GET /apis/provisioning.dev/v1alpha1/namespaces/first/";
        let asked = stub.requests().iter().map(|request| request.strip_prefix(prefix).unwrap().to_owned()).collect();
        (describe(&chain, "first", "provisioning", Style::PLAIN), chain.json("first").unwrap(), asked)
    }

    #[tokio::test]
    async fn what_failed_before_a_deletion_is_not_its_cause() {
        let mut undone = step("cache", "Apply", "Undoing");
        (undone["why"], undone["finishedAt"]) = (json!("Taskserv redis"), Value::Null);
        let dump = failed("dump/heron", "Run", "ScriptFailed", "ScriptFailed", "exit code 1: invalid user 'postgres'");
        let deleting = ("False", "Deleting", "undoing cache");
        let mut first =
            object(Kind::BatchWorkflow, "first", deleting, json!({"steps": []}), json!([dump, undone])).json;
        first["metadata"]["deletionTimestamp"] = json!("2026-05-04T10:00:00Z");
        let mut blocked = first.clone();
        blocked["status"]["steps"][1] = failed("cache", "Apply", "ScriptFailed", "ScriptFailed", "exit code 1: held");
        blocked["status"]["steps"][1]["phase"] = json!("UndoFailed");
        let (text, ..) = why("bwf/first", &[item(Kind::BatchWorkflow, blocked)]).await;
        assert!(text.contains("step cache (UndoFailed)") && !text.contains("failed too"), "{text}");
        let redis = taskserv(
            ("False", "Deleting", "undoing install/heron"),
            json!([step("install/heron", "Install", "Undoing")]),
        );
        let (text, ..) = why("bwf/first", &[item(Kind::BatchWorkflow, first), redis]).await;
        let expected = "batchworkflow/first: not Ready (Deleting), step cache (Undoing): undoing cache
  because taskserv/redis: not Ready (Deleting), step install/heron (Undoing): undoing install/heron
";
        assert!(text.starts_with(expected), "{text}");
        assert!(!text.contains("invalid user"), "{text}");
    }

    #[tokio::test]
    async fn a_script_that_failed_inside_of_a_workflow() {
        let words = "exit code 2: parameter maxmemory is \"1tb\", not a size such as 64mb";
        let child = format!("Taskserv 'redis': step 'install/heron' failed: {words}");
        let items = [
            workflow(
                ("False", "StepFailed", "step 'cache' failed"),
                failed("cache", "Apply", "ScriptFailed", "ChildFailed", &child),
                "Taskserv redis",
            ),
            taskserv(
                ("False", "StepFailed", "step 'install/heron' failed"),
                json!([failed("install/heron", "Install", "ScriptFailed", "ScriptFailed", words)]),
            ),
        ];
        let (text, json, asked) = why("bwf/first", &items).await;
        let expected = format!(
            "batchworkflow/first: Stalled (StepFailed), step cache (Failed): ScriptFailed ChildFailed: {child} (run 1, attempt 0)
  because taskserv/redis: Stalled (StepFailed), step install/heron (Failed): ScriptFailed: {words} (run 1, attempt 0)
    by extension/redis 0.1.0: scripts/install.nu on heron, with parameters {{\"maxmemory\":\"1tb\"}}

What to do:
  read the log, and mend what the script names: the server, or the parameters; of a mended script load a new version, and name it in spec.extension.version
  remove the cause, then have it tried again: provisioning -n first retry taskserv/redis
  what is above it goes on by itself then

Log: provisioning -n first logs taskserv/redis --step install/heron
"
        );
        assert_eq!(text, expected);
        assert_eq!(asked, ["batchworkflows/first", "taskservs/redis"]);
        let objects: Vec<&Value> = json.as_array().unwrap().iter().map(|link| &link["object"]).collect();
        assert_eq!(objects, ["batchworkflow/first", "taskserv/redis", "extension/redis 0.1.0"]);
        assert_eq!(json[1]["step"]["class"], "ScriptFailed");
        assert_eq!(json[2]["log"], "provisioning -n first logs taskserv/redis --step install/heron");
        assert_eq!(json[2]["advice"].as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn an_unknown_size() {
        let words = "spec.providerSize: the provider has no size 'smal' (did you mean 'small'?); it has small, medium";
        let items = [server("heron", ("False", "Invalid", words), json!([]))];
        let (text, _, asked) = why("srv/heron", &items).await;
        let expected = format!(
            "server/heron: Stalled (Invalid): {words}\n\nWhat to do:\n  \
             correct the manifest and apply it again, with the program that applied it: kubectl apply -f FILE, or \
             provisioning apply -f FILE; where the field is immutable, delete the object first: \
             provisioning -n first delete server/heron --wait\n"
        );
        assert_eq!(text, expected);
        assert_eq!(asked, ["servers/heron"]);
    }

    #[tokio::test]
    async fn a_stalled_server_under_a_taskserv() {
        let mut pending = step("install/heron", "Install", "Pending");
        pending["run"] = json!(0);
        let words = "step 'reach' failed: another host key";
        let dependency = format!("Server 'heron' is Stalled: {words}");
        let items = [
            taskserv(("False", "DependencyStalled", &dependency), json!([pending])),
            server(
                "heron",
                ("False", "StepFailed", words),
                json!([
                    step("create", "Create", "Succeeded"),
                    failed("reach", "Reach", "Invalid", "HostKeyMismatch", "another host key")
                ]),
            ),
        ];
        let (text, json, asked) = why("tsv/redis", &items).await;
        let expected = format!(
            "taskserv/redis: Stalled (DependencyStalled), step install/heron (Pending): {dependency}
  because server/heron: Stalled (StepFailed), step reach (Failed): Invalid HostKeyMismatch: another host key (run 1, attempt 0)

What to do:
  the request itself is wrong: correct what its words name
  remove the cause, then have it tried again: provisioning -n first retry server/heron
  what is above it goes on by itself then

Log: provisioning -n first logs server/heron --step reach
"
        );
        assert_eq!(text, expected);
        assert_eq!(asked, ["taskservs/redis", "servers/heron"]);
        assert_eq!((&json[0]["state"], &json[1]["state"]), (&json!("Stalled"), &json!("Stalled")));
    }

    #[tokio::test]
    async fn one_that_waits_says_for_what() {
        let mut pending = step("create", "Create", "Pending");
        pending["run"] = json!(0);
        let words = "ProviderConfig 'local' is not Ready: running describe";
        let waiting = server("heron", ("False", "Waiting", words), json!([pending]));
        let describing =
            provider(("False", "Running", "running describe"), json!([step("describe", "Describe", "Running")]));
        let items = [
            workflow(("False", "Running", "running heron"), step("heron", "Apply", "Running"), "Server heron"),
            waiting.clone(),
            describing,
        ];
        let (text, _, asked) = why("bwf/first", &items).await;
        let expected = "\
batchworkflow/first: not Ready (Running), step heron (Running): running heron
  because server/heron: not Ready (Waiting), step create (Pending): ProviderConfig 'local' is not Ready: running describe
    because providerconfig/local: not Ready (Running), step describe (Running): running describe

What to do:
  it goes on by itself: provisioning -n first watch providerconfig/local

Log: provisioning -n first logs providerconfig/local --step describe
";
        assert_eq!(text, expected);
        assert_eq!(asked, ["batchworkflows/first", "servers/heron", "providerconfigs/local"]);
        // It has become Ready meanwhile: then it is no cause.
        let ready = provider(("True", "Succeeded", "all steps succeeded"), json!([]));
        let (text, _, asked) = why("srv/heron", &[waiting, ready]).await;
        assert!(!text.contains("because") && text.contains("watch server/heron"), "{text}");
        assert_eq!(asked, ["servers/heron", "providerconfigs/local"]);
    }

    #[tokio::test]
    async fn what_is_uninstalled_is_not_said_to_be_installed() {
        let undoing = step("install/heron", "Install", "Undoing");
        let (text, _, _) =
            why("tsv/redis", &[taskserv(("False", "Deleting", "undoing install/heron"), json!([undoing]))]).await;
        let line = "taskserv/redis: not Ready (Deleting), step install/heron (Undoing): undoing install/heron\n";
        assert!(text.starts_with(line), "{text}");
    }

    #[tokio::test]
    async fn what_does_not_exist_is_the_end() {
        let words = "there is no Workspace in this namespace: create one named 'workspace'";
        let heron = server("heron", ("False", "NoWorkspace", words), json!([]));
        let (text, json, _) = why("srv/heron", &[heron]).await;
        let expected = format!(
            "server/heron: Stalled (NoWorkspace): {words}
  because workspace/workspace: missing: there is no such object

What to do:
  apply workspace/workspace, or correct its name in server/heron: provisioning -n first apply -f FILE
"
        );
        assert_eq!(text, expected);
        assert_eq!(json[1]["state"], "Missing");
    }

    #[tokio::test]
    async fn a_suspended_workspace_holds_up_what_is_in_it() {
        let words = "the Workspace is suspended: set its spec.suspend to false to go on";
        let heron = server("heron", ("False", "Suspended", words), json!([step("create", "Create", "Pending")]));
        let spec = json!({"suspend": true, "parallelism": 4});
        let own = "this Workspace is suspended: nothing forward is started until spec.suspend is false";
        let workspace = object(Kind::Workspace, "workspace", ("True", "Suspended", own), spec, json!([]));
        let (text, _, _) = why("srv/heron", &[heron, workspace]).await;
        assert!(text.contains("\n  because workspace/workspace: Ready (Suspended)\n"), "{text}");
        assert!(text.contains("\n  let it go on: provisioning -n first resume workspace/workspace\n"), "{text}");
    }

    #[tokio::test]
    async fn what_is_ready_is_said_to_be() {
        let items = [server("heron", ("True", "Succeeded", "all steps succeeded"), json!([]))];
        let (text, json, asked) = why("server/heron", &items).await;
        assert_eq!(text, "server/heron: Ready\n");
        assert_eq!(asked, ["servers/heron"]);
        assert_eq!((json.as_array().unwrap().len(), &json[0]["state"]), (1, &json!("Ready")));
    }

    #[tokio::test]
    async fn a_machine_that_does_not_answer_leads_to_its_server() {
        let unreachable = failed("check/heron", "Check", "Transient", "Unreachable", "no route to host");
        let gone = "the provider no longer has local/heron: its disk is lost";
        let items = [
            taskserv(("False", "StepFailed", "step 'check/heron' failed"), json!([unreachable])),
            server("heron", ("False", "ServerGone", gone), json!([])),
        ];
        let (text, _, _) = why("tsv/redis", &items).await;
        assert!(text.contains(&format!("\n  because server/heron: Stalled (ServerGone): {gone}\n")), "{text}");
        assert!(text.contains("delete the object and apply it again"), "{text}");
    }
}
