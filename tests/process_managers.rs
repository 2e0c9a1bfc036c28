//! The samples for process managers and their neighbours in conf/: runit, s6, monit, logrotate,
//! nginx, and supervisord as a container's first process. Each is run for real, with our paths in
//! it, where the machine has the program; systemd and supervisord proper have modules of their own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal::{self, SIGCONT, SIGTERM};
use tempfile::TempDir;

use crate::util::client::{Address, Client};
use crate::util::load::version;
use crate::util::nginx::{Nginx, free_port};
use crate::util::process::is_alive;
use crate::util::server::{Plan, send};
use crate::util::tools::program_on_path;
use crate::util::{is_root, program, root, venv, wait_until};

#[test]
fn runit_reloads_stops_and_leaves_down_what_cannot_be_loaded() {
    live_and_stay_down(Manager::Runit, [&["hup"], &["-w", "35", "down"], &["up"]], "down: ");
}

#[test]
fn s6_reloads_stops_and_leaves_down_what_cannot_be_loaded() {
    // 125 in `finish` is what s6 calls a permanent failure.
    live_and_stay_down(Manager::S6, [&["-h"], &["-wD", "-d"], &["-u"]], "down ");
}

/// The life of a service whose manager reloads, stops and starts it by these words, and whose
/// status begins with `down` when it is left down.
#[track_caller]
fn live_and_stay_down(manager: Manager, [reload, stop, start]: [&[&str]; 3], down: &str) {
    let Some(service) = Service::start(manager) else { return };
    service.wait_for_version(1);
    service.write("app.py", &version(2));
    service.control(reload);
    service.wait_for_version(2);
    service.control(stop);
    assert!(Client::try_connect(&service.address).is_err());
    service.write("app.py", "raise RuntimeError('bad deploy')\n");
    service.control(start);
    wait_until("the service to be down", || {
        service.log().contains("bad deploy") && service.control(&["status"]).starts_with(down)
    });
    assert_eq!(service.log().matches("Worker failed to boot").count(), 1, "{}", service.log());
}

#[test]
fn monit_takes_the_sample() {
    let Some(monit) = program_on_path("monit") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("monitrc");
    let sample = fs::read_to_string(root().join("conf/monit/monoceros")).expect("the sample is there");
    // It looks whether the programs are there.
    let sample = sample.replace("/usr/local/bin/monoceros", "/bin/true").replace("www-data", "root");
    let state = folder.path().display();
    let text = format!("set daemon 10\nset idfile {state}/id\nset statefile {state}/state\n{sample}");
    fs::write(&file, text).expect("a fresh folder");
    Command::new("chmod").arg("600").arg(&file).status().expect("chmod");
    let output = Command::new(monit).args(["-t", "-c"]).arg(&file).output().expect("monit");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("Control file syntax OK"), "{said}");
}

#[test]
fn logrotate_moves_the_logs_and_the_server_goes_on_in_new_ones() {
    let Some(logrotate) = program_on_path("logrotate") else { return };
    let plan = Plan::app("echo");
    let (pid, logs) = (plan.path("pid"), plan.path("logs"));
    fs::create_dir(&logs).expect("our own folder");
    let access = logs.join("access.log");
    let plan = plan.args(["--pid", text(&pid), "--access-logfile", text(&access)]);
    let server = plan.start();
    server.get("/before");
    wait_until("the line", || read(&access).contains("/before"));
    let sample = fs::read_to_string(root().join("conf/logrotate/monoceros")).expect("the sample is there");
    let sample = sample.replace("/var/log/monoceros", text(&logs)).replace("/run/monoceros/monoceros.pid", text(&pid));
    let file = server.path("logrotate.conf");
    fs::write(&file, sample).expect("our own folder");
    let output = Command::new(logrotate)
        .args(["--force", "--state"])
        .arg(server.path("state"))
        .arg(&file)
        .output()
        .expect("logrotate");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait_until("a new file", || {
        server.get("/after");
        read(&access).contains("/after")
    });
    assert!(read(&logs.join("access.log.1")).contains("/before"));
    server.finish();
}

