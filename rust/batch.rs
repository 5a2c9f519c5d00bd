//! A plan executed: pixels and captions gathered from the pack into the caller's buffers.

use std::panic::resume_unwind;

use crate::error::{Error, Result};
use crate::image::crop_and_flip;
use crate::pack::Pack;
use crate::sampler::Plan;
use crate::tokenizer::CAPTION_LENGTH;

/// Bytes that are worth a thread: below this, starting one costs more than it copies.
const BYTES_PER_THREAD: usize = 512 << 10;

/// Where the parts of a batch go; absent ones are skipped.
#[derive(Debug, Default)]
pub struct Buffers<'a> {
    /// (B, crop, crop, 3) matching images.
    pub images: Option<&'a mut [u8]>,
    /// (B, crop, crop, 3) mismatched images.
    pub mismatched_images: Option<&'a mut [u8]>,
    /// (B, K, 201) captions of the matching images.
    pub captions: Option<&'a mut [u8]>,
    /// (B, K, 201) captions of the mismatched images.
    pub mismatched_captions: Option<&'a mut [u8]>,
}

/// What one thread does: some rows of one buffer.
enum Task<'a> {
    Images { rows: std::ops::Range<usize>, mismatched: bool, out: &'a mut [u8] },
    Captions { rows: std::ops::Range<usize>, mismatched: bool, out: &'a mut [u8] },
}

/// Executes a plan. The bytes are the same for any number of threads; 0 chooses one by the amount of work.
///
/// # Errors
/// If the plan is of another data set, a buffer has the wrong length, a shard changed on disk, or a thread cannot be
/// started.
pub fn fill(plan: &Plan, pack: &Pack, buffers: Buffers<'_>, threads: usize) -> Result<()> {
    // A plan can only be made by a sampler of its pack, so a fitting fingerprint makes every index of it valid.
    if *plan.fingerprint != *pack.fingerprint() {
        let (plan, pack) = (plan.fingerprint.to_string(), pack.fingerprint().to_owned());
        return Err(Error::ForeignPlan { plan, pack });
    }
    let batch = plan.image.len();
    let image_bytes = plan.crop_size * plan.crop_size * 3;
    let caption_bytes = plan.captions_per_image * CAPTION_LENGTH;
    let parts = [
        ("image buffer", buffers.images, image_bytes),
        ("mismatched image buffer", buffers.mismatched_images, image_bytes),
        ("caption buffer", buffers.captions, caption_bytes),
        ("mismatched caption buffer", buffers.mismatched_captions, caption_bytes),
    ];
    let mut total = 0;
    for (name, buffer, row) in &parts {
        if let Some(buffer) = buffer {
            Error::check_length(name, batch * row, buffer.len())?;
            total += buffer.len();
        }
    }
    pack.check_unchanged()?;
    let threads = match threads {
        0 => {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            cores.min(total.div_ceil(BYTES_PER_THREAD))
        }
        threads => threads,
    };
    let threads = threads.clamp(1, batch.max(1));
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
    let run = |share: Vec<Task<'_>>| share.into_iter().try_for_each(|task| execute(task, plan, pack));
    let mut shares = shares.into_iter();
    let own = shares.next();
    // Threads of this call only: those of a lasting pool would be missing in a forked child.
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for share in shares {
            running.push(std::thread::Builder::new().spawn_scoped(scope, move || run(share)).map_err(Error::Thread)?);
        }
        let own = own.map_or(Ok(()), run);
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).and(own)
    })
}

fn execute(task: Task<'_>, plan: &Plan, pack: &Pack) -> Result<()> {
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
            for (&caption, target) in captions.iter().zip(out.chunks_exact_mut(CAPTION_LENGTH)) {
                target.copy_from_slice(&pack.caption(place(caption))?);
            }
        }
    }
    Ok(())
}

