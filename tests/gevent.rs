//! Workers of class gevent: the application runs in greenlets of one thread.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{self, SIGABRT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};

use crate::util::client::{Address, Client};
use crate::util::server::{Plan, Server, send};
use crate::util::{count, gunicorn_venv, is_wheel, root, soak_seconds, venv, wait_until};

fn green<const N: usize>(args: [&str; N]) -> Server {
    let server = Plan::app("green").args(["-k", "gevent"]).args(args).start();
    if !args.contains(&"--workers") {
        server.wait_for_workers(1);
    }
    server
}

/// A request on a connection of its own, whose answer is to be read.
fn asked(server: &Server, target: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

/// The status of the answer; `None` where the connection ends without one.
fn status(client: &mut Client) -> Option<u16> {
    client.read_for("GET").ok().map(|response| response.status)
}

#[test]
fn three_green_sleeps_take_as_long_as_one() {
    let server = green([]);
    let start = Instant::now();
    let mut clients = [(); 3].map(|()| asked(&server, "/sleep?1"));
    clients.iter_mut().for_each(|client| assert_eq!(client.read().text(), "green"));
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    let seen = server.get("/about").text();
    for said in
        ["\"greenlet\": \"Greenlet\"", "\"thread\": \"_DummyThread\"", "\"multithread\": true", "\"socket\": true"]
    {
        assert!(seen.contains(said), "{said}: {seen}");
    }
    server.finish();
}

#[test]
fn five_hundred_sleepers_are_each_answered_with_their_own_mark() {
    let server = green([]);
    let sleepers = count(1000, 500);
    let mut clients: Vec<Client> = (0..sleepers).map(|number| asked(&server, &format!("/mark?{number},0.3"))).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read().text(), number.to_string());
        // And once more on the same connection, with a greenlet that served somebody else.
        client.send(format!("GET /mark?again-{number},0.01 HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read().text(), format!("again-{number}"));
    }
    server.finish();
}

#[test]
fn hooks_see_what_is_patched_when_gunicorns_hooks_do() {
    let hooks = "import os, sys\n\
                 def say(name):\n\
                 \x20   gevent = sys.modules.get('gevent')\n\
                 \x20   monkey = sys.modules.get('gevent.monkey')\n\
                 \x20   patched = bool(monkey and monkey.is_object_patched('socket', 'socket'))\n\
                 \x20   print('HOOK', name, 'imported' if gevent else 'absent', 'patched' if patched else 'plain', \
                 file=sys.stderr, flush=True)\n\
                 say('config')\n\
                 def on_starting(server): say('on_starting')\n\
                 def when_ready(server): say('when_ready')\n\
                 def pre_fork(server, worker): say('pre_fork')\n\
                 def post_fork(server, worker):\n\
                 \x20   say('post_fork')\n\
                 \x20   os.environ['EARLY'] = str('concurrent.futures' in sys.modules)\n\
                 def post_worker_init(worker): say('post_worker_init')\n\
                 def pre_request(worker, request): say('pre_request')\n\
                 def post_request(worker, request, environ, response): say('post_request')\n\
                 def worker_exit(server, worker): say('worker_exit')\n";
    let app = "import os, sys\n\
               monkey = sys.modules['gevent.monkey']\n\
               EARLY = os.environ['EARLY']\n\
               PATCHED = monkey.is_object_patched('socket', 'socket')\n\
               def application(environ, start_response):\n\
               \x20   body = f'{EARLY} {PATCHED}'.encode()\n\
               \x20   start_response('200 OK', [('Content-Length', str(len(body)))])\n\
               \x20   return [body]\n";
    let plan = Plan::app("ordered").in_own_folder().file("conf.py", hooks).file("ordered.py", app);
    let config = plan.path("conf.py").display().to_string();
    let server = plan.args(["-k", "gevent", "-c", &config]).start();
    assert_eq!(server.get("/").text(), "False True", "nothing was imported too early, and all is patched");
    server.signal(SIGTERM);
    server.wait_for_log("HOOK worker_exit");
    let log = server.log();
    let said: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("HOOK ")).collect();
    assert_eq!(
        said,
        [
            "config absent plain",
            "on_starting imported plain",
            "when_ready imported plain",
            "pre_fork imported plain",
            "post_fork imported plain",
            "post_worker_init imported patched",
            "pre_request imported patched",
            "post_request imported patched",
            "worker_exit imported patched",
        ]
    );
}

