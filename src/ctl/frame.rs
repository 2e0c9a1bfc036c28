//! One screen of numbers, as lines of text: a head of what concerns the server, then a line for
//! each worker. No line is longer than the screen is wide.

use super::duration::{bytes, duration, rate};
use super::reading::{Between, Memory, Reading, share};
use crate::scoreboard::{ExitCause, Histogram, RowTotals, WorkerPhase, WorkerReading};
use crate::sys::clock::unix_time_ms;

/// A line and how it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub text: String,
    pub style: LineStyle,
    /// The number of the worker whose line it is.
    pub worker: Option<usize>,
}

impl Line {
    pub fn plain(text: String) -> Line {
        Line { text, style: LineStyle::Plain, worker: None }
    }
}

/// How a line is shown where there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineStyle {
    Plain,
    /// The head of the table.
    Heading,
    /// Something that asks for attention.
    Alarming,
}

/// The column that the workers are sorted by, from the left, and whether against its usual order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub column: usize,
    pub is_reversed: bool,
}

/// The columns of the table, each with its width.
const COLUMNS: [(&str, usize); 13] = [
    ("WID", 3),
    ("PID", 7),
    ("STATE", 8),
    ("BUSY", 4),
    ("REQ/S", 5),
    ("REQS", 7),
    ("5XX", 4),
    ("CONN", 4),
    ("AVG", 5),
    ("OLDEST", 6),
    ("CPU%", 4),
    ("RSS", 5),
    ("AGE", 5),
];

/// The lines of a frame. Rates and quantiles are of the time since `before`, if there is such a
/// reading.
pub(super) fn frame(now: &Reading, before: Option<&Reading>, order: Order, width: usize) -> Vec<Line> {
    let between = before.map(|before| Between { now, before });
    let mut lines = head(now, between.as_ref());
    lines.push(Line::plain(String::new()));
    lines.push(Line { text: heading(now.memory), style: LineStyle::Heading, worker: None });
    let mut rows: Vec<WorkerLine> = now.living().map(|worker| row(now, worker, between.as_ref())).collect();
    rows.sort_by(|one, other| other.keys[order.column].total_cmp(&one.keys[order.column]));
    // The usual order has the smallest number or pid first, and of all else the largest.
    if (order.column < 2) != order.is_reversed {
        rows.reverse();
    }
    lines.extend(rows.into_iter().map(|row| row.line));
    for line in &mut lines {
        line.text = line.text.chars().filter(|character| !character.is_control()).take(width).collect();
    }
    lines
}

fn head(now: &Reading, between: Option<&Between<'_>>) -> Vec<Line> {
    let (threads, busy) = now.threads();
    let (serving, in_phase) =
        (now.serving().count() as u64, |phase| now.living().filter(|it| it.phase == phase).count());
    let state = match (now.master.is_stopping, serving < now.master.wanted) {
        (true, _) => "  STOPPING",
        (false, true) => "  DEGRADED",
        (false, false) => "",
    };
    let share = between.map_or_else(|| share(busy as f64, threads as f64), Between::busy_share);
    let mut lines = vec![
        Line::plain(format!(
            "monoceros {}  {}  up {}  pid {}  gen {}{}",
            env!("CARGO_PKG_VERSION"),
            now.master.name,
            duration(now.master.up.as_secs_f64()),
            now.master.pid,
            now.master.generation,
            last_reload(now),
        )),
        Line {
            text: format!(
                "Workers {serving}/{}  boot {}  drain {}   Threads {busy}/{threads}  {} {:.0}%{state}",
                now.master.wanted,
                in_phase(WorkerPhase::Booting),
                in_phase(WorkerPhase::Draining),
                bar(share),
                share * 100.0
            ),
            style: if state.is_empty() { LineStyle::Plain } else { LineStyle::Alarming },
            worker: None,
        },
        Line::plain(requests(now, between)),
    ];
    let (durations, queue) = match between {
        Some(Between { now, before }) => (
            now.totals.durations.since(&before.totals.durations),
            now.totals.queue_times.since(&before.totals.queue_times),
        ),
        None => (now.totals.durations.clone(), now.totals.queue_times.clone()),
    };
    lines.push(Line::plain(format!("Latency   {}   Queue  {}", quantiles(&durations), quantiles(&queue))));
    let connections: u64 = now.living().map(|worker| worker.connections).sum();
    let accepted =
        between.map_or_else(|| now.totals.accepted.to_string(), |it| rate(it.rate(|it| it.totals.accepted)) + "/s");
    lines.push(Line::plain(format!("Conns     open {connections}  accepted {accepted}")));
    lines.push(deaths(now));
    lines
}

