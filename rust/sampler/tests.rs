#![allow(
    clippy::cast_precision_loss,
    clippy::float_cmp,
    clippy::needless_for_each,
    clippy::type_complexity,
    reason = "small numbers and tables"
)]

use super::*;
use crate::fixture::{self, Item};
use crate::rng::philox4x32_10;
use proptest::prelude::*;

fn open(shards: &[Vec<Item>], classes: &[&str], size: usize) -> Arc<Pack> {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), shards, classes, size);
    // The shards are in memory when the folder goes.
    Arc::new(Pack::open(folder.path(), false).unwrap())
}

/// Classes of 1, 2, 4 and 8 training images with 1 to 3 captions, and a test split of classes 0 and 4.
fn uneven() -> Arc<Pack> {
    let mut items = Vec::new();
    for (class, count) in [(0, 1), (1, 2), (2, 4), (3, 8)] {
        for image in 0..count {
            let captions: Vec<String> = (0..=image % 3).map(|caption| format!("{class} {image} {caption}")).collect();
            items.push(Item { class, split: 0, captions });
        }
    }
    items.extend([Item::new(0, 1, &["x"]), Item::new(4, 1, &["y"])]);
    let second = items.split_off(6);
    open(&[items, second], &["a", "b", "c", "d", "e"], 8)
}

fn small(options: Options) -> Options {
    Options { crop: 6, ..options }
}

fn sampler(pack: &Arc<Pack>, options: Options) -> Sampler {
    Sampler::new(Arc::clone(pack), small(options)).unwrap()
}

fn class(pack: &Pack, image: i64) -> i32 {
    pack.classes()[usize::try_from(image).unwrap()]
}

/// Sum of (found - expected)^2 / expected.
fn chi_square(counts: &[f64], expected: &[f64]) -> f64 {
    counts.iter().zip(expected).map(|(count, expected)| (count - expected).powi(2) / expected).sum()
}

/// Draws of each image over many steps.
fn count(pack: &Pack, sampler: &Sampler, steps: u64, get: impl Fn(&Plan) -> Vec<i64>) -> Vec<f64> {
    let mut counts = vec![0.0; pack.images()];
    for step in 0..steps {
        get(&sampler.plan(step)).iter().for_each(|&image| counts[usize::try_from(image).unwrap()] += 1.0);
    }
    counts
}

#[test]
fn the_first_row_follows_the_documented_draws() {
    // A slow reading of the contract: key = seed, counter = (step, row, purpose and block), Lemire's product.
    let pack = uneven();
    let plan = sampler(&pack, Options { batch: 4, seed: 0x0123_4567_89AB_CDEF, ..Options::default() }).plan(7);
    let words = |purpose: u32, row| philox4x32_10([7, 0, row, purpose << 24], [0x89AB_CDEF, 0x0123_4567]);
    let pick = |low: u32, high: u32, bound: u128| {
        usize::try_from(((u128::from(high) << 32 | u128::from(low)) * bound) >> 64).unwrap()
    };
    let classes: [&[i64]; 4] = [&[0], &[1, 2], &[3, 4, 5, 6], &[7, 8, 9, 10, 11, 12, 13, 14]];
    for row in 0..4 {
        let [a, b, c, d] = words(1, row);
        let class = pick(a, b, 4);
        let place = row as usize;
        assert_eq!(plan.image[place], classes[class][pick(c, d, classes[class].len() as u128)]);
        let [a, b, c, d] = words(2, row);
        let others: Vec<&[i64]> = (0..4).filter(|&other| other != class).map(|other| classes[other]).collect();
        let other = others[pick(a, b, 3)];
        assert_eq!(plan.mismatched_image[place], other[pick(c, d, other.len() as u128)]);
        let [a, b, c, d] = words(5, row);
        assert_eq!(
            plan.crop[2 * place..2 * place + 2],
            [pick(a, b, 3), pick(c, d, 3)].map(|at| i32::try_from(at).unwrap())
        );
        let [_, b, ..] = words(7, row);
        assert_eq!(plan.flip[place], u8::from(b >= 1 << 31));
    }
}