#[test]
fn a_preloaded_app_is_patched_too_also_what_it_imports_by_name() {
    let server = green(["--preload"]);
    server.wait_for_log("Patched the standard library for gevent, in the master");
    let start = Instant::now();
    let mut clients = [(); 3].map(|()| asked(&server, "/sleep?1"));
    clients.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    let seen = server.get("/about").text();
    assert!(seen.contains("\"by name\": true"), "{seen}");
    server.finish();
}

#[test]
fn a_body_is_read_across_switches_while_others_are_served() {
    // Nothing of it is kept by the server, so that the application waits for each part.
    let server = green(["--body-buffer", "100", "--body-spool", "0"]);
    let mut client = server.connect();
    client.send("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
    for _ in 0..3 {
        assert_eq!(server.get("/").text(), "green");
        client.send(vec![b'a'; 100_000]);
    }
    let answer = client.read().text();
    assert!(answer.starts_with("300000 "), "{answer}");
    let mut chunked = server.connect();
    chunked.send("POST /lines HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n");
    assert_eq!(server.get("/").text(), "green");
    chunked.send("4\r\ntwo\n\r\n0\r\n\r\n");
    assert_eq!(chunked.read().text(), "2");
    server.finish();
}

#[test]
fn who_reads_slowly_holds_up_nobody() {
    let server = green(["--response-buffer", "65536", "--response-spool", "0"]);
    for target in ["/stream?200", "/write?200"] {
        let mut slow = server.connect();
        slow.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        slow.read_head().expect("a head");
        assert_eq!(server.get("/").text(), "green");
        assert_eq!(server.get("/sleep?0.05").text(), "green");
        let body = slow.take_rest(Duration::from_secs(60));
        assert!(body.len() >= 200 * 65536, "{target}: {}", body.len());
    }
    // One that leaves in the middle: its iterable is closed all the same.
    let mut leaves = Client::connect_narrow(&server.address);
    leaves.send("GET /stream?200 HTTP/1.1\r\nHost: a\r\n\r\n");
    leaves.read_head().expect("a head");
    leaves.reset();
    wait_until("close() of the stream", || server.get("/finished").text() == "2");
    server.finish();
}

#[test]
fn what_an_application_raises_ends_its_own_request_alone() {
    let mut server = green([]);
    server.allow("");
    let mut neighbour = asked(&server, "/sleep?1.5");
    for target in ["/raise", "/timeout", "/exit", "/kill"] {
        assert_eq!(server.get(target).status, 500, "{target}");
        server.wait_for_log(&format!("Error handling request GET {target}"));
    }
    assert!(!server.log().contains("<monoceros>"), "a traceback shows the application's frames: {}", server.log());
    // The socket is the application's; it has sent nothing.
    assert_eq!(status(&mut asked(&server, "/stop")), None);
    assert_eq!(neighbour.read().status, 200);
    assert_eq!(server.get("/").text(), "green");
    server.finish();
}

#[test]
fn who_hogs_the_thread_is_ended_and_the_neighbours_are_served() {
    let mut server = green(["--timeout", "1"]);
    server.allow("");
    let worker = server.workers()[0];
    let mut neighbour = asked(&server, "/sleep?5");
    let mut waiting = asked(&server, "/mark?waited,2");
    assert_eq!(server.get("/").text(), "green");
    let mut hog = asked(&server, "/hog?60");
    assert!(matches!(status(&mut hog), None | Some(500)));
    server.wait_for_log(&format!("[CRITICAL] WORKER TIMEOUT (pid:{worker})"));
    server.wait_for_log("The greenlet that runs:");
    server.wait_for_log("1 greenlet waits here:");
    assert_eq!(neighbour.read().text(), "green");
    assert_eq!(waiting.read().text(), "waited");
    wait_until("a replacement", || !server.workers().contains(&worker) && server.has_serving(1));
    assert!(!server.log().contains("SIGKILL"), "{}", server.log());
    assert_eq!(server.get("/").text(), "green");
    server.finish();
}

#[test]
fn health_checks_and_siblings_serve_while_a_greenlet_hogs_the_thread() {
    let server = green(["--workers", "2", "--health-path", "/health"]);
    server.wait_for_workers(2);
    let mut hog = asked(&server, "/hog?8");
    wait_until("the request to run", || server.entered() == 1);
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(server.get("/health").status, 200);
        assert_eq!(server.get("/").text(), "green");
    }
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(hog.read().text(), "green");
    server.finish();
}

