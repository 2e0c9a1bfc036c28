//! Signals as a queue: the handler writes one byte to a pipe and leaves; whoever owns the queue decides in its own loop.
//!
//! The pipe keeps the order in which signals came, and its reading end fits a poll. A forked child shares the pipe with its
//! parent until it replaces the queue, so signals stay blocked across the fork (see [`block_all`]).

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd;
use signal_hook::SigId;
use signal_hook::low_level;

/// The signals monoceros gives a meaning to, in the master or in a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop when what is in flight is done.
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
    /// Open the log files again.
    Usr1,
    /// Start a new program over the same sockets.
    Usr2,
    /// Stop the workers, keep the master.
    Winch,
    /// A child ended.
    Chld,
    /// A worker is past its time.
    Abrt,
    /// Become the new program in place, with the same pid. The first real-time signal (signal(7)).
    Rtmin,
}

impl Signal {
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
            // The C library keeps the lowest ones for itself, so the number is its to say.
            Signal::Rtmin => libc::SIGRTMIN(),
        }
    }

    fn from_number(number: i32) -> Option<Signal> {
        ALL.into_iter().find(|signal| signal.number() == number)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

const ALL: [Signal; 12] = [
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

/// The pending signals of this process. Dropping it stops the collecting; the signals it had asked for are from then on
/// ignored, not fatal (signal-hook leaves its empty handler in place).
#[derive(Debug)]
pub struct SignalQueue {
    read: OwnedFd,
    write: OwnedFd,
    actions: Vec<SigId>,
    collected: Vec<Signal>,
}

impl SignalQueue {
    /// Starts to collect `signals`. Fails when no pipe can be made or a handler cannot be installed.
    pub fn new(signals: &[Signal]) -> io::Result<SignalQueue> {
        let (read, write) = unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let mut queue = SignalQueue { read, write, actions: Vec::new(), collected: Vec::new() };
        for &signal in signals {
            queue.add(signal)?;
        }
        Ok(queue)
    }

    /// In a forked child: gives up everything inherited and starts a queue of its own, so that no signal of the child is
    /// ever written to the parent's pipe. Call it while signals are still blocked.
    pub fn replace_after_fork(self, signals: &[Signal]) -> io::Result<SignalQueue> {
        drop(self);
        TERM_CAME.store(false, Relaxed);
        SignalQueue::new(signals)
    }

    /// In a forked child that is about to become another program: collects nothing any more. Call it while signals are
    /// still blocked.
    pub fn abandon_after_fork(&mut self) {
        self.unregister();
    }

    /// Collects one more signal, or collects it again after someone else (CPython's `signal.signal`) has installed a
    /// handler of its own for it. That handler goes on being called as well.
    pub fn add(&mut self, signal: Signal) -> io::Result<()> {
        let before = installed_handler(signal.number())?;
        if !self.collected.contains(&signal) {
            self.register(signal)?;
        }
        self.take_back(signal.number(), before)
    }

    fn register(&mut self, signal: Signal) -> io::Result<()> {
        let pipe = self.write.as_raw_fd();
        let is_term = signal == Signal::Term;
        let byte = signal.number() as u8;
        // SAFETY: the action stores a flag and makes one write(2), which signal-safety(7) allows, and restores errno. The descriptor stays
        // open as long as the action is registered: `drop` unregisters first.
        let action = unsafe {
            low_level::register(signal.number(), move || {
                let errno = Errno::last_raw();
                if is_term {
                    TERM_CAME.store(true, Relaxed);
                }
                libc::write(pipe, (&raw const byte).cast(), 1);
                Errno::set_raw(errno);
            })
        }?;
        self.actions.push(action);
        self.collected.push(signal);
        Ok(())
    }

    /// The oldest pending signal, None when there is none.
    pub fn next(&self) -> Option<Signal> {
        loop {
            let mut byte = [0];
            match unistd::read(&self.read, &mut byte) {
                Ok(1) => {
                    if let Some(signal) = Signal::from_number(byte[0].into()) {
                        return Some(signal);
                    }
                }
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }

    fn unregister(&mut self) {
        for action in self.actions.drain(..) {
            low_level::unregister(action);
        }
    }

    /// signal-hook installs its handler once per signal and process. When another handler has replaced it since, puts it
    /// back and calls the other one from it.
    fn take_back(&mut self, number: i32, before: libc::sigaction) -> io::Result<()> {
        static HOOK: OnceLock<libc::sighandler_t> = OnceLock::new();
        let now = installed_handler(number)?;
        // The first registration of all has just installed the hook for sure.
        let hook = *HOOK.get_or_init(|| now.sa_sigaction);
        if now.sa_sigaction == hook {
            return Ok(());
        }
        let mut ours = now;
        ours.sa_sigaction = hook;
        ours.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
        // SAFETY: `ours` is a whole sigaction of this very signal with the handler signal-hook installs everywhere.
        Errno::result(unsafe { libc::sigaction(number, &ours, std::ptr::null_mut()) })?;
        if before.sa_sigaction != libc::SIG_DFL && before.sa_sigaction != libc::SIG_IGN {
            // SAFETY: the other handler was fit to be called by the kernel for this signal, and is called as it would be.
            let chain = unsafe { low_level::register(number, move || call(&before, number)) }?;
            self.actions.push(chain);
        }
        Ok(())
    }
}

impl Drop for SignalQueue {
    fn drop(&mut self) {
        self.unregister();
    }
}

impl AsRawFd for SignalQueue {
    /// Readable when a signal is pending.
    fn as_raw_fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }
}

/// Whether TERM has come since the process began to collect it, also while its owner is too busy to read the queue.
pub fn term_has_come() -> bool {
    TERM_CAME.load(Relaxed)
}

static TERM_CAME: AtomicBool = AtomicBool::new(false);

/// Signals held back by [`block_all`], and the mask to go back to.
#[derive(Debug)]
#[must_use = "signals stay blocked until restore()"]
pub struct Blocked(SigSet);

/// Holds back every signal until [`Blocked::restore`]: around a fork, so that the child takes none before it has a queue
/// of its own.
pub fn block_all() -> io::Result<Blocked> {
    let mut old = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut old))?;
    Ok(Blocked(old))
}

impl Blocked {
    /// Lets the held back signals come.
    pub fn restore(self) -> io::Result<()> {
        Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None)?)
    }
}

