//! The working directory and environment of the process: as the settings want them, and as they
//! were at the start.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::python::app::absolute;
use crate::python::environ::SERVER_SOFTWARE;
use crate::python::environment;
use crate::settings::Config;
use crate::sys::clock;

/// The directory and environment of the start, and what settings have replaced of them. Clones
/// share what was replaced. The master enters the environment of a generation for what it does
/// itself (relative paths, a preloaded app). Each worker enters that of its own settings, so that a
/// worker that is forked after a failed reload is like the others of its generation.
#[derive(Clone)]
pub(super) struct ProcessEnv {
    /// Where the program was started. It is entered by path, so that a directory put in its place
    /// (a new release) is found.
    pub directory: PathBuf,
    /// The variables that `raw_env` has set, with the values they had before.
    replaced: Rc<RefCell<BTreeMap<String, Option<OsString>>>>,
    /// The working directory to which a preloaded application has changed.
    of_app: Rc<RefCell<Option<PathBuf>>>,
}

impl ProcessEnv {
    pub fn new(directory: PathBuf) -> Self {
        ProcessEnv { directory, replaced: Rc::default(), of_app: Rc::default() }
    }

    /// A path from the settings, made absolute from the directory of the start.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        absolute(&self.directory.join(path))
    }

    /// Goes back to the environment of the start, and then enters directory and environment of
    /// `config`. The start's directory need not be there any more.
    pub fn reenter(&self, config: &Config) -> Result<(), String> {
        self.restore_variables();
        self.enter(config)
    }

    /// Notes the present working directory, if it is another than `before` the application was
    /// preloaded.
    pub fn note_app(&self, before: Option<PathBuf>) {
        let now = std::env::current_dir().ok();
        *self.of_app.borrow_mut() = if now == before { None } else { now };
    }

    /// A preloaded application finds the working directory to which it has changed, as under
    /// gunicorn, unless it is gone.
    pub fn follow_app(&self) {
        if let Some(directory) = &*self.of_app.borrow() {
            let _ = change_directory(directory);
        }
    }

    /// Goes back to how the program was started.
    pub fn restore(&self) -> Result<(), String> {
        self.restore_variables();
        change_directory(&self.directory)
    }

    fn restore_variables(&self) {
        for (name, value) in self.replaced.borrow().iter() {
            environment::set(name, value.as_deref());
        }
        if self.replaced.borrow().contains_key("TZ") {
            clock::take_up_time_zone();
        }
    }

    /// Enters the working directory of `config`, and sets its variables.
    pub fn enter(&self, config: &Config) -> Result<(), String> {
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

/// A variable of the environment that `config` makes. `raw_env` comes before the process's own
/// environment: a reload that failed may have left its variables there.
pub fn variable(config: &Config, name: &str) -> Option<String> {
    let given = config.raw_env.iter().rev().find(|(given, _)| given == name);
    given.map(|(_, value)| value.clone()).or_else(|| std::env::var(name).ok())
}

fn change_directory(path: &Path) -> Result<(), String> {
    std::env::set_current_dir(path).map_err(|error| format!("can't chdir to '{}': {error}", path.display()))
}
