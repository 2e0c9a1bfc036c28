//! `gunicorn.conf.py`: a Python file, or module, whose globals are settings.

use std::fmt;
use std::path::Path;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use super::errors::{Exit, traceback};
use crate::settings::{self, Kind, Value};

/// The name under which gunicorn runs a config file, and registers it in `sys.modules`.
const MODULE_NAME: &str = "__config__";

/// The config could not be run.
#[derive(Debug)]
pub enum ConfigFileError {
    /// It raised: Python's traceback.
    Raised {
        /// The file or module that was run.
        source: String,
        /// The traceback.
        traceback: String,
    },
    /// It called `sys.exit()`.
    Exit(Exit),
}

impl fmt::Display for ConfigFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigFileError::Raised { source, traceback } => {
                write!(f, "Failed to read config file: {source}\n{traceback}")
            }
            ConfigFileError::Exit(Exit { text: Some(text), .. }) => f.write_str(text),
            ConfigFileError::Exit(Exit { status, .. }) => {
                write!(f, "the config file has ended the program with status {status}")
            }
        }
    }
}

/// The settings of a config file.
pub struct ConfigFile {
    /// Its globals that can be values of settings, in order of definition. An object is represented
    /// by its repr.
    pub values: Vec<(String, Value)>,
    /// The objects behind those values: hooks, classes.
    pub objects: Objects,
}

/// Objects of a config file, by the names of the settings that they were given for.
pub struct Objects(pub(super) Py<PyDict>);

/// Runs the file at `path` and returns its settings. A global with the name of a setting
/// (`is_setting`) is taken whatever its value.
///
/// # Errors
/// The file cannot be read, or raised.
pub fn run_file(path: &Path, is_setting: impl Fn(&str) -> bool) -> Result<ConfigFile, ConfigFileError> {
    let source = path.display().to_string();
    read(&source, |py| {
        let path = std::path::absolute(path)?;
        let module = PyModule::new(py, MODULE_NAME)?;
        module.setattr("__file__", path.as_os_str())?;
        let modules = py.import("sys")?.getattr("modules")?;
        modules.set_item(MODULE_NAME, &module)?;
        py.import("builtins")?.call_method1("exec", (code(py, &path)?, module.dict()))?;
        values(&module.dict(), &is_setting)
    })
}

fn code<'py>(py: Python<'py>, path: &Path) -> PyResult<Bound<'py, PyAny>> {
    if path.extension().is_some_and(|ending| ending == "pyc") {
        let loader = py.import("importlib.machinery")?.getattr("SourcelessFileLoader")?;
        return loader.call1((MODULE_NAME, path.as_os_str()))?.call_method1("get_code", (MODULE_NAME,));
    }
    py.import("builtins")?.call_method1("compile", (std::fs::read(path)?, path.as_os_str(), "exec"))
}

/// Imports the module `name` (`-c python:NAME`), anew if it was imported before, and returns its
/// globals as [`run_file`] does.
///
/// # Errors
/// The import raised.
pub fn run_module(name: &str, is_setting: impl Fn(&str) -> bool) -> Result<ConfigFile, ConfigFileError> {
    read(&format!("python:{name}"), |py| {
        let modules = py.import("sys")?.getattr("modules")?;
        let before = modules.get_item(name).ok();
        if before.is_some() {
            // Not `importlib.reload`: hooks of the settings in force go on in the names of theirs.
            modules.del_item(name)?;
        }
        let imported = py.import("importlib")?.call_method1("import_module", (name,));
        if let (Err(_), Some(before)) = (&imported, before) {
            modules.set_item(name, before)?;
        }
        values(&imported?.cast::<PyModule>()?.dict(), &is_setting)
    })
}

