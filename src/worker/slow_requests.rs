//! `slow_request`: each request that has run for too long is a line in the log, while it runs; with
//! `slow_request_stack` also where in the application it is.
//!
//! Getting a stack takes a moment, and a greenlet's needs the interpreter, for which the leader
//! does not wait. So a thread of its own gets stacks, one such thread at a time.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::base::unpoisoned::Unpoisoned;
use crate::logging::{RequestIds, within};
use crate::python::call::{InFlight, Runner};
use crate::python::greenlets::stack_of;
use crate::sys::clock::monotonic_ns;
use crate::sys::process::getpid;
use crate::sys::stack_file::{self, Written};
use crate::sys::thread;

/// How long faulthandler may take to write the stacks. It mostly takes a few milliseconds.
const STACK_PATIENCE: Duration = Duration::from_secs(1);

/// The slow requests that the log names already, by their starts.
pub struct SlowRequests {
    told: Vec<u64>,
    /// Whether lines show stacks.
    with_stacks: bool,
    /// A thread is getting stacks.
    is_looking: Arc<AtomicBool>,
}

/// A request in flight, as it was seen.
pub struct SeenRequest {
    /// When it began, in nanoseconds of the monotonic clock.
    pub start: u64,
    /// The request as the log names it.
    pub text: String,
    ids: RequestIds,
    runs_in: InFlight,
}

/// A line to come.
struct SlowLine {
    text: String,
    request: SeenRequest,
}

impl SeenRequest {
    /// All requests that this caller runs.
    pub fn all_of(caller: &InFlight) -> Vec<SeenRequest> {
        let start = caller.start();
        let described = caller.describe().into_iter();
        described.map(|(text, ids)| SeenRequest { start, text, ids, runs_in: caller.clone() }).collect()
    }
}

impl SlowRequests {
    /// Nothing has been logged yet; lines are to come with or without stacks.
    pub fn new(with_stacks: bool) -> SlowRequests {
        SlowRequests { told: Vec::new(), with_stacks, is_looking: Arc::default() }
    }

    /// Logs each of the requests in flight that has run for longer than `limit`, once.
    pub fn tell(&mut self, in_flight: Vec<SeenRequest>, limit: Duration) {
        let lines = self.new_lines(in_flight, limit, monotonic_ns());
        if lines.is_empty() {
            return;
        }
        // While a thread is getting stacks, further lines go without.
        if !self.with_stacks || self.is_looking.swap(true, Relaxed) {
            return lines.into_iter().for_each(|line| line.write(None));
        }
        let is_looking = self.is_looking.clone();
        // Shared, so that the lines are not lost where no thread can be started.
        let lines = Arc::new(Mutex::new(lines));
        let theirs = lines.clone();
        let started = thread::spawn("slow-request", move || {
            write_with_stacks(take(&theirs));
            is_looking.store(false, Relaxed);
        });
        if let Err(error) = started {
            self.is_looking.store(false, Relaxed);
            log::warn!("Cannot get the stacks of slow requests: {error}");
            take(&lines).into_iter().for_each(|line| line.write(None));
        }
    }

    fn new_lines(&mut self, in_flight: Vec<SeenRequest>, limit: Duration, now: u64) -> Vec<SlowLine> {
        // A request that has ended need not be remembered: no later one has its start.
        self.told.retain(|told| in_flight.iter().any(|seen| seen.start == *told));
        let mut lines = Vec::new();
        for request in in_flight {
            let age = Duration::from_nanos(now.saturating_sub(request.start));
            if age >= limit && !self.told.contains(&request.start) {
                self.told.push(request.start);
                let seconds = age.as_secs_f64();
                let text = format!("Slow request: {} has been in the app for {seconds:.1} s", request.text);
                lines.push(SlowLine { text, request });
            }
        }
        lines
    }
}

