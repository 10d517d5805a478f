//! The groups of commands, their aliases, and how both are shown. Tested: every command is in one group, and the page of the
//! documentation says what is here.

use clap::Command;

use crate::output;

/// A group: a heading of the help, and its commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) commands: &'static [Entry],
}

/// A command and the other names that it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
}

const fn entry(name: &'static str, aliases: &'static [&'static str]) -> Entry {
    Entry { name, aliases }
}

/// All groups. What is not here is not in the help.
pub(crate) const GROUPS: [Group; 7] = [
    Group {
        title: "Infrastructure",
        commands: &[
            entry("server", &["srv", "servers"]),
            entry("taskserv", &["tsv", "taskservs"]),
            entry("cluster", &["clu", "clusters"]),
            entry("apply", &[]),
            entry("list", &["ls"]),
            entry("show", &["describe"]),
            entry("delete", &["rm"]),
            entry("platform", &[]),
        ],
    },
    Group {
        title: "Orchestration",
        commands: &[
            entry("batch", &["bwf", "batchworkflow", "batchworkflows"]),
            entry("tree", &[]),
            entry("watch", &[]),
            entry("wait", &[]),
            entry("logs", &["log"]),
            entry("why", &[]),
            entry("retry", &[]),
            entry("skip", &[]),
            entry("suspend", &[]),
            entry("resume", &[]),
        ],
    },
    Group { title: "Development", commands: &[entry("extension", &["ext", "extensions"])] },
    Group { title: "Workspace", commands: &[entry("workspace", &["ws", "workspaces"])] },
    Group { title: "Generation", commands: &[entry("generate", &["gen"]), entry("diff", &[])] },
    Group { title: "Utilities", commands: &[entry("completion", &[]), entry("exit-codes", &[]), entry("help", &[])] },
    Group { title: "Configuration", commands: &[entry("config", &[])] },
];

/// Names that verbs have in every group of commands.
pub(crate) const VERBS: [Entry; 3] = [entry("list", &["ls"]), entry("show", &["describe"]), entry("delete", &["rm"])];

/// Gives the commands their aliases, and the help its groups.
pub(crate) fn arrange(command: Command) -> Command {
    let named = command.mut_subcommands(|sub| {
        let own = entries().find(|entry| entry.name == sub.get_name());
        let sub = own.map_or_else(|| sub.clone(), |entry| sub.clone().visible_aliases(entry.aliases));
        sub.mut_subcommands(|verb| match VERBS.iter().find(|entry| entry.name == verb.get_name()) {
            Some(entry) => verb.visible_aliases(entry.aliases),
            None => verb,
        })
    });
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}\nOptions:\n{{options}}{{after-help}}",
        listed(&named)
    );
    named.help_template(template)
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    GROUPS.iter().flat_map(|group| group.commands)
}

/// What a command does, in its own words.
fn about(command: &Command, name: &str) -> String {
    match command.find_subcommand(name).and_then(Command::get_about) {
        Some(about) => about.to_string(),
        // clap adds this one.
        None => "Explain a command; the same as COMMAND help, or COMMAND --help".to_owned(),
    }
}

/// The groups with their commands, for the help.
fn listed(command: &Command) -> String {
    let width = entries().map(|entry| entry.name.len()).max().unwrap_or(0);
    let line = |entry: &Entry| {
        let aliases = if entry.aliases.is_empty() { String::new() } else { format!(" [{}]", entry.aliases.join(", ")) };
        format!("  {:width$}  {}{aliases}\n", entry.name, about(command, entry.name))
    };
    let group = |group: &Group| format!("{}:\n{}\n", group.title, group.commands.iter().map(line).collect::<String>());
    GROUPS.iter().map(group).collect::<String>().trim_end().to_owned() + "\n"
}

/// The examples of all commands, as the program was called.
pub(crate) fn called(command: Command, program: &str) -> Command {
    if program == output::NAME {
        return command;
    }
    let help = command.get_after_help().map(ToString::to_string);
    let command = match help {
        Some(help) => command.after_help(help.replace("provisioning ", &format!("{program} "))),
        None => command,
    };
    command.mut_subcommands(|sub| called(sub, program))
}

