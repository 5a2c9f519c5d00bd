//! The alphabet of Reed et al. (CVPR 2016): captions to character ids and back.
//!
//! The alphabet has 70 slots, numbered from 1; 0 is padding and the end of a caption. `-` stands at slots 37 and 60 and
//! encodes as 60, so [`encode`] never returns 37 (the released code builds its table in order, and the later entry
//! wins). Characters outside the alphabet become [`UNKNOWN`], which keeps their position and has no one-hot slot.
//!
//! Lower-casing is per character, so that a caption keeps its length: a character whose lower-case form is several
//! characters (`İ`) is unknown.

use crate::error::{Error, Result};

/// The 70 slots of the released code; the last one is a space.
pub const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} ";
/// Number of slots.
pub const ALPHABET_SIZE: usize = 70;
/// Characters in an encoded caption; longer captions are truncated, shorter ones padded with 0.
pub const CAPTION_LENGTH: usize = 201;
/// The id of a character outside the alphabet.
pub const UNKNOWN: u8 = 71;

/// Id of each ASCII byte, upper case folded to lower.
const IDS: [u8; 128] = {
    let slots = ALPHABET.as_bytes();
    assert!(slots.len() == ALPHABET_SIZE);
    let mut ids = [UNKNOWN; 128];
    let mut slot = 0;
    while slot < ALPHABET_SIZE {
        // The slot of `-` is written twice and the later one, 60, stays.
        #[expect(clippy::cast_possible_truncation, reason = "at most 70")]
        let id = slot as u8 + 1;
        ids[slots[slot] as usize] = id;
        ids[slots[slot].to_ascii_uppercase() as usize] = id;
        slot += 1;
    }
    ids
};

/// Encodes one caption.
///
/// # Errors
/// If `out` is not [`CAPTION_LENGTH`] long.
pub fn encode(caption: &str, out: &mut [u8]) -> Result<()> {
    Error::check_length("caption row", CAPTION_LENGTH, out.len())?;
    let bytes = caption.as_bytes();
    let head = &bytes[..bytes.len().min(CAPTION_LENGTH)];
    let written = if head.is_ascii() {
        for (slot, &byte) in out.iter_mut().zip(head) {
            *slot = IDS[usize::from(byte & 0x7F)];
        }
        head.len()
    } else {
        let mut written = 0;
        for (slot, character) in out.iter_mut().zip(caption.chars()) {
            *slot = id_of(character);
            written += 1;
        }
        written
    };
    out[written..].fill(0);
    Ok(())
}

/// Whether a caption has a character outside the alphabet.
#[must_use]
pub fn has_unknown(caption: &str) -> bool {
    if caption.is_ascii() {
        return caption.bytes().any(|byte| IDS[usize::from(byte & 0x7F)] == UNKNOWN);
    }
    caption.chars().any(|character| id_of(character) == UNKNOWN)
}

/// Whether a caption has more than [`CAPTION_LENGTH`] characters.
#[must_use]
pub fn is_truncated(caption: &str) -> bool {
    caption.len() > CAPTION_LENGTH && caption.chars().nth(CAPTION_LENGTH).is_some()
}

/// The id of one character, lower-cased.
#[must_use]
pub fn id_of(character: char) -> u8 {
    let mut lower = character.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(single), None) => IDS.get(single as usize).copied().unwrap_or(UNKNOWN),
        _ => UNKNOWN,
    }
}

/// Decodes one row: trailing zeros end the caption; an unknown character, or a zero before the end, becomes U+FFFD, so
/// that every character keeps its position.
///
/// # Errors
/// If an id is above [`UNKNOWN`]; `row` is used in the message only.
pub fn decode(ids: &[u8], row: usize) -> Result<String> {
    check_ids(ids, row)?;
    let end = ids.iter().rposition(|&id| id != 0).map_or(0, |last| last + 1);
    let slots = ALPHABET.as_bytes();
    Ok(ids[..end]
        .iter()
        .map(|&id| match id {
            0 | UNKNOWN => char::REPLACEMENT_CHARACTER,
            id => char::from(slots[usize::from(id) - 1]),
        })
        .collect())
}

/// Writes one-hot columns: ids (B, 201) to out (B, 70, 201). Padding and unknown characters give zero columns.
///
/// # Errors
/// If the lengths do not match or an id is above [`UNKNOWN`]; `out` is not changed then.
pub fn one_hot<T: Copy + From<u8>>(ids: &[u8], out: &mut [T]) -> Result<()> {
    Error::check_length("one-hot buffer", ids.len() * ALPHABET_SIZE, out.len())?;
    for (row, caption) in ids.chunks(CAPTION_LENGTH).enumerate() {
        check_ids(caption, row)?;
    }
    out.fill(T::from(0));
    let planes = out.chunks_exact_mut(ALPHABET_SIZE * CAPTION_LENGTH);
    for (caption, plane) in ids.chunks_exact(CAPTION_LENGTH).zip(planes) {
        for (column, &id) in caption.iter().enumerate() {
            if (1..UNKNOWN).contains(&id) {
                plane[(usize::from(id) - 1) * CAPTION_LENGTH + column] = T::from(1);
            }
        }
    }
    Ok(())
}

/// Refuses ids above [`UNKNOWN`]; the error gives the position of the first.
fn check_ids(ids: &[u8], row: usize) -> Result<()> {
    // The maximum alone vectorises; the position is needed only for the error.
    if ids.iter().copied().max().unwrap_or(0) <= UNKNOWN {
        return Ok(());
    }
    let column = ids.iter().position(|&id| id > UNKNOWN).unwrap_or(0);
    Err(Error::CharacterId { row, column, value: ids[column] })
}
