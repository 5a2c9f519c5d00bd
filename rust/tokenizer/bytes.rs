//! UTF-8 bytes as ids: any language, nothing unknown.
//!
//! The id of a byte is 1 + byte; 0 is padding. A long caption is truncated after the last character that fits whole, so
//! that the ids are always valid UTF-8. Case is kept. Bytes from 0xF5 on do not occur in UTF-8, so ids are at most 245.

use super::MAX_CAPTION_BYTES;
use crate::error::{Error, Result};

/// Encodes one caption to as many ids as `out` is long.
///
/// # Errors
/// If `out` is empty or longer than [`MAX_CAPTION_BYTES`].
pub fn encode(caption: &str, out: &mut [u8]) -> Result<()> {
    check_length(out.len())?;
    let mut end = out.len().min(caption.len());
    while !caption.is_char_boundary(end) {
        end -= 1;
    }
    let (head, padding) = out.split_at_mut(end);
    for (id, byte) in head.iter_mut().zip(caption.as_bytes()) {
        *id = byte + 1; // at most 0xF4 in UTF-8
    }
    padding.fill(0);
    Ok(())
}

/// Refuses a length that no row of ids can have.
pub(super) fn check_length(length: usize) -> Result<()> {
    if (1..=MAX_CAPTION_BYTES).contains(&length) {
        return Ok(());
    }
    Err(Error::argument("caption length", format!("from 1 to {MAX_CAPTION_BYTES}"), &length))
}
