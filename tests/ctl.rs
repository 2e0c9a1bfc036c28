//! `monoceros ctl`: what an operator sees of a server that runs, also of one that hangs.

use std::process::{Command, Output};

use nix::sys::signal::Signal::{SIGKILL, SIGSTOP, SIGTERM};

use crate::util::json::Json;
use crate::util::server::{Plan, Server, marker, send};
use crate::util::{program, python, wait_until};

fn ctl(arguments: &[&str]) -> Output {
    Command::new(program()).arg("ctl").args(arguments).output().expect("the program runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_status_says_by_its_exit_whether_all_workers_serve() {
    let plan = Plan::app("process").args(["--workers", "2", "--shutdown-delay", "60"]);
    let pid_file = plan.path("pid");
    let mut server = plan.args(["--pid", pid_file.to_str().expect("a plain path")]).start();
    let workers = server.wait_for_workers(2);
    let pid = server.pid().to_string();
    assert_eq!(server.get("/pid").status, 200);
    // A request is counted behind its response.
    wait_until("the request to be counted", || text(&ctl(&["status", &pid])).contains("Requests  1 "));
    let whole = ctl(&["status", &pid]);
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    let said = text(&whole);
    for part in ["process", "Workers 2/2", "Threads 0/2", "Requests  1 ", "ready"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert!(workers.iter().all(|worker| said.contains(&worker.to_string())), "{said}");
    let json = ctl(&["status", "--json", pid_file.to_str().expect("a plain path")]);
    assert_eq!(json.status.code(), Some(0));
    let json = Json::parse(text(&json).trim());
    assert_eq!((json["pid"].number() as i32, json["workers_wanted"].number()), (server.pid(), 2.0));
    assert_eq!(json["request_duration_seconds"]["count"].number(), 1.0);
    assert_eq!(json["worker_processes"].list().len(), 2);
    assert_eq!(ctl(&["status", "--probe", &pid]).status.code(), Some(0));
    server.signal(SIGTERM);
    server.wait_for_log("Serving on for 60 s before the stop");
    assert_eq!(ctl(&["status", "--probe", &pid]).status.code(), Some(1));
    assert_eq!(ctl(&["status", &pid]).status.code(), Some(1));
    server.signal(SIGKILL);
    server.wait_for_exit();
    for worker in workers {
        wait_until("the worker's end", || !crate::util::process::is_alive(worker));
    }
    assert_eq!(ctl(&["status", &pid]).status.code(), Some(3));
    assert_eq!(ctl(&["status", "--probe", pid_file.to_str().expect("a plain path")]).status.code(), Some(1));
}

#[test]
fn a_master_and_its_workers_can_be_looked_at_while_they_are_stopped() {
    let server = Server::start("process", ["--workers", "1", "--timeout", "0"]);
    let workers = server.wait_for_workers(1);
    let pid = server.pid().to_string();
    server.signal(SIGSTOP);
    send(workers[0], SIGSTOP);
    let said = ctl(&["top", &pid]);
    assert_eq!(said.status.code(), Some(0));
    assert!(text(&said).contains("Workers 1/1"), "one frame, since there is no terminal: {said:?}");
    send(workers[0], nix::sys::signal::Signal::SIGCONT);
    server.signal(nix::sys::signal::Signal::SIGCONT);
    server.finish();
}

#[test]
fn stacks_are_shown_of_workers_that_hang_and_go_on_afterwards() {
    let mut server = Plan::app("process").args(["--threads", "2", "--timeout", "0"]).start();
    let worker = server.wait_for_workers(1)[0];
    let pid = server.pid().to_string();
    let mut clients = [server.connect(), server.connect()];
    clients[0].send("GET /wait?slow HTTP/1.1\r\nHost: a\r\n\r\n");
    clients[1].send("GET /sleep-in-c?3 HTTP/1.1\r\nHost: a\r\n\r\n");
    // The board names a request that has run for a second.
    let mut said = String::new();
    wait_until("both requests", || {
        said = text(&ctl(&["stacks", &pid]));
        said.contains("at GET /wait?slow from 127.0.0.1") && said.contains("at GET /sleep-in-c?3 from 127.0.0.1")
    });
    assert!(said.contains(&format!("(pid:{worker}) ready: 2 requests in the application")), "{said}");
    assert!(said.contains("in wait\n") && said.contains("in sleep_in_c\n"), "{said}");
    assert!(said.to_lowercase().matches("thread 0x").count() >= 2, "{said}");
    server.release();
    assert_eq!(clients[0].read().status, 200);
    assert_eq!(server.workers(), [worker]);
    // The other request never ends.
    send(worker, SIGKILL);
    server.allow("was sent SIGKILL");
    wait_until("another worker", || server.workers() != [worker] && server.has_serving(1));
    server.finish();
}

/// Runs `top` in a terminal of 80 by 24, waits for a frame, presses the keys, and prints what came
/// of it. The bytes of an arrow key come at once; the last word says whether it has marked a line
/// before the next key.
const IN_TERMINAL: &str = r#"
import fcntl, os, pty, re, struct, sys, termios, time
program, master, *keys = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(program, [program, "ctl", "top", "--interval", "0.2", master])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
before = termios.tcgetattr(terminal)
seen = b""
while b"AGE" not in seen:
    seen += os.read(terminal, 65536)
marks = lambda: max(frame.count(b"\x1b[7m") for frame in seen.split(b"\x1b[H"))
marked = False
for key in keys:
    plain, is_arrow = marks(), len(key) > 1
    os.write(terminal, key.encode())
    end = time.monotonic() + (10 if is_arrow else 0.4)
    while time.monotonic() < end and not (is_arrow and marked):
        seen += os.read(terminal, 65536)
        marked = marked or is_arrow and marks() > plain
        if seen.endswith(b"\x1b[?1049l"):
            break
while True:
    try:
        more = os.read(terminal, 65536)
    except OSError:
        break
    if not more:
        break
    seen += more
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
lines = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen.replace(b"\x1b[H", b"\n")).replace(b"\r", b"").split(b"\n")
print(status, max(map(len, lines)), seen.count(b"\x1b[?1049h"), seen.rstrip().endswith(b"\x1b[?1049l"), b"quit" in seen, b"frozen" in seen, marked)
"#;

#[test]
fn top_fills_a_terminal_and_leaves_it_as_it_was() {
    let server = Server::start("process", ["--workers", "2"]);
    server.wait_for_workers(2);
    let pid = server.pid().to_string();
    for (keys, expected) in [
        (&["h", "h", " ", "q"][..], "0 80 1 True True True False"),
        (&["\u{1b}[B", "q"][..], "0 80 1 True False False True"),
        (&["\u{3}"][..], "0 80 1 True False False False"),
    ] {
        let path = program();
        let program = path.to_str().expect("a plain path");
        let mut terminal = Command::new(python());
        let ran = terminal.args(["-c", IN_TERMINAL, program, &pid]).args(keys).output().expect("python");
        let said = text(&ran);
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words.len(), 7, "{ran:?}");
        assert!(words[1].parse::<usize>().expect("a number") <= 80, "{said}");
        let without_width = |text: &str| -> Vec<String> {
            text.split_whitespace().enumerate().filter(|(at, _)| *at != 1).map(|(_, word)| word.to_owned()).collect()
        };
        assert_eq!(without_width(&said), without_width(expected), "{keys:?}");
    }
    server.finish();
}

