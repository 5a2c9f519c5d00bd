//! Captions of any language to hashed word and character n-grams, for one embedding bag.
//!
//! A caption is brought to NFKC, then lower-cased character by character, and cut into *units*:
//! * a run of letters, digits and their marks is a word (general categories L, N, M);
//! * in scripts that put no spaces between words (Han, kana, Thai, Lao, Khmer, Myanmar, ...) every letter with its marks
//!   is a unit of its own;
//! * so is every symbol of category So or Sk: an emoji is a word;
//! * format characters and variation selectors are ignored; everything else only separates.
//!
//! Its tokens, each once, in the order of their first appearance:
//! * in `1..=words`, the hash of every unit and of every two consecutive units;
//! * in `words + 1..=words + characters`, the hash of every 3, 4 and 5 consecutive characters of `<word>`, and of every 3, 4 and
//!   5 consecutive letters of a script without spaces, so that a word that no caption had is not nothing, and a colour is
//!   read together with what has it.
//!
//! Token 0 is left for padding. This is not UAX 29: its rules for apostrophes and numbers ("can't", "3.5") keep together
//! what a bag of words does as well without, and its word breaks of Thai need a dictionary.

use std::sync::LazyLock;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::error::{Error, Result};
use crate::threads::{choose, run};

/// How much more work a byte of a caption is than a byte that is copied.
const WORK_PER_BYTE: usize = 64;
/// Odd multipliers of the polynomial hash and of its finaliser, and what tells pairs and triples from single units.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;
const MIX: u64 = 0xD6E8_FEB8_6659_FD93;
/// Lengths of character n-grams.
const SHORTEST: usize = 3;
const LONGEST: usize = 5;
/// Those of a word, with BASE to that power.
const PIECES: [(usize, u64); 3] = [
    (3, BASE.wrapping_mul(BASE).wrapping_mul(BASE)),
    (4, BASE.wrapping_mul(BASE).wrapping_mul(BASE).wrapping_mul(BASE)),
    (5, BASE.wrapping_mul(BASE).wrapping_mul(BASE).wrapping_mul(BASE).wrapping_mul(BASE)),
];
const PAIR: u64 = 0xA5A5_5A5A_1234_5677;
const RUN: u64 = 0x5A5A_A5A5_7654_3211;

/// Blocks of scripts that write no spaces between words, first and last character.
const SPACELESS: [(u32, u32); 16] = [
    (0x0E00, 0x0EFF),   // Thai, Lao
    (0x1000, 0x109F),   // Myanmar
    (0x1780, 0x17FF),   // Khmer
    (0x1950, 0x19DF),   // Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),   // Tai Tham
    (0x2E80, 0x2FDF),   // radicals
    (0x3005, 0x3007),   // iteration and closing marks, zero
    (0x3040, 0x30FF),   // Hiragana, Katakana
    (0x3100, 0x312F),   // Bopomofo
    (0x31A0, 0x31FF),   // Bopomofo, Katakana extensions
    (0x3400, 0x4DBF),   // Han extension A
    (0x4E00, 0x9FFF),   // Han
    (0xA9E0, 0xAADF),   // Myanmar extensions, Tai Viet
    (0xF900, 0xFAFF),   // Han compatibility
    (0x1AFF0, 0x1B16F), // kana extensions
    (0x20000, 0x3FFFF), // Han extensions B and later
];

/// How many hash buckets there are of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    words: u32,
    characters: u32,
}

impl Buckets {
    /// Most buckets of one kind.
    pub const LIMIT: u32 = 1 << 24;

    /// Checks the numbers of buckets.
    ///
    /// # Errors
    /// If `words` is not in `1..=LIMIT`, or `characters` not in `0..=LIMIT` (0 leaves character n-grams out).
    pub fn new(words: u32, characters: u32) -> Result<Self> {
        if words == 0 || words > Self::LIMIT {
            return Err(Error::argument("word buckets", format!("from 1 to {}", Self::LIMIT), &words));
        }
        if characters > Self::LIMIT {
            return Err(Error::argument("character buckets", format!("from 0 to {}", Self::LIMIT), &characters));
        }
        Ok(Self { words, characters })
    }

    fn tokens(self) -> usize {
        (self.words + self.characters) as usize + 1
    }
}

/// What a character does to the units round it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    Letter,
    Spaceless,
    Mark,
    Symbol,
    Ignored,
    Separator,
}

