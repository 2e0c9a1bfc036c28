//! Response bytes on their way to a client: written at once where the kernel takes them, queued where it does not.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;

use super::transport::Transport;
use crate::exchange::WriteChunk;
use crate::sys::socket::Cork;

/// How much of a file one call of sendfile(2) is given, and how much is read at once where sendfile cannot be used.
pub const FILE_BLOCK: usize = 256 * 1024;

/// How much one flush sends before other connections have their turn.
const FLUSH_LIMIT: usize = 2 * 1024 * 1024;

/// Most parts that one write takes (IOV_MAX on Linux).
const MOST_PARTS: usize = 1024;

/// The queue of one connection.
#[derive(Default)]
pub struct WriteQueue {
    pieces: VecDeque<WriteChunk>,
    /// Bytes that flushes have sent since the connection began.
    sent: u64,
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
        self.pieces.is_empty()
    }

    /// How many bytes flushes have sent so far: whether this moves tells whether the client reads.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: WriteChunk) {
        self.pieces.push_back(piece);
    }

    /// Sends `parts` as one write, when `push` says, if nothing is queued before them; returns how many bytes the kernel took.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&self, transport: &mut Transport, parts: &[&[u8]], push: Cork) -> io::Result<usize> {
        if !self.is_empty() {
            return Ok(0);
        }
        let sent = match parts {
            [part] => retry(|| transport.write(part, push)),
            _ => {
                let slices: Vec<IoSlice<'_>> = parts.iter().take(MOST_PARTS).map(|part| IoSlice::new(part)).collect();
                retry(|| transport.write_vectored(&slices, push))
            }
        };
        sent.map(|count| count.unwrap_or(0))
    }

    /// Sends what is queued, as far as the kernel takes it.
    ///
    /// # Errors
    /// The connection is broken, or a file became shorter than it was announced to be.
    pub fn flush(&mut self, transport: &mut Transport) -> io::Result<Flushed> {
        let mut budget = FLUSH_LIMIT;
        while let Some(piece) = self.pieces.front_mut() {
            if budget == 0 {
                return Ok(Flushed::Paused);
            }
            let Some(sent) = retry(|| send(piece, transport))? else { return Ok(Flushed::Blocked) };
            self.sent += sent as u64;
            budget = budget.saturating_sub(sent);
            if left(piece) == 0 {
                self.pieces.pop_front();
            }
        }
        // Under TLS what was taken may not have gone out.
        Ok(if retry(|| transport.flush())?.is_some() { Flushed::All } else { Flushed::Blocked })
    }
}

/// Sends from the front of `piece`, and moves its start.
fn send(piece: &mut WriteChunk, transport: &mut Transport) -> io::Result<usize> {
    match piece {
        WriteChunk::Owned(bytes) => {
            let sent = transport.write(bytes, Cork::No)?;
            bytes.drain(..sent);
            Ok(sent)
        }
        WriteChunk::Shared { bytes, start } => {
            let sent = transport.write(&(**bytes).as_ref()[*start..], Cork::No)?;
            *start += sent;
            Ok(sent)
        }
        WriteChunk::File { file, offset, remaining } => {
            let count = usize::try_from(*remaining).unwrap_or(usize::MAX).min(FILE_BLOCK);
            let sent = match transport.send_file(&*file, offset, count) {
                // A file system that sendfile(2) does not know, or TLS, which the kernel does not speak: copy instead.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                    let sent = copy(file, *offset, count, transport)?;
                    *offset += sent as u64;
                    sent
                }
                result => result?,
            };
            if sent == 0 {
                // The client was promised more bytes than there are now.
                return Err(ErrorKind::UnexpectedEof.into());
            }
            *remaining -= sent as u64;
            Ok(sent)
        }
    }
}

fn copy(file: &impl std::os::fd::AsFd, offset: u64, count: usize, transport: &mut Transport) -> io::Result<usize> {
    let file = File::from(file.as_fd().try_clone_to_owned()?);
    let mut block = vec![0; count.min(transport.most_at_once())];
    let read = file.read_at(&mut block, offset)?;
    transport.write(&block[..read], Cork::No)
}

/// Calls `action` again when a signal interrupts it; `None` when it would block.
fn retry<T>(mut action: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        match action() {
            Ok(done) => return Ok(Some(done)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn left(piece: &WriteChunk) -> u64 {
    match piece {
        WriteChunk::Owned(bytes) => bytes.len() as u64,
        WriteChunk::Shared { bytes, start } => ((**bytes).as_ref().len() - start) as u64,
        WriteChunk::File { remaining, .. } => *remaining,
    }
}
