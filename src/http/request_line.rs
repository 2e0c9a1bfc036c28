//! The request line: `method SP request-target SP HTTP-version` (RFC 9112, 3), by gunicorn's strict
//! rules. It reads one complete line and knows nothing of headers.

use memchr::memchr;

use super::authority::Authority;
use super::error::{Error, quote};
use super::grammar::{is_path_byte, is_token};
use super::policy::Policy;
use super::request::{Span, Version};

/// A valid request line; the spans point into the buffer that the line stood in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestLine {
    pub(super) method: Span,
    pub(super) target: Span,
    pub(super) form: TargetForm,
    pub(super) path: Span,
    pub(super) query: Span,
    pub(super) version: Version,
    pub(super) version_text: Span,
}

/// The four forms of a request target (RFC 9112, 3.2).
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum TargetForm {
    #[default]
    Origin,
    /// A whole URI; its authority without user information, and the port that its scheme implies.
    Absolute { authority: Span, default_port: Option<u16> },
    /// `host:port`, for CONNECT.
    Authority,
    /// `*`, for OPTIONS.
    Asterisk,
}

/// Reads the request line that stands in `buf` at `line`, its CRLF not included.
pub(super) fn parse(buf: &[u8], line: Span, policy: &Policy) -> Result<RequestLine, Error> {
    let refuse = || Error::InvalidRequestLine(quote(line.of(buf)));
    let (method, rest) = split_at_space(buf, line).ok_or_else(refuse)?;
    let marks = TargetOffsets::find(rest.of(buf));
    let behind = rest.skip(marks.end).of(buf);
    let ends_well = behind.first() == Some(&b' ');
    // A wrong method is reported first, except for a line that has fewer than three words.
    if !ends_well && memchr(b' ', behind).is_none() {
        return Err(refuse());
    }
    check_method(method.of(buf), policy)?;
    if !ends_well || marks.end == 0 {
        return Err(refuse());
    }
    let (target, version_text) = rest.split_at(marks.end);
    let version_text = version_text.skip(1);
    let name = MethodName::of(method.of(buf), policy);
    let form = target_form(buf, target, name).ok_or_else(refuse)?;
    let version = parse_version(version_text.of(buf), policy)?;
    let (path, query) = path_and_query(buf, target, form, marks);
    Ok(RequestLine { method, target, form, path, query, version, version_text })
}

/// The offsets that one pass over a target finds.
#[derive(Clone, Copy)]
struct TargetOffsets {
    /// Where its visible characters end.
    end: usize,
    /// Where its path ends: at the first `?` or `#`.
    path_end: usize,
    /// Where its query ends: at the first `#`.
    query_end: usize,
}

impl TargetOffsets {
    fn find(text: &[u8]) -> Self {
        let path_end = end_of(text, 0, is_path_byte);
        let query_end = end_of(text, path_end, |byte| is_path_byte(byte) || byte == b'?');
        let end = end_of(text, query_end, |byte| byte.is_ascii_graphic());
        TargetOffsets { end, path_end, query_end }
    }
}

/// The end of the run of bytes from `start` on for which `belong` holds.
fn end_of(text: &[u8], start: usize, belong: impl Fn(u8) -> bool) -> usize {
    text[start..].iter().position(|&byte| !belong(byte)).map_or(text.len(), |at| start + at)
}

/// The methods whose targets have a form of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MethodName {
    Connect,
    Options,
    Other,
}

impl MethodName {
    fn of(method: &[u8], policy: &Policy) -> Self {
        let is =
            |name: &[u8]| if policy.casefold_http_method { method.eq_ignore_ascii_case(name) } else { method == name };
        match method.len() {
            7 if is(b"CONNECT") => MethodName::Connect,
            7 if is(b"OPTIONS") => MethodName::Options,
            _ => MethodName::Other,
        }
    }
}

