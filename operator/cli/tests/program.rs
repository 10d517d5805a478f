//! The program itself, as a shell runs it: exit codes, names, completion; with an API server of a few lines, or none.

#![allow(clippy::unwrap_used)] // its helpers are tests too

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_provisioning");
const OURS: &str = "/apis/provisioning.dev/v1alpha1";

/// A folder of its own, and a program that finds no cluster but that of the folder.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A kubeconfig for a server.
    fn with_server(self, address: &str) -> Self {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: marsh\nclusters: [{{name: marsh, cluster: {{server: 'http://{address}'}}}}]\n\
             contexts:\n- {{name: marsh, context: {{cluster: marsh, user: ana, namespace: first}}}}\n\
             - {{name: heath, context: {{cluster: marsh, user: ana}}}}\nusers: [{{name: ana, user: {{}}}}]\n"
        );
        fs::write(self.path("kubeconfig"), text).unwrap();
        self
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env_clear().env("HOME", self.folder.path());
        command.env("PROVISIONING_INSTANCE", "none");
        if self.path("kubeconfig").exists() {
            command.env("KUBECONFIG", self.path("kubeconfig"));
        }
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(Path::new(PROGRAM)).args(line.split_whitespace()).output().unwrap()
    }

    /// What a shell is answered about the last word of a line.
    fn complete(&self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = self.command(Path::new(PROGRAM));
        command.env("_PROVISIONING_COMPLETE", "bash").env("_CLAP_IFS", "\n");
        let output = command
            .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
            .args(["--", "provisioning"])
            .args(words)
            .output()
            .unwrap();
        assert_eq!((code(&output), err(&output)), (0, String::new()), "{line}");
        out(&output).lines().map(str::to_owned).collect()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the threads of a server note.
type Shared<T> = Arc<Mutex<Vec<T>>>;

/// Objects by path; whatever is sent is noted.
type Objects = BTreeMap<&'static str, Value>;

/// What is answered about an object that may not be seen.
fn forbidden() -> Value {
    json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "ana may not", "details": {"name": "x"}})
}

/// An API server that knows these objects, on a port of its own until the tests end. Gives its address and its notes.
fn server(objects: Objects) -> (String, Shared<String>) {
    let (address, notes, _) = recording(objects);
    (address, notes)
}

/// The same, with the bodies of what was created.
fn recording(objects: Objects) -> (String, Shared<String>, Shared<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (notes, bodies) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (seen, read, objects) = (notes.clone(), bodies.clone(), Arc::new(objects));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (seen, read, objects) = (seen.clone(), read.clone(), objects.clone());
            std::thread::spawn(move || serve(stream, &objects, &seen, &read));
        }
    });
    (address, notes, bodies)
}

/// One request, then the connection ends. In a watch nothing happens.
fn serve(stream: TcpStream, objects: &Objects, seen: &Mutex<Vec<String>>, created: &Mutex<Vec<Value>>) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut words = first.split_whitespace();
    let (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = url.split('?').next().unwrap_or_default();
    seen.lock().unwrap().push(format!("{method} {path}"));
    if url.contains("watch=true") {
        // Until the other side hangs up.
        let _ = reader.read(&mut [0]);
        return;
    }
    if method == "POST" {
        created.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
    }
    let missing = json!({"kind": "Status", "code": 404, "reason": "NotFound", "details": {"name": "x"}});
    let (status, answer) = match (method, objects.get(path)) {
        ("POST", _) => ("201 Created", serde_json::from_slice(&body).unwrap()),
        ("PATCH", _) if url.contains("force=") => ("200 OK", serde_json::from_slice(&body).unwrap()),
        (_, Some(object)) if object["code"] == 403 => ("403 Forbidden", object.clone()),
        (_, Some(object)) => ("200 OK", object.clone()),
        (_, None) => ("404 Not Found", missing),
    };
    let text = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    reader.get_mut().write_all(format!("{head}{text}").as_bytes()).unwrap();
}

fn names(names: &[&str]) -> Value {
    let item = |name: &&str| json!({"metadata": {"name": name, "namespace": name}});
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": names.iter().map(item).collect::<Vec<_>>()})
}

