// (pure) Which bundles a Taskserv means: its extension and what that requires, pinned once per generation.

use kube::ResourceExt;
use provisioning_api::Taskserv;
use provisioning_api::conditions::reasons;
use provisioning_api::names::MAX_INSTALLED;
use provisioning_api::server::Installed;
use provisioning_api::shared::RunsSteps;
use provisioning_api::steps::StepEffect;
use provisioning_api::taskserv::ResolvedExtension;
use provisioning_extensions::{Catalog, Chosen, Entry, Package, Root, SolveError, solve};
use provisioning_plan::conditions::Standing;
use semver::{Op, Version, VersionReq};

use super::Facts;
use super::graph::extension_of;

/// The bundles that were chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolution {
    /// For the extension of the spec.
    pub(crate) own: ResolvedExtension,
    /// For what it requires, in the order of installation.
    pub(crate) dependencies: Vec<ResolvedExtension>,
}

impl Resolution {
    /// The chosen bundle of an extension.
    pub(crate) fn get(&self, extension: &str) -> Option<&ResolvedExtension> {
        std::iter::once(&self.own).chain(&self.dependencies).find(|resolved| resolved.name == extension)
    }

    /// All of them, in the order of installation.
    pub(crate) fn all(&self) -> impl Iterator<Item = &ResolvedExtension> {
        self.dependencies.iter().chain(std::iter::once(&self.own))
    }
}

/// The bundles: pinned once per generation, so that a new one on offer changes nothing by itself (architecture §4).
///
/// # Errors
/// What is not on offer, does not go together, or would be a step back that nobody asked for.
pub(crate) fn resolve(taskserv: &Taskserv, facts: &Facts) -> Result<Resolution, Standing> {
    let generation = taskserv.metadata.generation.unwrap_or(0);
    let deleting = taskserv.metadata.deletion_timestamp.is_some();
    let before = pinned(taskserv);
    if let Some(mut pinned) = before.clone().filter(|pinned| deleting || pinned.own.generation == generation) {
        pinned.own.generation = generation;
        pinned.dependencies.iter_mut().for_each(|resolved| resolved.generation = generation);
        return Ok(pinned);
    }
    let requirement = requirement(taskserv)?;
    let chosen = choose(taskserv, facts, requirement.as_ref(), before.as_ref())?;
    let resolved = |chosen: &Chosen| ResolvedExtension {
        name: chosen.name.clone(),
        version: chosen.version.to_string(),
        digest: chosen.digest.clone(),
        generation,
        replaces: before
            .as_ref()
            .and_then(|before| before.get(&chosen.name))
            .map(|before| before.version.clone())
            .filter(|version| *version != chosen.version.to_string()),
    };
    if chosen.len() > MAX_INSTALLED {
        let text = format!(
            "spec.extension: with what it requires {} extensions; a Server holds {MAX_INSTALLED}",
            chosen.len()
        );
        return Err(Standing::stalled(reasons::INVALID, text));
    }
    // What requires nothing comes first, so the extension itself is the last one.
    let mut dependencies: Vec<ResolvedExtension> = chosen.iter().map(resolved).collect();
    let own = dependencies.iter().position(|resolved| resolved.name == taskserv.spec.extension.name);
    let own = own.map(|position| dependencies.remove(position));
    let own = own.ok_or_else(|| Standing::stalled(reasons::INVALID, "spec.extension: nothing was chosen"))?;
    let resolution = Resolution { own, dependencies };
    refuse_step_back(taskserv, &resolution, requirement.as_ref())?;
    Ok(resolution)
}

fn pinned(taskserv: &Taskserv) -> Option<Resolution> {
    let status = taskserv.status.as_ref()?;
    Some(Resolution { own: status.resolved.clone()?, dependencies: status.dependencies.clone() })
}

/// `spec.extension.version`.
pub(crate) fn requirement(taskserv: &Taskserv) -> Result<Option<VersionReq>, Standing> {
    taskserv.spec.extension.version.as_deref().map(VersionReq::parse).transpose().map_err(|error| {
        let text = format!("spec.extension.version: no SemVer requirement: {error}; write for example ^1.2");
        Standing::stalled(reasons::INVALID, text)
    })
}

