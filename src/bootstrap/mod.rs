//! From a command line to settings in force: what happens before there is a master, and again at
//! each reload.
//!
//! [`startup`] runs the steps in order: it reads the layers of settings, runs the config file, and
//! puts the process where the settings want it. It needs the command line, the settings and Python
//! together, which no layer below may name. It must not know how the master supervises nor how a
//! worker serves: both call it by name.

mod about;
mod autodetect;
pub mod cli;
mod exec_command;
mod foreign_class;
mod logs;
mod process_env;
mod python_setup;
mod startup;

pub use self::about::about;
pub use self::exec_command::ExecCommand;
pub use self::foreign_class::warning as foreign_class_warning;
pub use self::logs::{check_access_log, configure_logging};
pub use self::process_env::variable;
pub use self::python_setup::PythonSetup;
pub use self::startup::{Startup, StartupError};
