//! The native core of `t2i`, text-to-image GANs after Reed et al. (2016).
//!
//! * [`tokenizer`]: captions to ids, and one-hot character tensors;
//! * [`ngrams`]: captions of any language to hashed word and character n-grams;
//! * [`image`]: strict decoding, resizing, cropping and flipping;
//! * [`pack`]: a packed data set, read-only and checked when opened;
//! * [`sampler`]: the batch plan, a pure function of (data set, arguments, step);
//! * [`batch`]: a plan executed into the caller's buffers on many threads;
//! * [`rng`]: the counter-based random numbers of the sampler.
//!
//! Only the module `python`, behind the feature of that name, depends on `pyo3`. Outputs are written to slices that the
//! caller owns.

#![deny(missing_docs)]

pub mod batch;
pub mod error;
pub mod image;
pub mod ngrams;
pub mod pack;
pub mod rng;
pub mod sampler;
mod threads;
pub mod tokenizer;

#[cfg(test)]
mod fixture;
#[cfg(feature = "python")]
mod python;
