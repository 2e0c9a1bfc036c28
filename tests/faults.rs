//! Faults at the start and in the app: one clear sentence, the right exit code, and service where
//! it is possible.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGKILL, SIGTERM};

use crate::util::process;
use crate::util::server::{Finished, Plan, Server, send};
use crate::util::wait_until;

#[test]
fn an_app_that_cannot_be_loaded_ends_the_start() {
    // app, exit code, what the log must say
    let table = [
        ("no_such_module", 3, "No module named 'no_such_module'"),
        ("broken.raises", 3, "this module cannot be imported"),
        ("broken.syntax", 3, "SyntaxError"),
        ("echo:missing", 4, "missing"),
        ("broken.shapes:nothing", 4, "nothing"),
        ("broken.shapes:number", 4, "must be callable"),
        ("broken.shapes:factory()", 4, "factory"),
        ("echo:factory(", 4, "factory("),
    ];
    for (app, code, said) in table {
        for workers in ["1", "3"] {
            let finished = Plan::app(app).args(["--workers", workers]).run();
            assert_eq!(finished.code, Some(code), "{app}, {workers} workers: {finished:?}");
            assert!(finished.stderr.contains(said), "{app}: {}", finished.stderr);
            let reason = if code == 3 { "Reason: Worker failed to boot." } else { "Reason: App failed to load." };
            assert_eq!(finished.stderr.matches(reason).count(), 1, "{app}: {}", finished.stderr);
            assert_eq!(finished.stderr.matches("Shutting down: Master").count(), 1, "{app}: {}", finished.stderr);
        }
    }
}

#[test]
fn a_name_with_py_gets_a_hint() {
    let finished = Plan::app("echo.py").run();
    assert!(finished.stderr.contains("echo:app"), "{}", finished.stderr);
    assert_ne!(finished.code, Some(0));
}

#[test]
fn a_failed_start_leaves_neither_pid_file_nor_socket() {
    let plan = Plan::app("broken.raises").unix();
    let (pidfile, socket) = (plan.path("pid"), plan.path("socket"));
    let mut server = plan.args(["--pid", pidfile.to_str().expect("a plain path")]).launch();
    assert_eq!(server.wait_for_exit().code(), Some(3));
    assert!(!pidfile.exists() && !socket.exists());
}

#[test]
fn a_port_in_use_is_tried_five_times() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let finished = Plan::app("echo").bound_elsewhere().args(["--bind", &format!("127.0.0.1:{port}")]).run();
    assert_eq!(finished.code, Some(1));
    let in_use = format!("Connection in use: ('127.0.0.1', {port})");
    assert_eq!(finished.stderr.matches(&in_use).count(), 5, "{}", finished.stderr);
    assert!(finished.stderr.contains(&format!("Can't connect to ('127.0.0.1', {port})")), "{}", finished.stderr);
}

#[test]
fn a_folder_and_a_name_that_come_a_moment_later_are_waited_for() {
    let plan = Plan::app("echo").bound_elsewhere();
    let folder = plan.path("later");
    let mut server = plan.args(["--bind", &format!("unix:{}/socket", folder.display())]).launch();
    server.wait_for_log("connection to");
    std::fs::create_dir(&folder).expect("a new folder");
    server.wait_for_log("Listening at: unix:");
    server.allow("connection to");
    server.finish();
    let finished = Plan::app("echo").bound_elsewhere().args(["--bind", "nobody.invalid:80"]).run();
    assert_eq!((finished.code, finished.stderr.matches("connection to").count()), (Some(1), 5), "{}", finished.stderr);
}

#[test]
fn a_port_that_becomes_free_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let mut server = Plan::app("echo").bound_elsewhere().args(["--bind", &format!("127.0.0.1:{port}")]).launch();
    server.wait_for_log("Connection in use");
    drop(taken);
    server.wait_for_log("Listening at: ");
    server.address = crate::util::client::Address::Tcp(port);
    assert_eq!(server.get("/").status, 200);
    server.allow("Connection in use");
    server.allow("connection to");
    server.finish();
}

#[test]
fn an_address_that_is_not_ours_is_an_error() {
    let finished = Plan::app("echo").bound_elsewhere().args(["--bind", "192.0.2.1:0"]).run();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("192.0.2.1"), "{}", finished.stderr);
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_live_one_or_a_file_is_not() {
    let plan = Plan::app("echo").unix();
    drop(UnixListener::bind(plan.path("socket")).expect("a socket file without a server"));
    let server = plan.start();
    assert_eq!(server.get("/").status, 200);
    server.finish();

    let plan = Plan::app("echo").unix();
    let live = UnixListener::bind(plan.path("socket")).expect("a socket");
    let mut second = plan.launch();
    assert_eq!(second.wait_for_exit().code(), Some(1));
    assert!(second.path("socket").exists(), "the other server's socket must stay");
    drop(live);

    let mut blocked = Plan::app("echo").unix().file("socket", "somebody's data").launch();
    assert_eq!(blocked.wait_for_exit().code(), Some(1));
    assert_eq!(std::fs::read_to_string(blocked.path("socket")).expect("it is still there"), "somebody's data");
}

