//! The steps of the start: layers of settings, config file, hooks, certificates, application. HUP
//! runs them again.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;

use crate::files;
use crate::python::app::{self, App, LoadError};
use crate::python::config_file::{self, ConfigFile, ConfigFileError, Objects};
use crate::python::embedder::{self, Embedder};
use crate::python::hooks::{self, Hooks};
use crate::python::ssl_context::{self, ContextTerms};
use crate::python::{Exit, dirty, foreign_worker, greenlets, signals, spew};
use crate::service;
use crate::settings::{
    self, Assignment, Config, ConfigSource, FileOrigin, LoadedSettings, Origins, Sources, Value, WorkerClass,
};
use crate::sys::user;
use crate::tls::{self, Tls};

use super::autodetect;
use super::cli::{self, CommandLine};
use super::exec_command::ExecCommand;
use super::logs::check_access_log;
use super::process_env::variable;
use super::python_setup::PythonSetup;

/// Flags for every start, as gunicorn reads them.
const ARGUMENTS_VARIABLE: &str = "GUNICORN_CMD_ARGS";

/// Why the program does not start: what to print, once.
#[derive(Debug)]
pub enum StartupError {
    /// The command line cannot be read.
    Usage(String),
    /// The settings cannot be used.
    Config(String),
    /// The config file has called `sys.exit()`.
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

/// How the program was started, and what a reload needs of that.
pub struct Startup {
    command_line: CommandLine,
    exec_command: ExecCommand,
    python: PythonSetup,
    warnings: Vec<String>,
    /// What `autodetect` has found.
    found: Option<String>,
    /// The hooks of the last settings that named any.
    hooks: Hooks,
    /// The program that settings and app come from, instead of command line and config file.
    embedder: Option<Embedder>,
}

impl Startup {
    /// Reads the command line of `exec_command`.
    ///
    /// # Errors
    /// The command line cannot be read.
    pub fn read(exec_command: &ExecCommand) -> Result<CommandLine, StartupError> {
        let arguments: Vec<String> =
            exec_command.argv.iter().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
        cli::parse(&arguments).map_err(|error| StartupError::Usage(error.to_string()))
    }

    /// The start of a server, with the command line that was read.
    ///
    /// # Errors
    /// The virtualenv that it should serve with cannot be used.
    pub fn new(exec_command: ExecCommand, command_line: CommandLine) -> Result<Startup, StartupError> {
        let python = PythonSetup::of_program(&exec_command).map_err(|error| config_error(&error))?;
        Ok(Startup::with(command_line, exec_command, python, None))
    }

    /// For a program that embeds the server in the interpreter that it runs in.
    pub fn embedded(exec_command: ExecCommand, embedder: Embedder) -> Startup {
        let python = PythonSetup::embedded(&exec_command);
        Startup::with(CommandLine::empty(), exec_command, python, Some(embedder))
    }

    fn with(
        command_line: CommandLine,
        exec_command: ExecCommand,
        python: PythonSetup,
        embedder: Option<Embedder>,
    ) -> Startup {
        Startup {
            command_line,
            exec_command,
            python,
            warnings: Vec::new(),
            found: None,
            hooks: Hooks::default(),
            embedder,
        }
    }

    /// How to start the program once more.
    pub fn exec_command(&self) -> &ExecCommand {
        &self.exec_command
    }

    /// What a worker needs to run Python.
    pub fn python_setup(&self) -> PythonSetup {
        self.python.clone()
    }

    /// Reads all the layers, and applies what concerns the whole process: environment and working
    /// directory.
    ///
    /// # Errors
    /// A sentence about the first thing that is wrong.
    pub fn load(&mut self) -> Result<(Arc<Config>, Hooks), StartupError> {
        self.python.process_env.restore().map_err(|reason| config_error(&reason))?;
        let (loaded, objects) = self.read_layers()?;
        let mut config = loaded.config;
        let process_env = &self.python.process_env;
        config.chdir = process_env.resolve(&config.chdir);
        config.logger_is_patched = hooks::logger_is_patched();
        self.found = autodetect(&mut config)?;
        config.paste = config.paste.map(|uri| process_env.resolve(uri.as_ref()).display().to_string());
        self.warnings = loaded.warnings;
        if config.reload {
            self.warnings.push("Reloader is on. Use in development only!".to_owned());
        }
        service::identity(&config).map_err(|unknown| blame_identity(&loaded.origins, &unknown))?;
        let entered = process_env.enter(&config);
        entered.map_err(|reason| config_error(&loaded.origins.blame("chdir", reason)))?;
        if config.worker_class == WorkerClass::Gevent {
            self.find_gevent(&config)?;
        }
        if config.dirty.is_on() {
            self.find_dirty(&config)?;
        }
        files::check(&config).map_err(|(name, reason)| config_error(&loaded.origins.blame(name, reason)))?;
        let hooks = self.find_hooks(&config, objects, &loaded.origins)?;
        Ok((Arc::new(config), hooks))
    }

