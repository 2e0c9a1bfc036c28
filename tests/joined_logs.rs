//! Lines of one request that are found together: its id, its trace, how long it waited, and the
//! forms of lines that collectors know.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::signal::Signal::SIGHUP;

use crate::util::client::Response;
use crate::util::json::Json;
use crate::util::server::{Plan, Server};
use crate::util::wait_until;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// Says what it was told, logs by each of the ways, raises, or sets an id of its own.
const APP: &str = r#"
import json, logging, os, threading

log = logging.getLogger("gunicorn.error")
if "FILTER" in os.environ:
    logging.getLogger("gunicorn.access").addFilter(lambda record: True)

def application(environ, start_response):
    path, headers = environ["PATH_INFO"], []
    if path == "/log":
        log.warning("from the app")
        print("from wsgi.errors", file=environ["wsgi.errors"])
        try:
            {}["lost"]
        except KeyError:
            log.exception("caught")
        thread = threading.Thread(target=log.warning, args=["from elsewhere"])
        thread.start()
        thread.join()
    elif path == "/fail":
        raise ValueError("no\nway")
    elif path == "/surrogate":
        log.warning("half a pair: \ud800")
    elif path == "/own":
        headers.append(("x-request-id", "my-own"))
    told = {name: environ.get(name) for name in ("HTTP_X_REQUEST_ID", "HTTP_TRACEPARENT", "monoceros.queue_time")}
    told["keys"] = sorted(environ)
    start_response("200 OK", headers)
    return [json.dumps(told).encode()]
"#;

fn plan<const N: usize>(args: [&str; N]) -> Plan {
    Plan::app("app").in_own_folder().file("app.py", APP).args(args)
}

/// The plan with an app that filters access lines, or does not. Once the app has changed a logger,
/// Python's logging writes the lines of both.
fn with_loggers(plan: Plan, is_changed: bool) -> Plan {
    if is_changed { plan.env("FILTER", "1") } else { plan }
}

/// Asks with these headers, over a connection of its own.
fn ask(server: &Server, target: &str, headers: &[&str]) -> Response {
    server.connect().request("GET", target, headers, b"")
}

fn told(response: &Response, name: &str) -> Option<String> {
    match Json::parse(&response.text()).get(name).expect("the app tells it") {
        Json::Null => None,
        value => Some(value.text().to_owned()),
    }
}

fn is_made(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The objects of a log, by line.
fn objects(log: &str) -> Vec<Json> {
    log.lines().map(Json::parse).collect()
}

#[track_caller]
fn find<'a>(objects: &'a [Json], name: &str, text: &str) -> &'a Json {
    let is_it = |object: &&Json| matches!(object.get(name), Some(Json::Text(found)) if found.contains(text));
    objects.iter().find(is_it).unwrap_or_else(|| panic!("no {name} with {text:?} in {objects:?}"))
}

/// The text of a member, or of a member of one, as in `httpRequest/requestMethod`.
#[track_caller]
fn text_at<'a>(object: &'a Json, path: &str) -> &'a str {
    let found = path.split('/').try_fold(object, |object, name| object.get(name));
    found.unwrap_or_else(|| panic!("no {path} in {object:?}")).text()
}

#[test]
fn without_the_setting_requests_have_no_id() {
    let server = plan(["--access-logfile", "-", "--access-logformat", "%({x-request-id}i)s"]).start();
    let response = ask(&server, "/", &["X-Request-ID: mine"]);
    assert_eq!(
        (told(&response, "HTTP_X_REQUEST_ID").as_deref(), response.header("X-Request-ID")),
        (Some("mine"), None)
    );
    let response = ask(&server, "/", &[]);
    assert_eq!(told(&response, "HTTP_X_REQUEST_ID"), None);
    assert!(!response.text().contains("queue_time\", "), "{}", response.text());
    wait_until("two lines", || server.stdout() == "mine\n-\n");
    server.finish();
}

