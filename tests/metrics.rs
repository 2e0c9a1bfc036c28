//! `metrics_bind`: what Prometheus reads, also while everything is busy.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::signal::Signal::{SIGHUP, SIGTERM};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::util::client::{Address, Client};
use crate::util::load::version;
use crate::util::metrics::{Samples, ask, measured, read, samples, sum};
use crate::util::process;
use crate::util::server::{Plan, Server};
use crate::util::tls::{Authority, Key, openssl, python};
use crate::util::{PATIENCE, root, tools, venv, wait_until};

fn serve<const N: usize>(app: &str, args: [&str; N]) -> (Server, Address) {
    measured(Plan::app(app).args(args))
}

#[test]
fn a_crowd_that_asks_for_metrics_keeps_no_client_of_the_app_waiting() {
    let (server, address) = serve("echo", ["--workers", "1", "--timeout", "5"]);
    let worker = server.wait_for_workers(1);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    assert_eq!(ask(&address, &[]).status, 200);
                }
            });
        }
        let _end = process::SetOnDrop(&is_over);
        for _ in 0..50 {
            assert_eq!(server.get("/").status, 200);
        }
    });
    assert_eq!(server.workers(), worker, "{}", server.log());
    server.finish();
}

#[test]
fn requests_are_counted_by_what_became_of_them() {
    let (mut server, address) = serve("echo", ["--workers", "2", "--health-path", "/healthz"]);
    server.allow("Invalid request");
    server.wait_for_workers(2);
    let mut sent = 0.0;
    for _ in 0..5 {
        let response = server.get("/");
        assert_eq!(response.status, 200);
        sent += response.body.len() as f64;
    }
    server.get("/healthz");
    let mut broken = server.connect();
    broken.send("GET / HTTP/9.9\r\n\r\n");
    assert_eq!(broken.read().status, 400);
    // A request is counted behind its response, and its bytes last.
    wait_until("the counts", || {
        let found = read(&address);
        let is_refused = found.get("monoceros_responses_total{code=\"400\"}") == Some(&1.0);
        is_refused && sum(&found, "monoceros_sent_bytes_total") == sent && found["monoceros_threads_busy"] == 0.0
    });
    let found = read(&address);
    let sum = |name: &str| sum(&found, name);
    assert_eq!(sum("monoceros_requests_total"), 5.0, "{found:?}");
    assert_eq!(found["monoceros_responses_total{code=\"200\"}"], 5.0);
    assert_eq!(found["monoceros_requests_refused_total{reason=\"request_line\"}"], 1.0);
    assert_eq!(found["monoceros_request_duration_seconds_count"], 5.0);
    assert_eq!(found["monoceros_queue_seconds_bucket{le=\"+Inf\"}"], 5.0);
    assert_eq!((found["monoceros_workers{state=\"ready\"}"], found["monoceros_workers_wanted"]), (2.0, 2.0));
    assert_eq!((found["monoceros_threads"], found["monoceros_threads_busy"]), (2.0, 0.0));
    assert!(sum("monoceros_connections_accepted_total") >= 7.0 && sum("monoceros_received_bytes_total") > 100.0);
    assert!(sum("monoceros_busy_seconds_total") > 0.0 && sum("monoceros_worker_resident_memory_bytes") > 1e6);
    let port = server.address.port();
    assert!(sum("monoceros_attach_seconds_total") > 0.0, "{found:?}");
    assert_eq!(found["monoceros_log_lines_dropped_total"], 0.0);
    assert!(found["process_open_fds"] > 3.0 && found["process_max_fds"] >= found["process_open_fds"], "{found:?}");
    assert!(found[&format!("monoceros_listener_backlog_limit{{listener=\"127.0.0.1:{port}\"}}")] >= 128.0, "{found:?}");
    server.finish();
}

#[test]
fn open_files_of_workers_are_counted_for_who_asks() {
    let (server, address) = serve("echo", []);
    let worker = server.wait_for_workers(1)[0];
    let told = |query: &str| {
        let page = Client::connect(&address).get(&format!("/metrics{query}"));
        samples(&page.text()).get("monoceros_worker_open_fds{worker=\"0\"}").copied()
    };
    assert_eq!((told(""), told("?open_fds=0")), (None, None));
    // The connection that asks is one of them.
    wait_until("the connections before to be over", || {
        told("?x=y&open_fds=1") == Some(process::open_files(worker) as f64 + 1.0)
    });
    server.finish();
}

