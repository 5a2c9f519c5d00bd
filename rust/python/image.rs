//! Images decoded, resized and loaded.

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray3, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::arrays::{Fixed, Free, content, input, output, slice_mut, whole};
use crate::error::Error;
use crate::image::{self, CropBox, Fit};

/// Detect an image's format from its first bytes: "jpeg", "png", "webp", or None.
#[pyfunction]
pub(super) fn image_format(data: &[u8]) -> Option<&'static str> {
    image::format(data).map(image::Format::as_str)
}

/// Decode a JPEG, PNG or WebP.
///
/// Strict: a truncated or corrupt file is refused. Alpha is composited on white, 16 bits become 8, gray and palettes
/// are expanded, the EXIF orientation is applied; of an animation the first frame is decoded.
///
/// Args:
///     data: the file's bytes.
///     max_pixels: an image with more pixels is refused, before they are allocated.
///
/// Returns:
///     (H, W, 3) uint8, RGB.
///
/// Raises:
///     DataError: if the image cannot be decoded; the message starts with the kind of failure.
#[pyfunction]
pub(super) fn decode_image<'py>(
    py: Python<'py>,
    data: &[u8],
    max_pixels: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let max_pixels = whole("max_pixels", max_pixels)?;
    let image = py.detach(|| image::decode(data, max_pixels))?;
    image.pixels.into_pyarray(py).reshape([image.height, image.width, 3])
}

/// Resize an image with an anti-aliased Lanczos filter.
///
/// Args:
///     image: (H, W, 3) uint8.
///     out: (S, S, 3) uint8, overwritten.
///     fit: "stretch" ignores the aspect ratio, as the paper does; "crop" crops to the largest centred square first.
///
/// Raises:
///     ValueError: if an array has another dtype, shape or layout.
#[pyfunction]
pub(super) fn resize(py: Python<'_>, image: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>, fit: &str) -> PyResult<()> {
    let fit = Fit::parse(fit)?;
    let source = input::<u8>("image", image, &[Free("H"), Free("W"), Fixed(3)])?;
    let mut out = output::<u8>("resized image", out, &[Free("S"), Free("S"), Fixed(3)])?;
    let (height, width, size) = (source.shape()[0], source.shape()[1], out.shape()[0]);
    if out.shape()[1] != size {
        let message = format!("resized image must be uint8 (S, S, 3), got uint8 ({size}, {}, 3)", out.shape()[1]);
        return Err(PyValueError::new_err(message));
    }
    let pixels = content(&source);
    let out = slice_mut(&mut out)?;
    Ok(py.detach(|| image::resize((height, width, &pixels), None, fit, size, out))?)
}

/// Load, crop and resize many image files on many threads.
///
/// Args:
///     paths: N files.
///     boxes: (N, 4) float32 x, y, width, height in pixels of the upright image, cropped first; a row with a NaN means
///         no box. Or None.
///     fit: as for resize.
///     max_pixels: as for decode_image.
///     out: (N, S, S, 3) uint8, overwritten; the row of a failed file is zero.
///
/// Returns:
///     For each path None, or (kind, message) with kind "unsupported" (worth trying with another library), "broken",
///     "unreadable" or "too large".
#[pyfunction]
pub(super) fn load_images(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    boxes: Option<&Bound<'_, PyAny>>,
    fit: &str,
    max_pixels: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
) -> PyResult<Vec<Option<(&'static str, String)>>> {
    let fit = Fit::parse(fit)?;
    let max_pixels = whole("max_pixels", max_pixels)?;
    let count = paths.len();
    let boxes = boxes.map(|boxes| input::<f32>("boxes", boxes, &[Fixed(count), Fixed(4)])).transpose()?;
    let boxes: Option<Vec<CropBox>> = boxes.map(|boxes| {
        let edges = content(&boxes);
        edges.as_chunks::<4>().0.iter().map(|&[x, y, width, height]| CropBox { x, y, width, height }).collect()
    });
    let mut out = output::<u8>("image buffer", out, &[Fixed(count), Free("S"), Free("S"), Fixed(3)])?;
    let size = out.shape()[1];
    if out.shape()[2] != size {
        let message = format!(
            "image buffer must be uint8 ({count}, S, S, 3), got uint8 ({count}, {size}, {}, 3)",
            out.shape()[2]
        );
        return Err(PyValueError::new_err(message));
    }
    let out = slice_mut(&mut out)?;
    let results = py.detach(|| image::load_many(&paths, boxes.as_deref(), fit, max_pixels, size, out))?;
    let describe = |error| match error {
        Error::Image { fault, message } => (fault.as_str(), message),
        other => ("broken", other.to_string()),
    };
    Ok(results.into_iter().map(|result| result.map(describe)).collect())
}
