//! Both forms of the server as users install them: the wheel by pip, into environments of every
//! kind, and the program by cargo.
//!
//! The wheel is tried with the interpreter of the tests and with the system's own python3, where
//! that is of the same version: on Debian it is linked statically, as many are.
//! `scripts/wheels --check` names others by `MONOCEROS_TEST_INTERPRETERS` (paths with colons
//! between) and a folder with a wheel for each by `MONOCEROS_TEST_WHEELS`.

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a test says what it has left out, and what it saw")]
#[allow(dead_code, reason = "these tests need less of it than the others")]
mod util;

#[path = "installing/launcher.rs"]
mod launcher;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::sys::signal::Signal::{SIGHUP, SIGTERM, SIGUSR2};
use tempfile::TempDir;

use util::server::{Plan, Server, send};
use util::{board, is_root, process, python, root, tools, venv, wait_until};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const PROGRAM: &str = env!("CARGO_BIN_EXE_monoceros");

/// Says where it runs.
const WHERE: &str = "
import json, os, sys

def application(environ, start_response):
    start_response('200 OK', [])
    try:
        from flask import __file__ as flask
    except ImportError:
        flask = None
    said = {'prefix': sys.prefix, 'executable': sys.executable, 'argv': sys.argv, 'flask': flask,
            'handed on': [name for name in os.environ if name.startswith(('GUNICORN_', 'MONOCEROS_IN_PLACE', 'MONOCEROS_WORKERS', 'MONOCEROS_FAILURE', 'LISTEN_'))]}
    return [json.dumps(said).encode()]
";

/// Flask itself, from wherever it comes.
const FLASK: &str = "
import flask, sys

app = flask.Flask(__name__)

@app.post('/sum')
def add():
    return {'sum': sum(flask.request.get_json()), 'flask': flask.__file__, 'executable': sys.executable}
";

#[test]
fn flask_is_served_from_a_clean_environment_and_uninstalling_leaves_nothing() {
    for interpreter in interpreters() {
        let environment = Environment::new(interpreter);
        environment.pip(&["install", "flask==3.1.3"]);
        let before = environment.files();
        environment.pip(&["install", "--no-index", text(&wheel(interpreter))]);
        let page = Path::new("share/man/man1/monoceros.1");
        assert!(environment.files().contains(page), "no man page in {}", wheel(interpreter).display());

        let plan =
            Plan::app("app:app").in_own_folder().file("app.py", FLASK).program(environment.path("bin/monoceros"));
        // An active environment has no say: the script has its own.
        let server = plan.env("VIRTUAL_ENV", text(venv())).start();
        let answer = server.connect().request("POST", "/sum", &["Content-Type: application/json"], b"[1, 2, 3]").json();
        assert_eq!(answer["sum"].number(), 6.0);
        for place in ["flask", "executable"] {
            assert!(Path::new(answer[place].text()).starts_with(environment.path("")), "{answer:?}");
        }
        assert_eq!(server.get("/nowhere").status, 404);
        server.finish();

        environment.pip(&["uninstall", "--yes", "monoceros"]);
        assert_eq!(environment.files(), before, "{}", interpreter.display());
    }
}

#[test]
fn importing_says_the_version_and_starts_nothing() {
    let script = "
import os, signal, sys, threading
def state():
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return handlers, signal.pthread_sigmask(0, []), threading.enumerate(), os.listdir('/proc/self/task'), \\
        os.listdir('/proc/self/fd'), os.environ.copy(), sys.argv
before = state()
import monoceros
assert state() == before
assert callable(monoceros.main)
print(monoceros.__version__)
";
    for interpreter in interpreters() {
        let environment = Environment::with_wheel(interpreter);
        let asked = Command::new(environment.path("bin/python")).args(["-c", script]).output().expect("it runs");
        assert_eq!(
            String::from_utf8_lossy(&asked.stdout).trim(),
            VERSION,
            "{}",
            String::from_utf8_lossy(&asked.stderr)
        );
        let listed = environment.pip(&["show", "monoceros"]);
        for line in [format!("Version: {VERSION}"), "License-Expression: MIT OR Apache-2.0".to_string()] {
            assert!(listed.contains(&line), "{listed}");
        }
        // What a type checker reads is what there is.
        let package = environment.site_packages().join("monoceros");
        assert!(package.join("py.typed").exists());
        let stub = fs::read_to_string(package.join("_monoceros.pyi")).expect("the stub is there");
        for name in ["__version__", "main"] {
            assert!(stub.contains(name), "{stub}");
        }
    }
}

