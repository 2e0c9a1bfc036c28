//! Who is at the other end of a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::exchange::ClientView;
use crate::http::error::Error;
use crate::http::proxy::Origin;
use crate::http::request::RequestHead;
use crate::sys::socket::Peer;
use crate::worker::connection_limits::ConnectionLimits;

/// How many connections this process has had.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// What holds for a connection from its beginning to its end, or from its PROXY header on.
#[derive(Clone)]
pub struct Client {
    /// The socket's peer, or whom a PROXY header or a uwsgi packet named in its place.
    pub peer: Peer,
    /// Its address as text, empty on a unix socket; under uwsgi whatever the packet said.
    pub remote_addr: String,
    /// The number of the listener among the worker's.
    pub site: usize,
    /// Whether it may set the scheme and headers with underscores; under uwsgi, send requests at
    /// all.
    pub is_trusted: bool,
    /// What a PROXY header said, if there was one.
    pub proxied: Option<Origin>,
    /// The socket's peer, if that named another.
    pub via: Option<Peer>,
    /// The connection's number, among those of this process; from 1 on.
    pub connection: u64,
}

impl Client {
    pub(super) fn new(peer: Peer, site: usize, limits: &ConnectionLimits) -> Self {
        let connection = CONNECTIONS.fetch_add(1, Relaxed) + 1;
        let (is_trusted, remote_addr) = (limits.trusts(&peer), address_text(&peer));
        Client { is_trusted, remote_addr, peer, site, proxied: None, via: None, connection }
    }

    /// As those see it who look at a request.
    pub fn view(&self) -> ClientView<'_> {
        let Client { peer, remote_addr, site, via, connection, .. } = self;
        let (proxied, via) = (self.proxied.as_ref(), via.as_ref());
        ClientView { peer, remote_addr, proxied, via, site: *site, connection: *connection }
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
            self.via = Some(std::mem::replace(&mut self.peer, Peer::Ip(client)));
            self.remote_addr = address_text(&self.peer);
        }
        Ok(())
    }

    /// Believes the packet of uwsgi that `head` was made of, as far as it names the client: by an
    /// address, or by another word where the client of the proxy has none.
    pub(super) fn take_packet(&mut self, head: &RequestHead) {
        // Nothing of such a head stands in the connection's own buffer.
        let source = head.source(b"");
        let var = |name: &[u8]| head.var(source, name).map(String::from_utf8_lossy);
        let Some(address) = var(b"REMOTE_ADDR") else { return };
        let port = var(b"REMOTE_PORT").and_then(|port| port.parse().ok()).unwrap_or(0);
        self.peer = address.parse::<IpAddr>().map_or(Peer::Unix, |ip| Peer::Ip(SocketAddr::new(ip, port)));
        self.remote_addr = address.into_owned();
    }
}

/// The address of a peer as text, empty for that of a unix socket.
pub fn address_text(peer: &Peer) -> String {
    match peer {
        Peer::Ip(address) => address.ip().to_string(),
        Peer::Unix => String::new(),
    }
}
