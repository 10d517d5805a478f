//! The kinds, known to this program from the start: nothing is discovered.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::discovery::ApiResource;
use provisioning_api::names::{GROUP, WORKSPACE_NAME};
use provisioning_api::{BatchWorkflow, Cluster, ProviderConfig, Server, Taskserv, Workspace};
use provisioning_plan::nearest::hint;

use crate::names::{self, NameError};

/// An argument is no kind, or no object.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KindError {
    #[error("unknown kind '{name}'{}; an object is KIND NAME or KIND/NAME; kinds: {}", hint(.name, all_names()), known())]
    Unknown { name: String },
    #[error("{0}: a name is missing; write '{0} NAME' or '{0}/NAME'")]
    NoName(&'static str),
    #[error("'{0}' is not KIND/NAME, as the arguments before it are")]
    Mixed(String),
    #[error("{kind}: {source}")]
    Name { kind: &'static str, source: NameError },
}

/// One of our kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Workspace,
    ProviderConfig,
    BatchWorkflow,
    Cluster,
    Server,
    Taskserv,
}

impl Kind {
    /// In the order in which people meet them.
    pub(crate) const ALL: [Kind; 6] =
        [Kind::Workspace, Kind::ProviderConfig, Kind::BatchWorkflow, Kind::Cluster, Kind::Server, Kind::Taskserv];

    /// As in manifests.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Workspace => "Workspace",
            Kind::ProviderConfig => "ProviderConfig",
            Kind::BatchWorkflow => "BatchWorkflow",
            Kind::Cluster => "Cluster",
            Kind::Server => "Server",
            Kind::Taskserv => "Taskserv",
        }
    }

    /// As in commands.
    pub(crate) fn singular(self) -> &'static str {
        match self {
            Kind::Workspace => "workspace",
            Kind::ProviderConfig => "providerconfig",
            Kind::BatchWorkflow => "batchworkflow",
            Kind::Cluster => "cluster",
            Kind::Server => "server",
            Kind::Taskserv => "taskserv",
        }
    }

    pub(crate) fn plural(self) -> &'static str {
        match self {
            Kind::Workspace => "workspaces",
            Kind::ProviderConfig => "providerconfigs",
            Kind::BatchWorkflow => "batchworkflows",
            Kind::Cluster => "clusters",
            Kind::Server => "servers",
            Kind::Taskserv => "taskservs",
        }
    }

    pub(crate) fn short(self) -> &'static str {
        match self {
            Kind::Workspace => "ws",
            Kind::ProviderConfig => "pcfg",
            Kind::BatchWorkflow => "bwf",
            Kind::Cluster => "clu",
            Kind::Server => "srv",
            Kind::Taskserv => "tsv",
        }
    }

    /// Where its objects are on the API server.
    pub(crate) fn resource(self) -> ApiResource {
        match self {
            Kind::Workspace => ApiResource::erase::<Workspace>(&()),
            Kind::ProviderConfig => ApiResource::erase::<ProviderConfig>(&()),
            Kind::BatchWorkflow => ApiResource::erase::<BatchWorkflow>(&()),
            Kind::Cluster => ApiResource::erase::<Cluster>(&()),
            Kind::Server => ApiResource::erase::<Server>(&()),
            Kind::Taskserv => ApiResource::erase::<Taskserv>(&()),
        }
    }

    /// Its definition as it is installed; holds the schema that manifests are checked against.
    pub(crate) fn crd(self) -> Option<CustomResourceDefinition> {
        provisioning_api::all_crds().into_iter().find(|crd| crd.spec.names.kind == self.name())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.singular())
    }
}

impl FromStr for Kind {
    type Err = KindError;

    /// Takes singular, plural and short names in any case, with or without the group.
    fn from_str(text: &str) -> Result<Self, KindError> {
        let lower = text.to_ascii_lowercase();
        let bare = lower.strip_suffix(GROUP).and_then(|rest| rest.strip_suffix('.')).unwrap_or(&lower);
        let is = |kind: &Kind| [kind.singular(), kind.plural(), kind.short()].contains(&bare);
        let also = || ALSO.into_iter().find(|(word, _)| *word == bare).map(|(_, kind)| kind);
        Kind::ALL.into_iter().find(is).or_else(also).ok_or_else(|| KindError::Unknown { name: text.to_owned() })
    }
}

/// Words of this program for kinds, beside those of the definitions: as the groups of commands are called.
const ALSO: [(&str, Kind); 1] = [("batch", Kind::BatchWorkflow)];

fn all_names() -> impl Iterator<Item = &'static str> {
    Kind::ALL.into_iter().flat_map(|kind| [kind.singular(), kind.plural(), kind.short()])
}

