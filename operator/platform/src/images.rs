//! Importing image archives into an instance's containerd, and remembering which are there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::binaries::Binaries;
use crate::command::{CommandError, run};
use crate::config::PAUSE_IMAGE;
use crate::files::{self, FileError};
use crate::image::{self, Image, ImageError, ImageFile, Layer};
use crate::instance::Instance;
use crate::services::Context;

/// The containerd namespace of everything that Kubernetes runs.
const NAMESPACE: &str = "k8s.io";

/// An image can't be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// `ctr` failed; most likely the instance does not run.
    #[error("failed to talk to containerd; does the instance run? (`provisioning platform status`)")]
    Containerd(#[from] CommandError),
    /// See [`ImageError`].
    #[error(transparent)]
    Image(#[from] ImageError),
    /// See [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
}

/// What became of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It was imported.
    Imported,
    /// The same image was there already.
    AlreadyThere,
}

/// Imports a docker or OCI archive, unless the same was imported before and its names are still there.
pub fn load_image(instance: &Instance, binaries: &Binaries, archive: &Path) -> Result<Loaded, ImagesError> {
    let contents = image::contents(archive)?;
    let record = record_file(instance);
    let text = files::read_optional(&record)?.unwrap_or_default();
    // A broken record costs an import, nothing else.
    let mut known: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).unwrap_or_default();
    if let Some(names) = known.get(&contents.digest) {
        let listed = ctr(instance, binaries, &["images", "list", "--quiet"])?;
        if names.iter().all(|name| listed.lines().any(|line| same_name(line, name))) {
            return Ok(Loaded::AlreadyThere);
        }
    }
    let path = archive.display().to_string();
    ctr(instance, binaries, &["images", "import", &path])?;
    // A name belongs to the image that was imported last.
    known.retain(|_, names| !names.iter().any(|name| contents.names.contains(name)));
    known.insert(contents.digest, contents.names);
    let text = serde_json::to_vec_pretty(&known).unwrap_or_default();
    files::write(&record, &text, 0o644)?;
    Ok(Loaded::Imported)
}

/// containerd completes short names: `heron:1` becomes `docker.io/library/heron:1`.
fn same_name(listed: &str, name: &str) -> bool {
    listed == name || listed.ends_with(&format!("/{name}"))
}

/// Below containerd's data, so that both go together.
fn record_file(instance: &Instance) -> PathBuf {
    instance.containerd_root().join("provisioning-images.json")
}

fn ctr(instance: &Instance, binaries: &Binaries, arguments: &[&str]) -> Result<String, CommandError> {
    let address = format!("--address={}", instance.containerd_socket().display());
    let namespace = format!("--namespace={NAMESPACE}");
    let all: Vec<&str> = [address.as_str(), namespace.as_str()].into_iter().chain(arguments.iter().copied()).collect();
    run(binaries.runtime("ctr"), &all)
}

/// Packs the pause program into an image, and imports it.
pub(crate) fn ensure_pause(context: &Context) -> Result<(), ImagesError> {
    let archive = context.instance.config().join("pause.tar");
    let program = ImageFile { source: context.binaries.pause(), destination: "/pause".into(), mode: Some(0o755) };
    let pause = Image {
        name: PAUSE_IMAGE.to_owned(),
        layer: Layer::Files(vec![program]),
        entrypoint: vec!["/pause".to_owned()],
        environment: Vec::new(),
        user: Some("65535:65535".to_owned()),
    };
    image::write(&pause, &archive)?;
    load_image(&context.instance, &context.binaries, &archive).map(drop)
}
