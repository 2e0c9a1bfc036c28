//! How this program was started, to start it once more: beside this one (USR2) or in place (the
//! first real-time signal).

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::sys::process;

/// A program, its arguments and its environment, as they were at the start.
#[derive(Debug, Clone)]
pub struct ExecCommand {
    /// The file to execute; searched for in PATH if it has no slash.
    pub program: OsString,
    /// How the command line begins: the program's name, and what else stands in front of the
    /// server's own arguments (`python -m monoceros`).
    pub command: Vec<OsString>,
    /// The server's name and its own arguments (`sys.argv`).
    pub argv: Vec<OsString>,
    /// The working directory.
    pub cwd: PathBuf,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
}

impl ExecCommand {
    /// A start in the present working directory and environment.
    pub fn here(program: OsString, command: Vec<OsString>, argv: Vec<OsString>) -> ExecCommand {
        ExecCommand { program, command, argv, cwd: process::working_directory(), environment: env::vars_os().collect() }
    }

    /// A variable of the environment of the start. gunicorn reads the defaults of its settings
    /// before it runs the config file: what the file puts into `os.environ` (`load_dotenv()`)
    /// changes none of them.
    pub fn variable(&self, name: &str) -> Option<String> {
        let (_, value) = self.environment.iter().find(|(variable, _)| variable == name)?;
        value.clone().into_string().ok()
    }

    /// All arguments to execute the program again. `flag`, if there is one, comes in front of the
    /// server's own arguments, because an app's name may follow `--`.
    pub fn arguments(&self, flag: Option<&str>) -> Vec<OsString> {
        let own = self.argv.iter().skip(1).cloned();
        self.command.iter().cloned().chain(flag.map(OsString::from)).chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(command: &[&str], flag: Option<&str>) -> Vec<OsString> {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect();
        let argv = words(&["monoceros", "-w", "2", "--", "app"]);
        ExecCommand { program: "x".into(), command: words(command), argv, cwd: "/".into(), environment: Vec::new() }
            .arguments(flag)
    }

    #[test]
    fn a_flag_stands_in_front_of_the_servers_own_arguments() {
        assert_eq!(arguments(&["monoceros"], None), ["monoceros", "-w", "2", "--", "app"]);
        let checking = arguments(&["python", "-m", "monoceros"], Some("--check-config"));
        assert_eq!(checking, ["python", "-m", "monoceros", "--check-config", "-w", "2", "--", "app"]);
    }
}
