//! `provisioning config`: what is read from where. Asks no cluster.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::show::pairs;
use crate::cluster::{ClusterArguments, Found};
use crate::error::Error;
use crate::exit::{self, Exit};
use crate::output::{Style, print};

/// The group's arguments.
#[derive(Debug, Args)]
#[command(after_help = format!("Example: provisioning config view\n\n{}", exit::HELP))]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show which cluster, context, user and namespace commands use, and what says so
    #[command(after_help = "Examples:\n  provisioning config view\n  provisioning config view --context marsh -o json")]
    View(View),
}

#[derive(Debug, Args)]
struct View {
    /// As a document
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As JSON
    Json,
    /// As YAML
    Yaml,
}

/// A setting, its value, and what it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    name: &'static str,
    value: String,
    from: String,
}

/// Shows the configuration.
pub(crate) fn run(arguments: &Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    let Command::View(View { output }) = &arguments.command;
    let found = Found::find(cluster)?;
    let settings = settings(cluster, &found, style);
    let document = || -> Value {
        let entry =
            |setting: &Setting| (setting.name.to_owned(), json!({"value": setting.value, "from": setting.from}));
        Value::Object(settings.iter().map(entry).collect::<Map<_, _>>())
    };
    print(&match output {
        Some(Format::Json) => format!("{}\n", serde_json::to_string_pretty(&document())?),
        Some(Format::Yaml) => serde_saphyr::to_string(&document())?,
        None => lines(&settings),
    });
    Ok(Exit::Done)
}

fn lines(settings: &[Setting]) -> String {
    let pair = |setting: &Setting| (setting.name.to_owned(), format!("{} ({})", setting.value, setting.from));
    pairs(&settings.iter().map(pair).collect()).render("", Style { colour: false, unicode: false })
}

fn settings(arguments: &ClusterArguments, found: &Found, style: Style) -> Vec<Setting> {
    let setting = |name, value: &str, from: &str| Setting { name, value: value.to_owned(), from: from.to_owned() };
    let files: Vec<String> = found.files.iter().map(|file| file.display().to_string()).collect();
    let source = if arguments.kubeconfig.is_some() { "--kubeconfig" } else { found.source.as_str() };
    let mut settings = vec![setting("kubeconfig", &files.join(", "), source)];
    let Some(name) = found.context(arguments) else {
        settings.push(setting("context", "none", "the kubeconfig has no current context"));
        return settings;
    };
    let from = if arguments.context.is_some() { "--context" } else { "current-context of the kubeconfig" };
    settings.push(setting("context", &name, from));
    let within = format!("context '{name}'");
    let context = found.kubeconfig.contexts.iter().find(|one| one.name == name).and_then(|one| one.context.as_ref());
    let cluster = context.map(|context| context.cluster.as_str()).unwrap_or_default();
    let server = found.kubeconfig.clusters.iter().find(|one| one.name == cluster);
    let server = server.and_then(|one| one.cluster.as_ref()?.server.as_deref()).unwrap_or("none");
    settings.push(setting("cluster", cluster, &within));
    settings.push(setting("server", server, &format!("cluster '{cluster}'")));
    let user = context.and_then(|context| context.user.as_deref()).unwrap_or("none");
    settings.push(setting("user", user, &within));
    settings.push(match (&arguments.namespace, context.and_then(|context| context.namespace.as_deref())) {
        (Some(asked), _) => setting("namespace", asked, "--namespace"),
        (None, Some(own)) => setting("namespace", own, &within),
        (None, None) => setting("namespace", "default", "no one says another; choose one: workspace use NAME"),
    });
    let (colour, from) = if style.colour {
        ("yes", "standard output is a terminal")
    } else {
        ("no", "--no-color, NO_COLOR, TERM=dumb, or standard output is no terminal")
    };
    settings.push(setting("colour", colour, from));
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Tried;

    fn found() -> Found {
        let text = "current-context: marsh
clusters: [{name: local, cluster: {server: 'https://127.0.0.1:9'}}]
contexts:
- {name: marsh, context: {cluster: local, user: admin, namespace: first}}
- {name: heath, context: {cluster: local, user: guest}}
users: []
";
        Found {
            source: "KUBECONFIG=/k".to_owned(),
            files: vec!["/k".into()],
            kubeconfig: serde_saphyr::from_str(text).unwrap(),
            tried: Tried::default(),
        }
    }

    #[test]
    fn each_setting_is_told_with_what_says_so() {
        let expected = "\
kubeconfig:   /k (KUBECONFIG=/k)
context:      marsh (current-context of the kubeconfig)
cluster:      local (context 'marsh')
server:       https://127.0.0.1:9 (cluster 'local')
user:         admin (context 'marsh')
namespace:    first (context 'marsh')
colour:       no (--no-color, NO_COLOR, TERM=dumb, or standard output is no terminal)
";
        assert_eq!(lines(&settings(&ClusterArguments::default(), &found(), Style::PLAIN)), expected);
    }

    #[test]
    fn flags_come_before_the_kubeconfig() {
        let arguments = ClusterArguments { context: Some("heath".into()), ..ClusterArguments::default() };
        let of = |arguments: &ClusterArguments, name: &str| {
            let settings = settings(arguments, &found(), Style::PLAIN);
            let one = settings.into_iter().find(|setting| setting.name == name).unwrap();
            format!("{} {}", one.value, one.from)
        };
        assert_eq!(of(&arguments, "context"), "heath --context");
        assert_eq!(of(&arguments, "user"), "guest context 'heath'");
        assert!(of(&arguments, "namespace").starts_with("default no one says another"));
        let arguments = ClusterArguments { namespace: Some("fen".into()), ..arguments };
        assert_eq!(of(&arguments, "namespace"), "fen --namespace");
    }
}
