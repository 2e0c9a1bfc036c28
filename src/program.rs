//! The program's entry point: finds out how it was started, and runs the library.
//!
//! `main.rs` calls it in the program that links a libpython. The launcher (`src/launcher`) loads a
//! libpython by itself, and finds the entry point by its exported name in the server's library,
//! which the wheel has, too.

use std::ffi::{OsString, c_int};
use std::path::PathBuf;

use crate::ExecCommand;
use crate::sys::signal;

/// Serves as the command line says. Returns the exit status of the process.
pub fn main() -> i32 {
    signal::end_at_faults();
    let argv: Vec<OsString> = std::env::args_os().collect();
    let name = argv.first().cloned().unwrap_or_else(|| OsString::from("monoceros"));
    crate::run(ExecCommand::here(program(&name), vec![name], argv))
}

/// [`main`] by a name that is the same in each build.
// The name is this crate's own, so it takes nobody else's place.
#[unsafe(no_mangle)]
extern "C" fn monoceros_main() -> c_int {
    main()
}

/// The program to execute for an upgrade: the name by which this one was started, made absolute if
/// it is a path. Not `/proc/self/exe`, which follows the old file when a new one takes its name.
fn program(name: &OsString) -> OsString {
    if name.to_string_lossy().contains('/') {
        return std::path::absolute(name).map_or_else(|_| name.clone(), PathBuf::into_os_string);
    }
    name.clone()
}
