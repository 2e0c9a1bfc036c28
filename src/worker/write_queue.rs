//! What waits to be sent to one client: bytes in memory, bytes in a spool file, ranges of the
//! application's files, in their order.
//!
//! What the kernel does not take is kept here, so that no application thread waits for a client: in
//! memory up to `response_buffer`, then in an unlinked temporary file up to `response_spool`. Only
//! past both does the queue refuse more. The module knows no HTTP, no clock and no event loop.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::connection_limits::ConnectionLimits;
use super::holdings::Held;
use super::spool::Spool;
use super::transport::{FILE_BLOCK, Transport};
use crate::sys::retry::retry;
use crate::sys::socket::Cork;

/// How much one flush sends before other connections have their turn.
const FLUSH_LIMIT: usize = 2 * 1024 * 1024;

/// Most parts that one write takes (IOV_MAX on Linux).
const MOST_PARTS: usize = 1024;

/// A worker whose memory for heads, bodies and responses is short keeps this much of a response
/// there; the rest goes to the file.
const SHORT_BUFFER: usize = 16 * 1024;

/// The queue of one connection.
#[derive(Default)]
pub struct WriteQueue {
    chunks: VecDeque<Chunk>,
    /// Bytes in memory.
    memory: usize,
    /// The file, from the first byte that goes to it until the queue is empty.
    spool: Option<Spool>,
    /// Whether this response may not go to a file.
    avoids_files: bool,
    /// Bytes that have left the queue for the client since the connection began.
    sent: u64,
}

/// One kind of bytes that wait.
enum Chunk {
    /// In memory; only the bytes from `start` on are still to go.
    Memory { bytes: Vec<u8>, start: usize },
    /// The next so many bytes of the spool.
    Spooled(u64),
    /// An object of the application's; only the bytes from `start` on are still to go.
    Object { bytes: Box<dyn AsRef<[u8]> + Send>, start: usize },
    /// A range of a file.
    File { file: Arc<OwnedFd>, offset: u64, left: u64 },
}

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left.
    All,
    /// The kernel takes no more for now.
    Blocked,
    /// The client reads quickly; let others have their turn, then go on.
    Paused,
}

impl WriteQueue {
    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many bytes have left the queue for the client: if the number rises, the client reads.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How many bytes wait.
    pub fn waiting(&self) -> u64 {
        self.chunks.iter().map(Chunk::left).sum()
    }

    /// How many bytes wait in memory.
    pub fn in_memory(&self) -> usize {
        self.memory
    }

    /// How much of the worker's memory and disk the queue holds.
    pub fn held(&self) -> Held {
        Held { memory: self.memory as u64, spool: self.spool.as_ref().map_or(0, Spool::length) }
    }

    /// Sets whether the bytes that come are kept out of files.
    pub fn set_avoids_files(&mut self, avoids_files: bool) {
        self.avoids_files = avoids_files;
    }

