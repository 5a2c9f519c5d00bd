//! The packed data set: a folder of plain safetensors shards and a `pack.json`, read-only.
//!
//! Everything that later code relies on is checked when the pack is opened; errors name the file, the value found and
//! the value expected. Files are untrusted: a shard is a plain file name inside the folder, and links that lead out of
//! it are refused.

mod captions;
mod manifest;
mod shard;
mod tensors;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use safetensors::tensor::Dtype;

use self::captions::Captions;
use self::manifest::{Manifest, ShardEntry, fingerprint, inside};
use self::shard::ShardFile;
use self::tensors::Tensors;
use crate::error::{Error, Result};
use crate::threads::fill_rows;
use crate::tokenizer::{Losses, Tokenizer};

/// A pack of at most this many bytes is copied to memory when it is opened; a larger one is read as needed. CUB and
/// Oxford-102 have 0.2 GB, COCO 1.6 GB.
pub const MEMORY: u64 = 2 << 30;

/// Number of shards checked for changes before each batch, in turn.
const WATCHED: usize = 16;

/// One shard; the byte offsets of its tensors were checked against its length.
#[derive(Debug)]
struct Shard {
    file: ShardFile,
    images_at: usize,
    captions: Captions,
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
    /// The shard that is checked next.
    watched: AtomicUsize,
    classes: Vec<i32>,
    splits: Vec<u8>,
    caption_offsets: Vec<i64>,
    captions: usize,
}

impl Pack {
    /// Opens and checks a pack. Shards that are copied to memory are compared with their SHA-256, the others when they are
    /// first read from, or now with `verify`.
    ///
    /// # Errors
    /// [`Error::Data`] for anything that violates the format.
    pub fn open(path: &Path, verify: bool) -> Result<Self> {
        Self::open_within(path, verify, MEMORY)
    }

    /// As [`Self::open`]; shards of more than `memory` bytes in total are read from their files as needed.
    ///
    /// # Errors
    /// [`Error::Data`] for anything that violates the format.
    pub fn open_within(path: &Path, verify: bool, memory: u64) -> Result<Self> {
        Self::open_while(path, verify, memory, &mut || true)
    }