#[test]
fn the_socket_file_is_removed_at_the_end() {
    let mut server = Plan::app("echo").unix().start();
    let socket = server.path("socket");
    assert!(socket.exists());
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_pid_file_of_a_live_server_stops_the_second() {
    let server = Plan::app("echo").start();
    server.write("pid", &format!("{}\n", server.pid()));
    let pidfile = server.path("pid");
    let second = Plan::app("echo").args(["--pid", pidfile.to_str().expect("a plain path")]).run();
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains(&format!("Already running on PID {}", server.pid())), "{}", second.stderr);
    assert_eq!(std::fs::read_to_string(&pidfile).expect("untouched"), format!("{}\n", server.pid()));
    server.finish();
}

#[test]
fn a_stale_or_odd_pid_file_is_taken_over() {
    for content in ["4194300\n", "", "garbage", "0", "-1"] {
        let plan = Plan::app("echo").file("pid", content);
        let pidfile = plan.path("pid");
        let server = plan.args(["--pid", pidfile.to_str().expect("a plain path")]).start();
        assert_eq!(std::fs::read_to_string(&pidfile).expect("written"), format!("{}\n", server.pid()), "{content:?}");
        server.finish();
    }
}

#[test]
fn what_cannot_be_written_is_one_sentence_and_exit_1() {
    for option in ["--pid", "--error-logfile", "--access-logfile"] {
        // Not even root can make a file below a file.
        let plan = Plan::app("echo").file("plain", "");
        let target = plan.path("plain").join("below");
        let finished = plan.args([option, target.to_str().expect("a plain path")]).run();
        assert_eq!(finished.code, Some(1), "{option}: {finished:?}");
        assert!(says(&finished, "below"), "{option}: {finished:?}");
        assert!(!says(&finished, "Traceback") && !says(&finished, "panicked"), "{option}: {finished:?}");
    }
}

#[test]
fn an_app_that_ends_its_process_ends_one_worker() {
    for code in [0, 1, 3, 4] {
        let mut server = Server::start("process", ["--workers", "2"]);
        server.wait_for_workers(2);
        assert_eq!(server.get("/").status, 200);
        let mut client = server.connect();
        client.send(format!("GET /exit?{code} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.expect_closed(Duration::from_secs(5));
        server.wait_for_log_times("Booting worker with pid", 3);
        server.wait_for_workers(2);
        assert_eq!(server.get("/").status, 200, "exit code {code} of a worker that had served");
        server.allow("");
        server.finish();
    }
}

#[test]
fn a_crash_is_named_and_the_worker_replaced() {
    let mut server = Server::start("process", []);
    let worker = server.wait_for_workers(1)[0];
    let mut client = server.connect();
    client.send("GET /segfault HTTP/1.1\r\nHost: test\r\n\r\n");
    client.expect_closed(Duration::from_secs(10));
    server.wait_for_log(&format!("Worker (pid:{worker}) was sent SIGSEGV!"));
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn twenty_killed_workers_are_twenty_replaced_workers() {
    let mut server = Server::start("echo", ["--workers", "2"]);
    let mut killed = 0;
    for _ in 0..20 {
        // A process that was killed may still be visible for a moment.
        let mut workers = Vec::new();
        wait_until("two workers", || {
            workers = server.workers();
            workers.len() == 2 && !workers.contains(&killed)
        });
        killed = workers[0];
        send(killed, SIGKILL);
    }
    wait_until("two workers", || server.has_serving(2));
    assert_eq!(server.get("/").status, 200);
    server.allow("was sent SIGKILL");
    server.finish();
}

#[test]
fn many_aborted_connections_leave_nothing_open() {
    let server = Server::start("echo", []);
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").status, 200);
    let before = process::open_files(worker);
    for round in 0..300 {
        let mut client = server.connect();
        match round % 3 {
            0 => {}
            1 => client.send("GET / HT"),
            _ => client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\npart"),
        }
    }
    wait_until("the files to be closed", || process::open_files(worker) <= before);
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

#[test]
fn a_stop_during_the_boot_is_a_clean_stop() {
    let plan = Plan::app("app").in_own_folder().file("app.py", "import time\ntime.sleep(60)\n");
    let mut server = plan.args(["--graceful-timeout", "2"]).start();
    server.wait_for_log("Booting worker with pid");
    server.signal(SIGTERM);
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    server.expect_gone();
}

fn says(finished: &Finished, text: &str) -> bool {
    finished.stderr.contains(text) || finished.stdout.contains(text)
}
