//! Reads defaults, config file, environment and command line into one [`Config`], in that order;
//! later ones win.
//!
//! The caller passes each of them: the environment as a function, the config file as a list of
//! values. So the whole chain can be run again on SIGHUP, and in a test without touching the
//! process.

use std::collections::BTreeMap;
use std::path::Path;

use super::config::{AppSpec, Config, Protocol, ProxyProtocol};
use super::error::{Error, ValueOrigin};
use super::platform;
use super::setting::{Default as RowDefault, Kind, Missing, Setting, Severity, Store};
use super::suggest::nearest_setting;
use super::table::{all, find};
use super::value::{Value, ValueError};

/// A setting, and its value on the command line.
pub type Assignment = (&'static Setting, Value);

/// Everything that settings come from.
pub struct Sources<'a> {
    /// The app that the command line names.
    pub app: Option<String>,
    /// Values that belong to the app (such as a PasteDeploy file's) and that the config file
    /// overrides.
    pub of_app: Vec<Assignment>,
    /// The values of the config file, in its order; empty without one.
    pub file: Vec<(String, Value)>,
    /// The kind of that file.
    pub file_origin: FileOrigin,
    /// The flags in `GUNICORN_CMD_ARGS`.
    pub environment_args: Vec<Assignment>,
    /// The flags of the command line.
    pub command_line: Vec<Assignment>,
    /// A variable of the environment, for defaults such as `PORT`.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Sources<'_> {
    /// Sources that give no setting a value.
    pub fn empty() -> Self {
        Sources {
            app: None,
            of_app: Vec::new(),
            file: Vec::new(),
            file_origin: FileOrigin::Data,
            environment_args: Vec::new(),
            command_line: Vec::new(),
            environment: &|_| None,
        }
    }

    fn give(&self, name: &str) -> bool {
        let mut flags = self.environment_args.iter().chain(&self.command_line);
        self.file.iter().any(|(key, _)| key == name) || flags.any(|(setting, _)| setting.name == name)
    }
}

/// What kind of config file the values are from. A Python file may have any global name, for its
/// own use; in a data file a key that is not a setting is a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOrigin {
    /// Global names of a Python file or module.
    Python,
    /// Keys of a TOML, YAML or JSON file.
    Data,
}

/// The outcome of [`load`].
#[derive(Debug)]
pub struct LoadedSettings {
    /// The settings.
    pub config: Config,
    /// Warnings to print before the server starts, one sentence each.
    pub warnings: Vec<String>,
    /// Where each setting's value comes from.
    pub origins: Origins,
}

/// Where each setting's value comes from, for errors that are found only when the values are used.
#[derive(Debug, Default)]
pub struct Origins(BTreeMap<&'static str, ValueOrigin>);

impl Origins {
    /// Where the value of the setting with that name comes from.
    pub fn of(&self, name: &str) -> ValueOrigin {
        self.0.get(name).copied().unwrap_or(ValueOrigin::Default { variable: None })
    }

    /// The error for a value that cannot be used for this reason.
    pub fn blame(&self, name: &'static str, reason: String) -> Error {
        Error::Unusable { name, reason, origin: self.of(name) }
    }

    /// All of them, with the names of their settings.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, ValueOrigin)> {
        self.0.iter().map(|(&name, &origin)| (name, origin))
    }
}

/// Resolves all settings.
///
/// # Errors
/// The first value that is invalid and that no later source overrides, or that asks for something
/// unsupported.
pub fn load(sources: Sources<'_>) -> Result<LoadedSettings, Error> {
    let mut loading = Loading {
        config: Config::blank(),
        missing: BTreeMap::new(),
        refused: Vec::new(),
        warnings: Vec::new(),
        origins: Origins::default(),
    };
    loading.apply_defaults(&sources);
    loading.apply_flags(&sources.of_app, ValueOrigin::CommandLine);
    loading.apply_file(&sources.file, sources.file_origin);
    loading.apply_flags(&sources.environment_args, ValueOrigin::EnvironmentArguments);
    loading.apply_flags(&sources.command_line, ValueOrigin::CommandLine);
    loading.apply_platform_address(&sources);
    loading.report_refused()?;
    loading.config.app = loading.named_app(&sources)?;
    loading.check_watched_files()?;
    loading.warn_of_proxy_header();
    loading.report_missing()?;
    loading.warn_of_half_a_pool();
    Ok(LoadedSettings { config: loading.config, warnings: loading.warnings, origins: loading.origins })
}

