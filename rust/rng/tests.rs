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
