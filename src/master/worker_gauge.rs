//! The number of workers as the log and statsd tell it.
//!
//! Only workers that the serving generation should keep count: not those of a reload that may still
//! fail, nor those on their way out.

use log::debug;

use crate::service::Service;

use super::standing::Standing;

/// The number that was told last.
#[derive(Default)]
pub(super) struct WorkerGauge {
    told: usize,
}

impl WorkerGauge {
    /// Tells the number of workers of the generation `number`, if it is another than before.
    pub fn tell(&mut self, service: &Service, number: u64, workers: &[Standing]) {
        if let Some(count) = self.changed(number, workers) {
            let text = format!("{count} workers");
            if !service.hooks.metric(&text, "gunicorn.workers", count as u64, "gauge") {
                debug!("{text}");
            }
        }
    }

    /// The number that was told last.
    pub fn count(&self) -> usize {
        self.told
    }

    fn changed(&mut self, number: u64, workers: &[Standing]) -> Option<usize> {
        let count = workers.iter().filter(|worker| worker.counts_for(number)).count();
        let before = std::mem::replace(&mut self.told, count);
        (before != count).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::scoreboard::WorkerPhase;

    use super::super::standing::Fate;
    use super::*;

    fn workers(generation: u64, fates: &[Fate]) -> Vec<Standing> {
        fates.iter().map(|&fate| Standing { generation, slot: 0, fate, phase: WorkerPhase::Ready }).collect()
    }

    #[test]
    fn workers_of_a_candidate_and_those_that_end_do_not_count() {
        let (serving, stopping) = (Fate::Serving, Fate::Stopping { until: Instant::now() });
        let mut gauge = WorkerGauge::default();
        assert_eq!(gauge.changed(1, &workers(1, &[serving, serving])), Some(2));
        let both = [workers(1, &[serving, serving]), workers(2, &[serving, serving])].concat();
        assert_eq!(gauge.changed(1, &both), None, "a candidate boots");
        let after = [workers(1, &[stopping, stopping]), workers(2, &[serving, serving])].concat();
        assert_eq!(gauge.changed(2, &after), None, "it has taken over");
        assert_eq!(gauge.changed(2, &workers(2, &[serving, stopping])), Some(1));
    }
}
