//! The request head, parsed as it arrives.
//!
//! [`HeadParser`] walks the lines of a growing buffer and looks at each byte once. So a client that
//! sends one byte at a time costs no more in total than one that sends all at once. Faults are
//! refused as early as they can be seen: a wrong first byte, a bare line feed, a line or a head
//! over its limit, a malformed request line. The verdict depends on the bytes alone, never on how
//! they were cut into segments. Once the empty line has arrived, `fields` reads the headers.

use std::borrow::Cow;

use memchr::memchr;
use percent_encoding::percent_decode;

use super::error::{Error, quote};
use super::fields;
use super::grammar::{is_token_byte, line_length};
use super::header_cache::{CacheKey, CachedBlockId, HeaderCache};
use super::policy::Policy;
use super::request_line::{self, RequestLine, TargetForm};
use crate::base::ablation::{Mechanism, is_off};

/// Reads one request head from a buffer that grows between the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadParser {
    stage: HeadStage,
    /// Where the current line starts.
    line_start: usize,
    /// How far the current line has been searched for its end.
    searched: usize,
    /// Where the first header line starts.
    fields_start: usize,
    /// Header lines seen.
    fields: usize,
    /// Bytes of the field that the current line continues if it is folded, when folding is
    /// permitted.
    field_length: usize,
    line: RequestLine,
    hint: CacheHint,
}

/// What the earlier heads of a connection tell the parser of its next one.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheHint {
    /// The place of the connection's last header block in the cache.
    likely_block: usize,
    /// How many header blocks in a row were not in the cache.
    unknown_blocks: u32,
}

/// What [`HeadParser::parse`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Valid so far; call again when the buffer has grown.
    Partial,
    /// The head is complete and has been filled in.
    Complete,
}

/// A request head: where its parts stand, and what it means for the connection.
///
/// Spans point into [`RequestHead::source`]. The same value can be filled again and again; its
/// vectors are kept.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// Bytes of the head in the buffer, the empty lines before it and at its end included.
    pub len: usize,
    /// The method.
    pub method: Span,
    /// The request target as sent.
    pub target: Span,
    /// The target's path, still percent-encoded; empty only for CONNECT.
    pub path: Span,
    /// The target's query, without its question mark.
    pub query: Span,
    /// The host and port of a target in absolute form, which replace Host (RFC 9112, 3.2.2); empty
    /// for any other.
    pub authority: Span,
    /// The version that decides how the request is answered.
    pub version: Version,
    /// The version as sent, such as `HTTP/1.1`.
    pub version_text: Span,
    /// Where the header block starts.
    pub(super) fields_start: usize,
    /// The headers that the policy keeps, in order.
    pub(super) headers: Vec<HeaderSpan>,
    /// The variables of a uwsgi packet that have no field here, in order; empty in HTTP.
    pub(super) vars: Vec<HeaderSpan>,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client waits for `100 Continue` (never in HTTP/1.0: RFC 9110, 10.1.1).
    pub expect_continue: bool,
    /// Whether the client's side allows another request on this connection.
    pub keep_alive: bool,
    /// What a trusted peer says about its client's scheme; `None` when it says nothing or is not
    /// trusted.
    pub forwarded_scheme: Option<Scheme>,
    /// The id of the header block if the cache knew it; `None` for one that has just been parsed.
    pub block: Option<CachedBlockId>,
    /// The head as the compatibility switches have changed it, or made of a uwsgi packet; empty
    /// where the buffer's own bytes stand.
    pub(super) rewritten: Vec<u8>,
}

/// Where a header's name and value stand in the header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeaderSpan {
    pub(super) name: Span,
    pub(super) value: Span,
}

/// A range of bytes in a buffer of less than 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// The version that decides how a request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0, and anything older that is permitted.
    Http10,
    /// HTTP/1.1 and every later 1.x, which is answered as 1.1 (RFC 9110, 2.5).
    #[default]
    Http11,
    /// No version of HTTP: a proxy speaks uwsgi. It is answered as in HTTP/1.1, but without chunks
    /// and interim responses, which nginx does not understand over uwsgi.
    Uwsgi,
}

/// How a request body is delimited (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// Content-Length, in bytes; at most 2^63 - 1.
    Length(u64),
    /// Transfer-Encoding: chunked, and the coding that was applied before it.
    Chunked(Coding),
}

