//! `provisioning platform`: a Kubernetes of your own on this machine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use jiff::Timestamp;
use provisioning_platform::image::{self, Image, ImageFile, Layer};
use provisioning_platform::{
    Binaries, Health, Instance, InstanceName, InstanceStatus, Loaded, LogsError, Phase, StartOptions, Started, Stopped,
};

use crate::exit;
use crate::output::{self, Progress, tell};

/// The group's arguments.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct Arguments {
    /// Which instance; several can run side by side
    #[arg(long, global = true, default_value = "default", env = "PROVISIONING_INSTANCE")]
    instance: InstanceName,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start it, and wait until it accepts pods
    #[command(after_help = "Example: provisioning platform start --wait-timeout 120")]
    Start {
        /// How many seconds to wait until pods are accepted
        #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=3600))]
        wait_timeout: u64,
    },
    /// Stop it and remove all it made on this machine; its data is kept
    #[command(after_help = "Example: provisioning platform stop")]
    Stop,
    /// Show its services; exit code 3 if it does not run
    #[command(after_help = "Example: provisioning platform status -o json")]
    Status {
        /// How to show it
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Ask all services and the node; exit code 3 if anything is not well
    #[command(after_help = "Example: provisioning platform health && kubectl apply -f .")]
    Health,
    /// Show a service's log; without SERVICE list the logs
    #[command(after_help = "Example: provisioning platform logs kubelet -f --tail 20")]
    Logs {
        /// Such as etcd, kubelet, supervisor, audit
        service: Option<String>,
        /// Go on showing what is added
        #[arg(short, long)]
        follow: bool,
        /// How many lines of its end to show
        #[arg(long, default_value_t = 100)]
        tail: usize,
    },
    /// Show where the administrator's kubeconfig is, or the kubeconfig itself
    #[command(after_help = "Example: export KUBECONFIG=$(provisioning platform kubeconfig)")]
    Kubeconfig {
        /// Print its path (default)
        #[arg(long, conflicts_with = "print")]
        path: bool,
        /// Print its contents
        #[arg(long)]
        print: bool,
    },
    /// Import image archives (docker or OCI), but for those that are there already
    #[command(after_help = "Example: provisioning platform load-image operator.tar runner.tar")]
    LoadImage {
        /// The archives
        #[arg(required = true, value_parser = existing_file)]
        files: Vec<PathBuf>,
    },
    /// Stop it and delete all its data
    #[command(after_help = "Example: provisioning platform purge --instance heron")]
    Purge,
    /// Write an image archive without docker
    #[command(
        hide = true,
        after_help = "Example: provisioning platform build-image --name localhost/heron:1 --file target/heron:/heron:755 \
                      --entrypoint /heron --user 65532 -o heron.tar"
    )]
    BuildImage(BuildImage),
    /// Keep the services running; `start` runs this
    #[command(hide = true)]
    Supervise,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
struct BuildImage {
    /// Name and tag, such as localhost/heron:1
    #[arg(long)]
    name: String,
    /// A file to put in: SOURCE:DESTINATION[:MODE], the mode in octal
    #[arg(long = "file", value_parser = image_file, conflicts_with = "rootfs", required_unless_present = "rootfs")]
    files: Vec<ImageFile>,
    /// A whole root file system, as an uncompressed tar archive
    #[arg(long)]
    rootfs: Option<PathBuf>,
    /// What it runs: the program, and again for each of its arguments
    #[arg(long)]
    entrypoint: Vec<String>,
    /// Environment, as NAME=VALUE
    #[arg(long = "env")]
    environment: Vec<String>,
    /// UID or UID:GID
    #[arg(long)]
    user: Option<String>,
    /// Where to write the archive
    #[arg(short, long)]
    output: PathBuf,
}

fn image_file(text: &str) -> Result<ImageFile, String> {
    let wrong = || format!("{text:?} is not SOURCE:DESTINATION[:MODE]");
    let mut parts = text.split(':');
    let (source, destination) = (parts.next().ok_or_else(wrong)?, parts.next().ok_or_else(wrong)?);
    let mode = parts.next().map(|mode| u32::from_str_radix(mode, 8).map_err(|_| wrong())).transpose()?;
    if parts.next().is_some() || source.is_empty() {
        return Err(wrong());
    }
    Ok(ImageFile { source: source.into(), destination: destination.into(), mode })
}

