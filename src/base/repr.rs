//! Texts and bytes as Python's `repr` shows them, for messages in gunicorn's words.

/// The `repr` of the str `text`. Characters above U+00FF are taken to be printable.
pub fn of_str(text: &str) -> String {
    quoted(text.chars(), is_printable)
}

/// The `repr` of the str that `bytes` are in latin-1.
pub fn of_latin1(bytes: &[u8]) -> String {
    quoted(bytes.iter().map(|&byte| char::from(byte)), is_printable)
}

/// The `repr` of the bytes `bytes`.
pub fn of_bytes(bytes: &[u8]) -> String {
    let shown = quoted(bytes.iter().map(|&byte| char::from(byte)), |character| matches!(character, ' '..='~'));
    format!("b{shown}")
}

/// Whether Python's `str.isprintable` is true: no control, no space but U+0020, no soft hyphen.
fn is_printable(character: char) -> bool {
    !character.is_control() && !matches!(character, '\u{a0}' | '\u{ad}')
}

/// Puts `text` into single quotes, unless only double ones avoid an escape.
fn quoted(text: impl Iterator<Item = char> + Clone, is_printable: fn(char) -> bool) -> String {
    let has = |quote: char| text.clone().any(|character| character == quote);
    let quote = if has('\'') && !has('"') { '"' } else { '\'' };
    let mut shown = String::with_capacity(text.size_hint().0 + 2);
    shown.push(quote);
    for character in text {
        match character {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            '\\' => shown.push_str("\\\\"),
            _ if character == quote => shown.extend(['\\', character]),
            _ if is_printable(character) => shown.push(character),
            _ => shown.push_str(&format!("\\x{:02x}", u32::from(character))),
        }
    }
    shown.push(quote);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_bytes_are_shown_as_python_shows_them() {
        let cases: [(&[u8], &str); 6] = [
            (b"a'b", "\"a'b\""),
            (b"a'\"b", "'a\\'\"b'"),
            (b"\r\n\t\\\0\x7f", "'\\r\\n\\t\\\\\\x00\\x7f'"),
            (b"\x85\xa0\xad", "'\\x85\\xa0\\xad'"),
            (b"\xe9", "'\u{e9}'"),
            (b"", "''"),
        ];
        for (raw, shown) in cases {
            assert_eq!(of_latin1(raw), shown);
            assert_eq!(of_str(&String::from_iter(raw.iter().map(|&byte| char::from(byte)))), shown);
        }
        assert_eq!(of_str("\u{20ac}"), "'\u{20ac}'");
        assert_eq!(of_bytes(b"z\xe9"), "b'z\\xe9'");
    }
}
