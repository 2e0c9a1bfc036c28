//! Signals as a queue: the handler writes one byte to a pipe and returns; the owner of the queue
//! reads it in its own loop.
//!
//! The pipe keeps the order in which signals came, and its reading end can be polled. The handler
//! is installed by sigaction(2), so another one (CPython's `signal.signal`) replaces it, and
//! [`take_back`] reinstalls it. A process that the application forks takes no part: its
//! dispositions are the default ones, and its signals do not reach the pipe. This module must not
//! know Python; a function that a signal must call besides is passed in ([`interrupt_with`]).

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd;

use super::fork;
use super::retry::retry;

/// The signals monoceros gives a meaning to, in the master or in a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop once the requests in flight are answered.
    Term,
    /// Stop at once (Ctrl-C).
    Int,
    /// Stop at once.
    Quit,
    /// Read the settings again, replace the workers.
    Hup,
    /// One worker more.
    Ttin,
    /// One worker less.
    Ttou,
    /// Reopen the log files.
    Usr1,
    /// Start a new program with the same sockets.
    Usr2,
    /// Stop the workers, keep the master.
    Winch,
    /// A child ended.
    Chld,
    /// A worker is over its timeout.
    Abrt,
    /// Become the new program in place, with the same pid. The first real-time signal (signal(7)).
    Rtmin,
}

impl Signal {
    /// Every signal that has a meaning here.
    pub const ALL: [Signal; 12] = [
        Signal::Term,
        Signal::Int,
        Signal::Quit,
        Signal::Hup,
        Signal::Ttin,
        Signal::Ttou,
        Signal::Usr1,
        Signal::Usr2,
        Signal::Winch,
        Signal::Chld,
        Signal::Abrt,
        Signal::Rtmin,
    ];

    /// The signals that stop the server, in the master and in a worker.
    pub const STOPS: [Signal; 3] = [Signal::Term, Signal::Int, Signal::Quit];

