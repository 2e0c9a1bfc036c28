//! The access line: gunicorn's `access_log_format`, compiled once and then rendered for each
//! request without allocating.
//!
//! The format is Python's `%` formatting over named atoms (gunicorn's setting `access_log_format`
//! lists them): `%(h)s`, `%(D)06d`, `%({host}i)s`. An unknown name and a missing value show as `-`.
//! Text outside of directives is copied.
//!
//! Bytes of the client become characters as in WSGI (PEP 3333: each byte is the Latin-1 character
//! of that number) and the line is UTF-8, as Python writes it. A `"` becomes `\"`. Unlike gunicorn,
//! a backslash becomes two and control characters become `\xHH`: no client can forge a line or a
//! field by sending one (see [`super::escape`]).

use std::io::Write;
use std::time::Duration;

use percent_encoding::percent_decode;

use super::basic_user::basic_user;
use super::{RequestIds, Schema, escape, json};

/// The values of one answered request that the access log can show. Bytes are those of the wire. A
/// method is called only if the format names its atom.
pub trait AccessRecord {
    /// REMOTE_ADDR; empty for a unix socket.
    fn remote_addr(&self) -> &[u8];
    /// The request method.
    fn method(&self) -> &[u8];
    /// RAW_URI: the request target as sent.
    fn raw_uri(&self) -> &[u8];
    /// SERVER_PROTOCOL, such as `HTTP/1.1`.
    fn protocol(&self) -> &[u8];
    /// The path, still percent-encoded.
    fn path(&self) -> &[u8];
    /// QUERY_STRING.
    fn query(&self) -> &[u8];
    /// The status code of the response.
    fn status(&self) -> u16;
    /// Body bytes sent, chunk framing not counted.
    fn bytes_sent(&self) -> u64;
    /// From the complete request head to the moment when the last byte of the response was handed
    /// over.
    fn duration(&self) -> Duration;
    /// `http` or `https`, where it is known.
    fn scheme(&self) -> Option<&str> {
        None
    }
    /// Bytes of the request's head and body, where they are known.
    fn bytes_received(&self) -> Option<u64> {
        None
    }
    /// How long the request waited before the application was called, if it was.
    fn queue(&self) -> Option<Duration> {
        None
    }
    /// The number of the connection, among those of this process.
    fn connection(&self) -> Option<u64> {
        None
    }
    /// The address of the socket's peer, where a PROXY header names another client.
    fn peer(&self) -> Option<String> {
        None
    }
    /// The ids by which the request is known here and at other hops.
    fn ids(&self) -> RequestIds {
        RequestIds::default()
    }
    /// A request header by its lower-case name; the last one if there are several.
    fn request_header(&self, name: &str) -> Option<&[u8]>;
    /// The response header named by [`AccessFormat::response_headers`] at `index`; the last one if
    /// there are several.
    fn response_header(&self, index: usize) -> Option<&[u8]>;
    /// The environ value named by [`AccessFormat::environ_keys`] at `index`, as `str()` shows it.
    fn environ_value(&self, index: usize) -> Option<&str>;
}

/// A compiled `access_log_format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessFormat {
    segments: Vec<Segment>,
    environ_keys: Vec<String>,
    response_headers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Vec<u8>),
    Atom(Atom),
    /// All of the request as a JSON object, with the names of this schema.
    Json(Schema),
    /// An atom with a width, a precision or a flag; few formats use them.
    Shaped(Atom, Shape),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Atom {
    Absent,
    RemoteAddr,
    User,
    Time,
    RequestLine,
    Method,
    Path,
    Query,
    Protocol,
    Status,
    BytesSent,
    Seconds,
    Milliseconds,
    Microseconds,
    DecimalSeconds,
    Pid,
    RequestHeader(String),
    ResponseHeader(usize),
    EnvironValue(usize),
}

/// Width, precision and flags of one directive (Python, "printf-style String Formatting").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shape {
    left: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// The largest width of a directive. A larger number is a mistake, and the directive is copied as
