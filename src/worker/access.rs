//! A served request as the access log reads it.

use std::time::Duration;

use super::connection::address_text;
use crate::exchange::RequestView;
use crate::http::request::{Scheme, Span};
use crate::http::request_id::is_same_key;
use crate::http::response::header_lines;
use crate::logging::{AccessRecord, RequestIds};
use crate::python::request_context::ids_of;
use crate::python::response_writer::ResponseSummary;

/// One request and its response, while the connection still holds its head.
pub struct ServedRequest<'a> {
    /// The request.
    pub request: RequestView<'a>,
    /// The response.
    pub summary: &'a ResponseSummary,
    /// Values of the format's environ keys.
    pub environ_values: &'a [Option<String>],
    /// Names of response headers that the format asks for.
    pub response_headers: &'a [String],
    /// How long the request took.
    pub duration: Duration,
    /// How long the request waited before that, if the application was called.
    pub queue: Option<Duration>,
}

impl<'a> ServedRequest<'a> {
    fn text(&self, span: Span) -> &'a [u8] {
        span.of(self.request.buffer)
    }
}

impl AccessRecord for ServedRequest<'_> {
    fn remote_addr(&self) -> &[u8] {
        self.request.client.remote_addr.as_bytes()
    }

    fn method(&self) -> &[u8] {
        self.text(self.request.head.method)
    }

    fn raw_uri(&self) -> &[u8] {
        self.text(self.request.head.target)
    }

    fn protocol(&self) -> &[u8] {
        self.text(self.request.head.version_text)
    }

    fn path(&self) -> &[u8] {
        self.text(self.request.head.path)
    }

    fn query(&self) -> &[u8] {
        self.text(self.request.head.query)
    }

    fn status(&self) -> u16 {
        self.summary.status
    }

    fn bytes_sent(&self) -> u64 {
        self.summary.sent
    }

    fn duration(&self) -> Duration {
        self.duration
    }

    fn scheme(&self) -> Option<&str> {
        Some(match self.request.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }

    fn bytes_received(&self) -> Option<u64> {
        Some(self.request.received)
    }

    fn queue(&self) -> Option<Duration> {
        self.queue
    }

    fn connection(&self) -> Option<u64> {
        Some(self.request.client.connection)
    }

    fn peer(&self) -> Option<String> {
        self.request.client.via.map(address_text).filter(|peer| peer != self.request.client.remote_addr)
    }

    fn ids(&self) -> RequestIds {
        ids_of(&self.request)
    }

    fn request_header(&self, name: &str) -> Option<&[u8]> {
        if let Some(id) = self.request.id
            && is_same_key(id.header.as_bytes(), name.as_bytes())
        {
            return Some(id.value);
        }
        let mut headers = self.request.head.headers(self.request.buffer).rev();
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    fn response_header(&self, index: usize) -> Option<&[u8]> {
        let name = self.response_headers.get(index)?.as_bytes();
        let mut lines = header_lines(&self.summary.headers).rev();
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn environ_value(&self, index: usize) -> Option<&str> {
        self.environ_values.get(index)?.as_deref()
    }
}
