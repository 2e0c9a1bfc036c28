//! Standard streams and other descriptors to write to, without blocking and without changing what
//! other processes see of them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use nix::fcntl::OFlag;
use nix::sys::socket::{MsgFlags, send};
use nix::unistd;

use crate::base::unpoisoned::Unpoisoned;

/// Writes of at most this many bytes to a pipe are never mixed with those of another process
/// (pipe(7)).
pub const ATOMIC_WRITE: usize = libc::PIPE_BUF;

/// Sends what a socket takes of `bytes` (send(2)), without blocking whatever its flags, and without
/// SIGPIPE.
pub fn send_without_waiting(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(socket.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?)
}

/// The pipe behind `shared`, opened again through /proc for writing, so that O_NONBLOCK holds for
/// the returned file alone. Fails without /proc, or where the pipe belongs to another user.
pub fn reopen_pipe(shared: &File) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(format!("/proc/self/fd/{}", shared.as_raw_fd()))
}

/// Makes `descriptor` refer to the open file of `target`; its number stays (dup3(2)).
pub fn redirect(descriptor: &mut OwnedFd, target: impl AsFd) -> io::Result<()> {
    Ok(unistd::dup3(target, descriptor, OFlag::O_CLOEXEC)?)
}

/// What file descriptors 1 and 2 referred to before they were captured, where they were open.
static BEFORE_CAPTURE: Mutex<Option<[Option<OwnedFd>; 2]>> = Mutex::new(None);

/// Makes file descriptors 1 and 2 refer to the open file of `target`, until
/// [`release_standard_streams`].
pub fn capture_standard_streams(target: impl AsFd) -> io::Result<()> {
    let mut before = BEFORE_CAPTURE.lock().unpoisoned();
    if before.is_none() {
        let streams = [io::stdout().as_fd().try_clone_to_owned(), io::stderr().as_fd().try_clone_to_owned()];
        *before = Some(streams.map(Result::ok));
    }
    unistd::dup2_stdout(target.as_fd())?;
    unistd::dup2_stderr(target.as_fd())?;
    Ok(())
}

/// In a worker, which never releases them: whoever reads the streams is to see their end.
pub fn forget_captured_streams() {
    let mut before = BEFORE_CAPTURE.lock().unpoisoned();
    *before = before.take().map(|_| [None, None]);
}

/// Makes file descriptors 1 and 2 refer to what they referred to before they were captured. A
/// program that is executed begins with what it finds there.
pub fn release_standard_streams() -> io::Result<()> {
    if let Some([output, error]) = BEFORE_CAPTURE.lock().unpoisoned().take() {
        output.map(unistd::dup2_stdout).transpose()?;
        error.map(unistd::dup2_stderr).transpose()?;
    }
    Ok(())
}
