//! The runner against a real sshd: what it does, and what it does not do twice.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod support;

use std::fs;
use std::time::Duration;

use provisioning_api::steps::{Direction, FailureClass};
use provisioning_api::taskserv::SecretReference;
use provisioning_runner::run;
use provisioning_sdk::request::{RunnerRequest, Script};
use provisioning_sdk::result::StepResult;
use support::{Lets, TestServer, envelope, script};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Says that it began, waits for the file `go` below the server's root, reports.
const SLOW: &str = r#"
root=$PWD/../..
touch "$root/began"
echo '{"event":"progress","message":"waiting"}'
while [ ! -e "$root/go" ]; do sleep 0.05; done
echo '{"event":"output","name":"word","value":"done"}'
"#;

fn outcome(result: &StepResult) -> (Option<FailureClass>, &str) {
    (result.class, result.reason.as_str())
}

fn assert_success(result: &StepResult) {
    assert_eq!(outcome(result), (None, "Succeeded"), "{result:?}");
}

#[tokio::test]
async fn reach_brings_nu_once_and_says_who_answered() {
    let server = TestServer::start();
    let request = envelope(RunnerRequest::Reach { target: server.target() });
    let mut fence = Lets::all();
    let result = run(&server.settings(), &mut fence, &request).await;
    assert_success(&result);
    assert_eq!(result.outputs["machineID"], fs::read_to_string("/etc/machine-id").unwrap().trim());
    assert!(!result.outputs["hostname"].is_empty());
    assert_eq!(server.read("opt/nu"), server.read("nu"));
    assert_eq!(fence.asked, 2, "helper and nu");

    let mut fence = Lets::all();
    assert_success(&run(&server.settings(), &mut fence, &request).await);
    assert_eq!(fence.asked, 0, "nothing was left to do");

    // A changed binary is not what was brought.
    fs::write(server.path("opt/nu"), "changed").unwrap();
    assert_success(&run(&server.settings(), &mut fence, &request).await);
    assert_eq!(server.read("opt/nu"), server.read("nu"));
}

#[tokio::test]
async fn another_host_key_is_refused_with_both_fingerprints() {
    let server = TestServer::start();
    let mut target = server.target();
    target.host_key = server.read("stranger.pub");
    let result = run(&server.settings(), &mut Lets::all(), &envelope(RunnerRequest::Reach { target })).await;
    assert_eq!(outcome(&result), (Some(FailureClass::Invalid), "HostKeyMismatch"));
    assert_eq!(result.message.matches("SHA256:").count(), 2, "{}", result.message);
    assert!(!server.path("root").exists());
}

#[tokio::test]
async fn a_key_that_the_server_does_not_know_is_unauthorized() {
    let server = TestServer::start();
    let mut settings = server.settings();
    settings.key = server.path("stranger");
    let request = envelope(RunnerRequest::Reach { target: server.target() });
    let result = run(&settings, &mut Lets::all(), &request).await;
    assert_eq!(outcome(&result), (Some(FailureClass::Unauthorized), "AuthenticationRefused"));
}

#[tokio::test]
async fn where_nobody_listens_the_address_and_the_cause_are_named() {
    let server = TestServer::start();
    let mut target = server.target();
    target.port = 1;
    let mut request = envelope(RunnerRequest::Reach { target });
    request.timeout_seconds = 4;
    let result = run(&server.settings(), &mut Lets::all(), &request).await;
    assert_eq!(outcome(&result), (Some(FailureClass::Transient), "Unreachable"));
    assert!(result.message.contains("127.0.0.1:1") && result.message.contains("refused"), "{}", result.message);
}