    /// Appends bytes whatever the bounds say: the server's own, and those that wait for more to
    /// come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.push_all(&[bytes], 0);
    }

    /// As [`WriteQueue::push`], of several parts. About `expected` bytes are to come in all before
    /// they leave: room for them is made at once, since growing into it copies them several times.
    pub fn push_all(&mut self, parts: &[&[u8]], expected: usize) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return;
        }
        self.memory += length;
        if let Some(Chunk::Memory { bytes: last, start }) = self.chunks.back_mut() {
            if *start > last.len() / 2 {
                // A queue that never becomes empty must not keep the bytes that it has sent.
                last.drain(..std::mem::take(start));
            }
            parts.iter().for_each(|part| last.extend_from_slice(part));
        } else {
            let mut bytes = Vec::with_capacity(length.max(expected));
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
            self.chunks.push_back(Chunk::Memory { bytes, start: 0 });
        }
    }

    /// As [`WriteQueue::push`], for bytes that need not be copied.
    pub fn push_whole(&mut self, bytes: Vec<u8>) {
        if !self.chunks.is_empty() {
            return self.push(&bytes);
        }
        self.memory += bytes.len();
        if !bytes.is_empty() {
            self.chunks.push_back(Chunk::Memory { bytes, start: 0 });
        }
    }

    /// Appends the bytes of an object of the application's.
    pub fn push_object(&mut self, bytes: Box<dyn AsRef<[u8]> + Send>, start: usize) {
        if start < (*bytes).as_ref().len() {
            self.chunks.push_back(Chunk::Object { bytes, start });
        }
    }

    /// Appends a range of a file, which the kernel sends (sendfile(2)).
    pub fn push_file(&mut self, file: Arc<OwnedFd>, offset: u64, left: u64) {
        if left > 0 {
            self.chunks.push_back(Chunk::File { file, offset, left });
        }
    }

    /// Appends `bytes` as far as there is room for them, and returns how many.
    pub fn keep(&mut self, bytes: &[u8], limits: &ConnectionLimits) -> usize {
        let is_spooling = matches!(self.chunks.back(), Some(Chunk::Spooled(_)));
        let room = if is_spooling { 0 } else { self.memory_room(limits).min(bytes.len()) };
        self.push(&bytes[..room]);
        if room == bytes.len() || self.avoids_files { room } else { room + self.spool(&bytes[room..], limits) }
    }

    fn memory_room(&self, limits: &ConnectionLimits) -> usize {
        let may_spool = limits.spooling.most_of_response > 0 && !self.avoids_files;
        let is_short = may_spool && limits.holdings.memory_is_short();
        let most =
            if is_short { limits.spooling.response_buffer.min(SHORT_BUFFER) } else { limits.spooling.response_buffer };
        most.saturating_sub(self.memory)
    }

    fn spool(&mut self, bytes: &[u8], limits: &ConnectionLimits) -> usize {
        if self.spool.is_none() {
            if !limits.spooling.takes_responses() {
                return 0;
            }
            match Spool::new(limits) {
                Ok(spool) => self.spool = Some(spool),
                Err(error) => {
                    limits.spooling.note_no_file(&error);
                    return 0;
                }
            }
        }
        let count = self.spool.as_mut().map_or(0, |spool| spool.append(bytes, limits));
        match self.chunks.back_mut() {
            _ if count == 0 => {}
            Some(Chunk::Spooled(left)) => *left += count as u64,
            _ => self.chunks.push_back(Chunk::Spooled(count as u64)),
        }
        count
    }

    /// Sends what waits in memory, and `parts` behind it, as one write. Returns how many bytes of
    /// `parts` the kernel took: 0 while something else waits before them.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&mut self, transport: &mut Transport, parts: &[&[u8]], cork: Cork) -> io::Result<usize> {
        match (self.chunks.len(), self.chunks.front_mut()) {
            (0, _) => Ok(write_parts(transport, parts, cork)?.unwrap_or(0)),
            (1, Some(Chunk::Memory { bytes, start })) => {
                let waiting = bytes.len() - *start;
                let mut all = Vec::with_capacity(parts.len() + 1);
                all.push(&bytes[*start..]);
                all.extend_from_slice(parts);
                let Some(sent) = write_parts(transport, &all, cork)? else { return Ok(0) };
                let old = sent.min(waiting);
                *start += old;
                self.memory -= old;
                self.sent += old as u64;
                if old == waiting {
                    self.chunks.clear();
                } else {
                    self.give_room_back();
                }
                Ok(sent - old)
            }
            _ => Ok(0),
        }
    }

    /// Sends what is queued, as far as the kernel takes it.
    ///
    /// # Errors
    /// The connection is broken, or a file became shorter than it was announced to be.
    pub fn flush(&mut self, transport: &mut Transport) -> io::Result<Flushed> {
        let mut budget = FLUSH_LIMIT;
        while !self.chunks.is_empty() {
            // A short head, and the file behind it, need not be two segments.
            let cork = if self.chunks.len() > 1 { Cork::UntilMore } else { Cork::No };
            let Some(chunk) = self.chunks.front_mut() else { break };
            if budget == 0 {
                return Ok(Flushed::Paused);
            }
            let spool = &mut self.spool;
            let Some(sent) = retry(|| send(chunk, spool, transport, cork))? else {
                self.give_room_back();
                return Ok(Flushed::Blocked);
            };
            self.sent += sent as u64;
            budget = budget.saturating_sub(sent);
            if matches!(chunk, Chunk::Memory { .. }) {
                self.memory -= sent;
            }
            if chunk.left() == 0 {
                self.chunks.pop_front();
            }
        }
        self.spool = None;
        // Under TLS the session may hold bytes that the kernel has not taken yet.
        Ok(if retry(|| transport.flush())?.is_some() { Flushed::All } else { Flushed::Blocked })
    }

    /// What waits for the client may wait for long, and holds no more memory than it fills.
    fn give_room_back(&mut self) {
        if let Some(Chunk::Memory { bytes, .. }) = self.chunks.front_mut()
            && bytes.capacity() > 2 * bytes.len()
        {
            bytes.shrink_to_fit();
        }
    }

    /// Drops what waits: the client is gone.
    pub fn clear(&mut self) {
        self.chunks.clear();
        (self.memory, self.spool) = (0, None);
    }
}

