//! What the control socket can do beyond gunicorn's: the traceback of a reload that failed.

use std::process::Command;

use crate::control::serve;
use crate::util::load::version;
use crate::util::server::{Plan, Server};
use crate::util::program;

/// `ctl` with the socket of this server: its status, and what it prints.
fn ctl(server: &Server, words: &[&str]) -> (Option<i32>, String) {
    let path = server.path("ctl.sock").display().to_string();
    let ran = Command::new(program()).args(["ctl", "-s", &path]).args(words).output().expect("it runs");
    (ran.status.code(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
}

/// A class that serves by itself says what it does at debug level.
const TICKING: &str = "
import time
from gunicorn.workers.base import Worker
class Ticking(Worker):
    def run(self):
        while self.alive:
            self.notify()
            self.log.debug('the class ticks')
            time.sleep(0.05)
";

#[test]
fn a_reload_that_fails_says_the_traceback() {
    let foreign = "import missing_too\nfrom gunicorn.workers.base import Worker\nclass Broken(Worker): pass\n";
    for (class, file, content, part) in [
        ("sync", "app.py", "import missing_module", "ModuleNotFoundError: No module named 'missing_module'"),
        ("gthread", "app.py", "x = 1", "Failed to find attribute 'application' in 'app'."),
        ("gevent", "app.py", "1 / 0", "ZeroDivisionError: division by zero"),
        ("ticking.Ticking", "ticking.py", foreign, "No module named 'missing_too'"),
        ("ticking.Ticking", "app.py", "import missing_module", "No module named 'missing_module'"),
    ] {
        let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).file("ticking.py", TICKING);
        let plan = plan.file("conf.py", "");
        let path = plan.path("conf.py").display().to_string();
        let (mut server, mut control) = serve(plan.args(["--worker-class", class, "--config", &path]));
        let workers = server.workers();
        server.write(file, content);
        let error = control.error("reload --wait");
        assert!(error.starts_with("Reload failed, the old workers go on: worker (pid:"), "{error}");
        assert!(error.contains(" before it served\n") && error.contains(part), "{class}: {error}");
        let (status, said) = ctl(&server, &["reload", "--wait"]);
        assert!(status == Some(1) && said.contains(part), "{class}: {said}");
        server.write("conf.py", "workers = = 3");
        let error = control.error("reload --wait");
        assert!(error.contains("SyntaxError: invalid syntax"), "{error}");
        assert_eq!(server.workers(), workers);
        ["[ERROR]", "Traceback"].into_iter().for_each(|text| server.allow(text));
        server.finish();
    }
}

#[test]
fn a_preloaded_app_that_fails_says_its_traceback_too() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1));
    let (mut server, mut control) = serve(plan.args(["--preload"]));
    let workers = server.workers();
    server.write("app.py", "import missing_module");
    let error = control.error("reload --wait");
    assert!(error.starts_with("Reload failed, everything stays as it was: the new program would not start"), "{error}");
    assert!(error.contains("ModuleNotFoundError: No module named 'missing_module'"), "{error}");
    assert_eq!(server.workers(), workers);
    for text in ["[ERROR]", "Traceback", "Error while loading"] {
        server.allow(text);
    }
    server.finish();
}

#[test]
fn a_long_reason_is_cut_from_the_front() {
    let app = "import sys\nsys.setrecursionlimit(900)\nraise RuntimeError('the start' + 'x' * 100_000 + 'the end')\n";
    let (mut server, mut control) = serve(Plan::app("app").in_own_folder().file("app.py", &version(1)));
    server.write("app.py", app);
    let error = control.error("reload --wait");
    assert!(error.ends_with("the end") && error.len() < 20_000 && !error.contains("the start"), "{}", error.len());
    ["[ERROR]", "Traceback"].into_iter().for_each(|text| server.allow(text));
    server.finish();
}
