//! A Taskserv from flags.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use serde_json::{Map, Value, json};

use super::{Flags, deletion_policy, pair, set};
use crate::complete;

/// Flags of a Taskserv.
#[derive(Clone, Debug, Args)]
pub(super) struct TaskservFlags {
    /// What is installed, and which versions may be. Default: the extension of the Taskserv's own name, the newest
    #[arg(long, value_name = "NAME[@VERSION]", add = ArgValueCompleter::new(complete::extensions))]
    extension: Option<String>,
    /// The Servers that it is installed on, with commas
    #[arg(long, value_name = "NAMES", required = true, value_delimiter = ',', add = ArgValueCompleter::new(complete::servers))]
    servers: Vec<String>,
    /// A parameter of the extension; its value is read as YAML. May be given often
    #[arg(short, long = "parameter", value_name = "NAME=VALUE", value_parser = pair)]
    parameters: Vec<(String, String)>,
    /// A secret parameter, from a Secret of the namespace. May be given often
    #[arg(long = "secret", value_name = "NAME=SECRET/KEY", value_parser = secret)]
    secrets: Vec<(String, Secret)>,
    /// Servers whose addresses the scripts are told, as a group. May be given often
    #[arg(long, value_name = "GROUP=NAMES", value_parser = pair)]
    peers: Vec<(String, String)>,
    /// Whether it is uninstalled with the object: Delete (the default) or Orphan
    #[arg(long, value_name = "POLICY", value_parser = deletion_policy)]
    deletion_policy: Option<String>,
    /// Start nothing before spec.suspend is false
    #[arg(long)]
    suspend: bool,
}

/// Where a secret is.
#[derive(Clone, Debug)]
struct Secret {
    name: String,
    key: String,
}

fn secret(text: &str) -> Result<(String, Secret), String> {
    let (name, place) = pair(text)?;
    match place.split_once('/') {
        Some((secret, key)) => Ok((name, Secret { name: secret.to_owned(), key: key.to_owned() })),
        None => Err(format!("'{text}' is not NAME=SECRET/KEY; a secret's value is never an argument")),
    }
}

/// `redis` or `redis@^1.2`, as the reference that specs have.
pub(super) fn extension(text: &str) -> Value {
    match text.split_once('@') {
        Some((name, version)) => json!({"name": name, "version": version}),
        None => json!({"name": text}),
    }
}

/// A value as a manifest would have it: `7000` is a number, `true` a boolean, `0.0.0.0` a text.
pub(super) fn value(text: &str) -> Value {
    match serde_saphyr::from_str(text) {
        Ok(Value::Null) | Err(_) => json!(text),
        Ok(value) => value,
    }
}

impl Flags for TaskservFlags {
    fn spec(self, name: &str) -> Result<Value, String> {
        let reference = extension(self.extension.as_deref().unwrap_or(name));
        let mut spec = json!({"extension": reference, "servers": self.servers});
        let parameters = self.parameters.into_iter().map(|(name, text)| (name, value(&text)));
        let secrets = self.secrets.into_iter();
        let secrets =
            secrets.map(|(name, Secret { name: secret, key })| (name, json!({"secretName": secret, "key": key})));
        let peers = self.peers.into_iter().map(|(group, names)| (group, json!(names.split(',').collect::<Vec<_>>())));
        set(&mut spec, "parameters", map("--parameter", parameters)?);
        set(&mut spec, "secretParameters", map("--secret", secrets)?);
        set(&mut spec, "peers", map("--peers", peers)?);
        set(&mut spec, "deletionPolicy", self.deletion_policy);
        set(&mut spec, "suspend", self.suspend.then_some(true));
        Ok(spec)
    }
}

/// A map, unless it would be empty. A name that is given twice is a slip.
fn map(flag: &str, pairs: impl Iterator<Item = (String, Value)>) -> Result<Option<Value>, String> {
    let mut map = Map::new();
    for (name, value) in pairs {
        if map.insert(name.clone(), value).is_some() {
            return Err(format!("{flag} {name} is given twice"));
        }
    }
    Ok((!map.is_empty()).then_some(Value::Object(map)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::kinds::Kind;
    use crate::make::tests::{document, spec};

    #[test]
    fn the_extension_is_that_of_the_own_name() {
        let expected = json!({"extension": {"name": "redis"}, "servers": ["heron", "curlew"]});
        assert_eq!(spec(Kind::Taskserv, "redis --servers heron,curlew"), expected);
        let made = spec(Kind::Taskserv, "cache --extension redis@^0.2 --servers heron");
        assert_eq!(made["extension"], json!({"name": "redis", "version": "^0.2"}));
    }

    #[test]
    fn parameters_have_the_types_of_yaml() {
        let line = "redis --servers heron -p port=7000 -p bind=0.0.0.0 -p on=true -p list=[a,1] -p none= -p odd={ \
                    --secret password=taskserv-redis/password --peers web=heron,curlew --deletion-policy Orphan --suspend";
        let made = spec(Kind::Taskserv, line);
        let parameters = json!({"port": 7000, "bind": "0.0.0.0", "on": true, "list": ["a", 1], "none": "", "odd": "{"});
        assert_eq!(made["parameters"], parameters);
        let secrets = json!({"password": {"secretName": "taskserv-redis", "key": "password"}});
        assert_eq!(made["secretParameters"], secrets);
        assert_eq!(made["peers"], json!({"web": ["heron", "curlew"]}));
        assert_eq!((&made["deletionPolicy"], &made["suspend"]), (&json!("Orphan"), &json!(true)));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let wrong = |line: &str| document(Kind::Taskserv, line).unwrap_err();
        assert!(wrong("redis").contains("--servers"), "{}", wrong("redis"));
        assert_eq!(wrong("redis --servers heron -p port=1 -p port=2"), "--parameter port is given twice");
        assert!(wrong("redis --servers heron --secret password=hunter2").contains("is not NAME=SECRET/KEY"));
    }
}