#[test]
fn the_extension_links_no_libpython() {
    let folder = tempfile::tempdir().expect("a folder");
    for interpreter in interpreters() {
        run(Command::new(interpreter).args(["-m", "zipfile", "-e"]).arg(wheel(interpreter)).arg(folder.path()));
        let libraries = fs::read_dir(folder.path().join("monoceros")).expect("the package").flatten();
        let library = libraries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "so"));
        let listed = run(Command::new("readelf").arg("-d").arg(library.expect("an extension module")));
        assert!(listed.contains("NEEDED") && !listed.contains("libpython"), "{listed}");
    }
}

#[test]
fn pip_install_user_and_target_give_a_server_that_works() {
    for interpreter in interpreters() {
        let for_user = Plan::app("app").in_own_folder().file("app.py", WHERE);
        let home = for_user.path(".local");
        let mut pip = pip_for(interpreter);
        pip.args(["install", "--user", "--break-system-packages", "--no-index"]).arg(wheel(interpreter));
        run(pip.env("PYTHONUSERBASE", &home).env_remove("PYTHONDONTWRITEBYTECODE"));
        let server = for_user.program(home.join("bin/monoceros")).start();
        assert_eq!(server.get("/").json()["argv"].list()[0], text(&server.path(".local/bin/monoceros")));
        server.finish();

        let for_target = Plan::app("app").in_own_folder().file("app.py", WHERE);
        let target = for_target.path("target");
        run(pip_for(interpreter).args(["install", "--no-index", "--target"]).arg(&target).arg(wheel(interpreter)));
        let server = for_target.program(target.join("bin/monoceros")).env("PYTHONPATH", text(&target)).start();
        assert_eq!(server.get("/").status, 200);
        server.finish();
    }
}

#[test]
fn a_server_started_as_a_module_is_upgraded_as_one() {
    let interpreter = interpreters()[0].as_path();
    let environment = Environment::with_wheel(interpreter);
    let python = environment.path("bin/python");
    let plan = Plan::app("app").in_own_folder().file("app.py", WHERE).through([text(&python), "-X", "dev", "-m"]);
    let pidfile = plan.path("pid");
    let mut server = plan.program("monoceros").args(["--pid", text(&pidfile)]).start();
    let said = server.get("/").json();
    assert_eq!(said["executable"], text(&python));
    assert!(said["argv"].list()[0].text().ends_with("monoceros/__main__.py"), "{said:?}");
    server.signal_rtmin();
    server.wait_for_log_times("Starting monoceros", 2);
    assert_eq!(server.get("/").json()["handed on"].list().len(), 0);
    let new = upgrade(&server);
    server.signal(SIGTERM);
    server.wait_for_exit();
    assert_eq!(server.get("/").json()["executable"], text(&python));
    send(new, SIGTERM);
    server.expect_gone();
    server.expect_clean_log();
}

/// A program that embeds gunicorn, as its documentation shows it.
const EMBEDDER: &str = "
import os, sys
from gunicorn.app.base import BaseApplication

def post_fork(server, worker):
    server.log.info('hooked into %s', worker.pid)

