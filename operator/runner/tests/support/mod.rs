//! A real sshd on a loopback port, with stand-ins for systemd and nu, and a proxy that can cut connections.
#![allow(unreachable_pub, clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use provisioning_api::steps::Direction;
use provisioning_extensions::Bundle;
use provisioning_runner::Settings;
use provisioning_runner::fence::Fence;
use provisioning_runner::layout::Layout;
use provisioning_sdk::claim::ClaimError;
use provisioning_sdk::request::{Envelope, Extension, Owner, RunnerRequest, Script, ScriptRequest, Target};
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";

/// Runs what systemd would run, and remembers its pid by unit.
const SYSTEMD_RUN: &str = r#"#!/bin/sh
units=$(dirname "$0")/units; mkdir -p "$units"
while [ $# -gt 0 ]; do
  case "$1" in --unit=*) unit=${1#--unit=}; shift ;; --*) shift ;; *) break ;; esac
done
[ -e "$units/$unit" ] && { echo "Unit $unit already exists" >&2; exit 1; }
setsid sh -c 'echo $$ >"$0"; "$@"; rm -f "$0"' "$units/$unit" "$@" </dev/null >"$units/log" 2>&1 &
while [ ! -s "$units/$unit" ] && kill -0 $! 2>/dev/null; do sleep 0.01; done
"#;

const SYSTEMCTL: &str = r#"#!/bin/sh
units=$(dirname "$0")/units
case "$1" in
is-system-running) echo degraded; exit 1 ;;
show) if [ -e "$units/$4" ] && kill -0 "$(cat "$units/$4")" 2>/dev/null; then echo active; else echo inactive; fi ;;
esac
"#;

/// Scripts of test bundles are shell scripts: `nu --no-config-file --no-history --error-style plain SCRIPT REQUEST`.
const NU: &str = "#!/bin/sh\nshift 4\nexec sh \"$@\"\n";

/// A server to be reached.
pub struct TestServer {
    pub folder: TempDir,
    sshd: Child,
    port: u16,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
        // Units of scripts that a test left behind.
        for unit in fs::read_dir(self.path("bin/units")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(unit.path()).unwrap_or_default();
            if let Ok(pid @ 2..) = text.trim().parse::<i32>() {
                let _ = Command::new("kill").args(["--", &format!("-{pid}")]).status();
            }
        }
    }
}

