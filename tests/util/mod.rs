//! Shared by all tests: the program under test, a raw client, and the tests' environment.
//!
//! The tests are black box. They know the program by its name, its arguments, its signals, its log
//! and its sockets, and nothing else. `MONOCEROS_TEST_PROGRAM` names another program to drive (the
//! script that pip installs, another build, or a gunicorn to compare with).

pub mod board;
pub mod cgroup;
pub mod client;
pub mod confined;
pub mod json;
pub mod load;
pub mod metrics;
pub mod nginx;
pub mod notify;
pub mod platforms;
pub mod process;
pub mod server;
pub mod tls;
pub mod tools;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// How long a thing that must happen may take before the test gives up. Far above what it takes, so
/// that a busy machine fails no test; what has a deadline of its own is tested against that.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The repository's top folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the apps which the tests serve.
pub fn apps() -> PathBuf {
    root().join("tests/apps")
}

/// The program under test.
pub fn program() -> PathBuf {
    match std::env::var_os("MONOCEROS_TEST_PROGRAM") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_monoceros").into(),
    }
}

/// Whether the tests run the wheel: whether the program is a script.
pub fn is_wheel() -> bool {
    let mut start = [0; 2];
    let read = std::fs::File::open(program()).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"#!"
}

/// The virtualenv with the test apps' frameworks; `scripts/test --venv` makes it when it is not
/// there.
pub fn venv() -> &'static Path {
    static VENV: OnceLock<PathBuf> = OnceLock::new();
    VENV.get_or_init(|| {
        let made = Command::new(root().join("scripts/test"))
            .args(["--python", &python(), "--venv"])
            .output()
            .expect("scripts/test can be run");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        PathBuf::from(String::from_utf8_lossy(&made.stdout).trim())
    })
}

/// The virtualenv with the real gunicorn, away from the apps' own: `import gunicorn` must not find
/// it there.
pub fn gunicorn_venv() -> &'static Path {
    static VENV: OnceLock<PathBuf> = OnceLock::new();
    VENV.get_or_init(|| {
        let name = venv().file_name().expect("a name").to_string_lossy().replace("test-", "gunicorn-");
        venv().with_file_name(name)
    })
}

/// The packages of [`gunicorn_venv`], for a server that is to find the real gunicorn on Python's
/// path.
pub fn gunicorn_packages() -> String {
    let mut versions = std::fs::read_dir(gunicorn_venv().join("lib")).expect("a virtualenv has a lib").flatten();
    let version = versions.next().expect("it is of one Python").path();
    version.join("site-packages").display().to_string()
}

/// The virtualenv with programs that start a server in their turn.
pub fn programs_venv() -> &'static Path {
    static VENV: OnceLock<PathBuf> = OnceLock::new();
    VENV.get_or_init(|| {
        let name = venv().file_name().expect("a name").to_string_lossy().replace("test-", "programs-");
        venv().with_file_name(name)
    })
}

/// The variable, and its value, by which a server finds the packages of [`classes_venv`]. The
/// wheel's script runs in the virtualenv that it is installed in: it finds them in front of its
/// own.
pub fn variable_for_classes() -> (&'static str, String) {
    if !is_wheel() {
        return ("VIRTUAL_ENV", classes_venv().display().to_string());
    }
    let mut versions = std::fs::read_dir(classes_venv().join("lib")).expect("a virtualenv has a lib").flatten();
    let version = versions.next().expect("it is of one Python").path();
    ("PYTHONPATH", version.join("site-packages").display().to_string())
}

/// The virtualenv with worker classes of other packages, and without a gunicorn.
pub fn classes_venv() -> &'static Path {
    static VENV: OnceLock<PathBuf> = OnceLock::new();
    VENV.get_or_init(|| {
        let name = venv().file_name().expect("a name").to_string_lossy().replace("test-", "classes-");
        venv().with_file_name(name)
    })
}

/// The interpreter that the program was built with, found as pyo3's build finds it.
pub fn python() -> String {
    if let Ok(chosen) = std::env::var("PYO3_PYTHON") {
        return chosen;
    }
    let active = std::env::var("VIRTUAL_ENV").map(|venv| format!("{venv}/bin/python"));
    let candidates = active.into_iter().chain(["python".to_string(), "python3".to_string()]);
    candidates.into_iter().find(|candidate| is_python_3(candidate)).expect("a python3 on PATH, or PYO3_PYTHON")
}

fn is_python_3(candidate: &str) -> bool {
    let asked = Command::new(candidate).args(["-c", "import sys; sys.exit(sys.version_info[0] != 3)"]).output();
    asked.is_ok_and(|answer| answer.status.success())
}

/// Waits until `condition` holds, for as long as `PATIENCE`; `what` completes the sentence "waited
/// in vain for".
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_at_most(PATIENCE, what, condition);
}

/// Waits until `condition` holds, and says how long it took.
#[track_caller]
pub fn wait_at_most(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// Whether the tests run as root, which some of them need.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether the long form of the fault suite is asked for (`scripts/chaos`).
pub fn is_long() -> bool {
    std::env::var("MONOCEROS_CHAOS").is_ok_and(|mode| mode == "long")
}

/// How long everything is done at once: `MONOCEROS_SOAK` seconds, else ten minutes in the long form
/// of the fault suite.
pub fn soak_seconds() -> u64 {
    let asked = std::env::var("MONOCEROS_SOAK").ok().and_then(|seconds| seconds.parse().ok());
    asked.unwrap_or(count(600, 10) as u64)
}

/// How often something is done, in the long form of the fault suite and in the short one.
pub fn count(long: usize, short: usize) -> usize {
    if is_long() { long } else { short }
}
