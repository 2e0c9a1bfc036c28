//! Logs by way of Python: apps that borrow the server's handlers, logger classes, logging configs,
//! syslog, statsd; and JSON.

use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGHUP, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1};

use crate::util::client::{Address, Client};
use crate::util::json::Json;
use crate::util::server::{Plan, Server};
use crate::util::wait_until;

/// `echo.py` under a config file.
fn configured(config: &str) -> Plan {
    Plan::app("echo").config(config)
}

#[track_caller]
fn wait_for_file(server: &Server, name: &str, text: &str) -> String {
    let read = || std::fs::read_to_string(server.path(name)).unwrap_or_default();
    wait_until(&format!("{text:?} in {name}, which holds {:?}", read()), || read().contains(text));
    read()
}

#[test]
fn apps_find_the_servers_handlers_in_logging() {
    let app = "import logging\n\
               borrowed = logging.getLogger('gunicorn.error')\n\
               log = logging.getLogger('shop')\n\
               log.handlers = borrowed.handlers\n\
               log.setLevel(borrowed.level)\n\
               def application(environ, start_response):\n\
               \x20   log.info('sold %s', 3)\n\
               \x20   log.debug('too small')\n\
               \x20   try:\n        1 / 0\n    except ZeroDivisionError:\n        log.exception('oops')\n\
               \x20   start_response('200 OK', [])\n    return [b'ok']\n";
    for (config, python) in [("", false), ("def post_fork(server, worker): pass\n", true)] {
        let mut server = Plan::app("app").in_own_folder().file("app.py", app).config(config).start();
        let worker = server.wait_for_workers(1)[0];
        assert_eq!(server.get("/").text(), "ok");
        server.wait_for_log(&format!("[{worker}] [INFO] sold 3\n"));
        server.wait_for_log(&format!("[{worker}] [ERROR] oops\nTraceback"));
        assert!(!server.log().contains("too small"), "with a hook: {python}");
        server.allow("oops");
        server.allow("Traceback");
        server.finish();
    }
}

/// As recipes for lines in JSON do.
#[test]
fn a_config_file_may_change_the_class_of_loggers() {
    let config = "from gunicorn import glogging\naccesslog = '-'\n\
                  glogging.Logger.error_fmt = '{\"said\": \"%(message)s\"}'\n\
                  glogging.Logger.access_fmt = '{\"access\": \"%(message)s\"}'\n";
    let server = configured(config).args(["--access-logformat", "%(s)s %(U)s"]).start();
    for times in 1..3 {
        server.wait_for_log_times("{\"said\": \"Booting worker with pid", times);
        wait_until("the line", || {
            assert_eq!(server.get("/shop").status, 200);
            server.stdout().lines().filter(|line| *line == "{\"access\": \"200 /shop\"}").count() >= times
        });
        server.signal(SIGHUP);
    }
    server.finish();
}

/// As formatters of JSON lines do. The app never heard of these requests.
#[test]
fn a_formatter_may_ask_for_the_atoms_of_a_refused_request() {
    let config = "import logging, time\n\
                  class Atoms(logging.Formatter):\n\
                  \x20   def format(self, record):\n\
                  \x20       atoms = record.args\n\
                  \x20       time.strptime(atoms['t'], '[%d/%b/%Y:%H:%M:%S %z]')\n\
                  \x20       assert atoms['D'] / 1000 >= atoms['M'] and atoms['B'] == int(atoms['b'])\n\
                  \x20       return f\"{int(atoms['s'])} {atoms['h']} {atoms['r']} {atoms['U']} {atoms['a']}\"\n\
                  logconfig_dict = {\n\
                  \x20   'root': {'level': 'INFO', 'handlers': []},\n\
                  \x20   'formatters': {'atoms': {'()': Atoms}},\n\
                  \x20   'handlers': {'atoms': {'class': 'logging.StreamHandler', 'formatter': 'atoms',\n\
                  \x20                          'stream': 'ext://sys.stdout'}},\n\
                  \x20   'loggers': {'gunicorn.access': {'level': 'INFO', 'handlers': ['atoms'], 'propagate': False}},\n\
                  }\n";
    let mut server = configured(config).start();
    server.allow("Invalid request");
    let mut client = server.connect();
    client.send("GET /a%09b HTTP/1.1\r\nHost: a\r\nHost: b\r\nUser-Agent: probe\r\n\r\n");
    assert_eq!(client.read().status, 400);
    wait_until("the line", || !server.stdout().is_empty());
    assert!(server.stdout().starts_with("400 127.0.0.1 GET /a%09b HTTP/1.1 "), "{}", server.stdout());
    assert!(!server.log().contains("Logging error"), "{}", server.log());
    server.finish();
}

