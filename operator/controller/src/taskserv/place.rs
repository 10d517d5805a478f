// (pure) What a Taskserv needs on one server, next to all that is there for others.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use provisioning_api::conditions::reasons;
use provisioning_api::names::MAX_INSTALLED;
use provisioning_api::server::{Installed, InstalledState};
use provisioning_api::taskserv::{Dependencies, ResolvedExtension};
use provisioning_api::{Server, Taskserv};
use provisioning_extensions::{Package, Relation, Root, solve};
use provisioning_plan::conditions::Standing;
use semver::VersionReq;

use super::resolve::{Resolution, installed_entry, package, refused, requirement};
use super::{Facts, inputs};

/// One extension that a Taskserv needs on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Name of the extension.
    pub(crate) name: String,
    /// Version of the bundle.
    pub(crate) version: String,
    /// `sha256:…`.
    pub(crate) digest: String,
    /// Other wanted ones that come before it.
    pub(crate) after: Vec<String>,
    /// Other wanted ones that require it.
    pub(crate) required_by: Vec<String>,
    /// The version that it takes the place of.
    pub(crate) replaces: Option<String>,
}

/// What is on a server, as its status says.
pub(crate) fn installed(server: &Server) -> &[Installed] {
    server.status.as_ref().map(|status| status.installed.as_slice()).unwrap_or_default()
}

/// The entry of an extension.
pub(crate) fn find<'a>(server: &'a Server, extension: &str) -> Option<&'a Installed> {
    installed(server).iter().find(|entry| entry.extension == extension)
}

/// Whether a Taskserv has to do with an entry.
pub(crate) fn concerns(entry: &Installed, uid: &str) -> bool {
    entry.by.uid == uid || entry.required_by.iter().any(|user| user.uid == uid)
}

/// Everything that is wanted on a server, in the order of installation: the pinned bundles, but what is there for others
/// stays in the version that it has where that will do.
///
/// # Errors
/// Both names where something does not go together with what is there.
pub(crate) fn fit(
    taskserv: &Taskserv,
    facts: &Facts,
    resolution: &Resolution,
    server: &Server,
) -> Result<Vec<Wanted>, Standing> {
    let uid = taskserv.uid().unwrap_or_default();
    // What is being removed is as good as gone: it is waited for, and asked no more.
    let there: Vec<&Installed> =
        installed(server).iter().filter(|entry| entry.state != InstalledState::Removing).collect();
    refuse_second(taskserv, facts, server, &there, &uid)?;
    let others = others(facts, server, &there, &uid);
    let packages = packages(taskserv, facts, resolution, &there, &others);
    let own = Root {
        name: resolution.own.name.clone(),
        version: requirement(taskserv).ok().flatten().unwrap_or(VersionReq::STAR),
        by: format!("Taskserv {}", taskserv.name_any()),
    };
    let roots: Vec<Root> = others.into_values().map(|(root, _)| root).chain([own]).collect();
    let entries: Vec<_> = there.iter().map(|entry| installed_entry(entry)).collect();
    let field = format!("spec.extension: on Server '{}'", server.name_any());
    let chosen = solve(&roots, &packages, &entries).map_err(|error| refused(&error, &field))?;
    let mut taken: BTreeMap<&str, &Package> = BTreeMap::new();
    for one in &chosen {
        let found = packages.iter().find(|package| package.name == one.name && package.digest == one.digest);
        taken.extend(found.map(|package| (package.name.as_str(), package)));
    }
    let needed = needed(&resolution.own.name, &taken);
    let own = chosen.iter().filter(|one| needed.contains(one.name.as_str()));
    let list: Vec<Wanted> = own
        .map(|one| Wanted {
            name: one.name.clone(),
            version: one.version.to_string(),
            digest: one.digest.clone(),
            after: direct(&one.name, &taken).map(str::to_owned).collect(),
            required_by: one.required_by.iter().filter(|name| needed.contains(name.as_str())).cloned().collect(),
            replaces: resolution
                .get(&one.name)
                .filter(|resolved| resolved.digest == one.digest)
                .and_then(|resolved| resolved.replaces.clone()),
        })
        .collect();
    refuse_unfit(taskserv, facts, server, &list, &uid)?;
    Ok(list)
}

/// What is wanted on a server of which nothing is known yet.
pub(crate) fn unseen(taskserv: &Taskserv, facts: &Facts, resolution: &Resolution) -> Vec<Wanted> {
    let packages = packages(taskserv, facts, resolution, &[], &BTreeMap::new());
    let taken: BTreeMap<&str, &Package> = packages.iter().map(|package| (package.name.as_str(), package)).collect();
    let requires = |other: &&ResolvedExtension, name: &str| direct(&other.name, &taken).any(|before| before == name);
    let wanted = |resolved: &ResolvedExtension| Wanted {
        name: resolved.name.clone(),
        version: resolved.version.clone(),
        digest: resolved.digest.clone(),
        after: direct(&resolved.name, &taken).map(str::to_owned).collect(),
        required_by: resolution
            .all()
            .filter(|other| requires(other, &resolved.name))
            .map(|other| other.name.clone())
            .collect(),
        replaces: resolved.replaces.clone(),
    };
    resolution.all().map(wanted).collect()
}