#[test]
fn exit_codes_are_those_of_the_page() {
    let nowhere = Desk::new();
    let (address, _) = server(Objects::new());
    let empty = Desk::new().with_server(&address);
    fs::write(nowhere.path("wrong.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n").unwrap();
    let table = [
        (&nowhere, "exit-codes", 0),
        (&nowhere, "--version", 0),
        (&nowhere, "list --help", 0),
        (&nowhere, "generate server heron", 0),
        (&nowhere, "server create heron --dry-run=client", 0),
        (&nowhere, "lst", 2),
        (&nowhere, "list severs", 2),
        (&nowhere, "apply -f wrong.yaml", 2),
        (&nowhere, "diff -f wrong.yaml", 2),
        (&nowhere, "retry workspace", 2),
        (&empty, "show server heron", 3),
        (&empty, "why server heron", 3),
        (&empty, "workspace use first", 3),
        (&empty, "server list", 3),
        (&nowhere, "list servers", 6),
        (&nowhere, "config view", 6),
    ];
    for (desk, line, expected) in table {
        let output = desk.run(line);
        assert_eq!(code(&output), expected, "{line}: {}{}", out(&output), err(&output));
    }
}

#[test]
fn what_can_name_no_object_never_becomes_a_part_of_an_address() {
    let (address, notes) = server(Objects::new());
    let desk = Desk::new().with_server(&address);
    let lines = [
        "delete server NAME",
        "delete server heron NAME --ignore-not-found",
        "server delete NAME",
        "delete server NAME --dry-run=client",
        "server show NAME",
        "show tsv NAME",
        "why bwf NAME",
        "logs server NAME",
        "tree cluster NAME",
        "watch server NAME",
        "wait server NAME",
        "retry server NAME",
        "suspend server NAME",
        "skip NAME step",
        "server create NAME",
        "generate server NAME",
        "generate server heron -n NAME",
        "generate workspace NAME",
        "workspace init NAME",
        "workspace use NAME",
        "list -n NAME",
        "delete server heron -n NAME",
        "extension list --system-namespace NAME",
        "apply -f wrong.yaml",
        "apply -f wrong.yaml --dry-run=client",
        "diff -f wrong.yaml",
        "delete -f wrong.yaml",
    ];
    for name in ["#", "?", "..", "../x", "%2e", "%23", "heron?x=", "heron#", "Heron"] {
        let manifest = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace",
            "metadata": {"name": name}, "spec": {}});
        fs::write(desk.path("wrong.yaml"), manifest.to_string()).unwrap();
        for line in lines {
            let output = desk.run(&line.replace("NAME", name));
            let told = (
                code(&output),
                out(&output),
                err(&output).contains("can't be a name") || err(&output).contains("unknown kind"),
            );
            assert_eq!(told, (2, String::new(), true), "{line}, {name}: {}", err(&output));
        }
    }
    let output = desk.command(Path::new(PROGRAM)).args(["generate", "server", "heron", "--labels", "a b=c"]).output();
    assert_eq!(code(&output.unwrap()), 2);
    assert_eq!(*notes.lock().unwrap(), [""; 0]);
}

#[test]
fn a_link_makes_it_a_plugin_of_kubectl() {
    let desk = Desk::new();
    let link = desk.path("kubectl-provisioning");
    symlink(PROGRAM, &link).unwrap();
    let help = |words: &[&str]| out(&desk.command(&link).args(words).output().unwrap());
    assert!(help(&["--help"]).contains("Usage: kubectl provisioning [OPTIONS] <COMMAND>"));
    let create = help(&["server", "create", "--help"]);
    assert!(create.contains("Usage: kubectl provisioning server create [OPTIONS] <NAME>"), "{create}");
    let output = desk.command(&link).args(["list", "servers"]).output().unwrap();
    assert_eq!(code(&output), 6);
    assert!(err(&output).contains("kubectl provisioning platform start"), "{}", err(&output));
}

