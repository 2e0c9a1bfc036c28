//! One program for every Python: the launcher, with the library of each wheel beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::sys::signal::Signal::{SIGHUP, SIGTERM};
use tempfile::TempDir;

#[allow(dead_code, reason = "its sentences are tested through the launcher")]
#[path = "../../src/launcher/find.rs"]
mod find;

use super::util::server::{Plan, send};
use super::util::{python, root, wait_until};
use super::{Environment, WHERE, interpreters, run, tag, text, upgrade, wheel};

#[test]
fn one_program_serves_from_each_environment_with_its_own_python() {
    for interpreter in interpreters().iter().filter(|interpreter| has_library(interpreter)) {
        let environment = Environment::new(interpreter);
        let server = plan().env("VIRTUAL_ENV", text(&environment.path(""))).args(["--pid", "pid"]).start();
        let said = server.get("/").json();
        assert_eq!(said["prefix"], text(&environment.path("")));
        assert_eq!(said["executable"], text(&environment.path("bin/python")));
        server.signal(SIGHUP);
        server.wait_for_log("Hang up");
        wait_until("the new worker", || server.get("/").status == 200);
        server.finish();
    }
}

#[test]
fn one_program_is_upgraded_by_itself() {
    let Some(interpreter) = interpreters().iter().find(|interpreter| has_library(interpreter)) else {
        return println!("skipped: no Python here has a shared library");
    };
    let environment = Environment::new(interpreter);
    let mut server = plan().env("VIRTUAL_ENV", text(&environment.path(""))).args(["--pid", "pid"]).start();
    let new = upgrade(&server);
    server.signal(SIGTERM);
    server.wait_for_exit();
    assert_eq!(server.get("/").json()["prefix"], text(&environment.path("")));
    send(new, SIGTERM);
    server.expect_gone();
}

#[test]
fn without_an_environment_it_takes_the_python_that_is_named_or_on_path() {
    let base = run(Command::new(python()).args(["-c", "import sys; print(sys._base_executable)"]));
    let named = plan().env("VIRTUAL_ENV", "").env("PATH", "/nowhere").env(find::VARIABLE, base.trim());
    let server = named.start();
    let prefix = run(Command::new(python()).args(["-c", "import sys; print(sys.base_prefix)"]));
    assert_eq!(server.get("/").json()["prefix"], prefix.trim());
    server.finish();
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(base.trim(), folder.path().join("python3")).expect("the folder is writable");
    for named in ["", "python3"] {
        let found = plan().env("VIRTUAL_ENV", "").env("PATH", text(folder.path())).env(find::VARIABLE, named);
        let found = found.bound_elsewhere().args(["--check-config"]).run();
        assert_eq!(found.code, Some(0), "{found:?}");
    }
}

/// As `activate` does, which unsets the variable.
#[test]
fn an_environment_counts_for_more_than_pythonhome() {
    let Some(interpreter) = interpreters().iter().find(|interpreter| has_library(interpreter)) else {
        return println!("skipped: no Python here has a shared library");
    };
    let environment = Environment::new(interpreter);
    let prefix = run(Command::new(interpreter).args(["-c", "import sys; print(sys.base_prefix)"]));
    let plan = plan().env("VIRTUAL_ENV", text(&environment.path(""))).env("PYTHONHOME", prefix.trim());
    let server = plan.start();
    assert_eq!(server.get("/").json()["prefix"], text(&environment.path("")));
    server.finish();
}

#[test]
fn a_launcher_that_a_link_leads_to_serves_from_where_it_lies() {
    let environment = environment_for("3.12.4", "/opt/python/bin");
    let bin = environment.path().join("bin");
    fs::create_dir(&bin).expect("the folder is writable");
    fs::write(bin.join("monoceros"), "").expect("the folder is writable");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let link = elsewhere.path().join("monoceros");
    std::os::unix::fs::symlink(bin.join("monoceros"), &link).expect("the folder is writable");
    let found = find::interpreter(&link, |_| None).expect("there is an environment");
    assert_eq!(found.base, Path::new("/opt/python/bin/python3.12"));
}

