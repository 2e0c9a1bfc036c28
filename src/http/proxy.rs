//! The PROXY protocol, versions 1 and 2: how a load balancer says whose connection it passes on
//! (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>).
//!
//! A PROXY header stands before the first request only. The caller decides whether the peer may
//! send one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use memchr::memchr;

use super::error::{Error, quote};
use super::grammar::line_length;
use crate::base::decimal;

/// Which versions are looked for (`proxy_protocol`; when it is off, [`parse`] is not called).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// The text version only.
    V1,
    /// The binary version only.
    V2,
    /// Either.
    Auto,
}

/// What the start of a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The bytes may be the start of a PROXY header; call again with more of them.
    Partial,
    /// No PROXY header: a request starts at the first byte, as gunicorn allows.
    Absent,
    /// A PROXY header.
    Header {
        /// Its length in bytes; the first request starts behind it.
        len: usize,
        /// Whose connection it is.
        origin: Origin,
    },
}

/// Whose connection a PROXY header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The sender's own (version 2, LOCAL): the socket's address stays.
    Local,
    /// A connection that the sender cannot describe (version 1, UNKNOWN): the socket's address
    /// stays.
    Unknown,
    /// The same in version 2 (UNSPEC).
    Unspecified,
    /// A client's, over TCP; both addresses are of one family.
    Client {
        /// Where the client is.
        client: SocketAddr,
        /// Where the client connected to.
        proxy: SocketAddr,
    },
}

impl Origin {
    /// The name of the protocol in a version 1 header. What only version 2 has goes by gunicorn's
    /// name.
    pub fn protocol(&self) -> &'static str {
        match self {
            Origin::Local => "LOCAL",
            Origin::Unknown => "UNKNOWN",
            Origin::Unspecified => "UNSPEC",
            Origin::Client { client, .. } => {
                if client.is_ipv4() {
                    "TCP4"
                } else {
                    "TCP6"
                }
            }
        }
    }
}

/// Looks for a PROXY header at the start of `buf`, the first bytes of a connection.
///
/// It never asks for more than 107 bytes of version 1 or about 4 KiB of version 2.
pub fn parse(buf: &[u8], mode: ProxyMode) -> Result<Parsed, Error> {
    let candidates: &[(&[u8], Reader)] = match mode {
        ProxyMode::V1 => &[(V1_PREFIX, parse_v1)],
        ProxyMode::V2 => &[(V2_SIGNATURE, parse_v2)],
        ProxyMode::Auto => &[(V1_PREFIX, parse_v1), (V2_SIGNATURE, parse_v2)],
    };
    for (prefix, reader) in candidates {
        if buf.starts_with(prefix) {
            return reader(buf);
        }
        if prefix.starts_with(buf) {
            return Ok(Parsed::Partial);
        }
    }
    Ok(Parsed::Absent)
}

type Reader = fn(&[u8]) -> Result<Parsed, Error>;

/// `PROXY TCP4 client proxy port port CRLF` (section 2.1).
fn parse_v1(buf: &[u8]) -> Result<Parsed, Error> {
    let line_feed = memchr(b'\n', buf);
    let raw = &buf[..line_feed.unwrap_or(buf.len())];
    let line = &raw[..line_length(raw)];
    let refuse = || Error::InvalidProxyLine(quote(&line[..line.len().min(V1_LONGEST)]));
    if raw.len() >= V1_LONGEST {
        return Err(refuse());
    }
    let Some(line_feed) = line_feed else {
        return Ok(Parsed::Partial);
    };
    if !raw.ends_with(b"\r") {
        return Err(refuse());
    }
    Ok(Parsed::Header { len: line_feed + 1, origin: v1_origin(line).ok_or_else(refuse)? })
}

/// What follows UNKNOWN must be ignored (section 2.1).
fn v1_origin(line: &[u8]) -> Option<Origin> {
    let fields = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?;
    if fields == "UNKNOWN" || fields.starts_with("UNKNOWN ") {
        return Some(Origin::Unknown);
    }
    let mut fields = fields.split(' ');
    let family = fields.next()?;
    let (client, proxy) = (fields.next()?, fields.next()?);
    let (client_port, proxy_port) = (fields.next()?, fields.next()?);
    if fields.next().is_some() {
        return None;
    }
    Some(Origin::Client {
        client: SocketAddr::new(parse_address(family, client)?, parse_port(client_port)?),
        proxy: SocketAddr::new(parse_address(family, proxy)?, parse_port(proxy_port)?),
    })
}

/// The standard library reads addresses strictly: no octal, no hexadecimal, no missing octets.
fn parse_address(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    }
}

/// A port without leading zeros.
fn parse_port(text: &str) -> Option<u16> {
    let port = u16::try_from(decimal::parse(text.as_bytes())?).ok()?;
    (text == "0" || !text.starts_with('0')).then_some(port)
}

