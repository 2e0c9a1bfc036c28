//! The layers of the source tree: a module names only modules of lower layers, a crate only where
//! it belongs, and modules of one folder do not name each other in circles.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::util::root;

/// Every top module, lowest layer first. Modules of one layer do not name each other.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["http", "settings", "sys"],
    &["files", "tls"],
    &["logging", "scoreboard", "exchange"],
    &["metrics"],
    &["python"],
    &["ctl", "service"],
    &["bootstrap", "worker_init"],
    &["master", "worker"],
    &["lib"],
    &["program", "extension"],
    &["main", "launcher"],
];

/// What a module must not name although it lies below: crates, or layers that do not concern it.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("base", &["pyo3", "mio", "nix", "libc", "log", "std::os", "TcpStream", "UnixStream", "UdpSocket"]),
    ("http", &["pyo3", "mio", "nix", "libc", "log", "std::os", "TcpStream", "UnixStream", "UdpSocket"]),
    ("settings", &["pyo3", "mio", "nix", "libc", "TcpStream", "UnixStream", "UdpSocket"]),
    ("sys", &["pyo3", "mio", "log"]),
    ("tls", &["pyo3", "mio", "nix", "libc", "log"]),
    ("files", &["pyo3", "mio", "nix", "libc", "log"]),
    ("logging", &["pyo3", "mio", "nix", "libc"]),
    ("scoreboard", &["pyo3", "mio"]),
    ("exchange", &["pyo3", "mio"]),
    ("metrics", &["pyo3", "mio", "nix", "libc", "log"]),
    ("ctl", &["pyo3", "mio", "nix", "libc", "log"]),
    ("service", &["pyo3", "mio", "nix", "libc"]),
    ("worker_init", &["pyo3", "mio", "nix", "libc"]),
    ("bootstrap", &["pyo3", "mio", "nix", "libc"]),
    ("python", &["mio", "nix"]),
    ("master", &["pyo3", "nix", "libc", "crate::http"]),
    ("worker", &["pyo3"]),
];

/// Edges between modules of one folder that close a circle, and why each stands: folder, `from to`
/// pairs, reason.
const CIRCLES: &[(&str, &[&str], &str)] = &[
    (
        "http",
        &["fields request", "header_cache request", "lenient request", "request_line request"],
        "the parts of the request parser fill in the head that `request` defines",
    ),
    ("http", &["chunked body"], "one of the two body decoders reports in the other's terms"),
    ("logging", &["json access_format"], "JSON lines are one of the access formats"),
    (
        "python",
        &[
            "environment interpreter",
            "facade interpreter",
            "loggers interpreter",
            "signals interpreter",
            "title interpreter",
        ],
        "what works before and after the interpreter's start asks whether it runs, and the start prepares them",
    ),
    (
        "python",
        &["environ facade"],
        "the environ names the server as the facade does, which shows the environ's version",
    ),
    ("python", &["log_queue loggers", "native loggers"], "the queue and the native module end in Python's loggers"),
    ("python", &["loggers hooks"], "loggers are made by the bridge that also calls the hooks"),
    ("python", &["signals hooks"], "handlers tell the hooks what interrupts the worker"),
    (
        "settings",
        &["config load", "setting config", "suggest table"],
        "each row of the table writes its field of Config, and a loaded Config is checked with the table",
    ),
    (
        "sys",
        &["fork signal", "process signal"],
        "a copy of the process gives up the signal handlers, which ask whether they run in a copy",
    ),
    (
        "worker",
        &["body_store read_context", "leader thread_pool"],
        "parts of a connection and of the thread pool that name what holds them",
    ),
];

