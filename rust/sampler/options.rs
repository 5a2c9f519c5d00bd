//! The arguments of a sampler.

use crate::error::{Error, Result};

/// The largest global batch and the most captions an image that a plan may ask for.
const MAX_BATCH: usize = 1 << 24;

/// Which images are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Images of split 0.
    Train,
    /// Images of split 1.
    Test,
    /// All images.
    All,
}

impl Split {
    /// Parses `train`, `test` or `all`.
    ///
    /// # Errors
    /// For any other word.
    pub fn parse(word: &str) -> Result<Self> {
        match word {
            "train" => Ok(Self::Train),
            "test" => Ok(Self::Test),
            "all" => Ok(Self::All),
            _ => Err(Error::argument("split", "\"train\", \"test\" or \"all\"", &format!("{word:?}"))),
        }
    }

    pub(super) const fn holds(self, split: u8) -> bool {
        match self {
            Self::Train => split == 0,
            Self::Test => split == 1,
            Self::All => true,
        }
    }

    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::Train => "train split",
            Self::Test => "test split",
            Self::All => "data set",
        }
    }
}

/// How the weight b of `b * text1 + (1 - b) * text2` is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interpolation {
    /// This weight; 0.5 in the paper.
    Fixed(f32),
    /// U(0, 1).
    Uniform,
    /// U(-0.5, 1.5), as in the second variant of the released code: the midpoint plus U(-1, 1) times the difference.
    Extrapolate,
}

impl Interpolation {
    /// Parses `fixed` (with its weight), `uniform` or `extrapolate`.
    ///
    /// # Errors
    /// For any other word, or a weight that is not finite.
    pub fn parse(word: &str, weight: f32) -> Result<Self> {
        match word {
            "fixed" if weight.is_finite() => Ok(Self::Fixed(weight)),
            "fixed" => Err(Error::argument("interpolation_weight", "a finite number", &weight)),
            "uniform" => Ok(Self::Uniform),
            "extrapolate" => Ok(Self::Extrapolate),
            _ => {
                Err(Error::argument("interpolation", "\"fixed\", \"uniform\" or \"extrapolate\"", &format!("{word:?}")))
            }
        }
    }
}

/// The arguments of a sampler.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches that do not depend on each other")]
pub struct Options {
    /// Rows of the global batch.
    pub batch: usize,
    /// Random seed.
    pub seed: u64,
    /// Images to draw from.
    pub split: Split,
    /// Edge of the crop.
    pub crop: usize,
    /// The smallest crop offset; 1 in the released code. The offset is 0 when the crop has the size of the image.
    pub crop_low: usize,
    /// Whether half of the images are mirrored.
    pub flip: bool,
    /// Captions drawn for each image, with replacement.
    pub captions_per_image: usize,
    /// Draw classes uniformly (images of small classes more often), or images uniformly.
    pub class_uniform: bool,
    /// Whether a batch has at most one image of each class.
    pub distinct_classes: bool,
    /// Whether a split without mismatched pairs is refused. Where it is not, an image of such a split is its own mismatch.
    pub mismatched: bool,
    /// Interpolation weights.
    pub interpolation: Interpolation,
    /// Rank of this process.
    pub rank: usize,
    /// Number of processes; must divide the batch.
    pub world: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch: 64,
            seed: 0,
            split: Split::Train,
            crop: 64,
            crop_low: 0,
            flip: true,
            captions_per_image: 1,
            class_uniform: true,
            distinct_classes: false,
            mismatched: true,
            interpolation: Interpolation::Fixed(0.5),
            rank: 0,
            world: 1,
        }
    }
}

pub(super) fn check(options: &Options, image_size: usize) -> Result<()> {
    let Options { batch, crop, crop_low, captions_per_image, rank, world, .. } = *options;
    if !(1..=MAX_BATCH).contains(&batch) {
        return Err(Error::argument("batch", format!("from 1 to {MAX_BATCH}"), &batch));
    }
    if !(1..=MAX_BATCH).contains(&captions_per_image) {
        return Err(Error::argument("captions_per_image", format!("from 1 to {MAX_BATCH}"), &captions_per_image));
    }
    if !(1..=image_size).contains(&crop) {
        return Err(Error::argument("crop", format!("from 1 to the image size of {image_size}"), &crop));
    }
    if crop < image_size && crop_low > image_size - crop {
        let expected = format!("from 0 to {}, the image size less the crop", image_size - crop);
        return Err(Error::argument("crop_low", expected, &crop_low));
    }
    if world == 0 || batch % world != 0 {
        return Err(Error::argument("world", format!("a divisor of the batch of {batch}"), &world));
    }
    if rank >= world {
        return Err(Error::argument("rank", format!("from 0 to {}, as world is {world}", world - 1), &rank));
    }
    Ok(())
}
