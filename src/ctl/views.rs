//! What `top` shows in place of all workers: the threads of one, its stacks, the keys.

use super::duration::duration;
use super::frame::{Line, LineStyle};
use super::harmless;
use crate::scoreboard::{Scoreboard, WorkerReading};
use crate::sys::stack_file::{self, Written};

use super::stacks::PATIENCE;

const KEYS: [&str; 14] = [
    "q         quit",
    "1 to 9, 0 sort by a column from the left; r the other way round",
    "j and k   choose a worker, or scroll; so do the arrows",
    "s         the threads of the chosen worker, and back",
    "S         its Python stacks, and back",
    "p         PSS in place of RSS: shared pages count in part; slow; and back",
    "+ and -   longer and shorter pauses: 0.5, 1, 2 or 5 s",
    "space     freeze, and go on",
    "h         this help, and back",
    "",
    "BUSY: the share of its threads' time that a worker was in the application.",
    "AVG: how long a request took, its wait included.",
    "OLDEST: for how long the slowest request has run.",
    "REQS: of this worker process. 5XX: of all that had its number.",
];

/// The keys.
pub(super) fn keys() -> Vec<Line> {
    KEYS.iter().map(|text| Line::plain((*text).to_owned())).collect()
}

/// What the threads of a worker are at. The board describes a request once it has run for a second.
pub(super) fn threads(board: &Scoreboard, worker: &WorkerReading) -> Vec<Line> {
    let mut lines = vec![heading(worker)];
    let described: Vec<_> = board.read_requests().into_iter().filter(|it| it.row == worker.number).collect();
    for request in &described {
        let text = format!("  {:>6}  {}", duration(request.age.as_secs_f64()), harmless(&request.text));
        lines.push(Line::plain(text));
    }
    for age in worker.running.iter().skip(described.len()) {
        lines.push(Line::plain(format!("  {:>6}  in the application", duration(age.as_secs_f64()))));
    }
    let idle = worker.threads.saturating_sub(worker.in_flight);
    lines.push(Line::plain(format!("  {idle} idle")));
    lines
}

/// The Python stacks of a worker, which goes on.
pub(super) fn stacks(worker: &WorkerReading) -> Vec<Line> {
    let said = match worker.pid.map(|pid| stack_file::ask(pid, Written::ThreadsAndGreenlets, PATIENCE)) {
        Some(Ok(stacks)) => stacks,
        Some(Err(reason)) => format!("no stacks: {reason}"),
        None => "no stacks: the worker is gone".to_owned(),
    };
    let stacks = said.lines().map(|line| Line::plain(harmless(line).replace('\t', " ")));
    std::iter::once(heading(worker)).chain(stacks).collect()
}

fn heading(worker: &WorkerReading) -> Line {
    let pid = worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let text = format!(
        "Worker {} (pid:{pid}): {} of {} threads in the application",
        worker.number,
        worker.threads_busy(),
        worker.threads
    );
    Line { text, style: LineStyle::Heading, worker: None }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::scoreboard::MAX_WORKERS;
    use crate::sys::process::getpid;

    #[test]
    fn threads_are_shown_with_what_is_known_of_their_requests() {
        let board = Scoreboard::new(MAX_WORKERS).unwrap();
        let row = board.row(0);
        board.count_start(0);
        row.assign(getpid(), 1, 4);
        let slow = row.start_request(Instant::now() - Duration::from_secs(3));
        let _quick = row.start_request(Instant::now());
        row.describe_requests([(slow.start(), "GET /\x1b[2J from 10.0.0.7")].into_iter());
        let lines: Vec<String> = threads(&board, &board.read_workers()[0]).into_iter().map(|line| line.text).collect();
        assert!(lines[0].ends_with("2 of 4 threads in the application"), "{lines:?}");
        assert!(lines[1].contains("3.0s  GET /?[2J from 10.0.0.7"), "{lines:?}");
        assert!(lines[2].contains("in the application") && lines[3] == "  2 idle", "{lines:?}");
    }

    #[test]
    fn the_help_fits_a_screen_of_80_by_24() {
        assert!(keys().len() <= 24 && keys().iter().all(|line| line.text.chars().count() <= 80));
    }
}
