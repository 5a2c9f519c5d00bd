//! The batch plan: which images, captions, crops and weights a step uses.
//!
//! A plan is a pure function of (data set, arguments, step). Every row draws from its own counter, keyed by its place
//! in the *global* batch, so the number of processes changes only who holds which row. What the program of Reed et al.
//! does and is kept: a class uniformly, then an image in it; a mismatched partner of another class, always; captions
//! drawn with replacement; crops and flips independent of each other.
//!
//! A data set without classes is grouped by captions instead: images with the same set of captions are one group, and
//! a mismatched partner comes from another group.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::pack::Pack;
use crate::rng::{Draws, Purpose};

/// The largest global batch and the most captions an image that a plan may ask for.
const LARGEST_BATCH: usize = 1 << 24;

/// Which images are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Images of split 0.
    Train,
    /// Images of split 1.
    Test,
    /// All images.
    All,
}

impl Split {
    /// Reads `train`, `test` or `all`.
    ///
    /// # Errors
    /// For any other word.
    pub fn parse(word: &str) -> Result<Self> {
        match word {
            "train" => Ok(Self::Train),
            "test" => Ok(Self::Test),
            "all" => Ok(Self::All),
            _ => Err(Error::argument("split", "\"train\", \"test\" or \"all\"", &format!("{word:?}"))),
        }
    }

    const fn holds(self, split: u8) -> bool {
        match self {
            Self::Train => split == 0,
            Self::Test => split == 1,
            Self::All => true,
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Train => "train split",
            Self::Test => "test split",
            Self::All => "data set",
        }
    }
}

/// How the weight b of `b * text1 + (1 - b) * text2` is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interpolation {
    /// Always this one; the paper has 0.5.
    Fixed(f32),
    /// U(0, 1).
    Uniform,
    /// U(-0.5, 1.5): the midpoint and a step of U(-1, 1) times the difference, the released program's second kind.
    Extrapolate,
}

impl Interpolation {
    /// Reads `fixed` (with its weight), `uniform` or `extrapolate`.
    ///
    /// # Errors
    /// For any other word, or a weight that is not finite.
    pub fn parse(word: &str, weight: f32) -> Result<Self> {
        match word {
            "fixed" if weight.is_finite() => Ok(Self::Fixed(weight)),
            "fixed" => Err(Error::argument("interpolation_weight", "a finite number", &weight)),
            "uniform" => Ok(Self::Uniform),
            "extrapolate" => Ok(Self::Extrapolate),
            _ => {
                Err(Error::argument("interpolation", "\"fixed\", \"uniform\" or \"extrapolate\"", &format!("{word:?}")))
            }
        }
    }
}

/// The arguments of a sampler.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rows of the global batch.
    pub batch: usize,
    /// Seed of every draw.
    pub seed: u64,
    /// Images to draw from.
    pub split: Split,
    /// Edge of the crop.
    pub crop: usize,
    /// The smallest crop offset; the released program has 1. Offset 0 is the only one when the crop is the image.
    pub crop_low: usize,
    /// Whether half of the images are mirrored.
    pub flip: bool,
    /// Captions drawn for each image, with replacement.
    pub captions_per_image: usize,
    /// Classes uniform (an image of a small class is drawn more often) or images uniform.
    pub class_uniform: bool,
    /// Whether a batch has at most one image of each class.
    pub distinct_classes: bool,
    /// Interpolation weights.
    pub interpolation: Interpolation,
    /// Which of `world` processes this is.
    pub rank: usize,
    /// Number of processes; it divides the batch.
    pub world: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch: 64,
            seed: 0,
            split: Split::Train,
            crop: 64,
            crop_low: 0,
            flip: true,
            captions_per_image: 1,
            class_uniform: true,
            distinct_classes: false,
            interpolation: Interpolation::Fixed(0.5),
            rank: 0,
            world: 1,
        }
    }
}