impl Chunk {
    fn left(&self) -> u64 {
        match self {
            Chunk::Memory { bytes, start } => (bytes.len() - start) as u64,
            Chunk::Object { bytes, start } => ((**bytes).as_ref().len() - start) as u64,
            Chunk::Spooled(left) | Chunk::File { left, .. } => *left,
        }
    }
}

fn write_parts(transport: &mut Transport, parts: &[&[u8]], cork: Cork) -> io::Result<Option<usize>> {
    match parts {
        [part] => retry(|| transport.write(part, cork)),
        _ => {
            let slices: Vec<IoSlice<'_>> = parts.iter().take(MOST_PARTS).map(|part| IoSlice::new(part)).collect();
            retry(|| transport.write_vectored(&slices, cork))
        }
    }
}

/// Sends from the front of `chunk`, and moves its start. `cork` says whether more follows.
fn send(chunk: &mut Chunk, spool: &mut Option<Spool>, transport: &mut Transport, cork: Cork) -> io::Result<usize> {
    match chunk {
        Chunk::Memory { bytes, start } => {
            let sent = transport.write(&bytes[*start..], cork)?;
            *start += sent;
            Ok(sent)
        }
        Chunk::Object { bytes, start } => {
            let sent = transport.write(&(**bytes).as_ref()[*start..], Cork::No)?;
            *start += sent;
            Ok(sent)
        }
        Chunk::Spooled(left) => {
            let spool = spool.as_mut().expect("a spooled chunk has its spool until the queue is empty");
            let mut offset = spool.read;
            let sent = send_range(spool.file(), &mut offset, left, transport)?;
            spool.read = offset;
            Ok(sent)
        }
        Chunk::File { file, offset, left } => send_range(&**file, offset, left, transport),
    }
}

fn send_range(
    file: &impl std::os::fd::AsFd,
    offset: &mut u64,
    left: &mut u64,
    transport: &mut Transport,
) -> io::Result<usize> {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(FILE_BLOCK);
    let sent = match transport.send_file(file, offset, count) {
        // A file system that sendfile(2) does not know, TLS, which the kernel does not speak, or a
        // descriptor that would block: copy instead.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            let sent = copy(file, *offset, count, transport)?;
            *offset += sent as u64;
            sent
        }
        result => result?,
    };
    if sent == 0 {
        // The file is shorter by now than the client was promised.
        return Err(ErrorKind::UnexpectedEof.into());
    }
    *left -= sent as u64;
    Ok(sent)
}

