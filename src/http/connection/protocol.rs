//! The protocol of a connection, and the reader of its heads. Both are settled when the connection
//! begins.

use super::super::error::Error;
use super::super::header_cache::HeaderCache;
use super::super::policy::Policy;
use super::super::request::{CacheHint, HeadParser, RequestHead, Status};
use super::super::uwsgi;
use super::reading::end_of_head;

/// What clients speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientProtocol {
    /// HTTP/1.
    #[default]
    Http,
    /// uwsgi, for one request.
    Uwsgi,
}

/// Reads a head that comes in pieces.
#[derive(Clone, Copy, Debug)]
pub enum HeadReader {
    /// A head of HTTP.
    Http(HeadParser),
    /// A packet of uwsgi. It has its length in front, so the reader has nothing to remember.
    Uwsgi,
}

impl HeadReader {
    /// A reader for a head of which nothing has come. The `hint` is that of the connection's last
    /// head.
    pub(super) fn new(protocol: ClientProtocol, hint: CacheHint) -> Self {
        match protocol {
            ClientProtocol::Http => HeadReader::Http(HeadParser::with_hint(hint)),
            ClientProtocol::Uwsgi => HeadReader::Uwsgi,
        }
    }

    /// As [`HeadParser::parse`], and [`uwsgi::parse`].
    pub(super) fn parse(
        &mut self,
        input: &[u8],
        policy: &Policy,
        peer_is_trusted: bool,
        known: Option<&mut HeaderCache>,
        head: &mut RequestHead,
    ) -> Result<Status, Error> {
        match self {
            HeadReader::Http(parser) => parser
                .parse(input, policy, peer_is_trusted, known, head)
                .map_err(|error| if is_tls_handshake(input) { Error::TlsOnPlainHttp } else { error }),
            HeadReader::Uwsgi => uwsgi::parse(input, policy, peer_is_trusted, head),
        }
    }

    /// The hint for the next head on this connection.
    pub(super) fn hint(&self) -> CacheHint {
        match self {
            HeadReader::Http(parser) => parser.hint(),
            HeadReader::Uwsgi => CacheHint::default(),
        }
    }

    /// How many of `bytes` belong to the head that begins in `input`. In HTTP this is an estimate.
    pub(super) fn split(&self, input: &[u8], bytes: &[u8]) -> usize {
        match self {
            HeadReader::Http(_) => end_of_head(bytes),
            HeadReader::Uwsgi => uwsgi::rest_of_packet(input, bytes),
        }
    }
}

/// Whether these bytes begin a TLS connection: a record with a handshake in it, of version 3.x (RFC
/// 8446, section 5.1).
fn is_tls_handshake(input: &[u8]) -> bool {
    matches!(input, [22] | [22, 3, ..])
}
