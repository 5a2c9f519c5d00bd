//! The captions of a shard: UTF-8 text, end to end, and the offsets between them.

use std::borrow::Cow;
use std::path::Path;

use safetensors::tensor::Dtype;

use super::shard::ShardFile;
use super::tensors::Tensors;
use crate::error::{Error, Result};
use crate::tokenizer::MAX_CAPTION_BYTES;

/// Offsets read at once when every caption is read.
const BLOCK: usize = 4096;
/// Bytes of text read at once then, or one caption.
const CHUNK: usize = 1 << 20;

/// Where the captions of a shard are. Caption c is `caption_bytes[offsets[c]..offsets[c + 1]]`.
#[derive(Debug)]
pub(super) struct Captions {
    count: usize,
    /// Position of `caption_bytes` in the file, and its length.
    text_at: usize,
    text_length: usize,
    /// Position of `caption_byte_offsets`, (count + 1,) int64, in the file.
    offsets_at: usize,
}

impl Captions {
    /// Finds the tensors; nothing is read.
    pub(super) fn find(tensors: &Tensors<'_>, count: usize) -> Result<Self> {
        let text = tensors.find_list("caption_bytes", Dtype::U8)?;
        let offsets = tensors.find("caption_byte_offsets", Dtype::I64, &[count + 1])?;
        Ok(Self { count, text_at: text.start, text_length: text.len(), offsets_at: offsets.start })
    }

    /// One caption. The file was checked when it was opened; one that changed since then is an error.
    pub(super) fn get<'a>(&self, file: &'a ShardFile, row: usize) -> Result<Cow<'a, str>> {
        let at = self.offsets_at + row * 8;
        let offsets = file.bytes(at..at + 16)?;
        let offset = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let (from, to) = (offset(&offsets[..8]), offset(&offsets[8..]));
        let (from, to) = self.range(row, from, to).map_err(|error| file.changed(&error))?;
        let text = file.bytes(self.text_at + from..self.text_at + to)?;
        Ok(match text {
            Cow::Borrowed(text) => Cow::Borrowed(utf8(row, text).map_err(|error| file.changed(&error))?),
            Cow::Owned(text) => Cow::Owned(utf8(row, &text).map_err(|error| file.changed(&error))?.to_owned()),
        })
    }

    /// Reads all captions in order, in a bounded amount of memory, and checks them; `path` is used in errors.
    pub(super) fn for_each(
        &self,
        path: &Path,
        file: &ShardFile,
        mut use_caption: impl FnMut(usize, &str),
    ) -> Result<()> {
        let refused = |message: String| Error::data(path, message);
        let mut last = 0;
        for first in (0..self.count.max(1)).step_by(BLOCK) {
            let rows = BLOCK.min(self.count - first);
            let offsets = self.offsets(file, first, first + rows)?;
            if first == 0 && offsets[0] != 0 {
                return Err(refused(format!("caption_byte_offsets must start at 0, got {}", offsets[0])));
            }
            let ranges = offsets.windows(2).enumerate();
            let ranges = ranges.map(|(row, pair)| self.range(first + row, pair[0], pair[1]));
            let ranges = ranges.collect::<Result<Vec<_>, _>>().map_err(refused)?;
            let mut row = 0;
            while row < rows {
                let from = ranges[row].0;
                let count = ranges[row..].iter().take_while(|range| range.1 - from <= CHUNK).count().max(1);
                let text = file.bytes(self.text_at + from..self.text_at + ranges[row + count - 1].1)?;
                for (row, &(start, end)) in ranges.iter().enumerate().skip(row).take(count) {
                    use_caption(first + row, utf8(first + row, &text[start - from..end - from]).map_err(refused)?);
                }
                row += count;
            }
            last = offsets[rows];
        }
        if usize::try_from(last) != Ok(self.text_length) {
            let length = self.text_length;
            return Err(refused(format!(
                "caption_byte_offsets must end at {length}, the length of caption_bytes, got {last}"
            )));
        }
        Ok(())
    }

    /// Offsets `first..=last`.
    fn offsets(&self, file: &ShardFile, first: usize, last: usize) -> Result<Vec<i64>> {
        let bytes = file.bytes(self.offsets_at + first * 8..self.offsets_at + (last + 1) * 8)?;
        // Not a cast of the bytes, which need not be aligned.
        Ok(bytes.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
    }

    /// The byte range of a caption in the text, checked.
    fn range(&self, row: usize, from: i64, to: i64) -> Result<(usize, usize), String> {
        let fits = |offset: i64| usize::try_from(offset).ok().filter(|&offset| offset <= self.text_length);
        let (Some(start), Some(end)) = (fits(from), fits(to)) else {
            let length = self.text_length;
            return Err(format!(
                "caption_byte_offsets must be from 0 to {length}, the length of caption_bytes, got {from} to {to} at \
                 caption {row}"
            ));
        };
        if start > end {
            return Err(format!("caption_byte_offsets must not fall, got {from} to {to} at caption {row}"));
        }
        if end - start > MAX_CAPTION_BYTES {
            return Err(format!("caption {row} must have at most {MAX_CAPTION_BYTES} bytes, got {}", end - start));
        }
        Ok((start, end))
    }
}

fn utf8(row: usize, text: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(text).map_err(|error| format!("caption {row} must be UTF-8, got {error}"))
}
