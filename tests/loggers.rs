//! What applications and hooks do to the loggers `gunicorn.error` and `gunicorn.access` takes
//! effect, as under gunicorn.

use nix::sys::signal::Signal::{SIGHUP, SIGUSR1};

use crate::util::json::Json;
use crate::util::server::{Plan, Server};
use crate::util::wait_until;

/// Answers everything but `/fail`; at `/late` it runs the code `late`.
fn app(early: &str, late: &str) -> String {
    let late = late.replace('\n', "\n        ");
    format!(
        "import logging\n{early}\n\
         def application(environ, start_response):\n\
         \x20   path = environ['PATH_INFO']\n\
         \x20   if path == '/late':\n        {late}\n\
         \x20   if path == '/fail':\n        1 / 0\n\
         \x20   start_response('200 OK', [])\n    return [b'ok']\n"
    )
}

fn plan(app: &str, config: &str) -> Plan {
    let plan = Plan::app("app").in_own_folder().file("app.py", app).file("conf.py", config);
    let path = plan.path("conf.py").display().to_string();
    plan.args(["--config", &path, "--access-logfile", "-", "--access-logformat", "%(m)s %(U)s %(s)s"])
}

/// Requests these, one after another, and returns the access log once it has the last.
#[track_caller]
fn access_log_after(server: &Server, targets: &[&str]) -> String {
    for target in targets {
        assert_eq!(server.get(target).status, 200);
    }
    let last = targets.last().expect("a request");
    wait_until(&format!("the last line in {:?}", server.stdout()), || {
        server.stdout().contains(&format!("GET {last} 200\n"))
    });
    server.stdout()
}

/// The recipe that silences health checks.
const FILTER: &str = "class NoHealth(logging.Filter):\n\
                      \x20   def filter(self, record):\n\
                      \x20       return record.args['U'] != '/health' and 'GET /ping' not in record.getMessage()\n\
                      logging.getLogger('gunicorn.access').addFilter(NoHealth())\n";

#[test]
fn a_filter_silences_health_checks_wherever_it_is_set() {
    let hook = format!("import logging\ndef post_fork(server, worker):\n    {}", FILTER.replace('\n', "\n    "));
    let cases = [
        (app(FILTER, "pass"), String::new()),
        (app("", "pass"), format!("import logging\n{FILTER}")),
        (app("", "pass"), hook),
    ];
    for (app, config) in cases {
        for threads in ["1", "4"] {
            let server = plan(&app, &config).args(["--threads", threads]).start();
            let log = access_log_after(&server, &["/one", "/health", "/ping", "/two"]);
            assert_eq!(log, "GET /one 200\nGET /two 200\n", "{config}");
            server.finish();
        }
    }
}

