//! Faults of the system around the server (rows SV-38 to SV-65 of the fault matrix that are not in
//! `faults` and `logs`): no room, no descriptors, odd clocks, odd roots, PID 1, system calls that
//! fail. Each is tried where the machine allows it, and says so where it does not.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGTERM, SIGUSR1};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::util::cgroup::Cgroup;
use crate::util::client::{Address, Client};
use crate::util::load::{Load, version};
use crate::util::process::{self, cpu_ticks, is_alive};
use crate::util::server::{Plan, Server, send};
use crate::util::{PATIENCE, board, is_root, root, wait_until};

#[test]
fn a_jumping_clock_kills_no_worker() {
    let plan = Plan::app("process");
    let (source, shim) = (plan.path("clock.c"), plan.path("clock.so"));
    fs::write(&source, CLOCK_SHIM).expect("the test's folder is writable");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl").status();
    if !built.is_ok_and(|status| status.success()) {
        return println!("skipped: no C compiler");
    }
    let offset = plan.path("offset");
    let plan = plan.env("LD_PRELOAD", shim.display().to_string()).env("CLOCK_OFFSET", offset.display().to_string());
    let server = plan.args(["--timeout", "2", "--workers", "2"]).start();
    let workers = server.wait_for_workers(2);
    let year =
        |server: &Server| server.get("/").header("Date").expect("a date")[12..16].parse::<u32>().expect("a year");
    let now = year(&server);
    for (jump, years) in [("63072000", 2), ("-63072000", -2_i32), ("0", 0)] {
        fs::write(&offset, jump).expect("the test's folder is writable");
        wait_until("the Date to follow", || year(&server).abs_diff((now as i32 + years) as u32) <= 1);
        thread::sleep(Duration::from_millis(500));
        assert_eq!(server.workers(), workers, "after a jump of {jump} s");
    }
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(server.workers(), workers);
    server.finish();
}

/// Moves the wall clock of a process by what a file says, and no other clock.
const CLOCK_SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long offset(void) {
    long seconds = 0;
    FILE *file = fopen(getenv("CLOCK_OFFSET"), "r");
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
    return result;
}
"#;

