//! The simulators of platforms (`tests/platforms`): programs in Python, each with its scenarios.
//! What they install is the wheel, through whichever door the other tests go.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::{python, root, venv};

/// Runs a scenario of a simulator to its end and returns what it said; the scenario must have held.
#[track_caller]
pub fn run(simulator: &str, scenario: &str) -> String {
    let done = Command::new(venv().join("bin/python"))
        .arg(root().join("tests/platforms").join(simulator))
        .arg(scenario)
        .env("MONOCEROS_WHEEL", wheel())
        .env("PLATFORM_PYTHON", python())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("the virtualenv has a python");
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && said.contains(&format!("{scenario}: held")), "{said}");
    said
}

/// The wheel of the tests' Python: the one that `scripts/test` has built for the door of the wheel,
/// else a new one.
pub fn wheel() -> PathBuf {
    static WHEEL: OnceLock<PathBuf> = OnceLock::new();
    WHEEL
        .get_or_init(|| {
            let made = Command::new(root().join("scripts/test"))
                .args(["--python", &python(), "--wheel"])
                .output()
                .expect("scripts/test can be run");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            PathBuf::from(String::from_utf8_lossy(&made.stdout).trim())
        })
        .clone()
}
