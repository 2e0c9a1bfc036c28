//! fork(2), and noticing forks that other code makes. Callers that must prepare for a fork
//! (CPython, the signal mask) wrap [`fork`].

use std::cell::Cell;
use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::unistd::{self, ForkResult};

use super::process::{self, Pid};
use super::signal;

/// Whether a fork other than [`fork`] has made this process.
static IS_COPY: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread is inside [`fork`]. The child starts with a copy of the value.
    static IS_FORKING: Cell<bool> = const { Cell::new(false) };
}

/// The two processes after a fork, as the caller finds itself in one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The caller is still the old process; the new one has this pid.
    Parent(Pid),
    /// The caller is the new process.
    Child,
}

/// Forks the process (fork(2)). Fails with EAGAIN or ENOMEM when the system has no room for another
/// process.
pub fn fork() -> io::Result<Forked> {
    by(|| {
        // SAFETY: only the master forks, and the server starts no thread in the master. So no
        // thread that is missing in the child can hold a lock of the server or of the C library,
        // and the child may run any code. If Python code (a hook, an agent, an embedding program, a
        // preloaded application) has threads in the master, the caller `interpreter::around_fork`
        // holds the interpreter's locks and the log's meanwhile, as os.fork() does; locks of other
        // C libraries are as exposed as they are under os.fork().
        match unsafe { unistd::fork() }? {
            ForkResult::Parent { child } => Ok(child.as_raw()),
            ForkResult::Child => Ok(0),
        }
    })
}

/// The same by way of `fork`, which returns what fork(2) does: 0 in the child, else the child's
/// pid.
///
/// # Errors
/// Those of `fork`.
pub fn by(fork: impl FnOnce() -> io::Result<i32>) -> io::Result<Forked> {
    notice_copies();
    IS_FORKING.set(true);
    let forked = fork();
    IS_FORKING.set(false);
    forked.map(|pid| if pid == 0 { Forked::Child } else { Forked::Parent(Pid::from_raw(pid)) })
}

/// Ends the process if it is a copy that the application made of a worker. Such a copy shares the
/// worker's connections and poll, so clients would get its answers as well as the worker's. Called
/// wherever the application returns; it costs one load.
pub fn end_copies() {
    if is_copy() {
        process::exit_now(0);
    }
}

/// Whether this process is a copy: something other than [`fork`] (the application, by os.fork())
/// made it.
pub fn is_copy() -> bool {
    IS_COPY.load(Relaxed)
}

/// From now on a copy notices that it is one, and gives the server's signal handlers up.
pub(super) fn notice_copies() {
    static REGISTERED: Once = Once::new();
    extern "C" fn note() {
        if !IS_FORKING.get() {
            IS_COPY.store(true, Relaxed);
            signal::leave_to_copy();
        }
    }
    REGISTERED.call_once(|| {
        // SAFETY: the handler stores to atomics and calls sigaction(2); both are safe in the child
        // of any process (signal-safety(7)). The registration fails only if there is no memory.
        // Copies then go unnoticed, as under other servers.
        unsafe { libc::pthread_atfork(None, None, Some(note)) };
    });
}
