//! From a command line to settings in force: the layers read in order, the config file run, the process put where the settings want it.
//!
//! The same steps run again on HUP. They live here, beside [`crate::run`], because they need the command line, the settings and Python
//! together, which no floor below may.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::cli::{self, CommandLine, Mode};
use crate::logging::{self, AccessFormat, AccessLog, LogSettings};
use crate::master::ExecCommand;
use crate::python::app::{self, App, LoadError, absolute};
use crate::python::config_file::{self, ConfigFile, ConfigFileError, Objects};
use crate::python::embedder::{self, Embedder};
use crate::python::environ::SERVER_SOFTWARE;
use crate::python::hooks::Hooks;
use crate::python::python_home::{self, PythonHome};
use crate::python::ssl_context::{self, ContextTerms};
use crate::python::{Exit, environment, interpreter, signals, spew};
use crate::settings::{
    self, Assignment, Config, ConfigSource, FileOrigin, LoadedSettings, LogFormat, Origins, Sources, Value,
};
use crate::sys::{clock, user};
use crate::tls::{self, Tls};
use crate::worker;
use crate::worker_init;

/// Flags for every start, as gunicorn reads them.
const ARGUMENTS_VARIABLE: &str = "GUNICORN_CMD_ARGS";

/// Why the program does not start: what to print, once.
#[derive(Debug)]
pub enum StartupError {
    /// The command line cannot be read.
    Usage(String),
    /// The settings cannot be used.
    Config(String),
    /// The config file has asked for the end of the process.
    Exit(Exit),
}

impl fmt::Display for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartupError::Usage(text) => f.write_str(text),
            StartupError::Config(text) => f.write_str(text),
            StartupError::Exit(exit) => ConfigFileError::Exit(exit.clone()).fmt(f),
        }
    }
}

impl From<ConfigFileError> for StartupError {
    fn from(error: ConfigFileError) -> StartupError {
        match error {
            ConfigFileError::Exit(exit) => StartupError::Exit(exit),
            raised => StartupError::Config(raised.to_string()),
        }
    }
}

/// The program's start, and what a reload needs of it.
pub struct Startup {
    command_line: CommandLine,
    argv: Vec<OsString>,
    home: PythonHome,
    surroundings: ProcessEnv,
    warnings: Vec<String>,
    /// Those of the last settings that had any.
    hooks: Hooks,
    /// The program that settings and app come from, instead of command line and config file.
    embedder: Option<Embedder>,
}

impl Startup {
    /// Reads the command line of `launch`.
    ///
    /// # Errors
    /// It is wrong, or names a virtualenv that cannot be used.
    pub fn new(launch: &ExecCommand) -> Result<Startup, StartupError> {
        let arguments: Vec<String> =
            launch.argv.iter().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
        let command_line = cli::parse(&arguments).map_err(|error| StartupError::Usage(error.to_string()))?;
        Ok(Startup::with(command_line, launch, find_home(launch)?, None))
    }

    /// For a program that embeds the server in the interpreter that it runs in.
    pub fn embedded(launch: &ExecCommand, embedder: Embedder) -> Startup {
        Startup::with(CommandLine::empty(), launch, PythonHome { executable: None, program: None }, Some(embedder))
    }

    fn with(command_line: CommandLine, launch: &ExecCommand, home: PythonHome, embedder: Option<Embedder>) -> Startup {
        Startup {
            command_line,
            argv: launch.argv.clone(),
            home,
            surroundings: ProcessEnv::new(launch.cwd.clone()),
            warnings: Vec::new(),
            hooks: Hooks::default(),
            embedder,
        }
    }

    /// What the command line asks for.
    pub fn mode(&self) -> Mode {
        self.command_line.mode
    }