#[test]
fn a_plan_has_the_shapes_it_promises() {
    let pack = uneven();
    let plan =
        sampler(&pack, Options { batch: 6, captions_per_image: 4, world: 2, rank: 1, ..Options::default() }).plan(3);
    assert_eq!((plan.step, plan.crop_size, plan.captions_per_image), (3, 6, 4));
    assert_eq!((plan.image.len(), plan.mismatched_image.len(), plan.flip.len()), (3, 3, 3));
    assert_eq!((plan.caption.len(), plan.mismatched_caption.len()), (12, 12));
    assert_eq!((plan.crop.len(), plan.mismatched_crop.len(), plan.mismatched_flip.len()), (6, 6, 3));
    // Three rows a process have one pair: here the second of the batch, rows 1 and 4.
    assert_eq!((plan.interpolation_partner, plan.interpolation_weight), (vec![4], vec![0.5]));
}

#[test]
fn classes_are_uniform_whatever_their_size() {
    let pack = uneven();
    let counts = count(&pack, &sampler(&pack, Options::default()), 1000, |plan| plan.image.clone());
    let expected: Vec<f64> =
        [1, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8].iter().map(|size| 16_000.0 / f64::from(*size)).collect();
    // 14 degrees of freedom: 36.12 is the 99.9% point.
    assert!(chi_square(&counts[..15], &expected) < 36.12, "{counts:?}");
    assert_eq!(counts[15..], [0.0, 0.0], "no image of the test split");
}

#[test]
fn images_are_uniform_when_classes_need_not_be() {
    let pack = uneven();
    let sampler = sampler(&pack, Options { class_uniform: false, ..Options::default() });
    let counts = count(&pack, &sampler, 1000, |plan| plan.image.clone());
    assert!(chi_square(&counts[..15], &[64_000.0 / 15.0; 15]) < 36.12, "{counts:?}");
}

#[test]
fn the_mismatched_image_is_uniform_over_the_other_classes() {
    let pack = uneven();
    for (class_uniform, expected) in [
        // Given class 3: the others a third each, then their images.
        (true, [1.0 / 3.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 12.0, 1.0 / 12.0, 1.0 / 12.0, 1.0 / 12.0]),
        (false, [1.0 / 7.0; 7]),
    ] {
        let sampler = sampler(&pack, Options { class_uniform, ..Options::default() });
        let counts = count(&pack, &sampler, 1000, |plan| {
            let rows = plan.image.iter().zip(&plan.mismatched_image);
            rows.filter(|(image, _)| class(&pack, **image) == 3).map(|(_, mismatched)| *mismatched).collect()
        });
        assert_eq!(counts[7..].iter().sum::<f64>(), 0.0, "never class 3 itself");
        let total: f64 = counts.iter().sum();
        // 6 degrees of freedom: 22.46 is the 99.9% point.
        assert!(chi_square(&counts[..7], &expected.map(|share| share * total)) < 22.46, "{counts:?}");
    }
}

#[test]
fn captions_belong_to_their_image_and_are_uniform_with_replacement() {
    let pack = uneven();
    let sampler = sampler(&pack, Options { captions_per_image: 3, ..Options::default() });
    let (mut counts, mut repeated) = ([0.0; 3], false);
    for step in 0..500 {
        let plan = sampler.plan(step);
        let both = [(&plan.image, &plan.caption), (&plan.mismatched_image, &plan.mismatched_caption)];
        for (images, captions) in both {
            for (&image, captions) in images.iter().zip(captions.chunks(3)) {
                let image = usize::try_from(image).unwrap();
                let own = pack.caption_offsets()[image]..pack.caption_offsets()[image + 1];
                assert!(captions.iter().all(|caption| own.contains(caption)));
                if own.end - own.start == 3 {
                    captions.iter().for_each(|caption| counts[usize::try_from(caption - own.start).unwrap()] += 1.0);
                    repeated |= captions[0] == captions[1];
                }
            }
        }
    }
    let third = counts.iter().sum::<f64>() / 3.0;
    // 2 degrees of freedom: 13.82 is the 99.9% point.
    assert!(chi_square(&counts, &[third; 3]) < 13.82, "{counts:?}");
    assert!(repeated, "drawn with replacement");
}

