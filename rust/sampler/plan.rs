//! The plan of one step.

use std::sync::Arc;

/// One step's rows of one process. B = batch / world, K = captions an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The step.
    pub step: u64,
    /// Fingerprint of the data set that the indices belong to.
    pub fingerprint: Arc<str>,
    /// Edge of the crop.
    pub crop_size: usize,
    /// K.
    pub captions_per_image: usize,
    /// (B,) index of the matching image.
    pub image: Vec<i64>,
    /// (B,) index of an image of another class.
    pub mismatched_image: Vec<i64>,
    /// (B, K) global caption rows of the matching image.
    pub caption: Vec<i64>,
    /// (B, K) global caption rows of the mismatched image.
    pub mismatched_caption: Vec<i64>,
    /// (B, 2) y and x of the crop.
    pub crop: Vec<i32>,
    /// (B, 2) y and x of the mismatched image's crop.
    pub mismatched_crop: Vec<i32>,
    /// (B,) 1 to mirror.
    pub flip: Vec<u8>,
    /// (B,) 1 to mirror the mismatched image.
    pub mismatched_flip: Vec<u8>,
    /// (B / 2,) rows of the global batch: row p is interpolated with row p + batch / 2, for p from rank * B / 2 on. The
    /// partner may be a row of another process.
    pub interpolation_partner: Vec<i64>,
    /// (B / 2,) weight of row p; its partner's weight is 1 - weight.
    pub interpolation_weight: Vec<f32>,
}