#[test]
fn what_create_sends_is_what_generate_prints() {
    let (address, notes, bodies) = recording(Objects::new());
    let desk = Desk::new().with_server(&address);
    let table = [
        ("server", "servers", "server/heron", "heron --size medium --labels tier=web"),
        (
            "taskserv",
            "taskservs",
            "taskserv/cache",
            "cache --extension redis@^0.2 --servers heron -p port=7000 -p on=true",
        ),
        (
            "cluster",
            "clusters",
            "cluster/web",
            "web --group pages=heron,tern --taskserv nginx=pages --endpoint http=pages:80",
        ),
        ("batch", "batchworkflows", "batchworkflow/first", "first --server heron --taskserv cache=redis@heron"),
    ];
    for (group, plural, object, flags) in table {
        let output = desk.run(&format!("{group} create {flags}"));
        assert_eq!((code(&output), out(&output)), (0, format!("{object} created\n")), "{}", err(&output));
        assert_eq!(notes.lock().unwrap().pop(), Some(format!("POST {OURS}/namespaces/first/{plural}")));
        let printed = |line: &str| out(&desk.run(line));
        let generated = printed(&format!("generate {group} {flags} -n first -o json"));
        let generated: Value = serde_json::from_str(&generated).unwrap();
        assert_eq!(bodies.lock().unwrap().pop(), Some(generated), "{group}");
        let plain = printed(&format!("generate {group} {flags}"));
        assert_eq!(plain, printed(&format!("{group} create {flags} --dry-run=client")));
    }
    assert_eq!((notes.lock().unwrap().len(), bodies.lock().unwrap().len()), (0, 0));
}

#[test]
fn who_waits_in_vain_or_is_interrupted_ends_with_the_code_of_the_page() {
    let (address, _) = server([("/apis/provisioning.dev/v1alpha1/namespaces/first/servers", names(&["heron"]))].into());
    let desk = Desk::new().with_server(&address);
    for line in ["wait server heron --timeout 1s", "watch server heron --until ready --timeout 1s"] {
        let output = desk.run(line);
        assert_eq!(code(&output), 4, "{line}: {}", err(&output));
        assert!(err(&output).starts_with("error: after 1 s: "), "{line}: {}", err(&output));
    }
    // Also where the tests themselves run in a place that ignores interruptions.
    let mut watch = desk.command(Path::new("/usr/bin/env"));
    watch.args(["--default-signal=INT", PROGRAM, "watch", "server", "heron"]).stdout(Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    // Kept until the end: a watch that nobody listens to ends by itself.
    let mut lines = BufReader::new(watch.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.contains("server/heron"), "{line}");
    let kill = format!("kill -INT {}", watch.id());
    assert!(desk.command(Path::new("/bin/sh")).args(["-c", &kill]).status().unwrap().success());
    // Shells call this 130.
    assert_eq!(watch.wait().unwrap().signal(), Some(2));
    drop(lines);
}

#[test]
fn diff_ends_with_1_where_anything_differs() {
    let workspace = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace",
        "metadata": {"name": "workspace", "namespace": "first"}, "spec": {"parallelism": 3}});
    let path = "/apis/provisioning.dev/v1alpha1/namespaces/first/workspaces/workspace";
    let (address, _) = server([(path, workspace)].into());
    let desk = Desk::new().with_server(&address);
    let manifest = |parallelism: i32| {
        let text = format!(
            "apiVersion: provisioning.dev/v1alpha1\nkind: Workspace\nmetadata: {{name: workspace}}\nspec: {{parallelism: {parallelism}}}\n"
        );
        fs::write(desk.path("workspace.yaml"), text).unwrap();
    };
    manifest(4);
    let output = desk.run("diff -f workspace.yaml --force-conflicts");
    assert_eq!(code(&output), 1, "{}", err(&output));
    assert!(out(&output).contains("-  parallelism: 3\n+  parallelism: 4\n"), "{}", out(&output));
    manifest(3);
    let output = desk.run("diff -f workspace.yaml --force-conflicts");
    assert_eq!((code(&output), out(&output)), (0, String::new()), "{}", err(&output));
}

#[test]
fn a_workspace_in_use_is_the_namespace_of_the_context() {
    let path = "/apis/provisioning.dev/v1alpha1/namespaces/fen/workspaces/workspace";
    let workspace = json!({"metadata": {"name": "workspace", "namespace": "fen"}, "spec": {}});
    let (address, _) = server([(path, workspace)].into());
    let desk = Desk::new().with_server(&address);
    let namespace = |flags: &str| {
        let text = out(&desk.run(&format!("config view -o json {flags}")));
        serde_json::from_str::<Value>(&text).unwrap()["namespace"]["value"].clone()
    };
    assert_eq!(namespace(""), "first");
    let output = desk.run("workspace use fen");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(namespace(""), "fen");
    assert_eq!(namespace("--context heath"), "default");
    let output = desk.run("ws use heath");
    assert!(err(&output).contains("there is no workspace 'heath'"), "{}", err(&output));
    assert_eq!(namespace(""), "fen");
}

