//! `control_socket`: gunicorn's control protocol, and that it outlives everything.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal::SIGHUP;

use crate::util::json::Json;
use crate::util::server::{Plan, Server};
use crate::util::{PATIENCE, gunicorn_venv, load::version, wait_until};

/// A client of the control socket.
pub struct Control(UnixStream);

impl Control {
    pub fn connect(path: &Path) -> Control {
        wait_until("the control socket", || UnixStream::connect(path).is_ok());
        let stream = UnixStream::connect(path).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Control(stream)
    }

    pub fn send(&mut self, frame: &[u8]) {
        let _ = self.0.write_all(&[&(frame.len() as u32).to_be_bytes(), frame].concat());
    }

    /// The next reply; `None` if the server closes.
    pub fn read(&mut self) -> Option<Json> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).ok()?;
        Some(Json::parse(&String::from_utf8(frame).expect("UTF-8")))
    }

    fn ask(&mut self, command: &str) -> Json {
        self.send(format!("{{\"id\": 7, \"command\": \"{command}\"}}").as_bytes());
        let reply = self.read().expect("a reply");
        assert_eq!(reply["id"].number(), 7.0);
        reply
    }

    #[track_caller]
    pub fn data(&mut self, command: &str) -> Json {
        let reply = self.ask(command);
        assert_eq!(reply["status"].text(), "ok", "{command}: {reply:?}");
        reply["data"].clone()
    }

    #[track_caller]
    pub fn error(&mut self, command: &str) -> String {
        let reply = self.ask(command);
        assert_eq!(reply["status"].text(), "error", "{command}: {reply:?}");
        reply["error"].text().to_owned()
    }
}

/// Two workers, and a client.
pub fn serve(plan: Plan) -> (Server, Control) {
    let path = plan.path("ctl.sock");
    let server = plan.args(["--workers", "2", "--control-socket", path.to_str().expect("a plain path")]).start();
    server.wait_for_workers(2);
    let control = Control::connect(&path);
    (server, control)
}

#[test]
fn every_command_of_gunicorn_has_its_reply() {
    let (mut server, mut control) = serve(Plan::app("process"));
    let mode = std::fs::metadata(server.path("ctl.sock")).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let stats = control.data("show stats");
    assert_eq!((stats["pid"].number() as i32, stats["workers_current"].number()), (server.pid(), 2.0));
    assert_eq!((stats["workers_target"].number(), stats["workers_spawned"].number()), (2.0, 2.0));
    assert_eq!((&stats["dirty_arbiter_pid"], stats["workers_killed"].number()), (&Json::Null, 0.0));
    let workers = control.data("show workers");
    assert_eq!((workers["count"].number(), &workers["workers"].list()[0]["booted"]), (2.0, &Json::Bool(true)));
    assert_eq!(workers["workers"].list()[1]["age"].number(), 2.0);
    assert_eq!(control.data("SHOW all")["web_worker_count"].number(), 2.0);
    let listeners = control.data("show listeners");
    let port = server.address.port();
    assert_eq!(listeners["listeners"].list()[0]["address"].text(), format!("http://127.0.0.1:{port}"));
    let config = control.data("show config");
    assert_eq!((config["workers"].number(), config["preload_app"].clone()), (2.0, Json::Bool(false)));
    assert_eq!(control.data("show dirty")["enabled"], Json::Bool(false));
    let added = control.data("worker add 1");
    assert_eq!([&added["added"], &added["previous"], &added["total"]].map(Json::number), [1.0, 2.0, 3.0]);
    wait_until("three workers", || server.has_serving(3));
    let removed = control.data("worker remove 9");
    assert_eq!([&removed["removed"], &removed["total"]].map(Json::number), [2.0, 1.0], "never below one");
    wait_until("one worker", || server.workers().len() == 1);
    let worker = server.workers()[0];
    assert_eq!(control.data(&format!("worker kill {worker}"))["killed"].number() as i32, worker);
    wait_until("another worker", || server.has_serving(1) && server.workers() != [worker]);
    assert_eq!(control.data("worker kill 999999")["error"].text(), "Worker 999999 not found");
    assert_eq!(control.data("dirty add")["error"].text(), "Dirty arbiter not running");
    assert_eq!(control.data("reopen")["status"].text(), "reopening");
    assert!(control.data("help")["commands"].get("show all").is_some());
    for (command, error) in [
        ("", "Empty command"),
        ("x", "Invalid argument: Unknown command: x"),
        ("show", "Invalid argument: Missing show target (all|workers|dirty|config|stats|listeners)"),
        ("show x", "Invalid argument: Unknown show target: x"),
        ("worker", "Invalid argument: Missing worker action (add|remove|kill)"),
        ("worker kill", "Invalid argument: Missing PID for worker kill"),
        ("worker add x", "Invalid argument: invalid literal for int() with base 10: 'x'"),
        ("dirty x", "Invalid argument: Unknown dirty action: x"),
        ("show 'x", "Invalid argument: No closing quotation"),
    ] {
        assert_eq!(control.error(command), error, "{command}");
    }
    let shutdown = control.data("shutdown");
    assert_eq!((shutdown["status"].text(), shutdown["mode"].text()), ("shutting down", "graceful"));
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(!server.path("ctl.sock").exists());
}