#[test]
fn request_timeout_ends_one_greenlet_and_the_worker_goes_on() {
    let mut server = green(["--request-timeout", "1"]);
    server.allow("");
    let workers = server.workers();
    let mut neighbour = asked(&server, "/sleep?0.7");
    let mut late = asked(&server, "/sleep?30");
    assert_eq!(neighbour.read().status, 200);
    assert_eq!(late.read().status, 504);
    server.wait_for_log("Error handling request GET /sleep?30");
    assert_eq!(server.get("/").text(), "green");
    assert_eq!(server.workers(), workers);
    server.finish();
}

#[test]
fn request_timeout_holds_for_close_too() {
    let mut server = green(["--request-timeout", "1"]);
    server.allow("");
    // The response is complete before the one hangs; of the other there is only the head.
    let mut clients = ["/slow-close", "/slow-close?late"].map(|target| asked(&server, target));
    assert_eq!(clients[0].read().text(), "green");
    assert_eq!(status(&mut clients[1]), Some(504));
    server.wait_for_log_times("in close\n    sleep(60)", 2);
    assert_eq!(server.get("/").text(), "green");
    server.finish();
}

#[test]
fn a_greenlet_that_unwinds_slowly_ends_with_the_worker() {
    let mut server = green(["--graceful-timeout", "1"]);
    server.allow("");
    let mut stubborn = asked(&server, "/stubborn");
    wait_until("the request to run", || server.get("/running").text() != "0");
    server.signal(SIGTERM);
    assert_eq!(status(&mut stubborn), None);
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
    assert!(!server.log().contains("a fault of the server"), "{}", server.log());
    server.expect_gone();
}

#[test]
fn slow_requests_are_named_while_greenlets_wait() {
    let mut server = green(["--slow-request", "1"]);
    server.allow("Slow request");
    let mut waiting = asked(&server, "/sleep?3.5");
    server.wait_for_log("Slow request: GET /sleep?3.5 from 127.0.0.1");
    assert_eq!(waiting.read().status, 200);
    server.finish();
}

#[test]
fn slow_requests_show_where_their_greenlets_are() {
    let mut server = green(["--slow-request", "1", "--slow-request-stack", "--request-id-header", "X-Request-ID"]);
    server.allow("");
    let mut waiting = server.connect();
    waiting.send("GET /sleep?4 HTTP/1.1\r\nHost: a\r\nX-Request-ID: r-1\r\n\r\n");
    server.wait_for_log("[r-1] Slow request: GET /sleep?4 from 127.0.0.1");
    server.wait_for_log(", in answer\n    sleep(float(query))\n");
    // One that does not let go of the thread is where that is.
    let mut hogging = asked(&server, "/hog?4");
    server.wait_for_log("Slow request: GET /hog?4 from 127.0.0.1");
    wait_until("its stack", || {
        let log = server.log();
        log.lines()
            .any(|line| line.contains("green.py\", line ") && line.ends_with(" in answer") && !line.contains(", in"))
    });
    assert_eq!((waiting.read().status, hogging.read().status), (200, 200));
    server.finish();
}