/// The names that a package requires, of those that were taken.
fn direct<'a>(name: &str, taken: &BTreeMap<&'a str, &'a Package>) -> impl Iterator<Item = &'a str> {
    let requires = taken.get(name).map(|package| package.requires.as_slice()).unwrap_or_default();
    requires.iter().map(|relation| relation.name.as_str()).filter(|name| taken.contains_key(name))
}

/// The name and all that it requires, directly or not.
fn needed<'a>(own: &'a str, taken: &BTreeMap<&'a str, &'a Package>) -> BTreeSet<&'a str> {
    let mut needed = BTreeSet::new();
    let mut todo = vec![own];
    while let Some(name) = todo.pop() {
        if needed.insert(name) {
            todo.extend(direct(name, taken));
        }
    }
    needed
}

/// What other Taskservs want on the server, by name of the extension, with the bundle that they have.
fn others(
    facts: &Facts,
    server: &Server,
    there: &[&Installed],
    uid: &str,
) -> BTreeMap<String, (Root, ResolvedExtension)> {
    let bundle = |entry: &Installed| ResolvedExtension {
        name: entry.extension.clone(),
        version: entry.version.clone(),
        digest: entry.digest.clone(),
        generation: 0,
        replaces: None,
    };
    let root = |name: &str, by: String| Root { name: name.to_owned(), version: VersionReq::STAR, by };
    let mut all = BTreeMap::new();
    for entry in there {
        let users = entry.required_by.iter().filter(|user| user.uid != uid);
        let known: Vec<&Taskserv> = users.clone().filter_map(|user| facts.others.get(&user.uid)).collect();
        for other in &known {
            let name = &other.spec.extension.name;
            let found = there.iter().find(|entry| entry.extension == *name).map(|entry| bundle(entry));
            let found = found.or_else(|| other.status.as_ref()?.resolved.clone());
            if let Some(found) = found {
                all.insert(name.clone(), (root(name, format!("Taskserv {}", other.name_any())), found));
            }
        }
        // Nobody can be asked, but it is there.
        if known.is_empty() && users.clone().next().is_some() {
            let by = format!("Server {}", server.name_any());
            all.entry(entry.extension.clone()).or_insert_with(|| (root(&entry.extension, by), bundle(entry)));
        }
    }
    all
}

/// The bundles that may be on the server: of what somebody wants for its own sake exactly one, of the rest what is there
/// and what was pinned. What a bundle requires beside them is not asked for here: it was, when that one was chosen.
fn packages(
    taskserv: &Taskserv,
    facts: &Facts,
    resolution: &Resolution,
    there: &[&Installed],
    others: &BTreeMap<String, (Root, ResolvedExtension)>,
) -> Vec<Package> {
    let own = &taskserv.spec.extension.name;
    let of = |resolved: &ResolvedExtension| package(facts, &resolved.name, &resolved.version, &resolved.digest);
    let mut all = vec![of(&resolution.own)];
    all.extend(others.values().filter(|(root, _)| root.name != *own).map(|(_, bundle)| of(bundle)));
    let is_free = |name: &String| name != own && !others.contains_key(name);
    let entries = there.iter().filter(|entry| is_free(&entry.extension));
    all.extend(entries.map(|entry| package(facts, &entry.extension, &entry.version, &entry.digest)));
    all.extend(resolution.dependencies.iter().filter(|resolved| is_free(&resolved.name)).map(of));
    let names: BTreeSet<String> = all.iter().map(|package| package.name.clone()).collect();
    all.iter_mut().for_each(|package| package.requires.retain(|relation| names.contains(&relation.name)));
    if let Some(first) = all.first_mut() {
        first.requires.extend(kept(taskserv, facts, resolution, there, first));
    }
    all
}

/// A bundle that left the shelf, or cannot be read, does not say any more what it requires: what was installed for it
/// stays.
fn kept(
    taskserv: &Taskserv,
    facts: &Facts,
    resolution: &Resolution,
    there: &[&Installed],
    package: &Package,
) -> Vec<Relation> {
    if resolution.all().all(|resolved| inputs::manifest(facts, &resolved.digest).is_some()) {
        return Vec::new();
    }
    let uid = taskserv.uid().unwrap_or_default();
    let is_known = |name: &String| *name == package.name || package.requires.iter().any(|one| one.name == *name);
    let is_used = |entry: &Installed| entry.required_by.iter().any(|user| user.uid == uid);
    let kept = there.iter().filter(|entry| is_used(entry) && !is_known(&entry.extension));
    kept.map(|entry| Relation { name: entry.extension.clone(), version: VersionReq::STAR }).collect()
}