class Standalone(BaseApplication):
    def __init__(self, app, options):
        self.application, self.options = app, options
        super().__init__()

    def load_config(self):
        for name, value in self.options.items():
            if name in self.cfg.settings and value is not None:
                self.cfg.set(name, value)
        if os.path.exists('workers'):
            self.cfg.set('workers', open('workers').read())

    def load(self):
        return self.application

def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [' '.join([environ['SERVER_SOFTWARE'], *sys.argv[1:]]).encode()]

if __name__ == '__main__':
    Standalone(app, {'bind': '127.0.0.1:0', 'workers': 2, 'post_fork': post_fork, 'no_such_setting': 1}).run()
";

#[test]
fn a_program_that_embeds_gunicorn_serves_with_this_server() {
    let environment = Environment::with_wheel(interpreters()[0].as_path());
    let python = environment.path("bin/python");
    for arguments in [&["-m", "monoceros.gunicorn"][..], &["-m", "monoceros.gunicorn", "-m"]] {
        let name = if arguments.len() == 2 { "embedder.py" } else { "embedder" };
        let plan = Plan::bare().bound_elsewhere().started_in_own_folder().file("embedder.py", EMBEDDER);
        let through = [&[text(&python)], arguments].concat();
        let plan = match through[..] {
            [python, m, module] => plan.through([python, m, module]),
            [python, m, module, again] => plan.through([python, m, module, again]),
            _ => unreachable!("one of the two"),
        };
        // Flags that are the program's own, and none of the server's.
        let mut server = plan.program(name).args(["--workers", "7"]).start();
        server.wait_for_workers(2);
        server.wait_for_log_times("hooked into", 2);
        assert_eq!(server.get("/").text(), format!("monoceros/{VERSION} --workers 7"));
        server.write("workers", "1");
        server.signal(SIGHUP);
        server.wait_for_log_times("hooked into", 3);
        server.wait_for_workers(1);
        server.write("workers", "many");
        server.signal(SIGHUP);
        server.wait_for_log("Reload failed");
        server.write("workers", "1");
        server.signal(SIGUSR2);
        server.wait_for_log_times("hooked into", 4);
        server.signal(SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0));
        let new = server
            .log()
            .lines()
            .rev()
            .find_map(|line| line.split("Listening at: ").nth(1)?.split(['(', ')']).nth(1)?.parse().ok());
        send(new.expect("the new master's line"), SIGTERM);
        server.expect_gone();
    }
}

/// The program does not know the flag by which an upgrade tries it, and serves whatever its
/// arguments are.
#[test]
fn a_program_that_embeds_gunicorn_is_tried_before_an_upgrade() {
    let environment = Environment::with_wheel(interpreters()[0].as_path());
    let preloaded = EMBEDDER.replace("'workers': 2", "'workers': 2, 'preload_app': True");
    for (program, signal) in [(EMBEDDER, None), (&*preloaded, Some(SIGHUP))] {
        let plan = Plan::bare().bound_elsewhere().started_in_own_folder().file("embedder.py", program);
        let plan = plan.through([text(&environment.path("bin/python")), "-m", "monoceros.gunicorn"]);
        let server = plan.program("embedder.py").start();
        server.wait_for_log_times("hooked into", 2);
        match signal {
            Some(signal) => server.signal(signal),
            None => server.signal_rtmin(),
        }
        server.wait_for_log_times("hooked into", 4);
        server.wait_for_workers(2);
        assert_eq!(server.log().matches("Starting monoceros").count(), 2, "{}", server.log());
        server.finish();
    }
}

/// What `mlflow server` and `airflow webserver` do: gunicorn is another process, started as a
/// module or by its name.
const STARTER: &str = "
import os, signal, subprocess, sys

how, *arguments = sys.argv[1:]
command = [sys.executable, '-m', 'gunicorn'] if how == 'module' else [os.path.join(os.path.dirname(sys.executable), 'gunicorn')]
server = subprocess.Popen(command + arguments)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: server.send_signal(number))
sys.exit(server.wait())
";

const SERVED: &str = "
import gunicorn, os, sys

