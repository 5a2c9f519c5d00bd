//! The only file that knows Python: conversions, checks of buffers, the release of the interpreter lock round every
//! call, and one match from [`Error`] to exceptions.

#![allow(clippy::doc_markdown, reason = "doc comments of exported items are Python docstrings")]
#![allow(clippy::needless_pass_by_value, reason = "arguments converted from Python arrive owned")]

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use numpy::ndarray::IxDyn;
use numpy::{
    BorrowError, Element, IntoPyArray, PyArray1, PyArray3, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods,
    PyReadonlyArrayDyn, PyReadwriteArrayDyn, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyImportError, PyIndexError, PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyString;

use crate::error::Error;
use crate::image::{CropBox, Fit};
use crate::sampler::{Interpolation, Options, Split};
use crate::tokenizer::{ALPHABET_SIZE, CAPTION_LENGTH};
use crate::{batch, image, pack, sampler, tokenizer};

mod ngrams;

mod exceptions {
    pyo3::import_exception!(t2i.errors, ConfigError);
    pyo3::import_exception!(t2i.errors, DataError);
}
use exceptions::{ConfigError, DataError};

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Data { .. } | Error::DataSet(_) | Error::Image { .. } => DataError::new_err(message),
            Error::Argument { .. } => ConfigError::new_err(message),
            Error::Buffer { .. } | Error::CharacterId { .. } | Error::ForeignPlan { .. } => {
                PyValueError::new_err(message)
            }
            Error::Index { .. } => PyIndexError::new_err(message),
            Error::Thread(_) => PyOSError::new_err(message),
        }
    }
}

/// One axis of an expected shape: fixed, or free with a letter for the message.
#[derive(Clone, Copy)]
enum Axis {
    Fixed(usize),
    Free(&'static str),
}
use Axis::{Fixed, Free};

fn tuple(parts: impl ExactSizeIterator<Item = String>) -> String {
    let comma = if parts.len() == 1 { "," } else { "" };
    format!("({}{comma})", parts.collect::<Vec<_>>().join(", "))
}

fn describe(shape: &[Axis]) -> String {
    tuple(shape.iter().map(|axis| match axis {
        Fixed(length) => length.to_string(),
        Free(letter) => (*letter).to_owned(),
    }))
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}

/// Checks that a Python object is an array of this dtype and shape; says which of the two is wrong by naming both.
fn array<'py, T: Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
    shape: &[Axis],
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let dtype = numpy::dtype::<T>(value.py());
    let expected = || format!("{name} must be {dtype} {}", describe(shape));
    let Ok(untyped) = value.cast::<PyUntypedArray>() else {
        let message = format!("{}, got {}, which is not a NumPy array", expected(), type_name(value));
        return Err(PyTypeError::new_err(message));
    };
    let fits = untyped.ndim() == shape.len()
        && untyped.shape().iter().zip(shape).all(|(&length, axis)| match axis {
            Fixed(expected) => length == *expected,
            Free(_) => true,
        });
    let got = untyped.dtype();
    match value.cast::<PyArrayDyn<T>>() {
        Ok(array) if fits && got.is_equiv_to(&dtype) => Ok(array.clone()),
        _ => {
            let shape = tuple(untyped.shape().iter().map(ToString::to_string));
            Err(PyValueError::new_err(format!("{}, got {got} {shape}", expected())))
        }
    }
}

/// An array that is written: the caller's memory itself, so its layout must be plain.
fn output<'py, T: Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
    shape: &[Axis],
) -> PyResult<PyReadwriteArrayDyn<'py, T>> {
    let array = array::<T>(name, value, shape)?;
    if !array.is_c_contiguous() {
        let strides = tuple(array.strides().iter().map(ToString::to_string));
        return Err(PyValueError::new_err(format!("{name} must be C-contiguous, got strides {strides}")));
    }
    array.try_readwrite().map_err(|error| match error {
        BorrowError::NotWriteable => PyValueError::new_err(format!("{name} must be writable, got a read-only array")),
        _ => PyValueError::new_err(format!("{name} must not share memory with another array of the same call")),
    })
}