    /// [`Startup::load`] for HUP. The process stays in the environment of the new settings whether
    /// the reload succeeds or not; each worker enters that of its own settings.
    ///
    /// # Errors
    /// The sentence for the log.
    pub fn reload(&mut self) -> Result<(Arc<Config>, Hooks), String> {
        // A config file that hangs can be stopped as at the start. The master then takes back the
        // signals for which the file has installed handlers.
        signals::begin_reload_in_master().map_err(|error| error.to_string())?;
        let loaded = self.load();
        signals::started_in_master();
        let (config, hooks) = loaded.map_err(|failure| failure.to_string())?;
        check_access_log(&config)?;
        self.log_warnings();
        Ok((config, hooks))
    }

    /// What `autodetect` has found, in a sentence.
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }

    /// The warnings about the settings, a sentence each; the next call returns none.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Logs the warnings about the settings, and what `autodetect` has found.
    pub fn log_warnings(&mut self) {
        if let Some(found) = &self.found {
            log::info!("{found}");
        }
        for warning in self.take_warnings() {
            log::warn!("{warning}");
        }
    }

    /// Loads the application in this process.
    ///
    /// # Errors
    /// The traceback or sentence for the user.
    pub fn load_app(&self, config: &Config) -> Result<App, LoadError> {
        self.python.start_interpreter().map_err(|error| not_loaded(&error))?;
        self.python.extend_path(config).map_err(|error| not_loaded(&error))?;
        app::load(config)
    }

    /// Loads the application to see whether it can be loaded: under gevent's patch where the worker
    /// class is gevent, as in a worker.
    ///
    /// # Errors
    /// The traceback or sentence for the user.
    pub fn try_app(&self, config: &Config) -> Result<App, LoadError> {
        if config.worker_class == WorkerClass::Gevent {
            self.python.start_interpreter().map_err(|error| not_loaded(&error))?;
            greenlets::patch().map_err(|error| not_loaded(&error))?;
        }
        self.load_app(config)
    }

    /// Checks that the worker class can be run, if it is a class of Python code. Call it after
    /// [`Startup::load_app`].
    ///
    /// # Errors
    /// The traceback or sentence for the user.
    pub fn check_worker_class(&self, config: &Config) -> Result<(), String> {
        match &config.worker_class {
            WorkerClass::Foreign(name) => foreign_worker::check(name).map_err(|error| error.to_string()),
            _ => Ok(()),
        }
    }

    /// Loads the application before the first fork, if the settings ask for it.
    ///
    /// # Errors
    /// The traceback or sentence for the log.
    pub fn preload(&self, config: &Config) -> Result<Option<App>, String> {
        if !config.preload_app {
            return Ok(None);
        }
        self.python.start_interpreter().map_err(|error| error.to_string())?;
        signals::begin_in_master().map_err(|error| error.to_string())?;
        spew::start_if(config.spew).map_err(|error| error.to_string())?;
        if config.worker_class == WorkerClass::Gevent {
            // In the workers the patch would come too late for what the application has imported by
            // name.
            greenlets::patch().map_err(|error| error.to_string())?;
            log::info!("Patched the standard library for gevent, in the master: preload_app loads the app there.");
        }
        let directory = std::env::current_dir().ok();
        let app = self.load_app(config).map_err(|error| error.to_string())?;
        self.hooks.preloaded(&app).map_err(|raised| raised.to_string())?;
        self.python.process_env.note_app(directory);
        app::freeze().map_err(|error| error.to_string())?;
        Ok(Some(app))
    }

