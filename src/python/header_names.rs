//! Puts the headers of a request into its environ, under their CGI names.
//!
//! A name is made into a key once and remembered, together with its last value, because clients
//! send the same names again and again. They can also invent names, so the memory is bounded in
//! number and in bytes, and no text of a client is interned.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use super::raw::{insert_if_absent, latin1};
use super::value_cache::LastValueCache;
use crate::base::ablation::{Mechanism, is_off};
use crate::exchange::RequestView;

/// How many names are remembered at a time. Clients choose them, so there must be a bound.
const MOST_NAMES: usize = 128;

/// Longer names are not remembered.
const LONGEST_NAME: usize = 64;

/// Once all places are taken, one in this many new names replaces the oldest one. Names that never
/// come again should cost little.
const LEARNED_LATER: u32 = 16;

/// For how many places of a head the last name is remembered.
const MOST_PLACES: usize = 128;

/// The header names seen lately.
#[derive(Default)]
pub struct HeaderNames {
    known: Vec<Name>,
    by_text: HashMap<Box<[u8]>, usize>,
    /// The index of the oldest name, once all places are taken.
    oldest: usize,
    /// How many new names have come since a place was last replaced.
    new_names: u32,
    /// The name at each place of the last head. Clients send their headers in the same order, which
    /// saves the look-up.
    expected: Vec<usize>,
}

/// A header name as sent, its key in the environ, and its last value.
struct Name {
    text: Box<[u8]>,
    key: Py<PyString>,
    kind: NameKind,
    value: LastValueCache,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NameKind {
    /// Repeated fields are joined with `,` (RFC 9110, 5.3).
    List,
    /// As `List`, but the value is private to each client. If it comes again, usually the whole
    /// block does; remembering it separately would only keep it in memory for longer.
    Secret,
    /// As `Secret`; repeated fields are joined with `; ` (RFC 6265, 5.4; RFC 9113, 8.2.3).
    Cookie,
    /// A trusted proxy's `SCRIPT_NAME`, which also sets the environ's key of that name.
    ScriptName,
}

impl HeaderNames {
    /// Adds the request's headers; returns the value of a header `SCRIPT_NAME`.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn set_headers(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        request: &RequestView<'_>,
    ) -> PyResult<Option<Vec<u8>>> {
        let (mut script_name, mut repeated) = (None, Vec::new());
        for (place, header) in request.head.headers(request.buffer).enumerate() {
            if let Some(value) = self.set_header(py, environ, place, header, &mut repeated)? {
                script_name = Some(value);
            }
        }
        repeated.iter().try_for_each(|field: &Repeated<'_>| field.join_into(environ))?;
        Ok(script_name)
    }

    /// Adds the header at `place`; returns the value of a header `SCRIPT_NAME`.
    fn set_header<'py>(
        &mut self,
        py: Python<'py>,
        environ: &Bound<'py, PyDict>,
        place: usize,
        (text, value): (&[u8], &[u8]),
        repeated: &mut Vec<Repeated<'py>>,
    ) -> PyResult<Option<Vec<u8>>> {
        match self.find(py, text, place) {
            Some(known) if !is_off(Mechanism::HeaderNames) => self.known[known].add_to(py, environ, value, repeated),
            _ => Name::new(py, text).add_to(py, environ, value, repeated),
        }
    }

    /// The index of the name, if it is remembered.
    fn find(&mut self, py: Python<'_>, text: &[u8], place: usize) -> Option<usize> {
        if let Some(&known) = self.expected.get(place)
            && *self.known[known].text == *text
        {
            return Some(known);
        }
        let known = match self.by_text.get(text) {
            Some(&known) => known,
            None => self.learn(py, text)?,
        };
        if place < MOST_PLACES {
            if self.expected.len() <= place {
                self.expected.resize(place + 1, known);
            }
            self.expected[place] = known;
        }
        Some(known)
    }

    /// Remembers a new name, if there is room or it is this name's turn to replace another; returns
    /// its index.
    fn learn(&mut self, py: Python<'_>, text: &[u8]) -> Option<usize> {
        if text.len() > LONGEST_NAME {
            return None;
        }
        if self.known.len() < MOST_NAMES {
            self.known.push(Name::new(py, text));
            self.by_text.insert(text.into(), self.known.len() - 1);
            return Some(self.known.len() - 1);
        }
        self.new_names = self.new_names.wrapping_add(1);
        if !self.new_names.is_multiple_of(LEARNED_LATER) {
            return None;
        }
        let place = self.oldest;
        self.oldest = (place + 1) % MOST_NAMES;
        let old = std::mem::replace(&mut self.known[place], Name::new(py, text));
        self.by_text.remove(&old.text);
        self.by_text.insert(text.into(), place);
        Some(place)
    }
}

