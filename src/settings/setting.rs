//! The types of a row of the table: plain data.

use super::config::Config;
use super::value::{Value, ValueError};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in a config file, as gunicorn names it.
    pub name: &'static str,
    /// The chapter of the reference that describes it.
    pub section: Section,
    /// Its flags on the command line, in the order that help shows them; empty: config file only.
    pub flags: &'static [&'static str],
    /// The name of its value in help; empty for a switch.
    pub meta: &'static str,
    /// The form of its values.
    pub kind: Kind,
    /// Its value if no source gives one.
    pub default: Default,
    /// Where its value is stored, or why it is not.
    pub store: Store,
    /// The first line is one sentence for help, the rest Markdown for the reference.
    pub doc: &'static str,
}

impl Setting {
    /// Its value in `config`; None for a setting that is not supported.
    pub fn value_in(&self, config: &Config) -> Value {
        match &self.store {
            Store::Field { get, .. } => get(config),
            Store::Hook => config.hooks.get(self.name).cloned().map_or(Value::None, Value::Object),
            Store::Missing(_) => Value::None,
        }
    }

    /// The first line of the doc.
    pub fn summary(&self) -> &'static str {
        self.doc.lines().next().unwrap_or_default()
    }
}

/// The chapters of the reference, in their order; gunicorn's, and two of our own, about HTTP and
/// files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Where settings and app come from.
    ConfigFile,
    /// Addresses.
    ServerSocket,
    /// Workers and their life.
    WorkerProcesses,
    /// Limits against hostile clients.
    Security,
    /// Tools for developers.
    Debugging,
    /// The process and its surroundings.
    ServerMechanics,
    /// How requests are read, and which peers are trusted.
    Http,
    /// Files that the server sends by itself.
    StaticFiles,
    /// TLS on the server's listeners.
    Tls,
    /// Logs.
    Logging,
    /// Looking into the server.
    Observing,
    /// Process titles.
    ProcessNaming,
    /// Server hooks.
    ServerHooks,
    /// A pool of processes for long work, and its hooks.
    DirtyWorkers,
    /// Settings of gunicorn that this server does not have.
    NotSupported,
}

impl Section {
    /// The chapters with settings that the server has, in order.
    pub const ALL: [Section; 14] = [
        Section::ConfigFile,
        Section::ServerSocket,
        Section::WorkerProcesses,
        Section::Security,
        Section::Debugging,
        Section::ServerMechanics,
        Section::Http,
        Section::StaticFiles,
        Section::Tls,
        Section::Logging,
        Section::Observing,
        Section::ProcessNaming,
        Section::ServerHooks,
        Section::DirtyWorkers,
    ];

    /// The chapter's heading.
    pub fn title(self) -> &'static str {
        match self {
            Section::ConfigFile => "Config file",
            Section::ServerSocket => "Server socket",
            Section::WorkerProcesses => "Worker processes",
            Section::Security => "Security",
            Section::Debugging => "Debugging",
            Section::ServerMechanics => "Server mechanics",
            Section::Http => "HTTP",
            Section::StaticFiles => "Static files",
            Section::Tls => "TLS",
            Section::Logging => "Logging",
            Section::Observing => "Metrics and control",
            Section::ProcessNaming => "Process naming",
            Section::ServerHooks => "Server hooks",
            Section::DirtyWorkers => "Dirty workers",
            Section::NotSupported => "Not supported yet",
        }
    }
}

/// The form of a setting's values, and so how its flag is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One text.
    Text,
    /// A whole number; on the command line a decimal one, as Python's `int()`.
    Int,
    /// A whole number, or the word `auto`.
    IntOrAuto,
    /// File mode bits, where a leading zero means octal.
    Mode,
    /// A list of texts; the flag may be repeated.
    List,
    /// A list of texts separated by commas; the last flag counts.
    CommaList,
    /// A switch: the flag means true.
    Switch,
    /// A switch that is on by default: the flag means false.
    SwitchOff,
    /// A text that may be left out after the flag, which then means `bare`.
    OptionalText {
        /// The value of the flag without a text.
        bare: &'static str,
    },
    /// Names and values; config file only.
    Map,
    /// A callable, or the dotted name to import it by; config file only.
    Hook,
}

/// The value of a setting that no source sets. It passes through the same setter as a user's.
#[derive(Debug, Clone, Copy)]
pub enum Default {
    /// None.
    Unset,
    /// On or off.
    Bool(bool),
    /// A text, as a user types it.
    Text(&'static str),
    /// Names and values.
    Map(&'static [(&'static str, &'static str)]),
    /// From the environment.
    Environment {
        /// The variable's name.
        variable: &'static str,
        /// A prefix for its value.
        prefix: &'static str,
        /// The value when there is no such variable.
        otherwise: &'static str,
    },
}

/// Stores a value in its field; does nothing else.
pub type Setter = fn(&mut Config, &Value) -> Result<(), ValueError>;

/// Shows a field as a value.
pub type Getter = fn(&Config) -> Value;

/// Where a setting is stored.
#[derive(Debug)]
pub enum Store {
    /// In a field of [`Config`].
    Field {
        /// Stores a value.
        set: Setter,
        /// Returns the value.
        get: Getter,
    },
    /// In [`Config::hooks`], under its name.
    Hook,
    /// Nowhere: gunicorn has the setting, this server does not.
    Missing(Missing),
}

/// What to do about an unsupported setting.
#[derive(Debug)]
pub struct Missing {
    /// Values, as Python prints them, that the server satisfies anyway, such as gunicorn's default.
    /// `*` is every value.
    pub harmless: &'static [&'static str],
    /// Why it is not supported, as a sentence without a full stop.
    pub reason: &'static str,
    /// What happens with any other value.
    pub severity: Severity,
}

/// How much it matters that a setting is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The server cannot do what is asked, and does not start.
    Refuse,
    /// The server does its work without it: it warns and starts.
    Warn,
}
