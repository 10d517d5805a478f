//! A BatchWorkflow from flags: servers, and services on them.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::{Value, json};

use super::server::MachineFlags;
use super::taskserv::extension;
use super::{Flags, deletion_policy, set, word};

/// Flags of a BatchWorkflow.
#[derive(Clone, Debug, Args)]
pub(super) struct BatchFlags {
    /// A step that applies a Server of this name; all servers are alike. May be given often
    #[arg(long = "server", value_name = "NAME", required_unless_present = "taskservs")]
    servers: Vec<String>,
    #[command(flatten)]
    machine: MachineFlags,
    /// A step that applies a Taskserv on servers, after those of them that are steps too. May be given often
    #[arg(long = "taskserv", value_name = "[NAME=]EXTENSION[@VERSION]@SERVER[,SERVER…]", value_parser = service)]
    taskservs: Vec<Service>,
    /// How many steps may be open at the same time. Default 4
    #[arg(long, value_name = "NUMBER")]
    parallelism: Option<i32>,
    /// What follows when a step has failed for good: Continue (the default) or Pause
    #[arg(long, value_name = "WHAT", value_parser = on_failure)]
    on_failure: Option<String>,
    /// Whether what it made goes with it: Orphan (the default) or Delete
    #[arg(long, value_name = "POLICY", value_parser = deletion_policy)]
    deletion_policy: Option<String>,
    /// Start nothing before spec.suspend is false
    #[arg(long)]
    suspend: bool,
}

/// A service on servers.
#[derive(Clone, Debug)]
struct Service {
    name: String,
    extension: Value,
    servers: Vec<String>,
}

fn service(text: &str) -> Result<Service, String> {
    let wrong = || format!("'{text}' is not [NAME=]EXTENSION[@VERSION]@SERVER[,SERVER…], such as cache=redis@heron");
    let (rest, servers) = text.rsplit_once('@').ok_or_else(wrong)?;
    // A version may have an equal sign (`redis@=0.2.0@heron`); a name comes before the first `@`.
    let named = rest.split_once('=').filter(|(name, _)| !name.contains('@'));
    let (name, reference) = named.map_or((None, rest), |(name, reference)| (Some(name), reference));
    let extension = extension(reference);
    let own = extension["name"].as_str().unwrap_or_default();
    let name = name.unwrap_or(own).to_owned();
    if name.is_empty() || own.is_empty() || servers.split(',').any(str::is_empty) {
        return Err(wrong());
    }
    Ok(Service { name, extension, servers: servers.split(',').map(str::to_owned).collect() })
}

fn on_failure(text: &str) -> Result<String, String> {
    word(text, &["Continue", "Pause"])
}

impl Flags for BatchFlags {
    fn spec(self, _name: &str) -> Result<Value, String> {
        let mut names = BTreeSet::new();
        let all = self.servers.iter().chain(self.taskservs.iter().map(|service| &service.name));
        if let Some(twice) = all.into_iter().find(|name| !names.insert(name.as_str())) {
            return Err(format!("two steps would be called '{twice}'; name a service with NAME=EXTENSION@SERVER"));
        }
        let machine = self.machine.spec();
        let servers =
            self.servers.iter().map(|name| json!({"name": name, "apply": {"server": {"name": name, "spec": machine}}}));
        let taskservs = self.taskservs.iter().map(|Service { name, extension, servers }| {
            let own = servers.iter().filter(|server| self.servers.contains(server));
            let before: Vec<Value> = own.map(|server| json!({"step": server})).collect();
            let spec = json!({"extension": extension, "servers": servers});
            let mut step = json!({"name": name, "apply": {"taskserv": {"name": name, "spec": spec}}});
            set(&mut step, "dependsOn", (!before.is_empty()).then_some(before));
            step
        });
        let mut spec = json!({"steps": servers.chain(taskservs).collect::<Vec<Value>>()});
        set(&mut spec, "parallelism", self.parallelism);
        set(&mut spec, "onFailure", self.on_failure);
        set(&mut spec, "deletionPolicy", self.deletion_policy);
        set(&mut spec, "suspend", self.suspend.then_some(true));
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::kinds::Kind;
    use crate::make::tests::{document, spec};

    #[test]
    fn a_service_comes_after_those_of_its_servers_that_are_steps() {
        let line = "first --server heron --server curlew --size medium --taskserv cache=redis@^0.2@heron,avocet \
                    --taskserv nginx@avocet --deletion-policy delete --on-failure pause --parallelism 2";
        let made = spec(Kind::BatchWorkflow, line);
        let machine = json!({"providerConfigRef": {"name": "local"}, "providerSize": "medium",
            "image": {"os": "debian", "version": "12"}});
        let server = |name: &str| json!({"name": name, "apply": {"server": {"name": name, "spec": machine}}});
        let cache = json!({"name": "cache", "dependsOn": [{"step": "heron"}], "apply": {"taskserv": {"name": "cache",
            "spec": {"extension": {"name": "redis", "version": "^0.2"}, "servers": ["heron", "avocet"]}}}});
        let nginx = json!({"name": "nginx", "apply": {"taskserv": {"name": "nginx",
            "spec": {"extension": {"name": "nginx"}, "servers": ["avocet"]}}}});
        let expected: Value = json!({"steps": [server("heron"), server("curlew"), cache, nginx], "parallelism": 2,
            "onFailure": "Pause", "deletionPolicy": "Delete"});
        assert_eq!(made, expected);
    }

    #[test]
    fn an_exact_version_is_no_name() {
        let made = spec(Kind::BatchWorkflow, "first --taskserv redis@=0.2.0@heron");
        assert_eq!(
            made["steps"][0]["apply"]["taskserv"]["spec"]["extension"],
            json!({"name": "redis", "version": "=0.2.0"})
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let wrong = |line: &str| document(Kind::BatchWorkflow, line).unwrap_err();
        assert!(wrong("first").contains("--server <NAME>"), "{}", wrong("first"));
        assert!(wrong("first --taskserv redis").contains("such as cache=redis@heron"));
        assert!(wrong("first --taskserv redis@heron,").contains("such as cache=redis@heron"));
        assert!(wrong("first --server redis --taskserv redis@redis").contains("two steps would be called 'redis'"));
    }
}
