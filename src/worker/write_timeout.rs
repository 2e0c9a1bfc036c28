//! Whether a client still reads its response.

use std::time::Instant;

use super::connection_limits::ConnectionLimits;
use crate::sys::socket::Stream;

/// The wait of a connection whose kernel buffer is full.
///
/// Room in the buffer is no good sign that the client reads: the kernel reports room only when a
/// third of the buffer is free again, which on a slow line can take minutes. So the kernel is also
/// asked how much the client has acknowledged.
#[derive(Default)]
pub struct WriteTimeout {
    since: Option<Instant>,
    undelivered: usize,
}

impl WriteTimeout {
    /// The kernel takes no more for `stream`.
    pub fn begin(&mut self, stream: &Stream, now: Instant) {
        if self.since.is_none() {
            *self = WriteTimeout { since: Some(now), undelivered: stream.undelivered().unwrap_or(0) };
        }
    }

    /// The client has read, or nothing waits for it.
    pub fn end(&mut self) {
        self.since = None;
    }

    /// Since when the client has read nothing, as far as that is known.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether the client has read nothing for longer than it may. To be asked about once a second.
    pub fn has_expired(&mut self, stream: &Stream, limits: &ConnectionLimits, now: Instant) -> bool {
        let Some(since) = self.since else { return false };
        let undelivered = stream.undelivered().unwrap_or(self.undelivered);
        let has_read = undelivered < self.undelivered;
        self.undelivered = undelivered;
        if has_read {
            self.since = Some(now);
        }
        !has_read && now >= since + limits.write_timeout
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::settings::Config;
    use crate::sys::socket::Cork;

    #[test]
    fn a_client_that_reads_anything_at_all_has_its_time_again() {
        let limits = ConnectionLimits::new(&Config { write_timeout: 10, ..Config::default() });
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let stream = Stream::from(OwnedFd::from(ours));
        while stream.write(&[0; 4096], Cork::No).is_ok() {}
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut stall = WriteTimeout::default();
        assert!(!stall.has_expired(&stream, &limits, at(100)), "nothing waits");
        stall.begin(&stream, at(0));
        stall.begin(&stream, at(5));
        assert!(!stall.has_expired(&stream, &limits, at(9)));
        theirs.read_exact(&mut [0; 8192]).unwrap();
        assert!(!stall.has_expired(&stream, &limits, at(10)), "it has read");
        assert!(!stall.has_expired(&stream, &limits, at(19)));
        assert!(stall.has_expired(&stream, &limits, at(20)));
    }
}
