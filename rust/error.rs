//! Errors; each message names what was expected and what was found.

use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image could not be decoded; Python tries Pillow for [`ImageFault::Unsupported`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFault {
    /// A format, or a variant of one, that this crate does not decode.
    Unsupported,
    /// Data that violates its format: truncated, corrupt or hostile.
    Broken,
    /// A file that cannot be opened or read.
    Unreadable,
    /// More pixels or bytes than the caller's limit, refused before they are allocated.
    TooLarge,
}

impl ImageFault {
    /// The name used in Python.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::Broken => "broken",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too large",
        }
    }
}

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A data set, or a file of one, that violates its format.
    #[error("{}: {message}", path.display())]
    Data {
        /// The folder or file.
        path: PathBuf,
        /// The value found and the value expected.
        message: String,
    },
    /// A valid data set that does not support what was requested; the message names the data set.
    #[error("{0}")]
    DataSet(String),
    /// An image that cannot be decoded.
    #[error("{} image: {message}", fault.as_str())]
    Image {
        /// The kind of failure.
        fault: ImageFault,
        /// What was wrong.
        message: String,
    },
    /// A buffer of the wrong length.
    #[error("{name} must be {expected}, got {got}")]
    Buffer {
        /// The buffer's name as the caller knows it.
        name: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A character id above the largest one.
    #[error("character id must be at most 71, got {value} at row {row}, column {column}")]
    CharacterId {
        /// The row of the id.
        row: usize,
        /// The column of the id.
        column: usize,
        /// The id found.
        value: u8,
    },
    /// An index outside a data set.
    #[error("{name} index must be from 0 to {}, got {value} at row {row}", length.saturating_sub(1))]
    Index {
        /// What is indexed: `image` or `caption`.
        name: &'static str,
        /// The position of the index in its array.
        row: usize,
        /// The index found.
        value: i64,
        /// How many there are.
        length: usize,
    },
    /// An argument outside its range.
    #[error("{name} must be {expected}, got {got}")]
    Argument {
        /// The argument's name as the caller knows it.
        name: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A plan executed on another data set than the one it was made for.
    #[error("plan was drawn for another data set: fingerprint {plan}, but this one has {pack}")]
    ForeignPlan {
        /// The fingerprint of the plan's data set.
        plan: String,
        /// The fingerprint of the data set given.
        pack: String,
    },
    /// A thread that the operating system could not start.
    #[error("could not start a thread: {0}")]
    Thread(std::io::Error),
}

impl Error {
    /// Builds an [`Error::Data`].
    pub fn data(path: &Path, message: impl Into<String>) -> Self {
        Self::Data { path: path.to_path_buf(), message: message.into() }
    }

    /// Builds an [`Error::Image`].
    pub fn image(fault: ImageFault, message: impl Into<String>) -> Self {
        Self::Image { fault, message: message.into() }
    }

    /// Builds an [`Error::Argument`].
    pub fn argument(name: &'static str, expected: impl Into<String>, got: &dyn std::fmt::Display) -> Self {
        Self::Argument { name, expected: expected.into(), got: got.to_string() }
    }

    /// Checks the length of a slice that stands for an array of the given shape.
    pub(crate) fn check_length(name: &'static str, expected: usize, got: usize) -> Result<()> {
        if expected == got {
            return Ok(());
        }
        Err(Self::Buffer { name, expected: format!("{expected} elements"), got: got.to_string() })
    }
}
