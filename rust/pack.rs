//! The packed data set: a folder of plain safetensors shards and a `pack.json`, read-only.
//!
//! Everything that later code relies on is checked when the pack is opened, and every refusal names the file, the value
//! found and the value expected. Files are untrusted: a shard is a plain name inside the folder, and links that lead
//! out of it are refused.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::shard::{ShardFile, hex};
use crate::tokenizer::{CAPTION_LENGTH, UNKNOWN};

/// The largest `pack.json` read.
const MANIFEST_LIMIT: u64 = 16 << 20;
/// A pack of at most so many bytes is copied to memory when it is opened; a larger one is read where it is needed. CUB
/// and Oxford-102 have 0.2 GB, COCO 1.6.
pub const MEMORY: u64 = 2 << 30;
/// Shards that are looked at before each batch; of more, the next so many.
const WATCHED: usize = 16;
/// The largest image edge accepted.
const LARGEST_IMAGE: usize = 16_384;

#[derive(Deserialize)]
#[serde(expecting = "an object with format and version")]
struct Head {
    format: String,
    version: u64,
}

#[derive(Deserialize)]
struct Manifest {
    image_size: usize,
    images: usize,
    captions: usize,
    classes: Vec<String>,
    splits: SplitCounts,
    shards: Vec<ShardEntry>,
}

#[derive(Deserialize)]
struct SplitCounts {
    train: usize,
    test: usize,
}

#[derive(Deserialize)]
struct ShardEntry {
    file: String,
    images: usize,
    captions: usize,
    bytes: u64,
    sha256: String,
}

/// One shard; the byte offsets of its tensors were checked against its length.
#[derive(Debug)]
struct Shard {
    file: ShardFile,
    images_at: usize,
    captions_at: usize,
    first_image: usize,
    first_caption: usize,
}

/// A packed data set, read-only and shared freely between threads.
#[derive(Debug)]
pub struct Pack {
    path: PathBuf,
    image_size: usize,
    class_names: Vec<String>,
    fingerprint: String,
    shards: Vec<Shard>,
    /// The shard that is looked at next.
    watched: AtomicUsize,
    classes: Vec<i32>,
    splits: Vec<u8>,
    caption_offsets: Vec<i64>,
    captions: usize,
}

impl Pack {
    /// Opens and checks a pack; with `verify`, the SHA-256 of every shard too.
    ///
    /// # Errors
    /// [`Error::Data`] for whatever is not as the format says.
    pub fn open(path: &Path, verify: bool) -> Result<Self> {
        Self::open_within(path, verify, MEMORY)
    }

    /// As [`Self::open`]; shards of more than `memory` bytes together stay in their files.
    ///
    /// # Errors
    /// [`Error::Data`] for whatever is not as the format says.
    pub fn open_within(path: &Path, verify: bool, memory: u64) -> Result<Self> {
        let folder = path.canonicalize().map_err(|error| Error::data(path, format!("cannot be opened: {error}")))?;
        let manifest_path = path.join("pack.json");
        let manifest = read_manifest(path, &folder, &manifest_path)?;
        check_manifest(&manifest, &manifest_path)?;
        let mut pack = Self {
            path: path.to_path_buf(),
            image_size: manifest.image_size,
            class_names: manifest.classes.clone(),
            fingerprint: fingerprint(&manifest),
            shards: Vec::new(),
            watched: AtomicUsize::new(0),
            classes: Vec::new(),
            splits: Vec::new(),
            caption_offsets: vec![0],
            captions: 0,
        };
        let total = manifest.shards.iter().fold(0, |total: u64, entry| total.saturating_add(entry.bytes));
        for entry in &manifest.shards {
            pack.add_shard(entry, &folder, verify, total <= memory)?;
        }
        pack.check_totals(&manifest, &manifest_path)?;
        Ok(pack)
    }