#[test]
fn crops_and_flips_are_uniform_and_respect_their_bounds() {
    let pack = uneven();
    for (crop, crop_low, offsets) in [(6, 0, 0..=2), (6, 1, 1..=2), (8, 0, 0..=0), (8, 1, 0..=0), (1, 0, 0..=7)] {
        let options = Options { crop, crop_low, ..Options::default() };
        let sampler = Sampler::new(Arc::clone(&pack), options).unwrap();
        let mut counts = [0.0; 8];
        let mut flips = 0.0;
        for step in 0..200 {
            let plan = sampler.plan(step);
            for &offset in plan.crop.iter().chain(&plan.mismatched_crop) {
                counts[usize::try_from(offset).unwrap()] += 1.0;
            }
            flips += plan.flip.iter().chain(&plan.mismatched_flip).map(|&flip| f64::from(flip)).sum::<f64>();
        }
        let choices = offsets.clone().count();
        let expected = 200.0 * 64.0 * 4.0 / choices as f64;
        for (offset, &count) in counts.iter().enumerate() {
            let wanted = if offsets.contains(&offset) { expected } else { 0.0 };
            // Five standard deviations.
            assert!((count - wanted).abs() <= 5.0 * wanted.sqrt(), "crop {crop}, offset {offset}: {count}");
        }
        assert!((flips - 12_800.0).abs() < 400.0, "five standard deviations of 25600 coins: {flips}");
    }
    let plan = sampler(&pack, Options { flip: false, ..Options::default() }).plan(0);
    assert!(plan.flip.iter().chain(&plan.mismatched_flip).all(|&flip| flip == 0));
}

#[test]
fn interpolation_weights_are_what_their_name_says() {
    let pack = uneven();
    let weights = |interpolation| {
        let sampler = sampler(&pack, Options { interpolation, ..Options::default() });
        (0..200).flat_map(|step| sampler.plan(step).interpolation_weight).map(f64::from).collect::<Vec<_>>()
    };
    assert!(weights(Interpolation::Fixed(0.25)).iter().all(|&weight| weight == 0.25));
    for (interpolation, low, high) in [(Interpolation::Uniform, 0.0, 1.0), (Interpolation::Extrapolate, -0.5, 1.5)] {
        let weights = weights(interpolation);
        assert!(weights.iter().all(|weight| (low..high).contains(weight)));
        let mean = weights.iter().sum::<f64>() / 6400.0;
        let variance = weights.iter().map(|weight| (weight - 0.5).powi(2)).sum::<f64>() / 6400.0;
        let width: f64 = high - low;
        assert!((mean - 0.5).abs() < 0.02 * width, "mean {mean}");
        assert!((variance / (width * width / 12.0) - 1.0).abs() < 0.06, "variance {variance}");
    }
    let plan = sampler(&pack, Options { batch: 6, ..Options::default() }).plan(0);
    assert_eq!(plan.interpolation_partner, [3, 4, 5]);
}

#[test]
fn distinct_classes_are_a_uniform_draw_without_replacement() {
    let pack = uneven();
    let sampler = sampler(&pack, Options { batch: 2, distinct_classes: true, ..Options::default() });
    let mut pairs = [[0.0; 4]; 4];
    for step in 0..6000 {
        let plan = sampler.plan(step);
        let [first, second] = [0, 1].map(|row| usize::try_from(class(&pack, plan.image[row])).unwrap());
        pairs[first][second] += 1.0;
    }
    let drawn: Vec<f64> = pairs.concat().into_iter().filter(|&count| count > 0.0).collect();
    assert_eq!(drawn.len(), 12, "every ordered pair but equal ones: {pairs:?}");
    // 11 degrees of freedom: 31.26 is the 99.9% point.
    assert!(chi_square(&drawn, &[500.0; 12]) < 31.26, "{pairs:?}");
}