#[test]
fn names_of_the_cluster_complete() {
    let (address, notes) = server(
        [
            ("/apis/provisioning.dev/v1alpha1/namespaces/first/servers", names(&["heron", "hoopoe", "curlew"])),
            ("/apis/provisioning.dev/v1alpha1/namespaces/fen/servers", names(&["reed"])),
            ("/apis/provisioning.dev/v1alpha1/workspaces", names(&["first", "fen"])),
            (
                "/apis/provisioning.dev/v1alpha1/namespaces/first/batchworkflows/shop",
                json!({"metadata": {"name": "shop", "namespace": "first"}, "spec": {"steps": [
                    {"name": "db", "delete": {"kind": "Server", "name": "heron"}}]}}),
            ),
        ]
        .into(),
    );
    let desk = Desk::new().with_server(&address);
    let table = [
        ("show server h", vec!["heron", "hoopoe"]),
        ("why srv/h", vec!["srv/heron", "srv/hoopoe"]),
        ("server show h", vec!["heron", "hoopoe"]),
        ("srv rm heron c", vec!["curlew"]),
        ("-n fen show server ", vec!["reed"]),
        ("show server --namespace=fen r", vec!["reed"]),
        ("list -n f", vec!["first", "fen"]),
        ("--context h", vec!["heath"]),
        ("taskserv create redis --servers heron,c", vec!["heron,curlew"]),
        ("taskserv create cache --extension red", vec!["redis"]),
        ("skip shop ", vec!["db"]),
        ("logs batch/shop --step ", vec!["db"]),
        ("list serv", vec!["server"]),
        ("show server --out", vec!["--output"]),
        ("orch", vec![]),
    ];
    for (line, expected) in table {
        let mut found = desk.complete(line);
        found.retain(|word| !word.starts_with('-') || line.contains("--out"));
        assert_eq!(found, expected, "{line}");
    }
    // Nothing is discovered, and nothing asked twice.
    notes.lock().unwrap().clear();
    desk.complete("show server h");
    assert_eq!(*notes.lock().unwrap(), [format!("GET {OURS}/namespaces/first/servers")]);
}

#[test]
fn completion_without_a_cluster_is_silent() {
    let desk = Desk::new();
    assert_eq!(desk.complete("show server h"), [""; 0]);
    assert_eq!(desk.complete("--context "), [""; 0]);
    // A server that takes the connection and never answers: the bound counts.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = Desk::new().with_server(&listener.local_addr().unwrap().to_string());
    let begin = std::time::Instant::now();
    assert_eq!(silent.complete("show server h"), [""; 0]);
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
}

#[test]
fn kubectl_is_answered_in_its_own_way() {
    let (address, _) = server([("/apis/provisioning.dev/v1alpha1/namespaces/first/servers", names(&["heron"]))].into());
    let desk = Desk::new().with_server(&address);
    let link = desk.path("kubectl_complete-provisioning");
    symlink(PROGRAM, &link).unwrap();
    let output = desk.command(&link).args(["show", "server", "h"]).output().unwrap();
    assert_eq!((code(&output), out(&output)), (0, "heron\n:4\n".to_owned()));
}

#[test]
fn every_shell_gets_a_script_that_calls_this_program() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = desk.run(&format!("completion {shell}"));
        assert_eq!(code(&output), 0, "{shell}: {}", err(&output));
        assert!(out(&output).contains("_PROVISIONING_COMPLETE"), "{shell}: {}", out(&output));
    }
}

/// A shell, from its variable or from the usual places.
fn shell(name: &str) -> PathBuf {
    let own = std::env::var_os(name.to_uppercase()).map(PathBuf::from);
    let usual = ["/usr/bin", "/bin", "/usr/local/bin"].map(|folder| Path::new(folder).join(name));
    let found = own.into_iter().chain(usual).find(|file| file.is_file());
    assert!(found.is_some(), "there is no {name}: run tools/install-packages, or set {}", name.to_uppercase());
    found.unwrap()
}

