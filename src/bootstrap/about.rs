//! `--version --verbose`: what somebody who helps from afar asks first.

use crate::python::interpreter;
use crate::python::version;
use crate::settings;
use crate::sys::system;

use super::cli;
use super::exec_command::ExecCommand;
use super::python_setup::PythonSetup;

/// The version, and what the server finds on this machine. Starts Python to ask for its version.
///
/// # Errors
/// There is no Python to serve with. The error is the same text, whose line about Python says why.
pub fn about(command: &ExecCommand) -> Result<String, String> {
    let form = if interpreter::is_running() { "the wheel" } else { "the program" };
    let program = PythonSetup::program_file(command);
    let python = describe_python(command);
    let line = match &python {
        Ok(said) | Err(said) => said,
    };
    let text = format!(
        "{}\nserver: {form}, {}\npython: {line}\nworker classes: {}\ntls: 1.2 and 1.3, by rustls with aws-lc\nsystem: {}\n",
        cli::VERSION,
        program.display(),
        settings::worker_classes().join(", "),
        system::description(),
    );
    if python.is_ok() { Ok(text) } else { Err(text) }
}

fn describe_python(command: &ExecCommand) -> Result<String, String> {
    let setup = PythonSetup::of_program(command).map_err(|error| error.to_string())?;
    setup.start_interpreter().map_err(|error| error.to_string())?;
    version::describe().map_err(|error| error.to_string())
}
