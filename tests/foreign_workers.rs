//! Worker classes of other packages, which serve by themselves in the processes that the server
//! forks: they run unchanged, and are supervised as any other worker.

use std::time::Duration;

use nix::sys::signal::Signal::{SIGABRT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1};

use crate::util::client::{Address, Client};
use crate::util::json::Json;
use crate::util::load::Load;
use crate::util::metrics::{measured, read};
use crate::util::server::{Plan, Server, send};
use crate::util::tls::{Authority, Key};
use crate::util::{process, variable_for_classes, wait_at_most, wait_until};

/// A class, and an application that it runs.
type Class = (&'static str, &'static str);

const UVICORN: Class = ("uvicorn.workers.UvicornWorker", "classes_asgi");
const UVICORN_H11: Class = ("uvicorn_worker.UvicornH11Worker", "classes_asgi");
const AIOHTTP: Class = ("aiohttp.GunicornWebWorker", "classes_aiohttp");
const PYWSGI: Class = ("gevent_pywsgi", "classes_wsgi");
const WEBSOCKET: Class = ("geventwebsocket.gunicorn.workers.GeventWebSocketWorker", "classes_wsgi");
const TORNADO: Class = ("tornado", "classes_tornado");
const EACH: [Class; 6] = [UVICORN, UVICORN_H11, AIOHTTP, PYWSGI, WEBSOCKET, TORNADO];

/// Each hook of a worker leaves a line in the log.
const HOOKS: &str = "def post_fork(server, worker): worker.log.info('hook post_fork %s', type(worker).__name__)\n\
                     def post_worker_init(worker): worker.log.info('hook post_worker_init')\n\
                     def worker_int(worker): worker.log.info('hook worker_int')\n\
                     def worker_abort(worker): worker.log.info('hook worker_abort')\n\
                     def worker_exit(server, worker): worker.log.info('hook worker_exit %s', worker.pid)\n";

fn plan((class, app): Class) -> Plan {
    under_classes(app).args(["--worker-class", class])
}

/// An application in the virtualenv of the classes.
fn under_classes(app: &str) -> Plan {
    let (name, value) = variable_for_classes();
    Plan::app(app).env(name, value)
}

/// `folder` on the path of Python, in front of what is there already.
fn with_classes(folder: String) -> String {
    match variable_for_classes() {
        ("PYTHONPATH", classes) => format!("{folder}:{classes}"),
        _ => folder,
    }
}

fn with_hooks(class: Class) -> Plan {
    plan(class).config(HOOKS)
}

/// A request that stays inside the application until the test releases it.
fn enter(server: &Server) -> crate::util::client::Client {
    let (before, mut client) = (server.entered(), server.connect());
    client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_until("the request inside", || server.entered() > before);
    client
}

/// Whether another worker serves in place of this one.
fn is_replaced(server: &Server, worker: i32) -> bool {
    let workers = server.workers();
    workers.len() == 1 && workers[0] != worker && server.has_serving(1)
}

#[test]
fn each_class_answers_reopens_its_logs_and_finishes_what_has_begun() {
    for class in EACH {
        let server = with_hooks(class).start();
        let worker = server.wait_for_workers(1)[0];
        assert_eq!(server.get("/?a").text(), format!("v{worker} a 0"), "{}", class.0);
        let name = class.0.rsplit('.').next().expect("a name").replace("gevent_pywsgi", "GeventPyWSGIWorker");
        server.wait_for_log(&format!("hook post_fork {}", name.replace("tornado", "TornadoWorker")));
        server.wait_for_log("hook post_worker_init");
        send(worker, SIGUSR1);
        let mut client = enter(&server);
        server.signal(SIGTERM);
        server.wait_for_log("Handling signal: term");
        server.release();
        assert_eq!(client.read().text(), format!("v{worker}  0"), "{}", class.0);
        server.finish();
    }
}