#[test]
fn term_lets_greenlets_end_and_ends_late_ones() {
    // A sleeper and an idle client.
    let mut server = green([]);
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    let mut sleeper = asked(&server, "/sleep?1");
    assert_eq!(server.get("/").text(), "green");
    server.signal(SIGTERM);
    assert_eq!(sleeper.read().status, 200);
    assert_eq!(server.wait_for_exit().code(), Some(0));

    // Nobody: at once, not with the next look of a second. A busy machine may take as long by
    // itself, now and then.
    let took = [(); 5].map(|()| {
        let mut server = green([]);
        assert_eq!(server.get("/").status, 200);
        server.signal(SIGTERM);
        let (status_code, took) = server.wait_for_exit_within(Duration::from_secs(20));
        assert!(status_code.success());
        took
    });
    assert!(took.iter().filter(|took| **took < Duration::from_millis(900)).count() >= 2, "{took:?}");

    // One that is too late sees the connection close, and its finally clauses run. Idle connections
    // are long closed then, and nothing else wakes the worker.
    let mut server = green(["--graceful-timeout", "3"]);
    server.allow("");
    let mut late = asked(&server, "/sleep?60");
    assert_eq!(server.get("/").text(), "green");
    server.signal(SIGTERM);
    assert_eq!(status(&mut late), None);
    server.wait_for_log("Worker graceful timeout (pid:");
    assert_eq!(server.wait_for_exit().code(), Some(0));

    // A hog.
    let mut server = green(["--graceful-timeout", "1"]);
    server.allow("");
    let mut hog = asked(&server, "/hog?60");
    wait_until("the request to run", || server.entered() == 1);
    server.signal(SIGTERM);
    assert_eq!(status(&mut hog), None);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn quit_and_int_end_requests_without_an_answer() {
    for signal in [SIGQUIT, SIGINT] {
        for target in ["/sleep?60", "/hog?60"] {
            let mut server = green([]);
            server.allow("");
            let mut client = asked(&server, target);
            wait_until("the request to run", || server.entered() == 1);
            server.signal(signal);
            assert!(matches!(status(&mut client), None | Some(500)), "{signal} {target}");
            let (code, took) = server.wait_for_exit_within(Duration::from_secs(5));
            assert!(code.success() && took < Duration::from_secs(2), "{signal} {target} {took:?}");
        }
    }
}

#[test]
fn hooks_of_interruptions_may_wait_and_are_called_once() {
    let conf = "import sys, time\n\
                def say(text): print('HOOK', text, file=sys.stderr, flush=True)\n\
                def worker_int(worker):\n\
                \x20   time.sleep(0.05)\n\
                \x20   say('worker_int')\n\
                def worker_abort(worker):\n\
                \x20   time.sleep(0.05)\n\
                \x20   say('worker_abort')\n";
    for (target, signal, hook) in [
        ("/sleep?60", SIGQUIT, "HOOK worker_int"),
        ("/hog?60", SIGQUIT, "HOOK worker_int"),
        ("/sleep?1", SIGABRT, "HOOK worker_abort"),
        ("/hog?60", SIGABRT, "HOOK worker_abort"),
    ] {
        let plan = Plan::app("green").file("conf.py", conf);
        let config = plan.path("conf.py").display().to_string();
        let mut server = plan.args(["-k", "gevent", "-c", &config]).start();
        server.allow("");
        let worker = server.wait_for_workers(1)[0];
        let mut client = asked(&server, target);
        wait_until("the request to run", || server.entered() == 1);
        if target.starts_with("/sleep") {
            // Another is answered once that one sleeps.
            assert_eq!(server.get("/").status, 200);
        }
        send(worker, signal);
        let answer = status(&mut client);
        assert!(target != "/sleep?1" || answer == Some(200), "{answer:?}");
        server.wait_for_log(hook);
        wait_until("a replacement", || !server.workers().contains(&worker) && server.has_serving(1));
        assert_eq!(server.log().matches(hook).count(), 1, "{target} {signal}: {}", server.log());
        assert!(!server.log().contains("Segmentation fault"), "{}", server.log());
        server.finish();
    }
}

#[test]
fn usr1_reopens_the_logs_and_max_requests_replaces_the_worker() {
    let plan = Plan::app("green");
    let log = plan.path("access.log");
    let server = plan.args(["-k", "gevent", "--max-requests", "5", "--access-logfile", &log.display().to_string()]);
    let server = server.start();
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/first").status, 200);
    wait_until("the first line", || fs::read_to_string(&log).is_ok_and(|text| text.contains("/first")));
    fs::rename(&log, server.path("access.old")).expect("it is there");
    server.signal(SIGUSR1);
    wait_until("the new file", || log.exists());
    for _ in 0..10 {
        assert_eq!(server.get("/sleep?0.01").status, 200);
    }
    wait_until("lines in the new file", || fs::read_to_string(&log).is_ok_and(|text| text.contains("/sleep")));
    server.wait_for_log("Autorestarting worker after current request.");
    wait_until("a replacement", || !server.workers().contains(&worker) && server.has_serving(1));
    server.finish();
}

#[test]
fn worker_connections_bounds_the_requests_that_run_at_once() {
    let server = green(["--worker-connections", "2"]);
    let start = Instant::now();
    let mut clients = [(); 4].map(|()| {
        let mut client = server.connect();
        client.send("GET /sleep?1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client
    });
    clients.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
    server.finish();
}

#[test]
fn a_reload_under_load_fails_no_request() {
    let server = green(["--workers", "2"]);
    server.wait_for_workers(2);
    let stop = Instant::now() + Duration::from_secs(3);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while Instant::now() < stop {
                    assert_eq!(server.get("/sleep?0.02").text(), "green");
                }
            });
        }
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(700));
            server.signal(SIGHUP);
        }
    });
    server.finish();
}

