// (pure) Steps that run a script of an extension on servers: one for each server, and one in which they come together.

use std::collections::BTreeMap;

use kube::ResourceExt;
use provisioning_api::batch_workflow::{RunAction, WorkflowStep};
use provisioning_api::conditions::reasons;
use provisioning_api::server::{Installed, InstalledState};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{StepAction, StepPhase, StepStatus, UndoAction};
use provisioning_api::{BatchWorkflow, Server};
use provisioning_extensions::{Catalog, Entry, satisfies};
use provisioning_plan::conditions::Standing;
use provisioning_plan::graph::{Dependency, Gate, Step};
use provisioning_plan::ids::{InputHash, StepId};
use provisioning_plan::nearest::hint;
use provisioning_plan::observed::Outcome;
use provisioning_sdk::request::{Extension, RunnerRequest, Script, ScriptRequest};
use semver::{Version, VersionReq};

use crate::bundles::{Offered, too_many_parameters};
use crate::children::view::no_retry;
use crate::context::Context;
use crate::engine::kind::{Task, held_up_by, in_namespace, stuck};
use crate::taskserv::TRANSPORT;

/// What such steps look at.
#[derive(Debug, Default)]
pub struct Ground {
    /// The Servers of the namespace, by name.
    pub(crate) servers: BTreeMap<String, Server>,
    /// Bundles on offer.
    pub(crate) bundles: Vec<Offered>,
}

impl Ground {
    /// Reads the caches, where there is a step of this kind.
    pub(crate) fn of(workflow: &BatchWorkflow, ctx: &Context) -> Self {
        if workflow.spec.steps.iter().all(|step| step.run.is_none()) {
            return Ground::default();
        }
        let namespace = workflow.namespace().unwrap_or_default();
        let servers = in_namespace(&ctx.stores.servers, &namespace);
        let servers = servers.iter().filter_map(|guarded| guarded.0.as_ref().ok());
        Ground {
            servers: servers.map(|server| (server.name_any(), server.clone())).collect(),
            bundles: crate::bundles::offered(ctx),
        }
    }

    /// One of the Servers.
    pub(crate) fn server(&self, name: &str) -> Option<&Server> {
        self.servers.get(name)
    }
}

/// Name of the workflow's step that an entry belongs to, and the server where it is one of its parts.
pub(crate) fn parts(id: &str) -> (&str, Option<&str>) {
    id.split_once('/').map_or((id, None), |(step, server)| (step, Some(server)))
}

/// The server on which a step of a workflow runs a script.
pub(crate) fn server_of(step: &StepStatus) -> Option<&str> {
    parts(&step.id).1.filter(|_| step.action == StepAction::Run)
}

fn part(step: &WorkflowStep, server: &str) -> StepId {
    StepId::new(format!("{}/{server}", step.name))
}

/// Ids of its parts.
pub(crate) fn ids(step: &WorkflowStep) -> impl Iterator<Item = String> {
    let servers = step.run.iter().flat_map(|run| &run.servers);
    servers.map(|server| part(step, server).to_string())
}

/// The parts of a step, and the step itself, in which they come together: `whole`, up to its input and its dependencies.
///
/// # Errors
/// What is wrong with it, of what is still to be run.
pub(crate) fn draw(
    workflow: &BatchWorkflow,
    ground: &Ground,
    (position, step, run): (usize, &WorkflowStep, &RunAction),
    whole: Step,
) -> Result<Vec<Step>, Standing> {
    let invalid = |error: semver::Error| {
        let text = format!("spec.steps[{position}].run.extension.version: no SemVer requirement: {error}");
        Standing::stalled(reasons::INVALID, text)
    };
    let requirement = run.extension.version.as_deref().map(VersionReq::parse).transpose().map_err(invalid)?;
    let mut steps = Vec::new();
    for name in &run.servers {
        let id = part(step, name);
        let server = ground.server(name);
        if is_to_come(workflow, id.as_str()) {
            known(workflow, ground, position, name)?;
            let chosen = choose(ground, run, requirement.as_ref(), server);
            let offered = chosen.map_err(|error| {
                let text = format!("spec.steps[{position}].run.extension: {error}");
                Standing::stalled(reasons::UNKNOWN_REFERENCE, text)
            })?;
            check(position, run, offered)?;
        }
        steps.push(Step {
            id,
            action: StepAction::Run,
            why: format!("{} {} on {name}", run.extension.name, run.script),
            input_hash: server.and_then(|server| hash(run, step.when.as_deref(), server)),
            undo: UndoAction::Irreversible,
            retry: step.retry.clone().unwrap_or_else(no_retry),
            gate: gate(name, server),
            ..whole.clone()
        });
    }
    let parts = steps.iter().map(|step| Dependency::hard(&step.id));
    // The condition reads what it reads for the parts.
    let own = whole.depends_on.iter().filter(|_| whole.when.is_some()).cloned();
    let depends_on = own.chain(parts).collect();
    let input_hash = Some(InputHash::of(&("run", &run.servers, &step.when)));
    steps.push(Step { depends_on, input_hash, ..whole });
    Ok(steps)
}