/// The outcome of [`load`] without any sources.
pub(super) fn defaults() -> Config {
    // The defaults are constants of the table, and a test loads every one of them.
    load(Sources::empty()).expect("every default is valid").config
}

/// The state between the layers.
struct Loading {
    config: Config,
    /// The last value of each unsupported setting: only that one counts, as with supported
    /// settings.
    missing: BTreeMap<&'static str, Asked>,
    /// The settings whose last value is invalid, in the order of these values, and why.
    refused: Vec<(&'static str, Error)>,
    warnings: Vec<String>,
    origins: Origins,
}

/// An unsupported setting, and its value.
struct Asked {
    kind: Kind,
    missing: &'static Missing,
    value: Value,
}

impl Loading {
    /// A variable is read only if no other source gives the setting: a `PORT` meant for another
    /// program does no harm.
    fn apply_defaults(&mut self, sources: &Sources<'_>) {
        for setting in all() {
            let variable_of =
                |variable: &str| if sources.give(setting.name) { None } else { (sources.environment)(variable) };
            let (value, variable) = default_value(&setting.default, &variable_of);
            self.apply(setting, &value, ValueOrigin::Default { variable });
        }
    }

    fn apply_file(&mut self, values: &[(String, Value)], origin: FileOrigin) {
        for (name, value) in values {
            match find(name) {
                Some(setting) => self.apply(setting, value, ValueOrigin::File),
                None => self.warnings.extend(warn_of_unknown(name, origin)),
            }
        }
    }

    fn apply_flags(&mut self, assignments: &[Assignment], origin: ValueOrigin) {
        for (setting, value) in assignments {
            self.apply(setting, value, origin);
        }
    }

    /// Only the last value of a setting has to be valid.
    fn apply(&mut self, setting: &'static Setting, value: &Value, origin: ValueOrigin) {
        let name = setting.name;
        self.origins.0.insert(name, origin);
        self.refused.retain(|(refused, _)| *refused != name);
        if let Err(problem) = self.store(setting, value) {
            self.refused.push((name, Error::InvalidValue { name, problem, origin }));
        }
    }

    fn store(&mut self, setting: &'static Setting, value: &Value) -> Result<(), ValueError> {
        match &setting.store {
            Store::Field { set, .. } => set(&mut self.config, value),
            Store::Hook => {
                match value.object()? {
                    Some(shown) => self.config.hooks.insert(setting.name, shown),
                    None => self.config.hooks.remove(setting.name),
                };
                Ok(())
            }
            Store::Missing(missing) => {
                let asked = Asked { kind: setting.kind, missing, value: value.clone() };
                self.missing.insert(setting.name, asked);
                Ok(())
            }
        }
    }

    /// Applies the address that a platform names, if no source has given one.
    fn apply_platform_address(&mut self, sources: &Sources<'_>) {
        let is_open = self.origins.of("bind") == ValueOrigin::Default { variable: None };
        if !is_open || !self.config.platform_bind {
            return;
        }
        if let (Some((address, variable)), Some(bind)) = (platform::address(sources.environment), find("bind")) {
            self.apply(bind, &address.into(), ValueOrigin::Default { variable: Some(variable) });
        }
    }