#[test]
fn lines_that_nobody_takes_are_counted() {
    let plan = Plan::app("echo").args(["--threads", "2"]);
    let pipe = plan.path("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe in a fresh folder");
    let mut reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).expect("a pipe");
    // SAFETY: the descriptor is open, and the call touches no memory.
    assert!(unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) } >= 4096);
    let (server, address) = measured(plan.args(["--access-logfile", pipe.to_str().expect("a plain path")]));
    server.wait_for_workers(1);
    let mut client = server.connect();
    (0..200).for_each(|_| assert_eq!(client.get("/").status, 200));
    let mut taken = Vec::new();
    wait_until("each line to be taken or counted", || {
        // It ends with EAGAIN.
        let _ = reader.read_to_end(&mut taken);
        let lines = taken.iter().filter(|&&byte| byte == b'\n').count() as f64;
        read(&address)["monoceros_log_lines_dropped_total"] + lines == 200.0
    });
    assert!(read(&address)["monoceros_log_lines_dropped_total"] > 50.0);
    server.finish();
}

#[test]
fn handshakes_are_counted_by_what_came_of_them_and_certificates_by_their_end() {
    let root = Authority::root("Test root");
    let issued = root.server(Key::Ecdsa, &["localhost"]);
    let plan = Plan::app("echo").tls(&issued);
    let file = plan.path("server.pem").display().to_string();
    let (mut server, address) = measured(plan);
    server.allow("handshake");
    server.wait_for_workers(1);
    let trust = root.trust();
    let port = server.address.port();
    for _ in 0..3 {
        let mut client = Client::connect(&Address::Tls(port, trust.clone()));
        assert_eq!(client.get("/").status, 200);
    }
    let mut broken = Client::connect(&Address::Tcp(port));
    // A record of a handshake (RFC 8446, 5.1) with nonsense in it.
    broken.send([22, 3, 1, 0, 4, 99, 0, 0, 0]);
    let result = |found: &Samples, of: &str| found[&format!("monoceros_tls_handshakes_total{{result=\"{of}\"}}")];
    wait_until("the failure to be counted", || result(&read(&address), "failed") == 1.0);
    let found = read(&address);
    // The first has no session to resume; the others may have one each.
    assert_eq!((result(&found, "full"), result(&found, "resumed")), (1.0, 2.0), "{found:?}");
    let expiry = found[&format!("monoceros_tls_certificate_expiry_timestamp_seconds{{name=\"{file}\"}}")];
    let end = openssl(&["x509", "-enddate", "-noout"], &issued.certificate).text;
    let in_seconds = "import ssl, sys; print(ssl.cert_time_to_seconds(sys.argv[1]))";
    let expected = python(in_seconds, &[end.trim().trim_start_matches("notAfter=")]);
    assert_eq!(expiry.to_string(), expected, "{end}");
    server.finish();
}

#[test]
fn a_reload_that_fails_moves_no_time_of_success() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1));
    let (mut server, address) = measured(plan);
    server.allow("");
    server.wait_for_workers(1);
    let name = "monoceros_last_reload_success_timestamp_seconds";
    assert!(!read(&address).contains_key(name));
    server.signal(SIGHUP);
    wait_until("the reload", || read(&address).contains_key(name));
    let first = read(&address)[name];
    server.write("app.py", "raise RuntimeError");
    server.signal(SIGHUP);
    wait_until("the failure", || read(&address)["monoceros_last_reload_successful"] == 0.0);
    assert_eq!(read(&address)[name], first);
    server.finish();
}

#[test]
fn nothing_but_metrics_is_to_be_had_there_and_no_metrics_elsewhere() {
    let (server, address) = serve("echo", []);
    for (target, status) in [("/", 404), ("/metrics/x", 404), ("/healthz", 200)] {
        assert_eq!(Client::connect(&address).get(target).status, status, "{target}");
    }
    assert!(server.get("/metrics").text().contains("PATH_INFO"), "it is the app's");
    let mut endless = Client::connect(&address);
    let _ = endless.try_send(format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(20_000)));
    assert_eq!(endless.read().status, 431);
    server.finish();
}