#[test]
fn pywsgi_has_gunicorns_access_lines_and_ends_at_once_where_it_is_idle() {
    for connections in ["1000", "0"] {
        let plan = plan(PYWSGI);
        let log = plan.path("access.log").display().to_string();
        let plan = plan.args(["--access-logfile", &log, "--access-logformat", "%(s)s %({x-probe}i)s|"]);
        let mut server = plan.args(["--worker-connections", connections]).start();
        let mut client = server.connect();
        assert_eq!(client.request("GET", "/", &["X-Probe: here"], b"").status, 200);
        let lines = || std::fs::read_to_string(server.path("access.log")).unwrap_or_default();
        wait_until("a line", || lines() == "200 here|\n");
        drop(client);
        server.signal(SIGTERM);
        let (status, took) = server.wait_for_exit_within(Duration::from_secs(20));
        assert_eq!(status.code(), Some(0), "{connections}: {}", server.log());
        assert!(took < Duration::from_secs(8), "{connections}: {took:?}");
        server.expect_gone();
    }
}

#[test]
fn each_class_answers_for_metrics() {
    for class in EACH {
        let (server, address) = measured(plan(class));
        server.wait_for_workers(1);
        let _waits = enter(&server);
        let found = read(&address);
        assert_eq!(found["monoceros_workers{state=\"ready\"}"], 1.0, "{}: {found:?}", class.0);
        server.release();
        server.finish();
    }
}

#[test]
fn tornado_runs_what_an_app_schedules_while_it_is_imported() {
    let server = plan(TORNADO).start();
    assert_eq!(server.get("/scheduled").text(), "ran");
    server.finish();
}

/// As under gunicorn, whose own classes ask the hook.
/// A WSGI application that fails in several ways.
const FAILING: &str = "def application(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/raise':
        raise ValueError('of the app')
    if path == '/nostart':
        return []
    if path == '/status':
        start_response('200', [])
        return []
    start_response('200 OK', [('X-Bad', 'a\\r\\nb')] if path == '/header' else [])
    return broken() if path == '/broken' else [b'fine']

def broken():
    yield b'a part'
    raise ValueError('in the middle')
";

#[test]
fn tornado_answers_for_a_wsgi_app_that_fails() {
    let own = format!("{FAILING}\nimport tornado.wsgi\nowned = tornado.wsgi.WSGIContainer(application)\n");
    for (app, code) in [("app", FAILING), ("app:owned", &own)] {
        let (name, value) = variable_for_classes();
        let plan = Plan::app(app).env(name, value).in_own_folder().file("app.py", code);
        let mut server = plan.args(["--worker-class", "tornado"]).config(HOOKS).start();
        server.allow("");
        for path in ["/raise", "/nostart", "/status", "/header", "/broken"] {
            assert_eq!(server.get(path).status, 500, "{path}");
            server.wait_for_log(&format!("Error handling request GET {path}"));
        }
        server.wait_for_log("ValueError: of the app");
        let mut client = server.connect();
        let refused = client.request("HEAD", "/raise", &[], b"");
        assert_eq!((refused.status, refused.body.len()), (500, 0));
        assert_eq!(server.get("/").text(), "fine");
        expect_prompt_stop(server, Duration::from_secs(8));
    }
}

#[test]
fn a_stop_of_tornado_does_not_wait_for_clients_that_are_gone() {
    let server = with_hooks(TORNADO).start();
    drop(enter(&server));
    expect_prompt_stop(server, Duration::from_secs(8));
}

#[test]
fn late_requests_leave_a_class_time_to_end_before_it_is_killed() {
    for class in [TORNADO, PYWSGI] {
        let mut server = with_hooks(class).args(["--graceful-timeout", "2"]).start();
        server.allow("Worker graceful timeout");
        let _late = enter(&server);
        expect_prompt_stop(server, Duration::from_secs(8));
    }
}