#[test]
fn nginx_passes_requests_and_serves_files() {
    let plan = Plan::app("echo").bound_elsewhere();
    let socket = plan.path("app.sock");
    let server = plan.args(["--bind", &format!("unix:{}", socket.display())]).start();
    let folder = server.path("nginx");
    fs::create_dir_all(folder.join("srv/static")).expect("our own folder");
    fs::write(folder.join("srv/static/a.txt"), "a file").expect("our own folder");
    let sample = fs::read_to_string(root().join("conf/nginx/monoceros.conf")).expect("the sample is there");
    let nginx = Nginx::start(&folder, |port| {
        sample
            .replace("/run/monoceros.sock", text(&socket))
            .replace("listen 80;", &format!("listen 127.0.0.1:{port};"))
            .replace("/srv/app", text(&folder.join("srv")))
    });
    let Some(nginx) = nginx else { return server.finish() };
    let asked = |path: &str| nginx.connect().request("GET", path, &["X-Forwarded-Proto: ftp"], b"");
    assert_eq!(asked("/static/a.txt").text(), "a file");
    let answer = asked("/a?b=c");
    assert_eq!(answer.status, 200, "{}", nginx.log());
    assert!(answer.text().contains("/a"), "{}", answer.text());
    let mut old = nginx.connect();
    old.send("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(old.read().status, 200, "{}", nginx.log());
    drop(nginx);
    server.finish();
}

#[test]
fn a_container_of_supervisord_ends_with_1_when_a_program_is_fatal() {
    let Some(mut container) = Container::start("raise RuntimeError('bad deploy')\n") else { return };
    assert_eq!(container.child.wait().expect("it was started").code(), Some(1), "{}", container.log());
    assert!(container.log().contains("bad deploy"), "{}", container.log());
}

#[test]
fn a_container_of_supervisord_ends_with_0_when_it_is_told_to() {
    let Some(mut container) = Container::start(&version(1)) else { return };
    wait_until("the server", || Client::try_connect(&container.address).is_ok());
    send(container.child.id() as i32, SIGTERM);
    assert_eq!(container.child.wait().expect("it was started").code(), Some(0), "{}", container.log());
    assert!(container.log().contains("Shutting down: Master"), "{}", container.log());
}

/// supervisord as docs/hosts/supervisord.md starts it in a container.
struct Container {
    child: Child,
    folder: TempDir,
    address: Address,
}

impl Container {
    fn start(app: &str) -> Option<Container> {
        let python = venv().join("bin/python");
        if !venv().join("bin/supervisord").exists() {
            println!("skipped: no supervisord in {}", venv().display());
            return None;
        }
        let folder = tempfile::Builder::new().prefix("monoceros-test-").tempdir().expect("a folder");
        let port = free_port();
        let here = text(folder.path()).to_owned();
        let sample = fs::read_to_string(root().join("conf/supervisord/container.conf")).expect("the sample is there");
        let settings = sample
            .replace("/usr/local/bin/monoceros", text(&program()))
            .replace("--bind :8000", &format!("--bind 127.0.0.1:{port}"))
            .replace("directory=/srv/app", &format!("directory={here}"))
            .replace("command=python ", &format!("command={} ", python.display()))
            .replace("%(here)s/container.py", text(&root().join("conf/supervisord/container.py")))
            .replace("/tmp/supervisord.pid", &format!("{here}/pid"))
            .replace("/dev/stdout", &format!("{here}/log"))
            .replace("startsecs=5", "startsecs=1")
            .replace("startretries=3", "startretries=0");
        fs::write(folder.path().join("app.py"), app).expect("a fresh folder");
        fs::write(folder.path().join("container.conf"), settings).expect("a fresh folder");
        let child = Command::new(&python)
            .arg(root().join("conf/supervisord/container.py"))
            .arg("run")
            .arg(folder.path().join("container.conf"))
            .current_dir(folder.path())
            .env("VIRTUAL_ENV", venv())
            .env("GATE", folder.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a Python");
        Some(Container { child, folder, address: Address::Tcp(port) })
    }

    fn log(&self) -> String {
        read(&self.folder.path().join("log"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        end(&mut self.child, SIGTERM);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manager {
    Runit,
    S6,
}

/// The sample's service folder under its supervisor.
struct Service {
    child: Child,
    folder: TempDir,
    manager: Manager,
    address: Address,
}

impl Service {
    fn start(manager: Manager) -> Option<Service> {
        let (supervisor, sample) = match manager {
            Manager::Runit => ("runsv", "conf/runit/monoceros"),
            Manager::S6 => ("s6-supervise", "conf/s6/monoceros"),
        };
        let supervisor = program_on_path(supervisor)?;
        if !is_root() {
            println!("skipped: the samples change the user, which takes root");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("monoceros-test-").tempdir().expect("a folder");
        let here = text(folder.path()).to_owned();
        let port = free_port();
        fs::create_dir(folder.path().join("service")).expect("a fresh folder");
        for name in ["run", "finish", "timeout-kill"] {
            let Ok(script) = fs::read_to_string(root().join(sample).join(name)) else { continue };
            let script = script
                .replace("/usr/local/bin/monoceros", text(&program()))
                .replace("127.0.0.1:8000", &format!("127.0.0.1:{port}"))
                .replace("/srv/app", &here)
                .replace("exec 2>&1", &format!("exec >>{here}/log 2>&1"))
                .replace("chpst -u www-data:www-data", "chpst -u root:root")
                .replace("s6-setuidgid www-data", "s6-setuidgid root");
            let file = folder.path().join("service").join(name);
            fs::write(&file, script).expect("a fresh folder");
            Command::new("chmod").arg("755").arg(&file).status().expect("chmod");
        }
        fs::write(folder.path().join("app.py"), version(1)).expect("a fresh folder");
        let child = Command::new(supervisor)
            .arg(folder.path().join("service"))
            .env("VIRTUAL_ENV", venv())
            .env("GATE", folder.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is there");
        Some(Service { child, folder, manager, address: Address::Tcp(port) })
    }

    /// `sv`, or `s6-svc`; `status` is a question to both.
    fn control(&self, words: &[&str]) -> String {
        let mut command = match (self.manager, words) {
            (Manager::S6, ["status"]) => Command::new("s6-svstat"),
            (Manager::S6, words) => with_words("s6-svc", words),
            (Manager::Runit, words) => with_words("sv", words),
        };
        let output = command.arg(self.folder.path().join("service")).output().expect("it is there");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.folder.path().join(name), content).expect("our own folder");
    }

    fn log(&self) -> String {
        read(&self.folder.path().join("log"))
    }

    #[track_caller]
    fn wait_for_version(&self, number: usize) {
        let wanted = format!("v{number} ");
        wait_until(&format!("version {number}: {}", self.log()), || {
            Client::try_connect(&self.address).is_ok_and(|mut client| client.get("/").text().starts_with(&wanted))
        });
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server\n{}---", self.log());
        }
        match self.manager {
            Manager::Runit => self.control(&["-w", "10", "exit"]),
            Manager::S6 => self.control(&["-xd"]),
        };
        end(&mut self.child, SIGTERM);
    }
}

/// Waits a little for a child, then ends it by force, so that no test hangs.
fn end(child: &mut Child, signal: Signal) {
    let pid = child.id() as i32;
    if child.try_wait().is_ok_and(|status| status.is_none()) {
        send(pid, signal);
        send(pid, SIGCONT);
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("its end", || child.try_wait().is_ok_and(|status| status.is_some()));
        }));
    }
    if is_alive(pid) {
        let _ = child.kill();
    }
    let _ = child.wait();
}

fn with_words(name: &str, words: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(words);
    command
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
