//! The Python module, the only folder that uses PyO3: conversions and checks of arguments, the GIL released around
//! every call, and one match from [`Error`] to exceptions.

#![allow(clippy::doc_markdown, reason = "doc comments of exported items are Python docstrings")]
#![allow(clippy::needless_pass_by_value, reason = "arguments converted from Python arrive owned")]

mod arrays;
mod image;
mod ngrams;
mod pack;
mod sampler;
mod text;

use pyo3::exceptions::{PyImportError, PyIndexError, PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::error::Error;

mod exceptions {
    pyo3::import_exception!(t2i.errors, ConfigError);
    pyo3::import_exception!(t2i.errors, DataError);
}
use exceptions::{ConfigError, DataError};

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Data { .. } | Error::DataSet(_) | Error::Image { .. } => DataError::new_err(message),
            Error::Argument { .. } => ConfigError::new_err(message),
            Error::Buffer { .. } | Error::CharacterId { .. } | Error::ForeignPlan { .. } => {
                PyValueError::new_err(message)
            }
            Error::Index { .. } => PyIndexError::new_err(message),
            Error::Thread(_) => PyOSError::new_err(message),
        }
    }
}

/// The native core of t2i: caption tokens, images, packed data sets and batch plans.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::{
        image::{decode_image, image_format, load_images, resize},
        ngrams::ngrams,
        pack::Pack,
        sampler::{Plan, Sampler},
        text::{count_losses, decode, encode, one_hot},
    };

    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");
    #[pymodule_export]
    const ALPHABET: &str = crate::tokenizer::ALPHABET;
    #[pymodule_export]
    const ALPHABET_SIZE: usize = crate::tokenizer::ALPHABET_SIZE;
    #[pymodule_export]
    const CAPTION_LENGTH: usize = crate::tokenizer::CAPTION_LENGTH;
    #[pymodule_export]
    const MAX_CAPTION_BYTES: usize = crate::tokenizer::MAX_CAPTION_BYTES;
    #[pymodule_export]
    const UNKNOWN: u8 = crate::tokenizer::UNKNOWN;

    use super::{Bound, PyAnyMethods, PyImportError, PyModule, PyResult};

    /// Refuses to load with a Python package of another version, whose names and shapes may differ.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let package = module.py().import("t2i")?;
        let version = package.getattr("__version__").and_then(|found| found.extract::<String>());
        match version {
            Ok(version) if version == __version__ => Ok(()),
            other => Err(PyImportError::new_err(format!(
                "t2i's native module is version {__version__} and its Python part {}: install both together, with pip \
                 install --force-reinstall t2i, or with make install in a checkout",
                other.unwrap_or_else(|_| "of none".into())
            ))),
        }
    }
}
