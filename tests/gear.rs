//! The cartridge (conf/cartridge) in an OpenShift v2 gear and in a Jelastic node. Neither host runs here: tests/platforms/gear stands in
//! for them, and its own tests, in Python, are started from here one by one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::util::{is_root, is_wheel, program, python, root, venv};

#[test]
fn a_gear_lives_from_its_creation_to_its_removal() {
    play("test_gear.Acceptance.test_from_creation_to_removal");
}

#[test]
fn hot_deploys_refuse_nobody() {
    play("test_gear.HotDeployByCopies.test_nobody_is_refused");
}

#[test]
fn a_release_that_cannot_be_served_is_refused_and_the_old_one_stays() {
    play("test_gear.HotDeploy.test_what_cannot_be_served_changes_nothing");
}

#[test]
fn the_files_are_as_the_platforms_want_them() {
    play("test_gear.Rules");
    play("test_jelastic.Jelastic.test_the_files_that_the_agent_reads");
}

#[test]
fn the_scripts_pass_shellcheck() {
    if !has("shellcheck") {
        return;
    }
    let scripts = "conf/cartridge/bin/* conf/cartridge/hooks/* conf/cartridge/usr/lib/*.sh conf/cartridge/jelastic/scripts/*.sh \
                   scripts/cartridge";
    let checked = Command::new("sh").args(["-c", &format!("shellcheck -x {scripts}")]).current_dir(root()).output();
    let checked = checked.expect("a shell");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

// The long form: cargo test --test tests -- --ignored gear

#[test]
#[ignore = "every verb: a minute"]
fn long_verbs_say_the_truth_by_their_status() {
    play("test_gear.Acceptance.test_verbs_say_the_truth_by_their_status");
    play("test_gear.Acceptance.test_hooks_run_around_verbs_and_may_stop_them");
    play("test_gear.Upgrade");
}

#[test]
#[ignore = "several gears: a minute"]
fn long_snapshots_and_scaled_applications() {
    play("test_gear.Acceptance.test_a_snapshot_is_restored");
    play("test_gear.Acceptance.test_another_gear_of_a_scaled_application_serves_what_was_built_here");
}

#[test]
#[ignore = "both ways of laying out deployments: minutes"]
fn long_hot_deploys_of_every_kind() {
    play("test_gear.HotDeploy");
    play("test_gear.HotDeployByCopies");
}

#[test]
#[ignore = "a Jelastic node with every type of package: a minute"]
fn long_a_jelastic_node_lives_from_its_creation_to_its_removal() {
    play("test_jelastic.Jelastic");
}

#[test]
#[ignore = "200 hot deploys under load, by links and by copies: many minutes"]
fn long_two_hundred_hot_deploys_refuse_nobody() {
    play("test_gear.LongHotDeploy.test_two_hundred_refuse_nobody");
    play("test_gear.LongHotDeployByCopies.test_two_hundred_refuse_nobody");
}

#[test]
#[ignore = "TERM once a second, eleven times"]
fn long_eleven_terms_lose_nothing() {
    play("test_gear.LongStop");
}

/// Runs one test of tests/platforms/gear, and passes with it.
#[track_caller]
fn play(test: &str) {
    if !has("ruby") {
        return;
    }
    let folder = root().join("tests/platforms/gear");
    let mut tests = Command::new(venv().join("bin/python"));
    tests.args(["-m", "unittest", test]).current_dir(folder).env("PYTHONDONTWRITEBYTECODE", "1");
    let python = PathBuf::from(python());
    let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", parent(&python));
    tests.env("GEAR_PATH", path).env("GEAR_VERSION", version(&python));
    tests.env("CARTRIDGE", cartridge()).env("GEAR_CACHE", virtualenvs());
    let output = tests.output().expect("a Python");
    let said = String::from_utf8_lossy(&output.stderr);
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{test}: {said}");
}

/// The cartridge with the server under test, put together once.
fn cartridge() -> PathBuf {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    let folder = MADE.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("monoceros-test-").tempdir().expect("a temporary folder");
        let (option, server) = if is_wheel() { ("--wheel", wheel()) } else { ("--program", program()) };
        let mut script = Command::new(root().join("scripts/cartridge"));
        let made = script.arg(option).arg(server).arg(folder.path().join("cartridge")).output().expect("a shell");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    });
    folder.path().join("cartridge")
}

/// The wheel whose script is under test, as `scripts/test` has built it.
fn wheel() -> PathBuf {
    let folder = venv().file_name().expect("a name").to_string_lossy().replace("test-venv", "test-wheel");
    let mut entries = venv().with_file_name(folder).read_dir().expect("scripts/test has built a wheel").flatten();
    entries.next().expect("a wheel").path()
}

/// Where virtualenvs stay from one test to the next: making one takes seconds.
fn virtualenvs() -> PathBuf {
    let name = if is_wheel() { "gear-virtualenvs-wheel" } else { "gear-virtualenvs" };
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn parent(path: &Path) -> String {
    path.parent().expect("the path of a program").display().to_string()
}

/// "3.11"
fn version(python: &Path) -> String {
    let script = "import sys; print('%d.%d' % sys.version_info[:2], end='')";
    let said = Command::new(python).args(["-c", script]).output().expect("the interpreter of the tests");
    String::from_utf8(said.stdout).expect("a number")
}

/// Whether a tool is there. apt brings it where that can be; where not, a sentence names the package.
fn has(tool: &str) -> bool {
    static APT: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = APT.lock();
    let is_there = || Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there() && is_root() {
        let script = format!("apt-get update -qq && apt-get install -qq --yes --no-install-recommends {tool}");
        let _ = Command::new("sh").args(["-c", &script]).env("DEBIAN_FRONTEND", "noninteractive").output();
    }
    let is_there = is_there();
    if !is_there {
        println!("skipped: no {tool} on this machine; Debian, Ubuntu: apt-get install {tool}");
    }
    is_there
}
