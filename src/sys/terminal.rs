//! A terminal whose keys are read one by one (termios(3)), and whose state is restored afterwards.

use std::io::{self, IsTerminal};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd;

use super::poll::{Readiness, wait_until_ready};

/// TERM or HUP has come: the terminal is to be restored before the process ends.
static IS_TOLD_TO_END: AtomicBool = AtomicBool::new(false);

extern "C" fn note_end(_: libc::c_int) {
    IS_TOLD_TO_END.store(true, Relaxed);
}

/// Standard input as a source of single keys, until drop, also by a panic.
#[derive(Debug)]
pub struct Keys {
    before: libc::termios,
}

impl Keys {
    /// From now on keys come as they are pressed, and none is shown; Ctrl-C is a key like others.
    /// TERM and HUP end the input instead of the process. `None` if standard input or output is no
    /// terminal.
    pub fn new() -> Option<Keys> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return None;
        }
        let mut before = MaybeUninit::<libc::termios>::zeroed();
        // SAFETY: the kernel fills one live value, which zeroes made valid before.
        Errno::result(unsafe { libc::tcgetattr(libc::STDIN_FILENO, before.as_mut_ptr()) }).ok()?;
        // SAFETY: as above.
        let before = unsafe { before.assume_init() };
        let mut raw = before;
        raw.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
        let note = SigAction::new(SigHandler::Handler(note_end), SaFlags::empty(), SigSet::empty());
        for signal in [Signal::SIGTERM, Signal::SIGHUP] {
            // SAFETY: the handler stores one value, which is permitted in any place
            // (signal-safety(7)).
            unsafe { sigaction(signal, &note) }.ok()?;
        }
        set(&raw);
        Some(Keys { before })
    }

    /// The next key, if one comes within `timeout`. The end of input counts as `q`.
    pub fn next(&self, timeout: Duration) -> Option<u8> {
        // A signal (the window's size has changed) ends the wait like a timeout.
        let has_key = wait_until_ready(io::stdin().as_raw_fd(), Readiness::ToRead, timeout).unwrap_or(false);
        if IS_TOLD_TO_END.load(Relaxed) {
            return Some(b'q');
        }
        if !has_key {
            return None;
        }
        let mut key = [0];
        // Past std's buffer: bytes that lie there are unknown to the poll.
        match unistd::read(io::stdin(), &mut key) {
            Ok(0) | Err(_) => Some(b'q'),
            Ok(_) => Some(key[0]),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        set(&self.before);
    }
}

/// Columns and rows of the terminal at standard output (ioctl_tty(2), TIOCGWINSZ).
pub fn size() -> Option<(usize, usize)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills one live value.
    Errno::result(unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) }).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

fn set(state: &libc::termios) {
    // SAFETY: the kernel reads one live value. It can only fail where the terminal is gone.
    let _ = unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, state) };
}