/// Reads settings by calling `read`. `source` names their origin in tracebacks.
pub(super) fn read(
    source: &str,
    read: impl FnOnce(Python<'_>) -> PyResult<ConfigFile>,
) -> Result<ConfigFile, ConfigFileError> {
    Python::attach(|py| {
        read(py).map_err(|error| match Exit::of(py, &error) {
            Some(exit) => ConfigFileError::Exit(exit),
            None => ConfigFileError::Raised { source: source.to_owned(), traceback: traceback(py, &error) },
        })
    })
}

/// The entries of `globals` that can be values of settings.
pub(super) fn values(globals: &Bound<'_, PyDict>, is_setting: &dyn Fn(&str) -> bool) -> PyResult<ConfigFile> {
    let mut found = Vec::new();
    let objects = PyDict::new(globals.py());
    for (name, object) in globals.iter() {
        let name = name.to_string();
        if name.starts_with('_') {
            continue;
        }
        let object = match settings::find(&name).map(|setting| setting.kind) {
            // The settings name worker classes by text.
            _ if name == "worker_class" => named_class(object)?,
            Some(Kind::List | Kind::CommaList) => listed(object)?,
            _ => object,
        };
        match value(&object)? {
            Some(value) => found.push((name, value)),
            None if is_setting(&name) => {
                objects.set_item(&name, &object)?;
                found.push((name, Value::Object(shown(&object)?)));
            }
            // Imports and helpers are no settings.
            None => {}
        }
    }
    Ok(ConfigFile { values: found, objects: Objects(objects.unbind()) })
}

/// The name of a class, also of one that a function returns; anything else unchanged.
fn named_class(object: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    if !object.is_callable() {
        return Ok(object);
    }
    object.py().import("gunicorn._validators")?.call_method1("name_of_class", (object,))
}

/// A set, a generator or another iterable as a list; anything else unchanged.
fn listed(object: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let is_one = object.is_instance_of::<PyString>() || object.is_instance_of::<PyBytes>();
    if is_one || object.is_instance_of::<PyDict>() || object.try_iter().is_err() {
        return Ok(object);
    }
    object.py().get_type::<PyList>().call1((object,))
}

/// A Python object as a plain value, if it is one. A dict is one only if nothing in it would come
/// back to Python as something else: `logconfig_dict` hands on numbers, tuples and keys.
fn value(object: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    Ok(Some(if object.is_none() {
        Value::None
    } else if let Ok(flag) = object.cast::<PyBool>() {
        Value::Bool(flag.is_true())
    } else if object.is_instance_of::<PyInt>() {
        match object.extract() {
            Ok(number) => Value::Int(number),
            // Too long for any setting: the error message shows its text.
            Err(_) => Value::Str(object.to_string()),
        }
    } else if object.is_instance_of::<PyFloat>() {
        Value::Str(object.to_string())
    } else if let Ok(text) = object.cast::<PyString>() {
        Value::Str(text.to_string_lossy().into_owned())
    } else if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        let items: Option<Vec<Value>> = object.try_iter()?.map(|item| value(&item?)).collect::<PyResult<_>>()?;
        return Ok(items.map(Value::List));
    } else if let Ok(map) = object.cast::<PyDict>() {
        let mut entries = Vec::new();
        for (key, item) in map.iter() {
            let Some(item) = value(&item)?.filter(|_| key.is_instance_of::<PyString>() && comes_back(&item)) else {
                return Ok(None);
            };
            entries.push((key.to_string(), item));
        }
        Value::Map(entries)
    } else {
        return Ok(None);
    }))
}

/// Whether an item of a dict, as a plain value, is the same to Python.
fn comes_back(item: &Bound<'_, PyAny>) -> bool {
    match item.cast::<PyList>() {
        Ok(list) => list.iter().all(|item| comes_back(&item)),
        Err(_) => !item.is_instance_of::<PyFloat>() && !item.is_instance_of::<PyTuple>(),
    }
}

/// As gunicorn prints a callable: `<name()>`; anything else as its repr.
fn shown(object: &Bound<'_, PyAny>) -> PyResult<String> {
    if !object.is_callable() {
        return Ok(object.repr()?.to_string());
    }
    let name = object.getattr("__qualname__").or_else(|_| object.get_type().qualname().map(Bound::into_any))?;
    Ok(format!("<{name}()>"))
}
