//! Manifests: read, decoded and checked before anything is sent.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use provisioning_api::names::{GROUP, VERSION};
use provisioning_plan::nearest::hint;
use serde_json::{Map, Value};

use crate::kinds::Kind;
use crate::names;
use crate::safe::one_line;
use crate::schema::Checker;

/// Largest file of manifests; an object of more than 1.5 MiB the API server's store refuses.
const MAX_BYTES: u64 = 16 << 20;

/// Files can't be read, or hold something that can't be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("failed to read {file}")]
    Read {
        file: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{file} is larger than {} MiB: is it the right file? Manifests can be split into several", MAX_BYTES >> 20)]
    TooLarge { file: String },
    #[error("no manifest in {0}: it has no file that ends with .yaml, .yml or .json")]
    Empty(String),
    #[error("nothing was sent; {} found:{}", count(.0), .0.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    Problems(Vec<Misfit>),
}

fn count(problems: &[Misfit]) -> String {
    if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) }
}

/// A problem and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    place: Place,
    object: Option<String>,
    text: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = self.object.as_ref().map_or_else(String::new, |object| format!(", {object}"));
        write!(formatter, "{}{}: {}", self.place, one_line(&object), self.text)
    }
}

/// A document of a file, counted from 1; 0 is the file itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    file: String,
    document: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.document {
            0 => formatter.write_str(&one_line(&self.file)),
            number => write!(formatter, "{}, document {number}", one_line(&self.file)),
        }
    }
}

/// What a document can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DocumentKind {
    Namespace,
    Ours(Kind),
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DocumentKind::Namespace => formatter.write_str("namespace"),
            DocumentKind::Ours(kind) => kind.fmt(formatter),
        }
    }
}

/// A document that passed all checks.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) kind: DocumentKind,
    pub(crate) name: String,
    /// Empty for a Namespace, and for one of ours that names none.
    pub(crate) namespace: String,
    /// As it was written.
    pub(crate) json: Value,
}

impl Document {
    /// Puts an object that names no namespace into one.
    pub(crate) fn within(mut self, default: &str) -> Self {
        if self.namespace.is_empty() && self.kind != DocumentKind::Namespace {
            self.namespace = default.to_owned();
            if let Some(metadata) = self.json.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("namespace".to_owned(), Value::String(default.to_owned()));
            }
        }
        self
    }
}

impl fmt::Display for Document {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.kind, one_line(&self.name))
    }
}

/// Reads files, folders (not the folders in them) and `-`, and checks everything that is in them. A document that names
/// another namespace than the one that was `asked` for is an error.
pub(crate) fn read(sources: &[PathBuf], asked: Option<&str>) -> Result<Vec<Document>, ManifestError> {
    let mut texts = Vec::new();
    for source in sources {
        for file in files(source)? {
            texts.push((file.display().to_string(), contents(&file)?));
        }
    }
    check(&texts, asked)
}

/// Checks an object that flags made, as if it came from a file.
pub(crate) fn made(json: Value) -> Result<Document, ManifestError> {
    document(json, None).map_err(|(object, texts)| {
        let place = Place { file: "the flags".to_owned(), document: 0 };
        let misfit = |text| Misfit { place: place.clone(), object: object.clone(), text };
        ManifestError::Problems(texts.into_iter().map(misfit).collect())
    })
}

fn files(source: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    if !source.is_dir() {
        return Ok(vec![source.to_owned()]);
    }
    let error = |source_error| ManifestError::Read { file: source.display().to_string(), source: source_error };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(source).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let is_manifest = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if is_manifest && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() { Err(ManifestError::Empty(source.display().to_string())) } else { Ok(files) }
}

fn contents(file: &Path) -> Result<String, ManifestError> {
    let bytes = if file == Path::new("-") { bounded(std::io::stdin()) } else { File::open(file).and_then(bounded) };
    let error = |source| ManifestError::Read { file: file.display().to_string(), source };
    let bytes = bytes.map_err(error)?.ok_or_else(|| ManifestError::TooLarge { file: file.display().to_string() })?;
    String::from_utf8(bytes).map_err(|source| error(std::io::Error::new(ErrorKind::InvalidData, source.utf8_error())))
}

