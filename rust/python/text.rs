//! Captions to character ids and back.

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

use super::arrays::{Fixed, Free, content, input, output, slice_mut, strings};
use crate::error::Error;
use crate::tokenizer::{self, ALPHABET_SIZE, CAPTION_LENGTH};

/// Encode captions to character ids.
///
/// Lower-cases, truncates to 201 characters and pads with 0. A character outside the alphabet becomes 71. Lower-casing
/// is per character: one whose lower-case form is several characters is unknown.
///
/// Args:
///     captions: B captions.
///     out: (B, 201) uint8, overwritten.
///
/// Raises:
///     TypeError: if captions is not a sequence of str.
///     ValueError: if out has another dtype, shape or layout, or a caption holds a lone surrogate.
#[pyfunction]
pub(super) fn encode(py: Python<'_>, captions: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
    let captions = strings(captions)?;
    let mut out = output::<u8>("caption buffer", out, &[Fixed(captions.len()), Fixed(CAPTION_LENGTH)])?;
    let out = slice_mut(&mut out)?;
    py.detach(|| {
        captions
            .iter()
            .zip(out.chunks_exact_mut(CAPTION_LENGTH))
            .try_for_each(|(text, row)| tokenizer::encode(text, row))
    })?;
    Ok(())
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