impl SlowLine {
    fn write(self, stack: Option<String>) {
        let SlowLine { text, request } = self;
        within(request.ids.into(), || match stack {
            Some(stack) => log::warn!("{text}\nStack:\n{stack}"),
            None => log::warn!("{text}"),
        });
    }
}

fn take(lines: &Mutex<Vec<SlowLine>>) -> Vec<SlowLine> {
    std::mem::take(&mut lines.lock().unpoisoned())
}

fn write_with_stacks(lines: Vec<SlowLine>) {
    let mut threads = None;
    for line in lines {
        let of_greenlet = match line.request.runs_in.runner() {
            Some(Runner::Greenlet(greenlet)) => stack_of(greenlet),
            _ => None,
        };
        let stack = of_greenlet.or_else(|| {
            let threads = threads
                .get_or_insert_with(|| stack_file::ask(getpid(), Written::Threads, STACK_PATIENCE).unwrap_or_default());
            stack_in(threads, line.request.runs_in.runner()?)
        });
        // The runner may be at another request by now: the stack is not this one's then.
        let is_there = line.request.runs_in.start() == line.request.start;
        line.write(stack.filter(|_| is_there));
    }
}

/// The runner's stack among those that faulthandler has written. A greenlet that does not wait is
/// run by the current thread.
fn stack_in(threads: &str, runner: &Runner) -> Option<String> {
    let is_it = |heading: &str| match runner {
        Runner::Thread(number) => thread_in(heading) == Some(*number),
        Runner::Greenlet(_) => heading.starts_with("Current thread "),
    };
    let found = threads.split("\n\n").find(|part| is_it(part.trim_start()))?;
    let (_, stack) = found.trim().split_once('\n')?;
    Some(stack.to_owned())
}

/// The number in `Thread 0x00007f0a12345678 (most recent call first):`.
fn thread_in(heading: &str) -> Option<u64> {
    let (_, number) = heading.lines().next()?.split_once("hread 0x")?;
    let digits = number.find(|character: char| !character.is_ascii_hexdigit()).unwrap_or(number.len());
    u64::from_str_radix(&number[..digits], 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(start: u64, text: &str) -> SeenRequest {
        SeenRequest { start, text: text.to_owned(), ids: RequestIds::default(), runs_in: InFlight::default() }
    }

    #[test]
    fn a_request_is_told_once_when_it_is_past_the_limit() {
        let (mut slow, limit) = (SlowRequests::new(false), Duration::from_secs(2));
        let at = |seconds: u64| seconds * 1_000_000_000;
        let first = || seen(at(10), "GET /a from 1.2.3.4");
        let both = || vec![first(), seen(at(11), "GET /b")];
        assert!(slow.new_lines(vec![first()], limit, at(11)).is_empty());
        let said: Vec<String> = slow.new_lines(both(), limit, at(12)).into_iter().map(|line| line.text).collect();
        assert_eq!(said, ["Slow request: GET /a from 1.2.3.4 has been in the app for 2.0 s"]);
        assert_eq!(slow.new_lines(both(), limit, at(13)).len(), 1);
        assert!(slow.new_lines(both(), limit, at(14)).is_empty());
        assert!(slow.new_lines(Vec::new(), limit, at(15)).is_empty() && slow.told.is_empty());
    }

    #[test]
    fn a_stack_is_found_by_the_number_of_its_thread() {
        let threads = "Thread 0x00007f0000000001 (most recent call first):\n  File \"a.py\", line 1 in f\n  File \"b.py\", line 2 in g\n\n\
                       Current thread 0x00007f00000000ff [main] (most recent call first):\n  File \"c.py\", line 3 in h\n";
        let stack = |number| stack_in(threads, &Runner::Thread(number));
        assert_eq!(
            stack(0x7f00_0000_0001).as_deref(),
            Some("  File \"a.py\", line 1 in f\n  File \"b.py\", line 2 in g")
        );
        assert_eq!(stack(0x7f00_0000_00ff).as_deref(), Some("  File \"c.py\", line 3 in h"));
        assert_eq!(stack(1), None);
    }
}
