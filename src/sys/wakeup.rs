//! A pipe that carries no data and only wakes: a worker tells the master with it that its
//! scoreboard row changed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::unistd;

/// The writing end. Clones of the process (forks) share it.
#[derive(Debug)]
pub struct Wakeup(OwnedFd);

/// The reading end, for the reader's poll.
#[derive(Debug)]
pub struct WakeupReceiver(OwnedFd);

/// Makes the two ends: non-blocking and closed on exec.
pub fn pair() -> io::Result<(Wakeup, WakeupReceiver)> {
    let (read, write) = unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    Ok((Wakeup(write), WakeupReceiver(read)))
}

impl Wakeup {
    /// Another handle of the writing end.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Wakeup> {
        self.0.try_clone().map(Wakeup)
    }

    /// Wakes the reader. A full pipe needs no further byte: the reader has a wake-up pending. A
    /// reader that is gone needs none.
    pub fn wake(&self) {
        let _ = unistd::write(&self.0, &[0]);
    }
}

impl WakeupReceiver {
    /// Takes every pending wake-up, so that an edge-triggered poll reports the next one.
    pub fn drain(&self) {
        let mut bytes = [0; 256];
        while unistd::read(&self.0, &mut bytes).is_ok_and(|count| count > 0) {}
    }
}

impl AsRawFd for Wakeup {
    /// Any byte that is written to it wakes the reader.
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsRawFd for WakeupReceiver {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wake_ups_are_drained_at_once_and_a_full_pipe_does_not_block() {
        let (wakeup, receiver) = pair().unwrap();
        for _ in 0..100_000 {
            wakeup.wake();
        }
        receiver.drain();
        let mut byte = [0];
        assert_eq!(unistd::read(&receiver.0, &mut byte), Err(nix::errno::Errno::EAGAIN));
    }
}
