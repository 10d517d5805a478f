//! `requires`, `optional` and `conflicts`: how extensions on one server stand to each other.

use std::collections::BTreeSet;

use semver::{Version, VersionReq};
use serde_json::{Map, Value};

use super::ManifestError;
use super::fields::{field, items_of, label_of, refuse_duplicate, refuse_unknown, text_of};

/// Most entries of each list.
const MAX_RELATIONS: usize = 32;

/// Another extension, and the versions of it that are meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Relation {
    /// Name of the other extension, a DNS label.
    pub name: String,
    /// The versions that are meant; `*` is any, pre-releases included.
    pub version: VersionReq,
}

impl Relation {
    /// Whether this version of the other extension is meant.
    pub fn matches(&self, version: &Version) -> bool {
        satisfies(&self.version, version)
    }
}

/// Whether a version satisfies a requirement, where `*` is truly any version.
///
/// SemVer's own `*` holds no pre-release. But "conflicts with any docker" means docker 2.0.0-rc.1 too.
pub fn satisfies(requirement: &VersionReq, version: &Version) -> bool {
    *requirement == VersionReq::STAR || requirement.matches(version)
}

pub(super) fn relations_of(
    fields: &Map<String, Value>,
    list: &str,
    own_name: &str,
) -> Result<Vec<Relation>, ManifestError> {
    let mut names = BTreeSet::new();
    let mut relations = Vec::new();
    for item in items_of(fields, list, MAX_RELATIONS)? {
        refuse_unknown(item.fields, &item.prefix, &["name", "version"])?;
        let name = label_of(item.fields, &item.prefix, "name")?;
        if name == own_name {
            return Err(field(&format!("{}name", item.prefix), &format!("{name:?} is the extension itself")));
        }
        refuse_duplicate(&mut names, &item, &name)?;
        let version = match item.fields.get("version") {
            None => VersionReq::STAR,
            Some(_) => requirement_of(item.fields, &item.prefix)?,
        };
        relations.push(Relation { name, version });
    }
    Ok(relations)
}

fn requirement_of(fields: &Map<String, Value>, prefix: &str) -> Result<VersionReq, ManifestError> {
    let text = text_of(fields, prefix, "version")?;
    VersionReq::parse(text).map_err(|error| {
        let problem = format!("{text:?} is no SemVer requirement (as in ^1.2 or >=1.2, <3): {error}");
        field(&format!("{prefix}version"), &problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_version_is_a_pre_release_too() {
        let (beta, release) = ("2.0.0-rc.1".parse().unwrap(), "2.0.0".parse().unwrap());
        assert!(satisfies(&VersionReq::STAR, &beta) && satisfies(&VersionReq::STAR, &release));
        let range = VersionReq::parse("^2").unwrap();
        assert!(!satisfies(&range, &beta) && satisfies(&range, &release));
    }
}