/// The coding of a body before it was cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Nothing: the chunks' data is the content.
    Identity,
    /// A compression, which the application must undo
    /// (docs/decisions/0003-compressed-transfer-codings.md).
    Compressed,
}

/// The scheme that a proxy in front reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl HeadParser {
    /// A parser at the start of a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// A parser at the start of a request, with the [`HeadParser::hint`] of the connection's last
    /// one.
    pub fn with_hint(hint: CacheHint) -> Self {
        HeadParser { hint, ..Self::default() }
    }

    /// What [`HeadParser::with_hint`] takes for the connection's next request.
    pub fn hint(&self) -> CacheHint {
        self.hint
    }

    /// Parses the bytes added to `buf` since the last call, and fills `head` once the head is
    /// complete.
    ///
    /// `buf` starts at the first byte of the request every time; the parser removes nothing from
    /// it. `peer_is_trusted` tells whether the peer may set the scheme and headers with
    /// underscores. A header block that `known` holds is not parsed again; any other may be added.
    /// After an error the bytes that follow have no meaning: answer, and close the connection.
    pub fn parse(
        &mut self,
        buf: &[u8],
        policy: &Policy,
        peer_is_trusted: bool,
        mut known: Option<&mut HeaderCache>,
        head: &mut RequestHead,
    ) -> Result<Status, Error> {
        if self.stage == HeadStage::Start && !self.find_first_byte(buf)? {
            return Ok(Status::Partial);
        }
        while let Some(line) = self.next_line(buf, policy)? {
            match self.stage {
                HeadStage::Fields if line.is_empty() => {
                    self.complete(buf, policy, peer_is_trusted, known, head)?;
                    return Ok(Status::Complete);
                }
                HeadStage::Fields => self.count_field(buf, line, policy)?,
                HeadStage::Start | HeadStage::RequestLine => {
                    self.line = request_line::parse(buf, line, policy)?;
                    self.fields_start = self.line_start;
                    self.stage = HeadStage::Fields;
                    if self.lookup(buf, peer_is_trusted, known.as_deref_mut(), head) {
                        return Ok(Status::Complete);
                    }
                }
            }
        }
        Ok(Status::Partial)
    }

    /// Skips one empty line, left behind by some clients after a body (RFC 9112, 2.2), and refuses
    /// what cannot begin a method: TLS, SOCKS, a second empty line. False until the method's first
    /// byte has arrived.
    fn find_first_byte(&mut self, buf: &[u8]) -> Result<bool, Error> {
        let start = match buf {
            [] | [b'\r'] => return Ok(false),
            [b'\r', b'\n', ..] => 2,
            _ => 0,
        };
        match buf.get(start) {
            None => Ok(false),
            Some(&byte) if is_token_byte(byte) => {
                self.stage = HeadStage::RequestLine;
                self.line_start = start;
                self.searched = start;
                Ok(true)
            }
            // gunicorn's words, where it has some: an empty method, an empty line.
            Some(b' ') => Err(Error::InvalidMethod(Vec::new())),
            Some(b'\n') => Err(self.bare_line_feed()),
            Some(_) => {
                let end = memchr(b'\n', &buf[start..]).map_or(buf.len(), |at| start + at);
                Err(Error::InvalidRequestLine(quote(buf[start..end].trim_ascii_end())))
            }
        }
    }

    /// The next line without its CRLF, or `None` until it is complete. A line is refused as soon as
    /// it is over its limit, whether or not its end has arrived.
    fn next_line(&mut self, buf: &[u8], policy: &Policy) -> Result<Option<Span>, Error> {
        let found = memchr(b'\n', &buf[self.searched..]).map(|at| self.searched + at);
        let raw = &buf[self.line_start..found.unwrap_or(buf.len())];
        let length = line_length(raw);
        self.check_length(raw, length, policy)?;
        let Some(line_feed) = found else {
            self.searched = buf.len();
            return Ok(None);
        };
        if !raw.ends_with(b"\r") {
            return Err(self.bare_line_feed());
        }
        let line = Span::new(self.line_start, self.line_start + length);
        self.line_start = line_feed + 1;
        self.searched = self.line_start;
        Ok(Some(line))
    }

    fn check_length(&self, raw: &[u8], length: usize, policy: &Policy) -> Result<(), Error> {
        if self.stage != HeadStage::Fields {
            let limit = policy.longest_request_line();
            return if length > limit { Err(Error::LimitRequestLine { size: length, limit }) } else { Ok(()) };
        }
        let continued = if policy.continues_field(raw) { self.field_length } else { 0 };
        // The empty line at the end is no field and has no limit.
        if length > 0 && continued + length + CRLF.len() > policy.longest_field() {
            return Err(Error::LimitRequestHeaders("limit request headers fields size"));
        }
        if self.line_start + length > HEAD_CEILING {
            Err(Error::LimitRequestHeaders("max buffer headers"))
        } else {
            Ok(())
        }
    }

    /// RFC 9112, 2.2 lets a server accept a bare line feed. This one refuses it, against request
    /// smuggling (docs/decisions/0004-bare-line-feeds.md).
    fn bare_line_feed(&self) -> Error {
        let what = b"bare LF as line terminator".to_vec();
        match self.stage {
            HeadStage::Fields => Error::InvalidHeader(what),
            HeadStage::Start | HeadStage::RequestLine => Error::InvalidRequestLine(what),
        }
    }

    fn count_field(&mut self, buf: &[u8], line: Span, policy: &Policy) -> Result<(), Error> {
        let length = line.len() + CRLF.len();
        if policy.continues_field(line.of(buf)) {
            self.field_length += length;
            return Ok(());
        }
        self.field_length = length;
        self.fields += 1;
        if self.fields > policy.most_fields() {
            Err(Error::LimitRequestHeaders("limit request headers fields"))
        } else {
            Ok(())
        }
    }

    fn complete(
        &mut self,
        buf: &[u8],
        policy: &Policy,
        peer_is_trusted: bool,
        known: Option<&mut HeaderCache>,
        head: &mut RequestHead,
    ) -> Result<(), Error> {
        self.fill_request_line(head);
        head.len = self.line_start;
        head.block = None;
        let block = Span::new(self.fields_start, self.line_start);
        fields::read(buf, &self.line, block, self.fields, policy, peer_is_trusted, head)?;
        if let Some(known) = known {
            self.insert(buf, peer_is_trusted, known, head);
        }
        Ok(())
    }

    /// Completes the head from the cache, if that has the header block behind the request line.
    /// Returns whether it has.
    fn lookup(
        &mut self,
        buf: &[u8],
        peer_is_trusted: bool,
        known: Option<&mut HeaderCache>,
        head: &mut RequestHead,
    ) -> bool {
        let (Some(known), Some(circumstances)) = (known, self.circumstances(peer_is_trusted)) else { return false };
        if is_off(Mechanism::HeaderCache) {
            return false;
        }
        let place = self.hint.likely_block;
        let Some(block) = known.lookup(buf, self.fields_start, circumstances, place, head) else { return false };
        self.hint.likely_block = block.place();
        self.hint.unknown_blocks = 0;
        head.rewritten.clear();
        self.fill_request_line(head);
        true
    }

    fn insert(&mut self, buf: &[u8], peer_is_trusted: bool, known: &mut HeaderCache, head: &RequestHead) {
        self.hint.unknown_blocks = self.hint.unknown_blocks.wrapping_add(1);
        let may_come_again =
            self.hint.unknown_blocks <= LEARNED_AT_FIRST || self.hint.unknown_blocks.is_multiple_of(LEARNED_LATER);
        if let Some(circumstances) = self.circumstances(peer_is_trusted)
            && may_come_again
            && head.rewritten.is_empty()
        {
            let block = Span::new(self.fields_start, head.len);
            self.hint.likely_block = known.insert(buf, block, circumstances, head).unwrap_or(self.hint.likely_block);
        }
    }

    /// What the meaning of the header block depends on besides its bytes; `None` where the meaning
    /// depends on the request target as well.
    fn circumstances(&self, peer_is_trusted: bool) -> Option<CacheKey> {
        let version = self.line.version;
        matches!(self.line.form, TargetForm::Origin).then_some(CacheKey { version, peer_is_trusted })
    }

    fn fill_request_line(&self, head: &mut RequestHead) {
        let line = &self.line;
        head.method = line.method;
        head.target = line.target;
        head.path = line.path;
        head.query = line.query;
        head.authority = match line.form {
            TargetForm::Absolute { authority, .. } => authority,
            TargetForm::Origin | TargetForm::Authority | TargetForm::Asterisk => Span::default(),
        };
        head.version = line.version;
        head.version_text = line.version_text;
    }
}

