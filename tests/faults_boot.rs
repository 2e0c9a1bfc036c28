//! Faults at boot and at a reload (rows SV-15 to SV-35 of the fault matrix that are not in
//! `reload`, `faults` and `upgrade`), and signals in every order: the old workers go on serving,
//! and the process tree recovers.

use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal::{self, SIGHUP, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};

use crate::util::load::{Load, version};
use crate::util::process::open_files;
use crate::util::server::{Plan, Server};
use crate::util::{apps, board, program, wait_until};

#[test]
fn hup_with_settings_that_cannot_be_applied_changes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let busy = taken.local_addr().expect("bound").port();
    // The command line's address would win over the file's.
    let plan = Plan::app("app").in_own_folder().bound_elsewhere().file("app.py", &version(1));
    let good = format!("workers = 2\nbind = 'unix:{}'\n", plan.path("socket").display());
    let conf = plan.path("conf.py");
    let mut server = plan.file("conf.py", &good).args(["-c", conf.to_str().expect("a plain path")]).start();
    let before = server.wait_for_workers(2);
    let impossible = [
        (format!("bind = ['unix:other', '127.0.0.1:{busy}']"), "connection to"),
        ("bind = 'unix:/proc/nonexistent/socket'".to_string(), "connection to"),
        ("errorlog = '/proc/nonexistent/error.log'".to_string(), "/proc/nonexistent/error.log"),
        ("accesslog = '/proc/nonexistent/access.log'".to_string(), "/proc/nonexistent/access.log"),
        ("timeout = -1".to_string(), "timeout"),
        ("import nonexistent".to_string(), "No module named"),
        ("raise SystemExit(1)".to_string(), "Reload failed"),
    ];
    let files = open_files(server.pid());
    for (number, (text, said)) in impossible.iter().enumerate() {
        server.write("conf.py", &format!("{good}{text}"));
        server.signal(SIGHUP);
        server.wait_for_log_times("Reload failed, everything stays as it was", number + 1);
        let log = server.log();
        let since = log.rsplit("Hang up: Master").next().expect("it has been told");
        assert!(since.contains(said), "{text}: {since}");
        assert_eq!((server.workers(), server.get("/").status), (before.clone(), 200), "{text}");
    }
    assert!(open_files(server.pid()) <= files + 1, "sockets of failed reloads are open");
    assert!(!server.path("other").exists(), "a socket file of a failed reload is left");
    server.write("conf.py", &format!("{good}workers = 1\n"));
    server.signal(SIGHUP);
    server.wait_for_workers(1);
    server.allow("");
    server.finish();
}

#[test]
fn an_import_that_kills_its_process_at_hup_is_a_failed_reload() {
    for deadly in ["import ctypes; ctypes.string_at(0)", "import os; os.abort()", "import os; os._exit(0)"] {
        let mut server = configured("");
        let before = server.wait_for_workers(2);
        server.write("app.py", deadly);
        server.signal(SIGHUP);
        server.wait_for_log("Reload failed");
        wait_until("only the old workers", || server.workers() == before);
        assert_eq!(server.get("/").status, 200, "{deadly}");
        server.allow("");
        server.finish();
    }
}

#[test]
fn a_crash_loop_backs_off() {
    let deadly = "import ctypes; ctypes.string_at(0)\n";
    let mut server = Plan::app("app").in_own_folder().file("app.py", deadly).start();
    thread::sleep(Duration::from_secs(3));
    let forks = server.log().matches("Booting worker with pid").count();
    // After 0.1, 0.3, 0.7, 1.5 and 3.1 seconds.
    assert!((2..=7).contains(&forks), "{forks} forks in three seconds");
    server.write("app.py", &version(1));
    // The next worker finds the fixed code, even one that is booting now.
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn a_generation_with_a_failing_worker_does_not_replace_the_old_one() {
    let mut server = configured("");
    let before = server.wait_for_workers(2);
    // The first worker to make the folder boots.
    let flaky = format!("import os\nos.mkdir('only-once')\n{}", version(2));
    server.write("app.py", &flaky);
    server.signal(SIGHUP);
    server.wait_for_log("Reload failed");
    wait_until("only the old workers", || server.workers() == before);
    (0..10).for_each(|_| assert!(server.get("/").text().starts_with("v1 ")));
    server.allow("");
    server.finish();
}

#[test]
fn hups_during_a_hanging_reload_are_merged_and_load_the_fixed_code() {
    let mut server = configured("timeout = 2\n");
    let before = server.wait_for_workers(2);
    server.write("app.py", "import time\ntime.sleep(600)\n");
    server.signal(SIGHUP);
    server.wait_for_log("Hang up: Master");
    server.write("app.py", &version(2));
    (0..5).for_each(|_| server.signal(SIGHUP));
    wait_until("the cure", || {
        let text = server.get("/").text();
        assert!(text.starts_with('v'), "{text}");
        text.starts_with("v2 ")
    });
    wait_until("only new workers", || {
        let now = server.workers();
        now.len() == 2 && !now.iter().any(|pid| before.contains(pid))
    });
    let generations = server.log().matches("Hang up: Master").count();
    assert!(generations <= 3, "{generations} reloads for what five signals asked at once");
    server.allow("");
    server.finish();
}

#[test]
fn hup_and_term_at_any_moment_of_the_boot_converge() {
    for round in 0..12 {
        let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).args(["--workers", "2"]);
        let mut server = plan.start();
        thread::sleep(Duration::from_millis(round * 23 % 250));
        server.signal(SIGHUP);
        thread::sleep(Duration::from_millis(round * 37 % 190));
        if round % 2 == 0 {
            // It settles with the right number of workers.
            wait_until("an answer", || server.get("/").status == 200);
            server.wait_for_workers(2);
        }
        server.signal(SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0), "round {round}: {}", server.log());
        server.expect_gone();
    }
}