#[test]
fn without_classes_a_mismatch_has_another_set_of_captions() {
    let items = [
        Item::new(-1, 0, &["a", "b"]),
        Item::new(-1, 0, &["b", "a", "a"]), // the same set as the first
        Item::new(-1, 0, &["a"]),
        Item::new(-1, 0, &["c"]),
    ];
    let pack = open(&[items.to_vec()], &[], 8);
    let sampler = sampler(&pack, Options::default());
    assert_eq!((sampler.images(), sampler.classes()), (4, 3));
    let counts = count(&pack, &sampler, 500, |plan| plan.image.clone());
    // Images are uniform, not groups. 3 degrees of freedom: 16.27 is the 99.9% point.
    assert!(chi_square(&counts, &[8000.0; 4]) < 16.27, "{counts:?}");
    for step in 0..500 {
        let plan = sampler.plan(step);
        for (&image, &mismatched) in plan.image.iter().zip(&plan.mismatched_image) {
            assert!(image != mismatched && (image > 1 || mismatched > 1), "{image} with {mismatched}");
        }
    }
}

/// Whether an image has this caption, by the texts themselves.
fn has(pack: &Pack, image: i64, caption: i64) -> bool {
    let text = |row: usize| pack.caption(row).unwrap().to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let caption = text(usize::try_from(caption).unwrap());
    pack.caption_rows(usize::try_from(image).unwrap()).any(|row| text(row) == caption)
}

#[test]
fn a_mismatched_pair_never_matches_where_captions_are_shared() {
    // Three colours over four classes, so that a third of the images of another class have the drawn caption too; with
    // differences of case and white space, which are none; and one image whose captions are all those of the others.
    let colours = ["red", "blue", "white"];
    let mut items = Vec::new();
    for image in 0..24 {
        let colour = colours[image % 3];
        let captions =
            [format!("a {colour} flower"), format!("A  {colour} Flower "), format!("{colour} number {image}")];
        items.push(Item { class: i32::try_from(image % 4).unwrap(), split: 0, captions: captions.to_vec() });
    }
    items.push(Item::new(0, 0, &["a red flower", "a blue flower"]));
    items.push(Item::new(1, 0, &["a red flower"]));
    for classes in [&["a", "b", "c", "d"][..], &[]] {
        let mut items = items.clone();
        if classes.is_empty() {
            items.iter_mut().for_each(|item| item.class = -1);
        }
        let pack = open(&[items], classes, 8);
        for class_uniform in [true, false] {
            let options = Options { class_uniform, captions_per_image: 2, ..Options::default() };
            let sampler = sampler(&pack, options);
            assert_eq!(sampler.ambiguous_captions(), 0.0);
            for step in 0..100 {
                let plan = sampler.plan(step);
                for row in 0..64 {
                    let (image, other) = (plan.image[row], plan.mismatched_image[row]);
                    for place in [2 * row, 2 * row + 1] {
                        assert!(!has(&pack, other, plan.caption[place]), "step {step}, row {row}");
                        assert!(!has(&pack, image, plan.mismatched_caption[place]), "step {step}, row {row}");
                    }
                    assert!(classes.is_empty() || class(&pack, image) != class(&pack, other));
                }
            }
        }
    }
}

#[test]
fn the_mismatched_image_is_uniform_over_the_images_without_the_caption() {
    // Image 0 and 1 to 39 of another class share a caption; only the last five have not got it.
    let mut items = vec![Item::new(0, 0, &["same"])];
    items.extend((1..40).map(|_| Item::new(1, 0, &["same"])));
    items.extend((40..45).map(|image| Item::new(1, 0, &[&format!("other {image}")])));
    let pack = open(&[items], &["a", "b"], 8);
    let sampler = sampler(&pack, Options::default());
    let counts = count(&pack, &sampler, 400, |plan| {
        let rows = plan.image.iter().zip(&plan.mismatched_image);
        rows.filter(|(image, _)| **image == 0).map(|(_, mismatched)| *mismatched).collect()
    });
    let total: f64 = counts.iter().sum();
    assert_eq!(counts[..40].iter().sum::<f64>(), 0.0);
    // 4 degrees of freedom: 18.47 is the 99.9% point.
    assert!(chi_square(&counts[40..], &[total / 5.0; 5]) < 18.47, "{counts:?}");
}

