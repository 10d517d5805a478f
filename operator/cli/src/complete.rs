//! Completion in shells: commands and flags from the command line's own definition, names from the cluster.
//!
//! The script of `completion SHELL` calls this program at each request, with [`VARIABLE`] set. Whatever goes wrong then, a
//! cluster that is away included, is an answer without candidates: nothing is printed, the exit code is 0, and it takes
//! [`DEADLINE`] at most.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use clap::builder::StyledStr;
use clap::{Arg, Command};
use clap_complete::Shell;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
use kube::api::ListParams;
use provisioning_api::batch_workflow::WorkflowStep;

use crate::builtin;
use crate::cluster::{Cluster, ClusterArguments, Found};
use crate::item::Typed;
use crate::kinds::{Kind, Target};
use crate::output::NAME;
use crate::request::{Scope, api, get};

/// Set by the scripts, to the shell's name.
pub(crate) const VARIABLE: &str = "_PROVISIONING_COMPLETE";
/// How kubectl calls a program that completes the plugin's words.
const FOR_KUBECTL: &str = "kubectl_complete-provisioning";
/// Who waits at a prompt does not wait long.
const DEADLINE: Duration = Duration::from_millis(1500);
/// Most names that are asked for.
const MAX_NAMES: u32 = 500;
/// What cobra, the library of kubectl's command line, reads as: these are all, no file names.
const NO_FILES: &str = ":4";

/// Answers a shell, if one asks; then the program has nothing else to do.
pub(crate) fn answer(command: fn() -> Command) -> bool {
    if std::env::args_os().next().is_some_and(|own| is_for_kubectl(&own)) {
        for_kubectl(command());
        return true;
    }
    if std::env::var_os(VARIABLE).is_none_or(|shell| shell.is_empty()) {
        return false;
    }
    let folder = std::env::current_dir().ok();
    // An error here is one of the script, or of a reader that has gone: nobody could do anything about it at a prompt.
    let _ = CompleteEnv::with_factory(command).var(VARIABLE).try_complete(std::env::args_os(), folder.as_deref());
    true
}

/// The script that a shell reads.
pub(crate) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    // Found by its path where it was called by one, as in `target/bin/provisioning`.
    let own = std::env::args_os().next().unwrap_or_default();
    let path = std::path::Path::new(&own).components().count() > 1;
    let completer = path.then(|| std::env::current_exe().ok()).flatten();
    let completer = completer.map_or_else(|| NAME.to_owned(), |file| file.display().to_string());
    if let Some(writer) = Shells::builtins().completer(&shell.to_string()) {
        // Writing into memory does not fail.
        let _ = writer.write_registration(VARIABLE, NAME, NAME, &completer, &mut script);
    }
    String::from_utf8_lossy(&script).into_owned()
}

fn is_for_kubectl(own: &OsStr) -> bool {
    std::path::Path::new(own).file_stem().is_some_and(|name| name == FOR_KUBECTL)
}

/// kubectl gives the words behind the plugin's name, the last of which is to be completed.
fn for_kubectl(mut command: Command) {
    let words: Vec<OsString> = std::iter::once(OsString::from(NAME)).chain(std::env::args_os().skip(1)).collect();
    let last = words.len().saturating_sub(1);
    let found = clap_complete::engine::complete(&mut command, words, last, None).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(cobra(&found).as_bytes());
}

/// Candidates as cobra reads them: value and help, then what to do with them.
fn cobra(found: &[CompletionCandidate]) -> String {
    let line = |candidate: &CompletionCandidate| {
        let help = candidate.get_help().map(StyledStr::to_string).unwrap_or_default();
        let value = candidate.get_value().to_string_lossy();
        match help.lines().next() {
            Some(help) => format!("{value}\t{help}\n"),
            None => format!("{value}\n"),
        }
    };
    format!("{}{NO_FILES}\n", found.iter().map(line).collect::<String>())
}

