//! Connections, non-blocking: each method is one system call.
//!
//! Reads and writes go by way of rustix, straight to the kernel: in a process with threads the C
//! library's functions are points of cancellation (pthreads(7)), which costs two locked
//! instructions in each call.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, socketpair};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::process::Pid;
use super::tcp_info;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Ip(SocketAddr),
    /// A client on a unix socket: it has no address.
    Unix,
}

/// A connection. Non-blocking unless [`Stream::set_blocking`] says otherwise; closed on drop. A
/// peer that is gone is an error (EPIPE), never a SIGPIPE.
#[derive(Debug)]
pub struct Stream(OwnedFd);

/// When the kernel is to send the bytes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cork {
    /// At once.
    No,
    /// In one segment with the end of our side, which follows at once (MSG_MORE, send(2)). That
    /// saves both ends a segment and a wake-up. [`Stream::shutdown_write`] must follow: a close
    /// alone drops the bytes if unread ones have arrived. Without an end the kernel sends them
    /// after a fifth of a second.
    UntilShutdown,
    /// In one segment with the bytes that follow at once, by another write or from a file.
    UntilMore,
}

impl Cork {
    fn flags(self) -> SendFlags {
        match self {
            Cork::No => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            Cork::UntilShutdown | Cork::UntilMore => SendFlags::NOSIGNAL | SendFlags::DONTWAIT | SendFlags::MORE,
        }
    }
}

impl Stream {
    /// How long ago the last bytes arrived on a TCP connection, to the tick of the kernel's clock
    /// (tcp(7), TCP_INFO). Before the first read these are the bytes that wait. `None` for other
    /// sockets.
    pub fn since_last_arrival(&self) -> Option<Duration> {
        tcp_info::since_last_arrival_ms(self.as_raw_fd()).map(|milliseconds| Duration::from_millis(milliseconds.into()))
    }