fn optional_output<'py>(
    name: &str,
    value: Option<&Bound<'py, PyAny>>,
    shape: &[Axis],
) -> PyResult<Option<PyReadwriteArrayDyn<'py, u8>>> {
    value.map(|value| output(name, value, shape)).transpose()
}

/// An array that is read; [`content`] copies it if its layout is not plain.
fn input<'py, T: Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
    shape: &[Axis],
) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    array::<T>(name, value, shape)?
        .try_readonly()
        .map_err(|_| PyValueError::new_err(format!("{name} must not share memory with another array of the same call")))
}

fn content<'a, T: Element + Copy>(array: &'a PyReadonlyArrayDyn<'_, T>) -> Cow<'a, [T]> {
    match array.as_slice() {
        // A Fortran-ordered array is a slice too, but of another order.
        Ok(slice) if array.is_c_contiguous() => Cow::Borrowed(slice),
        _ => Cow::Owned(array.as_array().iter().copied().collect()),
    }
}

fn slice_mut<'a, T: Element>(array: &'a mut PyReadwriteArrayDyn<'_, T>) -> PyResult<&'a mut [T]> {
    array.as_slice_mut().map_err(|error| PyValueError::new_err(error.to_string()))
}

/// A whole number that is not negative, refused by name.
fn whole<T: TryFrom<u64>>(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<T> {
    let number: PyResult<u64> = value.extract();
    match number.map(T::try_from) {
        Ok(Ok(number)) => Ok(number),
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => {
            Err(PyTypeError::new_err(format!("{name} must be an int, got {}", type_name(value))))
        }
        _ => Err(Error::argument(name, "from 0 to 18446744073709551615", value).into()),
    }
}

fn strings(value: &Bound<'_, PyAny>) -> PyResult<Vec<PyBackedStr>> {
    let wrong = |got: String| PyTypeError::new_err(format!("captions must be a sequence of str, got {got}"));
    if value.is_instance_of::<PyString>() {
        return Err(wrong("a single str".to_owned()));
    }
    let items = value.try_iter().map_err(|_| wrong(type_name(value)))?;
    let mut captions = Vec::with_capacity(value.len().unwrap_or(0));
    for (row, item) in items.enumerate() {
        let item = item?;
        let text = item
            .cast_into::<PyString>()
            .map_err(|error| wrong(format!("{} at {row}", type_name(&error.into_inner()))))?;
        captions.push(PyBackedStr::try_from(text).map_err(|_| {
            PyValueError::new_err(format!("caption {row} must be valid Unicode text, got a lone surrogate in it"))
        })?);
    }
    Ok(captions)
}

/// A new array of its own, marked read-only.
fn frozen<'py, T: Element>(py: Python<'py>, values: &[T], shape: &[usize]) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let array = PyArray1::from_slice(py, values).reshape(IxDyn(shape))?;
    array.readwrite().make_nonwriteable();
    Ok(array)
}

