//! A bundle: the files of an extension that a server needs, and the digest over them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::{fs, io};

use provisioning_api::names::{LABEL_EXTENSION, LABEL_EXTENSION_VERSION, LABEL_MANAGED_BY, MANAGER};
use sha2::{Digest, Sha256};

use crate::manifest::{Manifest, ManifestError};
use crate::parameters::{ParameterSchema, SchemaError, schema_of};
use crate::path::{BundlePath, PathError};
use crate::solve::Package;
use crate::words::nearest;

/// Largest sum of the sizes of all files, bytes. A ConfigMap takes 1 MiB with everything around.
pub const MAX_TOTAL_BYTES: usize = 900 * 1024;
/// Most files of a bundle.
pub const MAX_FILES: usize = 64;

const MANIFEST: &str = "manifest.yaml";
const SCHEMA: &str = "schema.json";
/// What of a folder is read beside the manifest.
const PARTS: [&str; 5] = [SCHEMA, "scripts", "schemas", "templates", "kcl"];
const REQUIRED: [&str; 4] = [MANIFEST, "scripts/install.nu", "scripts/check.nu", "scripts/uninstall.nu"];
/// First bytes of what is digested; a change of the format changes them.
const DIGEST_FORMAT: &[u8] = b"provisioning-bundle-v1\n";

/// Why files are no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The folder could not be read.
    #[error("failed to read {path}")]
    Read {
        /// File or folder.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A symbolic link, a special file, or a file where a folder belongs.
    #[error("{0} is not what a bundle has there: it is made of files and folders, without links")]
    NotAFile(String),
    /// A path that bundles can't hold.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file at a place that no bundle has.
    #[error(
        "{0} does not belong in a bundle: manifest.yaml, schema.json, scripts/*.nu, schemas/SCRIPT.json, templates/ and kcl/ do"
    )]
    Misplaced(BundlePath),
    /// One of the files that every bundle has, or that its manifest names, is not there.
    #[error("the bundle has no {0}")]
    Missing(String),
    /// Too many files.
    #[error("the bundle has {0} files; at most {MAX_FILES} are allowed")]
    TooManyFiles(usize),
    /// Too large.
    #[error("the bundle has {0} bytes; at most {MAX_TOTAL_BYTES} are allowed")]
    TooLarge(usize),
    /// A file is there twice (in `data` and in `binaryData`).
    #[error("{0} is there twice")]
    Duplicate(BundlePath),
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The schema of the parameters is wrong.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The schema of a script's parameters is wrong.
    #[error("schemas/{script}.json: {source}")]
    ScriptSchema {
        /// The script.
        script: String,
        /// What is wrong.
        source: SchemaError,
    },
}

/// The two maps of a ConfigMap that hold a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMapData {
    /// Files that are UTF-8 text.
    pub data: BTreeMap<String, String>,
    /// All others.
    pub binary_data: BTreeMap<String, Vec<u8>>,
}

/// The files of an extension that a server needs. Always valid: the limits hold, the manifest is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    manifest: Manifest,
    schema: Option<ParameterSchema>,
    script_schemas: BTreeMap<String, ParameterSchema>,
    files: BTreeMap<BundlePath, Vec<u8>>,
    digest: String,
}

impl Bundle {
    /// Builds a bundle from its files.
    ///
    /// # Errors
    /// [`BundleError`] where a limit or a rule is broken.
    pub fn new(files: BTreeMap<BundlePath, Vec<u8>>) -> Result<Self, BundleError> {
        if files.len() > MAX_FILES {
            return Err(BundleError::TooManyFiles(files.len()));
        }
        let total: usize = files.values().map(Vec::len).sum();
        if total > MAX_TOTAL_BYTES {
            return Err(BundleError::TooLarge(total));
        }
        if let Some(path) = files.keys().find(|path| !belongs(path.as_str())) {
            return Err(BundleError::Misplaced(path.clone()));
        }
        let has = |name: &str| files.keys().any(|path| path.as_str() == name);
        if let Some(name) = REQUIRED.into_iter().find(|name| !has(name)) {
            return Err(BundleError::Missing(name.to_owned()));
        }
        let content =
            |name: &str| files.iter().find(|(path, _)| path.as_str() == name).map(|(_, content)| content.as_slice());
        let text = std::str::from_utf8(content(MANIFEST).unwrap_or_default())
            .map_err(|error| ManifestError::Syntax(format!("it is not UTF-8: {error}")))?;
        let manifest = Manifest::from_yaml(text)?;
        let schema = schema_of(content(SCHEMA), &manifest)?;
        let script_schemas = script_schemas(&files, &manifest)?;
        let digest = digest_of(&files);
        Ok(Bundle { manifest, schema, script_schemas, files, digest })
    }

