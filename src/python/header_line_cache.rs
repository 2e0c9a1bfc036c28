//! Status and headers of the last response, for applications that pass the same objects again.
//!
//! Strings are immutable, so the same object is the same text, which was checked and rendered
//! before. Many applications have their headers as constants.

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::base::ablation::{Mechanism, is_off};

/// How many headers are remembered, by their place in the list.
const MOST_PLACES: usize = 8;

/// A longer line is not remembered, because that would keep its objects alive.
const LONGEST_LINE: usize = 256;

/// The last response's status and headers.
#[derive(Default)]
pub struct HeaderLineCache {
    status: Option<Py<PyString>>,
    places: Vec<Option<HeaderLine>>,
}

/// A header that was valid and was sent.
pub struct HeaderLine {
    name: Py<PyString>,
    value: Py<PyString>,
    /// Its line in the head.
    pub line: Vec<u8>,
    /// Its value, if it is the Content-Length.
    pub length: Option<u64>,
}

impl HeaderLineCache {
    /// Whether the last status was this object.
    pub fn is_status(&self, status: &Bound<'_, PyString>) -> bool {
        self.status.as_ref().is_some_and(|known| known.is(status)) && !is_off(Mechanism::HeaderLines)
    }

    /// Remembers the status, which was valid; `None` if it was not the application's object.
    pub fn set_status(&mut self, status: Option<&Bound<'_, PyString>>) {
        self.status = status.map(|status| status.clone().unbind());
    }

    /// The header last sent at this place, if it consisted of these two objects.
    pub fn find(&self, place: usize, name: &Bound<'_, PyString>, value: &Bound<'_, PyString>) -> Option<&HeaderLine> {
        let known = self.places.get(place)?.as_ref()?;
        (known.value.is(value) && known.name.is(name) && !is_off(Mechanism::HeaderLines)).then_some(known)
    }

    /// Remembers a header and its line.
    pub fn note(
        &mut self,
        place: usize,
        (name, value): (Bound<'_, PyString>, Bound<'_, PyString>),
        line: &[u8],
        length: Option<u64>,
    ) {
        if place >= MOST_PLACES {
            return;
        }
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        let known = &mut self.places[place];
        if line.len() > LONGEST_LINE {
            *known = None;
            return;
        }
        let mut kept = known.take().map_or_else(Vec::new, |known| known.line);
        kept.clear();
        kept.extend_from_slice(line);
        *known = Some(HeaderLine { name: name.unbind(), value: value.unbind(), line: kept, length });
    }
}
