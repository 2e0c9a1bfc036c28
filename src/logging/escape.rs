//! Escapes text of clients and applications for a log, so that it cannot add a line, end a field or
//! control a terminal.
//!
//! There are three rules. In a field of an access line ([`push_char`]) quotes and backslashes are
//! escaped too. A text of the error log ([`message`]) may have several lines, as tracebacks do, but
//! no further line reads like a record. JSON ([`push_json`]) has escapes of its own, which
//! serde_json uses below U+0020 only.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character ends lines or controls terminals: C0, DEL, C1, the separators of lines and
/// paragraphs, and those that change the direction of the text.
fn steers(character: char) -> bool {
    matches!(character, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends a character of a field. A control character is escaped as in Python's `repr`; a quote or
/// a backslash gets a backslash before it.
pub(super) fn push_char(out: &mut Vec<u8>, character: char) {
    match character {
        '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
        _ if steers(character) => out.extend_from_slice(escaped(character).as_bytes()),
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// `\x1b`, or `\u2028` past U+00FF.
fn escaped(character: char) -> String {
    match u32::from(character) {
        code @ ..=0xff => format!("\\x{code:02x}"),
        code => format!("\\u{code:04x}"),
    }
}

/// The length in bytes of the longest start of an escaped field that has at most `characters`
/// characters and cuts no escape apart.
pub(super) fn whole_escapes(field: &[u8], characters: usize) -> usize {
    let (mut at, mut left) = (0, characters);
    while at < field.len() {
        let (bytes, shown) = match field[at..] {
            [b'\\', b'x', ..] => (4, 4),
            [b'\\', b'u', ..] => (6, 6),
            [b'\\', ..] => (2, 2),
            [first, ..] => (utf8_length(first), 1),
            [] => break,
        };
        if shown > left {
            break;
        }
        at += bytes;
        left -= shown;
    }
    at.min(field.len())
}

fn utf8_length(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

/// A text of the error log. Control characters are escaped, except tabs and line ends. A space is
/// put before a further line that reads like the head of a record.
pub(super) fn message(text: &str) -> Cow<'_, str> {
    let first_end = text.find('\n').map_or(text.len(), |end| end + 1);
    let (first, rest) = text.split_at(first_end);
    match (plain(first), lines(rest)) {
        (Cow::Borrowed(_), Cow::Borrowed(_)) => Cow::Borrowed(text),
        (first, rest) => Cow::Owned(format!("{first}{rest}")),
    }
}

/// As [`message`], for a text that an application writes to `wsgi.errors`. The first line is
/// checked as well.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    if !text.split_inclusive('\n').any(reads_like_a_record) {
        return plain(text);
    }
    let mut set_off = String::with_capacity(text.len() + 8);
    for line in text.split_inclusive('\n') {
        if reads_like_a_record(line) {
            set_off.push(' ');
        }
        set_off.push_str(&plain(line));
    }
    Cow::Owned(set_off)
}

/// Escapes control characters, except tabs and line ends.
fn plain(text: &str) -> Cow<'_, str> {
    let is_meant = |character: char| matches!(character, '\n' | '\t');
    if !text.chars().any(|character| steers(character) && !is_meant(character)) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            _ if steers(character) && !is_meant(character) => plain.push_str(&escaped(character)),
            _ => plain.push(character),
        }
    }
    Cow::Owned(plain)
}

/// Whether a line begins as the error log's records do: `[2026-11-20 07:37:16 +0000] [`.
fn reads_like_a_record(line: &str) -> bool {
    const HEAD: &[u8] = b"[0000-00-00 00:00:00 +0000] [";
    let line = line.as_bytes();
    line.len() >= HEAD.len()
        && HEAD.iter().zip(line).all(|(shape, byte)| match shape {
            b'0' => byte.is_ascii_digit(),
            b'+' => matches!(byte, b'+' | b'-'),
            _ => byte == shape,
        })
}

/// Appends a line of JSON with its control characters escaped. Only its strings can contain any.
pub(super) fn push_json(out: &mut Vec<u8>, json: &str) {
    let mut rest = json;
    while let Some(at) = rest.find(steers) {
        let (before, after) = rest.split_at(at);
        out.extend_from_slice(before.as_bytes());
        let mut characters = after.chars();
        if let Some(character) = characters.next() {
            let mut code = String::new();
            // Writing to a String cannot fail.
            let _ = write!(code, "\\u{:04x}", u32::from(character));
            out.extend_from_slice(code.as_bytes());
        }
        rest = characters.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_holds_nothing_that_ends_it_or_controls_a_terminal() {
        let cases = [
            ("plain \u{e9}\u{20ac}", "plain \u{e9}\u{20ac}"),
            ("\"\\", "\\\"\\\\"),
            ("\r\n\x1b\x7f", "\\x0d\\x0a\\x1b\\x7f"),
            ("\u{9b}31m\u{85}", "\\x9b31m\\x85"),
            ("\u{2028}\u{2029}\u{202e}\u{2066}", "\\u2028\\u2029\\u202e\\u2066"),
        ];
        for (text, expected) in cases {
            let mut out = Vec::new();
            text.chars().for_each(|character| push_char(&mut out, character));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn no_escape_is_cut_apart() {
        let field = "a\\\"b\\x1b\u{e9}\\u2028".as_bytes();
        let lengths: Vec<usize> = (0..18).map(|characters| whole_escapes(field, characters)).collect();
        assert_eq!(lengths, [0, 1, 1, 3, 4, 4, 4, 4, 8, 10, 10, 10, 10, 10, 10, 16, 16, 16]);
    }

    #[test]
    fn a_message_has_lines_but_no_records() {
        let head = "[2026-11-20 07:37:16 +0000] [7] [INFO] forged";
        let cases = [
            ("one\ntwo\tthree".to_owned(), "one\ntwo\tthree".to_owned()),
            ("a\rb\x1b[2J\u{9b}\u{2028}".to_owned(), "a\\x0db\\x1b[2J\\x9b\\u2028".to_owned()),
            (format!("x\n{head}\n{head}"), format!("x\n {head}\n {head}")),
            (format!("{head}\n[1, 2]"), format!("{head}\n[1, 2]")),
        ];
        for (text, expected) in cases {
            assert_eq!(message(&text), expected);
        }
        assert_eq!(lines(&format!("{head}\n")), format!(" {head}\n"));
    }

    #[test]
    fn json_says_the_same_without_the_characters() {
        let text = "a\u{7f}\u{9b}\u{2028}\u{e9}\u{1}";
        let mut out = Vec::new();
        push_json(&mut out, &serde_json::to_string(text).unwrap());
        let json = String::from_utf8(out).unwrap();
        assert_eq!(json, "\"a\\u007f\\u009b\\u2028\u{e9}\\u0001\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
