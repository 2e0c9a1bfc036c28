//! Workers that are stuck.

use std::time::Duration;

use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};

use crate::util::server::{Plan, Server, send};
use crate::util::{wait_at_most, wait_until};

#[test]
fn a_stuck_worker_is_ended_within_timeout_and_two_seconds() {
    for stuck in ["/wait", "/hang", "/spin"] {
        let mut server = Server::start("process", ["--timeout", "1", "--workers", "2"]);
        let before = server.wait_for_workers(2);
        assert_eq!(server.get("/").status, 200);
        let mut client = server.connect();
        client.send(format!("GET {stuck} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let gone = || before.iter().find(|pid| !server.workers().contains(pid)).copied();
        let took = wait_at_most(Duration::from_millis(3500), "the stuck worker to end", || gone().is_some());
        assert!(took > Duration::from_millis(700), "{stuck} was ended after {took:?}, before its timeout");
        let pid = gone().expect("just seen");
        server.wait_for_log(&format!("[CRITICAL] WORKER TIMEOUT (pid:{pid})"));
        assert!(!server.log().contains("out of memory"), "we killed it ourselves");
        server.wait_for_workers(2);
        assert_eq!(server.get("/").status, 200);
        server.allow("");
        server.finish();
    }
}

#[test]
fn a_slow_request_within_the_timeout_is_left_alone() {
    let server = Server::start("process", ["--timeout", "3"]);
    assert_eq!(server.get("/sleep?1.5").status, 200);
    server.finish();
}

#[test]
fn timeout_0_never_ends_a_worker() {
    let server = Server::start("process", ["--timeout", "0"]);
    let workers = server.wait_for_workers(1);
    assert_eq!(server.get("/sleep?2.5").status, 200);
    assert_eq!(server.workers(), workers);
    server.finish();
}

#[test]
fn an_idle_worker_does_not_count_as_stuck() {
    let server = Server::start("process", ["--timeout", "1"]);
    let workers = server.wait_for_workers(1);
    assert_eq!(server.get("/").status, 200);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(server.workers(), workers);
    server.finish();
}

#[test]
fn a_worker_that_boots_slowly_is_not_ended() {
    let app = "import time\ntime.sleep(2.5)\nfrom echo import application\n";
    let plan = Plan::app("app").in_own_folder().file("app.py", app);
    let apps = crate::util::apps();
    let server = plan.args(["--timeout", "1", "--pythonpath", apps.to_str().expect("a plain path")]).start();
    let workers = server.wait_for_workers(1);
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.workers(), workers);
    server.finish();
}

#[test]
fn a_stopped_worker_is_replaced() {
    let mut server = Server::start("process", ["--timeout", "1"]);
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").status, 200);
    send(worker, SIGSTOP);
    wait_until("a replacement", || server.workers().first().is_some_and(|&pid| pid != worker));
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn a_master_that_was_stopped_itself_kills_no_worker() {
    let server = Server::start("process", ["--timeout", "1", "--workers", "2"]);
    let workers = server.wait_for_workers(2);
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGSTOP);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(server.get("/").status, 200, "the workers serve meanwhile");
    server.signal(SIGCONT);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(server.workers(), workers);
    server.finish();
}

#[test]
fn request_timeout_bounds_a_request_where_timeout_does_not() {
    // Also if the master has no other reason to wake up soon.
    for timeout in ["0", "30"] {
        bounds_a_request(&["--timeout", timeout, "--request-timeout", "1", "--workers", "2"]);
    }
}

fn bounds_a_request(args: &[&str; 6]) {
    let mut server = Server::start("process", *args);
    let before = server.wait_for_workers(2);
    assert_eq!(server.get("/sleep?0.2").status, 200);
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the stuck worker to end", || before.iter().any(|pid| !server.workers().contains(pid)));
    let stuck = before.iter().find(|pid| !server.workers().contains(pid)).expect("just seen");
    server.wait_for_log(&format!("[CRITICAL] WORKER TIMEOUT (pid:{stuck})"));
    server.wait_for_log(&format!("Worker (pid:{stuck}) has been in the app for 1 s with request "));
    server.wait_for_log("request_timeout.");
    server.wait_for_workers(2);
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn a_worker_past_its_timeout_tells_what_it_was_at_though_c_code_holds_the_interpreter() {
    let app = "def application(environ, start_response):\n    if environ['PATH_INFO'] == '/stuck':\n        \
               sum(range(10**12))\n    start_response('200 OK', [])\n    return [b'ok']\n";
    let mut server = Plan::app("app").in_own_folder().file("app.py", app).args(["--timeout", "1"]).start();
    let stuck = server.wait_for_workers(1);
    let mut client = server.connect();
    client.send("GET /stuck?now HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.read().status, 504, "no other worker answers");
    for told in ["WORKER TIMEOUT", "Aborted while serving GET /stuck?now from 127.0.0.1, for ", "line 3 in application"]
    {
        server.wait_for_log(told);
    }
    wait_until("another worker", || server.workers() != stuck && server.has_serving(1));
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn boot_timeout_ends_a_start_that_hangs() {
    let plan = Plan::app("app").in_own_folder().file("app.py", "import time\ntime.sleep(600)\n");
    let mut server = plan.args(["--boot-timeout", "3"]).start();
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(15));
    assert_eq!(status.code(), Some(3));
    assert!(took > Duration::from_millis(2700), "{took:?}");
    let log = server.log();
    assert!(log.contains("has been loading the app for 3 s: boot_timeout."), "{log}");
    assert!(log.contains("time.sleep(600)"), "where it hung: {log}");
    assert_eq!(log.matches("Reason: Worker failed to boot.").count(), 1, "{log}");
}

#[test]
fn boot_timeout_gives_up_a_reload_that_hangs() {
    let apps = crate::util::apps();
    let app = "from echo import application\n";
    let plan = Plan::app("app").in_own_folder().file("app.py", app);
    let plan = plan.args(["--boot-timeout", "4", "--pythonpath", apps.to_str().expect("a plain path")]);
    let mut server = plan.start();
    let workers = server.wait_for_workers(1);
    assert_eq!(server.get("/").status, 200);
    // Only SIGKILL ends it.
    let deaf = "import signal, time\nsignal.signal(signal.SIGABRT, signal.SIG_IGN)\ntime.sleep(600)\n";
    server.write("app.py", deaf);
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.wait_for_log("Reload failed");
    wait_until("only the old worker", || server.workers() == workers);
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn request_timeout_bounds_the_oldest_of_many_requests() {
    let mut server = Server::start("process", ["--threads", "4", "--timeout", "30", "--request-timeout", "2"]);
    let worker = server.wait_for_workers(1)[0];
    let mut stuck = server.connect();
    stuck.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request to be in the app", || server.entered() == 1);
    // Others come and go beside it, and must neither hide it nor be taken for it.
    wait_until("the worker to be given up", || {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let _ = client.read_for("GET");
        server.log().contains(&format!("[CRITICAL] WORKER TIMEOUT (pid:{worker})"))
    });
    server.wait_for_log("request_timeout.");
    wait_until("a new worker", || server.workers().first().is_some_and(|&pid| pid != worker));
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn an_idle_worker_with_threads_does_not_count_as_stuck() {
    let server = Server::start("process", ["--threads", "4", "--timeout", "1"]);
    let workers = server.wait_for_workers(1);
    assert_eq!(server.get("/sleep?2.5").status, 200);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(server.workers(), workers);
    server.finish();
}
