//! Packs for tests and benches, written as the Python side writes them.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// One image of a pack to be written.
#[derive(Clone)]
pub struct Item {
    /// Class, -1 for none.
    pub class: i32,
    /// 0 train, 1 test.
    pub split: u8,
    /// Captions.
    pub captions: Vec<String>,
}

impl Item {
    pub fn new(class: i32, split: u8, captions: &[&str]) -> Self {
        Self { class, split, captions: captions.iter().map(ToString::to_string).collect() }
    }
}

/// A tensor of a shard: name, dtype, shape, bytes.
pub type Tensors = BTreeMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>;

/// The value of a pixel in a written pack; images, rows, columns and channels differ.
#[expect(clippy::cast_possible_truncation, reason = "only the low bits are wanted")]
pub fn pixel(image: usize, y: usize, x: usize, channel: usize) -> u8 {
    (image * 101 + y * 53 + x * 7 + channel * 3) as u8
}

/// An int64 tensor of one dimension.
fn longs(values: &[i64]) -> (Dtype, Vec<usize>, Vec<u8>) {
    (Dtype::I64, vec![values.len()], values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// The tensors of a shard whose first image is number `first`.
pub fn tensors(items: &[Item], first: usize, size: usize) -> Tensors {
    let mut images = Vec::new();
    let (mut text, mut text_offsets) = (Vec::new(), vec![0_i64]);
    let mut offsets = vec![0_i64];
    for (index, item) in items.iter().enumerate() {
        for y in 0..size {
            for x in 0..size {
                images.extend((0..3).map(|channel| pixel(first + index, y, x, channel)));
            }
        }
        for caption in &item.captions {
            text.extend_from_slice(caption.as_bytes());
            text_offsets.push(i64::try_from(text.len()).unwrap());
        }
        offsets.push(i64::try_from(text_offsets.len() - 1).unwrap());
    }
    let n = items.len();
    let names = (first..first + n).map(|image| format!("{image}.jpg")).collect::<Vec<_>>().join("\n");
    let classes = items.iter().flat_map(|item| item.class.to_le_bytes()).collect();
    let splits = items.iter().map(|item| item.split).collect();
    BTreeMap::from([
        ("images", (Dtype::U8, vec![n, size, size, 3], images)),
        ("caption_bytes", (Dtype::U8, vec![text.len()], text)),
        ("caption_byte_offsets", longs(&text_offsets)),
        ("caption_offsets", longs(&offsets)),
        ("classes", (Dtype::I32, vec![n], classes)),
        ("splits", (Dtype::U8, vec![n], splits)),
        ("names", (Dtype::U8, vec![names.len()], names.into_bytes())),
    ])
}

/// The bytes of a shard.
pub fn shard(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// The entry of pack.json for a shard.
pub fn entry(file: &str, bytes: &[u8], images: usize, captions: usize) -> Value {
    let sha256 = Sha256::digest(bytes).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    json!({"file": file, "images": images, "captions": captions, "bytes": bytes.len(), "sha256": sha256})
}

/// Writes a pack of these shards and returns its pack.json.
pub fn write(folder: &Path, shards: &[Vec<Item>], classes: &[&str], size: usize) -> Value {
    let mut entries = Vec::new();
    let mut first = 0;
    for (number, items) in shards.iter().enumerate() {
        let bytes = shard(&tensors(items, first, size));
        let file = format!("shard-{number:05}.safetensors");
        std::fs::write(folder.join(&file), &bytes).unwrap();
        entries.push(entry(&file, &bytes, items.len(), items.iter().map(|item| item.captions.len()).sum()));
        first += items.len();
    }
    let all: Vec<&Item> = shards.iter().flatten().collect();
    let train = all.iter().filter(|item| item.split == 0).count();
    let manifest = json!({
        "format": "t2i-pack", "version": 2, "name": "fixture", "image_size": size, "images": all.len(),
        "captions": all.iter().map(|item| item.captions.len()).sum::<usize>(), "classes": classes,
        "splits": {"train": train, "test": all.len() - train}, "provenance": {"made": "by a test"}, "shards": entries,
    });
    std::fs::write(folder.join("pack.json"), manifest.to_string()).unwrap();
    manifest
}
