//! What a request gets: a status, the lines of a head, and the pieces of a body.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use crate::http::conditional::Verdict;
use crate::http::error::reason_phrase;
use crate::http::range::{Multipart, content_range, unsatisfied_range};
use crate::http::response::write_header;

/// A response, without the lines that every response of the server has.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// The lines of its head that are its own, Content-Length among them where it has one.
    pub lines: Vec<u8>,
    /// How long the body is. Nothing of it is sent to HEAD.
    pub length: u64,
    /// The body.
    pub body: Vec<Piece>,
    /// What the operator should know.
    pub problem: Option<String>,
}

/// A part of a body.
#[derive(Debug)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes of a file.
    File(Arc<OwnedFd>, Range<u64>),
}

/// A file, as a response describes it.
pub(super) struct Described<'a> {
    /// The file.
    pub file: &'a Arc<OwnedFd>,
    /// Its length.
    pub length: u64,
    /// Its type.
    pub content_type: &'a [u8],
    /// Lines that say in what coding it is.
    pub coding: &'a [u8],
    /// Lines that a response without the file's bytes has as well: validators, what caches may do.
    pub lines: &'a [u8],
}

impl Reply {
    /// What the `verdict` makes of a file.
    pub(super) fn of(described: &Described<'_>, verdict: Verdict) -> Reply {
        let &Described { file, length, content_type, coding, lines } = described;
        let mut reply = Reply { status: 200, lines: Vec::new(), length: 0, body: Vec::new(), problem: None };
        // The lines that follow are short, except an app's Content-Type.
        reply.lines.reserve(lines.len() + coding.len() + content_type.len() + 128);
        reply.lines.extend_from_slice(lines);
        match verdict {
            Verdict::Whole => {
                reply.describe(coding, content_type);
                reply.send(file, 0..length);
            }
            Verdict::Parts(ranges) if ranges.len() == 1 => {
                reply.status = 206;
                reply.describe(coding, content_type);
                reply.line(b"Content-Range", content_range(&ranges[0], length).as_bytes());
                reply.send(file, ranges[0].clone());
            }
            Verdict::Parts(ranges) => {
                let multipart = Multipart { boundary: boundary(), content_type, length };
                reply.status = 206;
                reply.describe(coding, &multipart.content_type());
                reply.send_parts(file, &ranges, multipart);
            }
            Verdict::NotModified => reply.status = 304,
            Verdict::PreconditionFailed => {
                reply.keep_out_of_caches();
                reply.explain(412);
            }
            Verdict::Unsatisfiable => {
                reply.keep_out_of_caches();
                reply.line(b"Content-Range", unsatisfied_range(length).as_bytes());
                reply.explain(416);
            }
        }
        reply
    }

    /// A reply that says no more than what its status means.
    pub(super) fn plain(status: u16) -> Reply {
        let mut reply = Reply { status, lines: Vec::new(), length: 0, body: Vec::new(), problem: None };
        reply.explain(status);
        reply
    }

    /// The same, with one more line.
    pub(super) fn with(mut self, name: &[u8], value: &[u8]) -> Reply {
        self.line(name, value);
        self
    }

    /// The same, with something that the operator should know.
    pub(super) fn because(mut self, problem: String) -> Reply {
        self.problem = Some(problem);
        self
    }

    /// Takes back how long caches may keep the file: a cache would keep the refusal in its place
    /// (RFC 9111, 3).
    fn keep_out_of_caches(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        let names_lifetime = |line: &[u8]| {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            name.eq_ignore_ascii_case(b"Cache-Control") || name.eq_ignore_ascii_case(b"Expires")
        };
        for line in lines.split_inclusive(|&byte| byte == b'\n').filter(|line| !names_lifetime(line)) {
            self.lines.extend_from_slice(line);
        }
    }

    fn line(&mut self, name: &[u8], value: &[u8]) {
        write_header(&mut self.lines, name, value);
    }

    fn describe(&mut self, coding: &[u8], content_type: &[u8]) {
        self.lines.extend_from_slice(coding);
        self.line(b"Content-Type", content_type);
    }

    fn set_length(&mut self, length: u64) {
        self.length = length;
        let mut digits = itoa::Buffer::new();
        self.line(b"Content-Length", digits.format(length).as_bytes());
    }

