//! The header block, and what its fields mean for framing, connection and trust.
//!
//! `httparse` splits the block; everything it does not know is checked here in one loop:
//! singletons, Content-Length against Transfer-Encoding (RFC 9112, 6), Host (RFC 9112, 3.2),
//! Expect, Connection, scheme headers, underscores.

use httparse::{EMPTY_HEADER, Header};

use super::authority::Authority;
use super::error::{Error, quote};
use super::grammar::{is_field_value, is_ows, is_token, trim_ows, trim_ows_end};
use super::lenient::{self, lines};
use super::policy::{FieldRules, Policy, UnderscoredNames};
use super::request::{Coding, Framing, HeaderSpan, RequestHead, Scheme, Span, Version};
use super::request_line::{RequestLine, TargetForm};
use crate::base::decimal;

/// Reads into `head` the `count` header lines in `buf` at `block`, which ends with the empty line.
pub(super) fn read(
    buf: &[u8],
    line: &RequestLine,
    block: Span,
    count: usize,
    policy: &Policy,
    peer_is_trusted: bool,
    head: &mut RequestHead,
) -> Result<(), Error> {
    let mut rewritten = std::mem::take(&mut head.rewritten);
    rewritten.clear();
    let (source, block) = if policy.rewrites_heads() {
        lenient::rewrite(buf, line.method, block, policy, &mut rewritten);
        (&rewritten[..], Span::new(block.start as usize, rewritten.len()))
    } else {
        (buf, block)
    };
    let mut few = [EMPTY_HEADER; USUAL_FIELDS];
    let mut many = Vec::new();
    let slots = if count <= USUAL_FIELDS {
        &mut few[..]
    } else {
        many.resize(count, EMPTY_HEADER);
        &mut many[..]
    };
    let fields = split(block.of(source), slots)?;
    let trust = ForwarderTrust { policy, peer_is_trusted };
    let facts = collect(source, block, fields, line.version, &trust, &mut head.headers)?;
    head.fields_start = block.start as usize;
    facts.settle(source, line, policy, head)?;
    head.rewritten = rewritten;
    Ok(())
}

/// Splits a block into fields. When `httparse` refuses the block, the cause is named as in
/// gunicorn.
fn split<'s, 'b: 's>(block: &'b [u8], slots: &'s mut [Header<'b>]) -> Result<&'s [Header<'b>], Error> {
    match httparse::parse_headers(block, slots) {
        Ok(httparse::Status::Complete((used, fields))) if used == block.len() => Ok(fields),
        _ => Err(diagnose(block)),
    }
}

fn collect(
    source: &[u8],
    block: Span,
    fields: &[Header<'_>],
    version: Version,
    trust: &ForwarderTrust<'_>,
    kept: &mut Vec<HeaderSpan>,
) -> Result<FieldSummary, Error> {
    let mut facts = FieldSummary::default();
    let block = block.of(source);
    kept.clear();
    for field in fields {
        let name = field.name.as_bytes();
        facts.note(source, name, field.value, version)?;
        facts.note_scheme(name, field.value, trust)?;
        if trust.keeps(name)? {
            kept.push(HeaderSpan { name: Span::within(block, name), value: Span::within(block, field.value) });
        }
    }
    Ok(facts)
}

/// Which fields the peer may set, and what happens to those that it may not.
struct ForwarderTrust<'a> {
    policy: &'a Policy,
    peer_is_trusted: bool,
}

impl ForwarderTrust<'_> {
    /// Whether a field of this name is passed on. A name with an underscore could pose as the one
    /// with a hyphen: both are one key in a WSGI environ.
    fn keeps(&self, name: &[u8]) -> Result<bool, Error> {
        // Names are too short for a vectorised search to pay.
        if name.iter().all(|&byte| byte != b'_') || self.may_forward(name) {
            return Ok(true);
        }
        match self.policy.header_map {
            UnderscoredNames::Dangerous => Ok(true),
            UnderscoredNames::Drop => Ok(false),
            UnderscoredNames::Refuse => Err(Error::InvalidHeaderName(upper(name))),
        }
    }

    fn may_forward(&self, name: &[u8]) -> bool {
        let names = &self.policy.forwarder_headers;
        self.peer_is_trusted && names.iter().any(|known| known == "*" || known.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The scheme that this field claims, if it is one of the secure scheme headers of a trusted
    /// peer.
    fn scheme(&self, name: &[u8], value: &[u8]) -> Option<Scheme> {
        if !self.peer_is_trusted {
            return None;
        }
        let headers = &self.policy.secure_scheme_headers;
        let (_, secure) = headers.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name))?;
        if value == secure.as_bytes() { Some(Scheme::Https) } else { Some(Scheme::Http) }
    }
}

/// The meaning of the fields read so far.
#[derive(Default)]
struct FieldSummary {
    host: Option<Span>,
    has_content_type: bool,
    content_length: Option<u64>,
    transfer: Transfer,
    is_compressed: bool,
    connection: ConnectionOptions,
    expects_continue: bool,
    scheme: Option<Scheme>,
}