/// Encode captions to character ids.
///
/// Lower-cases, cuts at 201 characters and pads with 0. A character outside the alphabet becomes 71. Lower-casing is
/// per character: one whose lower-case form is several characters is unknown.
///
/// Args:
///     captions: B captions.
///     out: (B, 201) uint8, overwritten.
///
/// Raises:
///     TypeError: if captions is not a sequence of str.
///     ValueError: if out has another dtype, shape or layout, or a caption holds a lone surrogate.
#[pyfunction]
fn encode(py: Python<'_>, captions: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
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
fn decode(py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let ids = input::<u8>("caption ids", ids, &[Free("B"), Fixed(CAPTION_LENGTH)])?;
    let ids = content(&ids);
    let rows = ids.chunks_exact(CAPTION_LENGTH).enumerate();
    Ok(py.detach(|| rows.map(|(row, ids)| tokenizer::decode(ids, row)).collect::<Result<Vec<String>, Error>>())?)
}

/// Write one-hot characters.
///
/// Padding and unknown characters give columns of zeros.
///
/// Args:
///     ids: (B, 201) uint8.
///     out: (B, 70, 201) float32 or uint8, overwritten.
///
/// Raises:
///     ValueError: if an array has another dtype, shape or layout, or an id is above 71.
#[pyfunction]
fn one_hot(py: Python<'_>, ids: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
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

/// Tell an image's format by its first bytes: "jpeg", "png", "webp", or None.
#[pyfunction]
fn image_format(data: &[u8]) -> Option<&'static str> {
    image::format(data).map(image::Format::as_str)
}

/// Decode a JPEG, PNG or WebP.
///
/// Strict: a cut or damaged file is refused. Alpha is laid on white, 16 bits become 8, gray and palettes are expanded,
/// the EXIF orientation is applied; of an animation the first picture is taken.
///
/// Args:
///     data: the file's bytes.
///     max_pixels: more pixels are refused by the header, before they are allocated.
///
/// Returns:
///     (H, W, 3) uint8, RGB.
///
/// Raises:
///     DataError: if the image cannot be decoded; the message starts with the kind of failure.
#[pyfunction]
fn decode_image<'py>(
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
///     fit: "stretch" ignores the aspect ratio, as the paper does; "crop" cuts the largest centred square first.
///
/// Raises:
///     ValueError: if an array has another dtype, shape or layout.
#[pyfunction]
fn resize(py: Python<'_>, image: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>, fit: &str) -> PyResult<()> {
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
///     boxes: (N, 4) float32 x, y, width, height in pixels of the upright image, cut out first; a row with a NaN is no
///         box. Or None.
///     fit: as for resize.
///     max_pixels: as for decode_image.
///     out: (N, S, S, 3) uint8, overwritten; the row of a failed file is zero.
///
/// Returns:
///     For each path None, or (kind, message) with kind "unsupported" (worth trying with another library), "broken",
///     "unreadable" or "too large".
#[pyfunction]
fn load_images(
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

/// A packed data set, read-only: a copy in memory, or read from its files where it is larger.
///
/// Args:
///     path: the folder with pack.json.
///     verify: whether the SHA-256 of every shard is checked too.
///     memory: a pack of at most so many bytes is copied to memory.
///
/// Raises:
///     DataError: for whatever is not as the format says, with the file, the value found and the value expected.
#[pyclass(frozen, module = "t2i._native")]
struct Pack(Arc<pack::Pack>);

#[pymethods]
impl Pack {
    #[new]
    #[pyo3(signature = (path, verify = false, memory = pack::MEMORY))]
    #[pyo3(text_signature = "(path, verify=False, memory=2147483648)")]
    fn new(py: Python<'_>, path: PathBuf, verify: bool, memory: u64) -> PyResult<Self> {
        Ok(Self(Arc::new(py.detach(|| pack::Pack::open_within(&path, verify, memory))?)))
    }

    /// The folder.
    #[getter]
    fn path(&self) -> String {
        self.0.path().display().to_string()
    }

    /// Number of images, N.
    #[getter]
    fn images(&self) -> usize {
        self.0.images()
    }

    /// Number of captions, M.
    #[getter]
    fn captions(&self) -> usize {
        self.0.captions()
    }

    /// Edge of the square images, S.
    #[getter]
    fn image_size(&self) -> usize {
        self.0.image_size()
    }

    /// Names of the classes; empty if the set has none.
    #[getter]
    fn class_names(&self) -> Vec<String> {
        self.0.class_names().to_vec()
    }

    /// SHA-256 over the counts and the shard checksums of pack.json.
    #[getter]
    fn fingerprint(&self) -> String {
        self.0.fingerprint().to_owned()
    }

    /// Return the (N,) class of each image, -1 if the set has no classes.
    fn classes<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i32>> {
        PyArray1::from_slice(py, self.0.classes())
    }

    /// Return the (N,) split of each image: 0 train, 1 test.
    fn splits<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u8>> {
        PyArray1::from_slice(py, self.0.splits())
    }

    /// Return (N + 1,) offsets: image i has the global caption rows offsets[i] to offsets[i + 1] - 1.
    fn caption_offsets<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        PyArray1::from_slice(py, self.0.caption_offsets())
    }

    /// Copy images.
    ///
    /// Args:
    ///     index: (n,) int64 images.
    ///     out: (n, S, S, 3) uint8, overwritten.
    ///
    /// Raises:
    ///     IndexError: for an index outside the set.
    ///     DataError: if a shard changed on disk.
    fn read_images(&self, py: Python<'_>, index: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let index = input::<i64>("image index", index, &[Free("n")])?;
        let index = content(&index);
        let size = Fixed(self.0.image_size());
        let mut out = output::<u8>("image buffer", out, &[Fixed(index.len()), size, size, Fixed(3)])?;
        let out = slice_mut(&mut out)?;
        Ok(py.detach(|| self.0.read_images(&index, out))?)
    }

    /// Copy captions by their global rows.
    ///
    /// Args:
    ///     index: (n,) int64 global caption rows.
    ///     out: (n, 201) uint8, overwritten.
    ///
    /// Raises:
    ///     IndexError: for an index outside the set.
    ///     DataError: if a shard changed on disk.
    fn read_captions(&self, py: Python<'_>, index: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let index = input::<i64>("caption index", index, &[Free("n")])?;
        let index = content(&index);
        let mut out = output::<u8>("caption buffer", out, &[Fixed(index.len()), Fixed(CAPTION_LENGTH)])?;
        let out = slice_mut(&mut out)?;
        Ok(py.detach(|| self.0.read_captions(&index, out))?)
    }

    /// Execute a plan into buffers; those that are None are skipped.
    ///
    /// Args:
    ///     plan: a plan of a sampler of this data set.
    ///     images: (B, crop, crop, 3) uint8.
    ///     mismatched_images: (B, crop, crop, 3) uint8.
    ///     captions: (B, K, 201) uint8.
    ///     mismatched_captions: (B, K, 201) uint8.
    ///     threads: how many; 0 chooses by the amount of work. The bytes do not depend on it.
    ///
    /// Raises:
    ///     ValueError: if a buffer has another dtype, shape or layout, or the plan is of another data set.
    ///     DataError: if a shard changed on disk.
    #[expect(clippy::too_many_arguments, reason = "keyword arguments on the Python side")]
    #[pyo3(signature = (plan, *, images = None, mismatched_images = None, captions = None, mismatched_captions = None,
        threads = None))]
    #[pyo3(text_signature = "($self, plan, *, images=None, mismatched_images=None, captions=None, \
        mismatched_captions=None, threads=0)")]
    fn fill(
        &self,
        py: Python<'_>,
        plan: &Plan,
        images: Option<&Bound<'_, PyAny>>,
        mismatched_images: Option<&Bound<'_, PyAny>>,
        captions: Option<&Bound<'_, PyAny>>,
        mismatched_captions: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let plan = &plan.0;
        let threads = threads.map_or(Ok(0), |threads| whole("threads", threads))?;
        let rows = Fixed(plan.image.len());
        let crop = Fixed(plan.crop_size);
        let image_shape = [rows, crop, crop, Fixed(3)];
        let caption_shape = [rows, Fixed(plan.captions_per_image), Fixed(CAPTION_LENGTH)];
        let mut images = optional_output("image buffer", images, &image_shape)?;
        let mut mismatched_images = optional_output("mismatched image buffer", mismatched_images, &image_shape)?;
        let mut captions = optional_output("caption buffer", captions, &caption_shape)?;
        let mut mismatched_captions =
            optional_output("mismatched caption buffer", mismatched_captions, &caption_shape)?;
        let buffers = batch::Buffers {
            images: images.as_mut().map(slice_mut).transpose()?,
            mismatched_images: mismatched_images.as_mut().map(slice_mut).transpose()?,
            captions: captions.as_mut().map(slice_mut).transpose()?,
            mismatched_captions: mismatched_captions.as_mut().map(slice_mut).transpose()?,
        };
        Ok(py.detach(|| batch::fill(plan, &self.0, buffers, threads))?)
    }

    fn __repr__(&self) -> String {
        let pack = &self.0;
        let (images, captions) = (pack.images(), pack.captions());
        format!("Pack({:?}, images={images}, captions={captions})", pack.path().display().to_string())
    }
}

