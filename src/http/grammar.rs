//! The character classes of RFC 9110, as tables and small predicates. They know bytes, and nothing
//! of messages.

/// Whether `byte` may stand in a token, the alphabet of methods and field names (RFC 9110, 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Whether `bytes` is a token: at least one byte, all of them token bytes (RFC 9110, 5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `byte` may stand in a request target before its query and its fragment. Like gunicorn
/// this takes more than RFC 3986, 3.3 does: every visible byte.
pub(super) fn is_path_byte(byte: u8) -> bool {
    PATH[usize::from(byte)]
}

/// Whether `bytes` may be a field value: visible characters, obs-text, SP and HTAB (RFC 9110, 5.5).
/// Empty is valid.
pub(super) fn is_field_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// Whether `byte` is optional white space: SP or HTAB and nothing else (RFC 9110, 5.6.3).
pub(super) fn is_ows(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// `bytes` without the optional white space at both ends.
pub(super) fn trim_ows(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&byte| !is_ows(byte));
    start.map_or(&[], |start| trim_ows_end(&bytes[start..]))
}

/// `bytes` without the optional white space at its end.
pub(super) fn trim_ows_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| !is_ows(byte));
    end.map_or(&[], |end| &bytes[..=end])
}

/// The length of the line that `raw` holds so far, without the line feed.
///
/// A carriage return at the end is not counted, because it may be half of the CRLF that ends the
/// line. So a limit is hit at the same byte, however the bytes were cut into segments.
pub(super) fn line_length(raw: &[u8]) -> usize {
    raw.len() - usize::from(raw.ends_with(b"\r"))
}

static TOKEN: [bool; 256] = {
    let specials = b"!#$%&'*+-.^_`|~";
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < specials.len() {
        table[specials[index] as usize] = true;
        index += 1;
    }
    table
};

static PATH: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let code = byte as u8;
        table[byte] = code.is_ascii_graphic() && code != b'?' && code != b'#';
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_no_separators_controls_or_obs_text() {
        assert!(is_token(b"!#$%&'*+-.^_`|~09azAZ"));
        for bad in [&b""[..], b"a b", b"a:", b"a(b", b"\x7f", b"\xe9", b"a\0", b"a/b"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    #[test]
    fn only_space_and_tab_are_trimmed() {
        let cases: [(&[u8], &[u8]); 5] =
            [(b" \t v \t ", b"v"), (b"\xa0v\x85", b"\xa0v\x85"), (b"  ", b""), (b"", b""), (b"a b", b"a b")];
        for (raw, trimmed) in cases {
            assert_eq!(trim_ows(raw), trimmed);
        }
    }
}
