//! When a proxy has sent a request on: `X-Request-Start`, or `X-Queue-Start`.
//!
//! There is no standard. In use are seconds with a fraction, milliseconds and microseconds since
//! the epoch, bare or behind `t=`. Their magnitude tells them apart. Any other value is ignored.

use std::time::Duration;

use super::request::RequestHead;

/// The names, in lower case. Heroku and nginx's users write the first, others the second.
const NAMES: [&[u8]; 2] = [b"x-request-start", b"x-queue-start"];

/// For microseconds, milliseconds and seconds: the least number that is taken for a time, and how
/// many of them a second has. Seconds since the epoch have ten digits from the year 2001 on.
const UNITS: [(f64, f64); 3] = [(1e15, 1e6), (1e12, 1e3), (1e9, 1.0)];

/// A longer wait is ignored: the proxy means something else, or its clock is wrong.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// When the request was sent on, since the epoch, by the first header with such a name.
pub fn find_sent_at(head: &RequestHead, source: &[u8]) -> Option<Duration> {
    let is_it = |name: &[u8]| NAMES.iter().any(|known| name.eq_ignore_ascii_case(known));
    head.headers(source).find(|(name, _)| is_it(name)).and_then(|(_, value)| parse(value))
}

/// How long a request took that was sent at `sent_at` and came at `arrived_at`; `None` for more
/// than an hour. Clocks differ: a request that came before it was sent has not waited.
pub fn wait_since(sent_at: Duration, arrived_at: Duration) -> Option<Duration> {
    Some(arrived_at.saturating_sub(sent_at)).filter(|waited| *waited <= LONGEST_WAIT)
}

fn parse(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim_ascii();
    let number = text.strip_prefix("t=").unwrap_or(text);
    // Rust also reads `inf` and `1e9`.
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    let (_, in_a_second) = UNITS.iter().find(|(least, _)| number >= *least)?;
    Duration::try_from_secs_f64(number / in_a_second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_magnitude_is_the_unit() {
        let at = Duration::from_millis(1_700_000_000_250);
        for text in [
            "t=1700000000.250",
            "1700000000.25",
            "t=1700000000250",
            "1700000000250",
            "t=1700000000250000",
            " 1700000000250 ",
        ] {
            let found = parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            assert!(found.abs_diff(at) < Duration::from_micros(1), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_is_no_time_of_this_century_is_as_if_it_were_not_there() {
        for text in
            ["", "t=", "t=12", "-1700000000", "t=1e12", "inf", "nan", "1700000000 D=5", "17000.000.000", "t=\u{661}"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        // Far too large for a time, and for a number of the processor's.
        assert_eq!(parse("9".repeat(400).as_bytes()), None);
    }

    #[test]
    fn a_wait_is_never_negative_and_not_longer_than_an_hour() {
        let seconds = Duration::from_secs;
        assert_eq!(wait_since(seconds(10), seconds(12)), Some(seconds(2)));
        assert_eq!(wait_since(seconds(12), seconds(10)), Some(Duration::ZERO));
        assert_eq!(wait_since(seconds(1), seconds(3602)), None);
    }
}
