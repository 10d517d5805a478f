//! The suite is checked itself: the reference provider keeps every rule, and each planted mistake is noticed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::join_all;
use provisioning_conformance::worlds::cloud::SmallCloud;
use provisioning_conformance::{CHECKS, Outcome, Provider, Report, Suite, run};

/// Each with the one check that has to fail, and no other.
const PLANTED: [(&str, &str); 6] = [
    ("double-create", "create-once"),
    ("ignored-token", "create-token"),
    ("foreign-delete", "delete-foreign"),
    ("wrong-class", "class-unauthorized"),
    ("unlisted-resource", "list"),
    ("false-absence", "delete-absence"),
];

/// One more for every other rule: without it nobody would know that its check can fail.
const FURTHER: [(&str, &str); 23] = [
    ("half-made", "create-cut"),
    ("replaces", "create-parameters"),
    ("adopts-twin", "create-foreign"),
    ("no-sweep", "create-sweep"),
    ("missing-tag", "create-tags"),
    ("no-host-key", "observe"),
    ("hasty-observe", "observe-absence"),
    ("fails-on-absence", "delete"),
    ("fails-on-absence", "delete-cut"),
    ("poor-describe", "describe"),
    ("touchy", "reads"),
    ("no-claim", "claim"),
    ("never-renews", "claim-renewed"),
    ("own-zone", "class-invalid"),
    ("lost-wish", "class-throttled"),
    ("final-outage", "class-transient"),
    ("short-calls", "class-timeout"),
    ("trusting", "requests-hostile"),
    ("strict", "requests-grow"),
    ("last-words", "sigterm"),
    ("all-is-well", "result"),
    ("chatty", "progress"),
    ("leaky", "secrets"),
];

fn suite(fault: Option<&str>, only: &[&str]) -> Suite {
    let arguments = fault.map(|fault| vec![format!("--fault={fault}")]).unwrap_or_default();
    Suite {
        provider: Provider { program: PathBuf::from(env!("CARGO_BIN_EXE_reference-provider")), arguments },
        world: Arc::new(|| Box::new(SmallCloud::default())),
        slow: true,
        only: only.iter().map(|id| (*id).to_owned()).collect(),
        parallel: 4,
    }
}

#[tokio::test]
async fn the_reference_provider_keeps_every_rule() {
    let report = run(&suite(None, &[])).await;
    println!("reference provider:\n{report}");
    assert_eq!((report.failed(), report.not_run()), (vec![], vec![]), "{report}");
}

#[tokio::test]
async fn each_of_six_faulty_providers_fails_on_its_own_check_and_on_no_other() {
    let reports = PLANTED.map(|(fault, check)| async move { (fault, check, run(&suite(Some(fault), &[])).await) });
    for (fault, check, report) in join_all(reports).await {
        println!("{fault}: {}", seen(&report, check));
        assert_eq!((report.failed(), report.not_run()), (vec![check], vec![]), "{fault}:\n{report}");
    }
}

#[tokio::test]
async fn every_other_check_notices_a_provider_that_breaks_its_rule() {
    // What every run has to keep is judged by runs of other checks.
    let reports = FURTHER.map(|(fault, check)| async move {
        (fault, check, run(&suite(Some(fault), &[check, "describe", "class-invalid"])).await)
    });
    for (fault, check, report) in join_all(reports).await {
        println!("{fault}: {}", seen(&report, check));
        assert!(report.failed().contains(&check), "{fault}:\n{report}");
    }
}

#[test]
fn every_check_has_a_provider_that_fails_it() {
    let noticed: BTreeSet<&str> = PLANTED.iter().chain(&FURTHER).map(|(_, check)| *check).collect();
    let checks: BTreeSet<&str> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(noticed, checks);
    assert_eq!(checks.len(), CHECKS.len(), "ids are unique");
}

#[test]
fn the_guide_lists_every_check_with_its_rule() {
    let guide = include_str!("../../../../docs/write-a-provider.md");
    let listed: Vec<&str> =
        guide.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 4).collect();
    for check in CHECKS {
        let row = format!("| `{}` | {} | {} |", check.id, check.about, check.rule);
        assert!(listed.contains(&row.as_str()), "docs/write-a-provider.md lacks, or words differently: {row}");
    }
}

#[tokio::test]
async fn a_program_that_is_no_provider_passes_nothing() {
    let mut suite = suite(None, &[]);
    suite.provider = Provider { program: "/bin/true".into(), arguments: Vec::new() };
    let report = run(&suite).await;
    let passed: Vec<&str> =
        report.rows.iter().filter(|row| matches!(row.outcome, Outcome::Passed(_))).map(|row| row.id).collect();
    // It prints nothing, so nothing wrong.
    assert_eq!(passed, ["progress", "secrets"], "{report}");
}

fn seen(report: &Report, check: &str) -> String {
    match report.rows.iter().find(|row| row.id == check).map(|row| &row.outcome) {
        Some(Outcome::Failed(seen)) => format!("{check}: {seen}"),
        other => format!("{check}: {other:?}"),
    }
}
