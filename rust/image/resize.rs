//! Resizing, cropping and flipping.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::{BYTES_PER_PIXEL, broken};
use crate::error::{Error, Result};

/// How an image is made square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Ignore the aspect ratio, as the paper does.
    Stretch,
    /// Crop to the largest centred square first.
    Crop,
}

impl Fit {
    /// Parses `stretch` or `crop`.
    ///
    /// # Errors
    /// For any other word.
    pub fn parse(word: &str) -> Result<Self> {
        match word {
            "stretch" => Ok(Self::Stretch),
            "crop" => Ok(Self::Crop),
            _ => Err(Error::argument("fit", "\"stretch\" or \"crop\"", &format!("{word:?}"))),
        }
    }
}

/// A rectangle in pixels; it is clipped to the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CropBox {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Width.
    pub width: f32,
    /// Height.
    pub height: f32,
}

/// Resizes (height, width, 3) pixels to `out` (size, size, 3) with an anti-aliased Lanczos filter of three lobes.
///
/// # Errors
/// If a buffer has the wrong length, or the box lies outside the image.
pub fn resize(
    (height, width, pixels): (usize, usize, &[u8]),
    area: Option<CropBox>,
    fit: Fit,
    size: usize,
    out: &mut [u8],
) -> Result<()> {
    Error::check_length("image", height * width * BYTES_PER_PIXEL, pixels.len())?;
    Error::check_length("resized image", size * size * BYTES_PER_PIXEL, out.len())?;
    let (mut left, mut top, mut wide, mut high) = match area {
        None => (0, 0, width, height),
        Some(area) => clip(area, width, height)?,
    };
    if fit == Fit::Crop {
        // Whole pixels: an offset of half a pixel would blur an image that needs no scaling.
        let side = wide.min(high);
        (left, top) = (left + (wide - side) / 2, top + (high - side) / 2);
        (wide, high) = (side, side);
    }
    let whole = |name: &'static str, value: usize| {
        u32::try_from(value).ok().filter(|value| *value > 0).ok_or_else(|| Error::argument(name, "at least 1", &value))
    };
    let failed = |error: &dyn std::fmt::Display| broken(format!("it cannot be resized: {error}"));
    let (columns, rows) = (whole("image width", width)?, whole("image height", height)?);
    let side = whole("size", size)?;
    let source = TypedImageRef::<U8x3>::from_buffer(columns, rows, pixels).map_err(|error| failed(&error))?;
    let mut target = TypedImage::<U8x3>::from_buffer(side, side, out).map_err(|error| failed(&error))?;
    #[expect(clippy::cast_precision_loss, reason = "image sizes, far below 2^52")]
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).use_alpha(false).crop(
        left as f64,
        top as f64,
        wide as f64,
        high as f64,
    );
    // Not `resize`, which compiles the code of all thirteen pixel types: minutes of build time.
    Resizer::new().resize_typed(&source, &mut target, &options).map_err(|error| failed(&error))
}

/// A box rounded out to whole pixels and clipped to the image: (left, top, width, height).
fn clip(area: CropBox, width: usize, height: usize) -> Result<(usize, usize, usize, usize)> {
    // Float to integer conversion saturates, so infinite coordinates end up at the edge of the image.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, as wanted")]
    let span = |start: f32, extent: f32, limit: usize| {
        let from = (start.floor() as usize).min(limit);
        let to = ((start + extent).ceil() as usize).min(limit);
        (from, to.saturating_sub(from))
    };
    let (left, wide) = span(area.x, area.width, width);
    let (top, high) = span(area.y, area.height, height);
    if wide == 0 || high == 0 {
        let CropBox { x, y, width: w, height: h } = area;
        return Err(broken(format!("box {x}, {y}, {w}, {h} lies outside its {width}x{height} pixels")));
    }
    Ok((left, top, wide, high))
}

/// Copies a crop x crop window of a square image of `size`, mirrored left to right if `flip`.
///
/// # Panics
/// If the window is not inside the image or a buffer is too small; callers have checked the plan.
pub fn crop_and_flip(source: &[u8], size: usize, (top, left): (usize, usize), flip: bool, crop: usize, out: &mut [u8]) {
    let rows = source[top * size * BYTES_PER_PIXEL..].chunks_exact(size * BYTES_PER_PIXEL);
    for (target, row) in out.chunks_exact_mut(crop * BYTES_PER_PIXEL).zip(rows) {
        let row = &row[left * BYTES_PER_PIXEL..(left + crop) * BYTES_PER_PIXEL];
        if flip {
            let targets = target.as_chunks_mut::<BYTES_PER_PIXEL>().0;
            for (target, pixel) in targets.iter_mut().zip(row.as_chunks::<BYTES_PER_PIXEL>().0.iter().rev()) {
                *target = *pixel;
            }
        } else {
            target.copy_from_slice(row);
        }
    }
}