/// All of it, unless there is more than anybody would write: a device that never ends, or the wrong file.
fn bounded(source: impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MAX_BYTES).then_some(bytes))
}

/// Decodes and checks texts by file name.
fn check(texts: &[(String, String)], asked: Option<&str>) -> Result<Vec<Document>, ManifestError> {
    let mut documents: Vec<Document> = Vec::new();
    let mut problems = Vec::new();
    let mut places: BTreeMap<(DocumentKind, String, String), Place> = BTreeMap::new();
    for (file, text) in texts {
        let place = |document| Place { file: file.clone(), document };
        let values: Vec<Value> = match serde_saphyr::from_multiple(text) {
            Ok(values) => values,
            Err(error) => {
                problems.push(Misfit { place: place(0), object: None, text: error.to_string().trim_end().to_owned() });
                continue;
            }
        };
        if values.is_empty() {
            problems.push(Misfit { place: place(0), object: None, text: "it holds no document".to_owned() });
        }
        for (position, value) in values.into_iter().enumerate() {
            let place = place(position + 1);
            match document(value, asked) {
                Ok(document) => {
                    let key = (document.kind, document.namespace.clone(), document.name.clone());
                    if let Some(first) = places.get(&key) {
                        let text = format!("the same object as {first}");
                        problems.push(Misfit { place, object: Some(document.to_string()), text });
                        continue;
                    }
                    places.insert(key, place);
                    documents.push(document);
                }
                Err((object, texts)) => {
                    let misfit = |text| Misfit { place: place.clone(), object: object.clone(), text };
                    problems.extend(texts.into_iter().map(misfit));
                }
            }
        }
    }
    if problems.is_empty() { Ok(documents) } else { Err(ManifestError::Problems(problems)) }
}

/// What is wrong with a document, and its name as far as it is known.
type Wrong = (Option<String>, Vec<String>);

fn document(json: Value, asked: Option<&str>) -> Result<Document, Wrong> {
    let Some(map) = json.as_object() else {
        return Err((None, vec!["not an object with apiVersion, kind, metadata and spec".to_owned()]));
    };
    let kind = document_kind(map).map_err(|text| (None, vec![text]))?;
    let name = map.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str);
    let Some(name) = name.filter(|name| !name.is_empty()).map(str::to_owned) else {
        return Err((Some(kind.to_string()), vec!["metadata.name: is missing".to_owned()]));
    };
    let mut problems: Vec<String> =
        names::check(&name).err().map(|error| format!("metadata.name: {error}")).into_iter().collect();
    problems.extend(strangers(map));
    let mut namespace = String::new();
    if let DocumentKind::Ours(kind) = kind {
        problems.extend(Checker::new(kind).check(&json).iter().map(ToString::to_string));
        match own_namespace(map, asked) {
            Ok(own) => namespace = own,
            Err(text) => problems.push(text),
        }
    }
    if !problems.is_empty() {
        // Names of fields are the author's.
        let problems = problems.iter().map(|problem| one_line(problem)).collect();
        return Err((Some(format!("{kind}/{name}")), problems));
    }
    Ok(Document { kind, name, namespace, json })
}

fn document_kind(map: &Map<String, Value>) -> Result<DocumentKind, String> {
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if kind.is_empty() {
        return Err("kind: is missing".to_owned());
    }
    if kind == "Namespace" && version == "v1" {
        return Ok(DocumentKind::Namespace);
    }
    let names = Kind::ALL.map(Kind::name);
    let Some(found) = Kind::ALL.into_iter().find(|known| known.name() == kind) else {
        let near = hint(kind, names);
        return Err(format!("kind: unknown kind '{kind}'{near}; known: Namespace, {}", names.join(", ")));
    };
    let served = format!("{GROUP}/{VERSION}");
    if version != served {
        return Err(format!("apiVersion: '{version}' is not that of {kind}; write {served}"));
    }
    Ok(DocumentKind::Ours(found))
}

