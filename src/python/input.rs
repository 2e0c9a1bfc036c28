//! `wsgi.input`: the request's body as the file-like object of PEP 3333.
//!
//! The body is usually complete before the application runs, and then reading never waits. Reading
//! stops at the end of the body: an application that keeps the object sees an ended stream, never
//! another request's bytes. Several threads may read. Their calls take turns, and each is served as
//! if it were alone.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::hub;
use super::response_writer::ResponseWriter;
use super::waiting;
use crate::base::unpoisoned::Unpoisoned;
use crate::exchange::Body;

/// How much is taken at once from a spooled file or a connection.
const BLOCK: usize = 64 * 1024;

/// `wsgi.input`.
#[pyclass(frozen, module = "monoceros")]
pub struct Input {
    state: Mutex<InputState>,
    /// Wakes the threads that wait until another has done reading.
    is_free: Condvar,
    response: Arc<Mutex<ResponseWriter>>,
}

/// Whether the body is being read.
enum InputState {
    /// Nobody reads.
    Free(Source),
    /// `reader` reads; `is_awaited` says that others wait until it has done.
    With { reader: Reader, is_awaited: bool },
}

/// A thread and, if it runs greenlets, one of them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Reader {
    thread: ThreadId,
    greenlet: usize,
}

/// How often a greenlet looks whether another one has done reading.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What is left of the body.
struct Source {
    /// The bytes at hand are those from `at` to `end`.
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    rest: Rest,
}

impl Source {
    fn at_end() -> Self {
        Source { buffer: Vec::new(), at: 0, end: 0, rest: Rest::Nothing }
    }

    fn of(body: Body) -> Self {
        let (front, streams) = match body {
            Body::Stream(front) => (*front, true),
            whole => (whole, false),
        };
        match front {
            Body::Memory(buffer, range) => {
                let rest = if streams { Rest::Connection } else { Rest::Nothing };
                Source { buffer, at: range.start, end: range.end, rest }
            }
            Body::File(file) => Source { rest: Rest::File { file, then_connection: streams }, ..Source::at_end() },
            Body::Stream(_) => unreachable!("a stream's front is memory or a file"),
        }
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
    /// A read has failed: what was read is not the whole body, and no later read may look like its
    /// end.
    Broken,
}

/// The body while a thread reads it. Dropping this gives the body back.
struct Reading<'a> {
    input: &'a Input,
    source: Source,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut source = std::mem::replace(&mut self.source, Source::at_end());
        if thread::panicking() {
            source.rest = Rest::Broken;
        }
        let before = std::mem::replace(&mut *self.input.lock(), InputState::Free(source));
        if matches!(before, InputState::With { is_awaited: true, .. }) {
            self.input.is_free.notify_all();
        }
    }
}

/// How many bytes a read is to return at most. `None` and negative sizes mean everything, as in
/// `io.RawIOBase.read`.
fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}

impl Input {
    /// An input without a body. Streamed bodies are read through `response`.
    pub fn new(response: Arc<Mutex<ResponseWriter>>) -> Self {
        Input { state: Mutex::new(InputState::Free(Source::at_end())), is_free: Condvar::new(), response }
    }

    /// Puts the next request's body in place.
    pub fn begin(&self, body: Body) {
        *self.lock() = InputState::Free(Source::of(body));
    }

    /// Ends the body: code that still holds this object reads nothing more. Returns the buffer that
    /// held the body. Waits for a thread that is reading; the request is over, so that thread does
    /// not wait for the client.
    pub fn end(&self, py: Python<'_>) -> Vec<u8> {
        if let InputState::Free(source) = &mut *self.lock() {
            return std::mem::replace(source, Source::at_end()).buffer;
        }
        // Fails only in a signal handler or a finalizer that interrupts a read of this thread.
        // Neither calls this function.
        self.begin_reading(py)
            .map_or_else(|_| Vec::new(), |mut reading| std::mem::replace(&mut reading.source, Source::at_end()).buffer)
    }

    fn lock(&self) -> MutexGuard<'_, InputState> {
        self.state.lock().unpoisoned()
    }

    /// Waits until no other thread reads the body, then takes it.
    ///
    /// # Errors
    /// `RuntimeError` if this very thread is reading already: a signal handler or a finalizer has
    /// interrupted that read. The exception that is thrown into a greenlet that waits.
    fn begin_reading(&self, py: Python<'_>) -> PyResult<Reading<'_>> {
        let me = Reader { thread: thread::current().id(), greenlet: hub::current(py) };
        loop {
            if let Some(source) = self.take_source(me)? {
                return Ok(Reading { input: self, source });
            }
            match hub::of_this_thread(py) {
                Some(hub) => hub.sleep(py, LOOK_AGAIN)?,
                None => py.detach(|| self.wait_until_free()),
            }
        }
    }

    /// Gives the body to `me`; `None` while another thread or greenlet reads.
    fn take_source(&self, me: Reader) -> PyResult<Option<Source>> {
        let mut state = self.lock();
        match &mut *state {
            InputState::Free(source) => {
                let source = std::mem::replace(source, Source::at_end());
                *state = InputState::With { reader: me, is_awaited: false };
                Ok(Some(source))
            }
            InputState::With { reader, .. } if *reader == me => {
                Err(PyRuntimeError::new_err("this thread is reading wsgi.input already"))
            }
            InputState::With { is_awaited, .. } => {
                *is_awaited = true;
                Ok(None)
            }
        }
    }

    fn wait_until_free(&self) {
        let is_awaited = |state: &mut InputState| matches!(state, InputState::With { is_awaited: true, .. });
        drop(self.is_free.wait_while(self.lock(), is_awaited).unpoisoned());
    }

    /// Takes the next `wanted` bytes, or fewer at the end of the body. `stop` may end the read
    /// earlier.
    fn take<'py>(
        &self,
        py: Python<'py>,
        wanted: usize,
        stop: impl Fn(&[u8]) -> Option<usize>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut reading = self.begin_reading(py)?;
        let source = &mut reading.source;
        let mut searched = 0;
        loop {
            let ready = source.ready();
            if let Some(found) = stop(&ready[searched..]) {
                let count = (searched + found).min(wanted);
                return Ok(source.take(py, count));
            }
            searched = ready.len();
            if searched >= wanted || matches!(source.rest, Rest::Nothing) {
                return Ok(source.take(py, searched.min(wanted)));
            }
            let rest = std::mem::replace(&mut source.rest, Rest::Broken);
            let may_go_on = matches!(rest, Rest::Connection);
            match self.next_block(py, rest) {
                Ok((block, rest)) => {
                    source.rest = rest;
                    source.append(&block);
                }
                Err(error) => {
                    // An exception of a signal handler says nothing about the body.
                    if may_go_on && !error.is_instance_of::<PyOSError>(py) {
                        source.rest = Rest::Connection;
                    }
                    return Err(error);
                }
            }
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
                    (0, true) => (0, Rest::Connection),
                    (0, false) => (0, Rest::Nothing),
                    _ => (count, Rest::File { file, then_connection }),
                }
            }
            Rest::Connection => {
                let count = waiting::read_body(&self.response, py, &mut block)?;
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

    /// Lines to the end, or until `hint` bytes have been returned (as `io.IOBase.readlines`: 0 and
    /// less mean no limit).
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
