//! User, group, umask: the rights that root gives up before the app is loaded. These tests need
//! root, and say so without it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use nix::sys::signal::Signal::{SIGHUP, SIGTERM, SIGUSR1};

use crate::util::json::Json;
use crate::util::server::{Plan, Server};
use crate::util::{is_root, wait_until};

/// Ids that need no account: "a uid without a passwd entry works".
const UID: u32 = 54321;
const GID: u32 = 54322;

#[test]
fn workers_drop_to_user_and_group_and_the_master_keeps_root() {
    let Some(plan) = as_root() else { return };
    let server = plan.args(["--user", &UID.to_string(), "--group", &GID.to_string()]).start();
    let identity = server.get("/identity").json();
    assert_eq!((identity["uid"].number() as u32, identity["gid"].number() as u32), (UID, GID));
    let owner = |pid: i32| fs::metadata(format!("/proc/{pid}")).expect("it lives").uid();
    assert_eq!(owner(server.pid()), 0);
    assert_eq!(owner(server.workers()[0]), UID);
    server.finish();
}

#[test]
fn the_app_is_loaded_without_roots_rights() {
    if !is_root() {
        return println!("not tried: this needs root");
    }
    // It imports nothing: the interpreter's own folder may be one that only root can enter.
    let app = "import posix\nloaded_by = posix.getuid()\n\n\ndef application(environ, start_response):\n    \
               start_response('200 OK', [])\n    return [str(loaded_by).encode()]\n";
    let plan = Plan::app("app").in_own_folder().file("app.py", app);
    fs::set_permissions(plan.path(""), fs::Permissions::from_mode(0o755)).expect("our own folder");
    let server = plan.args(["--user", &UID.to_string()]).start();
    assert_eq!(server.get("/").text(), UID.to_string());
    server.finish();
}

#[test]
fn names_are_looked_up() {
    let Some(plan) = as_root() else { return };
    let server = plan.args(["--user", "nobody", "--initgroups"]).start();
    let identity = server.get("/identity").json();
    assert_ne!(identity["uid"], Json::Number(0.0));
    server.finish();

    let Some(plan) = as_root() else { return };
    let finished = plan.args(["--user", "no-such-user"]).run();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("no-such-user"), "{finished:?}");
}

#[test]
fn socket_and_logs_belong_to_the_workers() {
    let Some(plan) = as_root() else { return };
    let plan = plan.unix().error_log("error.log");
    let access = plan.path("access.log");
    // As a folder for logs is: the workers' own.
    chown(plan.path(""), Some(UID), Some(GID)).expect("root may");
    let server = plan
        .args(["--user", &UID.to_string(), "--group", &GID.to_string(), "--umask", "007"])
        .args(["--access-logfile", access.to_str().expect("a plain path")])
        .start();
    assert_eq!(server.get("/").status, 200);
    let socket = fs::metadata(server.path("socket")).expect("the socket");
    assert_eq!((socket.uid(), socket.gid(), socket.permissions().mode() & 0o777), (UID, GID, 0o770));
    for log in ["error.log", "access.log"] {
        let meta = fs::metadata(server.path(log)).expect("the log");
        assert_eq!((meta.uid(), meta.gid()), (UID, GID), "{log}");
    }
    // After a rotation the worker must be able to open the new file, without root.
    fs::rename(&access, server.path("access.log.1")).expect("the log can be moved");
    server.signal(SIGUSR1);
    wait_until("an access line in the new file", || {
        server.get("/");
        fs::read_to_string(&access).is_ok_and(|text| text.contains("GET /"))
    });
    server.finish();
}

/// The workers' user may write to the folder of the logs, and so put anything in their place.
#[test]
fn a_log_that_has_become_a_link_is_neither_written_nor_given_away() {
    for python in [false, true] {
        let Some(plan) = as_root() else { return };
        let logs = ["error.log", "access.log"].map(|name| plan.path("logs").join(name));
        fs::create_dir(plan.path("logs")).expect("our own folder");
        chown(plan.path("logs"), Some(UID), Some(GID)).expect("root may");
        let plan = if python { with_python_logging(plan) } else { plan };
        let [error, access] = logs.clone().map(|path| path.display().to_string());
        let plan = plan.args(["--user", &UID.to_string(), "--group", &GID.to_string(), "--pid", "pid"]);
        let server = plan.args(["--error-logfile", &error, "--access-logfile", &access]).launch();
        server.wait_for_workers(1);
        logs.iter().for_each(|log| assert_eq!(owner(log), (UID, GID), "{log:?}"));

        let secrets = ["secret", "other"].map(|name| server.path(name));
        for (log, secret) in logs.iter().zip(&secrets) {
            fs::write(secret, "secret\n").expect("our own folder");
            fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).expect("our own file");
            fs::rename(log, log.with_extension("1")).expect("the log can be moved");
            symlink(secret, log).expect("our own folder");
        }
        let old = || fs::read_to_string(logs[0].with_extension("1")).unwrap_or_default();
        for (signal, refusal) in [(SIGUSR1, "that others than root can lay"), (SIGHUP, "Reload failed")] {
            server.signal(signal);
            wait_until("the refusal", || old().contains(refusal));
        }
        for secret in &secrets {
            assert_eq!((owner(secret), fs::read_to_string(secret).expect("ours")), ((0, 0), "secret\n".into()));
        }
        // It goes on with the old files, and reopens the names once these are usable again.
        for log in &logs {
            fs::remove_file(log).expect("our own folder");
        }
        server.signal(SIGUSR1);
        wait_until("the new files", || logs.iter().all(|log| log.exists()));
        logs.iter().for_each(|log| assert_eq!(owner(log), (UID, GID), "{log:?}"));
        stop(server);
    }
}

