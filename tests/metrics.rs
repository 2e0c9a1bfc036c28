//! `metrics_bind`: what Prometheus reads, also while everything is busy, and that no total ever
//! falls.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGTERM, SIGTTIN, SIGTTOU};

use crate::util::client::{Address, Client, Response};
use crate::util::load::{Load, version};
use crate::util::server::{Plan, Server, send};
use crate::util::{PATIENCE, root, tools, venv, wait_until};

/// Where the metrics of a server are, which has a port of the kernel's choice for them.
fn metrics_of(server: &Server) -> Address {
    server.wait_for_log("Metrics at: ");
    let log = server.log();
    let line = log.lines().rev().find_map(|line| line.split_once("Metrics at: http://127.0.0.1:")).expect("a line");
    Address::Tcp(line.1.split('/').next().expect("a port").parse().expect("a port"))
}

fn ask(address: &Address, headers: &[&str]) -> Response {
    Client::connect(address).request("GET", "/metrics", headers, b"")
}

/// Each sample by its name and labels.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(sample).collect()
}

fn read(address: &Address) -> BTreeMap<String, f64> {
    samples(&ask(address, &[]).text())
}

fn serve<const N: usize>(app: &str, args: [&str; N]) -> (Server, Address) {
    let server = Plan::app(app).args(["--metrics-bind", "127.0.0.1:0"]).args(args).start();
    let address = metrics_of(&server);
    (server, address)
}

#[test]
fn requests_are_counted_by_what_became_of_them() {
    let (mut server, address) = serve("echo", ["--workers", "2", "--health-path", "/healthz"]);
    server.allow("Invalid request");
    server.wait_for_workers(2);
    for _ in 0..5 {
        assert_eq!(server.get("/").status, 200);
    }
    server.get("/healthz");
    let mut broken = server.connect();
    broken.send("GET / HTTP/9.9\r\n\r\n");
    assert_eq!(broken.read().status, 400);
    wait_until("the counts", || read(&address).get("monoceros_responses_total{code=\"400\"}") == Some(&1.0));
    let found = read(&address);
    let sum = |name: &str| -> f64 {
        found.iter().filter(|(key, _)| key.split('{').next() == Some(name)).map(|(_, value)| value).sum()
    };
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
    assert!(found[&format!("monoceros_listener_backlog_limit{{listener=\"127.0.0.1:{port}\"}}")] >= 128.0, "{found:?}");
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
fn no_total_ever_falls_whatever_dies() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1));
    let plan = plan.args(["--metrics-bind", "127.0.0.1:0", "--workers", "2"]);
    let mut server = plan.start();
    let address = metrics_of(&server);
    server.wait_for_workers(2);
    let is_over = AtomicBool::new(false);
    let load = thread::scope(|scope| {
        let scraper = scope.spawn(|| watch_totals(&address, &is_over));
        // Also where something below fails: the scope waits for the scraper.
        let _end = EndOf(&is_over);
        let load = Load::during(&server.address, 2, |_| {
            for round in 0..3 {
                let workers = server.workers();
                send(workers[round % workers.len()], SIGKILL);
                wait_until("another worker", || server.has_serving(2) && server.workers() != workers);
                for signal in [SIGTTIN, SIGTTOU, SIGHUP] {
                    server.signal(signal);
                    thread::sleep(Duration::from_millis(100));
                }
                wait_until("the reload", || read(&address)["monoceros_reloads_total{outcome=\"ok\"}"] > round as f64);
            }
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(scraper.join().expect("no total fell") > 10);
        load
    });
    wait_until("quiet", || read(&address)["monoceros_requests_in_flight"] == 0.0);
    let found = read(&address);
    let requests: f64 =
        found.iter().filter(|(name, _)| name.starts_with("monoceros_requests_total{")).map(|(_, value)| value).sum();
    let cut_off = load.cut_off() as f64;
    // Those in a worker that was killed are not counted, or counted and not answered.
    let (least, most) = (load.ok() as f64 - cut_off - 12.0, load.ok() as f64 + cut_off + 12.0);
    assert!((least..=most).contains(&requests), "{requests} counted: {load}");
    assert!(found["monoceros_worker_exits_total{cause=\"killed\"}"] >= 3.0, "{found:?}");
    assert!(found["monoceros_worker_exits_total{cause=\"reload\"}"] >= 3.0, "{found:?}");
    server.allow("was sent SIGKILL");
    server.finish();
}

/// Says at its end that something is over.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads every 50 ms until it `is_over`; says how often.
fn watch_totals(address: &Address, is_over: &AtomicBool) -> usize {
    let (mut before, mut scrapes) = (BTreeMap::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::try_connect(address) else { continue };
        client.send("GET /metrics HTTP/1.1\r\n\r\n");
        // The worker that has accepted it may be the one that is killed.
        let Ok(page) = client.read_for("GET") else { continue };
        let now = samples(&page.text());
        for (name, value) in now.iter().filter(|(name, _)| is_total(name)) {
            let earlier: f64 = before.get(name).copied().unwrap_or_default();
            assert!(*value >= earlier, "{name} fell from {earlier} to {value}");
        }
        (before, scrapes) = (now, scrapes + 1);
        thread::sleep(Duration::from_millis(50));
    }
    scrapes
}

fn is_total(name: &str) -> bool {
    let name = name.split('{').next().unwrap_or_default();
    ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
}

#[test]
fn a_connection_that_waits_in_the_kernel_has_queued() {
    let (server, address) = serve("process", ["--timeout", "0"]);
    server.wait_for_workers(1);
    let mut first = server.connect();
    first.send("GET /sleep?0.6 HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request in the app", || read(&address)["monoceros_requests_in_flight"] == 1.0);
    // The only thread is busy: this one waits to be accepted.
    assert_eq!(server.get("/pid").status, 200);
    assert_eq!(first.read().status, 200);
    let found = read(&address);
    let waited = found["monoceros_queue_seconds_sum"];
    assert!((0.3..0.9).contains(&waited), "{waited}");
    assert_eq!(found["monoceros_queue_seconds_bucket{le=\"0.1\"}"], 1.0);
    assert!((0.6..0.9).contains(&found["monoceros_busy_seconds_total{worker=\"0\"}"]), "{found:?}");
    server.finish();
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
        wait_until("the next worker", || server.has_serving(1) && server.workers() != workers);
    }
    assert!(numbers.iter().all(|number| number == "0" || number == "1"), "{numbers:?}");
    let files = server.gate_files("counter_");
    assert!(files.len() <= 2, "{files:?}");
    server.finish();
}
