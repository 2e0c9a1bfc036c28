//! The program's door: finds out how it was started, and runs the library.

use std::ffi::OsString;
use std::path::PathBuf;

use monoceros::ExecCommand;

fn main() {
    monoceros::sys::signal::end_at_faults();
    let argv: Vec<OsString> = std::env::args_os().collect();
    let name = argv.first().cloned().unwrap_or_else(|| OsString::from("monoceros"));
    let launch = ExecCommand::here(program(&name), vec![name], argv);
    std::process::exit(monoceros::run(launch));
}

/// The path to execute again after an upgrade. Not what the kernel says now (`/proc/self/exe` follows the old file when a new one takes its
/// name), but the name it was started by, made absolute where that name is a path.
fn program(name: &OsString) -> OsString {
    if name.to_string_lossy().contains('/') {
        return std::path::absolute(name).map_or_else(|_| name.clone(), PathBuf::into_os_string);
    }
    name.clone()
}
