//! `wsgi.input`: the request's body as the file-like object of PEP 3333.
//!
//! The body is usually complete before the application runs, and then reading never waits. It reads past the end of no body: an
//! application that keeps the object sees an ended stream, never another request's bytes.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::transmission::Transmission;
use crate::exchange::Body;

/// How much is taken at once from a spooled file or a connection.
const BLOCK: usize = 64 * 1024;

/// `wsgi.input`.
#[pyclass(frozen, module = "monoceros")]
pub struct Input {
    state: Mutex<State>,
    transmission: Arc<Mutex<Transmission>>,
}

struct State {
    /// The bytes at hand are those from `at` to `end`.
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    rest: Rest,
}

impl State {
    fn at_end() -> Self {
        State { buffer: Vec::new(), at: 0, end: 0, rest: Rest::Nothing }
    }

    fn ready(&self) -> &[u8] {
        &self.buffer[self.at..self.end]
    }

    /// The next `count` bytes, which are at hand.
    fn take<'py>(&mut self, py: Python<'py>, count: usize) -> Bound<'py, PyBytes> {
        let bytes = PyBytes::new(py, &self.ready()[..count]);
        self.at += count;
        bytes
    }

    /// Puts `block` behind the bytes at hand.
    fn append(&mut self, block: &[u8]) {
        self.buffer.truncate(self.end);
        self.buffer.drain(..self.at);
        self.buffer.extend_from_slice(block);
        (self.at, self.end) = (0, self.buffer.len());
    }
}

/// Where bytes come from when those at hand run out.
enum Rest {
    Nothing,
    /// A spooled body; what did not fit into the file is still on the connection.
    File {
        file: File,
        then_connection: bool,
    },
    Connection,
    /// A read has failed: what was read is not the whole body, and no later read may look like its end.
    Broken,
}

/// How many bytes a read is to return at most. `None` and negative sizes mean everything, as in `io.RawIOBase.read`.
fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}

impl Input {
    /// An input at its end, on whose transmission streamed bodies are read.
    pub fn new(transmission: Arc<Mutex<Transmission>>) -> Self {
        Input { state: Mutex::new(State::at_end()), transmission }
    }

    /// Puts the next request's body in place.
    pub fn begin(&self, body: Body) {
        let mut state = self.lock();
        *state = State::at_end();
        let (front, streams) = match body {
            Body::Stream(front) => (*front, true),
            whole => (whole, false),
        };
        match front {
            Body::Memory(buffer, range) => {
                (state.buffer, state.at, state.end) = (buffer, range.start, range.end);
                state.rest = if streams { Rest::Connection } else { Rest::Nothing };
            }
            Body::File(file) => state.rest = Rest::File { file, then_connection: streams },
            Body::Stream(_) => unreachable!("a stream's front is memory or a file"),
        }
    }

    /// Ends the body: whoever still holds this object reads nothing more. Returns the buffer that the body was in.
    pub fn end(&self) -> Vec<u8> {
        std::mem::replace(&mut *self.lock(), State::at_end()).buffer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next `wanted` bytes, or all there are; `stop` may find enough earlier.
    fn take<'py>(
        &self,
        py: Python<'py>,
        wanted: usize,
        stop: impl Fn(&[u8]) -> Option<usize>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut searched = 0;
        let mut state = self.lock();
        loop {
            let ready = state.ready();
            if let Some(found) = stop(&ready[searched..]) {
                let count = (searched + found).min(wanted);
                return Ok(state.take(py, count));
            }
            searched = ready.len();
            if searched >= wanted || matches!(state.rest, Rest::Nothing) {
                return Ok(state.take(py, searched.min(wanted)));
            }
            let rest = std::mem::replace(&mut state.rest, Rest::Nothing);
            // The lock is not held while bytes are awaited.
            drop(state);
            let (block, rest) = self.next_block(py, rest).inspect_err(|_| self.lock().rest = Rest::Broken)?;
            state = self.lock();
            state.rest = rest;
            state.append(&block);
        }
    }

    fn next_block(&self, py: Python<'_>, rest: Rest) -> PyResult<(Vec<u8>, Rest)> {
        let mut block = vec![0; BLOCK];
        let (count, rest) = match rest {
            Rest::Nothing => (0, Rest::Nothing),
            Rest::Broken => return Err(PyOSError::new_err("the request body could not be read to its end")),
            Rest::File { mut file, then_connection } => {
                let count = py.detach(|| read_some(&mut file, &mut block))?;
                match (count, then_connection) {
                    (0, true) => return self.next_block(py, Rest::Connection),
                    (0, false) => (0, Rest::Nothing),
                    _ => (count, Rest::File { file, then_connection }),
                }
            }
            Rest::Connection => {
                let count = Transmission::read_body(&self.transmission, py, &mut block)?;
                (count, if count == 0 { Rest::Nothing } else { Rest::Connection })
            }
        };
        block.truncate(count);
        Ok((block, rest))
    }

    fn line<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyBytes>> {
        self.take(py, limit, |bytes| memchr::memchr(b'\n', bytes).map(|at| at + 1))
    }
}

#[pymethods]
impl Input {
    #[pyo3(signature = (size=None))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.take(py, limit(size), |_| None)
    }

    #[pyo3(signature = (size=None))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.line(py, limit(size))
    }

    /// Lines to the end, or until `hint` bytes have been returned (as `io.IOBase.readlines`: 0 and less mean no limit).
    #[pyo3(signature = (hint=None))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let limit = hint.and_then(|hint| usize::try_from(hint).ok()).filter(|&hint| hint > 0).unwrap_or(usize::MAX);
        let lines = PyList::empty(py);
        let mut total = 0;
        while total < limit {
            let line = self.line(py, usize::MAX)?;
            if line.as_bytes().is_empty() {
                break;
            }
            total += line.as_bytes().len();
            lines.append(line)?;
        }
        Ok(lines)
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.line(py, usize::MAX)?;
        Ok(Some(line).filter(|line| !line.as_bytes().is_empty()))
    }
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