/// Fields that do not belong into a manifest, outside of spec.
fn strangers(map: &Map<String, Value>) -> Vec<String> {
    const TOP: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
    const WRITTEN: [&str; 5] = ["name", "namespace", "labels", "annotations", "finalizers"];
    const SERVERS: [&str; 8] = [
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    let mut problems = Vec::new();
    for key in map.keys() {
        match key.as_str() {
            "status" => problems.push("status: the operator writes it; remove it".to_owned()),
            key if TOP.contains(&key) => {}
            key => problems.push(format!("{key}: unknown field{}; known here: {}", hint(key, TOP), TOP.join(", "))),
        }
    }
    let empty = Map::new();
    let metadata = map.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    for (key, value) in metadata {
        match key.as_str() {
            key if SERVERS.contains(&key) => {
                problems.push(format!("metadata.{key}: the API server sets it; remove it"))
            }
            "labels" | "annotations" => {
                let texts = value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_string());
                problems
                    .extend(texts.map(|(name, _)| format!("metadata.{key}.{name}: not a string; put it in quotes")));
                if !value.is_object() {
                    problems.push(format!("metadata.{key}: not a map of strings"));
                }
                problems.extend(misspelt(key == "labels", value).map(|text| format!("metadata.{key}.{text}")));
            }
            key if WRITTEN.contains(&key) => {}
            key => {
                let known = WRITTEN.join(", ");
                problems.push(format!("metadata.{key}: unknown field{}; known here: {known}", hint(key, WRITTEN)));
            }
        }
    }
    problems
}

/// Keys, and values of labels, that the API server refuses.
fn misspelt(of_labels: bool, map: &Value) -> impl Iterator<Item = String> {
    map.as_object().into_iter().flatten().filter_map(move |(key, value)| {
        let value = value.as_str().filter(|_| of_labels);
        let problem = names::key_problem(key).or_else(|| value.and_then(names::value_problem));
        problem.map(|problem| match value {
            Some(value) => format!("{key}: '{value}': {problem}"),
            None => format!("{key}: {problem}"),
        })
    })
}

