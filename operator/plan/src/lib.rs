//! The planner. It knows no Kubernetes: a [`graph::Graph`] of steps, what is remembered of them (checkpoints), what
//! is seen of their executors ([`observed`]), and a [`decision`] that follows from these and nothing else.
//!
//! The way of one pass:
//!
//! ```text
//! checkpoints ─┬─> settle (ends that were seen) ──> the kind builds its graph from what is now known ──> decide
//! observed ────┘                                                                                          │
//!                              checkpoints to persist · steps to start, resume, give up · wake-up · verdict
//! ```
#![deny(missing_docs)]

pub mod condition;
pub mod conditions;
pub mod decision;
pub mod graph;
pub mod ids;
pub mod nearest;
pub mod observed;
pub mod retry;
pub mod settle;
mod skip;
pub mod summary;
pub mod undo;
