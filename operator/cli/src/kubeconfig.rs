//! Changing the namespace of a context in a kubeconfig, as `kubectl config set-context --current --namespace` does.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A kubeconfig can't be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubeconfigError {
    #[error("{0}: another program is changing it; if none does, remove this lock")]
    Locked(String),
    #[error("failed to read {file}")]
    Read {
        file: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to write {file}")]
    Write {
        file: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to change {file}: {text}")]
    Content { file: String, text: String },
    #[error("no kubeconfig of {files} defines the context '{context}'")]
    NoContext { context: String, files: String },
}

/// Sets the namespace of a context, in the first of the files that defines it. Gives the file.
///
/// Everything else in the file stays as it is, but for comments and the order of keys; kubectl does not keep these either.
pub(crate) fn set_namespace(files: &[PathBuf], context: &str, namespace: &str) -> Result<PathBuf, KubeconfigError> {
    for file in files.iter().filter(|file| file.exists()) {
        // A link stays one: what it leads to is written.
        let file = file.canonicalize().map_err(|source| KubeconfigError::Read { file: shown(file), source })?;
        if change(&file, context, namespace)? {
            return Ok(file);
        }
    }
    let files: Vec<String> = files.iter().map(|file| shown(file)).collect();
    Err(KubeconfigError::NoContext { context: context.to_owned(), files: files.join(", ") })
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

/// Whether the file defines the context.
fn change(file: &Path, context: &str, namespace: &str) -> Result<bool, KubeconfigError> {
    let content = |text: String| KubeconfigError::Content { file: shown(file), text };
    let _lock = Lock::new(file)?;
    let text = fs::read_to_string(file).map_err(|source| KubeconfigError::Read { file: shown(file), source })?;
    let mut json: Value = serde_saphyr::from_str(&text).map_err(|error| content(error.to_string()))?;
    let contexts = json.get_mut("contexts").and_then(Value::as_array_mut);
    let Some(found) = contexts.into_iter().flatten().find(|one| one["name"] == context) else { return Ok(false) };
    if !found["context"].is_object() {
        return Err(content(format!("its context '{context}' is no object")));
    }
    if found["context"]["namespace"] == namespace {
        return Ok(true);
    }
    found["context"]["namespace"] = json!(namespace);
    let text = serde_saphyr::to_string(&json).map_err(|error| content(error.to_string()))?;
    // It holds the way into clusters: what would be read back as something else is not written.
    let same = serde_saphyr::from_str::<Value>(&text).is_ok_and(|again| again == json);
    if !same {
        return Err(content("it holds something that this program would not write back as it was".to_owned()));
    }
    replace(file, &text).map_err(|source| KubeconfigError::Write { file: shown(file), source })?;
    Ok(true)
}

/// Whoever reads the file sees the former text or all of the new one. Its permissions stay.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let new = beside(file, "new");
    let permissions = fs::metadata(file)?.permissions();
    let written = (|| {
        // Left by a run that was killed: the lock says that nobody writes it now.
        if new.exists() {
            fs::remove_file(&new)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut out = options.open(&new)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::set_permissions(&new, permissions)?;
        fs::rename(&new, file)
    })();
    if written.is_err() {
        // The error that led here is the one to tell.
        let _ = fs::remove_file(&new);
    }
    written
}

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    PathBuf::from(name)
}

/// The lock that kubectl knows too: a file beside the kubeconfig.
struct Lock(PathBuf);

impl Lock {
    fn new(file: &Path) -> Result<Self, KubeconfigError> {
        let lock = beside(file, "lock");
        match OpenOptions::new().write(true).create_new(true).open(&lock) {
            Ok(_) => Ok(Self(lock)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(KubeconfigError::Locked(shown(&lock))),
            Err(source) => Err(KubeconfigError::Write { file: shown(&lock), source }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What can't be removed is told by the next one that meets it.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# by hand
apiVersion: v1
kind: Config
current-context: marsh
clusters: [{name: marsh, cluster: {server: 'https://127.0.0.1:9', unknown-field: yes}}]
contexts:
- {name: heath, context: {cluster: marsh, user: admin}}
- {name: marsh, context: {cluster: marsh, user: admin, namespace: former, extensions: [{name: x, extension: {y: 1}}]}}
users: [{name: admin, user: {token: \"1e10\", password: \"0123\", username: \"no\"}}]
";

    fn read(file: &Path) -> Value {
        serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap()
    }

    #[test]
    fn only_the_namespace_of_the_context_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (other, file) = (folder.path().join("other"), folder.path().join("config"));
        fs::write(&other, "apiVersion: v1\ncontexts: []\n").unwrap();
        fs::write(&file, TEXT).unwrap();
        let mut expected: Value = serde_saphyr::from_str(TEXT).unwrap();
        let missing = folder.path().join("missing");
        let changed = set_namespace(&[missing, other.clone(), file.clone()], "marsh", "first").unwrap();
        assert_eq!(changed, file.canonicalize().unwrap());
        expected["contexts"][1]["context"]["namespace"] = json!("first");
        assert_eq!(read(&file), expected);
        assert_eq!(expected["users"][0]["user"]["token"], "1e10");
        assert_eq!(fs::read_to_string(&other).unwrap(), "apiVersion: v1\ncontexts: []\n");
        // A context without a namespace gets one.
        set_namespace(std::slice::from_ref(&file), "heath", "second").unwrap();
        assert_eq!(read(&file)["contexts"][0]["context"]["namespace"], "second");
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "something is left: {names:?}");
    }

    #[cfg(unix)]
    #[test]
    fn permissions_and_links_stay() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("config"), folder.path().join("link"));
        fs::write(&file, TEXT).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        set_namespace(std::slice::from_ref(&link), "marsh", "first").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(read(&file)["contexts"][1]["context"]["namespace"], "first");
    }

    #[test]
    fn a_file_that_another_program_changes_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, TEXT).unwrap();
        fs::write(folder.path().join("config.lock"), "").unwrap();
        let error = set_namespace(std::slice::from_ref(&file), "marsh", "first").unwrap_err().to_string();
        assert!(
            error.ends_with("config.lock: another program is changing it; if none does, remove this lock"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), TEXT);
    }

    #[test]
    fn a_context_that_no_file_has_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, TEXT).unwrap();
        let error = set_namespace(std::slice::from_ref(&file), "fen", "first").unwrap_err();
        assert!(matches!(error, KubeconfigError::NoContext { .. }), "{error}");
    }
}