    /// As [`Self::open_within`]; `go_on` is asked before each shard, so that reading gigabytes can be interrupted.
    ///
    /// # Errors
    /// [`Error::Data`] for anything that violates the format, and where `go_on` returned false.
    pub fn open_while(path: &Path, verify: bool, memory: u64, go_on: &mut dyn FnMut() -> bool) -> Result<Self> {
        let folder = path.canonicalize().map_err(|error| Error::data(path, format!("cannot be opened: {error}")))?;
        let manifest_path = path.join("pack.json");
        let manifest = manifest::read(path, &folder, &manifest_path)?;
        manifest::check(&manifest, &manifest_path)?;
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
            if !go_on() {
                return Err(Error::data(path, "opening was interrupted"));
            }
            pack.add_shard(entry, &folder, verify, total <= memory)?;
        }
        pack.check_totals(&manifest, &manifest_path)?;
        Ok(pack)
    }

    fn add_shard(&mut self, entry: &ShardEntry, folder: &Path, verify: bool, memory: bool) -> Result<()> {
        let path = self.path.join(&entry.file);
        let real = inside(&path, folder)?;
        let (mut file, metadata, data_at) = ShardFile::open(&path, &real, entry.bytes, &entry.sha256, memory)?;
        let tensors = Tensors { path: &path, metadata: &metadata, data_at, length: file.length() };
        let (n, m, size) = (entry.images, entry.captions, self.image_size);
        let images_at = tensors.find("images", Dtype::U8, &[n, size, size, 3])?.start;
        let captions = Captions::find(&tensors, m)?;
        let offsets = tensors.find("caption_offsets", Dtype::I64, &[n + 1])?;
        let classes = tensors.find("classes", Dtype::I32, &[n])?;
        let splits = tensors.find("splits", Dtype::U8, &[n])?;
        let names = tensors.find_list("names", Dtype::U8)?;
        std::str::from_utf8(&file.bytes(names)?)
            .map_err(|error| Error::data(&path, format!("names must be UTF-8, got {error}")))?;

        captions.for_each(&path, &file, |_, _| ())?;
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
        file.finish(verify)?; // last: what is wrong with a tensor is said first
        self.captions += m;
        self.shards.push(Shard { file, images_at, captions, first_image, first_caption });
        Ok(())
    }

    fn add_offsets(&mut self, path: &Path, bytes: &[u8], captions: usize) -> Result<()> {
        // Not a cast of the bytes, which need not be aligned.
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

    /// The folder as passed to [`Self::open`].
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

    /// Global caption rows of an image.
    ///
    /// # Panics
    /// If there is no such image.
    #[must_use]
    pub fn caption_rows(&self, image: usize) -> Range<usize> {
        let row = |at: usize| usize::try_from(self.caption_offsets[at]).expect("checked when the pack was opened");
        row(image)..row(image + 1)
    }

    /// The pixels of one image, (size, size, 3).
    ///
    /// # Errors
    /// [`Error::Data`] if the shard is read from its file and that fails.
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

    /// The text of one caption by its global row, as the user wrote it.
    ///
    /// # Errors
    /// [`Error::Data`] if the shard is read from its file and that fails.
    ///
    /// # Panics
    /// If there is no such caption.
    pub fn caption(&self, row: usize) -> Result<Cow<'_, str>> {
        assert!(row < self.captions, "caption {row} of {}", self.captions);
        let shard = &self.shards[self.shards.partition_point(|shard| shard.first_caption <= row) - 1];
        shard.captions.get(&shard.file, row - shard.first_caption)
    }

    /// The texts of captions by their global rows.
    ///
    /// # Errors
    /// For an index outside the set, or a shard that changed on disk.
    pub fn caption_texts(&self, index: &[i64]) -> Result<Vec<Cow<'_, str>>> {
        let rows = check_rows("caption", index, self.captions)?;
        self.check_unchanged()?;
        let texts = rows.iter().map(|&row| self.caption(row)).collect::<Result<Vec<_>>>()?;
        self.check_read([], rows)?;
        Ok(texts)
    }

    /// Calls `use_caption` with every caption and its global row, in order; faster than one [`Self::caption`] each.
    ///
    /// # Errors
    /// [`Error::Data`] if a shard is read from its file and that fails.
    pub fn for_each_caption(&self, mut use_caption: impl FnMut(usize, &str)) -> Result<()> {
        for shard in &self.shards {
            let each = |row: usize, text: &str| use_caption(shard.first_caption + row, text);
            shard.captions.for_each(shard.file.path(), &shard.file, each)?;
        }
        Ok(())
    }

    /// Counts the captions that a tokenizer does not keep whole.
    ///
    /// # Errors
    /// [`Error::Data`] if a shard is read from its file and that fails.
    pub fn losses(&self, tokenizer: Tokenizer) -> Result<Losses> {
        let mut losses = Losses::default();
        self.for_each_caption(|_, text| losses.add(tokenizer, text))?;
        Ok(losses)
    }

    /// Copies images to `out` (n, size, size, 3).
    ///
    /// # Errors
    /// For an index outside the set, a wrong buffer, or a shard that changed on disk.
    pub fn read_images(&self, index: &[i64], out: &mut [u8]) -> Result<()> {
        let length = self.image_size * self.image_size * 3;
        Error::check_length("image buffer", index.len() * length, out.len())?;
        let rows = check_rows("image", index, self.images())?;
        self.check_unchanged()?;
        for (target, &row) in out.chunks_exact_mut(length).zip(&rows) {
            target.copy_from_slice(&self.image(row)?);
        }
        self.check_read(rows, [])
    }

    /// Encodes captions by global row to ids in `out` (n, length of the tokenizer). The result is the same for any number
    /// of threads; 0 chooses by the amount of work.
    ///
    /// # Errors
    /// For an index outside the set, a wrong buffer, a shard that changed on disk, or a thread that cannot be started.
    pub fn read_captions(&self, index: &[i64], tokenizer: Tokenizer, out: &mut [u8], threads: usize) -> Result<()> {
        Error::check_length("caption buffer", index.len() * tokenizer.length(), out.len())?;
        let rows = check_rows("caption", index, self.captions)?;
        self.check_unchanged()?;
        fill_rows(&rows, tokenizer.length(), out, threads, |&row, out| tokenizer.encode(&self.caption(row)?, out))?;
        self.check_read([], rows)
    }

    /// Refuses a pack with a shard that was truncated, replaced, deleted or made unreadable since it was opened. Each
    /// call checks the next 16 shards and takes some microseconds.
    ///
    /// # Errors
    /// [`Error::Data`] naming the shard.
    pub fn check_unchanged(&self) -> Result<()> {
        let count = self.shards.len().min(WATCHED);
        let first = self.watched.fetch_add(count, Ordering::Relaxed);
        (0..count).try_for_each(|at| self.shards[first.wrapping_add(at) % self.shards.len()].file.check_unchanged())
    }
}

impl Pack {
    /// Refuses rows that were just read from files one of which is no longer the one that was opened: it may have changed
    /// before they were read. The shards that the rows came from are looked at, once each; copies in memory cannot change.
    ///
    /// # Errors
    /// [`Error::Data`] naming the shard.
    pub fn check_read(
        &self,
        images: impl IntoIterator<Item = usize>,
        captions: impl IntoIterator<Item = usize>,
    ) -> Result<()> {
        if !self.shards.iter().any(|shard| shard.file.is_streamed()) {
            return Ok(());
        }
        let mut touched = vec![false; self.shards.len()];
        for row in images {
            touched[self.shards.partition_point(|shard| shard.first_image <= row) - 1] = true;
        }
        for row in captions {
            touched[self.shards.partition_point(|shard| shard.first_caption <= row) - 1] = true;
        }
        let shards = self.shards.iter().zip(touched).filter(|(_, touched)| *touched);
        shards.into_iter().try_for_each(|(shard, _)| shard.file.check_unchanged())
    }
}

fn check_rows(name: &'static str, index: &[i64], length: usize) -> Result<Vec<usize>> {
    let rows = index.iter().enumerate().map(|(row, &value)| {
        let position = usize::try_from(value).ok().filter(|&position| position < length);
        position.ok_or(Error::Index { name, row, value, length })
    });
    rows.collect()
}
