//! Watches: one for each kind, that survive interruptions; and waiting for a goal.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll, StreamExt};
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};

use crate::cluster::Cluster;
use crate::exit::Exit;
use crate::item::Item;
use crate::kinds::{Kind, Target};
use crate::output::tell;
use crate::request::{RequestError, Scope, api, list_hint};

/// A watch can't go on, or what was waited for does not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("{0}")]
    Never(String),
    #[error("{target} in namespace {namespace}: not found; {}", list_hint(target.kind, namespace))]
    NotFound { target: Target, namespace: String },
    #[error("after {} s: {text}", .after.as_secs())]
    Timeout { after: Duration, text: String },
}

impl WatchError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Request(error) => error.exit(),
            Self::Never(_) => Exit::Failed,
            Self::NotFound { .. } => Exit::No,
            Self::Timeout { .. } => Exit::Timeout,
        }
    }
}

/// What one watch looks at.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) kind: Kind,
    pub(crate) scope: Scope,
    /// Only the object of this name.
    pub(crate) name: Option<String>,
    /// Only objects with these labels.
    pub(crate) labels: Option<String>,
}

/// An object appeared, changed or went; or all that was there at the start has been told.
#[derive(Clone, Debug)]
pub(crate) enum Update {
    Object { before: Option<Box<Item>>, after: Option<Box<Item>> },
    Complete,
}

/// Objects by namespace and name.
type Held = BTreeMap<(String, String), Item>;

/// What one watch knows: turns the events of the API server into updates.
#[derive(Debug)]
struct Known {
    kind: Kind,
    held: Held,
    /// What is seen while the watch starts over.
    fresh: Option<Held>,
}

impl Known {
    fn new(kind: Kind) -> Self {
        Self { kind, held: Held::new(), fresh: None }
    }

    fn feed(&mut self, event: Event<DynamicObject>) -> Vec<Update> {
        match event {
            Event::Init => {
                self.fresh = Some(Held::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let item = Item::new(self.kind, object);
                if let Some(fresh) = &mut self.fresh {
                    fresh.insert(key(&item), item.clone());
                }
                vec![self.applied(item)]
            }
            Event::InitDone => {
                let fresh = self.fresh.take().unwrap_or_default();
                let gone: Vec<_> = self.held.keys().filter(|key| !fresh.contains_key(*key)).cloned().collect();
                let mut updates: Vec<Update> = gone.iter().map(|key| self.deleted(key)).collect();
                updates.push(Update::Complete);
                updates
            }
            Event::Apply(object) => vec![self.applied(Item::new(self.kind, object))],
            Event::Delete(object) => {
                let item = Item::new(self.kind, object);
                vec![self.deleted(&key(&item))]
            }
        }
    }

    fn applied(&mut self, item: Item) -> Update {
        let before = self.held.insert(key(&item), item.clone());
        Update::Object { before: before.map(Box::new), after: Some(Box::new(item)) }
    }

    fn deleted(&mut self, key: &(String, String)) -> Update {
        Update::Object { before: self.held.remove(key).map(Box::new), after: None }
    }
}

fn key(item: &Item) -> (String, String) {
    (item.namespace().to_owned(), item.name().to_owned())
}

/// The updates of several watches, as they come.
pub(crate) type Updates = SelectAll<BoxStream<'static, Result<Update, RequestError>>>;

/// Starts the watches.
pub(crate) fn watch(cluster: &Cluster, selections: impl IntoIterator<Item = Selection>) -> Updates {
    futures::stream::select_all(selections.into_iter().map(|selection| one(cluster, selection)))
}

fn one(cluster: &Cluster, selection: Selection) -> BoxStream<'static, Result<Update, RequestError>> {
    let Selection { kind, scope, name, labels } = selection;
    let field_selector = name.map(|name| format!("metadata.name={name}"));
    let config = watcher::Config { field_selector, label_selector: labels, ..watcher::Config::default() };
    let events = watcher::watcher(api(cluster, kind, &scope), config).default_backoff();
    let (cluster, mut known, mut complete) = (cluster.clone(), Known::new(kind), false);
    let what = format!("{} in {scope}", kind.plural());
    events
        .flat_map(move |event| {
            let updates: Vec<Result<Update, RequestError>> = match event {
                Ok(event) => {
                    complete |= matches!(event, Event::InitDone);
                    known.feed(event).into_iter().map(Ok).collect()
                }
                // Once it has worked it will work again; until then the error is the answer.
                Err(error) if complete => {
                    tell(&format!(
                        "note: the watch of {what} was interrupted and starts over: {}",
                        crate::cluster::causes(&error)
                    ));
                    Vec::new()
                }
                Err(error) => vec![Err(failure(&cluster, &what, error))],
            };
            futures::stream::iter(updates)
        })
        .boxed()
}

fn failure(cluster: &Cluster, what: &str, error: watcher::Error) -> RequestError {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => RequestError::new(cluster, "watch", what, error),
        watcher::Error::WatchError(status) => RequestError::from_status("watch", what, status),
        watcher::Error::NoResourceVersion => RequestError::Answer {
            verb: "watch",
            what: what.to_owned(),
            text: "the API server's list has no resourceVersion".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::changes::changes;

    fn object(name: &str, spec: serde_json::Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "first", "uid": name}, "spec": spec}))
            .unwrap()
    }

    fn told(updates: &[Update]) -> Vec<String> {
        let line = |update: &Update| match update {
            Update::Object { before, after } => changes(before.as_deref(), after.as_deref()).join("; "),
            Update::Complete => "complete".to_owned(),
        };
        updates.iter().map(line).collect()
    }

    #[test]
    fn what_went_during_an_interruption_is_told() {
        let mut known = Known::new(Kind::Workspace);
        let mut updates = Vec::new();
        for event in [
            Event::Init,
            Event::InitApply(object("workspace", json!({}))),
            Event::InitDone,
            Event::Init,
            Event::InitDone,
        ] {
            updates.extend(known.feed(event));
        }
        assert_eq!(told(&updates), ["not looked at yet", "complete", "gone", "complete"]);
    }

    #[test]
    fn an_object_that_cannot_be_read_does_not_end_the_watch() {
        let mut known = Known::new(Kind::Workspace);
        let bad = known.feed(Event::Apply(object("workspace", json!({"parallelism": "many"}))));
        let good = known.feed(Event::Apply(object("workspace", json!({"parallelism": 3}))));
        assert_eq!(
            told(&bad),
            ["not looked at yet; this program can't read it: spec.parallelism: a string, where an integer belongs"]
        );
        assert_eq!(good.len(), 1);
    }
}