fn copy(file: &impl std::os::fd::AsFd, offset: u64, count: usize, transport: &mut Transport) -> io::Result<usize> {
    let mut block = vec![0; count.min(transport.most_at_once())];
    let read = rustix::io::pread(file, &mut block[..], offset)?;
    transport.write(&block[..read], Cork::No)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::settings::Config;
    use crate::sys::socket::Stream;

    /// A transport over a socket pair, whose client takes nothing until it is read from.
    fn transport() -> (Transport, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Transport::plain(Stream::from(OwnedFd::from(ours))), theirs)
    }

    fn limits(buffer: usize, spool: u64) -> ConnectionLimits {
        ConnectionLimits::new(&Config { response_buffer: buffer, response_spool: spool, ..Config::default() })
    }

    /// Fills the kernel's buffer; returns how many bytes that took.
    fn fill(transport: &mut Transport) -> usize {
        let mut count = 0;
        while let Ok(sent) = transport.write(&[b'f'; 4096], Cork::No) {
            count += sent;
        }
        count
    }

    /// Flushes, and reads at the other end, until nothing is left.
    fn drain(queue: &mut WriteQueue, transport: &mut Transport, client: &mut UnixStream) -> Vec<u8> {
        let (mut all, mut block) = (Vec::new(), [0; 10_000]);
        loop {
            let flushed = queue.flush(transport).unwrap();
            while let Ok(count @ 1..) = client.read(&mut block) {
                all.extend_from_slice(&block[..count]);
            }
            if flushed == Flushed::All {
                return all;
            }
        }
    }

    #[test]
    fn what_waits_keeps_its_order_through_memory_and_file() {
        let (mut transport, mut client) = transport();
        let limits = limits(100, 1000);
        let filled = fill(&mut transport);
        let mut queue = WriteQueue::default();
        let bytes: Vec<u8> = (0..1000u32).map(|number| number as u8).collect();
        for part in bytes.chunks(7) {
            assert_eq!(queue.write(&mut transport, &[part], Cork::No).unwrap(), 0);
            assert_eq!(queue.keep(part, &limits), part.len());
        }
        assert_eq!((queue.in_memory(), queue.waiting()), (100, 1000));
        assert_eq!(queue.held(), Held { memory: 100, spool: 900 });
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"a file").unwrap();
        queue.push_file(Arc::new(file.into()), 2, 4);
        queue.push_object(Box::new(b"an object "), 3);
        queue.push(b"end");
        let received = drain(&mut queue, &mut transport, &mut client);
        assert_eq!(received[filled..], [&bytes[..], b"fileobject end"].concat());
        assert!(queue.is_empty());
        assert_eq!(queue.held(), Held::default());
    }

    #[test]
    fn past_both_bounds_nothing_more_is_kept_until_the_queue_is_empty() {
        let (mut transport, mut client) = transport();
        let limits = limits(10, 20);
        let mut queue = WriteQueue::default();
        assert_eq!(queue.keep(&[b'x'; 100], &limits), 30);
        assert_eq!(queue.keep(b"x", &limits), 0);
        assert_eq!(drain(&mut queue, &mut transport, &mut client).len(), 30);
        assert_eq!(queue.keep(&[b'x'; 100], &limits), 30, "the file begins anew");
    }

    #[test]
    fn without_a_spool_the_memory_is_the_bound() {
        for (spool, avoids_files) in [(0, false), (1000, true)] {
            let limits = limits(10, spool);
            let mut queue = WriteQueue::default();
            queue.set_avoids_files(avoids_files);
            assert_eq!(queue.keep(&[b'x'; 100], &limits), 10, "{spool} {avoids_files}");
            assert_eq!(queue.held(), Held { memory: 10, spool: 0 });
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_leaves_the_memory() {
        let config = Config {
            response_buffer: 10,
            response_spool: 1000,
            tmp_upload_dir: Some("/proc/nowhere".into()),
            ..Config::default()
        };
        let limits = ConnectionLimits::new(&config);
        assert_eq!(WriteQueue::default().keep(&[b'x'; 100], &limits), 10);
        assert!(!limits.spooling.takes_responses(), "it is not tried again each time");
    }

    #[test]
    fn short_bytes_that_wait_leave_with_what_comes_next_in_one_write() {
        let (mut transport, mut client) = transport();
        let mut queue = WriteQueue::default();
        queue.push(b"one ");
        queue.push(b"two ");
        assert_eq!(queue.write(&mut transport, &[b"three", b" four"], Cork::No).unwrap(), 10);
        assert!(queue.is_empty() && queue.in_memory() == 0);
        let mut buffer = [0; 100];
        let count = client.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"one two three four");
    }

    #[test]
    fn a_queue_that_is_never_empty_keeps_only_what_waits() {
        let (mut transport, mut client) = transport();
        let limits = limits(100_000, 0);
        fill(&mut transport);
        let (mut queue, mut block) = (WriteQueue::default(), [0; 50_000]);
        for _ in 0..200 {
            queue.keep(&[b'x'; 50_000], &limits);
            let _ = client.read(&mut block);
            let _ = queue.flush(&mut transport).unwrap();
            let Some(Chunk::Memory { bytes, .. }) = queue.chunks.front() else { continue };
            assert!(bytes.len() <= 300_000, "{} bytes", bytes.len());
        }
    }

    #[test]
    fn a_client_that_is_gone_leaves_nothing_behind() {
        let limits = limits(10, 1000);
        let mut queue = WriteQueue::default();
        queue.keep(&[b'x'; 100], &limits);
        queue.clear();
        assert_eq!((queue.held(), queue.waiting()), (Held::default(), 0));
    }
}
