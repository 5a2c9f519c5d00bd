use super::*;
use proptest::prelude::*;

/// The alphabet of the paper, slot by slot, written by hand.
const SLOTS: [(u8, char); 70] = [
    (1, 'a'),
    (2, 'b'),
    (3, 'c'),
    (4, 'd'),
    (5, 'e'),
    (6, 'f'),
    (7, 'g'),
    (8, 'h'),
    (9, 'i'),
    (10, 'j'),
    (11, 'k'),
    (12, 'l'),
    (13, 'm'),
    (14, 'n'),
    (15, 'o'),
    (16, 'p'),
    (17, 'q'),
    (18, 'r'),
    (19, 's'),
    (20, 't'),
    (21, 'u'),
    (22, 'v'),
    (23, 'w'),
    (24, 'x'),
    (25, 'y'),
    (26, 'z'),
    (27, '0'),
    (28, '1'),
    (29, '2'),
    (30, '3'),
    (31, '4'),
    (32, '5'),
    (33, '6'),
    (34, '7'),
    (35, '8'),
    (36, '9'),
    (37, '-'),
    (38, ','),
    (39, ';'),
    (40, '.'),
    (41, '!'),
    (42, '?'),
    (43, ':'),
    (44, '\''),
    (45, '"'),
    (46, '/'),
    (47, '\\'),
    (48, '|'),
    (49, '_'),
    (50, '@'),
    (51, '#'),
    (52, '$'),
    (53, '%'),
    (54, '^'),
    (55, '&'),
    (56, '*'),
    (57, '~'),
    (58, '`'),
    (59, '+'),
    (60, '-'),
    (61, '='),
    (62, '<'),
    (63, '>'),
    (64, '('),
    (65, ')'),
    (66, '['),
    (67, ']'),
    (68, '{'),
    (69, '}'),
    (70, ' '),
];

fn encoded(caption: &str) -> [u8; CAPTION_LENGTH] {
    let mut out = [255; CAPTION_LENGTH]; // every slot must be overwritten
    encode(caption, &mut out).unwrap();
    out
}

/// The definition, slow and obvious: search the slots from the back.
fn reference(caption: &str) -> Vec<u8> {
    let mut ids: Vec<u8> = caption
        .chars()
        .map(|character| {
            let lower: Vec<char> = character.to_lowercase().collect();
            let found = SLOTS.iter().rev().find(|(_, slot)| lower == [*slot]);
            found.map_or(71, |(id, _)| *id)
        })
        .collect();
    ids.resize(201, 0);
    ids
}

#[test]
fn every_slot_encodes_to_its_number_but_the_first_dash() {
    for (id, character) in SLOTS {
        let expected = if character == '-' { 60 } else { id };
        assert_eq!(encoded(&character.to_string())[..2], [expected, 0], "{character:?}");
    }
    assert_eq!(ALPHABET.chars().collect::<Vec<_>>(), SLOTS.map(|(_, character)| character));
}

#[test]
fn captions_encode_to_golden_ids() {
    let cases: [(&str, &[u8]); 10] = [
        ("", &[]),
        ("a flower", &[1, 70, 6, 12, 15, 23, 5, 18]),
        ("A FLOWER", &[1, 70, 6, 12, 15, 23, 5, 18]),
        ("x-y", &[24, 60, 25]),
        ("5 petals.", &[32, 70, 16, 5, 20, 1, 12, 19, 40]),
        ("caf\u{e9}s", &[3, 1, 6, 71, 19]), // a character outside the alphabet keeps its place
        ("\u{212a}ey", &[11, 5, 25]),       // the Kelvin sign lower-cases to an ASCII k
        ("\u{130}x", &[71, 24]),            // lower-cases to two characters: unknown, still one place
        ("a\tb\0", &[1, 71, 2, 71]),        // control characters are not in the alphabet
        ("\u{1f33b}!", &[71, 41]),          // four bytes, one character
    ];
    for (caption, expected) in cases {
        let ids = encoded(caption);
        assert_eq!(&ids[..expected.len()], expected, "{caption:?}");
        assert!(ids[expected.len()..].iter().all(|&id| id == 0), "{caption:?} is padded with 0");
    }
}

#[test]
fn long_captions_are_cut_at_201_characters_not_bytes() {
    assert_eq!(encoded(&"z".repeat(500)), [26; 201]);
    let accents = "\u{e9}".repeat(200) + "bc";
    let ids = encoded(&accents);
    assert_eq!(ids[..200], [71; 200]);
    assert_eq!(ids[200], 2);
    // Non-ASCII only beyond the cut must not matter.
    assert_eq!(encoded(&("a".repeat(201) + "\u{e9}")), [1; 201]);
    assert_eq!(encoded(&("a".repeat(200) + "\u{e9}"))[199..], [1, 71]);
}

#[test]
fn decode_stops_at_trailing_zeros_only() {
    assert_eq!(decode(&[0; 201], 0).unwrap(), "");
    assert_eq!(decode(&[1, 0, 2, 71, 37, 70, 0, 0], 0).unwrap(), "a\u{fffd}b\u{fffd}- ");
}

#[test]
fn ids_above_71_are_refused_with_their_place() {
    let mut ids = vec![0; 402];
    ids[201 + 7] = 72;
    let mut out = vec![9_u8; 402 * 70];
    let message = one_hot(&ids, &mut out).unwrap_err().to_string();
    assert_eq!(message, "character id must be at most 71, got 72 at row 1, column 7");
    assert!(out.iter().all(|&value| value == 9), "a refused call writes nothing");
    assert!(decode(&ids[201..], 1).unwrap_err().to_string().contains("row 1, column 7"));
}

