//! What statsd is told from the board (`statsd_interval`): gauges, and by how much totals have
//! grown, under gunicorn's names where gunicorn has them.
//!
//! Durations are only known by their buckets. Each bucket is sent as one timing with a sample rate,
//! by which the agent multiplies it; together the timings have the true mean. A datagram that the
//! agent does not take is dropped.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::scoreboard::{BOUNDS_NS, ExitCause, Histogram, RefusalCause, Scoreboard};
use crate::sys::retry::retry;

/// Longest datagram in bytes: with its headers it fits a packet of the network, so that it is never
/// split.
const LONGEST_DATAGRAM: usize = 1400;

/// gunicorn's default port.
const PORT: u16 = 8125;

/// Lines of the error log by what they are: critical, error, warning, and an exception of the
/// application's.
pub type LogLines = [u64; 4];

/// Where the metrics go, and how they are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsdTerms {
    /// `HOST[:PORT]`, or `unix://PATH`, also without the slashes.
    pub address: String,
    /// The prefix of each name, as it is given.
    pub prefix: String,
    /// Tags behind each metric, with commas between them.
    pub tags: String,
}

/// The totals at a moment.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    requests: u64,
    responses: Vec<(u16, u64)>,
    durations: Histogram,
    queue: Histogram,
    busy: Duration,
    aborted: u64,
    refused: u64,
    exits: Vec<(ExitCause, u64)>,
    log_lines: LogLines,
}

/// The gauges that are not read from the board.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    /// Workers of the serving generation.
    pub workers: u64,
    /// Connections that wait to be accepted, if statsd is to be told.
    pub backlog: Option<u64>,
}

/// A socket to the agent.
#[derive(Debug)]
pub struct Statsd {
    terms: StatsdTerms,
    link: Link,
}

#[derive(Debug)]
enum Link {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Totals {
    /// What the board has counted, with the master's own `log_lines` added.
    pub fn read(board: &Scoreboard, log_lines: LogLines) -> Totals {
        let workers = board.read_workers();
        let of_workers = board.log_lines();
        Totals {
            requests: workers.iter().map(|worker| worker.totals.requests).sum(),
            responses: board.responses(),
            durations: board.durations(),
            queue: board.queue_times(),
            busy: workers.iter().map(|worker| worker.totals.busy).sum(),
            aborted: board.aborted(),
            refused: RefusalCause::ALL.iter().map(|refusal| board.refused(*refusal)).sum(),
            exits: ExitCause::ALL.into_iter().map(|cause| (cause, board.exits(cause))).collect(),
            log_lines: std::array::from_fn(|kind| log_lines[kind] + of_workers[kind]),
        }
    }
}

impl Statsd {
    /// A socket to the agent.
    ///
    /// # Errors
    /// There is no such host or path.
    pub fn connect(terms: StatsdTerms) -> io::Result<Statsd> {
        let link = match path_of(&terms.address) {
            Some(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_nonblocking(true)?;
                Link::Unix(socket)
            }
            None => {
                let address = resolve(&terms.address)?;
                let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                socket.connect(address)?;
                socket.set_nonblocking(true)?;
                Link::Udp(socket)
            }
        };
        Ok(Statsd { terms, link })
    }

    /// Sends by how much the totals have grown since `before`, and the gauges.
    ///
    /// # Errors
    /// The agent is away.
    pub fn report(&self, board: &Scoreboard, before: &Totals, now: &Totals, gauges: Gauges) -> io::Result<()> {
        let (prefix, tags) = (with_dot(&self.terms.prefix), &self.terms.tags);
        let tags = if tags.is_empty() { String::new() } else { format!("|#{tags}") };
        let metrics = [growth(before, now), gauges_of(board, gauges)].concat();
        let mut datagram = String::new();
        let mut sent = Ok(());
        for metric in metrics.into_iter().map(|metric| format!("{prefix}{metric}{tags}")) {
            if !datagram.is_empty() && datagram.len() + 1 + metric.len() > LONGEST_DATAGRAM {
                sent = sent.and(self.send(&datagram));
                datagram.clear();
            }
            if !datagram.is_empty() {
                datagram.push('\n');
            }
            datagram.push_str(&metric);
        }
        sent.and(self.send(&datagram))
    }