/// Draws batch plans: a pure function of (data set, arguments, step).
///
/// Args:
///     pack: the data set.
///     batch: rows of the global batch.
///     seed: of every draw.
///     split: images to draw from.
///     crop: edge of the crop.
///     crop_low: the smallest crop offset (the released program of the paper has 1).
///     flip: whether half of the images are mirrored.
///     captions_per_image: captions drawn for each image, with replacement.
///     class_uniform: a class uniformly, then an image of it; else images uniformly.
///     distinct_classes: at most one image of each class in a batch.
///     interpolation: weights "fixed" at interpolation_weight, "uniform" in (0, 1), or "extrapolate" in (-0.5, 1.5).
///     interpolation_weight: the fixed weight.
///     rank: which of the processes this is.
///     world: number of processes; it divides the batch.
///
/// Raises:
///     ConfigError: for an argument out of range.
///     DataError: if the split has no image, or none of its images has a mismatch.
#[pyclass(frozen, module = "t2i._native")]
struct Sampler(sampler::Sampler);

#[pymethods]
impl Sampler {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    #[pyo3(signature = (pack, *, batch, seed = None, split = "train", crop = None, crop_low = None, flip = true,
        captions_per_image = None, class_uniform = true, distinct_classes = false, interpolation = "fixed",
        interpolation_weight = 0.5, rank = None, world = None))]
    #[pyo3(text_signature = "(pack, *, batch, seed=0, split='train', crop=64, crop_low=0, flip=True, \
        captions_per_image=1, class_uniform=True, distinct_classes=False, interpolation='fixed', \
        interpolation_weight=0.5, rank=0, world=1)")]
    fn new(
        py: Python<'_>,
        pack: &Pack,
        batch: &Bound<'_, PyAny>,
        seed: Option<&Bound<'_, PyAny>>,
        split: &str,
        crop: Option<&Bound<'_, PyAny>>,
        crop_low: Option<&Bound<'_, PyAny>>,
        flip: bool,
        captions_per_image: Option<&Bound<'_, PyAny>>,
        class_uniform: bool,
        distinct_classes: bool,
        interpolation: &str,
        interpolation_weight: f32,
        rank: Option<&Bound<'_, PyAny>>,
        world: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let or =
            |name, value: Option<&Bound<'_, PyAny>>, default| value.map_or(Ok(default), |value| whole(name, value));
        let options = Options {
            batch: whole("batch", batch)?,
            seed: seed.map_or(Ok(0), |seed| whole("seed", seed))?,
            split: Split::parse(split)?,
            crop: or("crop", crop, 64)?,
            crop_low: or("crop_low", crop_low, 0)?,
            flip,
            captions_per_image: or("captions_per_image", captions_per_image, 1)?,
            class_uniform,
            distinct_classes,
            interpolation: Interpolation::parse(interpolation, interpolation_weight)?,
            rank: or("rank", rank, 0)?,
            world: or("world", world, 1)?,
        };
        let pack = Arc::clone(&pack.0);
        Ok(Self(py.detach(|| sampler::Sampler::new(pack, options))?))
    }

    /// Draw one step.
    fn plan(&self, py: Python<'_>, step: &Bound<'_, PyAny>) -> PyResult<Plan> {
        let step = whole("step", step)?;
        Ok(Plan(py.detach(|| self.0.plan(step))))
    }

    /// Number of images in the split.
    #[getter]
    fn images(&self) -> usize {
        self.0.images()
    }

    /// Number of classes in the split; without classes, of groups of images with equal captions.
    #[getter]
    fn classes(&self) -> usize {
        self.0.classes()
    }

    fn __repr__(&self) -> String {
        format!("Sampler(images={}, classes={}, batch={})", self.0.images(), self.0.classes(), self.0.options().batch)
    }
}

