//! Requests that end without the application, for the access log.

use super::Connection;
use super::client::Client;
use crate::exchange::RequestView;
use crate::http::request::{RequestHead, Scheme, Span};
use crate::sys::socket::Peer;

/// A request that ends without the application, as far as it is known, for the access log.
pub struct UnservedRequest {
    buffer: Vec<u8>,
    head: RequestHead,
    peer: Peer,
    remote_addr: String,
    site: usize,
    /// The status of the answer, or [`crate::exchange::CLIENT_CLOSED_REQUEST`].
    pub status: u16,
}

impl UnservedRequest {
    /// What is known of it; what is not is empty.
    pub fn request(&self) -> RequestView<'_> {
        RequestView {
            buffer: self.head.source(&self.buffer),
            head: &self.head,
            peer: &self.peer,
            remote_addr: &self.remote_addr,
            proxied: None,
            decoded_length: None,
            site: self.site,
            scheme: Scheme::Http,
            secured: None,
        }
    }
}

impl Connection {
    /// The request that will not be served, taken out for the access log. Where its head is not
    /// whole, the request line if that can be read.
    pub fn take_unserved(&mut self, status: u16) -> UnservedRequest {
        let is_ready = !self.request.bytes().is_empty();
        let mut buffer = if is_ready { self.request.take_bytes() } else { std::mem::take(&mut self.input) };
        let mut head = std::mem::take(&mut self.request.head);
        if !self.http.has_whole_head() {
            head = RequestHead::default();
            let start = if buffer.starts_with(b"\r\n") { 2 } else { 0 };
            let end = memchr::memchr2(b'\r', b'\n', &buffer[start..]).map_or(start, |length| start + length);
            buffer = buffer[start..end].to_vec();
            (head.method, head.target, head.version_text) = three_words(&buffer).unwrap_or_default();
        }
        let Client { peer, site, .. } = *self.client;
        UnservedRequest { buffer, head, peer, remote_addr: self.client.remote_addr.clone(), site, status }
    }
}

/// The words of a line that could be a request line.
fn three_words(line: &[u8]) -> Option<(Span, Span, Span)> {
    let first = memchr::memchr(b' ', line)? as u32;
    let last = memchr::memrchr(b' ', line)? as u32;
    let is_three = !line[first as usize + 1..].is_empty() && memchr::memchr_iter(b' ', line).count() == 2;
    let end = line.len() as u32;
    is_three.then_some((
        Span { start: 0, end: first },
        Span { start: first + 1, end: last },
        Span { start: last + 1, end },
    ))
}
