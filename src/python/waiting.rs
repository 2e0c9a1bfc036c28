//! Waiting for a client, in a thread or a greenlet of the application. Neither the interpreter nor
//! the exchange is held meanwhile, so that other threads can run, answer, and end the request.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::hub;
use super::response_writer::{ResponseWriter, Tried, lock};
use crate::exchange::Wait;
use crate::sys::socket::wait_until_ready;

/// How often a waiting thread looks whether the request is over. The thread that ends the request
/// waits for it to notice.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The same for greenlets, of which there may be hundreds: each look costs the hub something.
const LOOK_AGAIN_IN_GREENLET: Duration = Duration::from_millis(250);

/// If the client is so far behind that no more is kept for it: waits until all that the application
/// has produced so far is kept.
///
/// # Errors
/// The client is gone, or has stopped reading.
pub fn until_kept(shared: &Mutex<ResponseWriter>, py: Python<'_>) -> PyResult<()> {
    let has_backlog = lock(shared).has_backlog();
    if has_backlog { until_done(shared, py, ResponseWriter::try_send_backlog) } else { Ok(()) }
}

/// Waits until the client has taken everything.
///
/// # Errors
/// The client is gone, or has stopped reading.
pub fn until_sent(shared: &Mutex<ResponseWriter>, py: Python<'_>) -> PyResult<()> {
    until_done(shared, py, ResponseWriter::try_send_all)
}

/// Reads bytes of a streamed body, and waits until there are some; 0 means its end.
///
/// # Errors
/// A malformed or truncated body, a client that has stopped sending or reading, or a request that
/// is over.
pub fn read_body(shared: &Mutex<ResponseWriter>, py: Python<'_>, buffer: &mut [u8]) -> PyResult<usize> {
    until_done(shared, py, |response| response.try_read_body(buffer))
}

/// How a wait has ended.
enum Woken<T> {
    Done(T),
    BySignal,
}

/// Repeats `action` until it need not wait. Python's handlers for signals that come meanwhile run,
/// and may raise.
fn until_done<T: Send>(
    shared: &Mutex<ResponseWriter>,
    py: Python<'_>,
    mut action: impl FnMut(&mut ResponseWriter) -> io::Result<Tried<T>> + Send,
) -> PyResult<T> {
    if let Some(hub) = hub::of_this_thread(py) {
        return until_done_in_greenlet(shared, py, hub, action);
    }
    loop {
        match py.detach(|| until_done_or_signal(shared, &mut action))? {
            Woken::Done(done) => return Ok(done),
            Woken::BySignal => py.check_signals()?,
        }
    }
}

/// As [`until_done`], in a greenlet: the hub runs others meanwhile. An exception that is thrown
/// into the greenlet ends the wait.
fn until_done_in_greenlet<T>(
    shared: &Mutex<ResponseWriter>,
    py: Python<'_>,
    hub: &hub::Hub,
    mut action: impl FnMut(&mut ResponseWriter) -> io::Result<Tried<T>>,
) -> PyResult<T> {
    loop {
        let tried = lock(shared).attempt(&mut action)?;
        let wait = match tried {
            Tried::Done(done) => return Ok(done),
            Tried::NotYet(wait) => wait,
        };
        let _waiter = Waiter(shared);
        let left = wait.until.saturating_duration_since(Instant::now());
        hub.wait(py, wait.descriptor, wait.readiness, left.min(LOOK_AGAIN_IN_GREENLET))?;
    }
}

fn until_done_or_signal<T>(
    shared: &Mutex<ResponseWriter>,
    action: &mut impl FnMut(&mut ResponseWriter) -> io::Result<Tried<T>>,
) -> io::Result<Woken<T>> {
    loop {
        let tried = lock(shared).attempt(&mut *action)?;
        let wait = match tried {
            Tried::Done(done) => return Ok(Woken::Done(done)),
            Tried::NotYet(wait) => wait,
        };
        let _waiter = Waiter(shared);
        if sit_out(shared, &wait).is_err() {
            return Ok(Woken::BySignal);
        }
    }
}

/// Waits until the descriptor is ready, the time is up, or the request is over.
fn sit_out(shared: &Mutex<ResponseWriter>, wait: &Wait) -> io::Result<()> {
    loop {
        let left = wait.until.saturating_duration_since(Instant::now());
        let is_ready = wait_until_ready(wait.descriptor, wait.readiness, left.min(LOOK_AGAIN))?;
        if is_ready || left <= LOOK_AGAIN || lock(shared).is_over() {
            return Ok(());
        }
    }
}

/// A thread or greenlet that waits for the client.
struct Waiter<'a>(&'a Mutex<ResponseWriter>);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        lock(self.0).leave_wait();
    }
}