/// A server, and what a shell says that reads the script of `completion` first.
fn in_shell(shell: &Path, name: &str, text: &str) -> String {
    let servers = "/apis/provisioning.dev/v1alpha1/namespaces/first/servers";
    let (address, _) = server([(servers, names(&["heron", "hoopoe", "curlew"]))].into());
    let desk = Desk::new().with_server(&address);
    fs::write(desk.path("script"), out(&desk.run(&format!("completion {name}")))).unwrap();
    let folder = Path::new(PROGRAM).parent().unwrap().display();
    let mut command = desk.command(shell);
    command.env("PATH", format!("{folder}:/usr/bin:/bin"));
    command.envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)));
    let flags: &[&str] = match name {
        "fish" => &["--no-config"],
        "zsh" => &["-f"],
        _ => &["--norc", "--noprofile"],
    };
    let output = command.args(flags).args(["-c", text]).output().unwrap();
    assert_eq!((code(&output), err(&output)), (0, String::new()), "{name}: {}", out(&output));
    out(&output)
}

#[test]
fn bash_completes_commands_and_names() {
    // What bash does when somebody presses Tab: it calls the function that `complete` was told, with the word.
    let text = "source ./script; function=$(complete -p provisioning | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); \
                for line in 'provisioning show server h' 'provisioning orch' 'provisioning sus'; do \
                COMP_WORDS=($line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_TYPE=9; COMPREPLY=(); \
                $function provisioning \"${COMP_WORDS[COMP_CWORD]}\" '' 2>/dev/null; \
                echo \"> $line\"; printf '%s\\n' \"${COMPREPLY[@]}\"; done";
    let said = in_shell(&shell("bash"), "bash", text);
    let lines: Vec<&str> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let expected =
        ["> provisioning show server h", "heron", "hoopoe", "> provisioning orch", "> provisioning sus", "suspend"];
    assert_eq!(lines, expected, "{said}");
}

#[test]
fn zsh_completes_commands_and_names() {
    // What its completion system would do with the candidates, and where the cursor is.
    let text = "compdef() { }; _describe() { while [[ $1 == -* ]]; do shift; done; print -l ${(P)2} }; source ./script; \
                for line in 'provisioning show server h' 'provisioning orch' 'provisioning sus'; do \
                words=(${=line}); CURRENT=${#words}; print \"> $line\"; _clap_dynamic_completer_provisioning; done";
    let said = in_shell(&shell("zsh"), "zsh", text);
    let lines: Vec<&str> = said.lines().map(|line| line.split(':').next().unwrap_or_default()).collect();
    let expected =
        ["> provisioning show server h", "heron", "hoopoe", "> provisioning orch", "> provisioning sus", "suspend"];
    assert_eq!(lines, expected, "{said}");
}

#[test]
fn fish_completes_commands_and_names() {
    let text = "source ./script; complete -C 'provisioning show server h'; echo; complete -C 'provisioning sus'";
    let said = in_shell(&shell("fish"), "fish", text);
    let lines: Vec<&str> = said.lines().map(|line| line.split('\t').next().unwrap_or_default()).collect();
    assert_eq!(lines, ["heron", "hoopoe", "", "suspend"], "{said}");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let desk = Desk::new();
    let line =
        format!("'{PROGRAM}' generate batch first --server a --server b | head -n 1; echo \"${{PIPESTATUS[0]}}\"");
    let output =
        desk.command(Path::new("/bin/bash")).env("PATH", "/usr/bin:/bin").args(["-c", &line]).output().unwrap();
    assert_eq!(out(&output), "apiVersion: provisioning.dev/v1alpha1\n0\n", "{}", err(&output));
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let desk = Desk::new();
    for line in ["generate server heron", "exit-codes", "completion bash", "apply --dry-run=client -f heron.yaml"] {
        fs::write(desk.path("heron.yaml"), out(&desk.run("generate server heron"))).unwrap();
        let mut command = desk.command(Path::new(PROGRAM));
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command.args(line.split(' ')).stdout(full).output().unwrap();
        assert_eq!(code(&output), 1, "{line}: {}", err(&output));
        assert!(err(&output).starts_with("error: failed to write to standard output: "), "{line}: {}", err(&output));
    }
}

