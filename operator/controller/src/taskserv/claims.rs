// (client) Brings the Servers' lists of what is installed up to date, before anything is decided.

use jiff::Timestamp;
use kube::ResourceExt;
use provisioning_api::server::{Installed, InstalledFor};
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::{StepEffect, StepPhase, StepStatus, UndoAction};
use provisioning_api::taskserv::Dependencies;
use provisioning_api::{Server, Taskserv};
use provisioning_plan::conditions::Standing;
use provisioning_plan::ids::InputHash;

use super::place::{self, Wanted};
use super::reserve::{Claim, Keeper, Work, next};
use super::resolve::resolve;
use super::{Facts, graph};
use crate::context::Context;
use crate::engine::kind::{WorkspaceView, stuck};
use crate::engine::observe::suspended;
use crate::engine::persist::{describe, write_status};
use crate::error::Error;

/// Writes what has changed, one write a Server, each against the version that was read.
///
/// # Errors
/// [`Error::Conflict`] where a Server changed since; the next pass begins with what is there then.
pub(crate) async fn settle(
    taskserv: &Taskserv,
    ctx: &Context,
    workspace: Option<&WorkspaceView>,
    facts: &mut Facts,
) -> Result<(), Error> {
    let deleting = taskserv.metadata.deletion_timestamp.is_some();
    // What does not go forward claims nothing; what is deleted leaves in any case.
    let still = workspace.is_none() || suspended(&ctx.stores, taskserv, workspace).is_some();
    if still && !deleting {
        return Ok(());
    }
    // Where the spec cannot be carried out, everything stays as it is.
    let Ok(changes) = changes(taskserv, facts) else { return Ok(()) };
    for (name, installed) in changes {
        let Some((_, Some(server))) = facts.servers.iter_mut().find(|(other, _)| *other == name) else { continue };
        *server = write(ctx, server, installed, ctx.now()).await?;
    }
    Ok(())
}

/// Replaces the list of one Server.
async fn write(ctx: &Context, server: &Server, installed: Vec<Installed>, now: Timestamp) -> Result<Server, Error> {
    // This process itself has written a newer version, which is still on its way into the cache.
    if ctx.written.is_ahead_of(server, now) {
        return Err(Error::Conflict { object: describe(server) });
    }
    let mut changed = server.clone();
    changed.status.get_or_insert_default().installed = installed;
    match write_status(ctx, &changed).await {
        Err(Error::Request { source, .. }) if is_gone(&source) => Err(Error::Conflict { object: describe(server) }),
        written => written,
    }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// (pure) The lists that have to be written, by name of the Server.
pub(crate) fn changes(taskserv: &Taskserv, facts: &Facts) -> Result<Vec<(String, Vec<Installed>)>, Standing> {
    let deleting = taskserv.metadata.deletion_timestamp.is_some();
    let wanted = if deleting { Vec::new() } else { all_wanted(taskserv, facts)? };
    let me = InstalledFor { uid: taskserv.uid().unwrap_or_default(), name: taskserv.name_any() };
    let mut changes = Vec::new();
    for (name, server) in &facts.servers {
        // What goes with its server is not listed any more.
        let Some(server) = server.as_ref().filter(|server| server.metadata.deletion_timestamp.is_none()) else {
            continue;
        };
        let list = place::installed(server);
        let claims: Vec<Claim> = match wanted.iter().find(|(other, _)| other == name) {
            // Nothing is claimed there now, and nothing is left.
            Some((_, wanted)) if !server.is_ready() || place::in_the_way(facts, server, wanted, &me.uid).is_some() => {
                continue;
            }
            Some((_, wanted)) => wanted.iter().map(|wanted| claim(taskserv, facts, server, wanted)).collect(),
            None => Vec::new(),
        };
        let work = |extension: &str| work(taskserv, name, extension);
        let after = next(list, &me, &claims, work, |user, entry| keeper(facts, name, user, entry));
        if after != list {
            changes.push((name.clone(), after));
        }
    }
    Ok(changes)
}

/// What is wanted on each Server, if the spec can be carried out on all of them.
fn all_wanted(taskserv: &Taskserv, facts: &Facts) -> Result<Vec<(String, Vec<Wanted>)>, Standing> {
    graph::draw(taskserv, facts)?;
    let resolution = resolve(taskserv, facts)?;
    let servers = facts.members()?.iter().filter_map(|name| facts.server(name));
    servers.map(|server| Ok((server.name_any(), graph::wanted_on(taskserv, facts, &resolution, server)?))).collect()
}

fn claim(taskserv: &Taskserv, facts: &Facts, server: &Server, wanted: &Wanted) -> Claim {
    let Wanted { name, version, digest, .. } = wanted;
    let steps = graph::stored(taskserv, &server.name_any(), name);
    let done = graph::hash(taskserv, facts, server, wanted).and_then(|hash| is_done(steps, &hash));
    let is_own = *name == taskserv.spec.extension.name;
    let declines = !is_own && taskserv.spec.dependencies == Dependencies::Strict;
    Claim { name: name.clone(), version: version.clone(), digest: digest.clone(), is_own, declines, done }
}

/// Whether an extension was installed and checked with these inputs. A check alone that is to come, or to come again,
/// changes nothing about what is known.
fn is_done([install, check]: [Option<&StepStatus>; 2], hash: &InputHash) -> Option<bool> {
    let is_installed = install.is_some_and(|step| step.phase == StepPhase::Succeeded && hash.is_in(&step.input_hash));
    match check.map(|step| step.phase) {
        _ if !is_installed => Some(false),
        Some(StepPhase::Succeeded) => Some(true),
        Some(StepPhase::Pending | StepPhase::Running) => None,
        Some(
            StepPhase::Failed
            | StepPhase::Cancelled
            | StepPhase::Skipped
            | StepPhase::Omitted
            | StepPhase::Undoing
            | StepPhase::Undone
            | StepPhase::UndoFailed,
        )
        | None => Some(false),
    }
}

fn work(taskserv: &Taskserv, server: &str, extension: &str) -> Work {
    let steps = graph::stored(taskserv, server, extension);
    let owes = |step: &&StepStatus| {
        step.undo == UndoAction::Uninstall && (step.effect == StepEffect::Possible || step.phase == StepPhase::Undoing)
    };
    Work {
        open: graph::acts(taskserv, server, extension),
        owed: graph::uninstalls(taskserv) && steps.iter().flatten().any(owes),
        removes: graph::uninstalls(taskserv),
    }
}

/// How another Taskserv stands that looks after an entry, or might.
pub(crate) fn keeper(facts: &Facts, server: &str, user: &InstalledFor, entry: &Installed) -> Keeper {
    // What one did that is not known may be there.
    let Some(other) = facts.others.get(&user.uid) else { return Keeper { owes: true, ..Keeper::default() } };
    let steps = graph::stored(other, server, &entry.extension);
    let open = graph::acts(other, server, &entry.extension);
    let failed = steps.iter().flatten().any(|step| step.phase == StepPhase::Failed);
    let done = steps.iter().all(|step| step.is_some_and(|step| step.phase == StepPhase::Succeeded));
    let is_own = other.spec.extension.name == entry.extension;
    Keeper {
        is_own,
        has_failed: !open && !done && (failed || stuck(other).is_some() || facts.at_rest.contains_key(&user.uid)),
        owes: work(other, server, &entry.extension).owed,
        declines: !open && !is_own && other.spec.dependencies == Dependencies::Strict,
    }
}