/// The Transfer-Encoding read so far.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Transfer {
    #[default]
    Absent,
    /// Codings, and none of them `chunked` yet.
    NotChunked,
    Chunked,
}

/// The Connection options read so far. `close` outweighs `keep-alive` wherever it stands (RFC 9112,
/// 9.3; docs/decisions/0006-close-outweighs-keep-alive.md).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ConnectionOptions {
    #[default]
    Unsaid,
    KeepAlive,
    Close,
}

impl FieldSummary {
    /// Records what a field means. Names are compared by length first, since nearly all fields mean
    /// nothing to the server.
    fn note(&mut self, source: &[u8], name: &[u8], value: &[u8], version: Version) -> Result<(), Error> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => self.note_host(Span::within(source, value)),
            6 if is(b"expect") => self.note_expect(value, version),
            10 if is(b"connection") => {
                self.note_connection(value);
                Ok(())
            }
            12 if is(b"content-type") => self.note_content_type(),
            14 if is(b"content-length") => self.note_content_length(value),
            17 if is(b"transfer-encoding") => self.note_transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn note_host(&mut self, value: Span) -> Result<(), Error> {
        match self.host.replace(value) {
            None => Ok(()),
            Some(_) => Err(invalid("HOST")),
        }
    }

    /// A second media type would leave the meaning of the body to the reader (RFC 9110, 5.3 and
    /// 8.3).
    fn note_content_type(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.has_content_type, true) { Err(invalid("CONTENT-TYPE")) } else { Ok(()) }
    }

    fn note_expect(&mut self, value: &[u8], version: Version) -> Result<(), Error> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Error::ExpectationFailed(quote(value)));
        }
        self.expects_continue = version == Version::Http11;
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',').map(trim_ows) {
            if option.eq_ignore_ascii_case(b"close") {
                self.connection = ConnectionOptions::Close;
            } else if option.eq_ignore_ascii_case(b"keep-alive") && self.connection == ConnectionOptions::Unsaid {
                self.connection = ConnectionOptions::KeepAlive;
            }
        }
    }

    /// Equal repeats are refused as well: a sender that repeats a length has merged the heads of
    /// two messages.
    fn note_content_length(&mut self, value: &[u8]) -> Result<(), Error> {
        let length = parse_length(value).ok_or_else(|| invalid("CONTENT-LENGTH"))?;
        match self.content_length.replace(length) {
            None => Ok(()),
            Some(_) => Err(invalid("CONTENT-LENGTH")),
        }
    }

    /// `chunked` comes once and last (RFC 9112, 6.1). Compressed bodies are passed on as they are
    /// (docs/decisions/0003-compressed-transfer-codings.md). An empty list member names no coding,
    /// and the codings known here have no parameters (RFC 9112, 7). Both are refused, because other
    /// recipients would read them differently.
    fn note_transfer_encoding(&mut self, value: &[u8]) -> Result<(), Error> {
        for coding in value.split(|&byte| byte == b',').map(trim_ows) {
            let (name, has_parameters) = match memchr::memchr(b';', coding) {
                Some(semicolon) => (trim_ows_end(&coding[..semicolon]), true),
                None => (coding, false),
            };
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            let is_compressed = is(b"gzip") || is(b"deflate") || is(b"compress");
            let is_known = is_compressed || is(b"identity") || is(b"chunked");
            if name.is_empty() || (is_known && has_parameters) {
                return Err(invalid("TRANSFER-ENCODING"));
            }
            if !is_known {
                return Err(Error::UnsupportedTransferCoding(quote(value)));
            }
            if self.transfer == Transfer::Chunked {
                return Err(invalid("TRANSFER-ENCODING"));
            }
            self.is_compressed |= is_compressed;
            self.transfer = if is(b"chunked") { Transfer::Chunked } else { Transfer::NotChunked };
        }
        Ok(())
    }

    fn note_scheme(&mut self, name: &[u8], value: &[u8], trust: &ForwarderTrust<'_>) -> Result<(), Error> {
        let Some(scheme) = trust.scheme(name, value) else {
            return Ok(());
        };
        match self.scheme.replace(scheme) {
            Some(before) if before != scheme => Err(Error::InvalidSchemeHeaders),
            _ => Ok(()),
        }
    }

    /// Fills in what depends on all fields together.
    fn settle(&self, source: &[u8], line: &RequestLine, policy: &Policy, head: &mut RequestHead) -> Result<(), Error> {
        self.check_host(source, line, policy)?;
        head.framing = self.framing(line.version)?;
        head.expect_continue = self.expects_continue;
        head.keep_alive = self.keeps_alive(line);
        head.forwarded_scheme = self.scheme;
        Ok(())
    }

    /// A Host must be valid, and HTTP/1.1 must have one (docs/decisions/0001-missing-host.md).
    /// Beside an absolute target Host is ignored (RFC 9112, 3.2.2); a contradiction between the two
    /// is refused only under `strict_host` (docs/decisions/0002-contradicting-authority.md).
    fn check_host(&self, source: &[u8], line: &RequestLine, policy: &Policy) -> Result<(), Error> {
        let value = self.host.map_or(&b""[..], |host| host.of(source));
        if value.is_empty() {
            return if line.version == Version::Http10 || policy.permit_missing_host {
                Ok(())
            } else {
                Err(invalid("HOST"))
            };
        }
        let host = Authority::parse(value).ok_or_else(|| invalid("HOST"))?;
        let TargetForm::Absolute { authority, default_port } = line.form else {
            return Ok(());
        };
        if !policy.strict_host {
            return Ok(());
        }
        match Authority::parse(authority.of(source)) {
            Some(target) if target.is_same_place(&host, default_port) => Ok(()),
            _ => Err(invalid("HOST")),
        }
    }

    /// RFC 9112, 6.3. Every case that two recipients could read differently is an error.
    fn framing(&self, version: Version) -> Result<Framing, Error> {
        match (self.transfer, self.content_length) {
            (Transfer::Absent, None) => Ok(Framing::None),
            (Transfer::Absent, Some(length)) => Ok(Framing::Length(length)),
            (Transfer::Chunked, None) if version == Version::Http11 => Ok(Framing::Chunked(self.coding())),
            (Transfer::Chunked, Some(_)) if version == Version::Http11 => Err(invalid("CONTENT-LENGTH")),
            _ => Err(invalid("TRANSFER-ENCODING")),
        }
    }

    fn coding(&self) -> Coding {
        if self.is_compressed { Coding::Compressed } else { Coding::Identity }
    }

    /// After CONNECT the bytes belong to a tunnel. After a compressed body the connection ends, as
    /// it does in gunicorn.
    fn keeps_alive(&self, line: &RequestLine) -> bool {
        if self.is_compressed || matches!(line.form, TargetForm::Authority) {
            return false;
        }
        match self.connection {
            ConnectionOptions::Close => false,
            ConnectionOptions::KeepAlive => true,
            ConnectionOptions::Unsaid => line.version == Version::Http11,
        }
    }
}

