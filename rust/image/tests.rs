#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::type_complexity,
    reason = "small numbers and tables"
)]

use super::exif::orient;
use super::png::WORKSPACE;
use super::*;
use proptest::prelude::*;

const ANY_SIZE: u64 = 1 << 30;
const BASELINE: &[u8] = include_bytes!("../testdata/baseline.jpg");
const PROGRESSIVE: &[u8] = include_bytes!("../testdata/progressive.jpg");
const SUBSAMPLED: &[u8] = include_bytes!("../testdata/subsampled.jpg");
const GRAY: &[u8] = include_bytes!("../testdata/gray.jpg");
const CMYK: &[u8] = include_bytes!("../testdata/cmyk.jpg");
const THUMBNAIL: &[u8] = include_bytes!("../testdata/thumbnail.jpg");
const LOSSY: &[u8] = include_bytes!("../testdata/lossy.webp");

/// The image that every file of testdata was made from: 24 wide, 16 high.
fn original() -> Rgb {
    let mut pixels = Vec::new();
    for y in 0..16_u8 {
        for x in 0..24_u8 {
            pixels.extend([x * 10, y * 15, (x + y) * 6]);
        }
    }
    Rgb { width: 24, height: 16, pixels }
}

fn worst(left: &[u8], right: &[u8]) -> u8 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| left.abs_diff(*right)).max().unwrap_or(0)
}

fn fault(result: Result<Rgb>) -> ImageFault {
    match result {
        Err(Error::Image { fault, .. }) => fault,
        other => panic!("expected an image error, got {other:?}"),
    }
}

fn png_file(color: ::png::ColorType, depth: ::png::BitDepth, size: (u32, u32), data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut file, size.0, size.1);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ::png::ColorType::Indexed {
        encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
        encoder.set_trns(vec![255, 0]);
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    file
}

fn webp_file(color: image_webp::ColorType, size: (u32, u32), data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    image_webp::WebPEncoder::new(&mut file).encode(data, size.0, size.1, color).unwrap();
    file
}

fn every_kind_of_file() -> Vec<(&'static str, Vec<u8>)> {
    let rgb = original().pixels;
    vec![
        ("baseline jpeg", BASELINE.to_vec()),
        ("progressive jpeg", PROGRESSIVE.to_vec()),
        ("subsampled jpeg with restarts", SUBSAMPLED.to_vec()),
        ("gray jpeg", GRAY.to_vec()),
        ("jpeg with a thumbnail", THUMBNAIL.to_vec()),
        ("png", png_file(::png::ColorType::Rgb, ::png::BitDepth::Eight, (24, 16), &rgb)),
        ("lossy webp", LOSSY.to_vec()),
        ("lossless webp", webp_file(image_webp::ColorType::Rgb8, (24, 16), &rgb)),
    ]
}

#[test]
fn formats_are_told_by_their_first_bytes() {
    let cases: [(&[u8], Option<Format>); 7] = [
        (BASELINE, Some(Format::Jpeg)),
        (LOSSY, Some(Format::WebP)),
        (b"\x89PNG\r\n\x1a\n", Some(Format::Png)),
        (b"", None),
        (b"GIF89a", None),
        (b"RIFF\0\0\0\0WAVE", None), // another file of the same container
        (b"\xff\xd8", None),         // a start-of-image marker and nothing
    ];
    for (data, expected) in cases {
        assert_eq!(format(data), expected, "{:?}", &data[..data.len().min(12)]);
    }
}

#[test]
fn jpegs_decode_to_their_original_within_the_loss_of_the_format() {
    // The gray file holds the red channel. Colours at half resolution lose more at the borders.
    let red: Vec<u8> = original().pixels.chunks_exact(3).flat_map(|pixel| [pixel[0]; 3]).collect();
    let colours = original().pixels;
    for (data, expected, tolerance) in
        [(BASELINE, &colours, 4), (PROGRESSIVE, &colours, 4), (SUBSAMPLED, &colours, 16), (GRAY, &red, 3)]
    {
        let image = decode(data, ANY_SIZE).unwrap();
        assert_eq!((image.width, image.height), (24, 16));
        assert!(worst(&image.pixels, expected) <= tolerance, "worst {}", worst(&image.pixels, expected));
    }
}

