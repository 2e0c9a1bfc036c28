//! Direct calls of the interpreter's C API, in the few places of the request path where profiles
//! show a gain.
//!
//! Every function is safe to call, and failures are returned as `PyErr`. This module knows nothing
//! of WSGI.

use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// A `str` whose code points are the bytes of `text`: PEP 3333's "bytes as latin-1" for environ
/// values.
///
/// # Errors
/// `MemoryError`.
pub fn latin1<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: the pointer and length describe an initialised slice; the result is a new reference
    // to a str, or null with an exception set.
    unsafe {
        let object = ffi::PyUnicode_DecodeLatin1(text.as_ptr().cast(), text.len() as ffi::Py_ssize_t, std::ptr::null());
        Ok(Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked())
    }
}

/// The bytes of `text` on the wire (ISO-8859-1, PEP 3333 "Unicode Issues"), without a copy: CPython
/// stores such strings with one byte per character.
///
/// # Errors
/// `UnicodeEncodeError` when a character lies outside latin-1.
pub fn latin1_bytes<'a>(text: &'a Bound<'_, PyString>) -> PyResult<&'a [u8]> {
    // SAFETY: `text` is a str, alive for as long as the slice is borrowed, and strings do not
    // change.
    match unsafe { text.data() }? {
        pyo3::types::string::PyStringData::Ucs1(bytes) => Ok(bytes),
        _ => Err(PyUnicodeEncodeError::new_err((
            "latin-1",
            text.to_string_lossy().into_owned(),
            0,
            text.len().unwrap_or(0),
            "ordinal not in range(256)",
        ))),
    }
}

/// Inserts `value` under `key` unless the key exists; returns whether it was inserted.
///
/// This needs one hash lookup; a test followed by an insert needs two.
///
/// # Errors
/// `MemoryError`.
pub fn insert_if_absent(
    dict: &Bound<'_, PyDict>,
    key: &Bound<'_, PyString>,
    value: &Bound<'_, PyString>,
) -> PyResult<bool> {
    // SAFETY: all three are live objects of the right type; PyDict_SetDefault borrows them and
    // returns a borrowed reference, or null with an exception set. PyDict_Size of a dict cannot
    // fail.
    unsafe {
        let before = ffi::PyDict_Size(dict.as_ptr());
        if ffi::PyDict_SetDefault(dict.as_ptr(), key.as_ptr(), value.as_ptr()).is_null() {
            return Err(PyErr::fetch(dict.py()));
        }
        Ok(ffi::PyDict_Size(dict.as_ptr()) != before)
    }
}

/// Calls `handle` with `error` as the exception that is being handled, which `sys.exc_info()`
/// returns, as in an `except` clause.
///
/// # Errors
/// Those of `handle`.
pub fn while_handling<T>(py: Python<'_>, error: &PyErr, handle: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    let value = error.value(py);
    // Before 3.12 the traceback of an exception that is being handled in C is not on the exception
    // itself.
    if let Some(traceback) = error.traceback(py) {
        value.setattr("__traceback__", traceback)?;
    }
    let traceback = error.traceback(py).map_or(std::ptr::null_mut(), |traceback| traceback.into_ptr());
    let (mut class, mut outer, mut outer_traceback) =
        (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: attached. PyErr_GetExcInfo gives three new references or null pointers, which the
    // last call takes back; PyErr_SetExcInfo takes the references that it is given, here new ones
    // to live objects, or null for no traceback.
    unsafe {
        ffi::PyErr_GetExcInfo(&mut class, &mut outer, &mut outer_traceback);
        ffi::PyErr_SetExcInfo(error.get_type(py).into_ptr(), value.clone().into_ptr(), traceback);
    }
    let handled = handle();
    // SAFETY: as above.
    unsafe { ffi::PyErr_SetExcInfo(class, outer, outer_traceback) };
    handled
}

/// How many references to `object` exist. Where the interpreter has no lock, the number may change
/// before the caller sees it.
pub fn reference_count<T>(object: &Py<T>) -> isize {
    // SAFETY: `object` is a live object. The interpreter's lock keeps the count still while it is
    // read; a build without that lock reads it atomically.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}
