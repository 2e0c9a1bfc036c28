//! Server hooks: each in its process, at its moment, with gunicorn's arguments; and the effect of
//! an exception.

use std::fs;

use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2};

use crate::util::server::{Plan, Server, send};
use crate::util::{apps, wait_until};

/// `process.py` under a config file that names every hook.
fn every_hook() -> Plan {
    let config = apps().join("every_hook.py").display().to_string();
    Plan::app("process").args(["--config", &config])
}

/// The calls so far: their names and the words behind them.
fn calls(server: &Server) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(server.path("gate/hooks")).unwrap_or_default();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    text.lines().map(words).map(|mut words| (words.remove(0), words)).collect()
}

fn names(server: &Server) -> Vec<String> {
    calls(server).into_iter().map(|(name, _)| name).collect()
}

/// The words behind the first call of a hook; waits for it.
#[track_caller]
fn call(server: &Server, hook: &str) -> Vec<String> {
    wait_until(&format!("a call of {hook}"), || names(server).iter().any(|name| name == hook));
    calls(server).into_iter().find(|(name, _)| name == hook).expect("just seen").1
}

#[test]
fn every_hook_is_called_in_gunicorns_order() {
    let mut server = every_hook().start();
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/pid?a=1").status, 200);
    call(&server, "post_request");
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let expected = "nworkers_changed on_starting when_ready pre_fork post_fork post_worker_init pre_request post_request \
                    worker_exit child_exit on_exit";
    assert_eq!(names(&server).join(" "), expected);
    let master = server.pid().to_string();
    let worker = worker.to_string();
    for (name, words) in calls(&server) {
        let seen: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let (process, expected): (&str, Vec<&str>) = match name.as_str() {
            "nworkers_changed" => (&master, vec!["1", "None"]),
            "on_starting" => (&master, vec![&master, "1"]),
            "when_ready" => (&master, vec!["1", "1"]),
            "pre_fork" => (&master, vec!["1", "[booting]"]),
            "post_fork" => (&worker, vec![&worker, &master, "worker-1"]),
            "post_worker_init" => (&worker, vec!["True"]),
            "pre_request" => (&worker, vec!["GET", "/pid", "a=1", "/pid?a=1", "1.1", "http"]),
            "post_request" => (&worker, vec!["/pid", "/pid", "200", "200_OK", &seen[4]]),
            "worker_exit" => (&worker, vec![&worker, "worker-1"]),
            "child_exit" => (&master, vec![&worker, "worker-1", "False"]),
            _ => (&master, vec![&master]),
        };
        assert_eq!((words[0].as_str(), seen), (process, expected), "{name}");
    }
    server.wait_for_log(&format!("[{worker}] [INFO] post_fork of {worker}"));
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn a_reload_runs_the_hooks_of_the_new_config() {
    let config = "def on_reload(server): server.log.info('reload %s', server.cfg.workers)\n\
                  def post_fork(server, worker): worker.log.info('generation ONE')\n\
                  def child_exit(server, worker): server.log.info('gone %s', worker.pid)\n";
    let server = Plan::app("process").config(config).start();
    let old = server.wait_for_workers(1)[0];
    server.wait_for_log("generation ONE");
    server.write("conf.py", &config.replace("ONE", "TWO").replace("def post", "workers = 2\ndef post"));
    server.signal(SIGHUP);
    server.wait_for_log("reload 2");
    server.wait_for_log_times("generation TWO", 2);
    server.wait_for_log(&format!("gone {old}"));
    server.wait_for_workers(2);
    server.finish();
}

#[test]
fn a_hook_that_raises_in_a_reload_changes_nothing() {
    for hook in ["def on_reload(server)", "def pre_fork(server, worker)", "def post_fork(server, worker)"] {
        let mut server = Plan::app("process").config("").start();
        let before = server.wait_for_workers(1);
        assert_eq!(server.get("/").status, 200);
        server.write("conf.py", &format!("{hook}:\n    raise ValueError('not today')\n"));
        server.signal(SIGHUP);
        server.wait_for_log("Reload failed");
        server.wait_for_log("ValueError: not today");
        server.wait_for_workers(1);
        assert_eq!(server.workers(), before, "{hook}");
        server.write("conf.py", "def on_reload(server): server.log.info('good again')\n");
        server.signal(SIGHUP);
        server.wait_for_log("good again");
        wait_until("the old worker to go", || !server.workers().contains(&before[0]));
        server.allow("");
        server.finish();
    }
}

#[test]
fn a_hook_that_raises_at_the_start_ends_it() {
    let cases = [
        ("def on_starting(server)", 1),
        ("def when_ready(server)", 1),
        ("def nworkers_changed(server, new, old)", 1),
        ("def pre_fork(server, worker)", 3),
        ("def post_fork(server, worker)", 3),
        ("def post_worker_init(worker)", 3),
    ];
    for (hook, code) in cases {
        let finished = Plan::app("process").config(&format!("{hook}:\n    raise ValueError('not today')\n")).run();
        assert_eq!(finished.code, Some(code), "{hook}: {finished:?}");
        assert_eq!(finished.stderr.matches("ValueError: not today").count(), 1, "{hook}: {finished:?}");
    }
}

#[test]
fn signals_to_the_master_reach_their_hooks() {
    let mut server = every_hook().start();
    let workers = server.wait_for_workers(1);
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGTTIN);
    server.wait_for_workers(2);
    server.signal(SIGTTOU);
    server.wait_for_workers(1);
    let counts = |server: &Server| {
        let changes = calls(server).into_iter().filter(|(name, _)| name == "nworkers_changed");
        changes.map(|(_, words)| words[1..].join(" ")).collect::<Vec<_>>()
    };
    wait_until("both changes", || counts(&server).len() == 3);
    assert_eq!(counts(&server), ["1 None", "2 1", "1 2"]);
    // The worker that TTOU has stopped has ended, and its hooks have run.
    call(&server, "child_exit");
    server.signal(SIGINT);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let last: Vec<String> = names(&server).into_iter().rev().take(4).collect();
    assert_eq!(last, ["on_exit", "child_exit", "worker_exit", "worker_int"], "of {workers:?}");
    server.expect_gone();
}