#[test]
fn a_system_without_room_for_a_process_is_waited_out() {
    let Some(group) = Cgroup::new("pids") else { return println!("skipped: no pids cgroup can be made here") };
    let mut server = Server::start("process", ["--workers", "2"]);
    let workers = server.wait_for_workers(2);
    assert_eq!(server.get("/").status, 200);
    group.add(server.pid());
    group.set("pids.max", 1);
    send(workers[0], SIGKILL);
    server.wait_for_log_times("Can't fork a worker: ", 2);
    assert_eq!(server.get("/").status, 200, "the other one serves");
    // A reload needs what a restart after a crash needs.
    server.signal(SIGHUP);
    server.wait_for_log("Hang up: Master");
    assert_eq!(server.get("/").status, 200);
    group.set("pids.max", 100);
    wait_until("two new workers", || {
        let now = server.workers();
        now.len() == 2 && !now.iter().any(|pid| workers.contains(pid))
    });
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn a_system_without_memory_for_a_process_is_waited_out() {
    let mut server = Server::start("process", ["--workers", "2"]);
    let workers = server.wait_for_workers(2);
    assert_eq!(server.get("/").status, 200);
    let Some(tracer) = inject(server.pid(), "clone,clone3,fork:error=ENOMEM") else { return };
    send(workers[0], SIGKILL);
    server.wait_for_log_times("Can't fork a worker: Cannot allocate memory", 2);
    assert_eq!(server.get("/").status, 200, "the other one serves");
    drop(tracer);
    wait_until("a new worker", || server.has_serving(2) && !server.workers().contains(&workers[0]));
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn a_worker_without_descriptors_waits_for_some() {
    let mut server = Plan::app("process").through(["prlimit", "--nofile=60:60"]).start();
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").status, 200);
    let mut idle: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    let busy = cpu_ticks(worker);
    thread::sleep(Duration::from_secs(2));
    let ticks = cpu_ticks(worker) - busy;
    assert!(ticks < 60, "{ticks} ticks of CPU in two seconds of waiting");
    assert_eq!(server.workers(), [worker]);
    let lines = server.log().lines().count();
    assert!(lines < 40, "{lines} lines in the log");
    idle.clear();
    assert_eq!(server.get("/").status, 200);
    server.allow("");
    server.finish();
}

#[test]
fn errors_of_accept_are_waited_out() {
    for error in ["ENFILE", "ECONNABORTED", "ENOBUFS", "EPERM", "EPROTO", "EINTR"] {
        let mut server = Server::start("process", []);
        let worker = server.wait_for_workers(1);
        assert_eq!(server.get("/").status, 200);
        let Some(_tracer) = inject(worker[0], &format!("accept4:error={error}:when=1..3")) else { return };
        assert_eq!(server.get("/").status, 200, "{error}");
        assert_eq!(server.workers(), worker, "{error}");
        server.allow("");
        server.finish();
    }
}

#[test]
fn interrupted_and_failing_calls_end_no_worker() {
    for fault in ["epoll_wait:error=EINTR:when=1+2", "write:error=EINTR:when=1..2", "getppid:retval=0:when=400+400"] {
        let mut server = Server::start("process", []);
        let worker = server.wait_for_workers(1);
        assert_eq!(server.get("/").status, 200);
        let Some(_tracer) = inject(worker[0], fault) else { return };
        for _ in 0..5 {
            assert_eq!(server.get("/").status, 200, "{fault}");
        }
        assert_eq!(server.workers(), worker, "{fault}");
        server.allow("");
        server.finish();
    }
}

#[test]
fn calls_that_a_sandbox_forbids_are_done_without() {
    if !is_traceable() {
        return;
    }
    let forbidden = "inject=prctl,memfd_create,sendfile:error=EPERM";
    let mut server = Plan::app("process").through(["strace", "-f", "-qq", "-o", "/dev/null", "-e", forbidden]).launch();
    server.wait_for_log("Listening at: ");
    let line = server.log();
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port");
    server.address = Address::Tcp(port.parse().expect("a port"));
    assert_eq!(server.get("/").status, 200);
    let master = process::children(server.pid())[0];
    send(master, SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
    server.expect_gone();
}

#[test]
fn logs_on_a_full_disk_stop_no_request() {
    for option in ["--access-logfile", "--error-logfile"] {
        let plan = Plan::app("process").unix();
        let address = Address::Unix(plan.path("socket"));
        let mut server = plan.args([option, "/dev/full", "--workers", "2"]).launch();
        server.address = address.clone();
        wait_until("the server", || Client::try_connect(&address).is_ok());
        (0..50).for_each(|_| assert_eq!(server.get("/").status, 200, "{option}"));
        let worker = server.wait_for_workers(2)[0];
        send(worker, SIGKILL);
        wait_until("a new worker", || server.has_serving(2) && !server.workers().contains(&worker));
        assert_eq!(server.get("/").status, 200, "{option}");
        server.signal(SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0), "{option}");
        server.expect_gone();
    }
}

#[test]
fn a_log_pipe_without_a_reader_stops_no_request() {
    // Where the shell lays the pipe, the option, and what it says; @ is the pipe.
    let table = [
        ("2>/dev/null", "--access-logfile", "@"),
        ("2>/dev/null", "--error-logfile", "@"),
        (">\"$0\"", "--access-logfile", "-"),
        ("2>\"$0\"", "--error-logfile", "-"),
    ];
    for (redirection, option, target) in table {
        let plan = Plan::app("app").in_own_folder().file("app.py", TALKATIVE).unix();
        let (address, pipe) = (Address::Unix(plan.path("socket")), plan.path("pipe"));
        mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe in a fresh folder");
        let mut reader = read_from(&pipe);
        let pipe_name = pipe.to_str().expect("a plain path").to_string();
        let target = target.replace('@', &pipe_name);
        let shell = format!("exec \"$@\" {redirection}");
        let plan = plan.through(["sh", "-c", &shell, &pipe_name]).args([option, &target, "--workers", "2"]);
        let mut server = plan.launch();
        server.address = address.clone();
        wait_until("the server", || Client::try_connect(&address).is_ok());
        let what = format!("{option} {target} {redirection}");

        // Stalled: far more lines than the pipe holds.
        many_requests(&server, &what);
        // Read again: it goes on.
        let stale = drain(&mut reader);
        assert!(stale.len() >= 32 * 1024, "{what}: only {} bytes", stale.len());
        let mut later = Vec::new();
        wait_until("new lines", || {
            assert_eq!(server.get("/fresh").status, 200, "{what}");
            later.extend(drain(&mut reader));
            String::from_utf8_lossy(&later).lines().any(|line| line.contains("/fresh"))
        });
        // Dead.
        drop(reader);
        many_requests(&server, &what);
        wait_until("both workers to have loaded the app", || server.gate_files("loaded-").len() >= 2);
        let before = server.wait_for_workers(2);
        // One that is killed before it has loaded the app would never be counted below.
        wait_until("both to have loaded the app", || server.gate_files("loaded-").len() >= 2);
        send(before[0], SIGKILL);
        let replaced = |gone: &[i32]| {
            let now = server.workers();
            now.len() == 2 && !now.iter().any(|pid| gone.contains(pid))
        };
        wait_until("a worker in its place", || replaced(&before[..1]));
        wait_until("the new one to have loaded it too", || server.gate_files("loaded-").len() >= 3);
        let before = server.workers();
        server.signal(SIGHUP);
        wait_until("a new generation", || replaced(&before));
        // Read by another.
        let mut reader = read_from(&pipe);
        let mut later = Vec::new();
        wait_until("lines for the new reader", || {
            assert_eq!(server.get("/fresh").status, 200, "{what}");
            later.extend(drain(&mut reader));
            String::from_utf8_lossy(&later).contains("/fresh")
        });
        server.signal(SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0), "{what}");
        server.expect_gone();
    }
}

/// An app with a line for the error log at each request.
const TALKATIVE: &str = r#"
import os, pathlib

pathlib.Path(os.environ["GATE"], f"loaded-{os.getpid()}").touch()


def application(environ, start_response):
    environ["wsgi.errors"].write(environ["PATH_INFO"] + " " + "x" * 100 + "\n")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"#;

fn read_from(pipe: &Path) -> File {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(pipe).expect("a pipe")
}

/// What the pipe holds now.
fn drain(reader: &mut File) -> Vec<u8> {
    let mut taken = Vec::new();
    // It ends with EAGAIN, or for want of a writer.
    let _ = reader.read_to_end(&mut taken);
    taken
}

fn many_requests(server: &Server, what: &str) {
    let (mut client, start) = (server.connect(), Instant::now());
    (0..2000).for_each(|_| assert_eq!(client.get("/many").status, 200, "{what}"));
    // A wait for the pipe at every line would be 40 seconds and more.
    assert!(start.elapsed() < 2 * PATIENCE, "{what}: {:?}", start.elapsed());
}

#[test]
fn a_pid_file_on_a_full_disk_is_one_sentence_and_exit_1() {
    if !is_root() {
        return println!("skipped: only root can mount");
    }
    let plan = Plan::app("process").unix();
    let (full, socket) = (plan.path("full"), plan.path("socket"));
    fs::create_dir(&full).expect("a folder");
    let fill = "mount -t tmpfs -o size=4k none \"$0\" && { cat /dev/zero > \"$0/fill\"; exec \"$@\"; }";
    let pid = full.join("pid").display().to_string();
    let full = full.display().to_string();
    let mut server = plan.through(["unshare", "-m", "sh", "-c", fill, &full]).args(["--pid", &pid]).launch();
    assert_eq!(server.wait_for_exit().code(), Some(1), "{}", server.log());
    let log = server.log();
    assert!(log.contains("Can't write the pid file"), "{log}");
    assert!(!socket.exists(), "the socket is left behind");
}

#[test]
fn bodies_on_a_full_disk_reach_the_app_without_it() {
    if !is_root() {
        return println!("skipped: only root can mount");
    }
    // From the first byte on, and in the midst of a body.
    for free in ["0", "64"] {
        let plan = Plan::app("echo");
        let spool = plan.path("spool");
        fs::create_dir(&spool).expect("a folder");
        let fill = "mount -t tmpfs -o size=256k none \"$0\" && head -c $(((256 - $1) * 1024)) /dev/zero > \"$0/fill\"; \
                    shift; exec \"$@\"";
        let spool = spool.display().to_string();
        let plan = plan.through(["unshare", "-m", "sh", "-c", fill, &spool, free]);
        let mut server = plan.args(["--body-buffer", "1000"]).env("TMPDIR", &spool).start();
        let worker = server.wait_for_workers(1);
        for length in [1_000_000, 10, 200_000] {
            let answer = server.connect().request("POST", "/", &[], &vec![b'x'; length]);
            assert_eq!(answer.status, 200);
            assert!(answer.text().contains(&format!("\"body_length\": {length}")), "{free} KB free, {length} bytes");
        }
        assert_eq!(server.workers(), worker);
        server.allow("Cannot keep a request body in a temporary file");
        server.finish();
    }
}

#[test]
fn a_heartbeat_needs_no_folder() {
    let server = Plan::app("process").args(["--worker-tmp-dir", "/proc/nonexistent", "--timeout", "2"]).start();
    let workers = server.wait_for_workers(1);
    thread::sleep(Duration::from_millis(3500));
    assert_eq!((server.get("/").status, server.workers()), (200, workers));
    server.finish();
}

#[test]
fn socket_paths_that_cannot_be_are_one_sentence_and_exit_1() {
    for path in [format!("/tmp/{}", "x".repeat(120)), "/proc/nonexistent/folder/socket".to_string()] {
        let plan = Plan::app("process").bound_elsewhere().args(["--bind", &format!("unix:{path}")]);
        let finished = plan.run();
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains("Can't connect to "), "{finished:?}");
        assert!(!finished.stderr.contains("panicked"), "{finished:?}");
    }
}