const ASCII: [Class; 128] = {
    let mut classes = [Class::Separator; 128];
    let mut byte = 0;
    while byte < 128 {
        #[expect(clippy::cast_possible_truncation, reason = "below 128")]
        let character = byte as u8;
        if character.is_ascii_alphanumeric() {
            classes[byte] = Class::Letter;
        } else if character == b'^' || character == b'`' {
            classes[byte] = Class::Symbol;
        }
        byte += 1;
    }
    classes
};

/// The classes of the basic plane: a look-up takes one read where the tables of Unicode take a binary search.
static PLANE: LazyLock<Vec<Class>> =
    LazyLock::new(|| (0..=0xFFFF_u32).map(|code| char::from_u32(code).map_or(Class::Separator, classify)).collect());

fn classify(character: char) -> Class {
    let code = u32::from(character);
    if (0xFE00..=0xFE0F).contains(&code) || (0xE0100..=0xE01EF).contains(&code) {
        return Class::Ignored;
    }
    match character.general_category_group() {
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number => {
            let spaceless = SPACELESS.iter().any(|&(first, last)| (first..=last).contains(&code));
            if spaceless { Class::Spaceless } else { Class::Letter }
        }
        GeneralCategoryGroup::Mark => Class::Mark,
        _ => match character.general_category() {
            GeneralCategory::OtherSymbol | GeneralCategory::ModifierSymbol => Class::Symbol,
            GeneralCategory::Format => Class::Ignored,
            _ => Class::Separator,
        },
    }
}

fn class_of(character: char) -> Class {
    let code = character as usize;
    match ASCII.get(code) {
        Some(&class) => class,
        None => PLANE.get(code).copied().unwrap_or_else(|| classify(character)),
    }
}

fn extend(hash: u64, value: u64) -> u64 {
    hash.wrapping_mul(BASE).wrapping_add(value).wrapping_add(1)
}

/// Spreads a hash over `0..count`.
fn bucket(hash: u64, count: u32) -> u32 {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(MIX);
    let mixed = mixed ^ (mixed >> 29);
    (((mixed >> 32) * u64::from(count)) >> 32) as u32
}

/// The unit before the one that is being read.
#[derive(Clone, Copy)]
struct Before {
    hash: u64,
    /// Letters of scripts without spaces that end with this unit and that the next one follows at once.
    run: Run,
}

/// Hashes of the last consecutive letters of scripts without spaces, the latest last.
#[derive(Clone, Copy, Default)]
struct Run {
    hashes: [u64; LONGEST - 1],
    length: usize,
}

impl Run {
    /// The run with one more letter.
    fn with(mut self, hash: u64) -> Self {
        if self.length == self.hashes.len() {
            self.hashes.rotate_left(1);
            self.length -= 1;
        }
        self.hashes[self.length] = hash;
        self.length += 1;
        self
    }

    /// The last `count` letters, if there are as many.
    fn last(&self, count: usize) -> Option<&[u64]> {
        self.length.checked_sub(count).map(|first| &self.hashes[first..self.length])
    }
}

/// Memory of one thread.
struct Tokenizer {
    buckets: Buckets,
    /// A bit a token: 12 KB for the default buckets, which the first-level cache holds.
    seen: Vec<u64>,
    text: String,
    unit: Vec<u32>,
    /// Hashes of the beginnings of the word that is being read, so that a piece of it costs one multiplication.
    prefixes: Vec<u64>,
    kind: Class,
    before: Option<Before>,
}

impl Tokenizer {
    fn new(buckets: Buckets) -> Self {
        Self {
            buckets,
            seen: vec![0; buckets.tokens().div_ceil(64)],
            text: String::new(),
            unit: Vec::new(),
            prefixes: Vec::new(),
            kind: Class::Letter,
            before: None,
        }
    }

    /// Appends a token unless the caption has it already.
    fn emit(&mut self, token: u32, out: &mut Vec<i32>) {
        let (word, bit) = (&mut self.seen[token as usize / 64], 1 << (token % 64));
        if *word & bit == 0 {
            *word |= bit;
            out.push(token.cast_signed());
        }
    }

    fn word(&mut self, hash: u64, out: &mut Vec<i32>) {
        self.emit(1 + bucket(hash, self.buckets.words), out);
    }

    fn characters(&mut self, hash: u64, out: &mut Vec<i32>) {
        self.emit(1 + self.buckets.words + bucket(hash, self.buckets.characters), out);
    }

