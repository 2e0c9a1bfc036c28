//! Requests that the event loop answers with files, without the application.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::logged_request::{LateLog, LoggedRequest};
use super::{Connection, Step};
use crate::files::{Piece, Reply, StaticFiles};
use crate::http::error::reason_phrase;
use crate::http::response::{self, ConnectionHeader};
use crate::python::response_writer::ResponseSummary;
use crate::sys::beneath;
use crate::sys::clock::unix_time;

/// A file of up to this many bytes is read, and goes out in one write with the head. The copy costs
/// less than a second system call, which has a price per connection.
const SHORT_FILE: u64 = 16 * 1024;

/// Room for a usual head. It is a guess: a longer head makes the buffer grow.
const USUAL_HEAD: usize = 512;

/// What holds for all responses with files.
pub struct FileTerms {
    /// The line of the Server header, or nothing.
    pub server: Arc<[u8]>,
    /// Whether there is an access log.
    pub is_logged: bool,
    /// Whether the access log shows headers of responses.
    pub logs_headers: bool,
}

impl Connection {
    /// Whether the request that is ready is for a file.
    pub(super) fn is_for_file(&self) -> bool {
        let Some(paths) = &self.limits.own_paths.files else { return false };
        let head = &self.request.head;
        let source = head.source(self.request.bytes());
        paths.claim(head.method.of(source), head.path.of(source))
    }

    /// Answers a request for a file without the application. Where [`StaticFiles::reply`] leaves
    /// the request to the application, the step is [`Step::Call`].
    pub fn answer_with_file(&mut self, files: &mut StaticFiles, terms: &FileTerms, now: Instant) -> Step {
        if !self.http.is_serving() || !self.is_for_file() {
            // The key was queued for another connection, which is gone.
            return Step::Wait;
        }
        let head = &self.request.head;
        let source = head.source(self.request.bytes());
        let Some(mut reply) = files.reply(head, source, now) else { return Step::Call };
        if let Some(problem) = reply.problem.take() {
            log::error!("{problem}");
        }
        let is_head = head.method.of(source) == b"HEAD";
        let keep_alive = self.request.may_be_kept() && self.request.has_come_whole();
        let connection = if keep_alive { ConnectionHeader::KeepAlive } else { ConnectionHeader::Close };
        let mut front = Vec::with_capacity(USUAL_HEAD + usize::try_from(reply.length.min(SHORT_FILE)).unwrap_or(0));
        let status = format!("{} {}", reply.status, reason_phrase(reply.status));
        let date = files.date(unix_time());
        let version = self.request.head.version;
        response::write_head_start(&mut front, version, status.as_bytes(), &terms.server, date, connection, false);
        front.extend_from_slice(&reply.lines);
        if let Some(id) = self.request.named_id() {
            response::write_header(&mut front, id.header.as_bytes(), id.value);
        }
        response::write_head_end(&mut front);
        if terms.is_logged {
            self.log_file(&reply, is_head, terms, now);
        }
        let body = if is_head { Vec::new() } else { reply.body };
        self.push_pieces(front, body);
        self.finish(keep_alive, now)
    }

    fn push_pieces(&mut self, mut front: Vec<u8>, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => front.extend_from_slice(&bytes),
                Piece::File(file, range) => {
                    let length = range.end - range.start;
                    if length <= SHORT_FILE && read_behind(&mut front, &file, range.start, length).is_ok() {
                        continue;
                    }
                    self.output.push_whole(std::mem::take(&mut front));
                    self.output.push_file(file, range.start, length);
                }
            }
        }
        self.output.push_whole(front);
    }

    /// The request is logged when its response has been sent.
    fn log_file(&mut self, reply: &Reply, is_head: bool, terms: &FileTerms, now: Instant) {
        let sent = if is_head { 0 } else { reply.length };
        let headers = if terms.logs_headers { reply.lines.clone() } else { Vec::new() };
        let summary = ResponseSummary { status: reply.status, sent, headers };
        let request = LoggedRequest::of(&self.request, &self.client, self.transport.is_tls(), summary);
        self.log_when_sent(LateLog::new(request, Vec::new(), now));
    }
}

/// Appends a part of a file to `front`. On an error, as where the file has become shorter, `front`
/// stays as it was.
fn read_behind(front: &mut Vec<u8>, file: &OwnedFd, offset: u64, length: u64) -> io::Result<()> {
    let start = front.len();
    front.resize(start + usize::try_from(length).unwrap_or(0), 0);
    let read = beneath::read_exact_at(file, &mut front[start..], offset);
    read.inspect_err(|_| front.truncate(start))
}
