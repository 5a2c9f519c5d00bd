//! Image files read, decoded and resized, many at once.

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rayon::prelude::*;

use super::{BYTES_PER_PIXEL, CropBox, Fit, broken, decode, resize};
use crate::error::{Error, ImageFault, Result};

/// Bytes that a file may have in addition to eight for each allowed pixel (16-bit RGBA, not compressed).
const FILE_OVERHEAD: u64 = 16 << 20;

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
    // Checked before opening, because opening a pipe would block until it has a writer.
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
/// If `out` or `boxes` does not fit the number of paths, or no thread can be started. Errors of single files are in
/// the result, one entry per path.
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
        // A box with a NaN means no box.
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
    // A pool for this call: a forked child has none of the global pool's threads and would wait for them forever.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(cores.min(paths.len()))
        .build()
        .map_err(|error| Error::Thread(std::io::Error::other(error)))?;
    Ok(pool.install(|| out.par_chunks_exact_mut(row).enumerate().map(one).collect()))
}
