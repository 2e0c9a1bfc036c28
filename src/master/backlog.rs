//! `enable_backlog_metric`: statsd is told how many connections wait to be accepted.

use std::time::{Duration, Instant};

use crate::service::Service;

/// Between two reports: as often as gunicorn's loop runs.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct BacklogReport {
    last: Option<Instant>,
}

impl BacklogReport {
    /// Tells statsd, once in [`INTERVAL`], if the settings ask for it.
    pub fn send_when_due(&mut self, service: &Service, now: Instant) {
        if self.deadline(service, now).is_none_or(|due| due > now) {
            return;
        }
        self.last = Some(now);
        let waiting: u64 = service.listeners.iter().filter_map(|listener| listener.waiting()).map(u64::from).sum();
        service.hooks.metric("socket backlog", "gunicorn.backlog", waiting, "histogram");
    }

    /// When the next report is due, if the settings ask for any.
    pub fn deadline(&self, service: &Service, now: Instant) -> Option<Instant> {
        let wanted = service.config.enable_backlog_metric && service.hooks.write_logs();
        wanted.then(|| self.last.map_or(now, |last| last + INTERVAL))
    }
}