/// One Taskserv looks after an extension on a server: two would each write their own configuration.
fn refuse_second(
    taskserv: &Taskserv,
    facts: &Facts,
    server: &Server,
    there: &[&Installed],
    uid: &str,
) -> Result<(), Standing> {
    let own = &taskserv.spec.extension.name;
    let entry = there.iter().find(|entry| entry.extension == *own && entry.by.uid != uid);
    let is_same = |other: &&Taskserv| other.spec.extension.name == *own && other.uid().as_deref() != Some(uid);
    let users = entry.into_iter().flat_map(|entry| &entry.required_by);
    let Some(other) = users.filter_map(|user| facts.others.get(&user.uid)).find(is_same) else { return Ok(()) };
    let text = format!(
        "spec.extension.name: '{own}' on Server '{}' belongs to Taskserv '{}': one Taskserv installs an extension on a \
         server; name other servers, or delete one of the two",
        server.name_any(),
        other.name_any()
    );
    Err(Standing::stalled(reasons::INVALID, text))
}

/// What the Taskserv must not or cannot install for itself, and what does not fit into the Server's status.
fn refuse_unfit(
    taskserv: &Taskserv,
    facts: &Facts,
    server: &Server,
    list: &[Wanted],
    uid: &str,
) -> Result<(), Standing> {
    let name = server.name_any();
    let invalid = |text: String| Err(Standing::stalled(reasons::INVALID, text));
    for wanted in list {
        let entry = find(server, &wanted.name).filter(|entry| entry.state != InstalledState::Removing);
        let others = entry.map_or(0, |entry| entry.required_by.iter().filter(|user| user.uid != uid).count());
        if others >= MAX_INSTALLED {
            let text = format!("'{}' is needed by {others} Taskservs already, of {MAX_INSTALLED}", wanted.name);
            return invalid(format!("spec.extension: on Server '{name}': {text}"));
        }
        if wanted.name == taskserv.spec.extension.name {
            continue;
        }
        let requirer = wanted.required_by.first().map_or("it", String::as_str);
        let is_there = entry.is_some_and(|entry| entry.by.uid != uid && entry.digest == wanted.digest);
        if taskserv.spec.dependencies == Dependencies::Strict && !is_there {
            let has = match entry {
                None => "no such extension".to_owned(),
                Some(entry) if entry.by.uid == uid => {
                    format!("version {}, which nobody else looks after", entry.version)
                }
                Some(entry) => format!("version {}", entry.version),
            };
            return invalid(format!(
                "spec.dependencies is Strict, '{requirer}' requires '{}', and Server '{name}' has {has}: install {} there \
                 with a Taskserv of its own first, or set spec.dependencies to Auto",
                wanted.name, wanted.version
            ));
        }
        let installs = entry.is_none_or(|entry| entry.by.uid == uid || entry.digest != wanted.digest);
        let problems = if installs { needs_more(facts, wanted) } else { Vec::new() };
        if !problems.is_empty() {
            return invalid(format!(
                "spec.extension: '{requirer}' requires '{}', which cannot be installed without more ({}): install it on \
                 Server '{name}' with a Taskserv of its own",
                wanted.name,
                problems.join("; ")
            ));
        }
    }
    let new = list.iter().filter(|wanted| find(server, &wanted.name).is_none()).count();
    if installed(server).len() + new > MAX_INSTALLED {
        return invalid(format!("spec.extension: Server '{name}' would hold more than {MAX_INSTALLED} extensions"));
    }
    Ok(())
}

/// What only a person can give.
fn needs_more(facts: &Facts, wanted: &Wanted) -> Vec<String> {
    let offered = facts.bundles.iter().find(|offered| offered.name == wanted.name && offered.digest == wanted.digest);
    let Some(offered) = offered else { return Vec::new() };
    let mut problems = offered.contents.parameter_problems(&BTreeMap::new());
    problems.extend(offered.contents.secret_problems(std::iter::empty()));
    problems
}

/// Something that is being removed and cannot be beside what is wanted.
pub(crate) fn in_the_way(facts: &Facts, server: &Server, list: &[Wanted], uid: &str) -> Option<String> {
    let leaving = installed(server).iter().filter(|entry| entry.state == InstalledState::Removing);
    leaving.filter(|entry| entry.by.uid != uid).find_map(|entry| {
        let other = package(facts, &entry.extension, &entry.version, &entry.digest);
        let hits = |one: &Package, two: &Package| {
            one.conflicts.iter().any(|relation| relation.name == two.name && relation.matches(&two.version))
        };
        let collides = |wanted: &Wanted| {
            let own = package(facts, &wanted.name, &wanted.version, &wanted.digest);
            hits(&own, &other) || hits(&other, &own)
        };
        let same = |wanted: &Wanted| wanted.name == entry.extension;
        list.iter().any(|wanted| same(wanted) || collides(wanted)).then(|| {
            let Installed { extension, by, .. } = entry;
            format!("Taskserv '{}' is removing extension '{extension}' from Server '{}'", by.name, server.name_any())
        })
    })
}
