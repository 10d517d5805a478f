//! How long the command line takes, beside programs that do the like, in turns.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use provisioning_e2e::Cluster;

use crate::figures::{Figure, median};

/// Longest that `--version` takes, milliseconds.
const VERSION: f64 = 10.0;
/// How many times as long as `kubectl get` a `list` may take.
const RATIO: f64 = 1.5;
/// All kinds, so that both programs are asked for the same.
const KINDS: &str = "workspaces,providerconfigs,servers,taskservs,clusters,batchworkflows";

/// Times the commands.
///
/// # Errors
/// Where one of them fails.
pub(crate) fn figures(cluster: &Cluster, objects: usize, times: usize) -> Result<Vec<Figure>> {
    let kubectl = std::env::var_os("E2E_KUBECTL").context("E2E_KUBECTL is not set")?;
    let (ours, theirs) = (cluster.provisioning.as_path(), Path::new(&kubectl));
    let list = |program, arguments: &[&str]| timed(program, arguments, Some(&cluster.kubeconfig));

    let version = in_turns(times, || timed(ours, &["--version"], None), || timed(Path::new("/bin/true"), &[], None))?;
    let words = format!("{:.1} × /bin/true, which takes {:.2} ms", version.0 / version.1, version.1);
    let version = Figure::at_most("provisioning --version, median", version.0, VERSION, "ms").with(words);

    let get = ["get", KINDS, "--all-namespaces"];
    // kubectl discovers once and keeps what it found.
    list(theirs, &get)?;
    let listed = in_turns(times, || list(ours, &["list", "--all-namespaces"]), || list(theirs, &get))?;
    let words = format!("medians {:.0} ms and {:.0} ms, in turns", listed.0, listed.1);
    let name = format!("provisioning list of {objects} objects ÷ kubectl get");
    let listed = Figure::at_most(name, listed.0 / listed.1, RATIO, "").with(words);
    Ok(vec![version, listed])
}

/// Medians of two commands that run in turns.
fn in_turns(
    times: usize,
    mut one: impl FnMut() -> Result<f64>,
    mut other: impl FnMut() -> Result<f64>,
) -> Result<(f64, f64)> {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..times {
        ones.push(one()?);
        others.push(other()?);
    }
    Ok((median(&ones).context("no time")?, median(&others).context("no time")?))
}

/// Milliseconds from a program's start to its end, its output thrown away.
fn timed(program: &Path, arguments: &[&str], kubeconfig: Option<&Path>) -> Result<f64> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    let began = Instant::now();
    let status = command.status().with_context(|| format!("{}", program.display()))?;
    let milliseconds = began.elapsed().as_secs_f64() * 1_000.0;
    ensure!(status.success(), "{} {}: {status}", program.display(), arguments.join(" "));
    Ok(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_commands_run_in_turns_and_one_that_fails_is_no_time() {
        let order = std::cell::RefCell::new(String::new());
        let say = |name: char, time: f64| {
            order.borrow_mut().push(name);
            Ok(time)
        };
        assert_eq!(in_turns(3, || say('a', 1.0), || say('b', 2.0)).unwrap(), (1.0, 2.0));
        assert_eq!(order.borrow().as_str(), "ababab");
        assert!(timed(Path::new("/bin/false"), &[], None).is_err());
        assert!(timed(Path::new("/bin/true"), &[], None).unwrap() > 0.0);
    }
}