#[tokio::test]
async fn a_script_runs_once_for_one_input() {
    let server = TestServer::start();
    let install = r#"
echo '{"event":"output","name":"word","value":"'"$(cat templates/word)"'"}'
cp "$1" ../../request
"#;
    let extension = server.mount(install);
    let mut request = script(server.target(), &extension, Script::Install);
    let result = run(&server.settings(), &mut Lets::all(), &request).await;
    assert_success(&result);
    assert_eq!(result.outputs["word"], "a word");
    assert_eq!(server.log(), ["start install 1", "end install 1 0"]);
    assert_eq!(server.marker()["phase"], "Succeeded");
    let told: serde_json::Value = serde_json::from_str(&server.read("root/request")).unwrap();
    assert_eq!(told["parameters"]["word"], "it's $HOME");
    assert_eq!((&told["direction"], &told["script"], &told["run"]), (&"Forward".into(), &"install".into(), &1.into()));
    assert_eq!((&told["server"]["name"], &told["extension"]["version"]), (&"web-0".into(), &"1.0.0".into()));

    // The pod died before its result was read: the next run finds it done.
    request.run = 2;
    let again = run(&server.settings(), &mut Lets::all(), &request).await;
    assert_eq!(again.outputs, result.outputs);
    assert_eq!(server.log().len(), 2);
    // Who comes too late is refused.
    request.run = 1;
    let late = run(&server.settings(), &mut Lets::all(), &request).await;
    assert_eq!(outcome(&late), (Some(FailureClass::Refused), "Superseded"));

    // Undo, and forward again, are new.
    let mut undo = script(server.target(), &extension, Script::Uninstall);
    (undo.run, undo.direction) = (3, Direction::Undo);
    assert_success(&run(&server.settings(), &mut Lets::all(), &undo).await);
    request.run = 4;
    assert_success(&run(&server.settings(), &mut Lets::all(), &request).await);
    assert_eq!(server.log()[2..], ["start uninstall 3", "end uninstall 3 0", "start install 4", "end install 4 0"]);
}

#[tokio::test]
async fn a_secret_reaches_the_script_and_nothing_else() {
    let server = TestServer::start();
    let install = r#"
password=$(sed -n 's/.*"password":"\([^"]*\)".*/\1/p' "$1")
stat -c '%a %n' "$1" >../../where
printf '{"event":"progress","message":"logging in with %s"}\n' "$password"
echo "$password was refused" >&2
exit 4
"#;
    let extension = server.mount(install);
    let mut request = script(server.target(), &extension, Script::Install);
    let RunnerRequest::Script(what) = &mut request.payload else { panic!("no script") };
    let reference = SecretReference { secret_name: "taskserv-nest".into(), key: "password".into() };
    what.secrets.insert("password".into(), reference);
    let result = run(&server.settings(), &mut Lets::all(), &request).await;
    assert_eq!(outcome(&result), (Some(FailureClass::Unauthorized), "MissingSecret"));
    assert_eq!(result.retry_after_seconds, Some(120), "it may come later");
    assert!(server.log().is_empty(), "a script ran without its secret");

    fs::create_dir_all(server.path("secrets/password")).unwrap();
    fs::write(server.path("secrets/password/value"), "heron-4711").unwrap();
    let result = run(&server.settings(), &mut Lets::all(), &request).await;
    assert_eq!(result.message, "exit code 4: [redacted] was refused");
    let place = server.read("root/where");
    assert!(place.starts_with("600 ") && place.contains("/volatile/"), "{place}");
    let found = std::process::Command::new("grep")
        .args(["-rl", "heron-4711", &server.path("root").display().to_string()])
        .arg(server.path("volatile").display().to_string())
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    // The script's own words, for whoever is root there; the request itself is gone.
    assert!(!found.contains(".json"), "the request is still there: {found}");
}

#[tokio::test]
async fn a_check_runs_each_time() {
    let server = TestServer::start();
    let extension = server.mount("");
    let mut request = script(server.target(), &extension, Script::Check);
    for run_number in 1..=3 {
        request.run = run_number;
        assert_success(&run(&server.settings(), &mut Lets::all(), &request).await);
    }
    assert_eq!(server.read("root/checks"), "checked\nchecked\nchecked\n");
}

#[tokio::test]
async fn a_failure_carries_the_last_words_and_is_retried_by_the_next_run() {
    let server = TestServer::start();
    let extension = server.mount("echo 'E: Unable to locate package nosuch' >&2; exit 100\n");
    let mut request = script(server.target(), &extension, Script::Install);
    let result = run(&server.settings(), &mut Lets::all(), &request).await;
    assert_eq!(outcome(&result), (Some(FailureClass::ScriptFailed), "ScriptFailed"));
    assert_eq!(result.message, "exit code 100: E: Unable to locate package nosuch");
    assert_eq!(server.marker()["phase"], "Failed");
    request.run = 2;
    run(&server.settings(), &mut Lets::all(), &request).await;
    assert_eq!(server.log(), ["start install 1", "end install 1 100", "start install 2", "end install 2 100"]);
}