/// One step's rows of one process. B = batch / world, K = captions an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The step.
    pub step: u64,
    /// Fingerprint of the data set that the indices belong to.
    pub fingerprint: Arc<str>,
    /// Edge of the crop.
    pub crop_size: usize,
    /// K.
    pub captions_per_image: usize,
    /// (B,) index of the matching image.
    pub image: Vec<i64>,
    /// (B,) index of an image of another class.
    pub mismatched_image: Vec<i64>,
    /// (B, K) global caption rows of the matching image.
    pub caption: Vec<i64>,
    /// (B, K) global caption rows of the mismatched image.
    pub mismatched_caption: Vec<i64>,
    /// (B, 2) y and x of the crop.
    pub crop: Vec<i32>,
    /// (B, 2) y and x of the mismatched image's crop.
    pub mismatched_crop: Vec<i32>,
    /// (B,) 1 to mirror.
    pub flip: Vec<u8>,
    /// (B,) 1 to mirror the mismatched image.
    pub mismatched_flip: Vec<u8>,
    /// (B / 2,) rows of the global batch: pair p of it, of which this process has those from rank * B / 2 on, is row p
    /// with row p + batch / 2. A partner may be another process's row.
    pub interpolation_partner: Vec<i64>,
    /// (B / 2,) weight of row p; its partner has 1 - weight.
    pub interpolation_weight: Vec<f32>,
}

/// The images of a split, ordered by group (class, or equal captions).
#[derive(Debug)]
struct Groups {
    images: Vec<usize>,
    /// Group g is `images[starts[g]..starts[g + 1]]`.
    starts: Vec<usize>,
    /// Group of each place in `images`.
    group: Vec<usize>,
}

impl Groups {
    fn new(members: Vec<Vec<usize>>) -> Self {
        let mut groups = Self { images: Vec::new(), starts: vec![0], group: Vec::new() };
        for (group, mut images) in members.into_iter().enumerate() {
            groups.group.resize(groups.group.len() + images.len(), group);
            groups.images.append(&mut images);
            groups.starts.push(groups.images.len());
        }
        groups
    }

    fn count(&self) -> usize {
        self.starts.len() - 1
    }

    fn size(&self, group: usize) -> usize {
        self.starts[group + 1] - self.starts[group]
    }

    fn draw(&self, group: usize, draws: &mut Draws) -> usize {
        self.images[self.starts[group] + draws.below(self.size(group))]
    }
}

/// Draws plans. Cheap to share: it holds the pack and the index of one split.
#[derive(Debug)]
pub struct Sampler {
    pack: Arc<Pack>,
    fingerprint: Arc<str>,
    options: Options,
    groups: Groups,
    /// Whether groups are drawn uniformly; without classes images are.
    group_uniform: bool,
}

impl Sampler {
    /// Checks the arguments and indexes the split.
    ///
    /// # Errors
    /// For an argument out of range, a split without an image, or one in which no image has a mismatch.
    pub fn new(pack: Arc<Pack>, options: Options) -> Result<Self> {
        check_options(&options, pack.image_size())?;
        let groups = group(&pack, options.split)?;
        let path = pack.path().display();
        if groups.images.is_empty() {
            return Err(Error::DataSet(format!("{path} has no image in its {}", options.split.describe())));
        }
        if groups.count() < 2 {
            let class = usize::try_from(pack.classes()[groups.images[0]]).ok();
            return Err(Error::DataSet(match class {
                Some(class) => {
                    let name = &pack.class_names()[class];
                    format!("mismatched pairs need at least two classes; {path} has one ({name})")
                }
                None => format!(
                    "mismatched pairs need at least two classes, or images with different captions; {path} has no \
                     classes and the same captions for every image"
                ),
            }));
        }
        if options.distinct_classes && options.batch > groups.count() {
            let expected = format!("at most {}, the number of classes, with distinct_classes", groups.count());
            return Err(Error::argument("batch", expected, &options.batch));
        }
        let group_uniform = options.class_uniform && !pack.class_names().is_empty();
        let fingerprint = Arc::from(pack.fingerprint());
        Ok(Self { pack, fingerprint, options, groups, group_uniform })
    }

    /// Number of images in the split.
    #[must_use]
    pub fn images(&self) -> usize {
        self.groups.images.len()
    }

