//! Programs that start the server in their turn, and put code of their own into its processes:
//! tracers, and a measure of coverage. Each has a handler for TERM, which it runs before or in
//! place of the server's, or chains.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGHUP, SIGTERM};

use crate::util::nginx::free_port;
use crate::util::server::{Plan, Server};
use crate::util::{is_wheel, programs_venv, root, venv, wait_until};

/// Far below `graceful_timeout`, after which a worker is killed.
const PROMPTLY: Duration = Duration::from_secs(10);

/// A way to start the server.
struct Program {
    name: &'static str,
    /// What stands before the server's command line.
    through: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
}

const DDTRACE: Program = Program {
    name: "ddtrace",
    through: &["ddtrace-run"],
    env: &[
        ("DD_TRACE_STARTUP_LOGS", "false"),
        ("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "false"),
        ("DD_REMOTE_CONFIGURATION_ENABLED", "false"),
        ("DD_TRACE_AGENT_URL", "http://127.0.0.1:1"),
    ],
};

const NEWRELIC: Program = Program {
    name: "newrelic",
    through: &["newrelic-admin", "run-program"],
    // It sends nothing anywhere.
    env: &[("NEW_RELIC_DEVELOPER_MODE", "true"), ("NEW_RELIC_LICENSE_KEY", "none")],
};

const OPENTELEMETRY: Program = Program {
    name: "opentelemetry",
    through: &["opentelemetry-instrument"],
    env: &[("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none"), ("OTEL_LOGS_EXPORTER", "none")],
};

const COVERAGE: Program = Program { name: "coverage", through: &[], env: &[] };

/// Each program's tests, so that one does not hide what the others show.
macro_rules! tests_of {
    ($($module:ident: $program:expr),*) => {$(
        mod $module {
            #[test]
            fn a_request_in_flight_is_answered_when_term_comes_and_the_exit_is_clean() {
                super::run_where_released(&$program, super::stop_with_a_request_in_flight);
            }

            #[test]
            fn an_idle_worker_stops_promptly() {
                super::run_where_released(&$program, super::stop_at_rest);
            }

            #[test]
            fn a_reload_replaces_workers_promptly_and_loses_no_request() {
                super::run_where_released(&$program, super::reload);
            }
        }
    )*};
}

tests_of!(
    ddtrace_run: super::DDTRACE,
    newrelic_admin: super::NEWRELIC,
    opentelemetry_instrument: super::OPENTELEMETRY,
    coverage_with_sigterm: super::COVERAGE
);

/// Runs a test of the program, but of those that do not run on CPython 3.15 by themselves yet.
fn run_where_released(program: &Program, test: fn(&Program)) {
    let is_on_315 = site_packages().parent().is_some_and(|python| python.ends_with("python3.15"));
    if is_on_315 && [DDTRACE.name, NEWRELIC.name].contains(&program.name) {
        return println!("skipped: no release of {} is for CPython 3.15", program.name);
    }
    test(program);
}

/// `coverage run` measures the process in which it starts the script, and saves what it has when
/// the script is left: also a worker has to leave it.
#[test]
fn coverage_run_measures_the_app_in_the_worker() {
    if !is_wheel() {
        return;
    }
    let plan = Plan::app("process").env("PYTHONPATH", site_packages().display().to_string());
    let data = plan.path("coverage").display().to_string();
    let plan = plan.file("coveragerc", &format!("[run]\nparallel = true\ndata_file = {data}\n"));
    let rc = format!("--rcfile={}", plan.path("coveragerc").display());
    let python = venv().join("bin/python").display().to_string();
    let plan = plan.through([python.as_str(), "-m", "coverage", "run", rc.as_str()]);
    let mut server = plan.start();
    expect_its_mark(&COVERAGE, &server);
    server.signal(SIGTERM);
    expect_a_prompt_end(&COVERAGE, &[], &mut server);
}

/// `py-spy` reads the stacks of a process from outside, and finds the interpreter in it by itself.
#[test]
fn py_spy_names_the_apps_lines_in_a_worker() {
    let server = Plan::app("process").start();
    let worker = server.wait_for_workers(1)[0].to_string();
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request to be in the app", || server.entered() == 1);
    let dumped = Command::new(programs_venv().join("bin/py-spy")).args(["dump", "--pid", &worker]).output();
    let dumped = dumped.expect("it is in the virtualenv");
    let (said, complaint) = (String::from_utf8_lossy(&dumped.stdout), String::from_utf8_lossy(&dumped.stderr));
    server.release();
    assert_eq!(client.read().status, 200);
    if complaint.contains("Permission Denied") {
        return println!("skipped: this user may not trace a process that is not its child");
    }
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("process.py:")).collect();
    assert!(lines.iter().any(|line| line.trim_start().starts_with("application (")), "{said}{complaint}");
    server.finish();
}

