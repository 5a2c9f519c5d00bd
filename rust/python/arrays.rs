//! Conversion and checks of arguments from Python: NumPy arrays, integers, strings.

use std::borrow::Cow;

use numpy::ndarray::IxDyn;
use numpy::{
    BorrowError, Element, PyArray1, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn,
    PyReadwriteArrayDyn, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyString;

use crate::error::Error;
use crate::tokenizer::{CAPTION_LENGTH, Tokenizer};

/// One axis of an expected shape: a fixed length, or any length, named by a letter in the message.
#[derive(Clone, Copy)]
pub(super) enum Axis {
    Fixed(usize),
    Free(&'static str),
}

pub(super) use Axis::{Fixed, Free};

fn tuple(parts: impl ExactSizeIterator<Item = String>) -> String {
    let comma = if parts.len() == 1 { "," } else { "" };
    format!("({}{comma})", parts.collect::<Vec<_>>().join(", "))
}

fn describe(shape: &[Axis]) -> String {
    tuple(shape.iter().map(|axis| match axis {
        Fixed(length) => length.to_string(),
        Free(letter) => (*letter).to_owned(),
    }))
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}

/// Checks that a Python object is an array of this dtype and shape; the error gives both dtypes and shapes.
fn array<'py, T: Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
    shape: &[Axis],
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let dtype = numpy::dtype::<T>(value.py());
    let expected = || format!("{name} must be {dtype} {}", describe(shape));
    let Ok(untyped) = value.cast::<PyUntypedArray>() else {
        let message = format!("{}, got {}, which is not a NumPy array", expected(), type_name(value));
        return Err(PyTypeError::new_err(message));
    };
    let fits = untyped.ndim() == shape.len()
        && untyped.shape().iter().zip(shape).all(|(&length, axis)| match axis {
            Fixed(expected) => length == *expected,
            Free(_) => true,
        });
    let got = untyped.dtype();
    match value.cast::<PyArrayDyn<T>>() {
        Ok(array) if fits && got.is_equiv_to(&dtype) => Ok(array.clone()),
        _ => {
            let shape = tuple(untyped.shape().iter().map(ToString::to_string));
            Err(PyValueError::new_err(format!("{}, got {got} {shape}", expected())))
        }
    }
}

/// An output array: the caller's memory is written directly, so it must be C-contiguous.
pub(super) fn output<'py, T: Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
    shape: &[Axis],
) -> PyResult<PyReadwriteArrayDyn<'py, T>> {
    let array = array::<T>(name, value, shape)?;
    if !array.is_c_contiguous() {
        let strides = tuple(array.strides().iter().map(ToString::to_string));
        return Err(PyValueError::new_err(format!("{name} must be C-contiguous, got strides {strides}")));
    }
    array.try_readwrite().map_err(|error| match error {
        BorrowError::NotWriteable => PyValueError::new_err(format!("{name} must be writable, got a read-only array")),
        _ => PyValueError::new_err(format!("{name} must not share memory with another array of the same call")),
    })
}

pub(super) fn optional_output<'py>(
    name: &str,
    value: Option<&Bound<'py, PyAny>>,
    shape: &[Axis],
) -> PyResult<Option<PyReadwriteArrayDyn<'py, u8>>> {
    value.map(|value| output(name, value, shape)).transpose()
}

/// An input array; [`content`] copies it if it is not C-contiguous.
pub(super) fn input<'py, T: Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
    shape: &[Axis],
) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    array::<T>(name, value, shape)?
        .try_readonly()
        .map_err(|_| PyValueError::new_err(format!("{name} must not share memory with another array of the same call")))
}

pub(super) fn content<'a, T: Element + Copy>(array: &'a PyReadonlyArrayDyn<'_, T>) -> Cow<'a, [T]> {
    match array.as_slice() {
        // A Fortran-ordered array is a slice too, but of another order.
        Ok(slice) if array.is_c_contiguous() => Cow::Borrowed(slice),
        _ => Cow::Owned(array.as_array().iter().copied().collect()),
    }
}

pub(super) fn slice_mut<'a, T: Element>(array: &'a mut PyReadwriteArrayDyn<'_, T>) -> PyResult<&'a mut [T]> {
    array.as_slice_mut().map_err(|error| PyValueError::new_err(error.to_string()))
}

/// The tokenizer of this name for an array whose last axis is the ids of a caption; another array is refused later.
pub(super) fn tokenizer(word: &str, ids: Option<&Bound<'_, PyAny>>) -> PyResult<Tokenizer> {
    let shape = ids.and_then(|ids| ids.cast::<PyUntypedArray>().ok()).map(|ids| ids.shape().to_vec());
    let length = match word {
        "bytes" => shape.and_then(|shape| shape.last().copied()).unwrap_or(1),
        _ => CAPTION_LENGTH,
    };
    Ok(Tokenizer::parse(word, length)?)
}

/// A non-negative integer; the error names the argument.
pub(super) fn whole<T: TryFrom<u64>>(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<T> {
    let number: PyResult<u64> = value.extract();
    match number.map(T::try_from) {
        Ok(Ok(number)) => Ok(number),
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => {
            Err(PyTypeError::new_err(format!("{name} must be an int, got {}", type_name(value))))
        }
        _ => Err(Error::argument(name, "from 0 to 18446744073709551615", value).into()),
    }
}

pub(super) fn strings(value: &Bound<'_, PyAny>) -> PyResult<Vec<PyBackedStr>> {
    let wrong = |got: String| PyTypeError::new_err(format!("captions must be a sequence of str, got {got}"));
    if value.is_instance_of::<PyString>() {
        return Err(wrong("a single str".to_owned()));
    }
    let items = value.try_iter().map_err(|_| wrong(type_name(value)))?;
    let mut captions = Vec::with_capacity(value.len().unwrap_or(0));
    for (row, item) in items.enumerate() {
        let item = item?;
        let text = item
            .cast_into::<PyString>()
            .map_err(|error| wrong(format!("{} at {row}", type_name(&error.into_inner()))))?;
        captions.push(PyBackedStr::try_from(text).map_err(|_| {
            PyValueError::new_err(format!("caption {row} must be valid Unicode text, got a lone surrogate in it"))
        })?);
    }
    Ok(captions)
}

/// A new read-only array.
pub(super) fn frozen<'py, T: Element>(
    py: Python<'py>,
    values: &[T],
    shape: &[usize],
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let array = PyArray1::from_slice(py, values).reshape(IxDyn(shape))?;
    array.readwrite().make_nonwriteable();
    Ok(array)
}
