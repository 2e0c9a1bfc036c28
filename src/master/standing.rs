//! Where a worker stands, as plain data: what the master intends with it, and what decisions about
//! it rest on.

use std::time::Instant;

use crate::scoreboard::WorkerPhase;

/// What the master intends with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It counts as one of the workers that its generation should have.
    Serving,
    /// It serves until another worker serves in its place.
    Retiring,
    /// It was told to finish, at the latest at this moment.
    Stopping { until: Instant },
    /// It missed a deadline, and was told to log its stack and end.
    Aborted { until: Instant },
    /// It was killed because it took too long.
    Killed,
    /// It was killed because the master did not want it any longer. Its end is not logged.
    Discarded,
}

impl Fate {
    /// Whether the worker was not told to end yet.
    pub fn is_undecided(self) -> bool {
        matches!(self, Fate::Serving | Fate::Retiring)
    }

    /// When the worker is killed, if it was told to end.
    pub fn kill_at(self) -> Option<Instant> {
        match self {
            Fate::Stopping { until } | Fate::Aborted { until } => Some(until),
            Fate::Serving | Fate::Retiring | Fate::Killed | Fate::Discarded => None,
        }
    }

    /// The fate of a worker that is told to end before `until`. A worker that was aborted or killed
    /// gets no more time.
    pub fn told_to_end(self, until: Instant) -> Fate {
        match self {
            Fate::Serving | Fate::Retiring | Fate::Stopping { .. } => Fate::Stopping { until },
            Fate::Aborted { .. } | Fate::Killed | Fate::Discarded => self,
        }
    }
}

/// A copy of what decisions about a worker rest on, so that one decision sees each worker in one
/// state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub generation: u64,
    pub slot: usize,
    pub fate: Fate,
    pub phase: WorkerPhase,
}

impl Standing {
    pub fn is_booting(&self) -> bool {
        self.phase == WorkerPhase::Booting
    }

    /// Whether the worker answers requests, and may go on doing so.
    pub fn is_serving(&self) -> bool {
        self.fate.is_undecided() && matches!(self.phase, WorkerPhase::Ready | WorkerPhase::Retiring)
    }

    /// Whether the worker is one of those that the generation should have.
    pub fn counts_for(&self, generation: u64) -> bool {
        self.generation == generation && self.fate == Fate::Serving
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_worker_that_was_aborted_or_killed_gets_no_more_time() {
        let now = Instant::now();
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(30));
        for fate in [Fate::Serving, Fate::Retiring, Fate::Stopping { until: soon }] {
            assert_eq!(fate.told_to_end(late), Fate::Stopping { until: late }, "{fate:?}");
        }
        for fate in [Fate::Aborted { until: soon }, Fate::Killed, Fate::Discarded] {
            assert_eq!(fate.told_to_end(late), fate);
        }
    }

    #[test]
    fn only_a_worker_that_was_told_to_end_has_a_time_to_be_killed_at() {
        let at = Instant::now();
        for fate in [Fate::Serving, Fate::Retiring, Fate::Killed, Fate::Discarded] {
            assert_eq!(fate.kill_at(), None, "{fate:?}");
        }
        assert_eq!(Fate::Stopping { until: at }.kill_at(), Some(at));
        assert_eq!(Fate::Aborted { until: at }.kill_at(), Some(at));
    }

    #[test]
    fn a_worker_serves_while_its_phase_and_its_fate_say_so() {
        use WorkerPhase::{Booting, Draining, Ready, Retiring};
        let standing = |fate, phase| Standing { generation: 1, slot: 0, fate, phase };
        for (phase, serves) in [(Booting, false), (Ready, true), (Retiring, true), (Draining, false)] {
            assert_eq!(standing(Fate::Serving, phase).is_serving(), serves, "{phase:?}");
            assert_eq!(standing(Fate::Retiring, phase).is_serving(), serves, "{phase:?}");
            assert!(!standing(Fate::Stopping { until: Instant::now() }, phase).is_serving(), "{phase:?}");
        }
        let retiring = standing(Fate::Retiring, Ready);
        assert!(!retiring.counts_for(1), "its place is free for the worker that replaces it");
    }
}
