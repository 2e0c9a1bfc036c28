//! The commands of the control socket: gunicorn's, and a few more. The replies to gunicorn's
//! commands have all its keys under its names, and further ones.

use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use log::info;
use serde_json::{Map, Value, json};

use crate::logging::{self, Level};
use crate::scoreboard::{ExitCause, Scoreboard};
use crate::settings::{Address, Config, WorkerClass};
use crate::sys::clock::{monotonic_ms, unix_time_ms};
use crate::sys::process::Pid;
use crate::sys::signal::Signal;
use crate::sys::socket::{Listener, LocalAddress};

use super::super::dirty::Request;
use super::super::standing::Fate;
use super::super::worker::Worker;
use super::super::worker_count::worker_count;
use super::super::{Departure, Master};
use super::dirty::Question;
use super::stacks::WantedWorkers;
use super::{Awaited, CommandReply, MOST_LOGGED};

const HELP: [(&str, &str); 21] = [
    ("show all", "Show all processes"),
    ("show workers", "Show the workers, and what each is at"),
    ("show requests", "Show the requests that have run for a second or more"),
    ("show dirty", "Show the dirty workers and their apps"),
    ("show config", "Show the settings in force"),
    ("show stats", "Show counts of the server"),
    ("show listeners", "Show the sockets"),
    ("worker add [N]", "Start N more workers (default 1)"),
    ("worker remove [N]", "Stop N workers (default 1)"),
    ("worker kill PID", "Stop the worker with this pid; another takes its place"),
    ("worker stacks PID", "Show where in the code this worker is"),
    ("stacks", "Show where in the code all workers are"),
    ("dirty add [N]", "Start N more dirty workers (default 1)"),
    ("dirty remove [N]", "Stop N dirty workers (default 1)"),
    ("reload [--wait]", "Reload settings and code; with --wait, say how it ended"),
    ("reopen", "Reopen the logs"),
    ("loglevel [LEVEL]", "Give the error log a level until the next reload, or show it"),
    ("drain [off]", "Fail health checks and serve on; take that back"),
    ("upgrade", "Execute the program anew in place, if it would start"),
    ("shutdown [graceful|quick]", "Stop the server"),
    ("help", "Show this"),
];

/// Dirty workers that one command starts or stops; an arbiter has its own limit for all of them.
const MOST_AT_ONCE: i64 = 1 << 20;

type Answered = Result<Value, String>;

impl Master {
    /// Carries out the command, for the client that the log names as `peer`. Sets `departure` if
    /// the master is to leave its loop.
    pub(super) fn command(
        &mut self,
        words: &[String],
        peer: &str,
        departure: &mut ControlFlow<Departure>,
    ) -> CommandReply {
        let word = |at: usize| words.get(at).map(|word| word.to_lowercase()).unwrap_or_default();
        let rest = words.get(2..).unwrap_or_default();
        let note = is_change(&word(0), &word(1)).then(|| noted(words, peer));
        if word(0) == "loglevel" {
            return CommandReply::Now(self.log_level_command(&word(1), note));
        }
        if let Some(note) = note {
            info!("{note}");
        }
        CommandReply::Now(match word(0).as_str() {
            "show" if word(1) == "all" => return self.ask_dirty(Question::ShowAll),
            "show" if word(1) == "dirty" => return self.ask_dirty(Question::ShowDirty),
            "" => Err("Empty command".to_owned()),
            "show" => self.show_command(&word(1)),
            "stacks" => return CommandReply::Later(Awaited::Turn(WantedWorkers::All)),
            "worker" if word(1) == "stacks" => match self.worker_to_ask(rest) {
                Ok(Ok(wanted)) => return CommandReply::Later(Awaited::Turn(wanted)),
                Ok(Err(not_found)) => Ok(not_found),
                Err(error) => Err(error),
            },
            "worker" => self.worker_command(&word(1), rest),
            "dirty" => match dirty_command(&word(1), rest) {
                Ok(request) => return self.ask_dirty(Question::Change(request)),
                Err(error) => Err(error),
            },
            "reload" | "drain" | "upgrade" | "shutdown" if !takes(words) => {
                Err(format!("Invalid argument: Unknown argument: {}", words[1..].join(" ")))
            }
            "reload" => {
                let is_under_way = self.generations.candidate.is_some() || self.upgrade.tries_reload();
                // HUP does not end the master.
                let _ = self.handle(Signal::Hup);
                if word(1) == "--wait" {
                    return CommandReply::Later(Awaited::Reload { before: is_under_way.into() });
                }
                Ok(json!({"status": "reloading"}))
            }
            "reopen" => {
                self.reopen_logs();
                Ok(json!({"status": "reopening"}))
            }
            "drain" => {
                let is_on = word(1) != "off";
                self.workers.announce_drain(is_on);
                Ok(json!({"status": if is_on { "draining" } else { "serving" }}))
            }
            "upgrade" => {
                self.check_before_upgrade_in_place();
                Ok(json!({"status": "upgrading"}))
            }
            "shutdown" => {
                let mode = words.get(1).map_or("graceful", String::as_str);
                *departure = self.handle(if mode == "quick" { Signal::Int } else { Signal::Term });
                Ok(json!({"status": "shutting_down", "mode": mode}))
            }
            "help" => Ok(
                json!({"commands": HELP.iter().map(|(name, does)| ((*name).to_owned(), json!(does))).collect::<Map<_, _>>()}),
            ),
            other => Err(format!("Invalid argument: Unknown command: {other}")),
        })
    }

