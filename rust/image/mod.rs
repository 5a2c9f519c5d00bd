//! Images: strict decoding, resizing, cropping and flipping.
//!
//! Files are untrusted. The size is checked from the header before pixels are allocated; a truncated file is refused
//! (libjpeg and zune-jpeg accept most of them and make up the missing part); a format or variant that is not
//! supported here is reported as [`ImageFault::Unsupported`], so that Python can try Pillow. Pixels are RGB, uint8, top
//! row first.

mod exif;
mod jpeg;
mod load;
mod png;
mod resize;
#[cfg(test)]
mod tests;
mod webp;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use self::exif::orientation;
pub use self::load::{load, load_many};
pub use self::resize::{CropBox, Fit, crop_and_flip, resize};
use crate::error::{Error, ImageFault, Result};

/// The formats decoded here, detected by their first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG, baseline or progressive, gray or colour.
    Jpeg,
    /// PNG of every colour type and depth; the first frame of an animated one.
    Png,
    /// WebP, lossy or lossless; the first frame of an animated one.
    WebP,
}

impl Format {
    /// The name used in Python.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::WebP => "webp",
        }
    }
}

/// A decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels per row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// (height, width, 3) uint8.
    pub pixels: Vec<u8>,
}

const BYTES_PER_PIXEL: usize = 3;

fn broken(message: impl Into<String>) -> Error {
    Error::image(ImageFault::Broken, message)
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::image(ImageFault::Unsupported, message)
}

/// Detects the format from the magic bytes.
#[must_use]
pub fn format(data: &[u8]) -> Option<Format> {
    match data {
        [0xFF, 0xD8, 0xFF, ..] => Some(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
        _ => None,
    }
}

/// Decodes an image to RGB: alpha is composited on white, gray and palettes are expanded, 16 bits become 8, the EXIF
/// orientation is applied.
///
/// # Errors
/// [`Error::Image`] with the kind of failure; more than `max_pixels` pixels are refused before they are allocated.
pub fn decode(data: &[u8], max_pixels: u64) -> Result<Rgb> {
    // The decoders are fuzzed, but one file that makes them panic must not end the preparation of millions.
    catch_unwind(AssertUnwindSafe(|| decode_unguarded(data, max_pixels)))
        .unwrap_or_else(|_| Err(broken("the decoder failed on it")))
}

fn decode_unguarded(data: &[u8], max_pixels: u64) -> Result<Rgb> {
    let (image, block) = match format(data) {
        Some(Format::Jpeg) => jpeg::decode(data, max_pixels)?,
        Some(Format::Png) => png::decode(data, max_pixels)?,
        Some(Format::WebP) => webp::decode(data, max_pixels)?,
        None => return Err(unsupported("neither jpeg, png nor webp by its first bytes")),
    };
    Ok(exif::orient(image, block.as_deref().map_or(1, orientation)))
}

/// An image and its EXIF block, if it has one.
type Decoded = (Rgb, Option<Vec<u8>>);

fn check_size(width: usize, height: usize, max_pixels: u64) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(broken(format!("it has {width}x{height} pixels")));
    }
    if (width as u64).saturating_mul(height as u64) > max_pixels {
        let message = format!("{width}x{height} pixels are more than the limit of {max_pixels}");
        return Err(Error::image(ImageFault::TooLarge, message));
    }
    Ok(())
}

/// Composites pixels with alpha (the last of N channels; N = 2 is gray) on white.
fn on_white<const N: usize>(raw: &[u8]) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(raw.len() / N * BYTES_PER_PIXEL);
    for pixel in raw.as_chunks::<N>().0 {
        let alpha = u32::from(pixel[N - 1]);
        for channel in 0..BYTES_PER_PIXEL {
            let value = u32::from(pixel[channel.min(N - 2)]);
            // Rounded to nearest; never above 255.
            #[expect(clippy::cast_possible_truncation, reason = "a weighted mean of two bytes")]
            pixels.push(((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8);
        }
    }
    pixels
}
