//! fork(2), and noticing forks that other code makes. Callers that must prepare for a fork
//! (CPython, the signal mask) wrap [`fork`].

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, TryLockError};

use nix::unistd::{self, ForkResult};

use super::process::{self, Pid};
use super::signal;
use crate::base::unpoisoned::Unpoisoned;

/// Whether a fork other than [`fork`] has made this process.
static IS_COPY: AtomicBool = AtomicBool::new(false);

/// The lock that is held while the process forks, if there is one.
static HELD_AT_FORKS: OnceLock<&Mutex<()>> = OnceLock::new();

thread_local! {
    /// Whether this thread is inside [`fork`]. The child starts with a copy of the value.
    static IS_FORKING: Cell<bool> = const { Cell::new(false) };

    /// The guard of [`HELD_AT_FORKS`], from right before a fork of this thread until right after
    /// it.
    static HELD: Cell<Option<MutexGuard<'static, ()>>> = const { Cell::new(None) };
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
        // holds the interpreter's locks meanwhile, as os.fork() does, and `hold_at_forks` the
        // log's; locks of other C libraries are as exposed as they are under os.fork().
        match unsafe { unistd::fork() }? {
            ForkResult::Parent { child } => Ok(child.as_raw()),
            ForkResult::Child => Ok(0),
        }
    })
}

/// As [`fork`], by way of the given function, which returns what fork(2) does: 0 in the child, else
/// the child's pid.
///
/// # Errors
/// Those of the function.
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

/// Locks `shared`, even if a thread has panicked while it held the lock. A copy of the process
/// lacks the thread that held the lock at the fork, and nobody ever releases it there: a copy that
/// meets such a lock ends, as it would where the application returns.
pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    match shared.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
        Err(TryLockError::WouldBlock) => {
            end_copies();
            shared.lock().unpoisoned()
        }
    }
}

/// From now on no other thread holds `lock` while the process forks, whichever code forks it: so
/// the child can take the lock. A thread that holds `lock` must not wait for the interpreter, which
/// the forking thread may hold. There is one such lock; a second call with another changes nothing.
pub fn hold_at_forks(lock: &'static Mutex<()>) {
    HELD_AT_FORKS.get_or_init(|| lock);
    notice_copies();
}

/// From now on a copy notices that it is one, and gives the server's signal handlers up.
pub(super) fn notice_copies() {
    static REGISTERED: Once = Once::new();
    extern "C" fn before() {
        HELD.set(HELD_AT_FORKS.get().map(|lock| lock.lock().unpoisoned()));
    }
    extern "C" fn in_parent() {
        HELD.take();
    }
    extern "C" fn in_child() {
        HELD.take();
        if !IS_FORKING.get() {
            IS_COPY.store(true, Relaxed);
            signal::leave_to_copy();
        }
    }
    REGISTERED.call_once(|| {
        // SAFETY: in the child the handler lets go of a lock that this very thread has, stores to
        // atomics and calls sigaction(2); all are safe in the child of any process
        // (signal-safety(7)). The registration fails only if there is no memory. Copies then go
        // unnoticed, as under other servers.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    });
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

    use super::*;

    static OF_ANOTHER: Mutex<()> = Mutex::new(());
    static FREE: Mutex<()> = Mutex::new(());

    /// Forks as an application does, and gives the status with which the copy ends after `action`;
    /// `None` if it does not.
    fn status_of_copy(action: fn() -> i32) -> Option<i32> {
        notice_copies();
        // SAFETY: the child only locks, and ends by _exit(2).
        match unsafe { unistd::fork() }.expect("a fork") {
            ForkResult::Child => process::exit_now(action()),
            ForkResult::Parent { child } => {
                let end = Instant::now() + Duration::from_secs(10);
                while Instant::now() < end {
                    if let WaitStatus::Exited(_, status) = waitpid(child, Some(WaitPidFlag::WNOHANG)).expect("ours") {
                        return Some(status);
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                let _ = nix::sys::signal::kill(child, nix::sys::signal::SIGKILL);
                let _ = waitpid(child, None);
                None
            }
        }
    }

    #[test]
    fn a_copy_ends_at_a_lock_that_nobody_in_it_holds() {
        let (held, is_held) = mpsc::channel();
        let (over, is_over) = mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            let _guard = OF_ANOTHER.lock();
            held.send(()).expect("the test waits");
            let _ = is_over.recv();
        });
        is_held.recv().expect("the thread holds it");
        let ended = status_of_copy(|| {
            drop(lock(&OF_ANOTHER));
            3
        });
        drop(over);
        holder.join().expect("the thread ends");
        assert_eq!(ended, Some(0));
        let went_on = status_of_copy(|| {
            drop(lock(&FREE));
            3
        });
        assert_eq!(went_on, Some(3), "a free lock can be had");
    }
}
