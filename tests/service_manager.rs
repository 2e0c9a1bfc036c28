//! The notifications for systemd; its sockets; and the examples in conf/.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal::{SIGHUP, SIGQUIT, SIGSTOP, SIGTERM, SIGUSR2};

use crate::util::client::{Address, Client};
use crate::util::load::version;
use crate::util::notify::NotifySocket;
use crate::util::process::is_alive;
use crate::util::server::{Plan, Server, send};
use crate::util::{board, root, wait_until};

#[test]
fn ready_is_said_when_a_worker_serves_and_not_before() {
    let slow = format!("import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\n{}", version(1));
    let (server, notify) = start(&slow, &[]);
    server.wait_for_log("Booting worker with pid");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(notify.heard(), Vec::<String>::new());
    server.write("go", "");
    notify.wait_for("READY=1\nSTATUS=Gunicorn arbiter booted", 1);
    notify.wait_for("STATUS=1 of 1 workers serving", 1);
    assert_eq!(server.get("/").status, 200);
    server.finish();
    assert_eq!(notify.heard().last().map(String::as_str), Some("STOPPING=1\nSTATUS=Shutting down"));
    assert_eq!(notify.count("STOPPING=1"), 1);
}

#[test]
fn a_reload_is_announced_and_ended_whatever_comes_of_it() {
    let (mut server, notify) = start(&version(1), &[]);
    notify.wait_for("READY=1", 1);
    for (text, readies) in [(version(2), 2), ("raise RuntimeError('bad deploy')".into(), 3), (version(3), 4)] {
        server.write("app.py", &text);
        server.signal(SIGHUP);
        notify.wait_for("RELOADING=1\nMONOTONIC_USEC=", readies - 1);
        notify.wait_for("READY=1", readies);
    }
    wait_until("the last version", || server.get("/").text().starts_with("v3"));
    server.allow("");
    server.finish();
}

