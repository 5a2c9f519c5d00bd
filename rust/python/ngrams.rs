//! Captions to hashed n-grams, for Python.

use pyo3::prelude::*;

use super::arrays::{Fixed, Free, output, slice_mut, strings};
use crate::ngrams::{Buckets, tokenize};

/// Hash the word and character n-grams of captions, on all cores.
///
/// Writes `offsets`, and `values` where all tokens fit: tokens of caption i are values[offsets[i]:offsets[i + 1]], each once,
/// in the order of their first appearance. Token 0 is left for padding, 1..words are words and pairs of words, words + 1..words +
/// characters are character n-grams.
///
/// Args:
///     captions: B strings.
///     values: (V,) int32.
///     offsets: (B + 1,) int64.
///     words: Buckets of words and pairs.
///     characters: Buckets of character n-grams; 0 leaves them out.
///
/// Returns:
///     How many tokens there are; above V nothing was written to `values`.
///
/// Raises:
///     ConfigError: if a number of buckets is out of range.
///     TypeError: if captions is not a sequence of str.
///     ValueError: if a buffer has another dtype, shape or layout, or a caption holds a lone surrogate.
#[pyfunction]
pub(super) fn ngrams(
    py: Python<'_>,
    captions: &Bound<'_, PyAny>,
    values: &Bound<'_, PyAny>,
    offsets: &Bound<'_, PyAny>,
    words: u32,
    characters: u32,
) -> PyResult<usize> {
    let captions = strings(captions)?;
    let buckets = Buckets::new(words, characters)?;
    let mut values = output::<i32>("n-gram values", values, &[Free("V")])?;
    let mut offsets = output::<i64>("n-gram offsets", offsets, &[Fixed(captions.len() + 1)])?;
    let (values, offsets) = (slice_mut(&mut values)?, slice_mut(&mut offsets)?);
    Ok(py.detach(|| tokenize(&captions, buckets, values, offsets))?)
}