#[test]
fn an_id_is_taken_from_who_is_trusted_and_made_for_others() {
    let format = "%({x-request-id}i)s %({x-request-id}o)s %(U)s";
    let args = ["--request-id-header", "X-Request-ID", "--access-logfile", "-", "--access-logformat", format];
    // the setting, the headers, whether the first one's id is taken
    let table: [(&str, &[&str], bool); 6] = [
        ("127.0.0.1", &["X-Request-ID: a.b-c_d~e+f/g="], true),
        ("127.0.0.1", &["x-request-id: a", "X-Request-ID: b"], false),
        ("127.0.0.1", &["X-Request-ID: a b"], false),
        ("127.0.0.1", &["X-Request-ID: <script>"], false),
        ("127.0.0.1", &[], false),
        ("10.0.0.1", &["X-Request-ID: mine"], false),
    ];
    for (trusted, headers, is_taken) in table {
        for threads in ["1", "2"] {
            let server = plan(args).args(["--forwarded-allow-ips", trusted, "--threads", threads]).start();
            // The second of equal requests is built from a template.
            let ids = [(); 3].map(|()| {
                let response = ask(&server, "/", headers);
                let id = told(&response, "HTTP_X_REQUEST_ID").expect("each has one");
                assert_eq!(response.header("X-Request-ID"), Some(id.as_str()));
                id
            });
            if is_taken {
                assert!(ids.iter().all(|id| headers[0].ends_with(id.as_str())), "{ids:?}");
            } else {
                assert!(
                    ids.iter().all(|id| is_made(id)) && ids[0] != ids[1] && ids[1] != ids[2],
                    "{headers:?}: {ids:?}"
                );
            }
            // Another thread may log the next request first.
            let sorted = |mut lines: Vec<String>| {
                lines.sort_unstable();
                lines
            };
            let expected = sorted(ids.iter().map(|id| format!("{id} {id} /")).collect());
            wait_until("three lines", || sorted(server.stdout().lines().map(str::to_owned).collect()) == expected);
            server.finish();
        }
    }
}

#[test]
fn an_id_of_the_apps_own_goes_out() {
    let server = plan(["--request-id-header", "X-Request-ID"]).start();
    assert_eq!(ask(&server, "/own", &[]).header("X-Request-ID"), Some("my-own"));
    server.finish();
}

#[test]
fn a_hook_and_pythons_logging_see_the_id_that_was_made() {
    let config = "from gunicorn.glogging import Logger\n\
                  class Mine(Logger): pass\n\
                  logger_class = Mine\n\
                  accesslog = '-'\n\
                  access_log_format = 'LINE %({x-request-id}i)s'\n\
                  request_id_header = 'X-Request-ID'\n\
                  forwarded_allow_ips = '10.0.0.1'\n\
                  def pre_request(worker, req):\n\
                  \x20   worker.log.info('HOOK %s', [value for name, value in req.headers if name == 'X-REQUEST-ID'])\n";
    let mut server = plan([]).config(config).start();
    let id = told(&ask(&server, "/", &["X-Request-ID: forged"]), "HTTP_X_REQUEST_ID").expect("one");
    server.wait_for_log(&format!("HOOK ['{id}']"));
    wait_until("the line", || server.stdout().contains(&format!("LINE {id}\n")));
    let failed = ask(&server, "/fail", &[]);
    let id = failed.header("X-Request-ID").expect("an id").to_owned();
    server.wait_for_log(&format!("[{id}] Error handling request GET /fail\nTraceback"));
    server.allow("");
    server.finish();
}

#[test]
fn every_line_of_a_request_begins_with_its_id() {
    for (class, is_changed) in [("sync", false), ("gthread", false), ("sync", true), ("gthread", true)] {
        let args = ["--request-id-header", "X-Request-ID", "--worker-class", class];
        let mut server = with_loggers(plan(args), is_changed).start();
        assert_eq!(ask(&server, "/log", &["X-Request-ID: r-1"]).status, 200);
        server.wait_for_log("[WARNING] [r-1] from the app\n");
        server.wait_for_log("[ERROR] [r-1] caught\nTraceback");
        // A thread of the app's own runs for no request, and wsgi.errors is the app's text.
        server.wait_for_log("[WARNING] from elsewhere\n");
        assert!(server.log().contains("\nfrom wsgi.errors\n"), "{}", server.log());
        let response = ask(&server, "/fail", &["X-Request-ID: r-2"]);
        assert_eq!((response.status, response.header("X-Request-ID")), (500, Some("r-2")));
        server.wait_for_log("[ERROR] [r-2] Error handling request GET /fail\nTraceback");
        server.allow("");
        server.finish();
    }
}

