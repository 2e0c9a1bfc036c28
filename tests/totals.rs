//! Totals: none ever falls, whatever dies or takes over, and what was asked is what was counted.
//! Short by default; `MONOCEROS_CHAOS=long` (`scripts/chaos totals::`) goes on for minutes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2};

use crate::util::client::{Address, Client};
use crate::util::load::{Load, version};
use crate::util::metrics::{Samples, is_total, measured, read, samples, sum};
use crate::util::process::{self, is_alive};
use crate::util::server::{Plan, Server, send};
use crate::util::{board, count, wait_until};

#[test]
fn no_total_ever_falls_whatever_dies() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1));
    let (mut server, address) = measured(plan.args(["--workers", "2"]));
    server.allow("was sent SIGKILL");
    server.wait_for_workers(2);
    let rounds = count(60, 3);
    let load = watched(&server, &address, |_| {
        for round in 0..rounds {
            // One that is stopped already ends for that reason, whatever it is sent.
            wait_until("the old workers' end", || server.has_serving(2) && server.workers().len() == 2);
            let workers = server.workers();
            send(workers[round % workers.len()], SIGKILL);
            wait_until("another worker", || server.workers() != workers && server.has_serving(2));
            for signal in [SIGTTIN, SIGTTOU, SIGHUP] {
                server.signal(signal);
                thread::sleep(Duration::from_millis(100));
            }
            wait_until("the reload", || read(&address)["monoceros_reloads_total{outcome=\"ok\"}"] > round as f64);
        }
    });
    let found = quiet(&address);
    let requests = sum(&found, "monoceros_requests_total");
    // Those in a worker that was killed are not counted, or counted and not answered: each of the
    // four clients had at most one there.
    let cut_off = load.cut_off() as f64;
    let (least, most) = (load.ok() as f64 - 4.0 * rounds as f64, load.ok() as f64 + cut_off + 4.0 * rounds as f64);
    assert!((least..=most).contains(&requests), "{requests} counted: {load}");
    assert!(found["monoceros_worker_exits_total{cause=\"killed\"}"] >= rounds as f64, "{found:?}");
    assert!(found["monoceros_worker_exits_total{cause=\"reload\"}"] >= rounds as f64, "{found:?}");
    server.finish();
}

#[test]
fn totals_go_on_when_one_program_follows_another() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1));
    let pidfile = plan.path("pid");
    let plan =
        plan.args(["--workers", "2", "--max-requests", "1000", "--pid", pidfile.to_str().expect("a plain path")]);
    let (mut server, address) = measured(plan);
    server.wait_for_workers(2);
    let mut masters = Masters { pid: server.pid(), pidfile };
    let load = watched(&server, &address, |load| {
        for _ in 0..count(20, 1) {
            masters.replace_in_place();
            masters.roll_back(load, &address);
            masters.upgrade();
            // A second one right behind the first: workers of three programs count.
            masters.replace_in_place();
            masters.replace_in_place();
        }
    });
    load.expect_no_failure();
    let counted = || sum(&read(&address), "monoceros_requests_total");
    wait_until("all to be counted", || counted() == load.ok() as f64);
    let found = quiet(&address);
    assert_eq!(counted(), load.ok() as f64, "{load}");
    assert_eq!(found["monoceros_request_duration_seconds_count"], load.ok() as f64);
    assert_eq!(found["monoceros_responses_total{code=\"200\"}"], load.ok() as f64);
    for (cause, is_seen) in [("reload", true), ("max_requests", true), ("killed", false), ("scale_down", false)] {
        let counted = found[&format!("monoceros_worker_exits_total{{cause=\"{cause}\"}}")];
        assert_eq!(counted > 0.0, is_seen, "{cause}: {found:?}");
    }
    // What is said of a row is said once.
    assert_eq!(found["monoceros_threads"], 2.0, "{found:?}");
    send(masters.pid, SIGTERM);
    wait_until("the last master to end", || !is_alive(masters.pid));
    server.wait_for_exit();
    server.expect_gone();
    server.expect_clean_log();
}

