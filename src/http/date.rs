//! The Date header's value, rendered at most once a second. The clock is the caller's.

use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

/// Keeps the last rendered date. Each thread that writes responses has one.
#[derive(Debug)]
pub struct DateCache {
    /// The second since the epoch that `rendered` shows; none before the first call.
    second: Option<u64>,
    rendered: [u8; DATE_LENGTH],
}

/// An IMF-fixdate always has 29 bytes: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
const DATE_LENGTH: usize = 29;

impl DateCache {
    /// An empty cache: the first [`DateCache::get`] renders.
    pub fn new() -> Self {
        DateCache { second: None, rendered: [0; DATE_LENGTH] }
    }

    /// A second since the epoch as an IMF-fixdate in GMT (RFC 9110, 5.6.7), for the Date header. A
    /// second after the year 9999 is shown as the last one that this format can express.
    pub fn get(&mut self, second: u64) -> &[u8; DATE_LENGTH] {
        if self.second != Some(second) {
            self.render(second);
        }
        &self.rendered
    }

    fn render(&mut self, second: u64) {
        let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second.min(LAST_SECOND))).to_string();
        self.rendered.copy_from_slice(date.as_bytes());
        self.second = Some(second);
    }
}

/// The second since the epoch that an HTTP-date means, in any of its three forms (RFC 9110, 5.6.7);
/// `None` where it is none.
pub fn parse(value: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

impl Default for DateCache {
    fn default() -> Self {
        Self::new()
    }
}

/// 9999-12-31 23:59:59, the last second with a four-digit year.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_imf_fixdates_whatever_the_clock_says() {
        let mut cache = DateCache::new();
        let cases: [(u64, &[u8]); 3] = [
            (0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, b"Sun, 06 Nov 1994 08:49:37 GMT"),
            (400_000_000_000, b"Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (now, expected) in cases {
            assert_eq!(cache.get(now), expected);
            assert_eq!(cache.get(now), expected, "the cached value is the same");
        }
    }

    #[test]
    fn every_form_of_a_date_is_read() {
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(date.as_bytes()), Some(784_111_777), "{date}");
        }
        for wrong in ["", "now", "784111777", "Sun, 06 Nov 1994 08:49:37 CET"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