/// The worker ends by itself, within that time.
fn expect_prompt_stop(mut server: Server, most: Duration) {
    server.signal(SIGTERM);
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(took < most, "{took:?}: {}", server.log());
    assert!(server.log().contains("hook worker_exit"), "{}", server.log());
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn pywsgi_and_tornado_have_the_context_of_the_ssl_context_hook() {
    let hook = "import ssl\ndef ssl_context(conf, default_ssl_context_factory):\n    \
                context = default_ssl_context_factory()\n    context.load_verify_locations('clients.pem')\n    \
                context.verify_mode = ssl.CERT_REQUIRED\n    return context\n";
    let (root, clients) = (Authority::root("Test root"), Authority::root("Client root"));
    for class in [PYWSGI, TORNADO] {
        let plan = plan(class).tls(&root.server(Key::Ecdsa, &["localhost"]));
        let authorities = plan.path("clients.pem").display().to_string();
        let plan = plan.file("clients.pem", &clients.pem()).file("conf.py", &hook.replace("clients.pem", &authorities));
        let path = plan.path("conf.py").display().to_string();
        let mut server = plan.args(["--config", &path]).start();
        let port = server.address.port();
        let known = Address::Tls(port, root.trust_as(&clients.client("alice", 2090)));
        assert!(Client::connect(&known).get("/").text().starts_with('v'), "{}", class.0);
        let mut stranger = Client::connect(&Address::Tls(port, root.trust()));
        let _ = stranger.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(stranger.read_for("GET").is_err(), "{}", class.0);
        server.allow("");
        server.finish();
    }
}

/// An idle client under TLS sees its connection end, and no page in the clear.
#[test]
fn pywsgi_ends_idle_clients_quietly_under_tls() {
    let root = Authority::root("Test root");
    let mut server = plan(PYWSGI).tls(&root.server(Key::Ecdsa, &["localhost"])).start();
    let mut idle = Client::connect(&Address::Tls(server.address.port(), root.trust()));
    assert_eq!(idle.get("/").status, 200);
    server.signal(SIGTERM);
    assert!(idle.read_for("GET").is_err());
    assert_eq!(server.wait_for_exit_within(Duration::from_secs(20)).0.code(), Some(0));
    server.expect_clean_log();
    server.expect_gone();
}

#[test]
fn pywsgi_has_gunicorns_environ() {
    let server = plan(PYWSGI).error_log("error.log").start();
    assert_eq!(server.get("/file").text(), "a file");
    wait_until("the app's line", || server.log().contains("from the app"));
    server.finish();
}

#[test]
fn each_class_ends_at_once_when_it_is_told_to() {
    for class in EACH {
        let mut server = with_hooks(class).start();
        let worker = server.wait_for_workers(1)[0];
        let _waits = enter(&server);
        server.signal(if class == UVICORN { SIGINT } else { SIGQUIT });
        // aiohttp finishes its requests all the same, until the master's patience is at an end.
        if class == AIOHTTP {
            server.release();
        }
        let (status, took) = server.wait_for_exit_within(Duration::from_secs(20));
        assert_eq!(status.code(), Some(0), "{}", class.0);
        assert!(took < Duration::from_secs(8), "{}: {took:?}", class.0);
        server.wait_for_log("hook worker_int");
        server.wait_for_log(&format!("hook worker_exit {worker}"));
        server.expect_gone();
    }
}

#[test]
fn each_class_is_replaced_when_it_is_aborted() {
    for class in EACH {
        let mut server = with_hooks(class).start();
        let worker = server.wait_for_workers(1)[0];
        send(worker, SIGABRT);
        server.wait_for_log("hook worker_abort");
        server.wait_for_log(&format!("Worker (pid:{worker}) exited with code 1."));
        wait_until("another worker", || is_replaced(&server, worker));
        assert_eq!(server.get("/").status, 200);
        // The stacks, and what the class or asyncio makes of the end.
        for text in ["exited with code 1", "Traceback", "[ERROR]"] {
            server.allow(text);
        }
        server.finish();
    }
}

#[test]
fn no_request_fails_while_workers_of_a_class_are_replaced() {
    for class in [UVICORN, AIOHTTP, PYWSGI, TORNADO] {
        let mut server = plan(class).args(["--workers", "2"]).start();
        // gevent's server says how a client has left.
        server.allow("ConnectionResetError");
        let load = Load::during(&server.address, 1, |load| {
            let by_reload = || server.signal(SIGHUP);
            let in_place = || server.signal_rtmin();
            for replace in [&by_reload as &dyn Fn(), &in_place] {
                let (old, before) = (server.wait_for_workers(2), load.ok());
                wait_until("some load", || load.ok() > before + 30);
                replace();
                wait_until("other workers", || {
                    server.has_serving(2) && !server.workers().iter().any(|pid| old.contains(pid))
                });
            }
            let before = load.ok();
            wait_until("some load", || load.ok() > before + 30);
        });
        load.expect_no_failure();
        server.finish();
    }
}

#[test]
fn a_class_whose_app_cannot_be_loaded_ends_the_start() {
    let cases = [
        ("raise ValueError('lost')\n", 3, "Exception in worker process"),
        ("other = 1\n", 4, "Failed to find attribute 'application' in 'app'."),
    ];
    for (app, status, text) in cases {
        let plan = under_classes("app").in_own_folder().file("app.py", app);
        let mut server = plan.args(["--worker-class", UVICORN.0]).launch();
        assert_eq!(server.wait_for_exit().code(), Some(status), "{}", server.log());
        server.wait_for_log(text);
        server.expect_gone();
    }
}

#[test]
fn a_class_that_cannot_be_found_or_run_is_a_sentence() {
    let cases = [
        ("nowhere.at.All", "class uri 'nowhere.at.All' invalid or not found: ModuleNotFoundError"),
        ("collections.OrderedDict", "'collections.OrderedDict' is not derived from gunicorn.workers.base.Worker"),
        ("nobodys", "class uri 'nobodys' invalid or not found"),
    ];
    for (class, sentence) in cases {
        let mut server = Plan::app("echo").args(["--worker-class", class]).launch();
        assert_eq!(server.wait_for_exit().code(), Some(3), "{class}");
        server.wait_for_log(sentence);
        let checked = Plan::app("echo").args(["--worker-class", class, "--check-config"]).run();
        assert_eq!(checked.code, Some(1), "{class}");
        assert!(checked.stderr.contains(sentence), "{}", checked.stderr);
    }
}

#[test]
fn a_class_ends_after_so_many_requests_and_is_replaced() {
    // aiohttp ends after one request more. No client comes while a worker ends: uvicorn may drop
    // it.
    for (class, requests) in [(UVICORN, 3), (AIOHTTP, 4), (TORNADO, 3)] {
        let mut server = plan(class).args(["--max-requests", "3"]).start();
        let worker = server.wait_for_workers(1)[0];
        // uvicorn warns of it.
        server.allow("Maximum request limit");
        for _ in 0..requests {
            assert_eq!(server.get("/").status, 200, "{}", class.0);
        }
        wait_until("another worker", || is_replaced(&server, worker));
        assert_eq!(server.get("/").status, 200, "{}", class.0);
        server.finish();
    }
}

#[test]
fn a_master_that_is_killed_leaves_no_worker_of_a_class() {
    for class in [UVICORN, AIOHTTP, PYWSGI, TORNADO] {
        let mut server = plan(class).start();
        let worker = server.wait_for_workers(1)[0];
        server.signal(SIGKILL);
        server.wait_for_exit();
        wait_at_most(Duration::from_secs(5), "the worker's end", || !process::is_alive(worker));
    }
}

#[test]
fn fastapi_runs_under_uvicorns_class_with_two_workers() {
    let server = plan(("uvicorn.workers.UvicornWorker", "classes_fastapi:app")).args(["--workers", "2"]).start();
    // FastAPI takes seconds to load on a busy machine.
    wait_at_most(Duration::from_secs(60), "two workers", || server.has_serving(2));
    let workers = server.workers();
    let answer = server.get("/items/7?q=x").json();
    assert_eq!((answer["number"].number(), answer["q"].text()), (7.0, "x"));
    assert!(workers.contains(&(answer["pid"].number() as i32)));
    assert_eq!(server.get("/items/seven").status, 422);
    assert_eq!(server.get("/blocking").text(), "\"from a thread\"");
    let streamed = server.get("/stream");
    assert_eq!((streamed.is_chunked(), streamed.text().as_str()), (true, "part 0\npart 1\npart 2\n"));
    expect_echo(&server);
    assert_eq!(server.gate_files("started-").len(), 2, "each worker has a lifespan");
    let folder = server.path("gate");
    server.finish_keeping(move || {
        let stopped = std::fs::read_dir(&folder).expect("a folder").flatten();
        let stopped = stopped.filter(|entry| entry.file_name().to_string_lossy().starts_with("stopped-"));
        assert_eq!(stopped.count(), 2, "each lifespan has ended");
    });
}

/// One message over a WebSocket (RFC 6455), and its answer.
fn expect_echo(server: &Server) {
    let mut client = server.connect();
    client.send(
        "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    let head = client.read_until(b"\r\n\r\n");
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    // A text frame of two bytes under a mask of zeros.
    client.send(b"\x81\x82\0\0\0\0hi");
    assert_eq!(client.read_exactly(10), b"\x81\x08heard hi");
}

#[test]
fn a_class_may_be_given_in_every_form() {
    let class = "from uvicorn_worker import UvicornWorker\n\
                 class Mine(UvicornWorker):\n    CONFIG_KWARGS = {'lifespan': 'off', 'loop': 'asyncio'}\n";
    let in_function = "def worker_class():\n\
                       \x20   from uvicorn_worker import UvicornWorker\n\
                       \x20   class Local(UvicornWorker): CONFIG_KWARGS = {'loop': 'asyncio'}\n\
                       \x20   return Local\n";
    let cases = [
        ("", "mine.Mine", "mine.Mine"),
        (in_function, "", "Local"),
        ("from mine import Mine as worker_class\n", "", "mine.Mine"),
        ("worker_class = 'egg:minework#own'\n", "", "egg:minework#own"),
        ("", "own", "own"),
    ];
    for (config, flag, shown) in cases {
        let plan = under_classes("classes_asgi").file("mine.py", class).file("conf.py", config);
        let info = plan.path("minework-1.0.dist-info");
        std::fs::create_dir(&info).expect("a folder");
        std::fs::write(info.join("METADATA"), "Metadata-Version: 2.1\nName: minework\nVersion: 1.0\n").expect("a file");
        std::fs::write(info.join("entry_points.txt"), "[gunicorn.workers]\nown = mine:Mine\n").expect("a file");
        let (folder, path) = (plan.path("").display().to_string(), plan.path("conf.py").display().to_string());
        let plan = plan.args(["--config", &path]).env("PYTHONPATH", with_classes(folder));
        let plan = if flag.is_empty() { plan } else { plan.args(["--worker-class", flag]) };
        let server = plan.start();
        server.wait_for_log(&format!("Using worker: {shown}"));
        let worker = server.wait_for_workers(1)[0];
        assert_eq!(server.get("/").text(), format!("v{worker}  0"), "{shown}");
        server.finish();
    }
}

/// A class that answers one line, with what it knows.
const TELLER: &str = "import json, os, select, socket\n\
     from gunicorn.workers.base import Worker\n\
     class Teller(Worker):\n\
     \x20   def run(self):\n\
     \x20       while self.alive and self.ppid == os.getppid():\n\
     \x20           self.notify()\n\
     \x20           ready = select.select(self.wait_fds, [], [], 0.2)[0]\n\
     \x20           for listener in self.sockets:\n\
     \x20               if listener in ready: self.answer(listener)\n\
     \x20   def answer(self, listener):\n\
     \x20       try: client, _ = listener.accept()\n\
     \x20       except OSError: return\n\
     \x20       path = client.recv(4096).split()[1]\n\
     \x20       while path == b'/hang': pass\n\
     \x20       self.nr += 1\n\
     \x20       said = json.dumps({'listener': str(listener), 'address': listener.cfg_addr[0],\n\
     \x20           'family': listener.FAMILY == socket.AF_INET, 'sock': listener.sock.fileno() == listener.fileno(),\n\
     \x20           'keepalive': self.cfg.keepalive, 'timeout': self.timeout, 'max': self.max_requests,\n\
     \x20           'beat': self.tmp.last_update() > 0, 'booted': self.booted, 'app': self.wsgi is self.app.callable,\n\
     \x20           'age': self.age, 'text': str(self)}).encode()\n\
     \x20       client.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(said), said))\n\
     \x20       client.close()\n";

fn teller() -> Plan {
    let plan = Plan::app("echo").file("teller.py", TELLER);
    let folder = plan.path("").display().to_string();
    plan.args(["--pythonpath", &folder, "--worker-class", "teller.Teller"])
}

#[test]
fn a_class_gets_what_gunicorn_would_give_it() {
    let server = teller().args(["--max-requests", "50", "--timeout", "20"]).start();
    let worker = server.wait_for_workers(1)[0];
    let told = server.get("/").json();
    assert_eq!(told["listener"].text(), format!("http://127.0.0.1:{}", server.address.port()));
    assert_eq!((told["address"].text(), told["keepalive"].number()), ("127.0.0.1", 2.0));
    assert_eq!((told["timeout"].number(), told["max"].number(), told["age"].number()), (10.0, 50.0, 1.0));
    assert_eq!(told["text"].text(), format!("<Worker {worker}>"));
    for name in ["family", "sock", "beat", "booted", "app"] {
        assert_eq!(told[name], Json::parse("true"), "{name}");
    }
    server.finish();
}

#[test]
fn a_class_that_falls_silent_is_aborted_and_its_stack_is_logged() {
    let mut server = teller().args(["--timeout", "1"]).start();
    let worker = server.wait_for_workers(1)[0];
    let mut client = server.connect();
    client.send("GET /hang HTTP/1.1\r\n\r\n");
    server.wait_for_log(&format!("WORKER TIMEOUT (pid:{worker})"));
    server.wait_for_log("in answer");
    wait_until("another worker", || is_replaced(&server, worker));
    for text in ["WORKER TIMEOUT", "exited with code 1"] {
        server.allow(text);
    }
    server.finish();
}

#[test]
fn a_class_that_drops_the_exit_of_its_start_ends_when_it_has_started() {
    let deaf = "class Deaf(Teller):\n\
         \x20   def __init__(self, *arguments):\n\
         \x20       super().__init__(*arguments)\n\
         \x20       import pathlib, time\n\
         \x20       pathlib.Path(os.environ['GATE'], 'entered').touch()\n\
         \x20       try: time.sleep(60)\n\
         \x20       except SystemExit: pass\n";
    let plan = teller().file("teller.py", &format!("{TELLER}{deaf}")).args(["--worker-class", "teller.Deaf"]);
    let mut server = plan.launch();
    wait_until("the class", || !server.gate_files("entered").is_empty());
    server.signal(SIGTERM);
    let (status, _) = server.wait_for_exit_within(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(!server.log().contains("SIGKILL"), "{}", server.log());
}

#[test]
fn a_class_is_replaced_when_the_code_has_changed() {
    let app = |word: &str| {
        format!(
            "async def application(scope, receive, send):\n\
             \x20   await send({{'type': 'http.response.start', 'status': 200, 'headers': []}})\n\
             \x20   await send({{'type': 'http.response.body', 'body': b'{word}'}})\n"
        )
    };
    let plan = under_classes("app").in_own_folder().file("app.py", &app("before"));
    let mut server = plan.args(["--worker-class", UVICORN.0, "--reload"]).start();
    server.allow("Reloader is on");
    assert_eq!(server.get("/").text(), "before");
    // A file counts as changed only once it was seen: until then the edit is made again.
    wait_until("the reload", || {
        server.write("app.py", &app("after"));
        server.log().contains("Worker reloading: ")
    });
    wait_until("the new code", || server.get("/").text() == "after");
    server.finish();
}

#[test]
fn settings_without_effect_are_named_once() {
    let mut server = plan(UVICORN).args(["--threads", "4", "--health-path", "/up"]).start();
    server.wait_for_log("these settings have no effect under worker_class \"uvicorn.workers.UvicornWorker\"");
    server.wait_for_log("threads, health_path");
    server.wait_for_workers(1);
    server.allow("have no effect");
    server.finish();
}

#[test]
fn an_asgi_app_is_refused_by_a_worker_of_wsgi_with_the_class_to_take() {
    for flags in [["--threads", "1"], ["--threads", "2"]] {
        let mut server = Plan::app("classes_asgi").args(flags).launch();
        assert_eq!(server.wait_for_exit().code(), Some(4));
        server.wait_for_log("take '-k uvicorn.workers.UvicornWorker' (pip install uvicorn)");
        server.expect_gone();
    }
}

#[test]
fn an_asgi_app_is_known_in_every_shape_that_tells_of_itself() {
    let app = "import functools\n\
        async def plain(scope, receive, send): ...\n\
        class Method:\n\
        \x20   async def __call__(self, scope, receive, send): ...\n\
        class Slot:\n\
        \x20   __slots__ = ('__call__',)\n\
        \x20   def __init__(self): self.__call__ = plain\n\
        bound, method, slot = Method().__call__, Method(), Slot()\n\
        partial = functools.partial(functools.partial(plain), send=None)\n";
    for name in ["plain", "bound", "method", "slot", "partial"] {
        let plan = Plan::app(&format!("app:{name}")).in_own_folder().file("app.py", app);
        let mut server = plan.launch();
        assert_eq!(server.wait_for_exit().code(), Some(4), "{name}");
        server.wait_for_log("take '-k uvicorn.workers.UvicornWorker' (pip install uvicorn)");
        server.expect_gone();
    }
}

/// What classes derived from gunicorn's own override, and what of it shows.
const DERIVED: &str = "import os, signal\n\
     from gunicorn.workers.sync import SyncWorker\n\
     from gunicorn.workers.gthread import ThreadWorker\n\
     class Said:\n\
     \x20   def __init__(self, *arguments):\n\
     \x20       super().__init__(*arguments)\n\
     \x20       self.said = ['made']\n\
     \x20   def init_process(self):\n\
     \x20       self.said.append('init')\n\
     \x20       super().init_process()\n\
     \x20   def load_wsgi(self):\n\
     \x20       super().load_wsgi()\n\
     \x20       self.said.append('loaded')\n\
     \x20   def run(self):\n\
     \x20       self.said.append('run')\n\
     \x20       app, self.plain = self.answer, self.wsgi\n\
     \x20       self.wsgi = app\n\
     \x20       try: super().run()\n\
     \x20       finally: self.log.info('has run, served %d', self.nr)\n\
     \x20   def answer(self, environ, start_response):\n\
     \x20       environ['said'] = self.said\n\
     \x20       numbers = [self.nr_conns, len(self.futures), self.tpool._max_workers] if self.ALIAS == 'gthread' else []\n\
     \x20       start_response('200 OK', [('Content-Type', 'text/plain')])\n\
     \x20       return [' '.join(map(str, self.said + numbers)).encode()]\n\
     \x20   def handle_quit(self, sig, frame):\n\
     \x20       self.log.info('told to quit')\n\
     \x20       super().handle_quit(sig, frame)\n\
     \x20   def handle_exit(self, sig, frame):\n\
     \x20       self.log.info('told to exit')\n\
     \x20       super().handle_exit(sig, frame)\n\
     \x20   def handle_usr1(self, sig, frame):\n\
     \x20       self.log.info('told to reopen')\n\
     \x20       super().handle_usr1(sig, frame)\n\
     \x20   def handle_abort(self, sig, frame):\n\
     \x20       self.log.info('told to abort')\n\
     \x20       super().handle_abort(sig, frame)\n\
     class Sync(Said, SyncWorker): pass\n\
     class Thread(Said, ThreadWorker): pass\n";

fn derived(class: &str) -> Plan {
    let plan = Plan::app("echo").file("derived.py", DERIVED).file("conf.py", HOOKS);
    let (folder, path) = (plan.path("").display().to_string(), plan.path("conf.py").display().to_string());
    plan.args(["--pythonpath", &folder, "--config", &path, "--worker-class", class])
}

#[test]
fn a_class_derived_from_sync_is_called_at_gunicorns_moments() {
    let mut server = derived("derived.Sync").start();
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").text(), "made init loaded run");
    server.wait_for_log("hook post_fork Sync");
    server.wait_for_log("hook post_worker_init");
    send(worker, SIGUSR1);
    server.wait_for_log("told to reopen");
    send(worker, SIGABRT);
    server.wait_for_log("told to abort");
    server.wait_for_log("hook worker_abort");
    server.wait_for_log(&format!("hook worker_exit {worker}"));
    wait_until("another worker", || is_replaced(&server, worker));
    let second = server.workers()[0];
    send(second, SIGQUIT);
    server.wait_for_log("told to quit");
    server.wait_for_log("hook worker_int");
    wait_until("another worker", || is_replaced(&server, second));
    assert_eq!(server.get("/").text(), "made init loaded run");
    for text in ["exited with code", "Traceback", "[ERROR]", "[CRITICAL]", "Workers end soon after"] {
        server.allow(text);
    }
    server.signal(SIGTERM);
    server.wait_for_log("told to exit");
    server.wait_for_log("has run, served 1");
    server.finish();
}

#[test]
fn a_class_derived_from_gthread_answers_what_metrics_ask() {
    let server = derived("derived.Thread").args(["--threads", "3"]).start();
    server.wait_for_workers(1);
    assert_eq!(server.get("/").text(), "made init loaded run 1 1 3");
    server.finish();
}