#[test]
fn a_hundred_hups_are_a_few_reloads() {
    let server = configured("");
    server.wait_for_workers(2);
    (0..100).for_each(|_| server.signal(SIGHUP));
    wait_until("the last reload to be over", || {
        let log = server.log();
        let (called, booted) = (log.matches("Hang up: Master").count(), log.matches("Booting worker with pid").count());
        called > 0 && booted == 2 + 2 * called && server.has_serving(2)
    });
    let reloads = server.log().matches("Hang up: Master").count();
    assert!(reloads < 30, "{reloads} reloads");
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

#[test]
fn a_storm_of_signals_leaves_the_right_number_of_workers() {
    let server = configured("");
    server.wait_for_workers(2);
    let mut change = 0_i64;
    let mut counts = [0, 0];
    for step in 0..60_usize {
        match step * 7 % 4 {
            0 => server.signal(SIGUSR1),
            1 if step % 3 == 0 => server.signal(SIGHUP),
            up => {
                let up = up == 2 || 2 + change <= 1;
                server.signal(if up { SIGTTIN } else { SIGTTOU });
                change += if up { 1 } else { -1 };
                counts[usize::from(up)] += 1;
                // The kernel makes one of two that are pending.
                let name = if up { "ttin" } else { "ttou" };
                server.wait_for_log_times(&format!("Handling signal: {name}"), counts[usize::from(up)]);
            }
        }
        assert_eq!(server.get("/").status, 200);
    }
    // A reload begins with the number in the settings, as in gunicorn; signals that came during the
    // reload count.
    server.signal(SIGHUP);
    server.wait_for_workers(2);
    server.finish();
}

#[test]
fn thousands_of_harmless_signals_do_no_harm() {
    let server = configured("");
    let workers = server.wait_for_workers(2);
    for signal in [SIGUSR1, Signal::SIGURG, Signal::SIGWINCH, Signal::SIGCHLD] {
        (0..1000).for_each(|_| server.signal(signal));
        assert_eq!(server.get("/").status, 200, "{signal}");
    }
    assert_eq!(server.workers(), workers);
    server.finish();
}

#[test]
fn term_under_load_cuts_no_answer_short() {
    let mut server = configured("");
    server.wait_for_workers(2);
    let idle = server.connect();
    let load = Load::during(&server.address.clone(), 3, |load| {
        wait_until("requests", || load.ok() > 50);
        server.signal(SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0));
    });
    drop(idle);
    println!("{load}");
    // A client that connects after the end is refused. One that connects in the moment between may
    // be reset, each client once.
    assert!(load.failed() - load.refused() <= 6, "{load}");
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn a_preloaded_app_that_cannot_be_loaded_ends_the_start() {
    let table = [
        ("no_such_module", "No module named 'no_such_module'"),
        ("broken.raises", "this module cannot be imported"),
        ("broken.syntax", "SyntaxError"),
        ("echo:missing", "missing"),
        ("broken.shapes:number", "must be callable"),
    ];
    for (app, said) in table {
        let plan = Plan::app(app).unix();
        let (socket, pidfile) = (plan.path("socket"), plan.path("pid"));
        let pid = pidfile.to_str().expect("a plain path").to_string();
        let mut server = plan.args(["--preload", "--workers", "4", "--pid", &pid]).launch();
        // gunicorn's code for it: what fails is the master, not a worker.
        assert_eq!(server.wait_for_exit().code(), Some(1), "{app}: {}", server.log());
        let log = server.log();
        assert_eq!(log.matches("[ERROR]").count(), 1, "{app}: {log}");
        assert!(log.contains(said) && !log.contains("Booting worker") && !log.contains("panicked"), "{app}: {log}");
        assert!(!socket.exists() && !pidfile.exists(), "{app}");
        server.expect_gone();
    }
    let finished = Plan::app("broken.exits").args(["--preload"]).run();
    assert!(finished.code != Some(0) && !finished.stderr.contains("Booting worker"), "{finished:?}");
}

#[test]
fn hup_of_a_preloaded_app_brings_its_new_code_or_changes_nothing() {
    let mut server = configured("preload_app = True\n");
    let before = server.wait_for_workers(2);
    let broken = ["raise RuntimeError('bad deploy')", "def application(:", "import os; os._exit(1)"];
    let load = Load::during(&server.address.clone(), 1, |load| {
        wait_until("the first answers", || load.ok() > 50);
        for (number, text) in broken.into_iter().enumerate() {
            server.write("app.py", text);
            server.signal(SIGHUP);
            server.wait_for_log_times("Reload failed, everything stays as it was", number + 1);
            assert_eq!(server.workers(), before, "{text}");
        }
        server.write("app.py", &version(2));
        server.write("conf.py", "workers = 2\npreload_app = (((");
        server.signal(SIGHUP);
        server.wait_for_log_times("Reload failed, everything stays as it was", 4);
        assert_eq!(server.workers(), before);
        server.write("conf.py", "workers = 2\npreload_app = True\n");
        server.signal(SIGHUP);
        wait_until("new workers", || {
            let now = server.workers();
            now.len() == 2 && !now.iter().any(|pid| before.contains(pid))
        });
        wait_until("the new version", || server.get("/").text().starts_with("v2 "));
    });
    load.expect_no_failure();
    server.write("conf.py", "workers = 1\npreload_app = True\n");
    server.signal(SIGHUP);
    wait_until("one worker", || server.workers().len() == 1);
    assert!(server.get("/").text().starts_with("v2 "));
    server.allow("");
    server.finish();
}

#[test]
fn hup_that_turns_preload_on_harms_no_request() {
    let mut server = configured("");
    let before = server.wait_for_workers(2);
    server.write("conf.py", "workers = 2\npreload_app = True\n");
    for (number, text) in
        ["raise RuntimeError('bad')", "import os; os._exit(1)", "import os; os.abort()"].iter().enumerate()
    {
        server.write("app.py", text);
        server.signal(SIGHUP);
        server.wait_for_log_times("Reload failed", number + 1);
        wait_until("only the old workers", || server.workers() == before);
        assert!(server.get("/").text().starts_with("v1 "), "{text}");
    }
    server.write("app.py", &version(2));
    server.signal(SIGHUP);
    wait_until("the new version", || server.get("/").text().starts_with("v2 "));
    server.allow("");
    server.finish();
}

#[test]
fn a_preloaded_app_survives_crashes_reloads_and_recycling() {
    let mut server = configured("preload_app = True\nmax_requests = 20\n");
    server.wait_for_workers(2);
    let load = Load::during(&server.address, 1, |_| {
        for round in 1..=3 {
            server.signal(SIGHUP);
            server.wait_for_log_times("Executing", round);
            server.wait_for_log_times("Autorestarting worker", round * 2);
        }
    });
    load.expect_no_failure();
    // Those of the earlier programs are about to end, and one that ends is killed too late.
    server.wait_for_log_times("Starting monoceros", 4);
    wait_until("two workers alone", || server.has_serving(2) && server.workers().len() == 2);
    crate::util::server::send(server.workers()[0], Signal::SIGKILL);
    server.wait_for_log("was sent SIGKILL");
    server.wait_for_workers(2);
    assert_eq!(server.get("/").status, 200);
    server.allow("SIGKILL");
    server.finish();
}

#[test]
fn usr2_with_a_program_or_settings_that_fail_leaves_the_old_one_serving() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).file("conf.py", "");
    let (link, conf, pidfile) = (plan.path("monoceros"), plan.path("conf.py"), plan.path("pid"));
    std::os::unix::fs::symlink(program(), &link).expect("a link in a fresh folder");
    let [conf, pid] = [&conf, &pidfile].map(|path| path.to_str().expect("a plain path").to_string());
    let mut server = plan.program(&link).args(["-c", &conf, "--pid", &pid]).start();
    let workers = server.wait_for_workers(1);
    let failed = |server: &Server, times: usize| {
        server.signal(SIGUSR2);
        server.wait_for_log_times("The new master (pid:", times);
        wait_until("only the old program", || server.workers() == workers);
        assert_eq!(server.get("/").status, 200);
        assert_eq!(fs::read_to_string(&pidfile).expect("it is there"), format!("{}\n", server.pid()));
        assert!(!pidfile.with_file_name("pid.2").exists());
    };
    server.write("conf.py", "workers = (((");
    failed(&server, 1);
    server.write("conf.py", "");
    fs::remove_file(&link).expect("our own link");
    failed(&server, 2);
    server.write("monoceros", "not a program");
    failed(&server, 3);
    fs::remove_file(&link).expect("our own file");
    std::os::unix::fs::symlink(program(), &link).expect("a link");
    server.signal(SIGUSR2);
    wait_until("the new master beside the worker", || server.workers().len() == 2);
    let new = server.workers().into_iter().find(|pid| !workers.contains(pid)).expect("just counted");
    wait_until("its worker", || board::all_serve(new, 1));
    crate::util::server::send(new, SIGTERM);
    wait_until("only the old program", || server.workers() == workers);
    server.allow("");
    server.finish();
}

