//! One pool of dirty workers as the master sees it: a dirty arbiter, the folder of its sockets, and
//! the generations whose workers call it.
//!
//! The folder is made once and outlives every arbiter, so the path that a worker has stays good for
//! as long as the worker lives. The socket stays open between two arbiters, unless the pause is
//! long: a worker that connects meanwhile waits. What an arbiter does is known to gunicorn's code
//! alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info, warn};

use crate::python::hooks::Hooks;
use crate::service;
use crate::settings::{self, Config};
use crate::sys::pidfile::PidFile;
use crate::sys::process::{self, End, Pid};
use crate::sys::signal::Signal;
use crate::sys::socket::{BindAddress, BindOptions, Listener};

use super::super::exit_reason::name_of;
use super::super::generation::Backoff;
use super::folder;

/// The socket in the folder.
const SOCKET: &str = "arbiter.sock";

/// Connections that may wait at the socket: more than there are threads in a usual server.
const BACKLOG: u32 = 1024;

/// The permissions that the socket's file lacks: only the workers' user may connect.
const UMASK: u32 = 0o177;

/// If the next arbiter comes later than this, the socket is closed meanwhile: calls fail at once.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// An arbiter that has lived for this long has not died of its settings.
const LONG_LIFE: Duration = Duration::from_secs(10);

/// The time that an arbiter has to end beyond `dirty_graceful_timeout`: it kills its workers, and
/// removes its files.
const TO_CLEAR_UP: Duration = Duration::from_secs(1);

/// Settings that an arbiter gets only at its start. A reload that changes none of them keeps the
/// arbiter, and so the tables of its stash.
const OF_ARBITER: &[&str] = &[
    "dirty_apps",
    "dirty_workers",
    "dirty_timeout",
    "dirty_threads",
    "dirty_graceful_timeout",
    "on_dirty_starting",
    "dirty_post_fork",
    "dirty_worker_init",
    "dirty_worker_exit",
    "chdir",
    "pythonpath",
    "raw_env",
    "user",
    "group",
    "initgroups",
    "umask",
    "worker_tmp_dir",
    "proc_name",
    "errorlog",
    "loglevel",
    "log_format",
    "capture_output",
    "logger_class",
    "logconfig",
    "logconfig_dict",
    "logconfig_json",
    "syslog",
    "syslog_addr",
    "syslog_prefix",
    "syslog_facility",
    "syslog_format",
];

pub(super) struct Pool {
    /// The generations whose workers call the arbiter.
    users: Vec<u64>,
    config: Arc<Config>,
    hooks: Hooks,
    folder: PathBuf,
    /// Where arbiters listen.
    listener: Option<Listener>,
    /// Where gunicorn's arbiter writes its pid.
    pid_file: PathBuf,
    stage: ArbiterStage,
    backoff: Backoff,
}

/// The arbiter of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArbiterStage {
    /// No arbiter runs. One is forked when the backoff allows it.
    Down,
    Up {
        pid: Pid,
        since: Instant,
    },
    /// The arbiter was told to end, and is killed at this moment.
    Ending {
        pid: Pid,
        until: Instant,
    },
    /// The arbiter has ended, and there will be no other.
    Over,
}

impl Pool {
    /// A pool without an arbiter yet, for the workers of this generation. `is_second` says that an
    /// upgrade has started this master beside another one.
    ///
    /// # Errors
    /// A sentence: its folder cannot be made.
    pub fn new(generation: u64, config: &Arc<Config>, hooks: &Hooks, is_second: bool) -> Result<Pool, String> {
        let folder =
            folder::make(config).map_err(|error| format!("cannot make a folder for dirty workers: {error}"))?;
        Ok(Pool::within(folder, generation, config, hooks, is_second))
    }

    /// A pool of an earlier program in this process: its folder, and its arbiter.
    pub fn adopted(folder: PathBuf, pid: Pid, generation: u64, config: &Arc<Config>, hooks: &Hooks) -> Pool {
        let stage = ArbiterStage::Up { pid, since: Instant::now() };
        Pool { stage, ..Pool::within(folder, generation, config, hooks, false) }
    }

    fn within(folder: PathBuf, generation: u64, config: &Arc<Config>, hooks: &Hooks, is_second: bool) -> Pool {
        Pool {
            users: vec![generation],
            config: Arc::clone(config),
            hooks: hooks.clone(),
            folder,
            listener: None,
            pid_file: std::env::temp_dir().join(folder::pid_file_name(config.name(), is_second)),
            stage: ArbiterStage::Down,
            backoff: Backoff::Ready,
        }
    }

