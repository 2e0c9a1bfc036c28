//! `workers = auto` follows the size of its container while the server runs: the kernel says
//! nothing when a limit changes, so the master looks from time to time.

use std::time::{Duration, Instant};

use log::info;

use super::resources::Resources;
use super::worker_count::{found_count, log_found};
use super::{Master, Phase};

/// How often the master looks: a container is resized by a human or by a controller that acts in
/// minutes, and an idle server should sleep.
const INTERVAL: Duration = Duration::from_secs(60);

/// When the master has last looked at the size of its container.
pub(super) struct ResizeWatch {
    last: Instant,
}

impl ResizeWatch {
    /// The start has just looked.
    pub fn new() -> ResizeWatch {
        ResizeWatch { last: Instant::now() }
    }
}

impl Master {
    /// Changes the number of workers if `auto` now finds another one than before. Such a change
    /// overrides TTIN and TTOU, as a reload does; while the size stays, they keep their effect.
    pub(super) fn follow_resize(&mut self) {
        let now = Instant::now();
        if self.resize_deadline().is_none_or(|due| due > now) {
            return;
        }
        self.sizing.resize_watch.last = now;
        let serving = &mut self.generations.serving;
        let config = &serving.service.config;
        let found = Resources::measure(config);
        let Some(before) = serving.found_for.replace(found) else { return };
        let count = found_count(config, found);
        if count == found_count(config, before) {
            return;
        }
        info!("The size of the machine or of its cgroup has changed");
        log_found(config, found);
        self.change_worker_count(|_| count);
    }

    /// When to look next. `None` while a reload is under way, which has looked itself, where no
    /// workers are wanted any more, and before a stop.
    pub(super) fn resize_deadline(&self) -> Option<Instant> {
        let serving = &self.generations.serving;
        let follows = serving.found_for.is_some()
            && serving.wanted > 0
            && self.generations.candidate.is_none()
            && !matches!(self.phase, Phase::Leaving(_));
        follows.then(|| self.sizing.resize_watch.last + INTERVAL)
    }
}