#[test]
fn worker_int_runs_when_code_has_changed() {
    let config = "reload = True\ndef worker_int(worker): worker.log.info('interrupted %s', worker.pid)\n";
    let app = "from echo import application\n";
    let plan = Plan::app("app").in_own_folder().file("app.py", app).file("conf.py", config);
    let path = plan.path("conf.py").display().to_string();
    let mut server = plan.env("PYTHONPATH", apps().display().to_string()).args(["--config", &path]).start();
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").status, 200);
    wait_until("the change to be seen", || {
        server.write("app.py", &format!("{app}# {:?}\n", std::time::SystemTime::now()));
        server.log().contains(&format!("interrupted {worker}"))
    });
    server.allow("Reloader is on");
    server.finish();
}

#[test]
fn worker_abort_runs_before_a_stuck_worker_ends() {
    let mut server = every_hook().args(["--timeout", "1"]).start();
    let worker = server.wait_for_workers(1)[0].to_string();
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(call(&server, "worker_abort")[1], worker);
    assert_eq!(call(&server, "child_exit")[1], worker);
    server.allow("");
    server.finish();
}

#[test]
fn pre_exec_runs_in_the_child_and_can_prevent_it() {
    let config = "import os\nfrom pathlib import Path\n\
                  def pre_exec(server):\n    server.log.info('pre_exec in %s', os.getpid())\n\
                  \x20   assert not Path(os.environ['GATE'], 'no-upgrade').exists(), 'no upgrade today'\n";
    let mut server = Plan::app("process").config(config).start();
    server.wait_for_workers(1);
    server.write("gate/no-upgrade", "");
    server.signal(SIGUSR2);
    server.wait_for_log("AssertionError: no upgrade today");
    server.wait_for_log("exited with code 127");
    fs::remove_file(server.path("gate/no-upgrade")).expect("it is there");
    server.signal(SIGUSR2);
    server.wait_for_log_times("Listening at", 2);
    let new =
        server.log().lines().rev().find_map(|line| line.split("pre_exec in ").nth(1)?.parse().ok()).expect("a pid");
    send(new, SIGTERM);
    server.wait_for_log(&format!("The new master (pid:{new}) has ended."));
    server.allow("");
    server.finish();
}