    fn send(&mut self, file: &Arc<OwnedFd>, range: Range<u64>) {
        self.set_length(range.end - range.start);
        self.body.push(Piece::File(file.clone(), range));
    }

    fn send_parts(&mut self, file: &Arc<OwnedFd>, ranges: &[Range<u64>], multipart: Multipart<'_>) {
        self.set_length(multipart.body_length(ranges));
        for (index, range) in ranges.iter().enumerate() {
            self.body.push(Piece::Bytes(multipart.part_head(range, index == 0)));
            self.body.push(Piece::File(file.clone(), range.clone()));
        }
        self.body.push(Piece::Bytes(multipart.end()));
    }

    /// Makes the status's reason phrase the body.
    fn explain(&mut self, status: u16) {
        self.status = status;
        let text = format!("{}\n", reason_phrase(status)).into_bytes();
        self.line(b"Content-Type", b"text/plain");
        self.set_length(text.len() as u64);
        self.body.push(Piece::Bytes(text));
    }
}

/// What stands between the parts of several ranges. It stays the same for the life of the process.
/// It is random, so that nobody can put it into a file beforehand.
fn boundary() -> &'static str {
    static BOUNDARY: OnceLock<String> = OnceLock::new();
    BOUNDARY.get_or_init(|| {
        // The standard library's source of random numbers is its hasher.
        let random = |seed: u8| RandomState::new().hash_one(seed);
        format!("{:016x}{:016x}", random(0), random(1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reply to a request for a file of ten bytes: its status, its lines and its body, in which
    /// a range of the file is shown as one.
    fn shown(verdict: Verdict) -> (u16, String, String) {
        let file = Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        let described = Described {
            file: &file,
            length: 10,
            content_type: b"text/css",
            coding: b"Content-Encoding: br\r\n",
            lines: b"ETag: \"x\"\r\n",
        };
        let reply = Reply::of(&described, verdict);
        let mut length = 0;
        let body = reply.body.iter().map(|piece| match piece {
            Piece::Bytes(bytes) => {
                length += bytes.len() as u64;
                String::from_utf8(bytes.clone()).unwrap().replace(boundary(), "BOUNDARY")
            }
            Piece::File(_, range) => {
                length += range.end - range.start;
                format!("<{range:?}>")
            }
        });
        let body: String = body.collect();
        assert_eq!(length, reply.length, "{body}");
        (reply.status, String::from_utf8(reply.lines).unwrap().replace(boundary(), "BOUNDARY"), body)
    }

    #[test]
    fn every_verdict_has_its_head_and_body() {
        let rows = [
            (
                Verdict::Whole,
                200,
                "ETag: \"x\"\r\nContent-Encoding: br\r\nContent-Type: text/css\r\nContent-Length: 10\r\n",
                "<0..10>",
            ),
            (
                Verdict::Parts(std::iter::once(2..5).collect()),
                206,
                "ETag: \"x\"\r\nContent-Encoding: br\r\nContent-Type: text/css\r\nContent-Range: bytes 2-4/10\r\n\
                 Content-Length: 3\r\n",
                "<2..5>",
            ),
            (Verdict::NotModified, 304, "ETag: \"x\"\r\n", ""),
            (
                Verdict::PreconditionFailed,
                412,
                "ETag: \"x\"\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n",
                "Precondition Failed\n",
            ),
            (
                Verdict::Unsatisfiable,
                416,
                "ETag: \"x\"\r\nContent-Range: bytes */10\r\nContent-Type: text/plain\r\nContent-Length: 22\r\n",
                "Range Not Satisfiable\n",
            ),
        ];
        for (verdict, status, lines, body) in rows {
            assert_eq!(shown(verdict), (status, lines.to_owned(), body.to_owned()));
        }
        let (status, lines, body) = shown(Verdict::Parts(vec![0..1, 5..10]));
        assert_eq!(status, 206);
        assert!(lines.contains("Content-Type: multipart/byteranges; boundary=BOUNDARY\r\n"), "{lines}");
        let part =
            |range: &str| format!("--BOUNDARY\r\nContent-Type: text/css\r\nContent-Range: bytes {range}/10\r\n\r\n");
        assert_eq!(body, format!("{}<0..1>\r\n{}<5..10>\r\n--BOUNDARY--\r\n", part("0-0"), part("5-9")));
    }
}
