//! Each signal's effect on the process tree, the pid file and the log.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal::{self, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGWINCH};

use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::util::client::Broken;
use crate::util::process::{self, is_alive};
use crate::util::server::{Plan, Server, send};
use crate::util::{wait_at_most, wait_until};

#[test]
fn start_and_stop_are_logged_in_gunicorns_words_and_order() {
    let mut server = Server::start("echo", ["--workers", "2"]);
    let workers = server.wait_for_workers(2);
    server.wait_for_log_times("Booting worker with pid", 2);
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let log = server.log();
    let in_order = [
        concat!("[INFO] Starting monoceros ", env!("CARGO_PKG_VERSION")),
        "[INFO] Listening at: http://127.0.0.1:",
        "[INFO] Using worker: sync",
        "[INFO] Booting worker with pid: ",
        "[INFO] Handling signal: term",
        "[INFO] Shutting down: Master",
    ];
    let places: Vec<_> =
        in_order.iter().map(|text| log.find(text).unwrap_or_else(|| panic!("no {text:?}:\n{log}"))).collect();
    assert!(places.is_sorted(), "{log}");
    for pid in workers {
        assert!(log.contains(&format!("[{pid}] [INFO] Booting worker with pid: {pid}\n")), "{log}");
        assert!(log.contains(&format!("[{pid}] [INFO] Worker exiting (pid: {pid})\n")), "{log}");
    }
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn term_lets_a_request_finish() {
    let mut server = Server::start("process", []);
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request to be in the app", || server.entered() == 1);
    server.signal(SIGTERM);
    server.wait_for_log("Handling signal: term");
    server.release();
    let response = client.read();
    assert_eq!((response.status, response.says_close()), (200, true));
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn term_waits_no_longer_than_graceful_timeout() {
    let mut server = Server::start("process", ["--graceful-timeout", "4", "--access-logfile", "-"]);
    // The second is ready when the first is unwound, and must not be begun then.
    let clients: Vec<_> = (0..2)
        .map(|number| {
            let mut client = server.connect();
            client.send(format!("GET /wait?{number} HTTP/1.1\r\nHost: test\r\n\r\n"));
            wait_until("the first request to be in the app", || server.entered() == 1);
            client
        })
        .collect();
    server.signal(SIGTERM);
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0));
    drop(clients);
    server.wait_for_log("Not done at the end of graceful_timeout");
    assert_eq!(server.stdout().matches("GET /wait?").count(), 1, "{}", server.stdout());
    assert!(server.stdout().contains("GET /wait?0 HTTP/1.1\" 500"), "{}", server.stdout());
    // The worker unwinds the request a moment before the master would kill the worker.
    assert!((Duration::from_millis(2900)..Duration::from_secs(7)).contains(&took), "{took:?}");
    assert!(!server.log().contains("SIGKILL"), "{}", server.log());
    server.expect_gone();
}

#[test]
fn shutdown_delay_keeps_serving_after_term() {
    let mut server = Server::start("echo", ["--shutdown-delay", "2"]);
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGTERM);
    server.wait_for_log("Serving on for 2 s before the stop");
    // A second TERM does not shorten the stop, and a reload comes too late.
    server.signal(SIGTERM);
    server.signal(Signal::SIGHUP);
    server.wait_for_log("Reload ignored: the server is stopping");
    assert_eq!(server.get("/").status, 200);
    assert!(server.has_exited().is_none());
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0));
    assert!(took > Duration::from_millis(1000), "{took:?}");
    server.expect_gone();
    server.expect_clean_log();

    let mut server = Server::start("echo", ["--shutdown-delay", "600"]);
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGTERM);
    server.wait_for_log("Serving on for 600 s before the stop");
    server.signal(SIGQUIT);
    assert_eq!(server.wait_for_exit().code(), Some(0), "QUIT cuts it short");
}

#[test]
fn int_and_quit_end_at_once() {
    for (signal, name) in [(SIGINT, "int"), (SIGQUIT, "quit")] {
        let mut server = Server::start("process", ["--workers", "2"]);
        server.wait_for_workers(2);
        let mut client = server.connect();
        client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
        wait_until("the request to be in the app", || server.entered() == 1);
        server.signal(signal);
        let (status, took) = server.wait_for_exit_within(Duration::from_secs(15));
        assert_eq!(status.code(), Some(0), "{name}");
        assert!(took < Duration::from_secs(5), "{name} waited for the request: {took:?}");
        assert!(server.log().contains(&format!("Handling signal: {name}")));
        server.expect_gone();
    }
}