#[test]
fn an_upgrade_in_place_goes_on_without_a_hook_that_raises() {
    let mut server = Plan::app("process").config("").start();
    server.wait_for_workers(1);
    assert_eq!(server.get("/").status, 200);
    server.write(
        "conf.py",
        "def on_starting(server): raise OSError('not there')\ndef when_ready(server): raise OSError('nor there')\n",
    );
    server.signal_rtmin();
    server.wait_for_log_times("Booting worker", 2);
    server.wait_for_log("OSError: nor there");
    server.wait_for_workers(1);
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn what_the_config_registers_for_the_end_runs_in_the_master() {
    let config = "import atexit, os\natexit.register(lambda: print('the end of', os.getpid()))\n";
    let server = Plan::app("process").config(config).start();
    server.wait_for_workers(1);
    assert_eq!(server.get("/").status, 200);
    let (master, stdout) = (server.pid(), server.path("stdout"));
    server.finish_keeping(|| {
        let said = fs::read_to_string(stdout).expect("it is there");
        assert_eq!(said.matches(&format!("the end of {master}\n")).count(), 1, "{said}");
    });
}

#[test]
fn worker_nr_counts_requests_whatever_hook_there_is() {
    let config = "def post_request(worker, req): worker.log.info('request %s', worker.nr)\n";
    let server = Plan::app("process").config(config).start();
    (0..3).for_each(|_| assert_eq!(server.get("/").status, 200));
    server.wait_for_log("request 3");
    server.finish();
}

/// What hooks read of the worker, at each moment.
const NUMBERS: &str = "import sys

def tell(moment, worker):
    kind = type(worker)
    numbers = [getattr(worker, name, '-') for name in ('nr', 'nr_conns', 'worker_connections', 'max_keepalived')]
    threads = worker.tpool._max_workers if hasattr(worker, 'tpool') else '-'
    worker.log.info('%s %s.%s %s %s.', moment, kind.__module__, kind.__name__, numbers, threads)

def pre_fork(server, worker):
    tell('pre_fork', worker)
    worker.log.info('gevent %s', 'gunicorn.workers.ggevent' in sys.modules)
def post_fork(server, worker): tell('post_fork', worker)
def post_worker_init(worker): tell('post_worker_init', worker)
def pre_request(worker, req): tell('pre_request', worker)
def post_request(worker, req): tell('post_request', worker)
def worker_exit(server, worker): tell('worker_exit', worker)
def child_exit(server, worker): tell('child_exit', worker)
";

#[test]
fn hooks_see_a_worker_of_its_class_with_the_numbers_of_that() {
    for (class, kind, idle, serving) in [
        ("sync", "sync.SyncWorker", "'-', '-', '-'] -", "'-', '-', '-'] -"),
        ("gthread", "gthread.ThreadWorker", "0, 50, 47] 3", "1, 50, 47] 3"),
        ("gevent", "ggevent.GeventWorker", "'-', 50, '-'] -", "'-', 50, '-'] -"),
        ("gunicorn.workers.gthread.ThreadWorker", "gthread.ThreadWorker", "0, 50, 47] 3", "1, 50, 47] 3"),
    ] {
        let threads = if kind.starts_with('s') { "1" } else { "3" };
        let plan = Plan::app("process").config(NUMBERS).args(["--worker-class", class, "--threads", threads]);
        let mut server = plan.args(["--worker-connections", "50"]).start();
        let saw = |moment: &str, nr: u8, rest: &str| {
            server.wait_for_log(&format!("{moment} gunicorn.workers.{kind} [{nr}, {rest}."));
        };
        saw("pre_fork", 0, idle);
        saw("post_fork", 0, idle);
        saw("post_worker_init", 0, idle);
        let mut client = server.connect();
        for nr in 0..3 {
            assert_eq!(client.get("/").status, 200);
            saw("pre_request", nr, serving);
            saw("post_request", nr + 1, serving);
        }
        server.wait_for_log(&format!("gevent {}", if class == "gevent" { "True" } else { "False" }));
        drop(client);
        server.signal(SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0));
        let log = server.log();
        let exits =
            [format!("worker_exit gunicorn.workers.{kind} [3, "), format!("child_exit gunicorn.workers.{kind} ")];
        assert!(exits.iter().all(|line| log.contains(line)), "{log}");
        server.expect_gone();
    }
}

