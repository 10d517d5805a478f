//! Writing and reading image archives, so that neither docker nor buildah is needed to build the project's images.
//!
//! What is written is a *docker-archive* with one layer, which containerd, docker and podman all import:
//!
//! | entry | what |
//! |---|---|
//! | `<hex>.json` | the image's configuration, named by its SHA-256 |
//! | `<hex>/layer.tar` | the layer, uncompressed, named by its SHA-256 |
//! | `manifest.json` | `[{"Config", "RepoTags", "Layers"}]` |
//!
//! The same input gives the same bytes: entries are sorted, every time is 0, every owner is root.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::files::{self, FileError, at};

/// An archive can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A destination that is not a plain absolute path.
    #[error("failed to place {0:?}: give an absolute path without '..', such as /usr/bin/program")]
    Destination(PathBuf),
    /// Two files for one place.
    #[error("failed to place two files at {0:?}")]
    Twice(PathBuf),
    /// Neither manifest.json nor index.json inside.
    #[error("failed to find an image in {}: neither a docker nor an OCI archive, or compressed (decompress it first)", .0.display())]
    NotAnImage(PathBuf),
    /// The manifest is not what it should be.
    #[error("failed to read the manifest in {}", .0.display())]
    Manifest(PathBuf, #[source] serde_json::Error),
    /// See [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
}

/// A file of the machine and its place in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Where it is.
    pub source: PathBuf,
    /// Where it goes: an absolute path.
    pub destination: PathBuf,
    /// Its mode; by default 0755 for what is executable and 0644 for the rest.
    pub mode: Option<u32>,
}

/// What an image holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Nothing but these files and the directories above them.
    Files(Vec<ImageFile>),
    /// A whole root file system, as a tar archive; taken as it is.
    RootFileSystem(PathBuf),
}

/// An image to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its name with tag, such as `localhost/heron:1`.
    pub name: String,
    /// What it holds.
    pub layer: Layer,
    /// What it runs.
    pub entrypoint: Vec<String>,
    /// Environment, as NAME=VALUE.
    pub environment: Vec<String>,
    /// User, as UID or UID:GID; root when absent.
    pub user: Option<String>,
}

/// What an archive holds, found without reading its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// SHA-256 over the manifest and the configuration, which name all layers by theirs: equal means the same image.
    pub digest: String,
    /// The names it will have.
    pub names: Vec<String>,
}

/// Writes an image archive to `output`, in one step: an interrupted run leaves no half archive there.
pub fn write(image: &Image, output: &Path) -> Result<(), ImageError> {
    let temporary = output.with_extension(format!("tmp{}", std::process::id()));
    let result = write_to(image, &temporary);
    match result {
        Ok(()) => Ok(fs::rename(&temporary, output).map_err(at("replace", output))?),
        Err(error) => {
            files::remove(&temporary)?;
            Err(error)
        }
    }
}

fn write_to(image: &Image, output: &Path) -> Result<(), ImageError> {
    let layer_file = output.with_extension("layer");
    let (layer_path, made) = match &image.layer {
        Layer::Files(list) => {
            write_layer(list, &layer_file)?;
            (layer_file.as_path(), true)
        }
        Layer::RootFileSystem(path) => (path.as_path(), false),
    };
    let result = write_archive(image, layer_path, output);
    if made {
        files::remove(&layer_file)?;
    }
    result
}