/// Whether a part has not done its work yet: what it did stays done, whatever becomes of servers and bundles.
fn is_to_come(workflow: &BatchWorkflow, id: &str) -> bool {
    let steps = workflow.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let entry = steps.iter().find(|entry| entry.id == id);
    entry.is_none_or(|entry| !entry.is_open() && !matches!(entry.phase, StepPhase::Succeeded | StepPhase::Skipped))
}

/// A server that no step of the workflow makes has to be there. Which ones a Cluster makes is not known before.
fn known(workflow: &BatchWorkflow, ground: &Ground, position: usize, name: &str) -> Result<(), Standing> {
    let makes_it = |step: &WorkflowStep| match step.applied() {
        Some(("Cluster", _)) => true,
        applied => applied == Some(("Server", name)),
    };
    if ground.server(name).is_some() || workflow.spec.steps.iter().any(makes_it) {
        return Ok(());
    }
    let hint = hint(name, ground.servers.keys().map(String::as_str));
    let text = format!("spec.steps[{position}].run.servers: there is no Server '{name}' in this namespace{hint}");
    Err(Standing::stalled(reasons::UNKNOWN_REFERENCE, text))
}

/// The bundle that a server has installed, where that will do; else the newest on offer.
fn choose<'a>(
    ground: &'a Ground,
    run: &RunAction,
    requirement: Option<&VersionReq>,
    server: Option<&Server>,
) -> Result<&'a Offered, String> {
    let name = &run.extension.name;
    let offered = || ground.bundles.iter().filter(|offered| offered.name == *name);
    let list = server.and_then(|server| server.status.as_ref()).map(|status| status.installed.as_slice());
    let will_do = |entry: &&Installed| {
        let version = Version::parse(&entry.version).ok();
        let fits = version.is_some_and(|version| requirement.is_none_or(|wanted| satisfies(wanted, &version)));
        entry.extension == *name && entry.state == InstalledState::Installed && fits
    };
    let installed = list.unwrap_or_default().iter().find(will_do);
    if let Some(found) = installed.and_then(|entry| offered().find(|offered| offered.digest == entry.digest)) {
        return Ok(found);
    }
    let entry = |offered: &Offered| {
        let version = Version::parse(&offered.version).ok()?;
        Some(Entry { name: offered.name.clone(), version, digest: offered.digest.clone() })
    };
    let catalog = Catalog::new(ground.bundles.iter().filter_map(entry));
    let chosen = catalog.resolve(name, requirement).map_err(|error| error.to_string())?;
    offered().find(|offered| offered.digest == chosen.digest).ok_or_else(|| format!("{name} is not on offer any more"))
}

/// Refuses what no script should be started with.
fn check(position: usize, run: &RunAction, offered: &Offered) -> Result<(), Standing> {
    let field = |field: &str| format!("spec.steps[{position}].run.{field}");
    let Offered { name, version, contents, .. } = offered;
    // One that cannot be read is the runner's to refuse, in words.
    let Some(manifest) = &contents.manifest else { return Ok(()) };
    let scripts = || manifest.scripts.iter().map(|script| script.name.as_str());
    if !scripts().any(|script| script == run.script) {
        let hint = hint(&run.script, scripts());
        let there_are = match scripts().collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "it has none".to_owned(),
            names => format!("it has {names}"),
        };
        let path = field("script");
        let text = format!(
            "{path}: extension '{name}' {version} has no script '{}' for workflows{hint}; {there_are}",
            run.script
        );
        return Err(Standing::stalled(reasons::UNKNOWN_REFERENCE, text));
    }
    let path = field("parameters");
    if let Some(text) = too_many_parameters(&run.parameters, &path) {
        return Err(Standing::stalled(reasons::INVALID, text));
    }
    let mut problems: Vec<String> = Vec::new();
    match contents.script_schemas.get(&run.script) {
        Some(schema) => {
            problems.extend(schema.check(&run.parameters).iter().map(|problem| problem.below(&path)));
        }
        None if run.parameters.is_empty() => {}
        None => problems.push(format!("{path}: script '{}' of extension '{name}' {version} takes none", run.script)),
    }
    let secrets = || manifest.secrets.iter().map(|secret| secret.name.as_str());
    let unknown = run.secret_parameters.keys().filter(|given| !secrets().any(|secret| secret == given.as_str()));
    problems.extend(unknown.map(|given| {
        let hint = hint(given, secrets());
        format!("{}.{given}: extension '{name}' {version} has no such secret{hint}", field("secretParameters"))
    }));
    if problems.is_empty() { Ok(()) } else { Err(Standing::stalled(reasons::INVALID, problems.join("; "))) }
}

