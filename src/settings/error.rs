//! Why the settings cannot be used, in sentences for the user.

use std::fmt;
use std::path::PathBuf;

use super::table::{find, is_gunicorns};
use super::value::ValueError;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueOrigin {
    /// The default in the table, or the variable of the environment that it names.
    Default {
        /// The variable, if the value comes from the environment.
        variable: Option<&'static str>,
    },
    /// The config file.
    File,
    /// `GUNICORN_CMD_ARGS`.
    EnvironmentArguments,
    /// The command line.
    CommandLine,
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueOrigin::Default { variable } => variable.unwrap_or("default"),
            ValueOrigin::File => "config file",
            ValueOrigin::EnvironmentArguments => "GUNICORN_CMD_ARGS",
            ValueOrigin::CommandLine => "command line",
        })
    }
}

/// Why the settings cannot be used. Each displays as one sentence, without "Error:" and full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A value that its setting does not accept.
    InvalidValue {
        /// The setting.
        name: &'static str,
        /// What is wrong with which part of it.
        problem: ValueError,
        /// Where the value comes from.
        origin: ValueOrigin,
    },
    /// A setting of gunicorn that this server does not have.
    NotSupported {
        /// The setting.
        name: &'static str,
        /// The value that was given, as Python shows it.
        value: String,
        /// Why it is not supported.
        reason: &'static str,
        /// Where the value comes from.
        origin: ValueOrigin,
    },
    /// A well-formed value that names something missing or unusable.
    Unusable {
        /// The setting.
        name: &'static str,
        /// A sentence that names the value.
        reason: String,
        /// Where the value comes from.
        origin: ValueOrigin,
    },
    /// The config file does not exist.
    MissingFile {
        /// Its path, as given.
        path: PathBuf,
    },
    /// The config file exists, but cannot be read.
    UnreadableFile {
        /// Its path, as given.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::InvalidValue { name, problem, origin } => {
                write!(f, "invalid value for '{name}': {problem} ({origin}{})", hint(name, *origin))
            }
            Error::NotSupported { name, value, reason, origin } => {
                write!(f, "{reason} ('{name}' is {value}) ({origin})")
            }
            Error::Unusable { name, reason, origin } => {
                write!(f, "invalid value for '{name}': {reason} ({origin})")
            }
            Error::MissingFile { path } => write!(f, "'{}' doesn't exist", path.display()),
            Error::UnreadableFile { path, reason } => {
                write!(f, "the config file '{}' cannot be read: {reason}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {}

/// A config file that was written for gunicorn may use the name of a setting of ours for a variable
/// of its own.
fn hint(name: &str, origin: ValueOrigin) -> &'static str {
    let is_own = find(name).is_some_and(|setting| !is_gunicorns(setting));
    if is_own && origin == ValueOrigin::File { "; gunicorn has no such setting" } else { "" }
}