impl RequestHead {
    /// The bytes that the spans point into: `buf`, the buffer that was parsed, save under a
    /// compatibility switch and under uwsgi.
    pub fn source<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        if self.rewritten.is_empty() { buf } else { &self.rewritten }
    }

    /// The headers that the policy keeps, in order: names as sent, values without white space
    /// around them. `source` is what [`RequestHead::source`] returns.
    pub fn headers<'a>(&'a self, source: &'a [u8]) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> {
        let fields = &source[self.fields_start..];
        self.headers.iter().map(move |header| (header.name.of(fields), header.value.of(fields)))
    }

    /// The variables of a uwsgi packet that have no field here, in order. They become keys of the
    /// environ as they are. None in HTTP. `source` is what [`RequestHead::source`] returns.
    pub fn vars<'a>(&'a self, source: &'a [u8]) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> {
        self.vars.iter().map(move |var| (var.name.of(source), var.value.of(source)))
    }

    /// The value of the last of [`RequestHead::vars`] with this name.
    pub fn var<'a>(&'a self, source: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        self.vars(source).rfind(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Bytes of memory that the head made of a uwsgi packet takes besides the packet; 0 in HTTP.
    pub fn held(&self) -> usize {
        if self.version == Version::Uwsgi { self.rewritten.capacity() } else { 0 }
    }

    /// Whether the head says that a proxy has passed the request on. As in
    /// [`RequestHead::headers`], `source` is what the spans point into.
    pub fn names_a_proxy(&self, source: &[u8]) -> bool {
        self.version == Version::Uwsgi
            || self.headers(source).any(|(name, _)| PROXY_HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known)))
    }
}