impl TestServer {
    /// Fails where this machine has no sshd, or we are not root: a test that cannot run has not passed.
    pub fn start() -> Self {
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        assert!(is_root && Path::new(SSHD).exists(), "needs root and {SSHD}: run tools/install-packages");
        fs::create_dir_all("/run/sshd").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["host", "user", "stranger"] {
            let key = path(name);
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
            assert!(made.unwrap().success());
        }
        fs::create_dir(path("bin")).unwrap();
        for (name, text) in [("bin/systemd-run", SYSTEMD_RUN), ("bin/systemctl", SYSTEMCTL), ("nu", NU)] {
            fs::write(path(name), text).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let here = folder.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/user.pub\n\
             StrictModes no\nUsePAM no\nPidFile none\nMaxStartups 100\nPermitRootLogin prohibit-password\n\
             SetEnv PATH={here}/bin:/usr/bin:/bin HOME={here}\n"
        );
        fs::write(path("config"), config).unwrap();
        let mut sshd = Command::new(SSHD);
        sshd.args(["-D", "-e", "-f"]).arg(path("config")).stderr(fs::File::create(path("sshd.log")).unwrap());
        let sshd = sshd.stdin(Stdio::null()).spawn().unwrap();
        TestServer { folder, sshd, port }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn target(&self) -> Target {
        Target {
            server: "web-0".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: self.port,
            user: "root".to_owned(),
            host_key: self.read("host.pub"),
        }
    }

    pub fn settings(&self) -> Settings {
        let text = |name: &str| self.path(name).display().to_string();
        Settings {
            key: self.path("user"),
            bundle: self.path("mount"),
            secrets: self.path("secrets"),
            nu: self.path("nu"),
            layout: Layout { root: text("root"), volatile: text("volatile"), nu: text("opt/nu") },
        }
    }

    /// Mounts a bundle with this install script (check and uninstall say who they are); returns its reference.
    pub fn mount(&self, install: &str) -> Extension {
        let mount = self.path("mount");
        let _ = fs::remove_dir_all(&mount);
        fs::create_dir(&mount).unwrap();
        let manifest = "apiVersion: extension.provisioning.dev/v1alpha1\nkind: Extension\nname: demo\nversion: 1.0.0\n";
        for (key, text) in [
            ("manifest.yaml", manifest),
            ("scripts..install.nu", install),
            ("scripts..check.nu", "echo checked >>\"$PWD/../../checks\"\n"),
            ("scripts..uninstall.nu", "echo '{\"event\":\"progress\",\"message\":\"gone\"}'\n"),
            ("templates..word", "a word\n"),
        ] {
            fs::write(mount.join(key), text).unwrap();
        }
        let bundle = Bundle::load_mount(&mount).unwrap();
        Extension { name: "demo".to_owned(), version: "1.0.0".to_owned(), digest: bundle.digest().to_owned() }
    }

    /// Starts and ends that the server has logged, for example `start install 1`, `end install 1 0`.
    pub fn log(&self) -> Vec<String> {
        let line = |text: &str| {
            let line: serde_json::Value = serde_json::from_str(text).unwrap();
            assert!(line["time"].is_string() && line["owner"]["uid"] == "uid-1", "{line}");
            let exit = line["exit"].as_i64().map(|code| format!(" {code}")).unwrap_or_default();
            let word = |name: &str| line[name].as_str().unwrap().to_owned();
            format!("{} {} {}{exit}", word("event"), word("script"), line["run"])
        };
        self.read("root/runs.ndjson").lines().map(line).collect()
    }

    pub fn marker(&self) -> serde_json::Value {
        serde_json::from_str(&self.read("root/uid-1/web-0+demo.json")).unwrap_or_default()
    }

    /// Waits until a file is there.
    pub async fn wait_for(&self, name: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.path(name).exists() {
            assert!(Instant::now() < until, "{name} did not appear");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A request to run a script, run 1 of step `web-0/demo`.
pub fn script(target: Target, extension: &Extension, script: Script) -> Envelope<RunnerRequest> {
    envelope(RunnerRequest::Script(ScriptRequest {
        target,
        extension: extension.clone(),
        script,
        parameters: [("word".to_owned(), "it's $HOME".into())].into(),
        secrets: BTreeMap::new(),
        servers: Vec::new(),
        peers: BTreeMap::new(),
    }))
}

pub fn envelope(payload: RunnerRequest) -> Envelope<RunnerRequest> {
    Envelope {
        owner: Owner { kind: "Taskserv".into(), namespace: "ws".into(), name: "demo".into(), uid: "uid-1".into() },
        step: "web-0/demo".to_owned(),
        run: 1,
        epoch: 1,
        direction: Direction::Forward,
        input_hash: "v1:a".to_owned(),
        timeout_seconds: 40,
        installation: "i".to_owned(),
        payload,
    }
}

/// Lets this many mutating calls begin, then refuses.
pub struct Lets {
    pub left: u32,
    pub asked: u32,
}

impl Lets {
    pub fn all() -> Self {
        Lets { left: u32::MAX, asked: 0 }
    }

    pub fn only(left: u32) -> Self {
        Lets { left, asked: 0 }
    }
}

impl Fence for Lets {
    async fn confirm(&mut self) -> Result<(), ClaimError> {
        if self.left == 0 {
            return Err(ClaimError::Refused("given up".to_owned()));
        }
        self.left -= 1;
        self.asked += 1;
        Ok(())
    }
}