/// Decimal digits, at most 2^63 - 1: the largest that Python's and C's signed sizes can hold.
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    decimal::parse(value).filter(|&length| length <= i64::MAX as u64)
}

/// Checks one trailer field, a line without its CRLF, by the rules for headers. `is_first` tells
/// whether it is the first trailer, which has no field to continue.
pub(super) fn check_trailer(line: &[u8], is_first: bool, rules: &FieldRules) -> Result<(), Error> {
    if !is_first && line.first().is_some_and(|&byte| is_ows(byte)) {
        return if rules.permit_obsolete_folding && is_field_value(line) {
            Ok(())
        } else {
            Err(Error::ObsoleteFolding(quote(line)))
        };
    }
    let (name, value) = split_field(line)?;
    let name = if rules.strip_header_spaces { trim_ows_end(name) } else { name };
    let is_refused = rules.header_map == UnderscoredNames::Refuse && name.contains(&b'_');
    if !is_token(name) || is_forbidden_trailer(name) || is_refused {
        return Err(Error::InvalidHeaderName(upper(name)));
    }
    if is_field_value(value) { Ok(()) } else { Err(invalid_field(name)) }
}

/// Fields for framing, routing or authentication must not be trailers (RFC 9110, 6.5.1).
fn is_forbidden_trailer(name: &[u8]) -> bool {
    FORBIDDEN_TRAILERS.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

const FORBIDDEN_TRAILERS: [&[u8]; 6] =
    [b"te", b"host", b"trailer", b"authorization", b"content-length", b"transfer-encoding"];

/// The first thing wrong with a block that `httparse` has refused.
#[cold]
fn diagnose(block: &[u8]) -> Error {
    let mut previous: Option<Vec<u8>> = None;
    for line in lines(block) {
        if let (Some(byte), Some(name)) = (line.first(), &previous)
            && is_ows(*byte)
        {
            return Error::ObsoleteFolding(name.clone());
        }
        match split_field(line) {
            Err(error) => return error,
            Ok((name, _)) if !is_token(name) => return Error::InvalidHeaderName(quote(name)),
            Ok((name, value)) if !is_field_value(value) => return invalid_field(name),
            Ok((name, _)) => previous = Some(upper(name)),
        }
    }
    Error::InvalidHeader(quote(block))
}

/// Splits a line at its first colon into name and value. Refuses a line without a colon, or with
/// one at the very start.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    match memchr::memchr(b':', line) {
        None | Some(0) => Err(Error::InvalidHeader(quote(line))),
        Some(colon) => Ok((&line[..colon], &line[colon + 1..])),
    }
}

fn invalid(name: &str) -> Error {
    Error::InvalidHeader(name.as_bytes().to_vec())
}

fn invalid_field(name: &[u8]) -> Error {
    Error::InvalidHeader(upper(name))
}

/// A name as gunicorn shows it in messages.
fn upper(name: &[u8]) -> Vec<u8> {
    quote(name).to_ascii_uppercase()
}

/// Fields that fit on the stack: a browser sends about 15, one behind a proxy or two about 25.
const USUAL_FIELDS: usize = 32;