#[test]
fn pythons_logging_may_wait_in_its_handlers() {
    let conf = "import logging, sys, time\n\
                class Slow(logging.StreamHandler):\n\
                \x20   def emit(self, record):\n\
                \x20       time.sleep(0.02)\n\
                \x20       super().emit(record)\n\
                accesslog = '-'\n\
                logconfig_dict = {'version': 1, 'handlers': {'slow': {'()': Slow, 'stream': sys.stderr}},\n\
                \x20   'formatters': {'plain': {'format': '%(message)s'}}, 'root': {'handlers': ['slow'], 'level': 'INFO'},\n\
                \x20   'loggers': {name: {'handlers': ['slow'], 'level': 'INFO', 'propagate': False}\n\
                \x20               for name in ('gunicorn.error', 'gunicorn.access')}}\n";
    let plan = Plan::app("green").file("conf.py", conf);
    let config = plan.path("conf.py").display().to_string();
    let mut server = plan.args(["-k", "gevent", "-c", &config]).start();
    server.allow("");
    let mut sleepers = [(); 5].map(|()| asked(&server, "/sleep?0.2"));
    sleepers.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
    assert_eq!(server.get("/raise").status, 500);
    server.wait_for_log("RuntimeError: as asked");
    // A line of the event loop's, which runs no Python: it waits in the queue for a greenlet.
    let mut client = server.connect();
    client.send("NONSENSE\r\n\r\n");
    assert_eq!(client.read().status, 400);
    server.wait_for_log("Invalid request from ip=127.0.0.1");
    server.wait_for_log("\"GET /raise HTTP/1.1\" 500");
    server.signal(SIGUSR1);
    assert_eq!(server.get("/").text(), "green");
    server.finish();
}

#[test]
fn websockets_of_flask_sock_and_flask_socketio_speak_over_the_clients_socket() {
    let echo = "import sys, simple_websocket\n\
                ws = simple_websocket.Client(sys.argv[1])\n\
                for word in ['one', 'two' * 50000]:\n\
                \x20   ws.send(word)\n\
                \x20   assert ws.receive(timeout=10) == word.upper(), 'not what was sent'\n\
                ws.close()\n";
    let server = Plan::app("socket_echo").args(["-k", "gevent"]).start();
    simultaneously(&server, echo, "ws", "/echo", 3);
    assert_eq!(server.get("/").text(), "plain");
    server.finish();

    let sockets = "import sys, threading, socketio\n\
                   heard, client = threading.Event(), socketio.Client(request_timeout=30)\n\
                   client.on('said', lambda said: said == {'word': 'HELLO'} and heard.set())\n\
                   client.connect(sys.argv[1], transports=['websocket'], wait_timeout=30)\n\
                   client.emit('say', 'hello')\n\
                   assert heard.wait(30), 'nothing was said'\n\
                   client.disconnect()\n";
    let server = Plan::app("green_sockets").args(["-k", "gevent"]).start();
    server.wait_for_workers(1);
    simultaneously(&server, sockets, "http", "/", 3);
    assert_eq!(server.get("/").text(), "gevent");
    server.finish();
}