    /// Number of classes in the split; without classes, of groups of images with equal captions.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.groups.count()
    }

    /// The arguments.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Draws one step.
    #[must_use]
    pub fn plan(&self, step: u64) -> Plan {
        let options = &self.options;
        let rows = options.batch / options.world;
        let captions = rows * options.captions_per_image;
        let mut plan = Plan {
            step,
            fingerprint: Arc::clone(&self.fingerprint),
            crop_size: options.crop,
            captions_per_image: options.captions_per_image,
            image: Vec::with_capacity(rows),
            mismatched_image: Vec::with_capacity(rows),
            caption: Vec::with_capacity(captions),
            mismatched_caption: Vec::with_capacity(captions),
            crop: Vec::with_capacity(2 * rows),
            mismatched_crop: Vec::with_capacity(2 * rows),
            flip: Vec::with_capacity(rows),
            mismatched_flip: Vec::with_capacity(rows),
            interpolation_partner: Vec::with_capacity(rows / 2),
            interpolation_weight: Vec::with_capacity(rows / 2),
        };
        let first = options.rank * rows;
        let distinct = options.distinct_classes.then(|| self.distinct_groups(step, first + rows));
        for row in 0..rows {
            let global = first + row;
            let stream = |purpose| Draws::new(options.seed, purpose, step, word(global));
            let (image, group) = match &distinct {
                Some(groups) => {
                    let group = groups[global];
                    (self.groups.draw(group, &mut stream(Purpose::Image)), group)
                }
                None => self.draw_image(&mut stream(Purpose::Image)),
            };
            let mismatched = self.draw_mismatch(group, &mut stream(Purpose::MismatchedImage));
            plan.image.push(long(image));
            plan.mismatched_image.push(long(mismatched));
            self.draw_captions(image, &mut stream(Purpose::Caption), &mut plan.caption);
            self.draw_captions(mismatched, &mut stream(Purpose::MismatchedCaption), &mut plan.mismatched_caption);
            plan.crop.extend(self.draw_crop(&mut stream(Purpose::Crop)));
            plan.mismatched_crop.extend(self.draw_crop(&mut stream(Purpose::MismatchedCrop)));
            plan.flip.push(u8::from(options.flip && stream(Purpose::Flip).coin()));
            plan.mismatched_flip.push(u8::from(options.flip && stream(Purpose::MismatchedFlip).coin()));
        }
        let pairs = rows / 2;
        for pair in options.rank * pairs..(options.rank + 1) * pairs {
            let unit = || Draws::new(options.seed, Purpose::Interpolation, step, word(pair)).unit();
            plan.interpolation_partner.push(long(pair + options.batch / 2));
            plan.interpolation_weight.push(match options.interpolation {
                Interpolation::Fixed(weight) => weight,
                Interpolation::Uniform => unit(),
                Interpolation::Extrapolate => 2.0 * unit() - 0.5,
            });
        }
        plan
    }

    /// The groups of the first `rows` global rows, without replacement: the beginning of a Fisher-Yates shuffle, so
    /// that every process finds the same groups for its rows.
    fn distinct_groups(&self, step: u64, rows: usize) -> Vec<usize> {
        let mut groups: Vec<usize> = (0..self.groups.count()).collect();
        for row in 0..rows {
            let mut draws = Draws::new(self.options.seed, Purpose::DistinctClasses, step, word(row));
            groups.swap(row, row + draws.below(self.groups.count() - row));
        }
        groups.truncate(rows);
        groups
    }

    /// An image and its group.
    fn draw_image(&self, draws: &mut Draws) -> (usize, usize) {
        if self.group_uniform {
            let group = draws.below(self.groups.count());
            return (self.groups.draw(group, draws), group);
        }
        let place = draws.below(self.groups.images.len());
        (self.groups.images[place], self.groups.group[place])
    }

    /// An image of any other group, drawn as [`Self::draw_image`] would if this group did not exist.
    fn draw_mismatch(&self, group: usize, draws: &mut Draws) -> usize {
        if self.group_uniform {
            let other = draws.below(self.groups.count() - 1);
            return self.groups.draw(other + usize::from(other >= group), draws);
        }
        let size = self.groups.size(group);
        let place = draws.below(self.groups.images.len() - size);
        let skip = if place >= self.groups.starts[group] { size } else { 0 };
        self.groups.images[place + skip]
    }

    fn draw_captions(&self, image: usize, draws: &mut Draws, out: &mut Vec<i64>) {
        let offsets = self.pack.caption_offsets();
        let count = usize::try_from(offsets[image + 1] - offsets[image]).expect("a pack's offsets rise");
        out.extend((0..self.options.captions_per_image).map(|_| offsets[image] + long(draws.below(count))));
    }

    fn draw_crop(&self, draws: &mut Draws) -> [i32; 2] {
        let highest = self.pack.image_size() - self.options.crop;
        if highest == 0 {
            return [0, 0];
        }
        let low = self.options.crop_low;
        let mut offset = || i32::try_from(low + draws.below(highest - low + 1)).expect("images are small");
        [offset(), offset()]
    }
}

