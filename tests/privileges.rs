//! User, group, umask: what root gives away before the app is loaded. These tests need root and say so when they are not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::util::json::Json;
use crate::util::server::Plan;
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
    std::os::unix::fs::chown(plan.path(""), Some(UID), Some(GID)).expect("root may");
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
    server.signal(nix::sys::signal::Signal::SIGUSR1);
    wait_until("an access line in the new file", || {
        server.get("/");
        fs::read_to_string(&access).is_ok_and(|text| text.contains("GET /"))
    });
    server.finish();
}

/// The app that tells its identity, in a folder which any user may enter; `None`, and a word, without root. The app is
/// preloaded: its imports must not depend on whether anybody but root may read the interpreter's own folder.
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
