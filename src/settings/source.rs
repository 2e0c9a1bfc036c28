//! Where the config file is.

use std::path::PathBuf;

use super::error::Error;
use super::file;
use super::load::Assignment;

/// Where the config file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// There is none.
    None,
    /// A Python file, which exists.
    PythonFile(PathBuf),
    /// A Python module, by its dotted name.
    PythonModule(String),
    /// A TOML, YAML or JSON file, which exists.
    DataFile(PathBuf),
}

/// Finds the config file: `-c` of the command line, else `-c` of `GUNICORN_CMD_ARGS`, else
/// `gunicorn.conf.py` in the current directory. An empty value counts as not given.
///
/// # Errors
/// The file that was asked for does not exist.
pub fn config_path(command_line: &[Assignment], environment_args: &[Assignment]) -> Result<ConfigSource, Error> {
    let given = [command_line, environment_args].into_iter().flatten();
    let locations = given.filter(|(setting, _)| setting.name == "config").map(|(_, value)| value.to_string());
    // Start scripts pass `--config ""` when their user has set nothing; gunicorn ignores it.
    let Some(location) = locations.map(|location| location.trim().to_owned()).find(|location| !location.is_empty())
    else {
        // What is told of it names its directory, as gunicorn does.
        let default = std::path::absolute(DEFAULT_FILE).unwrap_or_else(|_| DEFAULT_FILE.into());
        return Ok(if default.exists() { ConfigSource::PythonFile(default) } else { ConfigSource::None });
    };
    if let Some(module) = location.strip_prefix("python:") {
        return Ok(ConfigSource::PythonModule(module.to_owned()));
    }
    existing_file(location.strip_prefix("file:").unwrap_or(&location).into())
}

/// The config file that is read if none is named.
const DEFAULT_FILE: &str = "./gunicorn.conf.py";

/// As in gunicorn, a file without the extension of a data format is Python.
fn existing_file(path: PathBuf) -> Result<ConfigSource, Error> {
    if !path.exists() {
        return Err(Error::MissingFile { path });
    }
    let is_data = file::format_of(&path).is_some();
    Ok(if is_data { ConfigSource::DataFile(path) } else { ConfigSource::PythonFile(path) })
}

#[cfg(test)]
mod tests {
    use super::super::{Value, find};
    use super::*;

    #[test]
    fn the_config_file_is_named_on_the_command_line_first() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, "").unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (python, toml, bare) = (file("a.py"), file("a.toml"), file("conf"));
        let named = |location: &str| vec![(find("config").unwrap(), Value::from(location))];
        let cases = [
            (named(&python), named(&toml), ConfigSource::PythonFile(python.clone().into())),
            (vec![], named(&toml), ConfigSource::DataFile(toml.clone().into())),
            (named(&bare), vec![], ConfigSource::PythonFile(bare.clone().into())),
            (named(&format!("file:{python}")), vec![], ConfigSource::PythonFile(python.clone().into())),
            (named("python:a.b"), vec![], ConfigSource::PythonModule("a.b".into())),
            (named(""), named(&toml), ConfigSource::DataFile(toml.clone().into())),
            (named(""), vec![], ConfigSource::None),
        ];
        for (command_line, environment_args, expected) in cases {
            assert_eq!(config_path(&command_line, &environment_args), Ok(expected));
        }
        let error = config_path(&named("/proc/nonexistent.py"), &[]).unwrap_err();
        assert_eq!(error.to_string(), "'/proc/nonexistent.py' doesn't exist");
    }
}
