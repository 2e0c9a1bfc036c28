//! One case played against one server: everything that an operator sees, line by line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::case::Step;
use super::normal::{Facts, by_process};
use crate::util::client::Address;
use crate::util::server::{listening_at, marker};
use crate::util::{PATIENCE, board, gunicorn_venv, process, program, root, venv};

/// The server that is played against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Gunicorn,
    Ours,
}

/// A server of a case, from its start to its end, and what has been seen of it.
pub struct Player {
    side: Side,
    marker: String,
    dir: TempDir,
    env: BTreeMap<String, String>,
    child: Option<Child>,
    /// How often each text has been waited for.
    waited: BTreeMap<String, usize>,
    transcript: Vec<String>,
    facts: Facts,
}

/// How a line of the transcript begins for what never happened.
pub const IN_VAIN: &str = "(in vain: ";

/// Longest that the end of a server may take.
const END: Duration = Duration::from_secs(20);

impl Player {
    pub fn new(side: Side) -> Player {
        // Equally long names: paths stand in responses, and their lengths in Content-Length.
        let prefix = match side {
            Side::Gunicorn => "differential-a-",
            Side::Ours => "differential-b-",
        };
        let dir = tempfile::Builder::new().prefix(prefix).tempdir().expect("a temporary folder");
        for folder in ["tmp", "home"] {
            fs::create_dir(dir.path().join(folder)).expect("a folder in a fresh folder");
        }
        Player {
            side,
            marker: marker(),
            dir,
            env: BTreeMap::new(),
            child: None,
            waited: BTreeMap::new(),
            transcript: Vec::new(),
            facts: Facts::default(),
        }
    }

    /// Plays the steps, and gives what was seen during them.
    pub fn play(&mut self, steps: &[Step]) -> Vec<String> {
        for step in steps {
            self.step(step);
        }
        self.learn();
        let raw = std::mem::take(&mut self.transcript);
        raw.iter().map(|line| self.facts.normal(line)).collect()
    }