/// The kinds with their short names, for help and messages.
pub(crate) fn known() -> String {
    Kind::ALL.map(|kind| format!("{} ({})", kind.singular(), kind.short())).join(", ")
}

/// One object by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

impl Target {
    /// An object that somebody names.
    pub(crate) fn named(kind: Kind, name: &str) -> Result<Self, KindError> {
        names::check(name).map_err(|source| KindError::Name { kind: kind.singular(), source })?;
        Ok(Self { kind, name: name.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.kind, self.name)
    }
}

/// Reads `KIND NAME…`, `KIND/NAME…`, or `workspace` alone: there is one in a namespace.
pub(crate) fn targets(words: &[String]) -> Result<Vec<Target>, KindError> {
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if first.contains('/') {
        let target = |word: &String| {
            let (kind, name) = word.split_once('/').ok_or_else(|| KindError::Mixed(word.clone()))?;
            let kind: Kind = kind.parse()?;
            if name.is_empty() { Err(KindError::NoName(kind.singular())) } else { Target::named(kind, name) }
        };
        return words.iter().map(target).collect();
    }
    let kind: Kind = first.parse()?;
    match (kind, &words[1..]) {
        (Kind::Workspace, []) => Ok(vec![Target { kind, name: WORKSPACE_NAME.to_owned() }]),
        (_, []) => Err(KindError::NoName(kind.singular())),
        (_, names) => names.iter().map(|name| Target::named(kind, name)).collect(),
    }
}

/// Reads a list of kinds for `list` and `watch`: `all`, several words, or one word with commas. Nothing means all.
pub(crate) fn kinds(words: &[String]) -> Result<Vec<Kind>, KindError> {
    let mut kinds = Vec::new();
    for word in words.iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()) {
        if word == "all" {
            return Ok(Kind::ALL.to_vec());
        }
        let kind = word.parse()?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(if kinds.is_empty() { Kind::ALL.to_vec() } else { kinds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn names_are_those_of_the_definitions() {
        for kind in Kind::ALL {
            let names = kind.crd().unwrap().spec.names;
            assert_eq!(names.kind, kind.name());
            assert_eq!(names.plural, kind.plural());
            assert_eq!(names.singular.as_deref(), Some(kind.singular()));
            assert_eq!(names.short_names, Some(vec![kind.short().to_owned()]));
        }
    }

    #[test]
    fn a_kind_has_many_spellings() {
        for text in ["srv", "server", "servers", "Server", "SERVERS", "servers.provisioning.dev"] {
            assert_eq!(text.parse::<Kind>().unwrap(), Kind::Server, "{text}");
        }
        let error = "sever".parse::<Kind>().unwrap_err().to_string();
        assert!(error.starts_with("unknown kind 'sever' (did you mean 'server'?); an object is KIND NAME or KIND/NAME; kinds: workspace (ws), "), "{error}");
        assert!("pods".parse::<Kind>().is_err());
        assert_eq!("batch".parse::<Kind>().unwrap(), Kind::BatchWorkflow);
    }

    #[test]
    fn objects_are_named_in_both_ways_of_kubectl() {
        let shown = |text: &str| targets(&words(text)).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown("srv heron curlew"), ["server/heron", "server/curlew"]);
        assert_eq!(shown("srv/heron bwf/first"), ["server/heron", "batchworkflow/first"]);
        assert_eq!(shown("ws"), ["workspace/workspace"]);
        assert_eq!(
            targets(&words("srv")).unwrap_err().to_string(),
            "server: a name is missing; write 'server NAME' or 'server/NAME'"
        );
        assert!(targets(&words("srv/heron curlew")).is_err());
        assert!(targets(&words("srv/")).is_err());
    }

    #[test]
    fn what_can_name_no_object_is_told_before_anything_is_sent() {
        for name in names::tests::NONE {
            let words = [["server".to_owned(), name.to_owned()].to_vec(), vec![format!("server/{name}")]];
            assert!(words.iter().all(|words| targets(words).is_err()), "{name:?}");
        }
        let error = targets(&words("server heron #")).unwrap_err().to_string();
        assert_eq!(error, "server: '#' can't be a name: lower-case letters, digits and inner '-', 1 to 63 characters");
    }

    #[test]
    fn kinds_come_in_words_or_with_commas() {
        assert_eq!(kinds(&words("srv,tsv servers")).unwrap(), [Kind::Server, Kind::Taskserv]);
        assert_eq!(kinds(&words("all")).unwrap(), Kind::ALL);
        assert_eq!(kinds(&[]).unwrap(), Kind::ALL);
        assert!(kinds(&words("srv,tvs")).is_err());
    }
}
