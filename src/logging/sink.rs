//! Where log lines end up: a file, a pipe, a socket or a terminal, and how each is written without
//! blocking for ever.
//!
//! The module knows bytes and line ends, nothing of the lines' content.
//!
//! The server shares its standard streams with the process that started it. So O_NONBLOCK, which
//! belongs to the open file and not to the descriptor, must not be set on them. A pipe is opened
//! again through /proc instead, which gives an open file of our own; a socket takes a flag per
//! call; anything else is polled before each write.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::journal;
use super::line_counts::note_dropped;
use crate::sys::log_file;
use crate::sys::output::{self, ATOMIC_WRITE, reopen_pipe};
use crate::sys::poll::{Readiness, wait_until_ready};
use crate::sys::retry::retry;

/// How often one piece is tried again after a partial write or an interrupted wait; past it the
/// rest is dropped.
const MAX_ATTEMPTS: usize = 64;

/// A standard stream of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standard {
    /// File descriptor 1.
    Output,
    /// File descriptor 2.
    Error,
}

/// An open log target. Writing takes `&self`: the kernel, not a lock, orders the writes of threads
/// and processes.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    manner: WriteMode,
    /// The target did not take a line within the wait. Until the target takes one again, writers do
    /// not wait: else a stalled pipe would cost a wait at every line.
    stalled: AtomicBool,
    /// The last write ended within a line (disk full): the next write ends that line first, so that
    /// at most one line is torn.
    torn: AtomicBool,
}

/// How a target is written without blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteMode {
    /// A regular file: one write however long; it never waits.
    File,
    /// A pipe with an open file of our own, non-blocking.
    Pipe,
    /// A socket (journald passes one as standard output): each call is non-blocking.
    Socket,
    /// A terminal, a device, or a pipe that we share: it is polled, then written.
    Shared,
}

impl Sink {
    /// Opens `target`. `-` is `standard`. /dev/stdout, /dev/stderr and links to them are the
    /// streams themselves, since opening these by name fails on sockets and after privileges are
    /// dropped. Anything else is a file, created with mode 0644 if missing and given to `owner`
    /// (see [`log_file::open`]).
    pub(super) fn open(target: &str, standard: Standard, owner: Option<(u32, u32)>) -> io::Result<Self> {
        match standard_stream(target, standard) {
            Some(stream) => Self::from_standard(stream),
            None => Self::from_path(target, owner),
        }
    }

    fn from_standard(stream: Standard) -> io::Result<Self> {
        let descriptor = match stream {
            Standard::Output => io::stdout().as_fd().try_clone_to_owned()?,
            Standard::Error => io::stderr().as_fd().try_clone_to_owned()?,
        };
        let shared = File::from(descriptor);
        let kind = shared.metadata()?.file_type();
        if kind.is_fifo()
            && let Ok(own) = reopen_pipe(&shared)
        {
            return Ok(Self::new(own, WriteMode::Pipe));
        }
        let manner = if kind.is_file() {
            WriteMode::File
        } else if kind.is_socket() {
            WriteMode::Socket
        } else {
            WriteMode::Shared
        };
        Ok(Self::new(shared, manner))
    }

    fn from_path(path: &str, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let file = log_file::open(Path::new(path), owner)?;
        let kind = file.metadata()?.file_type();
        let manner = if kind.is_file() {
            WriteMode::File
        } else if kind.is_fifo() {
            WriteMode::Pipe
        } else {
            WriteMode::Shared
        };
        Ok(Self::new(file, manner))
    }

    fn new(file: File, manner: WriteMode) -> Self {
        Sink { file, manner, stalled: AtomicBool::new(false), torn: AtomicBool::new(false) }
    }

    /// Whether systemd's journal reads this target.
    pub(super) fn is_journal(&self) -> bool {
        journal::reads(&self.file)
    }

    /// Another descriptor for this target.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Makes `descriptor` refer to this target; its number stays.
    pub(super) fn redirect(&self, descriptor: &mut OwnedFd) -> io::Result<()> {
        output::redirect(descriptor, &self.file)
    }

    /// Makes file descriptors 1 and 2 refer to this target.
    pub(super) fn capture_standard_streams(&self) -> io::Result<()> {
        output::capture_standard_streams(&self.file)
    }

