//! Laws of solving, over random small catalogues and against trying everything.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const RANGES: [&str; 5] = ["*", "=1.0.0", "^2", ">=2", "<3"];

fn relations(most: usize) -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0..NAMES.len(), 0..RANGES.len()), 0..=most)
}

fn relations_of(own: usize, drawn: &[(usize, usize)]) -> Vec<Relation> {
    let drawn: BTreeMap<usize, usize> = drawn.iter().copied().filter(|(name, _)| *name != own).collect();
    let relation = |(name, range): (usize, usize)| Relation {
        name: NAMES[name].to_owned(),
        version: RANGES[range].parse().unwrap(),
    };
    drawn.into_iter().map(relation).collect()
}

fn package() -> impl Strategy<Value = Package> {
    (0..NAMES.len(), 1..=3_u64, relations(2), relations(1), relations(1)).prop_map(
        |(name, version, requires, optional, conflicts)| Package {
            name: NAMES[name].to_owned(),
            version: Version::new(version, 0, 0),
            digest: format!("{}{version}", NAMES[name]),
            requires: relations_of(name, &requires),
            optional: relations_of(name, &optional),
            conflicts: relations_of(name, &conflicts),
        },
    )
}

/// At most one package of a name and version.
fn catalogue() -> impl Strategy<Value = Vec<Package>> {
    prop::collection::vec(package(), 1..24).prop_map(|packages| {
        let unique: BTreeMap<String, Package> =
            packages.into_iter().map(|package| (package.digest.clone(), package)).collect();
        unique.into_values().collect()
    })
}

fn roots() -> impl Strategy<Value = Vec<Root>> {
    let root = (0..NAMES.len(), 0..RANGES.len(), 0..3).prop_map(|(name, range, by)| Root {
        name: NAMES[name].to_owned(),
        version: RANGES[range].parse().unwrap(),
        by: format!("Taskserv {by}"),
    });
    prop::collection::vec(root, 1..4)
}

fn entry(package: &Package) -> Entry {
    Entry { name: package.name.clone(), version: package.version.clone(), digest: package.digest.clone() }
}

/// Some of the catalogue, at most one of a name.
fn installed_of(catalogue: &[Package], picks: &[prop::sample::Index]) -> Vec<Entry> {
    let picked: BTreeMap<&str, &Package> =
        picks.iter().map(|pick| pick.get(catalogue)).map(|package| (package.name.as_str(), package)).collect();
    picked.into_values().map(entry).collect()
}

/// What is wrong with a set, if anything.
fn wrong(set: &BTreeMap<&str, &Package>, roots: &[Root]) -> Option<String> {
    for root in roots {
        if !set.get(root.name.as_str()).is_some_and(|package| root.takes(package)) {
            return Some(format!("root {} is missing or of another version", root.name));
        }
    }
    for package in set.values() {
        let found = |relation: &Relation| set.get(relation.name.as_str()).map(|other| relation.matches(&other.version));
        if package.requires.iter().any(|relation| found(relation) != Some(true)) {
            return Some(format!("{} lacks what it requires", package.name));
        }
        if package.optional.iter().any(|relation| found(relation) == Some(false)) {
            return Some(format!("{} goes not with what is optional", package.name));
        }
        if package.conflicts.iter().any(|relation| found(relation) == Some(true)) {
            return Some(format!("{} conflicts", package.name));
        }
    }
    // Takes away what waits for nothing, as long as there is something to take.
    let mut left: BTreeSet<&str> = set.keys().copied().collect();
    loop {
        let ready = |name: &&str| set[*name].requires.iter().all(|relation| !left.contains(relation.name.as_str()));
        let Some(next) = left.iter().copied().find(ready) else { break };
        left.remove(next);
    }
    (!left.is_empty()).then(|| format!("a cycle among {left:?}"))
}

/// Which comes after which, directly or not, by any relation.
fn comes_after(set: &BTreeMap<&str, &Package>) -> BTreeSet<(String, String)> {
    let direct = set.values().flat_map(|one| one.before().map(|(_, other)| (one.name.clone(), other.name.clone())));
    let mut all: BTreeSet<(String, String)> = direct.collect();
    loop {
        let longer = all.iter().flat_map(|(one, via)| {
            all.iter().filter(move |(from, _)| from == via).map(move |(_, other)| (one.clone(), other.clone()))
        });
        let next: BTreeSet<(String, String)> = all.iter().cloned().chain(longer).collect();
        if next == all {
            return all;
        }
        all = next;
    }
}

/// Whether any set at all is right.
fn brute_force(catalogue: &[Package], roots: &[Root]) -> bool {
    fn any<'a>(
        names: &[&'a str],
        set: &mut BTreeMap<&'a str, &'a Package>,
        catalogue: &'a [Package],
        roots: &[Root],
    ) -> bool {
        let Some((name, rest)) = names.split_first() else {
            return wrong(set, roots).is_none();
        };
        if any(rest, set, catalogue, roots) {
            return true;
        }
        for package in catalogue.iter().filter(|package| package.name == *name) {
            set.insert(name, package);
            if any(rest, set, catalogue, roots) {
                return true;
            }
        }
        set.remove(name);
        false
    }
    any(&NAMES, &mut BTreeMap::new(), catalogue, roots)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_chosen_is_right_and_whatever_is_right_is_found(
        catalogue in catalogue(),
        roots in roots(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let installed = installed_of(&catalogue, &picks);
        let possible = brute_force(&catalogue, &roots);
        let chosen = match solve(&roots, &catalogue, &installed) {
            Ok(chosen) => chosen,
            Err(error) => {
                prop_assert!(!possible, "there is a solution, but: {error}");
                return Ok(());
            }
        };
        let of = |chosen: &Chosen| catalogue.iter().find(|package| package.digest == chosen.digest).unwrap();
        let set: BTreeMap<&str, &Package> = chosen.iter().map(of).map(|package| (package.name.as_str(), package)).collect();
        prop_assert_eq!(set.len(), chosen.len());
        prop_assert_eq!(wrong(&set, &roots), None);
        let after = comes_after(&set);
        let mut seen = BTreeSet::new();
        for one in &chosen {
            for (how, before) in of(one).before() {
                let early = !set.contains_key(before.name.as_str()) || seen.contains(&before.name);
                let in_circle = after.contains(&(before.name.clone(), one.name.clone()));
                prop_assert!(early || (how == How::Allows && in_circle), "{} comes before {}", one.name, before.name);
            }
            seen.insert(one.name.clone());
            let by: Vec<String> = set.values()
                .filter(|other| other.requires.iter().any(|relation| relation.name == one.name))
                .map(|other| other.name.clone())
                .collect();
            prop_assert!(!by.is_empty() || roots.iter().any(|root| root.name == one.name), "nobody needs {}", one.name);
            prop_assert_eq!(&one.required_by, &by);
        }
        // What was chosen once is chosen again.
        let there: Vec<Entry> = set.values().map(|package| entry(package)).collect();
        prop_assert_eq!(solve(&roots, &catalogue, &there).unwrap(), chosen);
    }

    #[test]
    fn the_order_of_what_is_given_does_not_matter(
        (catalogue, shuffled) in catalogue().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        (roots, other_roots) in roots().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let installed = installed_of(&catalogue, &picks);
        let reversed: Vec<Entry> = installed.iter().rev().cloned().collect();
        prop_assert_eq!(solve(&roots, &catalogue, &installed), solve(&other_roots, &shuffled, &reversed));
    }
}
