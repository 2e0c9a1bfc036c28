//! The metrics: each family with its name, what it means, and its samples at this moment.

use std::sync::Arc;
use std::time::Duration;

use crate::scoreboard::{ExitCause, Histogram, RefusalCause, Scoreboard, WorkerPhase, WorkerReading};
use crate::sys::process::{Pid, Usage, open_files, open_files_limit, usage};
use crate::sys::socket::Listener;
use crate::sys::tcp_info;

/// What a family's values do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They only rise. The name is printed with `_total` behind it.
    Counter,
    /// They rise and fall.
    Gauge,
    /// They are durations, counted by size.
    Histogram,
}

/// One metric, with all its label values.
#[derive(Debug, Clone)]
pub struct Family {
    /// Its name without `_total`.
    pub name: &'static str,
    /// One sentence for the operator.
    pub help: &'static str,
    /// What its values do.
    pub kind: Kind,
    /// Its values, no two of them with the same labels.
    pub samples: Vec<Sample>,
}

/// A value and its labels.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Measured,
}

/// A value.
#[derive(Debug, Clone)]
pub enum Measured {
    /// A count.
    Count(u64),
    /// A quantity.
    Quantity(f64),
    /// A histogram of durations.
    Durations(Box<Histogram>),
}

/// Where the numbers come from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The server's board.
    pub board: &'a Scoreboard,
    /// Its sockets, where the reader has them.
    pub listeners: &'a [Arc<Listener>],
    /// The interpreter's version, where the reader knows it.
    pub python: &'a str,
    /// The worker class, likewise.
    pub worker_class: &'a str,
    /// The certificate files in use and when each expires, in seconds since the epoch, likewise.
    pub certificates: &'a [(String, u64)],
    /// What is gathered only if the reader asks for it.
    pub extras: Extras,
}

/// What is not always gathered, because it may cost much.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extras {
    /// The open files of each worker: an old kernel counts them one by one.
    pub open_fds: bool,
}

/// Every metric, now.
pub fn gather(source: &Source<'_>) -> Vec<Family> {
    let workers = source.board.read_workers();
    let mut families = about_server(source, &workers);
    families.extend(about_requests(source.board, &workers));
    families.extend(about_connections(source, &workers));
    families.extend(about_life(source.board));
    families.extend(about_processes(source.board, &workers, source.extras));
    families
}

fn about_server(source: &Source<'_>, workers: &[WorkerReading]) -> Vec<Family> {
    let board = source.board;
    let in_phase = |phase| workers.iter().filter(|worker| worker.pid.is_some() && worker.phase == phase).count() as u64;
    let phases = [
        ("booting", WorkerPhase::Booting),
        ("ready", WorkerPhase::Ready),
        ("retiring", WorkerPhase::Retiring),
        ("draining", WorkerPhase::Draining),
    ];
    let serving = workers.iter().filter(|worker| worker.is_serving());
    let threads: u64 = serving.clone().map(|worker| worker.threads).sum();
    let busy: u64 = serving.map(|worker| worker.threads_busy()).sum();
    let about = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("python", source.python.to_owned()),
        ("worker_class", source.worker_class.to_owned()),
    ];
    vec![
        gauge("monoceros_build_info", "Which server this is; always 1.", vec![(about, 1)]),
        quantity(
            "monoceros_start_time_seconds",
            "When the master started, since the epoch.",
            millis(board.started_at_ms()),
        ),
        gauge(
            "monoceros_workers",
            "Workers by how far they are.",
            phases.map(|(name, phase)| (label("state", name), in_phase(phase))).to_vec(),
        ),
        single_gauge("monoceros_workers_wanted", "Workers that there should be.", board.wanted()),
        single_gauge("monoceros_threads", "Threads of serving workers that run the application.", threads),
        single_gauge("monoceros_threads_busy", "Those of them that are in the application now.", busy),
        counter_of(
            "monoceros_busy_seconds",
            "Time that threads have been in the application, by the number of the worker's row.",
            workers.iter().map(|worker| (row(worker), seconds(worker.totals.busy))).collect(),
        ),
    ]
}