    /// Reads all the layers, and applies what concerns the whole process: environment and working directory.
    ///
    /// # Errors
    /// A sentence about the first thing that is wrong.
    pub fn load(&mut self) -> Result<(Arc<Config>, Hooks), StartupError> {
        self.surroundings.restore().map_err(|reason| config_error(&reason))?;
        let (loaded, objects) = self.read_layers()?;
        let mut config = loaded.config;
        if config.app.is_none() && config.paste.is_none() {
            return Err(config_error("No application module specified."));
        }
        config.chdir = self.surroundings.resolve(&config.chdir);
        config.paste = config.paste.map(|uri| self.surroundings.resolve(uri.as_ref()).display().to_string());
        self.warnings = loaded.warnings;
        if config.reload {
            self.warnings.push("Reloader is on. Use in development only!".to_owned());
        }
        worker_init::identity(&config).map_err(|unknown| blame_identity(&loaded.origins, &unknown))?;
        let entered = self.surroundings.enter(&config);
        entered.map_err(|reason| config_error(&loaded.origins.blame("chdir", reason)))?;
        let hooks = self.find_hooks(&config, objects, &loaded.origins)?;
        Ok((Arc::new(config), hooks))
    }

    /// [`Startup::load`] for HUP. What becomes of the reload is the master's to see; each worker enters the surroundings of its own settings.
    ///
    /// # Errors
    /// The sentence for the log.
    pub fn reload(&mut self) -> Result<(Arc<Config>, Hooks), String> {
        // A config file that hangs can be stopped as at the start; whatever handlers it installs, the master takes its signals back.
        signals::begin_in_master().map_err(|error| error.to_string())?;
        let loaded = self.load();
        signals::started_in_master();
        let (config, hooks) = loaded.map_err(|failure| failure.to_string())?;
        check_access_log(&config)?;
        self.log_warnings();
        Ok((config, hooks))
    }

    /// What the settings gave cause to remark, a sentence each; the next call has nothing more to say.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Logs what the settings gave cause to remark.
    pub fn log_warnings(&mut self) {
        for warning in self.take_warnings() {
            log::warn!("{warning}");
        }
    }

    /// Loads the application in this process.
    ///
    /// # Errors
    /// The traceback or sentence for the user.
    pub fn load_app(&self, config: &Config) -> Result<App, LoadError> {
        let failed = |reason: &dyn fmt::Display| LoadError::App(reason.to_string());
        interpreter::start(&self.home, &self.argv).map_err(|error| failed(&error))?;
        app::extend_path(&self.search_path(config)).map_err(|error| failed(&error))?;
        app::load(config)
    }

    /// Loads the application before the first fork, if the settings ask for it.
    ///
    /// # Errors
    /// The traceback or sentence for the log.
    pub fn preload(&self, config: &Config) -> Result<Option<App>, String> {
        if !config.preload_app {
            return Ok(None);
        }
        interpreter::start(&self.home, &self.argv).map_err(|error| error.to_string())?;
        signals::begin_in_master().map_err(|error| error.to_string())?;
        spew::start_if(config.spew).map_err(|error| error.to_string())?;
        let app = self.load_app(config).map_err(|error| error.to_string())?;
        self.hooks.preloaded(&app).map_err(|raised| raised.to_string())?;
        app::freeze().map_err(|error| error.to_string())?;
        Ok(Some(app))
    }

    /// Reads the certificates that the settings name, if they ask for TLS, in the directory that the settings ask for.
    ///
    /// # Errors
    /// The sentence for the log.
    pub fn load_tls(&self, config: &Config, hooks: &Hooks) -> Result<Option<Tls>, String> {
        if !config.is_tls() {
            return Ok(None);
        }
        // Where the master is depends on what it did last.
        self.surroundings.restore().and_then(|()| self.surroundings.enter(config))?;
        let loaded = match ssl_context::ask(hooks).map_err(|error| error.to_string())? {
            None => Tls::load(config),
            Some(context) => load_context(config, context).map(Some),
        };
        let Some(tls::LoadedCertificates { tls, warnings }) = loaded.map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        Ok(Some(tls))
    }

