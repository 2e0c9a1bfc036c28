//! `statsd_interval`: the master tells statsd what the scoreboard says, every so many seconds.
//!
//! A request then costs nothing for the metrics of requests, statuses and durations, and no line
//! goes through Python.

use std::time::{Duration, Instant};

use log::warn;

use crate::logging;
use crate::metrics::statsd::{Gauges, LogLines, Statsd, StatsdTerms, Totals};
use crate::scoreboard::Scoreboard;
use crate::service::Service;
use crate::settings::Config;

/// Between two lines in the log about an agent that is away.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What statsd was told, and the way to its agent.
#[derive(Default)]
pub(super) struct StatsdReport {
    last: Option<Instant>,
    told: Totals,
    /// Log lines of the master's own.
    own_lines: LogLines,
    agent: Option<Statsd>,
    complained: Option<Instant>,
}

impl StatsdReport {
    /// Reports from now on. What the board has counted so far, earlier programs have told.
    pub fn since(board: &Scoreboard) -> StatsdReport {
        StatsdReport { told: Totals::read(board, LogLines::default()), ..StatsdReport::default() }
    }

    /// Leaves out what was counted since the last report: another master has told it.
    pub fn skip(&mut self, board: &Scoreboard) {
        self.told = Totals::read(board, self.own_lines);
    }

    /// Tells statsd, once in an interval, if the settings ask for it.
    pub fn send_when_due(&mut self, service: &Service, board: &Scoreboard, workers: usize, now: Instant) {
        if self.deadline(service, now).is_some_and(|due| due <= now) {
            self.send(service, board, workers, now);
        }
    }

    /// When the next report is due, if the settings ask for any.
    pub fn deadline(&self, service: &Service, now: Instant) -> Option<Instant> {
        let interval = Duration::from_secs(service.config.statsd_interval);
        service.config.pushes_to_statsd().then(|| self.last.map_or(now, |last| last + interval))
    }

    /// Tells what was counted since the last report, at the end of an interval or of the server.
    pub fn send(&mut self, service: &Service, board: &Scoreboard, workers: usize, now: Instant) {
        if !service.config.pushes_to_statsd() {
            return;
        }
        self.last = Some(now);
        let lines = logging::take_line_counts();
        self.own_lines.iter_mut().zip(lines).for_each(|(all, more)| *all += more);
        let waiting = || service.listeners.iter().filter_map(|listener| listener.waiting()).map(u64::from).sum();
        let backlog = service.config.enable_backlog_metric.then(waiting);
        let gauges = Gauges { workers: workers as u64, backlog };
        let totals = Totals::read(board, self.own_lines);
        let terms = terms(&service.config);
        // The settings, or the agent's address, may have changed.
        let agent = match self.agent.take().filter(|agent| *agent.terms() == terms) {
            Some(agent) => Ok(agent),
            None => Statsd::connect(terms),
        };
        let sent = agent.and_then(|agent| agent.report(board, &self.told, &totals, gauges).map(|()| agent));
        // An agent that was away is not told later what it has missed: those counts belong to a
        // time that has passed.
        self.told = totals;
        match sent {
            Ok(agent) => self.agent = Some(agent),
            Err(error) => self.complain(&error, now),
        }
    }

    fn complain(&mut self, error: &std::io::Error, now: Instant) {
        if self.complained.is_none_or(|last| now >= last + COMPLAIN_EVERY) {
            self.complained = Some(now);
            warn!("Error sending message to statsd: {error}");
        }
    }
}

fn terms(config: &Config) -> StatsdTerms {
    StatsdTerms {
        address: config.statsd_host.clone().unwrap_or_default(),
        prefix: config.statsd_prefix.clone(),
        tags: config.dogstatsd_tags.clone(),
    }
}
