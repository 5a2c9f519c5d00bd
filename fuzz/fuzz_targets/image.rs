//! Any bytes are a picture of at most so many pixels, or an error of a kind; a picture can be resized.
#![no_main]

use libfuzzer_sys::fuzz_target;
use t2i_native::error::Error;
use t2i_native::image::{Fit, decode, resize};

const MOST: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| match decode(data, MOST) {
    Ok(image) => {
        assert!((image.width * image.height) as u64 <= MOST);
        assert_eq!(image.pixels.len(), image.width * image.height * 3);
        let mut out = [0; 16 * 16 * 3];
        resize((image.height, image.width, &image.pixels), None, Fit::Crop, 16, &mut out).unwrap();
    }
    Err(error) => assert!(matches!(error, Error::Image { .. }), "{error}"),
});
