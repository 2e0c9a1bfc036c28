//! `health_path`: the server itself answers whether it serves, whatever the app does.

use std::time::Duration;

use nix::sys::signal::Signal::{SIGHUP, SIGQUIT, SIGTERM};

use crate::util::client::Broken;
use crate::util::server::{Plan, Server};
use crate::util::wait_until;

const CHECK: &str = "GET /healthz?from=balancer HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_check_is_answered_without_the_app_and_leaves_no_trace() {
    let plan = Plan::app("echo");
    let access = plan.path("access.log");
    let server = plan
        .args(["--health-path", "/healthz", "--access-logfile", access.to_str().expect("a plain path")])
        .args(["--max-requests", "3"])
        .start();
    let workers = server.wait_for_workers(1);
    let mut checker = server.connect();
    for _ in 0..5 {
        checker.send(CHECK);
        let answer = checker.read();
        assert_eq!((answer.status, answer.text().as_str(), answer.says_close()), (200, "ok\n", false));
        assert!(answer.header("Date").is_some() && answer.header("Cache-Control") == Some("no-store"));
    }
    let head = checker.request("HEAD", "/healthz", &[], b"");
    assert_eq!((head.status, head.content_length()), (200, Some(3)));
    // The next request of the connection is an ordinary one, and everything beside the path is the
    // app's.
    assert_eq!(checker.get("/calls").text(), "0", "the app was not called");
    for (method, target, body) in [("GET", "/healthz/", ""), ("POST", "/healthz", ""), ("GET", "/healthz", "x")] {
        assert_ne!(checker.request(method, target, &[], body.as_bytes()).text(), "ok\n", "{method} {target}");
    }
    server.wait_for_log("Autorestarting worker after current request.");
    wait_until("the replacement", || server.workers() != workers && server.has_serving(1));
    let lines = std::fs::read_to_string(&access).expect("the access log");
    assert!(lines.contains("/calls") && !lines.contains("from=balancer"), "{lines}");
    server.finish();
}

#[test]
fn without_the_setting_every_path_is_the_apps() {
    let server = Server::start("echo", []);
    assert!(server.get("/healthz").text().contains("PATH_INFO"));
    server.finish();
}

#[test]
fn a_check_that_is_pipelined_is_answered_and_is_the_last() {
    let server = Server::start("echo", ["--health-path", "/healthz"]);
    let mut client = server.connect();
    client.send(CHECK.repeat(1000));
    let answer = client.read();
    assert_eq!((answer.status, answer.says_close()), (200, true));
    client.expect_closed(Duration::from_secs(5));
    server.finish();
}

#[test]
fn a_check_is_answered_while_every_thread_is_busy() {
    for threads in ["1", "2"] {
        let args = ["--health-path", "/healthz", "--workers", "2", "--threads", threads];
        let server = Plan::app("process").args(args).start();
        server.wait_for_workers(2);
        let busy = 2 * threads.parse::<usize>().expect("a number");
        let mut kept = server.connect();
        kept.send(CHECK);
        assert_eq!(kept.read().status, 200);
        let mut clients: Vec<_> = (0..busy).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"));
        wait_until("every thread to be in the app", || server.entered() == busy);
        for _ in 0..5 {
            assert_eq!(server.get("/healthz").text(), "ok\n", "on a connection of its own");
            kept.send(CHECK);
            assert_eq!(kept.read().text(), "ok\n", "on a kept connection");
        }
        // Requests that came with the checks are served when a thread is free, and not before.
        let mut waiting: Vec<_> = (0..4).map(|_| server.connect()).collect();
        waiting.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(waiting[0].is_silent(Duration::from_millis(200)));
        server.release();
        clients.iter_mut().chain(&mut waiting).for_each(|client| assert_eq!(client.read().status, 200));
        server.finish();
    }
}

