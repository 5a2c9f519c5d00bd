//! The tensors of a shard, found by name and checked.

use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::error::{Error, Result};

/// The tensors of a shard that is being checked.
pub(super) struct Tensors<'a> {
    pub(super) path: &'a Path,
    pub(super) metadata: &'a Metadata,
    pub(super) data_at: usize,
    pub(super) length: usize,
}

impl Tensors<'_> {
    /// Byte range of a tensor of this dtype and shape.
    pub(super) fn find(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Range<usize>> {
        let info = self.info(name)?;
        if info.dtype != dtype || info.shape != shape {
            let message = format!("{name} must be {dtype:?} {shape:?}, got {:?} {:?}", info.dtype, info.shape);
            return Err(Error::data(self.path, message));
        }
        self.range(info.data_offsets)
    }

    /// Byte range of a one-dimensional tensor of any length.
    pub(super) fn find_list(&self, name: &str, dtype: Dtype) -> Result<Range<usize>> {
        let info = self.info(name)?;
        if info.dtype != dtype || info.shape.len() != 1 {
            let message = format!("{name} must be {dtype:?} of one dimension, got {:?} {:?}", info.dtype, info.shape);
            return Err(Error::data(self.path, message));
        }
        self.range(info.data_offsets)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.metadata.info(name).ok_or_else(|| Error::data(self.path, format!("must have a tensor {name}, got none")))
    }

    /// The library has checked that the offsets are inside the file; checked again, because reads rely on it.
    fn range(&self, (start, end): (usize, usize)) -> Result<Range<usize>> {
        let (start, end) = (self.data_at.saturating_add(start), self.data_at.saturating_add(end));
        if start > end || end > self.length {
            return Err(Error::data(self.path, format!("has a tensor at {start}..{end} of {} bytes", self.length)));
        }
        Ok(start..end)
    }
}
