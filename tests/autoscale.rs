//! `autoscale`: the number of workers follows the load, and no request pays for it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGHUP, SIGTTIN};

use crate::util::server::{Plan, Server};
use crate::util::wait_at_most;

/// Requests that take a twentieth of a second, each of which keeps a thread busy.
const APP: &str = "import time\n\
                   def application(environ, start_response):\n\
                   \x20   time.sleep(0.05)\n\
                   \x20   start_response('200 OK', [('Content-Length', '2')])\n\
                   \x20   return [b'ok']\n";

/// The bounds: up within five seconds, of which a busy machine gets more; down within
/// sixty.
const UP: Duration = Duration::from_secs(20);
const DOWN: Duration = Duration::from_secs(60);

fn plan() -> Plan {
    Plan::app("app").in_own_folder().file("app.py", APP).args(["--autoscale"])
}

/// Has `clients` ask again and again while `drive` runs. Panics where an answer is not 200.
fn under_load(server: &Server, clients: usize, drive: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    assert_eq!(server.get("/").status, 200);
                }
            });
        }
        // Also when `drive` panics.
        let _end = OnDrop(|| is_over.store(true, Relaxed));
        drive();
    });
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_load_beyond_the_workers_calls_more_up_to_the_most() {
    let server = plan().args(["--workers", "1", "--max-workers", "3"]).start();
    server.wait_for_workers(1);
    under_load(&server, 6, || {
        wait_at_most(UP, "three workers", || server.has_serving(3));
        // They are as busy as before, and it is the most.
        let log = server.log();
        assert!(log.contains("autoscale: 1 to 2 workers: ") && log.contains(" to 3 workers: "), "{log}");
        // A reload keeps what the load has asked for.
        let old = server.workers();
        server.signal(SIGHUP);
        wait_at_most(UP, "another generation of three", || {
            server.has_serving(3) && !server.workers().iter().any(|pid| old.contains(pid))
        });
    });
    server.finish();
}

#[test]
fn there_are_no_more_workers_than_memory_and_the_lower_bound_moves_with_ttin() {
    let plan = plan().args(["--workers", "1", "--max-workers", "8"]);
    let server = plan.env("MEMORY_LIMIT", "600M").start();
    server.wait_for_workers(1);
    under_load(&server, 6, || {
        wait_at_most(UP, "two workers", || server.has_serving(2));
        server.signal(SIGTTIN);
        wait_at_most(UP, "three workers", || server.has_serving(3));
    });
    assert!(!server.log().contains("autoscale: 2 to "), "{}", server.log());
    server.finish();
}

#[test]
#[ignore = "a load that doubles and falls again: two minutes"]
fn long_workers_follow_a_load_that_doubles_and_falls() {
    let options = ["--workers", "2", "--max-workers", "8"];
    let server = plan().args(options).start();
    server.wait_for_workers(2);
    under_load(&server, 1, || {
        thread::sleep(Duration::from_secs(10));
        assert!(!server.log().contains("autoscale:"), "one of two is busy: {}", server.log());
        under_load(&server, 1, || {
            wait_at_most(UP, "four workers", || server.has_serving(4));
        });
        wait_at_most(DOWN, "two workers", || server.has_serving(2) && server.workers().len() == 2);
        thread::sleep(Duration::from_secs(20));
    });
    let changes: Vec<bool> = server.log().lines().filter_map(is_up).collect();
    let turns = changes.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(turns, 1, "up, then down, and nothing beside: {}", server.log());
    server.finish();
}

/// Whether the line tells of more workers or of fewer, if it tells of a change.
fn is_up(line: &str) -> Option<bool> {
    let words: Vec<&str> = line.split("autoscale: ").nth(1)?.split(' ').collect();
    Some(words[0].parse::<usize>().ok()? < words[2].parse::<usize>().ok()?)
}
