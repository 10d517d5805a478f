//! Extension bundles: what they hold, how they are named and found. Pure but for [`Bundle::load_folder`].
//!
//! An extension is a folder `taskservs/NAME/` with a manifest and Nushell scripts. Its *bundle* is the part that a
//! server needs: `manifest.yaml`, `schema.json`, `scripts/`, `templates/`, `kcl/`. It travels as an immutable ConfigMap named by its
//! digest, and the runner digests it again before it executes anything (protocols S10).
#![deny(missing_docs)]

mod bundle;
mod catalog;
mod manifest;
mod parameters;
mod path;
mod solve;
mod words;

pub use bundle::{Bundle, BundleError, ConfigMapData, MAX_FILES, MAX_TOTAL_BYTES, config_map_name};
pub use catalog::{Catalog, CatalogError, Entry};
pub use manifest::{
    API_VERSION, KIND, Manifest, ManifestError, OfferedScript, Probe, ProbeKind, ProbePort, Relation, SecretParameter,
    Timeouts, satisfies,
};
pub use parameters::{ParameterSchema, Problem, SchemaError};
pub use path::{BundlePath, PathError};
pub use solve::{Ask, Chosen, How, Package, Root, SolveError, optional_before, solve};

/// Annotation on a bundle's ConfigMap: the bundle's whole digest, `sha256:` and 64 hex digits.
pub const ANNOTATION_DIGEST: &str = "provisioning.dev/digest";
