//! What the control socket can do beyond gunicorn's: the log's level, the stacks of workers, the
//! traceback of a reload that failed, and who has changed what.

use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP};

use crate::control::{Control, serve};
use crate::util::json::Json;
use crate::util::load::version;
use crate::util::server::{Plan, Server, send};
use crate::util::{program, wait_until};

/// An application that says at debug level what it was asked.
const TALKATIVE: &str = "
import logging
def application(environ, start_response):
    logging.getLogger('gunicorn.error').debug('app says %s', environ['QUERY_STRING'])
    start_response('200 OK', [('Content-Length', '1')])
    return [b'x']
";

/// Whether a request's debug line is in the log.
fn is_logged(server: &Server, mark: &str) -> bool {
    assert_eq!(server.get(&format!("/?{mark}")).status, 200);
    // Where Python's logging writes, a thread of its own does.
    server.get("/?another");
    server.log().contains(&format!("app says {mark}\n"))
}

/// `ctl` with the socket of this server: its status, and what it prints.
fn ctl(server: &Server, words: &[&str]) -> (Option<i32>, String) {
    let path = server.path("ctl.sock").display().to_string();
    let ran = Command::new(program()).args(["ctl", "-s", &path]).args(words).output().expect("it runs");
    (ran.status.code(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
}

#[test]
fn the_log_has_another_level_until_a_reload() {
    let (mut server, mut control) = serve(Plan::app("app").in_own_folder().file("app.py", TALKATIVE));
    assert_eq!(control.data("loglevel")["loglevel"].text(), "info");
    assert!(!is_logged(&server, "before"));
    let changed = control.data("loglevel DEBUG");
    assert_eq!((changed["loglevel"].text(), changed["previous"].text()), ("debug", "info"));
    for round in 0..10 {
        // One of the two workers after the other.
        wait_until("the workers to follow", || is_logged(&server, &format!("living-{round}")));
    }
    let old = server.workers();
    for worker in &old {
        control.data(&format!("worker kill {worker}"));
    }
    wait_until("other workers", || server.has_serving(2) && !server.workers().iter().any(|pid| old.contains(pid)));
    assert!(is_logged(&server, "forked-later"));
    assert!(server.log().contains("[DEBUG] Handling signal: chld"), "{}", server.log());
    server.write("app.py", "broken =");
    control.error("reload --wait");
    assert_eq!(control.data("loglevel")["loglevel"].text(), "debug", "a reload that fails changes nothing");
    assert!(is_logged(&server, "after-the-failure"));
    server.write("app.py", TALKATIVE);
    control.data("reload --wait");
    assert_eq!(control.data("loglevel")["loglevel"].text(), "info");
    wait_until("the new workers alone", || server.has_serving(2));
    assert!(!is_logged(&server, "after-the-reload"));
    ["[ERROR]", "Traceback"].into_iter().for_each(|text| server.allow(text));
    server.finish();
}

#[test]
fn a_level_that_shows_less_is_noted_before_it_holds() {
    let (server, mut control) = serve(Plan::app("process"));
    control.data("loglevel error");
    server.wait_for_log("Control command: \"loglevel error\"");
    control.data("worker add 1");
    assert!(!server.log().contains("worker add"), "{}", server.log());
    let (status, said) = ctl(&server, &["loglevel", "info"]);
    assert!(status == Some(0) && said.contains("\"previous\": \"error\""), "{said}");
    server.wait_for_log("Control command: \"loglevel info\"");
    server.finish();
}

#[test]
fn python_s_logging_follows_where_it_writes() {
    let subclass = "from gunicorn.glogging import Logger\nclass Mine(Logger): pass\nlogger_class = Mine\n";
    let in_dict = "logconfig_dict = {'version': 1, 'root': {'level': 'INFO', 'handlers': ['error_console']}, \
                   'loggers': {'gunicorn.error': {'level': 'INFO', 'handlers': ['error_console'], 'propagate': False}}}\n";
    for (class, config) in [("gthread", subclass), ("sync", in_dict), ("gevent", ""), ("gevent", subclass)] {
        let plan = Plan::app("app").in_own_folder().file("app.py", TALKATIVE).file("conf.py", config);
        let path = plan.path("conf.py").display().to_string();
        let (server, mut control) = serve(plan.args(["--config", &path, "--worker-class", class]));
        assert!(!is_logged(&server, "before"), "{class} {config}");
        control.data("loglevel debug");
        for round in 0..4 {
            wait_until("the loggers to follow", || is_logged(&server, &format!("living-{round}")));
        }
        control.data("loglevel warning");
        let mut marks = (0..).map(|number| format!("fewer-{number}"));
        wait_until("them to follow again", || marks.next().is_some_and(|mark| !is_logged(&server, &mark)));
        server.finish();
    }
}

/// A class that serves by itself says what it does at debug level.
const TICKING: &str = "
import time
from gunicorn.workers.base import Worker
class Ticking(Worker):
    def run(self):
        while self.alive:
            self.notify()
            self.log.debug('the class ticks')
            time.sleep(0.05)
";

#[test]
fn a_class_that_serves_by_itself_follows_with_its_heartbeat() {
    let plan = Plan::app("app").in_own_folder().file("app.py", TALKATIVE).file("ticking.py", TICKING);
    let (server, mut control) = serve(plan.args(["--worker-class", "ticking.Ticking"]));
    assert!(!server.log().contains("the class ticks"));
    control.data("loglevel debug");
    server.wait_for_log("the class ticks");
    server.finish();
}

#[test]
fn changes_are_logged_with_the_process_and_the_user_that_asked_for_them() {
    let (server, mut control) = serve(Plan::app("process"));
    for command in ["worker add 1", "worker remove 1", "drain", "drain off", "reopen"] {
        control.data(command);
        let (user, pid) = (nix::unistd::getuid(), std::process::id());
        server.wait_for_log(&format!("Control command: {command:?} (uid:{user}, pid:{pid})"));
    }
    let looks = ["show stats", "help", "loglevel", "stacks"];
    for command in looks {
        control.data(command);
        assert!(!server.log().contains(&format!("Control command: {command:?}")), "{}", server.log());
    }
    // A line stays a line, and a short one.
    control.data(&format!("reopen 'a\\nb' {}", "x".repeat(5000)));
    server.wait_for_log("Control command: \"reopen a\\nb xxx");
    assert!(server.log().lines().all(|line| line.len() < 400), "{}", server.log());
    server.finish();
}

#[test]
fn a_reload_that_fails_says_the_traceback() {
    let foreign = "import missing_too\nfrom gunicorn.workers.base import Worker\nclass Broken(Worker): pass\n";
    for (class, file, content, part) in [
        ("sync", "app.py", "import missing_module", "ModuleNotFoundError: No module named 'missing_module'"),
        ("gthread", "app.py", "x = 1", "Failed to find attribute 'application' in 'app'."),
        ("gevent", "app.py", "1 / 0", "ZeroDivisionError: division by zero"),
        ("ticking.Ticking", "ticking.py", foreign, "No module named 'missing_too'"),
        ("ticking.Ticking", "app.py", "import missing_module", "No module named 'missing_module'"),
    ] {
        let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).file("ticking.py", TICKING);
        let plan = plan.file("conf.py", "");
        let path = plan.path("conf.py").display().to_string();
        let (mut server, mut control) = serve(plan.args(["--worker-class", class, "--config", &path]));
        let workers = server.workers();
        server.write(file, content);
        let error = control.error("reload --wait");
        assert!(error.starts_with("Reload failed, the old workers go on: worker (pid:"), "{error}");
        assert!(error.contains(" before it served\n") && error.contains(part), "{class}: {error}");
        let (status, said) = ctl(&server, &["reload", "--wait"]);
        assert!(status == Some(1) && said.contains(part), "{class}: {said}");
        server.write("conf.py", "workers = = 3");
        let error = control.error("reload --wait");
        assert!(error.contains("SyntaxError: invalid syntax"), "{error}");
        wait_until("the old workers alone", || server.workers() == workers);
        ["[ERROR]", "Traceback"].into_iter().for_each(|text| server.allow(text));
        server.finish();
    }
}

#[test]
fn clients_that_leave_while_they_wait_make_room_for_others() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1));
    let (server, _control) = serve(plan.args(["--timeout", "0"]));
    server.write("app.py", "import time\ntime.sleep(600)");
    let path = server.path("ctl.sock");
    // As many as there may be, with the one above.
    let mut waiting: Vec<Control> = (0..15).map(|_| Control::connect(&path)).collect();
    waiting.iter_mut().for_each(|client| client.send(br#"{"command": "reload --wait"}"#));
    server.wait_for_log_times("Booting worker", 4);
    drop(waiting);
    assert_eq!(Control::connect(&path).data("show stats")["workers_current"].number(), 4.0);
    server.finish();
}

#[test]
fn a_preloaded_app_that_fails_says_its_traceback_too() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1));
    let (mut server, mut control) = serve(plan.args(["--preload"]));
    let workers = server.workers();
    server.write("app.py", "import missing_module");
    let error = control.error("reload --wait");
    assert!(error.starts_with("Reload failed, everything stays as it was: the new program would not start"), "{error}");
    assert!(error.contains("ModuleNotFoundError: No module named 'missing_module'"), "{error}");
    assert_eq!(server.workers(), workers);
    for text in ["[ERROR]", "Traceback", "Error while loading"] {
        server.allow(text);
    }
    server.finish();
}

