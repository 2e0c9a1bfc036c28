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

/// The client of a connection. A PROXY header or a uwsgi packet may name another than the socket
/// does.
#[derive(Clone)]
pub struct Client {
    /// The socket's peer, or the one that a PROXY header or a uwsgi packet named in its place.
    pub peer: Peer,
    /// The peer's address as text, empty on a unix socket; under uwsgi whatever the packet said.
    pub remote_addr: String,
    /// The number of the listener among the worker's.
    pub site: usize,
    /// Whether the client may set the scheme and headers with underscores; under uwsgi, whether it
    /// may send requests at all.
    pub is_trusted: bool,
    /// What a PROXY header said, if there was one.
    pub proxied: Option<Origin>,
    /// The socket's peer, if a PROXY header named another.
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

    /// The client as the view of a request shows it.
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

    /// Believes the uwsgi packet that `head` was made of, if it names the client: by an address, or
    /// by another word where the proxy's client has no address.
    pub(super) fn take_packet(&mut self, head: &RequestHead) {
        // The spans of such a head point into its own bytes, not into the connection's buffer.
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
