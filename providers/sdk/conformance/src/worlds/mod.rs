//! Worlds: what the providers of this repository talk to, in memory.

pub mod cloud;
pub mod site;