/// text.
const MAX_WIDTH: usize = 4096;

impl AccessFormat {
    /// Compiles `format`. Every text is valid.
    pub fn compile(format: &str) -> Self {
        let mut compiled =
            AccessFormat { segments: Vec::new(), environ_keys: Vec::new(), response_headers: Vec::new() };
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            compiled.add_literal(&rest[..at]);
            rest = &rest[at..];
            rest = if let Some(after) = rest.strip_prefix("%%") {
                compiled.add_literal("%");
                after
            } else if let Some((name, shape, after)) = parse_directive(rest) {
                compiled.add_atom(name, shape);
                after
            } else {
                compiled.add_literal("%");
                &rest[1..]
            };
        }
        compiled.add_literal(rest);
        compiled.add_literal("\n");
        compiled
    }

    /// One JSON object per line, whose fields are fixed (see [`super::json`]).
    pub fn json(schema: Schema) -> Self {
        let segments = vec![Segment::Json(schema), Segment::Literal(b"\n".to_vec())];
        AccessFormat { segments, environ_keys: Vec::new(), response_headers: Vec::new() }
    }

    /// The environ keys that the format names, in lower case: `%({wsgi.url_scheme}e)s`. gunicorn
    /// compares them without regard to case.
    pub fn environ_keys(&self) -> &[String] {
        &self.environ_keys
    }

    /// The response headers that the format names, in lower case: `%({content-type}o)s`.
    pub fn response_headers(&self) -> &[String] {
        &self.response_headers
    }

    /// Whether the format shows the time of day. If not, the clock need not be read.
    pub(super) fn shows_time(&self) -> bool {
        let is_time = |atom: &Atom| *atom == Atom::Time;
        self.segments.iter().any(|segment| match segment {
            Segment::Literal(_) | Segment::Json(_) => false,
            Segment::Atom(atom) | Segment::Shaped(atom, _) => is_time(atom),
        })
    }

    /// Appends the line of `record`, with its line end, to `out`. `time` is the rendered time of
    /// day.
    pub(super) fn render(&self, out: &mut Vec<u8>, record: &impl AccessRecord, time: &[u8]) {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => out.extend_from_slice(text),
                Segment::Json(schema) => json::render_access(out, *schema, record),
                Segment::Atom(atom) => atom.render(out, record, time),
                Segment::Shaped(atom, shape) => {
                    let start = out.len();
                    atom.render(out, record, time);
                    shape.apply(out, start);
                }
            }
        }
    }

    fn add_literal(&mut self, text: &str) {
        match self.segments.last_mut() {
            Some(Segment::Literal(before)) => before.extend_from_slice(text.as_bytes()),
            _ => self.segments.push(Segment::Literal(text.as_bytes().to_vec())),
        }
    }

    fn add_atom(&mut self, name: &str, shape: Shape) {
        let atom = self.atom_named(name);
        self.segments.push(if shape == Shape::default() { Segment::Atom(atom) } else { Segment::Shaped(atom, shape) });
    }

    fn atom_named(&mut self, name: &str) -> Atom {
        match name {
            "h" => Atom::RemoteAddr,
            "u" => Atom::User,
            "t" => Atom::Time,
            "r" => Atom::RequestLine,
            "m" => Atom::Method,
            "U" => Atom::Path,
            "q" => Atom::Query,
            "H" => Atom::Protocol,
            "s" => Atom::Status,
            "b" | "B" => Atom::BytesSent,
            "f" => Atom::RequestHeader("referer".to_owned()),
            "a" => Atom::RequestHeader("user-agent".to_owned()),
            "T" => Atom::Seconds,
            "M" => Atom::Milliseconds,
            "D" => Atom::Microseconds,
            "L" => Atom::DecimalSeconds,
            "p" => Atom::Pid,
            _ => self.braced_atom(&name.to_lowercase()),
        }
    }

    /// `{name}i`, `{name}o` and `{name}e`, already in lower case.
    fn braced_atom(&mut self, name: &str) -> Atom {
        let Some((name, kind)) = name.strip_prefix('{').and_then(|braced| braced.rsplit_once('}')) else {
            return Atom::Absent;
        };
        match kind {
            "i" => Atom::RequestHeader(name.to_owned()),
            "o" => Atom::ResponseHeader(index_of(&mut self.response_headers, name)),
            "e" => Atom::EnvironValue(index_of(&mut self.environ_keys, name)),
            _ => Atom::Absent,
        }
    }
}

