//! The deadlines that the master holds a worker to, computed from plain numbers: `timeout`,
//! `request_timeout` and `boot_timeout`.

use std::time::{Duration, Instant};

use crate::settings::{Config, WorkerClass};

use super::standing::Fate;

/// An idle worker sends a heartbeat once a second, so this much silence means nothing.
const BETWEEN_BEATS_MS: u64 = 1000;

/// A deadline that a worker has missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// `timeout`: no sign of life.
    Silent,
    /// `request_timeout`: one request takes too long.
    Request,
    /// `boot_timeout`: loading the app takes too long.
    Boot,
}

/// What a worker's row says, with the master's own notes. Moments are milliseconds of the monotonic
/// clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignsOfLife {
    pub is_booting: bool,
    pub forked_at: u64,
    /// Silence before this moment does not count.
    pub forgiven_at: u64,
    /// The last heartbeat; `None` before the first.
    pub heartbeat: Option<u64>,
    /// When the oldest request in the app began; `None` while there is none.
    pub request_started_at: Option<u64>,
}

/// The settings' limits in seconds; 0 means no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimits {
    boot: u64,
    silence: u64,
    request: u64,
    /// A worker with one thread sends no heartbeat while a request runs.
    has_one_thread: bool,
}

impl TimeLimits {
    pub fn of(config: &Config) -> TimeLimits {
        TimeLimits {
            boot: config.boot_timeout,
            silence: config.timeout,
            // Under gevent the worker ends an overdue request itself, and goes on.
            request: if config.worker_class == WorkerClass::Gevent { 0 } else { config.request_timeout },
            has_one_thread: config.app_threads() == 1,
        }
    }

    /// The deadline that is missed first, and when. Without `boot_timeout` loading the app may take
    /// any time, as gunicorn allows since 22.0.
    pub fn first_missed(&self, signs: &SignsOfLife) -> Option<(u64, Overdue)> {
        let after = |since: u64, seconds: u64| {
            (seconds > 0).then(|| since.max(signs.forgiven_at).saturating_add(seconds.saturating_mul(1000)))
        };
        if signs.is_booting {
            return Some((after(signs.forked_at, self.boot)?, Overdue::Boot));
        }
        let started = signs.request_started_at;
        let silent = signs.heartbeat.and_then(|beat| match started {
            // `timeout` bounds the request exactly. With several threads the heartbeat goes on
            // while a request runs, and its last beat may be nearly a whole interval older than the
            // request.
            Some(started) if self.has_one_thread && beat <= started => after(started, self.silence),
            _ => after(beat + BETWEEN_BEATS_MS, self.silence),
        });
        let silent = silent.map(|at| (at, Overdue::Silent));
        let request = started.and_then(|at| after(at, self.request)).map(|at| (at, Overdue::Request));
        silent.into_iter().chain(request).min_by_key(|&(at, _)| at)
    }