/// Runs a command of the group, given `--no-color`.
pub(crate) async fn run(arguments: Arguments, no_colour: bool) -> Result<ExitCode> {
    let Arguments { instance, command } = arguments;
    let instance = Instance::of_user(instance)?;
    match command {
        Command::Start { wait_timeout } => start(&instance, Duration::from_secs(wait_timeout), no_colour).await,
        Command::Stop => stop(&instance, no_colour),
        Command::Status { output } => status(&instance, output),
        Command::Health => health(&instance).await,
        Command::Logs { service, follow, tail } => logs(&instance, service.as_deref(), follow, tail),
        Command::Kubeconfig { path: _, print } => kubeconfig(&instance, print),
        Command::LoadImage { files } => load_images(&instance, &files, no_colour),
        Command::Purge => purge(&instance, no_colour),
        Command::BuildImage(arguments) => build_image(arguments),
        Command::Supervise => {
            provisioning_platform::supervise(&instance).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn start(instance: &Instance, wait_timeout: Duration, no_colour: bool) -> Result<ExitCode> {
    let begin = Instant::now();
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    let words = ["platform", "supervise", "--instance", instance.name().as_str()].map(OsString::from);
    let supervisor = std::iter::once(program.into_os_string()).chain(words).collect();
    let progress = Progress::new(no_colour);
    let mut step = |message: &str| progress.step(message);
    let started =
        provisioning_platform::start(instance, StartOptions { supervisor, wait_timeout, progress: &mut step }).await?;
    let name = instance.name();
    progress.finish(&match started {
        Started::Now => format!("instance {name} is ready, after {:.1} s", begin.elapsed().as_secs_f64()),
        Started::AlreadyRunning => format!("instance {name} is already running"),
    });
    tell(&format!("export KUBECONFIG={}", instance.kubeconfig().display()));
    Ok(ExitCode::SUCCESS)
}

fn stop(instance: &Instance, no_colour: bool) -> Result<ExitCode> {
    let progress = Progress::new(no_colour);
    let stopped = provisioning_platform::stop(instance, &mut |message| progress.step(message))?;
    let name = instance.name();
    progress.finish(&match stopped {
        Stopped::Now => format!("instance {name} is stopped; its data is in {}", instance.directory().display()),
        Stopped::AlreadyStopped => format!("instance {name} does not run"),
    });
    Ok(ExitCode::SUCCESS)
}

fn purge(instance: &Instance, no_colour: bool) -> Result<ExitCode> {
    let (progress, name) = (Progress::new(no_colour), instance.name());
    let was_there = instance.directory().exists();
    provisioning_platform::purge(instance, &mut |message| progress.step(message))?;
    let others = if was_there { Vec::new() } else { instance.neighbours() };
    let names: Vec<&str> = others.iter().map(InstanceName::as_str).collect();
    progress.finish(&match names.as_slice() {
        _ if was_there => format!("instance {name} is gone"),
        [] => format!("there is no instance {name}"),
        names => format!("there is no instance {name}; there are: {}", names.join(", ")),
    });
    Ok(ExitCode::SUCCESS)
}

fn status(instance: &Instance, format: Format) -> Result<ExitCode> {
    let status = provisioning_platform::status(instance)?;
    match format {
        Format::Json => output::line(&serde_json::to_string_pretty(&status)?)?,
        Format::Table => output::line(&table(&status))?,
    }
    Ok(if status.phase == Phase::Running { ExitCode::SUCCESS } else { exit::negative() })
}

fn table(status: &InstanceStatus) -> String {
    let InstanceStatus { instance, phase, server, kubeconfig: _, supervisor, services } = status;
    let mut text = format!("Instance {instance}: {phase:?}  {}", server.as_deref().unwrap_or_default());
    if let Some(supervisor) = supervisor {
        text.push_str(&format!("\nSupervisor: pid {}", supervisor.pid));
    }
    if services.is_empty() {
        return text;
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["SERVICE", "HEALTH", "PID", "RESTARTS", "UPTIME", "LAST EXIT"]);
    for (service, status) in services {
        let process = status.process.as_ref();
        let pid = process.map(|process| process.pid.to_string());
        let uptime = process.and(status.started).map(|started| age(started, Timestamp::now()));
        table.add_row([
            service.to_string(),
            format!("{:?}", status.health),
            pid.unwrap_or_else(|| "-".to_owned()),
            status.restarts.to_string(),
            uptime.unwrap_or_else(|| "-".to_owned()),
            status.last_exit.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    format!("{text}\n{}", table.trim_fmt())
}

/// An age as kubectl shows it: the two largest units.
fn age(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86400, seconds / 3600 % 24),
    }
}

async fn health(instance: &Instance) -> Result<ExitCode> {
    let status = provisioning_platform::status(instance)?;
    let mut problems = Vec::new();
    if status.phase != Phase::Running {
        problems.push(format!("instance {}: {:?}", instance.name(), status.phase));
    }
    for (service, status) in status.services.iter().filter(|(_, status)| status.health != Health::Healthy) {
        let problem = status.problem.as_ref().or(status.last_exit.as_ref());
        problems.push(format!("{service}: {:?} {}", status.health, problem.map_or("", String::as_str)));
    }
    if problems.is_empty() {
        let client = provisioning_platform::client(instance).await?;
        if let Err(error) = provisioning_platform::accepts_pods(&client, &instance.node_name()).await {
            problems.push(error.to_string());
        }
    }
    match problems.as_slice() {
        [] => {
            output::line("healthy")?;
            Ok(ExitCode::SUCCESS)
        }
        problems => {
            output::line(&problems.join("\n"))?;
            Ok(exit::negative())
        }
    }
}

fn logs(instance: &Instance, service: Option<&str>, follow: bool, tail: usize) -> Result<ExitCode> {
    match service {
        None => {
            let names = provisioning_platform::log_names(instance);
            let name = instance.name();
            anyhow::ensure!(
                !names.is_empty(),
                "instance {name} has no logs: it was never started, or it has another name (--instance)"
            );
            output::line(&names.join("\n"))?;
        }
        Some(service) => {
            let file = match provisioning_platform::log_file(instance, service) {
                Err(LogsError::Unknown { name, known }) if !known.is_empty() => {
                    let near = provisioning_plan::nearest::hint(&name, known.iter().map(String::as_str));
                    tell(&format!("error: there is no log of '{name}'{near}; there are: {}", known.join(", ")));
                    return Ok(exit::negative());
                }
                file => file?,
            };
            provisioning_platform::show_log(&file, tail, follow, &mut std::io::stdout().lock())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says that an instance was never started, and which one was perhaps meant.
fn absent(instance: &Instance) -> ExitCode {
    let name = instance.name();
    let names = instance.neighbours();
    let near = provisioning_plan::nearest::hint(name.as_str(), names.iter().map(InstanceName::as_str));
    tell(&format!(
        "error: there is no instance '{name}'{near}; start it first: {} platform start --instance {name}",
        output::program()
    ));
    exit::negative()
}

fn kubeconfig(instance: &Instance, print: bool) -> Result<ExitCode> {
    let file = instance.kubeconfig();
    if !instance.directory().exists() {
        return Ok(absent(instance));
    }
    let text = std::fs::read_to_string(&file).with_context(|| {
        let name = instance.name();
        format!(
            "failed to read {}; start it first: {} platform start --instance {name}",
            file.display(),
            output::program()
        )
    })?;
    output::line(if print { text.trim_end().to_owned() } else { file.display().to_string() }.as_str())?;
    Ok(ExitCode::SUCCESS)
}

/// Before anything is done: a file that is missing is a mistake in the command.
fn existing_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_file() { Ok(path) } else { Err("there is no such file".to_owned()) }
}

fn load_images(instance: &Instance, files: &[PathBuf], no_colour: bool) -> Result<ExitCode> {
    let binaries = Binaries::find()?;
    let progress = Progress::new(no_colour);
    for file in files {
        let shown = file.display();
        progress.step(&format!("importing {shown}"));
        let loaded = provisioning_platform::load_image(instance, &binaries, file);
        match loaded.with_context(|| format!("failed to import {shown}"))? {
            Loaded::Imported => progress.step(&format!("imported {shown}")),
            Loaded::AlreadyThere => progress.step(&format!("already there: {shown}")),
        }
    }
    progress.finish(&format!("{} images are there", files.len()));
    Ok(ExitCode::SUCCESS)
}

fn build_image(arguments: BuildImage) -> Result<ExitCode> {
    let BuildImage { name, files, rootfs, entrypoint, environment, user, output: archive } = arguments;
    let layer = rootfs.map_or(Layer::Files(files), Layer::RootFileSystem);
    image::write(&Image { name, layer, entrypoint, environment, user }, &archive)?;
    output::line(&archive.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_an_image_may_have_a_mode() {
        let file = image_file("a/b:/usr/bin/b:4755").unwrap();
        assert_eq!((file.source, file.destination, file.mode), ("a/b".into(), "/usr/bin/b".into(), Some(0o4755)));
        assert_eq!(image_file("a:/b").unwrap().mode, None);
        for bad in ["a", ":/b", "a:/b:9", "a:/b:755:x"] {
            assert!(image_file(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_archive_that_is_missing_is_a_mistake_in_the_command() {
        assert!(existing_file(file!().rsplit_once('/').unwrap().1).is_err());
        let folder = tempfile::tempdir().unwrap();
        assert!(existing_file(folder.path().to_str().unwrap()).is_err());
        let archive = folder.path().join("x.tar");
        std::fs::write(&archive, "x").unwrap();
        assert_eq!(existing_file(archive.to_str().unwrap()), Ok(archive));
    }

    #[test]
    fn an_age_has_two_units() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        assert_eq!(age(at(0), at(59)), "59s");
        assert_eq!(age(at(0), at(61)), "1m1s");
        assert_eq!(age(at(0), at(7260)), "2h1m");
        assert_eq!(age(at(0), at(90000)), "1d1h");
    }
}
