//! Captions that several images have: a mismatched pair must not be a matching one in disguise.
//!
//! Two images of different classes may both be called "a red flower"; the pair of one with the other's caption is then no
//! mismatch. Captions are compared as text, without regard to case and white space.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use super::groups::Groups;
use crate::error::Result;
use crate::pack::Pack;

/// Marks a caption that no other image of the split has.
const UNSHARED: u32 = u32::MAX;

/// Hashes the text of every caption (M,). Only equality of hashes is used, never their order.
pub(super) fn hash_captions(pack: &Pack) -> Result<Vec<u64>> {
    let mut hashes = Vec::with_capacity(pack.captions());
    pack.for_each_caption(|_, text| hashes.push(hash(text)))?;
    Ok(hashes)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for word in text.split_whitespace() {
        word.chars().flat_map(char::to_lowercase).for_each(|letter| hasher.write_u32(letter.into()));
        hasher.write_u32(u32::from(' '));
    }
    hasher.finish()
}

/// The captions that several images of a split have.
#[derive(Debug)]
pub(super) struct SharedCaptions {
    /// (M,) number of the text of each caption, or [`UNSHARED`]; empty if no caption is shared.
    texts: Vec<u32>,
    /// Text t is a caption of the images at `places[starts[t]..starts[t + 1]]` of the groups, in rising order.
    starts: Vec<usize>,
    places: Vec<usize>,
}

impl SharedCaptions {
    /// Finds the captions that several images in `groups` have.
    pub(super) fn new(pack: &Pack, groups: &Groups, hashes: &[u64]) -> Self {
        let mut pairs: Vec<(u64, usize)> = Vec::new();
        for (place, &image) in groups.images.iter().enumerate() {
            pairs.extend(pack.caption_rows(image).map(|row| (hashes[row], place)));
        }
        pairs.sort_unstable();
        pairs.dedup();
        let mut shared = Self { texts: Vec::new(), starts: vec![0], places: Vec::new() };
        let mut numbers = HashMap::new();
        for same in pairs.chunk_by(|left, right| left.0 == right.0).filter(|same| same.len() > 1) {
            let number = u32::try_from(numbers.len()).expect("fewer shared captions than 2^32");
            numbers.insert(same[0].0, number);
            shared.places.extend(same.iter().map(|pair| pair.1));
            shared.starts.push(shared.places.len());
        }
        if !numbers.is_empty() {
            shared.texts = hashes.iter().map(|hash| numbers.get(hash).copied().unwrap_or(UNSHARED)).collect();
        }
        shared
    }

    /// The texts of an image's captions; none if no caption of the split is shared.
    fn of(&self, pack: &Pack, image: usize) -> &[u32] {
        if self.texts.is_empty() { &[] } else { &self.texts[pack.caption_rows(image)] }
    }

    /// The text of a caption, if other images have it too.
    fn text(&self, row: usize) -> Option<u32> {
        self.texts.get(row).copied().filter(|&text| text != UNSHARED)
    }

    /// Whether an image has a caption that others have too.
    pub(super) fn touches(&self, pack: &Pack, image: usize) -> bool {
        self.of(pack, image).iter().any(|&text| text != UNSHARED)
    }

    /// Whether a caption is also one of `image`.
    pub(super) fn describes(&self, pack: &Pack, row: usize, image: usize) -> bool {
        self.text(row).is_some_and(|text| self.of(pack, image).contains(&text))
    }

    /// Whether every caption of `other` is also one of `image`.
    pub(super) fn covers(&self, pack: &Pack, image: usize, other: usize) -> bool {
        pack.caption_rows(other).all(|row| self.describes(pack, row, image))
    }

    /// Whether every image outside a group has this caption too, so that it has no mismatched image.
    pub(super) fn is_everywhere(&self, row: usize, groups: &Groups, group: usize) -> bool {
        let Some(text) = self.text(row) else { return false };
        let text = text as usize;
        let places = &self.places[self.starts[text]..self.starts[text + 1]];
        let before = |start: usize| places.partition_point(|&place| place < start);
        let inside = before(groups.starts[group + 1]) - before(groups.starts[group]);
        places.len() - inside == groups.images.len() - groups.size(group)
    }

    /// The number of captions of the split without a mismatched image, and of all its captions.
    pub(super) fn count_everywhere(&self, pack: &Pack, groups: &Groups) -> (usize, usize) {
        let rows = groups.images.iter().zip(&groups.group);
        let rows = rows.flat_map(|(&image, &group)| pack.caption_rows(image).map(move |row| (row, group)));
        rows.fold((0, 0), |(without, all), (row, group)| {
            (without + usize::from(self.is_everywhere(row, groups, group)), all + 1)
        })
    }
}