fn word(row: usize) -> u32 {
    u32::try_from(row).expect("a batch has at most 2^24 rows")
}

fn long(index: usize) -> i64 {
    i64::try_from(index).expect("an index fits 63 bits")
}

fn check_options(options: &Options, image_size: usize) -> Result<()> {
    let Options { batch, crop, crop_low, captions_per_image, rank, world, .. } = *options;
    if !(1..=LARGEST_BATCH).contains(&batch) {
        return Err(Error::argument("batch", format!("from 1 to {LARGEST_BATCH}"), &batch));
    }
    if !(1..=LARGEST_BATCH).contains(&captions_per_image) {
        return Err(Error::argument("captions_per_image", format!("from 1 to {LARGEST_BATCH}"), &captions_per_image));
    }
    if !(1..=image_size).contains(&crop) {
        return Err(Error::argument("crop", format!("from 1 to the image size of {image_size}"), &crop));
    }
    if crop < image_size && crop_low > image_size - crop {
        let expected = format!("from 0 to {}, the image size less the crop", image_size - crop);
        return Err(Error::argument("crop_low", expected, &crop_low));
    }
    if world == 0 || batch % world != 0 {
        return Err(Error::argument("world", format!("a divisor of the batch of {batch}"), &world));
    }
    if rank >= world {
        return Err(Error::argument("rank", format!("from 0 to {}, as world is {world}", world - 1), &rank));
    }
    Ok(())
}

/// The split's images by class, or by equal captions if there are no classes. Groups are in order of class, or of
/// first appearance, so that nothing depends on a hash map's order.
fn group(pack: &Pack, split: Split) -> Result<Groups> {
    let images = (0..pack.images()).filter(|&image| split.holds(pack.splits()[image]));
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); pack.class_names().len()];
    let mut seen = HashMap::new();
    for image in images {
        let group = match usize::try_from(pack.classes()[image]) {
            Ok(class) => class,
            Err(_) => *seen.entry(caption_set(pack, image)?).or_insert_with(|| {
                members.push(Vec::new());
                members.len() - 1
            }),
        };
        members[group].push(image);
    }
    members.retain(|images| !images.is_empty());
    Ok(Groups::new(members))
}

/// A digest of an image's set of captions: order and repetition do not matter.
fn caption_set(pack: &Pack, image: usize) -> Result<[u8; 32]> {
    let row = |at: usize| usize::try_from(pack.caption_offsets()[at]).expect("a pack's offsets rise");
    let mut captions = (row(image)..row(image + 1)).map(|row| pack.caption(row)).collect::<Result<Vec<_>>>()?;
    captions.sort_unstable();
    captions.dedup();
    // Captions all have one length, so joining them is unambiguous.
    Ok(captions.into_iter().fold(Sha256::new(), Digest::chain_update).finalize().into())
}

#[cfg(test)]
#[allow(
    clippy::cast_precision_loss,
    clippy::float_cmp,
    clippy::needless_for_each,
    clippy::type_complexity,
    reason = "small numbers and tables"
)]
mod tests {
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
                let captions: Vec<String> =
                    (0..=image % 3).map(|caption| format!("{class} {image} {caption}")).collect();
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
        let plan = sampler(&pack, Options { batch: 6, captions_per_image: 4, world: 2, rank: 1, ..Options::default() })
            .plan(3);
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
                        captions
                            .iter()
                            .for_each(|caption| counts[usize::try_from(caption - own.start).unwrap()] += 1.0);
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
        for (interpolation, low, high) in [(Interpolation::Uniform, 0.0, 1.0), (Interpolation::Extrapolate, -0.5, 1.5)]
        {
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
            let items: Vec<Item> = (0..30).map(|image| Item::new(image % 12, 0, &["a", "b"])).collect();
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
}