def application(environ, start_response):
    start_response('200 OK', [])
    return [f\"{environ['SERVER_SOFTWARE']} {gunicorn.SERVER} {os.path.basename(sys.argv[0])}\".encode()]
";

/// Starts `STARTER` through `words`, and returns what the server that it starts says.
fn said_through(words: &[&str], how: &str) -> String {
    let plan = Plan::bare().bound_elsewhere().started_in_own_folder().file("starter.py", STARTER);
    let plan = plan.file("served.py", SERVED);
    let plan = match *words {
        [python] => plan.through([python]),
        [python, m, module] => plan.through([python, m, module]),
        _ => unreachable!("one of the two"),
    };
    let mut server =
        plan.program("starter.py").args([how, "--bind", "127.0.0.1:0", "--threads", "2", "served"]).start();
    server.wait_for_log("Using worker: gthread");
    let said = server.get("/").text();
    server.signal(SIGHUP);
    server.wait_for_log("Hang up: Master");
    server.wait_for_log_times("Booting worker", 2);
    assert_eq!(server.get("/").text(), said);
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
    said
}

#[test]
fn programs_that_start_gunicorn_get_this_server_where_that_was_asked_for() {
    let environment = Environment::with_wheel(interpreters()[0].as_path());
    let python = environment.path("bin/python");
    let before = environment.files();
    let change =
        |what| run(Command::new(&python).args(["-m", "monoceros.gunicorn", what]).env("PYTHONDONTWRITEBYTECODE", "1"));
    let ours = |argv: &str| format!("monoceros/{VERSION} monoceros {argv}");

    // gunicorn is not installed: the script is ours, too.
    let said = change("--install");
    assert!(said.contains("monoceros-gunicorn.pth") && said.contains("bin/gunicorn"), "{said}");
    assert_eq!(said_through(&[text(&python)], "name"), ours("gunicorn"));
    assert_eq!(said_through(&[text(&python)], "module"), ours("monoceros"));
    assert!(change("--uninstall").contains("removed: "));
    assert_eq!(environment.files(), before);
    assert_eq!(change("--uninstall"), "");

    environment.pip(&["install", "gunicorn==27.0.1"]);
    let theirs = "gunicorn/27.0.1 gunicorn ";
    assert!(said_through(&[text(&python)], "module").starts_with(theirs));
    for how in ["module", "name"] {
        let said = said_through(&[text(&python), "-m", "monoceros.gunicorn"], how);
        assert!(said.starts_with(&ours("")), "{how}: {said}");
    }
    change("--install");
    for how in ["module", "name"] {
        assert!(said_through(&[text(&python)], how).starts_with(&ours("")), "{how}");
    }
    change("--uninstall");
    for how in ["module", "name"] {
        assert!(said_through(&[text(&python)], how).starts_with(theirs), "{how}");
    }
}

#[test]
fn functions_framework_serves_with_this_server() {
    let environment = Environment::with_wheel(interpreters()[0].as_path());
    environment.pip(&["install", "functions-framework==3.10.2"]);
    let function = "import functions_framework, gunicorn\n\n\
                    @functions_framework.http\ndef hello(request):\n    return gunicorn.SERVER + request.args['name']\n";
    let plan = Plan::bare().bound_elsewhere().started_in_own_folder().file("main.py", function);
    let plan = plan.env("GUNICORN_LOG_LEVEL", "info").env("THREADS", "2");
    let plan = plan.through([text(&environment.path("bin/python")), "-m", "monoceros.gunicorn"]);
    let plan = plan.program("functions-framework").args(["--target", "hello", "--host", "127.0.0.1", "--port", "0"]);
    let server = plan.start();
    let answer = server.get("/?name=7");
    assert_eq!((answer.text().as_str(), answer.header("Server")), ("monoceros7", Some("monoceros")));
    server.wait_for_log("Using worker: gthread");
    server.finish();
}

/// Long: mlflow brings a gigabyte along. `cargo test --test installing -- --ignored mlflow`
#[test]
#[ignore = "downloads mlflow with all it needs"]
fn mlflow_serves_with_this_server() {
    let environment = Environment::with_wheel(interpreters()[0].as_path());
    environment.pip(&["install", "mlflow==2.22.1", "setuptools<81"]);
    let plan = Plan::bare().bound_elsewhere().started_in_own_folder();
    let plan = plan.through([text(&environment.path("bin/python")), "-m", "monoceros.gunicorn"]);
    let plan = plan.program("mlflow").args(["server", "--host", "127.0.0.1", "--port", "0", "--workers", "2"]);
    let server = plan.start();
    let answer = server.get("/health");
    assert_eq!((answer.text().as_str(), answer.header("Server")), ("OK", Some("monoceros")));
    drop(server);
}

#[test]
fn a_pastedeploy_file_names_the_server() {
    let environment = Environment::with_wheel(interpreters()[0].as_path());
    environment.pip(&["install", "PasteDeploy==3.1.0"]);
    let ini = "[app:main]\nuse = call:app:make\n\n\
               [server:main]\nuse = egg:monoceros#main\nhost = 127.0.0.1\nport = 0\nworkers = 2\n";
    let app = "def make(global_conf):\n\
               \x20   def app(environ, start_response):\n\
               \x20       start_response('200 OK', [])\n        return [b'by paste']\n\
               \x20   return app\n";
    // What pserve does.
    let runner = "import os, sys\nfrom paste.deploy import loadapp, loadserver\n\
                  sys.path.insert(0, os.getcwd())\nuri = 'config:' + os.path.abspath('site.ini')\n\
                  loadserver(uri)(loadapp(uri))\n";
    let plan = Plan::bare().bound_elsewhere().started_in_own_folder();
    let plan = plan.file("site.ini", ini).file("app.py", app).file("serve.py", runner);
    let server = plan.through([text(&environment.path("bin/python"))]).program("serve.py").start();
    server.wait_for_workers(2);
    assert_eq!(server.get("/").text(), "by paste");
    server.finish();
}

#[test]
fn mistakes_of_an_embedding_program_are_one_sentence() {
    let environment = Environment::with_wheel(interpreters()[0].as_path());
    let python = environment.path("bin/python");
    let wrong = EMBEDDER.replace("'workers': 2", "'workers': 'many'");
    let plan = Plan::bare().bound_elsewhere().started_in_own_folder().file("embedder.py", &wrong);
    let finished = plan.through([text(&python), "-m", "monoceros.gunicorn"]).program("embedder.py").run();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("Error: ") && finished.stderr.contains("many"), "{finished:?}");
    let plan = Plan::bare().bound_elsewhere().started_in_own_folder();
    let finished = plan.through([text(&python), "-m"]).program("monoceros.gunicorn").run();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.starts_with("usage: python -m monoceros.gunicorn"), "{finished:?}");
}