    fn report_refused(&mut self) -> Result<(), Error> {
        self.refused.drain(..).next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// The module of the command line comes first, then `wsgi_file`, then `wsgi_app`. A script and
    /// a module that are named in the same place are an error.
    fn named_app(&self, sources: &Sources<'_>) -> Result<Option<AppSpec>, Error> {
        let Config { wsgi_app, wsgi_file, .. } = &self.config;
        let origin = self.origins.of("wsgi_file");
        let twice = |other: &str| {
            Err(self
                .origins
                .blame("wsgi_file", format!("{other} names an application as well; leave one of the two out")))
        };
        match (&sources.app, wsgi_file, wsgi_app) {
            (Some(_), Some(_), _) if origin == ValueOrigin::CommandLine => twice("APP_MODULE"),
            (None, Some(_), Some(_)) if origin == ValueOrigin::File => twice("'wsgi_app'"),
            (Some(module), ..) => Ok(Some(AppSpec::Module(module.clone()))),
            (None, Some(path), _) => Ok(Some(AppSpec::Script(path.clone()))),
            (None, None, module) => Ok(module.clone().map(AppSpec::Module)),
        }
    }

    /// A plain path must exist. A pattern may match nothing yet, which is only worth a warning.
    fn check_watched_files(&mut self) -> Result<(), Error> {
        for entry in &self.config.reload_extra_files {
            if !entry.contains(['*', '?', '[']) {
                if !Path::new(entry).exists() {
                    return Err(self.origins.blame("reload_extra_files", format!("there is no file '{entry}'")));
                }
            } else if !glob::glob(entry).is_ok_and(|mut found| found.next().is_some()) {
                self.warnings.push(format!("the pattern '{entry}' of 'reload_extra_files' matches no file"));
            }
        }
        Ok(())
    }

    /// As under gunicorn, `dirty_workers` or `dirty_apps` alone starts nothing.
    fn warn_of_half_a_pool(&mut self) {
        let dirty = &self.config.dirty;
        let (given, lacks) = match (dirty.workers > 0, dirty.apps.is_empty()) {
            (true, true) => ("dirty_workers", "'dirty_apps' names no app"),
            (false, false) => ("dirty_apps", "'dirty_workers' is 0"),
            _ => return,
        };
        self.warnings.push(format!("the setting '{given}' has no effect: {lacks}"));
    }

    fn warn_of_proxy_header(&mut self) {
        if self.config.protocol == Protocol::Uwsgi && self.config.proxy_protocol != ProxyProtocol::Off {
            let why = "under 'protocol = uwsgi' each packet names the client";
            self.warnings.push(format!("the setting 'proxy_protocol' has no effect: {why}"));
        }
    }

    fn report_missing(&mut self) -> Result<(), Error> {
        for (&name, asked) in &self.missing {
            let reason = asked.missing.reason;
            match asked.missing.severity {
                _ if asked.is_harmless() => {}
                Severity::Refuse => {
                    let origin = self.origins.of(name);
                    return Err(Error::NotSupported { name, value: asked.value.repr(), reason, origin });
                }
                Severity::Warn => {
                    self.warnings.push(format!("the setting '{name}' has no effect: {reason}"));
                }
            }
        }
        Ok(())
    }
}

impl Asked {
    /// Whether the server already does what the value asks for.
    fn is_harmless(&self) -> bool {
        let value = match self.kind {
            Kind::Int => self.value.count(i64::MAX).map(|number| number.to_string()).ok(),
            Kind::Mode => self.value.mode().map(|mode| mode.to_string()).ok(),
            Kind::CommaList => self.value.comma_separated().map(|items| items.join(",")).ok(),
            _ => None,
        };
        let value = value.unwrap_or_else(|| self.value.to_string());
        let harmless = self.missing.harmless;
        harmless.contains(&"*") || harmless.iter().any(|known| known.eq_ignore_ascii_case(value.trim()))
    }
}

fn default_value(default: &RowDefault, environment: &dyn Fn(&str) -> Option<String>) -> (Value, Option<&'static str>) {
    match *default {
        RowDefault::Unset => (Value::None, None),
        RowDefault::Bool(yes) => (yes.into(), None),
        RowDefault::Text(text) => (text.into(), None),
        RowDefault::Map(entries) => {
            let entries = entries.iter().map(|&(name, text)| (name.to_owned(), text.into()));
            (Value::Map(entries.collect()), None)
        }
        RowDefault::Environment { variable, prefix, otherwise } => match environment(variable) {
            Some(text) => (Value::Str(format!("{prefix}{text}")), Some(variable)),
            None => (otherwise.into(), None),
        },
    }
}

/// Names of four letters and less are too common in Python to be taken for a mistyped setting.
const SHORTEST_SUSPECT: usize = 5;

fn warn_of_unknown(name: &str, origin: FileOrigin) -> Option<String> {
    let near = nearest_setting(name);
    match (origin, near) {
        (FileOrigin::Python, _) if name.len() < SHORTEST_SUSPECT => None,
        (FileOrigin::Python, None) => None,
        (_, Some(near)) => {
            Some(format!("'{name}' in the config file is not a setting and is ignored: did you mean '{near}'?"))
        }
        (FileOrigin::Data, None) => Some(format!("'{name}' in the config file is not a setting and is ignored")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::config::{WorkerClass, WorkersSetting};
    use super::*;

    fn row(name: &str) -> &'static Setting {
        find(name).unwrap_or_else(|| panic!("no setting {name}"))
    }

    fn load_file(file: Vec<(&str, Value)>, file_origin: FileOrigin) -> Result<LoadedSettings, Error> {
        load(Sources {
            file: file.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            file_origin,
            ..Sources::empty()
        })
    }

    fn load_environment(variable: &str, text: &str) -> Result<LoadedSettings, Error> {
        load(Sources { environment: &|name| (name == variable).then(|| text.to_owned()), ..Sources::empty() })
    }

    #[test]
    fn each_source_overrides_those_before_it() {
        let all_sources = Sources {
            file: vec![
                ("workers".into(), Value::Int(2)),
                ("timeout".into(), Value::Int(2)),
                ("backlog".into(), Value::Int(2)),
                ("bind".into(), Value::from_iter(["a:2", "b:2"])),
            ],
            environment_args: vec![(row("timeout"), Value::Int(3)), (row("backlog"), Value::Int(3))],
            command_line: vec![(row("backlog"), Value::Int(4)), (row("bind"), Value::from_iter(["c:4"]))],
            environment: &|name| (name == "WEB_CONCURRENCY").then(|| "1".to_owned()),
            ..Sources::empty()
        };
        let config = load(all_sources).unwrap().config;
        assert_eq!((config.workers, config.timeout, config.backlog), (WorkersSetting::Count(2), 3, 4));
        assert_eq!(config.bind.iter().map(|address| address.to_bind()).collect::<Vec<_>>(), ["c:4"]);
    }

    #[test]
    fn a_wrong_value_that_a_later_source_overrides_does_no_harm() {
        let given = |file: &[(&str, Value)], environment_args, command_line| {
            let file = file.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            load(Sources { file, environment_args, command_line, ..Sources::empty() })
        };
        let words =
            [("worker_class", Value::from("eventlet")), ("pre_fork", Value::Int(5)), ("timeout", "soon".into())];
        let right = vec![(row("worker_class"), "gthread".into()), (row("pre_fork"), Value::None)];
        let number = vec![(row("timeout"), Value::Int(3))];
        let loaded = given(&words, right.clone(), number.clone()).unwrap();
        assert_eq!((loaded.config.worker_class, loaded.config.timeout), (WorkerClass::Gthread, 3));
        assert_eq!(loaded.origins.of("timeout"), ValueOrigin::CommandLine);
        let told = |loaded: Result<LoadedSettings, Error>| loaded.unwrap_err().to_string();
        assert!(told(given(&words, vec![], number.clone())).starts_with("invalid value for 'worker_class': "));
        assert!(told(given(&words, right.clone(), vec![])).starts_with("invalid value for 'timeout': 'soon' "));
        let later = vec![(row("timeout"), "never".into())];
        assert!(told(given(&[], number, later)).ends_with("'never' is not a non-negative integer (command line)"));
    }

    #[test]
    fn some_defaults_are_the_environments() {
        let config = load_environment("PORT", "5000").unwrap().config;
        assert_eq!(config.bind[0].to_bind(), "0.0.0.0:5000");
        assert_eq!(load_environment("WEB_CONCURRENCY", "5").unwrap().config.workers, WorkersSetting::Count(5));
        assert!(!load_environment("SENDFILE", "no").unwrap().config.sendfile);
        let trusted = load_environment("FORWARDED_ALLOW_IPS", "").unwrap().config.forwarded_allow_ips;
        assert!(!trusted.contains([127, 0, 0, 1].into()), "an empty list trusts no peer");
    }

    #[test]
    fn a_platforms_address_counts_where_nobody_names_one() {
        type Given<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, Value)], &'a str);
        let gear = [("OPENSHIFT_PYTHON_IP", "127.1.2.3"), ("OPENSHIFT_PYTHON_PORT", "8080")];
        let cases: [Given<'_>; 9] = [
            (&[], &[], "127.0.0.1:8000"),
            (&[("VCAP_APP_PORT", "5000")], &[], "0.0.0.0:5000"),
            (&gear, &[], "127.1.2.3:8080"),
            (&[("OPENSHIFT_PYTHON_IP", "::1"), ("OPENSHIFT_PYTHON_PORT", "1")], &[], "[::1]:1"),
            (&[("OPENSHIFT_PYTHON_PORT", "8080")], &[], "127.0.0.1:8000"),
            (&[("VCAP_APP_PORT", ""), gear[0], gear[1]], &[], "127.1.2.3:8080"),
            (&[("VCAP_APP_PORT", "5000"), ("PORT", "7000")], &[], "0.0.0.0:7000"),
            (&[("VCAP_APP_PORT", "5000")], &[("bind", Value::Str("a:1".to_owned()))], "a:1"),
            (&[("VCAP_APP_PORT", "5000")], &[("platform_bind", Value::Bool(false))], "127.0.0.1:8000"),
        ];
        for (variables, file, expected) in cases {
            let find =
                |name: &str| variables.iter().find(|(given, _)| *given == name).map(|(_, text)| (*text).to_owned());
            let file = file.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            let config = load(Sources { file, environment: &find, ..Sources::empty() }).unwrap().config;
            assert_eq!(config.bind[0].to_bind(), expected, "{variables:?}");
        }
        let error = load_environment("VCAP_APP_PORT", "http").unwrap_err().to_string();
        assert_eq!(error, "invalid value for 'bind': 'http' is not a valid port number (VCAP_APP_PORT)");
    }