    /// Reads an extension's folder. What is not part of the bundle (docs, tests, a README) is left out.
    ///
    /// # Errors
    /// [`BundleError`] where it can't be read, or holds a link, or breaks a rule.
    pub fn load_folder(folder: &Path) -> Result<Self, BundleError> {
        let mut files = BTreeMap::new();
        files.insert(MANIFEST.parse()?, read(&folder.join(MANIFEST), Links::Refused)?);
        for part in PARTS {
            let inner = folder.join(part);
            // A folder that came from others may hold links to what is nobody's business, also in the place of these.
            match fs::symlink_metadata(&inner) {
                Ok(found) if found.is_dir() && part != SCHEMA => load_into(&mut files, &inner, part)?,
                Ok(found) if found.is_file() && part == SCHEMA => {
                    files.insert(SCHEMA.parse()?, read(&inner, Links::Refused)?);
                }
                Ok(_) => return Err(BundleError::NotAFile(inner.display().to_string())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(read_error(&inner, source)),
            }
        }
        Self::new(files)
    }

    /// What lies in a folder and is not read from it, sorted: neither a part of a bundle nor what usually lies beside one
    /// (`docs`, `tests`, `README…`, `LICENSE…`, names that begin with a dot). Each with the part that was perhaps meant.
    ///
    /// # Errors
    /// [`BundleError`] where the folder can't be listed.
    pub fn left_out(folder: &Path) -> Result<Vec<(String, Option<&'static str>)>, BundleError> {
        let beside = |name: &str| {
            let is_text = name.starts_with("README") || name.starts_with("LICENSE") || name.starts_with("CHANGELOG");
            is_text || name.starts_with('.') || ["docs", "tests"].contains(&name)
        };
        let mut names = list(folder)?;
        names.retain(|name| name != MANIFEST && !PARTS.contains(&name.as_str()) && !beside(name));
        names.sort();
        let meant = |name: String| {
            let near = nearest(&name.to_lowercase(), PARTS);
            (name, near)
        };
        Ok(names.into_iter().map(meant).collect())
    }

    /// Reads the maps of a ConfigMap. Every key has to be a file of the bundle.
    ///
    /// # Errors
    /// [`BundleError`] where a key is no path of a bundle, or a rule is broken.
    pub fn from_config_map_data<'a>(
        data: impl IntoIterator<Item = (&'a String, &'a String)>,
        binary_data: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>,
    ) -> Result<Self, BundleError> {
        let text = data.into_iter().map(|(key, content)| (key, content.as_bytes()));
        let binary = binary_data.into_iter().map(|(key, content)| (key, content.as_slice()));
        let mut files = BTreeMap::new();
        for (key, content) in text.chain(binary) {
            let path = BundlePath::from_key(key)?;
            if files.insert(path.clone(), content.to_vec()).is_some() {
                return Err(BundleError::Duplicate(path));
            }
        }
        Self::new(files)
    }

