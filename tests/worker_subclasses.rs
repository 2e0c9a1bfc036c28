//! Worker classes derived from gunicorn's own, of the kinds that are in public use: the server
//! serves for them, and calls what they override.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGABRT, SIGALRM, SIGHUP, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::util::client::Client;
use crate::util::load::Load;
use crate::util::server::{Plan, Server, send};
use crate::util::tls::{Authority, Key};
use crate::util::{gunicorn_packages, wait_until};

/// A server of that class of `tests/apps/subclasses.py`, which is the application too.
fn plan(class: &str) -> Plan {
    Plan::app("subclasses").args(["--worker-class", &format!("subclasses.{class}")])
}

/// As [`plan`], of `green_subclasses.py`.
fn green(class: &str) -> Plan {
    Plan::app("green_subclasses").args(["--worker-class", &format!("green_subclasses.{class}")])
}

/// With the real gunicorn on Python's path.
fn beside_gunicorn(plan: Plan) -> Plan {
    plan.env("PYTHONPATH", gunicorn_packages())
}

/// Classes that gunicorn's own code has to run, and what they override.
fn of_gunicorn() -> [(Plan, &'static str); 5] {
    [
        (plan("Enqueues").args(["--threads", "1"]), "enqueue_req"),
        (plan("Accepts").args(["--threads", "1"]), "accept"),
        (plan("Handles"), "handle"),
        (plan("RunsForOne"), "run_for_one"),
        (green("Handles"), "handle"),
    ]
}

/// The status of the answer on a connection of its own; `None` where that ends without one.
fn status(server: &Server, target: &str) -> Option<u16> {
    asked(server, target).read_for("GET").ok().map(|response| response.status)
}

fn asked(server: &Server, target: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

#[test]
fn handle_request_is_called_around_each_request() {
    for (plan, class) in [
        (plan("AroundSync"), "AroundSync"),
        (plan("AroundThread").args(["--threads", "3"]), "AroundThread"),
        (green("AroundGevent"), "AroundGevent"),
    ] {
        let server = plan.start();
        assert_eq!(server.get("/x?").text(), format!("{class} GET 127.0.0.1"));
        server.wait_for_log("at 127.0.0.1 from 127.0.0.1");
        server.wait_for_log("before GET /x? (1, 1)");
        server.wait_for_log("after /x?");
        // The connection is kept, and each request of it is the class's.
        let mut client = server.connect();
        for _ in 0..3 {
            assert_eq!(client.get("/y").text(), format!("{class} GET 127.0.0.1"), "{}", server.log());
        }
        server.wait_for_log_times("after /y", 3);
        assert_eq!(client.request("POST", "/p?body,REQUEST_METHOD", &[], b"the body").text(), "the body POST");
        // In another thread, and a second time after a failure.
        assert_eq!(server.get("/in-thread?thread").text(), "another");
        assert_eq!(server.get("/again?REQUEST_METHOD").text(), "GET");
        server.wait_for_log("caught the first time");
        server.finish();
    }
}

#[test]
fn what_the_class_makes_of_a_request_is_what_the_client_sees() {
    for plan in [plan("AroundSync"), plan("AroundThread").args(["--threads", "2"]), green("AroundGevent")] {
        let mut server = plan.start();
        server.allow("");
        // What the application raises passes the class, which may keep it.
        assert_eq!(status(&server, "/raise"), Some(500));
        server.wait_for_log("caught of the application");
        server.wait_for_log("Error handling request GET /raise");
        assert_eq!(status(&server, "/raise?swallow"), None, "nothing was sent");
        assert_eq!(status(&server, "/fails"), Some(500), "of the class itself");
        // It never calls the base: nothing, or what it sends by itself.
        assert_eq!(status(&server, "/never"), None);
        assert_eq!(status(&server, "/by-hand"), Some(299));
        let error = asked(&server, "/error").read();
        assert_eq!((error.status, error.text().contains("sorry &amp; &lt;bye&gt;")), (503, true));
        assert_eq!(status(&server, "/too-late"), None);
        server.wait_for_log("too late: the request is over");
        // The head was out: the connection ends in the middle.
        assert_eq!(status(&server, "/broken"), None);
        server.wait_for_log("ValueError: in the middle");
        assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET");
        server.finish();
    }
}

#[test]
fn a_method_that_returns_false_ends_the_connection_of_threads() {
    let server = plan("AroundThread").args(["--threads", "2"]).start();
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.get("/close").status, 200);
    client.expect_closed(Duration::from_secs(5));
    server.finish();
}

#[test]
fn hooks_run_inside_the_bases_method() {
    let hooks = "def pre_request(worker, req):\n\
                 \x20   worker.log.info('pre_request %s', req.uri)\n\
                 \x20   if req.path == '/refused': raise ValueError('refused')\n\
                 def post_request(worker, req, environ, resp):\n\
                 \x20   worker.log.info('post_request %s %s %s', req.uri, environ.get('HTTP_X_BY'), resp and resp.status)\n";
    for (plan, class) in [
        (plan("AroundSync"), "AroundSync"),
        (plan("AroundThread"), "AroundThread"),
        (green("AroundGevent"), "AroundGevent"),
    ] {
        let plan = plan.file("conf.py", hooks);
        let config = plan.path("conf.py").display().to_string();
        let mut server = plan.args(["--config", &config, "--access-logfile", "-"]).start();
        server.allow("refused");
        server.allow("Traceback");
        assert_eq!(server.get("/x").status, 200);
        server.wait_for_log("after /x");
        let log = server.log();
        let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text}: {log}"));
        let moments =
            [at("before GET /x"), at("pre_request /x"), at(&format!("post_request /x {class} 200 OK")), at("after /x")];
        assert!(moments.is_sorted(), "{log}");
        assert_eq!(server.get("/refused").status, 500);
        server.wait_for_log("post_request /refused None 500 Internal Server Error");
        assert_eq!(status(&server, "/never"), None);
        server.wait_for_log("after /never");
        assert!(!server.log().contains("pre_request /never"), "{}", server.log());
        assert_eq!(log.matches("post_request /x").count(), 1, "{log}");
        server.finish();
    }
}

