//! The closed list of reasons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on has failed

use std::collections::BTreeSet;

use provisioning_api::conditions::{reasons, types};

fn is_camel_case(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_ascii_uppercase())
        && letters.all(|letter| letter.is_ascii_alphanumeric())
}

#[test]
fn every_reason_is_camel_case_unique_and_explained() {
    let mut seen = BTreeSet::new();
    for (reason, text) in reasons::ALL {
        assert!(is_camel_case(reason), "{reason}");
        assert!(seen.insert(reason), "{reason} is there twice");
        assert!(text.trim().ends_with('.') && text.trim().len() > 15, "{reason}: '{text}'");
        assert!(![types::READY, types::RECONCILING, types::STALLED].contains(reason), "{reason} is a type, too");
    }
}

#[test]
fn reasons_do_not_contain_one_another() {
    // Alerts select by reason, often with a pattern.
    let all: Vec<&str> = reasons::ALL.iter().map(|(reason, _)| *reason).collect();
    for reason in &all {
        let within: Vec<&&str> = all.iter().filter(|other| *other != reason && other.starts_with(*reason)).collect();
        assert!(within.is_empty(), "{reason} begins {within:?}");
    }
}