    fn add_shard(&mut self, entry: &ShardEntry, folder: &Path, verify: bool, memory: bool) -> Result<()> {
        let path = self.path.join(&entry.file);
        let real = inside(&path, folder)?;
        let (file, metadata, data_at) = ShardFile::open(&path, &real, entry.bytes, &entry.sha256, memory)?;
        if verify {
            file.verify()?;
        }
        let tensors = Tensors { path: &path, metadata: &metadata, data_at, length: file.length() };
        let (n, m, size) = (entry.images, entry.captions, self.image_size);
        let images_at = tensors.find("images", Dtype::U8, &[n, size, size, 3])?.start;
        let captions = tensors.find("captions", Dtype::U8, &[m, CAPTION_LENGTH])?;
        let offsets = tensors.find("caption_offsets", Dtype::I64, &[n + 1])?;
        let classes = tensors.find("classes", Dtype::I32, &[n])?;
        let splits = tensors.find("splits", Dtype::U8, &[n])?;
        let names = tensors.find_list("names", Dtype::U8)?;
        std::str::from_utf8(&file.bytes(names)?)
            .map_err(|error| Error::data(&path, format!("names must be UTF-8, got {error}")))?;

        check_caption_ids(&path, &file.bytes(captions.clone())?)?;
        self.add_offsets(&path, &file.bytes(offsets)?, m)?;
        self.add_classes(&path, &file.bytes(classes)?)?;
        let splits = file.bytes(splits)?;
        if let Some(row) = splits.iter().position(|&split| split > 1) {
            let message = format!("split of image {row} must be 0 (train) or 1 (test), got {}", splits[row]);
            return Err(Error::data(&path, message));
        }
        let (first_image, first_caption) = (self.splits.len(), self.captions);
        self.splits.extend_from_slice(&splits);
        drop(splits);
        self.captions += m;
        let captions_at = captions.start;
        self.shards.push(Shard { file, images_at, captions_at, first_image, first_caption });
        Ok(())
    }

    fn add_offsets(&mut self, path: &Path, bytes: &[u8], captions: usize) -> Result<()> {
        // Not a cast of the bytes: nothing promises that they are aligned.
        let offsets: Vec<i64> = bytes.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        let last = i64::try_from(captions).map_err(|_| Error::data(path, "has too many captions"))?;
        let base = i64::try_from(self.captions).map_err(|_| Error::data(path, "has too many captions"))?;
        if offsets[0] != 0 {
            return Err(Error::data(path, format!("caption_offsets must start at 0, got {}", offsets[0])));
        }
        if offsets[offsets.len() - 1] != last {
            let message = format!("caption_offsets must end at {last}, got {}", offsets[offsets.len() - 1]);
            return Err(Error::data(path, message));
        }
        if let Some(image) = offsets.windows(2).position(|pair| pair[0] >= pair[1]) {
            let (from, to) = (offsets[image], offsets[image + 1]);
            let message =
                format!("every image must have a caption, got caption_offsets {from} to {to} at image {image}");
            return Err(Error::data(path, message));
        }
        self.caption_offsets.extend(offsets[1..].iter().map(|offset| base + offset));
        Ok(())
    }

    fn add_classes(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        for (image, bytes) in bytes.as_chunks::<4>().0.iter().enumerate() {
            let class = i32::from_le_bytes(*bytes);
            let known = usize::try_from(class).is_ok_and(|class| class < self.class_names.len());
            if !known && (class != -1 || !self.class_names.is_empty()) {
                let expected = match self.class_names.len() {
                    0 => "-1, because pack.json names no classes".to_owned(),
                    count => format!("from 0 to {}, because pack.json names {count} classes", count - 1),
                };
                return Err(Error::data(path, format!("class of image {image} must be {expected}, got {class}")));
            }
            self.classes.push(class);
        }
        Ok(())
    }

    fn check_totals(&self, manifest: &Manifest, path: &Path) -> Result<()> {
        let train = self.splits.iter().filter(|&&split| split == 0).count();
        let found = [
            ("images", manifest.images, self.splits.len()),
            ("captions", manifest.captions, self.captions),
            ("splits.train", manifest.splits.train, train),
            ("splits.test", manifest.splits.test, self.splits.len() - train),
        ];
        for (name, declared, counted) in found {
            if declared != counted {
                return Err(Error::data(path, format!("{name} must be {counted} as in the shards, got {declared}")));
            }
        }
        if self.splits.is_empty() {
            return Err(Error::data(path, "the pack has no image"));
        }
        Ok(())
    }

    /// The folder as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of images.
    #[must_use]
    pub fn images(&self) -> usize {
        self.splits.len()
    }

    /// Number of captions.
    #[must_use]
    pub fn captions(&self) -> usize {
        self.captions
    }

    /// Edge of the square images.
    #[must_use]
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// Names of the classes; none if the set has no classes.
    #[must_use]
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// SHA-256 over the counts and the shard checksums: two packs of one fingerprint hold the same data.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Class of each image, -1 if the set has no classes.
    #[must_use]
    pub fn classes(&self) -> &[i32] {
        &self.classes
    }

    /// Split of each image: 0 train, 1 test.
    #[must_use]
    pub fn splits(&self) -> &[u8] {
        &self.splits
    }

    /// Global caption rows of image i: `offsets[i]..offsets[i + 1]`.
    #[must_use]
    pub fn caption_offsets(&self) -> &[i64] {
        &self.caption_offsets
    }