/// What stands before the word to be completed.
#[derive(Clone, Debug, Default)]
struct Line {
    cluster: ClusterArguments,
    /// The command and the group it is in, such as `server` and `show`.
    path: Vec<String>,
    /// Words that are neither flags nor their values.
    words: Vec<String>,
}

impl Line {
    /// The line that this process was asked about.
    fn asked() -> Self {
        let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        let begin = words.iter().position(|word| word == "--").map_or(0, |at| at + 1);
        let words: Vec<String> = words.into_iter().skip(begin + 1).collect();
        let index = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse::<usize>().ok());
        // The index counts the program's own name too; without one the last word is the one.
        let before = index.unwrap_or(words.len()).saturating_sub(1);
        Self::read(&crate::command(), words.get(..before).unwrap_or(&words))
    }

    fn read(root: &Command, words: &[String]) -> Self {
        let (mut line, mut command, mut words) = (Self::default(), root, words.iter());
        while let Some(word) = words.next() {
            if let Some(flag) = word.strip_prefix("--") {
                let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
                let by_name = |arg: &&Arg| arg.get_long() == Some(name);
                let Some(arg) = flags(root, command).find(by_name) else { continue };
                let value = value.or_else(|| takes_value(arg).then(|| words.next().map(String::as_str)).flatten());
                line.note(arg, value);
            } else if let Some(flags_of) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
                let mut letters = flags_of.chars();
                let by_letter = |arg: &&Arg| arg.get_short() == letters.clone().next();
                let Some(arg) = flags(root, command).find(by_letter) else { continue };
                letters.next();
                let rest = Some(letters.as_str().trim_start_matches('=')).filter(|rest| !rest.is_empty());
                let value = if takes_value(arg) { rest.or_else(|| words.next().map(String::as_str)) } else { None };
                line.note(arg, value);
            } else if let Some(next) = command.find_subcommand(word).filter(|_| line.words.is_empty()) {
                line.path.push(next.get_name().to_owned());
                command = next;
            } else {
                line.words.push(word.clone());
            }
        }
        line
    }

    fn note(&mut self, arg: &Arg, value: Option<&str>) {
        match (arg.get_id().as_str(), value) {
            ("namespace", Some(value)) => self.cluster.namespace = Some(value.to_owned()),
            ("context", Some(value)) => self.cluster.context = Some(value.to_owned()),
            ("kubeconfig", Some(value)) => self.cluster.kubeconfig = Some(value.into()),
            _ => {}
        }
    }

    /// The object that the words name so far.
    fn target(&self) -> Option<Target> {
        let first = self.words.first()?;
        match first.split_once('/') {
            Some((kind, name)) => Target::named(kind.parse().ok()?, name).ok(),
            None => Target::named(first.parse().ok()?, self.words.get(1)?).ok(),
        }
    }
}