    /// When the master must look again at a worker with this fate, which misses its first deadline
    /// at `overdue_at`. `now` and `now_ms` are the same moment on two clocks.
    pub fn next_look(&self, fate: Fate, overdue_at: Option<u64>, now: Instant, now_ms: u64) -> Option<Instant> {
        // One millisecond more, because a deadline is missed when it is past.
        let overdue = overdue_at
            .and_then(|at| now.checked_add(Duration::from_millis(at.saturating_add(1).saturating_sub(now_ms))));
        // A request that begins does not wake the master, so the master looks again before such a
        // request can be overdue.
        let unseen = (self.request > 0).then(|| now.checked_add(Duration::from_secs(self.request))).flatten();
        let overdue = overdue.into_iter().chain(unseen).min();
        match fate {
            Fate::Serving | Fate::Retiring => overdue,
            Fate::Stopping { until } => Some(overdue.map_or(until, |at| at.min(until))),
            Fate::Aborted { until } => Some(until),
            Fate::Killed | Fate::Discarded => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMITS: TimeLimits = TimeLimits { boot: 0, silence: 0, request: 0, has_one_thread: true };

    const IDLE: SignsOfLife = SignsOfLife {
        is_booting: false,
        forked_at: 1000,
        forgiven_at: 0,
        heartbeat: Some(5000),
        request_started_at: None,
    };

    #[test]
    fn without_limits_no_deadline_is_missed() {
        for signs in
            [IDLE, SignsOfLife { is_booting: true, ..IDLE }, SignsOfLife { request_started_at: Some(1), ..IDLE }]
        {
            assert_eq!(NO_LIMITS.first_missed(&signs), None, "{signs:?}");
        }
    }

    #[test]
    fn only_boot_timeout_bounds_a_boot() {
        let booting = SignsOfLife { is_booting: true, ..IDLE };
        assert_eq!(TimeLimits { silence: 1, request: 1, ..NO_LIMITS }.first_missed(&booting), None);
        assert_eq!(TimeLimits { boot: 3, ..NO_LIMITS }.first_missed(&booting), Some((4000, Overdue::Boot)));
    }

    #[test]
    fn a_request_is_a_sign_of_life_of_a_single_thread_only() {
        let limits = TimeLimits { silence: 2, ..NO_LIMITS };
        let serving = SignsOfLife { request_started_at: Some(5400), ..IDLE };
        assert_eq!(limits.first_missed(&IDLE), Some((8000, Overdue::Silent)));
        assert_eq!(limits.first_missed(&serving), Some((7400, Overdue::Silent)));
        let several = TimeLimits { has_one_thread: false, ..limits };
        assert_eq!(several.first_missed(&serving), Some((8000, Overdue::Silent)));
        let beaten_since = SignsOfLife { heartbeat: Some(5500), ..serving };
        assert_eq!(limits.first_missed(&beaten_since), Some((8500, Overdue::Silent)));
    }

    #[test]
    fn the_first_of_silence_and_request_decides() {
        let serving = SignsOfLife { request_started_at: Some(5400), ..IDLE };
        let limits = TimeLimits { silence: 9, request: 2, ..NO_LIMITS };
        assert_eq!(limits.first_missed(&serving), Some((7400, Overdue::Request)));
        assert_eq!(limits.first_missed(&IDLE), Some((15_000, Overdue::Silent)), "no request, no request_timeout");
    }

    #[test]
    fn a_greenlets_request_may_run_beyond_request_timeout() {
        let config = |worker_class| Config { worker_class, timeout: 0, request_timeout: 2, ..Config::default() };
        let serving = SignsOfLife { request_started_at: Some(5400), ..IDLE };
        assert_eq!(TimeLimits::of(&config(WorkerClass::Gevent)).first_missed(&serving), None);
        let missed = TimeLimits::of(&config(WorkerClass::Sync)).first_missed(&serving);
        assert_eq!(missed, Some((7400, Overdue::Request)));
    }

    #[test]
    fn forgiven_silence_starts_anew() {
        let signs = SignsOfLife { forgiven_at: 60_000, request_started_at: Some(5400), ..IDLE };
        let limits = TimeLimits { silence: 2, request: 1, ..NO_LIMITS };
        assert_eq!(limits.first_missed(&signs), Some((61_000, Overdue::Request)));
    }

    #[test]
    fn limits_without_end_do_not_overflow() {
        let limits = TimeLimits { boot: u64::MAX, silence: u64::MAX, request: u64::MAX, has_one_thread: false };
        let serving = SignsOfLife { request_started_at: Some(5400), ..IDLE };
        assert_eq!(limits.first_missed(&serving), Some((u64::MAX, Overdue::Silent)));
        assert_eq!(limits.next_look(Fate::Serving, None, Instant::now(), 7), None);
    }

    #[test]
    fn the_next_look_is_the_first_of_what_the_fate_leaves_open() {
        let (now, now_ms) = (Instant::now(), 10_000);
        let after = |ms| now + Duration::from_millis(ms);
        let limits = TimeLimits { request: 3, ..NO_LIMITS };
        let (soon, late) = (after(500), after(60_000));
        let look = |limits: TimeLimits, fate, overdue_at| limits.next_look(fate, overdue_at, now, now_ms);
        assert_eq!(look(NO_LIMITS, Fate::Serving, None), None);
        assert_eq!(look(NO_LIMITS, Fate::Retiring, Some(12_000)), Some(after(2001)));
        assert_eq!(look(limits, Fate::Serving, None), Some(after(3000)), "a request may begin unseen");
        assert_eq!(look(limits, Fate::Serving, Some(9000)), Some(now), "a deadline that is past");
        assert_eq!(look(NO_LIMITS, Fate::Stopping { until: soon }, Some(12_000)), Some(soon));
        assert_eq!(look(NO_LIMITS, Fate::Stopping { until: late }, Some(12_000)), Some(after(2001)));
        assert_eq!(look(limits, Fate::Aborted { until: late }, Some(9000)), Some(late), "it is only killed now");
        assert_eq!(look(limits, Fate::Killed, Some(9000)), None);
        assert_eq!(look(limits, Fate::Discarded, Some(9000)), None);
    }
}