#[test]
fn a_text_that_utf_8_cannot_hold_is_logged() {
    let mut server = plan([]).start();
    assert_eq!(ask(&server, "/surrogate", &[]).status, 200);
    server.wait_for_log("[WARNING] half a pair: ");
    assert!(!server.log().contains("Logging error"), "{}", server.log());
    server.allow("half a pair");
    server.finish();
}

#[test]
fn requests_for_files_have_an_id_as_well() {
    let plan = plan(["--request-id-header", "X-Request-ID", "--access-logfile", "-"]).file("style.css", "body {}");
    let map = format!("/style.css={}", plan.path("style.css").display());
    let server = plan.args(["--static-map", &map, "--access-logformat", "%({x-request-id}i)s"]).start();
    assert_eq!(ask(&server, "/style.css", &["X-Request-ID: f-1"]).header("X-Request-ID"), Some("f-1"));
    let id = ask(&server, "/style.css", &[]).header("X-Request-ID").expect("one is made").to_owned();
    assert!(is_made(&id));
    wait_until("both lines", || server.stdout() == format!("f-1\n{id}\n"));
    server.finish();
}

#[test]
fn the_wait_of_a_request_is_in_the_environ() {
    let server = Plan::app("process").args(["--queue-time", "--access-logfile", "-", "--log-format", "json"]).start();
    server.wait_for_workers(1);
    let mut first = server.connect();
    first.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the first one", || server.entered() == 1);
    let mut second = server.connect();
    second.send("GET /environ?monoceros.queue_time HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(300));
    server.release();
    assert_eq!(first.read().status, 200);
    let waited = Json::parse(&second.read().text()).number();
    assert!((0.2..60.0).contains(&waited), "{waited}");
    wait_until("both lines", || server.stdout().lines().count() == 2);
    let lines = objects(&server.stdout());
    let logged = find(&lines, "target", "/environ").get("queue").expect("a field").number();
    assert!((logged - waited).abs() < 0.005, "{logged} and {waited}");
    server.finish();
}

#[test]
fn every_form_of_line_joins_up() {
    // format, and where it says: the message, the id, the trace, the class of an exception, its
    // traceback
    let table = [
        ("json", "message", "request_id", "trace_id", "error_type", "message"),
        ("json-ecs", "message", "http.request.id", "trace.id", "error.type", "error.stack_trace"),
        ("json-gcp", "message", "request_id", "logging.googleapis.com/trace", "error_type", "stack_trace"),
        (
            "json-otel",
            "Body",
            "Attributes/http.request.id",
            "trace_id",
            "Attributes/exception.type",
            "Attributes/exception.stacktrace",
        ),
    ];
    for (format, message, id, trace, kind, stack) in table {
        let at = |object: &Json, path: &str| match path {
            // A name with a slash.
            "logging.googleapis.com/trace" => object.get(path).expect("a trace").text().to_owned(),
            path => text_at(object, path).to_owned(),
        };
        let args = ["--log-format", format, "--request-id-header", "X-Request-ID", "--access-logfile", "-"];
        let mut server = plan(args).start();
        let traceparent = format!("traceparent: 00-{TRACE}-{SPAN}-01");
        let headers = ["X-Request-ID: r-1", traceparent.as_str()];
        let response = ask(&server, "/log", &headers);
        assert_eq!(told(&response, "HTTP_TRACEPARENT"), Some(format!("00-{TRACE}-{SPAN}-01")), "it is passed on");
        assert_eq!(ask(&server, "/fail", &headers).status, 500);
        wait_until("both lines", || server.stdout().lines().count() == 2);
        wait_until("the error", || server.log().contains("Error handling request"));
        let records = objects(&server.log());
        for text in ["from the app", "from wsgi.errors", "caught", "Error handling request GET /fail"] {
            let record = find(&records, message, text);
            assert_eq!((at(record, id).as_str(), at(record, trace).as_str()), ("r-1", TRACE), "{format}: {text}");
        }
        let failed = find(&records, message, "Error handling request GET /fail");
        assert_eq!(at(failed, kind), "ValueError", "{format}");
        assert!(at(failed, stack).ends_with("ValueError: no\nway"), "{format}: {failed:?}");
        assert_eq!(at(find(&records, message, "caught"), kind), "KeyError", "{format}");
        let elsewhere = find(&records, message, "from elsewhere");
        assert!(elsewhere.get(trace).is_none(), "{format}: {elsewhere:?}");
        for line in objects(&server.stdout()) {
            assert_eq!((at(&line, id).as_str(), at(&line, trace).as_str()), ("r-1", TRACE), "{format}");
        }
        server.allow("");
        server.finish();
    }
}

#[test]
fn access_lines_have_the_names_that_collectors_know() {
    let table: [(&str, &[(&str, &str)]); 4] = [
        ("json", &[("method", "GET"), ("target", "/a?b=c"), ("scheme", "http"), ("host", "here:1")]),
        (
            "json-ecs",
            &[("http.request.method", "GET"), ("url.path", "/a"), ("url.query", "b=c"), ("url.domain", "here")],
        ),
        ("json-gcp", &[("httpRequest/requestMethod", "GET"), ("httpRequest/requestUrl", "http://here:1/a?b=c")]),
        ("json-otel", &[("Attributes/url.path", "/a"), ("Attributes/client.address", "127.0.0.1")]),
    ];
    for (format, members) in table {
        let server = plan(["--log-format", format, "--access-logfile", "-"]).start();
        let mut client = server.connect();
        client.send("GET /a?b=c HTTP/1.1\r\nHost: here:1\r\nUser-Agent: \"x\r\n\r\n");
        assert_eq!(client.read().status, 200);
        wait_until("the line", || server.stdout().ends_with('\n'));
        let line = Json::parse(server.stdout().trim_end());
        for (name, value) in members {
            assert_eq!(text_at(&line, name), *value, "{format}");
        }
        server.finish();
    }
}

#[test]
fn a_line_of_the_changed_loggers_has_the_same_members() {
    // A filter makes Python's logging write the lines.
    let app = format!("{APP}\nlogging.getLogger('gunicorn.access').addFilter(lambda record: True)\n");
    let members = |app: &str| {
        let args = ["--log-format", "json-ecs", "--access-logfile", "-", "--request-id-header", "X-Request-ID"];
        let mut server = Plan::app("app").in_own_folder().file("app.py", app).args(args).start();
        assert_eq!(ask(&server, "/a?b=c", &["X-Request-ID: r-1"]).status, 200);
        wait_until("the line", || server.stdout().ends_with('\n'));
        let Json::Object(members) = Json::parse(server.stdout().trim_end()) else { panic!("no object") };
        server.allow("");
        server.finish();
        let names = members.into_iter().map(|(name, _)| name);
        // What only the server knows.
        let own = ["http.request.bytes", "monoceros.connection", "monoceros.queue"];
        names.filter(|name| !own.contains(&name.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(members(&app), members(APP));
}

#[test]
fn the_sockets_peer_is_told_where_a_proxy_names_the_client() {
    let server = plan(["--proxy-protocol", "v1", "--log-format", "json", "--access-logfile", "-"]).start();
    let mut client = server.connect();
    client.send("PROXY TCP4 10.1.2.3 10.9.9.9 1000 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read().status, 200);
    wait_until("the line", || server.stdout().ends_with('\n'));
    let line = Json::parse(server.stdout().trim_end());
    assert_eq!((text_at(&line, "remote_addr"), text_at(&line, "peer")), ("10.1.2.3", "127.0.0.1"));
    assert!(line.get("connection").expect("a number").number() >= 1.0);
    server.finish();
}

#[test]
fn a_slow_request_shows_where_it_is() {
    for (threads, id) in [("1", "s-1"), ("3", "s-3")] {
        let plan = Plan::app("process").args(["--slow-request", "1", "--slow-request-stack", "--timeout", "0"]);
        let mut server = plan.args(["--request-id-header", "X-Request-ID", "--threads", threads]).start();
        server.wait_for_workers(1);
        let mut client = server.connect();
        client.send(format!("GET /wait?x HTTP/1.1\r\nHost: a\r\nX-Request-ID: {id}\r\n\r\n"));
        server.wait_for_log(&format!("[{id}] Slow request: GET /wait?x from 127.0.0.1 has been in the app for"));
        server.wait_for_log(" in wait\n");
        let log = server.log();
        let (_, stack) = log.split_once("\nStack:\n").expect("a stack");
        assert!(stack.lines().next().is_some_and(|line| line.starts_with("  File \"")), "{log}");
        server.release();
        assert_eq!(client.read().status, 200);
        server.allow("");
        server.finish();
    }
}

#[test]
fn the_journal_is_told_priorities() {
    let plan = plan(["--error-logfile", "-"]);
    let journal = plan.path("stderr");
    fs::write(&journal, "").expect("written");
    let data = fs::metadata(&journal).expect("there");
    use std::os::unix::fs::MetadataExt;
    let mut server = plan.env("JOURNAL_STREAM", format!("{}:{}", data.dev(), data.ino())).start();
    assert_eq!(ask(&server, "/fail", &[]).status, 500);
    wait_until("the error", || server.log().contains("ValueError"));
    let log = server.log();
    assert!(log.starts_with("<6>["), "{log}");
    let error: Vec<&str> = log.lines().skip_while(|line| !line.contains("Error handling")).collect();
    assert!(error.len() > 3 && error.iter().all(|line| line.starts_with("<3>")), "{log}");
    server.allow("");
    server.finish();
}

#[test]
fn syslog_gets_messages_of_rfc_5424_from_the_server_itself() {
    expect_messages_of_rfc_5424(false);
}

#[test]
fn syslog_gets_the_same_messages_once_the_loggers_are_changed() {
    expect_messages_of_rfc_5424(true);
}

fn expect_messages_of_rfc_5424(is_changed: bool) {
    let daemon = UdpSocket::bind("127.0.0.1:0").expect("a port");
    daemon.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let address = format!("udp://{}", daemon.local_addr().expect("bound"));
    let args = ["--log-syslog", "--log-syslog-to", &address, "--log-syslog-format", "rfc5424"];
    let prefix = ["--log-syslog-prefix", "shop", "--log-syslog-facility", "local0"];
    let plan = with_loggers(plan(args), is_changed).args(prefix).args(["--request-id-header", "X-Request-ID"]);
    let mut server = plan.start();
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(ask(&server, "/fail?a", &["X-Request-ID: r-1"]).status, 500);
    let (mut buffer, mut heard) = ([0; 4096], Vec::new());
    while heard.len() < 50 && !heard.iter().any(|line: &String| line.contains(" access - ")) {
        let count = daemon.recv(&mut buffer).expect("a message");
        heard.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
    }
    // facility 16, severity 6
    assert!(heard[0].starts_with("<134>1 20") && heard[0].contains(" error - Starting monoceros"), "{heard:?}");
    let from_worker = format!(" shop {worker} ");
    let error = heard.iter().find(|line| line.starts_with("<131>1 ")).expect("an error");
    let text = "error - [r-1] Error handling request GET /fail?a\nTraceback";
    assert!(error.contains(&from_worker) && error.contains(text), "{error:?}");
    let access = heard.last().expect("some");
    assert!(access.starts_with("<134>1 ") && access.contains(&from_worker), "{access:?}");
    assert!(
        access.contains(" access - 127.0.0.1 - - ") && access.contains("\"GET /fail?a HTTP/1.1\" 500"),
        "{access:?}"
    );
    // The file has both as well, and the access log none of its own.
    assert!(server.log().contains("[ERROR] [r-1] Error handling request") && server.stdout().is_empty());
    server.allow("");
    server.finish();
}

#[test]
fn a_syslog_that_is_away_costs_no_request() {
    let plan = plan(["--log-syslog", "--log-syslog-format", "rfc5424"]);
    let address = format!("unix://{}", plan.path("nobody").display());
    let server = plan.args(["--log-syslog-to", &address]).start();
    (0..20).for_each(|_| assert_eq!(ask(&server, "/", &[]).status, 200));
    server.finish();
}

/// The sum of the counts of this name.
fn sum(heard: &[String], name: &str) -> u64 {
    let values = heard.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.map(|value| value.split('|').next().expect("a value").parse::<u64>().expect("a number")).sum()
}

/// All lines that an agent has got from a server that has ended.
fn lines_of_all(agent: &UdpSocket) -> Vec<String> {
    agent.set_nonblocking(true).expect("set");
    let (mut buffer, mut heard) = ([0; 4096], Vec::new());
    while let Ok(count) = agent.recv(&mut buffer) {
        heard.extend(String::from_utf8_lossy(&buffer[..count]).lines().map(str::to_owned));
    }
    heard
}

#[test]
fn statsd_is_told_what_the_board_has_counted() {
    expect_counts_at_statsd(false);
}

#[test]
fn statsd_is_told_the_same_once_the_loggers_are_changed() {
    expect_counts_at_statsd(true);
}

fn expect_counts_at_statsd(is_changed: bool) {
    let agent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    agent.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let address = agent.local_addr().expect("bound").to_string();
    let names = ["--statsd-prefix", "shop", "--dogstatsd-tags", "a:b"];
    let plan = plan(["--statsd-host", &address, "--statsd-interval", "1", "--workers", "2"]).args(names);
    let mut server = with_loggers(plan, is_changed).start();
    server.wait_for_workers(2);
    (0..5).for_each(|_| assert_eq!(ask(&server, "/", &[]).status, 200));
    assert_eq!(ask(&server, "/fail", &[]).status, 500);
    let (mut buffer, mut heard) = ([0; 4096], Vec::<String>::new());
    wait_until("all requests", || {
        let count = agent.recv(&mut buffer).expect("a report");
        heard.extend(String::from_utf8_lossy(&buffer[..count]).lines().map(str::to_owned));
        let has = |name: &str, count| sum(&heard, &format!("shop.gunicorn.{name}")) == count;
        has("requests", 6) && has("request.status.200", 5) && has("request.status.500", 1) && has("log.exception", 1)
    });
    assert!(heard.iter().all(|line| line.ends_with("|#a:b")), "{heard:?}");
    assert!(heard.contains(&"shop.gunicorn.workers:2|g|#a:b".to_owned()), "{heard:?}");
    assert!(heard.iter().any(|line| line.starts_with("shop.gunicorn.request.duration:")), "{heard:?}");
    assert_eq!(sum(&heard, "shop.gunicorn.log.error"), 0);
    assert!(server.log().contains("[ERROR] Error handling request GET /fail"), "{}", server.log());
    server.allow("");
    server.finish();
}

#[test]
fn statsd_is_told_once_of_each_request_over_an_upgrade_in_place() {
    let agent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = agent.local_addr().expect("bound").to_string();
    let server = plan(["--statsd-host", &address, "--statsd-interval", "60"]).start();
    let old = server.wait_for_workers(1);
    (0..20).for_each(|_| assert_eq!(ask(&server, "/", &[]).status, 200));
    server.signal_rtmin();
    server.wait_for_log_times("Starting monoceros", 2);
    wait_until("new workers alone", || server.workers() != old && server.has_serving(1));
    assert_eq!(ask(&server, "/", &[]).status, 200);
    server.finish();
    let heard = lines_of_all(&agent);
    assert_eq!(sum(&heard, "gunicorn.requests"), 21, "{heard:?}");
}

#[test]
fn statsd_is_not_told_of_requests_before_a_reload_that_turns_the_reports_on() {
    let agent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let plan = plan([]);
    let path = plan.path("conf.py").display().to_string();
    let server = plan.file("conf.py", "").args(["--config", &path]).start();
    let mut worker = server.wait_for_workers(1)[0];
    let on = format!("statsd_host = '{}'\nstatsd_interval = 60", agent.local_addr().expect("bound"));
    // On, off, and on again.
    for (settings, requests) in [(on.as_str(), 50), ("", 0), (on.as_str(), 50)] {
        (0..requests).for_each(|_| assert_eq!(ask(&server, "/", &[]).status, 200));
        server.write("conf.py", settings);
        server.signal(SIGHUP);
        wait_until("a new worker alone", || {
            server.has_serving(1) && matches!(server.workers()[..], [pid] if pid != worker)
        });
        worker = server.workers()[0];
    }
    (0..7).for_each(|_| assert_eq!(ask(&server, "/", &[]).status, 200));
    server.finish();
    let heard = lines_of_all(&agent);
    assert_eq!(sum(&heard, "gunicorn.requests"), 7, "{heard:?}");
}
