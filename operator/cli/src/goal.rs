//! What can be waited for, and whether it has come.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use futures::StreamExt;
use provisioning_plan::nearest::hint;

use crate::changes::{changes, standing};
use crate::cluster::Cluster;
use crate::item::Item;
use crate::kinds::{Kind, Target};
use crate::request::Scope;
use crate::watching::{Selection, Update, WatchError, watch};

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// `Ready` is True for the newest spec.
    Ready,
    /// The object is gone.
    Deleted,
    /// It is Stalled.
    Failed,
    /// A condition has a status.
    Condition { type_: String, status: String },
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "ready" => Ok(Goal::Ready),
            None if text == "deleted" || text == "delete" => Ok(Goal::Deleted),
            None if text == "failed" => Ok(Goal::Failed),
            Some(("condition", rest)) if !rest.is_empty() => {
                let (type_, status) = rest.split_once('=').unwrap_or((rest, "True"));
                let known = ["True", "False", "Unknown"].into_iter().find(|one| one.eq_ignore_ascii_case(status));
                let status = known.ok_or_else(|| format!("'{status}' is no status; write True, False or Unknown"))?;
                Ok(Goal::Condition { type_: type_.to_owned(), status: status.to_owned() })
            }
            _ => {
                let near = hint(text, ["ready", "deleted", "failed", "condition=Ready"]);
                Err(format!(
                    "'{text}' can't be waited for{near}; write ready, deleted, failed or condition=TYPE[=STATUS]"
                ))
            }
        }
    }
}

/// How an object stands to a goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Reached,
    NotYet,
    /// It will not come by itself; why.
    Never(String),
}

impl Goal {
    /// How an object stands to it; `None` is one that does not exist.
    pub(crate) fn judge(&self, item: Option<&Item>) -> Judgement {
        let stalled =
            |item: &Item| item.stalled().map(|condition| format!("{}: {}", condition.reason, condition.message));
        match (self, item) {
            (Goal::Deleted, None) => Judgement::Reached,
            (Goal::Ready, Some(item)) if item.is_ready() => Judgement::Reached,
            (Goal::Failed, Some(item)) if item.stalled().is_some() => Judgement::Reached,
            (Goal::Condition { type_, status }, Some(item)) => {
                let found = item.condition(type_);
                match found.map_or(status == "False", |condition| condition.status == *status) {
                    true => Judgement::Reached,
                    false => stalled(item).map_or(Judgement::NotYet, Judgement::Never),
                }
            }
            (Goal::Ready, Some(item)) if item.is_deleting() => Judgement::Never("it is being deleted".to_owned()),
            (Goal::Deleted, Some(item)) if !item.is_deleting() => Judgement::NotYet,
            (Goal::Ready | Goal::Deleted, Some(item)) => stalled(item).map_or(Judgement::NotYet, Judgement::Never),
            (Goal::Failed, Some(_)) | (_, None) => Judgement::NotYet,
        }
    }

    /// What a person reads once it has come.
    pub(crate) fn reached(&self) -> String {
        match self {
            Goal::Ready => "ready".to_owned(),
            Goal::Deleted => "deleted".to_owned(),
            Goal::Failed => "failed".to_owned(),
            Goal::Condition { type_, status } => format!("{type_}={status}"),
        }
    }
}

/// How to wait.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) goal: Goal,
    pub(crate) timeout: Option<Duration>,
    /// Also while an object is Stalled or does not exist.
    pub(crate) keep_waiting: bool,
}

/// Waits until all objects of one kind and namespace have reached the goal; `told` gets each change.
pub(crate) async fn wait(
    cluster: &Cluster,
    kind: Kind,
    namespace: &str,
    names: &[String],
    waiting: &Waiting,
    told: &mut (dyn FnMut(&Target, &str) + Send),
) -> Result<(), WatchError> {
    let mut last = "no answer yet".to_owned();
    let mut noted = |target: &Target, line: &str, standing: &str| {
        last = format!("{target}: {standing}");
        told(target, line);
    };
    let work = follow(cluster, kind, namespace, names, waiting, &mut noted);
    match waiting.timeout {
        None => work.await,
        Some(after) => match tokio::time::timeout(after, work).await {
            Ok(done) => done,
            Err(_) => Err(WatchError::Timeout { after, text: format!("not {}; {last}", waiting.goal.reached()) }),
        },
    }
}

