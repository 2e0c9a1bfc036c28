//! poll(2) for one descriptor.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use nix::errno::Errno;

/// What a descriptor can be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Bytes, or the end, can be read.
    ToRead,
    /// There is room for bytes.
    ToWrite,
}

/// Waits until `descriptor` is ready, or broken, or closed, for at most `timeout`; returns whether
/// it is.
///
/// # Errors
/// Interrupted by a signal.
pub fn wait_until_ready(descriptor: RawFd, readiness: Readiness, timeout: Duration) -> io::Result<bool> {
    let events = match readiness {
        Readiness::ToRead => libc::POLLIN,
        Readiness::ToWrite => libc::POLLOUT,
    };
    poll(descriptor, events, timeout)
}

/// Whether the other end is known to be gone for good: a peer that has reset the connection or, on
/// a unix socket or a pipe, closed it. A TCP peer that has only ended its side is not.
pub fn is_hung_up(descriptor: RawFd) -> bool {
    // POLLHUP and POLLERR are reported without being asked for.
    poll(descriptor, 0, Duration::ZERO).unwrap_or(false)
}

fn poll(descriptor: RawFd, events: libc::c_short, timeout: Duration) -> io::Result<bool> {
    let mut polled = libc::pollfd { fd: descriptor, events, revents: 0 };
    // Rounded up: a wait of half a millisecond must not become none.
    let milliseconds = timeout.as_micros().div_ceil(1000).try_into().unwrap_or(i32::MAX);
    // SAFETY: the kernel reads and writes one pollfd, which lives until the call returns; a number
    // that is no descriptor is reported in it.
    Ok(Errno::result(unsafe { libc::poll(&raw mut polled, 1, milliseconds) })? > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_is_readable_once_bytes_are_there_and_hung_up_once_its_peer_is_closed() {
        let (socket, mut peer) = UnixStream::pair().unwrap();
        let is_ready = |readiness| wait_until_ready(socket.as_raw_fd(), readiness, Duration::ZERO).unwrap();
        assert!(is_ready(Readiness::ToWrite) && !is_ready(Readiness::ToRead));
        peer.write_all(b"a").unwrap();
        assert!(is_ready(Readiness::ToRead) && !is_hung_up(socket.as_raw_fd()));
        drop(peer);
        assert!(is_hung_up(socket.as_raw_fd()));
    }
}
