//! USR2: a new program takes over the sockets of the old one, or gives way to it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGQUIT, SIGTERM, SIGUSR2, SIGWINCH};

use crate::util::client::Client;
use crate::util::process::{self, is_alive};
use crate::util::server::{Plan, Server, send};
use crate::util::{board, wait_until};

#[test]
fn a_new_program_takes_over_and_is_promoted() {
    for unix in [false, true] {
        let (mut server, pidfile) = start(unix);
        let old = server.pid();
        let new = upgrade(&server);
        assert_eq!(read(&pidfile).trim(), old.to_string(), "the old master keeps its pid file");
        assert_eq!(server.get("/").status, 200);

        server.signal(SIGTERM);
        server.wait_for_exit();
        server.wait_for_log("Master has been promoted.");
        wait_until("the pid file to be taken over", || read(&pidfile).trim() == new.to_string());
        assert!(!with_2(&pidfile).exists());
        // The socket file, too, must have survived the death of its maker.
        assert_eq!(server.get("/").status, 200);

        // The promoted master can be upgraded in its turn.
        send(new, SIGUSR2);
        wait_until("the next master", || with_2(&pidfile).exists());
        let third: i32 = read(&with_2(&pidfile)).trim().parse().expect("a pid");
        for master in [third, new] {
            send(master, SIGTERM);
            wait_until("the master to end", || !is_alive(master));
        }
        assert!(Client::try_connect(&server.address).is_err());
        server.expect_gone();
        assert!(!pidfile.exists() && !with_2(&pidfile).exists());
        server.expect_clean_log();
    }
}

#[test]
fn hooks_know_the_other_master() {
    let plan = Plan::app("echo").config(
        "def say(server, when): server.log.info('%s in %s: %s %s', when, server.pid, server.master_pid, server.reexec_pid)\n\
         def on_starting(server): say(server, 'starting')\n\
         def when_ready(server): say(server, 'ready')\n\
         def child_exit(server, worker): say(server, 'child exit')\n",
    );
    let (server, _) = start_plan(plan);
    let worker = server.wait_for_workers(1)[0];
    let (old, new) = (server.pid(), upgrade(&server));
    server.wait_for_log(&format!("starting in {old}: 0 0"));
    server.wait_for_log(&format!("starting in {new}: {old} 0"));
    server.wait_for_log(&format!("ready in {new}: {old} 0"));
    send(worker, SIGTERM);
    server.wait_for_log(&format!("child exit in {old}: 0 {new}"));
    send(new, SIGTERM);
    wait_until("the new master to end", || !is_alive(new));
    server.finish();
}

#[test]
fn an_upgrade_can_be_backed_out() {
    let (server, pidfile) = start(false);
    let new = upgrade(&server);
    send(new, SIGQUIT);
    wait_until("the new master to end", || !is_alive(new));
    assert!(!with_2(&pidfile).exists());
    assert_eq!(read(&pidfile).trim(), server.pid().to_string());
    server.signal(SIGHUP);
    server.wait_for_log("Hang up: Master");
    assert_eq!(server.get("/").status, 200);
    // And tried again.
    let again = upgrade(&server);
    send(again, SIGKILL);
    wait_until("its workers to end", || process::children(again).is_empty());
    assert_eq!(server.get("/").status, 200);
    let mut server = server;
    server.allow("");
    server.signal(SIGTERM);
    server.wait_for_exit();
    server.expect_gone();
}

#[test]
fn a_second_usr2_is_ignored_while_both_live() {
    let (mut server, pidfile) = start(false);
    let new = upgrade(&server);
    server.signal(SIGUSR2);
    server.wait_for_log("USR2 signal ignored. Child exists.");
    send(new, SIGUSR2);
    server.wait_for_log("USR2 signal ignored. Parent exists.");
    send(new, SIGTERM);
    wait_until("the new master to end", || !is_alive(new));
    assert_eq!(read(&pidfile).trim(), server.pid().to_string());
    server.allow("USR2 signal ignored");
    server.finish();
}

