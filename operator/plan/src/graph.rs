//! Steps and the edges between them, validated once.

use std::collections::BTreeMap;

use petgraph::algo::{astar, toposort};
use petgraph::graphmap::DiGraphMap;
use provisioning_api::names::{MAX_DEPENDENCIES, MAX_STEP_ID, MAX_STEPS};
use provisioning_api::shared::RetryPolicy;
use provisioning_api::steps::{DependencyType, StepAction, UndoAction};

use crate::condition::When;
use crate::ids::{InputHash, StepId};
use crate::nearest::hint;

/// Most edges in one graph: keeps the worst status below its size limit.
pub const MAX_EDGES: usize = 512;

/// A step that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Stable name.
    pub id: StepId,
    /// What it does.
    pub action: StepAction,
    /// What it is about, for people; at most 128 bytes are kept.
    pub why: String,
    /// Hash of its inputs. `None` while they are not known yet: then the gate must wait.
    pub input_hash: Option<InputHash>,
    /// What comes before it.
    pub depends_on: Vec<Dependency>,
    /// How it is undone.
    pub undo: UndoAction,
    /// When it is tried again.
    pub retry: RetryPolicy,
    /// Whether something outside of the graph holds it back.
    pub gate: Gate,
    /// Whether it is wanted at all, once what it depends on has ended. `None`: it is.
    pub when: Option<When>,
}

/// One edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The step that comes first.
    pub step: StepId,
    /// How strongly.
    pub type_: DependencyType,
}

impl Dependency {
    /// The other one must have succeeded.
    pub fn hard(step: &StepId) -> Self {
        Dependency { step: step.clone(), type_: DependencyType::Hard }
    }

    /// The other one must have ended, whatever way.
    pub fn soft(step: &StepId) -> Self {
        Dependency { step: step.clone(), type_: DependencyType::Soft }
    }
}

/// Something outside of the graph that a step needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing is missing.
    Open,
    /// It waits for another object; the text names it.
    Waiting(String),
    /// What it acts on is gone for good: forward it is omitted, backward there is nothing left to undo.
    Gone(String),
}

/// Why steps are no graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// They wait for each other.
    #[error("the steps depend on each other in a circle: {}", .path.join(" -> "))]
    Cycle {
        /// The whole circle; first and last name are equal.
        path: Vec<String>,
    },
    /// A dependency that does not exist.
    #[error("step '{step}' depends on '{unknown}', which does not exist{hint}")]
    UnknownStep {
        /// The step that has the dependency.
        step: String,
        /// The name that is not there.
        unknown: String,
        /// ` (did you mean …?)` or empty.
        hint: String,
    },
    /// Two steps of one name.
    #[error("there are two steps named '{0}'")]
    Duplicate(String),
    /// Too many steps or edges.
    #[error("{count} {what} are more than the {limit} that one object can hold: split it into several objects")]
    TooLarge {
        /// `steps`, `dependencies`, and where one step is too large, what of it.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are possible.
        limit: usize,
    },
}

/// A validated graph: names are unique, edges lead to steps, nothing waits for itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    steps: Vec<Step>,
    by_id: BTreeMap<StepId, usize>,
}

impl Graph {
    /// Validates. The order of `steps` is kept among those that do not depend on each other.
    ///
    /// # Errors
    /// See [`GraphError`]; the first one found, in the order of the list.
    pub fn new(steps: Vec<Step>) -> Result<Self, GraphError> {
        check_size("steps", steps.len(), MAX_STEPS)?;
        check_size("dependencies", steps.iter().map(|step| step.depends_on.len()).sum(), MAX_EDGES)?;
        for step in &steps {
            check_size("dependencies of one step", step.depends_on.len(), MAX_DEPENDENCIES)?;
            check_size("bytes in the name of one step", step.id.as_str().len(), MAX_STEP_ID)?;
        }
        let by_id = index(&steps)?;
        let mut edges = DiGraphMap::<usize, ()>::new();
        for position in 0..steps.len() {
            edges.add_node(position);
        }
        for (position, step) in steps.iter().enumerate() {
            for dependency in &step.depends_on {
                let Some(&before) = by_id.get(&dependency.step) else {
                    return Err(unknown(step, dependency, &by_id));
                };
                edges.add_edge(before, position, ());
            }
        }
        let order = toposort(&edges, None).map_err(|_| whole_cycle(&edges, &steps))?;
        let ordered = stable_order(&steps, &by_id, &order);
        let by_id = index(&ordered)?;
        Ok(Graph { steps: ordered, by_id })
    }

    /// The steps, each after all that it depends on.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// A step by name.
    pub fn get(&self, id: &str) -> Option<&Step> {
        self.by_id.get(&StepId::new(id)).and_then(|position| self.steps.get(*position))
    }
}

