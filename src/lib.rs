//! monoceros: a pre-fork WSGI server that takes gunicorn's place.
//!
//! In reading order: a door (`main.rs`, `extension.rs`) calls [`run`] with the command line; `startup` turns it into settings; `master`
//! binds, forks and supervises; `worker` serves, with `http` for the protocol and `python` for the application. ARCHITECTURE.md walks a
//! request and a reload through the files.

pub mod base;
pub mod cli;
pub mod exchange;
mod extension;
pub mod http;
pub mod logging;
pub mod master;
pub mod python;
pub mod scoreboard;
pub mod settings;
mod startup;
pub mod sys;
pub mod tls;
pub mod worker;
pub mod worker_init;

use std::sync::Arc;

use crate::cli::Mode;
use crate::master::{Boot, Inheritance, Outcome};
use crate::python::app::App;
use crate::python::embedder::Embedder;
use crate::python::hooks::Hooks;
use crate::python::interpreter;
use crate::settings::Config;
use crate::startup::{Startup, StartupError};
use crate::tls::Tls;

pub use crate::master::ExecCommand;

/// The command line was wrong (argparse's status).
const EXIT_USAGE: i32 = 2;
/// The settings, or what they name, were wrong.
const EXIT_CONFIG: i32 = 1;

/// Runs the program that `launch` describes, in the master or, after a fork, in a worker, and returns the process's exit status
/// (gunicorn's: 0 stopped, 1 wrong settings, 2 wrong usage, 3 a worker failed to boot, 4 no such app).
pub fn run(launch: ExecCommand) -> i32 {
    // Before anything is written; CPython does the same, but is not always there.
    sys::signal::ignore_file_size_limit();
    exit_status(start(launch))
}

/// As [`run`], for a Python program that embeds the server: settings and app are those of its application object.
fn run_embedded(launch: ExecCommand, embedder: Embedder) -> i32 {
    exit_status(serve(Startup::embedded(&launch, embedder), launch))
}

/// The status of a process, whose failure is told on standard error.
fn exit_status(outcome: Result<i32, StartupError>) -> i32 {
    if outcome.is_err() {
        // A config file may have printed something, registered functions, and made up its mind.
        interpreter::run_exit_functions();
    }
    match outcome {
        Ok(status) => status,
        Err(StartupError::Usage(text)) => {
            eprintln!("{text}");
            EXIT_USAGE
        }
        Err(StartupError::Config(text)) => {
            // As gunicorn, which sets a sentence of its own off from what stands above it.
            let gap = if text.starts_with("Error") { "\n" } else { "" };
            eprintln!("{gap}{text}");
            EXIT_CONFIG
        }
        Err(StartupError::Exit(exit)) => exit.perform(),
    }
}

fn start(launch: ExecCommand) -> Result<i32, StartupError> {
    let startup = Startup::new(&launch)?;
    match startup.mode() {
        Mode::Help => print!("{}", settings::help()),
        Mode::Version => println!("{}", cli::VERSION),
        Mode::Serve => return serve(startup, launch),
    }
    Ok(0)
}

fn serve(mut startup: Startup, launch: ExecCommand) -> Result<i32, StartupError> {
    // Before a config file runs: it may start programs of its own.
    let inheritance = Inheritance::from_environment();
    let (config, hooks) = startup.load()?;
    if config.print_config {
        print!("{}", settings::print_config(&config));
    }
    if config.print_config || config.check_config {
        return check(&mut startup, &config, &hooks);
    }
    startup::configure_logging(&config, &hooks).map_err(StartupError::Config)?;
    startup::check_access_log(&config).map_err(StartupError::Config)?;
    startup.log_warnings();
    let tls = load_tls(&startup, &config, &hooks)?;
    log::debug!("{}", settings::current_configuration(&config));
    python::title::set(&format!("monoceros: master [{}]", config.name()));
    let worker_launch = startup.worker_launch();
    match master::run(boot(startup, config, hooks, tls, launch), inheritance) {
        Outcome::Exit(status) => {
            interpreter::run_exit_functions();
            Ok(status)
        }
        Outcome::Worker(init) => Ok(worker::run(init, &worker_launch)),
    }
}

/// `--check-config`: whether certificates and application can be loaded, and what else the start would say or stumble over.
fn check(startup: &mut Startup, config: &Config, hooks: &Hooks) -> Result<i32, StartupError> {
    for warning in startup.take_warnings() {
        eprintln!("Warning: {warning}");
    }
    worker_init::identity(config).map_err(|error| StartupError::Config(format!("Error: {error}")))?;
    load_tls(startup, config, hooks)?;
    let loaded = startup.load_app(config);
    interpreter::flush();
    loaded.map_err(|error| StartupError::Config(format!("Error while loading the application:\n\n{error}")))?;
    Ok(0)
}

fn load_tls(startup: &Startup, config: &Config, hooks: &Hooks) -> Result<Option<Tls>, StartupError> {
    startup.load_tls(config, hooks).map_err(|reason| StartupError::Config(format!("Error: {reason}")))
}

fn boot(startup: Startup, config: Arc<Config>, hooks: Hooks, tls: Option<Tls>, launch: ExecCommand) -> Boot<App> {
    let startup = std::rc::Rc::new(std::cell::RefCell::new(startup));
    let (for_preload, for_tls) = (startup.clone(), startup.clone());
    Boot {
        config,
        hooks,
        tls,
        reload: Box::new(move || startup.borrow_mut().reload()),
        load_tls: Box::new(move |config, hooks| for_tls.borrow().load_tls(config, hooks)),
        configure_logging: startup::configure_logging,
        preload: Box::new(move |config| for_preload.borrow().preload(config)),
        fork: || interpreter::around_fork(sys::fork::fork),
        launch,
    }
}