    #[test]
    fn the_app_is_a_module_or_a_script_and_never_both() {
        let named = |app: Option<&str>, flag: Option<&str>, file: &[(&str, &str)]| {
            load(Sources {
                app: app.map(str::to_owned),
                command_line: flag.iter().map(|path| (row("wsgi_file"), Value::from(*path))).collect(),
                file: file.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect(),
                ..Sources::empty()
            })
            .map(|loaded| loaded.config.app)
        };
        let module = |text: &str| Ok(Some(AppSpec::Module(text.to_owned())));
        let script = |text: &str| Ok(Some(AppSpec::Script(text.to_owned())));
        assert_eq!(named(None, None, &[]), Ok(None));
        assert_eq!(named(Some("a"), None, &[("wsgi_app", "b")]), module("a"));
        assert_eq!(named(Some("a"), None, &[("wsgi_file", "c")]), module("a"));
        assert_eq!(named(None, Some("c"), &[("wsgi_app", "b")]), script("c"));
        assert_eq!(named(None, None, &[("wsgi_file", "c")]), script("c"));
        assert_eq!(named(None, Some(""), &[("wsgi_app", "b")]), module("b"));
        let error = named(Some("a"), Some("c"), &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid value for 'wsgi_file': APP_MODULE names an application as well; leave one of the two out (command line)"
        );
        assert!(named(None, None, &[("wsgi_file", "c"), ("wsgi_app", "b")]).is_err());
    }