#[test]
fn ctrl_c_reaches_the_workers_too_and_still_ends_well() {
    let mut server = Server::start("echo", ["--workers", "2"]);
    let workers = server.wait_for_workers(2);
    assert_eq!(server.get("/").status, 200);
    // A terminal sends it to the whole foreground group.
    workers.iter().for_each(|&pid| send(pid, SIGINT));
    server.signal(SIGINT);
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn ctrl_c_while_the_app_is_loaded_does_not_count_as_its_failure() {
    // One long sleep is not interrupted by a signal that comes just before it begins.
    let app = "import os, pathlib, time\npathlib.Path(os.environ['GATE'], 'importing').touch()\n\
               while True: time.sleep(0.01)\n";
    let mut server = Plan::app("app").in_own_folder().file("app.py", app).start();
    wait_until("the import to begin", || !server.gate_files("importing").is_empty());
    // It serves no request yet, and never will.
    let worker = server.workers()[0];
    send(worker, SIGINT);
    wait_until("the worker to end", || !server.workers().contains(&worker));
    server.wait_for_log(&format!("[{worker}] [INFO] Worker exiting (pid: {worker})"));
    server.signal(SIGINT);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn term_to_the_whole_group_is_the_same_as_to_the_master() {
    for round in 0..4 {
        let mut server = Server::start("process", ["--workers", "2"]);
        let workers = server.wait_for_workers(2);
        let mut client = server.connect();
        client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
        wait_until("the request to be in the app", || server.entered() == 1);
        // A service manager may signal the processes in any order.
        let mut all = [server.pid(), workers[0], workers[1]];
        all.rotate_left(round % 3);
        for pid in all {
            // The idle worker may be gone by then: the master has told it already.
            let _ = kill(Pid::from_raw(pid), SIGTERM);
        }
        server.wait_for_log("Handling signal: term");
        server.release();
        assert_eq!(client.read().status, 200);
        let (status, took) = server.wait_for_exit_within(Duration::from_secs(20));
        assert_eq!(status.code(), Some(0));
        assert!(took < Duration::from_secs(8), "{took:?}");
        server.expect_gone();
        server.expect_clean_log();
    }
}

#[test]
fn a_terminal_that_hangs_up_causes_one_reload() {
    let server = Server::start("echo", ["--workers", "2"]);
    let old = server.wait_for_workers(2);
    assert_eq!(server.get("/").status, 200);
    // The kernel sends it to the whole foreground group, also to processes that were forked
    // meanwhile.
    server.signal(Signal::SIGHUP);
    old.iter().for_each(|&pid| send(pid, Signal::SIGHUP));
    wait_until("the new workers alone", || {
        server.has_serving(2) && !server.workers().iter().any(|pid| old.contains(pid))
    });
    server.workers().iter().for_each(|&pid| send(pid, Signal::SIGHUP));
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.log().matches("Hang up: Master").count(), 1, "{}", server.log());
    server.finish();
}

#[test]
fn ttin_and_ttou_change_the_number_of_workers() {
    let server = Server::start("echo", []);
    server.wait_for_workers(1);
    for (signal, count) in [(SIGTTIN, 2), (SIGTTIN, 3), (SIGTTOU, 2), (SIGTTOU, 1)] {
        server.signal(signal);
        server.wait_for_workers(count);
    }
    server.signal(SIGTTOU);
    server.wait_for_log_times("Handling signal: ttou", 3);
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.workers().len(), 1, "never fewer than one");
    server.finish();
}

