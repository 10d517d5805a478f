//! Why there is nothing to choose, each in one sentence.

use std::fmt;

use semver::{Version, VersionReq};

use super::{Package, Root};
use crate::manifest::Relation;
use crate::words::{instead, list};

/// How somebody asks for an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// For its own sake.
    Wants,
    /// By `requires`.
    Requires,
    /// By `optional`: only if it is there.
    Allows,
}

/// Who asks for which extension in which versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// `Taskserv web`, or an extension with its version.
    pub by: String,
    /// How it asks.
    pub how: How,
    /// The extension that is asked for.
    pub name: String,
    /// The requirement; empty where any will do.
    pub range: String,
}

impl Ask {
    pub(super) fn of_root(root: &Root) -> Self {
        Ask { by: root.by.clone(), how: How::Wants, name: root.name.clone(), range: range_of(&root.version) }
    }

    pub(super) fn of_package(package: &Package, how: How, relation: &Relation) -> Self {
        Ask { by: title(package), how, name: relation.name.clone(), range: range_of(&relation.version) }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.how {
            How::Wants => "wants",
            How::Requires => "requires",
            How::Allows => "goes only with",
        };
        write!(f, "{} {verb} {}", self.by, self.name)?;
        if self.range.is_empty() { Ok(()) } else { write!(f, " {}", self.range) }
    }
}

/// A package as messages name it.
pub(super) fn title(package: &Package) -> String {
    format!("{} {}", package.name, package.version)
}

pub(super) fn range_of(requirement: &VersionReq) -> String {
    if *requirement == VersionReq::STAR { String::new() } else { requirement.to_string() }
}

/// Why no set of extensions is what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SolveError {
    /// Nobody offers an extension of this name.
    #[error("{}, but there is no extension {name:?}{}", list(.chain), instead(.nearest.as_deref(), .known))]
    UnknownExtension {
        /// What was asked for.
        name: String,
        /// The known name that is most alike.
        nearest: Option<String>,
        /// All known names, sorted.
        known: Vec<String>,
        /// Who asked for it, from the one who wants something for its own sake on.
        chain: Vec<Ask>,
    },
    /// No version of an extension is in all ranges.
    #[error("no version of {name} is what all ask for: {}; there are {}", list(.asks), list(.versions))]
    NoVersion {
        /// Name of the extension.
        name: String,
        /// Who asks for which versions.
        asks: Vec<Ask>,
        /// All versions, newest first.
        versions: Vec<Version>,
    },
    /// Each extension by itself has a version, but they do not go together.
    #[error("no choice of versions goes together: {}", list(.asks))]
    NoCombination {
        /// What the choices failed at, the most preferred one first; at most 16.
        asks: Vec<Ask>,
    },
    /// Two extensions that can't be on one server.
    #[error("{one} and {other} cannot be on the same server, because {reason}: {}", list(.asks))]
    Conflict {
        /// One of them, with its version; the first by name.
        one: String,
        /// The other one, with its version.
        other: String,
        /// Which of them says so: `containerd conflicts with docker`.
        reason: String,
        /// Who asks for the one and for the other.
        asks: Vec<Ask>,
    },
    /// Extensions that would each have to be installed before themselves.
    #[error("no order of installation: {}", list(.path))]
    Cycle {
        /// The whole circle; the last one asks for the first.
        path: Vec<Ask>,
    },
    /// One version with two contents: which one is meant cannot be known.
    #[error(
        "extension {name:?} has version {version} with {} different contents ({}); a changed bundle needs a new version",
        .digests.len(),
        .digests.join(", ")
    )]
    Ambiguous {
        /// Name of the extension.
        name: String,
        /// The version.
        version: Version,
        /// The digests, sorted.
        digests: Vec<String>,
    },
    /// More extensions than a server can have.
    #[error("{} would bring more than {most} extensions to one server", list(.wanted))]
    TooMany {
        /// The limit.
        most: usize,
        /// What is wanted.
        wanted: Vec<Ask>,
    },
    /// The search was given up.
    #[error("gave up after {tried} attempts to choose versions; narrow the ranges of {}", list(.names))]
    TooMuchWork {
        /// How many bundles were tried.
        tried: usize,
        /// What had been chosen when it was given up, sorted.
        names: Vec<String>,
    },
}