#[test]
fn wrong_lengths_are_refused() {
    assert!(encode("a", &mut [0; 200]).is_err());
    assert!(one_hot(&[0; 201], &mut [0_u8; 201 * 69]).is_err());
}

#[test]
fn bytes_become_ids_one_above_them_and_only_whole_characters_are_kept() {
    let cases: [(&str, usize, &[u8]); 8] = [
        ("ab", 4, &[98, 99, 0, 0]),
        ("", 3, &[0, 0, 0]),
        ("abcd", 2, &[98, 99]),
        ("A", 1, &[66]),                              // case is kept
        ("\u{0}", 2, &[1, 0]),                        // a NUL is no padding
        ("a\u{82b1}", 4, &[98, 0xE9, 0x8B, 0xB2]),    // E8 8A B1
        ("a\u{82b1}", 3, &[98, 0, 0]),                // two of its three bytes would be no character
        ("\u{10ffff}", 4, &[0xF5, 0x90, 0xC0, 0xC0]), // the largest: ids end at 245
    ];
    for (caption, length, expected) in cases {
        let mut ids = vec![9; length];
        Tokenizer::parse("bytes", length).unwrap().encode(caption, &mut ids).unwrap();
        assert_eq!(ids, expected, "{caption:?} to {length}");
    }
}

#[test]
fn tokenizers_are_known_by_their_words_and_lengths() {
    assert_eq!(Tokenizer::parse("alphabet", 201).unwrap(), Tokenizer::default());
    let cases = [
        (("alphabet", 200), "caption length must be 201, got 200"),
        (("bytes", 0), "caption length must be from 1 to 65536, got 0"),
        (("bytes", 65537), "caption length must be from 1 to 65536, got 65537"),
        (("words", 201), "tokenizer must be \"alphabet\" or \"bytes\", got \"words\""),
    ];
    for ((word, length), expected) in cases {
        assert_eq!(Tokenizer::parse(word, length).unwrap_err().to_string(), expected);
    }
    assert!(Tokenizer::Bytes(5).encode("a", &mut [0; 4]).is_err(), "a row of another length");
}

fn check_one_hot<T: Copy + From<u8> + PartialEq + std::fmt::Debug>(captions: &[String], filler: T) {
    let ids: Vec<u8> = captions.iter().flat_map(|caption| reference(caption)[..201].to_vec()).collect();
    let mut out = vec![filler; ids.len() * 70];
    one_hot(&ids, &mut out).unwrap();
    for row in 0..captions.len() {
        for slot in 0..70 {
            for column in 0..201 {
                let expected = u8::from(usize::from(ids[row * 201 + column]) == slot + 1);
                assert_eq!(out[(row * 70 + slot) * 201 + column], T::from(expected));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_unicode_encodes_as_the_reference(caption in ".{0,300}") {
        prop_assert_eq!(encoded(&caption).to_vec(), reference(&caption)[..201].to_vec());
    }

    #[test]
    fn captions_of_the_alphabet_survive_a_round_trip(slots in prop::collection::vec(0_usize..70, 0..=201)) {
        let caption: String = slots.iter().map(|&slot| SLOTS[slot].1).collect();
        prop_assert_eq!(decode(&encoded(&caption), 0).unwrap(), caption);
    }

    #[test]
    fn bytes_decode_to_the_longest_beginning_that_fits(caption in ".{0,60}", length in 1_usize..130) {
        let mut ids = vec![9; length];
        Tokenizer::Bytes(length).encode(&caption, &mut ids).unwrap();
        let bytes: Vec<u8> = ids.iter().take_while(|&&id| id > 0).map(|id| id - 1).collect();
        let kept = String::from_utf8(bytes).unwrap();
        prop_assert!(caption.starts_with(&kept));
        prop_assert!(ids[kept.len()..].iter().all(|&id| id == 0));
        let next = caption[kept.len()..].chars().next();
        prop_assert!(next.is_none_or(|next| kept.len() + next.len_utf8() > length));
        prop_assert_eq!(next.is_some(), Tokenizer::Bytes(length).truncates(&caption));
    }

    #[test]
    fn losses_follow_from_the_ids(caption in ".{195,206}") {
        let tokenizer = Tokenizer::Alphabet;
        prop_assert_eq!(tokenizer.truncates(&caption), caption.chars().count() > 201);
        let unknown = caption.chars().any(|character| encoded(&character.to_string())[0] == 71);
        prop_assert_eq!(tokenizer.has_unknown(&caption), unknown);
    }

    #[test]
    fn decoding_keeps_every_character_in_its_place(caption in ".{0,201}") {
        let decoded = decode(&encoded(&caption), 0).unwrap();
        prop_assert_eq!(decoded.chars().count(), caption.chars().count());
    }

    #[test]
    fn any_bytes_decode_or_are_refused(ids in prop::collection::vec(0_u8..=255, 201)) {
        prop_assert_eq!(decode(&ids, 0).is_ok(), ids.iter().all(|&id| id <= 71));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn one_hot_equals_its_definition(captions in prop::collection::vec(".{0,210}", 0..4)) {
        check_one_hot(&captions, 9_u8);
        check_one_hot(&captions, f32::NAN);
    }
}