#[test]
fn a_start_ends_with_a_sentence_where_a_log_is_behind_a_link() {
    for (option, python) in [("--error-logfile", false), ("--access-logfile", false), ("--error-logfile", true)] {
        let Some(plan) = as_root() else { return };
        let (secret, folder) = (plan.path("secret"), plan.path("logs"));
        fs::write(&secret, "secret\n").expect("our own folder");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("our own file");
        fs::create_dir(&folder).expect("our own folder");
        chown(&folder, Some(UID), Some(GID)).expect("root may");
        symlink(&secret, folder.join("log")).expect("our own folder");
        let plan = if python { with_python_logging(plan) } else { plan };
        let finished = plan
            .args(["--user", &UID.to_string(), "--group", &GID.to_string()])
            .args([option, folder.join("log").to_str().expect("a plain path")])
            .run();
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains("isn't writable") && finished.stderr.contains("is a link"), "{finished:?}");
        assert!(!finished.stderr.contains("Traceback"), "{finished:?}");
    }
}

/// As images of containers have it.
#[test]
fn a_log_that_is_a_link_to_a_standard_stream_is_that_stream() {
    let Some(plan) = as_root() else { return };
    let folder = plan.path("logs");
    fs::create_dir(&folder).expect("our own folder");
    chown(&folder, Some(UID), Some(GID)).expect("root may");
    let [error, access] = [("error", "/dev/stderr"), ("access", "/dev/stdout")].map(|(name, stream)| {
        symlink(stream, folder.join(name)).expect("our own folder");
        folder.join(name).display().to_string()
    });
    let server =
        plan.args(["--user", &UID.to_string(), "--error-logfile", &error, "--access-logfile", &access]).start();
    assert_eq!(server.get("/").status, 200);
    wait_until("the access line", || server.stdout().contains("GET / HTTP/1.1"));
    server.finish();
}

#[test]
fn a_pid_file_that_is_no_file_ends_the_start() {
    let make_fifo = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("our own folder");
    // Which never ends.
    let make_link = |path: &Path| symlink("/dev/zero", path).expect("our own folder");
    for make in [&make_fifo as &dyn Fn(&Path), &make_link] {
        let plan = Plan::app("echo");
        let path = plan.path("pid");
        make(&path);
        let finished = plan.args(["--pid", path.to_str().expect("a plain path")]).run();
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains("is no regular file. Can't create pidfile."), "{finished:?}");
    }
}

/// The logs of a logger class are Python's files.
fn with_python_logging(plan: Plan) -> Plan {
    let config = "from gunicorn.glogging import Logger\nclass Own(Logger):\n    pass\nlogger_class = Own\n";
    plan.config(config)
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).expect("it is there");
    (meta.uid(), meta.gid())
}

/// A server whose log contains faults that the test has provoked.
fn stop(mut server: Server) {
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
}

/// The app that tells its identity, in a folder which any user may enter; `None`, and a word,
/// without root. The app is preloaded: its imports must not depend on whether a user other than
/// root may read the interpreter's own folder.
fn as_root() -> Option<Plan> {
    if !is_root() {
        println!("not tried: this needs root");
        return None;
    }
    let copied = fs::read_to_string(crate::util::apps().join("process.py")).expect("the app");
    let plan = Plan::app("process").in_own_folder().file("process.py", &copied).args(["--preload"]);
    for (folder, mode) in [("", 0o755), ("gate", 0o777), ("tmp", 0o777)] {
        fs::set_permissions(plan.path(folder), fs::Permissions::from_mode(mode)).expect("our own folder");
    }
    Some(plan)
}
