//! A channel between workers, for handing off connections: a client's connection, with the bytes
//! that were read from it, goes to the worker that receives it first. Bytes that are too many for a
//! message travel in a file.
//!
//! The channel is one socket pair, made by the master and inherited by every worker. All may send,
//! all may receive; the kernel keeps each message whole and wakes the workers that wait. The
//! channel must not know what the bytes mean.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use rustix::fs::FlockOperation;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};

use crate::base::unpoisoned::Unpoisoned;

/// The most bytes in a message. A Linux socket pair holds some 200 KB by default.
pub const MOST_BYTES: usize = 64 * 1024;

/// Most descriptors in a message: a connection and a file.
const MOST_DESCRIPTORS: usize = 2;

/// A message that was received.
#[derive(Debug)]
pub struct Message {
    /// The connection.
    pub connection: OwnedFd,
    /// The file that was sent with it, if any.
    pub file: Option<OwnedFd>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Both ends of the channel.
#[derive(Debug)]
pub struct FdChannel {
    send: OwnedFd,
    /// Locked by the process that receives, among all that share the channel (fcntl(2), "Advisory
    /// record locking"). Such a lock belongs to its process. It ends with the process, and also
    /// when the process closes any descriptor of this socket; each process has only this one.
    receive: OwnedFd,
    /// Locked by the thread that receives, among those of this process.
    is_taking: Mutex<()>,
}

impl FdChannel {
    /// An empty channel; both ends are non-blocking and closed on exec.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<FdChannel> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (send, receive) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
        Ok(FdChannel { send, receive, is_taking: Mutex::new(()) })
    }

    /// Sends copies of `connection` and `file`, and `bytes` (at most [`MOST_BYTES`]).
    ///
    /// # Errors
    /// The channel is full (WouldBlock), or the message too long.
    pub fn send(&self, connection: RawFd, file: Option<RawFd>, bytes: &[u8]) -> io::Result<()> {
        let descriptors: Vec<RawFd> = std::iter::once(connection).chain(file).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(self.send.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Receives the oldest message; `None` when there is none.
    ///
    /// A process at its limit of descriptors gets none of a message's: if it took the message, the
    /// connection would be lost. Descriptors cannot be reserved: a thread of the application may
    /// take them at any moment. So the message is peeked at first, which copies its descriptors,
    /// and removed only once all of them have arrived.
    ///
    /// # Errors
    /// EMFILE when the process has no free descriptors: the message stays in the channel.
    /// WouldBlock while another process receives: there may be more messages. InvalidData for a
    /// message without a connection.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        // A panic while the lock was held leaves no state to repair.
        let _alone = self.is_taking.lock().unpoisoned();
        let _turn = Turn::take(&self.receive)?;
        let Some(message) = self.peek()? else { return Ok(None) };
        // We own the copies. The descriptors in the message end with it.
        rustix::net::recv(&self.receive, &mut [0], RecvFlags::empty())?;
        message.map(Some)
    }

    /// Copies the oldest message. The inner error is for a malformed message, which must be
    /// removed, too.
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
        // All of them are owned from here on, so that an early return closes them.
        let mut descriptors = rights.drain().flat_map(descriptors_in);
        let connection = descriptors.next();
        let file = descriptors.next();
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let message = connection.map(|connection| Message { connection, file, bytes });
        Ok(Some(message.ok_or(io::ErrorKind::InvalidData.into())))
    }
}

/// The lock of the process that receives.
struct Turn<'a>(&'a OwnedFd);

