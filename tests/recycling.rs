//! Workers that are replaced for their age or their size: one at a time, each serving until another
//! does.

use std::time::Duration;

use crate::util::load::{Load, version};
use crate::util::server::{Plan, Server};
use crate::util::{wait_at_most, wait_until};

#[test]
fn a_worker_past_its_lifetime_is_replaced_without_a_gap() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1));
    let server = plan.args(["--workers", "2", "--max-worker-lifetime", "1"]).start();
    let before = server.wait_for_workers(2);
    let load = Load::during(&server.address, 1, |_| {
        wait_until("both workers to be replaced", || !before.iter().any(|pid| server.workers().contains(pid)));
    });
    load.expect_no_failure();
    assert!(
        server.log().contains(&format!("Replacing worker (pid:{}): it has reached max_worker_lifetime.", before[0]))
    );
    server.finish();
}

#[test]
fn a_worker_that_has_grown_is_replaced_and_only_that_one() {
    for measure in ["rss", "pss"] {
        let args = ["--workers", "2", "--max-worker-memory", "120M", "--worker-memory-measure", measure];
        let server = Server::start("process", args);
        let before = server.wait_for_workers(2);
        let grown: i32 = server.get("/grow?200").text().parse().expect("a pid");
        // Three samples, five seconds apart where the kernel walks every page.
        wait_at_most(Duration::from_secs(40), "the grown worker to go", || !server.workers().contains(&grown));
        server.wait_for_workers(2);
        let small = before.into_iter().find(|&pid| pid != grown).expect("two workers");
        assert!(server.workers().contains(&small), "{measure}: the other one had not grown");
        let line = format!("Replacing worker (pid:{grown}): it has grown above max_worker_memory.");
        assert_eq!(server.log().matches(&line).count(), 1, "{}", server.log());
        assert_eq!(server.log().matches("Replacing worker").count(), 1, "{}", server.log());
        assert_eq!(server.get("/").status, 200);
        server.finish();
    }
}

#[test]
fn a_short_peak_of_memory_replaces_no_worker() {
    let server = Server::start("process", ["--max-worker-memory", "120M"]);
    let before = server.wait_for_workers(1);
    // Up for one sample at most, then down again.
    assert_eq!(server.get("/peak?200").status, 200);
    std::thread::sleep(Duration::from_millis(4500));
    assert_eq!(server.workers(), before);
    server.finish();
}

#[test]
fn auto_finds_a_number_and_max_workers_bounds_it() {
    let server = Server::start("echo", ["--workers", "auto", "--max-workers", "2"]);
    server.wait_for_workers(2);
    server.wait_for_log("workers = auto: 2 for ");
    server.finish();
    let mut server = Server::start("echo", ["--workers", "auto", "--max-worker-memory", "1000000G"]);
    server.wait_for_workers(1);
    server.allow("has no room for a worker");
    server.finish();
}

#[test]
fn workers_that_die_young_are_forked_with_a_growing_pause() {
    let app =
        format!("import os, threading\nthreading.Timer(0.5, os._exit, [9]).start()\n{}", crate::util::load::version(1));
    let mut server = Plan::app("app").in_own_folder().file("app.py", &app).launch();
    server.wait_for_log("the next one is forked in 400 ms");
    let forks = server.log().matches("Booting worker").count();
    assert!(forks <= 6, "{forks} forks: {}", server.log());
    server.allow("exited with code 9");
    server.allow("Workers end soon after they began to serve");
    server.finish();
}