    fn show_command(&self, target: &str) -> Answered {
        match target {
            "workers" => {
                let workers: Vec<Value> = self.by_age().into_iter().map(worker_in_full).collect();
                Ok(json!({"count": workers.len(), "workers": workers}))
            }
            "requests" => Ok(self.show_requests()),
            "config" => Ok(config(&self.generations.serving.service.config)),
            "stats" => Ok(self.show_stats()),
            "listeners" => Ok(self.show_listeners()),
            "" => Err("Invalid argument: Missing show target (all|workers|dirty|config|stats|listeners)".to_owned()),
            other => Err(format!("Invalid argument: Unknown show target: {other}")),
        }
    }

    fn show_stats(&self) -> Value {
        let board = self.workers.scoreboard();
        let exits = |causes: &[ExitCause]| causes.iter().map(|&cause| board.exits(cause)).sum::<u64>();
        let (ok, failed) = board.reloads();
        json!({
            "uptime": unix_time_ms().saturating_sub(board.started_at_ms()) as f64 / 1000.0,
            "pid": self.identity.pid.as_raw(),
            "workers_current": self.workers.len(),
            "workers_target": self.generations.serving.wanted,
            "workers_spawned": self.workers.forked(),
            "workers_killed": exits(&[ExitCause::Timeout, ExitCause::RequestTimeout, ExitCause::OutOfMemory, ExitCause::Killed, ExitCause::Crash]),
            "reloads": ok + failed,
            "dirty_arbiter_pid": self.dirty_arbiter().map(Pid::as_raw),
            "reloads_failed": failed,
            "generation": self.generations.serving.number,
            "requests": board.read_workers().iter().map(|row| row.totals.requests).sum::<u64>(),
        })
    }

    pub(super) fn show_all(&self, dirty_arbiter: Option<i32>, dirty_workers: &Value) -> Value {
        let workers: Vec<Value> = self
            .by_age()
            .into_iter()
            .map(|worker| {
                let mut shown = worker_in_short(worker);
                shown.insert("type".to_owned(), json!("web"));
                Value::Object(shown)
            })
            .collect();
        json!({
            "arbiter": {"pid": self.identity.pid.as_raw(), "type": "arbiter", "role": "master"},
            "web_worker_count": workers.len(),
            "web_workers": workers,
            "dirty_arbiter": dirty_arbiter.map(|pid| json!({"pid": pid, "type": "dirty_arbiter", "role": "dirty master"})),
            "dirty_workers": dirty_workers,
            "dirty_worker_count": dirty_workers.as_array().map_or(0, Vec::len),
        })
    }

