//! The EXIF orientation: read from an EXIF block, applied to pixels.

use super::{BYTES_PER_PIXEL, Rgb};

/// The orientation, 1 to 8, in an EXIF block (with or without its `Exif` prefix); 1 if it is missing or invalid.
#[must_use]
pub fn orientation(exif: &[u8]) -> u8 {
    find_orientation(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif)).unwrap_or(1)
}

fn find_orientation(tiff: &[u8]) -> Option<u8> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes: [u8; 4] = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = long(4)? as usize;
    for entry in 0..usize::from(short(directory)?) {
        let at = directory.checked_add(2 + entry * 12)?;
        // Tag 0x0112, type 3 (16 bits), one value.
        if short(at)? == 0x0112 && short(at + 2)? == 3 && long(at + 4)? == 1 {
            let value = short(at + 8)?;
            return u8::try_from(value).ok().filter(|value| (1..=8).contains(value));
        }
    }
    None
}

/// Applies an EXIF orientation.
pub(super) fn orient(image: Rgb, orientation: u8) -> Rgb {
    if orientation <= 1 {
        return image;
    }
    let (width, height) = (image.width, image.height);
    let (new_width, new_height) = if orientation >= 5 { (height, width) } else { (width, height) };
    let source = image.pixels.as_chunks::<BYTES_PER_PIXEL>().0;
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for y in 0..new_height {
        for x in 0..new_width {
            let (from_x, from_y) = match orientation {
                2 => (width - 1 - x, y),
                3 => (width - 1 - x, height - 1 - y),
                4 => (x, height - 1 - y),
                5 => (y, x),
                6 => (y, height - 1 - x),
                7 => (width - 1 - y, height - 1 - x),
                8 => (width - 1 - y, x),
                _ => (x, y),
            };
            pixels.extend_from_slice(&source[from_y * width + from_x]);
        }
    }
    Rgb { width: new_width, height: new_height, pixels }
}
