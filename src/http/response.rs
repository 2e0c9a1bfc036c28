//! The response, as bytes: head, chunk frames, interim responses. The caller decides what is sent;
//! this module knows its form, in gunicorn's order: status line, Server, Date, Connection,
//! Transfer-Encoding, then the application's headers.

use super::grammar::{is_field_value, is_token, trim_ows};
use super::request::Version;

/// What the Connection header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionHeader {
    /// This response is the last.
    Close,
    /// Another request may follow.
    KeepAlive,
    /// The connection changes its protocol (RFC 9110, 7.8), or could.
    Upgrade,
    /// The same, and this response is the last.
    UpgradeOrClose,
}

/// How a request's method changes the framing of its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// A response with its body.
    #[default]
    Whole,
    /// The head only (HEAD: RFC 9110, 9.3.2).
    Head,
    /// A tunnel (CONNECT: RFC 9110, 9.3.6).
    Tunnel,
}

impl Asked {
    /// What a request with this `method` asks for.
    pub fn by(method: &[u8]) -> Self {
        match method {
            b"HEAD" => Asked::Head,
            b"CONNECT" => Asked::Tunnel,
            _ => Asked::Whole,
        }
    }

    /// Whether a response with this `status` opens a tunnel: behind its head there is no message
    /// that could be framed.
    fn opens_tunnel(self, status: u16) -> bool {
        self == Asked::Tunnel && matches!(status, 200..=299)
    }
}

/// How the body of a response is delimited (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPlan {
    /// Nothing follows the head; what the application yields is dropped.
    None,
    /// As many bytes as the application's Content-Length promises. Bytes beyond that are cut; after
    /// fewer the connection ends.
    Length(u64),
    /// Chunks, ended by [`LAST_CHUNK`].
    Chunked,
    /// Everything until the connection ends, for clients that know no chunks.
    UntilClose,
}

/// The application's status is not three digits, or not followed by one space and a reason phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidStatus;

/// How the body of a response with this `status` is delimited, given the application's
/// `content_length`, if any.
///
/// A response to HEAD, an interim response, 204 and 304 have no body, whatever the application
/// sends (RFC 9110, 6.4.1). What follows a 2xx to CONNECT is the tunnel, up to its end. The server
/// never invents a length.
pub fn plan_body(asked: Asked, version: Version, status: u16, content_length: Option<u64>) -> BodyPlan {
    match (content_length, version) {
        _ if asked.opens_tunnel(status) => BodyPlan::UntilClose,
        _ if asked == Asked::Head || matches!(status, 100..=199 | 204 | 304) => BodyPlan::None,
        (Some(length), _) => BodyPlan::Length(length),
        (None, Version::Http11) => BodyPlan::Chunked,
        (None, Version::Http10 | Version::Uwsgi) => BodyPlan::UntilClose,
    }
}

/// Whether the application's Content-Length goes out with this `status`: not where no body could
/// have a length (RFC 9110, 8.6), nor before a tunnel. A 205 gets its length from the server.
pub fn states_length(asked: Asked, status: u16) -> bool {
    !matches!(status, 204 | 205) && !asked.opens_tunnel(status)
}

/// Whether a response with this `status` may have a body that is not empty (RFC 9110, 15).
pub fn may_have_body(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 205 | 304)
}

/// Whether a response with this `status` has to say that its body is empty (RFC 9110, 15.3.6).
pub fn states_emptiness(asked: Asked, status: u16) -> bool {
    status == 205 && !asked.opens_tunnel(status)
}