#[test]
fn worker_nr_is_true_without_request_hooks() {
    let config = "import threading, time\n\
                  def watch(worker):\n\
                  \x20   while worker.nr < 3: time.sleep(0.01)\n\
                  \x20   worker.log.info('has served %s', worker.nr)\n\
                  def post_worker_init(worker): threading.Thread(target=watch, args=(worker,), daemon=True).start()\n";
    for class in ["sync", "gthread"] {
        let server = Plan::app("process").config(config).args(["--worker-class", class]).start();
        (0..3).for_each(|_| assert_eq!(server.get("/").status, 200));
        server.wait_for_log("has served 3");
        server.finish();
    }
}

#[test]
fn a_hook_of_another_moment_costs_requests_nothing() {
    let config = "from gunicorn.http.message import Request\n\
                  made = Request.__init__\n\
                  def init(self, **fields):\n\
                  \x20   print('made for', fields['path'], flush=True)\n\
                  \x20   made(self, **fields)\n\
                  Request.__init__ = init\n";
    for (hook, made) in
        [("def post_fork(server, worker): pass\n", ""), ("def pre_request(worker, req): pass\n", "made for /\n")]
    {
        for class in ["sync", "gevent"] {
            let plan = Plan::app("process").config(&format!("{config}{hook}")).args(["--worker-class", class]);
            let server = plan.start();
            assert_eq!(server.get("/").status, 200);
            assert_eq!(server.stdout(), made, "{class} {hook}");
            server.finish();
        }
    }
}

#[test]
fn settings_have_values_of_gunicorns_kinds() {
    let config = "def on_starting(server):\n\
                  \x20   cfg = server.cfg\n\
                  \x20   server.log.info('keepalive %s', cfg.keepalive + 1)\n\
                  \x20   server.log.info('http %s %s %s', cfg.http_protocols, cfg.http2_cleartext, cfg.http_parser)\n\
                  \x20   server.log.info('http2 %s', cfg.http2_max_concurrent_streams + cfg.http2_initial_window_size\n\
                  \x20       + cfg.http2_max_frame_size + cfg.http2_max_header_list_size)\n\
                  \x20   server.log.info('asgi %s %s %s %r', cfg.asgi_loop, cfg.asgi_lifespan,\n\
                  \x20       cfg.asgi_disconnect_grace_period + cfg.websocket_max_message_size, cfg.root_path)\n\
                  \x20   server.log.info('tls %s %s', cfg.ssl_version.name, cfg.ssl_options['ssl_version'] == 2)\n";
    for (args, keepalive) in [
        (&["--threads", "1"], "651"),
        (&["--threads", "2"], "3"),
        (&["--worker-class", "gevent"], "3"),
        (&["--keep-alive", "7"], "8"),
        (&["--keep-alive", "0"], "1"),
    ] {
        let server = Plan::app("process").config(config).args(*args).start();
        server.wait_for_log(&format!("keepalive {keepalive}\n"));
        server.wait_for_log("http ['h1'] off auto\n");
        server.wait_for_log("http2 147555\n");
        server.wait_for_log("asgi auto auto 16777219 ''\n");
        server.wait_for_log("tls PROTOCOL_TLS True\n");
        server.finish();
    }
}

