//! Range requests (RFC 9110, section 14): which bytes of a file a client wants, and how several
//! ranges are framed in one response.
//!
//! The module knows bytes and numbers: no file, no socket.

use std::ops::Range;

use super::grammar::trim_ows;

/// Most ranges of one request. Real clients ask for one, download managers and PDF readers for a
/// handful. A request for more gets the whole file (RFC 9110, 14.2: a server may ignore the field),
/// since each range costs a part's head and a call of the kernel.
pub const MOST_RANGES: usize = 16;

/// Which bytes of a file are to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// All bytes: no range was asked for, or none that can be understood or is granted.
    Whole,
    /// These bytes of the file, in the client's order; one range at least, none of them empty.
    Parts(Vec<Range<u64>>),
    /// Nothing: every range begins behind the file's end.
    Unsatisfiable,
}

/// What the value of a Range field selects of a file of `length` bytes (RFC 9110, 14.1.2).
///
/// A field that is malformed, or has another unit than bytes, is ignored. So is a field with more
/// than [`MOST_RANGES`] ranges, and a field whose ranges add up to more than the file: such ranges
/// overlap, and only an attack gains by that.
pub fn select(value: &[u8], length: u64) -> Selected {
    let Some((unit, set)) = split_at_byte(value, b'=') else { return Selected::Whole };
    if !trim_ows(unit).eq_ignore_ascii_case(b"bytes") {
        return Selected::Whole;
    }
    let (mut parts, mut count, mut total) = (Vec::new(), 0, 0u64);
    for spec in set.split(|&byte| byte == b',').map(trim_ows).filter(|spec| !spec.is_empty()) {
        count += 1;
        let Some(range) = read_spec(spec, length) else { return Selected::Whole };
        if count > MOST_RANGES {
            return Selected::Whole;
        }
        if range.start < range.end {
            total = total.saturating_add(range.end - range.start);
            parts.push(range);
        }
    }
    match (count, parts.is_empty()) {
        (0, _) => Selected::Whole,
        // A suffix of an empty file is satisfiable, but Content-Range cannot say so.
        (_, true) if length == 0 && set.trim_ascii_start().starts_with(b"-") => Selected::Whole,
        (_, true) => Selected::Unsatisfiable,
        _ if total > length => Selected::Whole,
        _ => Selected::Parts(parts),
    }
}

/// The bytes that one range-spec stands for: an empty range where it begins behind the end, `None`
/// where it is malformed.
fn read_spec(spec: &[u8], length: u64) -> Option<Range<u64>> {
    let (first, last) = split_at_byte(spec, b'-')?;
    match (trim_ows(first), trim_ows(last)) {
        ([], last) => {
            let suffix = number(last)?;
            Some(length - suffix.min(length)..length)
        }
        (first, []) => Some(number(first)?.min(length)..length),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first.min(length)..last.saturating_add(1).min(length))
        }
    }
}

/// Digits only. A number past 2^64 is behind the end of every file.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    is_number.then(|| digits.iter().fold(0, add))
}

