//! Finds the Python environment for the embedded interpreter.
//!
//! The search runs before the interpreter starts: it reads the environment and `pyvenv.cfg` files,
//! and starts nothing.

use std::fmt;
use std::path::{Path, PathBuf};

/// The Python this program is linked to, `major.minor`.
pub const PYTHON_VERSION: &str = env!("MONOCEROS_PYTHON_VERSION");

/// The interpreter that the program was built with. It finds its own standard library, and is used
/// if no virtualenv is named. Empty where the launcher loads the server next to a libpython: then
/// the launcher names the interpreter.
const BUILD_PYTHON: &str = env!("MONOCEROS_PYTHON");

/// The variable by which the launcher names the interpreter whose libpython it has loaded
/// (`src/launcher/find.rs`).
const LAUNCHED_FOR: &str = "MONOCEROS_LAUNCHED_FOR";

/// Part of a sentence: which libpython this program was built for.
pub fn what_is_linked() -> String {
    match BUILD_PYTHON {
        "" => format!("this monoceros has loaded libpython{PYTHON_VERSION}"),
        python => format!("this monoceros was built for libpython{PYTHON_VERSION}, that of {python}"),
    }
}

/// The file that marks a virtual environment (PEP 405).
const VENV_MARKER: &str = "pyvenv.cfg";

/// The interpreter's home: the path of the `python` it stands for, from which CPython derives
/// `sys.prefix` and site-packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonHome {
    /// Path for `sys.executable`; `None` lets CPython search for itself.
    pub executable: Option<PathBuf>,
    /// The program itself, as `__main__.__file__`; `None` if a script was started, which has a
    /// `__file__` of its own.
    pub program: Option<PathBuf>,
    /// Whether this is a virtual environment. CPython reads no `pyvenv.cfg` while `PYTHONHOME` is
    /// set, so the variable has to go, as `activate` takes it away.
    pub is_virtual: bool,
}

/// Why the virtualenv cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum HomeError {
    /// The virtualenv was made by another Python than the one that is linked.
    WrongVersion {
        /// Its folder.
        venv: PathBuf,
        /// The `major.minor` that it is for.
        version: String,
    },
    /// `VIRTUAL_ENV` names a folder without an interpreter.
    NoEnvironment(PathBuf),
    /// The virtualenv's interpreter is a link to one that is gone.
    NoInterpreter {
        /// Its folder.
        venv: PathBuf,
        /// What the link says.
        target: PathBuf,
    },
}

impl fmt::Display for HomeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HomeError::WrongVersion { venv, version } => write!(
                f,
                "the virtual environment {} is for Python {version}, but this monoceros was built for Python \
                 {PYTHON_VERSION}; use a virtual environment of that version, or build monoceros with PYO3_PYTHON set \
                 to the other one",
                venv.display(),
            ),
            HomeError::NoEnvironment(venv) => write!(
                f,
                "there is no virtual environment in {}, which the variable VIRTUAL_ENV names; make it, or unset the \
                 variable",
                venv.display(),
            ),
            HomeError::NoInterpreter { venv, target } => write!(
                f,
                "the interpreter of the virtual environment {} is a link to {}, which is not there; that Python was \
                 removed or replaced, so make the environment again",
                venv.display(),
                target.display(),
            ),
        }
    }
}

/// Finds the home: an active virtualenv (`VIRTUAL_ENV`), else the one `program` is installed in,
/// else `PYTHONHOME`, else the Python the program was built with or launched for.
///
/// # Errors
/// The virtualenv has no interpreter, or belongs to another minor version, whose packages could not
/// be imported.
pub fn find(program: &Path, environment: impl Fn(&str) -> Option<String>) -> Result<PythonHome, HomeError> {
    let set = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let venv = set("VIRTUAL_ENV").or_else(|| venv_of(program));
    let program = absolute(program);
    if let Some(venv) = venv {
        check_version(&venv)?;
        check_interpreter(&venv)?;
        return Ok(PythonHome { executable: absolute(&venv.join("bin/python")), program, is_virtual: true });
    }
    // The launcher has read PYTHONHOME, too.
    let launched_for = set(LAUNCHED_FOR).filter(|_| BUILD_PYTHON.is_empty());
    let named = set("PYTHONHOME").map(|home| home.join("bin/python3"));
    let built_with = Some(PathBuf::from(BUILD_PYTHON));
    let mut candidates = [launched_for, named, built_with].into_iter().flatten();
    let executable = candidates.find(|path| path.exists()).and_then(|path| absolute(&path));
    Ok(PythonHome { executable, program, is_virtual: false })
}

/// A path that the worker's change of directory leaves alone.
fn absolute(path: &Path) -> Option<PathBuf> {
    std::path::absolute(path).ok()
}

/// The virtualenv whose `bin` holds the program, or what that is a link to; if any.
fn venv_of(program: &Path) -> Option<PathBuf> {
    let holds = |program: &Path| {
        let venv = program.parent()?.parent()?;
        venv.join(VENV_MARKER).is_file().then(|| venv.to_owned())
    };
    holds(program).or_else(|| holds(&program.canonicalize().ok()?))
}

