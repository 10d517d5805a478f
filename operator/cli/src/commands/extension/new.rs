//! `provisioning extension new`: the folder of an extension that works, to be changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use provisioning_extensions::Manifest;

use super::ExtensionError;
use crate::builtin;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{print, program, tell};
use crate::scaffold::{File, files};

/// Arguments of `extension new`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the extension: lower-case letters, digits and dashes
    name: String,
    /// Where to write it. Default: a folder of its name, here
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Writes the folder, and says what is in it.
pub(super) fn run(arguments: &Arguments) -> Result<Exit, Error> {
    let Arguments { name, dir } = arguments;
    let folder = dir.clone().unwrap_or_else(|| PathBuf::from(name));
    let files = make(name, &folder)?;
    if builtin::bundles().iter().any(|bundle| bundle.manifest().name == *name) {
        tell(&format!("note: {} holds an extension of this name; Taskservs get the newest version of both", program()));
    }
    let shown = folder.display();
    let list: String = files.iter().map(|file| format!("  {shown}/{}\n", file.path)).collect();
    print(&format!(
        "extension/{name} written:\n{list}It answers every TCP connection with a line of text: change it to what you need, \
         then\n  {program} extension load {shown}\n",
        program = program()
    ));
    Ok(Exit::Done)
}

pub(super) fn make(name: &str, folder: &Path) -> Result<Vec<File>, ExtensionError> {
    let files = files(name);
    checked(name, &files)?;
    write(folder, &files)?;
    Ok(files)
}

/// What is wrong with a name shows in the manifest that it leads to.
fn checked(name: &str, files: &[File]) -> Result<(), ExtensionError> {
    let manifest = files.iter().find(|file| file.path == "manifest.yaml").map(|file| file.text.as_str());
    let read = Manifest::from_yaml(manifest.unwrap_or_default());
    read.map(drop).map_err(|source| ExtensionError::Name { name: name.to_owned(), source })
}

fn write(folder: &Path, files: &[File]) -> Result<(), ExtensionError> {
    let failed = |verb, path: &Path| {
        let path = path.display().to_string();
        move |source| ExtensionError::File { verb, path, source }
    };
    if folder.exists() {
        let mut entries = fs::read_dir(folder).map_err(failed("read", folder))?;
        if entries.next().is_some() {
            return Err(ExtensionError::NotEmpty(folder.display().to_string()));
        }
    }
    for file in files {
        let path = folder.join(&file.path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(failed("make", parent))?;
        fs::write(&path, &file.text).map_err(failed("write", &path))?;
        if file.executable {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(failed("write", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use provisioning_extensions::Bundle;
    use serde_json::Value;

    use super::*;

    /// A scaffold on disk.
    fn written(name: &str) -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join(name);
        make(name, &folder).unwrap();
        (parent, folder)
    }

    #[test]
    fn what_is_written_is_a_bundle() {
        let (_parent, folder) = written("answer-2");
        let bundle = Bundle::load_folder(&folder).unwrap();
        assert_eq!(
            (bundle.manifest().name.as_str(), bundle.manifest().version.to_string()),
            ("answer-2", "0.1.0".into())
        );
        let speak = folder.join("tests/speak");
        assert_eq!(fs::metadata(&speak).unwrap().permissions().mode() & 0o777, 0o755);
        let syntax = Command::new("bash").arg("-n").arg(&speak).status().unwrap();
        assert!(syntax.success());
        let common = fs::read_to_string(folder.join("scripts/common.nu")).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../taskservs/lib/common.nu");
        assert_eq!(common, fs::read_to_string(source).unwrap());
    }

    #[test]
    fn schema_case_and_page_name_the_same_parameters() {
        let (_parent, folder) = written("answer");
        let read = |path: &str| fs::read_to_string(folder.join(path)).unwrap();
        let schema: Value = serde_json::from_str(&read("schema.json")).unwrap();
        let known: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        let case: Value = serde_saphyr::from_str(&read("tests/case.yaml")).unwrap();
        for part in ["parameters", "changed"] {
            assert!(case[part].as_object().unwrap().keys().all(|name| known.contains(&name)), "{part}");
        }
        for name in known {
            assert!(read("docs/README.md").contains(&format!("| `{name}` |")), "{name}");
            assert!(read("kcl/answer.k").contains(&format!("\n    {name}: ")), "{name}");
        }
    }

    #[test]
    fn scripts_are_nushell() {
        let Some(nu) = nu() else {
            eprintln!("SKIPPED: no nu is found; set NU, or build it: tools/build nu");
            return;
        };
        let (_parent, folder) = written("answer");
        for script in ["install", "check", "uninstall", "common", "service"] {
            let path = folder.join(format!("scripts/{script}.nu"));
            let module = if ["common", "service"].contains(&script) { "--as-module " } else { "" };
            let check = format!("nu-check --debug {module}{}", path.display());
            let output = Command::new(&nu).args(["--no-config-file", "--commands", &check]).output().unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.trim() == "true", "{script}: {said}{words}");
        }
    }

    /// From the environment, or where `tools/build` puts it.
    fn nu() -> Option<PathBuf> {
        let named = std::env::var_os("NU").map(PathBuf::from);
        let built = || {
            let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/build");
            let output = Command::new(tool).args(["--print", "nu"]).output().ok()?;
            Some(Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("nu"))
        };
        named.or_else(built).filter(|path| path.is_file())
    }

    #[test]
    fn a_folder_that_holds_something_is_left_alone() {
        let (_parent, folder) = written("answer");
        let error = make("answer", &folder).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().ends_with("is there and is not empty; name another folder with --dir"), "{error}");
    }

    #[test]
    fn a_name_that_is_none_writes_nothing() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["Answer", "an swer", "../answer", "", "a: b", "12"] {
            let folder = parent.path().join("x");
            let error = make(name, &folder).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{name}");
            assert!(!folder.exists(), "{name}");
        }
    }
}
