//! The other workers: whether one of them is freer, and the way a connection goes from one to
//! another.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Connection, HandoffBytes, HandoffState, Step};
use super::connection_limits::ConnectionLimits;
use crate::http::connection::ClientProtocol;
use crate::http::proxy::Origin;
use crate::scoreboard::Row;
use crate::sys::clock::monotonic_ns;
use crate::sys::fd_channel::{FdChannel, MOST_BYTES};
use crate::sys::socket::{Listener, Peer, Stream};

/// A worker's view of its siblings.
pub struct Siblings {
    row: Row,
    /// How many rows to look at: all that workers of this server usually have.
    rows: usize,
    channel: Arc<FdChannel>,
    /// What the listeners are bound to, indexed by site.
    listeners: Vec<String>,
}

/// A connection on its way: a line of text, then the bytes that its client has sent.
struct HandoffHeader<'a> {
    /// What the listener that accepted the connection is bound to.
    listener: &'a str,
    /// The client, as the socket or a PROXY header says.
    peer: Peer,
    state: HandoffState,
    /// Whether the first request's body goes along as a file.
    has_body: bool,
    bytes: &'a [u8],
}

impl Siblings {
    /// The siblings of the worker with this `row`, among `rows` rows.
    pub fn new(row: Row, rows: usize, channel: Arc<FdChannel>, listeners: &[Arc<Listener>]) -> Self {
        let listeners = listeners.iter().map(ToString::to_string).collect();
        Siblings { row, rows, channel, listeners }
    }

    /// The descriptor that is readable when a connection may have been passed on.
    pub fn handoff_channel(&self) -> RawFd {
        self.channel.as_raw_fd()
    }

    /// The worker's own row, where it counts.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// Writes how many connections the worker holds.
    pub fn set_connections(&self, count: usize) {
        self.row.set_connections(count as u64);
    }

    /// Whether the server is to stop: this worker and all its siblings.
    pub fn server_stops(&self) -> bool {
        self.row.server_stops()
    }

    /// Whether a sibling has a thread that waits for work.
    pub fn has_idle(&self) -> bool {
        self.row.connections_of_idle_siblings(self.rows).next().is_some()
    }

    /// Whether a sibling serves that is not about to end.
    pub fn has_serving(&self) -> bool {
        self.row.has_serving_sibling(self.rows)
    }

    /// Whether an idle sibling holds fewer connections than `connections`.
    pub fn has_less_loaded(&self, connections: usize) -> bool {
        self.row.connections_of_idle_siblings(self.rows).any(|theirs| theirs < connections as u64)
    }

    /// Whether a sibling serves at socket `number` of a port with `of` sockets.
    pub fn has_one_on_socket(&self, number: usize, of: usize) -> bool {
        self.row.has_sibling_on_listener(self.rows, |listener| listener % of == number)
    }

    /// Passes a connection, whose request is ready, to whichever sibling takes it first. The caller
    /// then closes the copy that stays here. False where the connection stays: it cannot travel (a
    /// part of its body is still to come, a response is under way), or the channel is full.
    pub fn hand_off(&self, connection: &mut Connection) -> bool {
        let Some(listener) = self.listeners.get(connection.site()) else { return false };
        let Some(handoff) = connection.prepare_handoff(MOST_BYTES / 2) else { return false };
        let (peer, state, has_body) =
            (*connection.peer(), connection.handoff_state(Instant::now()), handoff.body.is_some());
        let header = HandoffHeader { listener, peer, state, has_body, bytes: &handoff.bytes };
        let body = handoff.body.as_ref().map(AsRawFd::as_raw_fd);
        self.channel.send(connection.descriptor(), body, &header.encode()).is_ok()
    }

    /// Takes a connection that was passed on, and its next step; `None` when there is none.
    ///
    /// # Errors
    /// No descriptor is left: the connection waits in the channel, for this worker or a sibling.
    /// WouldBlock while a sibling takes one.
    pub fn take(&self, limits: &Arc<ConnectionLimits>, now: Instant) -> io::Result<Option<(Connection, Step)>> {
        loop {
            let Some(message) = self.channel.receive()? else { return Ok(None) };
            let Some(header) = HandoffHeader::decode(&message.bytes) else { continue };
            if header.has_body != message.file.is_some() {
                log::error!("The body of a passed request was lost on its way: no file descriptors are left");
                continue;
            }
            // After a reload an old worker's listener may be one that we do not have; the first of
            // ours stands in.
            let site = self.listeners.iter().position(|listener| listener == header.listener).unwrap_or(0);
            let stream = Stream::from(message.connection);
            let mut connection = Connection::new(stream, header.peer, site, limits.clone(), now);
            let handoff = HandoffBytes { bytes: header.bytes.to_vec(), body: message.file.map(File::from) };
            let step = connection.resume_handoff(header.state, handoff, now);
            return Ok(Some((connection, step)));
        }
    }
}

