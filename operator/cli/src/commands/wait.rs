//! `provisioning wait`: until an object has got somewhere; by watching, not by asking again and again.

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use futures::future::try_join_all;
use jiff::Timestamp;

use crate::cluster::{Cluster, ClusterArguments};
use crate::complete;
use crate::error::Error;
use crate::exit::Exit;
use crate::goal::{Goal, Waiting, wait};
use crate::kinds::{Kind, Target, targets};
use crate::output::{print, tell};
use crate::times::{clock, parse_duration};

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// KIND NAME…, or KIND/NAME…; a workspace needs no name
    #[arg(required = true, value_name = "KIND NAME", add = ArgValueCompleter::new(complete::objects))]
    objects: Vec<String>,
    /// ready, deleted, failed, or condition=TYPE[=STATUS]
    #[arg(long = "for", default_value = "ready", value_name = "WHAT")]
    goal: Goal,
    /// How long to wait at most
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    timeout: Duration,
    /// Also while it is Stalled, or does not exist yet
    #[arg(long)]
    keep_waiting: bool,
    /// Tell what happens meanwhile, on standard error
    #[arg(short, long)]
    verbose: bool,
}

/// Waits for objects.
pub(crate) async fn run(arguments: Arguments, cluster: &ClusterArguments) -> Result<Exit, Error> {
    let targets = targets(&arguments.objects)?;
    let cluster = Cluster::find(cluster).await?;
    let goal = arguments.goal;
    let waiting = Waiting { goal, timeout: Some(arguments.timeout), keep_waiting: arguments.keep_waiting };
    together(&cluster, &targets, &waiting, arguments.verbose).await?;
    for target in &targets {
        print(&format!("{target} {}\n", waiting.goal.reached()));
    }
    Ok(Exit::Done)
}

/// Waits for objects of the cluster's namespace; one watch for each kind.
pub(super) async fn together(
    cluster: &Cluster,
    targets: &[Target],
    waiting: &Waiting,
    verbose: bool,
) -> Result<(), Error> {
    let names = |kind: Kind| -> Vec<String> {
        targets.iter().filter(|target| target.kind == kind).map(|target| target.name.clone()).collect()
    };
    let groups: Vec<(Kind, Vec<String>)> = Kind::ALL.map(|kind| (kind, names(kind))).into();
    let waits = groups.iter().filter(|(_, names)| !names.is_empty()).map(|(kind, names)| async move {
        let mut told = teller();
        let mut silent = |_: &Target, _: &str| {};
        let told: &mut (dyn FnMut(&Target, &str) + Send) = if verbose { &mut told } else { &mut silent };
        wait(cluster, *kind, &cluster.namespace, names, waiting, told).await
    });
    try_join_all(waits).await?;
    Ok(())
}

/// Tells changes on standard error.
pub(super) fn teller() -> impl FnMut(&Target, &str) + Send {
    |target: &Target, line: &str| tell(&format!("{} {target} {line}", clock(Timestamp::now())))
}