fn about_requests(board: &Scoreboard, workers: &[WorkerReading]) -> Vec<Family> {
    let in_flight: u64 = workers.iter().map(|worker| worker.in_flight).sum();
    let oldest = workers.iter().filter_map(|worker| worker.running.first()).max().copied().unwrap_or_default();
    let (received, sent) = board.bytes();
    let mut families = vec![
        counter(
            "monoceros_requests",
            "Requests that the application was called with, by the number of the worker's row.",
            workers.iter().map(|worker| (row(worker), worker.totals.requests)).collect(),
        ),
        counter(
            "monoceros_responses",
            "Responses by status, the server's own ones too; 499 for a client that left before.",
            board.responses().into_iter().map(|(code, count)| (label("code", &code.to_string()), count)).collect(),
        ),
        single_gauge("monoceros_requests_in_flight", "Requests that are in the application now.", in_flight),
        quantity("monoceros_oldest_request_seconds", "How long the oldest of them has been there.", seconds(oldest)),
        histogram(
            "monoceros_request_duration_seconds",
            "From the complete request until the application was done with it.",
            board.durations(),
        ),
        histogram(
            "monoceros_queue_seconds",
            "How long requests were here before the application was called: in the kernel and in the worker.",
            board.queue_times(),
        ),
    ];
    let upstream = board.upstream_queue_times();
    if upstream.count() > 0 {
        let help = "How long requests were under way before they came, as the proxy's X-Request-Start says.";
        families.push(histogram("monoceros_upstream_queue_seconds", help, upstream));
    }
    families.extend([
        counter_of(
            "monoceros_attach_seconds",
            "Time that threads with a request have waited for the interpreter.",
            vec![(vec![], seconds(board.attach_time()))],
        ),
        single("monoceros_requests_passed", "Requests that a busy worker passed to an idle one.", board.passed()),
        counter(
            "monoceros_requests_refused",
            "Requests refused without the application, by the reason.",
            RefusalCause::ALL.map(|refusal| (label("reason", refusal.name()), board.refused(refusal))).to_vec(),
        ),
        single(
            "monoceros_requests_aborted",
            "Requests whose clients left before they had the response.",
            board.aborted(),
        ),
        single("monoceros_app_errors", "Exceptions of the application that the server has logged.", board.app_errors()),
        single("monoceros_received_bytes", "Bytes of requests that the application was called with.", received),
        single("monoceros_sent_bytes", "Bytes of the bodies of the application's responses.", sent),
    ]);
    families
}

fn about_connections(source: &Source<'_>, workers: &[WorkerReading]) -> Vec<Family> {
    let open: u64 = workers.iter().map(|worker| worker.connections).sum();
    let active = open.min(workers.iter().map(|worker| worker.in_flight).sum());
    let [full, resumed, failed] = source.board.handshakes();
    let mut families = vec![
        gauge(
            "monoceros_connections",
            "Open connections: those whose request is in the application, and the others.",
            vec![(label("state", "active"), active), (label("state", "idle"), open - active)],
        ),
        single("monoceros_connections_accepted", "Connections that were accepted.", source.board.accepted()),
        counter(
            "monoceros_tls_handshakes",
            "TLS handshakes by what came of them.",
            vec![
                (label("result", "full"), full),
                (label("result", "resumed"), resumed),
                (label("result", "failed"), failed),
            ],
        ),
        gauge(
            "monoceros_tls_certificate_expiry_timestamp_seconds",
            "When the certificate of this file expires, since the epoch.",
            source.certificates.iter().map(|(name, expires_at)| (label("name", name), *expires_at)).collect(),
        ),
    ];
    families.extend(about_listeners(source.listeners));
    families
}

/// An address, how many connections wait there, how many may, and how many were dropped.
type Queue = (String, u64, u64, Option<u64>);

/// Under `reuse_port` an address has several sockets, whose numbers are added.
fn about_listeners(listeners: &[Arc<Listener>]) -> Vec<Family> {
    use std::os::fd::AsRawFd;
    let mut queues: Vec<Queue> = Vec::new();
    for listener in listeners {
        let descriptor = listener.as_raw_fd();
        let Some(queue) = tcp_info::accept_queue(descriptor) else { continue };
        let name = listener.to_string().trim_start_matches("http://").to_owned();
        let drops = tcp_info::drops(descriptor);
        let (waiting, limit) = (u64::from(queue.waiting), u64::from(queue.limit));
        match queues.iter_mut().find(|known| known.0 == name) {
            Some(known) => {
                (known.1, known.2) = (known.1 + waiting, known.2 + limit);
                known.3 = known.3.zip(drops).map(|(one, other)| one + other);
            }
            None => queues.push((name, waiting, limit, drops)),
        }
    }
    let by_name = |value: fn(&Queue) -> Option<u64>| -> Vec<_> {
        queues.iter().filter_map(|queue| Some((label("listener", &queue.0), value(queue)?))).collect()
    };
    vec![
        gauge("monoceros_listener_backlog", "Connections that wait to be accepted.", by_name(|queue| Some(queue.1))),
        gauge("monoceros_listener_backlog_limit", "How many may wait.", by_name(|queue| Some(queue.2))),
        counter("monoceros_listener_drops", "Connections dropped because too many waited.", by_name(|queue| queue.3)),
    ]
}

fn about_life(board: &Scoreboard) -> Vec<Family> {
    let ((ok, failed), (up, down)) = (board.reloads(), board.scalings());
    let mut families = vec![
        single("monoceros_worker_starts", "Workers that were forked.", board.starts()),
        counter(
            "monoceros_worker_exits",
            "Workers that have ended, by the cause.",
            ExitCause::ALL.map(|cause| (label("cause", cause.name()), board.exits(cause))).to_vec(),
        ),
        counter(
            "monoceros_reloads",
            "Reloads by outcome.",
            vec![(label("outcome", "ok"), ok), (label("outcome", "failed"), failed)],
        ),
        counter(
            "monoceros_autoscale_changes",
            "Changes of the number of workers that the load has asked for.",
            vec![(label("direction", "up"), up), (label("direction", "down"), down)],
        ),
        single(
            "monoceros_log_lines_dropped",
            "Lines of the logs that their target did not take.",
            board.lines_dropped(),
        ),
    ];
    if let Some(last) = board.last_reload() {
        let help = "Whether the last reload took over.";
        families.push(single_gauge("monoceros_last_reload_successful", help, last.is_ok.into()));
    }
    if let Some(at) = board.last_reload_ok_at_ms() {
        let help = "When a reload last took over, since the epoch.";
        families.push(quantity("monoceros_last_reload_success_timestamp_seconds", help, millis(at)));
    }
    families
}

