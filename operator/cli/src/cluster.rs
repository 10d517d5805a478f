//! Which cluster: where its kubeconfig is looked for, and what was found there.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use provisioning_platform::{Instance, InstanceName, Phase};
use tower::timeout::TimeoutLayer;

use crate::complete;
use crate::names;
use crate::output::program;

/// How long to wait for a connection; a healthy cluster takes milliseconds, a distant one a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait until an answer begins: an API server gives a request up by itself after a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(75);

/// Flags of all commands that talk to a cluster.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArguments {
    /// Namespace; a namespace is a workspace. Default: that of the context
    #[arg(short, long, global = true, value_parser = names::argument, add = ArgValueCompleter::new(complete::namespaces))]
    pub(crate) namespace: Option<String>,
    /// Context of the kubeconfig. Default: its current one
    #[arg(long, global = true, add = ArgValueCompleter::new(complete::contexts))]
    pub(crate) context: Option<String>,
    /// Kubeconfig file. Default: $KUBECONFIG, ~/.kube/config, then that of the platform if it runs
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// No cluster can be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// None is configured, or none answers.
    #[error("no reachable cluster; tried:\n{0}run one on this machine: {program} platform start", program = program())]
    NoCluster(Tried),
    /// A kubeconfig is there and can't be used.
    #[error("failed to use the kubeconfig {file}: {text}")]
    Kubeconfig { file: String, text: String },
}

/// What was tried, and what came of it, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tried(Vec<(String, String)>);

impl Tried {
    fn add(&mut self, what: impl Into<String>, answer: impl Into<String>) {
        self.0.push((what.into(), answer.into()));
    }

    /// The same with the answer of the server that was chosen.
    pub(crate) fn answered(mut self, what: &str, answer: String) -> Self {
        self.add(what, answer);
        self
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, answer)| writeln!(formatter, "  {what}: {answer}"))
    }
}

/// A cluster that is configured; whether it answers shows with the first request.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// Address of the API server and the kubeconfig that names it.
    pub(crate) server: String,
    pub(crate) tried: Tried,
}

/// A kubeconfig that was chosen, before anything in it is used.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where it comes from, for people.
    pub(crate) source: String,
    /// The files that it was read from, the first of which counts where two say something.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) kubeconfig: Kubeconfig,
    /// What was looked at before it.
    pub(crate) tried: Tried,
}

impl Found {
    /// Looks for a kubeconfig, and for the context that was asked for in it.
    pub(crate) fn find(arguments: &ClusterArguments) -> Result<Self, ClusterError> {
        let mut tried = Tried::default();
        let Some((source, files, kubeconfig)) = Sources::of(arguments).choose(&mut tried)? else {
            return Err(ClusterError::NoCluster(tried));
        };
        let contexts: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        if let Some(context) = arguments.context.as_deref().filter(|context| !contexts.contains(context)) {
            let near = provisioning_plan::nearest::hint(context, contexts.iter().copied());
            let text = format!("it has no context '{context}'{near}; it has: {}", contexts.join(", "));
            return Err(ClusterError::Kubeconfig { file: source, text });
        }
        Ok(Self { source, files, kubeconfig, tried })
    }

    /// The context that is used: the one that was asked for, else the current one.
    pub(crate) fn context(&self, arguments: &ClusterArguments) -> Option<String> {
        arguments.context.clone().or_else(|| self.kubeconfig.current_context.clone())
    }
}

impl Cluster {
    /// Finds the kubeconfig. Sends nothing.
    pub(crate) async fn find(arguments: &ClusterArguments) -> Result<Self, ClusterError> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let Found { source: file, files: _, kubeconfig, tried } = Found::find(arguments)?;
        let wrong = |text: String| ClusterError::Kubeconfig { file: file.clone(), text };
        let options = KubeConfigOptions { context: arguments.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let mut config = config.map_err(|error| wrong(causes(&error)))?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let namespace = arguments.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        names::check(&namespace).map_err(|error| wrong(format!("namespace of the context: {error}")))?;
        let server = format!("{} ({file})", config.cluster_url.to_string().trim_end_matches('/'));
        let client = client(config, ANSWER_TIMEOUT).map_err(|error| wrong(causes(&error)))?;
        Ok(Self { client, namespace, server, tried })
    }
}

/// A client to which an answer begins in this time, that of a watch and of a log too: these then last as long as they like.
fn client(config: Config, within: Duration) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(within)).build())
}

/// Where a kubeconfig may be, as read from the environment.
struct Sources {
    flag: Option<PathBuf>,
    variable: Option<OsString>,
    home: Option<PathBuf>,
    platform: Option<Instance>,
}

