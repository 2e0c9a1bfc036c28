//! How a process gets ready to run Python code: its directory and environment, the interpreter, and
//! `sys.path`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::python::PyErr;
use crate::python::app;
use crate::python::interpreter::{self, StartError};
use crate::python::python_home::{self, HomeError, PythonHome};
use crate::settings::Config;

use super::exec_command::ExecCommand;
use super::process_env::ProcessEnv;

/// What the interpreter needs besides settings. The master uses it, and each worker a clone of it.
#[derive(Clone)]
pub struct PythonSetup {
    home: PythonHome,
    /// `sys.argv`
    argv: Vec<OsString>,
    /// The directory of the start, which stays on `sys.path`. `None` if a program embeds the
    /// server: gunicorn's `BaseApplication` leaves `sys.path` to that program.
    start: Option<PathBuf>,
    pub(super) process_env: ProcessEnv,
}

impl PythonSetup {
    /// The setup of a program that was started as `command`, in the virtualenv that it lies in or
    /// that is active.
    ///
    /// # Errors
    /// The virtualenv cannot be used, or is of another Python than the program is linked to.
    pub(super) fn of_program(command: &ExecCommand) -> Result<PythonSetup, HomeError> {
        Ok(PythonSetup {
            home: find_home(command)?,
            argv: command.argv.clone(),
            start: Some(command.cwd.clone()),
            process_env: ProcessEnv::new(command.cwd.clone()),
        })
    }

    /// The file behind the name by which the server was started.
    pub(super) fn program_file(command: &ExecCommand) -> PathBuf {
        find_program(&command.program)
    }

    /// The setup of a server that runs inside the interpreter of another program.
    pub(super) fn embedded(command: &ExecCommand) -> PythonSetup {
        PythonSetup {
            home: RUNNING,
            argv: command.argv.clone(),
            start: None,
            process_env: ProcessEnv::new(command.cwd.clone()),
        }
    }

    /// Puts the process into the working directory and environment that `config` asks for.
    ///
    /// # Errors
    /// A sentence about the directory.
    pub fn enter(&self, config: &Config) -> Result<(), String> {
        self.process_env.reenter(config)
    }

    /// In a worker: goes to the working directory to which a preloaded application has changed.
    pub fn follow_app(&self) {
        self.process_env.follow_app();
    }

    /// Starts the interpreter, unless it runs.
    ///
    /// # Errors
    /// CPython's reason.
    pub fn start_interpreter(&self) -> Result<(), StartError> {
        interpreter::start(&self.home, &self.argv)
    }

    /// Puts the directories in which modules of the app are searched for in front of `sys.path`.
    ///
    /// # Errors
    /// As [`app::extend_path`].
    pub fn extend_path(&self, config: &Config) -> Result<(), PyErr> {
        app::extend_path(&app::search_path(self.start.as_deref(), config))
    }
}

/// The home of an interpreter that runs already.
const RUNNING: PythonHome = PythonHome { executable: None, program: None, is_virtual: false };

fn find_home(command: &ExecCommand) -> Result<PythonHome, HomeError> {
    if interpreter::is_running() {
        return Ok(RUNNING);
    }
    python_home::find(&find_program(&command.program), |name| std::env::var(name).ok())
}

/// The file behind the program's name, to see whether it lies in a virtualenv.
fn find_program(name: &OsStr) -> PathBuf {
    let name = Path::new(name);
    if name.components().count() > 1 {
        return name.to_owned();
    }
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| name.to_owned())
}
