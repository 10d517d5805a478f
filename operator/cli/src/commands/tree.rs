//! `provisioning tree`: a workspace, workflow or cluster, what it made, and the steps of each.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use futures::StreamExt;
use futures::future::join_all;
use jiff::Timestamp;
use provisioning_api::names::LABEL_OWNER_UID;
use provisioning_api::steps::{StepAction, StepPhase, StepStatus};

use super::show::phase_colour;
use crate::changes::{failure, standing, took};
use crate::cluster::{Cluster, ClusterArguments};
use crate::columns::standing_colour;
use crate::complete;
use crate::error::Error;
use crate::exit::Exit;
use crate::item::Item;
use crate::kinds::{Kind, Target, targets};
use crate::output::{Colour, Style, print, program};
use crate::request::{RequestError, Scope, get, list, what_came};
use crate::times::span;
use crate::watching::{Selection, Update, watch};

/// Arguments of `tree`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// KIND NAME, or KIND/NAME. Default: the namespace's workspace
    #[arg(value_name = "KIND NAME", add = ArgValueCompleter::new(complete::objects))]
    object: Vec<String>,
    /// Keep it up to date until interrupted; on a terminal
    #[arg(short, long)]
    watch: bool,
}

/// Shows the tree below an object.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    let words = if arguments.object.is_empty() { vec![Kind::Workspace.to_string()] } else { arguments.object };
    let [root] = targets(&words)?.try_into().map_err(|_| Error::Usage("tree shows one object".to_owned()))?;
    if arguments.watch && !std::io::stdout().is_terminal() {
        let text = format!("tree --watch draws on a terminal; for a file or a pipe: {} watch {root}", program());
        return Err(Error::Usage(text));
    }
    let cluster = Cluster::find(cluster).await?;
    if arguments.watch {
        print("\u{1b}[2J");
        follow(&cluster, &root, style, &mut |text| print(&frame(text))).await?;
    } else {
        let (items, exit) = gather(&cluster, &root).await?;
        print(&draw(&root, &items, Timestamp::now(), style));
        return Ok(exit);
    }
    Ok(Exit::Done)
}

/// The object, what may be below it, and how the command ends: one request for the object, one for each kind below.
async fn gather(cluster: &Cluster, root: &Target) -> Result<(Vec<Item>, Exit), RequestError> {
    let item = get(cluster, root).await?;
    let scope = Scope::Namespace(cluster.namespace.clone());
    let selector = match root.kind {
        // What its clusters made is below it, too: all that was made by somebody.
        Kind::BatchWorkflow => Some(LABEL_OWNER_UID.to_owned()),
        Kind::Cluster => Some(format!("{LABEL_OWNER_UID}={}", item.uid())),
        Kind::Workspace | Kind::ProviderConfig | Kind::Server | Kind::Taskserv => None,
    };
    let lists = below(root.kind).iter().map(|kind| list(cluster, *kind, &scope, selector.as_deref()));
    let (lists, exit) = what_came(join_all(lists).await)?;
    Ok((std::iter::once(item).chain(lists.into_iter().flatten()).collect(), exit))
}

/// The kinds that can be below a kind.
pub(super) fn below(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::Workspace => &[Kind::ProviderConfig, Kind::BatchWorkflow, Kind::Cluster, Kind::Server, Kind::Taskserv],
        Kind::BatchWorkflow => &[Kind::Cluster, Kind::Server, Kind::Taskserv],
        Kind::Cluster => &[Kind::Server, Kind::Taskserv],
        Kind::ProviderConfig | Kind::Server | Kind::Taskserv => &[],
    }
}

/// Draws anew with every change, once all that was there has been seen.
async fn follow(cluster: &Cluster, root: &Target, style: Style, show: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let scope = Scope::Namespace(cluster.namespace.clone());
    let own = Selection { kind: root.kind, scope: scope.clone(), name: Some(root.name.clone()), labels: None };
    let others =
        below(root.kind).iter().map(|kind| Selection { kind: *kind, scope: scope.clone(), name: None, labels: None });
    let selections: Vec<Selection> = std::iter::once(own).chain(others).collect();
    let mut open = selections.len();
    let mut updates = watch(cluster, selections);
    let mut items: BTreeMap<Target, Item> = BTreeMap::new();
    // Times of open steps go on while nothing else happens.
    let mut second = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = second.tick() => {}
            update = updates.next() => match update.transpose()? {
                None => return Ok(()),
                Some(Update::Complete) => open = open.saturating_sub(1),
                Some(Update::Object { before, after: None }) => {
                    if let Some(item) = before {
                        items.remove(&item.target());
                    }
                }
                Some(Update::Object { after: Some(item), .. }) => drop(items.insert(item.target(), *item)),
            }
        }
        if open > 0 {
            continue;
        }
        let all: Vec<Item> = items.values().cloned().collect();
        show(&draw(root, &all, Timestamp::now(), style));
    }
}

