//! The chunked coding (RFC 9112, 7.1), strict: CRLF only, sizes in hexadecimal only, extensions and
//! trailers by the grammar.
//!
//! Lines are short, so one that arrives in pieces is kept until it is complete. Chunk data is never
//! kept.

use memchr::memchr;

use super::body::{Decoded, take_data};
use super::error::{Error, quote};
use super::fields;
use super::grammar::{is_ows, is_token_byte, line_length, trim_ows_end};
use super::policy::{FieldRules, Policy};

/// Decodes one chunked body.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// The part of the current line that earlier calls have read; at most `rules.longest_field` and
    /// a CR.
    line: Vec<u8>,
    /// Trailer fields seen.
    trailers: usize,
    /// Bytes of the trailer field that the current line would continue.
    trailer_length: usize,
    rules: FieldRules,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// A line with the next chunk's size.
    Size,
    /// The chunk's data, of which this many bytes are still to come.
    Data(u64),
    /// The CRLF behind the data, and whether its CR has been seen.
    DataEnd {
        has_cr: bool,
    },
    /// A trailer field, or the empty line at the very end.
    Trailer,
    Done,
}

impl ChunkedDecoder {
    pub(super) fn new(policy: &Policy) -> Self {
        ChunkedDecoder {
            state: State::Size,
            line: Vec::new(),
            trailers: 0,
            trailer_length: 0,
            rules: FieldRules::of(policy),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// See [`super::body::BodyDecoder::missing_line_end`]. The error has gunicorn's words.
    pub(super) fn missing_line_end(&self) -> Option<Error> {
        match self.state {
            State::DataEnd { has_cr: true } => Some(Error::ChunkMissingTerminator(b"\r".to_vec())),
            State::DataEnd { has_cr: false } | State::Trailer => Some(Error::ChunkMissingTerminator(Vec::new())),
            State::Size | State::Data(_) | State::Done => None,
        }
    }

    /// See [`super::body::BodyDecoder::decode`].
    pub(super) fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<'a>, Error> {
        match &mut self.state {
            State::Data(remaining) => {
                let decoded = take_data(remaining, input);
                if *remaining == 0 {
                    self.state = State::DataEnd { has_cr: false };
                }
                Ok(decoded)
            }
            State::Size | State::DataEnd { .. } | State::Trailer => self.skip_framing(input),
            State::Done => Ok(framing(0)),
        }
    }

    /// Decodes one element of framing, or the part of it that has arrived.
    fn skip_framing<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<'a>, Error> {
        match self.state {
            _ if input.is_empty() => Ok(framing(0)),
            State::DataEnd { has_cr } => self.end_data(input, has_cr),
            State::Size => self.read_line(input, Self::start_chunk),
            _ => self.read_line(input, Self::take_trailer),
        }
    }

    /// The CRLF behind a chunk's data. h11 once skipped two bytes without looking (CVE-2025-43859).
    fn end_data<'a>(&mut self, input: &'a [u8], has_cr: bool) -> Result<Decoded<'a>, Error> {
        let missing = &CRLF[usize::from(has_cr)..];
        let found = &input[..input.len().min(missing.len())];
        if !missing.starts_with(found) {
            return Err(Error::ChunkMissingTerminator([&CRLF[..usize::from(has_cr)], found].concat()));
        }
        self.state = if found.len() == missing.len() { State::Size } else { State::DataEnd { has_cr: true } };
        Ok(framing(found.len()))
    }

    /// Hands the current line to `finish` once it is complete, without a copy when all of it is in
    /// `input`.
    fn read_line<'a>(
        &mut self,
        input: &'a [u8],
        finish: fn(&mut Self, &[u8]) -> Result<(), Error>,
    ) -> Result<Decoded<'a>, Error> {
        let line_feed = memchr(b'\n', input);
        let piece = &input[..line_feed.unwrap_or(input.len())];
        if self.line.is_empty() && line_feed.is_some() {
            self.check_line(piece)?;
            finish(self, end_line(piece, &self.state)?)?;
            return Ok(framing(piece.len() + 1));
        }
        // A line is checked before it is kept: its start as soon as it arrives, its length before
        // memory is spent on it.
        let mut line = std::mem::take(&mut self.line);
        let room = (self.rules.longest_field + CRLF.len()).saturating_sub(line.len());
        line.extend_from_slice(&piece[..piece.len().min(room)]);
        self.check_line(&line)?;
        if line_feed.is_none() {
            self.line = line;
            return Ok(framing(piece.len()));
        }
        finish(self, end_line(&line, &self.state)?)?;
        line.clear();
        self.line = line;
        Ok(framing(piece.len() + 1))
    }

    /// Refuses a line that begins with `raw` and cannot become valid, whatever follows.
    fn check_line(&self, raw: &[u8]) -> Result<(), Error> {
        let length = line_length(raw);
        let longest = self.rules.longest_field;
        if self.state == State::Trailer {
            let continued = if self.rules.continues_field(raw) { self.trailer_length } else { 0 };
            return if length > 0 && continued + length + CRLF.len() > longest {
                Err(Error::LimitRequestHeaders("limit request headers fields size"))
            } else {
                Ok(())
            };
        }
        match raw.first() {
            Some(digit) if !digit.is_ascii_hexdigit() => Err(Error::InvalidChunkSize(quote(&raw[..length]))),
            _ if length > longest => {
                let what = format!("line over {longest} bytes with no terminator");
                Err(Error::InvalidChunkSize(what.into_bytes()))
            }
            _ => Ok(()),
        }
    }

    fn start_chunk(&mut self, line: &[u8]) -> Result<(), Error> {
        self.state = match parse_size_line(line)? {
            0 => State::Trailer,
            size => State::Data(size),
        };
        Ok(())
    }

    /// Trailers are checked and dropped: gunicorn keeps them out of the environ as well.
    fn take_trailer(&mut self, line: &[u8]) -> Result<(), Error> {
        if line.is_empty() {
            self.state = State::Done;
            return Ok(());
        }
        fields::check_trailer(line, self.trailers == 0, &self.rules)?;
        let length = line.len() + CRLF.len();
        if self.rules.continues_field(line) {
            self.trailer_length += length;
            return Ok(());
        }
        self.trailer_length = length;
        self.trailers += 1;
        if self.trailers > self.rules.most_fields {
            Err(Error::LimitRequestHeaders("limit request headers fields"))
        } else {
            Ok(())
        }
    }
}

