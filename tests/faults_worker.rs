//! Faults inside a worker (rows SV-01 to SV-13, SV-58 to SV-60 of the fault matrix that are not in
//! `faults` and `timeout`): whatever the app does to its process, the others serve and the worker
//! is replaced.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGCONT, SIGSTOP, SIGTERM};

use crate::util::cgroup::Cgroup;
use crate::util::server::{Server, send};
use crate::util::{wait_at_most, wait_until};

#[test]
fn an_abort_is_named_and_the_worker_replaced() {
    let mut server = Server::start("process", []);
    let worker = server.wait_for_workers(1)[0];
    let mut client = server.connect();
    client.send("GET /abort HTTP/1.1\r\nHost: test\r\n\r\n");
    client.expect_closed(Duration::from_secs(10));
    server.wait_for_log(&format!("Worker (pid:{worker}) was sent SIGABRT!"));
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn a_worker_that_the_kernel_kills_for_memory_says_so() {
    let Some(group) = Cgroup::new("memory") else { return println!("skipped: no memory cgroup can be made here") };
    group.set("memory.limit_in_bytes", 120 << 20);
    let mut server = Server::start("process", ["--workers", "2"]);
    let workers = server.wait_for_workers(2);
    assert_eq!(server.get("/").status, 200);
    workers.iter().for_each(|&pid| group.add(pid));
    let mut client = server.connect();
    client.send("GET /grow?400 HTTP/1.1\r\nHost: test\r\n\r\n");
    server.wait_for_log("was sent SIGKILL! ");
    wait_until("a new worker", || {
        let now = server.workers();
        now.len() == 2 && now != workers
    });
    let log = server.log();
    assert!(log.contains("was sent SIGKILL! Perhaps out of memory? The kernel has just killed a process"), "{log}");
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn a_kill_from_outside_is_not_called_a_want_of_memory() {
    if fs::read_to_string("/proc/vmstat").is_ok_and(|text| !text.contains("oom_kill ")) {
        return println!("skipped: this kernel does not count");
    }
    let mut server = Server::start("process", []);
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").status, 200);
    send(worker, nix::sys::signal::Signal::SIGKILL);
    server.wait_for_log(&format!("Worker (pid:{worker}) was sent SIGKILL! "));
    // Unless the kernel has killed another process for memory at this very moment.
    let log = server.log();
    assert!(log.contains("Not by this server, nor by the kernel") || log.contains("has just killed"), "{log}");
    server.wait_for_workers(1);
    server.allow("SIGKILL");
    server.finish();
}

#[test]
fn sys_exit_in_the_app_harms_no_other_request() {
    let mut server = Server::start("process", ["--workers", "2"]);
    server.wait_for_workers(2);
    for _ in 0..4 {
        // 500 or a close: both are right.
        let mut client = server.connect();
        client.send("GET /leave HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let answer = client.read_for("GET");
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 500), "{answer:?}");
        assert_eq!(server.get("/").status, 200);
    }
    server.wait_for_workers(2);
    server.allow("");
    server.finish();
}

#[test]
fn a_hanging_worker_is_replaced_wherever_it_hangs() {
    for stuck in ["/backtrack", "/sleep-in-c", "/deadlock"] {
        let mut server = Server::start("process", ["--timeout", "1", "--workers", "2"]);
        let before = server.wait_for_workers(2);
        assert_eq!(server.get("/").status, 200);
        let mut client = server.connect();
        client.send(format!("GET {stuck} HTTP/1.1\r\nHost: test\r\n\r\n"));
        wait_until("the request to be in the app", || server.entered() == 1);
        assert_eq!(server.get("/").status, 200, "the other worker serves meanwhile");
        let gone = || before.iter().any(|pid| !server.workers().contains(pid));
        wait_at_most(Duration::from_secs(8), "the stuck worker to end", gone);
        server.wait_for_workers(2);
        assert_eq!(server.get("/").status, 200, "{stuck}");
        server.allow("");
        server.finish();
    }
}

#[test]
fn a_suspended_machine_kills_no_worker() {
    let server = Server::start("process", ["--timeout", "1", "--workers", "2"]);
    let workers = server.wait_for_workers(2);
    assert_eq!(server.get("/").status, 200);
    let all: Vec<i32> = workers.iter().copied().chain([server.pid()]).collect();
    all.iter().for_each(|&pid| send(pid, SIGSTOP));
    std::thread::sleep(Duration::from_millis(3500));
    // The master continues first: it then sees heartbeats that are old.
    all.iter().rev().for_each(|&pid| send(pid, SIGCONT));
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(server.workers(), workers);
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

#[test]
fn exhausted_memory_and_recursion_do_not_end_the_worker() {
    let mut server = Server::start("process", []);
    let worker = server.wait_for_workers(1);
    for path in ["/exhaust", "/recurse", "/raise"] {
        assert_eq!(server.get(path).status, 500, "{path}");
    }
    assert_eq!(server.workers(), worker);
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn the_apps_children_are_its_own() {
    let server = Server::start("process", []);
    for _ in 0..10 {
        assert_eq!(server.get("/children").text(), "[7, 7, 7]");
    }
    server.finish();
}

#[test]
fn the_apps_children_inherit_no_socket() {
    let server = Server::start("process", ["--access-logfile", "-"]);
    let mut client = server.connect();
    let found = client.get("/inherited").text();
    // What the test itself was started with, or opened for another test, passes through the server
    // to the app's children.
    let own: Vec<String> = fs::read_dir("/proc/self/fd")
        .expect("/proc is mounted")
        .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
        .collect();
    let new: Vec<&str> = found.split('\'').filter(|name| name.starts_with("socket:")).collect();
    let new: Vec<&&str> = new.iter().filter(|name| !own.iter().any(|known| known == **name)).collect();
    assert!(new.is_empty(), "{found}");
    server.finish();
}

#[test]
fn a_copy_of_the_worker_that_the_app_makes_does_not_serve() {
    let server = Server::start("process", []);
    let worker = server.wait_for_workers(1);
    let mut client = server.connect();
    for how in ["return", "raise"] {
        assert_eq!(client.get(&format!("/fork?{how}")).text(), "0", "one answer, the worker's");
        assert!(client.is_silent(Duration::from_millis(200)), "{how}: a second answer");
    }
    let copies = server.gate_files("forked-");
    assert_eq!(copies.len(), 2);
    for copy in copies {
        let pid = copy.trim_start_matches("forked-").parse().expect("a pid");
        assert!(!crate::util::process::is_alive(pid), "the copy lives on");
    }
    assert_eq!(server.workers(), worker);
    // Its exit handlers belong to the worker, and have not run.
    assert_eq!(server.gate_files("atexit-"), Vec::<String>::new());
    server.finish();
}

#[test]
fn a_child_of_the_app_logs_while_other_threads_do() {
    let server = Server::start("process", []);
    assert_eq!(server.get("/fork_while_logging").text(), "0", "children that do not end");
    assert_eq!(server.log().matches("a line of a child").count(), 100);
    server.finish();
}

#[test]
fn threads_and_exit_handlers_that_do_not_end_are_ended() {
    let mut server = Server::start("process", ["--graceful-timeout", "2"]);
    assert_eq!(server.get("/linger").status, 200);
    server.signal(SIGTERM);
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(8), "{took:?}");
    server.expect_gone();
}