#[tokio::test]
async fn too_large_an_output_is_the_scripts_mistake() {
    let server = TestServer::start();
    let extension = server.mount("printf '{\"event\":\"output\",\"name\":\"a\",\"value\":\"%01100d\"}\\n' 0\n");
    let request = script(server.target(), &extension, Script::Install);
    let result = run(&server.settings(), &mut Lets::all(), &request).await;
    assert_eq!(outcome(&result), (Some(FailureClass::Invalid), "BadOutput"));
    assert!(result.message.contains("1100 bytes"), "{}", result.message);
}

#[tokio::test]
async fn another_bundle_than_the_requested_one_is_refused() {
    let server = TestServer::start();
    let extension = server.mount("");
    server.mount("echo changed\n");
    let result = run(&server.settings(), &mut Lets::all(), &script(server.target(), &extension, Script::Install)).await;
    assert_eq!(outcome(&result), (Some(FailureClass::Invalid), "DigestMismatch"));
}

#[tokio::test]
async fn a_bundle_that_was_changed_on_the_server_is_brought_again() {
    let server = TestServer::start();
    let extension = server.mount("");
    let mut request = script(server.target(), &extension, Script::Install);
    assert_success(&run(&server.settings(), &mut Lets::all(), &request).await);
    let on_server = format!("root/bundles/{}/scripts", extension.digest.trim_start_matches("sha256:"));
    fs::write(server.path(&format!("{on_server}/install.nu")), "exit 9\n").unwrap();
    fs::write(server.path(&format!("{on_server}/extra.nu")), "").unwrap();
    (request.run, request.input_hash) = (2, "v1:b".to_owned());
    assert_success(&run(&server.settings(), &mut Lets::all(), &request).await);
    assert_eq!(server.read(&format!("{on_server}/install.nu")), "");
    assert!(!server.path(&format!("{on_server}/extra.nu")).exists());
}

#[tokio::test]
async fn a_later_run_attaches_and_another_input_waits() {
    let server = TestServer::start();
    let extension = server.mount(SLOW);
    let first = script(server.target(), &extension, Script::Install);
    let settings = server.settings();
    // The pod is lost in the middle.
    let mut lost = Lets::all();
    tokio::select! {
        result = run(&settings, &mut lost, &first) => panic!("{result:?}"),
        () = server.wait_for("root/began") => {}
    }

    let mut same = first.clone();
    same.run = 2;
    let mut other = script(server.target(), &extension, Script::Uninstall);
    (other.run, other.direction) = (3, Direction::Undo);
    let mut fences = (Lets::all(), Lets::all());
    let attaches = run(&settings, &mut fences.0, &same);
    let waits = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        run(&settings, &mut fences.1, &other).await
    };
    let watch = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(server.log(), ["start install 1"]);
        assert_eq!((&server.marker()["run"], &server.marker()["execution"]), (&2.into(), &1.into()));
        fs::write(server.path("root/go"), "").unwrap();
    };
    let (attached, waited, ()) = tokio::join!(attaches, waits, watch);
    assert_success(&waited);
    // Run 2 ends with its result, or finds that run 3 has overtaken it; never does it start anything.
    assert!(
        attached.outputs.get("word").is_some_and(|word| word == "done") || attached.reason == "Superseded",
        "{attached:?}"
    );
    assert_eq!(server.log(), ["start install 1", "end install 1 0", "start uninstall 3", "end uninstall 3 0"]);
}