#[test]
fn ttin_ttin_ttou_lands_on_one_more() {
    let server = Server::start("echo", []);
    server.wait_for_workers(1);
    for (signal, line, times) in [(SIGTTIN, "ttin", 1), (SIGTTIN, "ttin", 2), (SIGTTOU, "ttou", 1)] {
        server.signal(signal);
        // The kernel merges two pending signals of one kind; once handled, each must count.
        server.wait_for_log_times(&format!("Handling signal: {line}"), times);
    }
    server.wait_for_workers(2);
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

#[test]
fn scaling_down_ends_the_oldest_and_breaks_no_request() {
    let server = Server::start("process", ["--workers", "2"]);
    server.wait_for_workers(2);
    server.wait_for_log_times("Booting worker with pid", 2);
    let mut clients = [server.connect(), server.connect()];
    for client in &mut clients {
        client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    wait_until("a request in each worker", || server.entered() == 2);
    server.signal(SIGTTOU);
    server.wait_for_log("Handling signal: ttou");
    server.release();
    for client in &mut clients {
        assert_eq!(client.read().status, 200);
    }
    server.wait_for_workers(1);
    server.finish();
}

#[test]
fn usr1_reopens_the_logs() {
    let plan = Plan::app("echo").error_log("error.log");
    let access = plan.path("access.log");
    let server = plan.args(["--access-logfile", access.to_str().expect("a plain path")]).start();
    assert_eq!(server.get("/before").status, 200);
    wait_until("an access line", || read(&access).contains("/before"));
    fs::rename(&access, server.path("access.log.1")).expect("the log can be moved");
    fs::rename(server.path("error.log"), server.path("error.log.1")).expect("the log can be moved");
    server.signal(SIGUSR1);
    wait_until("new files", || access.exists() && server.path("error.log").exists());
    // The worker reopens on its own time: ask until the new file is used.
    wait_until("an access line in the new file", || {
        assert_eq!(server.get("/after").status, 200);
        read(&access).contains("/after")
    });
    let old = read(&server.path("access.log.1"));
    assert!(old.contains("/before"));
    let all = old + &read(&access);
    assert!(all.lines().all(|line| line.starts_with("127.0.0.1 - - [") && line.ends_with('"')), "a torn line: {all}");
    assert!(read(&server.path("error.log.1")).contains("Handling signal: usr1"));
    server.finish();
}

#[test]
fn winch_is_for_daemons() {
    let server = Server::start("echo", ["--log-level", "debug"]);
    server.signal(SIGWINCH);
    server.wait_for_log("SIGWINCH ignored. Not daemonized");
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

#[test]
fn a_daemon_detaches_serves_and_lets_its_workers_go_on_winch() {
    let plan = Plan::app("echo").error_log("error.log");
    let pidfile = plan.path("pid");
    let mut server = plan.args(["--daemon", "--pid", pidfile.to_str().expect("a plain path")]).start();
    assert_eq!(server.wait_for_exit().code(), Some(0), "the starter ends");
    wait_until("the pid file", || pidfile.exists());
    let master: i32 = read(&pidfile).trim().parse().expect("a pid");
    assert_ne!(master, server.pid());
    assert_eq!(server.get("/").status, 200);
    let wait_for = |count| wait_until("the workers", || process::children(master).len() == count);
    wait_for(1);
    send(master, SIGWINCH);
    wait_for(0);
    assert!(is_alive(master));
    send(master, SIGTERM);
    wait_until("the daemon to end", || !is_alive(master));
    assert!(!pidfile.exists());
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn the_pid_file_comes_and_goes() {
    let plan = Plan::app("echo");
    let pidfile = plan.path("pid");
    let mut server = plan.args(["--pid", pidfile.to_str().expect("a plain path")]).start();
    assert_eq!(read(&pidfile), format!("{}\n", server.pid()));
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(!pidfile.exists());
}

#[test]
fn a_killed_worker_is_replaced() {
    let mut server = Server::start("echo", ["--workers", "2"]);
    let before = server.wait_for_workers(2);
    send(before[0], SIGKILL);
    wait_until("a replacement", || {
        let now = server.workers();
        now.len() == 2 && !now.contains(&before[0])
    });
    server.wait_for_log(&format!("Worker (pid:{}) was sent SIGKILL!", before[0]));
    assert!(server.workers().contains(&before[1]), "the other one was left alone");
    assert_eq!(server.get("/").status, 200);
    server.allow("was sent SIGKILL");
    server.finish();
}

#[test]
fn signals_that_mean_nothing_do_nothing() {
    let server = Server::start("echo", []);
    let workers = server.wait_for_workers(1);
    for signal in [Signal::SIGURG, Signal::SIGPIPE, Signal::SIGCHLD, SIGWINCH] {
        (0..20).for_each(|_| server.signal(signal));
    }
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.workers(), workers);
    server.finish();
}

#[test]
fn killing_the_master_ends_every_worker_and_frees_the_port() {
    for bind in [Plan::app("process"), Plan::app("process").unix()] {
        let mut server = bind.args(["--workers", "3"]).start();
        let workers = server.wait_for_workers(3);
        assert_eq!(server.get("/").status, 200);
        server.signal(SIGKILL);
        wait_at_most(Duration::from_secs(2), "every worker to end", || !workers.iter().any(|&pid| is_alive(pid)));
        server.wait_for_exit();
        assert!(crate::util::client::Client::try_connect(&server.address).is_err(), "a process still listens");
        server.expect_gone();
    }
}

#[test]
fn a_busy_worker_whose_master_dies_answers_and_ends() {
    let server = Server::start("process", []);
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request to be in the app", || server.entered() == 1);
    server.signal(SIGKILL);
    server.release();
    // The answer may come or the connection may close; what must not happen is that it hangs.
    match client.read_for("GET") {
        Ok(answer) => assert_eq!(answer.status, 200),
        Err(Broken::Silent) => panic!("the client hangs"),
        Err(_) => {}
    }
    server.expect_gone();
}

#[test]
fn atexit_handlers_run_at_a_graceful_end() {
    let mut server = Server::start("process", []);
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGTERM);
    server.wait_for_exit();
    assert_eq!(server.gate_files("atexit-"), [format!("atexit-{worker}")]);
}

fn read(path: &std::path::Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