#[test]
fn a_filter_that_comes_late_takes_effect_from_the_next_request_on() {
    for threads in ["1", "4"] {
        let server = plan(&app("", FILTER), "").args(["--threads", threads]).start();
        let log = access_log_after(&server, &["/health", "/late", "/health", "/two"]);
        assert_eq!(log, "GET /health 200\nGET /late 200\nGET /two 200\n");
        let mut client = server.connect();
        client.send("GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
        assert_eq!(client.read().status, 400);
        wait_until("the refused request's line", || server.stdout().contains("GET  400\n"));
        let mut server = server;
        server.allow("Invalid request");
        server.finish();
    }
}

#[test]
fn handlers_levels_and_propagation_take_effect() {
    let file =
        "handler = logging.FileHandler('own')\nhandler.setFormatter(logging.Formatter('OWN %(name)s %(message)s'))\n";
    let both = "for log in map(logging.getLogger, ('gunicorn.error', 'gunicorn.access')):\n";
    let cases = [
        format!("{file}{both}    log.addHandler(handler)\n"),
        format!("{file}{both}    log.handlers.append(handler)\n"),
        format!("{file}{both}    log.handlers = [handler]\n"),
        format!("{file}logging.root.addHandler(handler)\n{both}    log.propagate = True\n"),
    ];
    for early in cases {
        let mut server = plan(&app(&early, "pass"), "").start();
        let worker = server.wait_for_workers(1)[0];
        access_to_own(&server, "/one");
        assert_eq!(server.get("/fail").status, 500);
        let own = wait_for_own(&server, "ZeroDivisionError");
        assert!(own.contains("OWN gunicorn.access GET /one 200\n"), "{own}");
        assert!(own.contains("OWN gunicorn.error Error handling request GET /fail\nTraceback"), "{own}");
        // A rotation is followed.
        std::fs::rename(server.path("own"), server.path("own.1")).expect("it is there");
        server.signal(SIGUSR1);
        wait_until("the new file", || {
            server.get("/rotated");
            std::fs::read_to_string(server.path("own")).unwrap_or_default().contains("GET /rotated")
        });
        server.allow("");
        let own = server.path("own");
        server.finish_keeping(|| {
            let own = std::fs::read_to_string(&own).expect("it is there");
            assert!(own.contains(&format!("OWN gunicorn.error Worker exiting (pid: {worker})")), "{own}");
        });
    }
}

fn access_to_own(server: &Server, target: &str) {
    assert_eq!(server.get(target).status, 200);
    wait_for_own(server, &format!("GET {target} 200"));
}

#[track_caller]
fn wait_for_own(server: &Server, text: &str) -> String {
    let read = || std::fs::read_to_string(server.path("own")).unwrap_or_default();
    wait_until(&format!("{text:?} in the app's file"), || read().contains(text));
    read()
}

#[test]
fn levels_switch_lines_on_and_off() {
    let error = |level: &str| format!("logging.getLogger('gunicorn.error').setLevel({level})\n");
    let server = plan(&app(&error("'DEBUG'"), "pass"), "").start();
    assert_eq!(server.get("/seen").status, 200);
    server.wait_for_log("[DEBUG] GET /seen");
    server.finish();

    let access = "logging.getLogger('gunicorn.access').setLevel('WARNING')\n";
    let loud = "logging.getLogger('gunicorn.access').setLevel('INFO')\n";
    let server = plan(&app(access, loud), "").start();
    let log = access_log_after(&server, &["/one", "/late"]);
    assert_eq!(log, "GET /late 200\n");
    server.finish();

    for quiet in [error("'CRITICAL'"), "logging.disable(logging.ERROR)\n".to_owned()] {
        let early = format!("{quiet}logging.getLogger('gunicorn.access').setLevel('INFO')\n");
        let server =
            plan(&app(&early, "logging.disable(0)\nlogging.getLogger('gunicorn.error').setLevel('INFO')"), "").start();
        assert_eq!(server.get("/fail").status, 500);
        assert_eq!(server.get("/late").status, 200);
        assert_eq!(server.get("/fail").status, 500);
        server.wait_for_log("Error handling request GET /fail");
        assert_eq!(server.log().matches("Error handling request").count(), 1, "{}", server.log());
        let mut server = server;
        server.allow("");
        server.finish();
    }
}

#[test]
fn dict_configs_of_an_app_take_effect() {
    let config = |loggers: &str, more: &str| {
        format!(
            "import logging.config\n\
             logging.config.dictConfig({{'version': 1, 'disable_existing_loggers': False, {more}\
             'formatters': {{'own': {{'format': 'OWN %(name)s %(message)s'}}}},\
             'handlers': {{'own': {{'class': 'logging.FileHandler', 'filename': 'own', 'formatter': 'own'}}}},\
             'loggers': {{{loggers}}}}})\n"
        )
    };
    let each = "'gunicorn.error': {'level': 'INFO', 'handlers': ['own']}, 'gunicorn.access': {'level': 'INFO', 'handlers': ['own']}";
    let parent = "'gunicorn': {'level': 'INFO', 'handlers': ['own']}";
    for early in [config(each, ""), config(parent, ""), config("", "'root': {'level': 'INFO', 'handlers': ['own']},")] {
        let takes_effect = early.contains("gunicorn");
        let mut server = plan(&app(&early, "pass"), "").start();
        assert_eq!(server.get("/one").status, 200);
        assert_eq!(server.get("/fail").status, 500);
        if takes_effect {
            wait_for_own(&server, "OWN gunicorn.access GET /one 200\n");
            wait_for_own(&server, "OWN gunicorn.error Error handling request GET /fail\nTraceback");
            assert_eq!(server.stdout(), "");
        } else {
            wait_until("the line", || server.stdout().contains("GET /one 200\n"));
            server.wait_for_log("Error handling request GET /fail");
        }
        server.allow("");
        server.finish();
    }
}

#[test]
fn an_agent_that_patches_all_loggers_hears_of_exceptions() {
    // What Sentry does.
    let patch = "heard = open('own', 'a', buffering=1)\n\
                 old = logging.Logger.callHandlers\n\
                 def call_handlers(self, record):\n\
                 \x20   print(self.name, record.levelname, record.exc_info and record.exc_info[0].__name__, record.args, file=heard)\n\
                 \x20   return old(self, record)\n\
                 logging.Logger.callHandlers = call_handlers\n";
    let mut server = plan(&app(patch, "pass"), "").start();
    assert_eq!(server.get("/fail").status, 500);
    wait_for_own(&server, "gunicorn.error ERROR ZeroDivisionError ('GET', '/fail')");
    server.wait_for_log("Error handling request GET /fail\nTraceback");
    server.allow("");
    server.finish();
}

#[test]
fn in_json_lines_stay_json() {
    let server = plan(&app("logging.getLogger('gunicorn.access').addFilter(lambda record: True)\n", "pass"), "")
        .args(["--log-format", "json"])
        .launch();
    wait_until("the start", || server.log().contains("Booting worker"));
    let mut server = server;
    let log = server.log();
    let port = log.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port");
    server.address = crate::util::client::Address::Tcp(port.parse().expect("a number"));
    let mut client = server.connect();
    client.send(
        b"GET /%22?q=\"\\ HTTP/1.1\r\nHost: x\r\nUser-Agent: a \"b\" \x9b\r\n\
          Authorization: Basic dXNlcjpwYXNz\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(client.read().status, 200);
    wait_until("the line", || server.stdout().ends_with('\n'));
    let line = Json::parse(&server.stdout());
    assert_eq!(line.get("status").expect("a status").number(), 200.0);
    assert_eq!(line.get("target").expect("a target").text(), "/%22?q=\"\\");
    assert_eq!(line.get("user").expect("a user").text(), "user");
    assert_eq!(line.get("user_agent").expect("an agent").text(), "a \"b\" \u{9b}");
    assert!(!server.stdout().contains('\u{9b}'));
    server.finish();
}

#[test]
fn a_reload_makes_the_loggers_again() {
    let config = "import logging\n\
                  def post_fork(server, worker):\n    logging.getLogger('gunicorn.access').disabled = True\n";
    let server = plan(&app("", "pass"), config).start();
    assert_eq!(server.get("/silent").status, 200);
    let before = server.wait_for_workers(1);
    server.write("conf.py", "");
    server.signal(SIGHUP);
    wait_until("the new worker", || matches!(&server.workers()[..], [worker] if *worker != before[0]));
    let log = access_log_after(&server, &["/heard"]);
    assert_eq!(log, "GET /heard 200\n");
    server.finish();
}

#[test]
fn a_change_in_the_master_reaches_the_masters_lines() {
    let preload = "handler = logging.FileHandler('own')\nlogging.getLogger('gunicorn.error').addHandler(handler)\n";
    let server = plan(&app(preload, "pass"), "").args(["--preload"]).start();
    server.wait_for_workers(1);
    wait_for_own(&server, "Booting worker with pid");
    server.signal(SIGUSR1);
    wait_for_own(&server, "Handling signal: usr1");
    let own = server.path("own");
    server.finish_keeping(|| {
        let own = std::fs::read_to_string(&own).expect("it is there");
        assert!(own.contains("Handling signal: term") && own.contains("Shutting down: Master"), "{own}");
    });
}

#[test]
fn untouched_loggers_cost_no_python() {
    // A change that is none.
    let same = "for log in map(logging.getLogger, ('gunicorn.error', 'gunicorn.access')):\n\
                \x20   log.setLevel(log.level)\n    log.propagate = False\n    log.disabled = False\n\
                import sys\n";
    let app = "import logging\n".to_owned()
        + same
        + "def application(environ, start_response):\n\
                \x20   start_response('200 OK', [])\n    return [str('gunicorn._bridge' in sys.modules).encode()]\n";
    let server = plan(&app, "").start();
    assert_eq!(server.get("/").text(), "False");
    assert_eq!(access_log_after(&server, &["/two"]), "GET / 200\nGET /two 200\n");
    server.finish();
}

#[test]
fn a_rotation_reaches_the_apps_own_files_too() {
    let early = "shop = logging.getLogger('shop')\nshop.addHandler(logging.FileHandler('own'))\n";
    for arguments in [["--threads", "1"], ["--threads", "4"]] {
        let app = app(early, "shop.warning('sold')");
        let server = plan(&app, "").args(arguments).start();
        assert_eq!(server.get("/late").status, 200);
        wait_for_own(&server, "sold");
        std::fs::rename(server.path("own"), server.path("own.1")).expect("it is there");
        server.signal(SIGUSR1);
        wait_until("the new file", || server.path("own").exists());
        assert_eq!(server.get("/late").status, 200);
        wait_for_own(&server, "sold");
        server.finish();
    }
}
