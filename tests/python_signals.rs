//! Signals for which the application, an agent or a hook has handlers of its own: which handler
//! runs, and when.

use std::time::Duration;

use nix::sys::signal::Signal::{
    self, SIGABRT, SIGALRM, SIGBUS, SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSEGV, SIGTERM, SIGTTIN, SIGUSR1,
    SIGUSR2, SIGXFSZ,
};

use crate::util::server::{Plan, Server, send};
use crate::util::wait_until;

/// The ways to run an application, of which one or another thread waits in the poll.
const FORMS: [&[&str]; 2] = [&["--threads", "1"], &["--threads", "4"]];

/// Far below `graceful_timeout`, which is 30 s.
const PROMPT: Duration = Duration::from_secs(8);

fn plan(mode: &str, args: &[&str]) -> Plan {
    let plan = Plan::app("handlers").env("MODE", mode);
    args.iter().fold(plan, |plan, arg| plan.args([*arg]))
}

fn start(mode: &str, args: &[&str]) -> Server {
    plan(mode, args).start()
}

/// The server stops at TERM, promptly and in good order.
#[track_caller]
fn finish_promptly(server: &mut Server) {
    server.signal(SIGTERM);
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(took < PROMPT, "it took {took:?}\n{}", server.log());
    server.expect_gone();
}

#[track_caller]
fn text(server: &Server, target: &str) -> String {
    let response = server.get(target);
    assert_eq!(response.status, 200, "{target}\n{}", server.log());
    response.text()
}

#[test]
fn a_signal_to_a_child_of_the_application_is_the_childs_alone() {
    for form in FORMS {
        let mut server = start("", form);
        let worker = text(&server, "/");
        for signal in [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN] {
            let end = text(&server, &format!("/killed_child?{signal}"));
            // Default dispositions: TTIN stops a process, which its parent would wait for.
            assert_eq!(end, (signal as i32).to_string(), "{signal} {form:?}");
            if signal == SIGUSR2 {
                break;
            }
        }
        assert_eq!(text(&server, "/own_handler_in_child"), "7");
        assert_eq!(text(&server, "/pool"), "6");
        assert_eq!(text(&server, "/"), worker, "the worker goes on\n{}", server.log());
        finish_promptly(&mut server);
        assert_eq!(server.log().matches("Handling signal: ").count(), 1, "{}", server.log());
        server.expect_clean_log();
    }
}

#[test]
fn a_child_of_a_hook_that_is_terminated_does_not_end_the_server() {
    let config = "\
import multiprocessing, time
helper = None
def when_ready(server):
    global helper
    helper = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))
    helper.start()
def child_exit(server, worker):
    if helper.is_alive():
        helper.terminate()
        helper.join()
        print('helper ended with', helper.exitcode, flush=True)
";
    let mut server = plan("", &[]).config(config).start();
    wait_until("the helper and the worker", || server.workers().len() == 2);
    let helper_and_worker = server.workers();
    let worker: i32 = text(&server, "/").parse().expect("a pid");
    assert!(helper_and_worker.contains(&worker));
    send(worker, SIGKILL);
    wait_until("the helper's end", || server.stdout().contains("helper ended with -15"));
    server.wait_for_workers(1);
    assert_ne!(text(&server, "/"), worker.to_string());
    finish_promptly(&mut server);
}

#[test]
fn a_handler_that_calls_the_one_before_it_ends_nothing_early() {
    for mode in ["chain", "restore_and_repeat"] {
        for form in FORMS {
            for more in [&[][..], &["--preload"]] {
                let mut server = start(mode, &[form, more].concat());
                let mut client = server.connect();
                client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
                wait_until("the request to be in the app", || server.entered() == 1);
                server.signal(SIGTERM);
                server.wait_for_log("Handling signal: term");
                if more.is_empty() {
                    wait_until("the application's handler", || !server.gate_files("handler-").is_empty());
                }
                server.release();
                assert_eq!(client.read().status, 200, "{mode} {form:?} {more:?}\n{}", server.log());
                finish_promptly(&mut server);
                assert!(!server.gate_files("goodbye-").is_empty(), "atexit has run");
                server.expect_clean_log();
            }
        }
    }
}