#[test]
fn the_watchdog_is_notified_only_while_workers_live() {
    // A watchdog notification every half second.
    let (mut server, notify) = start(&version(1), &[("WATCHDOG_USEC", "1000000")]);
    notify.wait_for("WATCHDOG=1", 3);
    // All workers stop answering, and new ones cannot be loaded: now the service manager must act.
    server.write("app.py", "import time\ntime.sleep(600)\n");
    let worker = server.workers()[0];
    send(worker, SIGSTOP);
    wait_until("the worker to be given up", || !is_alive(worker));
    let heard = notify.count("WATCHDOG=1");
    std::thread::sleep(Duration::from_millis(1600));
    assert_eq!(notify.count("WATCHDOG=1"), heard);
    server.allow("");
    server.signal(SIGQUIT);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn a_watchdog_of_another_process_is_left_alone() {
    let (server, notify) = start(&version(1), &[("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")]);
    notify.wait_for("READY=1", 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(notify.count("WATCHDOG"), 0);
    server.finish();
}

#[test]
fn an_upgrade_hands_the_service_on() {
    upgrade(&[]);
    upgrade(&[("GUNICORN_CMD_ARGS", "--shutdown-delay 1")]);
}

fn upgrade(env: &[(&str, &str)]) {
    let (mut server, notify) = start(&version(1), env);
    notify.wait_for("READY=1", 1);
    let old = server.pid();
    let workers = server.workers();
    server.signal(SIGUSR2);
    wait_until("the new master beside the worker", || server.workers().len() == 2);
    let new = server.workers().into_iter().find(|pid| !workers.contains(pid)).expect("just counted");
    wait_until("its worker", || board::all_serve(new, 1));
    server.signal(SIGTERM);
    server.wait_for_exit();
    // The old master may send it while only it is accepted (NotifyAccess=main), the new one when it
    // is alone.
    notify.wait_for(&format!("MAINPID={new}"), 2);
    assert_eq!(notify.count("STOPPING=1"), 0, "the service goes on: {:?}", notify.heard());
    assert!(!is_alive(old));
    send(new, SIGTERM);
    notify.wait_for("STOPPING=1", 1);
    server.expect_gone();
}

#[test]
fn the_app_does_not_see_the_service_managers_socket() {
    // With a Python config the interpreter, and its copy of the environment, is older than the
    // master's first step.
    for config in ["conf.toml", "conf.py"] {
        let plan = Plan::app("process").file(config, "");
        let notify = NotifySocket::at(&plan.path("notify"));
        let config = plan.path(config).display().to_string();
        let plan = plan.args(["-c", &config]).env("NOTIFY_SOCKET", notify.path()).env("WATCHDOG_USEC", "9000000");
        let server = plan.start();
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"] {
            assert_eq!(server.get(&format!("/env?{name}")).text(), "null", "{name}");
        }
        server.finish();
    }
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let server = Plan::app("echo").env("LISTEN_PID", "1").env("LISTEN_FDS", "1").start();
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

#[test]
fn sockets_from_the_service_manager_are_served_through_every_upgrade_and_stay() {
    for by_number in [false, true] {
        let plan = Plan::app("process").bound_elsewhere();
        let path = plan.path("activated");
        // As from systemd: made by another process, passed as descriptor 3, by pid and count or by
        // name.
        let listener = UnixListener::bind(&path).expect("a free path");
        fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).expect("our own descriptor");
        let set = if by_number { "" } else { "LISTEN_PID=$$ LISTEN_FDS=1" };
        let script = format!("exec 3<&{}; exec env {set} \"$@\"", listener.as_raw_fd());
        // Not sh: dash knows descriptors of one digit only.
        let plan = plan.through(["bash", "-c", &script, "bash"]);
        let plan = if by_number { plan.args(["--bind", "fd://3"]) } else { plan.args(["--bind", "127.0.0.1:1"]) };
        let mut server = plan.start();
        assert_eq!(server.address, Address::Unix(path.clone()));
        assert_eq!(server.get("/").status, 200);

        let before = server.wait_for_workers(1);
        server.signal_rtmin();
        server.wait_for_log_times("Starting monoceros", 2);
        wait_until("a new worker in place", || server.workers() != before && server.has_serving(1));
        let before = server.workers();
        server.signal(SIGHUP);
        wait_until("a new worker alone", || server.workers() != before && server.has_serving(1));
        assert_eq!(server.get("/").status, 200);

        let before = server.workers();
        server.signal(SIGUSR2);
        wait_until("the new master beside the worker", || server.workers().len() == 2);
        let new = server.workers().into_iter().find(|pid| !before.contains(pid)).expect("just counted");
        wait_until("its worker", || board::all_serve(new, 1));
        server.signal(SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0));
        assert_eq!(server.get("/").status, 200, "the new master serves");
        send(new, SIGTERM);
        server.expect_gone();
        server.expect_clean_log();
        assert!(path.exists(), "the file is the manager's");
        // And so is the socket: clients wait in it for the next start.
        assert!(Client::try_connect(&server.address).is_ok());
    }
}

#[test]
fn the_units_are_as_systemd_wants_them() {
    let units = ["conf/systemd/monoceros.service", "conf/systemd/monoceros.socket"].map(|unit| root().join(unit));
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output();
    let Ok(output) = output else { return println!("skipped: no systemd-analyze on this machine") };
    let checked = String::from_utf8_lossy(&output.stderr);
    // A machine without the program in its place says so; everything else is the unit's fault.
    let faults: Vec<&str> =
        checked.lines().filter(|line| line.contains("monoceros") && !line.contains("is not executable")).collect();
    assert!(faults.is_empty(), "{checked}");
}

/// One worker with this app, and the service manager that listens.
fn start(app: &str, env: &[(&str, &str)]) -> (Server, NotifySocket) {
    let plan = Plan::app("app").started_in_own_folder().file("app.py", app).args(["--timeout", "2"]);
    let notify = NotifySocket::at(&plan.path("notify"));
    let plan = plan.env("NOTIFY_SOCKET", notify.path());
    let server = env.iter().fold(plan, |plan, (name, value)| plan.env(name, value)).start();
    (server, notify)
}