/// One step's rows of one process: B = batch / world rows, K captions an image. Arrays are read-only copies.
#[pyclass(frozen, module = "t2i._native")]
struct Plan(sampler::Plan);

impl Plan {
    fn rows(&self) -> usize {
        self.0.image.len()
    }
}

#[pymethods]
impl Plan {
    /// The step.
    #[getter]
    fn step(&self) -> u64 {
        self.0.step
    }

    /// (B,) index of the matching image.
    #[getter]
    fn image<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
        frozen(py, &self.0.image, &[self.rows()])
    }

    /// (B,) index of an image of another class.
    #[getter]
    fn mismatched_image<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
        frozen(py, &self.0.mismatched_image, &[self.rows()])
    }

    /// (B, K) global caption rows of the matching image.
    #[getter]
    fn caption<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
        frozen(py, &self.0.caption, &[self.rows(), self.0.captions_per_image])
    }

    /// (B, K) global caption rows of the mismatched image.
    #[getter]
    fn mismatched_caption<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
        frozen(py, &self.0.mismatched_caption, &[self.rows(), self.0.captions_per_image])
    }

    /// (B, 2) y and x of the crop.
    #[getter]
    fn crop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<i32>>> {
        frozen(py, &self.0.crop, &[self.rows(), 2])
    }

    /// (B, 2) y and x of the mismatched image's crop.
    #[getter]
    fn mismatched_crop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<i32>>> {
        frozen(py, &self.0.mismatched_crop, &[self.rows(), 2])
    }

    /// (B,) 1 to mirror the image.
    #[getter]
    fn flip<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
        frozen(py, &self.0.flip, &[self.rows()])
    }

    /// (B,) 1 to mirror the mismatched image.
    #[getter]
    fn mismatched_flip<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
        frozen(py, &self.0.mismatched_flip, &[self.rows()])
    }

    /// (B // 2,) rows of the global batch that its rows rank * (B // 2) on are interpolated with.
    #[getter]
    fn interpolation_partner<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
        frozen(py, &self.0.interpolation_partner, &[self.rows() / 2])
    }

    /// (B // 2,) weight b of row i in b * text + (1 - b) * partner's text.
    #[getter]
    fn interpolation_weight<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        frozen(py, &self.0.interpolation_weight, &[self.rows() / 2])
    }

    fn __repr__(&self) -> String {
        let (crop, captions) = (self.0.crop_size, self.0.captions_per_image);
        format!("Plan(step={}, rows={}, crop={crop}, captions_per_image={captions})", self.0.step, self.rows())
    }
}

