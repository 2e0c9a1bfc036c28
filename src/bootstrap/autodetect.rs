//! `autodetect`: looks for an application where none is named, in the order in which Python's
//! hosting platforms do.
//!
//! The module reads names of files, and the text of `manage.py` and `app.py`; it runs nothing.
//! `scripts/stage find` has the same rules for platforms that decide before the server is there,
//! and a test compares the two.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::python::app::absolute;
use crate::settings::AppSpec;

/// OpenShift 2's variable for the script of the application.
const SCRIPT_VARIABLE: &str = "OPENSHIFT_PYTHON_WSGI_APPLICATION";

/// OpenShift 3's variable for the application.
const MODULE_VARIABLE: &str = "APP_MODULE";

/// The scripts without a suffix that OpenShift and Jelastic serve.
const SCRIPTS: [&str; 2] = ["wsgi/application", "ROOT/application"];

/// What the error lists where nothing is found.
const NOTHING: &str = "there is no wsgi.py, wsgi/application or ROOT/application, no app.py that defines \
                       application or app, and no single */wsgi.py beside Django's manage.py; name the app, as \
                       APP_MODULE or by --wsgi-file";

/// An application that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// What to serve.
    pub app: AppSpec,
    /// The directory to serve from: the one that was searched, or one below.
    pub chdir: PathBuf,
    /// A directory with modules of the application.
    pub pythonpath: Option<PathBuf>,
    /// A sentence for the log: what has decided, and the command line that does the same.
    pub sentence: String,
}

/// Looks for an application in `folder`. `variable` reads the environment.
///
/// # Errors
/// A sentence: there is nothing to serve, or no file where a variable names one.
pub(super) fn find(folder: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Found, String> {
    let told = |name: &str| variable(name).filter(|text| !text.is_empty());
    let project = project_of(folder);
    let home = project.as_deref().unwrap_or(folder);
    if let Some(path) = told(SCRIPT_VARIABLE) {
        if !folder.join(&path).is_file() {
            return Err(format!("{SCRIPT_VARIABLE} names {path:?}, which is not there"));
        }
        let script = if Path::new(&path).is_absolute() { path } else { from(home, folder, &path) };
        return Ok(found(folder, home, AppSpec::Script(script), SCRIPT_VARIABLE));
    }
    if let Some(module) = told(MODULE_VARIABLE) {
        return Ok(found(folder, home, AppSpec::Module(module), MODULE_VARIABLE));
    }
    if home.join("wsgi.py").is_file() {
        return Ok(found(folder, home, AppSpec::Module("wsgi".to_owned()), "wsgi.py"));
    }
    if let Some(script) = SCRIPTS.into_iter().find(|script| folder.join(script).is_file()) {
        return Ok(found(folder, home, AppSpec::Script(from(home, folder, script)), script));
    }
    if let Some(name) = exposed_by(&home.join("app.py")) {
        return Ok(found(folder, home, AppSpec::Module(format!("app:{name}")), "app.py"));
    }
    let module = project.as_deref().and_then(only_wsgi_module);
    let module = module.ok_or_else(|| format!("nothing to serve was found in {:?}: {NOTHING}", folder.display()))?;
    Ok(found(folder, home, AppSpec::Module(module), "Django's manage.py"))
}

fn found(folder: &Path, home: &Path, app: AppSpec, evidence: &str) -> Found {
    let is_package = ["pyproject.toml", "setup.py"].iter().any(|name| folder.join(name).exists());
    let pythonpath = Some(folder.join("src")).filter(|source| is_package && source.is_dir());
    let mut words = vec!["monoceros".to_owned()];
    if let Some(below) = home.strip_prefix(folder).ok().filter(|below| !below.as_os_str().is_empty()) {
        words.extend(["--chdir".to_owned(), below.display().to_string()]);
    }
    if pythonpath.is_some() {
        words.extend(["--pythonpath".to_owned(), from(home, folder, "src")]);
    }
    if matches!(app, AppSpec::Script(_)) {
        words.push("--wsgi-file".to_owned());
    }
    words.push(app.text().to_owned());
    let command = words.iter().map(|word| shown(word)).collect::<Vec<_>>().join(" ");
    let sentence = format!("Autodetect has found {evidence}, and does as `{command}`");
    Found { app, chdir: home.to_owned(), pythonpath, sentence }
}

/// A word as a shell takes it. A word with a NUL cannot come from a name or a variable.
fn shown(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), |word| word.into_owned())
}

/// Makes a path below `folder` relative to `home`, which is that folder or one just below.
fn from(home: &Path, folder: &Path, name: &str) -> String {
    if home == folder { name.to_owned() } else { format!("../{name}") }
}