    /// The name as gunicorn's log shows it ("hup").
    pub fn name(self) -> &'static str {
        match self {
            Signal::Term => "term",
            Signal::Int => "int",
            Signal::Quit => "quit",
            Signal::Hup => "hup",
            Signal::Ttin => "ttin",
            Signal::Ttou => "ttou",
            Signal::Usr1 => "usr1",
            Signal::Usr2 => "usr2",
            Signal::Winch => "winch",
            Signal::Chld => "chld",
            Signal::Abrt => "abrt",
            Signal::Rtmin => "rtmin",
        }
    }

    /// The kernel's number (signal(7)).
    pub fn number(self) -> i32 {
        match self {
            Signal::Term => libc::SIGTERM,
            Signal::Int => libc::SIGINT,
            Signal::Quit => libc::SIGQUIT,
            Signal::Hup => libc::SIGHUP,
            Signal::Ttin => libc::SIGTTIN,
            Signal::Ttou => libc::SIGTTOU,
            Signal::Usr1 => libc::SIGUSR1,
            Signal::Usr2 => libc::SIGUSR2,
            Signal::Winch => libc::SIGWINCH,
            Signal::Chld => libc::SIGCHLD,
            Signal::Abrt => libc::SIGABRT,
            // The C library keeps the lowest real-time signals for itself, so it tells the first
            // free number.
            Signal::Rtmin => libc::SIGRTMIN(),
        }
    }

    /// The signal with this number, if it is one that has a meaning here.
    pub fn from_number(number: i32) -> Option<Signal> {
        Signal::ALL.into_iter().find(|signal| signal.number() == number)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The pending signals of this process. Dropping the queue stops the collecting. The signals that
/// it collected then have no effect, instead of being fatal: the handler stays, and finds no pipe.
#[derive(Debug)]
pub struct SignalQueue {
    read: OwnedFd,
    write: OwnedFd,
}

/// The signals whose handler must be ours: bit `n` stands for signal number `n`.
static COLLECTED: AtomicU64 = AtomicU64::new(0);

/// Where the handler writes: the writing end of the queue that was made last. -1 without one.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Whether TERM has come since the process began to collect it.
static TERM_CAME: AtomicBool = AtomicBool::new(false);

/// The signals that also interrupt what runs: bit `n` stands for signal number `n`.
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// The function that interrupts. It must be safe to call in a signal handler (signal-safety(7)).
static INTERRUPT: OnceLock<fn(i32)> = OnceLock::new();

impl SignalQueue {
    /// Starts to collect `signals`, in place of any queue before. Fails when no pipe can be made or
    /// a handler cannot be installed.
    pub fn new(signals: &[Signal]) -> io::Result<SignalQueue> {
        fork::notice_copies();
        let (read, write) = unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        PIPE.store(write.as_raw_fd(), Relaxed);
        COLLECTED.store(bits(signals), Relaxed);
        signals.iter().try_for_each(|signal| install(signal.number(), handler(signal.number())))?;
        Ok(SignalQueue { read, write })
    }

    /// In a forked child: gives up everything inherited and starts a queue of its own, so that no
    /// signal of the child is ever written to the parent's pipe. A signal that is no longer
    /// collected gets its default disposition. Call it while signals are still blocked.
    pub fn replace_after_fork(self, signals: &[Signal]) -> io::Result<SignalQueue> {
        TERM_CAME.store(false, Relaxed);
        INTERRUPTING.store(0, Relaxed);
        let dropped = collected().filter(|signal| !signals.contains(signal));
        dropped.into_iter().try_for_each(|signal| install(signal.number(), default()))?;
        SignalQueue::new(signals)
    }

    /// In a forked child that is about to become another program: collects no signals any longer.
    /// Call it while signals are still blocked.
    pub fn abandon_after_fork(&mut self) {
        PIPE.store(-1, Relaxed);
    }

    /// The oldest pending signal, None when there is none.
    pub fn next(&self) -> Option<Signal> {
        loop {
            let mut byte = [0];
            let read = retry(|| Ok(unistd::read(&self.read, &mut byte)?));
            if !matches!(read, Ok(Some(1))) {
                return None;
            }
            if let Some(signal) = Signal::from_number(byte[0].into()) {
                return Some(signal);
            }
        }
    }
}

impl Drop for SignalQueue {
    fn drop(&mut self) {
        // Unless another queue has taken its place.
        let _ = PIPE.compare_exchange(self.write.as_raw_fd(), -1, Relaxed, Relaxed);
    }
}

impl AsRawFd for SignalQueue {
    /// Readable when a signal is pending.
    fn as_raw_fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }
}

/// The signals that are collected in this process.
pub fn collected() -> impl Iterator<Item = Signal> {
    let bits = COLLECTED.load(Relaxed);
    Signal::ALL.into_iter().filter(move |signal| bits & bit(signal.number()) != 0)
}

/// Reinstalls the handler wherever it was replaced; the replacement is no longer called. Returns
/// whether there was one.
pub fn take_back() -> io::Result<bool> {
    let mut was_replaced = false;
    for signal in collected() {
        if !is_ours(&installed(signal.number())?) {
            install(signal.number(), handler(signal.number()))?;
            was_replaced = true;
        }
    }
    Ok(was_replaced)
}

/// Puts a signal into the queue as if it had come, for another handler that stands in for ours.
/// Safe in a signal handler.
pub fn push(signal: Signal) {
    push_number(signal.number());
}

/// From now on exactly `signals` also call `interrupt`, from within the signal handler: it must do
/// only what signal-safety(7) allows. Later calls change the signals, not the function.
pub fn interrupt_with(interrupt: fn(i32), signals: &[Signal]) {
    INTERRUPT.get_or_init(|| interrupt);
    INTERRUPTING.store(bits(signals), Relaxed);
    // Both calls fail for an unknown signal only.
    for number in collected().map(Signal::number) {
        if installed(number).is_ok_and(|action| is_ours(&action)) {
            let _ = install(number, handler(number));
        }
    }
}