/// Hands connections on until it is cut; port 0: any.
async fn proxy(port: u16, to: u16) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            connections.spawn(async move {
                if let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    (port, task)
}

#[tokio::test]
async fn a_lost_connection_is_opened_again_and_the_script_followed() {
    let server = TestServer::start();
    let extension = server.mount(SLOW);
    let (port, cut) = proxy(0, server.port()).await;
    let mut target = server.target();
    target.port = port;
    let request = script(target, &extension, Script::Install);
    let settings = server.settings();
    let outage = async {
        server.wait_for("root/began").await;
        cut.abort();
        tokio::time::sleep(Duration::from_secs(1)).await;
        fs::write(server.path("root/go"), "").unwrap();
        proxy(port, server.port()).await
    };
    let mut fence = Lets::all();
    let (result, _) = tokio::join!(run(&settings, &mut fence, &request), outage);
    assert_success(&result);
    assert_eq!(result.outputs["word"], "done");
    assert_eq!(server.log(), ["start install 1", "end install 1 0"]);
}

#[tokio::test]
async fn the_deadline_leaves_the_script_alone_and_the_next_run_takes_it_up() {
    let server = TestServer::start();
    let extension = server.mount(SLOW);
    let mut request = script(server.target(), &extension, Script::Install);
    request.timeout_seconds = 4;
    let result = run(&server.settings(), &mut Lets::all(), &request).await;
    assert_eq!(outcome(&result), (Some(FailureClass::Timeout), "DeadlineExceeded"));
    assert!(result.message.ends_with("last: waiting"), "{}", result.message);
    fs::write(server.path("root/go"), "").unwrap();
    (request.run, request.timeout_seconds) = (2, 40);
    assert_success(&run(&server.settings(), &mut Lets::all(), &request).await);
    assert_eq!(server.log(), ["start install 1", "end install 1 0"]);
}

/// The runner is stopped before its Nth mutating call, for every N; the next run finishes, and the script ran once.
#[tokio::test]
async fn wherever_a_run_is_stopped_the_script_runs_once() {
    for lets in 0.. {
        let server = TestServer::start();
        let extension = server.mount("echo '{\"event\":\"output\",\"name\":\"word\",\"value\":\"x\"}'\n");
        let mut request = script(server.target(), &extension, Script::Install);
        let mut fence = Lets::only(lets);
        let first = run(&server.settings(), &mut fence, &request).await;
        if first.class.is_none() {
            assert!(lets >= 5, "helper, nu, bundle, start and end are mutating calls");
            return;
        }
        assert_eq!(outcome(&first), (Some(FailureClass::Refused), "ClaimRefused"), "stopped after {lets}");
        request.run = 2;
        let second = run(&server.settings(), &mut Lets::all(), &request).await;
        assert_success(&second);
        assert_eq!(second.outputs["word"], "x");
        let ends = server.log().iter().filter(|line| line.starts_with("end")).count();
        assert_eq!(ends, 1, "stopped after {lets}: {:?}", server.log());
    }
}

/// A script that is killed has not ended: it is started again, and not for ever.
#[tokio::test]
async fn a_killed_script_is_started_again_a_few_times() {
    let server = TestServer::start();
    let extension = server.mount("[ -e ../../once ] || { touch ../../once; kill -KILL $$; }\n");
    let mut request = script(server.target(), &extension, Script::Install);
    assert_success(&run(&server.settings(), &mut Lets::all(), &request).await);
    assert_eq!(server.log(), ["start install 1", "start install 1", "end install 1 0"]);

    let extension = server.mount("kill -KILL $$\n");
    request = script(server.target(), &extension, Script::Install);
    (request.run, request.input_hash) = (2, "v1:b".to_owned());
    let result = run(&server.settings(), &mut Lets::all(), &request).await;
    assert_eq!(outcome(&result), (Some(FailureClass::ScriptFailed), "Interrupted"));
    assert_eq!(server.log().len(), 6);
}

#[tokio::test]
async fn a_full_disk_that_a_script_meets_is_named() {
    let server = TestServer::start();
    let extension = server.mount("head -c 100 </dev/zero >/dev/full\n");
    let request = script(server.target(), &extension, Script::Install);
    let result = run(&server.settings(), &mut Lets::all(), &request).await;
    assert_eq!(outcome(&result), (Some(FailureClass::ScriptFailed), "NoSpace"));
    assert!(result.message.contains("No space left on device"), "{}", result.message);
}