#[test]
fn stacks_are_shown_while_c_code_holds_the_interpreter() {
    let mut server = Plan::app("process").args(["--timeout", "0"]).start();
    let worker = server.wait_for_workers(1)[0];
    let mut client = server.connect();
    client.send("GET /backtrack?held HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request inside", || server.entered() == 1);
    let mut said = String::new();
    wait_until("the request on the board", || {
        said = text(&ctl(&["stacks", &server.pid().to_string()]));
        said.contains("at GET /backtrack?held from 127.0.0.1")
    });
    assert!(said.contains("in backtrack\n"), "{said}");
    assert_eq!(server.workers(), [worker]);
    // The request never ends.
    send(worker, SIGKILL);
    server.allow("was sent SIGKILL");
    wait_until("another worker", || server.workers() != [worker] && server.has_serving(1));
    server.finish();
}

#[test]
fn stacks_are_shown_of_each_of_four_threads() {
    let server = Plan::app("process").args(["--threads", "4", "--timeout", "0"]).start();
    let worker = server.wait_for_workers(1)[0];
    let mut clients = [(); 4].map(|()| server.connect());
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /wait?{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    wait_until("four requests inside", || server.entered() == 4);
    let said = text(&ctl(&["stacks", &server.pid().to_string()]));
    assert!(said.contains("4 requests in the application"), "{said}");
    assert_eq!(said.matches("in wait\n").count(), 4, "{said}");
    server.release();
    clients.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
    assert_eq!(server.workers(), [worker], "it goes on");
    server.finish();
}

#[test]
fn stacks_are_shown_of_greenlets_that_wait() {
    let mut server = Plan::app("green").args(["--worker-class", "gevent", "--timeout", "0"]).start();
    let worker = server.wait_for_workers(1)[0];
    let mut clients = [(); 3].map(|()| server.connect());
    for client in &mut clients {
        client.send("GET /sleep?600 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_until("three greenlets", || {
        let said = text(&ctl(&["stacks", &server.pid().to_string()]));
        said.contains("most recent call first")
            && said.contains("3 greenlets wait here:")
            && said.contains("in answer\n")
    });
    assert_eq!(server.get("/about").status, 200, "it goes on");
    assert_eq!(server.workers(), [worker]);
    send(worker, SIGKILL);
    server.allow("was sent SIGKILL");
    wait_until("another worker", || server.workers() != [worker] && server.has_serving(1));
    server.finish();
}

/// A terminal of 80 by 24 in which a shell runs.
struct Tmux(String);

impl Tmux {
    /// `None` where there is no tmux.
    fn start() -> Option<Tmux> {
        if Command::new("tmux").arg("-V").output().is_err() {
            println!("skipped: no tmux on this machine; Debian, Ubuntu: apt-get install tmux");
            return None;
        }
        let tmux = Tmux(format!("monoceros-{}", marker()));
        tmux.run(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh"]);
        Some(tmux)
    }

    fn run(&self, words: &[&str]) -> String {
        let ran = Command::new("tmux").args(["-L", &self.0]).args(words).env_remove("TMUX").output().expect("tmux");
        assert!(ran.status.success(), "{words:?}: {ran:?}");
        text(&ran)
    }

    /// Types a line in the shell.
    fn enter(&self, line: &str) {
        self.run(&["send-keys", "-l", line]);
        self.run(&["send-keys", "Enter"]);
    }

    fn press(&self, key: &str) {
        self.run(&["send-keys", key]);
    }

    /// The screen; a line that was wrapped is one line.
    fn screen(&self) -> String {
        self.run(&["capture-pane", "-p", "-J"])
    }

    #[track_caller]
    fn wait_for(&self, part: &str) -> String {
        let mut screen = String::new();
        wait_until(&format!("{part:?} on the screen"), || {
            screen = self.screen();
            screen.contains(part)
        });
        // In the shell there is the line that was typed.
        if self.is_alternate() {
            let widest = screen.lines().map(|line| line.trim_end().chars().count()).max();
            assert!(widest <= Some(80), "{screen}");
        }
        screen
    }

    fn is_alternate(&self) -> bool {
        self.run(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.0, "kill-server"]).output();
    }
}

/// The shell's terminal is as it was, and `top` has exited so.
#[track_caller]
fn expect_left(tmux: &Tmux, status: i32) {
    tmux.wait_for(&format!("left {status} "));
    assert!(!tmux.is_alternate());
    tmux.enter("clear; stty -a");
    let modes = tmux.wait_for("iexten");
    assert!([" icanon ", " echo ", "isig "].iter().all(|mode| modes.contains(mode)), "{modes}");
    tmux.enter("clear");
}

#[test]
fn top_in_tmux_fits_follows_the_window_and_leaves_the_terminal_as_it_was() {
    let Some(tmux) = Tmux::start() else { return };
    let name = format!("a_name_that_is_longer_than_a_screen_is_wide_{}", "x".repeat(60));
    let mut server = Server::start("process", ["--workers", "3", "--threads", "2", "--name", &name]);
    let workers = server.wait_for_workers(3);
    let line =
        |interval| format!("'{}' ctl top --interval {interval} {}; echo left $? .", program().display(), server.pid());
    // So long that only the change of size draws anew.
    tmux.enter(&line("3600"));
    tmux.wait_for("RSS   AGE");
    assert!(tmux.is_alternate());
    tmux.run(&["resize-window", "-x", "60", "-y", "20"]);
    wait_until("a narrow frame", || {
        let screen = tmux.screen();
        screen.contains("WID") && !screen.contains("AGE") && screen.lines().all(|line| line.trim_end().len() <= 60)
    });
    tmux.run(&["resize-window", "-x", "80", "-y", "24"]);
    tmux.wait_for("RSS   AGE");
    tmux.press("q");
    expect_left(&tmux, 0);

    tmux.enter(&line("0.2"));
    tmux.wait_for("RSS   AGE");
    for (key, part) in [
        ("h", "q         quit"),
        ("h", "RSS   AGE"),
        ("p", "PSS   AGE"),
        ("j", "PSS   AGE"),
        ("s", "0 of 2 threads in the application"),
        ("s", "PSS   AGE"),
        ("Down", "PSS   AGE"),
        ("S", "most recent call first"),
        ("S", "PSS   AGE"),
        ("Space", "frozen"),
    ] {
        tmux.press(key);
        tmux.wait_for(part);
    }
    tmux.press("C-c");
    expect_left(&tmux, 0);

    tmux.enter(&line("0.2"));
    tmux.wait_for("RSS   AGE");
    server.signal_rtmin();
    server.wait_for_log_times("Starting monoceros", 2);
    let is_new = |worker: &i32| !workers.contains(worker);
    wait_until("new workers alone", || server.has_serving(3) && server.workers().iter().all(is_new));
    let workers = server.workers();
    wait_until("the new workers on the screen", || {
        let screen = tmux.screen();
        let shown: Vec<&str> = screen.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        workers.iter().all(|worker| shown.contains(&worker.to_string().as_str()))
    });
    server.signal(SIGKILL);
    server.wait_for_exit();
    expect_left(&tmux, 3);
    for worker in workers {
        wait_until("the worker's end", || !crate::util::process::is_alive(worker));
    }
}

#[test]
fn an_application_named_ctl_is_served() {
    let plan = Plan::app("ctl").in_own_folder().file("ctl.py", &crate::util::load::version(1));
    let server = plan.start();
    assert_eq!(server.get("/?x").text(), "v1 x 0");
    server.finish();
}

#[test]
fn a_slow_request_is_told_while_it_runs() {
    let mut server = Plan::app("process").args(["--slow-request", "1", "--timeout", "0"]).start();
    server.wait_for_workers(1);
    let mut client = server.connect();
    client.send("GET /wait?x HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for_log("Slow request: GET /wait?x from 127.0.0.1 has been in the app for");
    server.release();
    assert_eq!(client.read().status, 200);
    server.allow("Slow request");
    server.finish();
}