#[test]
fn a_socket_file_that_another_server_has_put_there_stays() {
    let mut server = Plan::app("process").unix().start();
    let path = server.path("socket");
    assert_eq!(server.get("/").status, 200);
    fs::remove_file(&path).expect("the server's socket file");
    let other = UnixListener::bind(&path).expect("the path is free");
    server.signal(SIGHUP);
    server.wait_for_log("Hang up: Master");
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(path.exists(), "the other server's socket is gone");
    drop(other);
}

#[test]
fn pid_files_in_odd_places() {
    let missing = Plan::app("process").args(["--pid", "/proc/nonexistent/folder/pid"]).run();
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("/proc/nonexistent/folder doesn't exist. Can't create pidfile."), "{missing:?}");

    let plan = Plan::app("process");
    let folder = plan.path("folder");
    fs::create_dir(&folder).expect("a folder");
    let taken = plan.args(["--pid", folder.to_str().expect("a plain path")]).run();
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(!taken.stderr.contains("panicked"), "{taken:?}");

    // A link is replaced, not followed: the file that it leads to is not ours.
    let plan = Plan::app("process").file("target", "precious");
    let (link, target) = (plan.path("link"), plan.path("target"));
    symlink(&target, &link).expect("a link");
    let server = plan.args(["--pid", link.to_str().expect("a plain path")]).start();
    assert_eq!(fs::read_to_string(&link).expect("written"), format!("{}\n", server.pid()));
    assert_eq!(fs::read_to_string(&target).expect("it is there"), "precious");
    server.finish();
}

