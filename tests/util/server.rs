//! The real program: started on a free port or a unix socket in a folder of its own, controlled by
//! signals, watched through its log and /proc, and ended without leaving anything behind.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::client::{Address, Client, Response};
use super::tls::Trust;
use super::{PATIENCE, apps, board, process, program, venv, wait_at_most, wait_until};

/// What to start. Everything has a default but the app.
pub struct Plan {
    args: Vec<String>,
    env: Vec<(String, String)>,
    bind: Bind,
    log: PathBuf,
    working_dir: Option<PathBuf>,
    chdir: Option<PathBuf>,
    program: PathBuf,
    /// A program and arguments that start the server in their turn.
    through: Vec<String>,
    dir: TempDir,
}

enum Bind {
    Tcp,
    Unix,
    /// The test's own arguments or config file name the address.
    Elsewhere,
}

/// A started program.
pub struct Server {
    pub address: Address,
    child: Child,
    exit: Option<ExitStatus>,
    marker: String,
    log: PathBuf,
    allowed: Vec<String>,
    dir: TempDir,
}

/// A program that ran to its end.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Plan {
    /// An app of `tests/apps`, or one which the test writes with `file()`.
    pub fn app(app: &str) -> Plan {
        let mut plan = Plan::bare();
        plan.args.push(app.to_string());
        plan
    }

    /// No app named on the command line.
    pub fn bare() -> Plan {
        let dir = tempfile::Builder::new().prefix("monoceros-test-").tempdir().expect("a temporary folder");
        for folder in ["tmp", "gate"] {
            fs::create_dir(dir.path().join(folder)).expect("a folder in a fresh folder");
        }
        let log = dir.path().join("stderr");
        Plan {
            args: Vec::new(),
            env: Vec::new(),
            bind: Bind::Tcp,
            log,
            working_dir: None,
            chdir: Some(apps()),
            program: program(),
            through: Vec::new(),
            dir,
        }
    }

    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Plan {
        self.args.extend(args.map(String::from));
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<str>) -> Plan {
        self.env.push((name.to_string(), value.as_ref().to_string()));
        self
    }

    pub fn unix(mut self) -> Plan {
        self.bind = Bind::Unix;
        self
    }

    /// No `--bind` from the harness; the address is read from the log all the same.
    pub fn bound_elsewhere(mut self) -> Plan {
        self.bind = Bind::Elsewhere;
        self
    }

    /// The test's folder: `file()` writes there and the server changes into it.
    pub fn in_own_folder(mut self) -> Plan {
        self.chdir = Some(self.dir.path().to_path_buf());
        self
    }

    pub fn chdir(mut self, folder: impl Into<PathBuf>) -> Plan {
        self.chdir = Some(folder.into());
        self
    }

    /// Started in the test's own folder and without `--chdir`.
    pub fn started_in_own_folder(mut self) -> Plan {
        self.chdir = None;
        self.working_dir = Some(self.dir.path().to_path_buf());
        self
    }

    /// Started in a folder below the test's own.
    pub fn working_dir(mut self, name: &str) -> Plan {
        self.working_dir = Some(self.path(name));
        self
    }

    /// The program under another name.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Plan {
        self.program = path.into();
        self
    }

    /// Started by another program, which gets the server's command line behind these arguments.
    pub fn through<const N: usize>(mut self, program_and_args: [&str; N]) -> Plan {
        self.through.extend(program_and_args.map(String::from));
        self
    }

    /// The error log goes to a file of that name in the test's folder.
    pub fn error_log(mut self, name: &str) -> Plan {
        self.log = self.path(name);
        let path = self.log.display().to_string();
        self.args(["--error-logfile", &path])
    }

    /// A file in the test's folder.
    pub fn file(self, name: &str, content: &str) -> Plan {
        fs::write(self.path(name), content).expect("the test's folder is writable");
        self
    }

    /// Under this config file, `conf.py` in the test's folder.
    pub fn config(self, content: &str) -> Plan {
        let path = self.path("conf.py").display().to_string();
        self.file("conf.py", content).args(["--config", &path])
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the program and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Server {
        let mut server = self.launch();
        let start = Instant::now();
        loop {
            if let Some(address) = listening_at(&server.log()) {
                server.address = address;
                return server;
            }
            // A daemon's starter ends well before the daemon listens.
            if let Some(status) = server.has_exited().filter(|status| !status.success()) {
                panic!("the server ended at once with {status}: {}", server.log());
            }
            assert!(start.elapsed() < PATIENCE, "the server does not listen: {}", server.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the program without waiting for anything.
    pub fn launch(self) -> Server {
        let marker = marker();
        let child =
            self.command(&marker).spawn().unwrap_or_else(|error| panic!("cannot start {:?}: {error}", program()));
        let Plan { log, dir, .. } = self;
        Server { address: Address::Tcp(0), child, exit: None, marker, log, allowed: Vec::new(), dir }
    }

    /// Runs the program to its end.
    #[track_caller]
    pub fn run(self) -> Finished {
        let stderr = self.path("stderr");
        let mut server = self.launch();
        let status = server.wait_for_exit();
        let finished = Finished { code: status.code(), stdout: server.stdout(), stderr: read(&stderr) };
        server.expect_gone();
        finished
    }

    fn command(&self, marker: &str) -> Command {
        let words = self.through.iter().map(PathBuf::from).chain([self.program.clone()]).collect::<Vec<_>>();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        match self.bind {
            Bind::Tcp => drop(command.args(["--bind", "127.0.0.1:0"])),
            Bind::Unix => drop(command.args(["--bind", &format!("unix:{}", self.path("socket").display())])),
            Bind::Elsewhere => {}
        }
        if let Some(folder) = &self.chdir {
            command.arg("--chdir").arg(folder);
        }
        if let Some(folder) = &self.working_dir {
            command.current_dir(folder);
        }
        command.args(&self.args);
        self.set_environment(&mut command, marker);
        let open = |name| File::create(self.path(name)).expect("the test's folder is writable");
        command.stdin(Stdio::null()).stdout(open("stdout")).stderr(open("stderr"));
        command
    }

    /// A known environment: what the developer's shell happens to hold must not decide a test.
    fn set_environment(&self, command: &mut Command, marker: &str) {
        command.env_clear();
        for kept in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "USER"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command.env("HOME", self.dir.path()).env("TMPDIR", self.path("tmp")).env("GATE", self.path("gate"));
        command.env("VIRTUAL_ENV", venv()).env("LANG", "C.UTF-8").env("MONOCEROS_TEST", marker);
        // A module that is rewritten within a second keeps its time stamp, and Python would trust
        // the stale bytecode.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
    }
}

impl Server {
    /// An app of `tests/apps` with these arguments.
    #[track_caller]
    pub fn start<const N: usize>(app: &str, args: [&str; N]) -> Server {
        Plan::app(app).args(args).start()
    }

    /// The server, spoken to over TLS.
    pub fn trusting(mut self, trust: Trust) -> Server {
        self.address = Address::Tls(self.address.port(), trust);
        self
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The pids of the workers: the master's live children.
    pub fn workers(&self) -> Vec<i32> {
        process::children(self.pid())
    }

    /// Waits until there are this many workers, and all of them report that they serve.
    #[track_caller]
    pub fn wait_for_workers(&self, count: usize) -> Vec<i32> {
        let found = format!("{count} workers, there are {}", self.workers().len());
        wait_until(&found, || self.has_serving(count));
        self.workers()
    }

    /// Whether there are this many workers, and all of them report that they serve. Look for others
    /// than before first, and ask this then: the other way round one may be forked between.
    pub fn has_serving(&self, count: usize) -> bool {
        board::all_serve(self.pid(), count)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// In one step: a worker that starts just now reads the old file or the new one.
    pub fn write(&self, name: &str, content: &str) {
        let written = self.path(&format!("{name}.new"));
        let put = fs::write(&written, content).and_then(|()| fs::rename(&written, self.path(name)));
        put.expect("the test's folder is writable");
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// The first real-time signal, for which nix has no name.
    pub fn signal_rtmin(&self) {
        // SAFETY: kill(2) touches no memory.
        assert_eq!(unsafe { libc::kill(self.pid(), libc::SIGRTMIN()) }, 0, "the server is there");
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(&self.address)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.connect().get(target)
    }

    /// How many files a worker has open without connections. It makes a request, whose answer shows
    /// that those before it are over, and waits for the end of its connection, which the client
    /// sees before the worker has closed its descriptor.
    #[track_caller]
    pub fn files_at_rest(&self, worker: i32) -> usize {
        let mut client = self.connect();
        assert_eq!(client.get("/").status, 200);
        let files = process::open_files(worker) - 1;
        drop(client);
        wait_until("the connection's end", || process::open_files(worker) <= files);
        files
    }

    /// What the error log holds.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    pub fn stdout(&self) -> String {
        read(&self.path("stdout"))
    }

    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        self.wait_for_log_times(text, 1);
    }

    #[track_caller]
    pub fn wait_for_log_times(&self, text: &str, times: usize) {
        let start = Instant::now();
        while self.log().matches(text).count() < times {
            assert!(start.elapsed() < PATIENCE, "{text:?} is not {times} times in the log:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many requests are inside `wait` or `hang` of `process.py`.
    pub fn entered(&self) -> usize {
        self.gate_files("entered-").len()
    }

    /// Lets the requests inside `wait` go on.
    pub fn release(&self) {
        self.write("gate/release", "");
    }

    pub fn gate_files(&self, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path("gate")).expect("the gate is a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    /// A line of the log with that text is not a fault of the server but what the test provoked.
    pub fn allow(&mut self, text: &str) {
        self.allowed.push(text.to_string());
    }

    pub fn has_exited(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("our own child");
        }
        self.exit
    }

    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        self.wait_for_exit_within(Duration::from_secs(40)).0
    }

    /// The exit status, and how long it took to come.
    #[track_caller]
    pub fn wait_for_exit_within(&mut self, limit: Duration) -> (ExitStatus, Duration) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.has_exited() {
                return (status, start.elapsed());
            }
            assert!(start.elapsed() < limit, "still running after {limit:?}: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the server to end, and checks what must hold for every end: exit code 0, and no
    /// process, temporary file or fault in the log left behind.
    #[track_caller]
    pub fn finish(self) {
        self.finish_keeping(|| ());
    }

    /// The same, with a last look at what the server has left in its folder.
    #[track_caller]
    pub fn finish_keeping(mut self, look: impl FnOnce()) {
        self.signal(Signal::SIGTERM);
        let status = self.wait_for_exit();
        assert_eq!(status.code(), Some(0), "{:?}\n{}", status.signal(), self.log());
        self.expect_gone();
        self.expect_clean_log();
        look();
    }

    /// No process that the server has started is alive.
    #[track_caller]
    pub fn expect_gone(&self) {
        wait_at_most(Duration::from_secs(5), "every process of the server to end", || self.processes().is_empty());
        let left: Vec<_> =
            fs::read_dir(self.path("tmp")).expect("a folder").flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    #[track_caller]
    pub fn expect_clean_log(&self) {
        let log = self.log();
        let faults = ["[WARNING]", "[ERROR]", "[CRITICAL]", "Traceback", "panicked"];
        let bad = log.lines().find(|line| {
            faults.iter().any(|fault| line.contains(fault)) && !self.allowed.iter().any(|text| line.contains(text))
        });
        assert!(bad.is_none(), "unexpected in the log: {bad:?}\n{log}");
    }

    /// Every live process of this test's server, daemons and upgrades included.
    pub fn processes(&self) -> Vec<i32> {
        process::belonging_to(&self.marker, self.dir.path())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the log of the server\n{}---", self.log());
        }
        if self.has_exited().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Sends a signal to a process that must be there.
#[track_caller]
pub fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("cannot send {signal} to {pid}: {error}"));
}

/// A text which no other server of any test run carries.
pub fn marker() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("{}-{}-", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The address in the newest "Listening at" line: `http://127.0.0.1:43210 (123)` or
/// `unix:/path (123)`.
pub fn listening_at(log: &str) -> Option<Address> {
    let line = log.lines().rev().find_map(|line| line.split_once("Listening at: ").map(|(_, rest)| rest))?;
    let first = line.split([' ', ',']).next()?;
    match first.strip_prefix("unix:") {
        Some(path) => Some(Address::Unix(path.into())),
        None => Some(Address::Tcp(first.rsplit_once(':')?.1.parse().ok()?)),
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