impl Sources {
    fn of(arguments: &ClusterArguments) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let instance = std::env::var("PROVISIONING_INSTANCE").ok().and_then(|name| name.parse().ok());
        Self {
            flag: arguments.kubeconfig.clone(),
            variable: variable("KUBECONFIG"),
            home: variable("HOME").map(|home| Path::new(&home).join(".kube/config")),
            platform: Instance::of_user(instance.unwrap_or_default()).ok(),
        }
    }

    /// The first that is there, with its name and files. A file that someone asked for and that can't be read is an error.
    fn choose(self, tried: &mut Tried) -> Result<Option<(String, Vec<PathBuf>, Kubeconfig)>, ClusterError> {
        let read = |name: String, file: &Path| {
            let found = Kubeconfig::read_from(file);
            found
                .map_err(|error| ClusterError::Kubeconfig { file: name.clone(), text: causes(&error) })
                .map(|it| (name, vec![file.to_owned()], it))
        };
        if let Some(file) = &self.flag {
            return read(file.display().to_string(), file).map(Some);
        }
        tried.add("--kubeconfig", "not given");
        if let Some(value) = &self.variable {
            let name = format!("KUBECONFIG={}", value.display());
            let found = Kubeconfig::from_env();
            let found = found.map_err(|error| ClusterError::Kubeconfig { file: name.clone(), text: causes(&error) })?;
            if let Some(kubeconfig) = found {
                let files = std::env::split_paths(value).filter(|file| !file.as_os_str().is_empty()).collect();
                return Ok(Some((name, files, kubeconfig)));
            }
            tried.add(name, "no such file");
        } else {
            tried.add("KUBECONFIG", "not set");
        }
        match &self.home {
            Some(file) if file.exists() => return read(file.display().to_string(), file).map(Some),
            Some(file) => tried.add(file.display().to_string(), "no such file"),
            None => tried.add("~/.kube/config", "HOME is not set"),
        }
        let Some(instance) = self.platform else { return Ok(None) };
        let name = format!("platform instance '{}'", instance.name());
        match provisioning_platform::status(&instance) {
            Ok(status) if matches!(status.phase, Phase::Running | Phase::Degraded | Phase::Orphaned) => {
                read(name, &instance.kubeconfig()).map(Some)
            }
            Ok(status) => {
                tried.add(name, format!("{:?}{}", status.phase, others(&instance)));
                Ok(None)
            }
            Err(error) => {
                tried.add(name, causes(&error));
                Ok(None)
            }
        }
    }
}

/// The user's other instances and how to have one of them used; empty where there is none.
fn others(instance: &Instance) -> String {
    let names = instance.neighbours();
    let names: Vec<&str> = names.iter().filter(|name| *name != instance.name()).map(InstanceName::as_str).collect();
    match names.as_slice() {
        [] => String::new(),
        [first, ..] => format!("; there are others: {}; to use one: PROVISIONING_INSTANCE={first}", names.join(", ")),
    }
}

/// An error and its causes in one line, none twice.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use provisioning_platform::InstanceName;

    use super::*;

    #[tokio::test]
    async fn one_that_takes_the_connection_and_says_nothing_is_not_waited_for() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let client = client(Config::new(url.parse().unwrap()), Duration::from_millis(200)).unwrap();
        let error = client.apiserver_version().await.unwrap_err();
        assert!(causes(&error).contains("timed out"), "{error:?}");
    }

    fn sources(folder: &Path) -> Sources {
        Sources {
            flag: None,
            variable: None,
            home: Some(folder.join("none")),
            platform: Instance::below(folder, InstanceName::default()).ok(),
        }
    }

    #[test]
    fn without_any_kubeconfig_all_that_was_tried_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let mut tried = Tried::default();
        assert!(sources(folder.path()).choose(&mut tried).unwrap().is_none());
        let error = ClusterError::NoCluster(tried).to_string();
        let expected = format!(
            "no reachable cluster; tried:\n  --kubeconfig: not given\n  KUBECONFIG: not set\n  {}: no such file\n  \
             platform instance 'default': Absent\nrun one on this machine: provisioning platform start",
            folder.path().join("none").display()
        );
        assert_eq!(error, expected);

        std::fs::create_dir(folder.path().join("marsh")).unwrap();
        let mut tried = Tried::default();
        assert!(sources(folder.path()).choose(&mut tried).unwrap().is_none());
        let hint = "Absent; there are others: marsh; to use one: PROVISIONING_INSTANCE=marsh";
        assert!(tried.to_string().ends_with(&format!("platform instance 'default': {hint}\n")), "{tried}");
    }

    #[test]
    fn a_file_that_was_asked_for_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let flag = Some(folder.path().join("gone"));
        let error = Sources { flag, ..sources(folder.path()) }.choose(&mut Tried::default()).unwrap_err();
        assert!(matches!(error, ClusterError::Kubeconfig { .. }), "{error}");
    }

    #[test]
    fn the_home_comes_before_the_platform() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, "clusters: []\ncontexts: []\nusers: []\n").unwrap();
        let home = Some(file.clone());
        let (name, files, _) =
            Sources { home, ..sources(folder.path()) }.choose(&mut Tried::default()).unwrap().unwrap();
        assert_eq!(name, file.display().to_string());
        assert_eq!(files, [file]);
    }
}
