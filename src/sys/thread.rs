//! Threads of the server's own, and which signals they take.
//!
//! Signals belong to the main thread: there Python runs its handlers, and a waiting call is
//! interrupted. While the main thread has a signal pending, the kernel gives the next one to any
//! thread that does not block it.

use std::io;
use std::thread::Builder;

use super::signal::{block_all, use_one_stack};

/// The number by which the C library, Python and faulthandler know this thread.
pub fn number() -> u64 {
    // SAFETY: pthread_self(3) always succeeds, and touches no memory.
    unsafe { libc::pthread_self() as u64 }
}

/// Starts a thread that never runs Python code of the application, and so blocks all signals.
///
/// # Errors
/// The system has no room for another thread.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // The new thread begins with the mask of this one.
    let held = block_all()?;
    let spawned = Builder::new().name(name.to_owned()).spawn(body);
    held.restore()?;
    spawned.map(drop)
}

/// Starts a thread that runs Python code of the application. The processes that this code starts
/// inherit the mask, so no signal is blocked.
///
/// # Errors
/// The system has no room for another thread.
pub fn spawn_for_python(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let body = || {
        use_one_stack();
        body();
    };
    Builder::new().name(name.to_owned()).spawn(body).map(drop)
}
