//! The cartridge (conf/cartridge) in an OpenShift v2 gear and in a Jelastic node. Neither host runs
//! here: tests/platforms/gear stands in for them, and its own tests, in Python, are started from
//! here one by one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::util::tools::has;
use crate::util::{confined, is_root, is_wheel, program, python, root, venv};

#[test]
fn a_gear_lives_from_its_creation_to_its_removal() {
    play("test_gear.Acceptance.test_from_creation_to_removal");
}

#[test]
#[ignore = "every way in which a release can be broken: two minutes"]
fn long_a_release_that_cannot_be_served_is_refused_and_the_old_one_stays() {
    play("test_gear.HotDeploy.test_what_cannot_be_served_changes_nothing");
    play("test_gear.HotDeploy.test_a_release_that_hangs_never_takes_over");
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

#[test]
fn the_yaml_files_pass_yamllint() {
    if !has("yamllint") {
        return;
    }
    // As OpenShift's own manifests are written.
    let rules = "{extends: default, rules: {line-length: {max: 120}, document-start: disable, empty-values: disable, \
                 indentation: {indent-sequences: whatever}, comments: {min-spaces-from-content: 1}}}";
    let files = ["metadata/manifest.yml", "metadata/managed_files.yml", "manifest.jps"];
    let files = files.map(|file| root().join("conf/cartridge").join(file));
    let checked = Command::new("yamllint").args(["--strict", "-d", rules]).args(files).output().expect("it is there");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// A read-only root, a user without a name, no home folder.
#[test]
fn hot_deploys_refuse_nobody_and_need_nothing_but_the_gears_own_folder() {
    play_confined("test_gear.HotDeploy.test_nobody_is_refused");
}

// The long form: cargo test --test tests -- --ignored gear

#[test]
#[ignore = "every verb: a minute"]
fn long_verbs_say_the_truth_by_their_status() {
    play("test_gear.Acceptance.test_verbs_say_the_truth_by_their_status");
    play("test_gear.Acceptance.test_hooks_run_around_verbs_and_may_stop_them");
    play("test_gear.Acceptance.test_what_a_hook_of_the_server_has_started_is_no_worker");
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
#[ignore = "every verb again, confined: minutes"]
fn long_every_chapters_commands_work_confined() {
    play_confined("test_gear.Acceptance");
    play_confined("test_jelastic.Jelastic");
}

#[test]
#[ignore = "a Jelastic node with every type of package: a minute"]
fn long_a_jelastic_node_lives_from_its_creation_to_its_removal() {
    play("test_jelastic.Jelastic");
}

#[test]
#[ignore = "fetches Django: a minute"]
fn long_migrations_belong_to_their_release() {
    play("test_django");
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

/// Runs tests of tests/platforms/gear, and passes with them.
#[track_caller]
fn play(test: &str) {
    // Making a virtualenv takes seconds.
    play_through(&[], test, &kept("virtualenvs"));
}

/// The same where only one folder can be written to (see `confined`).
#[track_caller]
fn play_confined(test: &str) {
    if !is_root() {
        return println!("not tried: this needs root");
    }
    let folder = tempfile::Builder::new().prefix("monoceros-test-").tempdir().expect("a temporary folder");
    let mut words = confined::words(folder.path()).to_vec();
    words.extend(["env".to_string(), format!("TMPDIR={}", folder.path().display())]);
    play_through(&words, test, &folder.path().join("virtualenvs"));
}

#[track_caller]
fn play_through(words: &[String], test: &str, virtualenvs: &Path) {
    if !has("ruby") {
        return;
    }
    let here = venv().join("bin/python").display().to_string();
    let words: Vec<&str> = words.iter().map(String::as_str).chain([here.as_str(), "-m", "unittest", test]).collect();
    let mut tests = Command::new(words[0]);
    tests.args(&words[1..]).env("PYTHONDONTWRITEBYTECODE", "1");
    tests.current_dir(root()).env("PYTHONPATH", root().join("tests/platforms/gear"));
    let python = PathBuf::from(python());
    let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", parent(&python));
    tests.env("GEAR_PATH", path).env("GEAR_VERSION", version(&python));
    tests.env("CARTRIDGE", cartridge()).env("GEAR_CACHE", virtualenvs);
    let output = tests.output().expect("a Python");
    let said = String::from_utf8_lossy(&output.stderr);
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{test}: {said}");
}

/// The cartridge with the server under test, put together once.
fn cartridge() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let (option, server) = if is_wheel() { ("--wheel", wheel()) } else { ("--program", program()) };
        let folder = kept("cartridge");
        let _ = std::fs::remove_dir_all(&folder);
        let made = Command::new(root().join("scripts/cartridge")).arg(option).arg(server).arg(&folder).output();
        let made = made.expect("a shell");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    })
}

/// The wheel under test, as `scripts/test` has built it.
fn wheel() -> PathBuf {
    let folder = venv().file_name().expect("a name").to_string_lossy().replace("test-venv", "test-wheel");
    let mut entries = venv().with_file_name(folder).read_dir().expect("scripts/test has built a wheel").flatten();
    entries.next().expect("a wheel").path()
}

/// A folder that stays from one run to the next, for each door.
fn kept(name: &str) -> PathBuf {
    let door = if is_wheel() { "wheel" } else { "program" };
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gear-{name}-{door}"))
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
