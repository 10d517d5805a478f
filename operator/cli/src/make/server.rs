//! A Server from flags.

use clap::Args;
use serde_json::{Value, json};

use super::{Flags, deletion_policy, set};

/// What machines are: shared by all that make Servers.
#[derive(Clone, Debug, Args)]
pub(super) struct MachineFlags {
    /// The ProviderConfig that makes it
    #[arg(long, value_name = "NAME", default_value = "local")]
    provider_config: String,
    /// Size by the provider's name for it; `small` where no other size is given
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["cores", "memory", "disk"])]
    size: Option<String>,
    /// Size in numbers: processor cores
    #[arg(long, value_name = "NUMBER", requires_all = ["memory", "disk"])]
    cores: Option<i32>,
    /// Size in numbers: memory, such as 512Mi or 2Gi
    #[arg(long, value_name = "QUANTITY", requires_all = ["cores", "disk"])]
    memory: Option<String>,
    /// Size in numbers: disk, such as 10Gi
    #[arg(long, value_name = "QUANTITY", requires_all = ["cores", "memory"])]
    disk: Option<String>,
    /// Operating system and its version
    #[arg(long, value_name = "OS:VERSION", default_value = "debian:12", value_parser = image)]
    image: (String, String),
    /// The provider's identifier of an image, instead of --image
    #[arg(long, value_name = "ID", conflicts_with = "image")]
    image_id: Option<String>,
    /// Zone. Default: that of the ProviderConfig
    #[arg(long)]
    zone: Option<String>,
}

/// Flags of a Server.
#[derive(Clone, Debug, Args)]
pub(super) struct ServerFlags {
    #[command(flatten)]
    machine: MachineFlags,
    /// Whether the machine goes with the object: Delete (the default) or Orphan
    #[arg(long, value_name = "POLICY", value_parser = deletion_policy)]
    deletion_policy: Option<String>,
    /// Start nothing before spec.suspend is false
    #[arg(long)]
    suspend: bool,
}

fn image(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((os, version)) if !os.is_empty() && !version.is_empty() => Ok((os.to_owned(), version.to_owned())),
        _ => Err(format!("'{text}' is not OS:VERSION, such as debian:12")),
    }
}

impl MachineFlags {
    /// The spec of a Server of this kind.
    pub(super) fn spec(&self) -> Value {
        let image = match &self.image_id {
            Some(id) => json!({"id": id}),
            None => json!({"os": self.image.0, "version": self.image.1}),
        };
        let mut spec = json!({"providerConfigRef": {"name": self.provider_config}, "image": image});
        match (self.cores, &self.memory, &self.disk) {
            (Some(cores), Some(memory), Some(disk)) => {
                spec["size"] = json!({"cores": cores, "memory": memory, "disk": disk});
            }
            _ => spec["providerSize"] = json!(self.size.as_deref().unwrap_or("small")),
        }
        set(&mut spec, "zone", self.zone.clone());
        spec
    }
}

impl Flags for ServerFlags {
    fn spec(self, _name: &str) -> Result<Value, String> {
        let mut spec = self.machine.spec();
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
    fn a_server_needs_no_more_than_a_name() {
        let expected = json!({"providerConfigRef": {"name": "local"}, "providerSize": "small",
            "image": {"os": "debian", "version": "12"}});
        assert_eq!(spec(Kind::Server, "heron"), expected);
    }

    #[test]
    fn what_is_asked_for_is_in_the_spec_and_nothing_else() {
        let line = "heron --provider-config marsh --cores 2 --memory 1Gi --disk 10Gi --image-id img-1 --zone marsh-a \
                    --deletion-policy orphan --suspend";
        let expected = json!({"providerConfigRef": {"name": "marsh"}, "size": {"cores": 2, "memory": "1Gi", "disk": "10Gi"},
            "image": {"id": "img-1"}, "zone": "marsh-a", "deletionPolicy": "Orphan", "suspend": true});
        assert_eq!(spec(Kind::Server, line), expected);
    }

    #[test]
    fn half_a_size_is_no_size() {
        let wrong = |line: &str| document(Kind::Server, line).unwrap_err();
        assert!(wrong("heron --cores 2").contains("--memory <QUANTITY>"));
        assert!(wrong("heron --size small --cores 2 --memory 1Gi --disk 1Gi").contains("cannot be used with"));
        assert!(wrong("heron --image debian").contains("'debian' is not OS:VERSION"));
    }
}