    /// Reads the certificates that the settings name, in the directory that the settings ask for.
    /// `None` if the settings ask for no TLS.
    ///
    /// # Errors
    /// The sentence for the log.
    pub fn load_tls(&self, config: &Config, hooks: &Hooks) -> Result<Option<Tls>, String> {
        if !config.is_tls() {
            return Ok(None);
        }
        // A failed reload may have left the master in another directory.
        self.python.enter(config)?;
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

    /// Checks that gevent is installed. As under gunicorn, the master imports gevent, and patches
    /// nothing yet.
    fn find_gevent(&self, config: &Config) -> Result<(), StartupError> {
        self.python.start_interpreter().map_err(|error| config_error(&error))?;
        self.python.extend_path(config).map_err(|error| config_error(&error))?;
        greenlets::require().map_err(|sentence| config_error(&sentence))
    }

    /// Checks that gunicorn is installed, because its code runs dirty workers.
    fn find_dirty(&self, config: &Config) -> Result<(), StartupError> {
        self.python.start_interpreter().map_err(|error| config_error(&error))?;
        self.python.extend_path(config).map_err(|error| config_error(&error))?;
        dirty::require().map_err(|sentence| config_error(&sentence))
    }

    /// Finds the hooks and loggers of the settings. They may be dotted names, which are searched
    /// for where the app is.
    fn find_hooks(
        &mut self,
        config: &Config,
        objects: Option<Objects>,
        origins: &Origins,
    ) -> Result<Hooks, StartupError> {
        // Settings without hooks leave `self.hooks` as it is: it knows the workers, which hooks of
        // a later reload must see again.
        if !Hooks::are_wanted(config) {
            return Ok(Hooks::default());
        }
        self.python.start_interpreter().map_err(|error| config_error(&error))?;
        self.python.extend_path(config).map_err(|error| config_error(&error))?;
        self.hooks = Hooks::new(config, objects, origins, &self.hooks).map_err(|error| config_error(&error))?;
        Ok(self.hooks.clone())
    }

    fn read_layers(&self) -> Result<(LoadedSettings, Option<Objects>), StartupError> {
        if let Some(embedder) = &self.embedder {
            return self.read_embedder(embedder);
        }
        let environment_args = match std::env::var_os(ARGUMENTS_VARIABLE) {
            Some(text) => {
                let parsed = cli::parse_environment(&text.to_string_lossy());
                parsed.map_err(|error| StartupError::Usage(error.to_string()))?.assignments
            }
            None => Vec::new(),
        };
        let command_line = self.command_line.assignments.clone();
        let source = settings::config_path(&command_line, &environment_args).map_err(|error| config_error(&error))?;
        let odd_ending = odd_ending(&source);
        let (file, file_origin, objects) = self.read_config_file(source)?;
        let environment = |name: &str| self.exec_command.variable(name);
        let app = self.command_line.app.clone();
        let of_app = self.settings_of_app(&command_line, &environment_args)?;
        let sources =
            Sources { app, of_app, file, file_origin, environment_args, command_line, environment: &environment };
        let mut loaded = settings::load(sources).map_err(|error| config_error(&error))?;
        loaded.warnings.extend(odd_ending);
        Ok((loaded, objects))
    }

    /// The settings of a program that embeds the server are those that the program has set. Its
    /// arguments, a config file and `GUNICORN_CMD_ARGS` are not read.
    fn read_embedder(&self, embedder: &Embedder) -> Result<(LoadedSettings, Option<Objects>), StartupError> {
        let file = embedder.read(is_setting)?;
        let sources = Sources {
            app: Some(embedder::APP.to_owned()),
            of_app: Vec::new(),
            file: file.values,
            file_origin: FileOrigin::Python,
            environment_args: Vec::new(),
            command_line: Vec::new(),
            environment: &|name| self.exec_command.variable(name),
        };
        let loaded = settings::load(sources).map_err(|error| config_error(&error))?;
        Ok((loaded, Some(file.objects)))
    }

    /// The settings that follow from the app: a name for the process titles, and the logging of a
    /// PasteDeploy file.
    fn settings_of_app(
        &self,
        command_line: &[Assignment],
        environment_args: &[Assignment],
    ) -> Result<Vec<Assignment>, StartupError> {
        let flag = |name: &str| command_line.iter().chain(environment_args).find(|(setting, _)| setting.name == name);
        let mut given = Vec::new();
        let mut give = |name, text: String| given.extend(settings::find(name).map(|row| (row, Value::Str(text))));
        if let Some((_, uri)) = flag("paste") {
            let uri = uri.to_string();
            let file = self.python.process_env.resolve(uri.split('#').next().unwrap_or_default().as_ref());
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
        } else if let Some((_, path)) = flag("wsgi_file") {
            give("default_proc_name", path.to_string());
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
        self.python.start_interpreter().map_err(|error| config_error(&error))?;
        // A config file may import modules that lie in the directory of the start.
        app::extend_path(std::slice::from_ref(&self.python.process_env.directory))
            .map_err(|error| config_error(&error))?;
        let file = run().map_err(StartupError::from)?;
        Ok((file.values, FileOrigin::Python, Some(file.objects)))
    }
}

fn not_loaded(reason: &dyn fmt::Display) -> LoadError {
    LoadError::App(reason.to_string())
}

/// Finds the app if none is named and `autodetect` is on, and returns what was found.
///
/// # Errors
/// There is no app.
fn autodetect(config: &mut Config) -> Result<Option<String>, StartupError> {
    if config.app.is_some() || config.paste.is_some() {
        return Ok(None);
    }
    if !config.autodetect {
        return Err(config_error("No application module specified."));
    }
    let found = autodetect::find(&config.chdir, |name| variable(config, name));
    let found = found.map_err(|reason| config_error(&format!("autodetect: {reason}")))?;
    (config.app, config.chdir) = (Some(found.app), found.chdir);
    config.pythonpath.extend(found.pythonpath);
    Ok(Some(found.sentence))
}

/// What a config file sets, what kind of file it is and, in Python, the objects behind the values.
type ReadFile = (Vec<(String, Value)>, FileOrigin, Option<Objects>);

/// Makes TLS as the `ssl_context` hook asks for it.
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

/// The warning about a config file that is read as Python though its name does not end so.
fn odd_ending(source: &ConfigSource) -> Option<String> {
    let ConfigSource::PythonFile(path) = source else { return None };
    let is_python = path.extension().is_some_and(|ending| ending == "py" || ending == "pyc");
    (!is_python).then(|| format!("the config file '{}' is read as Python, but does not end in .py", path.display()))
}

/// Whether a global of that name in a config file is a setting.
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