/// What proxies add to a request (RFC 7239; RFC 9110, 7.6.3; and the headers in use before them).
const PROXY_HEADERS: [&[u8]; 6] =
    [b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-real-ip"];

impl Span {
    /// The range from `start` to `end`. Both fit: they are hardly above [`HEAD_CEILING`].
    pub(super) fn new(start: usize, end: usize) -> Self {
        Span { start: start as u32, end: end as u32 }
    }

    /// The span of `part`, which must be a slice of `whole`.
    pub(super) fn within(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr() - whole.as_ptr().addr();
        Span::new(start, start + part.len())
    }

    /// The bytes of `buf` in this range. `buf` is the buffer that the span was made for.
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start as usize..self.end as usize]
    }

    /// How many bytes it spans.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it spans nothing.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Without its first `count` bytes; empty when it has fewer.
    pub(super) fn skip(self, count: usize) -> Self {
        self.from((self.start + count as u32).min(self.end))
    }

    /// From `start` on to its own end.
    pub(super) fn from(self, start: u32) -> Self {
        Span { start, end: self.end }
    }

    /// Its first `at` bytes, and the rest.
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        let middle = self.start + at as u32;
        let before = Span { start: self.start, end: middle };
        (before, self.from(middle))
    }
}

/// The bytes that the percent-encoded `raw` stands for (RFC 3986, 2.1). An invalid escape is left
/// as it is, as `urllib.parse.unquote` does.
pub fn decode_path(raw: &[u8]) -> Cow<'_, [u8]> {
    percent_decode(raw).into()
}

/// Which line comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HeadStage {
    /// Not one byte of the request line yet.
    #[default]
    Start,
    RequestLine,
    Fields,
}

const CRLF: &[u8] = b"\r\n";

/// Once this many blocks in a row were not in the cache, the next ones are not inserted: they would
/// only replace others. This is so behind a proxy that gives each request a number of its own.
const LEARNED_AT_FIRST: u32 = 4;

/// Past [`LEARNED_AT_FIRST`] one block in this many is inserted all the same, since the client may
/// have changed.
const LEARNED_LATER: u32 = 16;

/// However high the limits are set, a head ends here: 16 MiB. It also keeps every [`Span`] within
/// 32 bits.
const HEAD_CEILING: usize = 16 << 20;
