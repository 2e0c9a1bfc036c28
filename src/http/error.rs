//! Why a request was refused, and the page that says so.
//!
//! Each cause is a variant. [`Error`] displays as gunicorn's exception text (for the log);
//! [`Error::message`] is what gunicorn prints on the page; [`ErrorPage`] is the whole response. It
//! differs from gunicorn's only where HTTP demands more.

use std::fmt;

use crate::base::repr;

/// The cause of a refusal. Bytes are quoted from the request, at most 8190 of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The request line is not `method SP target SP version`, or the target is in none of the four
    /// forms.
    InvalidRequestLine(Vec<u8>),
    /// The method is not a token, or not one that gunicorn takes.
    InvalidMethod(Vec<u8>),
    /// The version is not `HTTP/digit.digit`.
    InvalidVersion(Vec<u8>),
    /// The version is well formed but outside 1.x: major and minor.
    UnsupportedVersion(u8, u8),
    /// A header whose value, line or number of occurrences is wrong.
    InvalidHeader(Vec<u8>),
    /// A header whose name is not a token, or is not allowed where it stands.
    InvalidHeaderName(Vec<u8>),
    /// The header with this name goes on in a second line (RFC 9112, 5.2).
    ObsoleteFolding(Vec<u8>),
    /// A Transfer-Encoding with a coding that this server does not know.
    UnsupportedTransferCoding(Vec<u8>),
    /// An Expect other than `100-continue`.
    ExpectationFailed(Vec<u8>),
    /// The request line is longer than it may be.
    LimitRequestLine {
        /// Bytes of it seen so far.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Too many header or trailer fields, or one that is too long; which of them, in gunicorn's
    /// words.
    LimitRequestHeaders(&'static str),
    /// Two headers of a trusted peer disagree about http and https.
    InvalidSchemeHeaders,
    /// A chunk-size line that is too long, ends in a bare line feed, or has no hexadecimal size
    /// below 2^63.
    InvalidChunkSize(Vec<u8>),
    /// Chunk data not followed by CRLF, with the bytes that stood there instead.
    ChunkMissingTerminator(Vec<u8>),
    /// A chunk extension outside the grammar (RFC 9112, 7.1.1).
    InvalidChunkExtension(&'static str),
    /// A PROXY line (version 1) outside the grammar.
    InvalidProxyLine(Vec<u8>),
    /// A PROXY header (version 2) outside the grammar.
    InvalidProxyHeader(&'static str),
    /// A PROXY header from a peer that may not send one; the peer's address.
    ForbiddenProxyRequest(String),
    /// A uwsgi packet outside the format; what is wrong, in gunicorn's words.
    InvalidUwsgiPacket(&'static str),
    /// A uwsgi packet of this kind (modifier1), which is no request.
    UnsupportedUwsgiModifier(u8),
    /// A uwsgi packet from a peer that may not send one.
    ForbiddenUwsgiRequest,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The body is longer than `limit_request_body`.
    ContentTooLarge,
    /// The worker holds as many bytes of unfinished requests as it may, and closes this one to make
    /// room.
    Overloaded,
    /// A client speaks plain HTTP where TLS is spoken.
    PlainHttpOnTls,
    /// A client speaks TLS where plain HTTP is spoken.
    TlsOnPlainHttp,
    /// A client speaks HTTP where uwsgi is spoken.
    HttpOnUwsgi,
    /// A client speaks TLS where plain uwsgi is spoken.
    TlsOnPlainUwsgi,
}

impl Error {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Error::UnsupportedTransferCoding(_) | Error::UnsupportedUwsgiModifier(_) => 501,
            Error::ExpectationFailed(_) => 417,
            Error::LimitRequestLine { .. } => 414,
            Error::LimitRequestHeaders(_) => 431,
            Error::ForbiddenProxyRequest(_) | Error::ForbiddenUwsgiRequest => 403,
            Error::RequestTimeout => 408,
            Error::ContentTooLarge => 413,
            Error::Overloaded => 503,
            _ => 400,
        }
    }

    /// The reason phrase that belongs to [`Error::status`].
    pub fn reason(&self) -> &'static str {
        reason_phrase(self.status())
    }

    /// The sentence on the error page. For some causes gunicorn wraps the exception's text once
    /// more.
    pub fn message(&self) -> String {
        match self {
            Error::InvalidRequestLine(_) => format!("Invalid Request Line '{self}'"),
            Error::InvalidMethod(_) => format!("Invalid Method '{self}'"),
            Error::InvalidVersion(_) | Error::UnsupportedVersion(..) => {
                format!("Invalid HTTP Version '{self}'")
            }
            Error::LimitRequestHeaders(_) => format!("Error parsing headers: '{self}'"),
            Error::InvalidProxyLine(_) => format!("'{self}'"),
            Error::ForbiddenProxyRequest(_) | Error::ForbiddenUwsgiRequest => "Request forbidden".to_owned(),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Error {
    /// The text that gunicorn logs after `Invalid request from ip=...: `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::InvalidRequestLine(line) => write!(f, "Invalid HTTP request line: {}", repr::of_latin1(line)),
            Error::InvalidMethod(method) => write!(f, "Invalid HTTP method: {}", repr::of_latin1(method)),
            Error::InvalidVersion(version) => write!(f, "Invalid HTTP Version: {}", repr::of_latin1(version)),
            Error::UnsupportedVersion(major, minor) => {
                write!(f, "Invalid HTTP Version: ({major}, {minor})")
            }
            Error::InvalidHeader(header) => write!(f, "Invalid HTTP Header: {}", repr::of_latin1(header)),
            Error::InvalidHeaderName(name) => write!(f, "Invalid HTTP header name: {}", repr::of_latin1(name)),
            Error::ObsoleteFolding(name) => {
                write!(f, "Obsolete line folding is unacceptable: {}", repr::of_latin1(name))
            }
            Error::UnsupportedTransferCoding(value) => {
                write!(f, "Unsupported transfer coding: {}", repr::of_latin1(value))
            }
            Error::ExpectationFailed(value) => {
                write!(f, "Unable to comply with expectation: {}", repr::of_latin1(value))
            }
            Error::LimitRequestLine { size, limit } => {
                write!(f, "Request Line is too large ({size} > {limit})")
            }
            Error::LimitRequestHeaders(which) => f.write_str(which),
            Error::InvalidSchemeHeaders => f.write_str("Contradictory scheme headers"),
            Error::InvalidChunkSize(size) => write!(f, "Invalid chunk size: {}", repr::of_bytes(size)),
            Error::ChunkMissingTerminator(found) => {
                write!(f, "Invalid chunk terminator is not '\\r\\n': {}", repr::of_bytes(found))
            }
            Error::InvalidChunkExtension(why) => write!(f, "Invalid chunk extension: {why}"),
            Error::InvalidProxyLine(line) => write!(f, "Invalid PROXY line: {}", repr::of_latin1(line)),
            Error::InvalidProxyHeader(why) => write!(f, "Invalid PROXY header: {why}"),
            Error::ForbiddenProxyRequest(host) => {
                write!(f, "Proxy request from {} not allowed", repr::of_latin1(host.as_bytes()))
            }
            Error::InvalidUwsgiPacket(why) => write!(f, "Invalid uWSGI header: {why}"),
            Error::UnsupportedUwsgiModifier(modifier1) => write!(f, "Unsupported uWSGI modifier1: {modifier1}"),
            Error::ForbiddenUwsgiRequest => f.write_str("uWSGI request from an address outside uwsgi_allow_ips"),
            Error::RequestTimeout => f.write_str("The request did not arrive in time"),
            Error::ContentTooLarge => f.write_str("The request body is too large"),
            Error::Overloaded => f.write_str("The server has to make room for others"),
            Error::PlainHttpOnTls => f.write_str("Plain HTTP was sent to a port that speaks HTTPS"),
            Error::TlsOnPlainHttp => f.write_str("TLS was sent to a port that speaks plain HTTP"),
            Error::HttpOnUwsgi => f.write_str("HTTP was sent to a port that speaks uwsgi"),
            Error::TlsOnPlainUwsgi => f.write_str("TLS was sent to a port that speaks plain uwsgi"),
        }
    }
}

impl std::error::Error for Error {}

/// The whole response for a request that the server itself answers with an error: head and page, as
/// gunicorn sends them.
#[derive(Clone, Copy, Debug)]
pub struct ErrorPage<'a> {
    /// For the status line, together with its [`reason_phrase`].
    pub status: u16,
    /// The sentence on the page. It is escaped for HTML; characters above U+00FF have no byte in
    /// latin-1 and become `?`.
    pub message: &'a str,
    /// Whether only the head was asked for: then the page is left out, and Content-Length states
    /// its length (RFC 9110, 9.3.2).
    pub is_head: bool,
    /// Header lines to add, each with its line end.
    pub lines: &'a [u8],
}

impl ErrorPage<'_> {
    /// The response's bytes. There is no Server, and the version is always 1.1, as in gunicorn.
    /// `date` is sent where it is required, with a 4xx (RFC 9110, 6.6.1); gunicorn never sends it.
    pub fn render(&self, date: &[u8]) -> Vec<u8> {
        let (status, reason) = (self.status, reason_phrase(self.status));
        let page = format!(
            "<html>\n  <head>\n    <title>{reason}</title>\n  </head>\n  <body>\n    <h1><p>{reason}</p></h1>\n    {}\n  \
             </body>\n</html>\n",
            escape_html(self.message)
        );
        let page = latin1(&page);
        let mut response = format!("HTTP/1.1 {status} {reason}\r\n").into_bytes();
        if status < 500 {
            response.extend_from_slice(&[b"Date: ", date, b"\r\n"].concat());
        }
        response.extend_from_slice(self.lines);
        let fields = format!("Connection: close\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n", page.len());
        response.extend_from_slice(fields.as_bytes());
        if !self.is_head {
            response.extend_from_slice(&page);
        }
        response
    }
}

