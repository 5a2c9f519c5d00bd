//! Images: strict decoding, resizing, cropping and flipping.
//!
//! Decoding is for files that nobody vouches for. The size is checked from the header before a pixel is allocated, a
//! cut file is refused (libjpeg and zune-jpeg alone accept most of them and invent the missing part), and whatever
//! these decoders do not know is reported as [`ImageFault::Unsupported`], so that Python can ask Pillow. Pixels are
//! RGB, uint8, rows from the top.

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use rayon::prelude::*;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::error::{Error, ImageFault, Result};

/// The formats decoded here, told apart by their first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG, baseline or progressive, gray or colour.
    Jpeg,
    /// PNG of every colour type and depth; the first picture of an animated one.
    Png,
    /// WebP, lossy or lossless; the first frame of an animated one.
    WebP,
}

impl Format {
    /// The word that Python sees.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::WebP => "webp",
        }
    }
}

/// How a picture is brought to a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Ignore the aspect ratio, as the paper does.
    Stretch,
    /// Cut the largest centred square first.
    Crop,
}

impl Fit {
    /// Reads `stretch` or `crop`.
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

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// height x width x 3.
    pub pixels: Vec<u8>,
}

/// A part of a picture in pixels; it may reach over the edges, where it is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CropBox {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Extent to the right.
    pub width: f32,
    /// Extent downwards.
    pub height: f32,
}

const BYTES_PER_PIXEL: usize = 3;
/// More scans than any real progressive file has; each costs a pass over the whole picture.
const MOST_SCANS: usize = 100;
/// What a PNG may allocate beside its pixels.
const PNG_WORKSPACE: usize = 64 << 20;
/// Bytes a file may have beside eight for each allowed pixel (16-bit RGBA, not compressed).
const FILE_OVERHEAD: u64 = 16 << 20;

fn broken(message: impl Into<String>) -> Error {
    Error::image(ImageFault::Broken, message)
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::image(ImageFault::Unsupported, message)
}

/// Tells the format by magic bytes.
#[must_use]
pub fn format(data: &[u8]) -> Option<Format> {
    match data {
        [0xFF, 0xD8, 0xFF, ..] => Some(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
        _ => None,
    }
}

/// Decodes a picture to RGB: alpha is laid on white, gray and palettes are expanded, 16 bits become 8, the EXIF
/// orientation is applied.
///
/// # Errors
/// [`Error::Image`] with the kind of failure; more than `max_pixels` pixels are refused before they are allocated.
pub fn decode(data: &[u8], max_pixels: u64) -> Result<Rgb> {
    // The decoders are fuzzed, but a data set of millions of files must not end on one that they were not fuzzed with.
    catch_unwind(AssertUnwindSafe(|| decode_unguarded(data, max_pixels)))
        .unwrap_or_else(|_| Err(broken("the decoder failed on it")))
}

fn decode_unguarded(data: &[u8], max_pixels: u64) -> Result<Rgb> {
    let (image, exif) = match format(data) {
        Some(Format::Jpeg) => decode_jpeg(data, max_pixels)?,
        Some(Format::Png) => decode_png(data, max_pixels)?,
        Some(Format::WebP) => decode_webp(data, max_pixels)?,
        None => return Err(unsupported("neither jpeg, png nor webp by its first bytes")),
    };
    Ok(orient(image, exif.as_deref().map_or(1, orientation)))
}

/// A picture and its EXIF block, if it has one.
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

/// What the markers of a JPEG say.
struct JpegLayout<'a> {
    width: usize,
    height: usize,
    exif: Option<&'a [u8]>,
}

/// Walks a JPEG from marker to marker until its end-of-image marker. A cut file has none, wherever it was cut: the
/// end markers of embedded thumbnails lie inside segments, which are skipped by their length.
fn walk_jpeg(data: &[u8]) -> Result<JpegLayout<'_>> {
    let cut = || broken("it ends without an end-of-image marker, so it was cut");
    let mut at = 2;
    let mut frame = None;
    let mut exif = None;
    let mut scans = 0;
    loop {
        // Any bytes but a marker are entropy-coded data (or dirt between segments, which strict decoding judges).
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
                frame = Some(jpeg_frame(marker, segment)?);
            }
            0xE1 if exif.is_none() => exif = segment.strip_prefix(b"Exif\0\0"),
            0xDA => {
                scans += 1;
                if scans > MOST_SCANS {
                    return Err(broken(format!("it has more than {MOST_SCANS} scans")));
                }
            }
            _ => {}
        }
    }
    let (width, height) = frame.ok_or_else(|| broken("it has no frame header"))?;
    if scans == 0 {
        return Err(broken("it has no scan"));
    }
    Ok(JpegLayout { width, height, exif })
}