/// Runs several clients written in Python at once, each given the server's URL.
fn simultaneously(server: &Server, script: &str, scheme: &str, path: &str, count: usize) {
    let Address::Tcp(port) = server.address else { panic!("a port") };
    let url = format!("{scheme}://127.0.0.1:{port}{path}");
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let mut command = Command::new(venv().join("bin/python"));
            command.args(["-c", script, &url]).stderr(std::process::Stdio::piped());
            command.spawn().expect("a Python")
        })
        .collect();
    for client in clients {
        let ran = client.wait_with_output().expect("it ends");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[test]
fn psycogreens_callback_stays_where_a_hook_has_set_it() {
    // psycopg2 itself needs a database; what psycogreen does with it is one call.
    let psycopg2 = "callback = None\n\
                    class OperationalError(Exception): pass\n";
    let extensions = "import psycopg2\n\
                      POLL_OK, POLL_READ, POLL_WRITE = range(3)\n\
                      def set_wait_callback(callback): psycopg2.callback = callback\n";
    let conf = "def post_fork(server, worker):\n\
                \x20   from psycogreen.gevent import patch_psycopg\n\
                \x20   patch_psycopg()\n";
    let app = "import psycopg2\n\
               def application(environ, start_response):\n\
               \x20   class Connection:\n\
               \x20       states = [1, 0]\n\
               \x20       def poll(self): return self.states.pop(0)\n\
               \x20       def fileno(self): return self.end.fileno()\n\
               \x20   import socket, gevent\n\
               \x20   one, other = socket.socketpair()\n\
               \x20   connection = Connection()\n\
               \x20   connection.end = one\n\
               \x20   gevent.spawn_later(0.1, other.send, b'x')\n\
               \x20   psycopg2.callback(connection)\n\
               \x20   start_response('200 OK', [('Content-Length', '4')])\n\
               \x20   return [b'done']\n";
    let plan = Plan::app("app").in_own_folder().file("conf.py", conf).file("app.py", app);
    fs::create_dir_all(plan.path("psycopg2")).expect("a folder");
    let plan = plan.file("psycopg2/__init__.py", psycopg2).file("psycopg2/extensions.py", extensions);
    let config = plan.path("conf.py").display().to_string();
    let folder = plan.path("").display().to_string();
    let server = plan.args(["-k", "gevent", "-c", &config, "--pythonpath", &folder]).start();
    assert_eq!(server.get("/").text(), "done");
    server.finish();
}

#[test]
fn a_missing_or_old_gevent_is_said_in_one_sentence() {
    if is_wheel() {
        return println!("skipped: the wheel's virtualenv has gevent");
    }
    for more in [&[][..], &["--check-config"]] {
        // This virtualenv has none.
        let empty = gunicorn_venv().display().to_string();
        let mut plan = Plan::app("echo").args(["-k", "gevent"]).env("VIRTUAL_ENV", empty);
        for argument in more {
            plan = plan.args([*argument]);
        }
        let finished = plan.run();
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(finished.stderr.contains("worker_class gevent needs the package gevent, 24.10.1 or later"));
        assert!(!finished.stderr.contains("Traceback"), "{}", finished.stderr);

        let mut plan = Plan::app("echo").args(["-k", "gunicorn.workers.ggevent.GeventWorker"]);
        fs::create_dir(plan.path("old")).expect("a folder");
        plan = plan.file("old/gevent.py", "__version__ = '24.9.2'\n");
        let old = plan.path("old").display().to_string();
        plan = plan.args(["--pythonpath", &old]);
        for argument in more {
            plan = plan.args([*argument]);
        }
        let finished = plan.run();
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(finished.stderr.contains("and finds 24.9.2: pip install --upgrade gevent"), "{}", finished.stderr);
    }
}

#[test]
fn nothing_of_gevent_is_imported_where_it_is_not_asked_for() {
    let app = "import sys\n\
               def application(environ, start_response):\n\
               \x20   found = [name for name in sys.modules if 'gevent' in name or 'greenlet' in name]\n\
               \x20   body = repr(found).encode()\n\
               \x20   start_response('200 OK', [('Content-Length', str(len(body)))])\n\
               \x20   return [body]\n";
    for class in ["sync", "gthread"] {
        let server = Plan::app("app").in_own_folder().file("app.py", app).args(["-k", class]).start();
        assert_eq!(server.get("/").text(), "[]");
        server.finish();
    }
}

/// pyo3 counts by thread how often it has attached. A `detach` remembers the number and writes it
/// back, so whatever attaches below it must not switch greenlets: the count would be another
/// greenlet's.
#[test]
fn nothing_attaches_to_python_inside_a_detach() {
    let mut faults = Vec::new();
    let mut closures = 0;
    for folder in ["src/python", "src/python/call", "src/worker", "src/worker/thread_pool"] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let Ok(text) = fs::read_to_string(&path) else { continue };
            for (at, _) in text.match_indices(".detach(") {
                closures += 1;
                let inside = argument(&text[at + ".detach(".len()..]);
                // A record may go by way of Python's logging, which attaches (`loggers::aside`
                // minds that).
                for word in ["attach(", "log::", "call0(", "call1(", "call_method"] {
                    if inside.contains(word) {
                        faults.push(format!("{}: {word} inside a detach: {inside}", path.display()));
                    }
                }
            }
        }
    }
    assert!(closures > 5, "the test finds the places: {closures}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What stands between a parenthesis that is open and its end.
fn argument(text: &str) -> &str {
    let mut open = 1;
    for (at, character) in text.char_indices() {
        open += match character {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if open == 0 {
            return &text[..at];
        }
    }
    text
}

/// Ten minutes (`SOAK_SECONDS`) of clients that come, leave and stall, of workers that are killed,
/// aborted and reloaded.
#[test]
#[ignore = "takes ten minutes; MONOCEROS_SOAK sets other seconds"]
fn gevent_workers_survive_random_kills_timeouts_and_disconnects() {
    let mut server = green(["--workers", "2", "--timeout", "2", "--request-timeout", "3", "--max-requests", "5000"]);
    server.allow("");
    let seconds = std::env::var("MONOCEROS_SOAK").map_or(600, |_| soak_seconds());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut wrong = Vec::new();
    thread::scope(|scope| {
        let server = &server;
        let disturbing = |seed: u64| scope.spawn(move || disturb(server, Random(0x9e37 + seed), end));
        let clients: Vec<_> = (0..24).map(disturbing).collect();
        let mut random = Random(7);
        let signals: [Signal; 4] = [SIGABRT, SIGTERM, Signal::SIGKILL, SIGUSR1];
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(500 + random.below(2500)));
            let workers = server.workers();
            match random.below(6) {
                0 => server.signal(SIGHUP),
                _ if workers.is_empty() => {}
                at => {
                    let worker = workers[random.below(workers.len() as u64) as usize];
                    // It may have ended by itself just now.
                    let signal = signals[at as usize % signals.len()];
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), signal);
                }
            }
        }
        wrong = clients.into_iter().filter_map(|client| client.join().expect("a client")).collect();
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let log = server.log();
    for fault in ["Segmentation fault", "panicked", "fault of the server", "Cannot show the greenlets", "attach count"]
    {
        assert!(!log.contains(fault), "{fault}: {}", server.path("stderr").display());
    }
    // At rest: no greenlet is at a request, no connection is left.
    wait_until("two workers", || server.has_serving(2));
    let worker = server.workers()[0];
    let files = server.files_at_rest(worker);
    assert!(files < 64, "{files} files are open in a worker at rest");
    server.finish();
}

/// One client after another, of which each may be rude. What is wrong with an answer, if anything
/// is.
fn disturb(server: &Server, mut random: Random, end: Instant) -> Option<String> {
    while Instant::now() < end {
        let Ok(mut client) = Client::try_connect(&server.address) else { continue };
        let mark = random.next();
        let target = match random.below(12) {
            0 => "/stream?20".to_owned(),
            1 => "/raise".to_owned(),
            2 => "/timeout".to_owned(),
            3 => "/kill".to_owned(),
            4 if random.below(40) == 0 => "/hog?4".to_owned(),
            5 if random.below(10) == 0 => "/sleep?5".to_owned(),
            _ => format!("/mark?{mark},0.0{}", random.below(10)),
        };
        if client.try_send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).is_err() {
            continue;
        }
        if random.below(8) == 0 {
            client.reset();
            continue;
        }
        let Ok(response) = client.read_within("GET", Duration::from_secs(20)) else { continue };
        if target.starts_with("/mark") && response.status == 200 && response.text() != mark.to_string() {
            return Some(format!("{target} was answered with {}", response.text()));
        }
    }
    None
}

/// A small generator of numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