/// `help x` and `x help` become `x --help`, so that the three can't differ. `help` behind a command that takes names is
/// asked for only where it is the first and last word there: `show server help` shows a server.
pub(crate) fn with_help(root: &Command, mut words: Vec<String>) -> Vec<String> {
    let mut at = 1;
    // Flags of the root may come first.
    while let Some(word) = words.get(at).filter(|word| word.starts_with('-') && *word != "--") {
        let name = word.trim_start_matches('-');
        let takes = |arg: &clap::Arg| {
            let is_it = arg.get_long() == Some(name) || (name.len() == 1 && arg.get_short() == name.chars().next());
            is_it && arg.get_action().takes_values()
        };
        at += if root.get_arguments().any(takes) { 2 } else { 1 };
    }
    let is_help = |word: Option<&String>| word.is_some_and(|word| word == "help");
    if is_help(words.get(at)) {
        // `help help` too is the help.
        while is_help(words.get(at)) {
            words.remove(at);
        }
        words.push("--help".to_owned());
        return words;
    }
    let mut command = root;
    while let Some(next) = words.get(at).and_then(|word| command.find_subcommand(word)) {
        command = next;
        at += 1;
    }
    let is_last = at + 1 == words.len();
    if is_last && !std::ptr::eq(command, root) && is_help(words.get(at)) {
        words.pop();
        words.push("--help".to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::exit;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// What a line is answered with, where that is no command to run.
    fn help_of(line: &str) -> String {
        let command = crate::command();
        let words = with_help(&command, words(&format!("provisioning {line}")));
        command.try_get_matches_from(words).unwrap_err().to_string()
    }

    #[test]
    fn every_command_is_in_one_group() {
        let mut command = crate::command();
        command.build();
        let known: BTreeSet<&str> =
            command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(Command::get_name).collect();
        let listed: Vec<&str> = entries().map(|entry| entry.name).collect();
        assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), known);
        assert_eq!(listed.len(), known.len(), "a command is in two groups");
    }

    /// Aliases that people may rely on, as they are written.
    const ALIASES: [(&str, &str); 20] = [
        ("srv list", "server list"),
        ("servers ls", "server list"),
        ("tsv show x", "taskserv show x"),
        ("taskservs describe x", "taskserv show x"),
        ("clu list", "cluster list"),
        ("clusters show x", "cluster show x"),
        ("bwf delete x", "batch delete x"),
        ("batchworkflow rm x", "batch delete x"),
        ("batchworkflows list", "batch list"),
        ("ls srv", "list srv"),
        ("describe srv x", "show srv x"),
        ("rm srv x", "delete srv x"),
        ("log srv x", "logs srv x"),
        ("ws list", "workspace list"),
        ("workspaces ls", "workspace list"),
        ("ext ls", "extension list"),
        ("extensions describe redis", "extension show redis"),
        ("gen server x", "generate server x"),
        ("gen batch x --server y", "generate batch x --server y"),
        ("gen workspace x", "generate workspace x"),
    ];

    #[test]
    fn an_alias_is_the_command_itself() {
        for (alias, line) in ALIASES {
            let path = |line: &str| {
                let matches = crate::command().try_get_matches_from(words(&format!("provisioning {line}"))).unwrap();
                let (name, inner) = matches.subcommand().map(|(name, inner)| (name.to_owned(), inner.clone())).unwrap();
                (name, inner.subcommand_name().map(str::to_owned))
            };
            assert_eq!(path(alias), path(line), "{alias}");
        }
        // All that there are are in the table.
        let tested = |alias: &str| ALIASES.iter().any(|(line, _)| words(line).iter().any(|word| word == alias));
        let missing: Vec<&&str> =
            entries().chain(&VERBS).flat_map(|entry| entry.aliases).filter(|alias| !tested(alias)).collect();
        assert!(missing.is_empty(), "no test names {missing:?}");
    }

    #[test]
    fn help_can_be_asked_for_before_and_behind() {
        for path in
            ["list", "server", "server create", "workspace use", "extension new", "generate server", "platform start"]
        {
            let asked = help_of(&format!("{path} --help"));
            assert!(asked.contains("Usage: provisioning "), "{asked}");
            assert_eq!(help_of(&format!("help {path}")), asked, "{path}");
            assert_eq!(help_of(&format!("{path} help")), asked, "{path}");
            assert_eq!(help_of(&format!("-n first --context=marsh {path} help")), asked, "{path}");
        }
        assert_eq!(help_of("help"), help_of("--help"));
        assert_eq!(help_of("help help"), help_of("--help"));
        assert!(help_of("help lst").contains("unrecognized subcommand 'lst'"), "{}", help_of("help lst"));
    }

    #[test]
    fn an_object_called_help_is_an_object() {
        let command = crate::command();
        for line in
            ["provisioning show server help", "provisioning server show help x", "provisioning -n help list srv"]
        {
            assert_eq!(with_help(&command, words(line)), words(line));
        }
    }

    #[test]
    fn the_help_has_seven_groups() {
        let text = help_of("--help");
        for group in GROUPS {
            assert!(text.contains(&format!("\n{}:\n", group.title)), "{text}");
        }
        assert!(text.contains("  server      Create, list, show and delete Servers [srv, servers]\n"), "{text}");
        assert!(text.contains("\nExit codes: 0 done, 1 failed, 2 wrong usage"), "{text}");
    }

    #[test]
    fn as_a_plugin_of_kubectl_all_examples_say_so() {
        let command = called(crate::command(), "kubectl provisioning").bin_name("kubectl provisioning");
        let help = command.try_get_matches_from(["kubectl-provisioning", "server", "create", "--help"]).unwrap_err();
        let text = help.to_string();
        assert!(text.contains("Usage: kubectl provisioning server create"), "{text}");
        assert!(text.contains("\n  kubectl provisioning server create heron"), "{text}");
        assert!(!text.replace("kubectl provisioning", "").contains("provisioning server"), "{text}");
    }

    /// The table of the documentation.
    fn page() -> String {
        let command = crate::command();
        let mut text = "| group | command | also | what it does |\n|---|---|---|---|\n".to_owned();
        for group in GROUPS {
            for entry in group.commands {
                let sub = command.find_subcommand(entry.name);
                let verbs: Vec<&str> = sub.map(visible).unwrap_or_default();
                let verbs = if verbs.is_empty() { String::new() } else { format!(" {}", verbs.join("\\|")) };
                let aliases: Vec<String> = entry.aliases.iter().map(|alias| format!("`{alias}`")).collect();
                let (about, name) = (about(&command, entry.name), entry.name);
                text.push_str(&format!("| {} | `{name}{verbs}` | {} | {about} |\n", group.title, aliases.join(", ")));
            }
        }
        text
    }

    fn visible(command: &Command) -> Vec<&str> {
        command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(Command::get_name).collect()
    }

    #[test]
    fn the_documentation_has_all_commands_and_exit_codes() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        let text = std::fs::read_to_string(file).unwrap();
        let page = page();
        assert!(text.contains(&page), "the table of docs/cli.md is to be:\n{page}");
        let codes = exit::PAGE;
        assert!(text.contains(codes), "the exit codes of docs/cli.md are to be:\n{codes}");
    }
}