/// `python -m venv` writes down the folder of the link by which it was started, as
/// `~/.local/bin/python3.12` of uv.
#[test]
fn a_library_is_found_beside_what_the_interpreter_is_a_link_to() {
    let place = tempfile::tempdir().expect("a folder");
    for folder in ["local/bin", "real/bin", "real/lib"] {
        fs::create_dir_all(place.path().join(folder)).expect("the folder is writable");
    }
    let library = place.path().join("real/lib/libpython3.12.so.1.0");
    fs::write(&library, "").expect("the folder is writable");
    fs::write(place.path().join("real/bin/python3.12"), "").expect("the folder is writable");
    let link = place.path().join("local/bin/python3.12");
    std::os::unix::fs::symlink(place.path().join("real/bin/python3.12"), link).expect("the folder is writable");
    let environment = environment_for("3.12.4", text(&place.path().join("local/bin")));
    let found =
        find::interpreter(Path::new("monoceros"), |name| (name == "VIRTUAL_ENV").then(|| environment.path().into()));
    let real = library.canonicalize().expect("it is there");
    assert_eq!(found.expect("an environment").libraries(), [real]);
}

/// As in a container image: `ENV PATH=/opt/venv/bin:$PATH`, and nothing else.
#[test]
fn an_environment_that_is_only_named_by_a_path_is_served_from() {
    let Some(interpreter) = interpreters().iter().find(|interpreter| has_library(interpreter)) else {
        return println!("skipped: no Python here has a shared library");
    };
    let environment = Environment::new(interpreter);
    let bin = environment.path("bin");
    for (name, value) in [("PATH", bin.clone()), (find::VARIABLE, bin.join("python"))] {
        let plan = plan().env("VIRTUAL_ENV", "").env("PATH", "/nowhere").env(name, text(&value));
        let server = plan.start();
        assert_eq!(server.get("/").json()["prefix"], text(&environment.path("")), "{name}");
        server.finish();
    }
}

#[test]
fn a_program_that_is_found_on_path_lies_where_the_shell_found_it() {
    let place = tempfile::tempdir().expect("a folder");
    let [first, second] = ["first", "second"].map(|name| place.path().join(name));
    [&first, &second].iter().for_each(|folder| fs::create_dir(folder).expect("the folder is writable"));
    fs::write(second.join("monoceros"), "").expect("the folder is writable");
    let path = std::env::join_paths([&first, &second]).expect("plain paths");
    let found = |name: &str| find::path_of(Some(name.into()), Some(path.clone()));
    assert_eq!(found("monoceros"), Some(second.join("monoceros")));
    assert_eq!(found("./monoceros"), Some("./monoceros".into()));
    assert_eq!((found("nothing"), find::path_of(None, None)), (None, None));
}

/// Heroku has its Python in `/app/.heroku/python`, a buildpack of Cloud Foundry in
/// `/home/vcap/deps/0/python`. Both name it by `PYTHONHOME`; neither makes a virtual environment,
/// and both have the application's packages in the Python itself, or name them by `PYTHONPATH`.
#[test]
fn the_python_of_heroku_and_cloud_foundry_is_found_by_pythonhome() {
    let script = "import sys; print(sys.base_prefix); print('python%d.%d' % sys.version_info[:2])";
    let said = run(Command::new(python()).args(["-c", script]));
    let (prefix, name) = said.trim().split_once('\n').expect("two lines");
    for layout in [".heroku/python", "deps/0/python"] {
        let place = tempfile::tempdir().expect("a folder");
        let home = place.path().join(layout);
        for part in [format!("bin/{name}"), format!("lib/{name}"), format!("lib/lib{name}.so.1.0")] {
            let (there, here) = (Path::new(prefix).join(&part), home.join(&part));
            fs::create_dir_all(here.parent().expect("a folder of the two")).expect("the folder is writable");
            // Debian's library lies where the system looks.
            if there.exists() {
                std::os::unix::fs::symlink(there, here).expect("the folder is writable");
            }
        }
        let packages = place.path().join("packages");
        fs::create_dir(&packages).expect("the folder is writable");
        fs::write(packages.join("flask.py"), "").expect("the folder is writable");
        let plan = plan().env("VIRTUAL_ENV", "").env("PATH", "/nowhere").env("PYTHONPATH", text(&packages));
        let server = plan.env("PYTHONHOME", text(&home)).start();
        let said = server.get("/").json();
        assert_eq!(said["prefix"], text(&home));
        assert_eq!(said["executable"], text(&home.join("bin").join(name)));
        assert_eq!(said["flask"], text(&packages.join("flask.py")));
        server.finish();
    }
}

