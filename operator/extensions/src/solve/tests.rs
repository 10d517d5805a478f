//! What is chosen, and the sentences for what can't be.

use super::search::{MAX_EXTENSIONS, MAX_TRIED};
use super::*;

/// Reads packages, one a line: `kubernetes 1.28.0: requires os, containerd ^1.7; optional helm; conflicts docker`.
/// The digest is `#name-version`, unless the line begins with another one.
fn offer(text: &str) -> Vec<Package> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(package).collect()
}

fn package(line: &str) -> Package {
    let (head, tail) = line.split_once(':').unwrap_or((line, ""));
    let words: Vec<&str> = head.split_whitespace().collect();
    let (name, version) = (words[words.len() - 2], words[words.len() - 1]);
    let digest = if words.len() == 3 { words[0].to_owned() } else { format!("#{name}-{version}") };
    let of = |list: &str| {
        let part = tail.split(';').find_map(|part| part.trim().strip_prefix(list));
        part.into_iter().flat_map(|part| part.split(',')).map(relation).collect()
    };
    Package {
        name: name.to_owned(),
        version: version.parse().unwrap(),
        digest,
        requires: of("requires "),
        optional: of("optional "),
        conflicts: of("conflicts "),
    }
}

fn relation(text: &str) -> Relation {
    let (name, version) = text.trim().split_once(' ').unwrap_or((text.trim(), "*"));
    Relation { name: name.to_owned(), version: version.parse().unwrap() }
}

fn roots(text: &str) -> Vec<Root> {
    let root = |text: &str| {
        let Relation { name, version } = relation(text);
        Root { by: format!("Taskserv {name}"), name, version }
    };
    text.split(',').map(root).collect()
}

fn installed(packages: &[&str]) -> Vec<Entry> {
    packages
        .iter()
        .map(|line| package(line))
        .map(|package| Entry { name: package.name, version: package.version, digest: package.digest })
        .collect()
}

/// The result, a line each: `containerd 1.7.2 for kubernetes`.
fn told(result: Result<Vec<Chosen>, SolveError>) -> String {
    let line = |chosen: &Chosen| {
        let by = chosen.required_by.join(", ");
        let by = if by.is_empty() { by } else { format!(" for {by}") };
        format!("{} {}{by}", chosen.name, chosen.version)
    };
    match result {
        Ok(chosen) => chosen.iter().map(line).collect::<Vec<_>>().join("\n"),
        Err(error) => error.to_string(),
    }
}

fn said(wanted: &str, offered: &str, there: &[&str]) -> String {
    told(solve(&roots(wanted), &offer(offered), &installed(there)))
}

const KUBERNETES: &str = "
    kubernetes 1.28.0: requires containerd ^1.7, etcd ^3.5, os; optional cilium ^1.14, helm; conflicts docker, podman
    kubernetes 1.27.0: requires containerd ^1.6, etcd ^3.5, os; conflicts docker, podman
    containerd 1.7.2: requires os; conflicts docker
    containerd 1.6.9: requires os
    containerd 2.0.0-rc.1: requires os
    etcd 3.5.9
    etcd 3.4.0
    cilium 1.15.0
    cilium 1.13.0
    helm 3.12.0
    docker 24.0.0: requires os
    podman 4.3.1
    os 0.1.0
";

/// Golden: what a Kubernetes server gets.
#[test]
fn kubernetes_gets_what_it_requires_in_order() {
    assert_eq!(
        said("kubernetes", KUBERNETES, &[]),
        "etcd 3.5.9 for kubernetes\n\
         os 0.1.0 for containerd, kubernetes\n\
         containerd 1.7.2 for kubernetes\n\
         kubernetes 1.28.0"
    );
    // What is optional comes first and in the right version, if it is wanted anyway.
    assert_eq!(
        said("kubernetes, cilium", KUBERNETES, &[]),
        "cilium 1.15.0\n\
         etcd 3.5.9 for kubernetes\n\
         os 0.1.0 for containerd, kubernetes\n\
         containerd 1.7.2 for kubernetes\n\
         kubernetes 1.28.0"
    );
    assert_eq!(
        said("cilium =1.13.0, kubernetes ^1.28", KUBERNETES, &[]),
        "no version of cilium is what all ask for: Taskserv cilium wants cilium =1.13.0, kubernetes 1.28.0 goes only \
         with cilium ^1.14; there are 1.15.0, 1.13.0"
    );
    // An older one has no such limit.
    assert!(said("cilium =1.13.0, kubernetes", KUBERNETES, &[]).ends_with("kubernetes 1.27.0"));
    assert_eq!(
        said("docker, kubernetes", KUBERNETES, &[]),
        "docker 24.0.0 and kubernetes 1.28.0 cannot be on the same server, because kubernetes conflicts with docker: \
         Taskserv docker wants docker, Taskserv kubernetes wants kubernetes"
    );
}

