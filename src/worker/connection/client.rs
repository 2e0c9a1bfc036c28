//! Who is at the other end of a connection.

use crate::http::error::Error;
use crate::http::proxy::Origin;
use crate::sys::socket::Peer;
use crate::worker::connection_limits::ConnectionLimits;

/// What holds for a connection from its beginning to its end, or from its PROXY header on.
#[derive(Clone)]
pub struct Client {
    /// The socket's peer, or whom a PROXY header named in its place.
    pub peer: Peer,
    /// Its address as text, empty on a unix socket.
    pub remote_addr: String,
    /// The number of the listener among the worker's.
    pub site: usize,
    /// Whether it may set the scheme and headers with underscores.
    pub is_trusted: bool,
    /// What a PROXY header said, if there was one.
    pub proxied: Option<Origin>,
}

impl Client {
    pub(super) fn new(peer: Peer, site: usize, limits: &ConnectionLimits) -> Self {
        Client { is_trusted: limits.trusts(&peer), remote_addr: address_text(&peer), peer, site, proxied: None }
    }

    /// Believes a PROXY header.
    ///
    /// # Errors
    /// The peer may not speak for others.
    pub(super) fn take_proxy_header(&mut self, origin: Origin, limits: &ConnectionLimits) -> Result<(), Error> {
        if !limits.takes_proxy_headers_from(&self.peer) {
            return Err(Error::ForbiddenProxyRequest(self.remote_addr.clone()));
        }
        self.is_trusted = limits.trusts_origin(&origin, &self.peer);
        self.proxied = Some(origin);
        if let Origin::Client { client, .. } = origin {
            self.peer = Peer::Ip(client);
            self.remote_addr = address_text(&self.peer);
        }
        Ok(())
    }
}

fn address_text(peer: &Peer) -> String {
    match peer {
        Peer::Ip(address) => address.ip().to_string(),
        Peer::Unix => String::new(),
    }
}
