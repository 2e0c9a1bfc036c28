//! Sends the head in front of the first block, blocks and files, with hints to the exchange.

use std::io;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::waiting::Unsent;
use super::{Outlook, Progress, ResponseWriter, request_is_over};
use crate::base::ablation::{Mechanism, is_off};
use crate::exchange::Hint;
use crate::files::Piece;
use crate::http::encode::Framed;
use crate::http::request::Version;
use crate::http::response::{self, BodyPlan, ConnectionHeader};
use crate::sys::clock::unix_time;

/// Parts of up to this many bytes in all are put together and sent as one, which costs the kernel
/// less than a list of parts.
const GATHER_LIMIT: usize = 8 * 1024;

impl ResponseWriter {
    /// Sends a block of an iteration. The block may wait a moment for the next.
    ///
    /// # Errors
    /// The client is gone.
    pub fn stream(&mut self, block: &Bound<'_, PyBytes>) -> io::Result<()> {
        self.send_with(&[block], false, Hint::MoreSoon)
    }

    /// Sends `blocks` at once, after the head if that is still to go and whatever is held back;
    /// `last` says that nothing follows.
    ///
    /// # Errors
    /// The client is gone, or the response does not [take blocks](ResponseWriter::takes_blocks).
    pub fn send(&mut self, blocks: &[&Bound<'_, PyBytes>], last: bool) -> io::Result<()> {
        self.send_with(blocks, last, Hint::Now)
    }

    /// As [`ResponseWriter::send`]; `hint` goes with the bytes unless more is known of them.
    pub(super) fn send_with(&mut self, blocks: &[&Bound<'_, PyBytes>], last: bool, hint: Hint) -> io::Result<()> {
        if !self.takes_blocks() {
            return Err(io::Error::other("the response takes no blocks now"));
        }
        if self.head.body.is_some() {
            // What the application sends besides a file that it has named is dropped.
            return if last { self.send_pieces() } else { Ok(()) };
        }
        let mut front = std::mem::take(&mut self.buffer);
        let is_first = self.progress == Progress::Started;
        let offered = blocks.iter().map(|block| block.as_bytes().len()).sum();
        if is_first {
            let is_whole = self.head.content_length == Some(offered as u64);
            self.render_head(&mut front, last || is_whole);
            self.progress = Progress::Sending;
        }
        let Framed { admitted, tail } = self.encoder.frame(&mut front, offered, last);
        if last {
            self.progress = Progress::Complete;
        }
        let hint = self.hint(is_first, last).unwrap_or(hint);
        let is_short = front.len() + admitted + tail.len() <= GATHER_LIMIT && !is_off(Mechanism::Gathering);
        let result = if let ([block], true, Hint::MoreSoon) = (blocks, is_short, hint) {
            // The exchange will likely put the block together with others: one copy is enough.
            self.transmit_short(&[&front, &block.as_bytes()[..admitted], tail], hint)
        } else if is_short {
            gather(&mut front, blocks, admitted);
            front.extend_from_slice(tail);
            self.transmit_one(&front, hint)
        } else {
            self.transmit(&front, blocks, admitted, tail, hint)
        };
        front.clear();
        self.buffer = front;
        if self.has_backlog() && result.is_ok() && self.is_whole() {
            self.leave_backlog();
        }
        result.inspect_err(|_| self.connection = Outlook::Gone)
    }

    /// Sends the rest of a regular file from `offset` on, by the kernel alone, as the whole body.
    ///
    /// # Errors
    /// The client is gone, or the request is over.
    pub fn send_file(&mut self, file: std::os::fd::OwnedFd, offset: u64, length: u64) -> io::Result<()> {
        if self.head.body.is_some() {
            return self.send_pieces();
        }
        let mut front = std::mem::take(&mut self.buffer);
        front.clear();
        self.render_head(&mut front, true);
        self.progress = Progress::Complete;
        let offered = usize::try_from(length).unwrap_or(usize::MAX);
        let Framed { admitted, tail } = self.encoder.frame(&mut front, offered, true);
        let sent = self.transmit_one(&front, Hint::Now);
        front.clear();
        self.buffer = front;
        let piece = Piece::File(Arc::new(file), offset..offset + admitted as u64);
        let sent = sent.and_then(|()| self.send_piece(piece)).and_then(|()| match tail {
            [] => Ok(()),
            tail => self.transmit_one(tail, Hint::Now),
        });
        self.leave_backlog();
        sent.inspect_err(|_| self.connection = Outlook::Gone)
    }

    /// Sends head and body of a response whose body is a file that the application has named.
    pub(super) fn send_pieces(&mut self) -> io::Result<()> {
        let pieces = self.head.body.take().unwrap_or_default();
        let mut front = std::mem::take(&mut self.buffer);
        self.render_head(&mut front, true);
        self.progress = Progress::Complete;
        let length = self.head.content_length.unwrap_or(0);
        let offered = usize::try_from(length).unwrap_or(usize::MAX);
        let Framed { admitted, .. } = self.encoder.frame(&mut front, offered, true);
        let sent = self.transmit_one(&front, Hint::Now);
        front.clear();
        self.buffer = front;
        let pieces = if admitted > 0 { pieces } else { Vec::new() };
        let sent = sent.and_then(|()| pieces.into_iter().try_for_each(|piece| self.send_piece(piece)));
        self.leave_backlog();
        sent.inspect_err(|_| self.connection = Outlook::Gone)
    }

    fn send_piece(&mut self, piece: Piece) -> io::Result<()> {
        match piece {
            Piece::Bytes(bytes) => self.transmit_one(&bytes, Hint::Now),
            Piece::File(file, range) => {
                // The exchange sends the file behind the bytes that it has, so it must have the
                // backlog.
                self.leave_backlog();
                let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
                exchange.send_file(file, range.start, range.end - range.start);
                Ok(())
            }
        }
    }

    /// Sends an informational response (103 Early Hints, RFC 8297). Does nothing once the final
    /// head is out, or for a client that knows none: in HTTP/1.0, and under uwsgi, where nginx
    /// takes it for the answer.
    ///
    /// # Errors
    /// The client is gone.
    pub fn send_interim(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_head_out() || self.wanted.version != Version::Http11 {
            return Ok(());
        }
        self.transmit_one(bytes, Hint::Now).inspect_err(|_| self.connection = Outlook::Gone)
    }

    /// Appends the head to `out`. `is_last` says that the whole body goes with it, behind which the
    /// application hardly reads more of the request.
    pub(super) fn render_head(&mut self, out: &mut Vec<u8>, is_last: bool) {
        let may_keep_alive = self.exchange.as_ref().is_some_and(|exchange| exchange.may_keep_alive(is_last));
        if self.connection == Outlook::Close && may_keep_alive && self.encoder.plan() != BodyPlan::UntilClose {
            self.connection = Outlook::KeepAlive;
        }
        let connection = match (self.head.upgrade, self.connection == Outlook::KeepAlive) {
            (true, true) => ConnectionHeader::Upgrade,
            (true, false) => ConnectionHeader::UpgradeOrClose,
            (false, true) => ConnectionHeader::KeepAlive,
            (false, false) => ConnectionHeader::Close,
        };
        let chunked = self.encoder.plan() == BodyPlan::Chunked;
        let date = self.date.get(unix_time());
        response::write_head_start(
            out,
            self.wanted.version,
            &self.head.status,
            &self.server,
            date,
            connection,
            chunked,
        );
        out.extend_from_slice(&self.head.headers);
        response::write_head_end(out);
    }

    /// What is known of the bytes that are about to be sent: whether they are all of the response,
    /// or the last before the end of the connection. The latter is said only if the end comes at
    /// once, because the kernel holds the bytes until then: Python code in between could hold them
    /// up. (Destructors of the application's objects and a full access log still can, but the
    /// kernel does not wait for long.)
    pub(super) fn hint(&self, is_first: bool, last: bool) -> Option<Hint> {
        if self.head.upgrade {
            return None;
        }
        match self.connection {
            Outlook::KeepAlive => (is_first && self.is_whole()).then_some(Hint::LastOfResponse),
            Outlook::Close => (last && !self.is_followed).then_some(Hint::LastOfConnection),
            Outlook::Lent | Outlook::Gone => None,
        }
    }

    pub(super) fn transmit_one(&mut self, bytes: &[u8], hint: Hint) -> io::Result<()> {
        self.transmit_short(&[bytes], hint)
    }

    /// Sends parts. Bytes that the exchange does not take are copied into the backlog.
    fn transmit_short(&mut self, parts: &[&[u8]], hint: Hint) -> io::Result<()> {
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        // Nothing overtakes the backlog.
        let taken = if self.waiting.backlog.is_empty() { exchange.send(parts, hint)? } else { 0 };
        if taken < parts.iter().map(|part| part.len()).sum() {
            self.waiting.backlog.push_back(Unsent { bytes: Box::new(parts.concat()), start: taken });
        }
        Ok(())
    }

    fn transmit(
        &mut self,
        front: &[u8],
        blocks: &[&Bound<'_, PyBytes>],
        admitted: usize,
        tail: &[u8],
        hint: Hint,
    ) -> io::Result<()> {
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        let mut parts: Vec<&[u8]> = Vec::with_capacity(blocks.len() + 2);
        let mut room = admitted;
        parts.push(front);
        for block in blocks {
            let bytes = block.as_bytes();
            let part = &bytes[..bytes.len().min(room)];
            room -= part.len();
            parts.push(part);
        }
        parts.push(tail);
        let mut taken = if self.waiting.backlog.is_empty() { exchange.send(&parts, hint)? } else { 0 };
        for (index, part) in parts.iter().enumerate() {
            let start = taken.min(part.len());
            taken -= start;
            if start == part.len() {
                continue;
            }
            let owner = index.checked_sub(1).and_then(|index| blocks.get(index));
            self.waiting.backlog.push_back(match owner {
                // The block is not copied: the backlog holds the application's object.
                Some(block) if part.len() == block.as_bytes().len() => {
                    Unsent { bytes: Box::new(PyBackedBytes::from((*block).clone())), start }
                }
                _ => Unsent { bytes: Box::new(part[start..].to_vec()), start: 0 },
            });
        }
        Ok(())
    }
}

/// Copies the first `admitted` bytes of `blocks` behind `front`.
fn gather(front: &mut Vec<u8>, blocks: &[&Bound<'_, PyBytes>], admitted: usize) {
    let end = front.len() + admitted;
    for block in blocks {
        let bytes = block.as_bytes();
        front.extend_from_slice(&bytes[..bytes.len().min(end - front.len())]);
    }
}