#[test]
fn what_is_there_stays_if_it_satisfies() {
    let there = ["containerd 1.6.9", "os 0.1.0", "podman 4.3.1"];
    assert!(said("kubernetes ^1.27, containerd", KUBERNETES, &there).contains("containerd 1.6.9 for kubernetes\n"));
    assert!(said("kubernetes =1.28.0", KUBERNETES, &there).contains("containerd 1.7.2 for kubernetes\n"));
    // A bundle that is no longer on offer can't be chosen.
    assert_eq!(said("os", KUBERNETES, &["#other os 0.1.0"]), "os 0.1.0");
}

#[test]
fn a_release_is_preferred_to_a_newer_pre_release() {
    assert!(said("containerd", KUBERNETES, &[]).ends_with("containerd 1.7.2"));
    assert!(said("containerd =2.0.0-rc.1", KUBERNETES, &[]).ends_with("containerd 2.0.0-rc.1"));
    assert_eq!(said("a", "a 1.0.0-rc.1", &[]), "a 1.0.0-rc.1");
    assert_eq!(
        said("a, b", "a 1.0.0-rc.1\nb 1.0.0: conflicts a", &[]),
        "a 1.0.0-rc.1 and b 1.0.0 cannot be on the same server, because b conflicts with a: Taskserv a wants a, Taskserv \
         b wants b"
    );
}

#[test]
fn an_unknown_extension_is_told_with_who_asked() {
    assert_eq!(
        said("kubernets", KUBERNETES, &[]),
        "Taskserv kubernets wants kubernets, but there is no extension \"kubernets\"; did you mean \"kubernetes\"?"
    );
    assert_eq!(
        said("a ^1", "a 1.0.0: requires b >=2\nb 2.1.0: requires containrd ^1.7\ncontainerd 1.7.0", &[]),
        "Taskserv a wants a ^1, a 1.0.0 requires b >=2, b 2.1.0 requires containrd ^1.7, but there is no extension \
         \"containrd\"; did you mean \"containerd\"?"
    );
    assert_eq!(said("a", "", &[]), "Taskserv a wants a, but there is no extension \"a\"; none is installed");
}

#[test]
fn ranges_that_do_not_meet_are_told_with_who_asks() {
    assert_eq!(
        said("a, b", "a 1.0.0: requires c ^1\nb 1.0.0: requires c ^2\nc 1.5.0\nc 2.5.0", &[]),
        "no version of c is what all ask for: a 1.0.0 requires c ^1, b 1.0.0 requires c ^2; there are 2.5.0, 1.5.0"
    );
}

#[test]
fn a_choice_that_fails_later_is_taken_back() {
    let offered = "a 2.0.0: requires x\na 1.0.0\nb 3.0.0: requires a ^1\n";
    assert_eq!(said("a, b", offered, &[]), "a 1.0.0 for b\nb 3.0.0");
    // The accident of a 2.0.0 is not the reason: that is d.
    assert_eq!(
        said("a, d ^2", &format!("{offered}d 1.0.0"), &[]),
        "no version of d is what all ask for: Taskserv d wants d ^2; there are 1.0.0"
    );
    // Any two go together, all three do not.
    let odd = "a 1.0.0\na 2.0.0\n\
               b 2.0.0: optional a =1.0.0\nb 3.0.0\n\
               c 2.0.0: optional a ^2, b ^2";
    assert!(["a, b", "a, c", "b, c"].iter().all(|two| said(two, odd, &[]).lines().count() == 2));
    assert_eq!(
        said("a, b, c", odd, &[]),
        "no choice of versions goes together: c 2.0.0 goes only with b ^2, b 2.0.0 goes only with a =1.0.0, c 2.0.0 \
         goes only with a ^2"
    );
}

