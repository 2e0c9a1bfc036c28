//! Everything that an operator or an accident does to the process tree, under load that counts
//! every outcome: no request may fail that could have been served. Short by default;
//! `MONOCEROS_CHAOS=long` runs the numbers that `scripts/chaos` promises.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2, SIGWINCH};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::util::client::{Address, Broken, Client};
use crate::util::load::{Load, version};
use crate::util::notify::NotifySocket;
use crate::util::process::{self, is_alive};
use crate::util::server::{Plan, Server, send};
use crate::util::{PATIENCE, board, count, is_long, soak_seconds, wait_until};

/// Fresh and kept-alive clients, as many of each.
const CLIENTS: usize = 3;

#[test]
fn no_request_fails_over_reloads_with_changing_code() {
    for workers in worker_counts() {
        let storm = Storm::start(workers, &[]);
        storm.under_load(|| (2..2 + count(100, 5)).for_each(|number| storm.deploy(number))).expect_no_failure();
        storm.expect_all_workers_serving();
        storm.server.finish();
    }
}

#[test]
fn no_request_fails_over_reloads_behind_a_unix_socket() {
    let mut storm = Storm::start(2, &["--bind", "unix:socket"]);
    storm.server.address = Address::Unix(storm.server.path("socket"));
    storm.under_load(|| (2..2 + count(20, 5)).for_each(|number| storm.deploy(number))).expect_no_failure();
    storm.expect_all_workers_serving();
    storm.server.finish();
}

#[test]
fn no_request_fails_over_reloads_that_replace_one_worker_at_a_time() {
    let storm = Storm::start(4, &["--reload-surge", "1"]);
    let load = storm.under_load(|| {
        for number in 2..2 + count(20, 2) {
            // One rollout at a time: each may have one worker more than there should be.
            storm.server.wait_for_workers(4);
            storm.deploy(number);
            let workers = storm.server.workers().len();
            assert!(workers <= 5, "{workers} workers at once");
        }
    });
    load.expect_no_failure();
    storm.expect_all_workers_serving();
    storm.server.finish();
}

#[test]
fn no_request_fails_over_upgrades_and_rollbacks() {
    for (workers, args) in [(2, &[] as &[&str]), (4, &[]), (3, &["--reuse-port"])] {
        let mut storm = Storm::start(workers, args);
        let mut masters = Masters { pid: storm.server.pid(), workers, pidfile: storm.server.path("pid") };
        let load = storm.under_load(|| {
            for round in 0..count(30, 3) {
                // Two upgrades for each one that is taken back.
                if round % 3 == 2 { masters.roll_back() } else { masters.upgrade() }
            }
        });
        load.expect_no_failure();
        send(masters.pid, SIGTERM);
        wait_until("the last master to end", || !is_alive(masters.pid));
        storm.server.wait_for_exit();
        storm.server.expect_gone();
        storm.server.expect_clean_log();
    }
}

#[test]
fn no_request_fails_over_upgrades_in_place() {
    let storm = Storm::start(2, &[]);
    let load = storm.under_load(|| {
        for number in 2..2 + count(20, 2) {
            storm.server.write("app.py", &version(number));
            storm.server.signal_rtmin();
            storm.server.wait_for_log_times("Starting monoceros", number);
            storm.wait_for_version(number);
        }
    });
    load.expect_no_failure();
    storm.server.wait_for_workers(2);
    storm.server.finish();
}

#[test]
fn no_request_fails_while_the_number_of_workers_changes() {
    for workers in worker_counts() {
        let storm = Storm::start(workers, &[]);
        let mut wanted = workers;
        let load = storm.under_load(|| {
            let mut handled = [0, 0];
            for step in 0..count(200, 16) {
                // Up and down without a pattern that repeats soon, between one and three more than
                // at first.
                let up = wanted == 1 || (wanted < workers + 3 && step * 7 % 5 < 3);
                wanted = if up { wanted + 1 } else { wanted - 1 };
                storm.server.signal(if up { SIGTTIN } else { SIGTTOU });
                handled[usize::from(up)] += 1;
                // The kernel merges two pending signals of one kind.
                let name = if up { "ttin" } else { "ttou" };
                storm.server.wait_for_log_times(&format!("Handling signal: {name}"), handled[usize::from(up)]);
            }
        });
        load.expect_no_failure();
        storm.server.wait_for_workers(wanted);
        storm.server.finish();
    }
}

