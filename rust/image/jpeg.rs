//! JPEG: markers are parsed here, pixels decoded by zune-jpeg in strict mode.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{BYTES_PER_PIXEL, Decoded, Rgb, broken, check_size, unsupported};
use crate::error::Result;

/// More scans than real progressive files have; each costs a pass over the whole image.
const MAX_SCANS: usize = 100;

/// Size and EXIF block, read from the markers of a JPEG.
struct Layout<'a> {
    width: usize,
    height: usize,
    exif: Option<&'a [u8]>,
}

pub(super) fn decode(data: &[u8], max_pixels: u64) -> Result<Decoded> {
    let layout = walk(data)?;
    check_size(layout.width, layout.height, max_pixels)?;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
    let pixels = decoder.decode().map_err(|error| match error {
        zune_jpeg::errors::DecodeErrors::Unsupported(_) => unsupported(error.to_string()),
        _ => broken(error.to_string()),
    })?;
    if pixels.len() != layout.width * layout.height * BYTES_PER_PIXEL {
        return Err(unsupported(format!("jpeg that gave {} bytes of pixels", pixels.len())));
    }
    let exif = layout.exif.map(<[u8]>::to_vec);
    Ok((Rgb { width: layout.width, height: layout.height, pixels }, exif))
}

/// Parses the markers of a JPEG up to its end-of-image marker. A truncated file has none: the end-of-image markers of
/// embedded thumbnails lie inside segments, which are skipped by their length.
fn walk(data: &[u8]) -> Result<Layout<'_>> {
    let cut = || broken("it ends without an end-of-image marker, so it was cut");
    let mut at = 2;
    let mut frame = None;
    let mut exif = None;
    let mut scans = 0;
    loop {
        // Any bytes but a marker are entropy-coded data (or garbage between segments, which strict decoding checks).
        let marker = loop {
            let skipped = data.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xFF));
            at += skipped.ok_or_else(cut)? + 1;
            match data.get(at).ok_or_else(cut)? {
                0xFF => {}                            // fill byte: look at it again
                0x00 | 0x01 | 0xD0..=0xD7 => at += 1, // stuffed byte, or a marker without a segment
                &marker => {
                    at += 1;
                    break marker;
                }
            }
        };
        if marker == 0xD9 {
            break;
        }
        if marker == 0xD8 {
            return Err(broken("it has a second start-of-image marker"));
        }
        let length = data.get(at..at + 2).ok_or_else(cut)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length < 2 {
            return Err(broken(format!("segment {marker:#04x} has length {length}")));
        }
        let segment = data.get(at + 2..at + length).ok_or_else(cut)?;
        at += length;
        match marker {
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                if frame.is_some() {
                    return Err(broken("it has a second frame header"));
                }
                frame = Some(frame_size(marker, segment)?);
            }
            0xE1 if exif.is_none() => exif = segment.strip_prefix(b"Exif\0\0"),
            0xDA => {
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(broken(format!("it has more than {MAX_SCANS} scans")));
                }
            }
            _ => {}
        }
    }
    let (width, height) = frame.ok_or_else(|| broken("it has no frame header"))?;
    if scans == 0 {
        return Err(broken("it has no scan"));
    }
    Ok(Layout { width, height, exif })
}

/// Reads the size from a frame header; refuses variants that zune-jpeg does not decode to RGB.
fn frame_size(marker: u8, segment: &[u8]) -> Result<(usize, usize)> {
    let &[precision, height0, height1, width0, width1, components, ..] = segment else {
        return Err(broken(format!("its frame header has {} bytes", segment.len())));
    };
    if !(0xC0..=0xC2).contains(&marker) {
        return Err(unsupported(format!("jpeg of process {marker:#04x}")));
    }
    if precision != 8 {
        return Err(unsupported(format!("jpeg of {precision} bits a sample")));
    }
    if components != 1 && components != 3 {
        return Err(unsupported(format!("jpeg of {components} components")));
    }
    let height = usize::from(u16::from_be_bytes([height0, height1]));
    if height == 0 {
        return Err(unsupported("jpeg that leaves its height open"));
    }
    Ok((usize::from(u16::from_be_bytes([width0, width1])), height))
}
