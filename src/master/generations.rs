//! The generation that serves, and the one that a reload has called.
//!
//! The module owns the decisions of a reload that rest on these two alone; `reload` carries them
//! out.

use std::time::Instant;

use crate::python::app::App;
use crate::service::Service;

use super::generation::Generation;
use super::plan::free_slot;
use super::standing::Standing;
use super::young_deaths::YoungDeaths;

/// The number of the generation that the start calls. Workers adopted from before an upgrade in
/// place are older.
const FIRST: u64 = 1;

pub(super) struct Generations {
    /// The application, if the start has loaded it: all generations fork from it.
    pub preloaded: Option<App>,
    /// Whether the start was to load the application. Only another program replaces its modules,
    /// even if the load failed.
    pub loads_in_master: bool,
    /// The generation that serves, and is kept at its count.
    pub serving: Generation,
    /// The generation that a HUP has called, until it takes over or fails.
    pub candidate: Option<Generation>,
    /// How many generations were called so far, failed ones included.
    called: u64,
    /// A HUP waits for its turn. Any number of them count as one.
    reload_wanted: bool,
    /// Workers that served and died young, of whatever generation.
    pub young_deaths: YoungDeaths,
}

impl Generations {
    /// The first generation, which serves.
    pub fn new(service: Service, preloaded: Option<App>, wanted: usize) -> Generations {
        let loads_in_master = service.config.preload_app;
        let serving = Generation::new(FIRST, service, wanted);
        Generations {
            preloaded,
            loads_in_master,
            serving,
            candidate: None,
            called: FIRST,
            reload_wanted: false,
            young_deaths: YoungDeaths::default(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Generation> {
        [Some(&self.serving), self.candidate.as_ref()].into_iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Generation> {
        [Some(&mut self.serving), self.candidate.as_mut()].into_iter().flatten()
    }

    pub fn get(&self, number: u64) -> Option<&Generation> {
        self.iter().find(|generation| generation.number == number)
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut Generation> {
        self.iter_mut().find(|generation| generation.number == number)
    }

    pub fn is_candidate(&self, number: u64) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| candidate.number == number)
    }

    /// Makes the next generation, which has no worker yet. Its number is not used again, even if
    /// the generation fails.
    pub fn call(&mut self, service: Service, wanted: usize) -> Generation {
        self.called += 1;
        Generation::new(self.called, service, wanted)
    }

    /// Changes how many workers there should be. A candidate inherits the change, because it is
    /// about to take over.
    pub fn change_wanted(&mut self, change: impl Fn(usize) -> usize) {
        for generation in self.iter_mut() {
            generation.wanted = change(generation.wanted);
            generation.floor = change(generation.floor);
        }
    }

    /// A HUP has come.
    pub fn want_reload(&mut self) {
        self.reload_wanted = true;
    }

    /// Whether a HUP waits.
    pub fn is_reload_wanted(&self) -> bool {
        self.reload_wanted
    }

    /// Takes the HUP that waits, unless a candidate is in its way. Returns whether there was one.
    pub fn take_reload(&mut self) -> bool {
        self.candidate.is_none() && std::mem::take(&mut self.reload_wanted)
    }

    /// Whether a HUP waits behind a candidate that has been booting for longer than `timeout`.
    pub fn is_candidate_hopeless(&self, now: Instant) -> bool {
        self.reload_deadline().is_some_and(|until| until <= now)
    }

    /// When the master must look at a waiting HUP again.
    pub fn reload_deadline(&self) -> Option<Instant> {
        self.candidate.as_ref().filter(|_| self.reload_wanted)?.hopeless_at()
    }

    /// Makes the candidate the generation that serves, if enough of its workers do. Returns the one
    /// before.
    pub fn promote_when_ready(&mut self, workers: &[Standing]) -> Option<Generation> {
        let candidate = self.candidate.take_if(|candidate| candidate.target().is_ready(workers))?;
        Some(std::mem::replace(&mut self.serving, candidate))
    }

    /// A generation that lacks a worker and may fork one now, and the slot of that worker.
    pub fn next_vacancy(&self, workers: &[Standing], now: Instant) -> Option<(&Generation, usize)> {
        if self.young_deaths.until(now).is_some() {
            return None;
        }
        let has_vacancy = |generation: &&Generation| {
            generation.target().has_vacancy(self.serving.number, workers) && generation.backoff.until(now).is_none()
        };
        let lacking = self.iter().find(has_vacancy)?;
        Some((lacking, free_slot(lacking.number, workers)))
    }

    /// When a generation that waits after a failed boot may fork again.
    pub fn backoff_deadline(&self, now: Instant) -> Option<Instant> {
        let backoffs = self.iter().filter_map(|generation| generation.backoff.until(now));
        backoffs.chain(self.young_deaths.until(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::python::hooks::Hooks;
    use crate::scoreboard::WorkerPhase;
    use crate::settings::Config;

    use super::super::standing::Fate;
    use super::*;

    fn service(timeout: u64) -> Service {
        let config = Arc::new(Config { timeout, ..Config::default() });
        Service { config, hooks: Hooks::default(), listeners: Vec::new(), metrics: None, tls: None }
    }

    /// A generation of two workers that serves, and a candidate of two.
    fn reloading() -> Generations {
        let mut generations = Generations::new(service(30), None, 2);
        generations.candidate = Some(generations.call(service(30), 2));
        generations
    }

    fn serving(generation: u64, count: usize) -> Vec<Standing> {
        let one = |slot| Standing { generation, slot, fate: Fate::Serving, phase: WorkerPhase::Ready };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_candidate_takes_over_when_all_of_it_serves() {
        let mut generations = reloading();
        assert!(generations.promote_when_ready(&serving(2, 1)).is_none());
        assert!(generations.is_candidate(2));
        let old = generations.promote_when_ready(&serving(2, 2)).expect("two of two serve");
        assert_eq!((old.number, generations.serving.number, generations.candidate.is_some()), (1, 2, false));
    }

    #[test]
    fn a_number_is_not_used_again_after_a_failed_reload() {
        let mut generations = reloading();
        generations.candidate = None;
        assert_eq!(generations.call(service(30), 2).number, 3);
    }

    #[test]
    fn any_number_of_hups_wait_as_one_until_the_candidate_is_settled() {
        let mut generations = reloading();
        generations.want_reload();
        generations.want_reload();
        assert!(!generations.take_reload(), "a candidate boots");
        generations.candidate = None;
        assert!(generations.take_reload());
        assert!(!generations.take_reload());
    }

    #[test]
    fn a_candidate_is_hopeless_only_for_a_hup_that_waits() {
        let mut generations = reloading();
        let since = generations.candidate.as_ref().unwrap().since;
        let late = since + Duration::from_secs(31);
        assert!(!generations.is_candidate_hopeless(late));
        assert_eq!(generations.reload_deadline(), None);
        generations.want_reload();
        assert_eq!(generations.reload_deadline(), Some(since + Duration::from_secs(30)));
        assert!(generations.is_candidate_hopeless(late) && !generations.is_candidate_hopeless(since));
        generations.candidate = Some(generations.call(service(0), 2));
        assert!(!generations.is_candidate_hopeless(late), "no timeout");
    }

    #[test]
    fn the_count_changes_in_both_generations() {
        let mut generations = reloading();
        generations.change_wanted(|count| count + 1);
        assert_eq!(generations.iter().map(|it| it.wanted).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn the_serving_generation_is_filled_first_and_a_backoff_lets_the_other_pass() {
        let (mut generations, now) = (reloading(), Instant::now());
        let next = |generations: &Generations, workers: &[Standing]| {
            generations.next_vacancy(workers, now).map(|(generation, slot)| (generation.number, slot))
        };
        assert_eq!(next(&generations, &serving(1, 1)), Some((1, 1)));
        assert_eq!(next(&generations, &serving(1, 2)), Some((2, 0)));
        generations.serving.backoff.failed(now);
        assert_eq!(next(&generations, &serving(1, 1)), Some((2, 0)));
        assert_eq!(generations.backoff_deadline(now), generations.serving.backoff.until(now));
        assert_eq!(next(&generations, &[serving(1, 2), serving(2, 2)].concat()), None);
    }
}