/// What many apps do with the handlers of the server.
#[test]
fn borrowed_handlers_keep_the_servers_line() {
    let app = "import logging\n\
               borrowed = logging.getLogger('gunicorn.error')\n\
               logging.basicConfig(level=borrowed.level, handlers=borrowed.handlers)\n\
               own = logging.FileHandler('own')\n\
               own.setFormatter(borrowed.handlers[0].formatter)\n\
               logging.getLogger('shop').addHandler(own)\n\
               def application(environ, start_response):\n\
               \x20   logging.getLogger('shop').info('sold')\n\
               \x20   start_response('200 OK', [])\n    return [b'ok']\n";
    let server = Plan::app("app").in_own_folder().file("app.py", app).start();
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").text(), "ok");
    server.wait_for_log(&format!("] [{worker}] [INFO] sold\n"));
    let own = wait_for_file(&server, "own", "sold");
    assert!(own.starts_with('[') && own.ends_with(&format!("] [{worker}] [INFO] sold\n")), "{own}");
    let log = server.path("stderr");
    server.finish_keeping(|| {
        let text = std::fs::read_to_string(&log).expect("the log is there");
        assert!(text.contains(&format!("] [{worker}] [INFO] Worker exiting (pid: {worker})\n")), "{text}");
        assert!(text.lines().all(|line| line.starts_with("[20")), "{text}");
    });
}

#[test]
fn a_formatter_set_in_a_hook_is_used() {
    let config = "import logging\n\
                  def post_fork(server, worker):\n\
                  \x20   for handler in worker.log.error_log.handlers:\n\
                  \x20       handler.setFormatter(logging.Formatter('MINE %(message)s'))\n\
                  \x20   worker.log.warning('hello')\n";
    let server = configured(config).start();
    server.wait_for_log("\nMINE hello\n");
    server.finish();
}

#[test]
fn a_logger_class_gets_every_record_and_access_line() {
    let config = "from gunicorn.glogging import Logger\n\
                  accesslog = '-'\n\
                  class Mine(Logger):\n\
                  \x20   error_fmt = 'MINE %(process)d %(levelname)s %(message)s'\n\
                  \x20   def access(self, resp, req, environ, request_time):\n\
                  \x20       if req.path != '/health':\n\
                  \x20           self.access_log.info('%s %s %s %s %s', req.method, req.path, resp.status_code,\n\
                  \x20                                resp.sent, environ['QUERY_STRING'])\n\
                  logger_class = Mine\n";
    for threads in ["1", "4"] {
        let server = configured(config).args(["--threads", threads]).start();
        let worker = server.wait_for_workers(1)[0];
        assert_eq!(server.get("/health").status, 200);
        assert_eq!(server.get("/seen?a=b").status, 200);
        let stdout = wait_for_file(&server, "stdout", "GET /seen 200");
        assert!(stdout.contains(" a=b\n") && !stdout.contains("/health"), "{stdout}");
        server.wait_for_log(&format!("MINE {} INFO Starting monoceros", server.pid()));
        server.wait_for_log(&format!("MINE {worker} INFO Booting worker with pid: {worker}"));
        let log = server.path("stderr");
        server.finish_keeping(|| {
            let text = std::fs::read_to_string(&log).expect("the log is there");
            assert!(text.contains("INFO Shutting down: Master"), "{text}");
            assert!(text.contains(&format!("MINE {worker} INFO Worker exiting (pid: {worker})")), "{text}");
        });
    }
}