fn flags<'a>(root: &'a Command, command: &'a Command) -> impl Iterator<Item = &'a Arg> {
    // Those of the root are global, and not in the commands before these are built.
    command.get_arguments().chain(root.get_arguments())
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

/// Candidates that begin with what is there.
fn beginning(current: &OsStr, names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names.into_iter().filter(|name| name.starts_with(current.as_ref())).map(CompletionCandidate::new).collect()
}

/// For names that are new.
pub(crate) fn nothing(_: &OsStr) -> Vec<CompletionCandidate> {
    Vec::new()
}

/// Kinds, also behind a comma.
pub(crate) fn kinds(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let (before, last) = current.rsplit_once(',').map_or(("", current.as_ref()), |(before, last)| (before, last));
    let before = if before.is_empty() { String::new() } else { format!("{before},") };
    let known = Kind::ALL.into_iter().map(|kind| kind.singular().to_owned()).filter(|kind| kind.starts_with(last));
    known.map(|kind| CompletionCandidate::new(format!("{before}{kind}"))).collect()
}

/// `KIND NAME…` or `KIND/NAME…`.
pub(crate) fn objects(current: &OsStr) -> Vec<CompletionCandidate> {
    let line = Line::asked();
    let text = current.to_string_lossy();
    if let Some((kind, _)) = text.split_once('/') {
        let Ok(parsed) = kind.parse::<Kind>() else { return Vec::new() };
        let names = names(&line.cluster, parsed);
        return beginning(current, names.into_iter().map(|name| format!("{kind}/{name}")));
    }
    match line.words.first().map(|first| first.parse::<Kind>()) {
        None => kinds(current),
        Some(Ok(kind)) => beginning(current, names(&line.cluster, kind)),
        Some(Err(_)) => Vec::new(),
    }
}

/// Names of the kind that the command is about.
pub(crate) fn of_kind(kind: Kind) -> impl Fn(&OsStr) -> Vec<CompletionCandidate> + Clone {
    move |current: &OsStr| beginning(current, names(&Line::asked().cluster, kind))
}

/// Servers, also behind a comma.
pub(crate) fn servers(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let (before, last) = current
        .rsplit_once(',')
        .map_or((String::new(), current.as_ref()), |(before, last)| (format!("{before},"), last));
    let names = names(&Line::asked().cluster, Kind::Server);
    let known = names.into_iter().filter(|name| name.starts_with(last));
    known.map(|name| CompletionCandidate::new(format!("{before}{name}"))).collect()
}

/// Extensions of this program; asks nobody.
pub(crate) fn extensions(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning(current, builtin::bundles().iter().map(|bundle| bundle.manifest().name.clone()))
}

/// Namespaces that are workspaces.
pub(crate) fn namespaces(current: &OsStr) -> Vec<CompletionCandidate> {
    let cluster = Line::asked().cluster;
    let cluster = ClusterArguments { namespace: None, ..cluster };
    let found = asking(cluster, |cluster| async move {
        let found = api(&cluster, Kind::Workspace, &Scope::All).list_metadata(&limited()).await.ok()?;
        Some(found.items.into_iter().filter_map(|item| item.metadata.namespace).collect())
    });
    beginning(current, found)
}

/// Contexts of the kubeconfig; asks nobody.
pub(crate) fn contexts(current: &OsStr) -> Vec<CompletionCandidate> {
    let cluster = ClusterArguments { context: None, ..Line::asked().cluster };
    let contexts = Found::find(&cluster).map(|found| found.kubeconfig.contexts).unwrap_or_default();
    beginning(current, contexts.into_iter().map(|context| context.name))
}

/// Steps of the object that stands before, for `logs … --step`.
pub(crate) fn steps(current: &OsStr) -> Vec<CompletionCandidate> {
    let line = Line::asked();
    let Some(target) = line.target() else { return Vec::new() };
    beginning(current, steps_of(line.cluster, target))
}

/// The workflow first, then its steps, for `skip`.
pub(crate) fn workflow_and_steps(current: &OsStr) -> Vec<CompletionCandidate> {
    let line = Line::asked();
    match line.words.first() {
        None => beginning(current, names(&line.cluster, Kind::BatchWorkflow)),
        Some(name) => {
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            beginning(current, steps_of(line.cluster, Target { kind: Kind::BatchWorkflow, name }))
        }
    }
}

/// Steps as they are planned, or, before that, as they are wanted.
fn steps_of(cluster: ClusterArguments, target: Target) -> Vec<String> {
    asking(cluster, |cluster| async move {
        let item = get(&cluster, &target).await.ok()?;
        let planned: Vec<String> = item.steps().iter().map(|step| step.id.clone()).collect();
        let name = |step: &WorkflowStep| step.name.clone();
        Some(match &item.typed {
            Ok(Typed::BatchWorkflow(workflow)) if planned.is_empty() => workflow.spec.steps.iter().map(name).collect(),
            _ => planned,
        })
    })
}

fn limited() -> ListParams {
    ListParams::default().limit(MAX_NAMES)
}

/// Names of the objects of a kind in the line's namespace.
fn names(cluster: &ClusterArguments, kind: Kind) -> Vec<String> {
    asking(cluster.clone(), move |cluster| async move {
        let scope = Scope::Namespace(cluster.namespace.clone());
        let found = api(&cluster, kind, &scope).list_metadata(&limited()).await.ok()?;
        Some(found.items.into_iter().filter_map(|item| item.metadata.name).collect())
    })
}

/// Asks the cluster, on a thread of its own: what does not come in time is not waited for, wherever it hangs (a program
/// that fetches credentials, for example).
fn asking<F, Answer>(arguments: ClusterArguments, ask: F) -> Vec<String>
where
    F: FnOnce(Cluster) -> Answer + Send + 'static,
    Answer: Future<Output = Option<Vec<String>>>,
{
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok();
        let answer = runtime.and_then(|runtime| {
            runtime.block_on(async {
                let cluster = Cluster::find(&arguments).await.ok()?;
                ask(cluster).await
            })
        });
        // Nobody listens any more after the deadline.
        let _ = tell.send(answer);
    });
    told.recv_timeout(DEADLINE).ok().flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line::read(&crate::command(), &text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn values(found: &[CompletionCandidate]) -> Vec<String> {
        found.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn flags_and_their_values_are_told_from_words() {
        let read = line("-n first show --context=marsh srv -o json heron --kubeconfig /tmp/k");
        assert_eq!(read.cluster.namespace.as_deref(), Some("first"));
        assert_eq!(read.cluster.context.as_deref(), Some("marsh"));
        assert_eq!(read.cluster.kubeconfig, Some("/tmp/k".into()));
        assert_eq!(
            (read.path.as_slice(), read.words.as_slice()),
            (&["show".into()][..], &["srv".into(), "heron".into()][..])
        );
        assert_eq!(read.target().unwrap().to_string(), "server/heron");
    }

    #[test]
    fn a_flag_without_a_value_takes_no_word() {
        let read = line("delete --wait server -nfirst heron");
        assert_eq!(read.words, ["server", "heron"]);
        assert_eq!(read.cluster.namespace.as_deref(), Some("first"));
        // A dry run is written with an equal sign, so the next word is not its value.
        assert_eq!(line("apply --dry-run x").words, ["x"]);
    }

    #[test]
    fn groups_of_commands_are_followed_by_any_of_their_names() {
        let read = line("srv describe heron");
        assert_eq!((read.path, read.words), (vec!["server".to_owned(), "show".to_owned()], vec!["heron".to_owned()]));
        assert_eq!(line("logs tsv/redis --step").target().unwrap().to_string(), "taskserv/redis");
        assert!(line("logs tsv").target().is_none());
    }

    #[test]
    fn kinds_come_also_behind_a_comma() {
        assert_eq!(values(&kinds(OsStr::new("ser"))), ["server"]);
        assert_eq!(values(&kinds(OsStr::new("server,task"))), ["server,taskserv"]);
    }

    #[test]
    fn kubectl_gets_words_and_a_line_that_says_they_are_all() {
        let found =
            [CompletionCandidate::new("heron"), CompletionCandidate::new("list").help(Some("List objects".into()))];
        assert_eq!(cobra(&found), "heron\nlist\tList objects\n:4\n");
        assert!(is_for_kubectl(OsStr::new("/usr/bin/kubectl_complete-provisioning")));
        assert!(!is_for_kubectl(OsStr::new("provisioning")));
    }

    #[test]
    fn no_cluster_is_no_candidate() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = ClusterArguments { kubeconfig: Some(folder.path().join("none")), ..ClusterArguments::default() };
        assert_eq!(names(&cluster, Kind::Server), [""; 0]);
    }
}