fn requests(now: &Reading, between: Option<&Between<'_>>) -> String {
    let in_flight: u64 = now.workers.iter().map(|worker| worker.in_flight).sum();
    let oldest = now.workers.iter().filter_map(|worker| worker.running.first()).max();
    let oldest = oldest.map_or_else(|| "-".to_owned(), |age| duration(age.as_secs_f64()));
    let counted = |count: &dyn Fn(&Reading) -> u64| match between {
        Some(between) => rate(between.rate(count)) + "/s",
        None => count(now).to_string(),
    };
    format!(
        "Requests  {}  in flight {in_flight}  oldest {oldest}   5xx {}  4xx {}  499 {}",
        counted(&Reading::requests),
        counted(&|it| it.class(5)),
        counted(&|it| it.class(4)),
        counted(&|it| it.code(499)),
    )
}

fn last_reload(now: &Reading) -> String {
    now.master.last_reload.map_or_else(String::new, |last| {
        let ago = duration(unix_time_ms().saturating_sub(last.at_ms) as f64 / 1000.0);
        format!(", HUP {ago} ago {}", if last.is_ok { "ok" } else { "FAILED" })
    })
}

fn quantiles(histogram: &Histogram) -> String {
    let shown = |share: f64| match histogram.quantile(share) {
        None => "-".to_owned(),
        Some(nanoseconds) if nanoseconds < 1e6 => "<1ms".to_owned(),
        Some(nanoseconds) => duration(nanoseconds / 1e9),
    };
    format!("p50 {}  p95 {}  p99 {}", shown(0.5), shown(0.95), shown(0.99))
}

fn deaths(now: &Reading) -> Line {
    let shown = [
        ExitCause::Timeout,
        ExitCause::RequestTimeout,
        ExitCause::Crash,
        ExitCause::OutOfMemory,
        ExitCause::Killed,
        ExitCause::BootFailed,
        ExitCause::Memory,
        ExitCause::MaxRequests,
    ];
    let counted =
        |cause: ExitCause| now.totals.exits.iter().find(|(found, _)| *found == cause).map_or(0, |(_, count)| *count);
    // A cause that has not occurred takes no room, but the usual ones are always shown.
    let parts: Vec<String> = shown
        .iter()
        .filter(|&&cause| {
            counted(cause) > 0 || matches!(cause, ExitCause::Timeout | ExitCause::Crash | ExitCause::OutOfMemory)
        })
        .map(|&cause| format!("{} {}", cause.name(), counted(cause)))
        .collect();
    Line::plain(format!("Deaths    {}", parts.join("  ")))
}

fn bar(share: f64) -> String {
    const CELLS: usize = 18;
    let full = (share * CELLS as f64).round() as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(CELLS - full))
}

fn heading(memory: Memory) -> String {
    aligned(COLUMNS.map(|(name, _)| match (name, memory) {
        ("RSS", Memory::Proportional) => "PSS".to_owned(),
        _ => name.to_owned(),
    }))
}

/// A worker's line, and what it is sorted by.
struct WorkerLine {
    line: Line,
    keys: [f64; COLUMNS.len()],
}