/// Its commands, run as the platform's agent would; the platform is not here
/// (docs/hosts/jelastic.md).
#[test]
fn the_package_for_virtuozzo_installs_a_server_that_serves() {
    if !is_root() || !tools::has("ruby") {
        return println!("not tried: this needs root and ruby");
    }
    let mut tests = Command::new(venv().join("bin/python"));
    tests.args(["-m", "unittest", "test_jps"]).current_dir(root().join("tests/platforms/gear"));
    let interpreter = interpreters()[0].as_path();
    let path = format!("{}:{}", text(interpreter.parent().expect("a folder")), std::env::var("PATH").expect("a PATH"));
    let output = tests.env("WHEEL", wheel(interpreter)).env("PATH", path).output().expect("a Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_upgrade_executes_the_script_again_and_so_gets_the_new_environment() {
    let interpreter = interpreters()[0].as_path();
    let (old, new) = (Environment::with_wheel(interpreter), Environment::with_wheel(interpreter));
    let plan = Plan::app("app").in_own_folder().file("app.py", WHERE);
    let current = plan.path("current");
    std::os::unix::fs::symlink(old.path(""), &current).expect("a link in a fresh folder");
    let pidfile = plan.path("pid");
    let mut server = plan.program(current.join("bin/monoceros")).args(["--pid", text(&pidfile)]).start();
    let prefix = |server: &Server| server.get("/").json()["prefix"].text().to_string();
    assert_eq!(Path::new(&prefix(&server)), old.path("."));

    fs::remove_file(&current).expect("our own link");
    std::os::unix::fs::symlink(new.path(""), &current).expect("a link");
    let second = upgrade(&server);
    server.signal(SIGTERM);
    server.wait_for_exit();
    assert_eq!(Path::new(&prefix(&server)), new.path("."));
    let said = server.get("/").json();
    assert_eq!(said["argv"].list()[0], text(&current.join("bin/monoceros")));
    assert_eq!(said["handed on"].list().len(), 0, "{said:?}");
    send(second, SIGTERM);
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn cargo_install_gives_one_file_that_finds_its_python() {
    let folder = tempfile::tempdir().expect("a folder");
    // With what is compiled already.
    let target = Path::new(PROGRAM).ancestors().nth(2).expect("the folder of the build");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["install", "--debug", "--locked", "--offline", "--quiet", "--no-track"]).arg("--path").arg(root());
    run(cargo.arg("--root").arg(folder.path()).arg("--target-dir").arg(target).env("PYO3_PYTHON", python()));
    assert_eq!(files_below(folder.path()), BTreeSet::from(["bin/monoceros".into()]));

    // Without any environment it is the Python of the build.
    let plan = Plan::app("app").in_own_folder().file("app.py", WHERE).program(folder.path().join("bin/monoceros"));
    let server = plan.env("VIRTUAL_ENV", "").start();
    let base = run(Command::new(python()).args(["-c", "import sys; print(sys.base_prefix)"]));
    assert_eq!(server.get("/").json()["prefix"], base.trim());
    server.finish();
}

#[test]
fn the_program_says_which_libpython_it_was_built_for_where_it_meets_another() {
    let refused = |name: &str, value: &str, complaint: &str| {
        let plan = Plan::app("app").in_own_folder().file("app.py", WHERE).program(PROGRAM).bound_elsewhere();
        let finished = plan.args(["--check-config"]).env("VIRTUAL_ENV", "").env(name, value).run();
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains(complaint), "{finished:?}");
    };
    refused("PYTHONHOME", "/nowhere", "; this monoceros was built for libpython");
    for interpreter in interpreters() {
        let modules = run(Command::new(interpreter).args(["-c", "import sys; print(*sys.builtin_module_names)"]));
        // One that has half of its standard library built in: another libpython cannot use the
        // rest.
        let is_whole = !modules.split_whitespace().any(|module| module == "math");
        let complaint = match (tag(interpreter) == tag(python().as_ref()), is_whole) {
            (true, true) => continue,
            // Its libpython is of the same make, and has what it has.
            (true, false) if interpreter == Path::new(&python()) => continue,
            (true, false) => "is another Python's; this monoceros was built for libpython",
            (false, _) => "but this monoceros was built for Python",
        };
        refused("VIRTUAL_ENV", text(&Environment::new(interpreter).path("")), complaint);
    }
}

