//! Finds the interpreter to serve with, and its libpython: from the environment, from the names of
//! files and from `pyvenv.cfg` (PEP 405), without starting an interpreter.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The variable that names an interpreter where there is no virtual environment: its path, or a
/// name that `PATH` finds.
pub const VARIABLE: &str = "MONOCEROS_PYTHON";

/// The variable by which the launcher tells the server which interpreter it has found. It is not
/// the operator's, which an upgrade asks again.
pub const TOLD: &str = "MONOCEROS_LAUNCHED_FOR";

/// The file that marks a virtual environment.
const MARKER: &str = "pyvenv.cfg";

/// Where the interpreters are whose libraries the dynamic linker finds by itself.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/bin", "/bin"];

/// An interpreter.
#[derive(Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Its `major.minor`.
    pub version: String,
    /// The interpreter itself; for a virtual environment the one that it was made with.
    pub base: PathBuf,
    /// What the server is told: `base`, or the path in a virtual environment that nothing else
    /// names.
    pub executable: PathBuf,
    /// How it was found, for messages.
    pub origin: String,
}

/// Finds the interpreter to serve with. In this order: an active virtual environment
/// (`VIRTUAL_ENV`), the one that `program` is installed in, `PYTHONHOME`, [`VARIABLE`], the first
/// `python3` on `PATH` that is an interpreter.
///
/// # Errors
/// A sentence: there is no interpreter, what a variable names is none, or its virtual environment
/// does not say which it is.
pub fn interpreter(program: &Path, environment: impl Fn(&str) -> Option<OsString>) -> Result<Interpreter, String> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(environment) = set("VIRTUAL_ENV").or_else(|| environment_of(program)) {
        let folder = absolute(environment);
        if !folder.join(MARKER).exists() {
            return Err(format!("there is no virtual environment in {}, which VIRTUAL_ENV names", folder.display()));
        }
        return of_environment(&folder);
    }
    if let Some(home) = set("PYTHONHOME") {
        let origin = format!("{}, which PYTHONHOME names,", home.display());
        return in_prefix(&absolute(home), &origin).ok_or_else(|| format!("{origin} has no Python"));
    }
    let path = environment("PATH");
    if let Some(named) = set(VARIABLE) {
        let file = path_of(Some(named.clone().into()), path).unwrap_or_else(|| named.clone());
        return at(&absolute(file))
            .unwrap_or_else(|| Err(format!("{}, which {VARIABLE} names, is no interpreter", named.display())));
    }
    let on_path = path.unwrap_or_default();
    let found = std::env::split_paths(&on_path).find_map(|folder| at(&absolute(folder.join("python3"))));
    found.unwrap_or_else(|| {
        Err("there is no Python: activate a virtual environment, or put python3 on PATH, or name one by \
             MONOCEROS_PYTHON=/path/to/python3"
            .to_owned())
    })
}

/// Where the program of this name lies, as the shell found it: links in the path stay.
pub fn path_of(name: Option<OsString>, on_path: Option<OsString>) -> Option<PathBuf> {
    let name = PathBuf::from(name?);
    if name.components().count() > 1 {
        return Some(name);
    }
    std::env::split_paths(&on_path?).map(|folder| folder.join(&name)).find(|path| path.is_file())
}

impl Interpreter {
    /// Where its libpython may be, the likeliest first: beside the interpreter, or beside what that
    /// is a link to; for the system's interpreter also where the system looks. For another one
    /// that would be another Python's.
    pub fn libraries(&self) -> Vec<PathBuf> {
        let name = format!("libpython{}.so.1.0", self.version);
        let real = self.base.canonicalize().unwrap_or_else(|_| self.base.clone());
        let mut prefixes: Vec<&Path> = [&self.base, &real].iter().filter_map(|path| path.parent()?.parent()).collect();
        prefixes.dedup();
        let beside =
            prefixes.into_iter().flat_map(|prefix| ["lib", "lib64"].map(|folder| prefix.join(folder).join(&name)));
        let is_systems = SYSTEM_FOLDERS.iter().any(|folder| real.parent() == Some(Path::new(folder)));
        beside.filter(|path| path.is_file()).chain(is_systems.then(|| PathBuf::from(&name))).collect()
    }

    /// What to do where no libpython can be loaded; `reason` is the dynamic linker's, if it was
    /// asked.
    pub fn without_library(&self, reason: Option<&str>) -> String {
        let reason = reason.unwrap_or("there is none beside it");
        format!(
            "{} is Python {version}, which has no shared library here ({reason}). Install it (Debian, Ubuntu: apt-get \
             install libpython{version}), or, where Python is linked statically, install the wheel: python -m pip \
             install monoceros",
            self.origin,
            version = self.version
        )
    }
}

/// The file of the server's library for a version.
pub fn library_name(version: &str) -> String {
    format!("monoceros-{version}.so")
}

