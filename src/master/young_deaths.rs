//! Workers that served and died young, one after another: the pause before the next fork grows, so
//! that an app that kills its workers does not keep the machine busy with forks.

use std::time::{Duration, Instant};

/// A worker that dies later than this after its fork has not died young.
const YOUNG: Duration = Duration::from_secs(10);

/// The first pause; each further one is twice as long. The first death for [`MEMORY`] has none:
/// after a single crash the next worker is forked at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Earlier deaths are forgotten after this long without another one.
const MEMORY: Duration = Duration::from_secs(60);

/// The last worker that died young.
#[derive(Debug, Default)]
pub(super) struct YoungDeaths {
    last: Option<Death>,
}

#[derive(Debug, Clone, Copy)]
struct Death {
    at: Instant,
    pause: Duration,
}

impl YoungDeaths {
    /// Notes a worker that has ended at this `age` without being told to. Returns the pause that
    /// begins with its death, if any. Deaths during a pause are one death.
    pub fn note(&mut self, age: Duration, now: Instant) -> Option<Duration> {
        if age > YOUNG || self.until(now).is_some() {
            return None;
        }
        let pause = match self.last.filter(|last| now < last.at + MEMORY) {
            None => Duration::ZERO,
            Some(last) => (last.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE),
        };
        self.last = Some(Death { at: now, pause });
        (!pause.is_zero()).then_some(pause)
    }

    /// When the next worker may be forked, if not at once.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.last.map(|last| last.at + last.pause).filter(|&until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_from_the_second_death_on() {
        let (mut deaths, mut now) = (YoungDeaths::default(), Instant::now());
        assert_eq!(deaths.note(Duration::ZERO, now), None);
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            assert_eq!(deaths.until(now), None);
            assert_eq!(deaths.note(Duration::from_secs(1), now), Some(Duration::from_millis(expected)));
            assert_eq!(deaths.note(Duration::from_secs(1), now), None, "they die together");
            now = deaths.until(now).unwrap();
        }
    }

    #[test]
    fn who_has_lived_and_what_is_long_ago_do_not_count() {
        let (mut deaths, now) = (YoungDeaths::default(), Instant::now());
        deaths.note(Duration::ZERO, now);
        assert_eq!(deaths.note(YOUNG * 2, now), None);
        assert_eq!(deaths.note(Duration::ZERO, now + MEMORY), None);
        assert_eq!(deaths.until(now + MEMORY), None);
    }
}