/// Sends USR2 and waits until the new master serves: its pid.
fn upgrade(server: &Server) -> i32 {
    server.signal(SIGUSR2);
    let second = server.path("pid.2");
    let read = || fs::read_to_string(&second).ok()?.trim().parse::<i32>().ok();
    wait_until("the second pid file", || read().is_some());
    let new = read().expect("just read");
    wait_until("the new master's worker", || process::is_alive(new) && board::all_serve(new, 1));
    server.wait_for_log_times("Booting worker", 2);
    new
}

/// A fresh virtualenv, gone with the value.
struct Environment {
    folder: TempDir,
}

impl Environment {
    fn new(interpreter: &Path) -> Environment {
        let folder = tempfile::Builder::new().prefix("monoceros-env-").tempdir().expect("a folder");
        let mut command = tool("virtualenv");
        run(command
            .args(["--quiet", "--no-periodic-update", "--python"])
            .arg(interpreter)
            .arg(folder.path().join("env")));
        Environment { folder }
    }

    fn with_wheel(interpreter: &Path) -> Environment {
        let environment = Environment::new(interpreter);
        environment.pip(&["install", "--no-index", text(&wheel(interpreter))]);
        environment
    }

    fn path(&self, inside: &str) -> PathBuf {
        // Without its last slash, or its last dot: as it was given to virtualenv.
        self.folder.path().join("env").join(inside).components().collect()
    }