#[test]
fn changes_of_the_request_are_seen_by_the_application() {
    let server = plan("Altering").start();
    let keys = "REQUEST_METHOD,RAW_URI,PATH_INFO,wsgi.url_scheme,REMOTE_ADDR,REMOTE_PORT,body";
    let seen = server.get(&format!("/?{keys}")).text();
    assert_eq!(seen, "PUT /raw /other path https 192.0.2.7 77 another body HTTP/1.0");
    server.finish();
}

#[test]
fn a_class_that_reads_client_certificates_sets_a_header_by_them() {
    let root = Authority::root("Test root");
    let issued = root.server(Key::Ecdsa, &["localhost"]);
    let client = root.client("somebody", 2099);
    let plan = plan("CertAuth").tls(&issued).file("root.pem", &root.pem());
    let ca = plan.path("root.pem").display().to_string();
    let server = plan.args(["--ca-certs", &ca, "--cert-reqs", "2"]).start().trusting(root.trust_as(&client));
    assert_eq!(server.get("/?HTTP_X_BY").text(), "somebody");
    let mut kept = server.connect();
    assert_eq!(kept.get("/?HTTP_X_BY").text(), "somebody");
    assert_eq!(kept.get("/?HTTP_X_BY").text(), "somebody", "asking did not take the connection");
    server.finish();
}

#[test]
fn a_class_may_wrap_the_application_for_each_request() {
    let server = plan("Wrapping").start();
    assert_eq!(server.get("/a?HTTP_X_BY").text(), "wrapped /a");
    assert_eq!(server.get("/b?HTTP_X_BY").text(), "wrapped /b");
    server.finish();
}

