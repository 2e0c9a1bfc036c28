//! A head made of a packet's variables: what each of them means, and what they mean together.
//!
//! The module knows nothing of the bytes around the variables.

use crate::http::error::{Error, quote};
use crate::http::fields::parse_length;
use crate::http::grammar::{is_field_value, is_path_byte, is_token, trim_ows};
use crate::http::policy::Policy;
use crate::http::request::{Framing, HeaderSpan, RequestHead, Scheme, Span, Version};
use crate::http::request_line::check_method;

/// How the name of a variable that holds a header begins (RFC 3875, 4.1.18).
const HEADER_PREFIX: &[u8] = b"HTTP_";

/// Headers that are dropped: they concern the client's connection with the proxy, not this one, or
/// repeat another variable. `Proxy` is no header at all: as `HTTP_PROXY` it would name a proxy to
/// programs that the application starts (CVE-2016-5385).
const DROPPED_HEADERS: [&[u8]; 4] = [b"PROXY", b"TRANSFER-ENCODING", b"CONTENT-LENGTH", b"CONTENT-TYPE"];

/// A head in the making.
pub(super) struct Draft<'a> {
    head: &'a mut RequestHead,
    /// The packet, with names of headers as HTTP has them. Behind it stands text that it lacks,
    /// such as defaults.
    text: Vec<u8>,
    named: Named,
}

/// Where the values that the head is made of stand. Of two variables with one name the last counts:
/// so an operator's own variable overrides the one in the file that nginx comes with.
#[derive(Default)]
struct Named {
    method: Option<Span>,
    uri: Option<Span>,
    path: Option<Span>,
    query: Option<Span>,
    protocol: Option<Span>,
    content_type: Option<Span>,
    content_length: Option<Span>,
    https: Option<Span>,
    uwsgi_scheme: Option<Span>,
    wsgi_scheme: Option<Span>,
    request_scheme: Option<Span>,
}

impl Named {
    /// The place of the variable with this name, if it has one.
    fn place(&mut self, name: &[u8]) -> Option<&mut Option<Span>> {
        Some(match name {
            b"REQUEST_METHOD" => &mut self.method,
            b"REQUEST_URI" => &mut self.uri,
            b"PATH_INFO" => &mut self.path,
            b"QUERY_STRING" => &mut self.query,
            b"SERVER_PROTOCOL" => &mut self.protocol,
            b"CONTENT_TYPE" => &mut self.content_type,
            b"CONTENT_LENGTH" => &mut self.content_length,
            b"HTTPS" => &mut self.https,
            b"UWSGI_SCHEME" => &mut self.uwsgi_scheme,
            b"wsgi.url_scheme" => &mut self.wsgi_scheme,
            b"REQUEST_SCHEME" => &mut self.request_scheme,
            _ => return None,
        })
    }
}

impl<'a> Draft<'a> {
    /// A draft for this packet, of which nothing has been read.
    pub(super) fn new(packet: &[u8], head: &'a mut RequestHead) -> Self {
        let mut text = std::mem::take(&mut head.rewritten);
        text.clear();
        text.extend_from_slice(packet);
        head.headers.clear();
        head.vars.clear();
        Draft { head, text, named: Named::default() }
    }

    /// Takes the packet's next variable.
    pub(super) fn note(&mut self, packet: &[u8], name: Span, value: Span) -> Result<(), Error> {
        let key = name.of(packet);
        if key.is_empty() {
            return Err(Error::InvalidUwsgiPacket("empty key"));
        }
        if key.starts_with(HEADER_PREFIX) {
            return self.note_header(name.skip(HEADER_PREFIX.len()), value);
        }
        if let Some(place) = self.named.place(key) {
            *place = Some(value);
        }
        if !is_told_by_the_head(key) && !is_servers_own(key) {
            self.head.vars.push(HeaderSpan { name, value });
        }
        Ok(())
    }

    fn note_header(&mut self, name: Span, value: Span) -> Result<(), Error> {
        let text = &mut self.text[name.start as usize..name.end as usize];
        text.iter_mut().filter(|byte| **byte == b'_').for_each(|byte| *byte = b'-');
        if !is_token(text) {
            return Err(Error::InvalidHeaderName(quote(text)));
        }
        if DROPPED_HEADERS.iter().any(|dropped| text.eq_ignore_ascii_case(dropped)) {
            return Ok(());
        }
        self.keep_header(name, value)
    }

    /// Keeps a header. An application may pass its value on, so the value must not end a line.
    fn keep_header(&mut self, name: Span, value: Span) -> Result<(), Error> {
        if !is_field_value(value.of(&self.text)) {
            return Err(Error::InvalidHeader(quote(name.of(&self.text))));
        }
        let trimmed = trim_ows(value.of(&self.text));
        let value = if trimmed.is_empty() { Span::default() } else { Span::within(&self.text, trimmed) };
        self.head.headers.push(HeaderSpan { name, value });
        Ok(())
    }

