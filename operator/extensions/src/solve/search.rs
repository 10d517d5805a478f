//! The search: chooses one extension after the other and goes back where it gets stuck.
//!
//! A dead end knows whom to blame: the extensions whose choice made it one. The search goes back to the last of these
//! at once (conflict-directed backjumping) and not through all versions of what lies between. So it is fast, and the
//! reason that is left at the end is one that concerns what was wanted, not an accident on the way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::error::{Ask, How, SolveError, range_of, title};
use super::{Offer, Package, Root};
use crate::manifest::Relation;
use crate::words::nearest;

/// Most bundles that are tried. What real catalogues ask for is some dozens.
pub(super) const MAX_TRIED: usize = 10_000;
/// Most extensions that are chosen together: it bounds the search. A Server holds fewer, which is its controller's to say.
pub(super) const MAX_EXTENSIONS: usize = 128;

/// Most entries of a list that grows with the search.
const MAX_ASKS: usize = 16;

type Blame<'a> = BTreeSet<&'a str>;

/// Why a branch holds no solution.
struct DeadEnd<'a> {
    blame: Blame<'a>,
    /// Holds by itself, unless it is `NoCombination`: that one holds for the choice at hand.
    why: SolveError,
}

enum Stop<'a> {
    DeadEnd(Box<DeadEnd<'a>>),
    /// Nothing more is to be tried.
    GiveUp(SolveError),
}

/// Chooses the packages, in no special order. What they require holds no cycle.
pub(super) fn search<'a>(roots: &[&'a Root], offer: &Offer<'a>) -> Result<Vec<&'a Package>, SolveError> {
    let mut search = Search { roots, offer, chosen: Vec::new(), tried: 0 };
    let open = roots.iter().map(|root| (Origin::Root, root.name.as_str())).collect();
    match search.choose(&open) {
        Ok(()) => Ok(search.chosen),
        Err(Stop::DeadEnd(dead_end)) => Err(dead_end.why),
        Err(Stop::GiveUp(error)) => Err(error),
    }
}

/// Roots come first: their versions matter most to the one who wants them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Root,
    Required,
}

type Open<'a> = BTreeSet<(Origin, &'a str)>;

struct Search<'s, 'a> {
    roots: &'s [&'a Root],
    offer: &'s Offer<'a>,
    /// In the order of choosing.
    chosen: Vec<&'a Package>,
    tried: usize,
}

impl<'a> Search<'_, 'a> {
    /// Chooses a package for each open name and what these require. Leaves `chosen` as it was where it fails.
    fn choose(&mut self, open: &Open<'a>) -> Result<(), Stop<'a>> {
        let Some(&(_, name)) = open.first() else {
            return Ok(());
        };
        if self.chosen.len() == MAX_EXTENSIONS {
            let wanted = self.roots.iter().map(|root| Ask::of_root(root)).collect();
            return Err(Stop::GiveUp(SolveError::TooMany { most: MAX_EXTENSIONS, wanted }));
        }
        // Whoever requires the name is to blame that it has to be there at all.
        let mut blame: Blame<'a> = self.first_asker(name).into_iter().map(|asker| asker.name.as_str()).collect();
        let mut why: Option<SolveError> = None;
        let offer = self.offer;
        for &package in offer.of(name) {
            self.count()?;
            let reason = match self.refuse(package) {
                Some(Refusal { blame: whom, why: reason }) => {
                    blame.extend(whom);
                    reason
                }
                None => match self.choose_with(package, open) {
                    Err(Stop::DeadEnd(dead_end)) if dead_end.blame.contains(name) => {
                        blame.extend(dead_end.blame.into_iter().filter(|other| *other != name));
                        Some(dead_end.why)
                    }
                    // Done, given up, or another version of this one would not help.
                    other => return other,
                },
            };
            why = better(why, reason);
        }
        let why = why.unwrap_or_else(|| self.no_package(name));
        Err(Stop::DeadEnd(Box::new(DeadEnd { blame, why })))
    }

    fn choose_with(&mut self, package: &'a Package, open: &Open<'a>) -> Result<(), Stop<'a>> {
        self.chosen.push(package);
        let mut open = open.clone();
        open.remove(&(Origin::Root, package.name.as_str()));
        open.remove(&(Origin::Required, package.name.as_str()));
        for relation in &package.requires {
            let name = relation.name.as_str();
            if self.get(name).is_none() && !open.contains(&(Origin::Root, name)) {
                open.insert((Origin::Required, name));
            }
        }
        let result = self.choose(&open);
        if result.is_err() {
            self.chosen.pop();
        }
        result
    }

    fn count(&mut self) -> Result<(), Stop<'a>> {
        if self.tried == MAX_TRIED {
            let names: BTreeSet<&String> = self.chosen.iter().map(|package| &package.name).collect();
            let names = names.into_iter().cloned().collect();
            return Err(Stop::GiveUp(SolveError::TooMuchWork { tried: self.tried, names }));
        }
        self.tried += 1;
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&'a Package> {
        self.chosen.iter().copied().find(|package| package.name == name)
    }

    /// The first chosen package that requires a name; none for a root.
    fn first_asker(&self, name: &str) -> Option<&'a Package> {
        if self.roots.iter().any(|root| root.name == name) {
            return None;
        }
        self.chosen.iter().copied().find(|package| package.requires.iter().any(|relation| relation.name == name))
    }

    /// The relations of chosen packages to a name, by `requires` and `optional`.
    fn relations(&self, name: &str) -> impl Iterator<Item = (&'a Package, How, &'a Relation)> {
        let all = self
            .chosen
            .iter()
            .flat_map(|&package| package.before().map(move |(how, relation)| (package, how, relation)));
        all.filter(move |(_, _, relation)| relation.name == name)
    }

    fn asks(&self, name: &str) -> Vec<Ask> {
        let roots = self.roots.iter().filter(|root| root.name == name).map(|root| Ask::of_root(root));
        let others = self.relations(name).map(|(package, how, relation)| Ask::of_package(package, how, relation));
        roots.chain(others).collect()
    }
}