#[test]
fn both_formats_are_as_their_own_readers_want_them() {
    let (server, address) = serve("echo", ["--workers", "2"]);
    server.wait_for_workers(2);
    (0..3).for_each(|_| assert_eq!(server.get("/").status, 200));
    let plain = ask(&address, &[]);
    assert_eq!(plain.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    if tools::has("prometheus") {
        assert_eq!(fed(Command::new("promtool").args(["check", "metrics"]), &plain.body), "");
    }
    let open = ask(&address, &["Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"]);
    assert_eq!(open.header("Content-Type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let program = "import sys\n\
                   from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict\n\
                   print(sum(1 for _ in strict(sys.stdin.read())))";
    let families = fed(Command::new(venv().join("bin/python")).args(["-c", program]), &open.body);
    assert!(families.trim().parse::<usize>().expect("a number") > 30, "{families}");
    server.finish();
}

/// What a program prints that is fed with `input`; it must like it.
#[track_caller]
fn fed(command: &mut Command, input: &[u8]) -> String {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program starts");
    child.stdin.take().expect("piped").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn metrics_are_answered_while_every_thread_is_busy_and_through_the_drain() {
    let (mut server, address) = serve("process", ["--threads", "2", "--shutdown-delay", "1", "--timeout", "0"]);
    server.wait_for_workers(1);
    let mut clients: Vec<_> = (0..2).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"));
    wait_until("every thread to be in the app", || server.entered() == 2);
    let found = read(&address);
    assert_eq!((found["monoceros_threads_busy"], found["monoceros_requests_in_flight"]), (2.0, 2.0));
    assert_eq!(found["monoceros_connections{state=\"active\"}"], 2.0);
    let busy = |found: &BTreeMap<String, f64>| found["monoceros_busy_seconds_total{worker=\"0\"}"];
    wait_until("running requests to count", || busy(&read(&address)) > busy(&found) + 0.2);
    assert!(read(&address)["monoceros_oldest_request_seconds"] > 0.1);
    server.signal(SIGTERM);
    server.wait_for_log("Serving on for 1 s before the stop");
    assert_eq!(Client::connect(&address).get("/healthz").status, 503);
    // Past the delay, the worker drains.
    wait_until("the drain", || read(&address)["monoceros_workers{state=\"draining\"}"] == 1.0);
    server.release();
    clients.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
    server.wait_for_exit_within(PATIENCE);
    assert!(Client::try_connect(&address).is_err(), "it is closed with the server");
}

#[test]
fn an_address_that_cannot_be_had_ends_the_start_with_a_sentence() {
    let plan = Plan::app("echo").args(["--metrics-bind", "unix:/proc/nowhere/metrics.sock"]);
    let finished = plan.run();
    assert_eq!(finished.code, Some(1));
    let said = "metrics_bind: cannot listen at /proc/nowhere/metrics.sock";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
}

/// Alert rules and dashboard are made of metrics that there are.
#[test]
fn the_examples_ask_for_metrics_that_there_are() {
    let (server, address) = serve("echo", []);
    server.wait_for_workers(1);
    assert_eq!(server.get("/").status, 200);
    let page = ask(&address, &[]).text();
    // Families without a sample yet are in the source.
    let source = std::fs::read_to_string(root().join("src/metrics/families.rs")).expect("the source");
    for file in ["examples/prometheus/alerts.yml", "examples/grafana/monoceros.json", "docs/observability.md"] {
        let text = std::fs::read_to_string(root().join(file)).expect("an example");
        let is_part = |character: char| character == '_' || character.is_ascii_lowercase();
        for name in text.split(|character| !is_part(character)).filter(|word| word.starts_with("monoceros_")) {
            let bare =
                ["_total", "_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.trim_end_matches(end));
            let is_known = page.contains(&format!("# TYPE {name} ")) || source.contains(&format!("\"{bare}\""));
            assert!(is_known || bare == "monoceros_", "{name} in {file}");
        }
    }
    if tools::has("prometheus") {
        let rules = root().join("examples/prometheus/alerts.yml");
        fed(Command::new("promtool").args(["check", "rules"]).arg(rules), b"");
    }
    server.finish();
}

#[test]
fn a_number_that_lasts_keeps_the_files_of_an_app_from_growing() {
    let app = "import os\nfrom prometheus_client import Counter\nhits = Counter('hits', 'Hits')\n\
               first = os.environ['MONOCEROS_WORKER']\n\
               def application(environ, start_response):\n    hits.inc()\n    start_response('200 OK', [])\n    return [first.encode()]\n";
    let conf = "def post_fork(server, worker):\n    from prometheus_client import values\n    \
                values.ValueClass = values.MultiProcessValue(process_identifier=lambda: worker.number)\n";
    let plan = Plan::app("app").in_own_folder().started_in_own_folder();
    let plan = plan.file("app.py", app).file("gunicorn.conf.py", conf);
    let folder = plan.path("gate");
    let server = plan.env("PROMETHEUS_MULTIPROC_DIR", folder.to_str().expect("a plain path")).start();
    let mut numbers = Vec::new();
    for _ in 0..5 {
        let workers = server.wait_for_workers(1);
        numbers.push(server.get("/").text());
        server.signal(SIGHUP);
        wait_until("the next worker", || server.workers() != workers && server.has_serving(1));
    }
    // Two at a time, or three where the master has not yet heard of an end.
    assert!(numbers.iter().all(|number| ["0", "1", "2"].contains(&number.as_str())), "{numbers:?}");
    let files = server.gate_files("counter_");
    assert!(files.len() <= 3, "{files:?}");
    server.finish();
}