    #[test]
    fn a_variable_is_not_looked_at_where_the_setting_is_given() {
        let loaded = load(Sources {
            file: vec![("workers".into(), Value::Int(2))],
            command_line: vec![(row("bind"), Value::from_iter(["a:1"]))],
            environment: &|name| ["PORT", "WEB_CONCURRENCY"].contains(&name).then(|| "many".into()),
            ..Sources::empty()
        });
        assert_eq!(loaded.unwrap().config.workers, WorkersSetting::Count(2));
    }

    #[test]
    fn a_wrong_value_is_told_in_one_sentence() {
        let cases = [
            (
                "workers",
                Value::from("abc"),
                "invalid value for 'workers': 'abc' is not a non-negative integer (config file)",
            ),
            ("workers", Value::Int(-1), "invalid value for 'workers': -1 is not a non-negative integer (config file)"),
            ("workers", Value::None, "invalid value for 'workers': None is not a non-negative integer (config file)"),
            ("reload", Value::from("yes"), "invalid value for 'reload': 'yes' is not true or false (config file)"),
            ("bind", Value::from("a:b"), "invalid value for 'bind': 'b' is not a valid port number (config file)"),
            ("bind", Value::List(vec![]), "invalid value for 'bind': '' is not an address to listen on (config file)"),
            (
                "raw_env",
                Value::from_iter(["A=1", "B"]),
                "invalid value for 'raw_env': 'B' is not of the form NAME=VALUE (config file)",
            ),
            (
                "raw_env",
                Value::from("=1"),
                "invalid value for 'raw_env': '=1' is not of the form NAME=VALUE (config file)",
            ),
            ("user", Value::from(""), "invalid value for 'user': '' is not a name or an id (config file)"),
            (
                "group",
                Value::Int(4294967295),
                "invalid value for 'group': '4294967295' is not a name or an id (config file)",
            ),
            (
                "header_map",
                Value::from("x"),
                "invalid value for 'header_map': 'x' is not one of 'drop', 'refuse', 'dangerous' (config file)",
            ),
            (
                "autodetect",
                Value::from("no"),
                "invalid value for 'autodetect': 'no' is not true or false (config file; gunicorn has no such setting)",
            ),
            (
                "worker_class",
                Value::from("asgi"),
                "invalid value for 'worker_class': 'asgi' is not supported: take 'uvicorn.workers.UvicornWorker' (pip install uvicorn), which runs ASGI apps (config file)",
            ),
            (
                "timeout",
                Value::Int(1 << 40),
                "invalid value for 'timeout': 1099511627776 is more than the largest allowed, 4294967295 (config file)",
            ),
            (
                "reload_extra_files",
                Value::from("/proc/nonexistent"),
                "invalid value for 'reload_extra_files': there is no file '/proc/nonexistent' (config file)",
            ),
            (
                "http_protocols",
                Value::from("h2,h1"),
                "HTTP/2 is not supported yet ('http_protocols' is 'h2,h1') (config file)",
            ),
            (
                "cert_reqs",
                Value::Int(3),
                "invalid value for 'cert_reqs': 3 is more than the largest allowed, 2 (config file)",
            ),
        ];
        for (name, value, expected) in cases {
            let error = load_file(vec![(name, value)], FileOrigin::Data).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let error = load_environment("WEB_CONCURRENCY", "many").unwrap_err().to_string();
        assert_eq!(error, "invalid value for 'workers': 'many' is not a non-negative integer (WEB_CONCURRENCY)");
    }

    #[test]
    fn values_are_resolved_as_gunicorn_resolves_them() {
        let values = vec![
            ("limit_request_line", Value::Int(9000)),
            ("limit_request_fields", Value::Int(0)),
            ("limit_request_field_size", Value::Int(0)),
            ("bind", Value::from_iter(["a:1", "fd://3"])),
            ("secure_scheme_headers", Value::Map(vec![("x-a".into(), Value::from("on"))])),
            ("proxy_protocol", Value::Bool(true)),
            ("umask", Value::from("0027")),
            ("user", Value::from("1000")),
            ("group", Value::from("www-data")),
            ("accesslog", Value::from("")),
            ("keepalive", Value::Int(0)),
            ("pythonpath", Value::from("a,b")),
            ("raw_env", Value::from_iter(["A=b=c", "D="])),
        ];
        let config = load_file(values, FileOrigin::Data).unwrap().config;
        assert_eq!(config.limit_request_line, 8190);
        assert_eq!(config.limit_request_fields, 32768);
        assert_eq!(config.limit_request_field_size, 8190);
        assert_eq!(config.bind, [super::super::Address::Fd(3)]);
        assert_eq!(config.secure_scheme_headers, [("X-A".to_owned(), "on".to_owned())]);
        assert_eq!(config.proxy_protocol, super::super::ProxyProtocol::Auto);
        assert_eq!(config.umask, 0o27);
        assert_eq!(config.user, Some(super::super::UserSpec::Id(1000)));
        assert_eq!(config.group, Some(super::super::UserSpec::Name("www-data".into())));
        assert_eq!((config.accesslog, config.keepalive), (None, Some(0)));
        assert_eq!(config.pythonpath, [PathBuf::from("a"), PathBuf::from("b")]);
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(config.raw_env, [pair("A", "b=c"), pair("D", "")]);
    }

    #[test]
    fn what_is_not_supported_passes_when_it_asks_for_nothing() {
        let silent = vec![
            ("ssl_version", Value::Int(2)),
            ("logconfig_dict", Value::Map(vec![])),
            ("http2_cleartext", Value::from("off")),
            ("http_parser", Value::from("fast")),
            ("spew", Value::from("false")),
            ("pre_fork", Value::None),
        ];
        let loaded = load_file(silent, FileOrigin::Python).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }

    #[test]
    fn only_the_last_value_of_what_is_not_supported_counts() {
        let loaded = load(Sources {
            file: vec![("spew".into(), Value::Bool(true))],
            command_line: vec![(row("spew"), Value::Bool(false))],
            ..Sources::empty()
        });
        assert!(loaded.is_ok());
    }

    #[test]
    fn adjustments_of_what_is_not_supported_are_warned_of() {
        let values = vec![("http2_max_frame_size", Value::Int(20000)), ("dirty_workers", Value::Int(2))];
        let warnings = load_file(values, FileOrigin::Python).unwrap().warnings;
        assert_eq!(
            warnings,
            [
                "the setting 'http2_max_frame_size' has no effect: HTTP/2 is not supported yet",
                "the setting 'dirty_workers' has no effect: 'dirty_apps' names no app",
            ]
        );
    }

    #[test]
    fn a_protocol_is_one_of_two_words_and_uwsgi_leaves_nothing_to_a_proxy_header() {
        let of = |word: &str| load_file(vec![("protocol", Value::from(word))], FileOrigin::Data);
        assert_eq!(of("http").unwrap().config.protocol, Protocol::Http);
        assert_eq!(of(" uwsgi ").unwrap().config.protocol, Protocol::Uwsgi);
        let error = of("fastcgi").unwrap_err().to_string();
        assert_eq!(error, "invalid value for 'protocol': 'fastcgi' is not one of 'http', 'uwsgi' (config file)");
        let both = vec![("protocol", Value::from("uwsgi")), ("proxy_protocol", Value::Bool(true))];
        assert_eq!(
            load_file(both, FileOrigin::Data).unwrap().warnings,
            ["the setting 'proxy_protocol' has no effect: under 'protocol = uwsgi' each packet names the client"]
        );
    }

    #[test]
    fn a_hook_is_a_callable_or_its_place() {
        let values = vec![
            ("pre_fork", Value::Object("<announce()>".into())),
            ("on_exit", Value::from("tools.say_goodbye")),
            ("when_ready", Value::None),
        ];
        let hooks = load_file(values, FileOrigin::Python).unwrap().config.hooks;
        let shown: Vec<_> = hooks.iter().map(|(name, shown)| (*name, shown.as_str())).collect();
        assert_eq!(shown, [("on_exit", "tools.say_goodbye"), ("pre_fork", "<announce()>")]);
        let error = load_file(vec![("pre_fork", Value::Int(5))], FileOrigin::Python).unwrap_err().to_string();
        assert_eq!(error, "invalid value for 'pre_fork': 5 is not a function, nor the name of one (config file)");
    }

    #[test]
    fn unknown_names_are_warned_of_where_they_look_like_mistakes() {
        let (python, data) = (FileOrigin::Python, FileOrigin::Data);
        let cases = [
            ("worker", python, Some("did you mean 'workers'?")),
            ("access_logfile", python, Some("did you mean 'accesslog'?")),
            ("log_level", python, Some("did you mean 'loglevel'?")),
            ("limit_request_field", python, Some("did you mean 'limit_request_fields'?")),
            ("preload", python, Some("did you mean 'preload_app'?")),
            ("max-requests", data, Some("did you mean 'max_requests'?")),
            ("name", python, None),
            ("cores", python, None),
            ("name", data, Some("did you mean 'proc_name'?")),
            ("cores", data, Some("is not a setting and is ignored")),
        ];
        for (name, origin, expected) in cases {
            let warnings = load_file(vec![(name, Value::Int(1))], origin).unwrap().warnings;
            match expected {
                Some(end) => assert!(warnings.len() == 1 && warnings[0].ends_with(end), "{name}: {warnings:?}"),
                None => assert!(warnings.is_empty(), "{name}: {warnings:?}"),
            }
        }
    }
}
