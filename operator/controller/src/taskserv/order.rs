// (pure) What an installation comes after without needing it: the `optional` relations of extensions, on one server.
//
// Such a wait is never a need. It ends where the other one is installed, fails, is suspended or goes, and a relation that is
// part of a circle orders nothing; so of Taskservs that wait for each other's extensions none waits for ever.

use kube::ResourceExt;
use provisioning_api::server::InstalledState;
use provisioning_api::taskserv::ResolvedExtension;
use provisioning_api::{Server, Taskserv};
use provisioning_extensions::{Manifest, Package, optional_before};
use semver::Version;

use super::claims::keeper;
use super::place::{self, Wanted};
use super::resolve::{bare, package};
use super::{Facts, inputs, select};
use crate::bundles::Offered;
use crate::engine::kind::stuck;

/// Whether any extension on offer comes after another one without requiring it.
pub(crate) fn matters(bundles: &[Offered]) -> bool {
    bundles.iter().any(|offered| has_optional(offered.contents.manifest.as_ref()))
}

fn has_optional(manifest: Option<&Manifest>) -> bool {
    manifest.is_some_and(|manifest| !manifest.optional.is_empty())
}

/// Adds the other Taskservs that want to be on the same servers.
pub(crate) fn meet<'a>(facts: &mut Facts, taskserv: &Taskserv, all: impl Iterator<Item = &'a Taskserv>) {
    for other in all.filter(|other| other.uid() != taskserv.uid()) {
        let mut servers = facts.servers.iter().filter_map(|(_, server)| server.as_ref());
        if servers.any(|server| select::means(other, &server.metadata)) {
            facts.others.insert(other.uid().unwrap_or_default(), other.clone());
        }
    }
}

/// The other Taskserv of this uid, if it goes forward by itself.
fn at_work<'a>(facts: &'a Facts, uid: &str) -> Option<&'a Taskserv> {
    let other = facts.others.get(uid).filter(|_| !facts.at_rest.contains_key(uid))?;
    (other.metadata.deletion_timestamp.is_none() && stuck(other).is_none()).then_some(other)
}

/// How an extension stands that is on a server, or wanted there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is there, or the Taskserv itself brings it.
    Seen,
    /// Another Taskserv is to install it.
    Coming,
    /// It is not there, and nobody is at work on it.
    Stopped,
}

struct Near {
    package: Package,
    /// Name of the Taskserv that looks after it, or will.
    by: String,
    way: Way,
}

/// All that is on a server or wanted there, seen from one Taskserv.
#[derive(Default)]
pub(crate) struct Around(Vec<Near>);

/// Looks around on a server. Nothing is there to be seen for extensions that have no `optional` relation.
pub(crate) fn around(taskserv: &Taskserv, facts: &Facts, server: &Server, wanted: &[Wanted]) -> Around {
    if !wanted.iter().any(|one| has_optional(inputs::manifest(facts, &one.digest))) {
        return Around::default();
    }
    let uid = taskserv.uid().unwrap_or_default();
    let mut near: Vec<Near> = wanted.iter().map(|one| own(taskserv, facts, one)).collect();
    let staying = place::installed(server).iter().filter(|entry| entry.state != InstalledState::Removing);
    for entry in staying.filter(|entry| entry.by.uid != uid) {
        let is_offered = inputs::manifest(facts, &entry.digest).is_some();
        let at_work = at_work(facts, &entry.by.uid).is_some() && is_offered;
        let way = match entry.state {
            InstalledState::Installed => Way::Seen,
            InstalledState::Installing | InstalledState::Removing => {
                let goes_on = at_work && !keeper(facts, &server.name_any(), &entry.by, entry).has_failed;
                if goes_on { Way::Coming } else { Way::Stopped }
            }
        };
        let package = package(facts, &entry.extension, &entry.version, &entry.digest);
        near.push(Near { package, by: entry.by.name.clone(), way });
    }
    let at_work = facts.others.keys().filter_map(|uid| at_work(facts, uid));
    for other in at_work.filter(|other| select::means(other, &server.metadata)) {
        let unlisted = expected(other, facts);
        let unlisted = unlisted.into_iter().filter(|package| place::find(server, &package.name).is_none());
        near.extend(unlisted.map(|package| Near { package, by: other.name_any(), way: Way::Coming }));
    }
    Around(near)
}

fn own(taskserv: &Taskserv, facts: &Facts, one: &Wanted) -> Near {
    let package = package(facts, &one.name, &one.version, &one.digest);
    Near { package, by: taskserv.name_any(), way: Way::Seen }
}

/// What a Taskserv will put on its servers, as far as it has chosen yet.
fn expected(other: &Taskserv, facts: &Facts) -> Vec<Package> {
    let status = other.status.as_ref();
    let chosen = status.iter().flat_map(|status| status.resolved.iter().chain(&status.dependencies));
    let of = |one: &ResolvedExtension| package(facts, &one.name, &one.version, &one.digest);
    let mut all: Vec<Package> = chosen.map(of).collect();
    if all.is_empty() {
        all.push(bare(&other.spec.extension.name, Version::new(0, 0, 0), ""));
    }
    all
}

impl Around {
    /// Names of the extensions that come before a wanted one, if they come.
    pub(crate) fn before(&self, one: &Wanted) -> Vec<String> {
        let all: Vec<&Package> = self.0.iter().map(|near| &near.package).collect();
        let own = all.iter().find(|package| package.name == one.name && package.digest == one.digest);
        let names = own.map(|own| optional_before(own, &all)).unwrap_or_default();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Text for people: who is to install what comes before a wanted one.
    pub(crate) fn awaited(&self, one: &Wanted, server: &str) -> Option<String> {
        let before = self.before(one);
        let mut coming = self.0.iter().filter(|near| near.way == Way::Coming && before.contains(&near.package.name));
        let near = coming.find(|near| self.can_come(near))?;
        let Near { package, by, .. } = near;
        Some(format!("Taskserv '{by}' installs extension '{}' on Server '{server}' first", package.name))
    }

    /// Whether nothing that an extension requires has been given up.
    fn can_come(&self, near: &Near) -> bool {
        let mut required: Vec<&str> = Vec::new();
        let mut todo = vec![&near.package];
        while let Some(package) = todo.pop() {
            let new = package.requires.iter().map(|relation| relation.name.as_str());
            let new: Vec<&str> = new.filter(|name| !required.contains(name)).collect();
            todo.extend(self.0.iter().map(|near| &near.package).filter(|other| new.contains(&other.name.as_str())));
            required.extend(new);
        }
        let mut stopped = self.0.iter().filter(|near| near.way == Way::Stopped);
        !stopped.any(|near| required.contains(&near.package.name.as_str()))
    }
}