/// A breakpoint stops the worker that runs the line, and the request goes on behind it.
#[test]
fn debugpy_stops_a_worker_at_a_breakpoint() {
    if !is_wheel() {
        return;
    }
    let app = root().join("tests/apps/process.py");
    let source = fs::read_to_string(&app).expect("it is there");
    let line = 1 + source.lines().position(|line| line.contains("PATH_INFO")).expect("the app reads its path");
    let [debugger, bind] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let python = venv().join("bin/python").display().to_string();
    let plan = Plan::app("process").env("PYTHONPATH", site_packages().display().to_string());
    let plan = plan.through([&*python, "-m", "debugpy", "--listen", &*debugger, "--wait-for-client"]);
    let mut server = plan.bound_elsewhere().args(["--bind", &*bind]).launch();
    let attached = Command::new(python)
        .arg(root().join("tests/data/attach_debugger.py"))
        .args([debugger, app.display().to_string(), line.to_string(), format!("http://{bind}/pid")])
        .output()
        .expect("Python runs");
    let said = String::from_utf8_lossy(&attached.stdout);
    let worker = server.wait_for_workers(1)[0];
    let expected = [format!("breakpoint {worker} application"), worker.to_string()];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{attached:?} {}", server.log());
    server.signal(SIGTERM);
    server.wait_for_exit_within(PROMPTLY);
}

/// `process.py`, started by way of a program. Coverage comes by a `sitecustomize`, as its manual
/// has it for processes that are started by others.
fn plan(program: &Program) -> Plan {
    let mut plan = Plan::app("process").env("VIRTUAL_ENV", programs_venv().display().to_string());
    let mut path = vec![site_packages()];
    if program.name == "coverage" {
        let data = plan.path("coverage").display().to_string();
        plan = plan
            .file("sitecustomize.py", "import coverage\ncoverage.process_startup()\n")
            .file("coveragerc", &format!("[run]\nsigterm = true\nparallel = true\ndata_file = {data}\n"));
        plan = {
            let rc = plan.path("coveragerc").display().to_string();
            plan.env("COVERAGE_PROCESS_START", rc)
        };
        path.insert(0, plan.path(""));
    }
    let path: Vec<String> = path.iter().map(|folder| folder.display().to_string()).collect();
    plan = plan.env("PYTHONPATH", path.join(":"));
    plan = program.env.iter().fold(plan, |plan, (name, value)| plan.env(name, value));
    match program.through {
        [] => plan,
        [first, rest @ ..] => {
            let starter = programs_venv().join("bin").join(first).display().to_string();
            // Some look whether the server runs in the environment that they were started in.
            let interpreter = is_wheel().then(|| venv().join("bin/python").display().to_string());
            let plan = interpreter.iter().fold(plan, |plan, python| plan.through([python.as_str()]));
            let plan = plan.through([starter.as_str()]);
            rest.iter().fold(plan, |plan, word| plan.through([*word]))
        }
    }
}