async fn follow(
    cluster: &Cluster,
    kind: Kind,
    namespace: &str,
    names: &[String],
    waiting: &Waiting,
    told: &mut (dyn FnMut(&Target, &str, &str) + Send),
) -> Result<(), WatchError> {
    let name = if let [one] = names { Some(one.clone()) } else { None };
    let scope = Scope::Namespace(namespace.to_owned());
    let mut updates = watch(cluster, [Selection { kind, scope, name, labels: None }]);
    let mut missing: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut unseen = missing.clone();
    let mut complete = false;
    while let Some(update) = updates.next().await {
        match update? {
            Update::Object { before, after } => {
                let Some(item) = after.as_deref().or(before.as_deref()) else { continue };
                let target = item.target();
                let Some(name) = names.iter().find(|name| **name == target.name) else { continue };
                unseen.remove(name.as_str());
                for line in changes(before.as_deref(), after.as_deref()) {
                    told(&target, &line, &after.as_deref().map_or_else(|| "gone".to_owned(), standing));
                }
                let replaced = before.as_ref().is_some_and(|old| old.uid() != item.uid());
                let judged = if replaced { waiting.goal.judge(None) } else { waiting.goal.judge(after.as_deref()) };
                match judged {
                    Judgement::Reached => drop(missing.remove(name.as_str())),
                    Judgement::Never(why) if !waiting.keep_waiting => {
                        return Err(WatchError::Never(format!(
                            "{target} will not be {}: {why}",
                            waiting.goal.reached()
                        )));
                    }
                    Judgement::NotYet if after.is_none() && !waiting.keep_waiting => {
                        return Err(WatchError::Never(format!("{target} was deleted")));
                    }
                    Judgement::NotYet | Judgement::Never(_) => drop(missing.insert(name)),
                }
            }
            Update::Complete => {
                complete = true;
                for name in std::mem::take(&mut unseen) {
                    if waiting.goal == Goal::Deleted {
                        missing.remove(name);
                    } else if !waiting.keep_waiting {
                        let target = Target { kind, name: name.to_owned() };
                        return Err(WatchError::NotFound { target, namespace: namespace.to_owned() });
                    }
                }
            }
        }
        if complete && missing.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::item::tests::server;

    #[test]
    fn goals_are_written_as_for_kubectl() {
        let condition = |type_: &str, status: &str| Goal::Condition { type_: type_.into(), status: status.into() };
        assert_eq!("ready".parse(), Ok(Goal::Ready));
        assert_eq!("condition=Stalled".parse(), Ok(condition("Stalled", "True")));
        assert_eq!("condition=Ready=false".parse(), Ok(condition("Ready", "False")));
        assert!("redy".parse::<Goal>().unwrap_err().contains("did you mean 'ready'?"));
        assert!("condition=Ready=maybe".parse::<Goal>().is_err());
    }

    #[test]
    fn a_stalled_object_will_not_become_ready() {
        let ready = server("heron", ("True", "Succeeded", "all"), json!([]));
        let moving = server("heron", ("False", "Running", "create"), json!([]));
        let stalled = server("heron", ("False", "StepFailed", "create: no zone"), json!([]));
        let never = Judgement::Never("StepFailed: create: no zone".into());
        let table = [
            (Goal::Ready, Some(&ready), Judgement::Reached),
            (Goal::Ready, Some(&moving), Judgement::NotYet),
            (Goal::Ready, Some(&stalled), never.clone()),
            (Goal::Ready, None, Judgement::NotYet),
            (Goal::Failed, Some(&stalled), Judgement::Reached),
            (Goal::Failed, Some(&ready), Judgement::NotYet),
            // It is not on its way out yet: a failure of its forward steps says nothing of its end.
            (Goal::Deleted, Some(&stalled), Judgement::NotYet),
            (Goal::Deleted, None, Judgement::Reached),
            (Goal::Condition { type_: "Stalled".into(), status: "False".into() }, Some(&ready), Judgement::Reached),
            (Goal::Condition { type_: "Ready".into(), status: "True".into() }, Some(&stalled), never),
        ];
        for (goal, item, expected) in table {
            assert_eq!(goal.judge(item), expected, "{goal:?} {item:?}");
        }
    }

    #[test]
    fn a_deletion_that_is_blocked_will_not_end() {
        let mut heron = server("heron", ("False", "DeletionBlocked", "delete by hand"), json!([]));
        heron.metadata.deletion_timestamp = heron.metadata.creation_timestamp.clone();
        assert_eq!(Goal::Deleted.judge(Some(&heron)), Judgement::Never("DeletionBlocked: delete by hand".into()));
        assert_eq!(Goal::Ready.judge(Some(&heron)), Judgement::Never("it is being deleted".into()));
    }

    #[tokio::test]
    async fn waiting_is_one_list_and_no_polling() {
        let heron = server("heron", ("True", "Succeeded", "all"), json!([]));
        let list = json!({"metadata": {"resourceVersion": "7"}, "items": [heron.json]});
        let stub = crate::stub::Stub::new(move |_| crate::stub::reply(200, list.clone()));
        let (waiting, names) = (
            |goal| Waiting { goal, timeout: Some(Duration::from_secs(9)), keep_waiting: false },
            ["heron".to_owned(), "curlew".to_owned()],
        );
        let cluster = stub.cluster();
        let mut lines = Vec::new();
        let mut told = |target: &Target, line: &str| lines.push(format!("{target} {line}"));
        wait(&cluster, Kind::Server, "first", &names[..1], &waiting(Goal::Ready), &mut told).await.unwrap();
        let error =
            wait(&cluster, Kind::Server, "first", &names, &waiting(Goal::Ready), &mut |_, _| {}).await.unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with("server/curlew in namespace first: not found; see what is there: "), "{told}");
        assert_eq!(lines, ["server/heron Ready, 1/2 steps"]);
        let servers = "GET /apis/provisioning.dev/v1alpha1/namespaces/first/servers?";
        let requests = stub.requests();
        assert!(
            requests[0].starts_with(servers) && requests[0].contains("fieldSelector=metadata.name%3Dheron"),
            "{requests:?}"
        );
        assert_eq!(requests.len(), 2, "{requests:?}");
    }
}