/// A step that has used up `consumed` bytes and found no data among them.
fn framing<'a>(consumed: usize) -> Decoded<'a> {
    Decoded { consumed, data: &[] }
}

/// Removes the carriage return from a line whose line feed has been read. A bare line feed is
/// refused (docs/decisions/0004-bare-line-feeds.md).
fn end_line<'a>(raw: &'a [u8], state: &State) -> Result<&'a [u8], Error> {
    match raw.strip_suffix(b"\r") {
        Some(line) => Ok(line),
        None if *state == State::Trailer => Err(Error::InvalidHeader(b"bare LF as line terminator".to_vec())),
        None => Err(Error::InvalidChunkSize(quote(raw))),
    }
}

/// `chunk-size [ chunk-ext ]`. White space behind the size is bad white space, allowed only before
/// an extension.
fn parse_size_line(line: &[u8]) -> Result<u64, Error> {
    let (digits, extension) = match memchr(b';', line) {
        Some(semicolon) => (trim_ows_end(&line[..semicolon]), &line[semicolon..]),
        None => (line, &[][..]),
    };
    let size = parse_size(digits).ok_or_else(|| Error::InvalidChunkSize(quote(digits)))?;
    if extension.contains(&b'\r') {
        return Err(Error::InvalidChunkExtension("bare CR not allowed"));
    }
    if is_extension(extension) { Ok(size) } else { Err(Error::InvalidChunkExtension("invalid chunk extension")) }
}

/// Hexadecimal digits, at most 2^63 - 1: a size that is too large must not wrap around to one that
/// fits.
fn parse_size(digits: &[u8]) -> Option<u64> {
    let size = digits.iter().try_fold(0_u64, |size, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        size.checked_mul(16)?.checked_add(u64::from(digit))
    })?;
    (!digits.is_empty() && size <= i64::MAX as u64).then_some(size)
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (RFC 9112, 7.1.1). The meaning
/// of extensions is ignored.
fn is_extension(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(after) = skip_one_extension(rest) else {
            return false;
        };
        rest = after;
    }
    true
}

fn skip_one_extension(text: &[u8]) -> Option<&[u8]> {
    let name = skip_ows(skip_ows(text).strip_prefix(b";")?);
    let after_name = skip_token(name)?;
    let Some(value) = skip_ows(after_name).strip_prefix(b"=") else {
        return Some(after_name);
    };
    match skip_ows(value) {
        [b'"', quoted @ ..] => skip_quoted(quoted),
        token => skip_token(token),
    }
}

fn skip_ows(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| !is_ows(byte));
    &text[start.unwrap_or(text.len())..]
}

fn skip_token(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(text.len());
    (end > 0).then(|| &text[end..])
}

/// What follows a quoted-string (RFC 9110, 5.6.4) whose opening quote has been read.
fn skip_quoted(text: &[u8]) -> Option<&[u8]> {
    let mut bytes = text.iter();
    loop {
        let byte = match *bytes.next()? {
            b'"' => return Some(bytes.as_slice()),
            b'\\' => *bytes.next()?,
            byte => byte,
        };
        if byte != b'\t' && (byte < b' ' || byte == 0x7f) {
            return None;
        }
    }
}

const CRLF: &[u8] = b"\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes_are_hexadecimal_and_fit_63_bits() {
        let cases: [(&[u8], Option<u64>); 12] = [
            (b"5", Some(5)),
            (b"0005", Some(5)),
            (b"aF", Some(0xaf)),
            (b"7FFFFFFFFFFFFFFF", Some(i64::MAX as u64)),
            (b"8000000000000000", None),
            (b"10000000000000005", None),
            (b"FFFFFFFFFFFFFFFF0", None),
            (b"", None),
            (b"+5", None),
            (b"0x5", None),
            (b"5 ", None),
            (b"5_0", None),
        ];
        for (line, size) in cases {
            assert_eq!(parse_size_line(line).ok(), size, "{line:?}");
        }
    }

    #[test]
    fn extensions_follow_the_grammar() {
        for good in ["5;a", "5;a=b", "5 ; a = b", "5;a=\"b c\"", "5;a=\"\\\"\";c", "5;a;b=c\t;d"] {
            assert_eq!(parse_size_line(good.as_bytes()), Ok(5), "{good}");
        }
        for bad in
            ["5;", "5;a=", "5;=b", "5;a=\"", "5;b[=x", "5;a\0", "5;a\rb", "5;a b", "5;a=b c", "5;a ", "5;a=\"\u{1}\""]
        {
            assert!(parse_size_line(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