fn write_archive(image: &Image, layer_path: &Path, output: &Path) -> Result<(), ImageError> {
    let mut layer = File::open(layer_path).map_err(at("read", layer_path))?;
    let (layer_digest, layer_size) = digest(&mut layer).map_err(at("read", layer_path))?;
    layer.seek(SeekFrom::Start(0)).map_err(at("read", layer_path))?;
    let configuration = configuration(image, &layer_digest).to_string();
    let name = hex(&Sha256::digest(configuration.as_bytes()));
    let (config_name, layer_name) = (format!("{name}.json"), format!("{layer_digest}/layer.tar"));
    let manifest = json!([{ "Config": config_name, "Layers": [layer_name], "RepoTags": [image.name] }]).to_string();
    let file = File::create(output).map_err(at("create", output))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    let mut append = |name: &str, size: u64, content: &mut dyn Read| {
        archive
            .append_data(&mut header(size, 0o644, tar::EntryType::Regular), name, content)
            .map_err(at("write", output))
    };
    append(&config_name, configuration.len() as u64, &mut configuration.as_bytes())?;
    append(&layer_name, layer_size, &mut layer)?;
    append("manifest.json", manifest.len() as u64, &mut manifest.as_bytes())?;
    finish(archive, output)
}

fn configuration(image: &Image, layer_digest: &str) -> serde_json::Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    // Keys in their alphabet's order: what order JSON is printed in depends on a feature that other crates may switch.
    json!({
        "architecture": architecture,
        "config": {
            "Entrypoint": image.entrypoint,
            "Env": image.environment,
            "User": image.user.clone().unwrap_or_default(),
        },
        "created": "1970-01-01T00:00:00Z",
        "os": "linux",
        "rootfs": { "diff_ids": [format!("sha256:{layer_digest}")], "type": "layers" },
    })
}

/// A layer with the files and every directory above them, sorted.
fn write_layer(list: &[ImageFile], output: &Path) -> Result<(), ImageError> {
    let mut placed: Vec<(PathBuf, &ImageFile)> = Vec::new();
    let mut directories: BTreeSet<PathBuf> = BTreeSet::new();
    for file in list {
        let place = relative(&file.destination)?;
        directories.extend(place.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned));
        placed.push((place, file));
    }
    placed.sort_by(|one, other| one.0.cmp(&other.0));
    if let Some(pair) = placed.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(ImageError::Twice(pair[0].0.clone()));
    }
    let file = File::create(output).map_err(at("create", output))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    for directory in directories {
        let mut header = header(0, 0o755, tar::EntryType::Directory);
        archive.append_data(&mut header, directory, std::io::empty()).map_err(at("write", output))?;
    }
    for (place, file) in placed {
        let source = File::open(&file.source).map_err(at("read", &file.source))?;
        let metadata = source.metadata().map_err(at("read", &file.source))?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        let mode = file.mode.unwrap_or(if executable { 0o755 } else { 0o644 });
        let mut header = header(metadata.len(), mode, tar::EntryType::Regular);
        archive.append_data(&mut header, place, source).map_err(at("write", output))?;
    }
    finish(archive, output)
}

fn finish(archive: tar::Builder<BufWriter<File>>, output: &Path) -> Result<(), ImageError> {
    let mut buffer = archive.into_inner().map_err(at("write", output))?;
    Ok(buffer.flush().map_err(at("write", output))?)
}

fn relative(destination: &Path) -> Result<PathBuf, ImageError> {
    let plain = destination.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    match destination.strip_prefix("/") {
        Ok(relative) if plain && relative.file_name().is_some() => Ok(relative.to_owned()),
        _ => Err(ImageError::Destination(destination.to_owned())),
    }
}

fn header(size: u64, mode: u32, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn digest(file: &mut File) -> std::io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex(&hash.finalize()), size));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct OciIndex {
    manifests: Vec<OciDescriptor>,
}