#[test]
fn no_request_fails_while_workers_are_recycled() {
    for workers in worker_counts() {
        let storm = Storm::start(workers, &["--max-requests", "40", "--max-requests-jitter", "10"]);
        let recycled = || storm.server.log().matches("Autorestarting worker after current request.").count();
        let load = storm.under_load(|| {
            let wanted = count(2000, 20);
            let start = Instant::now();
            while recycled() < wanted {
                assert!(start.elapsed() < Duration::from_secs(30 + wanted as u64), "only {} recycled", recycled());
                thread::sleep(Duration::from_millis(10));
            }
        });
        load.expect_no_failure();
        storm.expect_all_workers_serving();
        storm.server.finish();
    }
}

#[test]
fn no_request_fails_with_a_socket_for_each_worker() {
    let storm = Storm::start(3, &["--reuse-port", "--max-requests", "3000", "--max-requests-jitter", "2000"]);
    let load = storm.under_load(|| {
        for round in 0..count(50, 4) {
            storm.reload();
            for (signal, name, times) in [(SIGTTOU, "ttou", 1), (SIGTTIN, "ttin", 1), (SIGTTIN, "ttin", 2)] {
                storm.server.signal(signal);
                let before = round * if name == "ttin" { 2 } else { 1 };
                storm.server.wait_for_log_times(&format!("Handling signal: {name}"), before + times);
                thread::sleep(Duration::from_millis(500));
            }
        }
    });
    load.expect_no_failure();
    storm.server.finish();
}

#[test]
fn no_request_fails_over_broken_deploys() {
    let broken = [
        ("app.py", "raise RuntimeError('bad deploy')\n"),
        ("app.py", "def application(:\n"),
        ("app.py", "application = None\n"),
        ("conf.py", "workers = (((\n"),
        ("app.py", "import os\nos._exit(1)\n"),
    ];
    for workers in [2, 4] {
        let mut storm = Storm::start(workers, &[]);
        let load = storm.under_load(|| {
            for round in 0..count(50, 5) {
                let (file, text) = broken[round % broken.len()];
                let before = storm.server.wait_for_workers(workers);
                storm.server.write(file, text);
                storm.reload();
                storm.server.wait_for_log_times("Reload failed", round + 1);
                assert!(before.iter().all(|pid| storm.server.workers().contains(pid)), "the old workers serve on");
                storm.server.write("conf.py", "");
                storm.deploy(round + 2);
            }
        });
        load.expect_no_failure();
        storm.expect_all_workers_serving();
        storm.server.allow("");
        storm.server.finish();
    }
}

#[test]
fn a_killed_worker_costs_only_what_was_in_flight_on_it() {
    for workers in worker_counts() {
        let mut storm = Storm::start(workers, &[]);
        let kills = count(100, 8);
        let load = storm.under_load(|| {
            for turn in 0..kills {
                let alive = storm.server.workers();
                if let Some(&worker) = alive.get(turn % alive.len().max(1)) {
                    send(worker, SIGKILL);
                }
                thread::sleep(Duration::from_millis(300));
            }
        });
        println!("{load}");
        assert_eq!((load.refused(), load.failed()), (0, load.cut_off()), "{load}");
        assert!(load.cut_off() <= kills * 2 * CLIENTS, "more than could have been in flight: {load}");
        assert!(load.ok() > 50, "{load}");
        storm.server.wait_for_workers(workers);
        storm.server.allow("was sent SIGKILL");
        storm.server.finish();
    }
}