/// Whether TERM has come since the process began to collect it, also while the owner of the queue
/// is too busy to read it.
pub fn term_has_come() -> bool {
    TERM_CAME.load(Relaxed)
}

/// In a process that the application has forked (a copy of this one): gives every signal that the
/// handler was installed for its default disposition, and makes the pipe unreachable. Does only
/// what signal-safety(7) allows.
pub fn leave_to_copy() {
    PIPE.store(-1, Relaxed);
    for signal in Signal::ALL {
        if installed(signal.number()).is_ok_and(|action| is_ours(&action)) {
            let _ = install(signal.number(), default());
        }
    }
}

extern "C" fn collect(number: i32) {
    let errno = Errno::last_raw();
    if fork::is_copy() {
        // Other code, such as faulthandler, has put this handler back. In a copy the default
        // disposition holds for every signal.
        let _ = install(number, default());
        // SAFETY: raise(3) touches no memory.
        unsafe { libc::raise(number) };
    } else {
        push_number(number);
        if INTERRUPTING.load(Relaxed) & bit(number) != 0
            && let Some(interrupt) = INTERRUPT.get()
        {
            interrupt(number);
        }
    }
    Errno::set_raw(errno);
}

fn push_number(number: i32) {
    if number == libc::SIGTERM {
        TERM_CAME.store(true, Relaxed);
    }
    let byte = number as u8;
    // SAFETY: one byte is read, from a place that lives until the call returns. A pipe that is
    // closed or -1 is answered with EBADF; one that is full holds more signals than have yet been
    // read.
    unsafe { libc::write(PIPE.load(Relaxed), (&raw const byte).cast(), 1) };
}

/// The bit of a signal's number; those of real-time signals fit as well (signal(7): 64 at most).
fn bit(number: i32) -> u64 {
    1_u64.checked_shl(number as u32).unwrap_or(0)
}

fn bits(signals: &[Signal]) -> u64 {
    signals.iter().fold(0, |bits, signal| bits | bit(signal.number()))
}

/// The handler's disposition for this signal. SA_RESTART: a TERM must not disturb a request by
/// EINTR. A signal that is to interrupt the request must: a system call that waits for another
/// program would go on instead. Other signals are blocked meanwhile, so that their handlers need no
/// stack of their own.
fn handler(number: i32) -> libc::sigaction {
    let mut action = default();
    // SAFETY: the set is a whole one; sigfillset(3) only writes to it.
    unsafe { libc::sigfillset(&mut action.sa_mask) };
    action.sa_sigaction = collect as *const () as libc::sighandler_t;
    action.sa_flags = if INTERRUPTING.load(Relaxed) & bit(number) == 0 { libc::SA_RESTART } else { 0 };
    action
}

fn default() -> libc::sigaction {
    // SAFETY: sigaction is plain data for which zeroes are valid: SIG_DFL, no flags, an empty mask.
    unsafe { std::mem::zeroed() }
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == collect as *const () as libc::sighandler_t
}

fn install(number: i32, action: libc::sigaction) -> io::Result<()> {
    // SAFETY: `action` is a whole sigaction whose handler is SIG_DFL, SIG_IGN, or `collect`, which
    // does only what signal-safety(7) allows.
    Errno::result(unsafe { libc::sigaction(number, &action, std::ptr::null_mut()) })?;
    Ok(())
}

fn installed(number: i32) -> io::Result<libc::sigaction> {
    let mut current = default();
    // SAFETY: the call only fills `current` in.
    Errno::result(unsafe { libc::sigaction(number, std::ptr::null(), &mut current) })?;
    Ok(current)
}