/// Signature, version and command, family and transport, length, addresses (section 2.2). What
/// follows the addresses (TLVs) is skipped unread.
fn parse_v2(buf: &[u8]) -> Result<Parsed, Error> {
    let Some(&[version_command, family_transport, high, low]) = buf.get(V2_SIGNATURE.len()..V2_FIXED) else {
        return Ok(Parsed::Partial);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 {
        return Err(Error::InvalidProxyHeader("unsupported version"));
    }
    if length > V2_LONGEST {
        return Err(Error::InvalidProxyHeader("too long"));
    }
    let family = match version_command & 0x0f {
        0 => V2Family::Local,
        1 => v2_family(family_transport)?,
        _ => return Err(Error::InvalidProxyHeader("unsupported command")),
    };
    let Some(addresses) = buf.get(V2_FIXED..V2_FIXED + length) else {
        return Ok(Parsed::Partial);
    };
    Ok(Parsed::Header { len: V2_FIXED + length, origin: v2_origin(family, addresses)? })
}

#[derive(Clone, Copy)]
enum V2Family {
    Local,
    Unspecified,
    Inet,
    Inet6,
}

fn v2_family(family_transport: u8) -> Result<V2Family, Error> {
    match family_transport {
        0x00..=0x0f => Ok(V2Family::Unspecified),
        0x11 => Ok(V2Family::Inet),
        0x21 => Ok(V2Family::Inet6),
        0x10 | 0x12..=0x1f | 0x20 | 0x22..=0x2f => Err(Error::InvalidProxyHeader("only TCP protocol is supported")),
        _ => Err(Error::InvalidProxyHeader("unsupported address family")),
    }
}

fn v2_origin(family: V2Family, addresses: &[u8]) -> Result<Origin, Error> {
    match family {
        V2Family::Local => Ok(Origin::Local),
        V2Family::Unspecified => Ok(Origin::Unspecified),
        V2Family::Inet => {
            v2_client::<4>(addresses).ok_or(Error::InvalidProxyHeader("insufficient address data for IPv4"))
        }
        V2Family::Inet6 => {
            v2_client::<16>(addresses).ok_or(Error::InvalidProxyHeader("insufficient address data for IPv6"))
        }
    }
}

/// Two addresses of `N` bytes, then two ports, all in network order.
fn v2_client<const N: usize>(addresses: &[u8]) -> Option<Origin>
where
    IpAddr: From<[u8; N]>,
{
    let (client, rest) = addresses.split_first_chunk::<N>()?;
    let (proxy, rest) = rest.split_first_chunk::<N>()?;
    let (client_port, rest) = rest.split_first_chunk::<2>()?;
    let (proxy_port, _) = rest.split_first_chunk::<2>()?;
    Some(Origin::Client {
        client: SocketAddr::new(IpAddr::from(*client), u16::from_be_bytes(*client_port)),
        proxy: SocketAddr::new(IpAddr::from(*proxy), u16::from_be_bytes(*proxy_port)),
    })
}

const V1_PREFIX: &[u8] = b"PROXY ";

/// The longest version 1 line with its CRLF, in bytes (section 2.1).
const V1_LONGEST: usize = 107;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length: 16 bytes.
const V2_FIXED: usize = V2_SIGNATURE.len() + 4;

/// The most bytes that may follow the fixed part. Addresses and the usual TLVs need a few hundred.
const V2_LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(client: &str, proxy: &str) -> Origin {
        Origin::Client { client: client.parse().unwrap(), proxy: proxy.parse().unwrap() }
    }

    fn v2(fixed: &[u8], payload: &[u8]) -> Vec<u8> {
        [V2_SIGNATURE, fixed, payload].concat()
    }

    /// Parses every prefix on the way, which must be `Partial` or the final verdict.
    fn parse_growing(bytes: &[u8], mode: ProxyMode) -> Result<Parsed, Error> {
        for end in 0..bytes.len() {
            match parse(&bytes[..end], mode) {
                Ok(Parsed::Partial) => {}
                verdict => return verdict,
            }
        }
        parse(bytes, mode)
    }

    #[test]
    fn valid_headers_are_read_whole_and_byte_by_byte() {
        let inet = [&[0x21, 0x11, 0, 12][..], &[1, 2, 3, 4, 5, 6, 7, 8, 0, 111, 0, 222]].concat();
        let mut inet6 = vec![0x21, 0x21, 0, 36];
        inet6.extend([0; 15].iter().chain(&[1]).chain(&[0; 15]).chain(&[2, 0, 1, 0, 2]));
        let four = client("1.2.3.4:111", "5.6.7.8:222");
        let cases: [(Vec<u8>, Origin); 10] = [
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n".to_vec(), four),
            (b"PROXY TCP6 ::1 ::2 1 2\r\n".to_vec(), client("[::1]:1", "[::2]:2")),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 0 65535\r\n".to_vec(), client("1.2.3.4:0", "5.6.7.8:65535")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Origin::Unknown),
            (b"PROXY UNKNOWN ff x y z\r\n".to_vec(), Origin::Unknown),
            (v2(&inet, b""), four),
            (v2(&[0x21, 0x11, 0, 15], &[1, 2, 3, 4, 5, 6, 7, 8, 0, 111, 0, 222, 4, 255, 255]), four),
            (v2(&inet6, b""), client("[::1]:1", "[::2]:2")),
            (v2(&[0x20, 0, 0, 0], b""), Origin::Local),
            (v2(&[0x21, 0, 0, 0], b""), Origin::Unspecified),
        ];
        for (header, origin) in cases {
            let expected = Ok(Parsed::Header { len: header.len(), origin });
            assert_eq!(parse_growing(&header, ProxyMode::Auto), expected, "{header:?}");
            let followed = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&followed, ProxyMode::Auto), expected, "{header:?}");
        }
    }

    #[test]
    fn broken_headers_are_refused() {
        for line in [
            "TCP4 ::1 ::1 1 2",
            "TCP6 1.2.3.4 5.6.7.8 1 2",
            "TCP4 1.2.3.4 5.6.7.8 65536 1",
            "TCP4 1.2.3.4 5.6.7.8 -1 1",
            "TCP4 1.2.3.4 5.6.7.8 +1 1",
            "TCP4 1.2.3.4 5.6.7.8 1_0 1",
            "TCP4 1.2.3.4 5.6.7.8 01 1",
            "TCP4 1.2.3.4 5.6.7.8  1",
            " TCP4 1.2.3.4 5.6.7.8 1 2",
            "TCP4 1.2.3.4 5.6.7.8 1 2 ",
            "TCP4 1.2.3.4 5.6.7.8 1",
            "TCP4 1.2.3.4 5.6.7.8 1 2 3",
            "TCP4 1.2.3.256 5.6.7.8 1 2",
            "TCP4 01.2.3.4 5.6.7.8 1 2",
            "TCP4 1.2.3 5.6.7.8 1 2",
            "TCP4 0x7f.1 5.6.7.8 1 2",
            "TCP4 1.2.3.4\0 5.6.7.8 1 2",
            "UNKNOWNX",
            "UDP4 1.2.3.4 5.6.7.8 1 2",
            "",
        ] {
            let header = format!("PROXY {line}\r\n");
            assert!(parse_growing(header.as_bytes(), ProxyMode::Auto).is_err(), "{line}");
        }
        assert!(parse_growing(b"PROXY TCP4 1.2.3.4 5.6.7.8 111 222\n", ProxyMode::V1).is_err());
        for fixed in [
            [0x11, 0x11, 0, 12],
            [0x31, 0x11, 0, 12],
            [0x22, 0x11, 0, 12],
            [0x21, 0x12, 0, 12],
            [0x21, 0x31, 0, 12],
            [0x21, 0x41, 0, 12],
            [0x21, 0x11, 0, 11],
            [0x21, 0x21, 0, 35],
            [0x21, 0x11, 0, 0],
            [0x21, 0x11, 255, 255],
        ] {
            assert!(parse_growing(&v2(&fixed, &[0; 36]), ProxyMode::Auto).is_err(), "{fixed:?}");
        }
    }

    #[test]
    fn an_endless_line_is_refused_at_byte_108() {
        let endless = [b"PROXY ".to_vec(), vec![b'A'; 200]].concat();
        assert_eq!(parse(&endless[..106], ProxyMode::V1), Ok(Parsed::Partial));
        assert!(parse(&endless[..108], ProxyMode::V1).is_err());
    }

    #[test]
    fn what_is_no_header_in_this_mode_is_a_request() {
        let cases: [(&[u8], ProxyMode); 7] = [
            (b"GET / HTTP/1.1\r\n", ProxyMode::Auto),
            (b"PROPFIND / HTTP/1.1\r\n", ProxyMode::Auto),
            (b"proxy TCP4 1.2.3.4", ProxyMode::Auto),
            (b"PROXY\tTCP4", ProxyMode::Auto),
            (b"\r\nGET / HTTP/1.1\r\n", ProxyMode::Auto),
            (V2_SIGNATURE, ProxyMode::V1),
            (b"PROXY TCP4", ProxyMode::V2),
        ];
        for (bytes, mode) in cases {
            assert_eq!(parse_growing(bytes, mode), Ok(Parsed::Absent), "{bytes:?}");
        }
    }
}
