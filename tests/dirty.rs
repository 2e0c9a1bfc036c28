//! Dirty workers: an installed gunicorn's own code below the server's master.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};

use crate::util::json::Json;
use crate::util::server::{Plan, Server, send};
use crate::util::{gunicorn_packages, is_root, process, wait_at_most, wait_until};

/// A stop waits for nothing, so it takes a fraction of a second, and more only where the machine is
/// busy; a worker that does not end takes `graceful_timeout`, 30 s.
const PROMPT: Duration = Duration::from_secs(5);

/// Each hook of a pool leaves a line in the log, with the process that it runs in.
const HOOKS: &str = "import os\n\
    def on_dirty_starting(arbiter): arbiter.log.info('on_dirty_starting %s %s', os.getpid(), arbiter.pid)\n\
    def dirty_post_fork(arbiter, worker): arbiter.log.info('dirty_post_fork %s %s', os.getpid(), worker.pid)\n\
    def dirty_worker_init(worker): worker.log.info('dirty_worker_init %s %s', os.getpid(), worker.booted)\n\
    def dirty_worker_exit(arbiter, worker): arbiter.log.info('dirty_worker_exit %s %s', os.getpid(), worker.pid)\n\
    def when_ready(server): server.log.info('when_ready with %s', server.dirty_arbiter_pid)\n";

fn plan() -> Plan {
    beside_gunicorn(Plan::app("dirty")).args(["--dirty-app", "dirty:Calc", "--dirty-workers", "2"])
}

/// The same app in the test's own folder, where it can be changed.
fn plan_of_own() -> Plan {
    let app = std::fs::read_to_string(crate::util::apps().join("dirty.py")).expect("the app");
    beside_gunicorn(Plan::app("dirty").in_own_folder().file("dirty.py", &app)).args([
        "--dirty-app",
        "dirty:Calc",
        "--dirty-workers",
        "1",
    ])
}

fn beside_gunicorn(plan: Plan) -> Plan {
    plan.env("PYTHONPATH", gunicorn_packages())
}

/// The dirty arbiter that was started last.
fn arbiter(server: &Server) -> i32 {
    server.wait_for_log("Spawned dirty arbiter");
    let log = server.log();
    let line = log.lines().rev().find_map(|line| line.split_once("Spawned dirty arbiter (pid: ")).expect("an arbiter");
    line.1.split(')').next().and_then(|pid| pid.parse().ok()).expect("its pid")
}

fn wait_for_pool(server: &Server, workers: usize) -> Vec<i32> {
    let arbiter = arbiter(server);
    server.wait_for_log_times("Dirty worker ", workers);
    wait_until("the dirty workers", || process::children(arbiter).len() == workers);
    wait_until("an answer", || call(server, "/execute/dirty:Calc/add/1") == Json::Number(1.0));
    process::children(arbiter)
}

fn call(server: &Server, target: &str) -> Json {
    server.get(target).json()
}

/// The class of the error that a call ends with.
fn error(server: &Server, target: &str) -> String {
    call(server, target)["error"].text().to_owned()
}

fn pid(server: &Server, app: &str) -> i32 {
    call(server, &format!("/execute/{app}/pid")).number() as i32
}