#[test]
fn every_module_names_only_modules_of_lower_layers() {
    let mut faults = Vec::new();
    each_line(|file, module, line| {
        for named in modules_named(line) {
            let own = layer(module).unwrap_or_else(|| panic!("{module} has no layer in this test"));
            // What lib.rs itself declares (an error type, a version) belongs to no layer.
            let Some(other) = layer(named) else { continue };
            if named != module && other >= own {
                faults.push(format!("{}: {module} must not name {named}: {}", file.display(), line.trim()));
            }
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_crate_is_used_only_where_it_belongs() {
    let mut faults = Vec::new();
    each_line(|file, module, line| {
        let forbidden = FORBIDDEN.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, list)| list);
        for name in forbidden.iter().filter(|name| names_path(line, name)) {
            faults.push(format!("{}: {module} must not name {name}: {}", file.display(), line.trim()));
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn modules_of_one_folder_name_each_other_in_no_circle_but_those_that_are_listed() {
    let mut edges = sibling_edges();
    let mut faults = Vec::new();
    for (folder, pairs, _) in CIRCLES {
        for pair in *pairs {
            let (from, to) = pair.split_once(' ').expect("two modules");
            if !edges.get_mut(*folder).is_some_and(|edges| edges.remove(&(from.to_owned(), to.to_owned()))) {
                faults.push(format!("{folder}: {from} does not name {to} any more: take it off the list"));
            }
        }
    }
    for (folder, mut edges) in edges {
        // Modules that name none of the others, or are named by none, lie on no circle.
        loop {
            let from: BTreeSet<String> = edges.iter().map(|(from, _)| from.clone()).collect();
            let to: BTreeSet<String> = edges.iter().map(|(_, to)| to.clone()).collect();
            let before = edges.len();
            edges.retain(|edge| to.contains(&edge.0) && from.contains(&edge.1));
            if edges.len() == before {
                break;
            }
        }
        let circle: Vec<String> = edges.iter().map(|(from, to)| format!("{from} -> {to}")).collect();
        if !circle.is_empty() {
            faults.push(format!("{folder}: a circle in {}", circle.join(", ")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn paths_are_read_from_uses_and_groups() {
    let read = |text: &str, module: &[&str]| {
        let module: Vec<String> = module.iter().map(|&name| name.to_owned()).collect();
        paths_named(text, &module).iter().map(|path| path.join("::")).collect::<BTreeSet<_>>()
    };
    let text = "use super::{Master, plan::{self, Target as T}};\nfn f(it: crate::sys::socket::Listener) { self::g() }";
    let expected = "master::Master master::plan::Target master::plan::self master::workers::g sys::socket::Listener";
    assert!(read(text, &["master", "workers"]).iter().eq(expected.split(' ')));
    assert!(read("use super::super::exchange::X;", &["worker", "pool", "leader"]).iter().eq(["worker::exchange::X"]));
    assert!(read("pub(super) fn f() {} // super::x", &["a", "b"]).is_empty());
}

#[test]
fn unsafe_code_lives_only_in_sys_and_python() {
    let mut faults = Vec::new();
    each_line(|file, module, line| {
        let has_unsafe = line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        // The launcher is a program of its own, and has the calls that it makes in one file. An
        // exported name is no code that could do harm.
        let may_be_there = ["sys", "python"].contains(&module) || file.ends_with("launcher/library.rs");
        if has_unsafe && !may_be_there && line.trim() != "#[unsafe(no_mangle)]" {
            faults.push(format!("{}: {}", file.display(), line.trim()));
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_layers_without_a_kernel_forbid_unsafe_code() {
    for module in ["base", "http", "settings"] {
        let text = fs::read_to_string(root().join(format!("src/{module}/mod.rs"))).expect("the module is a folder");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{module}/mod.rs lacks #![forbid(unsafe_code)]");
    }
}

/// Calls `check(file, top module, line)` for each line of code under src.
fn each_line(mut check: impl FnMut(&Path, &str, &str)) {
    for (inside, text) in source_files() {
        let top = inside.components().next().expect("a name").as_os_str().to_string_lossy();
        let module = top.trim_end_matches(".rs");
        text.lines().filter(|line| !line.trim_start().starts_with("//")).for_each(|line| check(&inside, module, line));
    }
}

/// Every source file, by its path under src, with its text.
fn source_files() -> Vec<(PathBuf, String)> {
    let src = root().join("src");
    let files = rust_files(&src);
    assert!(!files.is_empty(), "no source under {}", src.display());
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).expect("a source file is readable");
        (file.strip_prefix(&src).expect("a file under src").to_owned(), text)
    };
    files.into_iter().map(read).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a readable folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                return rust_files(&path);
            }
            Vec::from_iter((path.extension().is_some_and(|end| end == "rs")).then_some(path))
        })
        .collect()
}

/// For each folder with modules: which of its modules names which other one, tests left out. A
/// module and its parent may name each other: a folder is one module in several files.
fn sibling_edges() -> BTreeMap<String, BTreeSet<(String, String)>> {
    let files: Vec<(Vec<String>, String)> =
        source_files().into_iter().map(|(path, text)| (module_of(&path), text)).collect();
    let modules: BTreeSet<&[String]> = files.iter().map(|(module, _)| module.as_slice()).collect();
    let mut edges: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for (module, text) in &files {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for path in paths_named(code, module) {
            let length = (0..=path.len()).rev().find(|&length| modules.contains(&path[..length])).unwrap_or(0);
            let named = &path[..length];
            let common = module.iter().zip(named).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (module.get(common), named.get(common))
                && common > 0
            {
                let folder = module[..common].join("/");
                edges.entry(folder).or_default().insert((from.clone(), to.clone()));
            }
        }
    }
    edges
}

/// `master/mod.rs` is `master`, `master/plan.rs` is `master::plan`, `lib.rs` is the crate.
fn module_of(file: &Path) -> Vec<String> {
    let path = file.with_extension("");
    let parts = path.iter().map(|part| part.to_string_lossy().into_owned());
    parts.filter(|part| part != "mod" && part != "lib").collect()
}

/// The paths that start with `crate`, `self` or `super` in the code of `module`, from the crate
/// down. Comments are left out.
fn paths_named(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    for (start, levels_up) in [("crate::", module.len()), ("self::", 0), ("super::", 1)] {
        for (at, _) in code.match_indices(start).filter(|&(at, _)| !code[..at].ends_with(is_word)) {
            let (mut rest, mut up) = (&code[at + start.len()..], levels_up);
            while let Some(further) = rest.strip_prefix("super::") {
                (rest, up) = (further, up + 1);
            }
            let base = &module[..module.len().saturating_sub(up)];
            let (tails, _) = read_path(rest);
            found.extend(tails.into_iter().map(|tail| [base, &tail].concat()));
        }
    }
    found
}

/// Reads `a::b` or `a::{b, c::{d, e}}`: each path in it, and what follows.
fn read_path(text: &str) -> (Vec<Vec<String>>, &str) {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut paths = Vec::new();
        loop {
            let (found, after) = read_path(rest);
            paths.extend(found);
            // Also past what no path has, such as `*` or `as name`.
            let end = after.find([',', '}']).unwrap_or(after.len());
            match after[end..].strip_prefix(',') {
                Some(further) => rest = further,
                None => return (paths, after.get(end + 1..).unwrap_or_default()),
            }
        }
    }
    let word = first_word(text).to_owned();
    let after = &text[word.len()..];
    if word.is_empty() {
        return (Vec::new(), after);
    }
    match after.strip_prefix("::") {
        Some(further) => {
            let (tails, after) = read_path(further);
            let longer = |tail: Vec<String>| [vec![word.clone()], tail].concat();
            let paths: Vec<_> = tails.into_iter().map(longer).collect();
            (if paths.is_empty() { vec![vec![word]] } else { paths }, after)
        }
        None => (vec![vec![word]], after),
    }
}

/// The modules in `crate::name`, and in `crate::{name::..., other}`.
fn modules_named(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .flat_map(|(at, found)| {
            let rest = &line[at + found.len()..];
            match rest.strip_prefix('{') {
                Some(group) => group.split(',').map(|item| first_word(item.trim())).collect(),
                None => vec![first_word(rest)],
            }
        })
        .collect()
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Whether the line names this crate or path (`log::`, but neither `catalog::` nor `crate::log::`),
/// or this type.
fn names_path(line: &str, name: &str) -> bool {
    let is_type = name.starts_with(char::is_uppercase);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), &line[at + name.len()..]);
        if is_type {
            return !before.is_some_and(is_word) && !after.starts_with(is_word);
        }
        !before.is_some_and(|c| is_word(c) || c == ':') && after.starts_with("::")
    })
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}
