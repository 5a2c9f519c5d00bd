//! The sampler and its plans.

use std::sync::Arc;

use numpy::PyArrayDyn;
use pyo3::prelude::*;

use super::arrays::{frozen, whole};
use super::pack::Pack;
use crate::sampler::{self, Interpolation, Options, Split};

/// Draws batch plans: a pure function of (data set, arguments, step).
///
/// Args:
///     pack: the data set.
///     batch: rows of the global batch.
///     seed: random seed.
///     split: images to draw from.
///     crop: edge of the crop.
///     crop_low: the smallest crop offset (1 in the paper's released code).
///     flip: whether half of the images are mirrored.
///     captions_per_image: captions drawn for each image, with replacement.
///     class_uniform: a class uniformly, then an image of it; else images uniformly.
///     distinct_classes: at most one image of each class in a batch.
///     mismatched: refuse a split without mismatched pairs; else an image of such a split is its own mismatch.
///     interpolation: weights "fixed" at interpolation_weight, "uniform" in (0, 1), or "extrapolate" in (-0.5, 1.5).
///     interpolation_weight: the fixed weight.
///     rank: rank of this process.
///     world: number of processes; must divide the batch.
///
/// Raises:
///     ConfigError: for an argument out of range.
///     DataError: if the split has no image or, where they are needed, no mismatched pairs: a single class, or the same
///         captions everywhere.
#[pyclass(frozen, module = "t2i._native")]
pub(super) struct Sampler(sampler::Sampler);

#[pymethods]
impl Sampler {
    #[new]
    #[expect(clippy::too_many_arguments, clippy::fn_params_excessive_bools, reason = "keyword arguments in Python")]
    #[pyo3(signature = (pack, *, batch, seed = None, split = "train", crop = None, crop_low = None, flip = true,
        captions_per_image = None, class_uniform = true, distinct_classes = false, mismatched = true,
        interpolation = "fixed", interpolation_weight = 0.5, rank = None, world = None))]
    #[pyo3(text_signature = "(pack, *, batch, seed=0, split='train', crop=64, crop_low=0, flip=True, \
        captions_per_image=1, class_uniform=True, distinct_classes=False, mismatched=True, \
        interpolation='fixed', interpolation_weight=0.5, rank=0, world=1)")]
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
        mismatched: bool,
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
            mismatched,
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

    /// Share of the split's captions that every image of the other classes has too: their mismatched pairs do match.
    #[getter]
    fn ambiguous_captions(&self) -> f64 {
        self.0.ambiguous_captions()
    }

    fn __repr__(&self) -> String {
        format!("Sampler(images={}, classes={}, batch={})", self.0.images(), self.0.classes(), self.0.options().batch)
    }
}

/// One step's rows of one process: B = batch / world rows, K captions an image. Arrays are read-only copies.
#[pyclass(frozen, module = "t2i._native")]
pub(super) struct Plan(pub(super) sampler::Plan);

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