/// Hash of what a script's result depends on; none while the machine is not known. The bundle is not part of it: a newer one
/// runs nothing again.
fn hash(run: &RunAction, when: Option<&str>, server: &Server) -> Option<InputHash> {
    let status = server.status.as_ref()?;
    let machine = (status.incarnation, status.machine_id.as_ref()?);
    let RunAction { extension, script, parameters, secret_parameters, .. } = run;
    let what = (&extension.name, &extension.version, script, parameters, secret_parameters);
    Some(InputHash::of(&("run", what, server.name_any(), machine, when)))
}

fn gate(name: &str, server: Option<&Server>) -> Gate {
    match server {
        None => Gate::Waiting(format!("there is no Server '{name}' yet")),
        Some(server) if server.metadata.deletion_timestamp.is_some() => {
            Gate::Waiting(format!("Server '{name}' is being deleted"))
        }
        Some(server) if !server.is_ready() => {
            Gate::Waiting(format!("Server '{name}' is not Ready: {}", server.ready_message()))
        }
        Some(_) => Gate::Open,
    }
}

/// What the run of a part does.
///
/// # Errors
/// What is not there any more.
pub(crate) fn task(ground: &Ground, step: &WorkflowStep, run: &RunAction, name: &str) -> Result<Task, String> {
    let server = ground.server(name).ok_or_else(|| format!("Server '{name}' is gone"))?;
    let target = crate::server::target(server).ok_or_else(|| format!("Server '{name}' has no address yet"))?;
    let requirement = run.extension.version.as_deref().and_then(|text| VersionReq::parse(text).ok());
    let Offered { name, version, digest, contents } = choose(ground, run, requirement.as_ref(), Some(server))?;
    let schema = contents.script_schemas.get(&run.script);
    let request = RunnerRequest::Script(ScriptRequest {
        target,
        extension: Extension { name: name.clone(), version: version.clone(), digest: digest.clone() },
        script: Script::Named(run.script.clone()),
        parameters: schema.map_or_else(|| run.parameters.clone(), |schema| schema.with_defaults(&run.parameters)),
        secrets: run.secret_parameters.clone(),
        servers: Vec::new(),
        peers: BTreeMap::new(),
    });
    let bundle = Some(provisioning_extensions::config_map_name(name, digest));
    Ok(Task::Runner { request, bundle, timeout_seconds: i64::from(step.timeout_seconds) + TRANSPORT })
}

/// The end of the step in which the parts come together. What the script reported is its own only where there is one server.
pub(crate) fn together(workflow: &BatchWorkflow, step: &WorkflowStep) -> Outcome {
    let steps = workflow.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let ids: Vec<String> = ids(step).collect();
    let outputs = match ids.as_slice() {
        [id] => steps.iter().find(|entry| entry.id == *id).map(|entry| entry.outputs.clone()),
        _ => None,
    };
    Outcome { outputs: outputs.unwrap_or_default(), ..Outcome::succeeded() }
}

/// Stalled, where what is left waits for a server that is stalled itself (L1).
pub(crate) fn held_up(workflow: &BatchWorkflow, ground: &Ground) -> Option<Standing> {
    let steps = workflow.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let pending = |step: &&StepStatus| step.phase == StepPhase::Pending;
    steps.iter().filter(pending).find_map(|step| {
        let server = ground.server(server_of(step)?)?;
        stuck(server).map(|condition| held_up_by("Server", &server.name_any(), &condition.message))
    })
}