/// A drawing over the former one: from the top, each line cut at the terminal's edge and cleared to it.
fn frame(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}\u{1b}[0m\u{1b}[K\n")).collect();
    format!("\u{1b}[?7l\u{1b}[H{lines}\u{1b}[J\u{1b}[?7h")
}

/// A line and the lines below it.
struct Node {
    text: String,
    children: Vec<Node>,
}

fn draw(root: &Target, items: &[Item], now: Timestamp, style: Style) -> String {
    let Some(item) = items.iter().find(|item| item.target() == *root) else { return format!("{root}: not found\n") };
    let tree = Forest { items, now, style };
    let node = if root.kind == Kind::Workspace { tree.workspace(item) } else { tree.object(item) };
    let mut text = format!("{}\n", node.text);
    branches(&node.children, "", style, &mut text);
    text
}

fn branches(nodes: &[Node], indent: &str, style: Style, text: &mut String) {
    for (position, node) in nodes.iter().enumerate() {
        let last = position + 1 == nodes.len();
        let (branch, stem) = match (style.unicode, last) {
            (true, false) => ("├─ ", "│  "),
            (true, true) => ("└─ ", "   "),
            (false, false) => ("|- ", "|  "),
            (false, true) => ("`- ", "   "),
        };
        text.push_str(&format!("{indent}{branch}{}\n", node.text));
        branches(&node.children, &format!("{indent}{stem}"), style, text);
    }
}

struct Forest<'a> {
    items: &'a [Item],
    now: Timestamp,
    style: Style,
}

impl Forest<'_> {
    /// All objects of the namespace; those that a workflow or cluster made are below it.
    fn workspace(&self, workspace: &Item) -> Node {
        let owned = |item: &&Item| self.items.iter().any(|owner| is_owner(owner, item));
        let others = self.items.iter().filter(|item| item.target() != workspace.target());
        let children = others.filter(|item| !owned(item)).map(|item| self.object(item)).collect();
        Node { text: self.head(workspace), children }
    }

    fn object(&self, item: &Item) -> Node {
        let mut children: Vec<Node> = item.steps().iter().map(|step| self.step(item, step)).collect();
        // What it made once and no step names any more.
        let named: Vec<Target> = item.steps().iter().filter_map(child_of).collect();
        let rest = self.items.iter().filter(|other| is_owner(item, other) && !named.contains(&other.target()));
        children.extend(rest.map(|other| self.object(other)));
        Node { text: self.head(item), children }
    }

    fn step(&self, item: &Item, step: &StepStatus) -> Node {
        let child = child_of(step).and_then(|target| self.items.iter().find(|other| other.target() == target));
        let child = child.filter(|child| is_owner(item, child));
        let mut text = format!("{} {}", symbol(step.phase, self.style), step.id);
        let took = took(step)
            .or_else(|| step.started_at.as_ref().filter(|_| step.is_open()).map(|started| span(started.0, self.now)));
        if let Some(took) = took {
            text = format!("{text} {}", self.style.paint(Colour::Dim, &took));
        }
        if step.phase == StepPhase::Pending {
            let after: Vec<&str> = step.depends_on.iter().map(|dependency| dependency.step.as_str()).collect();
            if !after.is_empty() && step.run == 0 {
                text = format!("{text} {}", self.style.paint(Colour::Dim, &format!("after {}", after.join(", "))));
            }
        }
        if let Some(failure) = failure(step) {
            text = format!("{text} {}", self.style.paint(phase_colour(step.phase), &failure));
        } else if child.is_none() && step.is_open() && !step.why.is_empty() {
            text = format!("{text} {}", self.style.paint(Colour::Dim, &step.why));
        }
        Node { text, children: child.map(|child| self.object(child)).into_iter().collect() }
    }

    fn head(&self, item: &Item) -> String {
        let progress = item.progress().map_or_else(String::new, |progress| format!(" {progress}"));
        let deleting = if item.is_deleting() { " (being deleted)" } else { "" };
        let name = self.style.paint(Colour::Bold, &item.target().to_string());
        let unread =
            item.typed.as_ref().err().map_or_else(String::new, |problem| format!("; can't be read: {problem}"));
        let standing = self.style.paint(standing_colour(item), &standing(item));
        format!("{name}{progress} {standing}{deleting}{unread}")
    }
}

fn is_owner(owner: &Item, item: &Item) -> bool {
    let label = item.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_OWNER_UID));
    !owner.uid().is_empty() && label.is_some_and(|uid| uid == owner.uid())
}