    /// What a worker needs to run Python.
    pub fn worker_launch(&self) -> worker::PythonSetup {
        let surroundings = self.surroundings.clone();
        let enter = Box::new(move |config: &Config| surroundings.restore().and_then(|()| surroundings.enter(config)));
        let start = self.start().map(Path::to_owned);
        worker::PythonSetup { home: self.home.clone(), argv: self.argv.clone(), start, enter }
    }

    fn search_path(&self, config: &Config) -> Vec<PathBuf> {
        app::search_path(self.start(), config)
    }

    /// The directory of the start, where apps are looked for. gunicorn's `BaseApplication` leaves `sys.path` to the program that embeds it.
    fn start(&self) -> Option<&Path> {
        self.embedder.is_none().then_some(self.surroundings.directory.as_path())
    }

    /// Hooks and loggers may be given by dotted names, to be found where the app is.
    fn find_hooks(
        &mut self,
        config: &Config,
        objects: Option<Objects>,
        origins: &Origins,
    ) -> Result<Hooks, StartupError> {
        // A config without hooks knows nothing of the workers, which a later one is to see again: `self.hooks` stays.
        if !Hooks::are_wanted(config) {
            return Ok(Hooks::default());
        }
        interpreter::start(&self.home, &self.argv).map_err(|error| config_error(&error))?;
        app::extend_path(&self.search_path(config)).map_err(|error| config_error(&error))?;
        self.hooks = Hooks::new(config, objects, origins, &self.hooks).map_err(|error| config_error(&error))?;
        Ok(self.hooks.clone())
    }

    fn read_layers(&self) -> Result<(LoadedSettings, Option<Objects>), StartupError> {
        if let Some(embedder) = &self.embedder {
            return read_embedder(embedder);
        }
        let environment_args = match std::env::var(ARGUMENTS_VARIABLE) {
            Ok(text) => {
                cli::parse_environment(&text).map_err(|error| StartupError::Usage(error.to_string()))?.assignments
            }
            Err(_) => Vec::new(),
        };
        let command_line = self.command_line.assignments.clone();
        let source = settings::config_path(&command_line, &environment_args).map_err(|error| config_error(&error))?;
        let odd_ending = odd_ending(&source);
        let (file, file_origin, objects) = self.read_config_file(source)?;
        let environment = |name: &str| std::env::var(name).ok();
        let app = self.command_line.app.clone();
        let of_app = self.settings_of_app(&command_line, &environment_args)?;
        let sources =
            Sources { app, of_app, file, file_origin, environment_args, command_line, environment: &environment };
        let mut loaded = settings::load(sources).map_err(|error| config_error(&error))?;
        loaded.warnings.extend(odd_ending);
        Ok((loaded, objects))
    }

    /// What the app's source brings along: a name for the process titles, and the logging of a PasteDeploy file.
    fn settings_of_app(
        &self,
        command_line: &[Assignment],
        environment_args: &[Assignment],
    ) -> Result<Vec<Assignment>, StartupError> {
        let mut flags = command_line.iter().chain(environment_args);
        let mut given = Vec::new();
        let mut give = |name, text: String| given.extend(settings::find(name).map(|row| (row, Value::Str(text))));
        if let Some((_, uri)) = flags.find(|(setting, _)| setting.name == "paste") {
            let uri = uri.to_string();
            let file = self.surroundings.resolve(uri.split('#').next().unwrap_or_default().as_ref());
            let text = std::fs::read_to_string(&file).map_err(|error| match error.kind() {
                ErrorKind::NotFound => config_error(&format!("'{}' not found", file.display())),
                _ => config_error(&format!("'{}' cannot be read: {error}", file.display())),
            })?;
            if text.lines().any(|line| line.trim_end() == "[loggers]") {
                give("logconfig", file.display().to_string());
            }
            give("default_proc_name", file.display().to_string());
        } else if let Some(app) = &self.command_line.app {
            give("default_proc_name", app.clone());
        }
        Ok(given)
    }