/// Size from a frame header, refusing what zune-jpeg does not decode to RGB.
fn jpeg_frame(marker: u8, segment: &[u8]) -> Result<(usize, usize)> {
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

fn decode_jpeg(data: &[u8], max_pixels: u64) -> Result<Decoded> {
    let layout = walk_jpeg(data)?;
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

fn decode_png(data: &[u8], max_pixels: u64) -> Result<Decoded> {
    let limits = png::Limits { bytes: PNG_WORKSPACE };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(data), limits);
    // Text and colour profiles are compressed, cost whatever their author likes and change nothing here.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.ignore_checksums(false);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let refused = |error: png::DecodingError| match error {
        png::DecodingError::LimitsExceeded => {
            Error::image(ImageFault::TooLarge, format!("it needs more than {PNG_WORKSPACE} bytes beside its pixels"))
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
    // Reads on to the end chunk, without which the file was cut.
    reader.finish().map_err(refused)?;
    let exif = reader.info().exif_metadata.as_ref().map(|exif| exif.to_vec());
    let pixels = match frame.color_type {
        png::ColorType::Rgb => raw,
        png::ColorType::Rgba => on_white::<4>(&raw),
        png::ColorType::GrayscaleAlpha => on_white::<2>(&raw),
        png::ColorType::Grayscale => raw.iter().flat_map(|&gray| [gray; 3]).collect(),
        png::ColorType::Indexed => return Err(broken("its palette was not expanded")),
    };
    Ok((Rgb { width, height, pixels }, exif))
}

fn decode_webp(data: &[u8], max_pixels: u64) -> Result<Decoded> {
    // The length that the container declares, without its own eight bytes of header.
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

/// Lays pixels with alpha (the last of N channels; N = 2 is gray) on white.
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

/// The orientation, 1 to 8, in an EXIF block (with or without its `Exif` prefix); 1 when it says nothing usable.
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

/// Turns a picture upright.
fn orient(image: Rgb, orientation: u8) -> Rgb {
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

/// Resizes (height, width, 3) pixels to `out` (size, size, 3) with an anti-aliased Lanczos filter of three lobes.
///
/// # Errors
/// If a buffer does not fit its shape, or the box lies outside the picture.
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
        // Whole pixels: a centre between two pixels would blur a picture that needs no scaling.
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
    #[expect(clippy::cast_precision_loss, reason = "sizes of pictures, far below 2^52")]
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).use_alpha(false).crop(
        left as f64,
        top as f64,
        wide as f64,
        high as f64,
    );
    // `resize_typed`, because `resize` compiles the code of all thirteen kinds of pixel: minutes of build time.
    Resizer::new().resize_typed(&source, &mut target, &options).map_err(|error| failed(&error))
}

/// The whole pixels (left, top, width, height) of a box that touch a picture.
fn clip(area: CropBox, width: usize, height: usize) -> Result<(usize, usize, usize, usize)> {
    // Float to integer conversion saturates, so far and infinite corners land on the picture's edge.
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

/// Copies a crop x crop window of a square picture of `size`, mirrored left to right if `flip`.
///
/// # Panics
/// If the window leaves the picture or a buffer is too small; callers have checked the plan.
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

/// Reads, decodes and resizes one file.
///
/// # Errors
/// [`Error::Image`] with the kind of failure.
pub fn load(path: &Path, area: Option<CropBox>, fit: Fit, max_pixels: u64, size: usize, out: &mut [u8]) -> Result<()> {
    let data = read(path, max_pixels)?;
    let image = decode(&data, max_pixels)?;
    resize((image.height, image.width, &image.pixels), area, fit, size, out)
}

fn read(path: &Path, max_pixels: u64) -> Result<Vec<u8>> {
    let unreadable = |message: String| Error::image(ImageFault::Unreadable, message);
    // Asked before opening, because opening a pipe would wait for its writer for ever.
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if !metadata.is_file() {
        return Err(unreadable("it is not a file".to_owned()));
    }
    let limit = max_pixels.saturating_mul(8).saturating_add(FILE_OVERHEAD);
    let mut data = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    file.take(limit.saturating_add(1)).read_to_end(&mut data).map_err(|error| unreadable(error.to_string()))?;
    if data.len() as u64 > limit {
        return Err(Error::image(ImageFault::TooLarge, format!("the file has more than {limit} bytes")));
    }
    Ok(data)
}

/// Loads many files on many threads into `out` (N, size, size, 3); the row of a failed one is zero.
///
/// # Errors
/// If `out` or `boxes` does not fit the number of paths, or no thread can be started. Failures of single files are in
/// the result, one entry a path.
pub fn load_many(
    paths: &[impl AsRef<Path> + Sync],
    boxes: Option<&[CropBox]>,
    fit: Fit,
    max_pixels: u64,
    size: usize,
    out: &mut [u8],
) -> Result<Vec<Option<Error>>> {
    let row = size * size * BYTES_PER_PIXEL;
    if row == 0 {
        return Err(Error::argument("size", "at least 1", &size));
    }
    Error::check_length("image buffer", paths.len() * row, out.len())?;
    if let Some(boxes) = boxes {
        Error::check_length("boxes", paths.len(), boxes.len())?;
    }
    let one = |(index, target): (usize, &mut [u8])| {
        // A box with a NaN stands for none.
        let area = boxes.map(|boxes| boxes[index]);
        let area = area.filter(|area| ![area.x, area.y, area.width, area.height].iter().any(|edge| edge.is_nan()));
        let work = AssertUnwindSafe(|| load(paths[index].as_ref(), area, fit, max_pixels, size, target));
        let error = catch_unwind(work).unwrap_or_else(|_| Err(broken("the resizer failed on it"))).err();
        if error.is_some() {
            target.fill(0);
        }
        error
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores.min(paths.len()) <= 1 {
        return Ok(out.chunks_exact_mut(row).enumerate().map(one).collect());
    }
    // A pool of the call's own: the shared one's threads would be missing in a forked child, which would wait for ever.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(cores.min(paths.len()))
        .build()
        .map_err(|error| Error::Thread(std::io::Error::other(error)))?;
    Ok(pool.install(|| out.par_chunks_exact_mut(row).enumerate().map(one).collect()))
}

#[cfg(test)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::type_complexity,
    reason = "small numbers and tables"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY_SIZE: u64 = 1 << 30;
    const BASELINE: &[u8] = include_bytes!("testdata/baseline.jpg");
    const PROGRESSIVE: &[u8] = include_bytes!("testdata/progressive.jpg");
    const SUBSAMPLED: &[u8] = include_bytes!("testdata/subsampled.jpg");
    const GRAY: &[u8] = include_bytes!("testdata/gray.jpg");
    const CMYK: &[u8] = include_bytes!("testdata/cmyk.jpg");
    const THUMBNAIL: &[u8] = include_bytes!("testdata/thumbnail.jpg");
    const LOSSY: &[u8] = include_bytes!("testdata/lossy.webp");

    /// The picture that every file of testdata was made from: 24 wide, 16 high.
    fn original() -> Rgb {
        let mut pixels = Vec::new();
        for y in 0..16_u8 {
            for x in 0..24_u8 {
                pixels.extend([x * 10, y * 15, (x + y) * 6]);
            }
        }
        Rgb { width: 24, height: 16, pixels }
    }

    fn worst(left: &[u8], right: &[u8]) -> u8 {
        assert_eq!(left.len(), right.len());
        left.iter().zip(right).map(|(left, right)| left.abs_diff(*right)).max().unwrap_or(0)
    }

    fn fault(result: Result<Rgb>) -> ImageFault {
        match result {
            Err(Error::Image { fault, .. }) => fault,
            other => panic!("expected an image error, got {other:?}"),
        }
    }

    fn png_file(color: png::ColorType, depth: png::BitDepth, size: (u32, u32), data: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, size.0, size.1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == png::ColorType::Indexed {
            encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
            encoder.set_trns(vec![255, 0]);
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        file
    }

    fn webp_file(color: image_webp::ColorType, size: (u32, u32), data: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        image_webp::WebPEncoder::new(&mut file).encode(data, size.0, size.1, color).unwrap();
        file
    }

    fn every_kind_of_file() -> Vec<(&'static str, Vec<u8>)> {
        let rgb = original().pixels;
        vec![
            ("baseline jpeg", BASELINE.to_vec()),
            ("progressive jpeg", PROGRESSIVE.to_vec()),
            ("subsampled jpeg with restarts", SUBSAMPLED.to_vec()),
            ("gray jpeg", GRAY.to_vec()),
            ("jpeg with a thumbnail", THUMBNAIL.to_vec()),
            ("png", png_file(png::ColorType::Rgb, png::BitDepth::Eight, (24, 16), &rgb)),
            ("lossy webp", LOSSY.to_vec()),
            ("lossless webp", webp_file(image_webp::ColorType::Rgb8, (24, 16), &rgb)),
        ]
    }

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let cases: [(&[u8], Option<Format>); 7] = [
            (BASELINE, Some(Format::Jpeg)),
            (LOSSY, Some(Format::WebP)),
            (b"\x89PNG\r\n\x1a\n", Some(Format::Png)),
            (b"", None),
            (b"GIF89a", None),
            (b"RIFF\0\0\0\0WAVE", None), // another file of the same container
            (b"\xff\xd8", None),         // a start-of-image marker and nothing
        ];
        for (data, expected) in cases {
            assert_eq!(format(data), expected, "{:?}", &data[..data.len().min(12)]);
        }
    }

    #[test]
    fn jpegs_decode_to_their_original_within_the_loss_of_the_format() {
        // The gray file holds the red channel. Colours at half resolution lose more at the borders.
        let red: Vec<u8> = original().pixels.chunks_exact(3).flat_map(|pixel| [pixel[0]; 3]).collect();
        let colours = original().pixels;
        for (data, expected, tolerance) in
            [(BASELINE, &colours, 4), (PROGRESSIVE, &colours, 4), (SUBSAMPLED, &colours, 16), (GRAY, &red, 3)]
        {
            let image = decode(data, ANY_SIZE).unwrap();
            assert_eq!((image.width, image.height), (24, 16));
            assert!(worst(&image.pixels, expected) <= tolerance, "worst {}", worst(&image.pixels, expected));
        }
    }

    #[test]
    fn lossless_pictures_survive_a_round_trip_exactly() {
        let Rgb { pixels, .. } = original();
        let png = png_file(png::ColorType::Rgb, png::BitDepth::Eight, (24, 16), &pixels);
        let webp = webp_file(image_webp::ColorType::Rgb8, (24, 16), &pixels);
        assert_eq!(decode(&png, ANY_SIZE).unwrap(), original());
        assert_eq!(decode(&webp, ANY_SIZE).unwrap(), original());
    }

    #[test]
    fn pngs_of_every_kind_become_rgb_on_white() {
        use png::{BitDepth, ColorType};
        let cases: [(&str, ColorType, BitDepth, &[u8], [[u8; 3]; 2]); 8] = [
            ("rgb", ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]),
            ("16 bits keep the high byte", ColorType::Grayscale, BitDepth::Sixteen, &[7, 9, 8, 1], [[7; 3], [8; 3]]),
            ("one bit is black or white", ColorType::Grayscale, BitDepth::One, &[0b0100_0000], [[0; 3], [255; 3]]),
            ("four bits fill the range", ColorType::Grayscale, BitDepth::Four, &[0xF1], [[255; 3], [17; 3]]),
            (
                "transparent is white",
                ColorType::Rgba,
                BitDepth::Eight,
                &[9, 9, 9, 0, 9, 8, 7, 255],
                [[255; 3], [9, 8, 7]],
            ),
            // 100 * 51/255 + 255 * 204/255 = 224; 0 + 255 * 128/255 = 128
            (
                "partly transparent",
                ColorType::Rgba,
                BitDepth::Eight,
                &[100, 0, 255, 51, 0, 0, 0, 127],
                [[224, 204, 255], [128; 3]],
            ),
            ("gray with alpha", ColorType::GrayscaleAlpha, BitDepth::Eight, &[100, 51, 3, 255], [[224; 3], [3; 3]]),
            // the fixture's second palette entry is transparent
            ("palette", ColorType::Indexed, BitDepth::Eight, &[0, 1], [[10, 20, 30], [255; 3]]),
        ];
        for (name, color, depth, data, expected) in cases {
            let image = decode(&png_file(color, depth, (2, 1), data), ANY_SIZE).unwrap();
            assert_eq!(image.pixels, expected.concat(), "{name}");
        }
    }

    #[test]
    fn webp_with_alpha_is_laid_on_white() {
        let file = webp_file(image_webp::ColorType::Rgba8, (2, 1), &[100, 0, 255, 51, 9, 8, 7, 255]);
        assert_eq!(decode(&file, ANY_SIZE).unwrap().pixels, [224, 204, 255, 9, 8, 7]);
    }

    #[test]
    fn a_file_cut_at_any_byte_is_refused() {
        for (name, data) in every_kind_of_file() {
            assert!(decode(&data, ANY_SIZE).is_ok(), "{name}");
            for end in 0..data.len() {
                let kind = fault(decode(&data[..end], ANY_SIZE));
                assert!(matches!(kind, ImageFault::Broken | ImageFault::Unsupported), "{name} cut at {end}: {kind:?}");
                // With its first bytes there is no doubt about the format, and so none for Pillow to settle.
                assert!(end < 12 || kind == ImageFault::Broken, "{name} cut at {end}");
            }
        }
    }

    #[test]
    fn bytes_after_the_end_are_allowed() {
        for (name, mut data) in every_kind_of_file() {
            let expected = decode(&data, ANY_SIZE).unwrap();
            data.extend_from_slice(b"\0\0trailing");
            assert_eq!(decode(&data, ANY_SIZE).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn sizes_are_refused_by_the_header_before_pixels_are_allocated() {
        for (name, data) in every_kind_of_file() {
            assert!(decode(&data, 24 * 16).is_ok(), "{name}");
            assert_eq!(fault(decode(&data, 24 * 16 - 1)), ImageFault::TooLarge, "{name}");
        }
        // Headers that claim 60000 x 60000 (10.8 GB): patched into a PNG, with its checksum, and into a JPEG.
        let mut png = png_file(png::ColorType::Rgb, png::BitDepth::Eight, (1, 1), &[0; 3]);
        png[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        let checksum = crc(&png[12..29]).to_be_bytes();
        png[29..33].copy_from_slice(&checksum);
        assert_eq!(fault(decode(&png, 1 << 28)), ImageFault::TooLarge);
        let mut jpeg = BASELINE.to_vec();
        let frame = jpeg.windows(2).position(|bytes| bytes == [0xFF, 0xC0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0xEA, 0x60, 0xEA, 0x60]);
        assert_eq!(fault(decode(&jpeg, 1 << 28)), ImageFault::TooLarge);
    }

    fn crc(data: &[u8]) -> u32 {
        !data.iter().fold(!0, |mut crc: u32, &byte| {
            crc ^= u32::from(byte);
            (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 });
            crc
        })
    }

    #[test]
    fn text_chunks_are_skipped_whatever_their_size() {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 1, 1);
        encoder.set_color(png::ColorType::Rgb);
        // Unpacked, or kept at all, either would exceed the decoder's workspace and fail.
        encoder.add_ztxt_chunk("bomb".to_owned(), "0".repeat(2 * PNG_WORKSPACE)).unwrap();
        encoder.add_text_chunk("long".to_owned(), "0".repeat(PNG_WORKSPACE + 1)).unwrap();
        encoder.write_header().unwrap().write_image_data(&[1, 2, 3]).unwrap();
        assert_eq!(decode(&file, ANY_SIZE).unwrap().pixels, [1, 2, 3]);
    }

    #[test]
    fn formats_and_variants_not_decoded_here_are_left_to_pillow() {
        let mut twelve_bits = BASELINE.to_vec();
        let frame = twelve_bits.windows(2).position(|bytes| bytes == [0xFF, 0xC0]).unwrap();
        twelve_bits[frame + 4] = 12;
        let mut arithmetic = BASELINE.to_vec();
        arithmetic[frame + 1] = 0xC9;
        for (name, data) in [
            ("gif", &b"GIF89a"[..]),
            ("nothing", b""),
            ("cmyk", CMYK),
            ("twelve bits", &twelve_bits),
            ("arithmetic coding", &arithmetic),
        ] {
            assert_eq!(fault(decode(data, ANY_SIZE)), ImageFault::Unsupported, "{name}");
        }
    }

    #[test]
    fn hostile_jpegs_are_broken() {
        let with_scans = |count: usize| {
            // The last scan of the file, repeated.
            let scan = BASELINE.windows(2).position(|bytes| bytes == [0xFF, 0xDA]).unwrap();
            let mut data = BASELINE[..scan].to_vec();
            (0..count).for_each(|_| data.extend_from_slice(&BASELINE[scan..BASELINE.len() - 2]));
            data.extend([0xFF, 0xD9]);
            data
        };
        let cases = [
            ("only markers of begin and end", vec![0xFF, 0xD8, 0xFF, 0xD9], "no frame header"),
            ("a segment of length 1", vec![0xFF, 0xD8, 0xFF, 0xE0, 0, 1, 0xFF, 0xD9], "length 1"),
            ("a second beginning", vec![0xFF, 0xD8, 0xFF, 0xD8, 0xFF, 0xD9], "second start-of-image"),
            ("a hundred and one scans", with_scans(101), "more than 100 scans"),
            ("no scan", with_scans(0), "no scan"),
        ];
        for (name, data, expected) in cases {
            let message = decode(&data, ANY_SIZE).unwrap_err().to_string();
            assert!(message.starts_with("broken") && message.contains(expected), "{name}: {message}");
        }
    }

    #[test]
    fn the_exif_orientation_turns_the_picture_and_a_thumbnail_does_not_end_it() {
        let upright = decode(THUMBNAIL, ANY_SIZE).unwrap();
        let stored = decode(BASELINE, ANY_SIZE).unwrap();
        assert_eq!((upright.width, upright.height), (16, 24));
        // Orientation 6: stored rows become columns from the right.
        for y in 0..24 {
            for x in 0..16 {
                let (to, from) = ((y * 16 + x) * 3, ((15 - x) * 24 + y) * 3);
                assert_eq!(upright.pixels[to..to + 3], stored.pixels[from..from + 3]);
            }
        }
    }

    #[test]
    fn each_orientation_moves_pixels_as_the_standard_says() {
        // ab
        // cd
        // ef
        let cases = [
            (1, 2, "abcdef"),
            (2, 2, "badcfe"),
            (3, 2, "fedcba"),
            (4, 2, "efcdab"),
            (5, 3, "acebdf"),
            (6, 3, "ecafdb"),
            (7, 3, "fdbeca"),
            (8, 3, "bdface"),
        ];
        let picture = |letters: &str| letters.bytes().flat_map(|letter| [letter, 0, letter]).collect::<Vec<u8>>();
        for (orientation, width, expected) in cases {
            let turned = orient(Rgb { width: 2, height: 3, pixels: picture("abcdef") }, orientation);
            assert_eq!((turned.width, turned.height), (width, 6 / width), "orientation {orientation}");
            assert_eq!(turned.pixels, picture(expected), "orientation {orientation}");
        }
    }

    #[test]
    fn orientation_is_read_from_both_byte_orders_and_is_1_when_nothing_usable_is_said() {
        let little = b"II*\0\x08\0\0\0\x02\0\x0f\x01\x02\0\x01\0\0\0\0\0\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        let changed = |at: usize, value: u8| {
            let mut data = big.to_vec();
            data[at] = value;
            data
        };
        let cases = [
            ("little endian, second entry", little.to_vec(), 6),
            ("big endian", big.to_vec(), 8),
            ("with its prefix", [b"Exif\0\0", &big[..]].concat(), 8),
            ("value 9", changed(19, 9), 1),
            ("value 0", changed(19, 0), 1),
            ("type byte", changed(13, 1), 1),
            ("two values", changed(17, 2), 1),
            ("another tag", changed(11, 0x13), 1),
            ("directory far outside", changed(4, 255), 1),
            ("more entries than bytes", [&little[..8], &[255, 255]].concat(), 1),
            ("bad magic", changed(0, b'X'), 1),
            ("empty", Vec::new(), 1),
        ];
        for (name, data, expected) in cases {
            assert_eq!(orientation(&data), expected, "{name}");
        }
    }

    /// Anti-aliased Lanczos of three lobes along rows of one channel, by its definition.
    fn lanczos(line: &[f64], out: usize) -> Vec<f64> {
        use std::f64::consts::PI;
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
        let scale = line.len() as f64 / out as f64;
        let stretch = scale.max(1.0);
        let weigh = |target: usize| {
            let centre = (target as f64 + 0.5) * scale;
            let weights: Vec<f64> = (0..line.len())
                .map(|at| (at as f64 + 0.5 - centre) / stretch)
                .map(|x| if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 })
                .collect();
            let sum: f64 = weights.iter().sum();
            weights.iter().zip(line).map(|(weight, value)| weight * value).sum::<f64>() / sum
        };
        (0..out).map(weigh).collect()
    }

    /// Resizes by the definition, with the rounding between the two passes that bytes have.
    fn reference_resize(width: usize, height: usize, pixels: &[u8], size: usize) -> Vec<u8> {
        let mut out = vec![0; size * size * 3];
        for channel in 0..3 {
            let value = |x: usize, y: usize| f64::from(pixels[(y * width + x) * 3 + channel]);
            let rows: Vec<Vec<f64>> = (0..height)
                .map(|y| lanczos(&(0..width).map(|x| value(x, y)).collect::<Vec<_>>(), size))
                .map(|row| row.iter().map(|value| value.round().clamp(0.0, 255.0)).collect())
                .collect();
            for x in 0..size {
                let column = lanczos(&rows.iter().map(|row| row[x]).collect::<Vec<_>>(), size);
                for (y, value) in column.iter().enumerate() {
                    out[(y * size + x) * 3 + channel] = value.round().clamp(0.0, 255.0) as u8;
                }
            }
        }
        out
    }

    #[test]
    fn resizing_equals_the_definition_up_to_rounding() {
        // Noise, which shows every weight; down and up, and both at once. From 64 to 191, so that nothing overshoots
        // the range of a byte between the two passes, where the result would depend on their order.
        let noise = |at: usize| {
            let word = crate::rng::philox4x32_10([u32::try_from(at).unwrap(), 0, 0, 0], [0; 2])[0];
            64 + word.to_le_bytes()[0] / 2
        };
        for (width, height, size) in [(50, 31, 16), (9, 7, 16), (40, 8, 12)] {
            let pixels: Vec<u8> = (0..width * height * 3).map(noise).collect();
            let mut out = vec![0; size * size * 3];
            resize((height, width, &pixels), None, Fit::Stretch, size, &mut out).unwrap();
            let difference = worst(&out, &reference_resize(width, height, &pixels, size));
            assert!(difference <= 2, "{width}x{height} to {size}: worst {difference}");
        }
    }

    #[test]
    fn cropping_takes_the_centre_and_boxes_their_pixels() {
        let Rgb { width, height, pixels } = original();
        let window = |left: usize, top: usize, size: usize| {
            let row = |y: usize| &pixels[(y * width + left) * 3..(y * width + left + size) * 3];
            (top..top + size).flat_map(|y| row(y).to_vec()).collect::<Vec<u8>>()
        };
        let area = |x, y, width, height| Some(CropBox { x, y, width, height });
        // Targets of the window's own size, so that nothing is resampled and the bytes are exact.
        let cases = [
            ("the middle of a wide picture", None, Fit::Crop, window(4, 0, 16), 16),
            ("a box", area(3.0, 2.0, 8.0, 8.0), Fit::Stretch, window(3, 2, 8), 8),
            (
                "a box between pixels covers those it touches",
                area(3.4, 2.6, 7.2, 7.2),
                Fit::Stretch,
                window(3, 2, 8),
                8,
            ),
            ("a box over the edges is cut there", area(-9.0, 8.0, 17.0, 1e30), Fit::Stretch, window(0, 8, 8), 8),
            ("the middle of a box", area(2.0, 4.0, 12.0, 8.0), Fit::Crop, window(4, 4, 8), 8),
        ];
        for (name, area, fit, expected, size) in cases {
            let mut out = vec![0; size * size * 3];
            resize((height, width, &pixels), area, fit, size, &mut out).unwrap();
            assert_eq!(out, expected, "{name}");
        }
        for outside in [area(24.0, 0.0, 5.0, 5.0), area(0.0, 0.0, 0.0, 5.0), area(5.0, 5.0, -9.0, 5.0)] {
            assert!(resize((height, width, &pixels), outside, Fit::Stretch, 4, &mut [0; 48]).is_err());
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(resize((0, 0, &[]), None, Fit::Crop, 1, &mut [0; 3]).is_err());
        assert!(resize((1, 1, &[0; 3]), None, Fit::Crop, 0, &mut []).is_err());
        assert!(resize((1, 1, &[0; 2]), None, Fit::Crop, 1, &mut [0; 3]).is_err());
        assert!(resize((1, 1, &[0; 3]), None, Fit::Crop, 1, &mut [0; 4]).is_err());
    }

    #[test]
    fn many_files_load_with_one_verdict_each_and_zeros_for_the_failed() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, data: &[u8]| {
            std::fs::write(folder.path().join(name), data).unwrap();
            folder.path().join(name)
        };
        let paths = [
            file("good.jpg", BASELINE),
            file("cut.jpg", &BASELINE[..BASELINE.len() - 1]),
            file("a.gif", b"GIF89a"),
            folder.path().join("none.jpg"),
            folder.path().to_path_buf(),
            file("boxed.jpg", BASELINE),
        ];
        let none = CropBox { x: f32::NAN, y: 0.0, width: 1.0, height: 1.0 };
        let mut boxes = vec![none; paths.len()];
        boxes[5] = CropBox { x: 2.0, y: 1.0, width: 4.0, height: 4.0 };
        let mut out = vec![9; paths.len() * 48];
        let results = load_many(&paths, Some(&boxes), Fit::Stretch, ANY_SIZE, 4, &mut out).unwrap();
        let kinds: Vec<&str> = results
            .iter()
            .map(|result| match result {
                None => "ok",
                Some(Error::Image { fault, .. }) => fault.as_str(),
                Some(other) => panic!("{other}"),
            })
            .collect();
        assert_eq!(kinds, ["ok", "broken", "unsupported", "unreadable", "unreadable", "ok"]);
        assert!(out[48..5 * 48].iter().all(|&byte| byte == 0));
        let whole = decode(BASELINE, ANY_SIZE).unwrap();
        let boxed: Vec<u8> = (1..5).flat_map(|y| whole.pixels[(y * 24 + 2) * 3..(y * 24 + 6) * 3].to_vec()).collect();
        assert_eq!(out[5 * 48..], boxed);
        let limited = load_many(&paths[..1], None, Fit::Stretch, 10, 4, &mut out[..48]).unwrap();
        assert!(matches!(limited[0], Some(Error::Image { fault: ImageFault::TooLarge, .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn cropping_and_flipping_equals_the_definition(
            crop in 1_usize..20, top in 0_usize..20, left in 0_usize..20, flip: bool
        ) {
            let size = crop + top.max(left);
            let source: Vec<u8> = (0..size * size * 3).map(|at| (at * 7 % 251) as u8).collect();
            let mut out = vec![0; crop * crop * 3];
            crop_and_flip(&source, size, (top, left), flip, crop, &mut out);
            for y in 0..crop {
                for x in 0..crop {
                    let from = left + if flip { crop - 1 - x } else { x };
                    for channel in 0..3 {
                        let expected = source[((top + y) * size + from) * 3 + channel];
                        prop_assert_eq!(out[(y * crop + x) * 3 + channel], expected);
                    }
                }
            }
        }

        #[test]
        fn png_and_webp_survive_a_round_trip(width in 1_u32..12, height in 1_u32..12, seed: u8) {
            let data: Vec<u8> = (0..width * height * 3).map(|at| ((at * 97) ^ u32::from(seed)) as u8).collect();
            let png = png_file(png::ColorType::Rgb, png::BitDepth::Eight, (width, height), &data);
            let webp = webp_file(image_webp::ColorType::Rgb8, (width, height), &data);
            prop_assert_eq!(&decode(&png, ANY_SIZE).unwrap().pixels, &data);
            prop_assert_eq!(&decode(&webp, ANY_SIZE).unwrap().pixels, &data);
        }

        #[test]
        fn damaged_files_give_a_picture_or_an_error(
            kind in 0_usize..8, damage in prop::collection::vec((0_usize..4096, 0_u8..=255), 1..6)
        ) {
            let (_, mut data) = every_kind_of_file().swap_remove(kind);
            for (at, value) in damage {
                let length = data.len();
                data[at % length] = value;
            }
            if let Ok(image) = decode(&data, 1 << 20) {
                prop_assert_eq!(image.pixels.len(), image.width * image.height * 3);
            }
        }

        #[test]
        fn any_bytes_after_a_magic_number_give_an_error_or_a_picture(
            kind in 0_usize..3, rest in prop::collection::vec(0_u8..=255, 0..300)
        ) {
            let magic: [&[u8]; 3] = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP"];
            let _ = decode(&[magic[kind], &rest].concat(), 1 << 20);
        }
    }
}