/// The master that is to be followed.
struct Masters {
    pid: i32,
    pidfile: PathBuf,
}

impl Masters {
    /// RTMIN, and the workers of the program before are gone.
    fn replace_in_place(&self) {
        let before = process::children(self.pid);
        // SAFETY: kill(2) touches no memory.
        assert_eq!(unsafe { libc::kill(self.pid, libc::SIGRTMIN()) }, 0, "the master is there");
        let is_new = |workers: Vec<i32>| workers.iter().all(|worker| !before.contains(worker));
        wait_until("the next program's workers", || is_new(process::children(self.pid)) && serve(self.pid));
    }

    /// USR2, and the new master ends when it has served a while.
    fn roll_back(&self, load: &Load, address: &Address) {
        let new = self.begin();
        let before = load.ok();
        wait_until("both to serve", || {
            load.ok() > before + 50 && sum(&read(address), "monoceros_requests_total") > 0.0
        });
        send(new, SIGTERM);
        wait_until("the new master to end", || !is_alive(new));
    }

    /// USR2, and the old master ends.
    fn upgrade(&mut self) {
        let (old, new) = (self.pid, self.begin());
        send(old, SIGTERM);
        wait_until("the promotion", || read_pid(&self.pidfile) == new);
        wait_until("the old master to end", || !is_alive(old));
        self.pid = new;
    }

    fn begin(&self) -> i32 {
        let second = self.pidfile.with_file_name("pid.2");
        send(self.pid, SIGUSR2);
        wait_until("the second pid file", || read_pid(&second) != 0);
        let new = read_pid(&second);
        wait_until("the new master's workers", || serve(new));
        new
    }
}

/// Whether as many workers serve as should. Some may end besides, having served their requests.
fn serve(master: i32) -> bool {
    board::serving(master).is_some_and(|serving| serving >= 2)
}

fn read_pid(file: &std::path::Path) -> i32 {
    std::fs::read_to_string(file).unwrap_or_default().trim().parse().unwrap_or(0)
}

/// Load while `drive` runs, and scrapes that see whether a total falls.
fn watched(server: &Server, address: &Address, drive: impl FnOnce(&Load)) -> Load {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let scraper = scope.spawn(|| watch_totals(address, &is_over));
        // Also where something below fails: the scope waits for the scraper.
        let _end = EndOf(&is_over);
        let load = Load::during(&server.address, 2, drive);
        is_over.store(true, Ordering::Relaxed);
        let scrapes = scraper.join().expect("no total fell");
        assert!(scrapes > 10, "only {scrapes} scrapes");
        load
    })
}

/// The totals once nothing runs.
fn quiet(address: &Address) -> Samples {
    wait_until("quiet", || read(address)["monoceros_requests_in_flight"] == 0.0);
    read(address)
}

/// Says at its end that something is over.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads every 50 ms until it `is_over`; says how often.
fn watch_totals(address: &Address, is_over: &AtomicBool) -> usize {
    let (mut before, mut scrapes) = (Samples::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::try_connect(address) else { continue };
        let _ = client.try_send("GET /metrics HTTP/1.1\r\n\r\n");
        // The worker that has accepted it may be the one that is killed.
        let Ok(page) = client.read_for("GET") else { continue };
        let now = samples(&page.text());
        let fallen: Vec<_> = before
            .iter()
            // Those of another master are those of another process.
            .filter(|(name, _)| is_total(name) && !name.starts_with("process_"))
            .filter_map(|(name, earlier): (&String, &f64)| {
                // A processor time is left out at the moment in which its worker dies.
                let value = now.get(name).copied().or(name.contains("_cpu_seconds_total").then_some(*earlier));
                (value.is_none_or(|value| value < *earlier)).then(|| format!("{name} fell from {earlier} to {value:?}"))
            })
            .collect();
        assert!(fallen.is_empty(), "{fallen:#?}");
        let left_out = before.into_iter().filter(|(name, _)| !now.contains_key(name)).collect::<Vec<_>>();
        before = now;
        before.extend(left_out);
        scrapes += 1;
        thread::sleep(Duration::from_millis(50));
    }
    scrapes
}