#[test]
fn one_image_without_the_caption_among_many_is_found() {
    let mut items: Vec<Item> = (0..2000).map(|image| Item::new(image % 2, 0, &["same"])).collect();
    items.push(Item::new(1, 0, &["another"]));
    let pack = open(&[items], &["a", "b"], 1);
    let options = Options { crop: 1, class_uniform: false, ..Options::default() };
    let sampler = Sampler::new(Arc::clone(&pack), options).unwrap();
    let plan = sampler.plan(0);
    for (&image, &mismatched) in plan.image.iter().zip(&plan.mismatched_image) {
        assert_eq!(mismatched == 2000, class(&pack, image) == 0, "{image} with {mismatched}");
    }
    // "same" in class 1 is everywhere in class 0, which has nothing else.
    assert_eq!(sampler.ambiguous_captions(), 1000.0 / 2001.0);
}

#[test]
fn an_image_with_a_caption_of_its_own_is_preferred_over_many_whose_captions_all_fit() {
    // Of image 0, "b" is a caption too: as a mismatched text it would match. Only the last image has another.
    let mut items = vec![Item::new(0, 0, &["a", "b"])];
    items.extend((0..2000).map(|_| Item::new(1, 0, &["b"])));
    items.push(Item::new(1, 0, &["c"]));
    let pack = open(&[items], &["x", "y"], 1);
    let sampler = Sampler::new(Arc::clone(&pack), Options { crop: 1, ..Options::default() }).unwrap();
    let plan = sampler.plan(0);
    let rows: Vec<usize> = (0..64).filter(|&row| plan.image[row] == 0).collect();
    assert!(rows.iter().any(|&row| plan.caption[row] == 0) && rows.iter().any(|&row| plan.caption[row] == 1));
    assert!(rows.iter().all(|&row| plan.mismatched_image[row] == 2001));
}

#[test]
fn data_sets_in_which_every_caption_is_everywhere_are_refused() {
    let pack = open(&[vec![Item::new(0, 0, &["a photo"]), Item::new(1, 0, &["A photo", "a  photo"])]], &["x", "y"], 8);
    let message = Sampler::new(Arc::clone(&pack), small(Options::default())).unwrap_err().to_string();
    assert!(message.starts_with("mismatched pairs need captions that differ between classes; in the train split of"));
}

#[test]
fn splits_hold_their_own_images() {
    let pack = uneven();
    for (split, images, classes) in [(Split::Train, 15, 4), (Split::Test, 2, 2), (Split::All, 17, 5)] {
        let sampler = sampler(&pack, Options { split, ..Options::default() });
        assert_eq!((sampler.images(), sampler.classes()), (images, classes));
    }
}

#[test]
fn data_sets_without_a_mismatch_are_refused() {
    let refusal = |items: &[Item], classes: &[&str], split| {
        let options = small(Options { split, ..Options::default() });
        let pack = open(&[items.to_vec()], classes, 8);
        let path = pack.path().display().to_string();
        Sampler::new(pack, options).unwrap_err().to_string().replace(&path, "PATH")
    };
    let rose = Item::new(0, 0, &["a"]);
    assert_eq!(
        refusal(&[rose.clone(), rose.clone()], &["rose"], Split::Train),
        "mismatched pairs need at least two classes; PATH has one (rose)"
    );
    assert_eq!(
        refusal(&[rose.clone(), Item::new(1, 1, &["b"])], &["rose", "bluebell"], Split::Train),
        "mismatched pairs need at least two classes; PATH has one (rose)"
    );
    assert_eq!(refusal(&[rose], &["rose"], Split::Test), "PATH has no image in its test split");
    let plain = Item::new(-1, 0, &["a"]);
    assert!(refusal(&[plain.clone(), plain], &[], Split::Train).contains("the same captions for every image"));
}

#[test]
fn without_need_of_a_mismatch_one_class_or_one_caption_is_enough() {
    let sets = [
        (vec![Item::new(0, 0, &["a"]), Item::new(0, 0, &["b"])], vec!["rose"]),
        (vec![Item::new(-1, 0, &["a"]), Item::new(-1, 0, &["a"])], vec![]),
        (vec![Item::new(0, 0, &["a"]), Item::new(1, 0, &["a"])], vec!["rose", "bluebell"]),
    ];
    for (items, classes) in sets {
        let sampler =
            sampler(&open(&[items], &classes, 8), Options { batch: 4, mismatched: false, ..Options::default() });
        let plan = sampler.plan(0);
        assert_eq!((plan.image.len(), plan.mismatched_caption.len()), (4, 4));
        assert_eq!(sampler.classes() == 1, plan.image == plan.mismatched_image, "{classes:?}");
        assert_eq!(sampler.ambiguous_captions(), 0.0);
    }
    let pack = uneven();
    let plans = [true, false].map(|mismatched| sampler(&pack, Options { mismatched, ..Options::default() }).plan(7));
    assert_eq!(plans[0].mismatched_image, plans[1].mismatched_image); // where there are pairs, nothing changes
}