#[test]
fn the_default_line_of_python_is_the_servers_own() {
    let format = "%(h)s %(l)s %(u)s \"%(r)s\" %(s)s %(b)s \"%(f)s\" \"%(a)s\" %({host}i)s %({content-type}o)s %({wsgi.url_scheme}e)s";
    let request = "GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\nUser-Agent: \"me\"\r\nAuthorization: Basic dXNlcjpwYXNz\r\nConnection: close\r\n\r\n";
    let line = |config: &str| {
        let server = configured(config).args(["--access-logfile", "-", "--access-logformat", format]).start();
        let mut client = server.connect();
        client.send(request);
        assert_eq!(client.read().status, 200);
        let stdout = wait_for_file(&server, "stdout", "GET /a");
        server.finish();
        stdout
    };
    let native = line("");
    assert_eq!(line("from gunicorn.glogging import Logger\nclass L(Logger): pass\nlogger_class = L\n"), native);
}

#[test]
fn refused_requests_reach_pythons_access_log_too() {
    let config = "accesslog = '-'\nlogconfig_dict = {'disable_existing_loggers': False}\n";
    let mut server = configured(config).start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert_eq!(client.read().status, 400);
    wait_for_file(&server, "stdout", "\" 400 ");
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn logging_configs_of_each_kind_are_used() {
    let ini = "[loggers]\nkeys=root,gunicorn.error,gunicorn.access\n[handlers]\nkeys=file\n[formatters]\nkeys=plain\n\
               [logger_root]\nhandlers=file\n\
               [logger_gunicorn.error]\nlevel=INFO\nhandlers=file\npropagate=0\nqualname=gunicorn.error\n\
               [logger_gunicorn.access]\nlevel=INFO\nhandlers=file\npropagate=0\nqualname=gunicorn.access\n\
               [handler_file]\nclass=FileHandler\nformatter=plain\nargs=('FOLDER/all.log',)\n\
               [formatter_plain]\nformat=OWN %(name)s %(message)s\n";
    let dict = "{'version': 1, 'formatters': {'plain': {'format': 'OWN %(name)s %(message)s'}},\
                'handlers': {'file': {'class': 'logging.FileHandler', 'formatter': 'plain', 'filename': 'FOLDER/all.log'}},\
                'root': {'level': 'INFO', 'handlers': ['file']},\
                'loggers': {'gunicorn.error': {'level': 'INFO', 'handlers': ['file'], 'propagate': False},\
                            'gunicorn.access': {'level': 'INFO', 'handlers': ['file'], 'propagate': False}}}";
    let json = dict.replace('\'', "\"").replace("False", "false");
    let cases = [
        ("log.ini", ini.to_owned(), "logconfig = 'FOLDER/log.ini'\n".to_owned()),
        ("log.json", json, "logconfig_json = 'FOLDER/log.json'\n".to_owned()),
        ("unused", String::new(), format!("logconfig_dict = {dict}\n")),
    ];
    for (name, content, config) in cases {
        let plan = Plan::app("echo");
        let folder = plan.path("").display().to_string();
        let folder = folder.trim_end_matches('/');
        let plan =
            plan.file(name, &content.replace("FOLDER", folder)).file("conf.py", &config.replace("FOLDER", folder));
        let path = plan.path("conf.py").display().to_string();
        // Where Python's handlers are the user's, nothing of the start is on stderr but what came
        // before the settings.
        let mut server = plan.args(["--config", &path]).launch();
        let log = wait_for_file(&server, "all.log", "Listening at");
        let port = log.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port");
        server.address = crate::util::client::Address::Tcp(port.parse().expect("a number"));
        wait_for_file(&server, "all.log", "Booting worker");
        assert_eq!(server.get("/seen").status, 200);
        let log = wait_for_file(&server, "all.log", "GET /seen");
        assert!(log.contains("OWN gunicorn.error Starting monoceros") && log.contains("OWN gunicorn.access "), "{log}");
        std::fs::rename(server.path("all.log"), server.path("rotated")).expect("it is there");
        server.signal(SIGUSR1);
        wait_until("the worker to open its log again", || {
            server.get("/later");
            std::fs::read_to_string(server.path("all.log")).unwrap_or_default().contains("GET /later")
        });
        server.finish();
    }
}

#[test]
fn a_logging_config_that_cannot_be_used_is_told_in_one_sentence() {
    for (line, text) in [
        ("logconfig = '/proc/nonexistent/log.ini'", "/proc/nonexistent/log.ini"),
        ("logconfig_dict = {'handlers': {'x': {'class': 'no.such.Handler'}}}", "no.such"),
        ("logger_class = 'no.such.Class'", "no.such"),
        ("syslog = True\nsyslog_facility = 'loud'", "loud"),
    ] {
        let finished = configured(&format!("{line}\n")).run();
        assert_eq!(finished.code, Some(1), "{line}: {finished:?}");
        assert!(finished.stderr.contains("Error: ") && finished.stderr.contains(text), "{line}: {finished:?}");
        assert!(!finished.stderr.contains("Traceback"), "{line}: {finished:?}");
    }
}

#[test]
fn a_reload_with_a_broken_logging_config_changes_nothing() {
    let mut server = configured("").start();
    let before = server.wait_for_workers(1);
    server.write("conf.py", "logconfig_dict = {'handlers': {'x': {'class': 'no.such.Handler'}}}\n");
    server.signal(SIGHUP);
    server.wait_for_log("Reload failed");
    assert_eq!(server.workers(), before);
    assert_eq!(server.get("/").status, 200);
    server.allow("Reload failed");
    server.finish();
}

#[test]
fn syslog_gets_gunicorns_lines() {
    let syslog = udp();
    let address = format!("udp://{}", syslog.local_addr().expect("bound"));
    let server = Plan::app("echo")
        .args(["--log-syslog", "--log-syslog-to", &address, "--log-syslog-prefix", "shop", "--name", "x"])
        .start();
    assert_eq!(server.get("/seen").status, 200);
    let heard = hear(&syslog, |heard| heard.iter().any(|line| line.contains("/seen")));
    let start = format!("<14>gunicorn.shop.error: [{}] Starting monoceros", server.pid());
    assert!(heard.iter().any(|line| line.starts_with(&start)), "{heard:?}");
    assert!(heard.iter().any(|line| line.starts_with("<14>gunicorn.shop.access: [") && line.contains("GET /seen")));
    server.finish();
}

#[test]
fn statsd_gets_gunicorns_metrics() {
    let statsd = udp();
    let address = statsd.local_addr().expect("bound").to_string();
    let server = Plan::app("echo")
        .args([
            "--statsd-host",
            &address,
            "--statsd-prefix",
            "shop",
            "--dogstatsd-tags",
            "a:b",
            "--enable-backlog-metric",
        ])
        .start();
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGTTIN);
    let expected = [
        "shop.gunicorn.requests:1|c|@1.0|#a:b",
        "shop.gunicorn.request.status.200:1|c|@1.0|#a:b",
        "shop.gunicorn.workers:2|g|#a:b",
        "shop.gunicorn.backlog:0|h|#a:b",
    ];
    let has_all = |heard: &[String]| expected.iter().all(|metric| heard.iter().any(|line| line == metric));
    let heard = hear(&statsd, has_all);
    assert!(has_all(&heard), "{heard:?}");
    assert!(heard.iter().any(|line| line.starts_with("shop.gunicorn.request.duration:") && line.contains("|ms")));
    server.finish();
}