fn split_at_space(buf: &[u8], span: Span) -> Option<(Span, Span)> {
    let at = memchr(b' ', span.of(buf))?;
    let (before, after) = span.split_at(at);
    Some((before, after.skip(1)))
}

/// A method is a token (RFC 9110, 9.1). Unless the policy permits others, it also looks like a
/// registered one.
pub(super) fn check_method(method: &[u8], policy: &Policy) -> Result<(), Error> {
    let looks_registered =
        (3..=20).contains(&method.len()) && !method.iter().any(|&byte| byte.is_ascii_lowercase() || byte == b'#');
    if is_token(method) && (looks_registered || policy.permit_unconventional_http_method) {
        Ok(())
    } else {
        Err(Error::InvalidMethod(quote(method)))
    }
}

fn target_form(buf: &[u8], target: Span, method: MethodName) -> Option<TargetForm> {
    let text = target.of(buf);
    match (method, text) {
        (MethodName::Connect, _) => connect_form(text),
        (MethodName::Options, b"*") => Some(TargetForm::Asterisk),
        (_, [b'/', ..]) => Some(TargetForm::Origin),
        _ => absolute_form(buf, target),
    }
}

/// The target of CONNECT is the other end of a tunnel: host and port, and nothing else (RFC 9112,
/// 3.2.3).
fn connect_form(text: &[u8]) -> Option<TargetForm> {
    let authority = Authority::parse(text)?;
    authority.port.map(|_| TargetForm::Authority)
}

/// `scheme://[userinfo@]host[:port]...` (RFC 9112, 3.2.2). An empty host is an error (RFC 9110,
/// 4.2.1).
fn absolute_form(buf: &[u8], target: Span) -> Option<TargetForm> {
    let text = target.of(buf);
    let scheme_end = memchr(b':', text)?;
    let scheme = &text[..scheme_end];
    if !is_scheme(scheme) || !text[scheme_end..].starts_with(b"://") {
        return None;
    }
    let behind = target.skip(scheme_end + 3);
    let end = behind.of(buf).iter().position(|byte| b"/?#".contains(byte));
    let (authority, _) = behind.split_at(end.unwrap_or(behind.len()));
    let userinfo = memchr::memrchr(b'@', authority.of(buf)).map_or(0, |at| at + 1);
    let authority = authority.skip(userinfo);
    Authority::parse(authority.of(buf))?;
    Some(TargetForm::Absolute { authority, default_port: default_port(scheme) })
}

/// `scheme` of RFC 3986, 3.1.
fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

fn default_port(scheme: &[u8]) -> Option<u16> {
    match scheme {
        _ if scheme.eq_ignore_ascii_case(b"http") => Some(80),
        _ if scheme.eq_ignore_ascii_case(b"https") => Some(443),
        _ => None,
    }
}

/// Where path and query stand. A fragment does not belong in a request. It is left out, as in
/// gunicorn.
fn path_and_query(buf: &[u8], target: Span, form: TargetForm, marks: TargetOffsets) -> (Span, Span) {
    // An authority contains neither `?` nor `#`.
    let (before, _fragment) = target.split_at(marks.query_end);
    let (before, query) = before.split_at(marks.path_end);
    let path = match form {
        TargetForm::Origin | TargetForm::Asterisk => before,
        TargetForm::Absolute { authority, .. } if authority.end == before.end => slash_before(buf, authority),
        TargetForm::Absolute { authority, .. } => before.from(authority.end),
        TargetForm::Authority => target.skip(target.len()),
    };
    (path, query.skip(1))
}

/// An empty path in a URI means `/` (RFC 9110, 4.2.3). The span needs a `/` to point at: one of the
/// `//` before the authority.
fn slash_before(buf: &[u8], authority: Span) -> Span {
    let before = &buf[..authority.start as usize];
    let slash = memchr::memrchr(b'/', before).unwrap_or(0);
    Span::new(slash, slash + 1)
}

