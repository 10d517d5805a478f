//! The groups of commands, a module each.

pub(crate) mod apply;
pub(crate) mod config;
pub(crate) mod delete;
pub(crate) mod diff;
pub(crate) mod extension;
pub(crate) mod generate;
pub(crate) mod intervene;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod of_kind;
pub(crate) mod platform;
pub(crate) mod show;
pub(crate) mod tree;
pub(crate) mod wait;
pub(crate) mod watch;
pub(crate) mod why;
pub(crate) mod workspace;
