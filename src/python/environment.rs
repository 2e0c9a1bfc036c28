//! The process's environment, changed in both places: for C code (environ(7)) and in Python's
//! `os.environ`.

use std::ffi::{OsStr, OsString};

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;

use super::interpreter;

/// Sets the variable `name`, or removes it.
pub fn set(name: &str, value: Option<&OsStr>) {
    if interpreter::is_running() {
        // `os.environ` is a copy of the environment from the import of `os`. It passes changes on
        // to setenv(3).
        let result = Python::attach(|py| {
            let environ = py.import("os")?.getattr("environ")?;
            match value {
                Some(value) => environ.set_item(name, value),
                None => environ.call_method1("pop", (name, py.None())).map(|_| ()),
            }
        });
        // A signal that stops the worker unwinds what runs in Python at that moment.
        if let Err(error) = result
            && !Python::attach(|py| error.is_instance_of::<PySystemExit>(py))
        {
            log::warn!("Cannot change the environment variable {name}: {error}");
        }
    }
    // SAFETY: the callers are the master, in which the server starts no thread, and each worker
    // right after its fork, before it starts any: so no thread of the server reads the environment
    // meanwhile. Threads of Python code in the master (an embedding program, a hook, a preloaded
    // application) read `os.environ`, which is a copy; C code of theirs that calls getenv(3) at
    // this moment is as exposed as by the assignment above, which calls setenv(3) too. The settings
    // refuse names and values that setenv(3) would refuse.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}

/// Removes variables from `os.environ`, a copy from the interpreter's start, that are no longer in
/// the environment: what one master passed on to the next, or what a service manager set, must
/// reach neither the app nor its children.
pub fn follow() {
    let followed: PyResult<()> = Python::attach(|py| {
        let environ = py.import("os")?.getattr("environ")?;
        let names: Vec<OsString> = py.import("builtins")?.call_method1("list", (&environ,))?.extract()?;
        for name in names.iter().filter(|name| !name.is_empty() && std::env::var_os(name).is_none()) {
            environ.call_method1("pop", (name, py.None()))?;
        }
        Ok(())
    });
    if let Err(error) = followed {
        log::warn!("Cannot bring os.environ up to date: {error}");
    }
}
