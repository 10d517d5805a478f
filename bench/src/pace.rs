//! From the end of a run to the next Job, in a chain where nothing runs beside anything else.
//!
//! The stand-in watches the Pods of its node, as the operator watches its own; when its watch brings the end is taken for
//! when the operator's does. When the next Job is created is in the API server's audit log. Both read one clock.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use provisioning_e2e::Cluster;
use serde_json::json;

use crate::figures::{Figure, median, percentile};
use crate::ledger::{Entry, Ledger};

/// Longest median, milliseconds.
const MOST: f64 = 50.0;
/// How often the floor is measured.
const ROUNDS: usize = 101;

/// Milliseconds from an end to the next create.
#[derive(Clone, Debug, Default, PartialEq)]
struct Gaps {
    /// The next step of the same object.
    within: Vec<f64>,
    /// The first step of the next object: its workflow writes two statuses and the object in between.
    across: Vec<f64>,
}

/// Measures the chain that has run in a namespace.
///
/// # Errors
/// Where log and ledger do not fit together.
pub(crate) async fn figure(cluster: &Cluster, ledger: &Ledger, namespace: &str) -> Result<Figure> {
    let created = cluster.audit(namespace, |event| {
        event.is_operators() && event.what() == "create jobs" && event.namespace == namespace && event.code == 201
    });
    let created = created.await?.into_iter().map(|event| Ok((event.name, event.time.parse::<Timestamp>()?)));
    let created = created.collect::<Result<BTreeMap<_, _>>>()?;
    let Gaps { within, across } = gaps(&ledger.runs(namespace), &created)?;
    let floor = floor(cluster, namespace).await?;
    let p = |values: &[f64], of| percentile(values, of).context("the chain has no two steps");
    let all = [within.as_slice(), &across].concat();
    let (half, most) = (p(&all, 50)?, p(&all, 95)?);
    println!("\nFrom the watch event of a Pod's end to the create of the next Job, ms:");
    for (what, gaps) in [
        ("all", &all),
        ("next step of the same object", &within),
        ("first step of the next object, by way of the workflow", &across),
    ] {
        println!("{:8.1} p50 {:8.1} p95 of {:3}, {what}", p(gaps, 50)?, p(gaps, 95)?, gaps.len());
    }
    println!("{floor:8.1} p50 of {ROUNDS}, floor: one write of 8 KiB to the same API server and back");
    let words = format!(
        "p95 {most:.1} ms, {} times; {:.1} × the floor of {floor:.1} ms; within an object p50 {:.1} ms, by way of the workflow {:.1} ms",
        all.len(),
        half / floor,
        p(&within, 50)?,
        p(&across, 50)?
    );
    Ok(Figure::at_most("watch event of a Pod's end → create of the next Job, p50", half, MOST, "ms").with(words))
}

fn gaps(runs: &[Entry], created: &BTreeMap<String, Timestamp>) -> Result<Gaps> {
    let mut order = Vec::new();
    for run in runs {
        let at = created.get(&run.job).with_context(|| format!("the audit log has no create of Job {}", run.job))?;
        order.push((*at, run));
    }
    order.sort_by_key(|(at, run)| (*at, run.job.clone()));
    let mut gaps = Gaps::default();
    for pair in order.windows(2) {
        let ((_, before), (at, next)) = (pair[0], pair[1]);
        let end = before.end_seen.with_context(|| format!("no end of Job {} was seen", before.job))?;
        let milliseconds = at.duration_since(end).as_secs_f64() * 1_000.0;
        if before.owner.uid == next.owner.uid { &mut gaps.within } else { &mut gaps.across }.push(milliseconds);
    }
    Ok(gaps)
}

/// Median time of one write and its answer, milliseconds: whoever stores what it saw before it acts needs at least that.
async fn floor(cluster: &Cluster, namespace: &str) -> Result<f64> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    let name = "floor";
    let map = serde_json::from_value(json!({"metadata": {"name": name}, "data": {"round": ""}}))?;
    let mut map: ConfigMap = api.create(&PostParams::default(), &map).await?;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        map.data = Some([("round".to_owned(), format!("{round:08192}"))].into());
        let began = std::time::Instant::now();
        map = api.replace(name, &PostParams::default(), &map).await?;
        times.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    median(&times).context("no round")
}

#[cfg(test)]
mod tests {
    use provisioning_sdk::request::Owner;

    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_000_000 + milliseconds).unwrap()
    }

    fn run(owner: &str, job: &str, end: Option<i64>) -> Entry {
        let owner = Owner { kind: "Server".into(), namespace: "marsh".into(), name: owner.into(), uid: owner.into() };
        let (step, job) = (job.to_owned(), job.to_owned());
        Entry { owner, step, run: 1, job, bound: at(0), end_seen: end.map(at), failure: None }
    }

    #[test]
    fn a_gap_is_from_an_end_to_the_next_create_within_an_object_or_across() {
        let created = [("a", 0), ("b", 130), ("c", 300)].map(|(job, time)| (job.to_owned(), at(time)));
        let runs = [run("heron", "b", Some(220)), run("redis", "c", Some(400)), run("heron", "a", Some(100))];
        let gaps = gaps(&runs, &created.into()).unwrap();
        assert_eq!(gaps, Gaps { within: vec![30.0], across: vec![80.0] });
    }

    #[test]
    fn a_run_without_a_create_or_an_end_is_no_gap_but_an_error() {
        let created: BTreeMap<_, _> = [("a", 0), ("b", 130)].map(|(job, time)| (job.to_owned(), at(time))).into();
        let missing = gaps(&[run("heron", "z", Some(1))], &created).unwrap_err();
        assert_eq!(missing.to_string(), "the audit log has no create of Job z");
        let endless = gaps(&[run("heron", "a", None), run("heron", "b", None)], &created).unwrap_err();
        assert_eq!(endless.to_string(), "no end of Job a was seen");
    }
}
