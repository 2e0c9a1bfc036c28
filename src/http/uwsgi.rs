//! The uwsgi protocol, as nginx's `uwsgi_pass` speaks it: a packet of variables in the place of a
//! request's head (<https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html>).
//!
//! A proxy has read a request in HTTP, and tells of it in CGI's words (RFC 3875). The packet is
//! turned into a [`RequestHead`], so that code that reads a head need not know this protocol. The
//! response is HTTP. This module must not know which peers may send a packet: the caller tells.
//!
//! | bytes | mean |
//! |---|---|
//! | 1 | modifier1, the kind of the packet: 0 is a request |
//! | 2 | the length of what follows the fourth byte, least significant byte first |
//! | 1 | modifier2, which has no meaning for a request |
//! | the rest | pairs of a name and a value, each with its length in two bytes before it |

mod draft;

#[cfg(test)]
mod tests;

use self::draft::Draft;
use super::error::Error;
use super::policy::Policy;
use super::request::{RequestHead, Span, Status};

/// Most variables of a packet: gunicorn's number. nginx sends about twenty and the request's
/// headers.
const MOST_VARS: usize = 1000;

/// What stands before the variables.
const PREFIX_BYTES: usize = 4;

/// Reads the packet at the start of `buf`, and fills `head` from it once it is whole.
///
/// `peer_is_trusted` says whether the peer may speak uwsgi: such a peer is believed in all it says,
/// the client's address included. The verdict depends on the bytes alone, never on how they were
/// cut into segments.
///
/// # Errors
/// The peer may not speak uwsgi, or the packet is no request, or is malformed. The bytes that
/// follow have no meaning then.
pub fn parse(buf: &[u8], policy: &Policy, peer_is_trusted: bool, head: &mut RequestHead) -> Result<Status, Error> {
    let Some(prefix) = buf.first_chunk() else { return Ok(Status::Partial) };
    if !peer_is_trusted {
        return Err(Error::ForbiddenUwsgiRequest);
    }
    check_kind(prefix)?;
    let Some(packet) = buf.get(..packet_length(prefix)) else { return Ok(Status::Partial) };
    let mut draft = Draft::new(packet, head);
    let mut reader = Reader { packet, at: PREFIX_BYTES, count: 0 };
    while let Some((name, value)) = reader.next_variable()? {
        draft.note(packet, name, value)?;
    }
    draft.complete(policy)?;
    Ok(Status::Complete)
}

/// How many of `bytes` belong to the packet that `start` begins; all of them while its length is
/// not known.
pub fn rest_of_packet(start: &[u8], bytes: &[u8]) -> usize {
    let mut prefix = [0; PREFIX_BYTES];
    let known = prefix.iter_mut().zip(start.iter().chain(bytes)).map(|(place, &byte)| *place = byte).count();
    if known < PREFIX_BYTES {
        return bytes.len();
    }
    packet_length(&prefix).saturating_sub(start.len()).min(bytes.len())
}

/// Whether these bytes begin a request in HTTP: with a method in capital letters, or a part of one.
pub fn is_http(start: &[u8]) -> bool {
    start.first().is_some_and(u8::is_ascii_uppercase)
        && start.iter().take(PREFIX_BYTES).all(|&byte| byte.is_ascii_uppercase() || byte == b' ')
}

fn packet_length(prefix: &[u8; PREFIX_BYTES]) -> usize {
    PREFIX_BYTES + usize::from(u16::from_le_bytes([prefix[1], prefix[2]]))
}

/// Only requests are taken: no pings, no signals, no code to run. Other protocols that are spoken
/// here by mistake are recognised by their first bytes.
fn check_kind(prefix: &[u8; PREFIX_BYTES]) -> Result<(), Error> {
    match prefix {
        [0, ..] => Ok(()),
        _ if is_http(prefix) => Err(Error::HttpOnUwsgi),
        // A record of a handshake, of version 3.x (RFC 8446, 5.1).
        [22, 3, ..] => Err(Error::TlsOnPlainUwsgi),
        [modifier1, ..] => Err(Error::UnsupportedUwsgiModifier(*modifier1)),
    }
}

/// Takes a packet apart.
struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
    /// Variables seen.
    count: usize,
}

impl Reader<'_> {
    /// Where the next name and its value stand; `None` at the packet's end.
    fn next_variable(&mut self) -> Result<Option<(Span, Span)>, Error> {
        if self.at == self.packet.len() {
            return Ok(None);
        }
        if self.count == MOST_VARS {
            return Err(Error::InvalidUwsgiPacket("too many variables"));
        }
        self.count += 1;
        let name = self.next_text(["truncated key size", "truncated key"])?;
        let value = self.next_text(["truncated value size", "truncated value"])?;
        Ok(Some((name, value)))
    }

    /// Where the next text stands, behind its length. `missing` words the two errors: the length is
    /// cut off, or the text is.
    fn next_text(&mut self, missing: [&'static str; 2]) -> Result<Span, Error> {
        let [size, rest] = missing.map(Error::InvalidUwsgiPacket);
        let Some(length) = self.packet[self.at..].first_chunk() else { return Err(size) };
        let start = self.at + length.len();
        let end = start + usize::from(u16::from_le_bytes(*length));
        if end > self.packet.len() {
            return Err(rest);
        }
        self.at = end;
        Ok(Span::new(start, end))
    }
}
