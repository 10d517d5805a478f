//! The fence (protocols §6): a new leader raises the workspace's epoch before it acts there.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use provisioning_api::steps::{MAX_NUMBER, STATUS_SCHEMA};
use provisioning_api::{ProviderConfig, Server, Taskserv, Workspace};

use super::kind::Kind;
use crate::context::Context;
use crate::error::{Category, Error};
use crate::guarded::Guarded;
use crate::watches::PAGE;
use crate::workspace::live;

/// Epochs begin with the second in which a Workspace was made, and grow more slowly than seconds do. What is so much later
/// than now, no leader ever had: the workspace is not raised above it, and only the object that has it stops.
const AHEAD: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// (pure) The latest epoch that a leader had of those that the steps of an object remember.
pub fn remembered<K: Kind>(object: &K, now: Timestamp) -> i64 {
    let steps = object.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let last = now.as_second().saturating_add(AHEAD.as_secs());
    steps.iter().map(|step| step.epoch).filter(|epoch| *epoch <= last).max().unwrap_or(0)
}

/// The epoch that this leader raised in a workspace; raises it at the first call, and where it was lost: to above what the
/// steps `remembered` of the object for which it is asked. A Workspace that alone is restored, or was forced away and made
/// again, has an earlier one than they; a leader must still be the newest that they have seen (protocols §6: it only ever
/// grows).
///
/// # Errors
/// Where the API server refuses, or another process raised it in between: then nothing is done.
pub async fn raised(ctx: &Context, namespace: &str, workspace: &Workspace, remembered: i64) -> Result<i64, Error> {
    let uid = workspace.uid().unwrap_or_default();
    let cell = ctx.epochs.cell(namespace);
    let mut held = cell.lock().await;
    let mut floor = remembered;
    if let Some((for_uid, epoch)) = held.as_ref()
        && *for_uid == uid
    {
        // One that is equal and another's was written after ours was lost. Where steps remember a later one, there has to
        // be a later leader: the caller finds it.
        let holds = |workspace: &Workspace| {
            workspace.status.as_ref().is_some_and(|status| {
                let is_ours = status.leader.as_deref() == Some(ctx.settings.identity.as_str());
                (status.epoch, is_ours) >= (*epoch, true) && status.epoch >= remembered
            })
        };
        // The cache may be behind our own write.
        if holds(workspace) || holds(&live::get(ctx, namespace).await?) {
            return Ok(*epoch);
        }
        // Somebody has taken it away, by hand or with a store that was restored: no executor may act until it is back.
        tracing::warn!(namespace, epoch, remembered, "the epoch of the workspace was lost and is raised anew");
        floor = remembered.max(*epoch);
    }
    let epoch = raise(ctx, namespace, floor).await?;
    // Raised is raised: what cannot be taken over below is given up.
    *held = Some((uid, epoch));
    restamp::<ProviderConfig>(ctx, namespace, epoch).await?;
    restamp::<Server>(ctx, namespace, epoch).await?;
    restamp::<Taskserv>(ctx, namespace, epoch).await?;
    ctx.metrics.epoch.with_label_values(&[namespace]).set(epoch);
    tracing::info!(namespace, epoch, "raised the epoch of the workspace");
    Ok(epoch)
}

/// The readable objects of a kind, from the API server itself.
///
/// # Errors
/// Where it does not answer.
pub async fn readable<K: Kind>(ctx: &Context, namespace: &str) -> Result<Vec<K>, Error> {
    let api: Api<Guarded<K>> = Api::namespaced(ctx.client.clone(), namespace);
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await;
        let list = list.map_err(|source| Error::request("list", format!("{}s in {namespace}", K::KIND), source))?;
        found.extend(list.items.into_iter().filter_map(|guarded| guarded.0.ok()));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

fn born(workspace: &Workspace) -> i64 {
    workspace.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

/// Writes an epoch above all that are known, and above this floor.
async fn raise(ctx: &Context, namespace: &str, floor: i64) -> Result<i64, Error> {
    let mut live = live::get(ctx, namespace).await?;
    let format = live.status.as_ref().map_or(0, |status| status.schema);
    if format > STATUS_SCHEMA {
        return Err(Error::TooNew { object: live::describe(namespace), format });
    }
    let known = match &live.status {
        Some(status) if status.epoch > 0 => status.epoch,
        // Seconds grow faster than leaders follow each other, so this is above whatever an earlier Workspace had.
        _ => born(&live),
    };
    let Some(next) = known.max(floor).checked_add(1).filter(|next| *next <= MAX_NUMBER) else {
        let error = "status.epoch is the greatest that can be written; remove it".to_owned();
        return Err(Error::Unreadable { object: live::describe(namespace), error });
    };
    let status = live.status.get_or_insert_default();
    status.epoch = next;
    status.schema = STATUS_SCHEMA;
    status.leader = Some(ctx.settings.identity.clone());
    let epoch = status.epoch;
    live::write_status(ctx, &live).await?;
    Ok(epoch)
}

/// Open entries that exist now are taken over: their epoch, and nothing else, becomes ours.
async fn restamp<K: Kind>(ctx: &Context, namespace: &str, epoch: i64) -> Result<(), Error> {
    let known = |object: &K| object.run_status().is_none_or(|status| status.schema <= STATUS_SCHEMA);
    for mut object in readable::<K>(ctx, namespace).await?.into_iter().filter(known) {
        let open: Vec<usize> = object.run_status().map_or_else(Vec::new, |status| {
            let open = status.steps.iter().enumerate().filter(|(_, step)| step.is_open() && step.epoch < epoch);
            open.map(|(position, _)| position).collect()
        });
        if open.is_empty() {
            continue;
        }
        for position in open {
            object.run_status_mut().steps[position].epoch = epoch;
        }
        match super::persist::write_status(ctx, &object).await {
            Ok(_) => {}
            // It moved in between; what is still open under the old epoch is given up.
            Err(Error::Conflict { object }) => tracing::info!(object, "not taken over: it changed"),
            // One bad object never stops the others.
            Err(error) if error.category() == Category::Permanent => {
                tracing::warn!(error = error.chain(), "not taken over");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_epoch_that_no_leader_ever_had_is_not_remembered() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later = now.as_second() + 1_000;
        for (epoch, latest) in [(0, 7), (later, later), (MAX_NUMBER, 7), (i64::MAX, 7)] {
            let step = |id: &str, epoch: i64| {
                json!({"id": id, "action": "Create", "undo": "None", "inputHash": "v1:0", "phase": "Succeeded", "run": 1,
                    "epoch": epoch})
            };
            let server: Server =
                serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Server",
                "metadata": {"name": "heron", "namespace": "marsh"},
                "spec": {"providerConfigRef": {"name": "meadow"}, "providerSize": "small", "image": {"id": "x"}},
                "status": {"steps": [step("observe", 7), step("create", epoch)]}}))
                .unwrap();
            assert_eq!(remembered(&server, now), latest, "{epoch}");
        }
    }
}