/// The code of an application's status such as `200 OK`: three digits, then nothing or one space
/// and a reason phrase (RFC 9112, 4). The caller judges which codes make sense.
pub fn parse_status(status: &[u8]) -> Result<u16, InvalidStatus> {
    let (digits, rest) = status.split_first_chunk::<CODE_LENGTH>().ok_or(InvalidStatus)?;
    let is_well_formed = digits.iter().all(u8::is_ascii_digit)
        && match rest {
            [] => true,
            [b' ', reason @ ..] => is_field_value(reason),
            _ => false,
        };
    if is_well_formed {
        Ok(digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0')))
    } else {
        Err(InvalidStatus)
    }
}

/// Whether `name` may be a header's name: a token (RFC 9110, 5.1).
pub fn is_header_name(name: &[u8]) -> bool {
    is_token(name)
}

/// A header's value without the white space around it, which is SP and HTAB and nothing else (RFC
/// 9110, 5.5).
pub fn trim_header_value(value: &[u8]) -> &[u8] {
    trim_ows(value)
}

/// Whether `value` may be a header's value: no controls but HTAB, so that it cannot end its line
/// (RFC 9110, 5.5).
pub fn is_header_value(value: &[u8]) -> bool {
    is_field_value(value)
}

/// Whether a header of this name is the server's own and dropped when the application sets it: the
/// hop-by-hop headers (RFC 9110, 7.6.1), Server and Date, exactly as in gunicorn.
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 => is(b"te"),
        4 => is(b"date"),
        6 => is(b"server"),
        7 => is(b"upgrade"),
        8 => is(b"trailers"),
        10 => is(b"connection") || is(b"keep-alive"),
        17 => is(b"transfer-encoding"),
        18 => is(b"proxy-authenticate"),
        19 => is(b"proxy-authorization"),
        _ => false,
    }
}

/// Whether a header of this name may stand in an informational response: neither one of the
/// server's own, nor the length of a body (RFC 9110, 8.6), which that response has not.
pub fn may_be_hinted(name: &[u8]) -> bool {
    !is_hop_by_hop(name) && !name.eq_ignore_ascii_case(b"content-length")
}

/// Whether this header asks that the response is not held back for a slow reader: nginx's
/// `X-Accel-Buffering: no`.
pub fn says_live(name: &[u8], value: &[u8]) -> bool {
    name.eq_ignore_ascii_case(LIVE.0) && value.eq_ignore_ascii_case(LIVE.1)
}

/// Appends the header that [`says_live`] has found, for a proxy in front of the server, which would
/// buffer too.
pub fn write_live(out: &mut Vec<u8>) {
    write_header(out, LIVE.0, LIVE.1);
}

/// Appends the server's part of a head to `out`: the status line with the application's `status`,
/// which [`parse_status`] has accepted, then `server` (a [`server_line`]), Date, Connection and, if
/// `chunked`, Transfer-Encoding.
///
/// The version is the request's, as in gunicorn, but never above 1.1.
pub fn write_head_start(
    out: &mut Vec<u8>,
    version: Version,
    status: &[u8],
    server: &[u8],
    date: &[u8],
    connection: ConnectionHeader,
    chunked: bool,
) {
    out.extend_from_slice(match version {
        Version::Http10 => b"HTTP/1.0 ",
        Version::Http11 | Version::Uwsgi => b"HTTP/1.1 ",
    });
    out.extend_from_slice(status);
    // The space behind the code is required also without a reason phrase (RFC 9112, 4), which is
    // never invented (docs/decisions/0005-no-invented-status-text.md).
    out.extend_from_slice(if status.len() == CODE_LENGTH { b" \r\n" } else { b"\r\n" });
    out.extend_from_slice(server);
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(date);
    out.extend_from_slice(match connection {
        ConnectionHeader::Close => b"\r\nConnection: close\r\n",
        ConnectionHeader::KeepAlive => b"\r\nConnection: keep-alive\r\n",
        ConnectionHeader::Upgrade => b"\r\nConnection: upgrade\r\n",
        ConnectionHeader::UpgradeOrClose => b"\r\nConnection: upgrade, close\r\n",
    });
    if chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
}

/// The Server header as a line; empty without a name. The name has been accepted by
/// [`is_header_value`].
pub fn server_line(name: Option<&[u8]>) -> Vec<u8> {
    let mut line = Vec::new();
    if let Some(name) = name {
        write_header(&mut line, b"Server", name);
    }
    line
}