#[test]
fn a_failed_upgrade_leaves_the_old_program_serving() {
    let plan = Plan::app("app").in_own_folder().file("app.py", "from echo import application\n");
    let apps = crate::util::apps();
    let mut server = plan.args(["--pythonpath", apps.to_str().expect("a plain path")]).start();
    let workers = server.wait_for_workers(1);
    assert_eq!(server.get("/").status, 200);
    server.write("app.py", "raise RuntimeError('bad upgrade')\n");
    server.signal(SIGUSR2);
    server.wait_for_log("Worker failed to boot");
    wait_until("only the old program", || server.workers() == workers);
    assert_eq!(server.get("/").status, 200);
    server.write("app.py", "from echo import application\n");
    server.signal(SIGUSR2);
    wait_until("the new master beside the worker", || server.workers().len() == 2);
    // A worker each of the old program, the failed one and the new.
    server.wait_for_log_times("Booting worker with pid", 3);
    server.allow("");
    server.signal(SIGTERM);
    server.wait_for_exit();
    let masters: Vec<i32> = server.processes().into_iter().filter(|&pid| !process::children(pid).is_empty()).collect();
    masters.iter().for_each(|&pid| send(pid, SIGTERM));
    server.expect_gone();
}

#[test]
fn winch_and_quit_finish_an_upgrade_of_a_daemon() {
    let plan = Plan::app("echo").error_log("error.log");
    let pidfile = plan.path("pid");
    let mut server = plan.args(["--daemon", "--pid", pidfile.to_str().expect("a plain path")]).start();
    server.wait_for_exit();
    wait_until("the pid file", || pidfile.exists());
    let old: i32 = read(&pidfile).trim().parse().expect("a pid");
    send(old, SIGUSR2);
    wait_until("the second pid file", || with_2(&pidfile).exists());
    let new: i32 = read(&with_2(&pidfile)).trim().parse().expect("a pid");
    wait_until("the new workers", || board::all_serve(new, 1));
    send(old, SIGWINCH);
    wait_until("only the new master below the old", || process::children(old) == [new]);
    assert_eq!(server.get("/").status, 200);
    send(old, SIGQUIT);
    wait_until("the promotion", || read(&pidfile).trim() == new.to_string());
    assert_eq!(server.get("/").status, 200);
    send(new, SIGTERM);
    server.expect_gone();
}

#[test]
fn winch_works_in_the_foreground_during_an_upgrade_and_hup_undoes_it() {
    let (mut server, _) = start(true);
    let new = upgrade(&server);
    server.signal(SIGWINCH);
    wait_until("only the new master below the old", || server.workers() == [new]);
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGHUP);
    wait_until("the old master's worker", || server.workers().len() == 2);
    send(new, SIGWINCH);
    wait_until("the new master's workers to go", || process::children(new).is_empty());
    assert_eq!(server.get("/").status, 200);
    send(new, SIGQUIT);
    wait_until("the new master to end", || !is_alive(new));
    server.wait_for_log("The new master");
    assert_eq!(server.get("/").status, 200, "the socket file is still there");
    server.allow("WINCH");
    server.finish();
}

#[test]
fn masters_that_are_stopped_together_leave_no_socket_file() {
    let (mut server, pidfile) = start(true);
    let new = upgrade(&server);
    let socket = server.path("socket");
    send(new, SIGTERM);
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
    assert!(!socket.exists() && !pidfile.exists() && !with_2(&pidfile).exists());
    server.expect_clean_log();
}

/// `on_exit` keeps both at their very end, so that neither has ended when the other looks whether
/// it is the last.
#[test]
fn masters_that_end_at_the_same_moment_leave_no_socket_file() {
    const CONFIG: &str = "\
import os, time

def on_exit(server):
    patience = time.monotonic() + 30
    while not os.path.exists(os.environ['MAY_END']) and time.monotonic() < patience:
        time.sleep(0.005)
";
    let plan = Plan::app("echo").unix().file("conf.py", CONFIG);
    let [config, may_end] = ["conf.py", "may_end"].map(|name| plan.path(name).display().to_string());
    let (mut server, _) = start_plan(plan.args(["--config", &config]).env("MAY_END", may_end));
    let new = upgrade(&server);
    send(new, SIGTERM);
    server.signal(SIGTERM);
    server.wait_for_log("Shutting down: Master\n");
    server.wait_for_log("Shutting down: Master.2\n");
    server.write("may_end", "");
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
    assert!(!server.path("socket").exists());
    server.expect_clean_log();
}

