//! `stacks`: the requests that each worker is at, and where in the code. The workers go on.
//!
//! A signal has a worker write the Python stack of each of its threads into a file in memory,
//! whoever holds the interpreter.

use std::time::Duration;

use super::duration::duration;
use super::{NOT_RUNNING, OK, harmless, print};
use crate::scoreboard::{Scoreboard, WorkerReading};
use crate::sys::process::Pid;
use crate::sys::stack_file::{self, Written};

/// How long a worker may take to write its stacks.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Prints the stacks, and returns the exit status: 3 if there is no worker.
pub(super) fn show(board: &Scoreboard) -> i32 {
    let (workers, requests) = (board.read_workers(), board.read_requests());
    let mut exit = NOT_RUNNING;
    for (worker, pid) in workers.iter().filter_map(|worker| Some((worker, worker.pid?))) {
        exit = OK;
        print(&heading(worker, pid));
        for request in requests.iter().filter(|request| request.row == worker.number) {
            print(&format!("  for {} at {}", duration(request.age.as_secs_f64()), harmless(&request.text)));
        }
        match stack_file::ask(pid, Written::ThreadsAndGreenlets, PATIENCE) {
            Ok(stacks) => print(harmless(&stacks).trim_end()),
            Err(reason) => print(&format!("  no stacks: {reason}")),
        }
        print("");
    }
    exit
}

fn heading(worker: &WorkerReading, pid: Pid) -> String {
    let phase = format!("{:?}", worker.phase).to_lowercase();
    let oldest = worker
        .running
        .first()
        .map_or_else(String::new, |age| format!(", the oldest for {}", duration(age.as_secs_f64())));
    format!("worker {} (pid:{pid}) {phase}: {} requests in the application{oldest}", worker.number, worker.in_flight)
}
