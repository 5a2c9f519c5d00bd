//! The packed data set.

use std::path::PathBuf;
use std::sync::Arc;

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::arrays::{self, Fixed, Free, content, input, optional_output, output, slice_mut, whole};
use super::sampler::Plan;
use crate::tokenizer::{CAPTION_LENGTH, Tokenizer};
use crate::{batch, pack};

/// A packed data set, read-only: copied to memory, or read from its files if it is larger.
///
/// Args:
///     path: the folder with pack.json.
///     verify: whether to check the SHA-256 of every shard.
///     memory: a pack of at most this many bytes is copied to memory.
///
/// Raises:
///     DataError: for anything that violates the format, with the file, the value found and the value expected.
#[pyclass(frozen, module = "t2i._native")]
pub(super) struct Pack(pub(super) Arc<pack::Pack>);

#[pymethods]
impl Pack {
    #[new]
    #[pyo3(signature = (path, verify = false, memory = pack::MEMORY))]
    #[pyo3(text_signature = "(path, verify=False, memory=2147483648)")]
    fn new(py: Python<'_>, path: PathBuf, verify: bool, memory: u64) -> PyResult<Self> {
        let mut signal = None;
        let opened = py.detach(|| {
            let mut go_on = || {
                #[expect(clippy::redundant_closure_for_method_calls, reason = "the method is for one lifetime only")]
                let checked = Python::attach(|py| py.check_signals());
                signal = checked.err();
                signal.is_none()
            };
            pack::Pack::open_while(&path, verify, memory, &mut go_on)
        });
        signal.map_or_else(|| Ok(Self(Arc::new(opened?))), Err)
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

    /// Copy images to a buffer.
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

    /// Return the texts of captions by their global rows, as they were written.
    ///
    /// Args:
    ///     index: (n,) int64 global caption rows.
    ///
    /// Raises:
    ///     IndexError: for an index outside the set.
    ///     DataError: if a shard changed on disk.
    fn caption_texts<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let index = input::<i64>("caption index", index, &[Free("n")])?;
        let index = content(&index);
        let texts = py.detach(|| self.0.caption_texts(&index))?;
        PyList::new(py, texts)
    }

    /// Encode captions to ids by their global rows, on many threads.
    ///
    /// Args:
    ///     index: (n,) int64 global caption rows.
    ///     out: (n, 201) uint8 for "alphabet", (n, L) uint8 for "bytes"; overwritten.
    ///     tokenizer: "alphabet" or "bytes", see encode.
    ///     threads: number of threads; 0 chooses by the amount of work. The result does not depend on it.
    ///
    /// Raises:
    ///     IndexError: for an index outside the set.
    ///     DataError: if a shard changed on disk.
    #[pyo3(signature = (index, out, tokenizer = "alphabet", threads = None))]
    #[pyo3(text_signature = "($self, index, out, tokenizer='alphabet', threads=0)")]
    fn read_captions(
        &self,
        py: Python<'_>,
        index: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        tokenizer: &str,
        threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let threads = threads.map_or(Ok(0), |threads| whole("threads", threads))?;
        let tokenizer = arrays::tokenizer(tokenizer, Some(out))?;
        let index = input::<i64>("caption index", index, &[Free("n")])?;
        let index = content(&index);
        let mut out = output::<u8>("caption buffer", out, &[Fixed(index.len()), Fixed(tokenizer.length())])?;
        let out = slice_mut(&mut out)?;
        Ok(py.detach(|| self.0.read_captions(&index, tokenizer, out, threads))?)
    }

    /// Count the captions that a tokenizer does not keep whole, see count_losses of the module.
    #[pyo3(signature = (tokenizer = "alphabet", length = None))]
    #[pyo3(text_signature = "($self, tokenizer='alphabet', length=201)")]
    fn count_losses(
        &self,
        py: Python<'_>,
        tokenizer: &str,
        length: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(usize, usize)> {
        let length = length.map_or(Ok(CAPTION_LENGTH), |length| whole("caption length", length))?;
        let tokenizer = Tokenizer::parse(tokenizer, length)?;
        let losses = py.detach(|| self.0.losses(tokenizer))?;
        Ok((losses.truncated, losses.unknown))
    }

    /// Execute a plan: fill the buffers that are not None.
    ///
    /// Args:
    ///     plan: a plan of a sampler of this data set.
    ///     images: (B, crop, crop, 3) uint8.
    ///     mismatched_images: (B, crop, crop, 3) uint8.
    ///     captions: (B, K, 201) uint8; (B, K, L) for "bytes".
    ///     mismatched_captions: the same.
    ///     tokenizer: "alphabet" or "bytes", see encode.
    ///     threads: number of threads; 0 chooses by the amount of work. The result does not depend on it.
    ///
    /// Raises:
    ///     ValueError: if a buffer has another dtype, shape or layout, or the plan is of another data set.
    ///     DataError: if a shard changed on disk.
    #[expect(clippy::too_many_arguments, reason = "keyword arguments on the Python side")]
    #[pyo3(signature = (plan, *, images = None, mismatched_images = None, captions = None, mismatched_captions = None,
        tokenizer = "alphabet", threads = None))]
    #[pyo3(text_signature = "($self, plan, *, images=None, mismatched_images=None, captions=None, \
        mismatched_captions=None, tokenizer='alphabet', threads=0)")]
    fn fill(
        &self,
        py: Python<'_>,
        plan: &Plan,
        images: Option<&Bound<'_, PyAny>>,
        mismatched_images: Option<&Bound<'_, PyAny>>,
        captions: Option<&Bound<'_, PyAny>>,
        mismatched_captions: Option<&Bound<'_, PyAny>>,
        tokenizer: &str,
        threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let plan = &plan.0;
        let threads = threads.map_or(Ok(0), |threads| whole("threads", threads))?;
        let tokenizer = arrays::tokenizer(tokenizer, captions.or(mismatched_captions))?;
        let rows = Fixed(plan.image.len());
        let crop = Fixed(plan.crop_size);
        let image_shape = [rows, crop, crop, Fixed(3)];
        let caption_shape = [rows, Fixed(plan.captions_per_image), Fixed(tokenizer.length())];
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
            tokenizer,
        };
        Ok(py.detach(|| batch::fill(plan, &self.0, buffers, threads))?)
    }

    fn __repr__(&self) -> String {
        let pack = &self.0;
        let (images, captions) = (pack.images(), pack.captions());
        format!("Pack({:?}, images={images}, captions={captions})", pack.path().display().to_string())
    }
}
