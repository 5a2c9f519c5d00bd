//! The images of a split by group: by class, or by equal captions where there are no classes.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::Split;
use crate::pack::Pack;
use crate::rng::Draws;

/// The images of a split, ordered by group (class, or equal captions).
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) images: Vec<usize>,
    /// Group g is `images[starts[g]..starts[g + 1]]`.
    pub(super) starts: Vec<usize>,
    /// Group of each place in `images`.
    pub(super) group: Vec<usize>,
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

    pub(super) fn count(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn size(&self, group: usize) -> usize {
        self.starts[group + 1] - self.starts[group]
    }

    pub(super) fn draw(&self, group: usize, draws: &mut Draws) -> usize {
        self.images[self.starts[group] + draws.below(self.size(group))]
    }
}

/// The split's images by class, or by equal captions if there are no classes. Groups are in order of class, or of
/// first appearance, so that nothing depends on a hash map's order.
pub(super) fn group(pack: &Pack, split: Split, hashes: &[u64]) -> Groups {
    let images = (0..pack.images()).filter(|&image| split.holds(pack.splits()[image]));
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); pack.class_names().len()];
    let mut seen = HashMap::new();
    for image in images {
        let group = match usize::try_from(pack.classes()[image]) {
            Ok(class) => class,
            Err(_) => *seen.entry(caption_set(pack, image, hashes)).or_insert_with(|| {
                members.push(Vec::new());
                members.len() - 1
            }),
        };
        members[group].push(image);
    }
    members.retain(|images| !images.is_empty());
    Groups::new(members)
}

/// A digest of an image's set of captions: order and repetition do not matter.
fn caption_set(pack: &Pack, image: usize, hashes: &[u64]) -> [u8; 32] {
    let mut texts = hashes[pack.caption_rows(image)].to_vec();
    texts.sort_unstable();
    texts.dedup();
    texts.into_iter().fold(Sha256::new(), |digest, text| digest.chain_update(text.to_le_bytes())).finalize().into()
}
