//! The process's environment, changed where both the kernel's view and Python's `os.environ` see it.

use std::ffi::OsStr;

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
