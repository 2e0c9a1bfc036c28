//! The end of a worker class that accepts by itself: its listeners fall silent first.
//!
//! Such a class closes its connections when TERM comes, also one whose request is on its way. So
//! another signal comes first. Its handler puts a socket that nothing connects to in the place of
//! each listener, and has the kernel send TERM a moment later. Siblings take the connections that
//! come meanwhile. The handler does only what signal-safety(7) allows. This module must not know
//! why the process ends.

use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;

use super::fork;
use super::signal::Signal;

/// The time between the last accept and TERM, in which the requests of accepted connections come
/// and are read.
const TERM_COMES_AFTER: Duration = Duration::from_millis(150);

/// What the handler needs.
struct Plan {
    listeners: Vec<Listener>,
    /// A listening socket that nothing connects to.
    silent: OwnedFd,
    /// Sends TERM to this process.
    timer: Timer,
}

/// A listener of this process, which the class may have closed when the handler runs.
struct Listener {
    descriptor: RawFd,
    /// Tells whether the descriptor still is that socket's.
    inode: libc::ino_t,
}

/// A timer of the kernel's (timer_create(2)).
struct Timer(libc::timer_t);

// SAFETY: it is a name for the kernel, which any thread may use; nothing lies behind the pointer.
unsafe impl Send for Timer {}
// SAFETY: as above.
unsafe impl Sync for Timer {}

static PLAN: OnceLock<Plan> = OnceLock::new();

/// From now on `signal` silences `listeners`, and TERM follows. Called once in a process; later
/// calls change nothing but the handler.
///
/// # Errors
/// What the kernel refuses: a descriptor, a timer, a handler.
pub fn on(signal: Signal, listeners: &[RawFd]) -> io::Result<()> {
    let listeners = listeners.iter().map(|&descriptor| Ok(Listener { descriptor, inode: inode(descriptor)? }));
    let plan =
        Plan { listeners: listeners.collect::<io::Result<_>>()?, silent: silent_socket()?, timer: Timer::of_term()? };
    let _ = PLAN.set(plan);
    let action = libc::sigaction {
        sa_sigaction: stop as *const () as libc::sighandler_t,
        sa_flags: libc::SA_RESTART,
        // SAFETY: zeroes are a valid sigaction: no mask, no restorer.
        ..unsafe { zeroed() }
    };
    // SAFETY: the handler does only what signal-safety(7) allows.
    Errno::result(unsafe { libc::sigaction(signal.number(), &action, null_mut()) })?;
    Ok(())
}

extern "C" fn stop(_: i32) {
    let errno = Errno::last_raw();
    // In a copy that the application has forked the signal has no effect.
    if !fork::is_copy()
        && let Some(plan) = PLAN.get()
    {
        for listener in &plan.listeners {
            listener.silence(plan.silent.as_raw_fd());
        }
        plan.timer.start();
    }
    Errno::set_raw(errno);
}

impl Listener {
    fn silence(&self, silent: RawFd) {
        if inode(self.descriptor).is_ok_and(|inode| inode == self.inode) {
            // SAFETY: the descriptor is the class's listener, which stays open under this number.
            unsafe { libc::dup3(silent, self.descriptor, libc::O_CLOEXEC) };
        }
    }
}

impl Timer {
    fn of_term() -> io::Result<Timer> {
        // SAFETY: zeroes are a valid sigevent.
        let mut event: libc::sigevent = unsafe { zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGTERM;
        let mut timer = null_mut();
        // SAFETY: the call reads the event and writes the timer's name.
        Errno::result(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) })?;
        Ok(Timer(timer))
    }

    fn start(&self) {
        let once = libc::timespec { tv_sec: 0, tv_nsec: TERM_COMES_AFTER.subsec_nanos().into() };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let when = libc::itimerspec { it_interval: never, it_value: once };
        // SAFETY: the timer lives as long as the process; the call only reads `when`.
        unsafe { libc::timer_settime(self.0, 0, &when, null_mut()) };
    }
}

/// A listening socket whose name the kernel has chosen and nobody is told (unix(7), autobind).
fn silent_socket() -> io::Result<OwnedFd> {
    let socket = UnixListener::bind_addr(&SocketAddr::from_pathname("")?)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The inode of an open descriptor. Safe in a signal handler.
fn inode(descriptor: RawFd) -> io::Result<libc::ino_t> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the call only writes to `status`.
    Errno::result(unsafe { libc::fstat(descriptor, status.as_mut_ptr()) })?;
    // SAFETY: it has succeeded, so it has filled `status` in.
    Ok(unsafe { status.assume_init() }.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silenced_listener_has_nothing_to_accept_and_another_descriptor_is_left_alone() {
        let (silent, other) = (silent_socket().unwrap(), OwnedFd::from(UnixListener::bind_addr(&autobound()).unwrap()));
        let inode_before = inode(other.as_raw_fd()).unwrap();
        let closed = Listener { descriptor: other.as_raw_fd(), inode: inode_before + 1 };
        closed.silence(silent.as_raw_fd());
        assert_eq!(inode(other.as_raw_fd()).unwrap(), inode_before);

        Listener { descriptor: other.as_raw_fd(), inode: inode_before }.silence(silent.as_raw_fd());
        assert_eq!(inode(other.as_raw_fd()).unwrap(), inode(silent.as_raw_fd()).unwrap());
        let error = UnixListener::from(other).accept().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    fn autobound() -> SocketAddr {
        SocketAddr::from_pathname("").unwrap()
    }
}
