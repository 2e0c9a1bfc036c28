//! The program's entry point: finds out how it was started, and runs the library.

use std::ffi::OsString;
use std::path::PathBuf;

use monoceros::ExecCommand;

fn main() {
    monoceros::sys::signal::end_at_faults();
    let argv: Vec<OsString> = std::env::args_os().collect();
    let name = argv.first().cloned().unwrap_or_else(|| OsString::from("monoceros"));
    let exec_command = ExecCommand::here(program(&name), vec![name], argv);
    std::process::exit(monoceros::run(exec_command));
}

/// The program to execute for an upgrade: the name by which this one was started, made absolute if
/// it is a path. Not `/proc/self/exe`, which follows the old file when a new one takes its name.
fn program(name: &OsString) -> OsString {
    if name.to_string_lossy().contains('/') {
        return std::path::absolute(name).map_or_else(|_| name.clone(), PathBuf::into_os_string);
    }
    name.clone()
}