/// `HTTP/digit.digit`, case-sensitive (RFC 9112, 2.3).
fn parse_version(text: &[u8], policy: &Policy) -> Result<Version, Error> {
    let (major, minor) = match text {
        [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] => (major - b'0', minor - b'0'),
        _ => return Err(Error::InvalidVersion(quote(text))),
    };
    match (major, minor) {
        (1, 0) => Ok(Version::Http10),
        (1, _) => Ok(Version::Http11),
        _ if !policy.permit_unconventional_http_version => Err(Error::UnsupportedVersion(major, minor)),
        (0, _) => Ok(Version::Http10),
        _ => Ok(Version::Http11),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str, policy: &Policy) -> Result<RequestLine, Error> {
        parse(line.as_bytes(), Span::new(0, line.len()), policy)
    }

    #[test]
    fn path_and_query_are_found_in_every_form_of_target() {
        let cases = [
            ("GET /a?b=c?d HTTP/1.1", "/a", "b=c?d"),
            ("GET /p? HTTP/1.1", "/p", ""),
            ("GET //a/b HTTP/1.1", "//a/b", ""),
            ("GET /p?q#frag?x HTTP/1.1", "/p", "q"),
            ("GET /p#frag?x HTTP/1.1", "/p", ""),
            ("GET http://a/x?q=1 HTTP/1.1", "/x", "q=1"),
            ("GET http://u:p@a:80?q HTTP/1.1", "/", "q"),
            ("GET http://u/p@a HTTP/1.1", "/p@a", ""),
            ("GET http://a HTTP/1.1", "/", ""),
            ("GET http://[::1]:8000#f HTTP/1.0", "/", ""),
            ("OPTIONS * HTTP/1.1", "*", ""),
            ("CONNECT a:443 HTTP/1.1", "", ""),
        ];
        for (line, path, query) in cases {
            let parsed = parse_line(line, &Policy::default()).expect(line);
            assert_eq!(parsed.path.of(line.as_bytes()), path.as_bytes(), "{line}");
            assert_eq!(parsed.query.of(line.as_bytes()), query.as_bytes(), "{line}");
        }
    }

    #[test]
    fn targets_outside_the_four_forms_are_refused() {
        for target in [
            "",
            "*",
            "a",
            "a:443",
            "foo/bar",
            "://a",
            "1http://a",
            "http:///x",
            "http://@/x",
            "http://[::1/x",
            "http://a b",
            "/a\u{7f}",
            "/caf\u{e9}",
            "http:/a",
        ] {
            let line = format!("GET {target} HTTP/1.1");
            let refusal = parse_line(&line, &Policy::default()).map(drop).expect_err(&line);
            assert_eq!(refusal.status(), 400, "{line}");
        }
        for line in ["CONNECT / HTTP/1.1", "CONNECT a HTTP/1.1", "CONNECT http://a/ HTTP/1.1", "CONNECT a: HTTP/1.1"] {
            assert!(parse_line(line, &Policy::default()).is_err(), "{line}");
        }
    }

    #[test]
    fn switches_permit_unconventional_methods_and_versions() {
        let methods: fn(&mut Policy) = |policy| policy.permit_unconventional_http_method = true;
        let versions: fn(&mut Policy) = |policy| policy.permit_unconventional_http_version = true;
        let cases = [
            ("get / HTTP/1.1", methods),
            ("GE / HTTP/1.1", methods),
            ("GET# / HTTP/1.1", methods),
            ("AAAAAAAAAAAAAAAAAAAAA / HTTP/1.1", methods),
            ("GET / HTTP/0.9", versions),
            ("GET / HTTP/2.0", versions),
        ];
        for (line, permit) in cases {
            assert!(parse_line(line, &Policy::default()).is_err(), "{line}");
            let mut policy = Policy::default();
            permit(&mut policy);
            assert!(parse_line(line, &policy).is_ok(), "{line}");
        }
    }
}
