//! The documents, kept true where a machine can tell: links lead somewhere, and the bounds are
//! those of the source.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::util::root;

#[test]
fn every_link_between_documents_leads_to_a_file_and_a_heading() {
    let documents = documents();
    assert!(documents.contains(&root().join("README.md")), "no documents under {}", root().display());
    let mut faults = Vec::new();
    for document in &documents {
        let text = read(document);
        for target in links(&text) {
            if let Some(fault) = fault_of(document, target) {
                faults.push(format!("{}: {target}: {fault}", in_repository(document)));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_document_that_the_source_names_is_there() {
    let mut faults = Vec::new();
    for folder in ["src", "tests", "fuzz", "scripts", "python"] {
        for file in files(&root().join(folder)) {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            for name in documents_named(&text) {
                if !root().join(name).is_file() {
                    faults.push(format!("{}: there is no {name}", in_repository(&file)));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_decision_is_in_the_index() {
    let folder = root().join("docs/decisions");
    let index = read(&folder.join("README.md"));
    let listed: HashSet<&str> = links(&index).collect();
    for file in files(&folder) {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        assert!(name == "README.md" || listed.contains(name.as_str()), "docs/decisions/README.md does not list {name}");
    }
}

#[test]
fn every_bound_is_what_the_page_of_bounds_says() {
    let page = read(&root().join("docs/internals/bounds.md"));
    let defaults = read(&root().join("docs/settings.md"));
    let mut faults = Vec::new();
    let mut checked = 0;
    for (name, value, place) in page.lines().filter_map(bound_in) {
        let actual = match place {
            "settings" => default_of(&defaults, name),
            file => fs::read_to_string(root().join("src").join(file)).ok().and_then(|text| constant_in(&text, name)),
        };
        let told = amount(value).unwrap_or_else(|| panic!("bounds.md: {name}: {value:?} is no amount"));
        let agrees = actual.is_some_and(|actual| told.agrees_with(actual));
        if !agrees {
            faults.push(format!("{name} in {place}: the page says {value}, there it is {actual:?}"));
        }
        checked += 1;
    }
    assert!(checked > 80, "only {checked} rows were understood");
    assert!(faults.is_empty(), "docs/internals/bounds.md:\n{}", faults.join("\n"));
}

/// STYLE.md: at most 100 columns. The row of a table cannot be broken, nor can an address.
#[test]
fn comments_are_no_wider_than_they_should_be() {
    let may_be_wide =
        |comment: &str| ["//! | ", "//!   "].iter().any(|row| comment.starts_with(row)) || comment.contains("https://");
    let mut faults = Vec::new();
    for file in ["src", "tests", "fuzz"].iter().flat_map(|folder| files(&root().join(folder))) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//")) {
            if file.extension().is_some_and(|kind| kind == "rs") && line.chars().count() > 100 && !may_be_wide(line) {
                faults.push(format!("{}:{}", in_repository(&file), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A Python that one list names and another does not is promised, and not tested or not built.
#[test]
fn every_list_of_pythons_is_the_same() {
    let pythons = |file: &str, begin: &str, end: &str| {
        let text = read(&root().join(file));
        let list = text.split(begin).nth(1).unwrap_or_else(|| panic!("{file} lacks {begin:?}"));
        let list = list.split(end).next().expect("a first part").replace("(3, ", "3.");
        let words = list.split(|c: char| !c.is_ascii_digit() && c != '.').map(str::to_owned);
        words.filter(|word| word.starts_with("3.1")).collect::<Vec<_>>()
    };
    let classifiers = read(&root().join("pyproject.toml"));
    let promised: Vec<&str> =
        classifiers.split("Programming Language :: Python :: ").filter_map(|rest| rest.split('"').next()).collect();
    let promised: Vec<&str> = promised.into_iter().filter(|word| word.starts_with("3.1")).collect();
    assert!(promised.len() >= 4, "{promised:?}");
    assert_eq!(pythons(".github/workflows/ci.yml", "python: [", "]").join(" "), promised.join(" "));
    assert_eq!(pythons(".github/workflows/wheels.yml", "PYTHONS: |", "jobs:"), promised);
    assert_eq!(pythons("scripts/test", "versions=(", ")"), promised);
    assert_eq!(pythons("scripts/wheels", "MINORS = [", "]"), promised);
}

/// All documents of the repository.
fn documents() -> Vec<PathBuf> {
    let mut found = files(root());
    found.retain(|file| file.extension().is_some_and(|end| end == "md"));
    found
}

/// The files under `folder`, but for what tools have made and what git keeps.
fn files(folder: &Path) -> Vec<PathBuf> {
    let is_source = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !["target", ".git", ".venv", "corpus", "__pycache__"].contains(&name) && !name.ends_with("_cache")
    };
    let entries = fs::read_dir(folder).expect("a readable folder").map(|entry| entry.expect("an entry").path());
    entries
        .filter(|path| is_source(path) && !path.is_symlink())
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn in_repository(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// The targets of `[text](target)`, each of which stands on one line.
fn links(text: &str) -> impl Iterator<Item = &str> {
    outside_code(text).flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split(')').next()))
}

/// The lines that do not stand in a block of code.
fn outside_code(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// What is wrong with a link to `target` in `document`.
fn fault_of(document: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let folder = document.parent().expect("a document is in a folder");
    let file = if path.is_empty() { document.to_owned() } else { without_dots(&folder.join(path)) };
    if !file.exists() {
        return Some("no such file".to_owned());
    }
    if !file.starts_with(root()) {
        return Some("outside the repository".to_owned());
    }
    let anchor = anchor?;
    (!anchors(&read(&file)).contains(anchor)).then(|| "no such heading".to_owned())
}

fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// What forges name the headings of a document by, and the anchors that it sets itself.
fn anchors(text: &str) -> HashSet<String> {
    let headings = outside_code(text).filter(|line| line.starts_with('#'));
    let headings = headings.map(|line| slug(line.trim_start_matches('#')));
    let own = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned);
    headings.chain(own).collect()
}

fn slug(heading: &str) -> String {
    let is_kept = |c: &char| c.is_alphanumeric() || ['-', '_', ' '].contains(c);
    heading.trim().to_lowercase().chars().filter(is_kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Paths such as `docs/signals.md` in a file of source.
fn documents_named(text: &str) -> Vec<&str> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
    let names = text.match_indices("docs/").map(|(at, _)| {
        let rest = &text[at..];
        rest[..rest.find(|c| !is_path(c)).unwrap_or(rest.len())].trim_end_matches('.')
    });
    names.filter(|name| name.ends_with(".md")).collect()
}

/// Name, value and place of a row such as ``| `TICK` | 1 s | `worker/event_loop/mod.rs` | ... |``.
fn bound_in(line: &str) -> Option<(&str, &str, &str)> {
    let mut cells = line.strip_prefix("| `")?.split(" | ");
    let name = cells.next()?.strip_suffix('`')?;
    let value = cells.next()?;
    let place = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    Some((name, value, place))
}

/// A number, and what it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amount {
    /// Things or bytes.
    Count(u128),
    /// Nanoseconds.
    Time(u128),
}

impl Amount {
    /// A setting or a constant may hold a time as a number of its unit, which the page spells out.
    fn agrees_with(self, actual: Number) -> bool {
        match (self, actual) {
            (Amount::Count(told), Number::Plain { value, .. }) => told == value,
            (Amount::Time(told), Number::Plain { value, unit }) => told == value * unit,
            (Amount::Time(told), Number::Duration(actual)) => told == actual,
            (Amount::Count(_), Number::Duration(_)) => false,
        }
    }
}

/// What stands in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    /// As many of this unit of time, in nanoseconds, if it is a time.
    Plain { value: u128, unit: u128 },
    /// Nanoseconds.
    Duration(u128),
}

const MICROSECOND: u128 = 1_000;
const MILLISECOND: u128 = 1_000_000;
const SECOND: u128 = 1_000_000_000;

/// `64 KiB`, `5 ms`, `10,000`, `2 (seconds)`.
fn amount(text: &str) -> Option<Amount> {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number: u128 = number.replace(',', "").parse().ok()?;
    Some(match unit {
        "us" | "µs" => Amount::Time(number * MICROSECOND),
        "ms" => Amount::Time(number * MILLISECOND),
        "s" => Amount::Time(number * SECOND),
        "KiB" => Amount::Count(number << 10),
        "MiB" => Amount::Count(number << 20),
        "GiB" => Amount::Count(number << 30),
        "" => Amount::Count(number),
        unit if unit.starts_with('(') => Amount::Count(number),
        _ => return None,
    })
}

/// The default of a setting, which is in seconds if it is a time.
fn default_of(page: &str, setting: &str) -> Option<Number> {
    let section = page.split(&format!("\n### {setting}\n")).nth(1)?;
    let section = section.split("\n### ").next()?;
    let default = section.split("\n- Default: `").nth(1)?.split('`').next()?;
    Some(Number::Plain { value: default.parse().ok()?, unit: SECOND })
}

/// The value of `const NAME: T = ...;` in a file of source.
fn constant_in(text: &str, name: &str) -> Option<Number> {
    let definition = text.split(&format!("const {name}: ")).nth(1)?;
    let value = definition.split(';').next()?.split(" = ").nth(1)?.trim();
    let inside = |open: &str| value.strip_prefix(open)?.split(')').next();
    if let Some(value) = inside("NonZeroUsize::new(") {
        return Some(Number::Plain { value: product(value)?, unit: 1 });
    }
    for (open, unit) in [("from_micros(", MICROSECOND), ("from_millis(", MILLISECOND), ("from_secs(", SECOND)] {
        if let Some(value) = inside(&format!("Duration::{open}")) {
            return Some(Number::Duration(product(value)? * unit));
        }
    }
    let unit = if name.ends_with("_NS") { 1 } else { MILLISECOND };
    Some(Number::Plain { value: product(value)?, unit })
}

/// `64 * 1024`, `16 << 20`, `500_000`.
fn product(text: &str) -> Option<u128> {
    let number = |text: &str| text.trim().replace('_', "").parse::<u128>().ok();
    match text.split_once("<<") {
        Some((value, places)) => Some(number(value)? << number(places)?),
        None => text.split('*').map(number).product(),
    }
}