#[test]
fn an_old_master_that_is_killed_leaves_everything_to_the_new_one() {
    let (mut server, pidfile) = start(true);
    let new = upgrade(&server);
    server.signal(SIGKILL);
    server.wait_for_exit();
    wait_until("the pid file to be taken over", || read(&pidfile).trim() == new.to_string());
    assert_eq!(server.get("/").status, 200);
    send(new, SIGTERM);
    server.expect_gone();
    assert!(!server.path("socket").exists());
}

#[test]
fn a_new_master_that_is_killed_leaves_everything_to_the_old_one() {
    let (mut server, pidfile) = start(true);
    // The second finds what the first has left of its pid file.
    for _ in 0..2 {
        let new = upgrade(&server);
        send(new, SIGKILL);
        server.wait_for_log(&format!("The new master (pid:{new}) was sent SIGKILL!"));
        wait_until("its workers to end", || server.processes().len() == 2);
        assert_eq!(server.get("/").status, 200);
        assert_eq!(read(&pidfile).trim(), server.pid().to_string());
    }
    for provoked in ["was sent SIGKILL", "Exception in worker process", "the master is gone"] {
        server.allow(provoked);
    }
    server.finish();
}

#[test]
fn an_upgrade_in_place_keeps_the_pid_and_the_sockets() {
    for unix in [false, true] {
        let (mut server, pidfile) = start(unix);
        let before = server.wait_for_workers(1);
        for round in 2..=3 {
            server.signal_rtmin();
            server.wait_for_log_times("Starting monoceros", round);
        }
        wait_until("new workers only", || {
            let now = server.workers();
            now.len() == 1 && !now.contains(&before[0])
        });
        assert_eq!(server.get("/").status, 200);
        assert_eq!(read(&pidfile).trim(), server.pid().to_string());
        let socket = server.path("socket");
        server.signal(SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0));
        server.expect_gone();
        server.expect_clean_log();
        assert!(!pidfile.exists() && !socket.exists());
    }
}

#[test]
fn an_upgrade_in_place_that_would_not_start_changes_nothing() {
    let plan = Plan::app("app").in_own_folder().file("app.py", "from echo import application\n").file("conf.py", "");
    let (apps, conf) = (crate::util::apps(), plan.path("conf.py"));
    let paths = [&apps, &conf].map(|path| path.to_str().expect("a plain path").to_string());
    let mut server = plan.args(["--pythonpath", &paths[0], "-c", &paths[1]]).start();
    let workers = server.wait_for_workers(1);
    assert_eq!(server.get("/").status, 200);
    for (times, (file, text)) in
        [("app.py", "raise RuntimeError('bad upgrade')"), ("conf.py", "workers = (((")].into_iter().enumerate()
    {
        server.write(file, text);
        server.signal_rtmin();
        server.wait_for_log_times("Upgrade failed, everything stays as it was", times + 1);
        assert_eq!(server.get("/").status, 200);
        assert_eq!(server.workers(), workers);
        server.write("app.py", "from echo import application\n");
        server.write("conf.py", "");
    }
    server.signal_rtmin();
    server.wait_for_log_times("Starting monoceros", 2);
    wait_until("a new worker", || server.workers() != workers && server.has_serving(1));
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

/// The variables of an upgrade name these processes, but are not meant for this program, or name no
/// child of it: a foreign process, and one that a start script left behind when it became the
/// server.
#[test]
fn processes_that_are_no_workers_of_ours_get_no_signal() {
    let mut stranger = Command::new("sleep").arg("300").spawn().expect("sleep is there");
    let pid = stranger.id();
    let scripts = [
        format!("export MONOCEROS_WORKERS= MONOCEROS_ENDING_WORKERS={pid}"),
        format!("export MONOCEROS_WORKERS={pid} MONOCEROS_ENDING_WORKERS={pid},{pid}"),
        format!("export MONOCEROS_IN_PLACE=$$ MONOCEROS_WORKERS={pid} MONOCEROS_ENDING_WORKERS={pid},1,0,-1"),
        format!("export MONOCEROS_IN_PLACE={pid} MONOCEROS_WORKERS= MONOCEROS_ENDING_WORKERS={pid}"),
        "export MONOCEROS_WORKERS= MONOCEROS_ENDING_WORKERS=$(cat child)".to_string(),
    ];
    for script in scripts {
        let script = format!("cd $GATE && {{ sleep 300 & echo $! > child; }} && {script} && exec \"$@\"");
        let mut server = Plan::app("echo").through(["sh", "-c", &script, "sh"]).start();
        let child: i32 = read(&server.path("gate/child")).trim().parse().expect("a pid");
        // A signal at the start would have come before there were workers.
        assert_eq!(server.get("/").status, 200);
        server.signal(SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0));
        assert!(is_alive(child) && is_alive(pid as i32), "{script}");
        send(child, SIGKILL);
        server.expect_gone();
    }
    stranger.kill().expect("our own child");
    stranger.wait().expect("our own child");
}