/// Tells the server to end, which takes no longer than it must, and leaves nothing.
fn finish(mut server: Server) {
    server.signal(SIGTERM);
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(took < PROMPT, "{took:?}\n{}", server.log());
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn calls_streams_and_stash_answer_as_under_gunicorn() {
    let plan = plan().file("conf.py", HOOKS);
    let (conf, errors) = (plan.path("conf.py").display().to_string(), plan.path("errors.log"));
    let mut server = plan
        .args(["--config", &conf, "--dirty-app", "dirty:Rare", "--dirty-timeout", "3"])
        .error_log("errors.log")
        .start();
    let workers = wait_for_pool(&server, 2);
    let arbiter = arbiter(&server);
    server.wait_for_log(&format!("when_ready with {arbiter}"));
    server.wait_for_log(&format!("on_dirty_starting {arbiter} {arbiter}"));
    for worker in &workers {
        server.wait_for_log(&format!("dirty_post_fork {arbiter} {worker}"));
        server.wait_for_log(&format!("dirty_worker_init {worker} False"));
    }
    assert_eq!(call(&server, "/execute/dirty:Calc/add/1/2"), Json::Number(3.0));
    assert_eq!(error(&server, "/execute/dirty:None/add/1"), "DirtyNoWorkersAvailableError");
    for action in ["_hidden", "fail", "missing"] {
        let said = call(&server, &format!("/execute/dirty:Calc/{action}"));
        assert_eq!(said["error"].text(), "DirtyAppError", "{action}");
        assert!(said["text"].text().contains("Traceback"), "{action}: {said:?}");
    }
    assert_eq!(error(&server, "/impatient/dirty:Calc/sleep/400"), "DirtyTimeoutError");
    assert_eq!(call(&server, "/stream/dirty:Calc/count/3").list().len(), 3);
    assert_eq!(error(&server, "/execute/dirty:Calc/count/3"), "DirtyError", "a stream that was not asked for as one");
    assert_eq!(call(&server, "/stash/one/7"), Json::Number(7.0));
    assert_eq!(call(&server, "/execute/dirty:Calc/remember/8"), Json::Number(8.0));
    assert_eq!(call(&server, "/stash/last"), Json::Number(8.0));
    // One worker has the app that asks for one.
    let rare = pid(&server, "dirty:Rare");
    assert!((0..4).all(|_| pid(&server, "dirty:Rare") == rare) && workers.contains(&rare));
    // The logs of all of them are reopened.
    std::fs::rename(&errors, errors.with_extension("old")).expect("a log");
    server.signal(SIGUSR1);
    wait_until("the log", || errors.exists());
    let said_anew = || {
        let _ = call(&server, "/execute/dirty:Calc/fail");
        std::fs::read_to_string(&errors).unwrap_or_default().matches("Error executing").count() > 3
    };
    wait_until("dirty workers that write to the new log", said_anew);
    for text in ["Error executing", "Traceback", "ValueError", "DirtyApp", "AttributeError", "[WARNING]", "[ERROR]"] {
        server.allow(text);
    }
    finish(server);
}

#[test]
fn what_is_killed_comes_back_and_leaves_no_orphans() {
    let mut server = plan().start();
    let workers = wait_for_pool(&server, 2);
    let (first, socket) = (arbiter(&server), call(&server, "/socket").text().to_owned());
    send(workers[0], SIGKILL);
    wait_until("another dirty worker", || {
        let now = process::children(first);
        now.len() == 2 && !now.contains(&workers[0])
    });
    assert_eq!(call(&server, "/execute/dirty:Calc/add/1/2"), Json::Number(3.0));
    let orphans = process::children(first);
    send(first, SIGKILL);
    wait_until("the end of the workers", || orphans.iter().all(|&worker| !process::is_alive(worker)));
    wait_until("an answer", || call(&server, "/execute/dirty:Calc/add/1/2") == Json::Number(3.0));
    assert_ne!(arbiter(&server), first);
    assert_eq!(call(&server, "/socket").text(), socket, "the same workers, the same path");
    // Files of the first one are gone.
    let folder = PathBuf::from(socket).parent().expect("a folder").to_owned();
    assert!(!folder.join(first.to_string()).exists());
    for text in ["was sent SIGKILL!", "killed by signal 9", "executing on worker"] {
        server.allow(text);
    }
    finish(server);
}

#[test]
fn a_reload_brings_new_code_and_other_settings_a_pool_of_their_own() {
    let plan = plan_of_own().file("conf.py", "dirty_timeout = 300\n");
    let conf = plan.path("conf.py").display().to_string();
    let server = plan.args(["--config", &conf]).start();
    let worker = wait_for_pool(&server, 1)[0];
    let (first, socket) = (arbiter(&server), call(&server, "/socket").text().to_owned());
    assert_eq!(call(&server, "/stash/kept/7"), Json::Number(7.0));
    let app = std::fs::read_to_string(server.path("dirty.py")).expect("the app");
    server.write("dirty.py", &app.replace("return one + other", "return one + other + 100"));
    server.signal(SIGHUP);
    wait_until("the new code", || call(&server, "/execute/dirty:Calc/add/1/2") == Json::Number(103.0));
    wait_until("the end of the old worker", || !process::is_alive(worker));
    assert_eq!((arbiter(&server), call(&server, "/stash/kept")), (first, Json::Number(7.0)));
    server.write("conf.py", "dirty_timeout = 200\n");
    server.signal(SIGHUP);
    wait_until("another arbiter", || arbiter(&server) != first);
    wait_until("the end of the first one", || !process::is_alive(first));
    assert_eq!(call(&server, "/execute/dirty:Calc/add/1/2"), Json::Number(103.0));
    assert_ne!(call(&server, "/socket").text(), socket);
    assert!(!PathBuf::from(socket).exists());
    // A reload that fails takes its pool along.
    let (second, mut server) = (arbiter(&server), server);
    server.write("conf.py", "dirty_timeout = 100\n");
    server.write("dirty.py", "broken = ");
    server.signal(SIGHUP);
    server.wait_for_log("Reload failed");
    let third = arbiter(&server);
    wait_until("the end of its arbiter", || third != second && !process::is_alive(third));
    assert_eq!(call(&server, "/execute/dirty:Calc/add/1/2"), Json::Number(103.0));
    for text in ["Traceback", "SyntaxError", "[ERROR]", "[WARNING]"] {
        server.allow(text);
    }
    finish(server);
}

#[test]
fn a_request_in_flight_gets_its_answer_and_quit_waits_for_none() {
    let server = plan().start();
    wait_for_pool(&server, 2);
    let mut client = server.connect();
    client.send("GET /execute/dirty:Calc/sleep/500 HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the action", || server.entered() == 1);
    server.signal(SIGTERM);
    assert_eq!(client.read().text(), "\"slept\"");
    finish_by_itself(server, 2);

    let server = plan().start();
    wait_for_pool(&server, 2);
    let mut client = server.connect();
    client.send("GET /execute/dirty:Calc/sleep/9000 HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the action", || server.entered() == 1);
    server.signal(SIGQUIT);
    finish_by_itself(server, 1);
}

#[test]
fn the_masters_death_ends_all_of_them_and_leaves_nothing() {
    let mut server = plan().start();
    wait_for_pool(&server, 2);
    server.signal(SIGKILL);
    server.wait_for_exit();
    server.expect_gone();
}

/// A server that was told to end, and of which so many dirty workers at least close their apps.
fn finish_by_itself(mut server: Server, closed: usize) {
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(took < PROMPT, "{took:?}\n{}", server.log());
    assert!(server.gate_files("closed-").len() >= closed, "{}", server.log());
    server.expect_gone();
}

#[test]
fn the_control_socket_shows_the_pool_and_changes_its_size() {
    let plan = plan();
    let socket = plan.path("ctl.sock");
    let server =
        plan.args(["--dirty-app", "dirty:Rare", "--control-socket", socket.to_str().expect("a plain path")]).start();
    let workers = wait_for_pool(&server, 2);
    let arbiter = arbiter(&server);
    let ask = |words: &[&str]| {
        let path = socket.display().to_string();
        let command =
            std::process::Command::new(crate::util::program()).args(["ctl", "-s", &path]).args(words).output();
        let said = command.expect("it runs");
        Json::parse(&String::from_utf8_lossy(&said.stdout))
    };
    assert_eq!(ask(&["show", "stats"])["dirty_arbiter_pid"].number() as i32, arbiter);
    let shown = ask(&["show", "dirty"]);
    assert_eq!((shown["pid"].number() as i32, &shown["enabled"]), (arbiter, &Json::Bool(true)));
    let pids: Vec<i32> = shown["workers"].list().iter().map(|worker| worker["pid"].number() as i32).collect();
    assert_eq!(pids, workers);
    assert!(shown["workers"].list().iter().all(|worker| worker["booted"] == Json::Bool(true)), "{shown:?}");
    let limits: Vec<&Json> = shown["apps"].list().iter().map(|app| &app["worker_count"]).collect();
    assert_eq!(limits, [&Json::Null, &Json::Number(1.0)]);
    assert_eq!(shown["apps"].list()[1]["worker_pids"].list().len(), 1);
    let all = ask(&["show", "all"]);
    assert_eq!((all["dirty_worker_count"].number(), all["dirty_arbiter"]["pid"].number() as i32), (2.0, arbiter));
    assert_eq!(ask(&["show", "config"])["dirty_workers"].number(), 2.0);
    let added = ask(&["dirty", "add", "2"]);
    assert_eq!(
        [&added["spawned"], &added["total_workers"], &added["target_workers"]].map(Json::number),
        [2.0, 4.0, 4.0]
    );
    let removed = ask(&["dirty", "remove", "9"]);
    assert_eq!([&removed["removed"], &removed["target_workers"]].map(Json::number), [3.0, 1.0]);
    wait_until("one worker", || process::children(arbiter).len() == 1);
    // The one that stays is the one that has every app.
    assert_eq!(pid(&server, "dirty:Rare"), process::children(arbiter)[0]);
    send(arbiter, SIGTTIN);
    wait_until("two workers", || process::children(arbiter).len() == 2);
    send(arbiter, SIGTTOU);
    wait_until("one worker", || process::children(arbiter).len() == 1);
    finish(server);
}

#[test]
fn a_new_program_in_place_and_one_beside_have_pools_of_their_own() {
    let server = plan().start();
    wait_for_pool(&server, 2);
    let (first, folder) = (arbiter(&server), call(&server, "/socket").text().to_owned());
    server.signal_rtmin();
    wait_until("another arbiter", || arbiter(&server) != first);
    wait_until("the end of the first one", || !process::is_alive(first));
    wait_until("an answer", || call(&server, "/execute/dirty:Calc/add/1/2") == Json::Number(3.0));
    assert!(!PathBuf::from(folder).parent().expect("a folder").exists());
    let second = arbiter(&server);
    server.signal(SIGUSR2);
    wait_until("an arbiter beside it", || arbiter(&server) != second);
    wait_until("both", || process::is_alive(second) && process::children(arbiter(&server)).len() == 2);
    assert_eq!(call(&server, "/execute/dirty:Calc/add/1/2"), Json::Number(3.0));
    let (third, mut server) = (arbiter(&server), server);
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    wait_until("the end of the old one", || !process::is_alive(second));
    assert_eq!(call(&server, "/execute/dirty:Calc/add/1/2"), Json::Number(3.0));
    let new = process::parent(third);
    send(new, SIGTERM);
    wait_at_most(Duration::from_secs(5), "the end of the new master", || !process::is_alive(new));
    server.expect_gone();
}

#[test]
fn workers_of_another_user_reach_their_arbiter() {
    if !is_root() {
        return println!("skipped: only root can change its user");
    }
    let plan = plan_of_own().env("EAGER", "").args(["--preload", "--user", "65534", "--group", "65534"]);
    for (folder, mode) in [("", 0o755), ("gate", 0o777), ("tmp", 0o777)] {
        std::fs::set_permissions(plan.path(folder), Permissions::from_mode(mode)).expect("our own folder");
    }
    let server = plan.start();
    wait_for_pool(&server, 1);
    assert_eq!(call(&server, "/execute/dirty:Calc/user"), Json::Number(65534.0));
    finish(server);
}

#[test]
fn without_gunicorn_one_sentence_says_what_to_install() {
    let plan = || Plan::app("dirty").args(["--dirty-app", "dirty:Calc", "--dirty-workers", "1"]);
    for plan in [plan(), plan().args(["--check-config"])] {
        let refused = plan.run();
        assert_eq!(refused.code, Some(1));
        assert!(
            refused.stderr.contains("install that, version 25.1 or later (pip install gunicorn)"),
            "{}",
            refused.stderr
        );
        assert!(!refused.stderr.contains("Traceback"), "{}", refused.stderr);
    }
    let server = Plan::app("dirty").start();
    assert!(call(&server, "/execute/dirty:Calc/add/1")["text"].text().contains("pip install gunicorn"));
    server.finish();
}

#[test]
fn a_server_without_a_pool_loads_and_says_nothing_of_it() {
    let server = beside_gunicorn(Plan::app("dirty")).start();
    assert_eq!((call(&server, "/loaded").list().len(), call(&server, "/socket")), (0, Json::Null));
    assert_eq!(error(&server, "/execute/dirty:Calc/add/1"), "DirtyError", "gunicorn's own sentence");
    server.wait_for_workers(1);
    assert!(!server.log().contains("irty"), "{}", server.log());
    server.finish();
}

#[test]
fn a_process_that_the_module_starts_when_it_is_imported_holds_nothing_up() {
    let forks = "import os, pathlib, time\n\
        if os.fork() == 0:\n\
        \x20   while not pathlib.Path(os.environ['GATE'], 'release').exists(): time.sleep(0.01)\n\
        \x20   os._exit(0)\n";
    let app = std::fs::read_to_string(crate::util::apps().join("dirty.py")).expect("the app");
    let plan = beside_gunicorn(Plan::app("dirty").in_own_folder().file("dirty.py", &app)).file("forking.py", forks);
    let rare = "import forking\nfrom dirty import *\n";
    let plan = plan.file("rare.py", rare).args(["--dirty-app", "rare:Rare", "--dirty-workers", "1"]);
    let server = plan.start();
    wait_until("an answer", || call(&server, "/execute/rare:Rare/add/1") == Json::Number(1.0));
    server.release();
    finish(server);
}

#[test]
fn a_start_that_fails_leaves_no_pool() {
    let plan = beside_gunicorn(Plan::app("broken.raises")).args(["--dirty-app", "dirty:Calc", "--dirty-workers", "1"]);
    let failed = plan.run();
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
}