    /// All variables are read: fills in what they say together.
    pub(super) fn complete(mut self, policy: &Policy) -> Result<(), Error> {
        self.head.len = self.text.len();
        self.head.forwarded_scheme = self.scheme();
        self.head.method = self.method(policy)?;
        self.head.path = self.path();
        self.head.query = self.query()?;
        self.head.target = self.target();
        self.head.version_text = self.named.protocol.filter(is_said).unwrap_or_else(|| self.append(b"HTTP/1.1"));
        self.head.framing = self.framing()?;
        self.head.version = Version::Uwsgi;
        self.head.authority = Span::default();
        self.head.fields_start = 0;
        self.head.block = None;
        // One request a connection, as uWSGI has it; nginx would not send another.
        (self.head.keep_alive, self.head.expect_continue) = (false, false);
        self.head.rewritten = self.text;
        Ok(())
    }

    /// A response may repeat it in a header, so it must not end a line.
    fn query(&self) -> Result<Span, Error> {
        let query = self.named.query.unwrap_or_default();
        if !is_field_value(query.of(&self.text)) {
            return Err(Error::InvalidHeader(quote(b"QUERY_STRING")));
        }
        Ok(query)
    }

    fn method(&mut self, policy: &Policy) -> Result<Span, Error> {
        let method = self.named.method.unwrap_or_else(|| self.append(b"GET"));
        check_method(method.of(&self.text), policy)?;
        if policy.casefold_http_method {
            self.text[method.start as usize..method.end as usize].make_ascii_uppercase();
        }
        Ok(method)
    }

    /// The proxy has decoded the path. It is encoded again where that makes a difference, since a
    /// head has it as it stands in HTTP.
    fn path(&mut self) -> Span {
        let Some(path) = self.named.path else { return self.append(b"/") };
        let is_plain = |byte: &u8| is_path_byte(*byte) && *byte != b'%';
        if path.of(&self.text).iter().all(is_plain) {
            return path;
        }
        let mut encoded = Vec::with_capacity(3 * path.len());
        for byte in path.of(&self.text) {
            if is_plain(byte) {
                encoded.push(*byte);
            } else {
                encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
        }
        self.append(&encoded)
    }

    /// The target as the client has sent it, or else path and query put together.
    fn target(&mut self) -> Span {
        if let Some(uri) = self.named.uri.filter(is_said) {
            return uri;
        }
        let (path, query) = (self.head.path, self.head.query);
        if query.is_empty() {
            return path;
        }
        let target = [path.of(&self.text), b"?", query.of(&self.text)].concat();
        self.append(&target)
    }

    /// The body is as long as `CONTENT_LENGTH` says: the proxy has undone whatever coding it came
    /// in.
    fn framing(&mut self) -> Result<Framing, Error> {
        if let Some(value) = self.named.content_type.filter(is_said) {
            let name = self.append(b"CONTENT-TYPE");
            self.keep_header(name, value)?;
        }
        let Some(value) = self.named.content_length.filter(is_said) else { return Ok(Framing::None) };
        let name = self.append(b"CONTENT-LENGTH");
        let refuse = || Error::InvalidHeader(b"CONTENT-LENGTH".to_vec());
        let length = parse_length(value.of(&self.text)).ok_or_else(refuse)?;
        self.keep_header(name, value)?;
        Ok(Framing::Length(length))
    }

    /// What the variables say of the client's scheme. Where several do, `HTTPS` comes first, and
    /// `REQUEST_SCHEME` last: nginx's file always sends it, while the others are sent only on
    /// purpose.
    fn scheme(&self) -> Option<Scheme> {
        let is_one_of = |value: Option<Span>, words: &[&[u8]]| {
            value.is_some_and(|value| words.iter().any(|word| value.of(&self.text).eq_ignore_ascii_case(word)))
        };
        let Named { https, uwsgi_scheme, wsgi_scheme, request_scheme, .. } = self.named;
        if is_one_of(https, &[b"on", b"1", b"true"]) {
            return Some(Scheme::Https);
        }
        let said = [uwsgi_scheme, wsgi_scheme, request_scheme].into_iter().flatten().find(is_said)?;
        Some(if is_one_of(Some(said), &[b"https"]) { Scheme::Https } else { Scheme::Http })
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        Span::new(start, self.text.len())
    }
}

/// Whether the value says something. nginx sends a variable without a value as an empty one.
fn is_said(value: &Span) -> bool {
    !value.is_empty()
}

/// Whether a head has this variable's value in a place of its own, from where the environ gets it.
fn is_told_by_the_head(key: &[u8]) -> bool {
    let known: [&[u8]; 6] =
        [b"REQUEST_METHOD", b"PATH_INFO", b"QUERY_STRING", b"SERVER_PROTOCOL", b"CONTENT_TYPE", b"CONTENT_LENGTH"];
    known.contains(&key)
}

/// Whether only the server may set such a key of the environ (PEP 3333): an application takes the
/// value for an object of the server's.
fn is_servers_own(key: &[u8]) -> bool {
    key.starts_with(b"wsgi.") || key.starts_with(b"gunicorn.")
}
