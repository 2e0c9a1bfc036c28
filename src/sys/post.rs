//! A letter box between workers: a client's connection, with what has been read from it, on its way to whoever takes it first.
//!
//! One socket pair, made by the master and inherited by every worker: all may send, all may receive, the kernel keeps each message whole
//! and wakes those who wait. It must not know what the bytes say.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

/// The most bytes that go along with a connection. A Linux socket pair holds some 200 KB by default.
pub const MOST_BYTES: usize = 64 * 1024;

/// Both ends of the box.
#[derive(Debug)]
pub struct Post {
    send: OwnedFd,
    receive: OwnedFd,
    /// The place among the process's descriptors that the next connection will take. The kernel drops what it finds no place for,
    /// and with it the connection, so nothing is taken out of the box without one.
    reserve: Mutex<Option<OwnedFd>>,
}

impl Post {
    /// An empty box; both ends non-blocking and closed on exec.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Post> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (send, receive) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
        let reserve = Mutex::new(Some(receive.try_clone()?));
        Ok(Post { send, receive, reserve })
    }

    /// Puts a copy of `descriptor` and `bytes` (at most [`MOST_BYTES`]) into the box.
    ///
    /// # Errors
    /// The box is full (WouldBlock), or the message too long.
    pub fn send(&self, descriptor: RawFd, bytes: &[u8]) -> io::Result<()> {
        let descriptors = [descriptor];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(self.send.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Takes the oldest message out of the box; `None` when it is empty.
    ///
    /// # Errors
    /// EMFILE or ENFILE when there is no place for a descriptor: the message stays in the box. A message without a descriptor is
    /// InvalidData.
    pub fn receive(&self) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
        // A panic while it was held leaves a descriptor or none.
        let mut reserve = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        // Given up at the last moment, so that no other thread of the process gets the place.
        drop(self.take_reserve(&mut reserve)?);
        let received = self.receive_one();
        *reserve = self.receive.try_clone().ok();
        received
    }

    fn take_reserve(&self, reserve: &mut Option<OwnedFd>) -> io::Result<OwnedFd> {
        reserve.take().map_or_else(|| self.receive.try_clone(), Ok)
    }

    fn receive_one(&self) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
        let mut bytes = vec![0; MOST_BYTES];
        let mut space = cmsg_space!(RawFd);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received =
            recvmsg::<()>(self.receive.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC);
        let (count, descriptor) = match received {
            Ok(message) => {
                (message.bytes, message.cmsgs().ok().and_then(|mut rights| rights.find_map(first_descriptor)))
            }
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        bytes.truncate(count);
        let descriptor = descriptor.ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: the kernel has just installed this descriptor for us alone.
        Ok(Some((unsafe { OwnedFd::from_raw_fd(descriptor) }, bytes)))
    }
}

impl AsRawFd for Post {
    /// Readable when a message may be waiting.
    fn as_raw_fd(&self) -> RawFd {
        self.receive.as_raw_fd()
    }
}

fn first_descriptor(message: ControlMessageOwned) -> Option<RawFd> {
    match message {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_connection_arrives_with_its_bytes_and_an_empty_box_is_no_error() {
        let post = Post::new().unwrap();
        assert!(post.receive().unwrap().is_none());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        post.send(ours.as_raw_fd(), b"GET /").unwrap();
        drop(ours);
        let (descriptor, bytes) = post.receive().unwrap().unwrap();
        assert_eq!(bytes, b"GET /");
        UnixStream::from(descriptor).write_all(b"hello").unwrap();
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
    }

    #[test]
    fn a_message_stays_in_the_box_while_there_is_no_place_for_its_descriptor() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let post = Post::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        post.send(ours.as_raw_fd(), b"GET /").unwrap();
        // Another process, because descriptors are the whole process's; it touches nothing but them before it exits.
        // SAFETY: the child calls the kernel only, and ends by _exit.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
                // No higher than what is open, and a few to play with.
                let reserve = post.reserve.lock().unwrap().as_ref().unwrap().as_raw_fd();
                setrlimit(Resource::RLIMIT_NOFILE, reserve.max(theirs.as_raw_fd()) as u64 + 4, hard).unwrap();
                let mut taken = Vec::new();
                taken.extend(std::iter::from_fn(|| post.receive.try_clone().ok()));
                // The reserve serves one connection...
                let served = matches!(post.receive(), Ok(Some(_)));
                post.send(theirs.as_raw_fd(), b"GET /").unwrap();
                *post.reserve.lock().unwrap() = None;
                taken.extend(std::iter::from_fn(|| post.receive.try_clone().ok()));
                // ...and without one none is lost.
                let full = post.receive().is_err_and(|error| error.raw_os_error() == Some(libc::EMFILE));
                taken.truncate(taken.len() - 2);
                let kept = matches!(post.receive(), Ok(Some(_)));
                let outcome = [served, full, kept].map(u8::from);
                let code = 1 + outcome.into_iter().fold(0, |code, bit| code * 2 + i32::from(bit));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(code) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let end = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(end, nix::sys::wait::WaitStatus::Exited(child, 8), "served, full, kept: bits of one less");
            }
        }
    }

    #[test]
    fn a_full_box_says_so() {
        let post = Post::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = (0..1000).find_map(|_| post.send(ours.as_raw_fd(), &[0; MOST_BYTES]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
