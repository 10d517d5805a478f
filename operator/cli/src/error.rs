//! What the commands on objects can end with, and the exit code of each.

use crate::cluster::ClusterError;
use crate::commands::extension::ExtensionError;
use crate::commands::logs::LogsError;
use crate::exit::Exit;
use crate::kinds::KindError;
use crate::kubeconfig::KubeconfigError;
use crate::manifest::ManifestError;
use crate::request::RequestError;
use crate::watching::WatchError;

/// Why a command did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    #[error(transparent)]
    Kind(#[from] KindError),
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    #[error(transparent)]
    Logs(#[from] LogsError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("{0}")]
    Usage(String),
    #[error("failed to start")]
    Runtime(#[source] std::io::Error),
    #[error("failed to write the output")]
    Json(#[from] serde_json::Error),
    #[error("failed to write the output")]
    Yaml(#[from] serde_saphyr::ser_error::Error),
}

impl Error {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Cluster(_) => Exit::Unreachable,
            Self::Kind(_) | Self::Manifest(_) | Self::Usage(_) => Exit::Usage,
            Self::Extension(error) => error.exit(),
            Self::Request(error) => error.exit(),
            Self::Logs(error) => error.exit(),
            Self::Watch(error) => error.exit(),
            Self::Kubeconfig(_) | Self::Runtime(_) | Self::Json(_) | Self::Yaml(_) => Exit::Failed,
        }
    }
}