#[test]
fn lossless_images_survive_a_round_trip_exactly() {
    let Rgb { pixels, .. } = original();
    let png = png_file(::png::ColorType::Rgb, ::png::BitDepth::Eight, (24, 16), &pixels);
    let webp = webp_file(image_webp::ColorType::Rgb8, (24, 16), &pixels);
    assert_eq!(decode(&png, ANY_SIZE).unwrap(), original());
    assert_eq!(decode(&webp, ANY_SIZE).unwrap(), original());
}

#[test]
fn pngs_of_every_kind_become_rgb_on_white() {
    use ::png::{BitDepth, ColorType};
    let cases: [(&str, ColorType, BitDepth, &[u8], [[u8; 3]; 2]); 8] = [
        ("rgb", ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]),
        ("16 bits keep the high byte", ColorType::Grayscale, BitDepth::Sixteen, &[7, 9, 8, 1], [[7; 3], [8; 3]]),
        ("one bit is black or white", ColorType::Grayscale, BitDepth::One, &[0b0100_0000], [[0; 3], [255; 3]]),
        ("four bits fill the range", ColorType::Grayscale, BitDepth::Four, &[0xF1], [[255; 3], [17; 3]]),
        ("transparent is white", ColorType::Rgba, BitDepth::Eight, &[9, 9, 9, 0, 9, 8, 7, 255], [[255; 3], [9, 8, 7]]),
        // 100 * 51/255 + 255 * 204/255 = 224; 0 + 255 * 128/255 = 128
        (
            "partly transparent",
            ColorType::Rgba,
            BitDepth::Eight,
            &[100, 0, 255, 51, 0, 0, 0, 127],
            [[224, 204, 255], [128; 3]],
        ),
        ("gray with alpha", ColorType::GrayscaleAlpha, BitDepth::Eight, &[100, 51, 3, 255], [[224; 3], [3; 3]]),
        // the fixture's second palette entry is transparent
        ("palette", ColorType::Indexed, BitDepth::Eight, &[0, 1], [[10, 20, 30], [255; 3]]),
    ];
    for (name, color, depth, data, expected) in cases {
        let image = decode(&png_file(color, depth, (2, 1), data), ANY_SIZE).unwrap();
        assert_eq!(image.pixels, expected.concat(), "{name}");
    }
}

#[test]
fn webp_with_alpha_is_laid_on_white() {
    let file = webp_file(image_webp::ColorType::Rgba8, (2, 1), &[100, 0, 255, 51, 9, 8, 7, 255]);
    assert_eq!(decode(&file, ANY_SIZE).unwrap().pixels, [224, 204, 255, 9, 8, 7]);
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    for (name, data) in every_kind_of_file() {
        assert!(decode(&data, ANY_SIZE).is_ok(), "{name}");
        for end in 0..data.len() {
            let kind = fault(decode(&data[..end], ANY_SIZE));
            assert!(matches!(kind, ImageFault::Broken | ImageFault::Unsupported), "{name} cut at {end}: {kind:?}");
            // With its first bytes there is no doubt about the format, and so no reason to try Pillow.
            assert!(end < 12 || kind == ImageFault::Broken, "{name} cut at {end}");
        }
    }
}

#[test]
fn bytes_after_the_end_are_allowed() {
    for (name, mut data) in every_kind_of_file() {
        let expected = decode(&data, ANY_SIZE).unwrap();
        data.extend_from_slice(b"\0\0trailing");
        assert_eq!(decode(&data, ANY_SIZE).unwrap(), expected, "{name}");
    }
}

