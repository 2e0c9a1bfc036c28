//! fork(2), and nothing else: who must prepare for it (CPython, the signal mask) wraps this one function.

use std::cell::Cell;
use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::unistd::{self, ForkResult};

use super::process::{self, Pid};
use super::signal;

/// Whether this process is a copy that somebody else than [`fork`] has made.
static IS_COPY: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether [`fork`] is at work in this thread, and in the one that the child goes on with.
    static IS_FORKING: Cell<bool> = const { Cell::new(false) };
}

/// Which side of the fork the caller finds itself on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The caller is still the old process; the new one has this pid.
    Parent(Pid),
    /// The caller is the new process.
    Child,
}

/// Forks the process (fork(2)). Fails with EAGAIN or ENOMEM when the system has no room for another process.
pub fn fork() -> io::Result<Forked> {
    notice_copies();
    IS_FORKING.set(true);
    // SAFETY: the master starts no thread, so no lock can be held by a thread that the child
    // does not have, and the child may run any code. An agent that came with the interpreter, or a hook, may have threads of its
    // own; `around_fork` holds the locks of Python meanwhile, as Python does for its own forks, and that of the log.
    let forked = unsafe { unistd::fork() };
    IS_FORKING.set(false);
    match forked? {
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// Ends the process if it is a copy that the application made of a worker. Such a copy shares the worker's connections and poll:
/// what it answers would be answered twice. To be asked wherever the application returns, so it costs one load.
pub fn end_copies() {
    if is_copy() {
        process::exit_now(0);
    }
}

/// Whether the process is such a copy.
pub fn is_copy() -> bool {
    IS_COPY.load(Relaxed)
}

/// From now on copies know that they are some, and have nothing of the server's signals.
pub(super) fn notice_copies() {
    static REGISTERED: Once = Once::new();
    extern "C" fn note() {
        if !IS_FORKING.get() {
            IS_COPY.store(true, Relaxed);
            signal::leave_to_copy();
        }
    }
    REGISTERED.call_once(|| {
        // SAFETY: the handler stores to atomics and calls sigaction(2), which is safe in the child of any process. It fails for want of
        // memory only, and then copies go unnoticed, as under other servers.
        unsafe { libc::pthread_atfork(None, None, Some(note)) };
    });
}
