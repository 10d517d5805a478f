//! `provisioning extension load`: a folder becomes an immutable ConfigMap of the operator's namespace.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use provisioning_api::names::{LABEL_EXTENSION, LABEL_EXTENSION_VERSION};
use provisioning_extensions::{ANNOTATION_DIGEST, Bundle, BundleError};
use provisioning_plan::settle::prefix;

use super::{Changed, ExtensionError, SYSTEM_NAMESPACE};
use crate::applying::FIELD_MANAGER;
use crate::cluster::{Cluster, ClusterArguments};
use crate::dry_run::DryRun;
use crate::error::Error;
use crate::exit::Exit;
use crate::names;
use crate::offers::Shelf;
use crate::output::{print, tell};
use crate::request::RequestError;
use crate::safe::one_line;

/// Most names that are told of what is left out.
const MAX_NOTES: usize = 16;
/// Most parameters that are named of those that KCL lacks, and most bytes of such a name.
const MAX_NAMES: usize = 16;
const MAX_NAME: usize = 64;

/// Arguments of `extension load`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Folder of the extension: the one with manifest.yaml
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The operator's namespace
    #[arg(long, value_name = "NAMESPACE", default_value = SYSTEM_NAMESPACE, value_parser = names::argument)]
    system_namespace: String,
    #[command(flatten)]
    dry_run: DryRun,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Loaded,
    /// The same content was there already.
    Unchanged,
}

/// Loads an extension.
pub(super) async fn run(arguments: Arguments, cluster: &ClusterArguments) -> Result<Exit, Error> {
    let Arguments { folder, system_namespace, dry_run } = arguments;
    let bundle = read(&folder)?;
    tell_what_is_left_out(&folder)?;
    tell_what_kcl_lacks(&bundle);
    if dry_run.is_client() {
        print(&format!("{} is valid{}\n", named(&bundle), dry_run.suffix()));
        return Ok(Exit::Done);
    }
    let cluster = Cluster::find(cluster).await?;
    let shelf = Shelf { cluster: &cluster, namespace: &system_namespace };
    let outcome = load(&shelf, &bundle, &folder, dry_run.is_server()).await?;
    let words = match outcome {
        Outcome::Loaded => "loaded into",
        Outcome::Unchanged => "unchanged: it is already in",
    };
    print(&format!("{} {words} namespace {system_namespace}{}\n", named(&bundle), dry_run.suffix()));
    Ok(Exit::Done)
}

fn named(bundle: &Bundle) -> String {
    let manifest = bundle.manifest();
    format!("extension/{} {} {}", manifest.name, manifest.version, bundle.digest())
}

fn read(folder: &Path) -> Result<Bundle, ExtensionError> {
    if folder.is_file() {
        return Err(ExtensionError::NotAFolder { file: shown(folder) });
    }
    Bundle::load_folder(folder).map_err(|source| wrong(folder, source))
}

/// A folder's name, which may hold anything.
fn shown(folder: &Path) -> String {
    one_line(&folder.display().to_string())
}

fn wrong(folder: &Path, source: BundleError) -> ExtensionError {
    ExtensionError::Bundle { folder: shown(folder), source: Box::new(source) }
}

/// A misspelt `schema.json` would be no schema at all, so what is not read is told.
fn tell_what_is_left_out(folder: &Path) -> Result<(), ExtensionError> {
    let left_out = Bundle::left_out(folder).map_err(|source| wrong(folder, source))?;
    for (name, near) in left_out.iter().take(MAX_NOTES) {
        let near = near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
        tell(&format!("note: {} is no part of an extension and is left out{near}", one_line(name)));
    }
    if let more @ 1.. = left_out.len().saturating_sub(MAX_NOTES) {
        tell(&format!("note: and {more} more"));
    }
    Ok(())
}

/// Nothing evaluates KCL here, so nothing else would notice that it was forgotten.
fn tell_what_kcl_lacks(bundle: &Bundle) {
    let missing = not_in_kcl(bundle);
    if !missing.is_empty() {
        let names = some_of(&missing);
        tell(&format!("note: kcl/ lacks parameters of schema.json; add them for people who write KCL: {names}"));
    }
}

/// The first names, as many as fit, and how many more there are.
fn some_of(names: &[&str]) -> String {
    let told = names.iter().take(MAX_NAMES).map(|name| one_line(&prefix(name, MAX_NAME)));
    let more = names.len().saturating_sub(MAX_NAMES);
    let more = (more > 0).then(|| format!("and {more} more"));
    told.chain(more).collect::<Vec<_>>().join(", ")
}