#[test]
fn sizes_are_refused_by_the_header_before_pixels_are_allocated() {
    for (name, data) in every_kind_of_file() {
        assert!(decode(&data, 24 * 16).is_ok(), "{name}");
        assert_eq!(fault(decode(&data, 24 * 16 - 1)), ImageFault::TooLarge, "{name}");
    }
    // Headers that claim 60000 x 60000 (10.8 GB): patched into a PNG, with its checksum, and into a JPEG.
    let mut png = png_file(::png::ColorType::Rgb, ::png::BitDepth::Eight, (1, 1), &[0; 3]);
    png[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    let checksum = crc(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&checksum);
    assert_eq!(fault(decode(&png, 1 << 28)), ImageFault::TooLarge);
    let mut jpeg = BASELINE.to_vec();
    let frame = jpeg.windows(2).position(|bytes| bytes == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xEA, 0x60, 0xEA, 0x60]);
    assert_eq!(fault(decode(&jpeg, 1 << 28)), ImageFault::TooLarge);
}

fn crc(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |mut crc: u32, &byte| {
        crc ^= u32::from(byte);
        (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 });
        crc
    })
}

#[test]
fn text_chunks_are_skipped_whatever_their_size() {
    let mut file = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut file, 1, 1);
    encoder.set_color(::png::ColorType::Rgb);
    // Unpacked, or kept at all, either would exceed the decoder's workspace and fail.
    encoder.add_ztxt_chunk("bomb".to_owned(), "0".repeat(2 * WORKSPACE)).unwrap();
    encoder.add_text_chunk("long".to_owned(), "0".repeat(WORKSPACE + 1)).unwrap();
    encoder.write_header().unwrap().write_image_data(&[1, 2, 3]).unwrap();
    assert_eq!(decode(&file, ANY_SIZE).unwrap().pixels, [1, 2, 3]);
}

#[test]
fn formats_and_variants_not_decoded_here_are_left_to_pillow() {
    let mut twelve_bits = BASELINE.to_vec();
    let frame = twelve_bits.windows(2).position(|bytes| bytes == [0xFF, 0xC0]).unwrap();
    twelve_bits[frame + 4] = 12;
    let mut arithmetic = BASELINE.to_vec();
    arithmetic[frame + 1] = 0xC9;
    for (name, data) in [
        ("gif", &b"GIF89a"[..]),
        ("nothing", b""),
        ("cmyk", CMYK),
        ("twelve bits", &twelve_bits),
        ("arithmetic coding", &arithmetic),
    ] {
        assert_eq!(fault(decode(data, ANY_SIZE)), ImageFault::Unsupported, "{name}");
    }
}

