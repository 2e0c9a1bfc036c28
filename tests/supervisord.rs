//! The real supervisord (from the test virtualenv) over the examples in conf/supervisord, with our
//! paths in them: it starts, reloads, signals, upgrades, stops and gives up.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal::SIGTERM;
use tempfile::TempDir;

use crate::util::client::{Address, Client};
use crate::util::load::{Load, version};
use crate::util::process::is_alive;
use crate::util::server::send;
use crate::util::{confined, is_root, program, root, venv, wait_at_most, wait_until};

#[test]
fn it_starts_reloads_upgrades_in_place_and_stops() {
    let Some(supervisor) = Supervisor::start("monoceros.conf", &version(1)) else { return };
    supervisor.wait_for("monoceros", "RUNNING");
    let pid = supervisor.pid("monoceros");
    supervisor.wait_for_version(1);
    let load = Load::during(&supervisor.address, 2, |_| {
        for (signal, number) in [("HUP", 2), ("RTMIN", 3)] {
            supervisor.write("app.py", &version(number));
            supervisor.control(&["signal", signal, "monoceros"]);
            supervisor.wait_for_version(number);
        }
        supervisor.control(&["signal", "TTIN", "monoceros"]);
        supervisor.control(&["signal", "USR1", "monoceros"]);
        supervisor.wait_for_log("Handling signal: usr1");
    });
    load.expect_no_failure();
    assert_eq!(supervisor.pid("monoceros"), pid, "it is still the same process");
    supervisor.control(&["stop", "monoceros"]);
    supervisor.wait_for("monoceros", "STOPPED");
    assert!(!is_alive(pid));
    assert!(supervisor.own_log().contains("stopped: monoceros (exit status 0)"), "{}", supervisor.own_log());
}

#[test]
fn it_gives_up_on_an_app_that_cannot_be_loaded() {
    let Some(supervisor) = Supervisor::start("monoceros.conf", "raise RuntimeError('bad deploy')\n") else { return };
    supervisor.wait_for("monoceros", "FATAL");
    let log = supervisor.own_log();
    // On a busy machine even such a start may take the second after which supervisord counts it as
    // a success, and starts counting again.
    let since = log.rfind("entered RUNNING state").unwrap_or(0);
    let expected = if since == 0 { 4 } else { 5 };
    assert_eq!(log[since..].matches("exit status 3").count(), expected, "one start and three retries: {log}");
    supervisor.wait_for_log("bad deploy");
}

#[test]
fn a_killed_server_is_started_again() {
    let Some(supervisor) = Supervisor::start("monoceros.conf", &version(1)) else { return };
    supervisor.wait_for("monoceros", "RUNNING");
    supervisor.wait_for_version(1);
    let pid = supervisor.pid("monoceros");
    send(pid, nix::sys::signal::Signal::SIGKILL);
    wait_until("another process", || {
        supervisor.status("monoceros").contains("RUNNING") && supervisor.pid("monoceros") != pid
    });
    supervisor.wait_for_version(1);
}

#[test]
fn a_rolling_restart_refuses_no_client() {
    let Some(supervisor) = Supervisor::start("rolling.conf", &version(1)) else { return };
    let names = ["monoceros:monoceros-0", "monoceros:monoceros-1"];
    names.iter().for_each(|name| supervisor.wait_for(name, "RUNNING"));
    supervisor.wait_for_version(1);
    supervisor.write("app.py", &version(2));
    let load = Load::during(&supervisor.address, 2, |_| {
        for name in names {
            supervisor.control(&["restart", name]);
            supervisor.wait_for(name, "RUNNING");
        }
    });
    load.expect_no_failure();
    supervisor.wait_for_version(2);
}

#[test]
fn it_needs_no_name_no_home_and_nothing_writable_but_the_folder_of_its_logs() {
    if !is_root() {
        return println!("not tried: this needs root");
    }
    let Some(supervisor) = Supervisor::start_as(Runs::Confined, "monoceros.conf", &version(1)) else { return };
    supervisor.wait_for("monoceros", "RUNNING");
    supervisor.wait_for_version(1);
    let pid = supervisor.pid("monoceros");
    assert_eq!(fs::metadata(format!("/proc/{pid}")).expect("it lives").uid(), confined::UID);
    assert!(supervisor.control(&["reread"]).contains("No config updates"));
    assert_eq!(supervisor.control(&["update"]), "");
    let load = Load::during(&supervisor.address, 2, |_| {
        for (signal, number) in [("HUP", 2), ("RTMIN", 3)] {
            supervisor.write("app.py", &version(number));
            supervisor.control(&["signal", signal, "monoceros"]);
            supervisor.wait_for_version(number);
        }
        for signal in ["TTIN", "TTOU", "USR1"] {
            supervisor.control(&["signal", signal, "monoceros"]);
            supervisor.wait_for_log(&format!("Handling signal: {}", signal.to_lowercase()));
        }
    });
    load.expect_no_failure();
    supervisor.control(&["stop", "monoceros"]);
    supervisor.wait_for("monoceros", "STOPPED");
    assert!(supervisor.own_log().contains("stopped: monoceros (exit status 0)"), "{}", supervisor.own_log());
}