    /// The pixels of one image, (size, size, 3).
    ///
    /// # Errors
    /// [`Error::Data`] for a shard that stays in its file and cannot be read any more.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        assert!(index < self.images(), "image {index} of {}", self.images());
        let shard = &self.shards[self.shards.partition_point(|shard| shard.first_image <= index) - 1];
        let length = self.image_size * self.image_size * 3;
        let at = shard.images_at + (index - shard.first_image) * length;
        shard.file.bytes(at..at + length)
    }

    /// The ids of one caption by its global row.
    ///
    /// # Errors
    /// [`Error::Data`] for a shard that stays in its file and cannot be read any more.
    ///
    /// # Panics
    /// If there is no such caption.
    pub fn caption(&self, row: usize) -> Result<Cow<'_, [u8]>> {
        assert!(row < self.captions, "caption {row} of {}", self.captions);
        let shard = &self.shards[self.shards.partition_point(|shard| shard.first_caption <= row) - 1];
        let at = shard.captions_at + (row - shard.first_caption) * CAPTION_LENGTH;
        shard.file.bytes(at..at + CAPTION_LENGTH)
    }

    /// Copies images to `out` (n, size, size, 3).
    ///
    /// # Errors
    /// For an index outside the set, a wrong buffer, or a shard that changed on disk.
    pub fn read_images(&self, index: &[i64], out: &mut [u8]) -> Result<()> {
        let length = self.image_size * self.image_size * 3;
        copy_rows("image", index, self.images(), length, out, || self.check_unchanged(), |row| self.image(row))
    }

    /// Copies captions by global row to `out` (n, 201).
    ///
    /// # Errors
    /// For an index outside the set, a wrong buffer, or a shard that changed on disk.
    pub fn read_captions(&self, index: &[i64], out: &mut [u8]) -> Result<()> {
        let check = || self.check_unchanged();
        copy_rows("caption", index, self.captions, CAPTION_LENGTH, out, check, |row| self.caption(row))
    }

    /// Refuses a pack with a shard that was cut, replaced, deleted or made unreadable since it was opened. Of many shards
    /// this looks at the next few: one call costs some microseconds, and a few calls see them all.
    ///
    /// # Errors
    /// [`Error::Data`] naming the shard.
    pub fn check_unchanged(&self) -> Result<()> {
        let count = self.shards.len().min(WATCHED);
        let first = self.watched.fetch_add(count, Ordering::Relaxed);
        (0..count).try_for_each(|at| self.shards[first.wrapping_add(at) % self.shards.len()].file.check_unchanged())
    }
}

fn copy_rows<'a>(
    name: &'static str,
    index: &[i64],
    length: usize,
    row_bytes: usize,
    out: &mut [u8],
    check: impl FnOnce() -> Result<()>,
    get: impl Fn(usize) -> Result<Cow<'a, [u8]>>,
) -> Result<()> {
    Error::check_length(
        if name == "image" { "image buffer" } else { "caption buffer" },
        index.len() * row_bytes,
        out.len(),
    )?;
    let rows = index
        .iter()
        .enumerate()
        .map(|(row, &value)| {
            let position = usize::try_from(value).ok().filter(|&position| position < length);
            position.ok_or(Error::Index { name, row, value, length })
        })
        .collect::<Result<Vec<usize>>>()?;
    check()?;
    for (target, row) in out.chunks_exact_mut(row_bytes).zip(rows) {
        target.copy_from_slice(&get(row)?);
    }
    Ok(())
}

fn read_manifest(path: &Path, folder: &Path, manifest_path: &Path) -> Result<Manifest> {
    if !folder.is_dir() {
        return Err(Error::data(path, "must be a folder with a pack.json, got a file"));
    }
    let inside = inside(manifest_path, folder)?;
    let length = std::fs::metadata(&inside).map_err(|error| Error::data(manifest_path, error.to_string()))?.len();
    if length > MANIFEST_LIMIT {
        let message = format!("must have at most {MANIFEST_LIMIT} bytes, got {length}");
        return Err(Error::data(manifest_path, message));
    }
    let text = std::fs::read(&inside).map_err(|error| Error::data(manifest_path, error.to_string()))?;
    // The format first: of another program's pack.json it is the most useful thing to say.
    let invalid = |error: serde_json::Error| Error::data(manifest_path, format!("is not a valid pack.json: {error}"));
    let head: Head = serde_json::from_slice(&text).map_err(invalid)?;
    if head.format != "t2i-pack" || head.version != 1 {
        let message = format!("must be of format t2i-pack 1, got {:?} {}", head.format, head.version);
        return Err(Error::data(manifest_path, message));
    }
    serde_json::from_slice(&text).map_err(invalid)
}