#[test]
fn hostile_jpegs_are_broken() {
    let with_scans = |count: usize| {
        // The last scan of the file, repeated.
        let scan = BASELINE.windows(2).position(|bytes| bytes == [0xFF, 0xDA]).unwrap();
        let mut data = BASELINE[..scan].to_vec();
        (0..count).for_each(|_| data.extend_from_slice(&BASELINE[scan..BASELINE.len() - 2]));
        data.extend([0xFF, 0xD9]);
        data
    };
    let cases = [
        ("only markers of begin and end", vec![0xFF, 0xD8, 0xFF, 0xD9], "no frame header"),
        ("a segment of length 1", vec![0xFF, 0xD8, 0xFF, 0xE0, 0, 1, 0xFF, 0xD9], "length 1"),
        ("a second beginning", vec![0xFF, 0xD8, 0xFF, 0xD8, 0xFF, 0xD9], "second start-of-image"),
        ("a hundred and one scans", with_scans(101), "more than 100 scans"),
        ("no scan", with_scans(0), "no scan"),
    ];
    for (name, data, expected) in cases {
        let message = decode(&data, ANY_SIZE).unwrap_err().to_string();
        assert!(message.starts_with("broken") && message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn the_exif_orientation_turns_the_image_and_a_thumbnail_does_not_end_it() {
    let upright = decode(THUMBNAIL, ANY_SIZE).unwrap();
    let stored = decode(BASELINE, ANY_SIZE).unwrap();
    assert_eq!((upright.width, upright.height), (16, 24));
    // Orientation 6: stored rows become columns from the right.
    for y in 0..24 {
        for x in 0..16 {
            let (to, from) = ((y * 16 + x) * 3, ((15 - x) * 24 + y) * 3);
            assert_eq!(upright.pixels[to..to + 3], stored.pixels[from..from + 3]);
        }
    }
}

#[test]
fn each_orientation_moves_pixels_as_the_standard_says() {
    // ab
    // cd
    // ef
    let cases = [
        (1, 2, "abcdef"),
        (2, 2, "badcfe"),
        (3, 2, "fedcba"),
        (4, 2, "efcdab"),
        (5, 3, "acebdf"),
        (6, 3, "ecafdb"),
        (7, 3, "fdbeca"),
        (8, 3, "bdface"),
    ];
    let image = |letters: &str| letters.bytes().flat_map(|letter| [letter, 0, letter]).collect::<Vec<u8>>();
    for (orientation, width, expected) in cases {
        let turned = orient(Rgb { width: 2, height: 3, pixels: image("abcdef") }, orientation);
        assert_eq!((turned.width, turned.height), (width, 6 / width), "orientation {orientation}");
        assert_eq!(turned.pixels, image(expected), "orientation {orientation}");
    }
}

#[test]
fn orientation_is_read_from_both_byte_orders_and_is_1_when_nothing_usable_is_said() {
    let little = b"II*\0\x08\0\0\0\x02\0\x0f\x01\x02\0\x01\0\0\0\0\0\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
    let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
    let changed = |at: usize, value: u8| {
        let mut data = big.to_vec();
        data[at] = value;
        data
    };
    let cases = [
        ("little endian, second entry", little.to_vec(), 6),
        ("big endian", big.to_vec(), 8),
        ("with its prefix", [b"Exif\0\0", &big[..]].concat(), 8),
        ("value 9", changed(19, 9), 1),
        ("value 0", changed(19, 0), 1),
        ("type byte", changed(13, 1), 1),
        ("two values", changed(17, 2), 1),
        ("another tag", changed(11, 0x13), 1),
        ("directory far outside", changed(4, 255), 1),
        ("more entries than bytes", [&little[..8], &[255, 255]].concat(), 1),
        ("bad magic", changed(0, b'X'), 1),
        ("empty", Vec::new(), 1),
    ];
    for (name, data, expected) in cases {
        assert_eq!(orientation(&data), expected, "{name}");
    }
}

/// Anti-aliased Lanczos of three lobes along rows of one channel, by its definition.
fn lanczos(line: &[f64], out: usize) -> Vec<f64> {
    use std::f64::consts::PI;
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    let scale = line.len() as f64 / out as f64;
    let stretch = scale.max(1.0);
    let weigh = |target: usize| {
        let centre = (target as f64 + 0.5) * scale;
        let weights: Vec<f64> = (0..line.len())
            .map(|at| (at as f64 + 0.5 - centre) / stretch)
            .map(|x| if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 })
            .collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().zip(line).map(|(weight, value)| weight * value).sum::<f64>() / sum
    };
    (0..out).map(weigh).collect()
}

/// Resizes by the definition, with the rounding between the two passes that bytes have.
fn reference_resize(width: usize, height: usize, pixels: &[u8], size: usize) -> Vec<u8> {
    let mut out = vec![0; size * size * 3];
    for channel in 0..3 {
        let value = |x: usize, y: usize| f64::from(pixels[(y * width + x) * 3 + channel]);
        let rows: Vec<Vec<f64>> = (0..height)
            .map(|y| lanczos(&(0..width).map(|x| value(x, y)).collect::<Vec<_>>(), size))
            .map(|row| row.iter().map(|value| value.round().clamp(0.0, 255.0)).collect())
            .collect();
        for x in 0..size {
            let column = lanczos(&rows.iter().map(|row| row[x]).collect::<Vec<_>>(), size);
            for (y, value) in column.iter().enumerate() {
                out[(y * size + x) * 3 + channel] = value.round().clamp(0.0, 255.0) as u8;
            }
        }
    }
    out
}

#[test]
fn resizing_equals_the_definition_up_to_rounding() {
    // Noise, which shows every weight; down and up, and both at once. From 64 to 191, so that nothing overshoots
    // the range of a byte between the two passes, where the result would depend on their order.
    let noise = |at: usize| {
        let word = crate::rng::philox4x32_10([u32::try_from(at).unwrap(), 0, 0, 0], [0; 2])[0];
        64 + word.to_le_bytes()[0] / 2
    };
    for (width, height, size) in [(50, 31, 16), (9, 7, 16), (40, 8, 12)] {
        let pixels: Vec<u8> = (0..width * height * 3).map(noise).collect();
        let mut out = vec![0; size * size * 3];
        resize((height, width, &pixels), None, Fit::Stretch, size, &mut out).unwrap();
        let difference = worst(&out, &reference_resize(width, height, &pixels, size));
        assert!(difference <= 2, "{width}x{height} to {size}: worst {difference}");
    }
}

#[test]
fn cropping_takes_the_centre_and_boxes_their_pixels() {
    let Rgb { width, height, pixels } = original();
    let window = |left: usize, top: usize, size: usize| {
        let row = |y: usize| &pixels[(y * width + left) * 3..(y * width + left + size) * 3];
        (top..top + size).flat_map(|y| row(y).to_vec()).collect::<Vec<u8>>()
    };
    let area = |x, y, width, height| Some(CropBox { x, y, width, height });
    // Targets of the window's own size, so that nothing is resampled and the bytes are exact.
    let cases = [
        ("the middle of a wide image", None, Fit::Crop, window(4, 0, 16), 16),
        ("a box", area(3.0, 2.0, 8.0, 8.0), Fit::Stretch, window(3, 2, 8), 8),
        ("a box between pixels covers those it touches", area(3.4, 2.6, 7.2, 7.2), Fit::Stretch, window(3, 2, 8), 8),
        ("a box over the edges is cut there", area(-9.0, 8.0, 17.0, 1e30), Fit::Stretch, window(0, 8, 8), 8),
        ("the middle of a box", area(2.0, 4.0, 12.0, 8.0), Fit::Crop, window(4, 4, 8), 8),
    ];
    for (name, area, fit, expected, size) in cases {
        let mut out = vec![0; size * size * 3];
        resize((height, width, &pixels), area, fit, size, &mut out).unwrap();
        assert_eq!(out, expected, "{name}");
    }
    for outside in [area(24.0, 0.0, 5.0, 5.0), area(0.0, 0.0, 0.0, 5.0), area(5.0, 5.0, -9.0, 5.0)] {
        assert!(resize((height, width, &pixels), outside, Fit::Stretch, 4, &mut [0; 48]).is_err());
    }
}

#[test]
fn impossible_sizes_are_refused() {
    assert!(resize((0, 0, &[]), None, Fit::Crop, 1, &mut [0; 3]).is_err());
    assert!(resize((1, 1, &[0; 3]), None, Fit::Crop, 0, &mut []).is_err());
    assert!(resize((1, 1, &[0; 2]), None, Fit::Crop, 1, &mut [0; 3]).is_err());
    assert!(resize((1, 1, &[0; 3]), None, Fit::Crop, 1, &mut [0; 4]).is_err());
}

#[test]
fn many_files_load_with_one_verdict_each_and_zeros_for_the_failed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, data: &[u8]| {
        std::fs::write(folder.path().join(name), data).unwrap();
        folder.path().join(name)
    };
    let paths = [
        file("good.jpg", BASELINE),
        file("cut.jpg", &BASELINE[..BASELINE.len() - 1]),
        file("a.gif", b"GIF89a"),
        folder.path().join("none.jpg"),
        folder.path().to_path_buf(),
        file("boxed.jpg", BASELINE),
    ];
    let none = CropBox { x: f32::NAN, y: 0.0, width: 1.0, height: 1.0 };
    let mut boxes = vec![none; paths.len()];
    boxes[5] = CropBox { x: 2.0, y: 1.0, width: 4.0, height: 4.0 };
    let mut out = vec![9; paths.len() * 48];
    let results = load_many(&paths, Some(&boxes), Fit::Stretch, ANY_SIZE, 4, &mut out).unwrap();
    let kinds: Vec<&str> = results
        .iter()
        .map(|result| match result {
            None => "ok",
            Some(Error::Image { fault, .. }) => fault.as_str(),
            Some(other) => panic!("{other}"),
        })
        .collect();
    assert_eq!(kinds, ["ok", "broken", "unsupported", "unreadable", "unreadable", "ok"]);
    assert!(out[48..5 * 48].iter().all(|&byte| byte == 0));
    let whole = decode(BASELINE, ANY_SIZE).unwrap();
    let boxed: Vec<u8> = (1..5).flat_map(|y| whole.pixels[(y * 24 + 2) * 3..(y * 24 + 6) * 3].to_vec()).collect();
    assert_eq!(out[5 * 48..], boxed);
    let limited = load_many(&paths[..1], None, Fit::Stretch, 10, 4, &mut out[..48]).unwrap();
    assert!(matches!(limited[0], Some(Error::Image { fault: ImageFault::TooLarge, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn cropping_and_flipping_equals_the_definition(
        crop in 1_usize..20, top in 0_usize..20, left in 0_usize..20, flip: bool
    ) {
        let size = crop + top.max(left);
        let source: Vec<u8> = (0..size * size * 3).map(|at| (at * 7 % 251) as u8).collect();
        let mut out = vec![0; crop * crop * 3];
        crop_and_flip(&source, size, (top, left), flip, crop, &mut out);
        for y in 0..crop {
            for x in 0..crop {
                let from = left + if flip { crop - 1 - x } else { x };
                for channel in 0..3 {
                    let expected = source[((top + y) * size + from) * 3 + channel];
                    prop_assert_eq!(out[(y * crop + x) * 3 + channel], expected);
                }
            }
        }
    }

    #[test]
    fn png_and_webp_survive_a_round_trip(width in 1_u32..12, height in 1_u32..12, seed: u8) {
        let data: Vec<u8> = (0..width * height * 3).map(|at| ((at * 97) ^ u32::from(seed)) as u8).collect();
        let png = png_file(::png::ColorType::Rgb, ::png::BitDepth::Eight, (width, height), &data);
        let webp = webp_file(image_webp::ColorType::Rgb8, (width, height), &data);
        prop_assert_eq!(&decode(&png, ANY_SIZE).unwrap().pixels, &data);
        prop_assert_eq!(&decode(&webp, ANY_SIZE).unwrap().pixels, &data);
    }

    #[test]
    fn damaged_files_give_an_image_or_an_error(
        kind in 0_usize..8, damage in prop::collection::vec((0_usize..4096, 0_u8..=255), 1..6)
    ) {
        let (_, mut data) = every_kind_of_file().swap_remove(kind);
        for (at, value) in damage {
            let length = data.len();
            data[at % length] = value;
        }
        if let Ok(image) = decode(&data, 1 << 20) {
            prop_assert_eq!(image.pixels.len(), image.width * image.height * 3);
        }
    }

    #[test]
    fn any_bytes_after_a_magic_number_give_an_error_or_an_image(
        kind in 0_usize..3, rest in prop::collection::vec(0_u8..=255, 0..300)
    ) {
        let magic: [&[u8]; 3] = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP"];
        let _ = decode(&[magic[kind], &rest].concat(), 1 << 20);
    }
}

/// A little-endian TIFF block that holds the orientation "turned by 90 degrees", and zeros up to a length.
fn turned_block(length: usize) -> Vec<u8> {
    let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec();
    block.resize(length, 0);
    block
}

#[test]
fn webp_metadata_larger_than_the_largest_image_is_not_read() {
    let pixels = original().pixels;
    let file = |length| {
        let mut file = Vec::new();
        let mut encoder = image_webp::WebPEncoder::new(&mut file);
        encoder.set_exif_metadata(turned_block(length));
        encoder.encode(&pixels, 24, 16, image_webp::ColorType::Rgb8).unwrap();
        file
    };
    let limit = 24 * 16; // pixels, of four bytes each
    assert_eq!(decode(&file(4 * limit), limit as u64).unwrap().width, 16);
    assert_eq!(decode(&file(4 * limit + 2), limit as u64).unwrap().width, 24);
}
