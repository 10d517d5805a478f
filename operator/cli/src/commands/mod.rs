//! The groups of commands.

pub(crate) mod platform;