    fn send(&self, datagram: &str) -> io::Result<()> {
        let bytes = datagram.as_bytes();
        let sent = match &self.link {
            Link::Udp(socket) => retry(|| socket.send(bytes)),
            Link::Unix(socket) => retry(|| socket.send(bytes)),
        };
        sent.map(drop)
    }
}

/// Counters and timings of the growth between two readings.
fn growth(before: &Totals, now: &Totals) -> Vec<String> {
    let mut metrics = Vec::new();
    let mut count = |name: &str, more: u64| {
        if more > 0 {
            metrics.push(format!("{name}:{more}|c|@1.0"));
        }
    };
    count("gunicorn.requests", now.requests.saturating_sub(before.requests));
    for &(status, total) in &now.responses {
        let told = before.responses.iter().find(|(known, _)| *known == status).map_or(0, |(_, told)| *told);
        count(&format!("gunicorn.request.status.{status}"), total.saturating_sub(told));
    }
    for (kind, name) in ["critical", "error", "warning", "exception"].into_iter().enumerate() {
        count(&format!("gunicorn.log.{name}"), now.log_lines[kind].saturating_sub(before.log_lines[kind]));
    }
    count("monoceros.requests_aborted", now.aborted.saturating_sub(before.aborted));
    count("monoceros.requests_refused", now.refused.saturating_sub(before.refused));
    count("monoceros.busy_milliseconds", now.busy.saturating_sub(before.busy).as_millis() as u64);
    for &(cause, total) in &now.exits {
        let told = before.exits.iter().find(|(known, _)| *known == cause).map_or(0, |(_, told)| *told);
        count(&format!("monoceros.worker_exits.{}", cause.name()), total.saturating_sub(told));
    }
    metrics.extend(timings("gunicorn.request.duration", &now.durations.since(&before.durations)));
    metrics.extend(timings("monoceros.queue", &now.queue.since(&before.queue)));
    metrics
}

/// A timing for each bucket that has something in it, in milliseconds.
fn timings(name: &str, seen: &Histogram) -> Vec<String> {
    let bounds = |bucket: usize| {
        let lower = bucket.checked_sub(1).map_or(0, |below| BOUNDS_NS[below]);
        (lower as f64, BOUNDS_NS.get(bucket).copied().unwrap_or(lower) as f64)
    };
    let middle = |bucket: usize| f64::midpoint(bounds(bucket).0, bounds(bucket).1);
    let filled = || seen.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
    let estimate: f64 = filled().map(|(bucket, count)| middle(bucket) * *count as f64).sum();
    // Multiplied by this, the values have the true sum, as far as the buckets allow.
    let factor = if estimate > 0.0 { seen.sum_ns as f64 / estimate } else { 1.0 };
    let timing = |(bucket, count): (usize, &u64)| {
        let (lower, upper) = bounds(bucket);
        let is_last = bucket == BOUNDS_NS.len();
        let value = (middle(bucket) * factor).max(lower);
        let milliseconds = if is_last { value } else { value.min(upper) } / 1e6;
        let rate = if *count == 1 { String::new() } else { format!("|@{:.9}", 1.0 / *count as f64) };
        format!("{name}:{milliseconds:.3}|ms{rate}")
    };
    filled().map(timing).collect()
}

fn gauges_of(board: &Scoreboard, gauges: Gauges) -> Vec<String> {
    let workers = board.read_workers();
    let serving = || workers.iter().filter(|worker| worker.is_serving());
    let sum = |values: &mut dyn Iterator<Item = u64>| values.sum::<u64>();
    let oldest = workers.iter().filter_map(|worker| worker.running.first()).max().copied().unwrap_or_default();
    let mut told = vec![
        format!("gunicorn.workers:{}|g", gauges.workers),
        format!("monoceros.threads:{}|g", sum(&mut serving().map(|worker| worker.threads))),
        format!("monoceros.threads_busy:{}|g", sum(&mut serving().map(|worker| worker.threads_busy()))),
        format!("monoceros.requests_in_flight:{}|g", sum(&mut workers.iter().map(|worker| worker.in_flight))),
        format!("monoceros.oldest_request_milliseconds:{}|g", oldest.as_millis()),
        format!("monoceros.connections:{}|g", sum(&mut workers.iter().map(|worker| worker.connections))),
    ];
    told.extend(gauges.backlog.map(|waiting| format!("gunicorn.backlog:{waiting}|h")));
    told
}

/// The prefix with one dot behind it. gunicorn leaves a prefix of a single character alone.
fn with_dot(prefix: &str) -> String {
    let bare = prefix.trim_end_matches('.');
    if bare.chars().count() > 1 { format!("{bare}.") } else { prefix.to_owned() }
}

/// Whether an agent's address is a name that has to be looked up.
pub fn needs_name_server(address: &str) -> bool {
    path_of(address).is_none() && name_and_port(address).0.parse::<IpAddr>().is_err()
}

/// The path of a unix socket.
fn path_of(address: &str) -> Option<&str> {
    address.strip_prefix("unix:").map(|path| path.strip_prefix("//").unwrap_or(path))
}

fn name_and_port(host: &str) -> (&str, Option<&str>) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    (name.trim_matches(['[', ']']), port)
}