fn choose(
    taskserv: &Taskserv,
    facts: &Facts,
    requirement: Option<&VersionReq>,
    before: Option<&Resolution>,
) -> Result<Vec<Chosen>, Standing> {
    let name = &taskserv.spec.extension.name;
    let offered: Vec<Package> = facts.bundles.iter().filter_map(offered_package).collect();
    // The extension that a person named is looked up first: its name and version are told in the words of the spec.
    let entries = offered.iter().map(|package| entry(&package.name, &package.version, &package.digest));
    Catalog::new(entries)
        .resolve(name, requirement)
        .map_err(|error| Standing::stalled(reasons::UNKNOWN_REFERENCE, format!("spec.extension: {error}")))?;
    let root = Root {
        name: name.clone(),
        version: requirement.cloned().unwrap_or(VersionReq::STAR),
        by: format!("Taskserv {}", taskserv.name_any()),
    };
    // What is on the servers, or was chosen before, stays where it will do; the extension itself is the newest.
    let there = facts.servers.iter().filter_map(|(_, server)| server.as_ref()?.status.as_ref());
    let there = there.flat_map(|status| &status.installed).map(installed_entry);
    let chosen = before.into_iter().flat_map(|before| &before.dependencies);
    let chosen = chosen.map(|resolved| entry(&resolved.name, &version(&resolved.version), &resolved.digest));
    let there: Vec<Entry> = there.chain(chosen).filter(|entry| entry.name != *name).collect();
    solve(&[root], &offered, &there).map_err(|error| refused(&error, "spec.extension"))
}

/// How an object stands for which nothing can be chosen.
pub(crate) fn refused(error: &SolveError, field: &str) -> Standing {
    let reason = match error {
        SolveError::UnknownExtension { .. } => reasons::UNKNOWN_REFERENCE,
        SolveError::Cycle { .. } => reasons::CYCLE,
        SolveError::NoVersion { .. }
        | SolveError::NoCombination { .. }
        | SolveError::Conflict { .. }
        | SolveError::Ambiguous { .. }
        | SolveError::TooMany { .. }
        | SolveError::TooMuchWork { .. } => reasons::INVALID,
    };
    Standing::stalled(reason, format!("{field}: {error}"))
}

/// An older version than the one that may be on a server is taken only where the spec names exactly that one: an
/// `install.nu` need not know how to go back, and a bundle that left the shelf is no reason to.
fn refuse_step_back(taskserv: &Taskserv, next: &Resolution, requirement: Option<&VersionReq>) -> Result<(), Standing> {
    let is_exact = |requirement: &VersionReq| match requirement.comparators.as_slice() {
        [only] => only.op == Op::Exact && only.minor.is_some() && only.patch.is_some(),
        _ => false,
    };
    if requirement.is_some_and(is_exact) {
        return Ok(());
    }
    let steps = taskserv.run_status().map(|status| status.steps.as_slice()).unwrap_or_default();
    let acted = |extension: &str| {
        let mut own = steps.iter().filter(|step| extension_of(taskserv, &step.id) == Some(extension));
        own.any(|step| step.effect == StepEffect::Possible)
    };
    let back = next.all().find_map(|resolved| {
        let from = resolved.replaces.as_ref()?;
        (version(from) > version(&resolved.version) && acted(&resolved.name)).then_some((resolved, from))
    });
    let Some((resolved, from)) = back else { return Ok(()) };
    let ResolvedExtension { name, version, .. } = resolved;
    let own = &next.own;
    let text = format!(
        "spec.extension.version: this would go back from {name} {from} to {version}, which an installation need not be \
         able to: ask for a version that does not, or for exactly this one with \"={}\"",
        own.version
    );
    Err(Standing::stalled(reasons::INVALID, text))
}

/// A version as it was written by us; an unreadable one is the oldest of all.
pub(crate) fn version(text: &str) -> Version {
    Version::parse(text).unwrap_or(Version::new(0, 0, 0))
}

pub(crate) fn entry(name: &str, version: &Version, digest: &str) -> Entry {
    Entry { name: name.to_owned(), version: version.clone(), digest: digest.to_owned() }
}

pub(crate) fn installed_entry(installed: &Installed) -> Entry {
    entry(&installed.extension, &version(&installed.version), &installed.digest)
}

fn offered_package(offered: &crate::bundles::Offered) -> Option<Package> {
    let version = Version::parse(&offered.version).ok()?;
    let Some(manifest) = &offered.contents.manifest else {
        return Some(bare(&offered.name, version, &offered.digest));
    };
    Some(Package::new(manifest, &offered.digest))
}

/// What is known of a bundle; nothing but its name where it was taken off the shelf.
pub(crate) fn package(facts: &Facts, name: &str, version_text: &str, digest: &str) -> Package {
    let offered = facts.bundles.iter().find(|offered| offered.name == name && offered.digest == digest);
    offered.and_then(offered_package).unwrap_or_else(|| bare(name, version(version_text), digest))
}

/// A bundle of which nothing more is known.
pub(crate) fn bare(name: &str, version: Version, digest: &str) -> Package {
    let (requires, optional, conflicts) = (Vec::new(), Vec::new(), Vec::new());
    Package { name: name.to_owned(), version, digest: digest.to_owned(), requires, optional, conflicts }
}