#[test]
fn the_master_takes_its_signals_back_after_a_preloaded_application() {
    let mut server = start("take_all", &["--preload"]);
    let first: i32 = text(&server, "/").parse().expect("a pid");
    server.signal(SIGTTIN);
    server.wait_for_workers(2);
    server.signal(SIGUSR1);
    server.wait_for_log("Handling signal: usr1");
    send(first, SIGKILL);
    wait_until("the dead worker's replacement", || {
        let workers = server.workers();
        workers.len() == 2 && !workers.contains(&first)
    });
    let before = server.workers();
    server.signal(SIGHUP);
    server.wait_for_log("Hang up: Master");
    wait_until("new workers", || !server.workers().iter().any(|pid| before.contains(pid)));
    text(&server, "/");
    finish_promptly(&mut server);
    assert!(server.gate_files("stolen-").is_empty());
}

#[test]
fn an_idle_worker_runs_the_applications_own_term_handler() {
    let config = "def worker_exit(server, worker):\n    print('worker_exit', worker.pid, flush=True)\n";
    for form in FORMS {
        let mut server = plan("clean_up", form).config(config).start();
        let old = server.wait_for_workers(1);
        text(&server, "/");
        server.signal(SIGHUP);
        wait_until("the old worker's end", || !server.workers().contains(&old[0]));
        assert_eq!(server.gate_files("handler-").len(), 1, "{}", server.log());
        text(&server, "/");
        finish_promptly(&mut server);
        assert_eq!(server.gate_files("handler-").len(), 2, "{}", server.log());
        assert_eq!(server.gate_files("goodbye-").len(), 2, "atexit\n{}", server.log());
        assert_eq!(server.stdout().matches("worker_exit").count(), 2, "{}", server.stdout());
        // The client has its answer before the worker has left the request. The handler may run
        // within it, and its exception is then logged.
        server.allow("Error handling request GET /");
        server.allow("Traceback");
        server.expect_clean_log();
    }
}

#[test]
fn a_term_handler_that_exits_in_a_request_ends_the_worker_too() {
    let mut server = start("clean_up", &["--threads", "1"]);
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request to be in the app", || server.entered() == 1);
    server.signal(SIGTERM);
    assert_eq!(client.read().status, 500);
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(took < PROMPT, "it took {took:?}\n{}", server.log());
    server.expect_gone();
}

#[test]
fn a_sudden_end_unwinds_a_request_that_waits_in_the_kernel_too() {
    let app = "import os, pathlib, socket\n\
        gate = pathlib.Path(os.environ['GATE'])\n\
        ours, other = socket.socketpair()\n\
        def application(environ, start_response):\n\
        \x20   (gate / 'entered-recv').touch()\n\
        \x20   try: ours.recv(1)\n\
        \x20   finally: (gate / 'unwound').touch()\n";
    for signal in [SIGINT, SIGQUIT] {
        let mut server = Plan::app("app").in_own_folder().file("app.py", app).start();
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        wait_until("the app to wait", || server.entered() == 1);
        server.signal(signal);
        assert!(server.wait_for_exit_within(PROMPT).0.success());
        assert_eq!(server.gate_files("unwound").len(), 1, "{signal}");
        server.expect_gone();
    }
}

#[test]
fn handlers_of_other_signals_do_not_wait_for_a_request() {
    for form in FORMS {
        let mut server = start("dump", form);
        let worker: i32 = text(&server, "/").parse().expect("a pid");
        for times in 1..=3 {
            send(worker, if times == 2 { SIGALRM } else { SIGUSR2 });
            wait_until("the handler", || server.gate_files("handler-").len() == times);
        }
        // The application's own timer.
        if form[1] == "1" {
            text(&server, "/alarm");
            wait_until("the handler", || server.gate_files("handler-").len() == 4);
        }
        finish_promptly(&mut server);
        server.expect_clean_log();
    }
}

#[test]
fn an_exception_of_a_handler_while_nothing_runs_is_logged_and_ends_no_request() {
    for form in FORMS {
        let mut server = start("fail", form);
        let worker: i32 = text(&server, "/").parse().expect("a pid");
        for times in 1..=2 {
            send(worker, SIGUSR2);
            server.wait_for_log_times("ValueError: from a handler", times);
            assert_eq!(text(&server, "/"), worker.to_string());
        }
        finish_promptly(&mut server);
    }
}

#[test]
fn saving_and_restoring_a_handler_changes_nothing() {
    for form in [&["--threads", "1"][..], &["--threads", "1", "--preload"]] {
        let mut server = start("", form);
        assert_eq!(text(&server, "/callables"), "[]");
        assert_eq!(text(&server, "/save_and_restore"), "restored");
        assert_eq!(text(&server, "/callables"), "[]");
        let worker: i32 = text(&server, "/").parse().expect("a pid");
        for signal in [SIGHUP, SIGTTIN, SIGUSR1, SIGCHLD] {
            send(worker, signal);
        }
        assert_eq!(text(&server, "/"), worker.to_string());
        let mut client = server.connect();
        client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
        wait_until("the request to be in the app", || server.entered() == 1);
        server.signal(SIGTERM);
        server.wait_for_log("Handling signal: term");
        server.release();
        assert_eq!(client.read().status, 200, "{}", server.log());
        finish_promptly(&mut server);
        server.expect_clean_log();
    }
}

