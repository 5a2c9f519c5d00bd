//! PNG of every colour type and depth.

use std::io::Cursor;

use super::{Decoded, Rgb, broken, check_size, on_white, unsupported};
use crate::error::{Error, ImageFault, Result};

/// Bytes that decoding a PNG may allocate in addition to its pixels.
pub(super) const WORKSPACE: usize = 64 << 20;

pub(super) fn decode(data: &[u8], max_pixels: u64) -> Result<Decoded> {
    let limits = ::png::Limits { bytes: WORKSPACE };
    let mut decoder = ::png::Decoder::new_with_limits(Cursor::new(data), limits);
    // Text and colour profiles are not used, and a compressed one can expand to any size.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.ignore_checksums(false);
    decoder.set_transformations(::png::Transformations::normalize_to_color8());
    let refused = |error: ::png::DecodingError| match error {
        ::png::DecodingError::LimitsExceeded => {
            Error::image(ImageFault::TooLarge, format!("it needs more than {WORKSPACE} bytes beside its pixels"))
        }
        error => broken(error.to_string()),
    };
    let header = decoder.read_header_info().map_err(refused)?;
    let (width, height) = (header.width as usize, header.height as usize);
    check_size(width, height, max_pixels)?;
    let mut reader = decoder.read_info().map_err(refused)?;
    let size = reader.output_buffer_size().ok_or_else(|| broken("its size overflows"))?;
    let mut raw = vec![0; size];
    let frame = reader.next_frame(&mut raw).map_err(refused)?;
    if (frame.width as usize, frame.height as usize) != (width, height) {
        return Err(unsupported("png whose first picture is smaller than its canvas"));
    }
    // Reads to the end chunk; a file without one is truncated.
    reader.finish().map_err(refused)?;
    let exif = reader.info().exif_metadata.as_ref().map(|exif| exif.to_vec());
    let pixels = match frame.color_type {
        ::png::ColorType::Rgb => raw,
        ::png::ColorType::Rgba => on_white::<4>(&raw),
        ::png::ColorType::GrayscaleAlpha => on_white::<2>(&raw),
        ::png::ColorType::Grayscale => raw.iter().flat_map(|&gray| [gray; 3]).collect(),
        ::png::ColorType::Indexed => return Err(broken("its palette was not expanded")),
    };
    Ok((Rgb { width, height, pixels }, exif))
}
