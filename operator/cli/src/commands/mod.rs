//! The groups of commands, a module each.

pub(crate) mod apply;
pub(crate) mod delete;
pub(crate) mod extension;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod platform;
pub(crate) mod show;
pub(crate) mod tree;
pub(crate) mod wait;
pub(crate) mod watch;
pub(crate) mod why;
