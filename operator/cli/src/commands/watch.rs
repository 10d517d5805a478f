//! `provisioning watch`: a line for each change, one watch for each kind.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use futures::StreamExt;
use jiff::Timestamp;

use crate::changes::changes;
use crate::cluster::{Cluster, ClusterArguments};
use crate::complete;
use crate::error::Error;
use crate::exit::Exit;
use crate::goal::{Goal, Judgement};
use crate::item::Item;
use crate::kinds::{Kind, KindError, kinds, targets};
use crate::output::{Colour, Style, print};
use crate::request::Scope;
use crate::times::{clock, parse_duration};
use crate::watching::{Selection, Update, WatchError, watch};

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Kinds, or one object as KIND NAME or KIND/NAME. Default: all kinds
    #[arg(value_name = "KIND NAME", add = ArgValueCompleter::new(complete::objects))]
    what: Vec<String>,
    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only objects with these labels, such as tier=web
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// End once all that is watched is: ready, deleted, failed, condition=TYPE[=STATUS]
    #[arg(long, value_name = "WHAT")]
    until: Option<Goal>,
    /// How long to watch at most
    #[arg(long, value_parser = parse_duration, requires = "until")]
    timeout: Option<Duration>,
}

/// Watches until interrupted, or until the goal is reached.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    let (kinds, name) = selection(&arguments.what)?;
    let cluster = Cluster::find(cluster).await?;
    let scope = if arguments.all_namespaces { Scope::All } else { Scope::Namespace(cluster.namespace.clone()) };
    let selections = kinds.into_iter().map(|kind| {
        let (scope, name, labels) = (scope.clone(), name.clone(), arguments.selector.clone());
        Selection { kind, scope, name, labels }
    });
    let mut crowd = Crowd::default();
    let work = follow(&cluster, selections.collect(), arguments.until.as_ref(), &mut crowd, style);
    match arguments.timeout {
        None => work.await?,
        Some(after) => match tokio::time::timeout(after, work).await {
            Ok(done) => done?,
            Err(_) => {
                let goal = arguments.until.as_ref().map(Goal::reached).unwrap_or_default();
                return Err(WatchError::Timeout { after, text: format!("not {goal}: {}", crowd.others()) }.into());
            }
        },
    }
    Ok(Exit::Done)
}

/// Kinds alone, or one object.
fn selection(words: &[String]) -> Result<(Vec<Kind>, Option<String>), KindError> {
    let named = words.iter().any(|word| word.contains('/'))
        || matches!(words, [first, second] if first.parse::<Kind>().is_ok() && kinds(std::slice::from_ref(second)).is_err());
    if !named {
        return Ok((kinds(words)?, None));
    }
    match targets(words)?.as_slice() {
        [one] => Ok((vec![one.kind], Some(one.name.clone()))),
        more => Err(KindError::Mixed(more.last().map(ToString::to_string).unwrap_or_default())),
    }
}

async fn follow(
    cluster: &Cluster,
    selections: Vec<Selection>,
    goal: Option<&Goal>,
    crowd: &mut Crowd,
    style: Style,
) -> Result<(), WatchError> {
    let all = selections.first().is_some_and(|selection| selection.scope == Scope::All);
    let mut open = selections.len();
    let mut updates = watch(cluster, selections);
    while let Some(update) = updates.next().await {
        match update? {
            Update::Complete => open = open.saturating_sub(1),
            Update::Object { before, after } => {
                let (before, after) = (before.as_deref(), after.as_deref());
                let Some(item) = after.or(before) else { continue };
                for line in changes(before, after) {
                    print(&line_of(item, &line, all, Timestamp::now(), style));
                }
                if let Some(goal) = goal {
                    crowd.add(item, after, goal);
                }
            }
        }
        match goal.filter(|_| open == 0).map(|goal| crowd.judge(goal)) {
            None | Some(Judgement::NotYet) => {}
            Some(Judgement::Reached) => return Ok(()),
            Some(Judgement::Never(why)) => return Err(WatchError::Never(why)),
        }
    }
    Ok(())
}

fn line_of(item: &Item, line: &str, all: bool, now: Timestamp, style: Style) -> String {
    let namespace = if all { format!("{} ", item.namespace()) } else { String::new() };
    let colour = if line.starts_with("Ready") || line.contains("Succeeded (") || line.contains("Undone (") {
        Some(Colour::Green)
    } else if line.contains("Failed") || line.contains("Stalled") || line.contains("can't read") {
        Some(Colour::Red)
    } else {
        None
    };
    let line = colour.map_or_else(|| line.to_owned(), |colour| style.paint(colour, line));
    format!("{} {namespace}{:<24} {line}\n", style.paint(Colour::Dim, &clock(now)), item.target().to_string())
}