impl Turn<'_> {
    fn take(socket: &OwnedFd) -> io::Result<Turn<'_>> {
        // Do not wait for the lock: the process that holds it may have been stopped.
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
    fn a_connection_arrives_with_its_bytes_and_an_empty_channel_is_no_error() {
        let channel = FdChannel::new().unwrap();
        assert!(channel.receive().unwrap().is_none());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        channel.send(ours.as_raw_fd(), None, b"GET /").unwrap();
        drop(ours);
        let message = channel.receive().unwrap().unwrap();
        assert_eq!((&message.bytes[..], message.file.is_none()), (&b"GET /"[..], true));
        UnixStream::from(message.connection).write_all(b"hello").unwrap();
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
    }

    #[test]
    fn a_file_is_sent_with_the_connection() {
        let channel = FdChannel::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let file = super::super::memory::file_of(b"a long body").unwrap();
        channel.send(ours.as_raw_fd(), Some(file.as_raw_fd()), b"POST /").unwrap();
        drop(file);
        let message = channel.receive().unwrap().unwrap();
        let mut text = String::new();
        std::fs::File::from(message.file.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!((&message.bytes[..], text.as_str()), (&b"POST /"[..], "a long body"));
    }

    /// The status of `child`, run in a process of its own: a limit on descriptors holds for the
    /// whole process. It touches little else before it exits.
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

    /// Limits the descriptors to those that are open, and `more`. Free numbers between them, which
    /// other tests have closed, are taken first: the limit is one on the numbers.
    fn limit_descriptors(channel: &FdChannel, more: u64) {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let numbers = open.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<RawFd>().ok());
        let highest = numbers.max().unwrap();
        while channel.send.try_clone().map(OwnedFd::into_raw_fd).unwrap() < highest {}
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let free = channel.send.try_clone().unwrap().as_raw_fd();
        setrlimit(Resource::RLIMIT_NOFILE, free as u64 + more, hard).unwrap();
    }

    fn is_full(received: &io::Result<Option<Message>>) -> bool {
        received.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EMFILE))
    }

    #[test]
    fn a_message_stays_in_the_channel_while_its_descriptors_do_not_fit() {
        let channel = FdChannel::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let file = super::super::memory::file_of(b"a long body").unwrap();
        channel.send(ours.as_raw_fd(), Some(file.as_raw_fd()), b"POST /").unwrap();
        let outcome = in_a_child(|| {
            limit_descriptors(&channel, 4);
            let mut taken: Vec<_> = std::iter::from_fn(|| channel.send.try_clone().ok()).collect();
            let none = is_full(&channel.receive());
            taken.pop();
            let one = is_full(&channel.receive());
            taken.pop();
            let both = matches!(channel.receive(), Ok(Some(Message { file: Some(_), .. })));
            [none, one, both].into_iter().fold(1, |code, bit| code * 2 + i32::from(bit))
        });
        assert_eq!(outcome, 0b1111, "with no place, with one, with both");
    }

    #[test]
    fn no_message_is_lost_while_a_thread_takes_every_free_descriptor() {
        const LETTERS: usize = 100;
        let channel = FdChannel::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        (0..LETTERS).for_each(|_| channel.send(ours.as_raw_fd(), None, b"GET /").unwrap());
        let outcome = in_a_child(|| {
            limit_descriptors(&channel, 4);
            let taken = Mutex::new(Vec::new());
            let has_ended = std::sync::atomic::AtomicBool::new(false);
            let take_all = || {
                while !has_ended.load(std::sync::atomic::Ordering::Relaxed) {
                    taken.lock().unwrap().extend(channel.send.try_clone().ok());
                }
            };
            let mut received = std::thread::scope(|scope| {
                scope.spawn(take_all);
                let received = (0..20_000).filter(|_| {
                    let message = channel.receive();
                    // A descriptor is freed now and then, and the other thread wants it, too.
                    drop(taken.lock().unwrap().pop());
                    matches!(message, Ok(Some(_)))
                });
                let received = received.count();
                has_ended.store(true, std::sync::atomic::Ordering::Relaxed);
                received
            });
            taken.lock().unwrap().clear();
            received += std::iter::from_fn(|| channel.receive().unwrap()).count();
            i32::from(received != LETTERS)
        });
        assert_eq!(outcome, 0);
    }

    #[test]
    fn two_processes_take_each_message_once() {
        let channel = FdChannel::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let letters = [b"1", b"2", b"3", b"4", b"5", b"6", b"7"];
        letters.iter().for_each(|bytes| channel.send(ours.as_raw_fd(), None, &bytes[..]).unwrap());
        let take = || {
            std::iter::from_fn(|| match channel.receive() {
                Ok(message) => message.map(|message| message.bytes[0]),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    Some(0)
                }
            })
            .fold(0, |sum, byte| sum + if byte == 0 { 0 } else { i32::from(byte - b'0') })
        };
        // Both are forked from a thread that holds no lock of the channel.
        let children = [begin_child(take), begin_child(take)];
        assert_eq!(children.map(code_of).into_iter().sum::<i32>(), 1 + 2 + 3 + 4 + 5 + 6 + 7);
    }

    #[test]
    fn a_full_channel_would_block() {
        let channel = FdChannel::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = (0..1000).find_map(|_| channel.send(ours.as_raw_fd(), None, &[0; MOST_BYTES]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