/// The reason phrase of a status that this server sends on its own account (RFC 9110, 15); empty
/// for any other.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

/// The part of `bytes` that an error carries: its first `QUOTE_LIMIT` bytes.
pub(super) fn quote(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len().min(QUOTE_LIMIT)].to_vec()
}

/// The most bytes of a request that an error quotes: gunicorn's longest line, so nothing is cut
/// under its limits.
const QUOTE_LIMIT: usize = 8190;

fn escape_html(message: &str) -> String {
    let mut escaped = String::with_capacity(message.len());
    for character in message.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#x27;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

fn latin1(page: &str) -> Vec<u8> {
    page.chars().map(|character| u8::try_from(u32::from(character)).unwrap_or(b'?')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_a_refusal_has_its_reason_phrase() {
        let quoted = || b"x".to_vec();
        let cases = [
            (Error::InvalidRequestLine(quoted()), "400 Bad Request"),
            (Error::ForbiddenProxyRequest("1.2.3.4".to_owned()), "403 Forbidden"),
            (Error::RequestTimeout, "408 Request Timeout"),
            (Error::ContentTooLarge, "413 Content Too Large"),
            (Error::LimitRequestLine { size: 2, limit: 1 }, "414 URI Too Long"),
            (Error::ExpectationFailed(quoted()), "417 Expectation Failed"),
            (Error::LimitRequestHeaders("x"), "431 Request Header Fields Too Large"),
            (Error::UnsupportedTransferCoding(quoted()), "501 Not Implemented"),
        ];
        for (error, expected) in cases {
            assert_eq!(format!("{} {}", error.status(), error.reason()), expected);
        }
        assert_eq!(reason_phrase(504), "Gateway Timeout");
    }

    #[test]
    fn the_page_of_an_unexplained_failure_has_141_bytes_as_in_gunicorn() {
        let page = ErrorPage { status: 500, message: "", is_head: false, lines: b"" };
        let response = page.render(b"never said");
        let text = String::from_utf8(response).unwrap();
        let (head, page) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with("\r\nContent-Length: 141"), "{head}");
        assert_eq!(page.len(), 141);
        assert!(page.contains("<h1><p>Internal Server Error</p></h1>\n    \n  </body>"));
        assert!(!head.contains("Date"), "{head}");
    }
}
