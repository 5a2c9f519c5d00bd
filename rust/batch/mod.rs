//! Executes a plan: gathers pixels and captions from the pack into the caller's buffers.

use crate::error::{Error, Result};
use crate::image::crop_and_flip;
use crate::pack::Pack;
use crate::sampler::Plan;
use crate::threads;
use crate::tokenizer::Tokenizer;

/// Output buffers; those that are `None` are skipped.
#[derive(Debug, Default)]
pub struct Buffers<'a> {
    /// (B, crop, crop, 3) matching images.
    pub images: Option<&'a mut [u8]>,
    /// (B, crop, crop, 3) mismatched images.
    pub mismatched_images: Option<&'a mut [u8]>,
    /// (B, K, L) ids of the captions of the matching images.
    pub captions: Option<&'a mut [u8]>,
    /// (B, K, L) ids of the captions of the mismatched images.
    pub mismatched_captions: Option<&'a mut [u8]>,
    /// How captions become ids; it gives L.
    pub tokenizer: Tokenizer,
}

/// Some rows of one buffer, filled by one thread.
enum Task<'a> {
    Images { rows: std::ops::Range<usize>, mismatched: bool, out: &'a mut [u8] },
    Captions { rows: std::ops::Range<usize>, mismatched: bool, out: &'a mut [u8] },
}

/// Executes a plan. The bytes are the same for any number of threads; 0 chooses by the amount of work.
///
/// # Errors
/// If the plan is of another data set, a buffer has the wrong length, a shard changed on disk, or a thread cannot be
/// started.
pub fn fill(plan: &Plan, pack: &Pack, buffers: Buffers<'_>, threads: usize) -> Result<()> {
    // Plans are only made by a sampler of their pack, so with an equal fingerprint every index is valid.
    if *plan.fingerprint != *pack.fingerprint() {
        let (plan, pack) = (plan.fingerprint.to_string(), pack.fingerprint().to_owned());
        return Err(Error::ForeignPlan { plan, pack });
    }
    let batch = plan.image.len();
    let image_bytes = plan.crop_size * plan.crop_size * 3;
    let tokenizer = buffers.tokenizer;
    let caption_bytes = plan.captions_per_image * tokenizer.length();
    let parts = [
        ("image buffer", buffers.images, image_bytes),
        ("mismatched image buffer", buffers.mismatched_images, image_bytes),
        ("caption buffer", buffers.captions, caption_bytes),
        ("mismatched caption buffer", buffers.mismatched_captions, caption_bytes),
    ];
    let used = parts.each_ref().map(|(_, buffer, _)| buffer.is_some());
    let mut total = 0;
    for (name, buffer, row) in &parts {
        if let Some(buffer) = buffer {
            Error::check_length(name, batch * row, buffer.len())?;
            total += buffer.len();
        }
    }
    pack.check_unchanged()?;
    let threads = threads::choose(threads, total, batch);
    let rows = batch.div_ceil(threads).max(1);
    let mut shares: Vec<Vec<Task<'_>>> = (0..threads).map(|_| Vec::new()).collect();
    for (part, (_, buffer, row)) in parts.into_iter().enumerate() {
        let Some(buffer) = buffer else { continue };
        for (share, out) in buffer.chunks_mut(rows * row).enumerate() {
            let rows = share * rows..(share * rows + out.len() / row);
            let mismatched = part % 2 == 1;
            shares[share].push(match part {
                0 | 1 => Task::Images { rows, mismatched, out },
                _ => Task::Captions { rows, mismatched, out },
            });
        }
    }
    threads::run(shares, |share| share.into_iter().try_for_each(|task| execute(task, plan, pack, tokenizer)))?;
    let rows =
        |indices: &[i64], used: bool| indices.iter().filter(move |_| used).map(|&row| place(row)).collect::<Vec<_>>();
    let images = [rows(&plan.image, used[0]), rows(&plan.mismatched_image, used[1])];
    let captions = [rows(&plan.caption, used[2]), rows(&plan.mismatched_caption, used[3])];
    pack.check_read(images.into_iter().flatten(), captions.into_iter().flatten())
}

fn execute(task: Task<'_>, plan: &Plan, pack: &Pack, tokenizer: Tokenizer) -> Result<()> {
    match task {
        Task::Images { rows, mismatched, out } => {
            let (images, crops, flips) = if mismatched {
                (&plan.mismatched_image, &plan.mismatched_crop, &plan.mismatched_flip)
            } else {
                (&plan.image, &plan.crop, &plan.flip)
            };
            let crop = plan.crop_size;
            for (row, target) in rows.zip(out.chunks_exact_mut(crop * crop * 3)) {
                let corner = (place(crops[2 * row]), place(crops[2 * row + 1]));
                let source = pack.image(place(images[row]))?;
                crop_and_flip(&source, pack.image_size(), corner, flips[row] != 0, crop, target);
            }
        }
        Task::Captions { rows, mismatched, out } => {
            let captions = if mismatched { &plan.mismatched_caption } else { &plan.caption };
            let captions = &captions[rows.start * plan.captions_per_image..];
            for (&caption, target) in captions.iter().zip(out.chunks_exact_mut(tokenizer.length())) {
                tokenizer.encode(&pack.caption(place(caption))?, target)?;
            }
        }
    }
    Ok(())
}

fn place(index: impl TryInto<usize>) -> usize {
    index.try_into().ok().expect("a plan's indices are not negative")
}
#[cfg(test)]
mod tests;