/// Parameters that a bundle with KCL files has in its schema, and in none of these as an attribute.
fn not_in_kcl(bundle: &Bundle) -> Vec<&str> {
    let is_kcl = |path: &str| path.starts_with("kcl/") && path.ends_with(".k");
    let files = bundle.files().iter().filter(|(path, _)| is_kcl(path.as_str()));
    let texts: Vec<&str> = files.filter_map(|(_, content)| std::str::from_utf8(content).ok()).collect();
    if texts.is_empty() {
        return Vec::new();
    }
    // What stands between two of these is a comment; it names attributes, too.
    let code = texts.iter().flat_map(|text| text.split("\"\"\"").step_by(2));
    let known: BTreeSet<&str> = code.flat_map(str::lines).filter_map(attribute).collect();
    let properties = bundle.schema().and_then(|schema| schema.schema().get("properties")?.as_object());
    let names = properties.into_iter().flat_map(|properties| properties.keys());
    names.map(String::as_str).filter(|name| !known.contains(*name)).collect()
}

/// `name: type` or `name?: type`; a name that is a word of KCL has a `$` in front, one that is no name has quotes.
fn attribute(line: &str) -> Option<&str> {
    let (name, _) = line.trim_start().split_once(':')?;
    // `check:` opens the rules of a schema.
    let name = name.trim_end().trim_end_matches('?').trim_end();
    (name != "check").then(|| name.trim_start_matches('$').trim_matches('"'))
}

/// Creates the ConfigMap, unless it is there. One version never has two contents: which one a Taskserv means could not be
/// known.
async fn load(shelf: &Shelf<'_>, bundle: &Bundle, folder: &Path, dry_run: bool) -> Result<Outcome, Error> {
    let what = format!("{} in namespace {}", named(bundle), shelf.namespace);
    let failed = |verb, error| RequestError::new(shelf.cluster, verb, what.clone(), error);
    let manifest = bundle.manifest();
    let same = format!("{LABEL_EXTENSION}={},{LABEL_EXTENSION_VERSION}={}", manifest.name, manifest.version);
    let present = shelf.maps().list_metadata(&ListParams::default().labels(&same)).await;
    let present = present.map_err(|error| failed("look for", error))?.items;
    present.iter().try_for_each(|map| check(shelf, bundle, folder, &map.metadata))?;
    if !present.is_empty() {
        return Ok(Outcome::Unchanged);
    }
    let parameters = PostParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()) };
    match shelf.maps().create(&parameters, &config_map(bundle)).await {
        Ok(_) => Ok(Outcome::Loaded),
        // Somebody was faster, or the map has lost its labels.
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let map = shelf.maps().get_metadata(&bundle.config_map_name()).await;
            check(shelf, bundle, folder, &map.map_err(|error| failed("get", error))?.metadata)?;
            Ok(Outcome::Unchanged)
        }
        Err(error) => Err(failed("load", error).into()),
    }
}

/// Whether a map of the same version holds the same.
fn check(shelf: &Shelf<'_>, bundle: &Bundle, folder: &Path, map: &ObjectMeta) -> Result<(), ExtensionError> {
    let present = map.annotations.as_ref().and_then(|all| all.get(ANNOTATION_DIGEST)).cloned().unwrap_or_default();
    if present == bundle.digest() {
        return Ok(());
    }
    let manifest = bundle.manifest();
    Err(ExtensionError::Changed(Box::new(Changed {
        extension: format!("{} {}", manifest.name, manifest.version),
        namespace: shelf.namespace.to_owned(),
        present,
        map: map.name.clone().unwrap_or_default(),
        digest: bundle.digest().to_owned(),
        folder: shown(folder),
    })))
}

