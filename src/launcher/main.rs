//! One program for every Python: finds the interpreter that is to be served with, loads its
//! libpython, then the server's library for that version, and runs it.
//!
//! The launcher lies in `bin`, the libraries in `lib/monoceros` beside that. It must not know what
//! the server does, nor start a Python: it only reads names and files.

mod find;
mod library;

use std::path::{Path, PathBuf};
use std::process::exit;

use find::Interpreter;
use library::{Library, Scope};

/// The status for wrong settings, as everywhere in the server.
const EXIT_CONFIG: i32 = 1;

/// The server's entry point in its library (`src/program.rs`).
const ENTRY: &std::ffi::CStr = c"monoceros_main";

fn main() {
    let status = start().unwrap_or_else(|problem| {
        eprintln!("monoceros: {problem}");
        EXIT_CONFIG
    });
    exit(status);
}

/// Runs the server. Its status, or a sentence about what keeps it from running.
fn start() -> Result<i32, String> {
    let own = std::env::current_exe().map_err(|error| format!("cannot find out where it lies: {error}"))?;
    let named = find::path_of(std::env::args_os().next(), std::env::var_os("PATH")).unwrap_or_else(|| own.clone());
    let interpreter = find::interpreter(&named, |name| std::env::var_os(name))?;
    let server = server_for(&own, &interpreter)?;
    // The server's library takes libpython's names from this one, which stays open until the end.
    let _libpython = load_libpython(&interpreter)?;
    library::set_variable(find::TOLD, &interpreter.executable)?;
    let server =
        Library::open(&server, Scope::Own).map_err(|reason| format!("cannot load its own library: {reason}"))?;
    let Some(run) = server.entry(ENTRY) else { return Err(format!("its library has no {}", ENTRY.to_string_lossy())) };
    Ok(run())
}

/// The server's library for this interpreter.
fn server_for(own: &Path, interpreter: &Interpreter) -> Result<PathBuf, String> {
    let folder = own.parent().and_then(Path::parent).unwrap_or(Path::new("/")).join("lib/monoceros");
    let library = folder.join(find::library_name(&interpreter.version));
    if library.is_file() {
        return Ok(library);
    }
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let served = find::versions_of(entries.map(|entry| entry.file_name()));
    Err(if served.is_empty() {
        format!("there is no library of it in {}; install it again", folder.display())
    } else {
        format!("{} is Python {}; this monoceros serves {}", interpreter.origin, interpreter.version, served)
    })
}

/// The first that can be loaded. Otherwise the sentence has what the dynamic linker says of the
/// first: that one is the interpreter's own.
fn load_libpython(interpreter: &Interpreter) -> Result<Library, String> {
    let mut reason = None;
    for candidate in interpreter.libraries() {
        match Library::open(&candidate, Scope::Shared) {
            Ok(library) => return Ok(library),
            Err(said) => reason = reason.or(Some(said)),
        }
    }
    Err(interpreter.without_library(reason.as_deref()))
}
