//! systemd itself over the units in conf/systemd: the commands of docs/hosts/systemd.md. What the
//! server tells it, message by message, is in service_manager.rs.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal::SIGHUP;

use crate::util::load::version;
use crate::util::notify::NotifySocket;
use crate::util::server::Plan;
use crate::util::{confined, is_root, program, root, venv, wait_until};

const APP: &str = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'v1']\n";

/// What the script says when all is well.
const SAID: &str = "\
serves when the start returns: v1
status: 1 of 1 workers serving
after reload: v2
after the upgrade in place: v3
after restart: v4
failed requests: 0
ended as: success 0
an application that cannot be loaded: failed 3 0
";

#[test]
fn its_own_commands_start_reload_upgrade_restart_and_stop_the_server() {
    if !is_root() || !Path::new("/lib/systemd/systemd").exists() {
        return println!("not tried: this needs root and systemd");
    }
    let folder = tempfile::Builder::new().prefix("monoceros-test-").tempdir().expect("a temporary folder");
    fs::write(folder.path().join("app.py"), APP).expect("a fresh folder is writable");
    let mut script = Command::new("timeout");
    script.args(["100", "unshare", "--mount", "--pid", "--fork", "--mount-proc"]);
    script.arg(root().join("tests/platforms/systemd.sh")).arg(root().join("conf/systemd"));
    script.arg(program()).arg(folder.path());
    // A module that is rewritten within a second keeps its time stamp, and Python would trust the
    // stale bytecode.
    let output =
        script.env("VIRTUAL_ENV", venv()).env("PYTHONDONTWRITEBYTECODE", "1").output().expect("they are there");
    let logs = ["systemd.log", "systemctl.log"].map(|log| fs::read_to_string(folder.path().join(log)));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), SAID, "{errors}\n{logs:?}");
    assert!(output.status.success(), "{errors}");
}

/// What systemd itself says of the templates and the drop-ins, without starting them.
#[test]
fn the_templates_and_the_sandbox_satisfy_systemd() {
    let folder = tempfile::Builder::new().prefix("monoceros-test-").tempdir().expect("a temporary folder");
    let analyze = |words: &[&str], unit: &str| {
        let path = folder.path().join(unit);
        Command::new("systemd-analyze").args(words).arg(path).output()
    };
    let conf = root().join("conf/systemd");
    // It looks whether the programs are there.
    for (from, to) in [("monoceros@.service", "monoceros@shop.service"), ("monoceros@.socket", "monoceros@shop.socket")]
    {
        let unit = fs::read_to_string(conf.join(from)).expect("it is there");
        let unit = unit.replace("/srv/%i/venv/bin/monoceros", "/bin/true").replace("%i", "shop");
        fs::write(folder.path().join(to), unit).expect("a fresh folder");
    }
    for (drop_in, name) in [("sandbox.conf", "10-sandbox.conf"), ("limits.conf", "20-limits.conf")] {
        let place = folder.path().join("monoceros@shop.service.d");
        fs::create_dir_all(&place).expect("a fresh folder");
        fs::copy(conf.join(drop_in), place.join(name)).expect("it is there");
    }
    let Ok(verified) = analyze(&["verify", "--man=no"], "monoceros@shop.service") else {
        return println!("not tried: there is no systemd-analyze here");
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("monoceros")).collect();
    assert!(ours.is_empty(), "{ours:?}");
    let scored = analyze(&["security", "--offline=yes", "--no-pager", "--threshold=20"], "monoceros@shop.service");
    let scored = scored.expect("it is there");
    let said = String::from_utf8_lossy(&scored.stdout);
    assert!(scored.status.success(), "{said}{}", String::from_utf8_lossy(&scored.stderr));
}

/// What `DynamicUser=`, `ProtectSystem=strict` and a `User=` without a home folder come to.
#[test]
fn the_service_needs_no_name_no_home_and_nothing_writable() {
    if !is_root() {
        return println!("not tried: this needs root");
    }
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).args(["--graceful-timeout", "25"]);
    let folder = plan.path("");
    let notify = NotifySocket::at(&plan.path("notify"));
    std::os::unix::fs::chown(notify.path(), Some(confined::UID), None).expect("root may give a socket away");
    std::os::unix::fs::chown(plan.path("gate"), Some(confined::UID), None).expect("root may give a folder away");
    let words = confined::words(&folder);
    let server = plan.through(words.each_ref().map(String::as_str)).env("NOTIFY_SOCKET", notify.path()).start();
    notify.wait_for("READY=1", 1);
    for (number, signal) in [(2, "HUP"), (3, "RTMIN")] {
        server.write("app.py", &version(number));
        match signal {
            "HUP" => server.signal(SIGHUP),
            _ => server.signal_rtmin(),
        }
        wait_until(&format!("version {number} by {signal}"), || {
            server.get("/").text().starts_with(&format!("v{number}"))
        });
    }
    server.finish();
}