/// IPv4 first: agents listen there, also where `localhost` means IPv6 before IPv4.
fn resolve(host: &str) -> io::Result<SocketAddr> {
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, "there is no such port");
    let (name, port) = name_and_port(host);
    let port = port.map_or(Ok(PORT), str::parse).map_err(wrong)?;
    let found: Vec<SocketAddr> = (name, port).to_socket_addrs()?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(buckets: &[(usize, u64)], sum_ns: u64) -> Histogram {
        let mut histogram = Histogram { sum_ns, ..Histogram::default() };
        buckets.iter().for_each(|&(bucket, count)| histogram.buckets[bucket] = count);
        histogram
    }

    #[test]
    fn only_a_name_is_looked_up() {
        for (address, is_name) in [
            ("localhost", true),
            ("statsd.monitoring:8125", true),
            ("127.0.0.1:8125", false),
            ("[::1]:8125", false),
            ("unix:/run/statsd", false),
            ("unix:///run/statsd", false),
        ] {
            assert_eq!(needs_name_server(address), is_name, "{address}");
        }
        assert_eq!([path_of("unix:/a"), path_of("unix:///a"), path_of("a:1")], [Some("/a"), Some("/a"), None]);
    }

    #[test]
    fn timings_have_the_true_mean_where_the_buckets_allow_it() {
        assert_eq!(timings("t", &histogram(&[(0, 1)], 700_000)), ["t:0.700|ms"]);
        assert_eq!(timings("t", &histogram(&[(0, 4)], 2_000_000)), ["t:0.500|ms|@0.250000000"]);
        let last = BOUNDS_NS.len();
        assert_eq!(timings("t", &histogram(&[(last, 1)], 90_000_000_000)), ["t:90000.000|ms"]);
        assert_eq!(timings("t", &histogram(&[], 0)), [""; 0]);
        let two = timings("t", &histogram(&[(0, 2), (2, 1)], 5_000_000));
        assert_eq!(two, ["t:0.526|ms|@0.500000000", "t:3.947|ms"]);
    }

    #[test]
    fn only_what_has_grown_is_counted() {
        let before = Totals { requests: 3, responses: vec![(200, 3)], ..Totals::default() };
        let now = Totals {
            requests: 5,
            responses: vec![(200, 3), (404, 2)],
            exits: vec![(ExitCause::Crash, 1)],
            log_lines: [0, 2, 0, 1],
            ..Totals::default()
        };
        assert_eq!(
            growth(&before, &now),
            [
                "gunicorn.requests:2|c|@1.0",
                "gunicorn.request.status.404:2|c|@1.0",
                "gunicorn.log.error:2|c|@1.0",
                "gunicorn.log.exception:1|c|@1.0",
                "monoceros.worker_exits.crash:1|c|@1.0",
            ]
        );
        assert!(growth(&now, &now).is_empty());
    }

    #[test]
    fn prefixes_are_gunicorns() {
        for (prefix, dotted) in [("shop", "shop."), ("shop.", "shop."), ("shop..", "shop."), ("s", "s"), ("", "")] {
            assert_eq!(with_dot(prefix), dotted);
        }
    }
}