#[test]
fn the_handler_that_getsignal_answers_does_the_servers_duty() {
    let mut server = start("", &[]);
    let worker = text(&server, "/call_handler");
    wait_until("another worker", || text(&server, "/") != worker);
    finish_promptly(&mut server);
    server.expect_clean_log();
}

#[test]
fn a_start_that_hangs_in_python_can_be_stopped() {
    let hook = |name| {
        format!(
            "import pathlib, os, time\ndef {name}(server):\n    pathlib.Path(os.environ['GATE'], 'importing-').touch()\n    time.sleep(60)\n"
        )
    };
    for signal in [SIGTERM, SIGINT, SIGQUIT] {
        let plans = [
            plan("hang", &["--preload"]),
            plan("hang_in_c", &["--preload"]),
            plan("", &[]).config(&hook("on_starting")),
            plan("", &[]).config(&hook("when_ready")),
        ];
        for plan in plans {
            let mut server = plan.launch();
            wait_until("the start to hang", || !server.gate_files("importing-").is_empty());
            server.signal(signal);
            let (status, took) = server.wait_for_exit_within(Duration::from_secs(40));
            assert_eq!(status.code(), Some(0), "{signal}: {status}\n{}", server.log());
            assert!(took < PROMPT, "{signal}: {took:?}");
            server.expect_gone();
        }
    }
}

#[test]
fn a_worker_that_loads_the_application_does_not_hold_the_stop_up() {
    for mode in ["hang", "hang_in_c"] {
        let mut server = start(mode, &["--workers", "2"]);
        wait_until("the imports to begin", || server.gate_files("importing-").len() == 2);
        finish_promptly(&mut server);
        server.expect_clean_log();
    }
}

#[test]
fn a_stop_that_python_drops_unwinds_what_comes_next_and_is_no_line_in_the_log() {
    for mode in ["hang_in_destructor", "hang_in_callback"] {
        let mut server = start(mode, &["--workers", "2"]);
        wait_until("the imports to begin", || server.gate_files("importing-").len() == 2);
        finish_promptly(&mut server);
        server.expect_clean_log();
        // One that is killed says nothing.
        assert_eq!(server.log().matches("Worker exiting").count(), 2, "{mode}: {}", server.log());
    }
}

#[test]
fn a_worker_past_its_timeout_gets_no_graceful_timeout_besides() {
    let mut server = Server::start("process", ["--timeout", "1"]);
    let mut client = server.connect();
    client.send("GET /hang HTTP/1.1\r\nHost: test\r\n\r\n");
    server.wait_for_log("WORKER TIMEOUT");
    finish_promptly(&mut server);
}

#[test]
fn handlers_from_before_the_server_are_dropped() {
    // As the agents do that begin with the interpreter.
    let early = "\
import os, signal
for name in ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGTTIN', 'SIGCHLD']:
    number = getattr(signal, name)
    def handle(number, frame, old=signal.getsignal(number)):
        if callable(old):
            old(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
    signal.signal(number, handle)
";
    for form in FORMS {
        let plan = plan("", form).file("sitecustomize.py", early);
        let folder = plan.path("").display().to_string();
        let mut server = plan.env("PYTHONPATH", folder).start();
        text(&server, "/");
        server.signal(SIGTTIN);
        server.wait_for_workers(2);
        let old = server.workers();
        server.signal(SIGHUP);
        wait_until("new workers", || !server.workers().iter().any(|pid| old.contains(pid)));
        text(&server, "/");
        finish_promptly(&mut server);
        server.expect_clean_log();
    }
}

#[test]
fn a_fault_from_outside_ends_the_process() {
    for signal in [SIGSEGV, SIGBUS] {
        let mut server = start("", &["--workers", "2"]);
        text(&server, "/");
        let worker = server.wait_for_workers(2)[0];
        send(worker, signal);
        wait_until("the worker's end", || !server.workers().contains(&worker));
        server.wait_for_workers(2);
        text(&server, "/");
        let workers = server.workers();
        server.signal(signal);
        let (status, _) = server.wait_for_exit_within(Duration::from_secs(20));
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal as i32));
        wait_until("the workers to follow their master", || server.processes().is_empty());
        assert!(!workers.is_empty());
    }
}

