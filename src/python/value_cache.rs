//! Caches for strings that clients send again and again.

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::raw::latin1;
use crate::base::ablation::{Mechanism, is_off};

/// Longer texts are not remembered: comparing and keeping them costs more than it saves.
pub const LONGEST: usize = 512;

/// The last text at some place, and the `str` made from it.
pub struct LastValueCache {
    text: Vec<u8>,
    made: Option<Py<PyString>>,
}

impl LastValueCache {
    /// An empty cache.
    pub const fn new() -> Self {
        LastValueCache { text: Vec::new(), made: None }
    }

    /// `text` as a latin-1 `str`: the cached one if the text is the same.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn latin1<'py>(&mut self, py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyString>> {
        self.made_of(py, text, |text| latin1(py, text))
    }

    /// The `str` that `make` makes from `text`: the cached one if the text is the same.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn made_of<'py>(
        &mut self,
        py: Python<'py>,
        text: &[u8],
        make: impl FnOnce(&[u8]) -> PyResult<Bound<'py, PyString>>,
    ) -> PyResult<Bound<'py, PyString>> {
        if let Some(made) = &self.made
            && is_same(&self.text, text)
            && !is_off(Mechanism::ValueCache)
        {
            return Ok(made.bind(py).clone());
        }
        let made = make(text)?;
        if text.len() <= LONGEST {
            self.text.clear();
            self.text.extend_from_slice(text);
            self.made = Some(made.clone().unbind());
        }
        Ok(made)
    }
}

/// Texts up to this long are compared byte by byte.
const SHORT: usize = 8;

/// Compares short texts without a call of memcmp(3). For the one byte of a path like `/` that call
/// costs a hundredth of a short request: between two requests the kernel evicts the code of memcmp
/// from the processor's caches.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && if a.len() <= SHORT { a.iter().zip(b).all(|(a, b)| a == b) } else { a == b }
}

/// Most ports remembered.
const MOST_PORTS: usize = 64;

/// The ports of connected clients as texts, one for each place that a port is mapped to.
pub struct PortCache(Vec<Option<(u16, Py<PyString>)>>);

impl PortCache {
    /// An empty cache.
    pub const fn new() -> Self {
        PortCache(Vec::new())
    }

    /// The port's decimal digits.
    pub fn text<'py>(&mut self, py: Python<'py>, port: u16) -> Bound<'py, PyString> {
        if self.0.is_empty() {
            self.0.resize_with(MOST_PORTS, || None);
        }
        let place = &mut self.0[usize::from(port) % MOST_PORTS];
        if let Some((known, text)) = place
            && *known == port
            && !is_off(Mechanism::ValueCache)
        {
            return text.bind(py).clone();
        }
        let text = PyString::new(py, itoa::Buffer::new().format(port));
        *place = Some((port, text.clone().unbind()));
        text
    }
}