fn config_map(bundle: &Bundle) -> ConfigMap {
    let maps = bundle.to_config_map_data();
    let binary = maps.binary_data.into_iter().map(|(key, content)| (key, ByteString(content))).collect();
    let mut map = ConfigMap {
        metadata: ObjectMeta { name: Some(bundle.config_map_name()), ..ObjectMeta::default() },
        immutable: Some(true),
        data: Some(maps.data),
        binary_data: Some(binary),
    };
    map.labels_mut().extend(bundle.labels());
    map.annotations_mut().insert(ANNOTATION_DIGEST.to_owned(), bundle.digest().to_owned());
    map
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::offers::tests::{bundle, map};
    use crate::stub::{Stub, reply};

    /// A cluster that holds these maps, and says of every new one whether it exists.
    fn cluster(present: Vec<Value>, exists: bool) -> Stub {
        Stub::new(move |request| match (request.method().as_str(), request.uri().path().ends_with("/configmaps")) {
            ("GET", true) => reply(200, json!({"metadata": {}, "items": present})),
            ("GET", false) => reply(200, map(&bundle("answer", "0.1.0", "one"))),
            _ if exists => reply(409, json!({"kind": "Status", "code": 409, "reason": "AlreadyExists"})),
            _ => reply(201, json!({"metadata": {"name": "x"}})),
        })
    }

    async fn loaded(stub: &Stub, bundle: &Bundle) -> Result<Outcome, Error> {
        let cluster = stub.cluster();
        let shelf = Shelf { cluster: &cluster, namespace: "provisioning-system" };
        load(&shelf, bundle, Path::new("taskservs/answer"), false).await
    }

    #[tokio::test]
    async fn a_new_version_is_created() {
        let stub = cluster(Vec::new(), false);
        assert_eq!(loaded(&stub, &bundle("answer", "0.1.0", "one")).await.unwrap(), Outcome::Loaded);
        let maps = "/api/v1/namespaces/provisioning-system/configmaps?";
        let selector =
            "&labelSelector=provisioning.dev%2Fextension%3Danswer%2Cprovisioning.dev%2Fextension-version%3D0.1.0";
        let expected = [format!("GET {maps}{selector}"), format!("POST {maps}&fieldManager=provisioning-cli")];
        assert_eq!(stub.requests(), expected);
    }

    #[tokio::test]
    async fn the_same_content_twice_is_fine() {
        let one = bundle("answer", "0.1.0", "one");
        let stub = cluster(vec![map(&one)], false);
        assert_eq!(loaded(&stub, &one).await.unwrap(), Outcome::Unchanged);
        assert_eq!(stub.requests().len(), 1);
        // The map lost its labels, or somebody was faster.
        assert_eq!(loaded(&cluster(Vec::new(), true), &one).await.unwrap(), Outcome::Unchanged);
    }

    #[tokio::test]
    async fn another_content_needs_another_version() {
        let stub = cluster(vec![map(&bundle("answer", "0.1.0", "one"))], false);
        let error = loaded(&stub, &bundle("answer", "0.1.0", "two")).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Refused);
        let text = error.to_string();
        assert!(text.contains("a changed bundle needs a new version: raise `version` in taskservs/answer/"), "{text}");
        assert_eq!(stub.requests().len(), 1, "nothing is written");
    }

    #[test]
    fn a_folder_that_is_no_bundle_is_named_with_file_and_field() {
        let folder = tempfile::tempdir().unwrap();
        let manifest =
            "apiVersion: extension.provisioning.dev/v1alpha1\nkind: Extension\nname: Answer\nversion: 0.1.0\n";
        std::fs::write(folder.path().join("manifest.yaml"), manifest).unwrap();
        std::fs::create_dir(folder.path().join("scripts")).unwrap();
        for script in ["install", "check", "uninstall"] {
            std::fs::write(folder.path().join(format!("scripts/{script}.nu")), "").unwrap();
        }
        let error = read(folder.path()).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        let text = crate::cluster::causes(&error);
        assert!(text.starts_with(&folder.path().display().to_string()), "{text}");
        assert!(text.contains("manifest.yaml: name: \"Answer\" is no DNS label"), "{text}");
    }

    #[test]
    fn a_parameter_that_kcl_has_not_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("answer");
        crate::commands::extension::new::make("answer", &folder).unwrap();
        assert!(not_in_kcl(&read(&folder).unwrap()).is_empty());
        let schema = std::fs::read_to_string(folder.join("schema.json")).unwrap();
        let schema =
            schema.replacen("\"port\": {", "\"loud\": {\"type\": \"boolean\"}, \"filter\": {}, \"port\": {", 1);
        std::fs::write(folder.join("schema.json"), schema).unwrap();
        assert_eq!(not_in_kcl(&read(&folder).unwrap()), ["filter", "loud"]);
        let file = folder.join("kcl/answer.k");
        let kcl = std::fs::read_to_string(&file).unwrap();
        let kcl = kcl.replacen("    port: int,", "    loud: bool\n    port: int,", 1);
        std::fs::write(file, kcl.replacen("    port: int =", "    $filter ?: any\n    check:\n    port: int =", 1))
            .unwrap();
        assert_eq!(not_in_kcl(&read(&folder).unwrap()), ["loud"]);
        let many: Vec<String> = (0..20).map(|number| format!("p{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(some_of(&many).ends_with("p14, p15, and 4 more"), "{}", some_of(&many));
        std::fs::remove_dir_all(folder.join("kcl")).unwrap();
        assert!(not_in_kcl(&read(&folder).unwrap()).is_empty(), "it has no KCL");
    }

    #[test]
    fn the_map_is_read_back_as_the_bundle() {
        let one = bundle("answer", "0.1.0", "one");
        let map = config_map(&one);
        assert_eq!(crate::builtin::read(&map).unwrap(), one);
        assert_eq!(map.immutable, Some(true));
        assert_eq!(map.metadata.labels, Some(one.labels()));
    }
}
