//! (pure) What the stand-in answers in the place of a provider, of the runner and of an extension's scripts: the same form,
//! the same outputs, nothing behind them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, bail};
use provisioning_sdk::request::{Envelope, ProviderRequest, RunnerRequest, Script};
use provisioning_sdk::result::StepResult;
use serde_json::Value;

/// What all answers are made of.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// What the site offers, as its ConfigMap says.
    pub(crate) catalog: Value,
    /// Address of every server.
    pub(crate) address: IpAddr,
    /// Public host key of every server, in OpenSSH's one-line form.
    pub(crate) host_key: String,
}

/// Answers a run of a program.
///
/// # Errors
/// Where there is no such program, or it has no such request.
pub(crate) fn answer(program: &str, envelope: &Envelope<Value>, world: &World) -> Result<StepResult> {
    let payload = envelope.payload.clone();
    match program {
        "/provider-local" => Ok(provider(serde_json::from_value(payload)?, envelope, world)),
        "/provisioning-runner" => Ok(runner(serde_json::from_value(payload)?, envelope)),
        other => bail!("no executor is called {other}"),
    }
}

fn provider(request: ProviderRequest, envelope: &Envelope<Value>, world: &World) -> StepResult {
    let machine = || format!("stand-in/{}/{}", envelope.owner.namespace, envelope.owner.name);
    let running = [("state", "Running".to_owned()), ("address", world.address.to_string())];
    let host_key = ("hostKey", world.host_key.clone());
    match request {
        ProviderRequest::Describe { .. } => {
            succeeded(["zones", "sizes", "images"].map(|name| (name, world.catalog[name].to_string())))
        }
        ProviderRequest::Create { .. } => succeeded([host_key]).with_external_id(machine()),
        ProviderRequest::Observe { .. } => succeeded(running.into_iter().chain([host_key])).with_external_id(machine()),
        ProviderRequest::Delete { .. } => succeeded([]),
        ProviderRequest::List { .. } => {
            succeeded([("resources", "[]".to_owned()), ("total", "0".to_owned()), ("omitted", "0".to_owned())])
        }
    }
}

fn runner(request: RunnerRequest, envelope: &Envelope<Value>) -> StepResult {
    match request {
        RunnerRequest::Reach { target } => {
            let machine: String = envelope.owner.uid.chars().filter(char::is_ascii_hexdigit).collect();
            succeeded([("machineID", machine), ("hostname", target.server)])
        }
        RunnerRequest::Script(script) => match script.script {
            Script::Install => succeeded([
                ("version", "7.0.15".to_owned()),
                ("port", "6379".to_owned()),
                ("hostname", script.target.server),
                ("address", script.target.address),
            ]),
            Script::Check | Script::Uninstall | Script::Named(_) => succeeded([]),
        },
    }
}

fn succeeded(outputs: impl IntoIterator<Item = (&'static str, String)>) -> StepResult {
    let outputs = outputs.into_iter().map(|(name, value)| (name.to_owned(), value));
    StepResult::succeeded(outputs.collect::<BTreeMap<_, _>>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(program: &str, payload: Value) -> Result<StepResult> {
        let envelope = json!({"owner": {"kind": "Server", "namespace": "marsh", "name": "heron", "uid": "1a-2b"},
            "step": "create", "run": 1, "epoch": 1, "direction": "Forward", "inputHash": "v1:0", "timeoutSeconds": 60,
            "installation": "i", "payload": payload});
        let world = World {
            catalog: json!({"zones": ["north"], "sizes": [], "images": []}),
            address: [10, 0, 0, 1].into(),
            host_key: "ssh-ed25519 AAAA".to_owned(),
        };
        answer(program, &serde_json::from_value(envelope).unwrap(), &world)
    }

    #[test]
    fn a_provider_is_answered_for_with_what_its_steps_need() {
        let described = ask("/provider-local", json!({"call": "describe", "site": "s"})).unwrap();
        assert_eq!(described.outputs["zones"], r#"["north"]"#);
        let creation = json!({"provider": "Local", "site": "s", "zone": "north", "cores": 1, "memoryMiB": 512, "diskGiB": 10,
            "reservedPercent": 10, "image": "i", "userKey": "k", "token": "t"});
        let created = json!({"call": "create", "hostname": "heron", "incarnation": 1, "creation": creation});
        let created = ask("/provider-local", created).unwrap();
        assert_eq!(created.external_id.as_deref(), Some("stand-in/marsh/heron"));
        let observed = json!({"call": "observe", "incarnation": 1, "creation": creation});
        let observed = ask("/provider-local", observed).unwrap();
        assert_eq!((observed.outputs["state"].as_str(), observed.outputs["address"].as_str()), ("Running", "10.0.0.1"));
        assert_eq!(created.outputs["hostKey"], observed.outputs["hostKey"]);
    }

    #[test]
    fn the_runner_is_answered_for_and_a_stranger_is_not() {
        let target = json!({"server": "heron", "address": "10.0.0.1", "port": 22, "user": "root", "hostKey": "k"});
        let reached = ask("/provisioning-runner", json!({"call": "reach", "target": target})).unwrap();
        assert_eq!(reached.outputs["machineID"], "1a2b");
        let script = json!({"call": "script", "target": target, "script": "check", "parameters": {},
            "extension": {"name": "redis", "version": "0.2.1", "digest": "sha256:0"}});
        assert_eq!(ask("/provisioning-runner", script).unwrap().class, None);
        assert!(ask("/bin/sh", json!({})).is_err());
    }
}