fn row(now: &Reading, worker: &WorkerReading, between: Option<&Between<'_>>) -> WorkerLine {
    let earlier = between.and_then(|between| Some((between.earlier(worker)?, between.seconds())));
    let threads = worker.threads as f64;
    let (busy, requests) = match earlier {
        Some((earlier, seconds)) => (
            share(worker.totals.busy.saturating_sub(earlier.totals.busy).as_secs_f64(), seconds * threads),
            worker.totals.requests.saturating_sub(earlier.totals.requests) as f64 / seconds,
        ),
        None => (share(worker.threads_busy() as f64, threads), 0.0),
    };
    let average = average_duration(worker.totals, earlier.map(|(earlier, _)| earlier.totals));
    let oldest = worker.running.first().map(|age| age.as_secs_f64());
    let (cpu_time, memory) = now.usage.get(&worker.number).copied().unwrap_or_default();
    let cpu_before = between.and_then(|between| between.before.usage.get(&worker.number)?.0);
    let cpu = match (cpu_time, cpu_before, earlier) {
        (Some(now), Some(before), Some((_, seconds))) => now.saturating_sub(before).as_secs_f64() / seconds * 100.0,
        _ => 0.0,
    };
    let pid = worker.pid.map_or(0, |pid| pid.as_raw());
    let keys = [
        worker.number as f64,
        pid.into(),
        f64::from(worker.phase as u8),
        busy,
        requests,
        worker.served as f64,
        worker.totals.server_errors as f64,
        worker.connections as f64,
        average.unwrap_or(0.0),
        oldest.unwrap_or(0.0),
        cpu,
        memory.unwrap_or(0) as f64,
        worker.age.as_secs_f64(),
    ];
    let text = aligned([
        worker.number.to_string(),
        pid.to_string(),
        phase(worker.phase).to_owned(),
        format!("{:.0}%", busy * 100.0),
        if earlier.is_some() { rate(requests) } else { "-".to_owned() },
        worker.served.to_string(),
        worker.totals.server_errors.to_string(),
        worker.connections.to_string(),
        average.map_or_else(|| "-".to_owned(), duration),
        oldest.map_or_else(|| "-".to_owned(), duration),
        if earlier.is_some() { format!("{cpu:.0}") } else { "-".to_owned() },
        memory.map_or_else(|| "-".to_owned(), bytes),
        duration(worker.age.as_secs_f64()),
    ]);
    let style = if busy > 0.8 { LineStyle::Alarming } else { LineStyle::Plain };
    WorkerLine { line: Line { text, style, worker: Some(worker.number) }, keys }
}

/// How many seconds a request took on average since `earlier`, or in all.
fn average_duration(now: RowTotals, earlier: Option<RowTotals>) -> Option<f64> {
    let earlier = earlier.unwrap_or_default();
    let count = now.requests.saturating_sub(earlier.requests);
    (count > 0).then(|| now.duration.saturating_sub(earlier.duration).as_secs_f64() / count as f64)
}

fn phase(phase: WorkerPhase) -> &'static str {
    match phase {
        WorkerPhase::Booting => "booting",
        WorkerPhase::Ready => "ready",
        WorkerPhase::Retiring => "retiring",
        WorkerPhase::Draining => "draining",
    }
}

fn aligned(cells: [String; COLUMNS.len()]) -> String {
    let padded = cells.iter().zip(COLUMNS).map(|(cell, (name, width))| match name {
        "STATE" => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    });
    padded.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::scoreboard::{MAX_WORKERS, Scoreboard, ServedCounts};
    use crate::sys::process::getpid;

    const BY_NUMBER: Order = Order { column: 0, is_reversed: false };

    fn board() -> Scoreboard {
        let board = Scoreboard::new(MAX_WORKERS).unwrap();
        board.set_service(3, 2, "mysite.wsgi");
        for number in 0..2 {
            let row = board.row(number);
            board.count_start(number);
            row.assign(getpid(), 3, 2);
            row.set_state(WorkerPhase::Ready);
            let duration = Duration::from_millis(20);
            row.count_served(&ServedCounts { status: 500, duration, ..Default::default() });
        }
        board
    }

    #[test]
    fn a_frame_fits_the_screen_and_says_what_counts() {
        let board = board();
        let before = Reading::of(&board, Memory::Resident);
        let running = board.row(1).start_request(Instant::now() - Duration::from_secs(4));
        let now = Reading::of(&board, Memory::Resident);
        for earlier in [None, Some(&before)] {
            let lines = frame(&now, earlier, BY_NUMBER, 80);
            assert!(lines.iter().all(|line| line.text.chars().count() <= 80), "{lines:#?}");
            let all: String = lines.iter().map(|line| line.text.clone() + "\n").collect();
            for part in ["mysite.wsgi", "Workers 2/2", "Threads 1/4", "in flight 1  oldest 4.0s", "gen 3", "timeout 0"]
            {
                assert!(all.contains(part), "{part}: {all}");
            }
        }
        assert!(COLUMNS.iter().map(|(_, width)| width + 1).sum::<usize>() <= 80, "the table fits");
        drop(running);
    }

    #[test]
    fn workers_come_in_the_order_that_is_asked_for() {
        let board = board();
        let _running = board.row(1).start_request(Instant::now() - Duration::from_secs(4));
        let now = Reading::of(&board, Memory::Resident);
        let first = |column, is_reversed| {
            let lines = frame(&now, None, Order { column, is_reversed }, 80);
            let at = lines.iter().position(|line| line.style == LineStyle::Heading).unwrap();
            lines[at + 1].text.split_whitespace().next().unwrap().to_owned()
        };
        assert_eq!([first(0, false), first(0, true), first(9, false), first(9, true)], ["0", "1", "1", "0"]);
    }
}