    fn pip(&self, arguments: &[&str]) -> String {
        run(pip(&self.path("bin/python")).args(arguments))
    }

    fn site_packages(&self) -> PathBuf {
        let script = "import sysconfig; print(sysconfig.get_path('platlib'))";
        run(Command::new(self.path("bin/python")).args(["-c", script])).trim().into()
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        // What pip itself has compiled of itself is no trace of ours.
        files_below(&self.path("")).into_iter().filter(|path| !text(path).contains("/pip/")).collect()
    }
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--disable-pip-version-check"]);
    command
}

/// A pip that works for an interpreter which may have none.
fn pip_for(interpreter: &Path) -> Command {
    let mut command = pip(&tools().join("bin/python"));
    command.arg("--python").arg(interpreter);
    command
}

/// The files below a folder, without its own path.
fn files_below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).expect("a folder").map(|entry| entry.expect("an entry")) {
            let path = entry.path();
            if entry.file_type().expect("a type").is_dir() {
                waiting.push(path);
            } else {
                found.insert(path.strip_prefix(folder).expect("below it").to_path_buf());
            }
        }
    }
    found
}

/// Whom the wheel is tried with: at least the interpreter of the tests.
fn interpreters() -> &'static [PathBuf] {
    static FOUND: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(named) = std::env::var_os("MONOCEROS_TEST_INTERPRETERS") {
            return std::env::split_paths(&named).collect();
        }
        let ours = PathBuf::from(python());
        let systems = Path::new("/usr/bin/python3");
        let is_another = systems.exists()
            && tag(systems) == tag(&ours)
            && fs::canonicalize(systems).ok() != fs::canonicalize(&ours).ok();
        [Some(ours), is_another.then(|| systems.to_path_buf())].into_iter().flatten().collect()
    })
}

/// The wheel for an interpreter.
fn wheel(interpreter: &Path) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let Some(folder) = std::env::var_os("MONOCEROS_TEST_WHEELS") else {
        return BUILT.get_or_init(|| made("--wheel")).clone();
    };
    let tag = tag(interpreter);
    let wheels = fs::read_dir(folder).expect("a folder of wheels").flatten().map(|entry| entry.path());
    let fitting = |path: &PathBuf| text(path).contains(&format!("-{tag}-")) && text(path).ends_with(".whl");
    wheels.into_iter().find(fitting).unwrap_or_else(|| panic!("no wheel for {tag}"))
}

/// `cp311`
fn tag(interpreter: &Path) -> String {
    let script = "import sys; print('cp%d%d' % sys.version_info[:2])";
    run(Command::new(interpreter).args(["-c", script])).trim().to_string()
}

fn tool(name: &str) -> Command {
    Command::new(tools().join("bin").join(name))
}

fn tools() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| made("--tools"))
}

fn made(what: &str) -> PathBuf {
    run(Command::new(root().join("scripts/test")).args(["--python", &python(), what])).trim().into()
}

/// Runs a command to its end, which must be a good one, and returns what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&done.stderr));
    said
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