/// Where Django's manage.py is: in this folder, or in one below.
fn project_of(folder: &Path) -> Option<PathBuf> {
    let mentions_django =
        |path: &Path| fs::read(path).is_ok_and(|text| memchr::memmem::find(&text, b"django").is_some());
    let homes = std::iter::once(folder.to_owned()).chain(folders_in(folder));
    homes.into_iter().find(|home| mentions_django(&home.join("manage.py")))
}

/// The Django project's module, if there is one only.
fn only_wsgi_module(project: &Path) -> Option<String> {
    let mut packages = folders_in(project).into_iter().filter(|package| package.join("wsgi.py").is_file());
    let package = packages.next().filter(|_| packages.next().is_none())?;
    Some(format!("{}.wsgi", package.file_name()?.to_str()?))
}

/// The folders of a folder by name, without hidden ones.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let is_hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| !is_hidden(&entry.file_name())).map(|entry| absolute(&entry.path()));
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// The name that a module has for its application, found in the module's text: an import would be
/// too early here.
fn exposed_by(path: &Path) -> Option<&'static str> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    ["application", "app"].into_iter().find(|name| text.lines().any(|line| defines(line, name)))
}

/// `app = ...`, `app: WSGI = ...`, `def app(`, `class app(`.
fn defines(line: &str, name: &str) -> bool {
    let line = ["async def ", "def ", "class "].iter().find_map(|start| line.strip_prefix(start)).unwrap_or(line);
    line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(['=', '(', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANAGE: (&str, &str) = ("manage.py", "import django");

    fn find_in(files: &[(&str, &str)], variables: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let variable =
            |name: &str| variables.iter().find(|(given, _)| *given == name).map(|(_, text)| (*text).to_owned());
        match find(folder.path(), variable) {
            Ok(found) => found.sentence.split_once("`monoceros ").unwrap().1.trim_end_matches('`').to_owned(),
            Err(reason) => reason.replace(folder.path().to_str().unwrap(), "FOLDER"),
        }
    }

    #[test]
    fn the_first_of_the_platforms_places_is_served() {
        let wsgi = ("wsgi.py", "");
        let app = ("app.py", "import x\napp = x.App()\n");
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[wsgi, ("wsgi/application", ""), app], "wsgi"),
            (&[("wsgi/application", ""), ("ROOT/application", ""), app], "--wsgi-file wsgi/application"),
            (&[("ROOT/application", ""), app], "--wsgi-file ROOT/application"),
            (&[app], "app:app"),
            (&[("app.py", "def application(environ, start_response):\n    app = 1")], "app:application"),
            (&[("app.py", "app: App = App()\napplication = app\n")], "app:application"),
            (&[MANAGE, ("site/wsgi.py", "")], "site.wsgi"),
            (&[MANAGE, ("site/wsgi.py", ""), app], "app:app"),
            (&[("web/manage.py", "import django"), ("web/site/wsgi.py", "")], "--chdir web site.wsgi"),
            (
                &[("web/manage.py", "import django"), ("wsgi/application", "")],
                "--chdir web --wsgi-file ../wsgi/application",
            ),
            (&[("a b/manage.py", "import django"), ("a b/wsgi.py", "")], "--chdir 'a b' wsgi"),
            (&[wsgi, ("src/shop/__init__.py", ""), ("setup.py", "")], "--pythonpath src wsgi"),
            (&[wsgi, ("src/shop/__init__.py", "")], "wsgi"),
        ];
        for (files, expected) in cases {
            assert_eq!(find_in(files, &[]), *expected, "{files:?}");
        }
    }

    #[test]
    fn what_a_variable_names_comes_first() {
        let files = [("wsgi.py", ""), ("deep/run", "")];
        assert_eq!(find_in(&files, &[(MODULE_VARIABLE, "shop:app")]), "shop:app");
        let both = [(SCRIPT_VARIABLE, "deep/run"), (MODULE_VARIABLE, "shop:app")];
        assert_eq!(find_in(&files, &both), "--wsgi-file deep/run");
        assert_eq!(find_in(&files, &[(MODULE_VARIABLE, "")]), "wsgi");
        let missing = find_in(&files, &[(SCRIPT_VARIABLE, "gone")]);
        assert_eq!(missing, "OPENSHIFT_PYTHON_WSGI_APPLICATION names \"gone\", which is not there");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let cases: &[&[(&str, &str)]] = &[
            &[],
            &[("app.py", "import sys\n  app = 1\napplications = 2\n")],
            &[MANAGE, ("one/wsgi.py", ""), ("two/wsgi.py", "")],
            &[("manage.py", "print()"), ("site/wsgi.py", "")],
        ];
        for files in cases {
            assert!(
                find_in(files, &[]).starts_with("nothing to serve was found in \"FOLDER\": there is no"),
                "{files:?}"
            );
        }
    }
}