/// How supervisord is started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    AsTheTestsDo,
    /// See `util::confined`.
    Confined,
}

/// A running supervisord with one of our examples. Ends with everything below it.
struct Supervisor {
    child: Child,
    dir: TempDir,
    address: Address,
}

impl Supervisor {
    fn start(example: &str, app: &str) -> Option<Supervisor> {
        Supervisor::start_as(Runs::AsTheTestsDo, example, app)
    }

    fn start_as(runs: Runs, example: &str, app: &str) -> Option<Supervisor> {
        let supervisord = venv().join("bin/supervisord");
        if !supervisord.exists() {
            println!("skipped: no supervisord in {}", venv().display());
            return None;
        }
        let dir = tempfile::Builder::new().prefix("monoceros-test-").tempdir().expect("a temporary folder");
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        fs::write(dir.path().join("app.py"), app).expect("a fresh folder is writable");
        let who = if runs == Runs::AsTheTestsDo && is_root() { "user=root\n" } else { "" };
        fs::write(dir.path().join("supervisord.conf"), settings(dir.path(), example, port, who)).expect("as above");
        let mut words = if runs == Runs::Confined { confined::words(dir.path()).to_vec() } else { Vec::new() };
        words.push(supervisord.display().to_string());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["--nodaemon", "--configuration"])
            .arg(dir.path().join("supervisord.conf"))
            .current_dir(dir.path())
            .env("VIRTUAL_ENV", venv())
            .env("GATE", dir.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is there");
        let supervisor = Supervisor { child, dir, address: Address::Tcp(port) };
        wait_until("supervisord to answer", || supervisor.path("control").exists());
        Some(supervisor)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("our own folder");
    }

    fn control(&self, words: &[&str]) -> String {
        let output = Command::new(venv().join("bin/supervisorctl"))
            .arg("--configuration")
            .arg(self.path("supervisord.conf"))
            .args(words)
            .output()
            .expect("it is there");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn status(&self, name: &str) -> String {
        self.control(&["status", name])
    }

    fn pid(&self, name: &str) -> i32 {
        self.control(&["pid", name]).trim().parse().expect("a pid")
    }

    /// supervisord calls a program RUNNING after `startsecs`, and FATAL after growing pauses.
    #[track_caller]
    fn wait_for(&self, name: &str, state: &str) {
        wait_at_most(Duration::from_secs(40), &format!("{name} to be {state}"), || self.status(name).contains(state));
    }

    #[track_caller]
    fn wait_for_version(&self, number: usize) {
        let wanted = format!("v{number} ");
        wait_until(&format!("version {number}"), || {
            Client::try_connect(&self.address).is_ok_and(|mut client| client.get("/").text().starts_with(&wanted))
        });
    }

    #[track_caller]
    fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || self.log().contains(text));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("monoceros.log")).unwrap_or_default()
    }

    fn own_log(&self) -> String {
        fs::read_to_string(self.path("supervisord.log")).unwrap_or_default()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- supervisord\n{}--- the server\n{}---", self.own_log(), self.log());
        }
        send(self.child.id() as i32, SIGTERM);
        let _ = self.child.wait();
    }
}

/// The example as it stands in conf/, with what the user is told to change changed.
fn settings(dir: &Path, example: &str, port: u16, who: &str) -> String {
    let text = fs::read_to_string(root().join("conf/supervisord").join(example)).expect("the example is there");
    let folder = dir.display().to_string();
    let changes = [
        ("/usr/local/bin/monoceros", program().display().to_string()),
        ("127.0.0.1:8000", format!("127.0.0.1:{port}")),
        ("directory=/srv/app", format!("directory={folder}")),
        ("/var/log/supervisor", folder.clone()),
        // Tests need no other user, and cannot wait as long as a careful operator.
        ("user=www-data\n", String::new()),
        ("environment=HOME=\"/srv/app\",USER=\"www-data\"\n", String::new()),
        ("startsecs=5", "startsecs=1".to_string()),
    ];
    let text = changes.iter().fold(text, |text, (theirs, ours)| {
        assert!(text.contains(theirs) || *theirs == "127.0.0.1:8000", "{example} lacks {theirs:?}");
        text.replace(theirs, ours)
    });
    format!(
        "[supervisord]\n{who}logfile={folder}/supervisord.log\npidfile={folder}/supervisord.pid\nchildlogdir={folder}\n\
         [unix_http_server]\nfile={folder}/control\n[supervisorctl]\nserverurl=unix://{folder}/control\n\
         [rpcinterface:supervisor]\n\
         supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n{text}"
    )
}
