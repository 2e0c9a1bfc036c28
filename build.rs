//! For the program: finds the libpython to link, writes its directory into the rpath, and says what
//! to install when there is none. The wheel's extension module links none.
//!
//! pyo3 decides which interpreter is meant (`PYO3_PYTHON`, then an active virtualenv, then
//! `python3`); this script only follows it.

use std::process::Command;

const NO_SHARED_LIBRARY: &str = "\
this Python has no shared library (libpython) that the program could link. Install one, or name another interpreter with PYO3_PYTHON=/path/to/python3:
  Debian, Ubuntu:  apt-get install python3-dev
  Fedora:          dnf install python3-devel
  pyenv:           PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.13";

fn main() {
    println!("cargo:rerun-if-env-changed=PYO3_PYTHON");
    println!("cargo:rerun-if-env-changed=VIRTUAL_ENV");
    println!("cargo:rerun-if-env-changed=PYO3_BUILD_EXTENSION_MODULE");
    let python = pyo3_build_config::get();
    // maturin sets this for the wheel, which links no libpython: the interpreter that imports it
    // brings its own.
    let is_extension = std::env::var_os("PYO3_BUILD_EXTENSION_MODULE").is_some();
    if !is_extension {
        if !python.shared() {
            NO_SHARED_LIBRARY.lines().for_each(|line| println!("cargo::error={line}"));
            return;
        }
        pyo3_build_config::add_libpython_rpath_link_args();
    }
    pyo3_build_config::use_pyo3_cfgs();
    let version = python.version();
    println!("cargo:rustc-env=MONOCEROS_PYTHON_VERSION={}.{}", version.major, version.minor);
    // The wheel runs in the interpreter that imports it, not in the one that built it.
    let built_with = python.executable().filter(|_| !is_extension).map_or_else(String::new, base_executable);
    println!("cargo:rustc-env=MONOCEROS_PYTHON={built_with}");
}

/// The interpreter behind `executable`: a virtualenv that happened to be active during the build
/// must not be wired into the program.
fn base_executable(executable: &str) -> String {
    Command::new(executable)
        .args(["-c", "import sys; print(sys._base_executable)"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| executable.to_owned(), |path| path.trim().to_owned())
}