impl Name {
    fn new(py: Python<'_>, name: &[u8]) -> Name {
        let mut key = b"HTTP_".to_vec();
        key.extend(name.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }));
        let kind = match &key[..] {
            b"HTTP_COOKIE" => NameKind::Cookie,
            b"HTTP_AUTHORIZATION" | b"HTTP_PROXY_AUTHORIZATION" => NameKind::Secret,
            // Only `SCRIPT_NAME` itself, which the parser accepts from trusted peers only. Any
            // client may send `Script-Name`.
            b"HTTP_SCRIPT_NAME" if name.contains(&b'_') => NameKind::ScriptName,
            _ => NameKind::List,
        };
        let key = match &key[..] {
            b"HTTP_CONTENT_TYPE" | b"HTTP_CONTENT_LENGTH" if !name.contains(&b'_') => &key[b"HTTP_".len()..],
            whole => whole,
        };
        let key = std::str::from_utf8(key).expect("header names are tokens, which are ASCII (http::fields)");
        let key = match INTERNED.binary_search(&key) {
            Ok(own) => PyString::intern(py, INTERNED[own]),
            Err(_) => PyString::new(py, key),
        };
        Name { text: name.into(), key: key.unbind(), kind, value: LastValueCache::new() }
    }

    /// Adds a field of this name, or appends its value to those in `repeated`.
    fn add_to<'py>(
        &mut self,
        py: Python<'py>,
        environ: &Bound<'py, PyDict>,
        value: &[u8],
        repeated: &mut Vec<Repeated<'py>>,
    ) -> PyResult<Option<Vec<u8>>> {
        let text = match self.kind {
            NameKind::Cookie | NameKind::Secret => latin1(py, value)?,
            NameKind::List | NameKind::ScriptName => self.value.latin1(py, value)?,
        };
        let key = self.key.bind(py);
        if !insert_if_absent(environ, key, &text)? {
            let separator = if self.kind == NameKind::Cookie { "; " } else { "," };
            Repeated::among(repeated, environ, key, separator)?.values.append(text)?;
        }
        Ok((self.kind == NameKind::ScriptName).then(|| value.to_vec()))
    }
}

/// A field that has come more than once: its values, which are joined after the last one. Joining
/// each to those before it would take time quadratic in their number.
struct Repeated<'py> {
    key: Bound<'py, PyString>,
    values: Bound<'py, PyList>,
    separator: &'static str,
}

impl<'py> Repeated<'py> {
    /// The field with this `key`, which is in the environ already.
    fn among<'a>(
        repeated: &'a mut Vec<Repeated<'py>>,
        environ: &Bound<'py, PyDict>,
        key: &Bound<'py, PyString>,
        separator: &'static str,
    ) -> PyResult<&'a Repeated<'py>> {
        // Names may be spelled in several ways, so equal keys may be different objects.
        let known = repeated.iter().position(|field| field.key.is(key) || field.key.as_any().eq(key).unwrap_or(false));
        let place = match known {
            Some(place) => place,
            None => {
                let first = environ.get_item(key)?;
                repeated.push(Repeated { key: key.clone(), values: PyList::new(key.py(), first)?, separator });
                repeated.len() - 1
            }
        };
        Ok(&repeated[place])
    }

    fn join_into(&self, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        let separator = PyString::new(environ.py(), self.separator);
        environ.set_item(&self.key, separator.call_method1("join", (&self.values,))?)
    }
}

/// Keys that are interned, so that the look-up of `environ["HTTP_..."]` compares by identity. Only
/// these constants are interned: CPython 3.12 keeps interned texts for ever, also those that a
/// client has invented.
const INTERNED: [&str; 48] = [
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "HTTP_ACCEPT",
    "HTTP_ACCEPT_CHARSET",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_ACCEPT_LANGUAGE",
    "HTTP_ACCESS_CONTROL_REQUEST_HEADERS",
    "HTTP_ACCESS_CONTROL_REQUEST_METHOD",
    "HTTP_AUTHORIZATION",
    "HTTP_CACHE_CONTROL",
    "HTTP_CONNECTION",
    "HTTP_CONTENT_ENCODING",
    "HTTP_COOKIE",
    "HTTP_DNT",
    "HTTP_EXPECT",
    "HTTP_FORWARDED",
    "HTTP_HOST",
    "HTTP_IF_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_RANGE",
    "HTTP_IF_UNMODIFIED_SINCE",
    "HTTP_ORIGIN",
    "HTTP_PRAGMA",
    "HTTP_PRIORITY",
    "HTTP_PROXY_AUTHORIZATION",
    "HTTP_RANGE",
    "HTTP_REFERER",
    "HTTP_SEC_FETCH_DEST",
    "HTTP_SEC_FETCH_MODE",
    "HTTP_SEC_FETCH_SITE",
    "HTTP_SEC_FETCH_USER",
    "HTTP_TE",
    "HTTP_TRACEPARENT",
    "HTTP_TRACESTATE",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_UPGRADE",
    "HTTP_UPGRADE_INSECURE_REQUESTS",
    "HTTP_USER_AGENT",
    "HTTP_VIA",
    "HTTP_X_CSRFTOKEN",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_REAL_IP",
    "HTTP_X_REQUESTED_WITH",
    "HTTP_X_REQUEST_ID",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interned_keys_can_be_searched() {
        assert!(INTERNED.is_sorted());
    }
}