#[test]
fn a_new_program_with_other_addresses_closes_the_old_ones() {
    let plan = Plan::app("app").in_own_folder().bound_elsewhere().file("app.py", &version(1));
    let bind = |plan: &Plan, names: &[&str]| {
        let sockets: Vec<_> = names.iter().map(|name| format!("'unix:{}'", plan.path(name).display())).collect();
        format!("bind = [{}]\nworkers = 1\n", sockets.join(", "))
    };
    let (both, one) = (bind(&plan, &["first", "second"]), bind(&plan, &["second", "third"]));
    let conf = plan.path("conf.py");
    let mut server = plan.file("conf.py", &both).args(["-c", conf.to_str().expect("a plain path")]).start();
    let old_workers = server.wait_for_workers(1);
    let of_old = open_files(server.pid());
    server.write("conf.py", &one);
    server.signal(SIGUSR2);
    wait_until("the new master", || server.workers().len() == 2);
    let new = server.workers().into_iter().find(|pid| !old_workers.contains(pid)).expect("just counted");
    wait_until("its worker", || board::all_serve(new, 1));
    // It may be at something for which it has one open. What the old program has counted it keeps,
    // and reads beside its own.
    let of_new = || open_files(new) - boards_of(new).saturating_sub(1);
    wait_until("no more files than the old master has", || of_new() <= of_old);
    let third = crate::util::client::Address::Unix(server.path("third"));
    assert_eq!(crate::util::client::Client::connect(&third).get("/").status, 200);
    server.signal(SIGTERM);
    server.wait_for_exit();
    server.wait_for_log("Master has been promoted.");
    assert_eq!(crate::util::client::Client::connect(&third).get("/").status, 200);
    crate::util::server::send(new, SIGTERM);
    server.expect_gone();
    assert!(!server.path("second").exists() && !server.path("third").exists());
}