    /// Writes many whole lines: in one write where other processes cannot interleave theirs, else
    /// in pieces of whole lines that are small enough to be atomic. Lines that the target does not
    /// take within `patience`, for all of them together, are dropped.
    pub(super) fn write_lines(&self, mut lines: &[u8], patience: Duration) {
        if self.manner == WriteMode::File {
            self.write_piece(lines, patience);
            return;
        }
        let deadline = Instant::now() + patience;
        while !lines.is_empty() {
            let (piece, rest) = lines.split_at(whole_lines(lines, ATOMIC_WRITE));
            if !self.write_piece(piece, deadline.saturating_duration_since(Instant::now())) {
                return note_dropped(ends_of_lines(rest));
            }
            lines = rest;
        }
    }

    /// Writes one record, such as a traceback, in one write(2) if the target takes it whole.
    /// Returns whether all of it was taken.
    pub(super) fn write_piece(&self, piece: &[u8], patience: Duration) -> bool {
        if self.torn.load(Ordering::Relaxed) {
            if !self.put(b"\n", patience).is_empty() {
                note_dropped(ends_of_lines(piece));
                return false;
            }
            self.torn.store(false, Ordering::Relaxed);
        }
        let left = self.put(piece, patience);
        let cut = !left.is_empty() && left.len() < piece.len();
        if cut && piece[piece.len() - left.len() - 1] != b'\n' {
            self.torn.store(true, Ordering::Relaxed);
        }
        if !left.is_empty() {
            note_dropped(ends_of_lines(left));
        }
        left.is_empty()
    }