#[test]
fn pre_request_can_change_the_request_and_refuse_it() {
    let config = "def pre_request(worker, req):\n\
                  \x20   if req.path == '/refused': raise RuntimeError('refused')\n\
                  \x20   req.headers.append(('X-REQUEST-ID', 'abc'))\n\
                  \x20   req.path = '/environ'\n";
    let mut server = Plan::app("echo").config(config).start();
    let environ = server.get("/elsewhere").text();
    assert!(environ.contains("HTTP_X_REQUEST_ID") && environ.contains("abc"), "{environ}");
    assert_eq!(server.get("/refused").status, 500);
    server.wait_for_log("RuntimeError: refused");
    server.allow("");
    server.finish();
}

#[test]
fn a_script_name_of_pre_request_is_one() {
    let config = "def pre_request(worker, req):\n\
                  \x20   req.headers.append(('SCRIPT_NAME', '/shop'))\n";
    let mut server = Plan::app("echo").config(config).start();
    let environ = server.get("/shop/environ").json();
    assert_eq!((environ["SCRIPT_NAME"].text(), environ["PATH_INFO"].text()), ("/shop", "/environ"));
    assert_eq!(server.get("/elsewhere").status, 500);
    server.wait_for_log("does not start with SCRIPT_NAME '/shop'");
    server.allow("");
    server.finish();
}

#[test]
fn post_request_takes_two_to_four_arguments_and_sees_failures() {
    let cases = [
        ("worker, req", "req.path"),
        ("worker, req, environ", "environ['PATH_INFO']"),
        ("worker, req, environ, resp", "req.path + ' ' + str(resp.status_code)"),
    ];
    for (parameters, seen) in cases {
        let app = "def application(environ, start_response):\n    raise KeyError('lost')\n";
        let config = format!(
            "def post_request({parameters}):\n    worker.log.info('saw %s', {seen})\n    raise OSError('later')\n"
        );
        let mut server = Plan::app("app").in_own_folder().file("app.py", app).config(&config).start();
        assert_eq!(server.get("/here").status, 500);
        server.wait_for_log("saw /here");
        server.wait_for_log("Exception in post_request hook");
        server.wait_for_log("OSError: later");
        assert_eq!(server.get("/again").status, 500, "the worker goes on");
        server.allow("");
        server.finish();
    }
}

#[test]
fn a_hook_may_ask_for_another_worker() {
    let config = "def post_request(worker, req):\n    worker.alive = req.path != '/enough'\n";
    let server = Plan::app("process").config(config).start();
    let before = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.get("/enough").status, 200);
    wait_until("another worker", || !server.workers().contains(&before) && server.has_serving(1));
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

#[test]
fn a_hook_that_cannot_be_called_is_told_at_once() {
    let cases = [
        ("def pre_fork(server): pass", "pre_fork"),
        ("def post_request(worker): pass", "post_request"),
        ("def on_exit(*args): pass", "on_exit"),
        ("when_ready = 5", "when_ready"),
        ("when_ready = 'no.such.module'", "when_ready"),
    ];
    for (line, name) in cases {
        let finished = Plan::app("echo").config(&format!("{line}\n")).run();
        assert_eq!(finished.code, Some(1), "{line}: {finished:?}");
        assert!(finished.stderr.starts_with("\nError: ") && finished.stderr.contains(name), "{line}: {finished:?}");
        assert!(!finished.stderr.contains("Traceback"), "{line}: {finished:?}");
    }
}

