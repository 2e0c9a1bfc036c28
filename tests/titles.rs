//! The titles that `ps` shows: ours, and those that hooks and applications set by the package
//! `setproctitle`.

use std::fs;
use std::path::PathBuf;

use crate::util::server::{Plan, Server};
use crate::util::wait_until;

/// What `psutil` takes for the first word of the command line, and Airflow's monitor looks at.
fn title(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Nothing of a longer title is left behind a shorter one.
#[track_caller]
fn expect_nothing_behind(pid: i32) {
    let line = fs::read(format!("/proc/{pid}/cmdline")).expect("it lives");
    let behind = line.iter().skip_while(|byte| **byte != 0).find(|byte| **byte != 0);
    assert_eq!(behind, None, "{}", String::from_utf8_lossy(&line));
}

fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

#[track_caller]
fn wait_for_title(pid: i32, expected: &str) {
    wait_until(&format!("{expected:?}, there is {:?}", title(pid)), || title(pid) == expected);
    wait_until(&format!("its name, there is {:?}", comm(pid)), || expected.starts_with(&comm(pid)));
    assert_eq!(comm(pid).len(), expected.len().min(15));
    expect_nothing_behind(pid);
}

fn plan(config: &str) -> Plan {
    let plan = Plan::app("app").in_own_folder().file("app.py", APP).file("conf.py", config);
    let path = plan.path("conf.py").display().to_string();
    // A variable that must survive.
    plan.env("KEPT", "and found again").args(["--config", &path, "--name", "shop"])
}

/// Sets the title in the query, and returns the one before and the present environment.
const APP: &str = "import os\n\
                   def application(environ, start_response):\n\
                   \x20   start_response('200 OK', [])\n\
                   \x20   if not environ['QUERY_STRING']:\n        return [b'ok']\n\
                   \x20   import setproctitle, subprocess\n\
                   \x20   before = setproctitle.getproctitle()\n\
                   \x20   setproctitle.setproctitle(environ['QUERY_STRING'])\n\
                   \x20   os.environ['NEW'] = 'set'\n\
                   \x20   inherited = subprocess.check_output(['sh', '-c', 'echo $KEPT, $NEW'], text=True)\n\
                   \x20   return [f'{before}|{inherited}'.encode()]\n";

#[test]
fn an_app_may_set_a_title_after_ours() {
    let server = plan("").start();
    let worker = server.wait_for_workers(1)[0];
    wait_for_title(worker, "monoceros: worker [shop]");
    assert_eq!(server.get("/?mine").text(), "monoceros: worker [shop]|and found again, set\n");
    wait_for_title(worker, "mine");
    let long = "a-longer-title-than-the-first-one-was".repeat(4);
    assert_eq!(server.get(&format!("/?{long}")).text(), "mine|and found again, set\n");
    wait_for_title(worker, &long);
    server.get("/?short");
    wait_for_title(worker, "short");
    wait_for_title(server.pid(), "monoceros: master [shop]");
    server.finish();
}

#[test]
fn a_title_that_a_config_has_set_gives_way_to_ours_and_may_be_set_again() {
    let config = "import setproctitle\n\
                  setproctitle.setproctitle('a title from the config file, longer than any of ours will be')\n\
                  def post_fork(server, worker):\n\
                  \x20   setproctitle.setproctitle('x ' + setproctitle.getproctitle())\n\
                  def when_ready(server):\n\
                  \x20   setproctitle.setproctitle('ready')\n";
    let server = plan(config).start();
    let worker = server.wait_for_workers(1)[0];
    wait_for_title(worker, "x monoceros: worker [shop]");
    wait_for_title(server.pid(), "ready");
    assert_eq!(server.get("/?y").text(), "x monoceros: worker [shop]|and found again, set\n");
    wait_for_title(worker, "y");
    server.finish();
}

/// Airflow 2's webserver counts the children of the master whose title begins so, and replaces
/// workers one by one.
#[test]
fn airflows_monitor_finds_its_workers_ready() {
    let config = "import setproctitle\n\
                  def post_worker_init(_):\n\
                  \x20   old_title = setproctitle.getproctitle()\n\
                  \x20   setproctitle.setproctitle('[ready] ' + old_title)\n";
    let server = plan(config).args(["--workers", "2"]).start();
    let ready = |server: &Server| {
        server.workers().into_iter().filter(|worker| title(*worker).starts_with("[ready] ")).collect::<Vec<_>>()
    };
    wait_until("two that are ready", || ready(&server).len() == 2);
    server.signal(nix::sys::signal::Signal::SIGTTIN);
    wait_until("a third", || ready(&server).len() == 3);
    server.signal(nix::sys::signal::Signal::SIGTTOU);
    wait_until("two again", || server.workers().len() == 2);
    for worker in ready(&server) {
        wait_for_title(worker, "[ready] monoceros: worker [shop]");
    }
    server.finish();
}

#[test]
fn a_title_that_was_set_before_the_server_began_gives_way() {
    let before = "import setproctitle\nsetproctitle.setproctitle('before')\n";
    let plan = plan("").file("sitecustomize.py", before);
    // Where the wheel's packages are: sitecustomize runs before the virtualenv's own are found by
    // the program.
    let packages: PathBuf = crate::util::venv().join("lib");
    let packages = fs::read_dir(packages).expect("a folder").flatten().next().expect("a version").path();
    let path = format!("{}:{}", plan.path("").display(), packages.join("site-packages").display());
    let server = plan.env("PYTHONPATH", path).start();
    let worker = server.wait_for_workers(1)[0];
    wait_for_title(worker, "monoceros: worker [shop]");
    wait_for_title(server.pid(), "monoceros: master [shop]");
    assert_eq!(server.get("/?z").text(), "monoceros: worker [shop]|and found again, set\n");
    wait_for_title(worker, "z");
    server.finish();
}
