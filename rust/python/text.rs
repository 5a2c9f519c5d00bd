//! Captions to character ids and back.

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use super::arrays::{self, Fixed, Free, content, input, output, slice_mut, strings, whole};
use crate::error::Error;
use crate::threads::fill_rows;
use crate::tokenizer::{self, ALPHABET_SIZE, CAPTION_LENGTH, Losses, Tokenizer};

/// Encode captions to ids, on many threads.
///
/// "alphabet" lower-cases, truncates to 201 characters and pads with 0. A character outside the alphabet becomes 71.
/// Lower-casing is per character: one whose lower-case form is several characters is unknown. "bytes" gives 1 + each
/// byte of UTF-8, as many whole characters as fit into L ids, padded with 0.
///
/// Args:
///     captions: B captions.
///     out: (B, 201) uint8 for "alphabet", (B, L) uint8 for "bytes"; overwritten.
///     tokenizer: "alphabet" or "bytes".
///
/// Raises:
///     TypeError: if captions is not a sequence of str.
///     ValueError: if out has another dtype, shape or layout, or a caption holds a lone surrogate.
///     ConfigError: for another tokenizer.
#[pyfunction]
#[pyo3(signature = (captions, out, tokenizer = "alphabet"))]
pub(super) fn encode(
    py: Python<'_>,
    captions: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    tokenizer: &str,
) -> PyResult<()> {
    let tokenizer = arrays::tokenizer(tokenizer, Some(out))?;
    let captions = strings(captions)?;
    let mut out = output::<u8>("caption buffer", out, &[Fixed(captions.len()), Fixed(tokenizer.length())])?;
    let out = slice_mut(&mut out)?;
    let encode = |text: &PyBackedStr, out: &mut [u8]| tokenizer.encode(text, out);
    Ok(py.detach(|| fill_rows(&captions, tokenizer.length(), out, 0, encode))?)
}

/// Count the captions that a tokenizer does not keep whole.
///
/// Args:
///     captions: captions.
///     tokenizer: "alphabet" or "bytes".
///     length: ids per caption; 201 for "alphabet".
///
/// Returns:
///     (truncated, unknown): captions whose end is lost, and captions with a character that has no id of its own.
///
/// Raises:
///     TypeError: if captions is not a sequence of str.
///     ValueError: if a caption holds a lone surrogate.
///     ConfigError: for another tokenizer or length.
#[pyfunction]
#[pyo3(signature = (captions, tokenizer = "alphabet", length = None))]
#[pyo3(text_signature = "(captions, tokenizer='alphabet', length=201)")]
pub(super) fn count_losses(
    py: Python<'_>,
    captions: &Bound<'_, PyAny>,
    tokenizer: &str,
    length: Option<&Bound<'_, PyAny>>,
) -> PyResult<(usize, usize)> {
    let length = length.map_or(Ok(CAPTION_LENGTH), |length| whole("caption length", length))?;
    let (captions, tokenizer) = (strings(captions)?, Tokenizer::parse(tokenizer, length)?);
    let losses = py.detach(|| {
        let mut losses = Losses::default();
        for caption in &captions {
            losses.add(tokenizer, caption);
        }
        losses
    });
    Ok((losses.truncated, losses.unknown))
}

/// Decode character ids to captions.
///
/// Trailing zeros end a caption; an unknown character, or a zero before the end, decodes as U+FFFD.
///
/// Args:
///     ids: (B, 201) uint8.
///
/// Returns:
///     B captions.
///
/// Raises:
///     ValueError: if ids has another dtype or shape, or an id above 71.
#[pyfunction]
pub(super) fn decode(py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let ids = input::<u8>("caption ids", ids, &[Free("B"), Fixed(CAPTION_LENGTH)])?;
    let ids = content(&ids);
    let rows = ids.chunks_exact(CAPTION_LENGTH).enumerate();
    Ok(py.detach(|| rows.map(|(row, ids)| tokenizer::decode(ids, row)).collect::<Result<Vec<String>, Error>>())?)
}

/// One-hot encode character ids.
///
/// Padding and unknown characters become columns of zeros.
///
/// Args:
///     ids: (B, 201) uint8.
///     out: (B, 70, 201) float32 or uint8, overwritten.
///
/// Raises:
///     ValueError: if an array has another dtype, shape or layout, or an id is above 71.
#[pyfunction]
pub(super) fn one_hot(py: Python<'_>, ids: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
    let ids = input::<u8>("caption ids", ids, &[Free("B"), Fixed(CAPTION_LENGTH)])?;
    let shape = [Fixed(ids.shape()[0]), Fixed(ALPHABET_SIZE), Fixed(CAPTION_LENGTH)];
    let ids = content(&ids);
    let name = "one-hot buffer";
    let bytes = out.cast::<PyUntypedArray>().is_ok_and(|out| out.dtype().is_equiv_to(&numpy::dtype::<u8>(py)));
    if bytes {
        let mut out = output::<u8>(name, out, &shape)?;
        let out = slice_mut(&mut out)?;
        py.detach(|| tokenizer::one_hot(&ids, out))?;
    } else {
        let mut out = output::<f32>(name, out, &shape)?;
        let out = slice_mut(&mut out)?;
        py.detach(|| tokenizer::one_hot(&ids, out))?;
    }
    Ok(())
}