#[test]
fn statsd_is_told_how_many_workers_are_kept() {
    let statsd = udp();
    let address = statsd.local_addr().expect("bound").to_string();
    let server = Plan::app("echo").args(["--statsd-host", &address, "--workers", "2"]).start();
    let old = server.wait_for_workers(2);
    server.signal(SIGHUP);
    wait_until("another generation", || server.has_serving(2) && !server.workers().iter().any(|pid| old.contains(pid)));
    server.signal(SIGTTOU);
    let is_one = |line: &String| line == "gunicorn.workers:1|g";
    let heard = hear(&statsd, |heard| heard.iter().any(is_one));
    let told: Vec<_> = heard.iter().filter_map(|line| line.strip_prefix("gunicorn.workers:")).collect();
    assert_eq!(told, ["2|g", "1|g"]);
    server.finish();
}

#[test]
fn json_logs_are_an_object_a_line() {
    let server = Plan::app("echo").args(["--log-format", "json", "--access-logfile", "-"]).launch();
    wait_until("the start", || server.log().contains("Listening at"));
    let line = server.log().lines().find(|line| line.contains("Listening at")).map(str::to_owned).expect("just seen");
    let record = Json::parse(&line);
    assert_eq!(record.get("level").expect("a level").text(), "INFO");
    let mut server = server;
    let message = record.get("message").expect("a message").text().to_owned();
    let port = message.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port");
    server.address = crate::util::client::Address::Tcp(port.parse().expect("a number"));
    wait_until("a worker", || server.log().contains("Booting worker"));
    let mut client = server.connect();
    client.send("GET /%22x%22?q=\"1\" HTTP/1.1\r\nHost: x\r\nUser-Agent: a \"b\" \\ \r\nConnection: close\r\n\r\n");
    assert_eq!(client.read().status, 200);
    let stdout = wait_for_file(&server, "stdout", "status");
    let access = Json::parse(stdout.lines().next().expect("a line"));
    assert_eq!(access.get("target").expect("a target").text(), "/%22x%22?q=\"1\"");
    assert_eq!(access.get("user_agent").expect("an agent").text(), "a \"b\" \\");
    assert_eq!(access.get("status").expect("a status").number(), 200.0);
    assert!(access.get("duration").expect("a duration").number() < 10.0);
    server.finish();
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    socket
}