    /// Whether these settings need another arbiter.
    pub fn differs(&self, config: &Config) -> bool {
        OF_ARBITER.iter().any(|name| {
            settings::find(name).is_some_and(|setting| setting.value_in(config) != setting.value_in(&self.config))
        })
    }

    pub fn serves(&self, generation: u64) -> bool {
        self.users.contains(&generation)
    }

    pub fn add_user(&mut self, generation: u64) {
        self.users.push(generation);
    }

    pub fn remove_user(&mut self, generation: u64) {
        self.users.retain(|&user| user != generation);
    }

    /// A generation that uses this pool has taken over: later arbiters get its settings. Returns
    /// whether another generation uses the pool too, so that the running arbiter has to reload.
    pub fn take_over(&mut self, config: &Arc<Config>, hooks: &Hooks) -> bool {
        (self.config, self.hooks) = (Arc::clone(config), hooks.clone());
        self.users.len() > 1
    }

    /// Forgets the generations that do not need the pool any more.
    pub fn keep_users(&mut self, is_there: impl Fn(u64) -> bool) {
        self.users.retain(|&user| is_there(user));
    }

    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn pid_file(&self) -> &Path {
        &self.pid_file
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    /// Its arbiter, if one runs.
    pub fn pid(&self) -> Option<Pid> {
        match self.stage {
            ArbiterStage::Up { pid, .. } | ArbiterStage::Ending { pid, .. } => Some(pid),
            ArbiterStage::Down | ArbiterStage::Over => None,
        }
    }

    pub fn is_over(&self) -> bool {
        self.stage == ArbiterStage::Over
    }

    /// Whether an arbiter is to be forked now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.stage == ArbiterStage::Down && !self.users.is_empty() && self.backoff.until(now).is_none()
    }

    /// Opens the socket, unless it is open.
    ///
    /// # Errors
    /// Those of bind(2).
    pub fn listen(&mut self) -> io::Result<()> {
        if self.listener.is_none() {
            let options = BindOptions { backlog: BACKLOG, umask: UMASK, owner: self.owner()?, reuse_port: false };
            self.listener = Some(Listener::bind(&BindAddress::Unix(self.socket()), options)?);
        }
        Ok(())
    }

    /// In a new arbiter: the socket.
    pub fn take_listener(&mut self) -> Option<Listener> {
        self.listener.take()
    }

    fn owner(&self) -> io::Result<Option<(u32, u32)>> {
        let owner = service::identity(&self.config).map_err(|error| io::Error::other(error.to_string()))?;
        Ok((self.config.user.is_some() || self.config.group.is_some()).then_some(owner))
    }

    /// An arbiter was forked.
    pub fn started(&mut self, pid: Pid) {
        debug_assert_eq!(self.stage, ArbiterStage::Down);
        self.stage = ArbiterStage::Up { pid, since: Instant::now() };
        info!("Spawned dirty arbiter (pid: {pid}) at {}", self.socket().display());
    }

    /// No arbiter could be forked.
    pub fn not_started(&mut self, reason: &io::Error) {
        error!("Can't fork a dirty arbiter: {reason}");
        self.backoff.failed(Instant::now());
    }