#[test]
fn a_long_reason_is_cut_from_the_front() {
    let app = "import sys\nsys.setrecursionlimit(900)\nraise RuntimeError('the start' + 'x' * 100_000 + 'the end')\n";
    let (mut server, mut control) = serve(Plan::app("app").in_own_folder().file("app.py", &version(1)));
    server.write("app.py", app);
    let error = control.error("reload --wait");
    assert!(error.ends_with("the end") && error.len() < 20_000 && !error.contains("the start"), "{}", error.len());
    ["[ERROR]", "Traceback"].into_iter().for_each(|text| server.allow(text));
    server.finish();
}

#[test]
fn the_stacks_of_workers_come_over_the_socket() {
    let (server, mut control) = serve(Plan::app("process").args(["--timeout", "0"]));
    let mut client = server.connect();
    client.send("GET /wait?slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut seen = control.data("stacks");
    wait_until("the request in the reply", || {
        seen = control.data("stacks");
        seen["workers"].list().iter().any(|worker| !worker["requests"].list().is_empty())
    });
    assert_eq!(seen["count"].number(), 2.0);
    let busy = seen["workers"].list().iter().find(|it| !it["requests"].list().is_empty()).expect("seen just now");
    assert!(busy["requests"].list()[0]["request"].text().starts_with("GET /wait?slow from 127.0.0.1"));
    assert!(busy["stacks"].text().contains("in wait\n"), "{busy:?}");
    let pid = busy["pid"].number() as i32;
    let one = control.data(&format!("worker stacks {pid}"));
    assert_eq!((one["count"].number(), one["workers"].list()[0]["pid"].number() as i32), (1.0, pid));
    assert_eq!(control.data("worker stacks 999999")["error"].text(), "Worker 999999 not found");
    let (status, said) = ctl(&server, &["stacks"]);
    assert!(status == Some(0) && said.contains("in wait\n") && said.contains("at GET /wait?slow"), "{said}");
    server.release();
    assert_eq!(client.read().status, 200);
    assert_eq!(server.workers().len(), 2);
    server.finish();
}

#[test]
fn the_master_goes_on_while_a_worker_does_not_answer() {
    let (mut server, mut control) = serve(Plan::app("process").args(["--timeout", "0"]));
    let workers = server.workers();
    send(workers[0], SIGSTOP);
    let mut other = Control::connect(&server.path("ctl.sock"));
    let began = Instant::now();
    for client in [&mut control, &mut other] {
        client.send(br#"{"command": "stacks"}"#);
    }
    // A third is answered at once.
    assert_eq!(Control::connect(&server.path("ctl.sock")).data("show stats")["workers_current"].number(), 2.0);
    assert!(began.elapsed().as_secs_f64() < 1.9, "{:?}", began.elapsed());
    for client in [&mut control, &mut other] {
        let reply = client.read().expect("a reply");
        let stopped = reply["data"]["workers"].list().iter().find(|it| it["pid"].number() as i32 == workers[0]);
        let error = stopped.expect("each worker is there")["error"].text();
        assert_eq!(error, "it does not answer: it is stopped, or waits in the kernel");
        let other = reply["data"]["workers"].list().iter().find(|it| it["pid"].number() as i32 == workers[1]);
        assert!(other.expect("each worker is there")["stacks"].text().contains("most recent call first"));
    }
    // What it was asked it answers when it goes on, and that hurts nobody.
    send(workers[0], SIGCONT);
    wait_until("the stacks of it", || control.data("stacks")["workers"].list()[0]["stacks"] != Json::Null);
    send(workers[1], SIGKILL);
    server.allow("was sent SIGKILL");
    wait_until("another worker", || server.has_serving(2));
    server.finish();
}