/// The real path of a regular file that lies directly in a folder.
fn inside(path: &Path, folder: &Path) -> Result<PathBuf> {
    let real = path.canonicalize().map_err(|error| Error::data(path, format!("cannot be opened: {error}")))?;
    if real.parent() != Some(folder) {
        return Err(Error::data(path, "must lie in the folder of the pack, got a link that leads out of it"));
    }
    if !real.is_file() {
        return Err(Error::data(path, "must be a file"));
    }
    Ok(real)
}

fn check_manifest(manifest: &Manifest, path: &Path) -> Result<()> {
    if !(1..=LARGEST_IMAGE).contains(&manifest.image_size) {
        let message = format!("image_size must be from 1 to {LARGEST_IMAGE}, got {}", manifest.image_size);
        return Err(Error::data(path, message));
    }
    let mut seen = HashSet::new();
    for ShardEntry { file, sha256, images, .. } in &manifest.shards {
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
        if *images == usize::MAX {
            return Err(Error::data(path, format!("images of {file:?} must be a count, got {images}")));
        }
    }
    Ok(())
}

fn fingerprint(manifest: &Manifest) -> String {
    let Manifest { image_size, images, captions, .. } = manifest;
    let mut text = format!("t2i-pack 1\n{image_size} {images} {captions} {}\n", manifest.classes.len());
    for shard in &manifest.shards {
        let checksum = shard.sha256.to_ascii_lowercase();
        writeln!(text, "{} {} {checksum}", shard.images, shard.captions).expect("a string takes all");
    }
    hex(&Sha256::digest(text))
}

/// The tensors of a shard that is being checked.
struct Tensors<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
    data_at: usize,
    length: usize,
}

impl Tensors<'_> {
    /// Byte range of a tensor of this dtype and shape.
    fn find(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<std::ops::Range<usize>> {
        let info = self.info(name)?;
        if info.dtype != dtype || info.shape != shape {
            let message = format!("{name} must be {dtype:?} {shape:?}, got {:?} {:?}", info.dtype, info.shape);
            return Err(Error::data(self.path, message));
        }
        self.range(info.data_offsets)
    }

    /// Byte range of a list of any length.
    fn find_list(&self, name: &str, dtype: Dtype) -> Result<std::ops::Range<usize>> {
        let info = self.info(name)?;
        if info.dtype != dtype || info.shape.len() != 1 {
            let message = format!("{name} must be {dtype:?} of one dimension, got {:?} {:?}", info.dtype, info.shape);
            return Err(Error::data(self.path, message));
        }
        self.range(info.data_offsets)
    }

    fn info(&self, name: &str) -> Result<&safetensors::tensor::TensorInfo> {
        self.metadata.info(name).ok_or_else(|| Error::data(self.path, format!("must have a tensor {name}, got none")))
    }

    /// The library has checked that offsets lie in the file; this crate does not rely on it.
    fn range(&self, (start, end): (usize, usize)) -> Result<std::ops::Range<usize>> {
        let (start, end) = (self.data_at.saturating_add(start), self.data_at.saturating_add(end));
        if start > end || end > self.length {
            return Err(Error::data(self.path, format!("has a tensor at {start}..{end} of {} bytes", self.length)));
        }
        Ok(start..end)
    }
}

fn check_caption_ids(path: &Path, captions: &[u8]) -> Result<()> {
    // The maximum alone vectorises; the position is wanted only when something is wrong.
    if captions.iter().copied().max().unwrap_or(0) <= UNKNOWN {
        return Ok(());
    }
    let at = captions.iter().position(|&id| id > UNKNOWN).unwrap_or(0);
    let (row, column) = (at / CAPTION_LENGTH, at % CAPTION_LENGTH);
    let message =
        format!("character id must be at most {UNKNOWN}, got {} at caption {row}, column {column}", captions[at]);
    Err(Error::data(path, message))
}

#[cfg(test)]
#[allow(clippy::type_complexity, reason = "tables")]
mod tests {
    use super::*;
    use crate::fixture::{self, Item, pixel};
    use serde_json::{Value, json};
    use std::fs::File;

    /// Two shards of three and two images with one to three captions.
    fn items() -> Vec<Vec<Item>> {
        vec![
            vec![
                Item::new(0, 0, &["a red flower", "red petals"]),
                Item::new(1, 0, &["a blue flower"]),
                Item::new(0, 1, &["one", "two", "three"]),
            ],
            vec![Item::new(1, 1, &["last but one"]), Item::new(0, 0, &["last", "the last"])],
        ]
    }