/// Datagrams until `enough`.
#[track_caller]
fn hear(socket: &UdpSocket, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    wait_until("the datagrams", || {
        while let Ok(length) = socket.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        enough(&heard)
    });
    heard
}

/// The recipe by which people send gunicorn's records to a logging package of their own: a `setup`
/// that does not call its parent's.
#[test]
fn a_logger_class_with_a_setup_of_its_own_gets_each_record_once() {
    let config = "import logging\n\
                  from gunicorn.glogging import Logger\n\
                  class Stub(Logger):\n\
                  \x20   def setup(self, cfg):\n\
                  \x20       handler = logging.StreamHandler()\n\
                  \x20       handler.setFormatter(logging.Formatter('STUB %(message)s'))\n\
                  \x20       self.error_log.handlers = [handler] + [h for h in self.error_log.handlers if type(h) is not logging.StreamHandler]\n\
                  \x20       self.error_log.setLevel(logging.INFO)\n\
                  logger_class = Stub\n";
    let app = "def application(environ, start_response):\n    raise KeyError('lost')\n";
    let mut server = Plan::app("app").in_own_folder().file("app.py", app).config(config).start();
    assert_eq!(server.get("/").status, 500);
    server.wait_for_log("KeyError: 'lost'");
    server.signal(SIGHUP);
    server.wait_for_log_times("STUB Booting worker", 2);
    for text in ["STUB Starting monoceros", "KeyError: 'lost'\n", "STUB Hang up"] {
        assert_eq!(server.log().matches(text).count(), 1, "{text}: {}", server.log());
    }
    server.allow("");
    server.finish();
}