/// Ends the process after `seconds`, unless [`call_off_end`] is called before. It uses SIGALRM,
/// whose former disposition is lost; another handler for that signal, installed meanwhile, also
/// prevents the end. Safe in a signal handler.
pub fn end_process_after(seconds: u32) {
    extern "C" fn end(_: i32) {
        // SAFETY: _exit(2) runs no code of ours.
        unsafe { libc::_exit(0) };
    }
    let mut action = default();
    action.sa_sigaction = end as *const () as libc::sighandler_t;
    // SAFETY: `end` only calls _exit(2), which signal-safety(7) allows; alarm(2) touches no memory.
    unsafe {
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
        libc::alarm(seconds);
    }
}

/// Takes [`end_process_after`] back.
pub fn call_off_end() {
    // SAFETY: alarm(2) touches no memory.
    unsafe { libc::alarm(0) };
}

/// Makes a write(2) past the limit of a file's size an error, as in CPython, and not the end of the
/// process (SIGXFSZ).
pub fn ignore_file_size_limit() {
    let mut action = default();
    action.sa_sigaction = libc::SIG_IGN;
    // It fails only for a number that is no signal.
    let _ = install(libc::SIGXFSZ, action);
}

/// Lets faults end the process. The runtime of Rust installs handlers that return from a fault
/// which is not a stack overflow, because the instruction will fault again. A SIGSEGV sent by
/// kill(2) does not come again, and would be lost.
pub fn end_at_faults() {
    for number in [libc::SIGSEGV, libc::SIGBUS] {
        let _ = install(number, default());
    }
    use_one_stack();
}

/// Disables the alternate signal stack that the runtime of Rust has given this thread. It is made
/// for one small handler. CPython's handlers run there too (SA_ONSTACK), one within the other, and
/// three of them overflow it.
pub fn use_one_stack() {
    // SAFETY: a stack_t is plain data; SS_DISABLE asks for no memory. Outside a handler the call
    // cannot fail.
    unsafe {
        let mut none: libc::stack_t = std::mem::zeroed();
        none.ss_flags = libc::SS_DISABLE;
        libc::sigaltstack(&none, std::ptr::null_mut());
    }
}

/// Signals blocked by [`block_all`], with the mask to restore.
#[derive(Debug)]
#[must_use = "signals stay blocked until restore()"]
pub struct Blocked(SigSet);

/// Blocks every signal until [`Blocked::restore`]: around a fork, so that the child takes none
/// before it has a queue of its own.
pub fn block_all() -> io::Result<Blocked> {
    let mut old = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut old))?;
    Ok(Blocked(old))
}

impl Blocked {
    /// Unblocks the signals.
    pub fn restore(self) -> io::Result<()> {
        Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None)?)
    }
}

