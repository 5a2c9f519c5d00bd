//! Counter-based draws: each is a pure function of (seed, purpose, step, row, draw).
//!
//! There is no state to hand from one draw to the next, so neither order nor thread count can change a result and a
//! run resumes from its step number alone. The generator is Philox4x32-10 (Salmon et al., *Parallel random numbers: as
//! easy as 1, 2, 3*, SC 2011): the key is the 64-bit seed, the counter is (step: 64 bits, row: 32 bits, purpose: 8
//! bits, block: 24 bits). The purpose is part of the counter and not of the key so that no two seeds can share a
//! stream.

/// What a draw is for; each purpose has its own stream, so adding a draw to one leaves the others as they were.
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
            // A row never comes near 2^24 blocks: the most it draws is one per caption.
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

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.bits() >> 63 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32_10(counter, key), expected, "counter {counter:x?}");
        }
    }

    #[test]
    fn draws_read_the_blocks_of_their_counter_in_order() {
        // Seed 2 + 3 * 2^32, step 5 + 7 * 2^32, row 11, purpose 3 (captions).
        let mut draws = Draws::new(2 | 3 << 32, Purpose::Caption, 5 | 7 << 32, 11);
        for block in 0..3 {
            let words = philox4x32_10([5, 7, 11, 3 << 24 | block], [2, 3]);
            assert_eq!(draws.bits(), u64::from(words[0]) | u64::from(words[1]) << 32);
            assert_eq!(draws.bits(), u64::from(words[2]) | u64::from(words[3]) << 32);
        }
    }

    #[test]
    fn every_part_of_the_key_changes_the_stream() {
        let first = |seed, purpose, step, row| Draws::new(seed, purpose, step, row).bits();
        let base = first(0, Purpose::Image, 0, 0);
        assert_ne!(base, first(1, Purpose::Image, 0, 0));
        assert_ne!(base, first(1 << 32, Purpose::Image, 0, 0));
        assert_ne!(base, first(0, Purpose::Flip, 0, 0));
        assert_ne!(base, first(0, Purpose::Image, 1, 0));
        assert_ne!(base, first(0, Purpose::Image, 1 << 32, 0));
        assert_ne!(base, first(0, Purpose::Image, 0, 1));
        assert_eq!(base, first(0, Purpose::Image, 0, 0));
    }

    #[test]
    fn below_is_uniform_by_chi_square() {
        // 12 degrees of freedom: 32.91 is the 99.9% point. 13 does not divide 2^64.
        let mut counts = [0_u32; 13];
        for row in 0..130_000 {
            counts[Draws::new(9, Purpose::Image, 0, row).below(13)] += 1;
        }
        let chi: f64 = counts.iter().map(|&count| (f64::from(count) - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 32.91, "chi-square {chi}, counts {counts:?}");
    }

    #[test]
    fn below_one_is_always_zero_and_huge_bounds_are_respected() {
        let mut draws = Draws::new(0, Purpose::Image, 0, 0);
        for _ in 0..100 {
            assert_eq!(draws.below(1), 0);
            // Just over half of 2^64, where nearly every second draw is rejected.
            assert!(draws.below((1 << 63) + 1) <= 1 << 63);
        }
    }

    #[test]
    fn unit_stays_in_its_half_open_interval_and_has_mean_one_half() {
        let values: Vec<f32> = (0..50_000).map(|row| Draws::new(3, Purpose::Interpolation, 1, row).unit()).collect();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / 50_000.0;
        // Standard deviation of the mean: 0.2887 / sqrt(50000) = 0.0013.
        assert!((mean - 0.5).abs() < 0.0052, "mean {mean}");
    }
}
