//! What an upgrade in place (RTMIN, or HUP with `preload_app`) meets on its way: folders that are
//! gone, a trial that hangs, a stop in between, files that cannot be opened, and what the last
//! program had set.

use std::fs;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGTERM};

use crate::control::{Control, serve};
use crate::util::client::Client;
use crate::util::server::{Plan, Server, send};
use crate::util::wait_until;

/// An application that hangs in its import while the file `hangs` is in its folder.
const APP: &str = r#"
import os, pathlib, time

here = pathlib.Path(__file__).parent
pathlib.Path(os.environ["GATE"], f"loads-{os.getpid()}").touch()
while (here / "hangs").exists():
    time.sleep(0.01)


def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"#;

fn plan() -> Plan {
    Plan::app("app").in_own_folder().file("app.py", APP)
}

/// The second program has taken over, with one worker of its own.
#[track_caller]
fn wait_for_takeover(server: &Server, old: &[i32]) {
    server.wait_for_log_times("Starting monoceros", 2);
    wait_until("new workers alone", || {
        server.has_serving(1) && !server.workers().iter().any(|worker| old.contains(worker))
    });
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_start_directory_that_was_replaced_is_found_by_its_path() {
    let script = "mkdir release && cp app.py release && cd release && exec \"$@\"";
    let plan = Plan::app("app").started_in_own_folder().file("app.py", APP).through(["sh", "-c", script, "sh"]);
    let mut server = plan.start();
    let old = server.wait_for_workers(1);
    fs::rename(server.path("release"), server.path("old")).expect("the test's folder");
    fs::create_dir(server.path("release")).expect("the test's folder");
    fs::copy(server.path("app.py"), server.path("release/app.py")).expect("the test's folder");
    fs::remove_dir_all(server.path("old")).expect("the test's folder");
    server.signal_rtmin();
    wait_for_takeover(&server, &old);
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
}

#[test]
fn workers_are_forked_though_the_start_directory_is_gone() {
    let apps = crate::util::apps().display().to_string();
    let script = "mkdir build && cd build && exec \"$@\"";
    let plan = Plan::app("echo").started_in_own_folder().through(["sh", "-c", script, "sh"]);
    let mut server = plan.args(["--chdir", &apps]).start();
    let old = server.wait_for_workers(1);
    fs::remove_dir_all(server.path("build")).expect("the test's folder");
    send(old[0], SIGKILL);
    wait_until("another worker", || server.workers() != old && server.has_serving(1));
    assert_eq!(server.get("/").status, 200);
    server.allow("was sent SIGKILL");
    server.finish();
}

#[test]
fn a_stop_during_the_trial_is_not_forgotten() {
    for preload in [false, true] {
        let flag = if preload { "preload_app = True" } else { "" };
        let mut server = plan().config(&format!("{flag}\nshutdown_delay = 1")).start();
        server.wait_for_workers(1);
        let loaded = server.gate_files("loads-").len();
        server.write("hangs", "");
        if preload {
            server.signal(SIGHUP)
        } else {
            server.signal_rtmin()
        }
        wait_until("the trial", || server.gate_files("loads-").len() > loaded);
        server.signal(SIGTERM);
        server.wait_for_log("Serving on for 1 s before the stop");
        fs::remove_file(server.path("hangs")).expect("it is there");
        assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
        assert_eq!(server.log().matches("Starting monoceros").count(), 1, "{}", server.log());
        server.allow("Reload failed, everything stays as it was: the server is stopping");
        server.expect_gone();
        server.expect_clean_log();
    }
}

#[test]
fn a_trial_that_hangs_makes_room_for_the_next_order() {
    const GIVEN_UP: &str = "The new program does not get ready within timeout.";
    let order = |server: &Server, is_upgrade| match is_upgrade {
        true => server.signal_rtmin(),
        false => server.signal(SIGHUP),
    };
    for [preload, is_upgrade, next_is_upgrade] in
        [[true, false, false], [true, false, true], [false, true, false], [false, true, true]]
    {
        let flag = if preload { "preload_app = True" } else { "" };
        let mut server = plan().config(&format!("{flag}\ntimeout = 1")).start();
        let old = server.wait_for_workers(1);
        let loaded = server.gate_files("loads-").len();
        server.write("hangs", "");
        order(&server, is_upgrade);
        wait_until("the trial", || server.gate_files("loads-").len() > loaded);
        // The trial has read the old file, and goes on to hang at its name.
        server.write("app.py", &APP.replace("hangs", "is-over"));
        order(&server, next_is_upgrade);
        // A reload waits; an upgrade has to be ordered once more, when the trial is hopeless.
        wait_until("the trial to be given up", || {
            if next_is_upgrade {
                order(&server, true);
            }
            server.log().contains(GIVEN_UP)
        });
        if preload || next_is_upgrade {
            wait_for_takeover(&server, &old);
        } else {
            wait_until("a new worker", || server.workers() != old && server.has_serving(1));
        }
        for said in [GIVEN_UP, "the new program would not start (Killed(9)).", "RTMIN signal ignored. Child exists."] {
            server.allow(said);
        }
        server.finish();
    }
}

#[test]
fn a_reload_that_waits_behind_the_trial_is_answered_by_the_upgrade() {
    let (server, mut control) = serve(plan());
    let old = server.workers();
    let loaded = server.gate_files("loads-").len();
    server.write("hangs", "");
    server.signal_rtmin();
    wait_until("the trial", || server.gate_files("loads-").len() > loaded);
    control.send(br#"{"id": 7, "command": "reload --wait"}"#);
    server.wait_for_log("Control command: \"reload --wait\"");
    fs::remove_file(server.path("hangs")).expect("it is there");
    let reply = control.read().expect("a reply");
    assert_eq!(reply["data"]["status"].text(), "the new program takes over");
    server.wait_for_log_times("Starting monoceros", 2);
    wait_until("new workers alone", || {
        server.has_serving(2) && !server.workers().iter().any(|worker| old.contains(worker))
    });
    server.finish();
}

#[test]
fn files_of_the_old_settings_go_and_a_pid_file_is_no_reason_to_end() {
    let plan = Plan::app("app").started_in_own_folder().bound_elsewhere().file("app.py", APP);
    fs::create_dir(plan.path("run")).expect("the test's folder");
    let settings = |name: &str| format!("bind = 'unix:{name}.sock'\npidfile = 'run/{name}.pid'");
    let mut server = plan.config(&settings("a")).start();
    let old = server.wait_for_workers(1);
    let pid = format!("{}\n", server.pid());
    let read = |name: &str| fs::read_to_string(server.path(name)).unwrap_or_default();
    assert_eq!(read("run/a.pid"), pid);
    server.write("conf.py", &settings("b"));
    server.signal_rtmin();
    server.wait_for_log_times("Starting monoceros", 2);
    wait_until("new workers alone", || server.workers() != old && server.has_serving(1));
    assert_eq!((read("run/a.pid"), read("run/b.pid")), (String::new(), pid));
    assert!(!server.path("a.sock").exists());
    UnixStream::connect(server.path("b.sock")).expect("it listens");
    // As a cleaner of temporary folders leaves it.
    fs::remove_dir_all(server.path("run")).expect("the test's folder");
    server.signal_rtmin();
    server.wait_for_log_times("Starting monoceros", 3);
    wait_until("a worker", || server.has_serving(1));
    UnixStream::connect(server.path("b.sock")).expect("it listens");
    server.allow("run");
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
    server.expect_gone();
    assert!(!server.path("b.sock").exists());
}

#[test]
fn a_log_that_cannot_be_opened_fails_the_trial() {
    let mut server = plan().config("").start();
    let workers = server.wait_for_workers(1);
    for (times, name) in ["errorlog", "accesslog"].into_iter().enumerate() {
        server.write("conf.py", &format!("{name} = '/nowhere/at/all.log'"));
        server.signal_rtmin();
        server.wait_for_log_times("Upgrade failed, everything stays as it was", times + 1);
        assert_eq!(server.workers(), workers);
        assert_eq!(server.get("/").status, 200);
    }
    server.allow("");
    server.finish();
}

#[test]
fn a_drain_and_the_number_of_workers_outlive_the_program() {
    let (mut server, mut control) =
        serve(Plan::app("process").args(["--health-path", "/healthz", "--autoscale", "--max-workers", "4"]));
    control.data("drain");
    control.data("worker add");
    assert_eq!(server.get("/healthz").status, 503);
    wait_until("three workers", || server.has_serving(3));
    let old = server.workers();
    server.signal_rtmin();
    server.wait_for_log_times("Starting monoceros", 2);
    wait_until("new workers alone", || !server.workers().iter().any(|worker| old.contains(worker)));
    let mut control = Control::connect(&server.path("ctl.sock"));
    assert_eq!(control.data("show stats")["workers_target"].number(), 3.0);
    assert_eq!(server.get("/healthz").status, 503);
    control.data("drain off");
    assert_eq!(server.get("/healthz").status, 200);
    server.allow("autoscale");
    server.finish();
}

#[test]
fn an_app_that_loads_on_trial_but_not_after_it_ends_nobody() {
    // The start loads it once, the trial once more, the new program a third time.
    let app = APP.replace(
        "while (here",
        "with open(here / 'loads', 'a') as loads:\n    print(file=loads)\n\
         if len((here / 'loads').read_text()) == 3:\n    raise OSError('the database blinks')\n\
         while (here",
    );
    let plan = Plan::app("app").in_own_folder().file("app.py", &app);
    let mut server = plan.config("preload_app = True").start();
    let old = server.wait_for_workers(1);
    server.signal(SIGHUP);
    server.wait_for_log("The app cannot be loaded in the master, so each worker loads it:");
    wait_for_takeover(&server, &old);
    server.allow("the database blinks");
    server.allow("");
    server.finish();
}

#[test]
fn an_app_that_gevents_patch_breaks_fails_the_trial() {
    let app = format!("import threading, time\nif 'gevent' in time.sleep.__module__:\n    1 / 0\n{APP}");
    let mut server = plan().config("preload_app = True\nworker_class = 'gevent'").start();
    let workers = server.wait_for_workers(1);
    server.write("app.py", &app);
    server.signal(SIGHUP);
    server.wait_for_log("Reload failed, everything stays as it was");
    assert_eq!(server.workers(), workers);
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn a_server_that_was_upgraded_refuses_newcomers_at_its_end_as_before() {
    let mut server = Plan::app("process").start();
    let old = server.wait_for_workers(1);
    server.signal_rtmin();
    wait_for_takeover(&server, &old);
    let mut slow = server.connect();
    slow.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request to be served", || server.entered() == 1);
    server.signal(SIGTERM);
    wait_until("newcomers to be refused", || Client::try_connect(&server.address).is_err());
    server.release();
    assert_eq!(slow.read().status, 200);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn a_stop_while_a_config_file_waits_for_a_program_is_orderly() {
    let plan = Plan::app("process").started_in_own_folder().chdir(crate::util::apps());
    let [pid_file, path, slow, reads] =
        ["pid", "conf.py", "slow", "reads"].map(|name| plan.path(name).display().to_string());
    let config = format!(
        "import os, subprocess\nif os.path.exists('{slow}'):\n    \
         subprocess.check_output(['sh', '-c', 'touch {reads}; exec sleep 3'])\n"
    );
    let plan = plan.args(["--pid", &pid_file]);
    let mut server = plan.file("conf.py", &config).args(["--config", &path]).start();
    server.wait_for_workers(1);
    server.write("slow", "");
    server.signal(SIGHUP);
    wait_until("the file to wait", || server.path("reads").exists());
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(server.log().contains("Shutting down: Master") && !server.path("pid").exists(), "{}", server.log());
    server.allow("");
    server.expect_gone();
}
