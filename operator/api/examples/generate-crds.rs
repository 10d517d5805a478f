//! Writes the custom resource definitions, one YAML file per kind, into the folder given as argument.
//!
//! Used by `make generate` and `make verify-generated`.
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args().nth(1).ok_or("usage: generate-crds FOLDER")?);
    fs::create_dir_all(&folder)?;
    for crd in provisioning_api::all_crds() {
        let text = format!(
            "# Generated from operator/api by `make generate`. Do not edit.\n{}",
            serde_saphyr::to_string(&crd)?
        );
        fs::write(folder.join(format!("{}.yaml", crd.spec.names.plural)), text)?;
    }
    Ok(())
}
