//! The user of Basic credentials (RFC 7617), which gunicorn's `%(u)s` shows.

/// The user named by an Authorization value, or None for other schemes, an empty name, one that is
/// not UTF-8 and broken base64. Allocates no more than the header is long.
pub(super) fn basic_user(authorization: &[u8]) -> Option<String> {
    let space = memchr::memchr(b' ', authorization)?;
    let (scheme, credentials) = authorization.split_at(space);
    // gunicorn looks at the first five letters only; no scheme is called `basically`.
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let mut user = decode_base64(credentials)?;
    user.truncate(memchr::memchr(b':', &user).unwrap_or(user.len()));
    String::from_utf8(user).ok().filter(|user| !user.is_empty())
}

/// Base64 (RFC 4648), as lenient as Python's `b64decode`: other bytes are skipped, bytes after the
/// padding are ignored, missing padding is an error.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut digits, mut padding) = (0u32, 0, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if digits >= 2 => {
                padding += 1;
                if digits + padding == 4 {
                    return Some(out);
                }
                continue;
            }
            _ => continue,
        };
        padding = 0;
        bits = bits << 6 | u32::from(value);
        digits = (digits + 1) % 4;
        if digits != 1 {
            // Eight bits are complete at the second, third and fourth digit, with 4, 2 and 0 bits
            // left over.
            let left_over = [0, 6, 4, 2][digits];
            out.push((bits >> left_over) as u8);
        }
    }
    (digits == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_what_stands_before_the_colon() {
        let cases: [(&[u8], Option<&str>); 13] = [
            (b"Basic YWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some("aladdin")),
            (b"bAsIc YWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some("aladdin")),
            (b"Basic   YWxhZGRpbjpvcGVuIHNlc2FtZQ==  ", Some("aladdin")),
            (b"Basic YWxh\nZGRpbjpvcGVuIHNlc2FtZQ==ignored", Some("aladdin")),
            (b"Basic YnJpYW4=", Some("brian")),
            (b"Basic YnJpYW4", None),
            (b"Basic OnNlY3JldA==", None),
            (b"Basic w6k6eA==", Some("\u{e9}")),
            (b"Basic /zp4", None),
            (b"Basic ImE6eA==", Some("\"a")),
            (b"Basic ***", None),
            (b"Basic", None),
            (b"Bearer YWxhZGRpbjpvcGVu", None),
        ];
        for (credentials, expected) in cases {
            let user = basic_user(credentials);
            assert_eq!(user.as_deref(), expected, "{}", credentials.escape_ascii());
        }
    }
}