    fn normalise(&mut self, caption: &str) {
        self.text.clear();
        if caption.is_ascii() {
            self.text.push_str(caption);
            self.text.make_ascii_lowercase();
        } else if is_nfkc_quick(caption.chars()) == IsNormalized::Yes {
            self.text.extend(caption.chars().flat_map(char::to_lowercase));
        } else {
            self.text.extend(caption.nfkc().flat_map(char::to_lowercase));
        }
    }

    /// Appends the tokens of a caption.
    fn read(&mut self, caption: &str, out: &mut Vec<i32>) {
        self.normalise(caption);
        let first = out.len();
        self.before = None;
        self.unit.clear();
        let text = std::mem::take(&mut self.text);
        for character in text.chars() {
            let class = class_of(character);
            let joins = match class {
                Class::Letter => self.kind == Class::Letter,
                Class::Mark => true,
                Class::Ignored => continue,
                Class::Spaceless | Class::Symbol | Class::Separator => false,
            };
            if !joins || self.unit.is_empty() {
                self.finish(out);
                if class == Class::Separator {
                    if let Some(before) = &mut self.before {
                        before.run = Run::default();
                    }
                    continue;
                }
                self.kind = if class == Class::Mark { Class::Letter } else { class };
            }
            self.unit.push(u32::from(character));
        }
        self.finish(out);
        self.text = text;
        for &token in &out[first..] {
            self.seen[token.cast_unsigned() as usize / 64] = 0;
        }
    }

    /// Ends the unit that is being read and appends what it adds.
    fn finish(&mut self, out: &mut Vec<i32>) {
        if self.unit.is_empty() {
            return;
        }
        let hash = self.unit.iter().fold(0, |hash, &code| extend(hash, u64::from(code)));
        self.word(hash, out);
        if let Some(before) = self.before {
            self.word(extend(extend(PAIR, before.hash), hash), out);
        }
        let mut run = Run::default();
        if self.kind == Class::Spaceless {
            let earlier = self.before.map_or_else(Run::default, |before| before.run);
            if self.buckets.characters > 0 {
                for length in SHORTEST..=LONGEST {
                    let Some(letters) = earlier.last(length - 1) else { break };
                    let start = letters.iter().fold(RUN, |all, &letter| extend(all, letter));
                    self.characters(extend(start, hash), out);
                }
            }
            run = earlier.with(hash);
        } else if self.kind == Class::Letter && self.buckets.characters > 0 {
            self.pieces(out);
        }
        self.before = Some(Before { hash, run });
        self.unit.clear();
    }

    /// Appends the character n-grams of the word that is being read.
    fn pieces(&mut self, out: &mut Vec<i32>) {
        let mut prefixes = std::mem::take(&mut self.prefixes);
        prefixes.clear();
        prefixes.push(0);
        let mut last = extend(0, u64::from('<'));
        prefixes.push(last);
        for &code in &self.unit {
            last = extend(last, u64::from(code));
            prefixes.push(last);
        }
        prefixes.push(extend(last, u64::from('>')));
        for (start, before) in prefixes.iter().enumerate() {
            for (length, power) in PIECES {
                let Some(whole) = prefixes.get(start + length) else { break };
                self.characters(whole.wrapping_sub(before.wrapping_mul(power)), out);
            }
        }
        self.prefixes = prefixes;
    }
}

/// What one thread read: tokens, and where those of each caption end.
type Block = (Vec<i32>, Vec<usize>);

fn read_block<S: AsRef<str>>(block: &[S], buckets: Buckets) -> Block {
    let mut tokenizer = Tokenizer::new(buckets);
    let bytes: usize = block.iter().map(|caption| caption.as_ref().len()).sum();
    let mut tokens = Vec::with_capacity(3 * bytes + 8);
    let mut ends = Vec::with_capacity(block.len());
    for caption in block {
        tokenizer.read(caption.as_ref(), &mut tokens);
        ends.push(tokens.len());
    }
    (tokens, ends)
}

