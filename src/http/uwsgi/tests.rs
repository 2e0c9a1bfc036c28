//! Packets whole, in parts and broken.

use super::*;
use crate::http::grammar::is_path_byte;
use crate::http::request::{Framing, Scheme, Version, decode_path};

/// A request's packet with these variables.
fn packet(vars: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat();
    let pairs: Vec<u8> = vars.iter().flat_map(|(name, value)| [text(name), text(value)].concat()).collect();
    with_pairs(0, &pairs)
}

fn with_pairs(modifier1: u8, pairs: &[u8]) -> Vec<u8> {
    let [low, high] = (pairs.len() as u16).to_le_bytes();
    [&[modifier1, low, high, 0], pairs].concat()
}

/// What a head says, all in text.
#[derive(Debug, PartialEq)]
struct Said {
    line: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    vars: Vec<(String, String)>,
    framing: Framing,
    scheme: Option<Scheme>,
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn said(head: &RequestHead, buf: &[u8]) -> Said {
    let source = head.source(buf);
    let text = |span: Span| latin1(span.of(source));
    let pair = |(name, value): (&[u8], &[u8])| (latin1(name), latin1(value));
    assert!(!head.keep_alive && !head.expect_continue && head.version == Version::Uwsgi);
    Said {
        line: format!("{} {} {}", text(head.method), text(head.target), text(head.version_text)),
        path: text(head.path),
        query: text(head.query),
        headers: head.headers(source).map(pair).collect(),
        vars: head.vars(source).map(pair).collect(),
        framing: head.framing,
        scheme: head.forwarded_scheme,
    }
}

fn parse_as(bytes: &[u8], policy: &Policy) -> Result<Said, Error> {
    let mut head = RequestHead::default();
    assert_eq!(parse(bytes, policy, true, &mut head)?, Status::Complete);
    Ok(said(&head, bytes))
}

fn parse_vars(vars: &[(&str, &str)]) -> Result<Said, Error> {
    parse_as(&packet(vars), &Policy::default())
}

/// What nginx 1.22 has sent with its `uwsgi_params`.
const NGINX: &[(&str, &str)] = &[
    ("QUERY_STRING", "a=1&b=%20x"),
    ("REQUEST_METHOD", "POST"),
    ("CONTENT_TYPE", "text/plain"),
    ("CONTENT_LENGTH", "5"),
    ("REQUEST_URI", "/caf%C3%A9?a=1&b=%20x"),
    ("PATH_INFO", "/caf\u{e9}"),
    ("DOCUMENT_ROOT", "/usr/share/nginx/html"),
    ("SERVER_PROTOCOL", "HTTP/1.1"),
    ("REQUEST_SCHEME", "http"),
    ("REMOTE_ADDR", "192.0.2.1"),
    ("REMOTE_PORT", "40000"),
    ("SERVER_PORT", "80"),
    ("SERVER_NAME", "example.com"),
    ("HTTP_HOST", "example.com"),
    ("HTTP_CONTENT_LENGTH", "5"),
    ("HTTP_X_A", " one "),
    ("HTTP_X_A", "two"),
    ("HTTP_X_B", " "),
];

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_packet_of_nginx_is_a_head() {
    let said = parse_vars(NGINX).unwrap();
    assert_eq!(said.line, "POST /caf%C3%A9?a=1&b=%20x HTTP/1.1");
    assert_eq!((&*said.path, &*said.query), ("/caf%C3%A9", "a=1&b=%20x"));
    let headers = [
        ("HOST", "example.com"),
        ("X-A", "one"),
        ("X-A", "two"),
        ("X-B", ""),
        ("CONTENT-TYPE", "text/plain"),
        ("CONTENT-LENGTH", "5"),
    ];
    assert_eq!(said.headers, pairs(&headers));
    let names: Vec<_> = said.vars.iter().map(|(name, _)| &**name).collect();
    let rest = ["DOCUMENT_ROOT", "REQUEST_SCHEME", "REMOTE_ADDR", "REMOTE_PORT", "SERVER_PORT", "SERVER_NAME"];
    assert_eq!(names, [&["REQUEST_URI"][..], &rest].concat());
    assert_eq!((said.framing, said.scheme), (Framing::Length(5), Some(Scheme::Http)));
}

#[test]
fn wherever_a_packet_is_cut_it_is_the_same() {
    let packet = packet(NGINX);
    let stream = [&packet[..], b"hello"].concat();
    let whole = parse_as(&stream, &Policy::default()).unwrap();
    let mut head = RequestHead::default();
    for end in 0..=stream.len() {
        let verdict = parse(&stream[..end], &Policy::default(), true, &mut head);
        if end < packet.len() {
            assert_eq!(verdict, Ok(Status::Partial), "{end} bytes");
        } else {
            assert_eq!(verdict, Ok(Status::Complete), "{end} bytes");
            assert_eq!(
                (head.len, said(&head, &stream[..end])),
                (packet.len(), parse_as(&stream, &Policy::default()).unwrap())
            );
            assert_eq!(said(&head, &stream[..end]), whole);
        }
        let (start, rest) = stream.split_at(end);
        let expected = if start.is_empty() || end < packet.len() { packet.len() - end } else { 0 };
        assert_eq!(rest_of_packet(start, rest), expected, "{end} bytes");
    }
    assert_eq!(rest_of_packet(b"\0", b"\x05"), 1, "the length is not known yet");
}

#[test]
fn what_is_not_said_has_a_default() {
    let said = parse_vars(&[]).unwrap();
    assert_eq!((&*said.line, &*said.path), ("GET / HTTP/1.1", "/"));
    assert_eq!((said.framing, said.scheme), (Framing::None, None));
    let empty = ["CONTENT_LENGTH", "CONTENT_TYPE", "HTTPS", "SERVER_PROTOCOL", "REQUEST_URI"].map(|name| (name, ""));
    let said = parse_vars(&empty).unwrap();
    assert_eq!(said.line, "GET / HTTP/1.1");
    assert!(said.headers.is_empty() && said.framing == Framing::None);
    assert_eq!(said.vars, pairs(&[("HTTPS", ""), ("REQUEST_URI", "")]), "nginx sends them so");
    assert_eq!(parse_vars(&[("PATH_INFO", "")]).unwrap().path, "");
}

#[test]
fn a_path_is_encoded_so_that_it_decodes_to_itself() {
    for path in ["/", "/a b", "/100%", "/%41", "/a?b#c", "/\u{0}\n\u{ff}", "relative", "/%2e%2e"] {
        let bytes: Vec<u8> = path.chars().map(|character| character as u8).collect();
        let pair = [&[9, 0][..], b"PATH_INFO", &(bytes.len() as u16).to_le_bytes(), &bytes].concat();
        let said = parse_as(&with_pairs(0, &pair), &Policy::default()).unwrap();
        assert!(said.path.bytes().all(is_path_byte), "{path:?}");
        assert_eq!(&decode_path(said.path.as_bytes())[..], &bytes[..], "{path:?}");
    }
    let said = parse_vars(&[("PATH_INFO", "/a b"), ("QUERY_STRING", "c=d")]).unwrap();
    assert_eq!((&*said.line, &*said.path), ("GET /a%20b?c=d HTTP/1.1", "/a%20b"));
}

#[test]
fn the_last_of_two_variables_counts() {
    let twice = [
        ("REQUEST_METHOD", "POST"),
        ("CONTENT_LENGTH", "5"),
        ("SERVER_NAME", "a"),
        ("REQUEST_METHOD", "GET"),
        ("CONTENT_LENGTH", ""),
        ("SERVER_NAME", "b"),
    ];
    let said = parse_vars(&twice).unwrap();
    assert_eq!((&*said.line, said.framing), ("GET / HTTP/1.1", Framing::None));
    let bytes = packet(&twice);
    let mut head = RequestHead::default();
    parse(&bytes, &Policy::default(), true, &mut head).unwrap();
    assert_eq!(head.var(head.source(&bytes), b"SERVER_NAME"), Some(&b"b"[..]));
}

#[test]
fn what_is_the_servers_own_and_what_means_another_connection_is_dropped() {
    let said = parse_vars(&[
        ("wsgi.input", "x"),
        ("wsgi.url_scheme", "https"),
        ("gunicorn.socket", "x"),
        ("HTTP_PROXY", "http://evil"),
        ("HTTP_TRANSFER_ENCODING", "chunked"),
        ("HTTP_TRANSFER-ENCODING", "chunked"),
        ("HTTP_Content_Length", "99"),
        ("HTTP_CONTENT_TYPE", "x"),
    ])
    .unwrap();
    assert!(said.headers.is_empty() && said.vars.is_empty(), "{said:?}");
    assert_eq!((said.framing, said.scheme), (Framing::None, Some(Scheme::Https)));
}

#[test]
fn the_scheme_is_the_one_that_is_meant() {
    use Scheme::{Http, Https};
    type Row<'a> = (&'a [(&'a str, &'a str)], Option<Scheme>);
    let rows: [Row<'_>; 10] = [
        (&[("HTTPS", "on")], Some(Https)),
        (&[("HTTPS", "TRUE")], Some(Https)),
        (&[("HTTPS", "1"), ("REQUEST_SCHEME", "http")], Some(Https)),
        (&[("HTTPS", "off")], None),
        (&[("HTTPS", ""), ("REQUEST_SCHEME", "https")], Some(Https)),
        (&[("REQUEST_SCHEME", "http")], Some(Http)),
        (&[("REQUEST_SCHEME", "http"), ("UWSGI_SCHEME", "HTTPS")], Some(Https)),
        (&[("UWSGI_SCHEME", "http"), ("REQUEST_SCHEME", "https")], Some(Http)),
        (&[("wsgi.url_scheme", "ftp")], Some(Http)),
        (&[("HTTP_X_FORWARDED_PROTO", "https")], None),
    ];
    for (vars, expected) in rows {
        assert_eq!(parse_vars(vars).unwrap().scheme, expected, "{vars:?}");
    }
}