    fn show_requests(&self) -> Value {
        let board: &Scoreboard = self.workers.scoreboard();
        let workers = board.read_workers();
        let pid = |row: usize| workers.get(row).and_then(|worker| worker.pid).map(Pid::as_raw);
        let requests: Vec<Value> = board
            .read_requests()
            .into_iter()
            .map(|it| json!({"worker": it.row, "pid": pid(it.row), "age": it.age.as_secs_f64(), "request": it.text}))
            .collect();
        json!({"count": requests.len(), "requests": requests})
    }

    fn show_listeners(&self) -> Value {
        let service = &self.generations.serving.service;
        let scheme = if service.config.is_tls() { "https" } else { "http" };
        let shown = |listener: &Arc<Listener>| {
            let kind = match listener.local_address() {
                LocalAddress::Ip(address) if address.is_ipv6() => "tcp6",
                LocalAddress::Ip(_) => "tcp",
                LocalAddress::Unix(_) | LocalAddress::Abstract(_) => "unix",
            };
            json!({"address": listener.name(scheme), "fd": listener.as_raw_fd(), "type": kind})
        };
        let listeners: Vec<Value> = service.listeners.iter().map(shown).collect();
        json!({"count": listeners.len(), "listeners": listeners})
    }

    fn worker_command(&mut self, action: &str, rest: &[String]) -> Answered {
        match action {
            "add" | "remove" => {
                let count = rest.first().map_or(Ok(1), |text| number(text))?.max(1) as usize;
                let previous = self.generations.serving.wanted;
                let is_more = action == "add";
                let signal = if is_more { Signal::Ttin } else { Signal::Ttou };
                for _ in 0..count {
                    let before = self.generations.serving.wanted;
                    // Neither signal ends the master.
                    let _ = self.handle(signal);
                    if self.generations.serving.wanted == before {
                        break;
                    }
                }
                let total = self.generations.serving.wanted;
                let (key, changed) = if is_more { ("added", total - previous) } else { ("removed", previous - total) };
                Ok(json!({key: changed, "previous": previous, "total": total}))
            }
            "kill" => {
                let pid = number(rest.first().ok_or("Invalid argument: Missing PID for worker kill")?)?;
                match self.worker_of(pid) {
                    Some(worker) => {
                        worker.tell(worker.row.stop_signal());
                        Ok(json!({"success": true, "killed": pid}))
                    }
                    None => Ok(not_found(pid)),
                }
            }
            "" => Err("Invalid argument: Missing worker action (add|remove|kill)".to_owned()),
            other => Err(format!("Invalid argument: Unknown worker action: {other}")),
        }
    }

    fn worker_of(&self, pid: i64) -> Option<&Worker> {
        self.workers.iter().find(|worker| i64::from(worker.pid.as_raw()) == pid)
    }

    /// The worker whose stacks are wanted, or the reply that there is none.
    fn worker_to_ask(&self, rest: &[String]) -> Result<Result<WantedWorkers, Value>, String> {
        let pid = number(rest.first().ok_or("Invalid argument: Missing PID for worker stacks")?)?;
        Ok(self.worker_of(pid).map(|_| WantedWorkers::One(pid)).ok_or_else(|| not_found(pid)))
    }

    /// Gives the error log another level, or tells the present one. The line that notes a change is
    /// written under the more verbose of the two levels.
    fn log_level_command(&mut self, name: &str, note: Option<String>) -> Answered {
        let before = logging::level();
        let Some(note) = note else { return Ok(json!({"loglevel": before.name().to_lowercase()})) };
        let level = Level::find(name).ok_or_else(|| {
            format!("Invalid argument: Unknown log level: {name} (debug|info|warning|error|critical)")
        })?;
        if level > before {
            info!("{note}");
        }
        self.set_log_level(level);
        if level <= before {
            info!("{note}");
        }
        Ok(json!({"loglevel": name, "previous": before.name().to_lowercase()}))
    }

    pub(super) fn by_age(&self) -> Vec<&Worker> {
        let mut workers: Vec<&Worker> = self.workers.iter().collect();
        workers.sort_by_key(|worker| worker.age);
        workers
    }
}

