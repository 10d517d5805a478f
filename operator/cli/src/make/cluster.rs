//! A Cluster from flags: groups of Servers that are there, and services over them.

use clap::Args;
use serde_json::{Value, json};

use super::taskserv::{extension, value};
use super::{Flags, deletion_policy, pair, set};

/// Flags of a Cluster.
#[derive(Clone, Debug, Args)]
pub(super) struct ClusterFlags {
    /// Servers that are there, with commas, as a group. May be given often
    #[arg(long = "group", value_name = "GROUP=SERVERS", required = true, value_parser = pair)]
    groups: Vec<(String, String)>,
    /// An extension on all servers of a group, such as nginx=web or nginx@^0.1=web; the service has the extension's
    /// name. May be given often
    #[arg(long = "taskserv", value_name = "EXTENSION=GROUP", value_parser = pair)]
    taskservs: Vec<(String, String)>,
    /// A parameter of a service; its value is read as YAML. May be given often
    #[arg(short, long = "parameter", value_name = "TASKSERV.NAME=VALUE", value_parser = pair)]
    parameters: Vec<(String, String)>,
    /// Groups, with commas, whose addresses a service's scripts are told. May be given often
    #[arg(long, value_name = "TASKSERV=GROUPS", value_parser = pair)]
    peers: Vec<(String, String)>,
    /// Services, with commas, that come before a service. May be given often
    #[arg(long = "after", value_name = "TASKSERV=TASKSERVS", value_parser = pair)]
    after: Vec<(String, String)>,
    /// A port of a group's servers where the cluster is reached, such as http=front:80. May be given often
    #[arg(long = "endpoint", value_name = "NAME=GROUP:PORT", value_parser = pair)]
    endpoints: Vec<(String, String)>,
    /// Whether what it made goes with it: Delete (the default) or Orphan
    #[arg(long, value_name = "POLICY", value_parser = deletion_policy)]
    deletion_policy: Option<String>,
    /// Start nothing before spec.suspend is false
    #[arg(long)]
    suspend: bool,
}

fn names(text: &str) -> Vec<&str> {
    text.split(',').collect()
}

/// The service of this name, to add something to it.
fn service<'a>(taskservs: &'a mut [Value], flag: &str, name: &str) -> Result<&'a mut Value, String> {
    let found = taskservs.iter_mut().find(|taskserv| taskserv["name"] == name);
    found.ok_or_else(|| format!("{flag} {name}: there is no --taskserv {name}=GROUP"))
}

impl Flags for ClusterFlags {
    fn spec(self, _: &str) -> Result<Value, String> {
        let group = |(name, servers): &(String, String)| json!({"name": name, "servers": names(servers)});
        let mut spec = json!({"serverGroups": self.groups.iter().map(group).collect::<Vec<_>>()});
        let one = |(text, group): &(String, String)| {
            let extension = extension(text);
            json!({"name": extension["name"], "group": group, "extension": extension})
        };
        let mut taskservs: Vec<Value> = self.taskservs.iter().map(one).collect();
        for (path, text) in &self.parameters {
            let (name, parameter) =
                path.split_once('.').ok_or_else(|| format!("--parameter {path}: write TASKSERV.NAME=VALUE"))?;
            service(&mut taskservs, "--parameter", name)?["parameters"][parameter] = value(text);
        }
        for (name, groups) in &self.peers {
            service(&mut taskservs, "--peers", name)?["peers"] = json!(names(groups));
        }
        for (name, others) in &self.after {
            let others: Vec<Value> = names(others).into_iter().map(|other| json!({"taskserv": other})).collect();
            service(&mut taskservs, "--after", name)?["dependsOn"] = json!(others);
        }
        let endpoints = self.endpoints.iter().map(|(name, text)| {
            let place = text.rsplit_once(':').and_then(|(group, port)| Some((group, port.parse::<u16>().ok()?)));
            let (group, port) = place.ok_or_else(|| format!("--endpoint {name}={text}: write NAME=GROUP:PORT"))?;
            Ok(json!({"name": name, "group": group, "port": port}))
        });
        let endpoints: Vec<Value> = endpoints.collect::<Result<_, String>>()?;
        set(&mut spec, "taskservs", (!taskservs.is_empty()).then_some(taskservs));
        set(&mut spec, "endpoints", (!endpoints.is_empty()).then_some(endpoints));
        set(&mut spec, "deletionPolicy", self.deletion_policy);
        set(&mut spec, "suspend", self.suspend.then_some(true));
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::kinds::Kind;
    use crate::make::tests::{document, spec};

    #[test]
    fn groups_services_and_endpoints_are_those_of_the_flags() {
        let line = "web --group front=heron --group pages=curlew,egret --taskserv nginx=pages --taskserv haproxy@^0.1=front \
                    -p nginx.port=8081 -p haproxy.backendGroup=pages --peers haproxy=pages --after haproxy=nginx \
                    --endpoint http=front:80";
        let made = spec(Kind::Cluster, line);
        assert_eq!(made["serverGroups"][1], json!({"name": "pages", "servers": ["curlew", "egret"]}));
        let nginx =
            json!({"name": "nginx", "group": "pages", "extension": {"name": "nginx"}, "parameters": {"port": 8081}});
        assert_eq!(made["taskservs"][0], nginx);
        let haproxy = json!({"name": "haproxy", "group": "front", "extension": {"name": "haproxy", "version": "^0.1"},
            "parameters": {"backendGroup": "pages"}, "peers": ["pages"], "dependsOn": [{"taskserv": "nginx"}]});
        assert_eq!(made["taskservs"][1], haproxy);
        assert_eq!(made["endpoints"], json!([{"name": "http", "group": "front", "port": 80}]));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let wrong = |line: &str| document(Kind::Cluster, line).unwrap_err();
        assert!(wrong("web").contains("--group"), "{}", wrong("web"));
        let unknown = "--peers nginx: there is no --taskserv nginx=GROUP";
        assert_eq!(wrong("web --group pages=curlew --peers nginx=pages"), unknown);
        assert!(wrong("web --group pages=curlew --endpoint http=pages").contains("write NAME=GROUP:PORT"));
    }
}