/// Tokens of captions as ragged rows: caption `i` has `values[offsets[i]..offsets[i + 1]]`.
///
/// Writes `offsets` always and `values` only where all tokens fit; the number of tokens is returned, so that a caller whose
/// guess was too small can come again.
///
/// # Errors
/// If `offsets` is not one longer than `captions`.
pub fn tokenize<S: AsRef<str> + Sync>(
    captions: &[S],
    buckets: Buckets,
    values: &mut [i32],
    offsets: &mut [i64],
) -> Result<usize> {
    Error::check_length("n-gram offsets", captions.len() + 1, offsets.len())?;
    let bytes: usize = captions.iter().map(|caption| caption.as_ref().len()).sum();
    let rows = captions.len().div_ceil(choose(0, WORK_PER_BYTE * bytes, captions.len())).max(1);
    let mut blocks = vec![Block::default(); captions.chunks(rows).len()];
    run(captions.chunks(rows).zip(&mut blocks).collect(), |(share, block): (&[S], &mut Block)| {
        *block = read_block(share, buckets);
        Ok(())
    })?;
    let total = blocks.iter().map(|(tokens, _)| tokens.len()).sum();
    let (mut first, mut places) = (0, offsets.iter_mut());
    if let Some(place) = places.next() {
        *place = 0;
    }
    for (tokens, ends) in &blocks {
        for (end, place) in ends.iter().zip(&mut places) {
            *place = (first + end).cast_signed() as i64;
        }
        if total <= values.len() {
            values[first..first + tokens.len()].copy_from_slice(tokens);
        }
        first += tokens.len();
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(captions: &[&str], words: u32, characters: u32) -> Vec<Vec<i32>> {
        let buckets = Buckets::new(words, characters).unwrap();
        let mut offsets = vec![0; captions.len() + 1];
        let count = tokenize(captions, buckets, &mut [], &mut offsets).unwrap();
        let mut values = vec![0; count];
        assert_eq!(tokenize(captions, buckets, &mut values, &mut offsets).unwrap(), count);
        let ends: Vec<usize> = offsets.iter().map(|&end| usize::try_from(end).unwrap()).collect();
        ends.windows(2).map(|ends| values[ends[0]..ends[1]].to_vec()).collect()
    }

    fn one(caption: &str) -> Vec<i32> {
        rows(&[caption], 1 << 16, 1 << 15).remove(0)
    }

    #[test]
    fn a_word_is_itself_and_its_pieces() {
        assert_eq!(rows(&["red"], 1 << 16, 0)[0].len(), 1);
        // <re red ed> <red red> <red>
        assert_eq!(one("red").len(), 1 + 6);
        // two words, their pair, and the pieces of both
        assert_eq!(rows(&["red rose"], 1 << 16, 0)[0].len(), 3);
    }

    #[test]
    fn case_and_what_separates_do_not_count() {
        for other in ["RED  rose", "Red, rose!", "red\nrose", "red\u{200d} rose"] {
            assert_eq!(one(other), one("red rose"), "{other:?}");
        }
        assert_ne!(one("rose red"), one("red rose"));
    }

    #[test]
    fn scripts_without_spaces_are_read_letter_by_letter() {
        let letters = rows(&["红花"], 1 << 16, 0).remove(0);
        assert_eq!(letters.len(), 3);
        assert_eq!(&letters[..1], &rows(&["红"], 1 << 16, 0)[0]);
        // 红色的花: runs of three and of four letters have tokens of their own
        assert_eq!(one("红色的花").len(), 4 + 3 + 2 + 1);
    }

    #[test]
    fn nothing_readable_has_no_token() {
        assert_eq!(rows(&["", " ... ", "\u{200d}"], 16, 16), vec![Vec::<i32>::new(); 3]);
    }

    #[test]
    fn buckets_out_of_range_are_refused() {
        assert!(Buckets::new(0, 1).is_err());
        assert!(Buckets::new(1, Buckets::LIMIT + 1).is_err());
        assert!(tokenize(&["a"], Buckets::new(1, 0).unwrap(), &mut [], &mut [0]).is_err());
    }

    /// Captions of letters with and without spaces between words, marks, an emoji and what separates.
    fn captions() -> impl Strategy<Value = String> {
        let letters = prop::sample::select("abcdeABE红花色é\u{301}🌻 .,".chars().collect::<Vec<char>>());
        prop::collection::vec(letters, 0..60).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn every_caption_reads_alone_as_it_does_among_others(captions in prop::collection::vec(captions(), 1..40)) {
            let texts: Vec<&str> = captions.iter().map(String::as_str).collect();
            let together = rows(&texts, 512, 256);
            for (text, row) in texts.iter().zip(&together) {
                prop_assert_eq!(row, &rows(&[text], 512, 256)[0]);
            }
        }

        #[test]
        fn tokens_are_in_range_and_each_once(caption in captions()) {
            let row = rows(&[&caption], 64, 32).remove(0);
            prop_assert!(row.iter().all(|token| (1..=96).contains(token)));
            let mut sorted = row.clone();
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!(sorted.len(), row.len());
        }
    }
}
