//! HUP: new code, new settings, and what happens when they are bad. Also `--reload` and workers
//! that retire.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGHUP, SIGTERM};

use crate::util::client::Client;
use crate::util::load::{Load, version};
use crate::util::process::cpu_time;
use crate::util::server::{Plan, Server};
use crate::util::wait_until;

#[test]
fn hup_picks_up_changed_code() {
    let server = versioned(&[]);
    let before = server.wait_for_workers(2);
    server.write("app.py", &version(2));
    server.signal(SIGHUP);
    server.wait_for_log("Hang up: Master");
    wait_until("the new version from every worker", || {
        let now = server.workers();
        now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
    });
    (0..10).for_each(|_| assert_eq!(answer(&server), "v2"));
    server.finish();
}

#[test]
fn hup_reads_the_config_file_again() {
    for (name, workers) in
        [("gunicorn.conf.py", "workers = "), ("monoceros.toml", "workers = "), ("conf.yaml", "workers: ")]
    {
        let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).file(name, &format!("{workers}1\n"));
        let path = plan.path(name);
        let server = plan.args(["--config", path.to_str().expect("a plain path")]).start();
        server.wait_for_workers(1);
        server.write(name, &format!("{workers}3\n"));
        server.signal(SIGHUP);
        server.wait_for_workers(3);
        server.finish();
    }
}

#[test]
fn hup_binds_a_new_address_and_lets_go_of_the_old() {
    let plan = Plan::app("app").in_own_folder().bound_elsewhere().file("app.py", &version(1));
    let bind = |plan: &Plan, name: &str| format!("bind = 'unix:{}'\n", plan.path(name).display());
    let (first, second) = (bind(&plan, "first"), bind(&plan, "second"));
    let conf = plan.path("conf.py");
    let server = plan.file("conf.py", &first).args(["-c", conf.to_str().expect("a plain path")]).start();
    assert_eq!(server.get("/").status, 200);
    server.write("conf.py", &second);
    server.signal(SIGHUP);
    let moved = crate::util::client::Address::Unix(server.path("second"));
    wait_until("the new address", || Client::try_connect(&moved).is_ok());
    assert_eq!(Client::connect(&moved).get("/").text(), "v1  0");
    wait_until("the old address to go", || Client::try_connect(&server.address).is_err());
    server.finish();
}

#[test]
fn hup_with_a_broken_app_changes_nothing_and_the_next_good_one_works() {
    let broken =
        ["raise RuntimeError('bad deploy')", "def application(:", "import os; os._exit(1)", "application = None"];
    for (number, text) in broken.iter().enumerate() {
        let mut server = versioned(&[]);
        let before = server.wait_for_workers(2);
        assert_eq!(answer(&server), "v1");
        server.write("app.py", text);
        server.signal(SIGHUP);
        server.wait_for_log("Hang up: Master");
        wait_until("the failure to be logged", || server.log().contains("[ERROR]"));
        for _ in 0..20 {
            assert_eq!(answer(&server), "v1", "broken app {number}");
            thread::sleep(Duration::from_millis(20));
        }
        assert!(before.iter().all(|pid| server.workers().contains(pid)), "the old generation serves on");
        server.write("app.py", &version(2));
        server.signal(SIGHUP);
        wait_until("the good version", || answer(&server) == "v2");
        server.allow("");
        server.finish();
    }
}

#[test]
fn hup_with_a_broken_config_changes_nothing() {
    let broken = ["workers = (((", "workers = 'many'", "raise RuntimeError('bad config')", "user = ''"];
    for text in broken {
        let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).file("conf.py", "workers = 2\n");
        let conf = plan.path("conf.py");
        let mut server = plan.args(["-c", conf.to_str().expect("a plain path")]).start();
        let before = server.wait_for_workers(2);
        server.write("conf.py", text);
        server.signal(SIGHUP);
        wait_until("the failure to be logged", || server.log().contains("[ERROR]"));
        assert_eq!(answer(&server), "v1", "{text}");
        assert_eq!(server.workers(), before, "{text}");
        server.write("conf.py", "workers = 1\n");
        server.signal(SIGHUP);
        server.wait_for_workers(1);
        server.allow("");
        server.finish();
    }
}

#[test]
fn hup_while_the_new_code_boots_slowly_stops_no_worker() {
    let server = versioned(&[]);
    server.wait_for_workers(2);
    server.write("app.py", &format!("import time\ntime.sleep(5)\n{}", version(2)));
    server.signal(SIGHUP);
    server.wait_for_log("Hang up: Master");
    // Until the new version answers, the old one does, each time and without delay.
    wait_until("the new version", || {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = client.read_within("GET", Duration::from_millis(4000)).expect("a worker serves all the time");
        answer.text() == "v2  0"
    });
    server.finish();
}