/// Where the programs' modules lie: the script of the wheel has an interpreter of its own.
fn site_packages() -> PathBuf {
    let lib = fs::read_dir(programs_venv().join("lib")).expect("scripts/test has made it");
    let python = lib.flatten().map(|entry| entry.path()).next().expect("one Python");
    python.join("site-packages")
}

/// The proof that each program's code runs in the worker.
fn expect_its_mark(program: &Program, server: &Server) {
    let loaded = server.get(&format!("/loaded?{}", program.name)).text();
    assert_eq!(loaded, "true", "{} is not in the worker", program.name);
}

fn stop_with_a_request_in_flight(program: &Program) {
    for args in [&[][..], &["--threads", "4"], &["--workers", "2"]] {
        let plan = args.iter().fold(plan(program), |plan, word| plan.args([*word]));
        let mut server = plan.start();
        server.wait_for_workers(if args.contains(&"2") { 2 } else { 1 });
        expect_its_mark(program, &server);
        let mut client = server.connect();
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        wait_until("the request to be in the app", || server.entered() == 1);
        server.signal(SIGTERM);
        server.wait_for_log("Handling signal: term");
        server.release();
        assert_eq!(client.read().status, 200, "{} {args:?}", program.name);
        expect_a_prompt_end(program, args, &mut server);
    }
}

fn stop_at_rest(program: &Program) {
    for args in [&[][..], &["--threads", "4"]] {
        let plan = args.iter().fold(plan(program), |plan, word| plan.args([*word]));
        let mut server = plan.start();
        expect_its_mark(program, &server);
        server.signal(SIGTERM);
        expect_a_prompt_end(program, args, &mut server);
    }
}

/// A server that was told to stop ends in good order, and leaves only the files that it should.
fn expect_a_prompt_end(program: &Program, args: &[&str], server: &mut Server) {
    let (status, took) = server.wait_for_exit_within(PROMPTLY);
    assert_eq!(status.code(), Some(0), "{} {args:?} after {took:?}: {}", program.name, server.log());
    expect_no_kill(server);
    expect_data(program, server);
    take_away_what_ddtrace_leaves(server);
    server.expect_gone();
}

/// A file for its symbol database, whether or not that is on.
fn take_away_what_ddtrace_leaves(server: &Server) {
    for entry in fs::read_dir(server.path("tmp")).expect("a folder").flatten() {
        if entry.file_name().to_string_lossy().ends_with("-symdb-pids") {
            fs::remove_file(entry.path()).expect("it is ours");
        }
    }
}

fn reload(program: &Program) {
    let server = plan(program).start();
    expect_its_mark(program, &server);
    let before = server.wait_for_workers(1);
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request to be in the app", || server.entered() == 1);
    server.signal(SIGHUP);
    wait_until("the new worker", || server.workers().iter().any(|pid| !before.contains(pid)));
    server.release();
    assert_eq!(client.read().status, 200, "{}", program.name);
    wait_until("the new worker alone", || server.workers() != before && server.has_serving(1));
    expect_no_kill(&server);
    expect_data(program, &server);
}

/// The programs' own log lines may say anything; the master's lines tell how the workers ended.
fn expect_no_kill(server: &Server) {
    let log = server.log();
    for word in ["SIGKILL", "was sent SIGTERM", "exited with code", "WORKER TIMEOUT", "Cannot set up"] {
        assert!(!log.contains(word), "{word} in the log:\n{log}");
    }
}

/// Coverage has written what it measured.
fn expect_data(program: &Program, server: &Server) {
    if program.name != "coverage" {
        return;
    }
    let files = || fs::read_dir(server.path("")).expect("the test's folder").flatten().map(|entry| entry.path());
    let data =
        files().filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("coverage.")));
    let mut measured = data.filter_map(|path| fs::read(path).ok());
    let has_app = |bytes: Vec<u8>| memchr::memmem::find(&bytes, b"process.py").is_some();
    assert!(measured.any(has_app), "no data of the app in {:?}", files().collect::<Vec<_>>());
}