fn split_at_byte(bytes: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(byte, bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// The value of Content-Range for `range` of a file of `length` bytes (RFC 9110, 14.4).
pub fn content_range(range: &Range<u64>, length: u64) -> String {
    debug_assert!(range.start < range.end && range.end <= length, "{range:?} of {length}");
    format!("bytes {}-{}/{length}", range.start, range.end - 1)
}

/// The value of Content-Range that goes with a 416: how long the file is.
pub fn unsatisfied_range(length: u64) -> String {
    format!("bytes */{length}")
}

/// The framing of several ranges in one response (multipart/byteranges: RFC 9110, 14.6).
#[derive(Debug, Clone, Copy)]
pub struct Multipart<'a> {
    /// What stands between the parts. It must not occur in the file. Nobody can promise that, so it
    /// is long and not to be guessed.
    pub boundary: &'a str,
    /// The file's own type.
    pub content_type: &'a [u8],
    /// The file's length.
    pub length: u64,
}

impl Multipart<'_> {
    /// The response's Content-Type.
    pub fn content_type(&self) -> Vec<u8> {
        format!("multipart/byteranges; boundary={}", self.boundary).into_bytes()
    }

    /// What stands before the bytes of a part.
    pub fn part_head(&self, range: &Range<u64>, is_first: bool) -> Vec<u8> {
        let start = if is_first { "--" } else { "\r\n--" };
        let mut head = format!("{start}{}\r\nContent-Type: ", self.boundary).into_bytes();
        head.extend_from_slice(self.content_type);
        head.extend_from_slice(format!("\r\nContent-Range: {}\r\n\r\n", content_range(range, self.length)).as_bytes());
        head
    }

    /// What stands behind the last part.
    pub fn end(&self) -> Vec<u8> {
        format!("\r\n--{}--\r\n", self.boundary).into_bytes()
    }

    /// How long the whole body is.
    pub fn body_length(&self, ranges: &[Range<u64>]) -> u64 {
        let part = |(index, range): (usize, &Range<u64>)| {
            self.part_head(range, index == 0).len() as u64 + (range.end - range.start)
        };
        ranges.iter().enumerate().map(part).sum::<u64>() + self.end().len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ranges that were selected.
    fn shown(selected: Selected) -> String {
        let Selected::Parts(parts) = selected else { return format!("{selected:?}") };
        parts.iter().map(|range| format!("{range:?}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ranges_select_bytes_of_the_file() {
        let cases = [
            ("bytes=0-0", "0..1"),
            ("bytes=0-99", "0..100"),
            ("bytes=0-", "0..100"),
            ("bytes=99-", "99..100"),
            ("bytes=10-19", "10..20"),
            ("bytes=90-1000", "90..100"),
            ("bytes=90-99999999999999999999999999", "90..100"),
            ("bytes=-1", "99..100"),
            ("bytes=-100", "0..100"),
            ("bytes=-1000", "0..100"),
            ("Bytes=5-6", "5..7"),
            ("bytes= 5-6 , ,\t8-9,", "5..7 8..10"),
            ("bytes=50-59,0-9", "50..60 0..10"),
            // One that cannot be satisfied does not spoil the others.
            ("bytes=0-1,100-,-1", "0..2 99..100"),
        ];
        for (value, expected) in cases {
            assert_eq!(shown(select(value.as_bytes(), 100)), expected, "{value}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_ignored() {
        let values = [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=2-1",
            "bytes=+1-2",
            "bytes=1-2-3",
            "items=0-1",
            "bytes=0-1;2-3",
            "bytes=0x1-2",
            "bytes=0-1,x",
            "bytes=100-,1-0",
            "bytes 0-1",
        ];
        for value in values {
            assert_eq!(select(value.as_bytes(), 100), Selected::Whole, "{value}");
        }
    }

    #[test]
    fn ranges_behind_the_end_are_unsatisfiable() {
        for value in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=100-,200-", "bytes=99999999999999999999-"] {
            assert_eq!(select(value.as_bytes(), 100), Selected::Unsatisfiable, "{value}");
        }
        assert_eq!(select(b"bytes=0-", 0), Selected::Unsatisfiable);
        assert_eq!(select(b"bytes=-5", 0), Selected::Whole);
    }

    #[test]
    fn many_ranges_and_overlapping_ones_select_the_whole_file() {
        let of = |count: usize| {
            let specs: Vec<String> = (0..count).map(|index| format!("{0}-{0}", 2 * index)).collect();
            select(format!("bytes={}", specs.join(",")).as_bytes(), 100)
        };
        assert!(matches!(of(MOST_RANGES), Selected::Parts(parts) if parts.len() == MOST_RANGES));
        assert_eq!(of(MOST_RANGES + 1), Selected::Whole);
        assert_eq!(select(b"bytes=0-,0-", 100), Selected::Whole);
        assert_eq!(select(b"bytes=0-59,40-99", 100), Selected::Whole);
        assert_eq!(shown(select(b"bytes=0-49,50-99", 100)), "0..50 50..100");
    }

    #[test]
    fn the_length_of_a_multipart_body_is_that_of_its_pieces() {
        let multipart = Multipart { boundary: "xyz", content_type: b"text/plain", length: 100 };
        let ranges = [0..10, 90..100];
        let mut body = Vec::new();
        for (index, range) in ranges.iter().enumerate() {
            body.extend(multipart.part_head(range, index == 0));
            body.extend(vec![b'.'; (range.end - range.start) as usize]);
        }
        body.extend(multipart.end());
        assert_eq!(multipart.body_length(&ranges), body.len() as u64);
        let text = String::from_utf8(body).unwrap();
        assert_eq!(
            text,
            "--xyz\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-9/100\r\n\r\n..........\r\n--xyz\r\n\
             Content-Type: text/plain\r\nContent-Range: bytes 90-99/100\r\n\r\n..........\r\n--xyz--\r\n"
        );
        assert_eq!(multipart.content_type(), b"multipart/byteranges; boundary=xyz");
        assert_eq!(unsatisfied_range(100), "bytes */100");
    }
}
