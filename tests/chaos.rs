//! Everything an operator or an accident does to the process tree, under load that counts every outcome: nothing may fail
//! that could have been served. Short by default; `MONOCEROS_CHAOS=long` runs the numbers that `scripts/chaos` promises.

use std::cell::Cell;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2, SIGWINCH};

use crate::util::client::Client;
use crate::util::load::{Load, version};
use crate::util::notify::NotifySocket;
use crate::util::process::{self, cpu_ticks, is_alive, pss};
use crate::util::server::{Plan, Server, send};
use crate::util::wait_until;

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
fn no_request_fails_over_reloads_that_replace_one_worker_at_a_time() {
    let storm = Storm::start(4, &["--reload-surge", "1"]);
    let load = storm.under_load(|| {
        for number in 2..2 + count(20, 2) {
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
    let mut storm = Storm::start(2, &[]);
    let pidfile = storm.server.path("pid");
    let mut master = storm.server.pid();
    let load = storm.under_load(|| {
        for round in 0..count(30, 3) {
            // Two upgrades for each one that is taken back.
            master = if round % 3 == 2 { roll_back(master, &pidfile) } else { upgrade(master, &pidfile) };
        }
    });
    load.expect_no_failure();
    send(master, SIGTERM);
    wait_until("the last master to end", || !is_alive(master));
    storm.server.wait_for_exit();
    storm.server.expect_gone();
    storm.server.expect_clean_log();
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
    let storm = Storm::start(2, &[]);
    let mut wanted = 2_usize;
    let load = storm.under_load(|| {
        let mut handled = [0, 0];
        for step in 0..count(200, 16) {
            // Up and down without a pattern that repeats soon, between one and five.
            let up = wanted == 1 || (wanted < 5 && step * 7 % 5 < 3);
            wanted = if up { wanted + 1 } else { wanted - 1 };
            storm.server.signal(if up { SIGTTIN } else { SIGTTOU });
            handled[usize::from(up)] += 1;
            // Two of a kind that are pending at once are one to the kernel.
            let name = if up { "ttin" } else { "ttou" };
            storm.server.wait_for_log_times(&format!("Handling signal: {name}"), handled[usize::from(up)]);
        }
    });
    load.expect_no_failure();
    storm.server.wait_for_workers(wanted);
    storm.server.finish();
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
fn no_request_fails_over_broken_deploys() {
    let mut storm = Storm::start(2, &[]);
    let broken = [
        ("app.py", "raise RuntimeError('bad deploy')\n"),
        ("app.py", "def application(:\n"),
        ("app.py", "application = None\n"),
        ("conf.py", "workers = (((\n"),
        ("app.py", "import os\nos._exit(1)\n"),
    ];
    let load = storm.under_load(|| {
        for round in 0..count(50, 5) {
            let (file, text) = broken[round % broken.len()];
            let before = storm.server.wait_for_workers(2);
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
    // A second one is not "hurry".
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
fn a_worker_that_somebody_else_stops_is_replaced_at_once() {
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
fn a_server_at_rest_rests() {
    let server = Plan::app("process").args(["--workers", "2"]).start();
    let workers = server.wait_for_workers(2);
    wait_until("an answer", || server.get("/").status == 200);
    // The spare thread looks on for a moment after a request.
    thread::sleep(Duration::from_millis(500));
    let all: Vec<i32> = workers.into_iter().chain([server.pid()]).collect();
    // Some threads go on for a moment before they lie down.
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

#[test]
fn two_thousand_idle_connections_cost_little() {
    const IDLE: usize = 2000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if hard < 2 * IDLE as u64 {
        return println!("skipped: {hard} open files are allowed, {} are needed", 2 * IDLE);
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(2 * IDLE as u64), hard).expect("below the hard limit");
    let server = Plan::app("process").args(["--worker-connections", "3000"]).start();
    let worker = server.wait_for_workers(1)[0];
    (0..200).for_each(|_| assert_eq!(server.get("/").status, 200));
    let before = pss(worker);
    let idle: Vec<Client> = (0..IDLE)
        .map(|_| {
            let mut client = server.connect();
            assert_eq!(client.get("/").status, 200);
            client
        })
        .collect();
    let each = pss(worker).saturating_sub(before) / IDLE as u64;
    let busy = cpu_ticks(worker);
    thread::sleep(Duration::from_secs(2));
    let ticks = cpu_ticks(worker) - busy;
    let start = Instant::now();
    assert_eq!(server.get("/").status, 200);
    println!("{each} bytes a connection, {ticks} ticks of CPU in 2 s, a request in {:?}", start.elapsed());
    assert!(each < 8192, "{each} bytes a connection");
    // A tick is a hundredth of a second: the bound is a twentieth of a processor.
    assert!(ticks <= 10, "{ticks} ticks while nothing happened");
    drop(idle);
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
        wait_until("all workers to have loaded the app", || server.gate_files("loaded-").len() == workers);
        let storm = Storm { server, notify, reloads: Cell::new(0), workers };
        storm.wait_for_ready(1);
        storm
    }

    fn under_load(&self, drive: impl FnOnce()) -> Load {
        let started = Instant::now();
        let load = Load::during(&self.server.address, CLIENTS, |load| {
            // So that what is done meets requests under way.
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

    /// The server itself has never said that fewer workers serve than there should be.
    fn expect_all_workers_serving(&self) {
        let said = self.notify.serving();
        // Workers of the first start get ready one after the other.
        let after_start = said.iter().skip_while(|(serving, wanted)| serving < wanted);
        let below: Vec<_> = after_start.filter(|(serving, _)| *serving < self.workers).collect();
        assert!(!said.is_empty() && below.is_empty(), "{said:?}");
    }
}

/// USR2, and the old master goes when its workers have.
fn upgrade(old: i32, pidfile: &std::path::Path) -> i32 {
    let new = second_master(old, pidfile);
    withdraw(old, Some(new));
    send(old, SIGQUIT);
    wait_until("the promotion", || read(pidfile).trim() == new.to_string());
    new
}

/// USR2, and when the old master's workers have gone, everything back.
fn roll_back(old: i32, pidfile: &std::path::Path) -> i32 {
    let new = second_master(old, pidfile);
    withdraw(old, Some(new));
    send(old, SIGHUP);
    wait_until("the old master's workers", || process::children(old).len() == 3);
    withdraw(new, None);
    send(new, SIGQUIT);
    wait_until("the new master to end", || process::children(old).len() == 2);
    old
}

fn second_master(old: i32, pidfile: &std::path::Path) -> i32 {
    let second = pidfile.with_file_name("pid.2");
    send(old, SIGUSR2);
    wait_until("the second pid file", || !read(&second).is_empty());
    let new: i32 = read(&second).trim().parse().expect("a pid");
    wait_until("the new master's workers", || process::children(new).len() == 2);
    new
}

/// WINCH, which during an upgrade is heard in the foreground too.
fn withdraw(master: i32, beside: Option<i32>) {
    send(master, SIGWINCH);
    wait_until("the workers to go", || process::children(master) == Vec::from_iter(beside));
}

fn read(path: &std::path::Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn is_long() -> bool {
    std::env::var("MONOCEROS_CHAOS").is_ok_and(|mode| mode == "long")
}

fn count(long: usize, short: usize) -> usize {
    if is_long() { long } else { short }
}

fn worker_counts() -> Vec<usize> {
    if is_long() { vec![2, 4] } else { vec![2] }
}
