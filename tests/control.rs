//! `control_socket`: gunicorn's control protocol, and that it outlives everything.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

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

/// The settings that gunicorn shows, in the order of their names.
const CONFIG_KEYS: [&str; 20] = [
    "bind",
    "control_socket",
    "control_socket_disable",
    "daemon",
    "dirty_apps",
    "dirty_timeout",
    "dirty_workers",
    "graceful_timeout",
    "keepalive",
    "max_requests",
    "max_requests_jitter",
    "pidfile",
    "preload_app",
    "proc_name",
    "reload",
    "threads",
    "timeout",
    "worker_class",
    "worker_connections",
    "workers",
];

fn keys(object: &Json) -> Vec<&str> {
    let Json::Object(members) = object else { panic!("not an object: {object:?}") };
    let mut keys: Vec<&str> = members.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn frames_are_answered_in_their_order_with_their_id_and_their_arguments() {
    let (server, mut control) = serve(Plan::app("process"));
    for frame in [
        r#"{"id": "a", "command": "worker", "args": ["kill", 999999]}"#,
        r#"{"id": [1, {"b": null}], "command": "show stats"}"#,
        r#"{"command": "help"}"#,
        r#"{"id": null, "command": "show", "args": "x"}"#,
        r#"{"id": 1.5}"#,
    ] {
        control.send(frame.as_bytes());
    }
    let mut next = || control.read().expect("a reply");
    let killed = next();
    assert_eq!((killed["id"].text(), killed["data"]["success"].clone()), ("a", Json::Bool(false)));
    assert_eq!(next()["id"], Json::parse(r#"[1, {"b": null}]"#));
    assert_eq!(next()["id"].number(), 0.0, "of a frame without one");
    assert_eq!(next()["error"].text(), "Invalid argument: Unknown show target: x");
    let empty = next();
    assert_eq!((empty["id"].number(), empty["error"].text()), (1.5, "Empty command"));
    server.finish();
}

#[test]
fn listeners_are_shown_by_their_kind() {
    let plan = Plan::app("process").bound_elsewhere();
    let path = plan.path("web.sock").display().to_string();
    let bind = format!("unix:{path}");
    let (server, mut control) = serve(plan.args(["--bind", "[::1]:0", "--bind", &bind]));
    let shown = control.data("show listeners");
    let kinds: Vec<&str> = shown["listeners"].list().iter().map(|it| it["type"].text()).collect();
    assert_eq!((kinds, shown["count"].number()), (vec!["tcp6", "unix"], 2.0));
    assert!(shown["listeners"].list()[0]["address"].text().starts_with("http://[::1]:"));
    assert_eq!(shown["listeners"].list()[1]["address"].text(), bind);
    assert!(shown["listeners"].list().iter().all(|it| it["fd"].number() > 2.0));
    server.finish();
}

#[test]
fn a_quick_shutdown_waits_for_no_request() {
    let (mut server, mut control) = serve(Plan::app("process"));
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request inside", || server.entered() == 1);
    let shutdown = control.data("shutdown quick");
    assert_eq!((shutdown["status"].text(), shutdown["mode"].text()), ("shutting_down", "quick"));
    assert_eq!(server.wait_for_exit().code(), Some(0));
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
    let aborted = &workers["workers"].list()[0]["aborted"];
    assert_eq!((aborted, workers["workers"].list()[0]["last_heartbeat"].number() < 60.0), (&Json::Bool(false), true));
    let all = control.data("SHOW all");
    assert_eq!((all["web_worker_count"].number(), all["arbiter"]["role"].text()), (2.0, "master"));
    assert_eq!(all["arbiter"]["pid"].number() as i32, server.pid());
    for key in ["pid", "type", "age", "booted", "last_heartbeat"] {
        assert!(all["web_workers"].list()[1].get(key).is_some(), "{key}");
    }
    assert_eq!((&all["dirty_arbiter"], all["dirty_worker_count"].number()), (&Json::Null, 0.0));
    let listeners = control.data("show listeners");
    let port = server.address.port();
    assert_eq!(listeners["listeners"].list()[0]["address"].text(), format!("http://127.0.0.1:{port}"));
    let config = control.data("show config");
    assert_eq!((config["workers"].number(), config["preload_app"].clone()), (2.0, Json::Bool(false)));
    assert_eq!(config["worker_class"].text(), "<class 'gunicorn.workers.sync.SyncWorker'>");
    assert_eq!(keys(&config), CONFIG_KEYS);
    assert_eq!(control.data("show dirty")["enabled"], Json::Bool(false));
    let added = control.data("worker add 1");
    assert_eq!([&added["added"], &added["previous"], &added["total"]].map(Json::number), [1.0, 2.0, 3.0]);
    wait_until("three workers", || server.has_serving(3));
    let removed = control.data("worker remove 9");
    assert_eq!([&removed["removed"], &removed["total"]].map(Json::number), [2.0, 1.0], "never below one");
    wait_until("one worker", || server.workers().len() == 1);
    let worker = server.workers()[0];
    assert_eq!(control.data(&format!("worker kill {worker}"))["killed"].number() as i32, worker);
    wait_until("another worker", || server.workers() != [worker] && server.has_serving(1));
    assert_eq!(control.data("worker kill 999999")["error"].text(), "Worker 999999 not found");
    assert_eq!(control.data("dirty add")["error"].text(), "Dirty arbiter not running");
    assert_eq!(control.data("reopen")["status"].text(), "reopening");
    assert_eq!(control.data("reload")["status"].text(), "reloading");
    assert!(control.data("help")["commands"].get("show all").is_some());
    for (command, error) in [
        ("", "Empty command"),
        ("x", "Invalid argument: Unknown command: x"),
        ("show", "Invalid argument: Missing show target (all|workers|dirty|config|stats|listeners)"),
        ("show x", "Invalid argument: Unknown show target: x"),
        ("worker", "Invalid argument: Missing worker action (add|remove|kill)"),
        ("worker x", "Invalid argument: Unknown worker action: x"),
        ("worker kill", "Invalid argument: Missing PID for worker kill"),
        ("worker kill x", "Invalid argument: invalid literal for int() with base 10: 'x'"),
        ("worker stacks", "Invalid argument: Missing PID for worker stacks"),
        ("worker add x", "Invalid argument: invalid literal for int() with base 10: 'x'"),
        ("dirty", "Invalid argument: Missing dirty action (add|remove)"),
        ("dirty x", "Invalid argument: Unknown dirty action: x"),
        ("show 'x", "Invalid argument: No closing quotation"),
        ("reload --wiat", "Invalid argument: Unknown argument: --wiat"),
        ("drain on", "Invalid argument: Unknown argument: on"),
        ("upgrade 4711", "Invalid argument: Unknown argument: 4711"),
        ("shutdown /run/app.pid", "Invalid argument: Unknown argument: /run/app.pid"),
        ("shutdown quick now", "Invalid argument: Unknown argument: quick now"),
        ("loglevel x", "Invalid argument: Unknown log level: x (debug|info|warning|error|critical)"),
    ] {
        assert_eq!(control.error(command), error, "{command}");
    }
    let shutdown = control.data("shutdown");
    assert_eq!((shutdown["status"].text(), shutdown["mode"].text()), ("shutting_down", "graceful"));
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
fn an_idle_client_outlives_a_hundred_reloads() {
    let (server, mut control) = serve(Plan::app("process"));
    let mut idle = Control::connect(&server.path("ctl.sock"));
    let reloads = crate::util::count(100, 10);
    for _ in 0..reloads {
        assert_eq!(control.data("reload --wait")["status"].text(), "reloaded");
    }
    server.signal(SIGHUP);
    let stats = idle.data("show stats");
    assert_eq!(stats["workers_target"].number(), 2.0);
    // The last one may have ended by now.
    assert!((reloads..=reloads + 1).contains(&(stats["reloads"].number() as usize)), "{stats:?}");
    assert!(idle.data("show workers")["count"].number() >= 2.0);
    server.finish();
}

#[test]
fn a_client_that_found_no_room_is_answered_when_another_leaves() {
    let (server, control) = serve(Plan::app("process"));
    let path = server.path("ctl.sock");
    // The server talks to sixteen at a time.
    let mut others: Vec<Control> = (1..16).map(|_| Control::connect(&path)).collect();
    others.iter_mut().for_each(|other| drop(other.data("show stats")));
    let mut late = Control(UnixStream::connect(&path).expect("it listens"));
    late.0.set_read_timeout(Some(PATIENCE)).expect("a socket");
    drop(control);
    assert_eq!(late.data("show stats")["workers_current"].number(), 2.0);
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
    for (command, part) in [("show stats", "workers"), ("show workers", "yes"), ("show all", "(not running)")] {
        let ran = Command::new(&client).arg("-s").arg(&path).args(["-c", command]).output().expect("gunicornc");
        let said = String::from_utf8_lossy(&ran.stdout).to_lowercase();
        assert!(ran.status.success() && said.contains(part), "{command}: {ran:?}");
    }
    let refused = Command::new(&client).arg("-s").arg(&path).args(["-c", "show x"]).output().expect("gunicornc");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    server.finish();
}

/// Each row of the protocol, typed at the prompt of gunicorn's own client, and a part of what that
/// prints.
#[test]
fn every_command_works_at_the_prompt_of_the_real_gunicornc() {
    let (mut server, _control) = serve(Plan::app("process"));
    let worker = server.workers()[0];
    let kill = format!("worker kill {worker}");
    let killed = format!("\"killed\": {worker}");
    let commands = [
        ("show stats", "Workers current:  2"),
        ("show workers", "Total: 2 workers"),
        ("show all", "WEB WORKERS (2)"),
        ("show listeners", "Total: 1 listeners"),
        ("show config", "graceful_timeout: 30"),
        ("show dirty", "not running"),
        ("show requests", "\"count\": 0"),
        ("help", "Available commands:"),
        (&kill, &killed),
        ("worker add 2", "\"added\": 2"),
        ("worker remove 2", "\"removed\": 2"),
        ("worker kill 999999", "Worker 999999 not found"),
        ("dirty add", "Dirty arbiter not running"),
        ("dirty remove 2", "Dirty arbiter not running"),
        ("reload", "\"reloading\""),
        ("reload --wait", "\"reloaded\""),
        ("reopen", "\"reopening\""),
        ("loglevel debug", "\"previous\": \"info\""),
        ("stacks", "\"stacks\":"),
        ("drain", "\"draining\""),
        ("drain off", "\"serving\""),
        ("nonsense", "Error: Invalid argument: Unknown command: nonsense"),
        ("show", "Error: Invalid argument: Missing show target"),
        ("shutdown", "\"shutting_down\""),
    ];
    let mut client = Command::new(gunicorn_venv().join("bin/gunicornc"))
        .arg("-s")
        .arg(server.path("ctl.sock"))
        .env("HOME", server.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gunicornc");
    let typed: String = commands.iter().map(|(command, _)| format!("{command}\n")).collect();
    client.stdin.take().expect("a pipe").write_all(typed.as_bytes()).expect("it reads");
    let said = client.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    // What stands before the first prompt is a greeting, and after the last the end of input.
    let replies: Vec<&str> = said.split("gunicorn> ").skip(1).collect();
    assert_eq!(replies.len(), commands.len() + 1, "{said}");
    for ((command, part), reply) in commands.iter().zip(replies) {
        assert!(reply.contains(part), "{command}: {reply}");
    }
    assert_eq!(server.wait_for_exit().code(), Some(0));
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
