//! The process's environment, changed where both the kernel's view and Python's `os.environ` see it.

use std::ffi::{OsStr, OsString};

use pyo3::prelude::*;

use super::interpreter;

/// Sets the variable `name`, or removes it.
pub fn set(name: &str, value: Option<&OsStr>) {
    if interpreter::is_running() {
        // os.environ is a copy of the environment made when `os` was imported, and passes changes on to it.
        let result = Python::attach(|py| {
            let environ = py.import("os")?.getattr("environ")?;
            match value {
                Some(value) => environ.set_item(name, value),
                None => environ.call_method1("pop", (name, py.None())).map(|_| ()),
            }
        });
        if let Err(error) = result {
            log::warn!("Cannot change the environment variable {name}: {error}");
        }
    }
    // SAFETY: called before the first fork or in the master's loop, where no other thread runs that could be reading the environment; the
    // settings refuse names and values that setenv(3) would.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}

/// Takes out of `os.environ` what is no longer in the environment: what passed between two masters, or came from a service manager, is
/// neither the app's business nor its children's. `os.environ` is a copy from the interpreter's start.
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