#[test]
fn no_request_fails_while_hup_follows_hup() {
    for plan in [versioned_plan(&[]), versioned_plan(&[]).unix()] {
        let server = loaded(plan.start());
        let load = Load::during(&server.address, 1, |_| {
            for round in 1..=5 {
                let before = server.workers();
                server.signal(SIGHUP);
                server.wait_for_log_times("Hang up: Master", round);
                wait_until("the new generation", || {
                    let now = server.workers();
                    now.len() == 2 && !now.iter().any(|pid| before.contains(pid))
                });
            }
        });
        load.expect_no_failure();
        server.finish();
    }
}

#[test]
fn term_wins_over_a_reload() {
    let mut server = versioned(&[]);
    server.wait_for_workers(2);
    server.signal(SIGHUP);
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
}

#[test]
fn a_worker_that_has_served_max_requests_is_replaced_without_a_gap() {
    let server = versioned(&["--max-requests", "20", "--workers", "2"]);
    server.wait_for_workers(2);
    let before = server.workers();
    let load = Load::during(&server.address, 1, |_| {
        server.wait_for_log_times("Autorestarting worker after current request.", 6);
    });
    load.expect_no_failure();
    wait_until("the first workers to be gone", || !before.iter().any(|pid| server.workers().contains(pid)));
    wait_until("two workers", || server.has_serving(2));
    server.finish();
}

#[test]
fn the_reloader_restarts_workers_when_code_changes() {
    for engine in ["auto", "poll", "inotify"] {
        let mut server = versioned(&["--reload", "--reload-engine", engine]);
        server.wait_for_log("Reloader is on. Use in development only!");
        assert_eq!(answer(&server), "v1");
        server.write("app.py", &(version(2) + "\n# changed\n"));
        wait_until("the changed code", || answer(&server) == "v2");
        server.allow("Reloader is on");
        server.finish();
    }
}

#[test]
fn what_is_written_beside_the_code_reloads_nothing() {
    let mut server = versioned(&["--reload"]);
    for number in 0..100 {
        server.write("database.tmp", &number.to_string());
        server.write("notes.txt", &number.to_string());
    }
    server.write("app.py", &(version(2) + "\n# changed\n"));
    wait_until("the changed code", || answer(&server) == "v2");
    let log = server.log();
    let reasons: Vec<&str> = log.lines().filter(|line| line.contains("Worker reloading: ")).collect();
    assert!(reasons.iter().all(|line| line.ends_with("/app.py modified")), "{reasons:?}");
    server.allow("Reloader is on");
    server.finish();
}

#[test]
fn the_reloader_watches_extra_files() {
    let plan = versioned_plan(&["--reload"]).file("data.txt", "one");
    let extra = plan.path("data.txt");
    let mut server = plan.args(["--reload-extra-file", extra.to_str().expect("a plain path")]).start();
    assert_eq!(answer(&server), "v1");
    server.write("data.txt", "another one");
    server.wait_for_log("Worker reloading: ");
    wait_until("an answer", || answer(&server) == "v1");
    server.allow("Reloader is on");
    server.finish();
}

#[test]
fn a_preloaded_app_is_imported_once_in_the_master() {
    let text = format!("import os\nprint('imported', os.getpid(), flush=True)\n{}", version(1));
    let plan = Plan::app("app").in_own_folder().file("app.py", &text);
    let server = plan.args(["--preload", "--workers", "3"]).start();
    server.wait_for_workers(3);
    assert_eq!(answer(&server), "v1");
    assert_eq!(server.stdout(), format!("imported {}\n", server.pid()));
    server.finish();
}

#[test]
fn nothing_leaks_over_many_reloads() {
    let server = versioned(&[]);
    server.wait_for_workers(2);
    let reload = |times: usize| {
        server.signal(SIGHUP);
        server.wait_for_log_times("Hang up: Master", times);
        // Two lines a generation, one for each worker.
        server.wait_for_log_times("Booting worker with pid", 2 + 2 * times);
        wait_until("two workers", || server.has_serving(2));
    };
    reload(1);
    let files = crate::util::process::open_files(server.pid());
    (2..=8).for_each(reload);
    assert_eq!(crate::util::process::open_files(server.pid()), files, "open files of the master");
    server.finish();
}

/// The version that answers.
fn answer(server: &Server) -> String {
    let text = server.get("/").text();
    text.split(' ').next().unwrap_or_default().to_string()
}

fn versioned_plan(args: &[&str]) -> Plan {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).args(["--workers", "2"]);
    args.iter().fold(plan, |plan, arg| plan.args([arg]))
}

/// With both workers past the import of the first version: what the test writes next is no longer
/// read by them.
fn versioned(args: &[&str]) -> Server {
    loaded(versioned_plan(args).start())
}

fn loaded(server: Server) -> Server {
    server.wait_for_workers(2);
    server
}

#[test]
fn a_master_sleeps_after_a_reload() {
    let server = Server::start("echo", []);
    let old = server.wait_for_workers(1);
    server.signal(SIGHUP);
    wait_until("another worker alone", || server.has_serving(1) && !server.workers().contains(&old[0]));
    let before = cpu_time(server.pid());
    thread::sleep(Duration::from_millis(500));
    let used = cpu_time(server.pid()) - before;
    assert!(used < Duration::from_millis(50), "{used:?}");
    server.finish();
}
