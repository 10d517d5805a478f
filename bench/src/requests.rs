//! What the operator asks of the API server, by its audit log: per step, and at rest.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use provisioning_e2e::{AuditEvent, Cluster, tally};

use crate::figures::Figure;
use crate::machine::Machine;
use crate::workload::{Load, Standing};

/// Most requests per successful step.
const PER_STEP: f64 = 10.0;
/// How long rest is watched.
const REST: Duration = Duration::from_secs(60);
/// The leader's Lease.
const LEADER: &str = "provisioning-operator";

/// All requests of the operator so far.
///
/// # Errors
/// Where the log cannot be read, or a part of it is in another file by now.
async fn of_operator(cluster: &Cluster, wanted: impl Fn(&AuditEvent) -> bool) -> Result<Vec<AuditEvent>> {
    let folder = cluster.audit_log.parent().context("the audit log is in no folder")?;
    let rotated = std::fs::read_dir(folder)?.filter_map(Result::ok).find(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("audit-") && name.ends_with(".log")
    });
    ensure!(rotated.is_none(), "the audit log was rotated: its beginning cannot be counted; measure fewer objects");
    cluster.audit(LEADER, |event| event.is_operators() && wanted(event)).await
}

/// Requests per successful step, over the whole life of some loads: from their first object to the removal of their last Job.
///
/// # Errors
/// Where the log cannot be read.
pub(crate) async fn per_step(cluster: &Cluster, loads: &[Load], standing: &Standing) -> Result<Figure> {
    let all = of_operator(cluster, |_| true).await?;
    let (theirs, others): (Vec<_>, Vec<_>) = all.iter().partition(|event| concerns(event, loads));
    println!("\nRequests of the operator for {} successful steps:", standing.steps);
    let steps = f64::from(u32::try_from(standing.steps)?);
    for (what, count) in tally(theirs.iter().copied()) {
        println!("{count:8}  {:6.3} a step  {what}", f64::from(u32::try_from(count)?) / steps);
    }
    let failed: Vec<&AuditEvent> = theirs.iter().copied().filter(|event| event.code >= 400).collect();
    println!("of these answered with an error:");
    for (what, count) in tally(failed.iter().copied()) {
        println!("{count:8}  {what}");
    }
    println!("besides, by the clock and not by steps:");
    for (what, count) in tally(others.iter().copied()) {
        println!("{count:8}  {what}");
    }
    let value = f64::from(u32::try_from(theirs.len())?) / steps;
    let words = format!("{} requests for {} steps", theirs.len(), standing.steps);
    Ok(Figure::at_most("API requests of the operator per successful step", value, PER_STEP, "").with(words))
}

/// Whether a request is about one of the loads. What it does in the site for a workspace bears that one's name.
fn concerns(event: &AuditEvent, loads: &[Load]) -> bool {
    loads.iter().any(|Load { namespace, .. }| event.namespace == *namespace || event.name.ends_with(namespace.as_str()))
}

/// Writes of the operator while nothing happens.
///
/// # Errors
/// Where the log cannot be read.
pub(crate) async fn at_rest(cluster: &Cluster, machine: &Machine, objects: usize) -> Result<Figure> {
    let (began, before) = (Timestamp::now(), machine.answered());
    tokio::time::sleep(REST).await;
    let (ended, after) = (Timestamp::now(), machine.answered());
    let all = of_operator(cluster, |event| is_within(event, began, ended)).await?;
    let writes: Vec<&AuditEvent> = all.iter().filter(|event| event.is_write() && !is_leaders(event)).collect();
    let (knocks, probes) = (after.0 - before.0, after.1 - before.1);
    println!("\nRequests of the operator in {REST:?} at rest, {knocks} knocks and {probes} probes beside them:");
    for (what, count) in tally(&all) {
        println!("{count:8}  {what}");
    }
    ensure!(knocks > 0 && probes > 0, "the operator neither knocked nor probed: this is no rest");
    let value = f64::from(u32::try_from(writes.len())?);
    let words = format!("{objects} objects; {knocks} knocks and {probes} probes in that time");
    let name = format!("writes of the operator in {} s at rest, but the leader's Lease", REST.as_secs());
    Ok(Figure::at_most(name, value, 0.0, "").with(words))
}

fn is_within(event: &AuditEvent, began: Timestamp, ended: Timestamp) -> bool {
    // A time that cannot be read counts: it must not hide a write.
    event.time.parse::<Timestamp>().map_or(true, |time| (began..=ended).contains(&time))
}

fn is_leaders(event: &AuditEvent) -> bool {
    event.resource == "leases" && event.name == LEADER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload;

    fn event(verb: &str, resource: &str, namespace: &str, name: &str) -> AuditEvent {
        AuditEvent {
            verb: verb.to_owned(),
            user: "system:serviceaccount:provisioning-system:provisioning-operator".to_owned(),
            user_agent: String::new(),
            resource: resource.to_owned(),
            subresource: String::new(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            code: 200,
            time: "2026-01-01T00:00:30.000001Z".to_owned(),
        }
    }

    #[test]
    fn what_is_done_for_a_workspace_counts_wherever_it_is_done() {
        let loads = [workload::block(1)];
        let about = |namespace, name| concerns(&event("create", "rolebindings", namespace, name), &loads);
        assert!(about("bench-1", "heron") && about("provisioning-local", "local-provider-bench-1"));
        assert!(!about("provisioning-system", "provisioning-operator") && !about("bench-2", "heron"));
    }

    #[test]
    fn a_write_in_the_time_counts_and_the_leaders_lease_does_not() {
        let [began, ended] = ["2026-01-01T00:00:30Z", "2026-01-01T00:01:30Z"].map(|time| time.parse().unwrap());
        let write = event("update", "servers", "bench-1", "heron");
        assert!(write.is_write() && !is_leaders(&write) && is_within(&write, began, ended));
        assert!(is_leaders(&event("patch", "leases", "provisioning-system", LEADER)));
        assert!(!event("watch", "servers", "", "").is_write());
        let late = AuditEvent { time: "2026-01-01T00:01:30.1Z".to_owned(), ..write.clone() };
        assert!(!is_within(&late, began, ended));
        assert!(is_within(&AuditEvent { time: "noon".to_owned(), ..write }, began, ended));
    }

    #[test]
    fn requests_are_counted_by_verb_and_resource_the_most_first() {
        let status = AuditEvent { subresource: "status".to_owned(), ..event("update", "servers", "bench-1", "heron") };
        let events = [event("create", "jobs", "bench-1", "a"), status.clone(), status];
        let counts = tally(&events);
        assert_eq!(counts, [("update servers/status".to_owned(), 2), ("create jobs".to_owned(), 1)]);
    }
}
