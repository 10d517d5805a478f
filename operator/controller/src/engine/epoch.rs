//! The fence (protocols §6): a new leader raises the workspace's epoch before it acts there.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use provisioning_api::steps::STATUS_SCHEMA;
use provisioning_api::{ProviderConfig, Server, Taskserv, Workspace};

use super::kind::Kind;
use super::persist::describe;
use crate::context::Context;
use crate::error::{Category, Error};
use crate::guarded::Guarded;
use crate::watches::PAGE;
use crate::workspace::live;

/// Epochs begin with the second in which a Workspace was made, and grow more slowly than seconds do. What is so much later
/// than now, no leader ever had; raised above it, an epoch would soon be the greatest that there is.
const AHEAD: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// The latest epoch that the steps of an object remember.
///
/// # Errors
/// One that no leader ever had: it was written by hand, and stops that object alone.
pub fn remembered<K: Kind>(object: &K, now: Timestamp) -> Result<i64, Error> {
    let steps = object.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let Some(latest) = steps.iter().max_by_key(|step| step.epoch) else { return Ok(0) };
    if latest.epoch > now.as_second().saturating_add(AHEAD.as_secs()) {
        let error =
            format!("the epoch of step '{}' in its status is {}, which no leader ever had", latest.id, latest.epoch);
        return Err(Error::Unreadable { object: describe(object), error });
    }
    Ok(latest.epoch)
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
    let Some(next) = known.max(floor).checked_add(1) else {
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
    fn an_epoch_that_no_leader_ever_had_stops_the_object_that_remembers_it() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (epoch, is_fine) in [(0, true), (now.as_second() + 1_000, true), (i64::MAX - 1, false), (i64::MAX, false)] {
            let step = |id: &str, epoch: i64| {
                json!({"id": id, "action": "Create", "undo": "None", "inputHash": "v1:0", "phase": "Succeeded", "run": 1,
                    "epoch": epoch})
            };
            let server: Server =
                serde_json::from_value(json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Server",
                "metadata": {"name": "heron", "namespace": "marsh"},
                "spec": {"providerConfigRef": {"name": "meadow"}, "providerSize": "small", "image": {"id": "x"}},
                "status": {"steps": [step("observe", 0), step("create", epoch)]}}))
                .unwrap();
            match remembered(&server, now) {
                Ok(latest) => assert!(is_fine && latest == epoch, "{epoch}: {latest}"),
                Err(error) => {
                    let words = format!(
                        "Server marsh/heron cannot be read: the epoch of step 'create' in its status is {epoch}"
                    );
                    assert!(!is_fine && error.to_string().contains(&words), "{error}");
                }
            }
        }
    }
}
