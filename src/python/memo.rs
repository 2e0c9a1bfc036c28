//! Strings that clients send again and again, made once.

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::raw::latin1;

/// Longer texts are not remembered: comparing and keeping them would cost more than it saves.
const LONGEST: usize = 512;

/// The last text seen in some place, and the `str` made of it.
pub struct Memo {
    text: Vec<u8>,
    made: Option<Py<PyString>>,
}

impl Memo {
    /// A memo of nothing.
    pub const fn new() -> Self {
        Memo { text: Vec::new(), made: None }
    }

    /// `text` as a latin-1 `str`: the one made last time if it is the same text.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn latin1<'py>(&mut self, py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyString>> {
        if let Some(made) = &self.made
            && self.text == text
        {
            return Ok(made.bind(py).clone());
        }
        let made = latin1(py, text)?;
        if text.len() <= LONGEST {
            self.text.clear();
            self.text.extend_from_slice(text);
            self.made = Some(made.clone().unbind());
        }
        Ok(made)
    }
}