/// Appends one header line to `out`, without the white space around the value. Name and value have
/// been accepted by [`is_header_name`] and [`is_header_value`].
pub fn write_header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(trim_ows(value));
    out.extend_from_slice(b"\r\n");
}

/// Names and values of the header lines that [`write_header`] has written.
pub fn header_lines(lines: &[u8]) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
    lines.split(|&byte| byte == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// Appends the empty line that ends a head.
pub fn write_head_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Appends what precedes a chunk's data: its length in upper-case hexadecimal, and CRLF. An empty
/// chunk would end the body, so `length` is at least 1; [`CHUNK_END`] follows the data.
pub fn write_chunk_size(out: &mut Vec<u8>, length: usize) {
    debug_assert!(length > 0, "an empty chunk ends the body");
    const DIGITS: usize = usize::BITS as usize / 4;
    let mut line = [b'\r'; DIGITS + 2];
    line[DIGITS + 1] = b'\n';
    let (mut start, mut rest) = (DIGITS, length);
    while rest > 0 {
        start -= 1;
        line[start] = UPPER_HEX[rest & 0xf];
        rest >>= 4;
    }
    out.extend_from_slice(&line[start..]);
}

/// What follows a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The last chunk, an empty trailer section included.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A whole body as one chunk, followed by the last chunk.
pub fn in_one_chunk(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 32);
    if !body.is_empty() {
        write_chunk_size(&mut out, body.len());
        out.extend_from_slice(body);
        out.extend_from_slice(CHUNK_END);
    }
    out.extend_from_slice(LAST_CHUNK);
    out
}

/// The complete answer to a health check: 200 while the server serves, 503 once it must stop. No
/// cache may store it (RFC 9111, 5.2.2.5): it is true for this moment only.
pub fn health_answer(serves: bool, is_head: bool, connection: ConnectionHeader, date: &[u8]) -> Vec<u8> {
    let (status, body): (&[u8], &[u8]) =
        if serves { (b"200 OK", b"ok\n") } else { (b"503 Service Unavailable", b"stopping\n") };
    let mut answer = Vec::with_capacity(256);
    write_head_start(&mut answer, Version::Http11, status, &server_line(None), date, connection, false);
    write_header(&mut answer, b"Content-Type", b"text/plain");
    write_header(&mut answer, b"Cache-Control", b"no-store");
    write_header(&mut answer, b"Content-Length", body.len().to_string().as_bytes());
    write_head_end(&mut answer);
    if !is_head {
        answer.extend_from_slice(body);
    }
    answer
}

/// The interim response that asks for the body (RFC 9110, 15.2.1), whole.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The status line of an interim response with early hints (RFC 8297); headers and
/// [`write_head_end`] follow.
pub const EARLY_HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\n";

const LIVE: (&[u8], &[u8]) = (b"X-Accel-Buffering", b"no");

/// Digits of a status code.
const CODE_LENGTH: usize = 3;

