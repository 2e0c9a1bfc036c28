//! What an installation says of itself, and each way in which it goes wrong: a sentence, not a
//! traceback without a cure. Installing itself is `tests/installing.rs`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::util::server::{Finished, Plan};
use crate::util::{is_wheel, root, tools, venv};

#[test]
fn the_verbose_version_names_python_features_and_system() {
    let finished = run(&["--version", "--verbose"], "");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines[0], concat!("monoceros (version ", env!("CARGO_PKG_VERSION"), ")"));
    for (line, begins) in lines[1..].iter().zip([
        "server: the ",
        "python: CPython 3.",
        "worker classes: sync, gthread, gevent",
        "tls: ",
        "system: Linux ",
    ]) {
        assert!(line.starts_with(begins), "{finished:?}");
    }
    assert_eq!(lines.len(), 6, "{finished:?}");
}

#[test]
fn the_version_is_told_whatever_the_environment() {
    let finished = run(&["--version"], "/nowhere");
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_virtualenv_that_is_not_there_is_named() {
    // The wheel's script has an interpreter already, whatever the variable says.
    if is_wheel() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let venv = folder.path().display().to_string();
    let missing = format!("there is no virtual environment in {venv}, which the variable VIRTUAL_ENV names");
    let expect = |args: &[&str], said: &str| {
        let finished = run(args, &venv);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains(said), "{finished:?}");
    };
    expect(&["--check-config", "echo"], &format!("Error: {missing}"));
    expect(&["--version", "--verbose"], &format!("python: {missing}"));
    fs::create_dir(folder.path().join("bin")).expect("our own folder");
    symlink("/nowhere/python3", folder.path().join("bin/python")).expect("a link");
    expect(&["--check-config", "echo"], "is a link to /nowhere/python3, which is not there; that Python was removed");
}

#[test]
fn each_way_in_which_the_wheel_cannot_be_loaded_has_its_sentence() {
    let ours = python_says("import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))");
    let ours = format!("_monoceros{}", ours.trim());
    let cases = [
        (None, "holds no extension module; this is the source tree"),
        (
            Some(("_monoceros.cpython-39-x86_64-linux-gnu.so", "")),
            "is for cpython-39-x86_64-linux-gnu, and this Python wants cpython-3",
        ),
        (Some((ours.as_str(), "")), "is damaged, or for another machine; install it again with this interpreter: "),
    ];
    for (file, said) in cases {
        let package = Package::new();
        if let Some((name, content)) = file {
            fs::write(package.path(name), content).expect("a fresh folder");
        }
        let output = package.start();
        assert!(output.contains("ImportError: monoceros cannot be loaded: ") && output.contains(said), "{output}");
    }
    let loader = [
        ("/lib/libc.so.6: version `GLIBC_2.34' not found (required by x)", "built for a newer system, with GLIBC 2.34"),
        ("x.so: failed to map segment from shared object", "mounted noexec"),
        ("libc.musl-x86_64.so.1: cannot open shared object file", "not for musl"),
        ("something else", "something else; if the package was copied"),
    ];
    for (error, said) in loader {
        let package = Package::new();
        fs::write(package.path(&ours), "").expect("a fresh folder");
        let script = format!(
            "import sys; sys.path.insert(0, {:?}); from importlib.util import spec_from_file_location as s, module_from_spec as m; f = s('d', {:?}); d = m(f); f.loader.exec_module(d); print(d.explain(ImportError({error:?})))",
            package.folder.path(),
            package.path("_diagnosis.py")
        );
        let output = python_says(&script);
        assert!(output.contains(said), "{output}");
    }
}

