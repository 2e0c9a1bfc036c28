//! monoceros: a pre-fork WSGI server that takes gunicorn's place.
//!
//! In reading order: an entry point (`program.rs`, `extension.rs`) calls [`run`] with the command
//! line; `bootstrap` turns it into settings; `master` binds, forks and supervises; `worker` serves,
//! with `http` for the protocol and `python` for the application. ARCHITECTURE.md follows a request
//! and a reload through the files.

pub mod base;
mod bootstrap;
mod ctl;
pub mod exchange;
mod extension;
pub mod files;
pub mod http;
pub mod logging;
pub mod master;
pub mod metrics;
pub mod program;
pub mod python;
pub mod scoreboard;
pub mod service;
pub mod settings;
pub mod sys;
pub mod tls;
pub mod worker;
pub mod worker_init;

use crate::bootstrap::cli::{self, Mode};
use crate::bootstrap::{Startup, StartupError};
use crate::master::{Inheritance, Outcome};
use crate::python::embedder::Embedder;
use crate::python::hooks::Hooks;
use crate::python::interpreter;
use crate::service::Service;
use crate::settings::Config;
use crate::tls::Tls;

pub use crate::bootstrap::ExecCommand;

/// The command line was wrong (argparse's status).
const EXIT_USAGE: i32 = 2;
/// The settings, or what they name, were wrong.
const EXIT_CONFIG: i32 = 1;

/// Runs the program that was started as `exec_command`, in the master or, after a fork, in a
/// worker. Returns the process's exit status, which is gunicorn's: 0 stopped, 1 wrong settings, 2
/// wrong usage, 3 a worker failed to boot, 4 no such app.
pub fn run(exec_command: ExecCommand) -> i32 {
    let arguments: Vec<String> =
        exec_command.argv.iter().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    if let Some(status) = ctl::run(&arguments) {
        return status;
    }
    // Before anything is written. CPython does the same, but does not always run.
    sys::signal::ignore_file_size_limit();
    #[cfg(feature = "ablation")]
    switch_mechanisms_off();
    exit_status(start(exec_command))
}

/// Switches off the mechanisms for speed that `MONOCEROS_WITHOUT` names, separated by commas.
#[cfg(feature = "ablation")]
fn switch_mechanisms_off() {
    let named = std::env::var("MONOCEROS_WITHOUT").unwrap_or_default();
    for name in named.split(',').filter(|name| !name.is_empty()) {
        base::ablation::switch_off(name).expect("scripts/bench names mechanisms that there are");
    }
}

/// As [`run`], for a Python program that embeds the server: settings and app are those of its
/// application object.
fn run_embedded(exec_command: ExecCommand, embedder: Embedder) -> i32 {
    exit_status(serve(Startup::embedded(exec_command, embedder)))
}

/// The exit status; prints a failure on standard error.
#[expect(clippy::print_stderr, reason = "there may be no log yet")]
fn exit_status(outcome: Result<i32, StartupError>) -> i32 {
    if outcome.is_err() {
        // A config file may have printed something, or registered functions with `atexit`.
        interpreter::run_exit_functions();
    }
    match outcome {
        Ok(status) => status,
        Err(StartupError::Usage(text)) => {
            eprintln!("{text}");
            EXIT_USAGE
        }
        Err(StartupError::Config(text)) => {
            // gunicorn puts an empty line in front of a sentence of its own.
            let gap = if text.starts_with("Error") { "\n" } else { "" };
            eprintln!("{gap}{text}");
            EXIT_CONFIG
        }
        Err(StartupError::Exit(exit)) => exit.perform(),
    }
}