#[test]
fn of_several_pythons_in_one_place_it_takes_the_newest() {
    let home = tempfile::tempdir().expect("a folder");
    fs::create_dir(home.path().join("bin")).expect("the folder is writable");
    for version in ["3.9", "3.14", "3.12", "3.15"] {
        let library = home.path().join("lib").join(format!("python{version}"));
        fs::create_dir_all(&library).expect("the folder is writable");
        fs::write(library.join("os.py"), "").expect("the folder is writable");
        // What is left of one that was removed is none.
        if version != "3.15" {
            fs::write(home.path().join(format!("bin/python{version}")), "").expect("the folder is writable");
        }
    }
    let named = |name: &str| (name == "PYTHONHOME").then(|| home.path().into());
    assert_eq!(find::interpreter(Path::new("monoceros"), named).expect("there are three").version, "3.14");
}

#[test]
fn each_way_that_it_cannot_start_is_one_sentence() {
    let refused = |name: &str, value: &str, complaint: &str| {
        let plan = plan().env("VIRTUAL_ENV", "").env("PATH", "/nowhere").env(name, value).bound_elsewhere();
        let finished = plan.run();
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.starts_with("monoceros: ") && finished.stderr.contains(complaint), "{finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    };
    refused("PATH", "/nowhere", "there is no Python: activate a virtual environment");
    refused("VIRTUAL_ENV", "/nowhere", "there is no virtual environment in /nowhere, which VIRTUAL_ENV names");
    refused("PYTHONHOME", "/nowhere", "/nowhere, which PYTHONHOME names, has no Python");
    refused(find::VARIABLE, "/nowhere", "/nowhere, which MONOCEROS_PYTHON names, is no interpreter");
    refused(find::VARIABLE, "python3.99", "python3.99, which MONOCEROS_PYTHON names, is no interpreter");
    let made = environment_for("3.99.1", "/usr/bin");
    refused("VIRTUAL_ENV", text(made.path()), " is Python 3.99; this monoceros serves 3.1");
    for interpreter in interpreters().iter().filter(|interpreter| !has_library(interpreter)) {
        let environment = Environment::new(interpreter);
        refused("VIRTUAL_ENV", text(&environment.path("")), "which has no shared library here");
    }
}

#[test]
fn an_environment_says_its_version_in_the_words_of_whoever_made_it() {
    let found = |line: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let marker = format!("home = /opt/python/bin\ninclude-system-site-packages = false\n{line}\n");
        fs::write(folder.path().join("pyvenv.cfg"), marker).expect("the folder is writable");
        find::interpreter(Path::new("monoceros"), |name| (name == "VIRTUAL_ENV").then(|| folder.path().into()))
    };
    for line in ["version = 3.12.4", "version_info = 3.12.4.final.0", "version_info=3.12.4", "version = 3.12"] {
        let interpreter = found(line).unwrap_or_else(|problem| panic!("{line}: {problem}"));
        assert_eq!((&*interpreter.version, &*interpreter.base), ("3.12", Path::new("/opt/python/bin/python3.12")));
    }
    let problem = found("version_info = 3.12.4.final.0\nimplementation = PyPy").expect_err("another kind");
    assert!(problem.ends_with(" is PyPy; this monoceros serves the ordinary CPython"), "{problem}");
    assert_eq!(found("implementation = CPython\nversion_info = 3.12.4").expect("a CPython").version, "3.12");
    for line in ["", "version = pypy", "versions = 3.12"] {
        assert!(found(line).expect_err(line).ends_with("does not say which Python it is for"), "{line}");
    }
}

#[test]
fn another_kind_of_python_is_named_and_not_taken_for_its_neighbour() {
    for (name, kind) in [("pypy3.11", "PyPy"), ("python3.14t", "a free-threaded CPython")] {
        let home = tempfile::tempdir().expect("a folder");
        for folder in ["bin", "lib/python3.14"] {
            fs::create_dir_all(home.path().join(folder)).expect("the folder is writable");
        }
        for file in ["lib/python3.14/os.py", "bin/python3.14", &format!("bin/{name}")] {
            fs::write(home.path().join(file), "").expect("the folder is writable");
        }
        std::os::unix::fs::symlink(name, home.path().join("bin/python3")).expect("the folder is writable");
        let path = home.path().join("bin");
        let found = find::interpreter(Path::new("monoceros"), |name| (name == "PATH").then(|| path.clone().into()));
        assert!(found.expect_err(name).contains(&format!("bin/python3 is {kind};")), "{name}");
        let environment = environment_for("3.14.0", text(&path));
        fs::create_dir(environment.path().join("bin")).expect("the folder is writable");
        std::os::unix::fs::symlink(path.join(name), environment.path().join("bin/python")).expect("writable");
        let active = |name: &str| (name == "VIRTUAL_ENV").then(|| environment.path().into());
        let problem = find::interpreter(Path::new("monoceros"), active).expect_err(name);
        assert!(problem.contains(&format!(" is {kind};")), "{problem}");
    }
}

