//! What one row of the table says. Plain data: a row does nothing by itself.

use super::config::Config;
use super::value::{Value, ValueError};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in a config file, as gunicorn names it.
    pub name: &'static str,
    /// The chapter it stands in.
    pub section: Section,
    /// Its flags on the command line, in the order that help shows them; empty: config file only.
    pub flags: &'static [&'static str],
    /// What help calls its value; empty for a switch.
    pub meta: &'static str,
    /// What its values look like.
    pub kind: Kind,
    /// Its value while nobody gives one.
    pub default: Default,
    /// Where it is kept, or why it is not.
    pub store: Store,
    /// First line: one sentence for help. Rest: the reference, Markdown.
    pub doc: &'static str,
}

impl Setting {
    /// What `config` says of it, as a value; None for a setting that is not supported.
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

/// The chapters of the reference, in their order; gunicorn's, and one of our own about HTTP.
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
    /// How requests are read and whom they are believed.
    Http,
    /// Encryption on the server's own sockets.
    Tls,
    /// Logs.
    Logging,
    /// Process titles.
    ProcessNaming,
    /// Functions of the operator's.
    ServerHooks,
    /// Settings that only gunicorn has.
    NotSupported,
}

impl Section {
    /// The chapters that have settings of ours, in order.
    pub const ALL: [Section; 11] = [
        Section::ConfigFile,
        Section::ServerSocket,
        Section::WorkerProcesses,
        Section::Security,
        Section::Debugging,
        Section::ServerMechanics,
        Section::Http,
        Section::Tls,
        Section::Logging,
        Section::ProcessNaming,
        Section::ServerHooks,
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
            Section::Tls => "TLS",
            Section::Logging => "Logging",
            Section::ProcessNaming => "Process naming",
            Section::ServerHooks => "Server hooks",
            Section::NotSupported => "Not supported yet",
        }
    }
}

/// What the values of a setting look like, and so how its flag is read.
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
    /// A list of texts written with commas; the flag counts once.
    CommaList,
    /// A switch: the flag means true.
    Switch,
    /// A switch that is on by itself: the flag means false.
    SwitchOff,
    /// A text that the flag may leave out, which then means `bare`.
    OptionalText {
        /// The value of the flag alone.
        bare: &'static str,
    },
    /// Names and values; config file only.
    Map,
    /// A callable, or where to import it from; config file only.
    Hook,
}

/// The value of a setting that nobody sets. It passes through the same setter as a user's.
#[derive(Debug, Clone, Copy)]
pub enum Default {
    /// None.
    Unset,
    /// On or off.
    Bool(bool),
    /// As it would be typed.
    Text(&'static str),
    /// Names and values.
    Map(&'static [(&'static str, &'static str)]),
    /// From the environment.
    Environment {
        /// The variable's name.
        variable: &'static str,
        /// What to put in front of its value.
        prefix: &'static str,
        /// The value when there is no such variable.
        otherwise: &'static str,
    },
}

/// Stores a value in its field; does nothing else.
pub type Setter = fn(&mut Config, &Value) -> Result<(), ValueError>;

/// Shows a field as a value.
pub type Getter = fn(&Config) -> Value;

/// Where a setting is kept.
#[derive(Debug)]
pub enum Store {
    /// In a field of [`Config`].
    Field {
        /// In.
        set: Setter,
        /// Out.
        get: Getter,
    },
    /// In [`Config::hooks`], under its name.
    Hook,
    /// Nowhere: gunicorn has it, this server does not.
    Missing(Missing),
}

/// What to do about a setting that is not there.
#[derive(Debug)]
pub struct Missing {
    /// Values, as Python prints them, that ask for nothing: gunicorn's default among them. `*` is
    /// every value.
    pub harmless: &'static [&'static str],
    /// Why, as a sentence without a full stop.
    pub reason: &'static str,
    /// What any other value does.
    pub severity: Severity,
}

/// How much it matters that a setting is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The server would not do what was asked: it does not start.
    Refuse,
    /// The server can do its work without: it says so and goes on.
    Warn,
}
