//! What joins up the log lines of one request, here and at other hops: an id in a header of the
//! operator's choice, and the trace of W3C Trace Context.
//!
//! Both come from outside. A value that does not have the form of an id is ignored.

use super::request::{RequestHead, Span};

/// The longest id that is accepted. Ids in use have 16 to 64 characters.
pub const LONGEST_ID: usize = 128;

/// The header that names the trace.
const TRACEPARENT: &[u8] = b"traceparent";

/// The length of a `traceparent` of version 00.
const TRACEPARENT_LENGTH: usize = 55;

/// The caller's place in a trace (W3C Trace Context, level 1, 3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// The trace: 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// The caller's span: 16 hexadecimal digits.
    pub span_id: &'a str,
    /// Whether the caller may have recorded the trace.
    pub is_sampled: bool,
}

/// Where in `source` the id stands: the value of the one header that shares its environ key with
/// `name`. `None` where there is no such header, there are several, or the value does not have the
/// form of an id.
pub fn find_id(head: &RequestHead, source: &[u8], name: &str) -> Option<Span> {
    let value = only(head, source, |found| is_same_key(found, name.as_bytes()))?;
    is_id(value).then(|| Span::within(source, value))
}

/// Whether two header names are one key in an environ, which cannot tell `-` from `_`.
pub fn is_same_key(name: &[u8], other: &[u8]) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == other.len() && name.iter().zip(other).all(|(one, other)| fold(*one) == fold(*other))
}

/// The trace that the request belongs to, if it names one.
pub fn find_trace<'a>(head: &'a RequestHead, source: &'a [u8]) -> Option<TraceParent<'a>> {
    only(head, source, |name| name.eq_ignore_ascii_case(TRACEPARENT)).and_then(parse_traceparent)
}

/// The value of the header whose name `is_it`; `None` where there are several.
fn only<'a>(head: &'a RequestHead, source: &'a [u8], is_it: impl Fn(&[u8]) -> bool) -> Option<&'a [u8]> {
    let mut found = head.headers(source).filter(|(name, _)| is_it(name)).map(|(_, value)| value);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn is_id(value: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._~+/=-".contains(byte);
    (1..=LONGEST_ID).contains(&value.len()) && value.iter().all(is_plain)
}

/// Reads `VERSION-TRACE-SPAN-FLAGS`. Of a version above 00, fields that may follow are passed over;
/// ff is no version (W3C Trace Context, level 1, 3.2.2 and 4.3).
pub fn parse_traceparent(value: &[u8]) -> Option<TraceParent<'_>> {
    let known = std::str::from_utf8(value.get(..TRACEPARENT_LENGTH)?).ok()?;
    let mut fields = known.split('-');
    let (version, trace_id, span_id, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let has_form = [(version, 2), (trace_id, 32), (span_id, 16), (flags, 2)]
        .into_iter()
        .all(|(field, length)| field.len() == length && field.bytes().all(is_lower_hex));
    let ends_well = match value.get(TRACEPARENT_LENGTH) {
        None => true,
        Some(&byte) => version != "00" && byte == b'-',
    };
    let is_nothing = |id: &str| id.bytes().all(|byte| byte == b'0');
    if !has_form || !ends_well || version == "ff" || is_nothing(trace_id) || is_nothing(span_id) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some(TraceParent { trace_id, span_id, is_sampled: flags & 1 == 1 })
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::super::policy::Policy;
    use super::super::request::{HeadParser, Status};
    use super::*;

    fn head_of(request: &str) -> RequestHead {
        let mut head = RequestHead::default();
        let status = HeadParser::new().parse(request.as_bytes(), &Policy::default(), false, None, &mut head);
        assert_eq!(status, Ok(Status::Complete), "{request}");
        head
    }

    fn id_in(headers: &str) -> Option<String> {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let head = head_of(&request);
        let span = find_id(&head, request.as_bytes(), "X-Request-ID")?;
        Some(String::from_utf8(span.of(request.as_bytes()).to_vec()).unwrap())
    }

    #[test]
    fn an_id_is_one_header_of_plain_characters() {
        let longest = "a".repeat(LONGEST_ID);
        for id in ["1", "5f2C-._~+/=", longest.as_str()] {
            assert_eq!(id_in(&format!("x-request-id:  {id} \r\n")).as_deref(), Some(id));
        }
        for headers in [
            String::new(),
            "X-Request-ID:\r\n".to_owned(),
            "X-Request-ID: a b\r\n".to_owned(),
            "X-Request-ID: a,b\r\n".to_owned(),
            "X-Request-ID: \"a\"\r\n".to_owned(),
            "X-Request-ID: caf\u{e9}\r\n".to_owned(),
            "X-Request-ID: a\r\nx-request-id: b\r\n".to_owned(),
            format!("X-Request-ID: {longest}a\r\n"),
        ] {
            assert_eq!(id_in(&headers), None, "{headers}");
        }
    }

    #[test]
    fn names_that_share_a_key_of_the_environ_are_one() {
        assert!(is_same_key(b"X_Request-id", b"X-Request-ID"));
        assert!(!is_same_key(b"X-Request-Ids", b"X-Request-ID"));
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_traceparent_is_read_as_level_1_says() {
        let sampled = TraceParent { trace_id: TRACE, span_id: SPAN, is_sampled: true };
        let not_sampled = TraceParent { is_sampled: false, ..sampled };
        for (value, expected) in [
            (format!("00-{TRACE}-{SPAN}-01"), sampled),
            (format!("00-{TRACE}-{SPAN}-00"), not_sampled),
            (format!("00-{TRACE}-{SPAN}-fe"), not_sampled),
            (format!("cc-{TRACE}-{SPAN}-01"), sampled),
            (format!("cc-{TRACE}-{SPAN}-01-what-follows"), sampled),
        ] {
            assert_eq!(parse_traceparent(value.as_bytes()), Some(expected), "{value}");
        }
        let (no_trace, no_span) = ("0".repeat(32), "0".repeat(16));
        for value in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01."),
            format!("cc-{TRACE}-{SPAN}-01."),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{no_trace}-{SPAN}-01"),
            format!("00-{TRACE}-{no_span}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!("00-{TRACE}-{SPAN}-0\u{e9}"),
            format!("00{TRACE}-{SPAN}-01----"),
        ] {
            assert_eq!(parse_traceparent(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn two_traceparents_are_none() {
        let line = format!("Traceparent: 00-{TRACE}-{SPAN}-01\r\n");
        for (lines, is_found) in [(line.clone(), true), (line.repeat(2), false), (String::new(), false)] {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            assert_eq!(find_trace(&head_of(&request), request.as_bytes()).is_some(), is_found, "{lines}");
        }
    }
}