fn check_size(what: &'static str, count: usize, limit: usize) -> Result<(), GraphError> {
    if count > limit { Err(GraphError::TooLarge { what, count, limit }) } else { Ok(()) }
}

fn index(steps: &[Step]) -> Result<BTreeMap<StepId, usize>, GraphError> {
    let mut by_id = BTreeMap::new();
    for (position, step) in steps.iter().enumerate() {
        if by_id.insert(step.id.clone(), position).is_some() {
            return Err(GraphError::Duplicate(step.id.to_string()));
        }
    }
    Ok(by_id)
}

fn unknown(step: &Step, dependency: &Dependency, by_id: &BTreeMap<StepId, usize>) -> GraphError {
    let known = by_id.keys().map(StepId::as_str).filter(|name| *name != step.id.as_str());
    GraphError::UnknownStep {
        step: step.id.to_string(),
        unknown: dependency.step.to_string(),
        hint: hint(dependency.step.as_str(), known),
    }
}

/// Depth of each step below those without dependencies; within one depth the order of the list stays.
fn stable_order(steps: &[Step], by_id: &BTreeMap<StepId, usize>, order: &[usize]) -> Vec<Step> {
    let mut depth = vec![0_usize; steps.len()];
    for &position in order {
        let before = steps[position].depends_on.iter().filter_map(|dependency| by_id.get(&dependency.step));
        depth[position] = before.map(|&other| depth[other] + 1).max().unwrap_or(0);
    }
    let mut positions: Vec<usize> = (0..steps.len()).collect();
    positions.sort_by_key(|&position| (depth[position], position));
    positions.into_iter().map(|position| steps[position].clone()).collect()
}

/// The shortest circle through the first step that is on one, in the direction in which work would flow.
fn whole_cycle(edges: &DiGraphMap<usize, ()>, steps: &[Step]) -> GraphError {
    let shortest = |node: usize| {
        let circles = edges.neighbors(node).filter_map(|next| astar(edges, next, |at| at == node, |_| 1_u32, |_| 0));
        circles.min_by_key(|(cost, path)| (*cost, path.clone())).map(|(_, rest)| (node, rest))
    };
    let circle = (0..steps.len()).find_map(shortest);
    let path = circle.into_iter().flat_map(|(node, rest)| std::iter::once(node).chain(rest));
    GraphError::Cycle { path: path.map(|position| steps[position].id.to_string()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: &str, after: &[&str]) -> Step {
        Step {
            id: StepId::new(id),
            action: StepAction::Apply,
            why: String::new(),
            input_hash: Some(InputHash::of(&id)),
            depends_on: after.iter().map(|name| Dependency::hard(&StepId::new(*name))).collect(),
            undo: UndoAction::DeleteObject,
            retry: RetryPolicy::default(),
            gate: Gate::Open,
            when: None,
        }
    }

    fn names(graph: &Graph) -> Vec<&str> {
        graph.steps().iter().map(|step| step.id.as_str()).collect()
    }

    #[test]
    fn steps_come_after_what_they_depend_on_and_otherwise_keep_their_order() {
        let graph = Graph::new(vec![step("redis", &["heron"]), step("heron", &[]), step("curlew", &[])]).unwrap();
        assert_eq!(names(&graph), ["heron", "curlew", "redis"]);
    }

    #[test]
    fn a_cycle_is_reported_with_its_whole_path() {
        let steps = vec![step("a", &["c"]), step("b", &["a"]), step("c", &["b"]), step("d", &["a"])];
        let error = Graph::new(steps).unwrap_err();
        assert_eq!(error.to_string(), "the steps depend on each other in a circle: a -> b -> c -> a");
    }

    #[test]
    fn a_step_that_waits_for_itself_is_a_cycle() {
        assert_eq!(
            Graph::new(vec![step("a", &["a"])]).unwrap_err(),
            GraphError::Cycle { path: vec!["a".into(), "a".into()] }
        );
    }

    #[test]
    fn an_unknown_dependency_names_the_nearest_step() {
        let error = Graph::new(vec![step("heron", &[]), step("redis", &["herno"])]).unwrap_err();
        assert_eq!(error.to_string(), "step 'redis' depends on 'herno', which does not exist (did you mean 'heron'?)");
    }

    #[test]
    fn two_steps_of_one_name_are_refused() {
        let error = Graph::new(vec![step("heron", &[]), step("heron", &[])]).unwrap_err();
        assert_eq!(error, GraphError::Duplicate("heron".into()));
    }

    #[test]
    fn a_graph_over_the_limit_is_refused_with_the_way_out() {
        let steps = (0..257).map(|number| step(&format!("s{number}"), &[])).collect();
        let error = Graph::new(steps).unwrap_err().to_string();
        assert_eq!(error, "257 steps are more than the 256 that one object can hold: split it into several objects");
    }
}