#[test]
fn checks_fail_from_the_signal_to_stop_on_while_requests_are_still_served() {
    let args = ["--health-path", "/healthz", "--shutdown-delay", "2", "--workers", "2"];
    let mut server = Plan::app("process").args(args).start();
    server.wait_for_workers(2);
    let (mut kept, mut slow) = (server.connect(), server.connect());
    kept.send(CHECK);
    assert_eq!(kept.read().status, 200);
    slow.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request to be in the app", || server.entered() == 1);
    server.signal(SIGTERM);
    server.wait_for_log("Serving on for 2 s before the stop");
    let failed = server.get("/healthz");
    assert_eq!((failed.status, failed.text().as_str(), failed.says_close()), (503, "stopping\n", true));
    assert_eq!(server.get("/").status, 200, "the app serves on");
    // In the midst of the drain, on a connection that the balancer has kept.
    wait_until("the drain", || crate::util::client::Client::try_connect(&server.address).is_err());
    kept.send(CHECK);
    assert_eq!(kept.read().status, 503);
    server.release();
    assert_eq!(slow.read().status, 200);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn a_reload_and_an_upgrade_fail_no_check() {
    let plan = Plan::app("echo").args(["--health-path", "/healthz", "--workers", "2", "--shutdown-delay", "1"]);
    let pidfile = plan.path("pid");
    let server = plan.args(["--pid", pidfile.to_str().expect("a plain path")]).start();
    let old = server.wait_for_workers(2);
    let mut kept = server.connect();
    server.signal(SIGHUP);
    wait_until("the new generation alone", || {
        // A worker that drains says so by closing, at the latest when the next check is on its way;
        // but not that the service is gone.
        let _ = kept.try_send(CHECK);
        let goes_on = match kept.read_for("GET") {
            Ok(answer) => {
                assert_eq!(answer.status, 200);
                !answer.says_close()
            }
            Err(broken) => {
                assert!(matches!(broken, Broken::Closed), "{broken:?}");
                false
            }
        };
        if !goes_on {
            kept = server.connect();
        }
        server.has_serving(2) && !server.workers().iter().any(|pid| old.contains(pid))
    });
    server.signal(nix::sys::signal::Signal::SIGUSR2);
    wait_until("the new master", || server.path("pid.2").exists());
    wait_until("its workers", || server.processes().len() == 6);
    // The old one ends; no client must notice it.
    server.signal(SIGTERM);
    while crate::util::process::is_alive(server.pid()) {
        assert_eq!(server.get("/healthz").status, 200);
    }
    let new: i32 = std::fs::read_to_string(&pidfile).unwrap_or_default().trim().parse().unwrap_or_else(|_| {
        std::fs::read_to_string(server.path("pid.2")).unwrap_or_default().trim().parse().expect("a pid")
    });
    crate::util::server::send(new, SIGQUIT);
    wait_until("everything to end", || server.processes().is_empty());
}

#[test]
fn what_is_no_path_is_refused() {
    for path in ["healthz", "/a b", "/a?b", "/caf\u{e9}"] {
        let finished = Plan::app("echo").args(["--health-path", path]).run();
        assert_eq!(finished.code, Some(1), "{path}: {}", finished.stderr);
        assert!(finished.stderr.contains("is not a path such as /healthz"), "{}", finished.stderr);
    }
}

#[test]
fn a_check_for_life_is_answered_until_the_end() {
    let args = ["--health-path", "/healthz", "--live-path", "/livez", "--shutdown-delay", "60"];
    let mut server = Plan::app("process").args(args).start();
    server.wait_for_workers(1);
    let ask = |path: &str| {
        let answer = server.get(path);
        (answer.status, answer.text())
    };
    assert_eq!([ask("/healthz"), ask("/livez")], [(200, "ok\n".to_owned()), (200, "ok\n".to_owned())]);
    let mut busy = server.connect();
    busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the thread to be in the app", || server.entered() == 1);
    server.signal(SIGTERM);
    server.wait_for_log("Serving on for 60 s before the stop");
    assert_eq!([ask("/healthz").0, ask("/livez").0], [503, 200]);
    server.release();
    assert_eq!(busy.read().status, 200);
    server.signal(SIGQUIT);
    server.wait_for_exit();
}