/// The native core of t2i: caption tokens, images, packed data sets and batch plans.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::ngrams::ngrams;
    #[pymodule_export]
    use super::{Pack, Plan, Sampler, decode, decode_image, encode, image_format, load_images, one_hot, resize};

    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");
    #[pymodule_export]
    const ALPHABET: &str = crate::tokenizer::ALPHABET;
    #[pymodule_export]
    const ALPHABET_SIZE: usize = crate::tokenizer::ALPHABET_SIZE;
    #[pymodule_export]
    const CAPTION_LENGTH: usize = crate::tokenizer::CAPTION_LENGTH;
    #[pymodule_export]
    const UNKNOWN: u8 = crate::tokenizer::UNKNOWN;

    use super::{Bound, PyAnyMethods, PyImportError, PyModule, PyResult};

    /// Refuses to be the other half of a Python part of another version: their names and shapes need not fit.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let package = module.py().import("t2i")?;
        let version = package.getattr("__version__").and_then(|found| found.extract::<String>());
        match version {
            Ok(version) if version == __version__ => Ok(()),
            other => Err(PyImportError::new_err(format!(
                "t2i's native module is version {__version__} and its Python part {}: install both together, with pip \
                 install --force-reinstall t2i, or with make install in a checkout",
                other.unwrap_or_else(|_| "of none".into())
            ))),
        }
    }
}