/// Where `name` stands in `names`, to which it is added if new.
fn index_of(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

/// Takes `%(name)`, flags, width, precision and conversion off the start of `text`: the name, the
/// shape, and what follows. None where it is no directive.
fn parse_directive(text: &str) -> Option<(&str, Shape, &str)> {
    let inside = text.strip_prefix("%(")?;
    let end = closing_parenthesis(inside)?;
    let (name, mut rest) = (&inside[..end], &inside[end + 1..]);
    let mut shape = Shape::default();
    while let Some(flag) = rest.chars().next().filter(|flag| "-0+ #".contains(*flag)) {
        shape.left |= flag == '-';
        shape.zero |= flag == '0';
        rest = &rest[1..];
    }
    (shape.width, rest) = split_number(rest)?;
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = split_number(after)?;
        (shape.precision, rest) = (Some(precision), after);
    }
    let conversion = rest.chars().next()?;
    match conversion {
        's' | 'r' | 'a' => shape.zero = false,
        // In Python a precision adds zeros to a number. That is not supported, because no access
        // log uses it.
        'd' | 'i' | 'u' => shape.precision = None,
        _ => return None,
    }
    Some((name, shape, &rest[1..]))
}

/// The place in `text` of the parenthesis that closes the one before it. As in Python a name may
/// contain pairs of them.
fn closing_parenthesis(text: &str) -> Option<usize> {
    let mut depth = 1;
    text.bytes().position(|byte| {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

/// Splits the digits off the start of `text`: their number (0 if there are none) and the rest. None
/// past [`MAX_WIDTH`].
fn split_number(text: &str) -> Option<(usize, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = if digits == 0 { 0 } else { text[..digits].parse().ok()? };
    (number <= MAX_WIDTH).then_some((number, &text[digits..]))
}

impl Atom {
    fn render(&self, out: &mut Vec<u8>, record: &impl AccessRecord, time: &[u8]) {
        match self {
            Atom::Absent => out.push(b'-'),
            Atom::RemoteAddr => push_latin1(out, record.remote_addr()),
            Atom::User => push_user(out, record.request_header("authorization")),
            Atom::Time => out.extend_from_slice(time),
            // A request that was refused before its request line could be read.
            Atom::RequestLine | Atom::Method | Atom::Path | Atom::Protocol if record.method().is_empty() => {
                out.push(b'-');
            }
            Atom::RequestLine => {
                push_latin1(out, record.method());
                out.push(b' ');
                push_latin1(out, record.raw_uri());
                out.push(b' ');
                push_latin1(out, record.protocol());
            }
            Atom::Method => push_latin1(out, record.method()),
            Atom::Path => percent_decode(record.path()).for_each(|byte| push_latin1_byte(out, byte)),
            Atom::Query => push_latin1(out, record.query()),
            Atom::Protocol => push_latin1(out, record.protocol()),
            Atom::Status => push_number(out, record.status().into()),
            Atom::BytesSent => push_number(out, record.bytes_sent()),
            Atom::Seconds => push_number(out, record.duration().as_secs()),
            Atom::Milliseconds => push_number(out, saturated(record.duration().as_millis())),
            Atom::Microseconds => push_number(out, saturated(record.duration().as_micros())),
            Atom::DecimalSeconds => push_decimal_seconds(out, record.duration()),
            Atom::Pid => push_pid(out),
            Atom::RequestHeader(name) => push_optional(out, record.request_header(name)),
            Atom::ResponseHeader(index) => push_optional(out, record.response_header(*index)),
            Atom::EnvironValue(index) => push_text(out, record.environ_value(*index).unwrap_or("-")),
        }
    }
}

impl Shape {
    /// Cuts and pads the text in `out` from `start` on. Widths count characters, not bytes.
    fn apply(&self, out: &mut Vec<u8>, start: usize) {
        if let Some(precision) = self.precision {
            out.truncate(start + escape::whole_escapes(&out[start..], precision));
        }
        let missing = self.width.saturating_sub(char_starts(&out[start..]).count());
        let (fill, at) = match (self.left, self.zero) {
            (true, _) => (b' ', out.len()),
            (false, true) => (b'0', start),
            (false, false) => (b' ', start),
        };
        out.splice(at..at, std::iter::repeat_n(fill, missing));
    }
}

/// Where the characters of UTF-8 `text` start.
fn char_starts(text: &[u8]) -> impl Iterator<Item = usize> {
    text.iter().enumerate().filter(|(_, byte)| **byte & 0xc0 != 0x80).map(|(at, _)| at)
}

fn push_optional(out: &mut Vec<u8>, value: Option<&[u8]>) {
    push_latin1(out, value.unwrap_or(b"-"));
}

/// Appends wire bytes as Latin-1 characters in UTF-8, escaped.
fn push_latin1(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.iter().all(|byte| is_plain(*byte)) {
        out.extend_from_slice(bytes);
    } else {
        bytes.iter().for_each(|byte| push_latin1_byte(out, *byte));
    }
}

fn push_latin1_byte(out: &mut Vec<u8>, byte: u8) {
    if is_plain(byte) { out.push(byte) } else { escape::push_char(out, char::from(byte)) }
}

/// Appends text, escaped.
fn push_text(out: &mut Vec<u8>, text: &str) {
    text.chars().for_each(|character| escape::push_char(out, character));
}

/// Whether a byte stands for itself in the line: printable ASCII but the quote and the backslash.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn saturated(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Seconds with six places, as in `0.000042`.
fn push_decimal_seconds(out: &mut Vec<u8>, duration: Duration) {
    push_number(out, duration.as_secs());
    // The seventh digit from the right is a 1 that becomes the point: it keeps the leading zeros.
    let point = out.len();
    push_number(out, 1_000_000 + u64::from(duration.subsec_micros()));
    out[point] = b'.';
}

/// `<PID>` of this process, which may have been forked since the format was compiled.
fn push_pid(out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "<{}>", std::process::id());
}

/// The user of Basic credentials (RFC 7617), or `-`.
fn push_user(out: &mut Vec<u8>, authorization: Option<&[u8]>) {
    match authorization.and_then(basic_user) {
        Some(user) => push_text(out, &user),
        None => out.push(b'-'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "[20/Nov/2026:07:37:18 +0000]";
    const DEFAULT: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

    /// A request as the tests make it up; the default is `GET /` answered with `hello world`.
    struct Made {
        method: &'static str,
        uri: &'static [u8],
        protocol: &'static str,
        headers: &'static [(&'static str, &'static [u8])],
        sent: u64,
    }

    const GET: Made = Made { method: "GET", uri: b"/", protocol: "HTTP/1.1", headers: &[("host", b"h")], sent: 12 };

    impl AccessRecord for Made {
        fn remote_addr(&self) -> &[u8] {
            b"127.0.0.1"
        }
        fn method(&self) -> &[u8] {
            self.method.as_bytes()
        }
        fn raw_uri(&self) -> &[u8] {
            self.uri
        }
        fn protocol(&self) -> &[u8] {
            self.protocol.as_bytes()
        }
        fn path(&self) -> &[u8] {
            self.uri.split(|byte| *byte == b'?').next().unwrap()
        }
        fn query(&self) -> &[u8] {
            self.uri.splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default()
        }
        fn status(&self) -> u16 {
            200
        }
        fn bytes_sent(&self) -> u64 {
            self.sent
        }
        fn duration(&self) -> Duration {
            Duration::from_micros(1_002_345)
        }
        fn request_header(&self, name: &str) -> Option<&[u8]> {
            self.headers.iter().rfind(|(known, _)| *known == name).map(|(_, value)| *value)
        }
        fn response_header(&self, index: usize) -> Option<&[u8]> {
            [Some(b"b\"\xe9" as &[u8]), None][index]
        }
        fn environ_value(&self, index: usize) -> Option<&str> {
            [Some("caf\u{e9} \u{20ac}\"\n"), None][index]
        }
    }

    fn line(format: &str, record: &Made) -> String {
        let mut out = Vec::new();
        AccessFormat::compile(format).render(&mut out, record, TIME.as_bytes());
        let mut line = String::from_utf8(out).expect("a line is UTF-8");
        assert_eq!(line.pop(), Some('\n'));
        line
    }

    fn get(uri: &'static [u8]) -> Made {
        Made { uri, ..GET }
    }

    #[test]
    fn every_atom_shows_what_gunicorn_shows() {
        let cases = [
            (DEFAULT, r#"127.0.0.1 - - [20/Nov/2026:07:37:18 +0000] "GET /a?b=c HTTP/1.1" 200 12 "-" "-""#),
            ("%(m)s %(U)s %(q)s %(H)s", "GET /a b=c HTTP/1.1"),
            ("%(s)s %(b)s %(B)d", "200 12 12"),
            ("%(T)s %(M)s %(D)s %(L)s", "1 1002 1002345 1.002345"),
            ("%(z)s %({x}z)s %({x)s %()s", "- - - -"),
            ("%({host}i)s %({Host}I)s %({x-a}i)s", "h h -"),
            ("%({X-Two}o)s %({x-none}o)s", r#"b\"é -"#),
            ("%({App.Key}e)s %({none}e)s", "café €\\\"\\x0a -"),
        ];
        for (format, expected) in cases {
            assert_eq!(line(format, &get(b"/a?b=c")), expected, "{format}");
        }
        assert_eq!(line("%(p)s", &get(b"/")), format!("<{}>", std::process::id()));
    }

    #[test]
    fn lines_are_those_that_gunicorn_27_printed_for_the_same_requests() {
        let combined = r#"%(h)s %(l)s %(u)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;
        let browser =
            Made { uri: b"/a?b=c", headers: &[("user-agent", b"ua/1 \"q\""), ("referer", b"http://r/")], ..GET };
        let authorized = Made {
            uri: b"/caf%C3%A9/%E9/%22",
            headers: &[("x-a", b"one"), ("x-a", b"\xe9two"), ("authorization", b"Basic YWxhZGRpbjpvcGVuIHNlc2FtZQ==")],
            ..GET
        };
        let head = Made {
            method: "HEAD",
            protocol: "HTTP/1.0",
            headers: &[("authorization", b"Basic w6k6eA=="), ("referer", b"a\xe9")],
            sent: 0,
            ..GET
        };
        let unpadded = Made { headers: &[("authorization", b"basic YnJpYW4"), ("referer", b"")], ..GET };
        let numbers = "[%(s)5s][%(s)-5s][%(m).2s][%(U)6s][%(B)05d]";
        let cases = [
            (combined, &browser, r#"127.0.0.1 - - "GET /a?b=c HTTP/1.1" 200 12 "http://r/" "ua/1 \"q\"""#),
            (combined, &authorized, r#"127.0.0.1 - aladdin "GET /caf%C3%A9/%E9/%22 HTTP/1.1" 200 12 "-" "-""#),
            (combined, &head, r#"127.0.0.1 - é "HEAD / HTTP/1.0" 200 0 "aé" "-""#),
            (combined, &unpadded, r#"127.0.0.1 - - "GET / HTTP/1.1" 200 12 "" "-""#),
            ("%(m)s|%(U)s|%(q)s|%(H)s", &browser, "GET|/a|b=c|HTTP/1.1"),
            ("%(m)s|%(U)s|%(q)s|%(H)s", &authorized, "GET|/cafÃ©/é/\\\"||HTTP/1.1"),
            (numbers, &browser, "[  200][200  ][GE][    /a][00012]"),
            (numbers, &authorized, "[  200][200  ][GE][/cafÃ©/é/\\\"][00012]"),
            (numbers, &head, "[  200][200  ][HE][     /][00000]"),
            ("%({x-A}i)s|%({X-a}I)s|%({n}i)s|%(z)s", &authorized, "étwo|étwo|-|-"),
            ("%(T)i|%(B)s|100%%", &head, "1|0|100%"),
        ];
        for (format, record, expected) in cases {
            assert_eq!(line(format, record), expected, "{format}");
        }
    }

    #[test]
    fn the_format_is_pythons() {
        let cases = [
            ("100%% %(s)s%%", "100% 200%"),
            ("[%(s)5s] [%(s)-5s] [%(r).3s] [%(s)5.1s]", "[  200] [200  ] [GET] [    2]"),
            ("%(D)09d %(D)-9d| %(s)05s", "001002345 1002345  |   200"),
            ("%(U)4s|", "  /é|"),
            ("% %(s %(s)y 50%", "% %(s %(s)y 50%"),
            ("%(s)99999s", "%(s)99999s"),
            ("", ""),
        ];
        for (format, expected) in cases {
            assert_eq!(line(format, &get(b"/%E9")), expected, "{format}");
        }
    }

    #[test]
    fn a_client_can_neither_end_the_quotes_nor_the_line() {
        let cases: [(&[u8], &str, &str); 10] = [
            (b"/\"x\"", "%(r)s", r#"GET /\"x\" HTTP/1.1"#),
            (b"/a%0d%0aforged", "%(U)s", r"/a\x0d\x0aforged"),
            (b"/%1b[2J%7f%00", "%(U)s", r"/\x1b[2J\x7f\x00"),
            (b"/caf\xe9", "%(r)s", "GET /café HTTP/1.1"),
            (b"/caf%C3%A9", "%(U)s", "/cafÃ©"),
            (b"/%zz%4", "%(U)s", "/%zz%4"),
            (b"/\x9b2J%9b2J", "%(r)s %(U)s", r"GET /\x9b2J%9b2J HTTP/1.1 /\x9b2J\x9b2J"),
            (b"/%e2%80%a8", "%(U)s", "/\u{e2}\\x80\u{a8}"),
            (br#"/\" 200"#, "\"%(r)s\"", r#""GET /\\\" 200 HTTP/1.1""#),
            (br#"/a\"#, "\"%(U).3s\"|\"%(U).4s\"", r#""/a"|"/a\\""#),
        ];
        for (uri, format, expected) in cases {
            assert_eq!(line(format, &get(uri)), expected);
        }
    }

    #[test]
    fn headers_and_keys_are_asked_for_once_and_in_lower_case() {
        let format = AccessFormat::compile("%({X-A}o)s %({x-a}o)s %({B}o)s %({Wsgi.Input}e)s %(s)s");
        assert_eq!(format.response_headers(), ["x-a", "b"]);
        assert_eq!(format.environ_keys(), ["wsgi.input"]);
        assert!(!format.shows_time());
        assert!(AccessFormat::compile(DEFAULT).shows_time());
    }

    #[test]
    fn no_format_panics() {
        let pieces = ["%", "(", ")", "{", "}", "h", "e", "0", "-", ".", "9", "s", "é"];
        for a in pieces {
            for b in pieces {
                for c in pieces {
                    line(&format!("%({a}{b}{c}"), &get(b"/"));
                    line(&format!("%(s){a}{b}{c}"), &get(b"/"));
                }
            }
        }
    }
}