#[test]
fn mixed_operations_lose_only_what_was_in_flight_on_killed_workers() {
    let mut storm = Storm::start(3, &[]);
    let (master, length) = (storm.server.pid(), Duration::from_secs(soak_seconds()));
    let (files, memory) = (process::open_files(master), process::anonymous(master));
    let (mut kills, mut refused) = (0, 0);
    let load = storm.under_load(|| {
        let start = Instant::now();
        for turn in 0_usize.. {
            let is_enough = kills > 5 && refused > 50 || start.elapsed() > length + 4 * PATIENCE;
            if start.elapsed() > length && is_enough {
                break;
            }
            // Malformed requests all the time, a reload every 1.5 seconds, a kill every second.
            if turn % 30 == 10 {
                storm.server.signal(SIGHUP);
            }
            if turn % 20 == 15 {
                let alive = storm.server.workers();
                if let Some(&worker) = alive.get(turn / 20 * 7 % alive.len().max(1)) {
                    // A worker that an earlier reload has stopped may just have exited by itself.
                    kills += usize::from(kill(Pid::from_raw(worker), SIGKILL).is_ok());
                }
            }
            refused += usize::from(storm.says_nonsense(turn));
            thread::sleep(Duration::from_millis(50));
        }
    });
    println!("{kills} kills, {refused} refusals");
    assert!(kills > 5 && refused > 50, "{kills} kills, {refused} refusals");
    assert_eq!((load.refused(), load.failed()), (0, load.cut_off()), "{load}");
    assert!(load.cut_off() <= kills * 2 * CLIENTS, "more than could have been in flight: {load}");
    assert!(load.ok() > 50, "{load}");
    // The server has recovered.
    storm.server.wait_for_workers(3);
    wait_until("no dead child", || process::all_children(master).len() == 3);
    wait_until("the master's files", || process::open_files(master) <= files);
    let grown = process::anonymous(master).saturating_sub(memory);
    assert!(grown < 2 << 20, "the master has grown by {grown} bytes");
    assert_eq!(storm.server.get("/").status, 200);
    storm.server.allow("");
    storm.server.finish();
}

#[test]
fn term_answers_what_runs_and_what_the_kernel_has_queued() {
    let plan = Plan::app("process").args(["--backlog", "16", "--graceful-timeout", "20"]);
    let mut server = plan.start();
    assert_eq!(server.get("/").status, 200);
    let mut slow = server.connect();
    slow.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request to be in the app", || server.entered() == 1);
    let mut queued: Vec<Client> = (0..16).map(|_| server.connect()).collect();
    for client in &mut queued {
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    }
    server.signal(SIGTERM);
    server.wait_for_log("Handling signal: term");
    // A second TERM does not shorten the stop.
    server.signal(SIGTERM);
    server.release();
    assert_eq!(slow.read().status, 200);
    for client in &mut queued {
        assert_eq!(client.read().status, 200);
    }
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn a_worker_that_another_process_terminates_is_replaced_at_once() {
    let storm = Storm::start(2, &[]);
    let load = storm.under_load(|| {
        for _ in 0..count(50, 4) {
            let before = storm.server.wait_for_workers(2);
            send(before[0], SIGTERM);
            wait_until("another in its place", || {
                let now = storm.server.workers();
                now.len() == 2 && !now.contains(&before[0])
            });
        }
    });
    load.expect_no_failure();
    storm.server.finish();
}

#[test]
fn an_idle_server_stays_asleep() {
    let server = Plan::app("process").args(["--workers", "2"]).start();
    let workers = server.wait_for_workers(2);
    wait_until("an answer", || server.get("/").status == 200);
    // The standby thread stays awake for a moment after a request.
    thread::sleep(Duration::from_millis(500));
    let all: Vec<i32> = workers.into_iter().chain([server.pid()]).collect();
    // Some threads run for a moment before they sleep.
    wait_until("a server that rests", || {
        let before: Vec<u64> = all.iter().map(|&pid| process::wake_ups(pid)).collect();
        thread::sleep(Duration::from_secs(3));
        let woken: Vec<u64> = all.iter().zip(before).map(|(&pid, before)| process::wake_ups(pid) - before).collect();
        println!("wake-ups in three seconds: {woken:?}, the master last");
        // Once a second, and once more where a second thread takes part.
        woken.iter().all(|&times| times <= 8)
    });
    server.finish();
}

/// A server whose app and settings change under load, and whose service manager listens.
struct Storm {
    server: Server,
    notify: NotifySocket,
    reloads: Cell<usize>,
    workers: usize,
}

impl Storm {
    fn start(workers: usize, args: &[&str]) -> Storm {
        let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).file("conf.py", "");
        let notify = NotifySocket::at(&plan.path("notify"));
        let (conf, pidfile) = (plan.path("conf.py"), plan.path("pid"));
        let plan = plan.env("NOTIFY_SOCKET", notify.path()).args([
            "--workers",
            &workers.to_string(),
            "--config",
            conf.to_str().expect("a plain path"),
            "--pid",
            pidfile.to_str().expect("a plain path"),
        ]);
        let server = args.iter().fold(plan, |plan, arg| plan.args([arg])).start();
        server.wait_for_workers(workers);
        let storm = Storm { server, notify, reloads: Cell::new(0), workers };
        storm.wait_for_ready(1);
        storm
    }

    fn under_load(&self, drive: impl FnOnce()) -> Load {
        let started = Instant::now();
        let load = Load::during(&self.server.address, CLIENTS, |load| {
            // Each action then happens while requests are in flight.
            wait_until("the first answers", || load.ok() > 0);
            drive();
        });
        println!("{:?}: {load}", started.elapsed());
        load
    }

    /// New code, and a reload that is over when it serves.
    fn deploy(&self, number: usize) {
        self.server.write("app.py", &version(number));
        self.reload();
        self.wait_for_version(number);
    }

    /// HUP, and until the server says that it is ready again.
    fn reload(&self) {
        self.server.signal(SIGHUP);
        let reloads = self.reloads.get() + 1;
        self.reloads.set(reloads);
        self.wait_for_ready(1 + reloads);
        assert_eq!(self.notify.count("RELOADING=1\nMONOTONIC_USEC="), reloads);
    }

    fn wait_for_ready(&self, times: usize) {
        self.notify.wait_for("READY=1", times);
    }

    fn wait_for_version(&self, number: usize) {
        let wanted = format!("v{number} ");
        wait_until(&format!("version {number}"), || self.server.get("/").text().starts_with(&wanted));
    }

    /// Sends a malformed request; returns whether it was refused, as it must be unless its worker
    /// was killed at that moment.
    fn says_nonsense(&self, number: usize) -> bool {
        const NONSENSE: [&str; 4] = [
            "NONSENSE\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n",
        ];
        let mut client = self.server.connect();
        let _ = client.try_send(NONSENSE[number % NONSENSE.len()]);
        match client.read_for("GET") {
            Ok(answer) => {
                assert_eq!(answer.status, 400, "{}", answer.text());
                true
            }
            Err(Broken::Closed | Broken::Truncated(_) | Broken::TruncatedHead) => false,
            Err(broken) => panic!("{broken:?}"),
        }
    }

    /// The server has never reported that fewer workers serve than should.
    fn expect_all_workers_serving(&self) {
        let said = self.notify.serving();
        // Workers of the first start get ready one after the other.
        let after_start = said.iter().skip_while(|(serving, wanted)| serving < wanted);
        let below: Vec<_> = after_start.filter(|(serving, _)| *serving < self.workers).collect();
        assert!(!said.is_empty() && below.is_empty(), "{said:?}");
    }
}