#[test]
fn a_failed_reload_brings_the_loggers_back() {
    let class = "from gunicorn.glogging import Logger\nclass Mine(Logger): pass\nlogger_class = Mine\n";
    let mut server = Plan::app("echo").error_log("old").config(class).start();
    server.wait_for_log("Booting worker");
    server.write(
        "conf.py",
        &format!("{class}logconfig_dict = {{'handlers': {{'x': {{'class': 'no.such.Handler'}}}}}}\n"),
    );
    server.signal(SIGHUP);
    server.wait_for_log("Reload failed");
    server.signal(SIGTTIN);
    server.wait_for_log_times("Booting worker", 2);
    assert_eq!(server.log().matches("Handling signal: ttin").count(), 1, "{}", server.log());
    server.allow("Reload failed");
    server.finish();
}

/// A class that opens a log of its own when it is made, which is once under gunicorn.
fn with_a_log_of_its_own(plan: &Plan) -> String {
    format!(
        "import logging\n\
         from gunicorn.glogging import Logger\n\
         class Mine(Logger):\n\
         \x20   def __init__(self, cfg):\n\
         \x20       logging.getLogger('gunicorn.error').addHandler(logging.FileHandler('{}'))\n\
         \x20       super().__init__(cfg)\n\
         logger_class = Mine\n",
        plan.path("own").display()
    )
}

#[test]
fn what_a_logger_class_adds_when_it_is_made_is_there_once() {
    let plan = Plan::app("echo").error_log("old");
    let class = with_a_log_of_its_own(&plan);
    let path = plan.path("conf.py").display().to_string();
    let mut server = plan.file("conf.py", &class).args(["--config", &path]).start();
    let before = server.wait_for_workers(1);
    server.signal(SIGHUP);
    wait_until("the new worker", || matches!(&server.workers()[..], [worker] if *worker != before[0]));
    let broken = "logconfig_dict = {'handlers': {'x': {'class': 'no.such.Handler'}}}\n";
    server.write("conf.py", &format!("{class}{broken}"));
    server.signal(SIGHUP);
    server.wait_for_log("Reload failed");
    server.signal(SIGTTIN);
    server.wait_for_log_times("Booting worker", 3);
    let own = wait_for_file(&server, "own", "Handling signal: ttin");
    for (text, times) in [("Listening at", 1), ("Hang up", 2), ("Reload failed", 1), ("ttin", 1), ("Booting worker", 3)]
    {
        assert_eq!(own.matches(text).count(), times, "{text}: {own}");
    }
    // Without the class nothing is written to its log.
    server.write("conf.py", "");
    server.signal(SIGHUP);
    server.wait_for_log_times("Booting worker", 4);
    let own = std::fs::read_to_string(server.path("own")).expect("it is there");
    assert_eq!(own.matches("Booting worker").count(), 3, "{own}");
    server.allow("");
    server.finish();
}