fn place(index: impl TryInto<usize>) -> usize {
    index.try_into().ok().expect("a plan's indices are not negative")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, Item, pixel};
    use crate::sampler::{Options, Sampler};
    use proptest::prelude::*;
    use std::sync::Arc;

    const SIZE: usize = 9;

    struct Batch {
        images: Vec<u8>,
        mismatched_images: Vec<u8>,
        captions: Vec<u8>,
        mismatched_captions: Vec<u8>,
    }

    fn pack() -> (tempfile::TempDir, Arc<Pack>) {
        let folder = tempfile::tempdir().unwrap();
        let item = |image: i32| Item::new(image % 3, 0, &["a red flower", &format!("flower {image}")]);
        let shards = [(0..4).map(item).collect(), (4..11).map(item).collect::<Vec<_>>()];
        fixture::write(folder.path(), &shards, &["a", "b", "c"], SIZE);
        let pack = Arc::new(Pack::open(folder.path(), false).unwrap());
        (folder, pack)
    }

    fn plan(pack: &Arc<Pack>, batch: usize, crop: usize, step: u64) -> Plan {
        let options = Options { batch, crop, captions_per_image: 2, seed: 5, ..Options::default() };
        Sampler::new(Arc::clone(pack), options).unwrap().plan(step)
    }

    fn filled(plan: &Plan, pack: &Pack, threads: usize) -> Batch {
        let batch = plan.image.len();
        let images = vec![255; batch * plan.crop_size * plan.crop_size * 3];
        let captions = vec![255; batch * plan.captions_per_image * CAPTION_LENGTH];
        let mut out =
            Batch { mismatched_images: images.clone(), mismatched_captions: captions.clone(), images, captions };
        let buffers = Buffers {
            images: Some(&mut out.images),
            mismatched_images: Some(&mut out.mismatched_images),
            captions: Some(&mut out.captions),
            mismatched_captions: Some(&mut out.mismatched_captions),
        };
        fill(plan, pack, buffers, threads).unwrap();
        out
    }

    /// Images by the definition: pixel by pixel from the fixture's formula.
    fn expected_images(crop: usize, images: &[i64], corners: &[i32], flips: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for (row, &image) in images.iter().enumerate() {
            for y in 0..crop {
                for x in 0..crop {
                    let column = if flips[row] == 1 { crop - 1 - x } else { x };
                    let (top, left) = (place(corners[2 * row]), place(corners[2 * row + 1]));
                    out.extend((0..3).map(|channel| pixel(place(image), top + y, left + column, channel)));
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_filled_batch_equals_the_definition_for_any_number_of_threads(
            batch in 1_usize..20, crop in 1_usize..=SIZE, step: u64, threads in 0_usize..30
        ) {
            let (_folder, pack) = pack();
            let plan = plan(&pack, batch, crop, step);
            let found = filled(&plan, &pack, threads);
            prop_assert_eq!(found.images, expected_images(crop, &plan.image, &plan.crop, &plan.flip));
            prop_assert_eq!(
                found.mismatched_images,
                expected_images(crop, &plan.mismatched_image, &plan.mismatched_crop, &plan.mismatched_flip)
            );
            let captions = |rows: &[i64]| -> Vec<u8> {
                rows.iter().flat_map(|&row| pack.caption(place(row)).unwrap().to_vec()).collect()
            };
            prop_assert_eq!(found.captions, captions(&plan.caption));
            prop_assert_eq!(found.mismatched_captions, captions(&plan.mismatched_caption));
        }
    }

    #[test]
    fn absent_buffers_are_skipped() {
        let (_folder, pack) = pack();
        let plan = plan(&pack, 8, 5, 1);
        fill(&plan, &pack, Buffers::default(), 3).unwrap();
        let mut captions = vec![255; 8 * 2 * CAPTION_LENGTH];
        fill(&plan, &pack, Buffers { captions: Some(&mut captions), ..Buffers::default() }, 3).unwrap();
        assert_eq!(captions, filled(&plan, &pack, 1).captions);
    }

    #[test]
    fn a_buffer_of_the_wrong_length_is_named_and_nothing_is_written() {
        let (_folder, pack) = pack();
        let plan = plan(&pack, 8, 5, 1);
        let mut images = vec![7; 8 * 75];
        let mut captions = vec![7; 3];
        let buffers =
            Buffers { images: Some(&mut images), mismatched_captions: Some(&mut captions), ..Buffers::default() };
        let message = fill(&plan, &pack, buffers, 1).unwrap_err().to_string();
        assert_eq!(message, "mismatched caption buffer must be 3216 elements, got 3");
        assert!(images.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn a_plan_of_another_data_set_is_refused() {
        let (_folder, pack) = pack();
        let mut plan = plan(&pack, 8, 5, 1);
        plan.fingerprint = Arc::from("0");
        let message = fill(&plan, &pack, Buffers::default(), 1).unwrap_err().to_string();
        assert!(message.starts_with("plan was drawn for another data set: fingerprint 0"), "{message}");
    }

    #[test]
    fn a_shard_cut_between_plan_and_fill_is_an_error_and_no_crash() {
        let (folder, pack) = pack();
        let plan = plan(&pack, 8, 5, 1);
        let shard = std::fs::File::options().write(true).open(folder.path().join("shard-00001.safetensors")).unwrap();
        shard.set_len(10).unwrap();
        let mut captions = vec![0; 8 * 2 * CAPTION_LENGTH];
        let buffers = Buffers { captions: Some(&mut captions), ..Buffers::default() };
        let message = fill(&plan, &pack, buffers, 0).unwrap_err().to_string();
        assert!(message.contains("shard-00001.safetensors: changed while in use"), "{message}");
    }
}