/// The versions that libraries with these file names are for, as a list for a sentence.
pub fn versions_of(files: impl Iterator<Item = OsString>) -> String {
    let version = |name: OsString| Some(name.to_str()?.strip_prefix("monoceros-")?.strip_suffix(".so")?.to_owned());
    let mut versions: Vec<String> = files.filter_map(version).collect();
    versions.sort_by_key(|version| numbers(version));
    versions.join(", ")
}

/// The virtual environment whose `bin` holds the program, or what that is a link to; if any.
fn environment_of(program: &Path) -> Option<PathBuf> {
    let holds = |program: &Path| {
        let folder = program.parent()?.parent()?;
        folder.join(MARKER).is_file().then(|| folder.to_owned())
    };
    holds(program).or_else(|| holds(&program.canonicalize().ok()?))
}

fn of_environment(folder: &Path) -> Result<Interpreter, String> {
    let file = folder.join(MARKER);
    let marker = std::fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let says = |names: &[&str]| {
        let pairs = marker.lines().filter_map(|line| line.split_once('='));
        pairs
            .map(|(key, value)| (key.trim(), value.trim()))
            .find(|(key, _)| names.contains(key))
            .map(|(_, value)| value)
    };
    let origin = format!("the Python of {}", folder.display());
    // Not every maker of environments writes down the kind of Python; the links lead to it.
    let said = says(&["implementation"]).map(PathBuf::from);
    let linked = folder.join("bin/python").canonicalize().ok();
    [said, linked].iter().flatten().try_for_each(|name| check_kind(name, &origin))?;
    // `version` is of `python -m venv`, `version_info` of virtualenv and uv.
    let version = says(&["version", "version_info"]).and_then(major_minor);
    let home = says(&["home"]).map(PathBuf::from);
    let (Some(version), Some(home)) = (version, home) else {
        return Err(format!("{} does not say which Python it is for", folder.join(MARKER).display()));
    };
    let base = home.join(format!("python{version}"));
    Ok(Interpreter { executable: base.clone(), base, version, origin })
}

/// The interpreter at a path; `None` if there is none.
fn at(path: &Path) -> Option<Result<Interpreter, String>> {
    in_environment(path).or_else(|| of_file(path))
}

/// The interpreter of a virtual environment, by its path there: `bin` of an environment that is not
/// active may stand first on `PATH`, as in a container image.
fn in_environment(path: &Path) -> Option<Result<Interpreter, String>> {
    let folder = path.parent()?.parent()?;
    if !path.exists() || !folder.join(MARKER).is_file() {
        return None;
    }
    Some(of_environment(folder).map(|found| Interpreter { executable: path.to_owned(), ..found }))
}

/// The interpreter behind a path, which may be a link; `None` for anything else, such as a script
/// that picks an interpreter.
fn of_file(path: &Path) -> Option<Result<Interpreter, String>> {
    let real = path.canonicalize().ok()?;
    let version =
        real.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_prefix("python")).and_then(major_minor);
    let origin = format!("{}", path.display());
    if let Err(problem) = check_kind(&real, &origin) {
        return Some(Err(problem));
    }
    match version {
        Some(version) => Some(Ok(Interpreter { version, executable: real.clone(), base: real, origin })),
        // Not every interpreter has its version in its name.
        None => in_prefix(real.parent()?.parent()?, &origin).map(Ok),
    }
}

/// Whether the name of an interpreter, or of an implementation of Python, is of a kind that there
/// are libraries for.
fn check_kind(name: &Path, origin: &str) -> Result<(), String> {
    let name = name.file_name().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    let kind = if name.starts_with("pypy") {
        "PyPy"
    } else if name.strip_prefix("python").and_then(|version| version.strip_suffix('t')).and_then(major_minor).is_some()
    {
        "a free-threaded CPython"
    } else {
        return Ok(());
    };
    Err(format!("{origin} is {kind}; this monoceros serves the ordinary CPython"))
}

/// The interpreter of an installation, by the standard library that lies there.
fn in_prefix(prefix: &Path, origin: &str) -> Option<Interpreter> {
    let folders = ["lib", "lib64"].map(|folder| std::fs::read_dir(prefix.join(folder)));
    let entries = folders.into_iter().flatten().flatten().flatten();
    let versions = entries.filter(|entry| entry.path().join("os.py").is_file()).map(|entry| entry.file_name());
    let versions = versions.filter_map(|name| major_minor(name.to_str()?.strip_prefix("python")?));
    let found = versions.filter_map(|version| {
        let base = prefix.join("bin").join(format!("python{version}"));
        base.exists().then(|| Interpreter { version, executable: base.clone(), base, origin: origin.to_owned() })
    });
    // Of several, as /usr may have, the newest.
    found.max_by_key(|interpreter| numbers(&interpreter.version))
}

/// `3.11` of `3.11`, `3.11.7` or `3.11.7.final.0`.
fn major_minor(version: &str) -> Option<String> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    Some(format!("{}.{}", numbers.next()??, numbers.next()??))
}

/// A version as numbers, so that 3.9 comes before 3.10.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|part| part.parse().ok()).collect()
}

/// A path that a later change of directory leaves alone.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
