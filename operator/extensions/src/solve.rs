//! Which extensions, in which versions and which order, a server gets for what is wanted on it.
//!
//! Pure and deterministic: the order of the inputs does not matter, and there is neither clock nor chance.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use semver::{Version, VersionReq};

use crate::catalog::Entry;
use crate::manifest::{Manifest, Relation, satisfies};

mod error;
mod search;

pub use error::{Ask, How, SolveError};

/// One bundle on offer, with what it says of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name of the extension.
    pub name: String,
    /// Version.
    pub version: Version,
    /// `sha256:…`. Equal digests are the same bundle.
    pub digest: String,
    /// As in the manifest.
    pub requires: Vec<Relation>,
    /// As in the manifest.
    pub optional: Vec<Relation>,
    /// As in the manifest.
    pub conflicts: Vec<Relation>,
}

impl Package {
    /// The package of a bundle with this manifest and digest.
    pub fn new(manifest: &Manifest, digest: &str) -> Self {
        Package {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            digest: digest.to_owned(),
            requires: manifest.requires.clone(),
            optional: manifest.optional.clone(),
            conflicts: manifest.conflicts.clone(),
        }
    }

    /// Whether this is the bundle of an entry.
    fn is(&self, entry: &Entry) -> bool {
        self.name == entry.name && self.digest == entry.digest
    }

    /// What comes before this one where it is there, with how it is asked for.
    fn before(&self) -> impl Iterator<Item = (How, &Relation)> {
        let requires = self.requires.iter().map(|relation| (How::Requires, relation));
        requires.chain(self.optional.iter().map(|relation| (How::Allows, relation)))
    }
}

/// What somebody wants on the server, for its own sake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Name of the extension.
    pub name: String,
    /// The versions that will do; `*` is any.
    pub version: VersionReq,
    /// Who wants it, as messages say it: `Taskserv web`.
    pub by: String,
}

impl Root {
    fn takes(&self, package: &Package) -> bool {
        satisfies(&self.version, &package.version)
    }
}

/// One extension that is to be on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Name of the extension.
    pub name: String,
    /// Version.
    pub version: Version,
    /// `sha256:…`.
    pub digest: String,
    /// The extensions of this list that require it, sorted. Empty for what is only wanted for its own sake.
    pub required_by: Vec<String>,
}

/// Chooses what is to be on one server: the roots and all that they require, dependencies first, ties by name.
///
/// `optional` relations limit the version and the order of what is there for another reason, and bring in nothing. Where
/// they are part of a circle they do not order ([`optional_before`]).
/// `installed` is what is there, or was chosen before and is under way: such a bundle is kept where it satisfies;
/// otherwise the newest release is taken, and a pre-release only where no release will do. What is installed and not
/// in the result is needed by none of the roots: whoever else needs it has to be among them.
///
/// # Errors
/// [`SolveError`], a sentence with all that a person needs.
pub fn solve(roots: &[Root], offered: &[Package], installed: &[Entry]) -> Result<Vec<Chosen>, SolveError> {
    let mut roots: Vec<&Root> = roots.iter().collect();
    roots.sort_by_cached_key(|root| (&root.name, &root.by, root.version.to_string()));
    roots.dedup();
    let offer = Offer::new(offered, installed);
    let packages = search::search(&roots, &offer)?;
    refuse_ambiguous(&packages, &offer, installed)?;
    Ok(in_order(&packages))
}

/// The bundles on offer by name, those to be preferred first.
struct Offer<'a>(BTreeMap<&'a str, Vec<&'a Package>>);

impl<'a> Offer<'a> {
    fn new(offered: &'a [Package], installed: &[Entry]) -> Self {
        let mut by_name: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
        for package in offered {
            by_name.entry(&package.name).or_default().push(package);
        }
        for packages in by_name.values_mut() {
            packages.sort_by_cached_key(|package| {
                let there = installed.iter().any(|entry| package.is(entry));
                (!there, !package.version.pre.is_empty(), Reverse(&package.version), &package.digest)
            });
            packages.dedup_by_key(|package| (&package.version, &package.digest));
        }
        Offer(by_name)
    }

    fn of(&self, name: &str) -> &[&'a Package] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// All versions of an extension, newest first.
    fn versions(&self, name: &str) -> Vec<Version> {
        let versions: BTreeSet<&Version> = self.of(name).iter().map(|package| &package.version).collect();
        versions.into_iter().rev().cloned().collect()
    }
}

/// One version with two contents is not guessed between, unless one of them is there.
fn refuse_ambiguous(packages: &[&Package], offer: &Offer<'_>, installed: &[Entry]) -> Result<(), SolveError> {
    for package in packages {
        let same = || offer.of(&package.name).iter().filter(|other| other.version == package.version);
        if installed.iter().any(|entry| package.is(entry)) || same().count() == 1 {
            continue;
        }
        let digests: BTreeSet<String> = same().map(|other| other.digest.clone()).collect();
        return Err(SolveError::Ambiguous {
            name: package.name.clone(),
            version: package.version.clone(),
            digests: digests.into_iter().collect(),
        });
    }
    Ok(())
}

/// The optional extensions that come before a package, of those that are there.
///
/// A relation that is part of a circle orders nothing: nobody is kept out for the sake of an order that need not be. So
/// what is left of all relations has no circle but those of `requires` alone.
pub fn optional_before<'a>(package: &'a Package, there: &[&Package]) -> BTreeSet<&'a str> {
    let is_required = |name: &str| package.requires.iter().any(|relation| relation.name == name);
    let is_there = |name: &str| there.iter().any(|other| other.name == name);
    let names = package.optional.iter().map(|relation| relation.name.as_str());
    names.filter(|name| is_there(name) && !is_required(name) && !leads_to(name, &package.name, there)).collect()
}

/// Whether an extension comes, directly or not, after another one.
fn leads_to(from: &str, to: &str, there: &[&Package]) -> bool {
    let mut seen = BTreeSet::new();
    let mut todo = vec![from];
    while let Some(name) = todo.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            let packages = there.iter().filter(|package| package.name == name);
            todo.extend(packages.flat_map(|package| package.before()).map(|(_, relation)| relation.name.as_str()));
        }
    }
    false
}

/// Dependencies first, ties by name. The search has left no circle of what is required.
fn in_order(packages: &[&Package]) -> Vec<Chosen> {
    let before = |package: &&Package| {
        let requires = package.requires.iter().map(|relation| relation.name.as_str());
        requires.chain(optional_before(package, packages)).map(str::to_owned).collect()
    };
    let before: BTreeMap<&str, BTreeSet<String>> =
        packages.iter().map(|package| (package.name.as_str(), before(package))).collect();
    let mut waiting: BTreeMap<&str, &Package> =
        packages.iter().map(|package| (package.name.as_str(), *package)).collect();
    let mut chosen = Vec::with_capacity(packages.len());
    loop {
        let is_ready = |package: &&Package| {
            let mut others = before.get(package.name.as_str()).into_iter().flatten();
            others.all(|other| !waiting.contains_key(other.as_str()))
        };
        let Some(next) = waiting.values().copied().find(is_ready) else {
            return chosen;
        };
        waiting.remove(next.name.as_str());
        let requires_it = |other: &&&Package| other.requires.iter().any(|relation| relation.name == next.name);
        let required_by: BTreeSet<&String> = packages.iter().filter(requires_it).map(|other| &other.name).collect();
        chosen.push(Chosen {
            name: next.name.clone(),
            version: next.version.clone(),
            digest: next.digest.clone(),
            required_by: required_by.into_iter().cloned().collect(),
        });
    }
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
