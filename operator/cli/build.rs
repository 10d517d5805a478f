//! Embeds the extension bundles that the chart ships, so that the program knows them where no cluster is reachable.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Generated ConfigMaps, relative to this crate.
const BUNDLES: &str = "../../charts/provisioning/files/extensions";

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var(name).map_err(io::Error::other);
    let folder = fs::canonicalize(Path::new(&variable("CARGO_MANIFEST_DIR")?).join(BUNDLES))?;
    println!("cargo::rerun-if-changed=build.rs");
    // A file that comes or goes changes the folder, another content only the file.
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut code = "pub(crate) const MAPS: &[&str] = &[\n".to_owned();
    for file in yaml_files(&folder)? {
        println!("cargo::rerun-if-changed={}", file.display());
        code.push_str(&format!("    include_str!({:?}),\n", file.display().to_string()));
    }
    code.push_str("];\n");
    fs::write(Path::new(&variable("OUT_DIR")?).join("bundles.rs"), code)
}

/// Sorted by the extension's name, so that equal sources give equal programs.
fn yaml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
    Ok(files)
}