#[test]
fn nobody_to_tell_is_no_reason_to_break_off() {
    let (address, _) = server([("/apis/provisioning.dev/v1alpha1/namespaces/first/servers", names(&[]))].into());
    let (nowhere, empty) = (Desk::new(), Desk::new().with_server(&address));
    let table = [
        (&nowhere, "list", 6),
        (&nowhere, "list srv/", 2),
        (&empty, "list srv", 0),
        (&empty, "show srv heron tern", 3),
    ];
    for (desk, line, expected) in table {
        let mut command = desk.command(Path::new(PROGRAM));
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(code(&command.args(line.split(' ')).stderr(full).output().unwrap()), expected, "{line}");
        let closed = format!("exec '{PROGRAM}' {line} 2>&-");
        let output = desk.command(Path::new("/bin/sh")).args(["-c", &closed]).output().unwrap();
        assert_eq!(code(&output), expected, "{line}");
    }
}

#[test]
fn what_others_wrote_commands_no_terminal() {
    let evil = "gone\n\u{1b}]0;title\u{7}\u{9b}2J";
    let heron = json!({"metadata": {"name": "heron", "namespace": "first", "uid": "u", "generation": 1},
        "spec": {"providerConfigRef": {"name": "local"}, "providerSize": "small", "image": {"id": evil}},
        "status": {"observedGeneration": 1, "schema": 1,
            "conditions": [{"type": "Ready", "status": "False", "reason": "StepFailed", "message": evil,
                "observedGeneration": 1, "lastTransitionTime": "2026-05-04T10:00:05Z"}],
            "steps": [{"id": "reach", "action": "Reach", "undo": "None", "inputHash": "v1:0", "phase": "Failed", "run": 1,
                "class": "Invalid", "reason": "HostKeyChanged", "message": evil, "outputs": {"a": evil}}]}});
    let list = json!({"metadata": {}, "items": [heron]});
    let servers = "/apis/provisioning.dev/v1alpha1/namespaces/first/servers";
    let one = "/apis/provisioning.dev/v1alpha1/namespaces/first/servers/heron";
    let (address, _) = server([(servers, list), (one, heron)].into());
    let desk = Desk::new().with_server(&address);
    let wrong = json!({"apiVersion": "provisioning.dev/v1alpha1", "kind": "Workspace",
        "metadata": {"name": "workspace", evil: 1}, "spec": {evil: 2}});
    // YAML has no such character but in quotes, by its number.
    fs::write(desk.path("wrong.yaml"), wrong.to_string().replace('\u{9b}', "\\u009b")).unwrap();
    for line in ["show srv heron", "list srv -o wide", "tree srv/heron", "why srv heron", "apply -f wrong.yaml"] {
        let output = desk.run(line);
        let text = format!("{}{}", out(&output), err(&output));
        assert!(text.contains("^[]0;title^G\\u{9b}2J"), "{line}: {text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{line}: {text:?}");
    }
    let read: Value = serde_json::from_str(&out(&desk.run("show srv heron -o json"))).unwrap();
    assert_eq!(read["status"]["conditions"][0]["message"], evil);
}

#[test]
fn what_may_not_be_seen_hides_nothing_else() {
    let servers = "/apis/provisioning.dev/v1alpha1/namespaces/first/servers";
    let heron = "/apis/provisioning.dev/v1alpha1/namespaces/first/servers/heron";
    let tern = "/apis/provisioning.dev/v1alpha1/namespaces/first/servers/tern";
    let clusters = "/apis/provisioning.dev/v1alpha1/namespaces/first/clusters";
    let one = json!({"metadata": {"name": "tern", "namespace": "first"}});
    let objects = [(servers, names(&["tern"])), (clusters, forbidden()), (heron, forbidden()), (tern, one)];
    let (address, _) = server(objects.into());
    let desk = Desk::new().with_server(&address);
    for line in ["list clu,srv -o name", "list clu,srv", "show srv heron tern -o name", "show srv tern heron -o name"] {
        let output = desk.run(line);
        let (text, error) = (out(&output), err(&output));
        assert!(text.contains("server/tern"), "{line}: {text}{error}");
        assert!(error.contains("not allowed (403): ana may not"), "{line}: {error}");
        assert_eq!(code(&output), 5, "{line}");
    }
}