#[test]
fn logs_can_be_rotated_under_load() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1));
    let access = plan.path("access.log");
    let mut server = plan.args(["--workers", "2", "--access-logfile", access.to_str().expect("a plain path")]).start();
    server.wait_for_workers(2);
    let load = Load::during(&server.address, 2, |load| {
        for round in 1..=5 {
            let before = load.ok();
            wait_until("some requests", || load.ok() > before + 50);
            fs::rename(&access, server.path(&format!("access.log.{round}"))).expect("the log can be moved");
            server.signal(SIGUSR1);
            wait_until("a new file", || access.exists());
        }
    });
    load.expect_no_failure();
    let folder = server.path("");
    // A draining worker writes its log lines before it ends.
    server.signal(SIGTERM);
    wait_until("the workers to end", || server.workers().is_empty());
    let logs = fs::read_dir(folder).expect("the test's folder").flatten().map(|entry| entry.path());
    let lines: Vec<String> = logs
        .filter(|path| path.to_string_lossy().contains("access.log"))
        .flat_map(|path| fs::read_to_string(path).expect("a log").lines().map(String::from).collect::<Vec<_>>())
        .collect();
    // The last requests of a client may have been logged though their answers were not counted any
    // more.
    assert!((load.ok()..load.ok() + 10).contains(&lines.len()), "{} lines for {} answers", lines.len(), load.ok());
    assert!(lines.iter().all(|line| line.starts_with("127.0.0.1 - - [") && line.ends_with('"')), "a torn line");
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn pid_1_reaps_what_it_is_given_and_ends_well() {
    if !is_root() {
        return println!("skipped: only root can make a namespace of processes");
    }
    let mut server = Plan::app("process")
        .through(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"])
        .args(["--workers", "2"])
        .launch();
    let master = inside(&mut server);
    wait_until("two workers", || board::all_serve(master, 2));
    for _ in 0..3 {
        // Its parent dies, and PID 1 becomes the next.
        server.get("/orphan").json();
        assert_eq!(server.get("/children").text(), "[7, 7, 7]", "the app's own children are left to the app");
    }
    wait_until("the orphans to be gone", || process::all_children(master).len() == 2);
    send(process::children(master)[0], SIGKILL);
    server.wait_for_log("was sent SIGKILL");
    wait_until("a new worker", || board::all_serve(master, 2));
    send(master, SIGHUP);
    server.wait_for_log("Hang up: Master");
    assert_eq!(server.get("/").status, 200);
    send(master, SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
    server.expect_gone();
}

#[test]
fn nothing_writable_is_needed() {
    if !is_root() {
        return println!("skipped: only root can mount");
    }
    // Everything is read only, there is neither /tmp nor /dev/shm, the user has no account, and
    // there is no home.
    let script = "mount --rbind / /mnt && mount -o remount,bind,ro /mnt && mount -t tmpfs -o ro none /mnt/dev/shm && \
                  exec chroot /mnt env -u HOME -u TMPDIR \"$@\"";
    let app = root().join("examples/hello");
    let mut server = Plan::app("wsgi").chdir(app).through(["unshare", "-m", "sh", "-c", script, "sh"]).launch();
    wait_until("the server, or the reason why there is none", || {
        server.log().contains("Listening at: ") || server.has_exited().is_some()
    });
    if !server.log().contains("monoceros") {
        return println!("skipped: {}", server.log());
    }
    inside(&mut server);
    assert_eq!(server.get("/").text(), "Hello from monoceros\n");
    server.signal(SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
}

#[test]
fn a_thousand_connections_at_the_moment_of_a_reload_are_all_answered() {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).args(["--workers", "2"]);
    let server = plan.start();
    server.wait_for_workers(2);
    let Address::Tcp(port) = server.address else { unreachable!("TCP is the default") };
    server.signal(SIGHUP);
    let burst: Vec<TcpStream> =
        (0..1000).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("the backlog has room")).collect();
    drop(burst);
    let mut clients: Vec<Client> = (0..300).map(|_| server.connect()).collect();
    server.signal(SIGHUP);
    for client in &mut clients {
        client.send("GET /?a HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.read().status, 200);
    }
    server.finish();
}

#[test]
fn a_master_killed_at_any_point_of_a_reload_leaves_nothing_behind() {
    for round in 0..8 {
        let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).args(["--workers", "2"]);
        let mut server = plan.start();
        wait_until("an answer", || server.get("/").status == 200);
        server.signal(SIGHUP);
        thread::sleep(Duration::from_millis(round * 40));
        server.signal(SIGKILL);
        server.wait_for_exit();
        server.expect_gone();
        assert!(Client::try_connect(&server.address).is_err(), "a process still listens");
    }
}

/// Fails system calls of a process, until the result is dropped; None where tracing is not allowed.
fn inject(pid: i32, fault: &str) -> Option<Tracer> {
    if !is_traceable() {
        return None;
    }
    let (pid, fault) = (pid.to_string(), format!("inject={fault}"));
    let arguments = ["-f", "-qq", "-o", "/dev/null", "-e", &fault, "-p", &pid];
    let tracer = Command::new("strace").args(arguments).stderr(Stdio::null()).spawn().expect("strace is there");
    let status = format!("/proc/{pid}/status");
    wait_until("the tracer", || fs::read_to_string(&status).is_ok_and(|text| !text.contains("TracerPid:\t0\n")));
    Some(Tracer(tracer))
}

fn is_traceable() -> bool {
    let tried = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let traceable = tried.is_ok_and(|status| status.success());
    if !traceable {
        println!("skipped: no strace, or it may not trace");
    }
    traceable
}

struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        // At TERM it detaches from the traced process.
        send(self.0.id() as i32, SIGTERM);
        let _ = self.0.wait();
    }
}

/// The master of a server that another program has started, and its address from the log.
fn inside(server: &mut Server) -> i32 {
    server.wait_for_log("Listening at: ");
    let log = server.log();
    let port = log.split("http://127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
    server.address = Address::Tcp(port.parse().expect("a port"));
    let start = Instant::now();
    while process::children(server.pid()).is_empty() && is_alive(server.pid()) {
        assert!(start.elapsed() < Duration::from_secs(10), "no process below the starter");
    }
    process::children(server.pid()).first().copied().unwrap_or(server.pid())
}