#[test]
fn a_data_file_names_hooks_by_their_place() {
    let module = "def ready(server): server.log.info('named by a string')\n";
    let app = "from echo import application\n";
    let plan = Plan::app("app").in_own_folder().file("app.py", app).file("my_hooks.py", module);
    let plan =
        plan.file("conf.toml", "when_ready = 'my_hooks.ready'\n").env("PYTHONPATH", apps().display().to_string());
    let path = plan.path("conf.toml").display().to_string();
    let server = plan.args(["--config", &path]).start();
    server.wait_for_log("named by a string");
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

/// What hooks of gunicorn's find on `server` and `worker`; each says what it saw in one line of the
/// log.
const ATTRIBUTES: &str = r#"
import os, signal, socket, sys

def sockets_of(listeners):
    return [(str(one), one.sock.getsockname()[1] == one.getsockname()[1], one.fileno() == one.sock.fileno(),
             one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) for one in listeners]

def on_starting(server):
    server.log.info('starting %s %s %s', server.pidfile.fname, server.pidfile.pid == os.getpid(), server.app.app_uri)
    server.log.info('context %s', [server.START_CTX[0] == sys.executable, server.START_CTX['args'][0] == sys.executable,
                                   server.START_CTX['cwd'] == os.getcwd()])
    server.log.info('names %s %s', server.SIG_NAMES[signal.SIGALRM], server.app.cfg is server.cfg)

def when_ready(server):
    # A copy that goes does not close the server's own socket.
    for one in server.LISTENERS:
        one.sock.close()
    server.log.info('listeners %s', sockets_of(server.LISTENERS))
    server.log.info('app %s', server.app.wsgi() is server.app.wsgi())

def post_fork(server, worker):
    worker.log.info('forked %s %s', worker.max_requests == sys.maxsize, worker.app is server.app)

def post_worker_init(worker):
    worker.log.info('init booted=%s same=%s', worker.booted, worker.wsgi is worker.app.wsgi())
    worker.log.info('sockets %s', sockets_of(worker.sockets))

def post_request(worker, req, environ, resp):
    worker.log.info('%s %s length=%s chunked=%s same=%s booted=%s', req.path, resp.status, resp.response_length,
                    resp.is_chunked(), resp.req is req, worker.booted)

def worker_exit(server, worker):
    worker.log.info('exit nr=%s sockets=%s', worker.nr, [one.fileno() for one in worker.sockets])
"#;

const RAISING: &str = "def application(environ, start_response):
    if environ['PATH_INFO'] == '/raise':
        raise ValueError('no')
    if environ['PATH_INFO'] == '/late':
        start_response('200 OK', [('Content-Length', '7')])
        raise ValueError('no')
    length = [] if environ['PATH_INFO'] == '/chunked' else [('Content-Length', '5')]
    start_response('200 OK', length)
    return [b'hello']
";

#[test]
fn server_and_worker_have_the_attributes_that_hooks_use() {
    for preload in [&["--workers", "1"][..], &["--preload"]] {
        let plan = Plan::app("app").in_own_folder().file("app.py", RAISING).file("conf.py", ATTRIBUTES);
        let (config, pid_file) = (plan.path("conf.py").display().to_string(), plan.path("pid").display().to_string());
        let plan = preload.iter().fold(plan, |plan, argument| plan.args([*argument]));
        let mut server = plan.args(["--config", &config, "--pid", &pid_file]).start();
        server.wait_for_workers(1);
        let socket = format!("[('http://127.0.0.1:{}', True, True, 1)]", server.address.port());
        server.wait_for_log(&format!("starting {pid_file} True app\n"));
        server.wait_for_log("context [True, True, True]");
        server.wait_for_log("names alrm True");
        server.wait_for_log(&format!("listeners {socket}"));
        server.wait_for_log("app True");
        server.wait_for_log("forked True True");
        server.wait_for_log("init booted=False same=True");
        server.wait_for_log(&format!("sockets {socket}"));
        for (path, status, said) in [
            ("/", 200, "/ 200 OK length=5 chunked=False same=True booted=True"),
            ("/raise", 500, "/raise 500 Internal Server Error length=None chunked=False same=True"),
            ("/chunked", 200, "/chunked 200 OK length=None chunked=True same=True"),
            ("/late", 500, "/late 500 Internal Server Error length=None chunked=False same=True"),
        ] {
            assert_eq!(server.get(path).status, status, "{path}");
            server.wait_for_log(said);
        }
        server.signal(SIGTERM);
        server.wait_for_log("exit nr=4 sockets=[-1]");
        assert_eq!(server.wait_for_exit().code(), Some(0));
        server.expect_gone();
    }
}

#[test]
fn requests_are_counted_for_worker_exit_without_request_hooks() {
    let config = "def worker_exit(server, worker): worker.log.info('exit nr=%s', worker.nr)\n";
    let mut server = Plan::app("echo").config(config).start();
    for _ in 0..3 {
        assert_eq!(server.get("/").status, 200);
    }
    server.signal(SIGTERM);
    server.wait_for_log("exit nr=3");
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
}

#[test]
fn hooks_and_their_threads_set_the_number_of_workers() {
    let config = "import os, pathlib, threading, time\n\
                  def on_starting(server): server.num_workers = 2\n\
                  def nworkers_changed(server, new, old): server.log.info('changed %s %s', old, new)\n\
                  def scale(server):\n\
                  \x20   gate = pathlib.Path(os.environ['GATE']) / 'more'\n\
                  \x20   while not gate.exists(): time.sleep(0.01)\n\
                  \x20   try: server.num_workers = 'many'\n\
                  \x20   except TypeError as error: server.log.info('%s', error)\n\
                  \x20   server.num_workers += 1\n\
                  def when_ready(server): threading.Thread(target=scale, args=(server,), daemon=True).start()\n\
                  def child_exit(server, worker):\n\
                  \x20   if server.num_workers == 3: server.num_workers = 1\n";
    let server = Plan::app("process").config(config).start();
    server.wait_for_workers(2);
    server.wait_for_log("changed 1 2");
    server.write("gate/more", "");
    server.wait_for_log("num_workers is a number of workers, not 'many'");
    server.wait_for_workers(3);
    server.wait_for_log("changed 2 3");
    send(server.workers()[0], SIGTERM);
    server.wait_for_log("changed 3 1");
    server.wait_for_workers(1);
    server.finish();
}

#[test]
fn a_setting_that_a_hook_sets_is_told_to_come_too_late() {
    let config = "def on_starting(server):\n    server.cfg.set('threads', 128)\n    assert server.cfg.threads == 128\n";
    let mut server = Plan::app("process").config(config).start();
    server.wait_for_log("'threads' was set by cfg.set() after the server had read its settings.");
    assert_eq!(server.get("/").status, 200);
    server.allow("was set by cfg.set()");
    server.finish();
}

/// In gunicorn these are plain attributes of the worker.
#[test]
fn hooks_may_set_what_a_worker_of_gunicorns_has() {
    let names = "['worker_connections', 'max_keepalived', 'nr_conns', 'futures', 'tpool']";
    let config = format!(
        "def post_fork(server, worker):\n\
         \x20   for name in {names}: setattr(worker, name, 7)\n\
         def post_worker_init(worker): worker.log.info('kept %s', [getattr(worker, name) for name in {names}])\n"
    );
    for class in ["gthread", "sync"] {
        let server = Plan::app("echo").args(["--worker-class", class, "--threads", "2"]).config(&config).start();
        server.wait_for_log("kept [7, 7, 7, 7, 7]");
        server.finish();
    }
}
