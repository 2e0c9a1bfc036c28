//! Hosts and ports, as in the Host header and in the authority of a target (RFC 3986, 3.2; RFC
//! 9110, 7.2). Nothing is resolved here. The questions are whether a text can name a host, and
//! whether two texts name the same one.

use std::net::Ipv6Addr;

use crate::base::decimal;

/// `uri-host [ ":" port ]`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    host: &'a [u8],
    /// `None` when there is no colon, or nothing behind it.
    pub(super) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Takes `text` apart. `None` unless it is a host that is not empty, and a port, if any, of at
    /// most 65535.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let (host, after) = match text.first()? {
            b'[' => split_ip_literal(text)?,
            _ => split_name(text)?,
        };
        let port = match after {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(u16::try_from(decimal::parse(digits)?).ok()?),
            _ => return None,
        };
        Some(Authority { host, port })
    }

    /// Whether both name the same host and port. A missing port stands for `default_port`.
    pub(super) fn is_same_place(&self, other: &Authority<'_>, default_port: Option<u16>) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port.or(default_port) == other.port.or(default_port)
    }
}

/// Splits `[::1]:80` into the literal with its brackets, and the rest. An IPvFuture does not exist
/// yet and is refused.
fn split_ip_literal(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b']', text)?;
    let address = std::str::from_utf8(&text[1..end]).ok()?;
    address.parse::<Ipv6Addr>().ok()?;
    Some(text.split_at(end + 1))
}

fn split_name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b':', text).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    is_registered_name(name).then_some((name, after))
}

/// `reg-name` of RFC 3986, 3.2.2, which covers IPv4 addresses too; but not empty (RFC 9110, 4.2.1).
fn is_registered_name(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(&byte) = bytes.next() {
        let is_valid = match byte {
            b'%' => [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(u8::is_ascii_hexdigit)),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !is_valid {
            return false;
        }
    }
    !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_that_exists() {
        for good in ["a", "a:", "a:80", "a_b.c", "1.2.3.4:65535", "[::1]", "[::1]:80", "a%20b", "a:0080", "x,y"] {
            assert!(Authority::parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a\tb",
            "u@a",
            "a/b",
            "a:x",
            "a:65536",
            "a:99999999",
            "[::1",
            "[::1]x",
            "[]",
            "[1.2.3.4]",
            "::1",
            "a%2",
            "a%zz",
            "\u{e9}",
            "a:+1",
        ] {
            assert!(Authority::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_same_place_ignores_case_and_a_default_port() {
        let same = |left: &str, right: &str| {
            let left = Authority::parse(left.as_bytes()).unwrap();
            left.is_same_place(&Authority::parse(right.as_bytes()).unwrap(), Some(80))
        };
        assert!(same("A.example", "a.EXAMPLE"));
        assert!(same("a:80", "a"));
        assert!(same("a:", "a"));
        assert!(!same("a:81", "a"));
        assert!(!same("a", "b"));
    }
}
