//! Sends the application's result to the client, and closes the result (PEP 3333).

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use super::RequestObjects;
use crate::python::file_wrapper::FileWrapper;
use crate::python::panics::contain;
use crate::python::response_writer::{Disposition, MAX_BLOCKS, Progress, lock};
use crate::python::start_response::as_bytes;
use crate::python::waiting;
use crate::sys::fork;

impl RequestObjects {
    /// Sends what the application returned, and closes it. The response is completed before
    /// `close()` is called: the client need not wait for a slow `close()`, nor can `close()` add to
    /// the response.
    pub(super) fn answer(&self, py: Python<'_>, result: &Bound<'_, PyAny>, sendfile: bool) -> Disposition {
        let outcome = contain(|| self.respond(py, result, sendfile));
        let Some(close) = self.closer(py, result) else { return self.end_response(py, outcome) };
        let outcome = outcome.and_then(|()| Ok(lock(&self.response).complete(true)?));
        let failed = outcome.err().map(|error| self.fail(py, &error));
        if let Err(error) = contain(|| close.call0()) {
            self.log_error(py, &error);
        }
        fork::end_copies();
        failed.unwrap_or_else(|| self.finish(py))
    }

    /// Sends what the application returned.
    pub(super) fn respond(&self, py: Python<'_>, result: &Bound<'_, PyAny>, sendfile: bool) -> PyResult<()> {
        if self.respond_at_once(py, result, sendfile)? { Ok(()) } else { self.iterate(py, result) }
    }

    /// Sends the result where it need not be iterated; returns `false` where it must be.
    pub(super) fn respond_at_once(&self, py: Python<'_>, result: &Bound<'_, PyAny>, sendfile: bool) -> PyResult<bool> {
        // Mostly the result is one block: head and body go out in one write.
        if let Some(block) = only_block(result) {
            self.send_last(py, &[as_bytes(&block)?])?;
            return Ok(true);
        }
        if let Some(blocks) = blocks_at_hand(result) {
            let blocks: Vec<&Bound<'_, PyBytes>> = blocks.iter().map(as_bytes).collect::<PyResult<_>>()?;
            self.send_last(py, &blocks)?;
            return Ok(true);
        }
        if sendfile && let Ok(wrapper) = result.cast_exact::<FileWrapper>() {
            return self.send_file(py, wrapper.get());
        }
        Ok(false)
    }

    /// Iterates the result: each block is sent, or kept for the client, before the next is asked
    /// for (PEP 3333, "Buffering and Streaming").
    fn iterate(&self, py: Python<'_>, result: &Bound<'_, PyAny>) -> PyResult<()> {
        for block in result.try_iter()? {
            fork::end_copies();
            if !self.stream(py, &block?)? {
                break;
            }
        }
        fork::end_copies();
        self.expect_started()
    }

    /// Sends one block of an iteration; returns whether more are wanted.
    #[inline]
    pub(super) fn stream(&self, py: Python<'_>, block: &Bound<'_, PyAny>) -> PyResult<bool> {
        let bytes = as_bytes(block)?;
        // An empty block may come before start_response and must not become a last chunk.
        if bytes.as_bytes().is_empty() {
            return Ok(true);
        }
        let (wants_more, has_backlog) = {
            let mut response = lock(&self.response);
            expect_started(response.progress())?;
            response.stream(bytes)?;
            (response.sends_body(), response.has_backlog())
        };
        if has_backlog {
            waiting::until_kept(&self.response, py)?;
        }
        Ok(wants_more)
    }

    pub(super) fn expect_started(&self) -> PyResult<()> {
        expect_started(self.progress())
    }

    fn end_response(&self, py: Python<'_>, outcome: PyResult<()>) -> Disposition {
        match outcome {
            Ok(()) => self.finish(py),
            Err(error) => self.fail(py, &error),
        }
    }

    fn send_last(&self, py: Python<'_>, blocks: &[&Bound<'_, PyBytes>]) -> PyResult<()> {
        let has_backlog = {
            let mut response = lock(&self.response);
            expect_started(response.progress())?;
            response.send(blocks, true)?;
            response.has_backlog()
        };
        if has_backlog { waiting::until_kept(&self.response, py) } else { Ok(()) }
    }

    /// Sends a file by the kernel; returns `false` where the file must be read instead.
    fn send_file(&self, py: Python<'_>, wrapper: &FileWrapper) -> PyResult<bool> {
        self.expect_started()?;
        let Some(range) = wrapper.range(py) else { return Ok(false) };
        let mut response = lock(&self.response);
        if response.progress() != Progress::Started {
            return Ok(false);
        }
        response.send_file(range.file, range.offset, range.length)?;
        Ok(true)
    }

    /// The result's `close`, which is to be called whatever happened before (PEP 3333). An error of
    /// the look-up is logged, and changes nothing in the response.
    pub(super) fn closer<'py>(&self, py: Python<'py>, result: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        if result.is_exact_instance_of::<PyList>() || result.is_exact_instance_of::<PyTuple>() {
            return None;
        }
        let close = contain(|| result.getattr_opt(pyo3::intern!(py, "close")));
        close.inspect_err(|error| self.log_error(py, error)).ok().flatten()
    }
}

fn expect_started(progress: Progress) -> PyResult<()> {
    match progress {
        Progress::Waiting | Progress::Drafting => {
            Err(PyRuntimeError::new_err("the application did not call start_response"))
        }
        _ => Ok(()),
    }
}

/// The block of a list or tuple of one.
fn only_block<'py>(result: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    if let Ok(list) = result.cast_exact::<PyList>() {
        if list.len() == 1 { list.get_item(0).ok() } else { None }
    } else {
        let tuple = result.cast_exact::<PyTuple>().ok()?;
        if tuple.len() == 1 { tuple.get_item(0).ok() } else { None }
    }
}

/// The blocks of a list or tuple, if there are few enough to be sent at once.
fn blocks_at_hand<'py>(result: &Bound<'py, PyAny>) -> Option<Vec<Bound<'py, PyAny>>> {
    if let Ok(list) = result.cast_exact::<PyList>() {
        (list.len() <= MAX_BLOCKS).then(|| list.iter().collect())
    } else if let Ok(tuple) = result.cast_exact::<PyTuple>() {
        (tuple.len() <= MAX_BLOCKS).then(|| tuple.iter().collect())
    } else {
        None
    }
}