/// How all watched objects together stand to a goal.
#[derive(Debug, Default)]
struct Crowd(BTreeMap<(Kind, String, String), Judgement>);

impl Crowd {
    fn add(&mut self, item: &Item, after: Option<&Item>, goal: &Goal) {
        let key = (item.kind, item.namespace().to_owned(), item.name().to_owned());
        match after {
            Some(after) => self.0.insert(key, goal.judge(Some(after))),
            None => self.0.remove(&key),
        };
    }

    /// Those that are not there yet.
    fn others(&self) -> String {
        let others = self.0.iter().filter(|(_, one)| **one != Judgement::Reached);
        let names: Vec<String> = others.map(|((kind, _, name), _)| format!("{kind}/{name}")).collect();
        if names.is_empty() { "there is no such object".to_owned() } else { names.join(", ") }
    }

    /// `ready`: all are, and there is one. `failed`: one is. `deleted`: none is left. Never: the others can't get there.
    fn judge(&self, goal: &Goal) -> Judgement {
        let reached = self.0.values().filter(|one| **one == Judgement::Reached).count();
        let done = match goal {
            Goal::Deleted => self.0.is_empty(),
            Goal::Failed => reached > 0,
            Goal::Ready | Goal::Condition { .. } => reached > 0 && reached == self.0.len(),
        };
        if done {
            return Judgement::Reached;
        }
        let waiting =
            self.0.values().any(|one| *one == Judgement::NotYet) || self.0.is_empty() || *goal == Goal::Failed;
        let stuck = self.0.iter().find_map(|((kind, _, name), one)| match one {
            Judgement::Never(why) => Some(format!("{kind}/{name} will not be {}: {why}", goal.reached())),
            Judgement::Reached | Judgement::NotYet => None,
        });
        stuck.filter(|_| !waiting).map_or(Judgement::NotYet, Judgement::Never)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::item::tests::server;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn one_object_or_some_kinds_are_watched() {
        assert_eq!(selection(&words("")).unwrap(), (Kind::ALL.to_vec(), None));
        assert_eq!(selection(&words("srv tsv")).unwrap(), (vec![Kind::Server, Kind::Taskserv], None));
        assert_eq!(selection(&words("srv heron")).unwrap(), (vec![Kind::Server], Some("heron".into())));
        assert_eq!(selection(&words("srv/heron")).unwrap(), (vec![Kind::Server], Some("heron".into())));
        assert!(selection(&words("srv/heron srv/curlew")).is_err());
        assert!(selection(&words("sever")).is_err());
    }

    #[test]
    fn all_must_be_ready_and_one_that_is_stuck_ends_it_once_the_others_stand() {
        let ready = server("heron", ("True", "Succeeded", "all"), json!([]));
        let moving = server("curlew", ("False", "Running", "x"), json!([]));
        let stuck = server("curlew", ("False", "StepFailed", "x"), json!([]));
        let judge = |items: &[&Item], goal: Goal| {
            let mut crowd = Crowd::default();
            items.iter().for_each(|item| crowd.add(item, Some(item), &goal));
            crowd.judge(&goal)
        };
        assert_eq!(judge(&[], Goal::Ready), Judgement::NotYet);
        assert_eq!(judge(&[&ready], Goal::Ready), Judgement::Reached);
        assert_eq!(judge(&[&ready, &moving], Goal::Ready), Judgement::NotYet);
        let never = Judgement::Never("server/curlew will not be ready: StepFailed: x".into());
        assert_eq!(judge(&[&ready, &stuck], Goal::Ready), never);
        assert_eq!(judge(&[&ready, &stuck], Goal::Failed), Judgement::Reached);
        assert_eq!(judge(&[&ready], Goal::Failed), Judgement::NotYet);
        assert_eq!(judge(&[], Goal::Deleted), Judgement::Reached);
        assert_eq!(judge(&[&ready], Goal::Deleted), Judgement::NotYet);
    }

    #[test]
    fn a_line_has_time_object_and_change() {
        let heron = server("heron", ("True", "Succeeded", "all"), json!([]));
        let line = line_of(&heron, "create: Running (run 1)", true, Timestamp::UNIX_EPOCH, Style::PLAIN);
        assert_eq!(&line[8..], " first server/heron             create: Running (run 1)\n");
    }
}