#[test]
fn a_file_size_limit_is_an_error_and_does_not_end_the_worker() {
    let mut server = start("", &[]);
    let worker: i32 = text(&server, "/").parse().expect("a pid");
    assert_eq!(text(&server, "/write_too_much"), "File too large");
    send(worker, SIGXFSZ);
    server.signal(SIGXFSZ);
    assert_eq!(text(&server, "/"), worker.to_string());
    finish_promptly(&mut server);
    server.expect_clean_log();
}

#[test]
fn greenlets_of_a_patched_application_run_while_the_worker_idles() {
    let mut server = Server::start("greenlets", []);
    let ticks = || text(&server, "/").parse::<u64>().expect("a number");
    let before = ticks();
    // No request comes meanwhile, so only the idle worker can run them.
    std::thread::sleep(Duration::from_millis(1000));
    let after = ticks();
    assert!(after > before + 20, "{before} to {after} in a second");
    finish_promptly(&mut server);
    server.expect_clean_log();
}

#[test]
fn an_exception_of_worker_abort_reaches_the_application() {
    let config = "def worker_abort(worker):\n    raise TimeoutError\n";
    for round in 0..3 {
        let mut server = plan("", &["--timeout", "1"]).config(config).start();
        let mut client = server.connect();
        client.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = client.read();
        assert_eq!((response.status, response.text().as_str()), (504, "too late"), "{round}\n{}", server.log());
        server.wait_for_log("Aborted while serving GET /endless");
        server.allow("");
        wait_until("another worker", || server.get("/").status == 200);
        finish_promptly(&mut server);
    }
}

#[test]
fn an_abort_logs_the_running_request() {
    let hooks = ["", "def worker_abort(worker):\n    pass\n", "def worker_int(worker):\n    pass\n"];
    for config in hooks {
        for form in FORMS {
            let plan = plan("", form).config(config);
            let mut server = plan.args(["--request-timeout", "1"]).start();
            let mut client = server.connect();
            client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
            server.wait_for_log("Aborted while serving GET /wait");
            finish_promptly(&mut server);
        }
    }
    let mut server = start("", &[]);
    let worker: i32 = text(&server, "/").parse().expect("a pid");
    send(worker, SIGABRT);
    server.wait_for_log(&format!("[{worker}] [ERROR] Aborted while no request was in the app"));
    wait_until("another worker", || !server.workers().contains(&worker));
    finish_promptly(&mut server);
}

#[test]
fn workers_say_that_they_leave_because_their_master_is_gone() {
    for form in FORMS {
        let mut server = start("", form);
        let worker = text(&server, "/");
        server.signal(SIGKILL);
        server.wait_for_log(&format!("[{worker}] [INFO] Parent changed, shutting down: <Worker {worker}>"));
        server.wait_for_exit();
        server.expect_gone();
    }
}

/// All of them at once, in any order: the server handles each, whatever the application does
/// meanwhile.
#[test]
fn a_storm_of_signals_loses_no_important_one() {
    for mode in ["", "chain", "dump"] {
        let server = start(mode, &["--workers", "2", "--threads", "2"]);
        text(&server, "/");
        for signal in [SIGUSR1, SIGTTIN, Signal::SIGTTOU, SIGHUP, SIGUSR1, Signal::SIGWINCH] {
            server.signal(signal);
        }
        server.wait_for_log("Hang up: Master");
        wait_until("two workers that serve", || server.workers().len() == 2 && server.get("/").status == 200);
        server.finish();
    }
}

/// An app that gives up reading a body for a moment, as one with an alarm of its own does.
const ALARMED: &str = r#"
import os, pathlib, signal


class Alarm(Exception):
    pass


def ring(*_):
    raise Alarm


def application(environ, start_response):
    signal.signal(signal.SIGALRM, ring)
    body = environ["wsgi.input"]
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        body.read()
    except Alarm:
        pathlib.Path(os.environ["GATE"], "alarmed").touch()
    text = str(len(body.read())).encode()
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]
"#;

#[test]
fn an_exception_of_a_handler_does_not_end_the_body_that_is_read() {
    // What has come is in memory and the connection, or in a file before it.
    for spool in ["0", "5000"] {
        let plan = Plan::app("app").in_own_folder().file("app.py", ALARMED);
        let server = plan.args(["--body-buffer", "1000", "--body-spool", spool]).start();
        let mut client = server.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n");
        client.send("a".repeat(7000));
        wait_until("the alarm", || !server.gate_files("alarmed").is_empty());
        client.send("b".repeat(3000));
        assert_eq!(client.read().text(), "10000", "{spool}\n{}", server.log());
        server.finish();
    }
}