    /// Sends a signal to the arbiter, if one runs.
    pub fn tell(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // The call fails only if the arbiter has just ended, and then the arbiter is reaped
            // soon.
            let _ = process::kill(pid, signal);
        }
    }

    /// Reaps the arbiter, kills it if it is late, and tells it to end if no generation uses the
    /// pool any more.
    pub fn settle(&mut self, now: Instant) {
        if let Some(pid) = self.pid()
            && let Some(end) = process::reap(pid)
        {
            self.ended(pid, end, now);
        }
        if let ArbiterStage::Ending { pid, until } = self.stage
            && until <= now
        {
            error!("Dirty arbiter (pid:{pid}) has not ended in time, and is killed.");
            let _ = process::kill_hard(pid);
            self.stage = ArbiterStage::Ending { pid, until: now + TO_CLEAR_UP };
        }
        if self.users.is_empty() {
            self.stop(Signal::Term, now + self.grace());
        }
    }

    /// Tells the arbiter to end before `until`; no other one follows. TERM lets it finish its
    /// actions, QUIT does not. An arbiter that was told before is told again by QUIT only.
    pub fn stop(&mut self, signal: Signal, until: Instant) {
        self.users.clear();
        match self.stage {
            ArbiterStage::Down => self.over(),
            ArbiterStage::Up { pid, .. } => {
                self.tell(signal);
                self.stage = ArbiterStage::Ending { pid, until };
            }
            ArbiterStage::Ending { pid, until: before } if signal == Signal::Quit => {
                self.tell(signal);
                self.stage = ArbiterStage::Ending { pid, until: until.min(before) };
            }
            ArbiterStage::Ending { .. } | ArbiterStage::Over => {}
        }
    }

    /// How long an arbiter may take to end.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.config.dirty.graceful_timeout) + TO_CLEAR_UP
    }

    /// When the master must look at the pool though nothing has happened.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            ArbiterStage::Down => self.backoff.until(now),
            ArbiterStage::Ending { until, .. } => Some(until),
            ArbiterStage::Up { .. } | ArbiterStage::Over => None,
        }
    }

    fn ended(&mut self, pid: Pid, end: End, now: Instant) {
        match end {
            End::Exited(0) => info!("Dirty arbiter (pid:{pid}) exited"),
            End::Exited(code) => error!("Dirty arbiter (pid:{pid}) exited with code {code}"),
            End::Killed(number) => warn!("Dirty arbiter (pid:{pid}) was sent {}!", name_of(number)),
        }
        self.remove_pid_file(pid);
        match self.stage {
            ArbiterStage::Up { since, .. } if !self.users.is_empty() => {
                if now.saturating_duration_since(since) >= LONG_LIFE {
                    self.backoff.succeeded();
                }
                self.backoff.failed(now);
                self.stage = ArbiterStage::Down;
                if self.backoff.until(now).is_some_and(|until| until > now + LONG_PAUSE) {
                    self.stop_listening();
                }
            }
            _ => self.over(),
        }
    }

    /// Removes the pid file of an arbiter, which a killed one leaves behind.
    fn remove_pid_file(&self, pid: Pid) {
        if let Some(file) = PidFile::held(&self.pid_file, pid) {
            file.remove();
        }
    }

    fn stop_listening(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.unlink();
        }
    }

    fn over(&mut self) {
        self.stage = ArbiterStage::Over;
        self.listener = None;
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            warn!("Cannot remove the folder of the dirty workers, {}: {error}", self.folder.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of which no arbiter exists: kill(2) and waitpid(2) answer ESRCH and ECHILD for this
    /// pid, which is above the kernel's limit (PID_MAX_LIMIT, 2^22).
    const NO_PROCESS: Pid = Pid::from_raw(i32::MAX);

    fn pool() -> Pool {
        let mut pool = Pool::new(1, &Arc::new(Config::default()), &Hooks::default(), false).unwrap();
        pool.started(NO_PROCESS);
        pool
    }

    #[test]
    fn an_arbiter_that_ends_is_followed_by_another_later_each_time() {
        let (mut pool, mut now) = (pool(), Instant::now());
        for milliseconds in [100, 200, 400] {
            pool.settle(now);
            assert!(!pool.is_due(now) && pool.folder().is_dir());
            now += Duration::from_millis(milliseconds);
            assert_eq!(pool.deadline(now - Duration::from_millis(1)), Some(now));
            assert!(pool.is_due(now));
            pool.started(NO_PROCESS);
        }
        pool.settle(now + LONG_LIFE * 2);
        assert_eq!(pool.deadline(now + LONG_LIFE * 2), Some(now + LONG_LIFE * 2 + Duration::from_millis(100)));
        pool.stop(Signal::Term, now);
        assert!(!pool.folder().exists());
    }

    #[test]
    fn a_pool_that_nobody_calls_ends_with_its_folder() {
        let (mut pool, now) = (pool(), Instant::now());
        pool.add_user(2);
        pool.keep_users(|generation| generation == 2);
        assert!(pool.serves(2) && !pool.serves(1));
        pool.remove_user(2);
        pool.stage = ArbiterStage::Ending { pid: NO_PROCESS, until: now };
        pool.settle(now);
        assert!(pool.is_over() && !pool.folder().exists());
    }

    #[test]
    fn only_what_an_arbiter_lives_by_makes_it_another() {
        let mut pool = pool();
        let config = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config
        };
        assert!(!pool.differs(&config(|config| config.timeout = 7)));
        assert!(pool.differs(&config(|config| config.dirty.timeout = 7)));
        assert!(OF_ARBITER.iter().all(|name| settings::find(name).is_some()));
        pool.stop(Signal::Term, Instant::now());
        pool.settle(Instant::now());
        assert!(pool.is_over());
    }
}