/// The serving master, and how another replaces it.
struct Masters {
    pid: i32,
    workers: usize,
    pidfile: PathBuf,
}

impl Masters {
    /// USR2, and the old master goes when its workers have.
    fn upgrade(&mut self) {
        let (old, new) = (self.pid, self.begin());
        withdraw(old, Some(new));
        send(old, SIGQUIT);
        wait_until("the promotion", || read(&self.pidfile).trim() == new.to_string());
        self.pid = new;
    }

    /// USR2, and when the old master's workers have gone, everything back.
    fn roll_back(&mut self) {
        let (old, new) = (self.pid, self.begin());
        withdraw(old, Some(new));
        send(old, SIGHUP);
        wait_until("the old master's workers", || process::children(old).len() == self.workers + 1);
        withdraw(new, None);
        send(new, SIGQUIT);
        wait_until("the new master to end", || process::children(old).len() == self.workers);
    }

    /// The second master, beside the first.
    fn begin(&self) -> i32 {
        let second = self.pidfile.with_file_name("pid.2");
        send(self.pid, SIGUSR2);
        wait_until("the second pid file", || !read(&second).is_empty());
        let new: i32 = read(&second).trim().parse().expect("a pid");
        wait_until("the new master's workers", || board::all_serve(new, self.workers));
        new
    }
}

/// WINCH, which during an upgrade works in the foreground too.
fn withdraw(master: i32, beside: Option<i32>) {
    send(master, SIGWINCH);
    wait_until("the workers to go", || process::children(master) == Vec::from_iter(beside));
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn worker_counts() -> Vec<usize> {
    if is_long() { vec![2, 4] } else { vec![2] }
}