#[test]
fn a_malformed_packet_is_refused_and_named() {
    let rows: [(&[u8], &str); 6] = [
        (b"\x01", "truncated key size"),
        (b"\x02\x00a", "truncated key"),
        (b"\x01\x00a", "truncated value size"),
        (b"\x01\x00a\x01", "truncated value size"),
        (b"\x01\x00a\xff\xffb", "truncated value"),
        (b"\x00\x00\x01\x00b", "empty key"),
    ];
    for (pairs, expected) in rows {
        let error = parse_as(&with_pairs(0, pairs), &Policy::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("Invalid uWSGI header: {expected}"));
        assert_eq!(error.status(), 400);
    }
    let most = |count: usize| b"\x01\x00a\x00\x00".repeat(count);
    assert!(parse_as(&with_pairs(0, &most(MOST_VARS)), &Policy::default()).is_ok());
    let error = parse_as(&with_pairs(0, &most(MOST_VARS + 1)), &Policy::default()).unwrap_err();
    assert_eq!(error.to_string(), "Invalid uWSGI header: too many variables");
}

#[test]
fn what_a_packet_says_is_checked() {
    let rows: [(&str, &str); 10] = [
        ("REQUEST_METHOD", "get x"),
        ("REQUEST_METHOD", "get"),
        ("REQUEST_METHOD", ""),
        ("CONTENT_LENGTH", "-1"),
        ("CONTENT_LENGTH", "5 "),
        ("CONTENT_LENGTH", "9223372036854775808"),
        ("CONTENT_TYPE", "a\nb"),
        ("HTTP_X_A", "a\r\nb"),
        ("HTTP_", "a"),
        ("HTTP_X A", "a"),
    ];
    for (name, value) in rows {
        let error = parse_vars(&[(name, value)]).unwrap_err();
        assert_eq!(error.status(), 400, "{name}={value:?}: {error}");
    }
    let policy = Policy { casefold_http_method: true, permit_unconventional_http_method: true, ..Policy::default() };
    assert_eq!(parse_as(&packet(&[("REQUEST_METHOD", "get")]), &policy).unwrap().line, "GET / HTTP/1.1");
}