    /// Ends the server with TERM, if it still runs: status, stdout and error log.
    pub fn end(&mut self) -> Vec<String> {
        if self.child.is_none() {
            return Vec::new();
        }
        self.signal("TERM", None);
        self.play(&[Step::Exit])
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Env(name, value) => drop(self.env.insert(name.clone(), self.filled(value))),
            Step::File(name, content) => self.write(name, &self.filled(content)),
            Step::Run(arguments) => {
                self.launch(arguments, "");
                self.exit();
            }
            Step::Start(arguments) => {
                self.launch(arguments, "--bind 127.0.0.1:0");
                self.wait_until_loaded(1);
            }
            Step::Launch(arguments) => {
                self.launch(arguments, "");
                self.wait_until_loaded(1);
            }
            Step::Daemon(arguments) => self.daemon(arguments),
            Step::Ready(times) => self.wait_until_loaded(*times),
            Step::Send(bytes) => self.send(bytes),
            Step::Signal { name, worker } => self.signal(name, *worker),
            Step::Wait(text) => self.wait_for_text(text),
            Step::Gone(worker) => {
                self.learn();
                let pid = self.facts.workers[worker - 1];
                self.wait(&format!("worker {worker} to end"), |_| !process::is_alive(pid));
            }
            Step::Children(count) => {
                let master = self.facts.master;
                self.wait(&format!("{count} workers"), |_| process::children(master).len() == *count);
            }
            Step::Appears(name) => self.wait(name, |player| player.path(name).exists()),
            Step::Cat(name) => self.cat(name),
            Step::Mode(name) => self.mode(name),
            Step::List => self.list(),
            Step::Titles => self.titles(),
            Step::Exit => self.exit(),
            Step::Vanish => {
                let master = self.facts.master;
                self.wait("the daemon's end", |_| !process::is_alive(master));
                self.see_output();
            }
        }
    }

    fn launch(&mut self, arguments: &str, before: &str) {
        let arguments = self.filled(&format!("{before} {arguments}"));
        let arguments = shlex::split(&arguments).expect("arguments as a shell takes them");
        let mut command = match self.side {
            Side::Gunicorn => Command::new(gunicorn_venv().join("bin/gunicorn")),
            Side::Ours => Command::new(program()),
        };
        command.args(arguments).current_dir(self.dir.path()).env_clear();
        for kept in ["PATH", "LD_LIBRARY_PATH"] {
            command.envs(std::env::var_os(kept).map(|value| (kept, value)));
        }
        command.env("VIRTUAL_ENV", venv()).env("LANG", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("HOME", self.path("home")).env("TMPDIR", self.path("tmp")).env("MONOCEROS_TEST", &self.marker);
        command.env("PYTHONPATH", root().join("tests/data/differential"));
        // Without this gunicorn logs a line about its control socket, which we do not have.
        command.env("GUNICORN_CMD_ARGS", "--no-control-socket").envs(&self.env);
        let open = |name| File::create(self.dir.path().join(name)).expect("the folder is writable");
        command.stdin(Stdio::null()).stdout(open("stdout")).stderr(open("stderr"));
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        self.facts = self.first_facts(child.id() as i32);
        self.child = Some(child);
    }

    fn daemon(&mut self, arguments: &str) {
        self.launch(arguments, "");
        let mut starter = self.child.take().expect("it has just been started");
        if let Some(status) = self.wait_for(END, "the starter's end", |_| starter.try_wait().expect("our own child")) {
            self.see(status_line(status));
        }
        let pid = self.wait_for(PATIENCE, "the daemon's pid", |player| player.read("pid").trim().parse().ok());
        self.facts.master = pid.unwrap_or_default();
        // Its log may go nowhere, so only the app shows when it is loaded.
        self.wait("the app to be loaded", |player| player.has_loaded(1));
    }

    fn first_facts(&self, master: i32) -> Facts {
        let text = |path: &Path| path.display().to_string();
        let words = [
            (text(self.dir.path()), "$DIR"),
            (text(&root().join("tests/data/differential")), "$APPS"),
            (text(venv()), "$VENV"),
            (text(gunicorn_venv()), "$VENV"),
        ];
        Facts { master, words: words.map(|(text, word)| (text, word.to_string())).to_vec(), ..Facts::default() }
    }

    /// What the log tells of workers and ports.
    fn learn(&mut self) {
        let log = self.log();
        let booted = log.lines().filter_map(|line| line.split_once("Booting worker with pid: "));
        self.facts.workers = booted.filter_map(|(_, pid)| pid.trim().parse().ok()).collect();
        let words = log
            .lines()
            .filter_map(|line| line.split_once("Listening at: "))
            .flat_map(|(_, rest)| rest.split([' ', ',']));
        let used =
            log.lines().filter_map(|line| line.split_once("Connection in use: ('127.0.0.1', ")?.1.strip_suffix(')'));
        let ports =
            words.filter_map(|word| Some(word.rsplit_once(':')?.1)).chain(used).filter_map(|port| port.parse().ok());
        for port in ports {
            if !self.facts.ports.contains(&port) {
                self.facts.ports.push(port);
            }
        }
    }

    fn exit(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let status = self.wait_for(END, "the end", |_| child.try_wait().expect("our own child"));
        let Some(status) = status else {
            let _ = child.kill();
            let _ = child.wait();
            return self.see_output();
        };
        self.see(status_line(status));
        self.see_output();
    }

    fn see_output(&mut self) {
        self.learn();
        for line in self.read("stdout").lines() {
            self.see(format!("out: {}", squeezed(line)));
        }
        for line in by_process(&self.log(), &self.facts) {
            self.see(format!("err: {line}"));
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let Some(address) = listening_at(&self.log()) else { return self.see(format!("{IN_VAIN}an address)")) };
        match exchange(&address, bytes) {
            Ok(answer) => {
                for line in answer.split_inclusive(|byte| *byte == b'\n') {
                    // On CPython 3.14 gunicorn ends the head of its own pages with a bare line
                    // feed.
                    let line = if self.side == Side::Gunicorn && line == b"\n" { b"\r\n" } else { line };
                    self.see(format!("< {}", line.escape_ascii().to_string().trim_end_matches("\\r\\n")));
                }
                self.see("< (closed)".into());
            }
            Err(problem) => self.see(format!("< ({problem})")),
        }
    }

    fn signal(&mut self, name: &str, worker: Option<usize>) {
        self.learn();
        let pid = match worker {
            Some(number) => self.facts.workers[number - 1],
            None => self.facts.master,
        };
        let signal = Signal::from_str(&format!("SIG{name}")).expect("a signal");
        if kill(Pid::from_raw(pid), signal).is_err() {
            self.see(format!("{IN_VAIN}a signal {name})"));
        }
    }

    fn cat(&mut self, name: &str) {
        match fs::read(self.path(name)) {
            Ok(content) => {
                for line in String::from_utf8_lossy(&content).lines() {
                    self.see(format!("{name}: {line}"));
                }
            }
            Err(_) => self.see(format!("{name} is not there")),
        }
    }

    fn mode(&mut self, name: &str) {
        let text = match fs::symlink_metadata(self.path(name)) {
            Ok(data) => {
                let kind = if data.file_type().is_socket() { "socket" } else { "file" };
                format!("{name} is a {kind}, {:o}", data.permissions().mode() & 0o7777)
            }
            Err(_) => format!("{name} is not there"),
        };
        self.see(text);
    }

    fn list(&mut self) {
        let entries = fs::read_dir(self.dir.path()).expect("the folder is there").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let own = ["stdout", "stderr", "loaded", "home", "tmp", "__pycache__"];
        let mut names: Vec<String> = names.filter(|name| !own.contains(&name.as_str())).collect();
        names.sort();
        self.see(format!("files: {}", names.join(" ")));
    }

    fn titles(&mut self) {
        self.learn();
        for pid in std::iter::once(self.facts.master).chain(self.facts.workers.clone()) {
            if process::is_alive(pid) {
                let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let title = String::from_utf8_lossy(&title).replace('\0', " ");
                self.see(format!("title: {}", title.trim_end()));
            }
        }
    }

    fn wait_until_loaded(&mut self, times: usize) {
        let listens = |player: &mut Player| listening_at(&player.log()).is_some();
        let has_ended = |player: &mut Player| {
            player.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()))
        };
        self.wait("the app to be loaded", |player| {
            has_ended(player) || player.has_loaded(times) && listens(player) && player.has_settled()
        });
        self.learn();
    }

    /// Whether the workers that have loaded the app have also said that they serve. gunicorn's
    /// workers report nothing, but count as serving then, because they install their signal
    /// handlers before. Ours are about to serve, and the effect of a signal depends on it.
    fn has_settled(&mut self) -> bool {
        self.learn();
        let children = process::children(self.facts.master);
        let workers = children.iter().filter(|pid| self.facts.workers.contains(pid)).count();
        board::serving(self.facts.master).is_none_or(|serving| serving == workers)
    }

    fn has_loaded(&self, times: usize) -> bool {
        self.read("loaded").lines().count() >= times
    }

    fn wait_for_text(&mut self, text: &str) {
        let times = self.waited.entry(text.into()).or_default();
        *times += 1;
        let times = *times;
        self.wait(text, |player| player.log().matches(text).count() >= times);
    }

    fn wait(&mut self, what: &str, mut condition: impl FnMut(&mut Player) -> bool) {
        self.wait_for(PATIENCE, what, |player| condition(player).then_some(()));
    }

    /// A wait that is in vain is a line of the transcript.
    fn wait_for<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut found: impl FnMut(&mut Player) -> Option<T>,
    ) -> Option<T> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(found) = found(self) {
                return Some(found);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.see(format!("{IN_VAIN}{what})"));
        None
    }

    fn see(&mut self, line: String) {
        self.transcript.push(line);
    }

    fn filled(&self, text: &str) -> String {
        text.replace("$DIR", &self.dir.path().display().to_string())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(name)).unwrap_or_default()).into_owned()
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder in the folder");
        fs::write(path, content).expect("the folder is writable");
    }

    fn log(&self) -> String {
        self.read("stderr") + &self.read("log")
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in process::belonging_to(&self.marker, self.dir.path()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn status_line(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
    }
}

/// Runs of spaces as one: columns are as wide as the longest name.
fn squeezed(line: &str) -> String {
    line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Sends `bytes` and the end of the stream, and takes everything until the server closes.
fn exchange(address: &Address, bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    match address {
        Address::Tcp(port) => {
            let stream = TcpStream::connect(("127.0.0.1", *port)).map_err(|_| "refused")?;
            let _ = stream.set_read_timeout(Some(PATIENCE));
            talk(stream, bytes, |stream| stream.shutdown(Shutdown::Write))
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).map_err(|_| "refused")?;
            let _ = stream.set_read_timeout(Some(PATIENCE));
            talk(stream, bytes, |stream| stream.shutdown(Shutdown::Write))
        }
        Address::Tls(..) => Err("not spoken here"),
    }
}

fn talk<S: Read + Write>(
    mut stream: S,
    bytes: &[u8],
    end: impl Fn(&S) -> std::io::Result<()>,
) -> Result<Vec<u8>, &'static str> {
    // A server that has refused need not take the rest.
    let _ = stream.write_all(bytes);
    let _ = end(&stream);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(answer),
        Err(_) => Err("silence"),
    }
}
