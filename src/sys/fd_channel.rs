//! A letter box between workers: a client's connection, with what has been read from it, on its way
//! to whoever takes it first. What is too long for a message goes along as a file.
//!
//! One socket pair, made by the master and inherited by every worker: all may send, all may
//! receive, the kernel keeps each message whole and wakes those who wait. It must not know what the
//! bytes say.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use rustix::fs::FlockOperation;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};

/// The most bytes that go along with a connection. A Linux socket pair holds some 200 KB by
/// default.
pub const MOST_BYTES: usize = 64 * 1024;

/// Most descriptors in a message: a connection and a file.
const MOST_DESCRIPTORS: usize = 2;

/// What was in the box.
#[derive(Debug)]
pub struct Message {
    /// The connection.
    pub connection: OwnedFd,
    /// The file that went along, if one did.
    pub file: Option<OwnedFd>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Both ends of the box.
#[derive(Debug)]
pub struct FdChannel {
    send: OwnedFd,
    /// Locked by the process that takes a letter out, of all that share the box (fcntl(2),
    /// "Advisory record locking": such a lock is its process's alone, and ends with it, or where it
    /// closes any descriptor of this socket: there is one).
    receive: OwnedFd,
    /// The same among the threads of this process.
    is_taking: Mutex<()>,
}

impl FdChannel {
    /// An empty box; both ends non-blocking and closed on exec.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<FdChannel> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (send, receive) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
        Ok(FdChannel { send, receive, is_taking: Mutex::new(()) })
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
    /// The kernel drops what it finds no place for among the process's descriptors, and with it the
    /// connection. Places cannot be kept free for it: a thread of the application may take them at
    /// any moment. So the message is looked at first, which gives copies of its descriptors, and
    /// taken out only if all of them are there.
    ///
    /// # Errors
    /// EMFILE when there is no place for its descriptors: the message stays in the box. WouldBlock
    /// while another process takes one: there may be more. A message without a connection is
    /// InvalidData.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        // A panic while it was held leaves nothing behind.
        let _alone = self.is_taking.lock().unwrap_or_else(PoisonError::into_inner);
        let _turn = Turn::take(&self.receive)?;
        let Some(letter) = self.peek()? else { return Ok(None) };
        // The copies are ours; those in the message go with it.
        rustix::net::recv(&self.receive, &mut [0], RecvFlags::empty())?;
        letter.map(Some)
    }

    /// Copies the oldest message. What is wrong with it is the inner error: such a one is to be
    /// taken out, too.
    fn peek(&self) -> io::Result<Option<io::Result<Message>>> {
        let mut bytes = vec![0; MOST_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::PEEK;
        let peeked = rustix::net::recvmsg(&self.receive, &mut [IoSliceMut::new(&mut bytes)], &mut rights, flags);
        let message = match peeked {
            Ok(message) => message,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        bytes.truncate(message.bytes);
        // All of them are owned here, whether or not the kernel has found a place for each.
        let mut descriptors = rights.drain().flat_map(descriptors_in);
        let connection = descriptors.next();
        let file = descriptors.next();
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let letter = connection.map(|connection| Message { connection, file, bytes });
        Ok(Some(letter.ok_or(io::ErrorKind::InvalidData.into())))
    }
}

/// The lock of the process that takes a letter.
struct Turn<'a>(&'a OwnedFd);

impl Turn<'_> {
    fn take(socket: &OwnedFd) -> io::Result<Turn<'_>> {
        // Not waited for: whoever has it may have been stopped.
        rustix::fs::fcntl_lock(socket, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::ACCESS => io::ErrorKind::WouldBlock.into(),
            error => io::Error::from(error),
        })?;
        Ok(Turn(socket))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::fcntl_lock(self.0, FlockOperation::Unlock);
    }
}