/// Whether a command that ends or changes the whole service takes the words behind it. gunicorn
/// ignores surplus ones; a pid or `--help` there must not stop the server.
fn takes(words: &[String]) -> bool {
    let command = words.join(" ").to_lowercase();
    words.len() == 1 || ["reload --wait", "drain off", "shutdown graceful", "shutdown quick"].contains(&&*command)
}

/// Whether a command of these words changes something.
fn is_change(word: &str, second: &str) -> bool {
    match word {
        "worker" => matches!(second, "add" | "remove" | "kill"),
        "dirty" => matches!(second, "add" | "remove"),
        "loglevel" => !second.is_empty(),
        _ => matches!(word, "reload" | "reopen" | "drain" | "upgrade" | "shutdown"),
    }
}

/// The line of the log for a change.
fn noted(words: &[String], peer: &str) -> String {
    let command: String = words.join(" ").chars().take(MOST_LOGGED).collect();
    format!("Control command: {command:?} ({peer})")
}

fn not_found(pid: i64) -> Value {
    json!({"success": false, "error": format!("Worker {pid} not found")})
}

fn dirty_command(action: &str, rest: &[String]) -> Result<Request, String> {
    let count = || number(rest.first().map_or("1", String::as_str)).map(|count| count.clamp(1, MOST_AT_ONCE) as u32);
    match action {
        "add" => count().map(Request::Add),
        "remove" => count().map(Request::Remove),
        "" => Err("Invalid argument: Missing dirty action (add|remove)".to_owned()),
        other => Err(format!("Invalid argument: Unknown dirty action: {other}")),
    }
}

fn worker_in_short(worker: &Worker) -> Map<String, Value> {
    let silence = worker.row.heartbeat().map(|at| monotonic_ms().saturating_sub(at) as f64 / 1000.0);
    let fields = [
        ("pid", json!(worker.pid.as_raw())),
        ("age", json!(worker.age)),
        ("booted", json!(!worker.is_booting())),
        ("last_heartbeat", json!(silence)),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

fn worker_in_full(worker: &Worker) -> Value {
    let mut shown = worker_in_short(worker);
    let oldest = worker.row.request_started_at().map(|at| monotonic_ms().saturating_sub(at) as f64 / 1000.0);
    let fields = [
        ("aborted", json!(matches!(worker.fate, Fate::Aborted { .. }))),
        ("number", json!(worker.number)),
        ("generation", json!(worker.generation)),
        ("state", json!(format!("{:?}", worker.row.state()).to_lowercase())),
        ("requests", json!(worker.row.served())),
        ("connections", json!(worker.row.connections())),
        ("oldest_request", json!(oldest)),
        ("memory", json!(crate::sys::memory::resident(worker.pid))),
    ];
    shown.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(shown)
}

/// The settings that gunicorn shows.
fn config(config: &Config) -> Value {
    let class = match config.effective_worker_class() {
        WorkerClass::Sync => "gunicorn.workers.sync.SyncWorker".to_owned(),
        WorkerClass::Gthread => "gunicorn.workers.gthread.ThreadWorker".to_owned(),
        WorkerClass::Gevent => "gunicorn.workers.ggevent.GeventWorker".to_owned(),
        WorkerClass::Foreign(name) => name,
    };
    json!({
        "bind": config.bind.iter().map(Address::to_bind).collect::<Vec<_>>(),
        "workers": worker_count(config).count,
        "worker_class": format!("<class '{class}'>"),
        "threads": config.threads,
        "timeout": config.timeout,
        "graceful_timeout": config.graceful_timeout,
        "keepalive": config.keepalive.unwrap_or(2),
        "max_requests": config.max_requests,
        "max_requests_jitter": config.max_requests_jitter,
        "worker_connections": config.worker_connections,
        "preload_app": config.preload_app,
        "daemon": config.daemon,
        "pidfile": config.pidfile,
        "proc_name": config.name(),
        "reload": config.reload,
        "dirty_workers": config.dirty.workers,
        "dirty_apps": config.dirty.apps,
        "dirty_timeout": config.dirty.timeout,
        "control_socket": config.control_socket,
        "control_socket_disable": config.control_socket_disable,
    })
}

fn number(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| format!("Invalid argument: invalid literal for int() with base 10: '{text}'"))
}
