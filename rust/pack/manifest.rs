//! `pack.json`: read, checked, and the fingerprint made from it.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::shard::hex;
use crate::error::{Error, Result};

/// The largest `pack.json` accepted.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// The largest image edge accepted.
const MAX_IMAGE_SIZE: usize = 16_384;

/// The version of the format: 2 keeps captions as text, 1 kept the character ids of one encoder.
const VERSION: u64 = 2;

/// The sources of `t2i-prepare`.
const KINDS: [&str; 10] =
    ["folder", "huggingface", "csv", "coco", "webdataset", "parquet", "stackgan", "oxford102", "cub", "blossoms"];

#[derive(Deserialize)]
#[serde(expecting = "an object with format and version")]
struct Head {
    format: String,
    version: u64,
}

#[derive(Deserialize)]
pub(super) struct Manifest {
    pub(super) image_size: usize,
    pub(super) images: usize,
    pub(super) captions: usize,
    pub(super) classes: Vec<String>,
    pub(super) splits: SplitCounts,
    pub(super) shards: Vec<ShardEntry>,
}

#[derive(Deserialize)]
pub(super) struct SplitCounts {
    pub(super) train: usize,
    pub(super) test: usize,
}

#[derive(Deserialize)]
pub(super) struct ShardEntry {
    pub(super) file: String,
    pub(super) images: usize,
    pub(super) captions: usize,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

pub(super) fn read(path: &Path, folder: &Path, manifest_path: &Path) -> Result<Manifest> {
    if !folder.is_dir() {
        return Err(Error::data(path, "must be a folder with a pack.json, got a file"));
    }
    let inside = inside(manifest_path, folder)?;
    let length = std::fs::metadata(&inside).map_err(|error| Error::data(manifest_path, error.to_string()))?.len();
    if length > MAX_MANIFEST_BYTES {
        let message = format!("must have at most {MAX_MANIFEST_BYTES} bytes, got {length}");
        return Err(Error::data(manifest_path, message));
    }
    let text = std::fs::read(&inside).map_err(|error| Error::data(manifest_path, error.to_string()))?;
    // The format first: for another program's pack.json this is the most useful message.
    let invalid = |error: serde_json::Error| Error::data(manifest_path, format!("is not a valid pack.json: {error}"));
    let head: Head = serde_json::from_slice(&text).map_err(invalid)?;
    if head.format == "t2i-pack" && head.version == 1 {
        let command = serde_json::from_slice(&text).map_err(invalid).map(|old| renewal(&old, path))?;
        let message = format!(
            "is of format t2i-pack 1, which kept captions as character ids and not as text; prepare it again: {command}"
        );
        return Err(Error::data(manifest_path, message));
    }
    if head.format != "t2i-pack" || head.version != VERSION {
        let message = format!("must be of format t2i-pack {VERSION}, got {:?} {}", head.format, head.version);
        return Err(Error::data(manifest_path, message));
    }
    serde_json::from_slice(&text).map_err(invalid)
}

/// The command that prepares a pack of version 1 again. Nothing from the file is quoted that a shell might act on.
fn renewal(old: &Value, path: &Path) -> String {
    let made = &old["provenance"];
    let kind = made["kind"].as_str().filter(|kind| KINDS.contains(kind)).unwrap_or("KIND");
    let plain = |text: &&str| text.chars().all(|letter| letter.is_alphanumeric() || "._-".contains(letter));
    let source = made["source"].as_str().filter(plain).filter(|source| !source.starts_with('-'));
    let mut command = format!("t2i-prepare {kind}");
    let mut add = |part: &str| {
        command.push(' ');
        command.push_str(part);
    };
    if kind == "blossoms" {
        for (flag, value) in [("--images", &old["images"]), ("--seed", &made["seed"])] {
            if let Some(value) = value.as_u64() {
                add(&format!("{flag} {value}"));
            }
        }
    } else {
        add(source.filter(|source| !source.is_empty()).unwrap_or("SOURCE"));
    }
    add(&format!("--out {}", quoted(&path.display().to_string())));
    if let Some(size) = old["image_size"].as_u64() {
        add(&format!("--size {size}"));
    }
    if made["fit"] == "crop" {
        add("--fit crop");
    }
    if made["boxes"] == true {
        add("--boxes");
    }
    add("--force");
    command
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// The real path of a regular file that lies directly in a folder.
pub(super) fn inside(path: &Path, folder: &Path) -> Result<PathBuf> {
    let real = path.canonicalize().map_err(|error| Error::data(path, format!("cannot be opened: {error}")))?;
    if real.parent() != Some(folder) {
        return Err(Error::data(path, "must lie in the folder of the pack, got a link that leads out of it"));
    }
    if !real.is_file() {
        return Err(Error::data(path, "must be a file"));
    }
    Ok(real)
}

pub(super) fn check(manifest: &Manifest, path: &Path) -> Result<()> {
    if !(1..=MAX_IMAGE_SIZE).contains(&manifest.image_size) {
        let message = format!("image_size must be from 1 to {MAX_IMAGE_SIZE}, got {}", manifest.image_size);
        return Err(Error::data(path, message));
    }
    let mut seen = HashSet::new();
    for ShardEntry { file, sha256, images, captions, .. } in &manifest.shards {
        let plain = Path::new(file).file_name().is_some_and(|name| name == file.as_str());
        if !plain || file.contains(['/', '\\', '\0', ':']) {
            return Err(Error::data(path, format!("shard file must be a plain name, got {file:?}")));
        }
        if !seen.insert(file) {
            return Err(Error::data(path, format!("shard file {file:?} is listed twice")));
        }
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::data(path, format!("sha256 of {file:?} must be 64 hex digits, got {sha256:?}")));
        }
        for (name, count) in [("images", images), ("captions", captions)] {
            if *count == usize::MAX {
                return Err(Error::data(path, format!("{name} of {file:?} must be a count, got {count}")));
            }
        }
    }
    Ok(())
}

pub(super) fn fingerprint(manifest: &Manifest) -> String {
    let Manifest { image_size, images, captions, .. } = manifest;
    let mut text = format!("t2i-pack {VERSION}\n{image_size} {images} {captions} {}\n", manifest.classes.len());
    for shard in &manifest.shards {
        let checksum = shard.sha256.to_ascii_lowercase();
        writeln!(text, "{} {} {checksum}", shard.images, shard.captions).expect("a string takes all");
    }
    hex(&Sha256::digest(text))
}