#[derive(Deserialize)]
struct OciDescriptor {
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// Reads what an archive holds. Layers are skipped, so a large one costs no more than a small one.
pub fn contents(path: &Path) -> Result<Contents, ImageError> {
    let not_an_image = || ImageError::NotAnImage(path.to_owned());
    let manifest_error = |source| ImageError::Manifest(path.to_owned(), source);
    if let Some(text) = entry(path, "manifest.json")? {
        let manifests: Vec<DockerManifest> = serde_json::from_str(&text).map_err(manifest_error)?;
        let mut hash = Sha256::new_with_prefix(&text);
        let mut names = Vec::new();
        for manifest in manifests {
            hash.update(entry(path, &manifest.config)?.ok_or_else(not_an_image)?);
            names.extend(manifest.repo_tags.unwrap_or_default());
        }
        return Ok(Contents { digest: hex(&hash.finalize()), names });
    }
    let text = entry(path, "index.json")?.ok_or_else(not_an_image)?;
    let index: OciIndex = serde_json::from_str(&text).map_err(manifest_error)?;
    let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    let name = |descriptor: OciDescriptor| keys.iter().find_map(|key| descriptor.annotations.get(*key).cloned());
    let names = index.manifests.into_iter().filter_map(name).collect();
    Ok(Contents { digest: hex(&Sha256::digest(&text)), names })
}

/// The text of one entry, if the archive has it.
fn entry(path: &Path, name: &str) -> Result<Option<String>, ImageError> {
    let file = File::open(path).map_err(at("read", path))?;
    let mut archive = tar::Archive::new(file);
    let Ok(entries) = archive.entries_with_seek() else { return Err(ImageError::NotAnImage(path.to_owned())) };
    for entry in entries {
        let mut entry = entry.map_err(|_| ImageError::NotAnImage(path.to_owned()))?;
        let found = entry.path().is_ok_and(|path| path.strip_prefix("./").unwrap_or(&path) == Path::new(name));
        if found {
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(at("read", path))?;
            return Ok(Some(text));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(files: Vec<ImageFile>) -> Image {
        let entrypoint = vec!["/usr/bin/heron".to_owned()];
        Image {
            name: "localhost/heron:1".to_owned(),
            layer: Layer::Files(files),
            entrypoint,
            environment: vec![],
            user: Some("65532".to_owned()),
        }
    }

    fn file(folder: &Path, name: &str, destination: &str) -> ImageFile {
        let source = folder.join(name);
        fs::write(&source, name).unwrap();
        ImageFile { source, destination: destination.into(), mode: Some(0o755) }
    }

    #[test]
    fn the_same_files_give_the_same_bytes_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (file(folder.path(), "one", "/usr/bin/heron"), file(folder.path(), "two", "/etc/heron"));
        let (first, second) = (folder.path().join("first.tar"), folder.path().join("second.tar"));
        write(&image(vec![one.clone(), two.clone()]), &first).unwrap();
        File::open(&one.source).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        write(&image(vec![two, one]), &second).unwrap();
        assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    #[test]
    fn the_layer_holds_the_directories_above_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let layer = folder.path().join("layer");
        write_layer(&[file(folder.path(), "one", "/usr/bin/heron")], &layer).unwrap();
        let mut archive = tar::Archive::new(File::open(layer).unwrap());
        let paths: Vec<PathBuf> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(paths, ["usr", "usr/bin", "usr/bin/heron"].map(PathBuf::from));
    }

    #[test]
    fn contents_name_the_image_and_tell_others_apart() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first.tar"), folder.path().join("second.tar"));
        write(&image(vec![file(folder.path(), "one", "/heron")]), &first).unwrap();
        write(&image(vec![file(folder.path(), "two", "/heron")]), &second).unwrap();
        assert_eq!(contents(&first).unwrap().names, ["localhost/heron:1"]);
        assert_eq!(contents(&first).unwrap(), contents(&first).unwrap());
        assert_ne!(contents(&first).unwrap().digest, contents(&second).unwrap().digest);
    }

    #[test]
    fn a_place_outside_of_the_image_is_refused() {
        for bad in ["relative", "/../etc/passwd", "/"] {
            assert!(matches!(relative(Path::new(bad)), Err(ImageError::Destination(_))), "{bad}");
        }
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        fs::write(&text, "x".repeat(2000)).unwrap();
        assert!(matches!(contents(&text), Err(ImageError::NotAnImage(_))));
    }
}