/// The namespace that a document names; empty where it names none.
fn own_namespace(map: &Map<String, Value>, asked: Option<&str>) -> Result<String, String> {
    match (map.get("metadata").and_then(|metadata| metadata.get("namespace")), asked) {
        (Some(Value::String(written)), Some(asked)) if written != asked => {
            Err(format!("metadata.namespace: '{written}' is not that of -n, '{asked}'; leave one of them out"))
        }
        // As if it were not there: so it is to kubectl.
        (Some(Value::String(written)), _) if written.is_empty() => Ok(String::new()),
        (Some(Value::String(written)), _) => {
            names::check(written).map(|()| written.clone()).map_err(|error| format!("metadata.namespace: {error}"))
        }
        (Some(_), _) => Err("metadata.namespace: not a string".to_owned()),
        (None, _) => Ok(String::new()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Documents of a text that is right.
    pub(crate) fn documents(text: &str) -> Vec<Document> {
        check(&[("a.yaml".to_owned(), text.to_owned())], None).unwrap()
    }

    fn problems(text: &str) -> String {
        check(&[("a.yaml".to_owned(), text.to_owned())], None).unwrap_err().to_string()
    }

    #[test]
    fn the_examples_are_right_and_come_in_the_order_of_their_names() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/first");
        let documents = read(&[folder], None).unwrap();
        let names: Vec<String> = documents.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["namespace/first", "workspace/workspace", "providerconfig/local", "batchworkflow/first"]);
    }

    #[test]
    fn no_name_and_no_field_makes_a_line_of_its_own() {
        let text = "apiVersion: provisioning.dev/v1alpha1\nkind: Server\nmetadata: {name: \"heron\\nall is well\"}\n\
                    spec: {\"a\\nall is well\": 1}\n";
        let told = problems(text);
        assert!(
            told.contains("heron all is well") && !told.lines().any(|line| line.starts_with("all is well")),
            "{told}"
        );
    }

    #[test]
    fn every_problem_of_all_documents_is_told_with_its_place() {
        let text = "\
apiVersion: provisioning.dev/v1alpha1
kind: Workspace
metadata: {name: workspace, labels: {tier: 1}}
spec: {paralelism: 3}
---
apiVersion: provisioning.dev/v1alpha1
kind: Sever
metadata: {name: heron}
---
apiVersion: provisioning.dev/v1
kind: Server
metadata: {name: heron}
---
apiVersion: provisioning.dev/v1alpha1
kind: Server
metadata: {name: heron, uid: x}
spec: {providerConfigRef: {name: local}, providerSize: small, image: {os: debian, version: 12}}
status: {}
---
- a list
";
        let expected = "\
nothing was sent; 8 problems found:
  a.yaml, document 1, workspace/workspace: metadata.labels.tier: not a string; put it in quotes
  a.yaml, document 1, workspace/workspace: spec.paralelism: unknown field (did you mean 'parallelism'?); known here: parallelism, suspend
  a.yaml, document 2: kind: unknown kind 'Sever' (did you mean 'Server'?); known: Namespace, Workspace, ProviderConfig, BatchWorkflow, Cluster, Server, Taskserv
  a.yaml, document 3: apiVersion: 'provisioning.dev/v1' is not that of Server; write provisioning.dev/v1alpha1
  a.yaml, document 4, server/heron: status: the operator writes it; remove it
  a.yaml, document 4, server/heron: metadata.uid: the API server sets it; remove it
  a.yaml, document 4, server/heron: spec.image.version: the number 12, where a string belongs; put it in quotes
  a.yaml, document 5: not an object with apiVersion, kind, metadata and spec";
        assert_eq!(problems(text), expected);
    }

    #[test]
    fn an_object_is_written_once_and_where_it_is_asked_for() {
        let workspace =
            "apiVersion: provisioning.dev/v1alpha1\nkind: Workspace\nmetadata: {name: workspace}\nspec: {}\n";
        let placed = documents(workspace).remove(0).within("default");
        assert_eq!((placed.namespace.as_str(), &placed.json["metadata"]["namespace"]), ("default", &"default".into()));
        assert!(problems(&format!("{workspace}---\n{workspace}")).contains("the same object as a.yaml, document 1"));
        let elsewhere = workspace.replace("{name: workspace}", "{name: workspace, namespace: heath}");
        let error = check(&[("a.yaml".to_owned(), elsewhere)], Some("meadow")).unwrap_err().to_string();
        assert!(error.contains("'heath' is not that of -n, 'meadow'"), "{error}");
    }

    #[test]
    fn what_can_name_no_object_is_no_manifest() {
        let manifest = |name: &str, namespace: &str| {
            let metadata = serde_json::json!({"name": name, "namespace": namespace});
            format!("apiVersion: provisioning.dev/v1alpha1\nkind: Workspace\nmetadata: {metadata}\nspec: {{}}\n")
        };
        for name in names::tests::NONE {
            let error = problems(&manifest(name, "first"));
            assert!(error.contains("1 problem found") && error.contains("metadata.name: "), "{name:?}: {error}");
            if name.is_empty() {
                continue;
            }
            let error = problems(&manifest("workspace", name));
            assert!(error.contains("1 problem found") && error.contains("metadata.namespace: "), "{name:?}: {error}");
        }
        let error = problems("apiVersion: v1\nkind: Namespace\nmetadata: {name: '..'}\n");
        assert!(error.contains("namespace/..: metadata.name: '..' can't be a name: "), "{error}");
    }

    #[test]
    fn labels_that_the_api_server_refuses_are_told() {
        let error = problems(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: fen, labels: {'a b': c, d: 'e f'}, annotations: {g: 'h i', 'j=': k}}\n",
        );
        let told: Vec<&str> = error.lines().skip(1).filter_map(|line| line.split("metadata.").nth(1)).collect();
        assert!(
            matches!(told.as_slice(), [j, a, d] if a.starts_with("labels.a b: 'c': not a key")
            && d.starts_with("labels.d: 'e f': not the value") && j.starts_with("annotations.j=: not a key")),
            "{error}"
        );
    }

    #[test]
    fn what_never_ends_is_not_read_to_its_end() {
        let error = read(&["/dev/zero".into()], None).unwrap_err().to_string();
        assert!(error.starts_with("/dev/zero is larger than 16 MiB"), "{error}");
        let largest = bounded(std::io::repeat(b' ').take(MAX_BYTES)).unwrap();
        assert_eq!(largest.map(|bytes| bytes.len() as u64), Some(MAX_BYTES));
    }

    #[test]
    fn what_is_no_text_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(matches!(read(&[file], None), Err(ManifestError::Read { .. })));
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        let error = problems("apiVersion: v1\nkind: [Namespace\n");
        assert!(error.contains("line"), "{error}");
        assert!(problems("# nothing\n").contains("it holds no document"));
    }
}