/// The object that a step applies: its `why` is `Kind name`.
pub(crate) fn child_of(step: &StepStatus) -> Option<Target> {
    if step.action != StepAction::Apply {
        return None;
    }
    let (kind, name) = step.why.split_once(' ')?;
    Some(Target { kind: kind.parse().ok()?, name: name.to_owned() })
}

fn symbol(phase: StepPhase, style: Style) -> String {
    let (nice, plain) = match phase {
        StepPhase::Pending => ("○", "[ ]"),
        StepPhase::Running => ("●", "[>]"),
        StepPhase::Succeeded => ("✓", "[x]"),
        StepPhase::Failed => ("✗", "[!]"),
        StepPhase::Cancelled | StepPhase::Skipped | StepPhase::Omitted => ("–", "[-]"),
        StepPhase::Undoing => ("↩", "[<]"),
        StepPhase::Undone => ("∅", "[0]"),
        StepPhase::UndoFailed => ("✗", "[!]"),
    };
    style.paint(phase_colour(phase), if style.unicode { nice } else { plain })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{FutureExt, future};
    use serde_json::json;

    use super::*;
    use crate::item::tests::{conditions, item, server, step};
    use crate::stub::{Stub, reply};

    fn forest() -> Vec<Item> {
        let mut redis = step("redis", "Apply", "Pending");
        redis["run"] = json!(0);
        redis["dependsOn"] = json!([{"step": "heron"}]);
        redis["why"] = json!("Taskserv redis");
        let mut apply = step("heron", "Apply", "Running");
        apply["why"] = json!("Server heron");
        let workflow = item(
            Kind::BatchWorkflow,
            json!({"metadata": {"name": "first", "namespace": "first", "uid": "uid-first", "generation": 1},
                "spec": {"steps": []},
                "status": {"observedGeneration": 1, "conditions": conditions(("False", "Running", "heron is running")),
                    "steps": [apply, redis],
                    "progress": {"total": 2, "succeeded": 0, "failed": 0, "running": 1, "summary": "0/2"}}}),
        );
        let mut create = step("create", "Create", "Succeeded");
        create["finishedAt"] = json!("2026-05-04T10:00:05Z");
        let mut reach = step("reach", "Reach", "Pending");
        reach["class"] = json!("Transient");
        reach["reason"] = json!("SshRefused");
        reach["message"] = json!("connection refused");
        let mut heron = server("heron", ("False", "Retrying", "reach again"), json!([create, reach]));
        heron.metadata.labels = Some([(LABEL_OWNER_UID.to_owned(), "uid-first".to_owned())].into());
        let alone = server("curlew", ("True", "Succeeded", "all"), json!([]));
        let workspace =
            item(Kind::Workspace, json!({"metadata": {"name": "workspace", "namespace": "first"}, "spec": {}}));
        vec![workspace, workflow, heron, alone]
    }

    /// What is drawn, one drawing after the other, until one has these words.
    async fn drawn_until(stub: &Stub, root: &Target, words: &str) -> Result<Vec<String>, Error> {
        let (shown, mut drawn) = tokio::sync::mpsc::unbounded_channel();
        let cluster = stub.cluster();
        let mut show = |text: &str| shown.send(text.to_owned()).unwrap();
        let work = follow(&cluster, root, Style::PLAIN, &mut show);
        let read = async move {
            let mut frames = Vec::new();
            while let Some(text) = drawn.recv().await {
                let ended = text.contains(words);
                frames.push(text);
                if ended {
                    break;
                }
            }
            frames
        };
        let either = async {
            tokio::select! {
                ended = work => ended.map(|()| Vec::new()),
                frames = read => Ok(frames),
            }
        };
        // A test that hangs tells nothing.
        tokio::time::timeout(Duration::from_secs(20), either).await.unwrap()
    }

    #[tokio::test]
    async fn a_watched_tree_is_drawn_once_all_is_seen_and_anew_with_each_change() {
        let all = forest();
        let stub = Stub::slow(move |request| {
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            let of = |item: &&Item| path.ends_with(item.kind.plural());
            let steps = json!([step("reach", "Reach", "Running")]);
            let mut changed = server("curlew", ("True", "Succeeded", "all"), steps).json;
            changed["metadata"]["resourceVersion"] = json!("2");
            // One change, to the first watch of servers; then all is at rest.
            let news = path.ends_with("/servers") && query.contains("resourceVersion=1");
            match (query.contains("watch=true"), news) {
                (true, true) => future::ready(reply(200, json!({"type": "MODIFIED", "object": changed}))).boxed(),
                (true, false) => future::pending().boxed(),
                (false, _) => {
                    let items: Vec<_> = all.iter().filter(of).map(|item| item.json.clone()).collect();
                    future::ready(reply(200, json!({"metadata": {"resourceVersion": "1"}, "items": items}))).boxed()
                }
            }
        });
        let root = Target { kind: Kind::Workspace, name: "workspace".into() };
        let frames = drawn_until(&stub, &root, "[>] reach").await.unwrap();
        assert!(frames.iter().all(|frame| frame.contains("server/heron") && frame.contains("batchworkflow/first")));
        assert!(frames.last().unwrap().contains("|- server/curlew 1/2 Ready\n|  `- [>] reach"), "{frames:?}");
    }

    #[tokio::test]
    async fn what_may_not_be_watched_ends_the_drawing_with_its_code() {
        let stub = Stub::new(|_| reply(403, json!({"kind": "Status", "code": 403, "reason": "Forbidden"})));
        let root = Target { kind: Kind::Workspace, name: "workspace".into() };
        let error = drawn_until(&stub, &root, "never").await.unwrap_err();
        assert_eq!(error.exit(), Exit::Refused);
    }

    #[tokio::test]
    async fn a_kind_that_cannot_be_listed_hides_no_other() {
        let stub = Stub::new(|request| match request.uri().path().rsplit('/').next() {
            Some("servers") => reply(403, json!({"kind": "Status", "code": 403, "reason": "Forbidden"})),
            Some("workspace") => reply(200, json!({"metadata": {"name": "workspace"}, "spec": {}})),
            _ => reply(200, json!({"metadata": {}, "items": [{"metadata": {"name": "x"}}]})),
        });
        let root = Target { kind: Kind::Workspace, name: "workspace".into() };
        let (items, exit) = gather(&stub.cluster(), &root).await.unwrap();
        let kinds: Vec<Kind> = items.iter().map(|item| item.kind).collect();
        let expected = [Kind::Workspace, Kind::ProviderConfig, Kind::BatchWorkflow, Kind::Cluster, Kind::Taskserv];
        assert_eq!((kinds.as_slice(), exit), (expected.as_slice(), Exit::Refused));
    }

    #[test]
    fn what_a_cluster_of_a_workflow_made_is_below_it() {
        let owned = |mut item: Item, uid: &str| {
            item.metadata.labels = Some([(LABEL_OWNER_UID.to_owned(), uid.to_owned())].into());
            item
        };
        let made = |kind: Kind, name: &str, step: &str, child: &str| {
            let mut apply = crate::item::tests::step(step, "Apply", "Succeeded");
            apply["why"] = json!(child);
            item(
                kind,
                json!({"metadata": {"name": name, "namespace": "first", "uid": format!("uid-{name}"), "generation": 1},
                    "spec": {"steps": [], "serverGroups": []},
                    "status": {"observedGeneration": 1, "conditions": conditions(("True", "Succeeded", "all")),
                        "steps": [apply],
                        "progress": {"total": 1, "succeeded": 1, "failed": 0, "running": 0, "summary": "1/1"}}}),
            )
        };
        let items = [
            made(Kind::BatchWorkflow, "first", "web", "Cluster web"),
            owned(made(Kind::Cluster, "web", "server/web-back-0", "Server web-back-0"), "uid-first"),
            owned(server("web-back-0", ("True", "Succeeded", "all"), json!([])), "uid-web"),
            owned(server("heron", ("True", "Succeeded", "all"), json!([])), "uid-other"),
        ];
        let root = Target { kind: Kind::BatchWorkflow, name: "first".into() };
        let expected = "\
batchworkflow/first 1/1 Ready
`- [x] web
   `- cluster/web 1/1 Ready
      `- [x] server/web-back-0
         `- server/web-back-0 1/2 Ready
";
        let now = "2026-05-04T10:00:31Z".parse().unwrap();
        assert_eq!(draw(&root, &items, now, Style::PLAIN), expected);
    }

    #[test]
    fn a_workspace_shows_all_and_a_workflow_what_it_made() {
        let now = "2026-05-04T10:00:31Z".parse().unwrap();
        let root = Target { kind: Kind::Workspace, name: "workspace".into() };
        let expected = "\
workspace/workspace not looked at yet
|- batchworkflow/first 0/2 not Ready (Running): heron is running
|  |- [>] heron 30s
|  |  `- server/heron 1/2 not Ready (Retrying): reach again
|  |     |- [x] create 4s
|  |     `- [ ] reach Transient SshRefused: connection refused (run 1, attempt 0)
|  `- [ ] redis after heron
`- server/curlew 1/2 Ready
";
        assert_eq!(draw(&root, &forest(), now, Style::PLAIN), expected);
        let style = Style { colour: true, unicode: true };
        let root = Target { kind: Kind::Server, name: "heron".into() };
        let text = draw(&root, &forest(), now, style);
        assert!(text.contains("├─ \u{1b}[32m✓\u{1b}[0m create"), "{text}");
    }
}