/// Forgets an ignored SIGCHLD that the process which started us left behind: under it the kernel would throw away the exit
/// statuses of the workers (wait(2)).
pub fn reset_inherited() -> io::Result<()> {
    // SAFETY: no handler of ours is installed yet, and SIG_DFL needs none.
    if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets every signal come, whatever mask the process was started with. After a re-exec in place signals wait behind it, so
/// the queue must be there first.
pub fn unblock_all() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

fn installed_handler(number: i32) -> io::Result<libc::sigaction> {
    // SAFETY: sigaction is plain data for which zeroes are valid; the call only fills it in.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        Errno::result(libc::sigaction(number, std::ptr::null(), &mut current))?;
        Ok(current)
    }
}

/// Calls a handler as the kernel would, but without the sender's details: CPython's own handler takes none.
fn call(handler: &libc::sigaction, number: i32) {
    // SAFETY: the address was installed as a handler of the kind its flags name (sigaction(2)), and is neither SIG_DFL
    // nor SIG_IGN. The second kind gets a valid siginfo_t that names the signal.
    unsafe {
        if handler.sa_flags & libc::SA_SIGINFO == 0 {
            let function: extern "C" fn(i32) = std::mem::transmute(handler.sa_sigaction);
            function(number);
        } else {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            info.si_signo = number;
            let function: extern "C" fn(i32, *const libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(handler.sa_sigaction);
            function(number, &info, std::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fork::{Forked, fork};
    use crate::sys::process::{End, exit_now, reap};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Signals belong to the process, and so to every test in it: one at a time.
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
        for signal in ALL {
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
            // Only what a fork of a process with threads may do: no assertion that prints, just a status.
            raise(Signal::Winch);
            let Ok(own) = queue.replace_after_fork(&[Signal::Usr2]) else { exit_now(1) };
            raise(Signal::Usr2);
            let Ok(()) = held.restore() else { exit_now(2) };
            // WINCH was not asked for: without effect. USR2 was held back across the fork and is ours alone.
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
    fn a_handler_installed_meanwhile_is_called_as_well() {
        let _alone = alone();
        static CALLS: AtomicU32 = AtomicU32::new(0);
        extern "C" fn count(_: i32) {
            CALLS.fetch_add(1, Ordering::Relaxed);
        }
        // The first registration is past, as in a worker whose master had asked for the same signal.
        let mut queue = SignalQueue::new(&[Signal::Hup]).unwrap();
        // SAFETY: the handler only counts.
        unsafe { libc::signal(libc::SIGHUP, count as *const () as libc::sighandler_t) };
        raise(Signal::Hup);
        assert_eq!((CALLS.load(Ordering::Relaxed), pending(&queue)), (1, vec![]));
        queue.add(Signal::Hup).unwrap();
        raise(Signal::Hup);
        assert_eq!(CALLS.load(Ordering::Relaxed), 2);
        assert_eq!(pending(&queue), [Signal::Hup]);
    }
}