/// How many scoreboards the process has open.
fn boards_of(pid: i32) -> usize {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let names = links.filter_map(|link| fs::read_link(link.path()).ok());
    names.filter(|name| name.to_string_lossy().contains("monoceros-scoreboard")).count()
}

#[test]
fn odd_inherited_state_does_no_harm() {
    // An open file, ignored and blocked signals, closed standard streams, no umask.
    let script = "exec 7</dev/null; trap '' CHLD PIPE; umask 0; exec \"$@\" <&- >&- 2>&-";
    let plan = Plan::app("process").error_log("error.log").through([
        "env",
        "--block-signal=TERM,CHLD,HUP",
        "sh",
        "-c",
        script,
        "sh",
    ]);
    let mut server = plan.start();
    let before = server.wait_for_workers(1);
    assert_eq!(server.get("/children").text(), "[7, 7, 7]");
    server.signal(SIGHUP);
    wait_until("a new worker", || server.workers() != before && server.has_serving(1));
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
    server.expect_clean_log();
}

/// Two workers with the versioned app, and a config file.
fn configured(text: &str) -> Server {
    let text = format!("workers = 2\n{text}");
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).file("conf.py", &text);
    let (conf, apps) = (plan.path("conf.py"), apps());
    let conf = conf.to_str().expect("a plain path");
    let plan = plan.args(["-c", conf, "--pythonpath", apps.to_str().expect("a plain path")]);
    let server = plan.start();
    let loaded = if text.contains("preload") { 1 } else { 2 };
    wait_until("the app to be loaded", || server.gate_files("loaded-").len() >= loaded);
    server
}