#[test]
fn a_class_may_beat_while_it_loads_and_stop_what_it_has_started() {
    let mut server = plan("Beating").start();
    server.wait_for_log("the helper runs");
    assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET");
    server.signal(SIGQUIT);
    server.wait_for_log("the helper is stopped");
    server.wait_for_log("run is over");
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn classes_that_count_see_requests_and_errors() {
    for plan in [plan("MetricsSync"), plan("MetricsThread").args(["--threads", "2"]), green("MetricsGevent")] {
        let mut server = plan.start();
        server.allow("");
        assert_eq!(server.get("/x").status, 200);
        server.wait_for_log("took a moment: True");
        assert_eq!(server.get("/raise").status, 500);
        server.wait_for_log("failed by ValueError");
        server.wait_for_log("handle_error GET /raise 127.0.0.1 ValueError");
        server.wait_for_log("Error handling request GET /raise");
        assert_eq!(status(&server, "/broken"), None);
        server.wait_for_log("failed by StopIteration");
        server.finish();
    }
}

#[test]
fn a_failed_request_of_a_class_has_its_access_line_in_pythons_logging() {
    for plan in [plan("MetricsSync"), plan("MetricsThread").args(["--threads", "2"]), green("MetricsGevent")] {
        let log = plan.path("access.log").display().to_string();
        let plan = plan.args(["--access-logfile", &log, "--access-logformat", "%(m)s %(U)s %(s)s"]);
        // Then Python's logging writes. Nobody listens.
        let mut server = plan.args(["--statsd-host", "127.0.0.1:9"]).start();
        server.allow("");
        assert_eq!(server.get("/x").status, 200);
        assert_eq!(server.get("/raise").status, 500);
        let lines = || std::fs::read_to_string(server.path("access.log")).unwrap_or_default();
        wait_until("two lines", || lines().lines().count() == 2);
        assert_eq!(lines(), "GET /x 200\nGET /raise 500\n");
        server.finish();
    }
}

/// Hooks that tell how many requests there were, and what the client got.
const TELLING: &str = "def pre_request(worker, req): worker.log.info('pre_request %s %s.', req.uri, worker.nr)\n\
                       def post_request(worker, req, environ, resp):\n\
                       \x20   worker.log.info('post_request %s %s %s.', req.uri, resp and resp.status, worker.nr)\n";

fn telling(plan: Plan) -> Plan {
    let plan = plan.file("conf.py", TELLING);
    let path = plan.path("conf.py").display().to_string();
    plan.args(["--config", &path])
}

#[test]
fn post_request_sees_what_the_client_of_a_failed_request_got() {
    for plan in [plan("MetricsSync"), plan("MetricsThread").args(["--threads", "2"]), green("MetricsGevent")] {
        let mut server = telling(plan).start();
        server.allow("");
        let told = |line: &str| {
            server.wait_for_log(line);
            server.wait_for_log_times("post_request", line[line.len() - 2..line.len() - 1].parse().expect("a digit"));
        };
        assert_eq!(status(&server, "/raise"), Some(500));
        told("post_request /raise 500 Internal Server Error 1.");
        let log = server.log();
        let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text}: {log}"));
        assert!(at("Error handling request GET /raise") < at("post_request /raise"), "{log}");
        assert_eq!(status(&server, "/broken"), None);
        told("post_request /broken 200 OK 2.");
        assert_eq!(server.get("/x").status, 200);
        told("post_request /x 200 OK 3.");
        drop(asked(&server, "/late"));
        server.wait_for_log("post_request /late ");
        assert_eq!(server.get("/y").status, 200);
        told("post_request /y 200 OK 5.");
        server.finish();
    }
}

#[test]
fn post_request_is_called_as_often_as_the_bases_method() {
    for plan in [plan("AroundSync"), plan("AroundThread").args(["--threads", "2"]), green("AroundGevent")] {
        let mut server = telling(plan).start();
        server.allow("");
        // The class keeps the exception for itself, and nothing is sent.
        assert_eq!(status(&server, "/raise?swallow"), None);
        server.wait_for_log("post_request /raise?swallow None 1.");
        // It calls the base again.
        assert_eq!(status(&server, "/again"), Some(200));
        server.wait_for_log("post_request /again 200 OK 3.");
        let log = server.log();
        let calls = [
            "pre_request /again 1.",
            "post_request /again None 2.",
            "pre_request /again 2.",
            "post_request /again 200",
        ];
        let moments = calls.map(|call| log.find(call).unwrap_or_else(|| panic!("{call}: {log}")));
        assert!(moments.is_sorted(), "{log}");
        assert_eq!(log.matches("post_request").count(), 3, "{log}");
        server.finish();
    }
}

