//! `provisioning show`: one object, for people.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use jiff::Timestamp;
use provisioning_api::batch_workflow::WorkflowStep;
use provisioning_api::cluster::ClusterMember;
use provisioning_api::conditions::types;
use provisioning_api::server::Installed;
use provisioning_api::steps::{StepPhase, StepStatus};
use serde_json::Value;

use crate::advice::advice;
use crate::changes::{failure, took};
use crate::cluster::{Cluster, ClusterArguments};
use crate::columns::standing_colour;
use crate::complete;
use crate::error::Error;
use crate::exit::Exit;
use crate::item::{Item, Typed};
use crate::kinds::{Target, targets};
use crate::output::{Colour, Format, Style, print, program, tell};
use crate::request::{RequestError, explained, get};
use crate::table::{Cell, Table};
use crate::times::span;

/// Arguments of `show`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// KIND NAME…, or KIND/NAME…; a workspace needs no name
    #[arg(required = true, value_name = "KIND NAME", add = ArgValueCompleter::new(complete::objects))]
    objects: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// How objects are shown.
#[derive(Clone, Debug, Args)]
pub(crate) struct How {
    /// How to show them
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

/// Shows objects.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    objects(&targets(&arguments.objects)?, &arguments.how, cluster, style).await
}

/// Shows objects, each after one request.
pub(crate) async fn objects(
    targets: &[Target],
    how: &How,
    cluster: &ClusterArguments,
    style: Style,
) -> Result<Exit, Error> {
    let cluster = Cluster::find(cluster).await?;
    let mut exit = Exit::Done;
    for (position, target) in targets.iter().enumerate() {
        match get(&cluster, target).await {
            Ok(item) => {
                let separator = match how.output {
                    Some(Format::Yaml) if position > 0 => "---\n",
                    None | Some(Format::Wide) if position > 0 => "\n",
                    _ => "",
                };
                print(&format!("{separator}{}", shown(&item, how.output, style)?));
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

fn shown(item: &Item, format: Option<Format>, style: Style) -> Result<String, Error> {
    Ok(match format {
        Some(Format::Json) => format!("{}\n", serde_json::to_string_pretty(&item.json)?),
        Some(Format::Yaml) => serde_saphyr::to_string(&item.json)?,
        Some(Format::Name) => format!("{}\n", item.target()),
        None | Some(Format::Wide) => describe(item, program(), Timestamp::now(), style),
    })
}

/// An object for people: how it stands, what is wanted, what is done for it, and what to do next.
fn describe(item: &Item, program: &str, now: Timestamp, style: Style) -> String {
    let mut text = head(item, now, style);
    if let Err(problem) = &item.typed {
        text.push_str(&format!("\n{}\n", style.paint(Colour::Red, &format!("This program can't read it: {problem}"))));
    }
    section(&mut text, "Spec", &pairs(&essence(item)), style);
    section(&mut text, "Known", &pairs(&known(item)), style);
    section(&mut text, "Conditions", &conditions(item, now), style);
    if !item.steps().is_empty() {
        let summary = item.run().and_then(|run| run.plan.as_ref()).map(|plan| format!(" ({})", plan.summary));
        section(&mut text, &format!("Plan{}", summary.unwrap_or_default()), &plan(item.steps(), now), style);
    }
    section(&mut text, "Outputs", &pairs(&outputs(item.steps())), style);
    let failed = failed(item, program);
    if !failed.is_empty() {
        text.push_str(&format!("\n{}\n{failed}", style.paint(Colour::Bold, "Failed")));
    }
    if let Some(next) = advice(item, program) {
        text.push_str(&format!("\n{} {next}\n", style.paint(Colour::Bold, "Next:")));
    }
    text
}

fn head(item: &Item, now: Timestamp, style: Style) -> String {
    let name = style.paint(Colour::Bold, &format!("{} {}", item.kind.name(), item.name()));
    let age = item.created().map_or_else(String::new, |created| format!(", {} old", span(created, now)));
    let deleting = match &item.metadata.deletion_timestamp {
        Some(since) => format!(", being deleted for {}", span(since.0, now)),
        None => String::new(),
    };
    let standing = style.paint(standing_colour(item), &crate::changes::standing(item));
    format!("{name} in namespace {}{age}{deleting}\n{standing}\n", item.namespace())
}

/// A title and its table; nothing where the table is empty.
pub(super) fn section(text: &mut String, title: &str, table: &Table, style: Style) {
    let body = table.render("  ", style);
    if !body.is_empty() {
        text.push_str(&format!("\n{}\n{body}", style.paint(Colour::Bold, title)));
    }
}

/// Names and values.
pub(super) type Pairs = Vec<(String, String)>;

/// A line for each pair.
pub(super) fn pairs(pairs: &Pairs) -> Table {
    let mut table = Table::default();
    for (name, value) in pairs {
        table.add([format!("{name}:"), value.clone()]);
    }
    table
}

/// The fields of spec by path, without those that say nothing. Steps that are planned already are in the plan.
fn essence(item: &Item) -> Pairs {
    let mut found = Vec::new();
    let spec = item.json.get("spec").and_then(Value::as_object);
    for (name, value) in spec.into_iter().flatten() {
        if name != "steps" && !(name == "suspend" && *value == Value::Bool(false)) {
            flatten(name, value, &mut found);
        }
    }
    if let Ok(Typed::BatchWorkflow(workflow)) = &item.typed
        && item.steps().is_empty()
    {
        found.extend(workflow.spec.steps.iter().map(|step| (format!("steps.{}", step.name), wanted(step))));
    }
    found
}

/// A workflow's step: what it does, and after which others.
fn wanted(step: &WorkflowStep) -> String {
    let (kind, name) = step.applied().or_else(|| step.regards()).unwrap_or_default();
    let object = match (&step.delete, &step.wait, &step.run) {
        (Some(_), _, _) => format!("delete {kind} {name}"),
        (None, Some(wait), _) => format!("wait for {kind} {name}: {}", wait.condition),
        (None, None, Some(run)) => format!("run {} {} on {}", run.extension.name, run.script, run.servers.join(", ")),
        (None, None, None) => format!("{kind} {name}"),
    };
    let before: Vec<&str> = step.depends_on.iter().map(|dependency| dependency.step.as_str()).collect();
    if before.is_empty() { object } else { format!("{object}, after {}", before.join(", ")) }
}

/// Adds a value's leaves by path.
pub(super) fn flatten(path: &str, value: &Value, found: &mut Pairs) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| flatten(&format!("{path}.{name}"), value, found)),
        Value::Array(list) if list.iter().all(|one| !one.is_object() && !one.is_array()) => {
            found.push((path.to_owned(), list.iter().map(plain).collect::<Vec<_>>().join(", ")));
        }
        Value::Array(list) if list.iter().all(|one| one["name"].is_string()) => {
            for one in list {
                let mut rest = one.clone();
                let name = rest.as_object_mut().and_then(|map| map.remove("name"));
                flatten(&format!("{path}.{}", name.as_ref().map_or_else(String::new, plain)), &rest, found);
            }
        }
        other => found.push((path.to_owned(), plain(other))),
    }
}

/// A value without quotes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What the operator found out, beside conditions and steps.
fn known(item: &Item) -> Pairs {
    let Ok(typed) = &item.typed else { return Vec::new() };
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let mut known = match typed {
        Typed::Workspace(workspace) => {
            let objects = workspace.status.as_ref().and_then(|status| status.objects.as_ref());
            let counts = objects.map(|counts| {
                let (servers, taskservs) = (counts.servers, counts.taskservs);
                let (configs, clusters, workflows) = (counts.provider_configs, counts.clusters, counts.batch_workflows);
                format!(
                    "{servers} servers, {taskservs} taskservs, {clusters} clusters, {workflows} batchworkflows, \
                     {configs} providerconfigs"
                )
            });
            vec![pair("objects", counts.unwrap_or_default())]
        }
        Typed::ProviderConfig(config) => {
            let status = config.status.as_ref();
            let images =
                status.map(|it| it.images.iter().map(|it| format!("{} {}", it.os, it.version)).collect::<Vec<_>>());
            let sizes = status.map(|it| {
                let size = |it: &provisioning_api::provider_config::OfferedSize| {
                    format!("{} ({} cores, {}, {})", it.name, it.cores, it.memory, it.disk)
                };
                it.sizes.iter().map(size).collect::<Vec<_>>()
            });
            let zones = status.map(|it| it.zones.clone());
            let joined = |list: Option<Vec<String>>| list.unwrap_or_default().join(", ");
            vec![pair("zones", joined(zones)), pair("sizes", joined(sizes)), pair("images", joined(images))]
        }
        Typed::BatchWorkflow(_) => Vec::new(),
        Typed::Cluster(cluster) => parts(cluster),
        Typed::Server(server) => {
            let fields =
                ["/status/addresses/0/address", "/status/providerID", "/status/hostKey", "/status/incarnation"];
            let text = |pointer: &str| item.text(pointer).unwrap_or_default();
            let mut known: Vec<_> =
                fields.map(|pointer| pair(pointer.rsplit('/').next().unwrap_or_default(), text(pointer))).into();
            let installed = server.status.iter().flat_map(|status| &status.installed);
            known.push(pair("installed", installed.map(told).collect::<Vec<_>>().join(", ")));
            known
        }
        Typed::Taskserv(taskserv) => {
            let status = taskserv.status.as_ref();
            let bundle = status.and_then(|status| status.resolved.as_ref());
            let bundle = bundle.map(|found| format!("{} {} ({})", found.name, found.version, found.digest));
            let required = status.iter().flat_map(|status| &status.dependencies);
            let required: Vec<String> = required.map(|found| format!("{} {}", found.name, found.version)).collect();
            vec![pair("bundle", bundle.unwrap_or_default()), pair("requires", required.join(", "))]
        }
    };
    known.retain(|(_, value)| !value.is_empty() && value != "0");
    known
}

/// Servers, endpoints and outputs of a cluster.
fn parts(cluster: &provisioning_api::Cluster) -> Pairs {
    let Some(status) = &cluster.status else { return Vec::new() };
    let member = |member: &ClusterMember| {
        let address = member.address.as_ref().map_or_else(String::new, |address| format!(", {address}"));
        (format!("server {}", member.server), format!("{}, {:?}{address}", member.group, member.state))
    };
    let mut found: Pairs = status.members.iter().map(member).collect();
    let endpoints = status.endpoints.iter();
    found.extend(endpoints.map(|endpoint| (format!("endpoint {}", endpoint.name), endpoint.addresses.join(", "))));
    found.extend(status.outputs.iter().map(|(name, value)| (format!("output {name}"), value.clone())));
    found
}

/// An extension on a server: `os 0.1.0 (Installing, for web and wiki)`.
fn told(entry: &Installed) -> String {
    let Installed { extension, version, state, required_by, .. } = entry;
    let users: Vec<&str> = required_by.iter().map(|user| user.name.as_str()).collect();
    let users = if users.is_empty() { String::new() } else { format!(", for {}", users.join(" and ")) };
    format!("{extension} {version} ({state:?}{users})")
}

fn conditions(item: &Item, now: Timestamp) -> Table {
    let mut table = Table::default();
    if item.conditions().is_empty() {
        return table;
    }
    table.add(["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for condition in item.conditions() {
        let bad = condition.type_ == types::STALLED && condition.status == "True";
        let status =
            if bad { Cell::coloured(condition.status.clone(), Colour::Red) } else { condition.status.clone().into() };
        let since = span(condition.last_transition_time.0, now);
        let (type_, reason) = (condition.type_.clone(), condition.reason.clone());
        table.add([type_.into(), status, reason.into(), since.into(), Cell::from(condition.message.clone())]);
    }
    table
}

/// The colour of a phase.
pub(super) fn phase_colour(phase: StepPhase) -> Colour {
    match phase {
        StepPhase::Succeeded | StepPhase::Undone => Colour::Green,
        StepPhase::Running | StepPhase::Undoing => Colour::Yellow,
        StepPhase::Failed | StepPhase::UndoFailed => Colour::Red,
        StepPhase::Pending | StepPhase::Cancelled | StepPhase::Skipped | StepPhase::Omitted => Colour::Dim,
    }
}

fn plan(steps: &[StepStatus], now: Timestamp) -> Table {
    let mut table = Table::new(["STEP", "ACTION", "PHASE", "RUN", "ATTEMPTS", "TOOK", "AFTER", "WHY", "MESSAGE"]);
    for step in steps {
        let open =
            step.started_at.as_ref().filter(|_| step.is_open()).map(|started| format!("{}…", span(started.0, now)));
        let after: Vec<&str> = step.depends_on.iter().map(|dependency| dependency.step.as_str()).collect();
        table.add([
            Cell::from(step.id.clone()),
            format!("{:?}", step.action).into(),
            Cell::coloured(format!("{:?}", step.phase), phase_colour(step.phase)),
            step.run.to_string().into(),
            step.attempt.to_string().into(),
            took(step).or(open).unwrap_or_default().into(),
            after.join(", ").into(),
            step.why.clone().into(),
            step.message.clone().into(),
        ]);
    }
    table
}

fn outputs(steps: &[StepStatus]) -> Pairs {
    let named = |step: &StepStatus| {
        let id = step.id.clone();
        step.outputs.clone().into_iter().map(move |(name, value)| (format!("{id}.{name}"), value))
    };
    steps.iter().flat_map(named).collect()
}

/// What failed, and the command that shows its log: of the last failed run it is kept.
fn failed(item: &Item, program: &str) -> String {
    let mut text = String::new();
    for step in item.steps() {
        let Some(failure) = failure(step) else { continue };
        text.push_str(&format!("  {}: {failure}\n", step.id));
        let (namespace, target, id) = (item.namespace(), item.target(), &step.id);
        text.push_str(&format!("    log: {program} -n {namespace} logs {target} --step {id}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::item::tests::{server, step};

    #[test]
    fn a_failed_server_is_shown_with_its_way_out() {
        let mut create = step("create", "Create", "Succeeded");
        create["finishedAt"] = json!("2026-05-04T10:00:13Z");
        create["why"] = json!("the machine");
        create["outputs"] = json!({"address": "10.7.0.9"});
        let mut reach = step("reach", "Reach", "Failed");
        reach["dependsOn"] = json!([{"step": "create"}]);
        reach["class"] = json!("Unauthorized");
        reach["reason"] = json!("HostKeyChanged");
        reach["message"] = json!("another host key");
        reach["attempt"] = json!(2);
        let heron = server("heron", ("False", "StepFailed", "reach: another host key"), json!([create, reach]));
        let text = describe(&heron, "provisioning", "2026-05-04T10:05:00Z".parse().unwrap(), Style::PLAIN);
        let expected = "\
Server heron in namespace first, 5m old
not Ready, Stalled (StepFailed): reach: another host key

Spec
  deletionPolicy:           Delete
  image.os:                 debian
  image.version:            12
  providerConfigRef.name:   local
  providerSize:             small

Known
  address:   10.7.0.9

Conditions
  TYPE      STATUS   REASON       SINCE   MESSAGE
  Ready     False    StepFailed   4m55s   reach: another host key
  Stalled   True     StepFailed   4m55s   reach: another host key

Plan
  STEP     ACTION   PHASE       RUN   ATTEMPTS   TOOK   AFTER    WHY           MESSAGE
  create   Create   Succeeded   1     0          12s             the machine
  reach    Reach    Failed      1     2                 create                 another host key

Outputs
  create.address:   10.7.0.9

Failed
  reach: Unauthorized HostKeyChanged: another host key (run 1, attempt 2)
    log: provisioning -n first logs server/heron --step reach

Next: remove the cause, then have it tried again: provisioning -n first retry server/heron
";
        assert_eq!(text, expected);
    }
}