impl HandoffHeader<'_> {
    fn encode(&self) -> Vec<u8> {
        let HandoffState { is_trusted, proxied, via, protocol, waited } = self.state;
        let (peer, via) = (peer_word(self.peer), via.map_or_else(|| "-".to_owned(), peer_word));
        let proxied = match proxied {
            None => "-".to_owned(),
            // The client that the header names is the peer.
            Some(Origin::Client { proxy, .. }) => proxy.to_string(),
            Some(origin) => origin.protocol().to_owned(),
        };
        let protocol = protocol_word(protocol);
        let (is_trusted, has_body) = (u8::from(is_trusted), u8::from(self.has_body));
        // As a moment, so that the time in the channel counts.
        let ready = monotonic_ns().saturating_sub(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
        let line = format!("{is_trusted} {has_body} {ready} {protocol} {peer} {proxied} {via} {}\n", self.listener);
        let mut message = line.into_bytes();
        message.extend_from_slice(self.bytes);
        message
    }

    fn decode(message: &[u8]) -> Option<HandoffHeader<'_>> {
        let line_end = memchr::memchr(b'\n', message)?;
        // The address comes last: the path of a unix socket may hold spaces.
        let mut words = std::str::from_utf8(&message[..line_end]).ok()?.splitn(8, ' ');
        let (is_trusted, has_body) = (words.next()? == "1", words.next()? == "1");
        let waited = Duration::from_nanos(monotonic_ns().saturating_sub(words.next()?.parse().ok()?));
        let protocol = words.next()?;
        let protocol = [ClientProtocol::Http, ClientProtocol::Uwsgi]
            .into_iter()
            .find(|known| protocol_word(*known) == protocol)?;
        let (peer, proxied, via, listener) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let peer = peer_of(peer)?;
        let via = if via == "-" { None } else { Some(peer_of(via)?) };
        let proxied = match (proxied, peer) {
            ("-", _) => None,
            (proxy, Peer::Ip(client)) if proxy.contains(':') => {
                Some(Origin::Client { client, proxy: proxy.parse().ok()? })
            }
            (word, _) => Some(
                [Origin::Local, Origin::Unknown, Origin::Unspecified]
                    .into_iter()
                    .find(|origin| origin.protocol() == word)?,
            ),
        };
        let bytes = &message[line_end + 1..];
        let state = HandoffState { is_trusted, proxied, via, protocol, waited };
        Some(HandoffHeader { listener, peer, state, has_body, bytes })
    }
}

fn peer_word(peer: Peer) -> String {
    match peer {
        Peer::Ip(address) => address.to_string(),
        Peer::Unix => "unix".to_owned(),
    }
}

fn peer_of(word: &str) -> Option<Peer> {
    match word {
        "unix" => Some(Peer::Unix),
        address => address.parse::<SocketAddr>().ok().map(Peer::Ip),
    }
}

fn protocol_word(protocol: ClientProtocol) -> &'static str {
    match protocol {
        ClientProtocol::Http => "http",
        ClientProtocol::Uwsgi => "uwsgi",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handoff_decodes_to_what_was_encoded() {
        let [client, proxy] = ["[::1]:443", "[::2]:80"].map(|address| address.parse().unwrap());
        for (peer, proxied) in [
            (Peer::Unix, None),
            (Peer::Unix, Some(Origin::Local)),
            (Peer::Ip("127.0.0.1:80".parse().unwrap()), Some(Origin::Unspecified)),
            (Peer::Ip(client), Some(Origin::Unknown)),
            (Peer::Ip(client), Some(Origin::Client { client, proxy })),
        ] {
            let (listener, has_body) = ("unix:/a b", proxied.is_some());
            let protocol = if has_body { ClientProtocol::Http } else { ClientProtocol::Uwsgi };
            let bytes = b"GET / HTTP/1.1\r\n\n";
            let via = proxied.map(|_| Peer::Unix);
            let waited = Duration::from_secs(5);
            let state = HandoffState { is_trusted: true, proxied, via, protocol, waited };
            let header = HandoffHeader { listener, peer, state, has_body, bytes };
            let message = header.encode();
            let found = HandoffHeader::decode(&message).unwrap();
            assert_eq!(
                (found.listener, found.peer, found.has_body, found.bytes),
                (listener, peer, has_body, header.bytes)
            );
            // The time on the way is added.
            assert!(found.state.waited >= waited && found.state.waited < waited * 2);
            assert_eq!(HandoffState { waited, ..found.state }, state);
        }
        assert!(HandoffHeader::decode(b"no line").is_none());
    }
}