#[test]
fn arguments_out_of_range_are_refused_by_name() {
    let pack = uneven();
    let base = || small(Options::default());
    let cases = [
        (Options { batch: 0, ..base() }, "batch must be from 1 to 16777216, got 0"),
        (Options { batch: 5, distinct_classes: true, ..base() }, "batch must be at most 4, the number of classes"),
        (Options { captions_per_image: 0, ..base() }, "captions_per_image must be from 1"),
        (Options { crop: 0, ..base() }, "crop must be from 1 to the image size of 8, got 0"),
        (Options { crop: 9, ..base() }, "crop must be from 1 to the image size of 8, got 9"),
        (Options { crop_low: 3, ..base() }, "crop_low must be from 0 to 2, the image size less the crop, got 3"),
        (Options { world: 0, ..base() }, "world must be a divisor of the batch of 64, got 0"),
        (Options { world: 5, ..base() }, "world must be a divisor of the batch of 64, got 5"),
        (Options { world: 2, rank: 2, ..base() }, "rank must be from 0 to 1, as world is 2, got 2"),
    ];
    for (options, expected) in cases {
        let error = Sampler::new(Arc::clone(&pack), options).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }));
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(Split::parse("valid").is_err());
    assert!(Interpolation::parse("linear", 0.5).is_err());
    assert!(Interpolation::parse("fixed", f32::NAN).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_plan_is_valid_and_a_pure_function_of_its_arguments(
        seed: u64, step: u64, class_uniform: bool, distinct: bool, split in 0_usize..3
    ) {
        let pack = uneven();
        let split = [Split::Train, Split::Test, Split::All][split];
        let batch = if distinct { 2 } else { 16 };
        let options =
            Options { batch, seed, class_uniform, distinct_classes: distinct, split, ..Options::default() };
        let plan = sampler(&pack, options).plan(step);
        prop_assert_eq!(&plan, &sampler(&pack, options).plan(step));
        for (&image, &mismatched) in plan.image.iter().zip(&plan.mismatched_image) {
            prop_assert_ne!(class(&pack, image), class(&pack, mismatched));
            for image in [image, mismatched] {
                prop_assert!(split.holds(pack.splits()[usize::try_from(image).unwrap()]));
            }
        }
    }

    #[test]
    fn the_global_sequence_is_the_same_for_any_number_of_processes(
        seed: u64, step in 0_u64..1000, world in prop::sample::select(vec![1_usize, 2, 3, 4, 6, 12]), distinct: bool
    ) {
        let items: Vec<Item> = (0..30).map(|image| Item::new(image % 12, 0, &["a", &format!("b {image}")])).collect();
        let pack = open(&[items], &["c"; 12], 8);
        let interpolation = Interpolation::Uniform;
        let base = Options { batch: 12, captions_per_image: 2, interpolation, ..Options::default() };
        let options = Options { seed, distinct_classes: distinct, ..base };
        let whole = sampler(&pack, options).plan(step);
        let parts: Vec<Plan> =
            (0..world).map(|rank| sampler(&pack, Options { rank, world, ..options }).plan(step)).collect();
        macro_rules! same {
            ($($field:ident),*) => {$(
                let joined: Vec<_> = parts.iter().flat_map(|part| part.$field.clone()).collect();
                prop_assert_eq!(&joined, &whole.$field);
            )*};
        }
        same!(image, mismatched_image, caption, mismatched_caption, crop, mismatched_crop, flip, mismatched_flip);
        if 12 / world % 2 == 0 {
            same!(interpolation_partner, interpolation_weight);
        }
    }
}