#[test]
fn a_script_that_picks_an_interpreter_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let [shims, real] = ["shims", "real/bin"].map(|name| folder.path().join(name));
    [&shims, &real].iter().for_each(|folder| fs::create_dir_all(folder).expect("the folder is writable"));
    fs::write(shims.join("python3"), "#!/bin/sh\n").expect("the folder is writable");
    fs::write(real.join("python3.11"), "").expect("the folder is writable");
    std::os::unix::fs::symlink("python3.11", real.join("python3")).expect("the folder is writable");
    let path = std::env::join_paths([&shims, &real]).expect("plain paths");
    let found = find::interpreter(Path::new("monoceros"), |name| (name == "PATH").then(|| path.clone()));
    let found = found.expect("the second is one");
    assert_eq!((&*found.version, found.base.file_name()), ("3.11", Some("python3.11".as_ref())));
    let library = format!("libpython{}.so.1.0", found.version);
    assert!(found.libraries().is_empty(), "the system's would be another Python's");
    let systems = find::Interpreter { base: "/usr/bin/python3.99".into(), version: "3.99".into(), ..found };
    assert_eq!(systems.libraries(), [PathBuf::from("libpython3.99.so.1.0")], "the system looks for its own");
    let found = find::interpreter(Path::new("monoceros"), |name| (name == "PATH").then(|| path.clone()));
    let found = found.expect("the second is one");
    let beside = folder.path().join("real/lib").join(&library);
    fs::create_dir(folder.path().join("real/lib")).expect("the folder is writable");
    fs::write(&beside, "").expect("the folder is writable");
    assert_eq!(found.libraries()[0].canonicalize().ok(), beside.canonicalize().ok());
}

/// The folder of an environment that says this version of itself.
fn environment_for(version: &str, home: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let marker = format!("home = {home}\nversion = {version}\n");
    fs::write(folder.path().join("pyvenv.cfg"), marker).expect("the folder is writable");
    folder
}

/// Whether the interpreter's libpython can be loaded.
fn has_library(interpreter: &Path) -> bool {
    let script = "import ctypes, os, sys, sysconfig\n\
                  name = 'libpython%d.%d.so.1.0' % sys.version_info[:2]\n\
                  base = os.path.realpath(sys._base_executable)\n\
                  beside = os.path.join(os.path.dirname(os.path.dirname(base)), 'lib', name)\n\
                  is_systems = os.path.dirname(base) in ('/usr/bin', '/bin')\n\
                  ctypes.CDLL(name if is_systems and not os.path.exists(beside) else beside)";
    Command::new(interpreter).args(["-c", script]).output().is_ok_and(|done| done.status.success())
}

fn plan() -> Plan {
    Plan::app("app").in_own_folder().file("app.py", WHERE).program(program())
}

/// The launcher, and the libraries of the wheels, laid out as they are installed.
fn program() -> PathBuf {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    let folder = MADE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let [bin, lib] = ["bin", "lib/monoceros"].map(|name| folder.path().join(name));
        [&bin, &lib].iter().for_each(|folder| fs::create_dir_all(folder).expect("the folder is writable"));
        let target = root().join("target/launcher");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--offline", "--locked", "--manifest-path"]);
        run(cargo.arg(root().join("src/launcher/Cargo.toml")).arg("--target-dir").arg(&target));
        fs::copy(target.join("debug/monoceros"), bin.join("monoceros")).expect("it was built");
        for interpreter in interpreters() {
            let version = tag(interpreter).replace("cp3", "3.");
            let script = "import sys, zipfile\n\
                          archive = zipfile.ZipFile(sys.argv[1])\n\
                          [name] = [name for name in archive.namelist() if name.endswith('.so')]\n\
                          open(sys.argv[2], 'wb').write(archive.read(name))";
            let library = lib.join(find::library_name(&version));
            run(Command::new(python()).args(["-c", script]).arg(wheel(interpreter)).arg(library));
        }
        folder
    });
    folder.path().join("bin/monoceros")
}
