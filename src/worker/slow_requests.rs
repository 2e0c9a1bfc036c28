//! `slow_request`: each request that has run for too long is a line in the log, while it runs.

use std::time::Duration;

use crate::sys::clock::monotonic_ns;

/// Those that the log names already, by their starts.
#[derive(Default)]
pub struct SlowRequests {
    told: Vec<u64>,
}

impl SlowRequests {
    /// Tells of those among the requests in flight, by their starts in nanoseconds of the monotonic
    /// clock, that have run for longer than `limit`.
    pub fn tell(&mut self, in_flight: &[(u64, String)], limit: Duration) {
        let now = monotonic_ns();
        for line in self.new_lines(in_flight, limit, now) {
            log::warn!("{line}");
        }
    }

    fn new_lines(&mut self, in_flight: &[(u64, String)], limit: Duration, now: u64) -> Vec<String> {
        // One that has ended is never told again: its start is in the past.
        self.told.retain(|told| in_flight.iter().any(|(start, _)| start == told));
        let mut lines = Vec::new();
        for (start, request) in in_flight {
            let age = Duration::from_nanos(now.saturating_sub(*start));
            if age >= limit && !self.told.contains(start) {
                self.told.push(*start);
                lines.push(format!("Slow request: {request} has been in the app for {:.1} s", age.as_secs_f64()));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_once_when_it_is_past_the_limit() {
        let (mut slow, limit) = (SlowRequests::default(), Duration::from_secs(2));
        let at = |seconds: u64| seconds * 1_000_000_000;
        let first = (at(10), "GET /a from 1.2.3.4".to_owned());
        assert!(slow.new_lines(std::slice::from_ref(&first), limit, at(11)).is_empty());
        let both = [first, (at(11), "GET /b".to_owned())];
        let said = slow.new_lines(&both, limit, at(12));
        assert_eq!(said, ["Slow request: GET /a from 1.2.3.4 has been in the app for 2.0 s"]);
        assert_eq!(slow.new_lines(&both, limit, at(13)).len(), 1);
        assert!(slow.new_lines(&both, limit, at(14)).is_empty());
        assert!(slow.new_lines(&[], limit, at(15)).is_empty() && slow.told.is_empty());
    }
}
