//! Any text encodes to 201 ids of at most 71, and encoding undoes decoding; its bytes encode to the beginning that fits;
//! any ids decode or are refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use t2i_native::tokenizer::{CAPTION_LENGTH, Tokenizer, UNKNOWN, decode, encode};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let (mut ids, mut again) = ([7; CAPTION_LENGTH], [9; CAPTION_LENGTH]);
        encode(text, &mut ids).unwrap();
        assert!(ids.iter().all(|&id| id <= UNKNOWN));
        assert_eq!(ids.iter().filter(|&&id| id > 0).count(), text.chars().count().min(CAPTION_LENGTH));
        let mut bytes = [9; 64];
        Tokenizer::Bytes(64).encode(text, &mut bytes).unwrap();
        let kept: Vec<u8> = bytes.iter().take_while(|&&id| id > 0).map(|id| id - 1).collect();
        assert!(text.starts_with(std::str::from_utf8(&kept).unwrap()));
        encode(&decode(&ids, 0).unwrap(), &mut again).unwrap();
        assert_eq!(ids, again);
    }
    let mut ids = [0; CAPTION_LENGTH];
    for (id, byte) in ids.iter_mut().zip(data) {
        *id = *byte;
    }
    assert_eq!(decode(&ids, 0).is_ok(), ids.iter().all(|&id| id <= UNKNOWN));
});