    /// Writes bytes until the target has taken them, fails, or `patience` is over; returns the
    /// rest.
    fn put<'a>(&self, mut left: &'a [u8], patience: Duration) -> &'a [u8] {
        let mut deadline = None;
        for _ in 0..MAX_ATTEMPTS {
            if left.is_empty() {
                self.stalled.store(false, Ordering::Relaxed);
                break;
            }
            match retry(|| self.write_once(left)) {
                Ok(Some(taken)) => left = &left[taken.min(left.len())..],
                Ok(None) => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
                    if self.stalled.load(Ordering::Relaxed) || !self.writable_before(deadline) {
                        self.stalled.store(true, Ordering::Relaxed);
                        break;
                    }
                }
                // ENOSPC, EPIPE, EIO: there is no log to report it to. The next line may be taken.
                Err(_) => break,
            }
        }
        left
    }

    /// Writes once, without blocking: `WouldBlock` if the target is full.
    fn write_once(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.manner {
            WriteMode::File | WriteMode::Pipe => (&self.file).write(bytes),
            WriteMode::Socket => output::send_without_waiting(&self.file, bytes),
            // A pipe that is writable has room for this many bytes; a longer blocking write would
            // wait.
            WriteMode::Shared if self.writable_before(Instant::now()) => {
                (&self.file).write(&bytes[..bytes.len().min(ATOMIC_WRITE)])
            }
            WriteMode::Shared => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits until the target takes bytes (or is broken, which the next write tells), but not past
    /// `deadline`.
    fn writable_before(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        // A signal ends the wait early: the caller tries again, a bounded number of times.
        wait_until_ready(self.file.as_raw_fd(), Readiness::ToWrite, left)
            .unwrap_or_else(|error| error.kind() == io::ErrorKind::Interrupted)
    }
}

/// How many lines end in these bytes. A line whose start is not in them counts as well.
fn ends_of_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Which standard stream `target` names, if any; `-` is `dash`. Container images often have links
/// to the streams as log files.
pub(super) fn standard_stream(target: &str, dash: Standard) -> Option<Standard> {
    let named = |name: &str| match name {
        "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => Some(Standard::Output),
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => Some(Standard::Error),
        _ => None,
    };
    let behind_link = || named(fs::read_link(target).ok()?.to_str()?);
    if target == "-" { Some(dash) } else { named(target).or_else(behind_link) }
}

/// The length of the longest run of whole lines at the start of `lines` within `limit`. A first
/// line that is longer goes alone.
fn whole_lines(lines: &[u8], limit: usize) -> usize {
    if lines.len() <= limit {
        return lines.len();
    }
    memchr::memrchr(b'\n', &lines[..limit]).or_else(|| memchr::memchr(b'\n', lines)).map_or(lines.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;

    const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn pieces_end_at_line_ends_and_within_the_limit() {
        let cases: [(&str, usize, &[usize]); 6] = [
            ("", 8, &[]),
            ("one\n", 8, &[4]),
            ("one\ntwo\n", 8, &[8]),
            ("one\ntwo\nthree\n", 8, &[8, 6]),
            ("a line past the limit\nshort\n", 8, &[22, 6]),
            ("no line end at all", 8, &[18]),
        ];
        for (lines, limit, expected) in cases {
            let mut rest = lines.as_bytes();
            let mut pieces = Vec::new();
            while !rest.is_empty() {
                let length = whole_lines(rest, limit);
                pieces.push(length);
                rest = &rest[length..];
            }
            assert_eq!(pieces, expected, "{lines:?}");
        }
    }

    #[test]
    fn a_file_is_appended_to_and_a_missing_directory_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "before\n").unwrap();
        let sink = Sink::open(path.to_str().unwrap(), Standard::Error, None).unwrap();
        assert!(sink.write_piece(b"after\n", SHORT));
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\nafter\n");
        assert!(Sink::open("/proc/nonexistent/log", Standard::Error, None).is_err());
    }

    #[test]
    fn a_fifo_without_a_reader_keeps_what_it_has_room_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let sink = Sink::open(path.to_str().unwrap(), Standard::Error, None).unwrap();
        assert!(sink.write_piece(b"first\n", SHORT));
        while sink.write_piece(&[b'x'; ATOMIC_WRITE], SHORT) {}
        let mut reader = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(&path).unwrap();
        assert!(drain(&mut reader).starts_with(b"first\nxxx"));
        assert!(sink.write_piece(b"next\n", SHORT));
        assert!(drain(&mut reader).ends_with(b"next\n"));
    }

    #[test]
    fn a_stalled_target_costs_one_wait_and_then_none_until_it_is_read_again() {
        for manner in [WriteMode::Pipe, WriteMode::Shared, WriteMode::Socket] {
            let (mut reader, sink) = stalled_target(manner);
            let start = Instant::now();
            assert!(!sink.write_piece(b"dropped\n", SHORT));
            assert!(start.elapsed() >= SHORT / 2, "{manner:?} did not wait");
            let start = Instant::now();
            for _ in 0..100 {
                assert!(!sink.write_piece(b"dropped\n", Duration::from_secs(1)));
            }
            assert!(start.elapsed() < Duration::from_secs(1), "{manner:?} waited again");
            drain(&mut reader);
            assert!(sink.write_piece(b"kept\n", SHORT), "{manner:?} did not recover");
        }
    }

    #[test]
    fn a_pipe_without_a_reader_drops_lines_and_nothing_else() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let own = reopen_pipe(&File::from(OwnedFd::from(writer.try_clone().unwrap())));
        assert!(own.is_err() || !Sink::new(own.unwrap(), WriteMode::Pipe).write_piece(b"x\n", SHORT));
        let sink = Sink::new(File::from(OwnedFd::from(writer)), WriteMode::Shared);
        assert!(!sink.write_piece(b"x\n", SHORT));
    }

    #[test]
    fn a_line_cut_by_a_full_target_is_ended_before_the_next() {
        let (mut reader, sink) = stalled_target(WriteMode::Pipe);
        drain(&mut reader);
        let huge = [b'x'; 1 << 20];
        assert!(!sink.write_piece(&huge, Duration::ZERO));
        drain(&mut reader);
        assert!(sink.write_piece(b"next\n", SHORT));
        assert_eq!(drain(&mut reader), b"\nnext\n");
    }

    /// A full pipe or socket, with its reading end non-blocking.
    fn stalled_target(manner: WriteMode) -> (File, Sink) {
        let (reader, writer) = if manner == WriteMode::Socket {
            let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
            reader.set_nonblocking(true).unwrap();
            (File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer)))
        } else {
            let (reader, writer) = io::pipe().unwrap();
            let shared = File::from(OwnedFd::from(reader));
            let own = OpenOptions::new()
                .read(true)
                .custom_flags(NONBLOCK)
                .open(format!("/proc/self/fd/{}", shared.as_raw_fd()))
                .unwrap();
            (own, File::from(OwnedFd::from(writer)))
        };
        let writer = if manner == WriteMode::Pipe { reopen_pipe(&writer).unwrap() } else { writer };
        let sink = Sink::new(writer, manner);
        while sink.write_once(&[b'x'; ATOMIC_WRITE]).is_ok() {}
        (reader, sink)
    }

    fn drain(reader: &mut File) -> Vec<u8> {
        let mut taken = Vec::new();
        let _ = reader.read_to_end(&mut taken);
        taken
    }
}