const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_three_digits_and_perhaps_a_reason() {
        for (status, code) in
            [("200 OK", 200), ("200", 200), ("200 ", 200), ("999 caf\u{e9}", 999), ("404 Not\tHere", 404)]
        {
            assert_eq!(parse_status(status.as_bytes()), Ok(code), "{status}");
        }
        for status in ["", "20 OK", "2000", "200OK", " 200 OK", "200\tOK", "200 O\r\nK", "200 O\0K", "\u{b2}00 OK"] {
            assert_eq!(parse_status(status.as_bytes()), Err(InvalidStatus), "{status}");
        }
    }

    #[test]
    fn the_body_is_planned_by_method_version_status_and_length() {
        use Asked::{Head, Tunnel, Whole};
        use BodyPlan::{Chunked, Length, None as Nothing, UntilClose};
        use Version::{Http10, Http11, Uwsgi};
        let cases = [
            ((Whole, Http11, 200, Some(5)), Length(5)),
            ((Whole, Http11, 200, None), Chunked),
            ((Whole, Http10, 200, None), UntilClose),
            ((Whole, Uwsgi, 200, None), UntilClose),
            ((Whole, Uwsgi, 200, Some(5)), Length(5)),
            ((Whole, Http10, 200, Some(0)), Length(0)),
            ((Head, Http11, 200, Some(5)), Nothing),
            ((Head, Http10, 200, None), Nothing),
            ((Whole, Http11, 204, Some(5)), Nothing),
            ((Whole, Http11, 304, Some(5)), Nothing),
            ((Whole, Http11, 101, None), Nothing),
            ((Whole, Http11, 205, Some(0)), Length(0)),
            ((Tunnel, Http11, 200, Some(5)), UntilClose),
            ((Tunnel, Http11, 204, None), UntilClose),
            ((Tunnel, Http11, 407, Some(5)), Length(5)),
            ((Tunnel, Http10, 304, None), Nothing),
        ];
        for ((asked, version, status, length), plan) in cases {
            assert_eq!(plan_body(asked, version, status, length), plan, "{status} {version:?}");
        }
    }

    #[test]
    fn heads_are_written_in_gunicorns_order() {
        let mut head = Vec::new();
        write_head_start(
            &mut head,
            Version::Http11,
            b"200 OK",
            &server_line(Some(b"gunicorn")),
            b"today",
            ConnectionHeader::KeepAlive,
            true,
        );
        write_header(&mut head, b"X-a", b" \tv\xe9 ");
        write_head_end(&mut head);
        write_head_start(
            &mut head,
            Version::Http10,
            b"200",
            &server_line(Some(b"s")),
            b"d",
            ConnectionHeader::Close,
            false,
        );
        let expected: &[u8] = b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: today\r\nConnection: keep-alive\r\n\
            Transfer-Encoding: chunked\r\nX-a: v\xe9\r\n\r\nHTTP/1.0 200 \r\nServer: s\r\nDate: d\r\nConnection: close\r\n";
        assert_eq!(head, expected);
    }

    #[test]
    fn a_health_check_is_answered_whole_and_to_head_without_the_body() {
        let well = health_answer(true, false, ConnectionHeader::KeepAlive, b"d");
        let expected = "HTTP/1.1 200 OK\r\nDate: d\r\nConnection: keep-alive\r\nContent-Type: text/plain\r\n\
            Cache-Control: no-store\r\nContent-Length: 3\r\n\r\nok\n";
        assert_eq!(String::from_utf8_lossy(&well), expected);
        let stopping = health_answer(false, true, ConnectionHeader::Close, b"d");
        let stopping = String::from_utf8_lossy(&stopping);
        assert!(stopping.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{stopping}");
        assert!(stopping.ends_with("Content-Length: 9\r\n\r\n"), "{stopping}");
    }

    #[test]
    fn chunk_sizes_are_upper_case_hexadecimal() {
        for (length, expected) in
            [(1, "1\r\n"), (15, "F\r\n"), (16, "10\r\n"), (0xabc0, "ABC0\r\n"), (usize::MAX, "FFFFFFFFFFFFFFFF\r\n")]
        {
            let mut out = Vec::new();
            write_chunk_size(&mut out, length);
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn a_body_in_one_chunk_is_two_chunks() {
        assert_eq!(in_one_chunk(b"hello, chunk"), b"C\r\nhello, chunk\r\n0\r\n\r\n");
        assert_eq!(in_one_chunk(b""), LAST_CHUNK);
    }

    #[test]
    fn the_servers_own_headers_are_known_in_any_case() {
        for name in [
            "Connection",
            "KEEP-ALIVE",
            "proxy-authenticate",
            "Proxy-Authorization",
            "TE",
            "Trailers",
            "Transfer-Encoding",
            "upgrade",
            "Server",
            "DATE",
        ] {
            assert!(is_hop_by_hop(name.as_bytes()), "{name}");
        }
        for name in ["Trailer", "X-Date", "Content-Length", "", "Set-Cookie"] {
            assert!(!is_hop_by_hop(name.as_bytes()), "{name}");
        }
    }
}
