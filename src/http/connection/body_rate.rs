//! How fast a request body comes in, and until when its next bytes must be there.

use std::time::{Duration, Instant};

use super::Http1Limits;

/// One body's arrival.
#[derive(Debug)]
pub struct BodyRate {
    /// When the body began; moved forward by the time in which nobody waited for it.
    began: Instant,
    received: u64,
    /// When its last bytes came.
    arrived: Instant,
    paused_at: Option<Instant>,
}

impl BodyRate {
    /// A body whose head has just ended.
    pub fn begin(now: Instant) -> Self {
        BodyRate { began: now, received: 0, arrived: now, paused_at: None }
    }

    /// Body bytes have come.
    pub fn add(&mut self, count: usize, now: Instant) {
        self.received += count as u64;
        self.arrived = now;
    }

    /// The application has what came so far, and takes its time with it.
    pub fn pause(&mut self, now: Instant) {
        self.paused_at.get_or_insert(now);
    }

    /// The application waits for more. The time since [`BodyRate::pause`] does not count against
    /// the client.
    pub fn resume(&mut self, now: Instant) {
        if let Some(since) = self.paused_at.take() {
            self.began += now.saturating_duration_since(since);
        }
    }

    /// When the body began, plus the time in which nobody waited for it.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Until when the bytes that have come suffice at `body_min_rate`, or at 1 byte a second where
    /// that is 0.
    pub fn sufficed_until(&self, limits: &Http1Limits) -> Instant {
        self.began + Duration::from_secs((self.received / limits.body_min_rate.max(1)).min(u64::from(u32::MAX)))
    }

    /// Whether no bytes have come for `patience`, or they come more slowly than is permitted on
    /// average. The average is judged once `patience` has passed since the beginning.
    pub fn is_slow(&self, now: Instant, patience: Duration, limits: &Http1Limits) -> bool {
        now >= self.arrived + patience || now >= self.sufficed_until(limits).max(self.began + patience)
    }

    /// When the wait that begins now ends: when the pause is too long, or the average rate too low.
    pub fn deadline(&self, now: Instant, limits: &Http1Limits) -> Instant {
        let pause_ends = now + limits.body_timeout;
        let Some(earned) = self.received.checked_div(limits.body_min_rate) else { return pause_ends };
        // More than a century of credit is as good as any.
        let earned = Duration::from_secs(earned.min(u64::from(u32::MAX)));
        pause_ends.min(self.began + limits.body_timeout + earned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::connection::ClientProtocol;
    use crate::http::policy::Policy;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn limits(rate: u64) -> Http1Limits {
        Http1Limits {
            protocol: ClientProtocol::Http,
            policy: Policy::default(),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            body_min_rate: rate,
            body_buffer: 0,
            limit_request_body: None,
            proxy_mode: None,
            requires_proxy_header: false,
        }
    }

    #[test]
    fn bytes_earn_time_up_to_the_longest_pause() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut body_rate = BodyRate::begin(start);
        assert_eq!(body_rate.deadline(at(0), &limits(100)), at(10));
        body_rate.add(500, at(1));
        assert_eq!(body_rate.deadline(at(1), &limits(100)), at(11), "the pause is what ends first");
        assert_eq!(body_rate.deadline(at(9), &limits(100)), at(15), "the rate is what ends first");
        assert_eq!(body_rate.deadline(at(9), &limits(0)), at(19), "any rate will do");
    }

    #[test]
    fn slow_is_what_stands_still_or_has_come_at_too_low_a_rate() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut body_rate = BodyRate::begin(start);
        body_rate.add(1, at(1));
        assert!(!body_rate.is_slow(at(1), PATIENCE, &limits(100)), "it has only just begun");
        body_rate.add(1, at(2));
        assert!(body_rate.is_slow(at(2), PATIENCE, &limits(100)), "two bytes in two seconds");
        body_rate.add(10_000, at(3));
        assert!(!body_rate.is_slow(at(4), PATIENCE, &limits(100)));
        assert!(body_rate.is_slow(at(5), PATIENCE, &limits(100)), "it stands still");
    }

    #[test]
    fn the_time_an_application_takes_is_not_the_clients() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut body_rate = BodyRate::begin(start);
        body_rate.pause(at(1));
        body_rate.pause(at(20));
        body_rate.resume(at(101));
        assert_eq!(body_rate.deadline(at(101), &limits(100)), at(110));
    }
}