#[test]
fn a_daemons_logger_class_writes_each_line_once() {
    let plan = Plan::app("echo").error_log("old");
    let class = with_a_log_of_its_own(&plan);
    let [path, pid_file] = ["conf.py", "pid"].map(|name| plan.path(name).display().to_string());
    let plan = plan.file("conf.py", &class).args(["--config", &path, "--daemon", "--pid", &pid_file]);
    let mut server = plan.start();
    assert_eq!(server.wait_for_exit().code(), Some(0), "the starter ends");
    server.wait_for_log("Booting worker");
    assert_eq!(server.get("/").status, 200);
    let own = wait_for_file(&server, "own", "Booting worker");
    assert_eq!(own.matches("Listening at").count(), 1, "{own}");
    let master = std::fs::read_to_string(&pid_file).expect("it is there").trim().parse().expect("a pid");
    crate::util::server::send(master, SIGTERM);
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn without_an_error_log_nothing_of_it_is_written() {
    let config = "import os\nerrorlog = os.getenv('ERROR_LOG', '-') or None\n";
    for more in ["", "logconfig_dict = {'loggers': {}}\n"] {
        let mut server = configured(&format!("{config}{more}")).env("ERROR_LOG", "").unix().launch();
        server.address = Address::Unix(server.path("socket"));
        wait_until("the socket", || Client::try_connect(&server.address).is_ok());
        assert_eq!(server.get("/").status, 200, "{more}");
        let log = server.path("stderr");
        server.finish_keeping(|| assert_eq!(std::fs::read_to_string(&log).expect("it is there"), "", "{more}"));
    }
}

#[test]
fn the_loggers_follow_the_settings_also_where_the_config_has_loaded_logging() {
    let app = "import logging\n\
               def application(environ, start_response):\n\
               \x20   logging.getLogger('gunicorn.error').debug('small talk')\n\
               \x20   start_response('200 OK', [])\n\
               \x20   return [str(logging.getLogger('gunicorn.error').level).encode()]\n";
    let statsd = udp();
    let address = statsd.local_addr().expect("bound");
    let config = format!("import logging\nloglevel = 'info'\nstatsd_host = '{address}'\n");
    let server = Plan::app("app").in_own_folder().file("app.py", app).config(&config).start();
    assert_eq!(server.get("/").text(), "20");
    // The server writes the logs again.
    server.write("conf.py", "import logging\nloglevel = 'debug'\n");
    server.signal(SIGHUP);
    wait_until("the new workers", || server.get("/").text() == "10");
    server.wait_for_log("[DEBUG] small talk");
    server.finish();
}

#[test]
fn what_python_logs_of_a_request_without_an_environ_names_it() {
    let config = "from gunicorn.glogging import Logger\n\
                  class Mine(Logger): pass\n\
                  logger_class = Mine\naccesslog = '-'\n\
                  def pre_request(worker, req): raise ValueError('no')\n";
    let mut server = configured(config).start();
    assert_eq!(server.get("/here?a=b").status, 500);
    let line = wait_for_file(&server, "stdout", "500");
    assert!(line.starts_with("127.0.0.1 - - [") && line.contains("\"GET /here?a=b HTTP/1.1\" 500"), "{line}");
    server.allow("");
    server.finish();
}

/// An app that fails at `/fail`, and a config with a logger class that is told of it.
const FAILING: &str = "def application(environ, start_response):\n\
                       \x20   raise KeyError('lost')\n";

fn failing(config: &str) -> Plan {
    Plan::app("app").in_own_folder().file("app.py", FAILING).config(config)
}

#[test]
fn an_error_of_the_app_is_an_exception_to_a_logger_class() {
    let config = "import sys\n\
                  from gunicorn.glogging import Logger\n\
                  class Mine(Logger):\n\
                  \x20   def exception(self, msg, *args, **kwargs):\n\
                  \x20       kind, error, trace = sys.exc_info()\n\
                  \x20       while trace.tb_next:\n            trace = trace.tb_next\n\
                  \x20       self.info('HEARD %s %r %s %r %s', kind.__name__, error, msg, args, trace.tb_frame.f_code.co_name)\n\
                  \x20       super().exception(msg, *args, **kwargs)\n\
                  logger_class = Mine\n";
    for threads in ["1", "4"] {
        let mut server = failing(config).args(["--threads", threads]).start();
        assert_eq!(server.get("/x?y=%0a").status, 500);
        server.wait_for_log(
            "HEARD KeyError KeyError('lost') Error handling request %s %s ('GET', '/x?y=%0a') application\n",
        );
        server.wait_for_log("[ERROR] Error handling request GET /x?y=%0a\nTraceback (most recent call last):\n");
        server.wait_for_log("KeyError: 'lost'\n");
        assert_eq!(server.log().matches("KeyError: 'lost'\n").count(), 1, "{}", server.log());
        server.allow("");
        server.finish();
    }
}

#[test]
fn a_json_formatter_has_the_traceback_in_a_field() {
    let config = "import json, logging\n\
                  class Fields(logging.Formatter):\n\
                  \x20   def format(self, record):\n\
                  \x20       error = record.exc_info and self.formatException(record.exc_info)\n\
                  \x20       return json.dumps({'message': record.getMessage(), 'args': record.args, 'error': error})\n\
                  logconfig_dict = {'formatters': {'generic': {'()': Fields}}}\n";
    let mut server = failing(config).launch();
    wait_for_file(&server, "stderr", "Booting worker");
    let log = server.log();
    let port = log.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port");
    server.address = crate::util::client::Address::Tcp(port.parse().expect("a number"));
    assert_eq!(server.get("/x").status, 500);
    let log = wait_for_file(&server, "stderr", "Error handling");
    let line = log.lines().find(|line| line.contains("Error handling")).expect("just seen");
    let record = Json::parse(line);
    assert_eq!(record.get("message").expect("a message").text(), "Error handling request GET /x");
    let error = record.get("error").expect("a field").text();
    assert!(error.starts_with("Traceback") && error.ends_with("KeyError: 'lost'"), "{error}");
    server.allow("");
    server.finish();
}

#[test]
fn statsd_counts_exceptions() {
    let statsd = udp();
    let address = statsd.local_addr().expect("bound");
    let mut server = failing(&format!("statsd_host = '{address}'\n")).start();
    assert_eq!(server.get("/x").status, 500);
    let heard = hear(&statsd, |heard| heard.iter().any(|line| line.starts_with("gunicorn.log.exception:1|c")));
    assert!(!heard.iter().any(|line| line.starts_with("gunicorn.log.error")), "{heard:?}");
    server.allow("");
    server.finish();
}

#[test]
fn an_app_that_cannot_be_imported_is_an_exception_too() {
    let config = "from gunicorn.glogging import Logger\n\
                  class Mine(Logger):\n\
                  \x20   def exception(self, msg, *args, **kwargs):\n\
                  \x20       super().exception('HEARD ' + msg, *args, **kwargs)\n\
                  logger_class = Mine\n";
    let finished = Plan::app("app").in_own_folder().file("app.py", "1 / 0\n").config(config).run();
    assert_eq!(finished.code, Some(3));
    assert!(finished.stderr.contains("HEARD Exception in worker process\nTraceback"), "{}", finished.stderr);
    assert!(finished.stderr.contains("ZeroDivisionError"), "{}", finished.stderr);
}

#[test]
fn a_logging_config_reaches_python_as_it_is() {
    let check = "class Check:\n\
                 \x20   def __init__(self, rate, pair, names):\n\
                 \x20       assert isinstance(rate, float) and isinstance(pair, tuple) and list(names) == [10]\n\
                 \x20   def filter(self, record):\n\
                 \x20       return True\n";
    let config = "check = {'()': 'check.Check', 'rate': 0.5, 'pair': (1, 2), 'names': {10: 'blue'}}\n\
                  console = {'class': 'logging.StreamHandler', 'filters': ['check'], 'stream': 'ext://sys.stderr'}\n\
                  logconfig_dict = {'filters': {'check': check}, 'handlers': {'console': console, 'error_console': console}}\n\
                  # What a variable that is not set leaves.\n\
                  dogstatsd_tags = statsd_prefix = syslog_addr = syslog_facility = access_log_format = None\n\
                  threads = 2000\n";
    let plan = Plan::app("echo").file("conf.py", config).file("check.py", check);
    let [conf, folder] = [plan.path("conf.py"), plan.path("")].map(|path| path.display().to_string());
    let server = plan.args(["--config", &conf, "--pythonpath", &folder]).start();
    assert_eq!(server.get("/").status, 200);
    server.finish();
}
