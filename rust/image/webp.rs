//! WebP, lossy or lossless.

use std::io::Cursor;

use super::{Decoded, Rgb, broken, check_size, on_white};
use crate::error::Result;

pub(super) fn decode(data: &[u8], max_pixels: u64) -> Result<Decoded> {
    // The length declared by the container, without the eight bytes of its header.
    let declared = data.get(4..8).map_or(0, |size| u32::from_le_bytes([size[0], size[1], size[2], size[3]])) as usize;
    if data.len() - 8 < declared {
        return Err(broken(format!("it was cut: {declared} bytes declared, {} there", data.len() - 8)));
    }
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(data)).map_err(|error| broken(error.to_string()))?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height, max_pixels)?;
    decoder.set_memory_limit(usize::try_from(max_pixels).unwrap_or(usize::MAX).saturating_mul(4));
    let size = decoder.output_buffer_size().ok_or_else(|| broken("its size overflows"))?;
    let mut raw = vec![0; size];
    decoder.read_image(&mut raw).map_err(|error| broken(error.to_string()))?;
    let exif = decoder.exif_metadata().ok().flatten();
    let pixels = if decoder.has_alpha() { on_white::<4>(&raw) } else { raw };
    Ok((Rgb { width, height, pixels }, exif))
}