impl AsRawFd for FdChannel {
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
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_connection_arrives_with_its_bytes_and_an_empty_box_is_no_error() {
        let post = FdChannel::new().unwrap();
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
        let post = FdChannel::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let file = super::super::memory::file_of(b"a long body").unwrap();
        post.send(ours.as_raw_fd(), Some(file.as_raw_fd()), b"POST /").unwrap();
        drop(file);
        let letter = post.receive().unwrap().unwrap();
        let mut text = String::new();
        std::fs::File::from(letter.file.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!((&letter.bytes[..], text.as_str()), (&b"POST /"[..], "a long body"));
    }

    /// What `child` gives in a process of its own, because descriptors are the whole process's; it
    /// touches little but them before it exits.
    fn in_a_child(child: impl FnOnce() -> i32) -> i32 {
        code_of(begin_child(child))
    }

    fn begin_child(child: impl FnOnce() -> i32) -> nix::unistd::Pid {
        // SAFETY: the child calls the kernel, allocates, and ends by _exit.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let code = child();
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(code) }
            }
            nix::unistd::ForkResult::Parent { child } => child,
        }
    }

    fn code_of(child: nix::unistd::Pid) -> i32 {
        match nix::sys::wait::waitpid(child, None).unwrap() {
            nix::sys::wait::WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        }
    }

    /// No more descriptors than are open, and `more`. Places that are free between them, because
    /// other tests have closed theirs, are taken first: a limit is one on the numbers.
    fn limit_descriptors(post: &FdChannel, more: u64) {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let numbers = open.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<RawFd>().ok());
        let highest = numbers.max().unwrap();
        while post.send.try_clone().map(OwnedFd::into_raw_fd).unwrap() < highest {}
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let free = post.send.try_clone().unwrap().as_raw_fd();
        setrlimit(Resource::RLIMIT_NOFILE, free as u64 + more, hard).unwrap();
    }

    fn is_full(received: &io::Result<Option<Message>>) -> bool {
        received.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EMFILE))
    }

    #[test]
    fn a_message_stays_in_the_box_while_there_is_no_place_for_all_of_its_descriptors() {
        let post = FdChannel::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let file = super::super::memory::file_of(b"a long body").unwrap();
        post.send(ours.as_raw_fd(), Some(file.as_raw_fd()), b"POST /").unwrap();
        let outcome = in_a_child(|| {
            limit_descriptors(&post, 4);
            let mut taken: Vec<_> = std::iter::from_fn(|| post.send.try_clone().ok()).collect();
            let none = is_full(&post.receive());
            taken.pop();
            let one = is_full(&post.receive());
            taken.pop();
            let both = matches!(post.receive(), Ok(Some(Message { file: Some(_), .. })));
            [none, one, both].into_iter().fold(1, |code, bit| code * 2 + i32::from(bit))
        });
        assert_eq!(outcome, 0b1111, "with no place, with one, with both");
    }

    #[test]
    fn no_message_is_lost_to_a_thread_that_takes_every_descriptor_it_can_get() {
        const LETTERS: usize = 100;
        let post = FdChannel::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        (0..LETTERS).for_each(|_| post.send(ours.as_raw_fd(), None, b"GET /").unwrap());
        let outcome = in_a_child(|| {
            limit_descriptors(&post, 4);
            let taken = Mutex::new(Vec::new());
            let has_ended = std::sync::atomic::AtomicBool::new(false);
            let take_all = || {
                while !has_ended.load(std::sync::atomic::Ordering::Relaxed) {
                    taken.lock().unwrap().extend(post.send.try_clone().ok());
                }
            };
            let mut received = std::thread::scope(|scope| {
                scope.spawn(take_all);
                let received = (0..20_000).filter(|_| {
                    let letter = post.receive();
                    // A place comes free now and then, and the other thread is after it, too.
                    drop(taken.lock().unwrap().pop());
                    matches!(letter, Ok(Some(_)))
                });
                let received = received.count();
                has_ended.store(true, std::sync::atomic::Ordering::Relaxed);
                received
            });
            taken.lock().unwrap().clear();
            received += std::iter::from_fn(|| post.receive().unwrap()).count();
            i32::from(received != LETTERS)
        });
        assert_eq!(outcome, 0);
    }

    #[test]
    fn two_processes_take_each_message_once() {
        let post = FdChannel::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let letters = [b"1", b"2", b"3", b"4", b"5", b"6", b"7"];
        letters.iter().for_each(|bytes| post.send(ours.as_raw_fd(), None, &bytes[..]).unwrap());
        let take = || {
            std::iter::from_fn(|| match post.receive() {
                Ok(letter) => letter.map(|letter| letter.bytes[0]),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    Some(0)
                }
            })
            .fold(0, |sum, byte| sum + if byte == 0 { 0 } else { i32::from(byte - b'0') })
        };
        // Both are forked from a thread that holds nothing of the box.
        let children = [begin_child(take), begin_child(take)];
        assert_eq!(children.map(code_of).into_iter().sum::<i32>(), 1 + 2 + 3 + 4 + 5 + 6 + 7);
    }

    #[test]
    fn a_full_box_says_so() {
        let post = FdChannel::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = (0..1000).find_map(|_| post.send(ours.as_raw_fd(), None, &[0; MOST_BYTES]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