    /// Reads what is there (recv(2)); 0 when the peer has ended its side. WouldBlock where nothing
    /// is, even if the descriptor is a blocking one.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(&self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(count)
    }

    /// Writes what the kernel takes of `bytes` (send(2)), and returns their number. WouldBlock
    /// where the kernel takes none, even if the descriptor is a blocking one.
    pub fn write(&self, bytes: &[u8], push: Cork) -> io::Result<usize> {
        Ok(rustix::net::send(&self.0, bytes, push.flags())?)
    }

    /// Writes what the kernel takes of several pieces in one call (sendmsg(2); at most IOV_MAX =
    /// 1024 pieces).
    pub fn write_vectored(&self, pieces: &[IoSlice<'_>], push: Cork) -> io::Result<usize> {
        Ok(rustix::net::sendmsg(&self.0, pieces, &mut SendAncillaryBuffer::default(), push.flags())?)
    }

    /// Sends up to `count` bytes of `file` from `offset`, which it advances (sendfile(2)). 0 when
    /// the file ends there. EINVAL for a kind of file that must be copied instead.
    pub fn send_file(&self, file: impl AsFd, offset: &mut u64, count: usize) -> io::Result<usize> {
        let mut position = i64::try_from(*offset).map_err(|_| Errno::EOVERFLOW)?;
        let sent = nix::sys::sendfile::sendfile64(&self.0, file, Some(&mut position), count)?;
        *offset = position as u64;
        Ok(sent)
    }

    /// Ends our side: the peer reads end of file, and may still send (shutdown(2)).
    pub fn shutdown_write(&self) -> io::Result<()> {
        Ok(nix::sys::socket::shutdown(self.0.as_raw_fd(), Shutdown::Write)?)
    }

    /// How many bytes the kernel holds that the peer has not acknowledged (TIOCOUTQ: tcp(7),
    /// unix(7)): a number that shrinks shows that the peer reads, even before there is room for
    /// another write.
    pub fn undelivered(&self) -> io::Result<usize> {
        let mut count: libc::c_int = 0;
        // SAFETY: TIOCOUTQ writes one int, to `count`, which outlives the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
        Errno::result(result)?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Makes the close drop what was not delivered and reset the connection (SO_LINGER 0,
    /// socket(7)), so that the kernel does not go on to offer it to a peer that does not read. If
    /// the option fails, the close is an ordinary one.
    pub fn reset_on_close(&self) {
        let _ = socket2::SockRef::from(&self.0).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Ends a connection over TCP by a reset at once, also where another process has a copy of the
    /// descriptor (connect(2), AF_UNSPEC). What was not delivered is dropped.
    ///
    /// # Errors
    /// It is no connection over TCP.
    pub fn reset(&self) -> io::Result<()> {
        let address = socket2::SockRef::from(&self.0).local_addr()?;
        if address.as_socket().is_none() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: zeroes are a valid sockaddr, of the family AF_UNSPEC.
        let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: the address is a live value of that length.
        Errno::result(unsafe { libc::connect(self.0.as_raw_fd(), &nowhere, length) })?;
        Ok(())
    }

    /// The process and the user at the other end of a connection on a unix socket, as they were
    /// when it connected (SO_PEERCRED, unix(7)). The pid is 0 for a process that has none here.
    pub fn peer_process(&self) -> Option<(Pid, u32)> {
        let found = nix::sys::socket::getsockopt(&self.0, PeerCredentials).ok()?;
        Some((Pid::from_raw(found.pid()), found.uid()))
    }

    /// Two streams that are each other's peers, both non-blocking and closed on exec
    /// (socketpair(2)).
    pub fn pair() -> io::Result<(Stream, Stream)> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        Ok((Stream(one), Stream(other)))
    }

    /// Another descriptor of the same connection.
    pub fn duplicate(&self) -> io::Result<Stream> {
        self.0.try_clone().map(Stream)
    }

    /// Makes reads and writes wait, or not.
    pub fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        socket2::SockRef::from(&self.0).set_nonblocking(!blocking)
    }
}

impl From<OwnedFd> for Stream {
    fn from(fd: OwnedFd) -> Stream {
        Stream(fd)
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads the address that accept(2) has filled in.
pub(super) fn peer(storage: &libc::sockaddr_storage) -> Peer {
    let start: *const libc::sockaddr_storage = storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which of the address structures the storage, large and
            // aligned enough for all, holds.
            let v4 = unsafe { &*start.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Peer::Ip(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*start.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Peer::Ip(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => Peer::Unix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_peer_that_is_gone_is_an_error_not_a_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let stream = Stream::from(OwnedFd::from(ours));
        assert_eq!(stream.write(b"x", Cork::No).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(
            stream.write_vectored(&[IoSlice::new(b"x")], Cork::No).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn a_write_does_not_wait_even_where_the_descriptor_would() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let stream = Stream::from(OwnedFd::from(ours));
        stream.set_blocking(true).unwrap();
        let block = [0; 65536];
        let refused = loop {
            if let Err(error) = stream.write(&block, Cork::No) {
                break error;
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let refused = stream.write_vectored(&[IoSlice::new(&block)], Cork::UntilShutdown).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_the_peer_has_not_read_is_counted() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let stream = Stream::from(OwnedFd::from(ours));
        assert_eq!(stream.undelivered().unwrap(), 0);
        assert_eq!(stream.write(b"hello", Cork::No).unwrap(), 5);
        assert!(stream.undelivered().unwrap() >= 5);
        theirs.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(stream.undelivered().unwrap(), 0);
    }

    #[test]
    fn the_process_at_the_other_end_is_known() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let stream = Stream::from(OwnedFd::from(ours));
        assert_eq!(stream.peer_process().map(|(pid, _)| pid), Some(super::super::process::getpid()));
    }

    #[test]
    fn a_file_is_sent_from_its_offset() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut offset = 4;
        let stream = Stream::from(OwnedFd::from(ours));
        assert_eq!(stream.send_file(&file, &mut offset, 100).unwrap(), 6);
        assert_eq!((offset, stream.send_file(&file, &mut offset, 100).unwrap()), (10, 0));
        drop(stream);
        let mut received = String::new();
        theirs.read_to_string(&mut received).unwrap();
        assert_eq!(received, "456789");
    }
}