#[test]
fn whoever_may_not_speak_it_is_refused_at_the_fourth_byte_whatever_it_says() {
    let mut head = RequestHead::default();
    for bytes in [&b"\0\0\0\0"[..], b"GET / HTTP/1.1\r\n", b"\x05\0\0\0"] {
        for end in 0..=bytes.len() {
            let verdict = parse(&bytes[..end], &Policy::default(), false, &mut head);
            assert_eq!(verdict, if end < 4 { Ok(Status::Partial) } else { Err(Error::ForbiddenUwsgiRequest) });
        }
    }
}

#[test]
fn what_is_no_request_is_named() {
    let rows: [(&[u8], Error, u16); 7] = [
        (b"GET / HTTP/1.1", Error::HttpOnUwsgi, 400),
        (b"PUT /", Error::HttpOnUwsgi, 400),
        (b"OPTIONS *", Error::HttpOnUwsgi, 400),
        (b"\x16\x03\x01\x02\x00", Error::TlsOnPlainUwsgi, 400),
        (b"\x16\0\0\0", Error::UnsupportedUwsgiModifier(22), 501),
        (b"G\0\0\0", Error::UnsupportedUwsgiModifier(71), 501),
        (b"d\0\0\0", Error::UnsupportedUwsgiModifier(100), 501),
    ];
    let mut head = RequestHead::default();
    for (bytes, expected, status) in rows {
        for end in 4..=bytes.len() {
            assert_eq!(parse(&bytes[..end], &Policy::default(), true, &mut head), Err(expected.clone()));
        }
        assert_eq!(parse(&bytes[..3], &Policy::default(), true, &mut head), Ok(Status::Partial));
        assert_eq!(expected.status(), status);
    }
}
