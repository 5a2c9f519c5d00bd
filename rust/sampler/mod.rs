//! The batch plan: which images, captions, crops and weights a step uses.
//!
//! A plan is a pure function of (data set, arguments, step). Every row draws from its own counter, keyed by its place
//! in the *global* batch, so the number of processes only changes which process holds a row. As in the code released by
//! Reed et al.: a class uniformly, then an image of it; a mismatched image always from another class; captions drawn
//! with replacement; crops and flips independent of each other.
//!
//! A mismatched pair must not match by chance: the mismatched image has none of the drawn captions among its own, and its
//! drawn captions are none of the image's, wherever the data set allows it.
//!
//! A data set without classes is grouped by captions instead: images with the same set of captions are one group, and
//! the mismatched image comes from another group.

mod groups;
mod options;
mod plan;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::groups::{Groups, group};
pub use self::options::{Interpolation, Options, Split};
pub use self::plan::Plan;
use self::shared::{SharedCaptions, hash_captions};
use crate::error::{Error, Result};
use crate::pack::Pack;
use crate::rng::{Draws, Purpose};

/// Draws of a mismatched image before every image is looked at.
const MAX_REDRAWS: usize = 32;

/// Draws plans from one split of a pack.
#[derive(Debug)]
pub struct Sampler {
    pack: Arc<Pack>,
    fingerprint: Arc<str>,
    options: Options,
    groups: Groups,
    shared: SharedCaptions,
    /// Captions of the split that every image of the other groups has too, and all captions of the split.
    ambiguous: (usize, usize),
    /// Whether groups are drawn uniformly; otherwise images are, as always without classes.
    group_uniform: bool,
}

impl Sampler {
    /// Checks the arguments and indexes the split.
    ///
    /// # Errors
    /// For an argument out of range, a split without an image, or one without mismatched pairs where these are needed.
    pub fn new(pack: Arc<Pack>, options: Options) -> Result<Self> {
        options::check(&options, pack.image_size())?;
        let hashes = hash_captions(&pack)?;
        let groups = group(&pack, options.split, &hashes);
        let path = pack.path().display();
        if groups.images.is_empty() {
            return Err(Error::DataSet(format!("{path} has no image in its {}", options.split.describe())));
        }
        if options.mismatched && groups.count() < 2 {
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
        let shared = SharedCaptions::new(&pack, &groups, &hashes);
        let ambiguous = if options.mismatched { shared.count_everywhere(&pack, &groups) } else { (0, 1) };
        if ambiguous.0 == ambiguous.1 {
            return Err(Error::DataSet(format!(
                "mismatched pairs need captions that differ between classes; in the {} of {path} every caption is one of \
                 every image of the other classes",
                options.split.describe()
            )));
        }
        let group_uniform = options.class_uniform && !pack.class_names().is_empty();
        let fingerprint = Arc::from(pack.fingerprint());
        Ok(Self { pack, fingerprint, options, groups, shared, ambiguous, group_uniform })
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

    /// Share of the split's captions that every image of the other classes has too: no mismatched image exists for them,
    /// and pairs that are called mismatched do match. 0 where mismatched pairs are not needed.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of captions, far below 2^52")]
    pub fn ambiguous_captions(&self) -> f64 {
        self.ambiguous.0 as f64 / self.ambiguous.1 as f64
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
            self.draw_captions(image, None, &mut stream(Purpose::Caption), &mut plan.caption);
            let captions = &plan.caption[row * options.captions_per_image..];
            let mismatched = self.draw_mismatch(image, group, captions, &mut stream(Purpose::MismatchedImage));
            let mut draws = stream(Purpose::MismatchedCaption);
            self.draw_captions(mismatched, Some(image), &mut draws, &mut plan.mismatched_caption);
            plan.image.push(long(image));
            plan.mismatched_image.push(long(mismatched));
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

    /// The groups of the first `rows` global rows, without replacement: the first steps of a Fisher-Yates shuffle, the
    /// same in every process.
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
    fn draw_other(&self, group: usize, draws: &mut Draws) -> usize {
        if self.group_uniform {
            let other = draws.below(self.groups.count() - 1);
            return self.groups.draw(other + usize::from(other >= group), draws);
        }
        let size = self.groups.size(group);
        let place = draws.below(self.groups.images.len() - size);
        let skip = if place >= self.groups.starts[group] { size } else { 0 };
        self.groups.images[place + skip]
    }

    /// A mismatched image for `image` with the drawn captions: of another group, without any of these captions, and with
    /// one that `image` has not. If there is none, without these captions; if there is none either, of another group. The
    /// image itself where there is no other group.
    fn draw_mismatch(&self, image: usize, group: usize, captions: &[i64], draws: &mut Draws) -> usize {
        let (pack, shared) = (&*self.pack, &self.shared);
        if self.groups.count() < 2 {
            return image;
        }
        let first = self.draw_other(group, draws);
        let rows = || captions.iter().map(|&row| usize::try_from(row).expect("a row of the pack"));
        if !shared.touches(pack, image) || rows().any(|row| shared.is_everywhere(row, &self.groups, group)) {
            return first;
        }
        let apart = |other: usize| !rows().any(|row| shared.describes(pack, row, other));
        let suits = |other: usize| apart(other) && !shared.covers(pack, image, other);
        let mut other = first;
        for _ in 0..MAX_REDRAWS {
            if suits(other) {
                return other;
            }
            other = self.draw_other(group, draws);
        }
        // Few images suit, or none: look at all of them.
        let own = self.groups.starts[group]..self.groups.starts[group + 1];
        let places = || (0..self.groups.images.len()).filter(|place| !own.contains(place));
        let others = || places().map(|place| self.groups.images[place]);
        let mut left: Vec<usize> = others().filter(|&other| suits(other)).collect();
        if left.is_empty() {
            left = others().filter(|&other| apart(other)).collect();
        }
        if left.is_empty() { first } else { left[draws.below(left.len())] }
    }

    /// Adds caption rows of an image, with replacement; if possible none that is also a caption of `unlike`.
    fn draw_captions(&self, image: usize, unlike: Option<usize>, draws: &mut Draws, out: &mut Vec<i64>) {
        let rows = self.pack.caption_rows(image);
        let differs = |row: &usize| !unlike.is_some_and(|other| self.shared.describes(&self.pack, *row, other));
        let mut draw = || {
            let first = rows.start + draws.below(rows.len());
            if differs(&first) {
                return first;
            }
            let left: Vec<usize> = rows.clone().filter(differs).collect();
            if left.is_empty() { first } else { left[draws.below(left.len())] }
        };
        out.extend((0..self.options.captions_per_image).map(|_| long(draw())));
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