    fn read_config_file(&self, source: ConfigSource) -> Result<ReadFile, StartupError> {
        match source {
            ConfigSource::None => Ok((Vec::new(), FileOrigin::Data, None)),
            ConfigSource::DataFile(path) => {
                let values = settings::read_file(&path).map_err(|error| config_error(&error))?;
                Ok((values, FileOrigin::Data, None))
            }
            ConfigSource::PythonFile(path) => self.run_config(|| config_file::run_file(&path, is_setting)),
            ConfigSource::PythonModule(name) => self.run_config(|| config_file::run_module(&name, is_setting)),
        }
    }

    fn run_config(&self, run: impl FnOnce() -> Result<ConfigFile, ConfigFileError>) -> Result<ReadFile, StartupError> {
        interpreter::start(&self.home, &self.argv).map_err(|error| config_error(&error))?;
        // A config file may import modules that lie beside it.
        app::extend_path(std::slice::from_ref(&self.surroundings.directory)).map_err(|error| config_error(&error))?;
        let file = run().map_err(StartupError::from)?;
        Ok((file.values, FileOrigin::Python, Some(file.objects)))
    }
}

/// Only what the program has set counts: neither its arguments nor a config file nor `GUNICORN_CMD_ARGS` are the server's.
fn read_embedder(embedder: &Embedder) -> Result<(LoadedSettings, Option<Objects>), StartupError> {
    let file = embedder.read(is_setting)?;
    let sources = Sources {
        app: Some(embedder::APP.to_owned()),
        of_app: Vec::new(),
        file: file.values,
        file_origin: FileOrigin::Python,
        environment_args: Vec::new(),
        command_line: Vec::new(),
        environment: &|name| std::env::var(name).ok(),
    };
    let loaded = settings::load(sources).map_err(|error| config_error(&error))?;
    Ok((loaded, Some(file.objects)))
}

/// What a config file sets, what kind of file it is and, in Python, the objects behind the values.
type ReadFile = (Vec<(String, Value)>, FileOrigin, Option<Objects>);

/// The working directory and environment of the process: as the settings want them, and as they were before.
///
/// Clones are the same surroundings. The master enters them for what it does itself (relative paths, a preloaded app); each worker enters
/// those of its own settings, so that a worker forked after a failed reload is like the others of its generation.
#[derive(Clone)]
struct ProcessEnv {
    /// Where the program was started; found again by path, so that a directory put in its place (a new release) is entered.
    directory: PathBuf,
    /// What `raw_env` has replaced in the environment.
    replaced: Rc<RefCell<BTreeMap<String, Option<OsString>>>>,
}

impl ProcessEnv {
    fn new(directory: PathBuf) -> Self {
        ProcessEnv { directory, replaced: Rc::default() }
    }

    /// A directory as the settings name it, seen from where the program was started.
    fn resolve(&self, directory: &Path) -> PathBuf {
        absolute(&self.directory.join(directory))
    }

    /// Goes back to how the program was started.
    fn restore(&self) -> Result<(), String> {
        for (name, value) in self.replaced.borrow().iter() {
            environment::set(name, value.as_deref());
        }
        if self.replaced.borrow().contains_key("TZ") {
            clock::take_up_time_zone();
        }
        change_directory(&self.directory)
    }

    fn enter(&self, config: &Config) -> Result<(), String> {
        change_directory(&config.chdir)?;
        environment::set("SERVER_SOFTWARE", Some(SERVER_SOFTWARE.as_ref()));
        let mut replaced = self.replaced.borrow_mut();
        for (name, value) in &config.raw_env {
            replaced.entry(name.clone()).or_insert_with(|| std::env::var_os(name));
            environment::set(name, Some(value.as_ref()));
        }
        if replaced.contains_key("TZ") {
            clock::take_up_time_zone();
        }
        Ok(())
    }
}

