//! Standard streams and other descriptors to write to, without blocking and without changing what
//! other processes see of them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::sys::socket::{MsgFlags, send};
use nix::unistd;

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

/// Makes file descriptors 1 and 2 refer to the open file of `target`.
pub fn redirect_standard_streams(target: impl AsFd) -> io::Result<()> {
    unistd::dup2_stdout(target.as_fd())?;
    unistd::dup2_stderr(target.as_fd())?;
    Ok(())
}