#[test]
fn post_request_sees_the_answer_to_a_handle_error_that_fails() {
    for plan in [plan("FailsAtErrorsSync"), plan("FailsAtErrorsThread"), green("FailsAtErrorsGevent")] {
        let log = plan.path("access.log").display().to_string();
        let plan = plan.args(["--access-logfile", &log, "--access-logformat", "%(U)s %(s)s"]);
        let mut server = telling(plan).args(["--statsd-host", "127.0.0.1:9"]).start();
        server.allow("");
        assert_eq!(status(&server, "/raise"), Some(500));
        server.wait_for_log("LookupError: of handle_error");
        server.wait_for_log("post_request /raise 500 Internal Server Error 1.");
        assert_eq!(status(&server, "/x"), Some(200));
        server.wait_for_log("post_request /x 200 OK 2.");
        assert_eq!(server.log().matches("post_request").count(), 2, "{}", server.log());
        let lines = || std::fs::read_to_string(server.path("access.log")).unwrap_or_default();
        wait_until("two lines", || lines() == "/raise 500\n/x 200\n");
        server.finish();
    }
}

#[test]
fn nr_counts_the_request_that_post_request_is_about() {
    // One that is given each request, and one that is not.
    for class in ["MetricsSync", "MetricsThread", "Beating", "Pool"] {
        let server = telling(plan(class)).start();
        for nr in 0..3 {
            assert_eq!(server.get("/x").status, 200);
            server.wait_for_log(&format!("pre_request /x {nr}."));
            server.wait_for_log(&format!("post_request /x 200 OK {}.", nr + 1));
        }
        server.finish();
    }
    for class in ["MetricsGevent", "Patches"] {
        let server = telling(green(class)).start();
        for nr in 0..3 {
            assert_eq!(server.get("/x").status, 200);
            server.wait_for_log(&format!("pre_request /x {nr}."));
            server.wait_for_log(&format!("post_request /x 200 OK {}.", nr + 1));
        }
        server.finish();
    }
}

#[test]
fn a_class_reads_for_how_long_its_base_keeps_idle_connections() {
    let config = "def post_worker_init(worker): worker.log.info('keepalive %s.', worker.cfg.keepalive)\n";
    for (plan, seconds) in [(plan("Wrapping"), 650), (plan("Pool"), 2), (green("Patches"), 2)] {
        let plan = plan.file("conf.py", config);
        let path = plan.path("conf.py").display().to_string();
        let server = plan.args(["--config", &path]).start();
        server.wait_for_log(&format!("keepalive {seconds}."));
        server.finish();
    }
}

#[test]
fn a_class_may_answer_errors_alone() {
    let mut server = plan("OnlyErrors").start();
    server.allow("");
    assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET");
    let error = asked(&server, "/raise").read();
    assert_eq!((error.status, error.text().contains("of the application")), (502, true));
    assert!(!server.log().contains("Traceback"), "{}", server.log());
    server.finish();
}

#[test]
fn a_class_of_threads_may_end_a_request_by_an_exception() {
    let mut server = plan("Timeout").args(["--threads", "3"]).start();
    server.allow("");
    let mut late = asked(&server, "/sleep");
    assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET", "others are served meanwhile");
    assert_eq!(late.read().status, 500);
    server.wait_for_log("TimedOut");
    let mut kept = server.connect();
    assert_eq!(kept.get("/?REQUEST_METHOD").text(), "GET");
    assert_eq!(kept.get("/?REQUEST_METHOD").text(), "GET");
    server.finish();
}