#[test]
fn upgrade_variables_for_another_process_are_ignored() {
    let mut stranger = Command::new("sleep").arg("300").spawn().expect("sleep is there");
    let pid = stranger.id().to_string();
    for variables in [&["GUNICORN_PID", "GUNICORN_FD"][..], &["MONOCEROS_WORKERS", "GUNICORN_FD"], &["GUNICORN_FD"]] {
        let plan = Plan::app("echo");
        let pidfile = plan.path("pid");
        let plan = plan.args(["--pid", pidfile.to_str().expect("a plain path")]);
        // Standard output is no socket, and no number of ours.
        let given = |plan: Plan, name: &&str| plan.env(name, if *name == "GUNICORN_FD" { "1,77" } else { &pid });
        let server = variables.iter().fold(plan, given).start();
        assert_eq!(read(&pidfile).trim(), server.pid().to_string(), "{variables:?}");
        assert_eq!(server.get("/").status, 200);
        let log = server.log();
        assert!(!log.contains("promoted") && !log.contains("Master.2"), "{log}");
        server.finish();
    }
    stranger.kill().expect("our own child");
    stranger.wait().expect("our own child");
}

#[test]
fn variables_for_the_next_program_are_seen_by_no_other_process() {
    const CONFIG: &str = "\
import os, subprocess

def _look():
    inherited = subprocess.run(['env'], capture_output=True, text=True).stdout.splitlines()
    names = list(os.environ) + [line.split('=')[0] for line in inherited]
    passed = [name for name in names if name.startswith(('GUNICORN_', 'MONOCEROS_', 'LISTEN_'))]
    with open(os.path.join(os.environ['GATE'], 'passed'), 'a') as file:
        print([name for name in passed if name != 'MONOCEROS_TEST'], file=file)

_look()
";
    let plan = Plan::app("echo").file("conf.py", CONFIG);
    let config = plan.path("conf.py").display().to_string();
    let (server, _) = start_plan(plan.args(["--config", &config]));
    let passed = || read(&server.path("gate/passed"));
    server.signal_rtmin();
    server.wait_for_log_times("Starting monoceros", 2);
    let new = upgrade(&server);
    send(new, SIGTERM);
    wait_until("the new master to end", || !is_alive(new));
    // At the start, for the check of the upgrade in place, after it, and in the master beside.
    assert_eq!(passed(), "[]\n".repeat(4));
    server.finish();
}

fn start(unix: bool) -> (Server, PathBuf) {
    start_plan(if unix { Plan::app("echo").unix() } else { Plan::app("echo") })
}

fn start_plan(plan: Plan) -> (Server, PathBuf) {
    let pidfile = plan.path("pid");
    let server = plan.args(["--pid", pidfile.to_str().expect("a plain path")]).start();
    server.wait_for_workers(1);
    (server, pidfile)
}

/// Sends USR2 and waits until the new master serves: its pid.
fn upgrade(server: &Server) -> i32 {
    let second = with_2(&server.path("pid"));
    server.signal(SIGUSR2);
    let named = || read(&second).trim().parse().unwrap_or(0);
    wait_until("a pid file that names a child of the old master", || server.workers().contains(&named()));
    let new: i32 = named();
    wait_until("the new master's workers", || board::all_serve(new, 1));
    new
}

fn with_2(pidfile: &std::path::Path) -> PathBuf {
    pidfile.with_file_name("pid.2")
}

fn read(path: &std::path::Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
