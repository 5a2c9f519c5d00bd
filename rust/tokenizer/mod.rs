//! Captions to ids: the paper's alphabet, or UTF-8 bytes.

mod alphabet;
mod bytes;
#[cfg(test)]
mod tests;

pub use self::alphabet::{ALPHABET, ALPHABET_SIZE, CAPTION_LENGTH, UNKNOWN, decode, encode, id_of, one_hot};
use crate::error::{Error, Result};

/// The longest caption that a pack may hold, in bytes of UTF-8.
pub const MAX_CAPTION_BYTES: usize = 64 << 10;

/// How captions become ids; every id fits a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokenizer {
    /// The paper's alphabet: [`CAPTION_LENGTH`] ids, see [`encode`].
    #[default]
    Alphabet,
    /// UTF-8 bytes: this many ids, 1 + byte each, padded with 0.
    Bytes(usize),
}

impl Tokenizer {
    /// Parses `alphabet` or `bytes`, with the number of ids per caption.
    ///
    /// # Errors
    /// For any other word, or a length that the tokenizer does not have.
    pub fn parse(word: &str, length: usize) -> Result<Self> {
        match word {
            "alphabet" if length == CAPTION_LENGTH => Ok(Self::Alphabet),
            "alphabet" => Err(Error::argument("caption length", CAPTION_LENGTH.to_string(), &length)),
            "bytes" => bytes::check_length(length).map(|()| Self::Bytes(length)),
            _ => Err(Error::argument("tokenizer", "\"alphabet\" or \"bytes\"", &format!("{word:?}"))),
        }
    }

    /// Ids per caption.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Alphabet => CAPTION_LENGTH,
            Self::Bytes(length) => length,
        }
    }

    /// Encodes one caption.
    ///
    /// # Errors
    /// If `out` is not [`Self::length`] long.
    pub fn encode(self, caption: &str, out: &mut [u8]) -> Result<()> {
        match self {
            Self::Alphabet => encode(caption, out),
            Self::Bytes(length) => {
                Error::check_length("caption row", length, out.len())?;
                bytes::encode(caption, out)
            }
        }
    }

    /// Whether the end of a caption is lost.
    #[must_use]
    pub fn truncates(self, caption: &str) -> bool {
        match self {
            Self::Alphabet => alphabet::is_truncated(caption),
            Self::Bytes(length) => caption.len() > length,
        }
    }

    /// Whether a caption has a character that has no id of its own.
    #[must_use]
    pub fn has_unknown(self, caption: &str) -> bool {
        match self {
            Self::Alphabet => alphabet::has_unknown(caption),
            Self::Bytes(_) => false,
        }
    }
}

/// Captions that a tokenizer does not keep whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Captions whose end is lost.
    pub truncated: usize,
    /// Captions with a character that has no id of its own.
    pub unknown: usize,
}

impl Losses {
    /// Counts one caption.
    pub fn add(&mut self, tokenizer: Tokenizer, caption: &str) {
        self.truncated += usize::from(tokenizer.truncates(caption));
        self.unknown += usize::from(tokenizer.has_unknown(caption));
    }
}