/// Refuses an interpreter that does not exist: with such a path, CPython would serve without the
/// environment's packages.
fn check_interpreter(venv: &Path) -> Result<(), HomeError> {
    let interpreter = venv.join("bin/python");
    if interpreter.exists() {
        return Ok(());
    }
    Err(match std::fs::read_link(&interpreter) {
        Ok(target) => HomeError::NoInterpreter { venv: venv.to_owned(), target },
        Err(_) => HomeError::NoEnvironment(venv.to_owned()),
    })
}

fn check_version(venv: &Path) -> Result<(), HomeError> {
    let marker = std::fs::read_to_string(venv.join(VENV_MARKER)).unwrap_or_default();
    match version_in(&marker) {
        Some(version) if version != PYTHON_VERSION => Err(HomeError::WrongVersion { venv: venv.to_owned(), version }),
        _ => Ok(()),
    }
}

/// `major.minor` of the `version` line (`python -m venv`) or the `version_info` line (virtualenv,
/// uv).
fn version_in(marker: &str) -> Option<String> {
    marker.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        if !matches!(key.trim(), "version" | "version_info") {
            return None;
        }
        let mut numbers = value.trim().split('.');
        Some(format!("{}.{}", numbers.next()?, numbers.next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn venv(version_line: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bin")).unwrap();
        std::fs::write(directory.path().join("bin/python"), "").unwrap();
        std::fs::write(directory.path().join(VENV_MARKER), format!("home = /usr/bin\n{version_line}\n")).unwrap();
        directory
    }

    #[test]
    fn an_active_virtualenv_wins() {
        let venv = venv(&format!("version = {PYTHON_VERSION}.4"));
        let path = venv.path().to_str().unwrap().to_owned();
        let home = find(Path::new("/usr/bin/monoceros"), |name| (name == "VIRTUAL_ENV").then(|| path.clone())).unwrap();
        assert_eq!(home.executable.unwrap(), venv.path().join("bin/python"));
    }

    #[test]
    fn a_program_inside_a_virtualenv_uses_it() {
        let venv = venv(&format!("version_info = {PYTHON_VERSION}.1.final.0"));
        let home = find(&venv.path().join("bin/monoceros"), |_| None).unwrap();
        assert_eq!(home.executable.unwrap(), venv.path().join("bin/python"));
    }

    #[test]
    fn a_link_to_a_program_inside_a_virtualenv_uses_it() {
        let venv = venv(&format!("version = {PYTHON_VERSION}.4"));
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(venv.path().join("bin/monoceros"), "").unwrap();
        std::os::unix::fs::symlink(venv.path().join("bin/monoceros"), elsewhere.path().join("monoceros")).unwrap();
        let home = find(&elsewhere.path().join("monoceros"), |_| None).unwrap();
        let executable = venv.path().canonicalize().unwrap().join("bin/python");
        assert_eq!((home.executable, home.is_virtual), (Some(executable), true));
    }

    #[test]
    fn a_home_without_an_interpreter_leaves_the_python_of_the_build() {
        let home = find(Path::new("/usr/bin/monoceros"), |name| (name == "PYTHONHOME").then(|| "/nowhere".to_owned()));
        let built_with = Some(PathBuf::from(BUILD_PYTHON)).filter(|path| path.exists());
        assert_eq!(home.unwrap().executable, built_with);
    }

    #[test]
    fn a_virtualenv_of_another_python_is_refused_by_name() {
        let venv = venv("version = 3.1.4");
        let error = find(&venv.path().join("bin/monoceros"), |_| None).unwrap_err();
        assert!(error.to_string().contains("is for Python 3.1,"), "{error}");
    }

    #[test]
    fn a_virtualenv_without_an_interpreter_is_refused() {
        let venv = venv(&format!("version = {PYTHON_VERSION}.4"));
        let interpreter = venv.path().join("bin/python");
        std::fs::remove_file(&interpreter).unwrap();
        let path = venv.path().to_str().unwrap().to_owned();
        let refused =
            || find(Path::new("/usr/bin/monoceros"), |name| (name == "VIRTUAL_ENV").then(|| path.clone())).unwrap_err();
        assert_eq!(refused(), HomeError::NoEnvironment(venv.path().to_owned()));
        std::os::unix::fs::symlink("/nowhere/python3", &interpreter).unwrap();
        let target = PathBuf::from("/nowhere/python3");
        assert_eq!(refused(), HomeError::NoInterpreter { venv: venv.path().to_owned(), target });
    }

    #[test]
    fn without_a_virtualenv_the_python_of_the_build_is_used() {
        let home = find(Path::new("/usr/bin/monoceros"), |_| None).unwrap();
        assert_eq!(home.executable, Some(PathBuf::from(BUILD_PYTHON)).filter(|path| path.exists()));
    }
}