#[test]
fn a_reload_that_is_waited_for_says_how_it_ended() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1));
    let (server, mut control) = serve(plan);
    server.write("app.py", &version(2));
    assert_eq!(control.data("reload --wait")["status"].text(), "reloaded");
    wait_until("the new code", || server.get("/?x").text() == "v2 x 0");
    let ctl = |words: &[&str]| {
        let path = server.path("ctl.sock").display().to_string();
        let ran =
            Command::new(crate::util::program()).args(["ctl", "-s", &path]).args(words).output().expect("it runs");
        (ran.status.code(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
    };
    let (status, said) = ctl(&["reload", "--wait"]);
    assert!(status == Some(0) && said.contains("\"reloaded\""), "{said}");
    assert_eq!(ctl(&["show", "nothing"]).0, Some(1));
    server.write("app.py", "broken = ");
    assert!(control.error("reload --wait").starts_with("Reload failed"));
    assert_eq!(control.data("show stats")["reloads_failed"].number(), 1.0);
    assert_eq!(ctl(&["reload", "--wait"]).0, Some(1));
    let mut server = server;
    server.allow("[ERROR]");
    server.allow("Traceback");
    server.finish();
}

#[test]
fn a_client_outlives_reloads() {
    let (server, mut control) = serve(Plan::app("process"));
    for _ in 0..10 {
        assert_eq!(control.data("reload --wait")["status"].text(), "reloaded");
    }
    server.signal(SIGHUP);
    assert_eq!(control.data("show stats")["workers_target"].number(), 2.0);
    server.finish();
}

#[test]
fn broken_frames_end_their_client_alone() {
    let (server, mut control) = serve(Plan::app("process"));
    let path = server.path("ctl.sock");
    for frame in [&b""[..], b"[]", b"{", b"\xff", b"{\"command\": 1}"] {
        let mut broken = Control::connect(&path);
        broken.send(frame);
        assert!(broken.read().is_none(), "{frame:?}");
    }
    let mut random = 1_u64;
    for _ in 0..crate::util::count(10_000, 300) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut broken = Control::connect(&path);
        let _ = broken.0.write_all(&random.to_le_bytes());
        let _ = broken.0.shutdown(std::net::Shutdown::Write);
    }
    assert_eq!(control.data("show stats")["workers_current"].number(), 2.0);
    server.finish();
}

#[test]
fn the_real_gunicornc_is_understood() {
    let (server, _control) = serve(Plan::app("process"));
    let path = server.path("ctl.sock");
    let client = gunicorn_venv().join("bin/gunicornc");
    for (command, part) in [
        ("show stats", "workers"),
        ("show workers", "yes"),
        ("show listeners", "127.0.0.1"),
        ("show config", "graceful_timeout"),
        ("worker add 1", "3"),
        ("help", "show all"),
    ] {
        let ran = Command::new(&client).arg("-s").arg(&path).args(["-c", command]).output().expect("gunicornc");
        let said = String::from_utf8_lossy(&ran.stdout).to_lowercase();
        assert!(ran.status.success() && said.contains(part), "{command}: {ran:?}");
    }
    server.finish();
}

#[test]
fn a_drained_server_fails_its_checks_and_serves_on() {
    let (server, mut control) =
        serve(Plan::app("process").args(["--health-path", "/healthz", "--live-path", "/livez"]));
    let statuses = || ["/healthz", "/livez", "/pid"].map(|path| server.get(path).status);
    assert_eq!(control.data("drain")["status"].text(), "draining");
    assert_eq!(statuses(), [503, 200, 200]);
    assert_eq!(control.data("drain off")["status"].text(), "serving");
    assert_eq!(statuses(), [200, 200, 200]);
    server.finish();
}