#[test]
fn the_man_page_is_read_without_a_complaint() {
    let page = root().join("python/monoceros.data/data/share/man/man1/monoceros.1");
    if !tools::has("groff") {
        return println!("skipped: apt-get install groff-base");
    }
    let output = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page).output().expect("groff");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn bash_completes_flags_values_files_and_modules() {
    // line, what is offered
    let table = [
        ("monoceros --worker-cl", "--worker-class"),
        ("monoceros --worker-class ", "gevent gthread sync"),
        ("monoceros --worker-class=g", "gevent gthread"),
        ("monoceros -k s", "sync"),
        ("monoceros --completions ", "bash fish zsh"),
        ("monoceros --config ap", "app.py"),
        ("monoceros --chdir s", "site"),
        ("monoceros -w ", "auto"),
        ("monoceros --timeout ", ""),
        ("monoceros -w 2 ", "app site.wsgi"),
    ];
    let folder = folder_with_modules();
    // bash would run what such names say.
    fs::write(folder.path().join("$(touch${IFS}run).py"), "").expect("our own folder");
    fs::write(folder.path().join("`touch run`.py"), "").expect("our own folder");
    for (line, offered) in table {
        // What readline does: it splits at blanks and at the characters of COMP_WORDBREAKS.
        let script = format!(
            "source <(\"$0\" --completions bash); line={line:?}; COMP_LINE=$line; COMP_POINT=${{#line}}; \
             read -ra COMP_WORDS <<< \"${{line//=/ = }}\"; [[ $line == *' ' ]] && COMP_WORDS+=(''); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); _monoceros; printf '%s\\n' \"${{COMPREPLY[@]}}\" | sort | xargs"
        );
        assert_eq!(shell("bash", &["--norc", "-c", &script], folder.path()), offered, "{line}");
    }
    assert!(!folder.path().join("run").exists());
}

#[test]
fn fish_completes_flags_values_and_modules() {
    if !tools::has("fish") {
        return println!("skipped: apt-get install fish");
    }
    let folder = folder_with_modules();
    let table = [
        ("monoceros --worker-cl", "--worker-class"),
        ("monoceros --worker-class ", "gevent gthread sync"),
        ("monoceros -k s", "sync"),
        ("monoceros --completions ", "bash fish zsh"),
        ("monoceros -w 2 ", "app site.wsgi"),
    ];
    for (line, offered) in table {
        let script = format!(
            "$argv[1] --completions fish | source; complete -C {line:?} | string replace -r '\\t.*' '' | sort | xargs"
        );
        let said = shell("fish", &["--no-config", "-c", &script], folder.path());
        assert_eq!(said, offered, "{line}");
    }
}

#[test]
fn zsh_takes_the_completions() {
    if !tools::has("zsh") {
        return println!("skipped: apt-get install zsh");
    }
    let folder = folder_with_modules();
    // Completing itself needs a terminal; _arguments compiles its specifications when it is called.
    let script = "autoload -U compinit && compinit -D; source <(\"$0\" --completions zsh) && print $_comps[monoceros] && \
                  _arguments() { print -l -- \"$@\" | grep -c ']:STRING:(sync gthread gevent)' } && _monoceros";
    assert_eq!(shell("zsh", &["-f", "-c", script], folder.path()), "_monoceros 2");
}

/// The words that `shell` prints; its last argument is the program.
#[track_caller]
fn shell(shell: &str, args: &[&str], folder: &Path) -> String {
    let output = Command::new(shell)
        .args(args)
        .arg(crate::util::program())
        .current_dir(folder)
        .env("HOME", folder)
        .env("VIRTUAL_ENV", venv())
        .output()
        .unwrap_or_else(|error| panic!("{shell}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "", "{shell}");
    String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn folder_with_modules() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("site")).expect("a fresh folder");
    for file in ["app.py", "site/wsgi.py", "site/views.py"] {
        fs::write(folder.path().join(file), "").expect("a fresh folder");
    }
    folder
}

fn run(args: &[&str], venv: &str) -> Finished {
    args.iter().fold(Plan::bare().bound_elsewhere().env("VIRTUAL_ENV", venv), |plan, arg| plan.args([arg])).run()
}

fn python_says(script: &str) -> String {
    let output = Command::new(venv().join("bin/python")).args(["-I", "-c", script]).output().expect("a Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The Python half of the wheel, without its other half.
struct Package {
    folder: TempDir,
}

impl Package {
    fn new() -> Package {
        let folder = tempfile::tempdir().expect("a folder");
        let package = Package { folder };
        fs::create_dir(package.path("")).expect("a fresh folder");
        for name in ["__init__.py", "__main__.py", "_diagnosis.py"] {
            fs::copy(root().join("python/monoceros").join(name), package.path(name)).expect("they are there");
        }
        package
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("monoceros").join(name)
    }

    /// What `python -m monoceros` says.
    fn start(&self) -> String {
        let output = Command::new(venv().join("bin/python"))
            .args(["-m", "monoceros", "--version"])
            .current_dir(self.folder.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .expect("a Python");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}
