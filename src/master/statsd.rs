//! `statsd_interval`: the master tells statsd what the scoreboard says, every so many seconds.
//!
//! A request then costs nothing for the metrics of requests, statuses and durations, and no line
//! goes through Python.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;

use crate::logging;
use crate::metrics::statsd::{Gauges, LogLines, Statsd, StatsdTerms, Totals, needs_name_server};
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
    /// The settings that the agent was looked up for.
    config: Option<Arc<Config>>,
    /// The way to the agent, if it was found.
    agent: Option<Statsd>,
    complained: Option<Instant>,
    /// Whether the settings have asked for no reports when they were last looked at.
    is_off: bool,
}

impl StatsdReport {
    /// Reports from now on. What the board has counted so far counts as told: a program sends a
    /// last report before another follows it. What workers count while that one starts is not told.
    pub fn since(board: &Scoreboard) -> StatsdReport {
        StatsdReport { told: Totals::read(board, LogLines::default()), ..StatsdReport::default() }
    }

    /// Leaves out what was counted since the last report: another master has told it.
    pub fn skip(&mut self, board: &Scoreboard) {
        self.told = Totals::read(board, self.own_lines);
    }

    /// Tells statsd, once in an interval, if the settings ask for it.
    pub fn send_when_due(&mut self, service: &Service, board: &Scoreboard, workers: usize, now: Instant) {
        if self.follow_settings(service, board) && self.deadline(service, now).is_some_and(|due| due <= now) {
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
        if !self.follow_settings(service, board) {
            return;
        }
        self.last = Some(now);
        self.count_own_lines();
        let waiting = || service.listeners.iter().filter_map(|listener| listener.waiting()).map(u64::from).sum();
        let backlog = service.config.enable_backlog_metric.then(waiting);
        let gauges = Gauges { workers: workers as u64, backlog };
        let totals = Totals::read(board, self.own_lines);
        self.find_agent(&service.config, now);
        let sent = self.agent.as_ref().map_or(Ok(()), |agent| agent.report(board, &self.told, &totals, gauges));
        // An agent that was away is not told later what it has missed: those counts belong to a
        // time that has passed.
        self.told = totals;
        if let Err(error) = sent {
            self.complain(&error, now);
            self.look_again();
        }
    }

    /// Returns whether the settings ask for reports. What was counted while they did not is left
    /// out of the first report after that, which is due at once.
    fn follow_settings(&mut self, service: &Service, board: &Scoreboard) -> bool {
        let is_on = service.config.pushes_to_statsd();
        if is_on && self.is_off {
            self.last = None;
            self.count_own_lines();
            self.skip(board);
        }
        self.is_off = !is_on;
        is_on
    }

    fn count_own_lines(&mut self) {
        let lines = logging::take_line_counts();
        self.own_lines.iter_mut().zip(lines).for_each(|(all, more)| *all += more);
    }

    /// Looks the agent up. By a name, once for a start or a reload, as gunicorn does: a name server
    /// that does not answer keeps the master waiting.
    fn find_agent(&mut self, config: &Arc<Config>, now: Instant) {
        if self.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, config)) {
            return;
        }
        self.config = Some(Arc::clone(config));
        self.agent = match Statsd::connect(terms(config)) {
            Ok(agent) => Some(agent),
            Err(error) => {
                self.complain(&error, now);
                None
            }
        };
        if self.agent.is_none() {
            self.look_again();
        }
    }

    /// Has the next report look the agent up anew, if that needs no name server. A new agent has
    /// another socket at the same path.
    fn look_again(&mut self) {
        self.config.take_if(|config| !config.statsd_host.as_deref().is_some_and(needs_name_server));
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