/// Why a package can't be chosen. There is no reason for one that is out of a range: that is told for all versions
/// of its name at once.
struct Refusal<'a> {
    blame: Blame<'a>,
    why: Option<SolveError>,
}

impl<'a> Search<'_, 'a> {
    fn refuse(&self, package: &'a Package) -> Option<Refusal<'a>> {
        self.out_of_range(package)
            .or_else(|| self.conflict(package))
            .or_else(|| self.chosen_out_of_range(package))
            .or_else(|| self.cycle(package))
    }

    fn out_of_range(&self, package: &'a Package) -> Option<Refusal<'a>> {
        if self.roots.iter().any(|root| root.name == package.name && !root.takes(package)) {
            return Some(Refusal { blame: Blame::new(), why: None });
        }
        let mut relations = self.relations(&package.name);
        let (asker, _, _) = relations.find(|(_, _, relation)| !relation.matches(&package.version))?;
        Some(Refusal { blame: [asker.name.as_str()].into(), why: None })
    }

    fn conflict(&self, package: &'a Package) -> Option<Refusal<'a>> {
        let between = |one: &'a Package, other: &'a Package| {
            let hits = |relation: &&Relation| relation.name == other.name && relation.matches(&other.version);
            Some((one, one.conflicts.iter().find(hits)?))
        };
        let found = self
            .chosen
            .iter()
            .find_map(|&other| Some((other, between(package, other).or_else(|| between(other, package))?)));
        let (other, (declared_by, relation)) = found?;
        let reason = format!("{} conflicts with {} {}", declared_by.name, relation.name, range_of(&relation.version));
        let (one, two) = if package.name <= other.name { (package, other) } else { (other, package) };
        let asks = [self.asks(&one.name), self.asks(&two.name)].concat();
        let error =
            SolveError::Conflict { one: title(one), other: title(two), reason: reason.trim_end().to_owned(), asks };
        Some(Refusal { blame: [other.name.as_str()].into(), why: Some(error) })
    }

    /// Whether the package asks for another version of what is chosen.
    fn chosen_out_of_range(&self, package: &'a Package) -> Option<Refusal<'a>> {
        let other = package
            .before()
            .find_map(|(_, relation)| self.get(&relation.name).filter(|other| !relation.matches(&other.version)))?;
        let name = other.name.as_str();
        // A package may ask twice for one name, by `requires` and by `optional`.
        let own = || package.before().filter(|(_, relation)| relation.name == name);
        let mut asks = self.asks(name);
        asks.extend(own().map(|(how, relation)| Ask::of_package(package, how, relation)));
        let fits = |candidate: &&&Package| {
            let roots = self.roots.iter().filter(|root| root.name == name).all(|root| root.takes(candidate));
            let others = self.relations(name).map(|(_, _, relation)| relation);
            roots
                && others
                    .chain(own().map(|(_, relation)| relation))
                    .all(|relation| relation.matches(&candidate.version))
        };
        let certain = !self.offer.of(name).iter().any(|candidate| fits(&candidate));
        let error = if certain {
            SolveError::NoVersion { name: name.to_owned(), asks, versions: self.offer.versions(name) }
        } else {
            asks.retain(|ask| !ask.range.is_empty());
            SolveError::NoCombination { asks }
        };
        Some(Refusal { blame: [other.name.as_str()].into(), why: Some(error) })
    }

    /// Whether the package closes a circle of what is required: the shortest one.
    fn cycle(&self, package: &'a Package) -> Option<Refusal<'a>> {
        let mut reached: Reached<'a> = BTreeMap::new();
        let mut queue = VecDeque::from([package]);
        while let Some(current) = queue.pop_front() {
            for relation in &current.requires {
                let next = if relation.name == package.name { Some(package) } else { self.get(&relation.name) };
                let Some(next) = next.filter(|next| !reached.contains_key(next.name.as_str())) else {
                    continue;
                };
                reached.insert(&next.name, (current, relation));
                if next.name != package.name {
                    queue.push_back(next);
                    continue;
                }
                let (blame, path) = circle(package, &mut reached);
                let why = Some(SolveError::Cycle { path });
                return Some(Refusal { blame, why });
            }
        }
        None
    }

    /// Why none of the packages of a name is in the ranges.
    fn no_package(&self, name: &'a str) -> SolveError {
        if self.offer.of(name).is_empty() {
            let known: Vec<String> = self.offer.0.keys().map(|known| (*known).to_owned()).collect();
            let nearest = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
            return SolveError::UnknownExtension { name: name.to_owned(), nearest, known, chain: self.chain(name) };
        }
        let (asks, versions) = (self.asks(name), self.offer.versions(name));
        SolveError::NoVersion { name: name.to_owned(), asks, versions }
    }

    /// Who asked for a name, from a root on.
    fn chain(&self, name: &str) -> Vec<Ask> {
        let mut chain = Vec::new();
        let mut name = name.to_owned();
        // Whoever asked first for a package was chosen before it, so this ends at a root.
        while let Some(asker) = self.first_asker(&name) {
            let relation = asker.requires.iter().find(|relation| relation.name == name);
            chain.extend(relation.map(|relation| Ask::of_package(asker, How::Requires, relation)));
            name.clone_from(&asker.name);
        }
        chain.extend(self.roots.iter().find(|root| root.name == name).map(|root| Ask::of_root(root)));
        chain.reverse();
        chain
    }
}

/// By which package, and by what relation, a name was reached.
type Reached<'a> = BTreeMap<&'a str, (&'a Package, &'a Relation)>;

/// Walks back around a circle that ends at its first package; the path begins at its smallest name.
fn circle<'a>(first: &'a Package, reached: &mut Reached<'a>) -> (Blame<'a>, Vec<Ask>) {
    let mut blame = Blame::new();
    let mut path = Vec::new();
    let mut current = first;
    while let Some((asker, relation)) = reached.remove(current.name.as_str()) {
        path.push(Ask::of_package(asker, How::Requires, relation));
        current = asker;
        if current.name == first.name {
            break;
        }
        blame.insert(&current.name);
    }
    path.reverse();
    let smallest = path.iter().enumerate().min_by_key(|(_, ask)| &ask.by).map_or(0, |(index, _)| index);
    path.rotate_left(smallest);
    (blame, path)
}

/// The first reason that is certain: it belongs to the most preferred version. Else all that was in the way.
fn better(known: Option<SolveError>, new: Option<SolveError>) -> Option<SolveError> {
    let (mut known, new) = match (known, new) {
        (Some(known), Some(new)) => (known, new),
        (known, new) => return known.or(new),
    };
    match (&mut known, new) {
        (SolveError::NoCombination { asks }, SolveError::NoCombination { asks: more }) => {
            for ask in more {
                if asks.len() < MAX_ASKS && !asks.contains(&ask) {
                    asks.push(ask);
                }
            }
            Some(known)
        }
        (SolveError::NoCombination { .. }, certain) => Some(certain),
        _ => Some(known),
    }
}