    /// Reads a folder in which the kubelet mounted the ConfigMap of a bundle: one entry per key, links into `..data`.
    ///
    /// # Errors
    /// [`BundleError`] as of [`Bundle::from_config_map_data`], or where it can't be read.
    pub fn load_mount(folder: &Path) -> Result<Self, BundleError> {
        let mut files = BTreeMap::new();
        for name in list(folder)? {
            // `..data` and `..2026_01_01…` are the kubelet's own.
            if !name.starts_with("..") {
                let content = read(&folder.join(&name), Links::Followed)?;
                files.insert(BundlePath::from_key(&name)?, content);
            }
        }
        Self::new(files)
    }

    /// The maps of a ConfigMap for this bundle.
    pub fn to_config_map_data(&self) -> ConfigMapData {
        let mut maps = ConfigMapData::default();
        for (path, content) in &self.files {
            match std::str::from_utf8(content) {
                Ok(text) => maps.data.insert(path.to_key(), text.to_owned()).map(drop),
                Err(_) => maps.binary_data.insert(path.to_key(), content.clone()).map(drop),
            };
        }
        maps
    }

    /// Labels of the ConfigMap of this bundle.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            (LABEL_MANAGED_BY, MANAGER.to_owned()),
            (LABEL_EXTENSION, self.manifest.name.clone()),
            (LABEL_EXTENSION_VERSION, self.manifest.version.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// Name of the ConfigMap of this bundle: `ext-NAME-` and the first 16 hex digits of the digest.
    pub fn config_map_name(&self) -> String {
        config_map_name(&self.manifest.name, &self.digest)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What dependency solving needs to know of this bundle.
    pub fn package(&self) -> Package {
        Package::new(&self.manifest, &self.digest)
    }

    /// The schema of the parameters; without one any parameters are allowed, as in the first release.
    pub fn schema(&self) -> Option<&ParameterSchema> {
        self.schema.as_ref()
    }

    /// The schemas of the parameters of scripts for workflows, by the script's name; one without takes no parameters.
    pub fn script_schemas(&self) -> &BTreeMap<String, ParameterSchema> {
        &self.script_schemas
    }

    /// The files by path.
    pub fn files(&self) -> &BTreeMap<BundlePath, Vec<u8>> {
        &self.files
    }

    /// `sha256:` and 64 hex digits over the sorted paths, lengths and contents.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Name of the ConfigMap that holds a bundle of this name and digest (`sha256:…`).
pub fn config_map_name(name: &str, digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    format!("ext-{name}-{}", hex.get(..16).unwrap_or(hex))
}

fn belongs(path: &str) -> bool {
    match path.split_once('/') {
        None => path == MANIFEST || path == SCHEMA,
        Some(("scripts", inner)) => Path::new(inner).extension().is_some_and(|extension| extension == "nu"),
        Some(("schemas", inner)) => script_of_schema(inner).is_some(),
        Some((part, _)) => matches!(part, "templates" | "kcl"),
    }
}

/// The script whose parameters `schemas/NAME.json` describes.
fn script_of_schema(inner: &str) -> Option<&str> {
    inner.strip_suffix(".json").filter(|name| !name.contains('/'))
}

/// Reads the schemas of scripts. Each script that the manifest names has to be there, and each schema has to be that of one.
fn script_schemas(
    files: &BTreeMap<BundlePath, Vec<u8>>,
    manifest: &Manifest,
) -> Result<BTreeMap<String, ParameterSchema>, BundleError> {
    for script in &manifest.scripts {
        let path = format!("scripts/{}.nu", script.name);
        if !files.keys().any(|known| known.as_str() == path) {
            return Err(BundleError::Missing(format!("{path}, which its manifest names")));
        }
    }
    let mut schemas = BTreeMap::new();
    for (path, content) in files {
        let Some(name) = path.as_str().strip_prefix("schemas/").and_then(script_of_schema) else { continue };
        if !manifest.scripts.iter().any(|script| script.name == name) {
            return Err(BundleError::Misplaced(path.clone()));
        }
        let schema = ParameterSchema::of_script(content, manifest);
        let schema = schema.map_err(|source| BundleError::ScriptSchema { script: name.to_owned(), source })?;
        schemas.insert(name.to_owned(), schema);
    }
    Ok(schemas)
}

fn digest_of(files: &BTreeMap<BundlePath, Vec<u8>>) -> String {
    let mut hasher = Sha256::new_with_prefix(DIGEST_FORMAT);
    // A map of text sorts by bytes, everywhere alike.
    for (path, content) in files {
        hasher.update(format!("{path}\0{}\0", content.len()));
        hasher.update(content);
    }
    hasher.finalize().iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn load_into(files: &mut BTreeMap<BundlePath, Vec<u8>>, folder: &Path, prefix: &str) -> Result<(), BundleError> {
    for name in list(folder)? {
        let (full, path) = (folder.join(&name), format!("{prefix}/{name}"));
        // A name that is no text is none of a bundle's, and would not be found by what is told of it.
        let inside: BundlePath = path.parse()?;
        let kind = fs::symlink_metadata(&full).map_err(|source| read_error(&full, source))?.file_type();
        if kind.is_dir() {
            load_into(files, &full, &path)?;
        } else if kind.is_file() {
            files.insert(inside, read(&full, Links::Refused)?);
            if files.len() > MAX_FILES {
                return Err(BundleError::TooManyFiles(files.len()));
            }
        } else {
            return Err(BundleError::NotAFile(full.display().to_string()));
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<String>, BundleError> {
    let entries = fs::read_dir(folder).map_err(|source| read_error(folder, source))?;
    entries
        .map(|entry| {
            let entry = entry.map_err(|source| read_error(folder, source))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

/// Whether what is read may be a link: the kubelet mounts links.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Refused,
    Followed,
}

/// Reads a file of at most the bytes that a bundle may have. What is none is refused before it is opened: opening a pipe
/// waits for a writer.
fn read(path: &Path, links: Links) -> Result<Vec<u8>, BundleError> {
    let failed = |source| read_error(path, source);
    let found = if links == Links::Followed { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let found = found.map_err(failed)?;
    if !found.is_file() {
        return Err(BundleError::NotAFile(path.display().to_string()));
    }
    let mut content = Vec::new();
    let limit = u64::try_from(MAX_TOTAL_BYTES).unwrap_or(u64::MAX);
    fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut content)).map_err(failed)?;
    if content.len() > MAX_TOTAL_BYTES {
        return Err(BundleError::TooLarge(usize::try_from(found.len()).unwrap_or(usize::MAX).max(content.len())));
    }
    Ok(content)
}

fn read_error(path: &Path, source: io::Error) -> BundleError {
    BundleError::Read { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "apiVersion: extension.provisioning.dev/v1alpha1\nkind: Extension\nname: demo\nversion: 1.2.3\n";

    fn files() -> BTreeMap<BundlePath, Vec<u8>> {
        [
            ("manifest.yaml", TEXT.as_bytes()),
            ("scripts/install.nu", b"def main [] {}\n"),
            ("scripts/check.nu", b""),
            ("scripts/uninstall.nu", b""),
            ("templates/a/b.conf", b"\xff\x00binary"),
        ]
        .map(|(path, content)| (path.parse().unwrap(), content.to_vec()))
        .into()
    }

    fn write(folder: &Path) {
        for (path, content) in files() {
            let full = folder.join(path.as_str());
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, content).unwrap();
        }
    }

    /// Golden: a change here changes the name of every bundle in every installation.
    #[test]
    fn the_digest_is_the_one_of_the_first_release() {
        let bundle = Bundle::new(files()).unwrap();
        assert_eq!(bundle.digest(), "sha256:57f03ef4cd3106d2ecd3bd62f43ba35b6ab22f18df0f16231e6718897e9ab2f0");
        assert_eq!(bundle.config_map_name(), "ext-demo-57f03ef4cd3106d2");
    }

    #[test]
    #[cfg(unix)]
    fn a_file_whose_name_is_no_text_is_told_as_such() {
        use std::os::unix::ffi::OsStrExt as _;
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        fs::write(folder.path().join("scripts").join(std::ffi::OsStr::from_bytes(b"h\xe9ron.nu")), "").unwrap();
        let error = Bundle::load_folder(folder.path()).unwrap_err();
        assert!(matches!(error, BundleError::Path(_)), "{error}");
    }

    #[test]
    fn the_digest_feels_every_byte_and_every_name() {
        let digest = |files| Bundle::new(files).unwrap().digest().to_owned();
        let first = digest(files());
        let mut moved = files();
        let content = moved.remove(&"templates/a/b.conf".parse().unwrap()).unwrap();
        moved.insert("templates/a/c.conf".parse().unwrap(), content);
        assert_ne!(digest(moved), first);
        // Content that moves from one file to the next.
        let mut shifted = files();
        shifted.insert("scripts/check.nu".parse().unwrap(), b"def".to_vec());
        shifted.insert("scripts/install.nu".parse().unwrap(), b" main [] {}\n".to_vec());
        assert_ne!(digest(shifted), first);
    }

    #[test]
    fn folder_maps_and_mount_are_the_same_bundle() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        fs::create_dir(folder.path().join("docs")).unwrap();
        fs::write(folder.path().join("docs/README.md"), "not part of it").unwrap();
        fs::write(folder.path().join("README.md"), "nor this").unwrap();
        let loaded = Bundle::load_folder(folder.path()).unwrap();
        assert_eq!(loaded, Bundle::new(files()).unwrap());

        let maps = loaded.to_config_map_data();
        assert_eq!(maps.binary_data.keys().collect::<Vec<_>>(), ["templates..a..b.conf"]);
        assert_eq!(Bundle::from_config_map_data(&maps.data, &maps.binary_data).unwrap(), loaded);

        // As the kubelet mounts it.
        let mount = tempfile::tempdir().unwrap();
        let real = mount.path().join("..2026_01_01");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink("..2026_01_01", mount.path().join("..data")).unwrap();
        for (path, content) in loaded.files() {
            fs::write(real.join(path.to_key()), content).unwrap();
            let link = Path::new("..data").join(path.to_key());
            std::os::unix::fs::symlink(link, mount.path().join(path.to_key())).unwrap();
        }
        assert_eq!(Bundle::load_mount(mount.path()).unwrap(), loaded);
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let with = |path: &str, content: Vec<u8>| {
            let mut files = files();
            files.insert(path.parse().unwrap(), content);
            Bundle::new(files)
        };
        assert!(matches!(with("docs/README.md", vec![]), Err(BundleError::Misplaced(_))));
        assert!(matches!(with("scripts/run.sh", vec![]), Err(BundleError::Misplaced(_))));
        assert!(matches!(with("kcl/big", vec![0; MAX_TOTAL_BYTES]), Err(BundleError::TooLarge(_))));
        assert!(with("scripts/lib/tools.nu", vec![]).is_ok());
        let mut many = files();
        for n in 0..MAX_FILES {
            many.insert(format!("kcl/{n}").parse().unwrap(), vec![]);
        }
        assert!(matches!(Bundle::new(many), Err(BundleError::TooManyFiles(69))));
        let mut few = files();
        few.remove(&"scripts/check.nu".parse().unwrap());
        assert!(matches!(Bundle::new(few), Err(BundleError::Missing(name)) if name == "scripts/check.nu"));
    }

    #[test]
    fn a_schema_is_part_of_the_bundle() {
        let schema =
            br#"{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {}}"#;
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        fs::write(folder.path().join("schema.json"), schema).unwrap();
        let loaded = Bundle::load_folder(folder.path()).unwrap();
        assert!(loaded.schema().is_some());
        assert!(loaded.files().contains_key(&"schema.json".parse().unwrap()));
        let maps = loaded.to_config_map_data();
        assert_eq!(Bundle::from_config_map_data(&maps.data, &maps.binary_data).unwrap(), loaded);
        let without = Bundle::new(files()).unwrap();
        assert!(without.schema().is_none() && without.digest() != loaded.digest());

        fs::write(folder.path().join("schema.json"), "{}").unwrap();
        assert!(matches!(Bundle::load_folder(folder.path()), Err(BundleError::Schema(_))));
        fs::remove_file(folder.path().join("schema.json")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("schema.json")).unwrap();
        assert!(matches!(Bundle::load_folder(folder.path()), Err(BundleError::NotAFile(_))));
    }

    #[test]
    fn what_is_not_read_from_a_folder_is_told_with_what_was_perhaps_meant() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["manifest.yaml", "schema.json", "README.md", ".gitignore", "Schema.json", "dump.nu"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        for name in ["scripts", "tests", "docs", "template", "files"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let found = Bundle::left_out(folder.path()).unwrap();
        let found: Vec<(&str, Option<&str>)> = found.iter().map(|(name, near)| (name.as_str(), *near)).collect();
        let expected =
            [("Schema.json", Some("schema.json")), ("dump.nu", None), ("files", None), ("template", Some("templates"))];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_script_for_workflows_has_its_file_and_may_have_a_schema() {
        let schema = br#"{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "additionalProperties": false, "properties": {"file": {"type": "string"}}}"#;
        let with = |more: &[(&str, &[u8])]| {
            let mut files = files();
            let manifest = format!("{TEXT}scripts: [{{name: dump}}]\nsecrets: [{{name: token}}]\n");
            files.insert("manifest.yaml".parse().unwrap(), manifest.into_bytes());
            files.extend(more.iter().map(|(path, content)| (path.parse().unwrap(), content.to_vec())));
            Bundle::new(files)
        };
        assert!(
            matches!(with(&[]), Err(BundleError::Missing(name)) if name == "scripts/dump.nu, which its manifest names")
        );
        let script = ("scripts/dump.nu", b"".as_slice());
        assert!(with(&[script]).unwrap().script_schemas().is_empty());
        let bundle = with(&[script, ("schemas/dump.json", schema)]).unwrap();
        let problems = bundle.script_schemas()["dump"].check(&[("file".to_owned(), 7.into())].into());
        assert!(problems[0].to_string().starts_with("file: "), "{problems:?}");
        assert!(matches!(with(&[script, ("schemas/other.json", schema)]), Err(BundleError::Misplaced(_))));
        assert!(matches!(with(&[script, ("schemas/a/dump.json", schema)]), Err(BundleError::Misplaced(_))));
        let error = with(&[script, ("schemas/dump.json", b"{}")]).unwrap_err().to_string();
        assert!(error.starts_with("schemas/dump.json: schema.json: "), "{error}");
        let secret = String::from_utf8_lossy(schema).replace("\"file\"", "\"token\"");
        let error = with(&[script, ("schemas/dump.json", secret.as_bytes())]).unwrap_err().to_string();
        assert!(error.contains("secrets[0].name"), "{error}");
    }

    #[test]
    fn a_link_in_a_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        let link = folder.path().join("templates/x");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(matches!(Bundle::load_folder(folder.path()), Err(BundleError::NotAFile(_))));
        fs::remove_file(&link).unwrap();
        Bundle::load_folder(folder.path()).unwrap();
        let private = tempfile::tempdir().unwrap();
        fs::write(private.path().join("id_ed25519"), "a key").unwrap();
        fs::write(private.path().join("manifest.yaml"), TEXT).unwrap();
        for (part, target) in [
            ("templates", private.path().to_owned()),
            ("kcl", private.path().to_owned()),
            ("schema.json", private.path().join("id_ed25519")),
            ("manifest.yaml", private.path().join("manifest.yaml")),
            ("manifest.yaml", "/dev/zero".into()),
        ] {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path());
            let link = folder.path().join(part);
            if fs::remove_file(&link).is_err() {
                let _ = fs::remove_dir_all(&link);
            }
            std::os::unix::fs::symlink(&target, &link).unwrap();
            let read = Bundle::load_folder(folder.path());
            assert!(matches!(read, Err(BundleError::NotAFile(_))), "{part} -> {}: {read:?}", target.display());
        }
    }
}
