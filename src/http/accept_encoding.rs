//! Which of the compressed forms of a file a client is to get (RFC 9110, 12.5.3).

use super::grammar::trim_ows;

/// A coding of the compressed forms that may lie beside a file. The order of the variants is the
/// server's preference where the client has none: the smallest form first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCoding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl ContentCoding {
    /// All of them, the preferred first.
    pub const ALL: [ContentCoding; 3] = [ContentCoding::Brotli, ContentCoding::Zstd, ContentCoding::Gzip];

    /// Its name in Content-Encoding.
    pub fn name(self) -> &'static str {
        match self {
            ContentCoding::Brotli => "br",
            ContentCoding::Zstd => "zstd",
            ContentCoding::Gzip => "gzip",
        }
    }

    /// How the names of its files end.
    pub fn suffix(self) -> &'static str {
        match self {
            ContentCoding::Brotli => ".br",
            ContentCoding::Zstd => ".zst",
            ContentCoding::Gzip => ".gz",
        }
    }

    fn is_named(self, name: &[u8]) -> bool {
        // x-gzip is gzip (RFC 9110, 8.4.1.3).
        name.eq_ignore_ascii_case(self.name().as_bytes())
            || self == ContentCoding::Gzip && name.eq_ignore_ascii_case(b"x-gzip")
    }
}

/// The coding that a client with this Accept-Encoding likes best of those that `exists` tells of.
/// `None` where the client gets the file itself: it prefers that, takes no such coding, or has not
/// sent the field, so that nobody knows what it can read. The file itself is sent even to a client
/// that refuses it (RFC 9110, 12.5.3: a server may).
pub fn choose(accepted: Option<&[u8]>, exists: impl Fn(ContentCoding) -> bool) -> Option<ContentCoding> {
    let accepted = accepted?;
    let mut best: Option<(ContentCoding, u16)> = None;
    for coding in ContentCoding::ALL.into_iter().filter(|&coding| exists(coding)) {
        let quality =
            quality(accepted, |name| coding.is_named(name)).or_else(|| quality(accepted, |name| name == b"*"));
        let quality = quality.unwrap_or(0);
        if quality > best.map_or(0, |(_, best)| best) {
            best = Some((coding, quality));
        }
    }
    let identity = quality(accepted, |name| name.eq_ignore_ascii_case(b"identity")).unwrap_or(0);
    best.filter(|&(_, quality)| quality >= identity).map(|(coding, _)| coding)
}

/// The weight of the first element whose name `is_meant`, in thousandths; `None` where there is
/// none.
fn quality(accepted: &[u8], is_meant: impl Fn(&[u8]) -> bool) -> Option<u16> {
    accepted.split(|&byte| byte == b',').find_map(|element| {
        let mut parts = element.split(|&byte| byte == b';').map(trim_ows);
        let name = parts.next()?;
        is_meant(name).then(|| parts.find_map(weight).unwrap_or(1000))
    })
}

/// The value of a `q` parameter (RFC 9110, 12.4.2); 0 where it is no number, `None` for another
/// parameter.
fn weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let thousandths = match value {
        [b'0'] | [b'0', b'.'] => Some(0),
        [b'1'] => Some(1000),
        [b'1', b'.', zeros @ ..] if zeros.len() <= 3 && zeros.iter().all(|&digit| digit == b'0') => Some(1000),
        [b'0', b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => {
            let value = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
            Some(value * 10u16.pow(3 - digits.len() as u32))
        }
        _ => None,
    };
    Some(thousandths.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_gets_what_it_likes_best_of_what_there_is() {
        let rows = [
            ("gzip, deflate, br, zstd", "br zstd gzip", "br"),
            ("gzip, deflate, br, zstd", "zstd gzip", "zstd"),
            ("gzip, deflate, br, zstd", "gzip", "gzip"),
            ("gzip, deflate, br, zstd", "", "-"),
            ("gzip;q=1.0, br;q=0.5", "br gzip", "gzip"),
            ("gzip;q=0.5, br;q=0.500", "br gzip", "br"),
            ("br;q=0, gzip", "br gzip", "gzip"),
            ("br;q=0.000", "br", "-"),
            ("*", "zstd gzip", "zstd"),
            ("*;q=0", "br gzip", "-"),
            ("gzip;q=0, *", "gzip", "-"),
            ("br;q=0.1, *;q=0.2", "br gzip", "gzip"),
            ("identity", "br gzip", "-"),
            ("identity;q=1, gzip;q=0.5", "gzip", "-"),
            ("identity;q=0.5, gzip", "gzip", "gzip"),
            ("identity;q=0", "gzip", "-"),
            ("GZIP ; Q=0.9", "gzip", "gzip"),
            ("x-gzip", "gzip", "gzip"),
            ("gzip;q=2", "gzip", "-"),
            ("gzip;q=0.1234", "gzip", "-"),
            ("gzip;level=9;q=0.3", "gzip", "gzip"),
            ("bro, gz", "br gzip", "-"),
            ("", "br gzip", "-"),
        ];
        for (accepted, there, expected) in rows {
            let exists = |coding: ContentCoding| there.split(' ').any(|name| name == coding.name());
            let chosen = choose(Some(accepted.as_bytes()), exists).map_or("-", ContentCoding::name);
            assert_eq!(chosen, expected, "{accepted:?} of {there:?}");
        }
        assert_eq!(choose(None, |_| true), None);
    }
}
