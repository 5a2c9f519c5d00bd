use super::*;
use crate::fixture::{self, Item, pixel};
use crate::sampler::{Options, Sampler};
use crate::tokenizer::CAPTION_LENGTH;
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
    let mut out = Batch { mismatched_images: images.clone(), mismatched_captions: captions.clone(), images, captions };
    let buffers = Buffers {
        images: Some(&mut out.images),
        mismatched_images: Some(&mut out.mismatched_images),
        captions: Some(&mut out.captions),
        mismatched_captions: Some(&mut out.mismatched_captions),
        tokenizer: Tokenizer::Alphabet,
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
            let mut ids = vec![0; rows.len() * CAPTION_LENGTH];
            for (&row, out) in rows.iter().zip(ids.chunks_exact_mut(CAPTION_LENGTH)) {
                crate::tokenizer::encode(&pack.caption(place(row)).unwrap(), out).unwrap();
            }
            ids
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
    let buffers = Buffers { images: Some(&mut images), mismatched_captions: Some(&mut captions), ..Buffers::default() };
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

#[test]
fn captions_are_encoded_by_the_tokenizer_of_the_buffers() {
    let (_folder, pack) = pack();
    let plan = plan(&pack, 8, 5, 1);
    let mut ids = vec![255; 8 * 2 * 12];
    let tokenizer = Tokenizer::Bytes(12);
    fill(&plan, &pack, Buffers { captions: Some(&mut ids), tokenizer, ..Buffers::default() }, 2).unwrap();
    for (&row, ids) in plan.caption.iter().zip(ids.chunks(12)) {
        let text: Vec<u8> = ids.iter().take_while(|&&id| id > 0).map(|id| id - 1).collect();
        assert_eq!(text, pack.caption(place(row)).unwrap().as_bytes());
    }
    let buffers = Buffers { captions: Some(&mut ids), ..Buffers::default() };
    assert!(fill(&plan, &pack, buffers, 2).unwrap_err().to_string().contains("3216 elements, got 192"));
}
