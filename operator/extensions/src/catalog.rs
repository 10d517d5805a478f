//! Which bundles there are, and which one a requirement means.

use semver::{Version, VersionReq};

use crate::words::{instead, list, nearest};

/// One known bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Name of the extension.
    pub name: String,
    /// Version.
    pub version: Version,
    /// `sha256:…`.
    pub digest: String,
}

/// Why a name and a requirement lead to no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// No extension has this name.
    #[error("there is no extension {name:?}{}", instead(.nearest.as_deref(), .known))]
    UnknownName {
        /// What was asked for.
        name: String,
        /// The known name that is most alike.
        nearest: Option<String>,
        /// All known names, sorted.
        known: Vec<String>,
    },
    /// None of the versions satisfies the requirement.
    #[error("extension {name:?} has no version {requirement}; there are {}", list(.versions))]
    NoMatchingVersion {
        /// Name of the extension.
        name: String,
        /// The requirement.
        requirement: String,
        /// All versions, newest first.
        versions: Vec<Version>,
    },
    /// One version with two contents: which one is meant cannot be known.
    #[error("extension {name:?} has version {version} with {} different contents ({}); a changed bundle needs a new version", .digests.len(), .digests.join(", "))]
    Ambiguous {
        /// Name of the extension.
        name: String,
        /// The version.
        version: Version,
        /// The digests, sorted.
        digests: Vec<String>,
    },
}

/// All known bundles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    entries: Vec<Entry>,
}

impl Catalog {
    /// A catalog of these bundles; copies of one bundle count once.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        entries.sort();
        entries.dedup();
        Catalog { entries }
    }

    /// All bundles, sorted by name and version.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The newest bundle that satisfies the requirement. Without one: the newest release, or the newest
    /// pre-release where there is no release.
    ///
    /// # Errors
    /// [`CatalogError`], with what there is instead.
    pub fn resolve(&self, name: &str, requirement: Option<&VersionReq>) -> Result<&Entry, CatalogError> {
        let named: Vec<&Entry> = self.entries.iter().filter(|entry| entry.name == name).collect();
        if named.is_empty() {
            return Err(self.unknown(name));
        }
        let newest = match requirement {
            Some(wanted) => named.iter().filter(|entry| wanted.matches(&entry.version)).max_by_key(|e| &e.version),
            None => named.iter().max_by_key(|entry| (entry.version.pre.is_empty(), &entry.version)),
        };
        let Some(found) = newest else {
            let mut versions: Vec<Version> = named.iter().map(|entry| entry.version.clone()).collect();
            versions.dedup();
            versions.reverse();
            let requirement = requirement.map(ToString::to_string).unwrap_or_default();
            return Err(CatalogError::NoMatchingVersion { name: name.to_owned(), requirement, versions });
        };
        let same: Vec<&&Entry> = named.iter().filter(|entry| entry.version == found.version).collect();
        if same.len() > 1 {
            return Err(CatalogError::Ambiguous {
                name: name.to_owned(),
                version: found.version.clone(),
                digests: same.iter().map(|entry| entry.digest.clone()).collect(),
            });
        }
        Ok(found)
    }

    fn unknown(&self, name: &str) -> CatalogError {
        let mut known: Vec<String> = self.entries.iter().map(|entry| entry.name.clone()).collect();
        known.dedup();
        let nearest = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
        CatalogError::UnknownName { name: name.to_owned(), nearest, known }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(entries: &[(&str, &str, &str)]) -> Catalog {
        Catalog::new(entries.iter().map(|(name, version, digest)| Entry {
            name: (*name).to_owned(),
            version: version.parse().unwrap(),
            digest: (*digest).to_owned(),
        }))
    }

    #[test]
    fn the_newest_that_satisfies_wins() {
        let all = catalog(&[
            ("redis", "1.0.0", "a"),
            ("redis", "1.10.0", "b"),
            ("redis", "1.9.0", "c"),
            ("redis", "2.0.0-rc.1", "d"),
            ("beta", "0.1.0-a", "e"),
        ]);
        let digest = |name: &str, wanted: Option<&str>| {
            let wanted = wanted.map(|text| VersionReq::parse(text).unwrap());
            all.resolve(name, wanted.as_ref()).map(|entry| entry.digest.clone())
        };
        assert_eq!(digest("redis", None).unwrap(), "b");
        assert_eq!(digest("redis", Some("^1")).unwrap(), "b");
        assert_eq!(digest("redis", Some("~1.9")).unwrap(), "c");
        assert_eq!(digest("redis", Some("=2.0.0-rc.1")).unwrap(), "d");
        assert_eq!(digest("beta", None).unwrap(), "e");
        let error = digest("redis", Some("^3")).unwrap_err().to_string();
        assert_eq!(error, "extension \"redis\" has no version ^3; there are 2.0.0-rc.1, 1.10.0, 1.9.0, 1.0.0");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let all = catalog(&[("redis", "1.0.0", "a"), ("postgres", "1.0.0", "b")]);
        let say = |name: &str| all.resolve(name, None).unwrap_err().to_string();
        assert_eq!(say("rdeis"), "there is no extension \"rdeis\"; did you mean \"redis\"?");
        assert_eq!(say("zzz"), "there is no extension \"zzz\"; there are postgres, redis");
        assert_eq!(
            catalog(&[]).resolve("redis", None).unwrap_err().to_string(),
            "there is no extension \"redis\"; none is installed"
        );
    }

    #[test]
    fn two_contents_of_one_version_are_not_guessed_between() {
        let all = catalog(&[("redis", "1.0.0", "b"), ("redis", "1.0.0", "a"), ("redis", "1.0.0", "a")]);
        assert!(
            matches!(all.resolve("redis", None), Err(CatalogError::Ambiguous { digests, .. }) if digests == ["a", "b"])
        );
    }
}
