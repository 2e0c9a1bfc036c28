//! How many workers to fork, and which to stop: decisions over copies of what is known of the
//! workers.
//!
//! It must not know processes, signals or clocks, so that each rule is a test over a few lines of
//! data. Workers are given oldest first.

use super::standing::{Fate, Standing};

/// How many workers a generation should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// The generation's number.
    pub generation: u64,
    /// The count in the long run.
    pub wanted: usize,
    /// How many workers beyond `wanted` there may be while the generation replaces an older one
    /// (`reload_surge`). Equal to `wanted` if the generation takes over all at once.
    pub surge: usize,
}

impl Target {
    /// Whether the generation boots whole beside the old one, and takes over all at once.
    pub fn takes_over_whole(&self) -> bool {
        self.surge == self.wanted
    }

    /// Whether the generation lacks a worker. `serving` is the number of the generation that
    /// serves.
    pub fn has_vacancy(&self, serving: u64, workers: &[Standing]) -> bool {
        let present = workers.iter().filter(|worker| worker.counts_for(self.generation)).count();
        present < self.places(serving, workers)
    }

    /// How many workers the generation may have now. With `reload_surge` a candidate boots its
    /// first batch only, and the workers after those wait until old ones have made room.
    fn places(&self, serving: u64, workers: &[Standing]) -> usize {
        if self.takes_over_whole() {
            return self.wanted;
        }
        if self.generation != serving {
            return self.surge;
        }
        match workers.iter().filter(|worker| worker.generation < self.generation).count() {
            0 => self.wanted,
            older => (self.wanted + self.surge).saturating_sub(older).min(self.wanted),
        }
    }

    /// Whether enough workers of the generation serve for it to take over.
    pub fn is_ready(&self, workers: &[Standing]) -> bool {
        let serves = |worker: &&Standing| worker.generation == self.generation && worker.is_serving();
        workers.iter().filter(serves).count() >= self.surge
    }

    /// The workers to stop because there are too many, by index. First those that have not booted
    /// yet, the youngest first; then those that wait for their replacement; then the oldest, as
    /// gunicorn does. As many stay as should serve. The workers of an older generation count among
    /// these until they are replaced.
    pub fn surplus(&self, workers: &[Standing]) -> Vec<usize> {
        let those = |is_it: &dyn Fn(&Standing) -> bool| -> Vec<usize> {
            (0..workers.len()).filter(|&at| is_it(&workers[at])).collect()
        };
        let counted = those(&|worker| worker.counts_for(self.generation));
        let serving = those(&|worker| worker.is_serving() && worker.generation <= self.generation);
        let booting = counted.iter().rev().filter(|&&at| workers[at].is_booting());
        let booting = booting.take(counted.len().saturating_sub(self.wanted));
        let is_retiring = |at: &&usize| workers[**at].fate == Fate::Retiring;
        let retiring_first = serving.iter().filter(is_retiring).chain(serving.iter().filter(|at| !is_retiring(at)));
        booting.chain(retiring_first.take(serving.len().saturating_sub(self.wanted))).copied().collect()
    }
}

/// The lowest slot that no worker of the generation has, except for workers that wait for their
/// replacement.
pub(super) fn free_slot(generation: u64, workers: &[Standing]) -> usize {
    let is_free = |slot: &usize| !workers.iter().any(|it| it.counts_for(generation) && it.slot == *slot);
    (0..).find(is_free).unwrap_or_default()
}

