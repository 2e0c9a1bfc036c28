//! A letter box between workers: a client's connection, with what has been read from it, on its way to whoever takes it first. What is
//! too long for a message goes along as a file.
//!
//! One socket pair, made by the master and inherited by every worker: all may send, all may receive, the kernel keeps each message whole
//! and wakes those who wait. It must not know what the bytes say.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// The most bytes that go along with a connection. A Linux socket pair holds some 200 KB by default.
pub const MOST_BYTES: usize = 64 * 1024;

/// Most descriptors in a message: a connection and a file.
const MOST_DESCRIPTORS: usize = 2;

/// What was in the box.
#[derive(Debug)]
pub struct Letter {
    /// The connection.
    pub connection: OwnedFd,
    /// The file that went along, if one did.
    pub file: Option<OwnedFd>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Both ends of the box.
#[derive(Debug)]
pub struct Post {
    send: OwnedFd,
    receive: OwnedFd,
    /// The places among the process's descriptors that the next message's will take. The kernel drops what it finds no place for,
    /// and with it the connection, so nothing is taken out of the box without [`MOST_DESCRIPTORS`] of them.
    reserve: Mutex<Vec<OwnedFd>>,
}

impl Post {
    /// An empty box; both ends non-blocking and closed on exec.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Post> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (send, receive) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
        let post = Post { send, receive, reserve: Mutex::new(Vec::new()) };
        post.fill(&mut post.reserve.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(post)
    }

    /// Puts copies of `connection` and `file`, and `bytes` (at most [`MOST_BYTES`]), into the box.
    ///
    /// # Errors
    /// The box is full (WouldBlock), or the message too long.
    pub fn send(&self, connection: RawFd, file: Option<RawFd>, bytes: &[u8]) -> io::Result<()> {
        let descriptors: Vec<RawFd> = std::iter::once(connection).chain(file).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(self.send.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Takes the oldest message out of the box; `None` when it is empty.
    ///
    /// # Errors
    /// EMFILE or ENFILE when there is no place for its descriptors: the message stays in the box. A message without one is InvalidData.
    pub fn receive(&self) -> io::Result<Option<Letter>> {
        // A panic while it was held leaves some descriptors or none.
        let mut reserve = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        self.fill(&mut reserve)?;
        // Given up at the last moment, so that no other thread of the process gets the places.
        reserve.clear();
        let received = self.receive_one();
        // Where this fails, the next call tries again.
        let _ = self.fill(&mut reserve);
        received
    }

    fn fill(&self, reserve: &mut Vec<OwnedFd>) -> io::Result<()> {
        while reserve.len() < MOST_DESCRIPTORS {
            reserve.push(self.receive.try_clone()?);
        }
        Ok(())
    }

    fn receive_one(&self) -> io::Result<Option<Letter>> {
        let mut bytes = vec![0; MOST_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(&self.receive, &mut [IoSliceMut::new(&mut bytes)], &mut rights, flags);
        let count = match received {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        bytes.truncate(count);
        // All of them are owned here, whether or not the kernel has found a place for each.
        let mut descriptors = rights.drain().flat_map(descriptors_in);
        let connection = descriptors.next().ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(Letter { connection, file: descriptors.next(), bytes }))
    }
}

impl AsRawFd for Post {
    /// Readable when a message may be waiting.
    fn as_raw_fd(&self) -> RawFd {
        self.receive.as_raw_fd()
    }
}

fn descriptors_in(message: RecvAncillaryMessage<'_>) -> impl Iterator<Item = OwnedFd> {
    let descriptors = match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    };
    descriptors.into_iter().flatten()
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
        post.send(ours.as_raw_fd(), None, b"GET /").unwrap();
        drop(ours);
        let letter = post.receive().unwrap().unwrap();
        assert_eq!((&letter.bytes[..], letter.file.is_none()), (&b"GET /"[..], true));
        UnixStream::from(letter.connection).write_all(b"hello").unwrap();
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
    }

    #[test]
    fn a_file_goes_along() {
        let post = Post::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let file = super::super::memory::file_of(b"a long body").unwrap();
        post.send(ours.as_raw_fd(), Some(file.as_raw_fd()), b"POST /").unwrap();
        drop(file);
        let letter = post.receive().unwrap().unwrap();
        let mut text = String::new();
        std::fs::File::from(letter.file.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!((&letter.bytes[..], text.as_str()), (&b"POST /"[..], "a long body"));
    }

    #[test]
    fn a_message_stays_in_the_box_while_there_is_no_place_for_its_descriptor() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let post = Post::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        post.send(ours.as_raw_fd(), None, b"GET /").unwrap();
        // Another process, because descriptors are the whole process's; it touches nothing but them before it exits.
        // SAFETY: the child calls the kernel only, and ends by _exit.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
                // No higher than what is open, and a few to play with.
                let reserve = post.reserve.lock().unwrap().iter().map(AsRawFd::as_raw_fd).max().unwrap();
                setrlimit(Resource::RLIMIT_NOFILE, reserve.max(theirs.as_raw_fd()) as u64 + 4, hard).unwrap();
                let mut taken = Vec::new();
                taken.extend(std::iter::from_fn(|| post.receive.try_clone().ok()));
                // The reserve serves one connection...
                let served = matches!(post.receive(), Ok(Some(_)));
                post.send(theirs.as_raw_fd(), None, b"GET /").unwrap();
                post.reserve.lock().unwrap().clear();
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
        let error = (0..1000).find_map(|_| post.send(ours.as_raw_fd(), None, &[0; MOST_BYTES]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
