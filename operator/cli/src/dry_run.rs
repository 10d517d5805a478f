//! `--dry-run`, as in kubectl.

use clap::{Args, ValueEnum};

/// The flag.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct DryRun {
    /// Change nothing: check here, or let the API server check too
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_missing_value = "server")]
    dry_run: Option<Where>,
}

/// Who checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Where {
    /// This program; no cluster is asked
    Client,
    /// The API server too, which changes nothing
    Server,
}

impl DryRun {
    pub(crate) fn is_client(self) -> bool {
        self.dry_run == Some(Where::Client)
    }

    pub(crate) fn is_server(self) -> bool {
        self.dry_run == Some(Where::Server)
    }

    pub(crate) fn place(self) -> Option<Where> {
        self.dry_run
    }

    /// What is put behind a line that only tells what would be.
    pub(crate) fn suffix(self) -> &'static str {
        match self.dry_run {
            None => "",
            Some(Where::Client) => " (client dry run)",
            Some(Where::Server) => " (server dry run)",
        }
    }
}
