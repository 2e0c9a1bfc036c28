//! The floors of the design, kept: a module names only modules below its own, and a crate only where it belongs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::util::root;

/// Every top module and its floor. Where modules of one floor build on each other the numbers say in which order.
const LAYERS: &[(&str, u32)] = &[
    ("base", 0),
    ("http", 1),
    ("settings", 1),
    ("sys", 1),
    ("tls", 5),
    ("logging", 10),
    ("scoreboard", 10),
    ("exchange", 10),
    ("python", 11),
    ("service", 12),
    ("bootstrap", 13),
    ("worker_init", 13),
    ("master", 20),
    ("worker", 20),
    ("lib", 32),
    ("main", 40),
    ("extension", 40),
];

/// What a module must not name though it lies below: crates, or floors that are none of its business.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("base", &["pyo3", "mio", "nix", "libc", "log", "std::os", "TcpStream", "UnixStream", "UdpSocket"]),
    ("http", &["pyo3", "mio", "nix", "libc", "log", "std::os", "TcpStream", "UnixStream", "UdpSocket"]),
    ("settings", &["pyo3", "mio", "nix", "libc", "TcpStream", "UnixStream", "UdpSocket"]),
    ("sys", &["pyo3", "mio", "log"]),
    ("tls", &["pyo3", "mio", "nix", "libc", "log"]),
    ("logging", &["pyo3", "mio", "nix", "libc"]),
    ("scoreboard", &["pyo3", "mio"]),
    ("exchange", &["pyo3", "mio"]),
    ("worker_init", &["pyo3", "mio"]),
    ("python", &["mio", "nix"]),
    ("master", &["pyo3", "nix", "libc", "crate::http"]),
    ("worker", &["pyo3"]),
    ("bootstrap", &["pyo3", "mio", "nix", "libc"]),
];

#[test]
fn every_module_names_only_modules_below_its_own() {
    let mut faults = Vec::new();
    each_line(|file, module, line| {
        for named in modules_named(line) {
            let own = layer(module).unwrap_or_else(|| panic!("{module} has no layer in this test"));
            // What lib.rs itself declares (an error type, a version) belongs to nobody's floor.
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
fn unsafe_code_lives_only_in_sys_and_python() {
    let mut faults = Vec::new();
    each_line(|file, module, line| {
        let has_unsafe = line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        if has_unsafe && !["sys", "python"].contains(&module) {
            faults.push(format!("{}: {}", file.display(), line.trim()));
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_floors_without_a_kernel_forbid_unsafe_code() {
    for module in ["base", "http", "settings"] {
        let text = fs::read_to_string(root().join(format!("src/{module}/mod.rs"))).expect("the module is a folder");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{module}/mod.rs lacks #![forbid(unsafe_code)]");
    }
}

/// Calls `check(file, top module, line)` for each line of code under src.
fn each_line(mut check: impl FnMut(&Path, &str, &str)) {
    let src = root().join("src");
    let files = rust_files(&src);
    assert!(!files.is_empty(), "no source under {}", src.display());
    for file in files {
        let inside = file.strip_prefix(&src).expect("a file under src");
        let top = inside.components().next().expect("a name").as_os_str().to_string_lossy();
        let module = top.trim_end_matches(".rs");
        let text = fs::read_to_string(&file).expect("a source file is readable");
        text.lines().filter(|line| !line.trim_start().starts_with("//")).for_each(|line| check(inside, module, line));
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a readable folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => Vec::from_iter((path.extension().is_some_and(|end| end == "rs")).then_some(path)),
        })
        .collect()
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

/// Whether the line names this crate or path (`log::`, but neither `catalog::` nor `crate::log::`), or this type.
fn names_path(line: &str, name: &str) -> bool {
    let is_type = name.starts_with(char::is_uppercase);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), &line[at + name.len()..]);
        match is_type {
            true => !before.is_some_and(is_word) && !after.starts_with(is_word),
            false => !before.is_some_and(|c| is_word(c) || c == ':') && after.starts_with("::"),
        }
    })
}

fn layer(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}