fn about_processes(board: &Scoreboard, workers: &[WorkerReading], extras: Extras) -> Vec<Family> {
    // One reading of each worker: these are what a page costs most for.
    let used = workers.iter().filter_map(|worker| Some((worker, board.usage_of(worker.number)?)));
    let used: Vec<_> = used.collect();
    let living = || workers.iter().filter_map(|worker| Some((worker, worker.pid?)));
    let memory = used.iter().filter(|(worker, _)| worker.pid.is_some());
    let memory = memory.filter_map(|(worker, usage)| Some((row(worker), usage.resident?))).collect();
    let cpu = used.iter().map(|(worker, usage)| (row(worker), seconds(usage.cpu))).collect();
    let mut families = vec![
        gauge("monoceros_worker_resident_memory_bytes", "Memory of the worker, shared pages included.", memory),
        counter_of("monoceros_worker_cpu_seconds", "Processor time of the workers of a row, the dead included.", cpu),
    ];
    if extras.open_fds {
        let open = living().filter_map(|(worker, pid)| Some((row(worker), open_files(pid)?))).collect();
        families.push(gauge("monoceros_worker_open_fds", "Open files of the worker.", open));
    }
    families.extend(about_master(board.master(), board.started_at_ms()));
    families
}

/// The master's metrics, under the names that Prometheus' own libraries use.
fn about_master(master: Pid, started_at_ms: u64) -> Vec<Family> {
    let mut families = Vec::new();
    // Those that it has reaped are the workers, whose time is counted as theirs.
    if let Some(Usage { own_cpu, resident, .. }) = usage(master) {
        families.extend([
            counter_of("process_cpu_seconds", "Processor time of the master.", vec![(vec![], seconds(own_cpu))]),
            single_gauge("process_resident_memory_bytes", "Memory of the master.", resident),
        ]);
    }
    families.push(quantity("process_start_time_seconds", "When the master started.", millis(started_at_ms)));
    if let Some(open) = open_files(master) {
        families.push(single_gauge("process_open_fds", "Open files of the master.", open));
    }
    if let Some(limit) = open_files_limit(master) {
        families.push(single_gauge("process_max_fds", "Files that the master may have open.", limit));
    }
    families
}

type Labels = Vec<(&'static str, String)>;

fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

fn row(worker: &WorkerReading) -> Labels {
    label("worker", &worker.number.to_string())
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn millis(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

fn counts(values: Vec<(Labels, u64)>) -> Vec<Sample> {
    values.into_iter().map(|(labels, value)| Sample { labels, value: Measured::Count(value) }).collect()
}

fn counter(name: &'static str, help: &'static str, values: Vec<(Labels, u64)>) -> Family {
    Family { name, help, kind: Kind::Counter, samples: counts(values) }
}

fn counter_of(name: &'static str, help: &'static str, values: Vec<(Labels, f64)>) -> Family {
    let samples = values.into_iter().map(|(labels, value)| Sample { labels, value: Measured::Quantity(value) });
    Family { name, help, kind: Kind::Counter, samples: samples.collect() }
}

fn single(name: &'static str, help: &'static str, value: u64) -> Family {
    counter(name, help, vec![(vec![], value)])
}

fn gauge(name: &'static str, help: &'static str, values: Vec<(Labels, u64)>) -> Family {
    Family { name, help, kind: Kind::Gauge, samples: counts(values) }
}

fn single_gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    gauge(name, help, vec![(vec![], value)])
}

fn quantity(name: &'static str, help: &'static str, value: f64) -> Family {
    let samples = vec![Sample { labels: vec![], value: Measured::Quantity(value) }];
    Family { name, help, kind: Kind::Gauge, samples }
}

fn histogram(name: &'static str, help: &'static str, durations: Histogram) -> Family {
    let samples = vec![Sample { labels: vec![], value: Measured::Durations(Box::new(durations)) }];
    Family { name, help, kind: Kind::Histogram, samples }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::scoreboard::MAX_WORKERS;

    #[test]
    fn names_are_told_once_and_follow_the_rules() {
        let board = Scoreboard::new(MAX_WORKERS).unwrap();
        let families = gather(&Source {
            board: &board,
            listeners: &[],
            python: "3.13.0",
            worker_class: "sync",
            certificates: &[],
            extras: Extras::default(),
        });
        let names: HashSet<&str> = families.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), families.len());
        for family in &families {
            assert!(family.help.ends_with('.') && !family.name.ends_with("_total"), "{family:?}");
            assert!(family.name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{family:?}");
        }
    }
}