    #[test]
    fn a_pack_gives_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
        let pack = Pack::open(folder.path(), true).unwrap();
        assert_eq!((pack.images(), pack.captions(), pack.image_size()), (5, 9, 5));
        assert_eq!(pack.class_names(), ["rose", "bluebell"]);
        assert_eq!(pack.classes(), [0, 1, 0, 1, 0]);
        assert_eq!(pack.splits(), [0, 0, 1, 1, 0]);
        assert_eq!(pack.caption_offsets(), [0, 2, 3, 6, 7, 9]);
        for image in 0..5 {
            for (at, &value) in pack.image(image).unwrap().iter().enumerate() {
                assert_eq!(value, pixel(image, at / 15, at / 3 % 5, at % 3));
            }
        }
        let texts: Vec<String> = items().concat().into_iter().flat_map(|item| item.captions).collect();
        for (row, text) in texts.iter().enumerate() {
            assert_eq!(crate::tokenizer::decode(&pack.caption(row).unwrap(), row).unwrap(), *text);
        }
    }

    #[test]
    fn rows_are_copied_in_the_order_asked_and_bad_indices_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
        let pack = Pack::open(folder.path(), false).unwrap();
        let mut out = vec![0; 3 * 75];
        pack.read_images(&[4, 0, 3], &mut out).unwrap();
        assert_eq!(out, [4, 0, 3].map(|image| pack.image(image).unwrap()).concat());
        let mut out = vec![0; 2 * 201];
        pack.read_captions(&[8, 0], &mut out).unwrap();
        assert_eq!(out, [8, 0].map(|row| pack.caption(row).unwrap()).concat());
        for bad in [-1, 9, i64::MAX, i64::MIN] {
            let message = pack.read_captions(&[0, bad], &mut out).unwrap_err().to_string();
            assert_eq!(message, format!("caption index must be from 0 to 8, got {bad} at row 1"));
        }
        assert!(pack.read_images(&[0], &mut out).is_err(), "a buffer of the wrong length");
    }

    #[test]
    fn a_pack_without_classes_has_minus_one_for_each_image() {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &[vec![Item::new(-1, 0, &["a"]), Item::new(-1, 0, &["b"])]], &[], 2);
        let pack = Pack::open(folder.path(), true).unwrap();
        assert_eq!(pack.classes(), [-1, -1]);
        assert!(pack.class_names().is_empty());
    }

    #[test]
    fn the_fingerprint_follows_the_data_and_not_the_file_names() {
        let print = |change: &dyn Fn(&mut Vec<Vec<Item>>), rename: bool| {
            let folder = tempfile::tempdir().unwrap();
            let mut items = items();
            change(&mut items);
            let mut manifest = fixture::write(folder.path(), &items, &["rose", "bluebell"], 5);
            if rename {
                std::fs::rename(folder.path().join("shard-00000.safetensors"), folder.path().join("x")).unwrap();
                manifest["shards"][0]["file"] = json!("x");
                std::fs::write(folder.path().join("pack.json"), manifest.to_string()).unwrap();
            }
            Pack::open(folder.path(), true).unwrap().fingerprint().to_owned()
        };
        let base = print(&|_| (), false);
        assert_eq!(base.len(), 64);
        assert_eq!(base, print(&|_| (), true));
        assert_ne!(base, print(&|items| items[0][0].captions[0].push('!'), false));
        assert_ne!(base, print(&|items| items.swap(0, 1), false));
    }

    type Change = Box<dyn Fn(&mut Value)>;

    fn set(pointer: &'static str, value: Value) -> Change {
        Box::new(move |manifest| *manifest.pointer_mut(pointer).unwrap() = value.clone())
    }

    fn remove(name: &'static str) -> Change {
        Box::new(move |manifest| drop(manifest.as_object_mut().unwrap().remove(name)))
    }

    #[test]
    fn hostile_manifests_are_refused_with_the_value_found() {
        let cases: Vec<(Change, &str)> = vec![
            (set("", json!([])), "expected an object with format and version"),
            (set("", json!("pack")), "expected an object"),
            (set("/format", json!("webdataset")), "must be of format t2i-pack 1, got \"webdataset\" 1"),
            (set("/version", json!(2)), "got \"t2i-pack\" 2"),
            (remove("image_size"), "missing field `image_size`"),
            (remove("shards"), "missing field `shards`"),
            (remove("splits"), "missing field `splits`"),
            (set("/image_size", json!(0)), "image_size must be from 1 to 16384, got 0"),
            (set("/image_size", json!(1_u64 << 40)), "image_size must be from 1 to 16384"),
            (set("/image_size", json!(-5)), "invalid value"),
            (set("/image_size", json!(6)), "images must be U8 [3, 6, 6, 3], got U8 [3, 5, 5, 3]"),
            (set("/images", json!(6)), "images must be 5 as in the shards, got 6"),
            (set("/captions", json!(0)), "captions must be 9 as in the shards, got 0"),
            (set("/splits/test", json!(3)), "splits.test must be 2 as in the shards, got 3"),
            (set("/splits/train", json!(1)), "splits.train must be 3 as in the shards, got 1"),
            (set("/classes", json!([])), "class of image 0 must be -1, because pack.json names no classes, got 0"),
            (
                set("/classes", json!(["rose"])),
                "class of image 1 must be from 0 to 0, because pack.json names 1 classes, got 1",
            ),
            (set("/classes", json!([1, 2])), "invalid type"),
            (set("/shards", json!([])), "images must be 0 as in the shards, got 5"),
            (set("/shards/0/images", json!(u64::MAX)), "images of \"shard-00000.safetensors\" must be a count"),
            (set("/shards/0/images", json!(2)), "images must be U8 [2, 5, 5, 3], got U8 [3, 5, 5, 3]"),
            (set("/shards/0/captions", json!(7)), "captions must be U8 [7, 201], got U8 [6, 201]"),
            (set("/shards/0/bytes", json!(10)), "must have 10 bytes as pack.json says, got"),
            (set("/shards/0/sha256", json!("abc")), "must be 64 hex digits, got \"abc\""),
            (set("/shards/0/sha256", json!("0".repeat(64))), "sha256 must be 0000"),
            (set("/shards/0/file", json!("../x.safetensors")), "must be a plain name, got \"../x.safetensors\""),
            (set("/shards/0/file", json!("/etc/passwd")), "must be a plain name, got \"/etc/passwd\""),
            (set("/shards/0/file", json!("..")), "must be a plain name, got \"..\""),
            (set("/shards/0/file", json!(".")), "must be a plain name, got \".\""),
            (set("/shards/0/file", json!("")), "must be a plain name, got \"\""),
            (set("/shards/0/file", json!("./shard-00000.safetensors")), "must be a plain name"),
            (set("/shards/0/file", json!("a\u{0}b")), "must be a plain name"),
            (set("/shards/0/file", json!("a\\b")), "must be a plain name"),
            (set("/shards/0/file", json!("shard-00001.safetensors")), "is listed twice"),
            (set("/shards/0/file", json!("missing.safetensors")), "missing.safetensors: cannot be opened"),
            (set("/shards/0/file", json!("link")), "link that leads out of it"),
            (set("/shards/0/file", json!("folder")), "must be a file"),
        ];
        let outside = tempfile::NamedTempFile::new().unwrap();
        for (change, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let mut manifest = fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
            std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
            std::fs::create_dir(folder.path().join("folder")).unwrap();
            change(&mut manifest);
            std::fs::write(folder.path().join("pack.json"), manifest.to_string()).unwrap();
            let error = Pack::open(folder.path(), true).unwrap_err();
            assert!(matches!(error, Error::Data { .. }), "{error:?}");
            let message = error.to_string();
            assert!(message.starts_with(folder.path().to_str().unwrap()), "the path comes first: {message}");
            assert!(message.contains(expected), "expected {expected:?} in {message:?}");
        }
    }

    #[test]
    fn text_that_is_not_a_manifest_is_refused() {
        for text in [&b""[..], b"{", b"\xff\xfe", b"nul", "[".repeat(100_000).as_bytes()] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("pack.json"), text).unwrap();
            let message = Pack::open(folder.path(), false).unwrap_err().to_string();
            assert!(message.contains("pack.json: is not a valid pack.json"), "{message}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(Pack::open(folder.path(), false).unwrap_err().to_string().contains("pack.json: cannot be opened"));
        assert!(Pack::open(&folder.path().join("no"), false).unwrap_err().to_string().contains("no: cannot be opened"));
        std::fs::write(folder.path().join("file"), "").unwrap();
        let message = Pack::open(&folder.path().join("file"), false).unwrap_err().to_string();
        assert!(message.contains("must be a folder"), "{message}");
    }

    fn open_with_shard(bytes: &[u8], images: usize, captions: usize) -> Result<Pack> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("s"), bytes).unwrap();
        let manifest = json!({
            "format": "t2i-pack", "version": 1, "image_size": 2, "images": images, "captions": captions,
            "classes": ["rose", "bluebell"], "splits": {"train": images, "test": 0},
            "shards": [fixture::entry("s", bytes, images, captions)],
        });
        std::fs::write(folder.path().join("pack.json"), manifest.to_string()).unwrap();
        Pack::open(folder.path(), true)
    }

    #[test]
    fn hostile_tensors_are_refused_with_the_value_found() {
        let two = [Item::new(0, 0, &["a", "b"]), Item::new(1, 0, &["c"])];
        let offsets = |values: [i64; 3]| (Dtype::I64, vec![3], values.iter().flat_map(|v| v.to_le_bytes()).collect());
        let classes = |values: [i32; 2]| (Dtype::I32, vec![2], values.iter().flat_map(|v| v.to_le_bytes()).collect());
        let mut unknown_id = vec![0; 603];
        unknown_id[201 + 5] = 72;
        let cases: Vec<(&'static str, (Dtype, Vec<usize>, Vec<u8>), &str)> = vec![
            ("caption_offsets", offsets([0, 2, 3]), ""), // the sound one
            ("caption_offsets", offsets([1, 2, 3]), "caption_offsets must start at 0, got 1"),
            ("caption_offsets", offsets([0, 2, 4]), "caption_offsets must end at 3, got 4"),
            (
                "caption_offsets",
                offsets([0, 0, 3]),
                "every image must have a caption, got caption_offsets 0 to 0 at image 0",
            ),
            ("caption_offsets", offsets([0, 3, 3]), "caption_offsets 3 to 3 at image 1"),
            ("caption_offsets", offsets([0, -1, 3]), "caption_offsets 0 to -1 at image 0"),
            ("caption_offsets", offsets([0, i64::MAX, 3]), "to 3 at image 1"),
            ("caption_offsets", (Dtype::I64, vec![2], vec![0; 16]), "caption_offsets must be I64 [3], got I64 [2]"),
            ("caption_offsets", (Dtype::U64, vec![3], vec![0; 24]), "caption_offsets must be I64 [3], got U64 [3]"),
            (
                "classes",
                classes([0, 2]),
                "class of image 1 must be from 0 to 1, because pack.json names 2 classes, got 2",
            ),
            (
                "classes",
                classes([-1, 0]),
                "class of image 0 must be from 0 to 1, because pack.json names 2 classes, got -1",
            ),
            ("classes", classes([i32::MIN, 0]), "got -2147483648"),
            ("classes", (Dtype::I32, vec![2, 1], vec![0; 8]), "classes must be I32 [2], got I32 [2, 1]"),
            ("splits", (Dtype::U8, vec![2], vec![0, 2]), "split of image 1 must be 0 (train) or 1 (test), got 2"),
            ("splits", (Dtype::BOOL, vec![2], vec![0, 0]), "splits must be U8 [2], got BOOL [2]"),
            (
                "captions",
                (Dtype::U8, vec![3, 201], unknown_id),
                "character id must be at most 71, got 72 at caption 1, column 5",
            ),
            ("captions", (Dtype::U8, vec![3, 200], vec![0; 600]), "captions must be U8 [3, 201], got U8 [3, 200]"),
            (
                "images",
                (Dtype::F32, vec![2, 2, 2, 3], vec![0; 96]),
                "images must be U8 [2, 2, 2, 3], got F32 [2, 2, 2, 3]",
            ),
            (
                "images",
                (Dtype::U8, vec![2, 3, 2, 2], vec![0; 24]),
                "images must be U8 [2, 2, 2, 3], got U8 [2, 3, 2, 2]",
            ),
            ("names", (Dtype::U8, vec![2], vec![0xC3, 0x28]), "names must be UTF-8"),
            ("names", (Dtype::U8, vec![1, 1], vec![65]), "names must be U8 of one dimension"),
            ("attributes", (Dtype::I32, vec![2, 4], vec![0; 32]), ""), // unknown tensors are left alone
        ];
        for (name, tensor, expected) in cases {
            let mut tensors = fixture::tensors(&two, 0, 2);
            tensors.insert(name, tensor);
            let result = open_with_shard(&fixture::shard(&tensors), 2, 3);
            let message = result.as_ref().map_or_else(ToString::to_string, |_| String::new());
            assert_eq!(message.is_empty(), expected.is_empty(), "{name}: {message}");
            assert!(message.contains(expected), "expected {expected:?} in {message:?}");
        }
        for name in ["images", "captions", "caption_offsets", "classes", "splits", "names"] {
            let mut tensors = fixture::tensors(&two, 0, 2);
            tensors.remove(name);
            let message = open_with_shard(&fixture::shard(&tensors), 2, 3).unwrap_err().to_string();
            assert!(message.contains(&format!("must have a tensor {name}, got none")), "{message}");
        }
    }

    #[test]
    fn shards_that_are_not_safetensors_are_refused() {
        let good = fixture::shard(&fixture::tensors(&[Item::new(0, 0, &["a"])], 0, 2));
        assert!(open_with_shard(&good, 1, 1).is_ok());
        let header = |text: &str, data: &[u8]| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), data].concat();
        let cases = [
            ("empty", Vec::new()),
            ("seven bytes", vec![0; 7]),
            ("no header", vec![0; 8]),
            ("a header longer than the file", 1000_u64.to_le_bytes().to_vec()),
            ("a huge header", [u64::MAX.to_le_bytes(), [0; 8]].concat()),
            ("a header of more than a megabyte", [&(2_u64 << 20).to_le_bytes()[..], &vec![b' '; 2 << 20]].concat()),
            ("not JSON", header("hello", b"")),
            (
                "offsets outside the file",
                header(r#"{"images":{"dtype":"U8","shape":[99],"data_offsets":[0,99]}}"#, b"x"),
            ),
            ("offsets turned round", header(r#"{"images":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}"#, b"x")),
            (
                "a shape that overflows",
                header(r#"{"images":{"dtype":"U8","shape":[4294967296,4294967296,2],"data_offsets":[0,1]}}"#, b"x"),
            ),
            ("a shape of another size", header(r#"{"images":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}"#, b"x")),
            ("cut by a byte", good[..good.len() - 1].to_vec()),
            ("a byte too many", [&good[..], &[0]].concat()),
        ];
        for (name, bytes) in cases {
            assert!(matches!(open_with_shard(&bytes, 1, 1), Err(Error::Data { .. })), "{name}");
        }
    }

    /// A pack in memory and the same one in its files.
    fn both(folder: &Path) -> [Pack; 2] {
        [2 << 30, 0].map(|memory| Pack::open_within(folder, true, memory).unwrap())
    }

    #[test]
    fn a_pack_in_its_files_reads_as_one_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
        let [memory, file] = both(folder.path());
        for image in 0..5 {
            assert_eq!(memory.image(image).unwrap(), file.image(image).unwrap());
        }
        for row in 0..9 {
            assert_eq!(memory.caption(row).unwrap(), file.caption(row).unwrap());
        }
        assert_eq!(memory.fingerprint(), file.fingerprint());
    }

    #[test]
    fn a_shard_that_changes_under_a_running_reader_is_noticed_and_named() {
        let cases: [(&str, &dyn Fn(&Path)); 5] = [
            ("it had", &|shard| drop(File::options().write(true).open(shard).unwrap().set_len(100))),
            ("it had", &|shard| std::fs::write(shard, []).unwrap()),
            ("its sha256 was", &|shard| {
                let mut bytes = std::fs::read(shard).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                std::fs::write(shard.with_extension("new"), bytes).unwrap();
                std::fs::rename(shard.with_extension("new"), shard).unwrap();
            }),
            ("No such file", &|shard| std::fs::remove_file(shard).unwrap()),
            ("nobody has the permission", &|shard| {
                std::fs::set_permissions(shard, std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
            }),
        ];
        for (says, change) in cases {
            let folder = tempfile::tempdir().unwrap();
            fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
            let packs = both(folder.path());
            change(&folder.path().join("shard-00001.safetensors"));
            for pack in packs {
                let message = pack.read_images(&[0], &mut [0; 75]).unwrap_err().to_string();
                assert!(message.contains("shard-00001.safetensors: changed while in use"), "{message}");
                assert!(message.contains(says), "expected {says:?} in {message:?}");
            }
        }
    }

    #[test]
    fn a_copy_of_the_same_content_may_take_a_shards_place() {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
        let packs = both(folder.path());
        let shard = folder.path().join("shard-00001.safetensors");
        std::fs::copy(&shard, folder.path().join("copy")).unwrap();
        std::fs::rename(folder.path().join("copy"), &shard).unwrap();
        for pack in packs {
            for _ in 0..2 {
                pack.read_images(&[4], &mut [0; 75]).unwrap();
            }
        }
    }

    #[test]
    fn a_file_cut_between_the_look_and_the_read_is_an_error_and_no_signal() {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
        let [memory, file] = both(folder.path());
        let shard = folder.path().join("shard-00001.safetensors");
        File::options().write(true).open(shard).unwrap().set_len(8).unwrap();
        assert_eq!(memory.image(4).unwrap()[0], pixel(4, 0, 0, 0));
        assert!(file.image(4).unwrap_err().to_string().contains("changed while in use"));
    }

    #[test]
    fn of_many_shards_each_is_looked_at_in_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let shards: Vec<Vec<Item>> = (0..40).map(|image| vec![Item::new(image % 2, 0, &["a"])]).collect();
        fixture::write(folder.path(), &shards, &["rose", "bluebell"], 2);
        let pack = Pack::open(folder.path(), false).unwrap();
        std::fs::remove_file(folder.path().join("shard-00033.safetensors")).unwrap();
        let noticed = (0..3).filter(|_| pack.check_unchanged().is_err()).count();
        assert_eq!(noticed, 1);
    }
}