/// TLS as the `ssl_context` hook asks for it.
fn load_context(config: &Config, mut context: ContextTerms) -> Result<tls::LoadedCertificates, tls::Error> {
    context.certificates.extend_from_slice(&config.tls_certificates);
    let authorities = tls::Pem { name: "ssl_context".to_owned(), text: context.authorities };
    let authorities = Some(authorities).filter(|pem| !pem.text.is_empty());
    let terms = tls::TlsOptions {
        cert_reqs: context.cert_reqs,
        ciphers: context.ciphers,
        tls12: context.tls12,
        tls13: context.tls13,
    };
    Tls::assemble(config, || Ok((tls::CertificateBundle::of(&context.certificates, authorities)?, terms)))
}

fn change_directory(path: &Path) -> Result<(), String> {
    std::env::set_current_dir(path).map_err(|error| format!("can't chdir to '{}': {error}", path.display()))
}

/// Points the error log where `config` says, and makes the logger that its `hooks` are given.
///
/// # Errors
/// The sentence for the user.
pub fn configure_logging(config: &Config, hooks: &Hooks) -> Result<(), String> {
    let settings = LogSettings {
        errorlog: config.errorlog.clone(),
        level: config.loglevel.clone(),
        json: config.log_format == LogFormat::Json,
        capture_output: config.capture_output,
        owner: log_owner(config)?,
    };
    logging::init(&settings).map_err(|error| format!("Error: {error}"))?;
    hooks.open_log(config).map_err(|error| format!("Error: {error}"))
}

/// Makes sure that the workers will be able to write the access log, and that it is theirs.
///
/// # Errors
/// The sentence for the user.
pub fn check_access_log(config: &Config) -> Result<(), String> {
    let Some(target) = &config.accesslog else { return Ok(()) };
    AccessLog::open(target, AccessFormat::compile(""), log_owner(config)?)
        .map(|_| ())
        .map_err(|error| format!("Error: {error}"))
}

fn log_owner(config: &Config) -> Result<Option<(u32, u32)>, String> {
    if config.user.is_none() && config.group.is_none() {
        return Ok(None);
    }
    worker_init::identity(config).map(Some).map_err(|error| format!("Error: {error}"))
}

/// What to say of a config file that is read as Python though its name does not say so.
fn odd_ending(source: &ConfigSource) -> Option<String> {
    let ConfigSource::PythonFile(path) = source else { return None };
    let is_python = path.extension().is_some_and(|ending| ending == "py" || ending == "pyc");
    (!is_python).then(|| format!("the config file '{}' is read as Python, but does not end in .py", path.display()))
}

/// Whether a config file's global of that name is meant as a setting.
fn is_setting(name: &str) -> bool {
    settings::find(name).is_some()
}

fn blame_identity(origins: &Origins, unknown: &user::Unknown) -> StartupError {
    let name = match unknown {
        user::Unknown::User(_) => "user",
        user::Unknown::Group(_) => "group",
    };
    config_error(&origins.blame(name, unknown.to_string()))
}

fn config_error(reason: &(impl fmt::Display + ?Sized)) -> StartupError {
    StartupError::Config(format!("Error: {reason}"))
}

/// Where the interpreter will live. One that runs already is at home.
fn find_home(launch: &ExecCommand) -> Result<PythonHome, StartupError> {
    if interpreter::is_running() {
        return Ok(PythonHome { executable: None, program: None });
    }
    let variable = |name: &str| std::env::var(name).ok();
    python_home::find(&find_program(&launch.program), variable).map_err(|error| config_error(&error))
}

/// The file behind the program's name, to see whether it lies in a virtualenv.
fn find_program(name: &OsString) -> PathBuf {
    let name = PathBuf::from(name);
    if name.components().count() > 1 {
        return name;
    }
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories)
        .map(|directory| directory.join(&name))
        .find(|path| path.is_file())
        .unwrap_or(name)
}
