//! The project's figures, each measured and held against its bound (docs/figures.md).
//!
//! The API server, etcd, scheduler, garbage collector and the operator are real. One thing is not: a program stands in for
//! the kubelet ([`stand_in`]), so that a thousand objects need no thousand machines. It takes the claim of a run as an
//! executor does, answers at once what a provider or script would ([`answers`]), and writes down what it did
//! ([`ledger`]). The servers that it answers for are one listener ([`machine`]), which the operator may knock at and probe.
#![deny(missing_docs)]

mod answers;
mod figures;
mod ledger;
mod machine;
mod pace;
mod requests;
mod speed;
mod stand_in;
mod weight;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use jiff::SignedDuration;
use provisioning_e2e::Cluster;

use figures::Figure;
use ledger::Ledger;
use workload::{Load, Standing};

/// How long a load may take to become Ready.
const SETTLES: Duration = Duration::from_secs(1_200);
/// An ended Job is removed ten minutes after its end, by the clock of its node; this long after that at the latest.
const CLEANED: Duration = Duration::from_secs(900);

/// What is measured with what.
#[derive(Debug, Parser)]
#[command(name = "bench", about = "Prints the figures of docs/figures.md; scripts/bench starts it")]
pub struct Arguments {
    /// Namespaces with 200 objects each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=20))]
    namespaces: u16,
    /// Pairs of a Server and a Taskserv in the chain of dependent steps
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(2..=30))]
    links: u16,
    /// Seconds that the stand-in's clock is behind: a Job goes ten minutes after its end by that clock, so this much is
    /// not waited for
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(0..=540))]
    behind: u32,
    /// How often a command is timed
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u16).range(5..=1001))]
    times: u16,
    /// Archive of the operator's image
    #[arg(long, env = "OPERATOR_ARCHIVE")]
    operator_archive: PathBuf,
    /// Where the stand-in's ledger is written, a run a line
    #[arg(long, default_value = "target/bench-ledger.ndjson")]
    ledger: PathBuf,
}

/// Measures everything and prints it. The exit code is 1 where a bound is not held.
///
/// # Errors
/// Where something could not be measured.
pub async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let cluster = Cluster::connect().await?;
    let address = machine::node_address(&cluster)?;
    let machine = machine::listen(address).await?;
    let ledger = Ledger::default();
    let behind = SignedDuration::from_secs(i64::from(arguments.behind));
    let mut stand_in = stand_in::start(&cluster, &machine, ledger.clone(), behind).await?;
    let measured = tokio::select! {
        measured = measure(&cluster, &ledger, &machine, arguments) => measured,
        ended = stand_in.join_next() => Err(anyhow::anyhow!("the stand-in for the kubelet ended: {ended:?}")),
    };
    ledger.write(&arguments.ledger)?;
    let figures = measured?;
    println!("\n{}", figures::table(&figures));
    let holds = figures.iter().all(Figure::holds);
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All figures, in the order in which they can be taken.
async fn measure(
    cluster: &Cluster,
    ledger: &Ledger,
    machine: &machine::Machine,
    arguments: &Arguments,
) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut loads = vec![workload::chain(usize::from(arguments.links))];
    bring_up(cluster, &loads).await?;
    figures.push(pace::figure(cluster, ledger, &loads[0].namespace).await?);

    let blocks: Vec<Load> = (1..=arguments.namespaces).map(workload::block).collect();
    bring_up(cluster, &blocks).await?;
    loads.extend(blocks);
    let standing = workload::standing(&cluster.client, &loads).await?;
    settled(&standing, ledger)?;
    let objects = standing.objects();
    let busy = weight::memory(cluster).await?;
    figures.push(weight::image(&arguments.operator_archive)?);
    figures.extend(tokio::task::block_in_place(|| speed::figures(cluster, objects, usize::from(arguments.times)))?);

    until_cleaned(cluster).await?;
    figures.push(requests::per_step(cluster, &loads, &standing).await?);
    figures.push(requests::at_rest(cluster, machine, objects).await?);
    figures.push(weight::figure(&busy, &weight::memory(cluster).await?, objects));
    Ok(figures)
}

/// Applies all loads, and waits until everything in them is Ready.
async fn bring_up(cluster: &Cluster, loads: &[Load]) -> Result<()> {
    let began = Instant::now();
    for load in loads {
        load.apply(&cluster.client).await?;
    }
    for load in loads {
        load.ready(&cluster.client, SETTLES.saturating_sub(began.elapsed())).await?;
    }
    let names: Vec<&str> = loads.iter().map(|load| load.namespace.as_str()).collect();
    println!("{:7.1} s until Ready: {}", began.elapsed().as_secs_f64(), names.join(", "));
    Ok(())
}

/// Makes sure that what is measured is what it is called: everything Ready, in one run each, and no run failed.
fn settled(standing: &Standing, ledger: &Ledger) -> Result<()> {
    println!("{standing}");
    let Standing { ready, steps, runs, .. } = standing;
    ensure!(standing.objects() == *ready, "{ready} of {} objects are Ready", standing.objects());
    ensure!(i64::try_from(*steps)? == *runs, "{runs} runs for {steps} successful steps: some were run again");
    let troubles = ledger.troubles();
    ensure!(troubles.is_empty(), "the stand-in had trouble, first: {}", troubles[0]);
    Ok(())
}

/// Waits until the operator has removed all Jobs.
async fn until_cleaned(cluster: &Cluster) -> Result<()> {
    let began = Instant::now();
    loop {
        let left = workload::jobs(&cluster.client).await.context("count Jobs")?;
        if left == 0 {
            println!("{:7.1} s until the last ended Job was removed", began.elapsed().as_secs_f64());
            return Ok(());
        }
        if began.elapsed() > CLEANED {
            bail!("{left} ended Jobs are still there after {CLEANED:?}");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
