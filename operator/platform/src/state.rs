//! `state.json`: what an instance made outside its directory, so that a later command can find and remove it.

use std::fs;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};
use crate::instance::Instance;
use crate::network::{self, Network, NetworkError};

/// The number of this file's format.
const SCHEMA: u32 = 1;

/// The record can't be read, or a network can't be chosen.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not our JSON.
    #[error("failed to read {0}: not a record of an instance; purge the instance, or restore the file")]
    Format(String, #[source] serde_json::Error),
    /// Written by a later version.
    #[error("failed to read {0}: its format {1} is newer than this program's, {SCHEMA}; use the newer program")]
    Newer(String, u32),
    /// See [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
    /// See [`NetworkError`].
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// The record of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Format of this record.
    pub schema: u32,
    /// When the instance was first started.
    pub created: Timestamp,
    /// Its network.
    pub network: Network,
    /// The cgroup of all its pods, in each hierarchy of a v1 machine, relative to its root.
    pub cgroup: String,
    /// The API server, as kubeconfigs name it. It stays the same for as long as the instance exists.
    pub server: String,
}

/// The API server's port. The address is the instance's own, so it is always free.
pub(crate) const API_PORT: u16 = 6443;

impl State {
    /// Reads the record of an instance; `None` when it was never started.
    pub fn load(instance: &Instance) -> Result<Option<Self>, StateError> {
        let file = instance.state_file();
        let Some(text) = files::read_optional(&file)? else { return Ok(None) };
        let shown = || file.display().to_string();
        let state: Self = serde_json::from_str(&text).map_err(|source| StateError::Format(shown(), source))?;
        if state.schema > SCHEMA {
            return Err(StateError::Newer(shown(), state.schema));
        }
        Ok(Some(state))
    }

    /// Reads the record, or makes one and keeps it before anything else is made.
    pub(crate) fn load_or_create(instance: &Instance) -> Result<Self, StateError> {
        if let Some(state) = Self::load(instance)? {
            return Ok(state);
        }
        let network = network::choose(instance.prefix(), &promised(instance))?;
        let server = format!("https://{}:{API_PORT}", network.node_address());
        let cgroup = instance.prefix().to_owned();
        let state = Self { schema: SCHEMA, created: Timestamp::now(), network, cgroup, server };
        let text = serde_json::to_string_pretty(&state)
            .map_err(|source| StateError::Format("the new record".to_owned(), source))?;
        files::write(&instance.state_file(), text.as_bytes(), 0o644)?;
        Ok(state)
    }
}

/// The octets of the other instances in the same home, which may be stopped and so have no route now.
fn promised(instance: &Instance) -> Vec<u8> {
    let Some(services) = instance.directory().parent() else { return Vec::new() };
    let Ok(entries) = fs::read_dir(services) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let others = names.filter_map(|name| Instance::below(services, name).ok());
    others.filter_map(|other| State::load(&other).ok().flatten()).map(|state| state.network.octet).collect()
}