#[test]
fn the_servers_threads_are_as_the_class_makes_its_pool() {
    let server = plan("Pool").args(["--threads", "3"]).start();
    let seen = server.get("/?thread,started").text();
    assert!(seen.starts_with("tenant_") && seen.ends_with(" 3"), "{seen}");
    server.finish();
}

#[test]
fn a_class_may_handle_signals_of_its_own() {
    let server = plan("Registers").args(["--threads", "2"]).start();
    let worker = server.wait_for_workers(1)[0];
    send(worker, SIGALRM);
    server.wait_for_log("told by ALRM");
    assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET");
    server.finish();
}

#[test]
fn a_class_of_gevent_is_called_at_gunicorns_moments() {
    let mut server = green("AroundGevent").start();
    server.allow("");
    assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET");
    let start = Instant::now();
    let mut sleepers = [(); 3].map(|()| asked(&server, "/sleep?1"));
    sleepers.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    let worker = server.wait_for_workers(1)[0];
    send(worker, SIGUSR1);
    server.wait_for_log("told to reopen");
    let mut neighbour = asked(&server, "/sleep?1.5");
    let hog = asked(&server, "/hog?60");
    std::thread::sleep(Duration::from_millis(200));
    send(worker, SIGABRT);
    server.wait_for_log("told to abort");
    assert_eq!(neighbour.read().status, 200);
    drop(hog);
    wait_until("another worker", || !server.workers().contains(&worker) && server.has_serving(1));
    let second = server.workers()[0];
    send(second, SIGQUIT);
    server.wait_for_log("told to quit");
    wait_until("another worker", || !server.workers().contains(&second) && server.has_serving(1));
    let mut last = asked(&server, "/sleep?0.5");
    server.wait_for_log("before GET /sleep?0.5");
    server.signal(SIGTERM);
    server.wait_for_log("told to exit");
    assert_eq!(last.read().status, 200);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn a_class_of_gevent_may_bound_its_requests() {
    let mut server = green("Limited").start();
    server.allow("");
    let mut neighbour = asked(&server, "/sleep?0.1");
    assert_eq!(status(&server, "/sleep?5"), Some(500));
    server.wait_for_log("Error handling request GET /sleep?5");
    assert_eq!(status(&server, "/sleep?6"), None, "the class has kept the timeout to itself");
    assert_eq!(neighbour.read().status, 200);
    assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET");
    server.finish();
}

#[test]
fn requests_of_a_class_of_gevent_end_with_their_time_and_with_their_worker() {
    let mut server = green("AroundGevent").args(["--request-timeout", "1"]).start();
    server.allow("");
    assert_eq!(status(&server, "/sleep?30"), Some(504));
    server.wait_for_log("after /sleep?30");
    assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET");
    server.finish();

    let mut server = green("AroundGevent").args(["--graceful-timeout", "1"]).start();
    server.allow("");
    let mut late = asked(&server, "/sleep?60");
    assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET");
    server.signal(SIGTERM);
    assert!(late.read_for("GET").is_err());
    server.wait_for_log("Worker graceful timeout (pid:");
    server.wait_for_log("after /sleep?60");
    assert_eq!(server.wait_for_exit().code(), Some(0));

    let mut server = green("AroundGevent").start();
    server.allow("");
    let mut sleeper = asked(&server, "/sleep?60");
    assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET");
    server.signal(SIGQUIT);
    assert!(sleeper.read_for("GET").is_err());
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn no_request_fails_while_workers_of_a_class_are_replaced() {
    for class in ["subclasses.AroundThread", "green_subclasses.AroundGevent"] {
        let flags = ["--worker-class", class, "--workers", "2", "--threads", "3", "--max-requests", "2000"];
        let server = Plan::app("classes_wsgi").args(flags).start();
        let old = server.wait_for_workers(2);
        let load = Load::during(&server.address, 2, |load| {
            wait_until("some load", || load.ok() > 30);
            server.signal(SIGHUP);
            wait_until("another generation", || !server.workers().iter().any(|pid| old.contains(pid)));
            let before = load.ok();
            wait_until("some load", || load.ok() > before + 600);
        });
        load.expect_no_failure();
        server.finish();
    }
}

#[test]
fn a_timeout_of_the_master_ends_a_hog_of_a_class_and_its_neighbours_are_served() {
    let mut server = green("AroundGevent").args(["--timeout", "1"]).start();
    server.allow("");
    let worker = server.wait_for_workers(1)[0];
    let mut neighbour = asked(&server, "/sleep?4");
    let hog = asked(&server, "/hog?60");
    server.wait_for_log(&format!("WORKER TIMEOUT (pid:{worker})"));
    server.wait_for_log("told to abort");
    assert_eq!(neighbour.read().status, 200);
    drop(hog);
    wait_until("another worker", || !server.workers().contains(&worker) && server.has_serving(1));
    assert!(!server.log().contains("SIGKILL"), "{}", server.log());
    server.finish();
}

#[test]
fn a_class_of_gevent_may_watch_greenlets_and_choose_what_is_patched() {
    let server = green("Watched").start();
    server.wait_for_log("the watchdog runs");
    assert_eq!(server.get("/patched").text(), "socket ssl threading Greenlet");
    send(server.workers()[0], SIGUSR2);
    server.wait_for_log("told by USR2");
    server.signal(SIGTERM);
    server.wait_for_log("switched: True");
    server.finish();
    let server = green("Patches").start();
    assert_eq!(server.get("/patched").text(), "socket threading Greenlet");
    server.finish();
}

#[test]
fn methods_that_a_config_file_puts_into_gunicorns_classes_are_called() {
    let config = "from gunicorn.workers import base, gthread, sync\n\
                  made, quit = base.Worker.__init__, sync.SyncWorker.handle_quit\n\
                  def init(self, *arguments):\n\
                  \x20   made(self, *arguments)\n\
                  \x20   self.log.info('made by %s', type(self).__name__)\n\
                  base.Worker.__init__ = init\n\
                  def wrap(plain):\n\
                  \x20   def traced(self, *arguments):\n\
                  \x20       self.log.info('span of %s', next(each for each in arguments if hasattr(each, 'path')).path)\n\
                  \x20       return plain(self, *arguments)\n\
                  \x20   return traced\n\
                  for kind in (sync.SyncWorker, gthread.ThreadWorker): kind.handle_request = wrap(kind.handle_request)\n\
                  def handle_quit(self, sig, frame):\n\
                  \x20   self.log.info('the patch is told to quit')\n\
                  \x20   quit(self, sig, frame)\n\
                  sync.SyncWorker.handle_quit = handle_quit\n\
                  sync.SyncWorker.handle = lambda self, *arguments: None\n";
    for (threads, class) in [("1", "SyncWorker"), ("3", "ThreadWorker")] {
        let plan = Plan::app("subclasses").file("conf.py", config);
        let path = plan.path("conf.py").display().to_string();
        let mut server = plan.args(["--config", &path, "--threads", threads]).start();
        server.allow("which has no effect");
        assert_eq!(server.get("/x?REQUEST_METHOD").text(), "GET");
        server.wait_for_log(&format!("made by {class}"));
        server.wait_for_log("span of /x");
        if threads == "1" {
            server.wait_for_log("handle() of the worker class sync was replaced, which has no effect");
            server.signal(SIGQUIT);
            server.wait_for_log("the patch is told to quit");
            assert_eq!(server.wait_for_exit().code(), Some(0));
        } else {
            server.finish();
        }
    }
}

#[test]
fn a_class_that_reads_requests_by_itself_needs_gunicorn() {
    for (plan, method) in of_gunicorn().into_iter().chain([(green("OwnServer"), "server_class")]) {
        let mut server = plan.launch();
        assert_eq!(server.wait_for_exit().code(), Some(3), "{method}");
        server.wait_for_log(&format!("overrides {method}"));
        server.wait_for_log("by which gunicorn's own code reads requests: install that (pip install gunicorn)");
        server.expect_gone();
    }
    let checked = plan("Handles").args(["--check-config"]).run();
    assert_eq!(checked.code, Some(1));
    assert!(checked.stderr.contains("overrides handle()"), "{}", checked.stderr);
    assert_eq!(beside_gunicorn(plan("Handles")).args(["--check-config"]).run().code, Some(0));
}

#[test]
fn a_class_that_reads_requests_by_itself_runs_by_an_installed_gunicorn() {
    for (plan, method) in of_gunicorn() {
        // gunicorn takes a list as text.
        let plan = beside_gunicorn(plan).env("FORWARDED_ALLOW_IPS", "127.0.0.1,10.0.0.0/8");
        let mut server = plan.args(["--max-requests", "1000"]).start();
        server.allow("own handle");
        let worker = server.wait_for_workers(1)[0];
        assert_eq!(server.get("/?SERVER_SOFTWARE,REQUEST_METHOD").text(), "gunicorn/27.0.1 GET", "{method}");
        server.wait_for_log(&format!("its own {method}"));
        assert_eq!(asked(&server, "/").read().header("Server"), Some("gunicorn"));
        send(worker, SIGUSR1);
        server.signal(SIGHUP);
        wait_until("another worker", || !server.workers().contains(&worker) && server.has_serving(1));
        // The second answer says that the main thread has started the pool's thread: what is raised
        // in the middle of that leaves a thread that nobody ends.
        for _ in 0..2 {
            assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET");
        }
        let second = server.workers()[0];
        server.allow("exited with code 1");
        server.allow("Traceback");
        server.allow("[ERROR]");
        send(second, SIGABRT);
        wait_until("another worker", || !server.workers().contains(&second) && server.has_serving(1));
        server.signal(SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0), "{method}");
    }
}

#[test]
fn a_class_of_gunicorns_code_heeds_settings_and_hooks_and_finishes_its_requests() {
    let config = "from gunicorn.workers.gthread import ThreadWorker\n\
                  class worker_class(ThreadWorker):\n\
                  \x20   def finish_request(self, conn, fs):\n\
                  \x20       self.log.info('finished one')\n\
                  \x20       super().finish_request(conn, fs)\n\
                  threads = 3\n\
                  limit_request_fields = 3\n\
                  health_path = '/up'\n\
                  raw_env = ['GIVEN=here']\n\
                  access_log_format = 'line %(r)s %(s)s'\n\
                  def post_fork(server, worker): worker.log.info('hook post_fork %s', type(worker).__module__)\n\
                  def post_worker_init(worker): worker.log.info('hook post_worker_init %s', worker.max_requests)\n\
                  def pre_request(worker, req): req.headers.append(('X-BY', 'the hook'))\n\
                  def worker_exit(server, worker): worker.log.info('hook worker_exit %s', worker.nr)\n";
    let plan = beside_gunicorn(Plan::app("subclasses").file("conf.py", config));
    let path = plan.path("conf.py").display().to_string();
    let mut server = plan.args(["--config", &path, "--max-requests", "77", "--access-logfile", "-"]).start();
    server.allow("");
    server.wait_for_log("hook post_fork __config__");
    server.wait_for_log("hook post_worker_init 77");
    server.wait_for_log("these settings have no effect");
    server.wait_for_log("which reads requests itself: health_path");
    assert_eq!(server.get("/?HTTP_X_BY").text(), "the hook");
    server.wait_for_log("finished one");
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: host\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n");
    // Only its first line: on CPython 3.14 the head of gunicorn's own page has no proper end.
    assert!(client.read_until(b"\r\n").starts_with(b"HTTP/1.1 431 "));
    assert!(server.stdout().contains("line GET /?HTTP_X_BY HTTP/1.1 200"), "{}", server.stdout());
    let mut late = asked(&server, "/sleep?REQUEST_METHOD");
    assert_eq!(server.get("/?REQUEST_METHOD").text(), "GET");
    server.signal(SIGTERM);
    server.wait_for_log("Handling signal: term");
    assert_eq!(late.read().text(), "GET");
    server.wait_for_log("hook worker_exit 3");
    assert_eq!(server.wait_for_exit().code(), Some(0));
}