/// Whether a worker waits for its replacement, or boots. No other worker is recycled meanwhile.
pub(super) fn is_replacing(workers: &[Standing]) -> bool {
    workers.iter().any(|worker| worker.fate == Fate::Retiring || worker.is_booting())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::scoreboard::WorkerPhase;

    use super::*;

    /// One worker a word, oldest first: its generation, and `b`ooting, `s`erving, waiting for its
    /// `r`eplacement, or `d`one with serving. Slots are counted in each generation.
    fn workers(text: &str) -> Vec<Standing> {
        let mut workers: Vec<Standing> = Vec::new();
        for word in text.split_whitespace() {
            let (generation, what) = word.split_at(word.len() - 1);
            let generation = generation.parse().unwrap();
            let (fate, phase) = match what {
                "b" => (Fate::Serving, WorkerPhase::Booting),
                "s" => (Fate::Serving, WorkerPhase::Ready),
                "r" => (Fate::Retiring, WorkerPhase::Ready),
                "d" => (Fate::Stopping { until: Instant::now() }, WorkerPhase::Draining),
                _ => panic!("{word}"),
            };
            let slot = workers.iter().filter(|it| it.counts_for(generation)).count();
            workers.push(Standing { generation, slot, fate, phase });
        }
        workers
    }

    fn target(generation: u64, wanted: usize, surge: usize) -> Target {
        Target { generation, wanted, surge }
    }

    #[test]
    fn missing_workers_are_forked_and_those_that_end_or_wait_for_a_replacement_do_not_count() {
        let cases = [("", true), ("1s", true), ("1s 1b", false), ("1s 1s 1s", false), ("1s 1r", true), ("1s 1d", true)];
        for (text, expected) in cases {
            assert_eq!(target(1, 2, 2).has_vacancy(1, &workers(text)), expected, "{text}");
        }
        assert!(!target(1, 0, 0).has_vacancy(1, &[]), "after WINCH");
    }

    #[test]
    fn a_generation_that_takes_over_whole_boots_beside_the_old_one() {
        assert!(target(2, 3, 3).has_vacancy(1, &workers("1s 1s 1s 2b 2b")));
        assert!(!target(2, 3, 3).has_vacancy(1, &workers("1s 1s 1s 2b 2b 2b")));
    }

    #[test]
    fn with_a_surge_the_candidate_boots_its_first_batch_only() {
        assert!(target(2, 4, 1).has_vacancy(1, &workers("1s 1s 1s 1s")));
        assert!(!target(2, 4, 1).has_vacancy(1, &workers("1s 1s 1s 1s 2b")));
    }

    #[test]
    fn with_a_surge_the_next_workers_wait_until_old_ones_have_gone() {
        let cases = [
            ("1r 1r 1r 1r 2s", false),
            ("1d 1r 1r 1r 2s", false),
            ("1r 1r 1r 2s", true),
            ("1r 1r 1r 2s 2b", false),
            ("1r 2s 2s 2s", true),
            ("2s 2s 2s", true),
            ("2s 2s 2s 2s", false),
        ];
        for (text, expected) in cases {
            assert_eq!(target(2, 4, 1).has_vacancy(2, &workers(text)), expected, "{text}");
        }
    }

    #[test]
    fn a_candidate_is_ready_when_its_first_batch_serves() {
        assert!(!target(2, 2, 2).is_ready(&workers("1s 1s 2s 2b")));
        assert!(target(2, 2, 2).is_ready(&workers("1s 1s 2s 2s")));
        assert!(target(2, 4, 1).is_ready(&workers("1s 1s 1s 1s 2s")));
        assert!(target(2, 0, 0).is_ready(&workers("1s")), "no workers are wanted");
    }

    #[test]
    fn the_surplus_is_the_youngest_that_boots_then_who_waits_then_the_oldest() {
        let cases: [(&str, usize, &[usize]); 11] = [
            ("1s 1s", 2, &[]),
            ("1s 1s 1s", 2, &[0]),
            ("1s 1s 1s", 0, &[0, 1, 2]),
            ("1s 1b 1b", 2, &[2]),
            ("1s 1b 1b", 1, &[2, 1]),
            ("1s 1s 1b", 1, &[2, 0]),
            ("1s 1r 1s", 2, &[1]),
            ("1s 1r 1b", 2, &[]),
            ("0r 0r 1s", 2, &[0]),
            ("1d 1d 1s 1s", 2, &[]),
            ("1s 1s 2b 2b", 2, &[]),
        ];
        for (text, wanted, expected) in cases {
            assert_eq!(target(1, wanted, wanted).surplus(&workers(text)), expected, "{text}, {wanted} wanted");
        }
    }

    #[test]
    fn the_replacement_gets_the_slot_of_the_worker_that_it_replaces() {
        assert_eq!(free_slot(1, &[]), 0);
        assert_eq!(free_slot(1, &workers("1s 1s")), 2);
        assert_eq!(free_slot(2, &workers("1s 1s")), 0, "each generation counts for itself");
        let mut three = workers("1s 1s 1s");
        three[1].fate = Fate::Retiring;
        assert_eq!(free_slot(1, &three), 1);
    }

    #[test]
    fn one_worker_at_a_time_is_recycled() {
        for (text, expected) in [("1s 1s", false), ("1s 1r", true), ("1s 1b", true), ("1s 1d", false)] {
            assert_eq!(is_replacing(&workers(text)), expected, "{text}");
        }
    }
}