/// Gives SIGCHLD its default disposition: the process that started us may have ignored it, and then
/// the kernel discards the exit statuses of the workers (wait(2)).
pub fn reset_inherited() -> io::Result<()> {
    // SAFETY: no handler of ours is installed yet, and SIG_DFL needs none.
    if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Unblocks every signal, whatever mask the process was started with. After an exec in place
/// signals may be pending, so the queue must exist before.
pub fn unblock_all() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fork::{Forked, fork};
    use crate::sys::process::{End, exit_now, reap};
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;

    /// Signals belong to the process, which all tests share: one of them at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    fn alone() -> std::sync::MutexGuard<'static, ()> {
        ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// To this thread, so that the handler has run when the call returns.
    fn raise(signal: Signal) {
        nix::sys::signal::raise(nix::sys::signal::Signal::try_from(signal.number()).unwrap()).unwrap();
    }

    fn pending(queue: &SignalQueue) -> Vec<Signal> {
        std::iter::from_fn(|| queue.next()).collect()
    }

    #[test]
    fn signals_come_in_their_order_and_are_counted() {
        let _alone = alone();
        let queue = SignalQueue::new(&[Signal::Ttin, Signal::Ttou, Signal::Winch]).unwrap();
        let sent = [Signal::Ttin, Signal::Ttin, Signal::Ttou, Signal::Winch, Signal::Ttin];
        sent.into_iter().for_each(raise);
        assert_eq!(pending(&queue), sent);
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn every_signal_has_its_own_number_and_name() {
        for signal in Signal::ALL {
            assert_eq!(Signal::from_number(signal.number()), Some(signal));
            // Real-time signals have numbers only.
            if signal == Signal::Rtmin {
                continue;
            }
            assert_eq!(
                format!("SIG{}", signal.name().to_uppercase()),
                super::super::process::signal_name(signal.number()).unwrap()
            );
        }
    }

    #[test]
    fn nothing_of_a_forked_child_reaches_its_parent() {
        let _alone = alone();
        let queue = SignalQueue::new(&[Signal::Usr2, Signal::Winch]).unwrap();
        let held = block_all().unwrap();
        let Forked::Parent(child) = fork().unwrap() else {
            // The child does only what a fork of a process with threads may do: no assertion that
            // prints, just a status.
            raise(Signal::Winch);
            let Ok(own) = queue.replace_after_fork(&[Signal::Usr2]) else { exit_now(1) };
            raise(Signal::Usr2);
            let Ok(()) = held.restore() else { exit_now(2) };
            // The child does not collect WINCH, so it has no effect. USR2 was blocked across the
            // fork and belongs to the child alone.
            exit_now(if pending(&own) == [Signal::Usr2] { 0 } else { 3 });
        };
        held.restore().unwrap();
        let end = loop {
            match reap(child) {
                Some(end) => break end,
                None => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        };
        assert_eq!((end, pending(&queue)), (End::Exited(0), vec![]));
    }

    #[test]
    fn blocked_signals_wait() {
        let _alone = alone();
        let queue = SignalQueue::new(&[Signal::Ttou]).unwrap();
        let held = block_all().unwrap();
        raise(Signal::Ttou);
        assert_eq!(queue.next(), None);
        held.restore().unwrap();
        assert_eq!(queue.next(), Some(Signal::Ttou));
    }

    #[test]
    fn a_handler_installed_meanwhile_runs_until_ours_is_reinstalled() {
        let _alone = alone();
        static CALLS: AtomicU32 = AtomicU32::new(0);
        extern "C" fn count(_: i32) {
            CALLS.fetch_add(1, Relaxed);
        }
        let queue = SignalQueue::new(&[Signal::Hup, Signal::Usr1]).unwrap();
        assert!(!take_back().unwrap());
        // SAFETY: the handler only counts.
        unsafe { libc::signal(libc::SIGHUP, count as *const () as libc::sighandler_t) };
        raise(Signal::Hup);
        assert_eq!((CALLS.load(Relaxed), pending(&queue)), (1, vec![]));
        assert!(take_back().unwrap());
        raise(Signal::Hup);
        push(Signal::Usr1);
        assert_eq!((CALLS.load(Relaxed), pending(&queue)), (1, vec![Signal::Hup, Signal::Usr1]));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "only a fork of other code makes a copy")]
    fn a_copy_of_the_process_has_default_dispositions_and_no_pipe() {
        let _alone = alone();
        let queue = SignalQueue::new(&[Signal::Usr2, Signal::Winch]).unwrap();
        for number in [libc::SIGUSR2, libc::SIGWINCH] {
            // SAFETY: the child does only what signal-safety(7) allows.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: raise(3) touches no memory.
                unsafe { libc::raise(number) };
                exit_now(0);
            }
            let end = loop {
                match reap(crate::sys::process::Pid::from_raw(child)) {
                    Some(end) => break end,
                    None => std::thread::sleep(std::time::Duration::from_millis(5)),
                }
            };
            let expected = if number == libc::SIGUSR2 { End::Killed(number) } else { End::Exited(0) };
            assert_eq!((end, pending(&queue)), (expected, vec![]));
        }
    }
}