#[test]
fn a_cycle_is_told_as_a_whole() {
    assert_eq!(
        said("c", "a 1.0.0: requires b\nb 1.0.0: requires c ^1, os\nc 1.0.0: requires a\nos 1.0.0", &[]),
        "no order of installation: a 1.0.0 requires b, b 1.0.0 requires c ^1, c 1.0.0 requires a"
    );
    // An older version without the circle is taken.
    assert_eq!(said("a", "a 1.0.0: requires b\nb 2.0.0: requires a\nb 1.0.0", &[]), "b 1.0.0 for a\na 1.0.0");
}

#[test]
fn an_optional_relation_in_a_circle_orders_nothing_and_keeps_nobody_out() {
    // By name, as if there were no relation; what is outside of the circle is ordered as ever.
    assert_eq!(said("a, b", "a 1.0.0: optional b\nb 1.0.0: optional a", &[]), "a 1.0.0\nb 1.0.0");
    let longer = "a 1.0.0: optional b, z\nb 1.0.0: optional c\nc 1.0.0: optional a\nz 1.0.0";
    assert_eq!(said("a, b, c, z", longer, &[]), "b 1.0.0\nc 1.0.0\nz 1.0.0\na 1.0.0");
    // What is required comes first, whatever is optional the other way round.
    let back = "a 1.0.0: optional b, z\nb 1.0.0: requires a\nz 1.0.0";
    assert_eq!(said("b, z", back, &[]), "z 1.0.0\na 1.0.0 for b\nb 1.0.0");
    // The versions are limited all the same.
    assert_eq!(
        said("a, b", "a 1.0.0: optional b ^2\nb 1.0.0: optional a", &[]),
        "no version of b is what all ask for: Taskserv b wants b, a 1.0.0 goes only with b ^2; there are 1.0.0"
    );
}

#[test]
fn two_contents_of_one_version_are_not_guessed_between() {
    let offered = "#x a 1.0.0\n#y a 1.0.0\nb 1.0.0: requires a";
    assert_eq!(
        said("b", offered, &[]),
        "extension \"a\" has version 1.0.0 with 2 different contents (#x, #y); a changed bundle needs a new version"
    );
    let digest = |result: Result<Vec<Chosen>, SolveError>| result.unwrap()[0].digest.clone();
    assert_eq!(digest(solve(&roots("b"), &offer(offered), &installed(&["#y a 1.0.0"]))), "#y");
}

#[test]
fn work_and_size_are_bounded() {
    // Ten extensions that each need a number of their own, and nine numbers.
    let mut holes = Vec::new();
    for (name, version) in (0..10).flat_map(|name| (1..10).map(move |version| (name, version))) {
        let others = (0..10).filter(|other| *other != name).map(|other| format!("p{other} ={version}.0.0"));
        holes.push(format!("p{name} {version}.0.0: conflicts {}", others.collect::<Vec<_>>().join(", ")));
    }
    let wanted = (0..10).map(|name| format!("p{name}")).collect::<Vec<_>>().join(", ");
    let words = said(&wanted, &holes.join("\n"), &[]);
    assert!(words.starts_with(&format!("gave up after {MAX_TRIED} attempts")), "{words}");

    let chain = |length: usize| {
        let links = (1..length).map(|n| format!("e{n} 1.0.0: requires e{}", n - 1)).collect::<Vec<_>>().join("\n");
        said(&format!("e{}", length - 1), &format!("{links}\ne0 1.0.0"), &[])
    };
    assert_eq!(chain(MAX_EXTENSIONS).lines().count(), MAX_EXTENSIONS);
    assert_eq!(
        chain(MAX_EXTENSIONS + 1),
        format!("Taskserv e128 wants e128 would bring more than {MAX_EXTENSIONS} extensions to one server")
    );
}
