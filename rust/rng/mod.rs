//! Counter-based draws: each is a pure function of (seed, purpose, step, row, draw).
//!
//! There is no state between draws, so neither order nor thread count changes a result, and a run resumes from its step
//! number alone. The generator is Philox4x32-10 (Salmon et al., *Parallel random numbers: as
//! easy as 1, 2, 3*, SC 2011): the key is the 64-bit seed, the counter is (step: 64 bits, row: 32 bits, purpose: 8
//! bits, block: 24 bits). The purpose is part of the counter, not of the key, so that no two seeds share a stream.

/// What a random number is used for; each purpose has its own stream, so adding a draw to one does not change the
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The matching image: its class and its place in the class.
    Image = 1,
    /// The mismatched image.
    MismatchedImage = 2,
    /// The matching image's captions.
    Caption = 3,
    /// The mismatched image's captions.
    MismatchedCaption = 4,
    /// Crop offset of the matching image.
    Crop = 5,
    /// Crop offset of the mismatched image.
    MismatchedCrop = 6,
    /// Flip of the matching image.
    Flip = 7,
    /// Flip of the mismatched image.
    MismatchedFlip = 8,
    /// Interpolation weight.
    Interpolation = 9,
    /// The shuffle that gives a batch its distinct classes.
    DistinctClasses = 10,
}

/// Philox4x32 with ten rounds: one counter and one key give four random words.
#[must_use]
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9E37_79B9); // the golden ratio
            key[1] = key[1].wrapping_add(0xBB67_AE85); // sqrt(3) - 1
        }
        let (low0, high0) = 0xD251_1F53_u32.widening(counter[0]);
        let (low1, high1) = 0xCD9E_8D57_u32.widening(counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
    }
    counter
}

/// Full product of two words (the standard library's own is not stable yet).
trait Widening {
    fn widening(self, other: Self) -> (Self, Self)
    where
        Self: Sized;
}

impl Widening for u32 {
    fn widening(self, other: Self) -> (Self, Self) {
        split(u64::from(self) * u64::from(other))
    }
}

/// Low and high word.
#[expect(clippy::cast_possible_truncation, reason = "the two halves are what is asked for")]
const fn split(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

/// The draws of one (seed, purpose, step, row), in order.
#[derive(Clone, Debug)]
pub struct Draws {
    key: [u32; 2],
    counter: [u32; 4],
    words: [u32; 4],
    used: usize,
}

impl Draws {
    /// Starts at the first draw. Rows are positions in the global batch.
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose, step: u64, row: u32) -> Self {
        let (key0, key1) = split(seed);
        let (step0, step1) = split(step);
        Self { key: [key0, key1], counter: [step0, step1, row, (purpose as u32) << 24], words: [0; 4], used: 4 }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        if self.used == 4 {
            self.words = philox4x32_10(self.counter, self.key);
            // A row uses far fewer than 2^24 blocks: at most one per caption.
            self.counter[3] += 1;
            self.used = 0;
        }
        let value = u64::from(self.words[self.used]) | u64::from(self.words[self.used + 1]) << 32;
        self.used += 2;
        value
    }

    /// A uniform integer in `0..bound`, without modulo bias (Lemire, *Fast random integer generation in an interval*,
    /// 2019).
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "a draw needs at least one choice");
        let bound = bound as u64;
        let (mut low, mut high) = self.product(bound);
        if low < bound {
            let threshold = bound.wrapping_neg() % bound;
            while low < threshold {
                (low, high) = self.product(bound);
            }
        }
        usize::try_from(high).expect("less than a usize")
    }

    #[expect(clippy::cast_possible_truncation, reason = "the two halves are what is asked for")]
    fn product(&mut self, bound: u64) -> (u64, u64) {
        let product = u128::from(self.bits()) * u128::from(bound);
        (product as u64, (product >> 64) as u64)
    }

    /// A uniform number in `[0, 1)`, a multiple of 2^-24 and so exact in float32.
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit a float32 exactly")]
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 16_777_216.0
    }

    /// A fair coin.
    pub fn coin(&mut self) -> bool {
        self.bits() >> 63 == 1
    }
}
#[cfg(test)]
mod tests;