#[expect(clippy::print_stdout, reason = "the command line asks for the text")]
fn start(exec_command: ExecCommand) -> Result<i32, StartupError> {
    let command_line = Startup::read(&exec_command)?;
    match command_line.mode {
        Mode::Help => print!("{}", settings::help()),
        Mode::Version => println!("{}", cli::VERSION),
        Mode::VerboseVersion => match bootstrap::about(&exec_command) {
            Ok(text) => print!("{text}"),
            Err(text) => return Err(StartupError::Config(text.trim_end().to_owned())),
        },
        Mode::Completions(shell) => print!("{}", settings::completions(shell)),
        Mode::Serve => return serve(Startup::new(exec_command, command_line)?),
    }
    Ok(0)
}

fn serve(startup: Startup) -> Result<i32, StartupError> {
    // Before a config file runs, because it may start programs of its own.
    let mut inheritance = Inheritance::from_environment();
    let note = inheritance.failure_note.take();
    let check = if note.is_some() { CheckKind::OfSuccessor } else { CheckKind::OfSettings };
    serve_after(startup, inheritance, check).inspect_err(|failure| {
        if let (Some(note), StartupError::Config(text)) = (&note, failure) {
            note.write(text);
        }
    })
}

#[expect(clippy::print_stdout, reason = "--print-config")]
fn serve_after(mut startup: Startup, inheritance: Inheritance, kind: CheckKind) -> Result<i32, StartupError> {
    let (config, hooks) = startup.load()?;
    if config.print_config {
        print!("{}", settings::print_config(&config));
    }
    // A program that embeds the server need not read the flag by which a master tries it.
    if config.print_config || config.check_config || kind == CheckKind::OfSuccessor {
        let status = check(&mut startup, &config, &hooks)?;
        if kind == CheckKind::OfSuccessor {
            open_logs(&config, &hooks)?;
        }
        return Ok(status);
    }
    open_logs(&config, &hooks)?;
    startup.log_warnings();
    let tls = load_tls(&startup, &config, &hooks)?;
    log::debug!("{}", settings::current_configuration(&config));
    python::title::set(&format!("monoceros: master [{}]", config.name()));
    let python = startup.python_setup();
    // The master opens the listeners.
    let service = Service { config, hooks, listeners: Vec::new(), metrics: None, tls };
    match master::run(startup, service, inheritance) {
        Outcome::Exit(status) => {
            interpreter::run_exit_functions();
            Ok(status)
        }
        Outcome::Worker(init) => Ok(worker::run(init, &python)),
        Outcome::DirtyArbiter(init) => Ok(worker::run_dirty_arbiter(init, &python)),
    }
}

/// Who has asked for `--check-config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckKind {
    /// A person, who may have other rights than the server. No log is opened.
    OfSettings,
    /// A master, before this program takes its place: what the start opens is opened.
    OfSuccessor,
}

fn open_logs(config: &Config, hooks: &Hooks) -> Result<(), StartupError> {
    bootstrap::configure_logging(config, hooks).map_err(StartupError::Config)?;
    bootstrap::check_access_log(config).map_err(StartupError::Config)
}

/// `--check-config`: whether certificates and application can be loaded, and the warnings that the
/// start would log.
#[expect(clippy::print_stderr, reason = "it opens no log")]
fn check(startup: &mut Startup, config: &Config, hooks: &Hooks) -> Result<i32, StartupError> {
    if let Some(found) = startup.found() {
        eprintln!("{found}");
    }
    for warning in startup.take_warnings() {
        eprintln!("Warning: {warning}");
    }
    service::identity(config).map_err(|error| StartupError::Config(format!("Error: {error}")))?;
    load_tls(startup, config, hooks)?;
    let loaded = startup.try_app(config);
    let class = loaded.is_ok().then(|| startup.check_worker_class(config));
    interpreter::flush();
    class.unwrap_or(Ok(())).map_err(|error| StartupError::Config(format!("Error: {error}")))?;
    loaded.map_err(|error| StartupError::Config(format!("Error while loading the application:\n\n{error}")))?;
    Ok(0)
}

fn load_tls(startup: &Startup, config: &Config, hooks: &Hooks) -> Result<Option<Tls>, StartupError> {
    startup.load_tls(config, hooks).map_err(|reason| StartupError::Config(format!("Error: {reason}")))
}
