//! The texts about settings that are made from the rows: `--help`, `--print-config` and
//! `docs/settings.md`.

use super::config::Config;
use super::program_flags::PROGRAM_FLAGS;
use super::setting::{Default, Kind, Missing, Section, Setting, Severity, Store};
use super::table::{NOT_SUPPORTED, all};

/// The first line of help and of a usage error.
pub const USAGE: &str = "usage: monoceros [OPTIONS] [APP_MODULE]";

/// The width of help, and the column in which its sentences begin, as in argparse.
const HELP_WIDTH: usize = 78;
const HELP_INDENT: usize = 24;

/// The whole text of `--help`, chapter by chapter.
pub fn help() -> String {
    let defaults = Config::default();
    let mut out = format!("{USAGE}\n\noptions:\n");
    for flag in PROGRAM_FLAGS {
        let meta = if flag.meta.is_empty() { String::new() } else { format!(" {}", flag.meta) };
        let spelled: Vec<String> = flag.flags.iter().map(|flag| format!("{flag}{meta}")).collect();
        write_help_entry(&mut out, &spelled.join(", "), flag.doc);
    }
    for section in Section::ALL {
        write_help_section(&mut out, section, &defaults);
    }
    out
}

/// Every setting as resolved, one per line, sorted by name: `name = value`, as gunicorn prints
/// them.
pub fn print_config(config: &Config) -> String {
    let mut lines: Vec<(&str, String)> = all().map(|setting| (setting.name, shown(setting, config))).collect();
    lines.sort();
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    lines.iter().map(|(name, value)| format!("{name:width$} = {value}\n")).collect()
}

/// Every setting in the order of the reference, one per line, for the log at debug level.
pub fn current_configuration(config: &Config) -> String {
    let lines: String = all().map(|setting| format!("\n  {}: {}", setting.name, shown(setting, config))).collect();
    format!("Current configuration:{lines}")
}

/// `docs/settings.md`: the reference of every setting, and the list of those that are not
/// supported.
pub fn reference_markdown() -> String {
    let defaults = Config::default();
    let mut out = String::from(REFERENCE_HEAD);
    for section in Section::ALL {
        out.push_str(&format!("\n## {}\n", section.title()));
        for setting in of_section(section) {
            write_reference_entry(&mut out, setting, &defaults);
        }
    }
    write_not_supported(&mut out);
    out
}

const REFERENCE_HEAD: &str = "\
# Settings

This page is made from the table in `src/settings/table/`; `MONOCEROS_BLESS=1 cargo test reference` writes it again.

A setting can come from four places. Each overrides those before it:

1. its default, which for a few settings is a variable of the environment;
2. the config file (see [config](#config)), under the setting's name;
3. flags in the variable `GUNICORN_CMD_ARGS`, written as on the command line;
4. flags on the command line. They may be shortened as long as they are unambiguous (`--graceful 10`).

A list given in one place replaces the list of an earlier one. Names and meanings are gunicorn's unless a setting says
otherwise.
";

fn of_section(section: Section) -> impl Iterator<Item = &'static Setting> {
    all().filter(move |setting| setting.section == section)
}

/// A setting's value, as Python would print it.
fn shown(setting: &Setting, config: &Config) -> String {
    setting.value_in(config).to_string()
}

fn write_help_section(out: &mut String, section: Section, defaults: &Config) {
    let mut rows = of_section(section).filter(|setting| !setting.flags.is_empty()).peekable();
    if rows.peek().is_some() {
        out.push_str(&format!("\n{}:\n", section.title().to_lowercase()));
    }
    for setting in rows {
        let text = format!("{} [{}]", setting.summary(), shown(setting, defaults));
        write_help_entry(out, &flags_with_meta(setting), &text);
    }
}

/// `-w INT, --workers INT`
pub(super) fn flags_with_meta(setting: &Setting) -> String {
    let meta = match setting.kind {
        Kind::Switch | Kind::SwitchOff => String::new(),
        Kind::OptionalText { .. } => format!(" [{}]", setting.meta),
        _ => format!(" {}", setting.meta),
    };
    let flags: Vec<String> = setting.flags.iter().map(|flag| format!("{flag}{meta}")).collect();
    flags.join(", ")
}

/// Appends the flags, and the text in a column beside them or, if they are too long, below them.
fn write_help_entry(out: &mut String, flags: &str, text: &str) {
    let mut column = flags.len() + 2;
    out.push_str(&format!("  {flags}"));
    if column + 2 > HELP_INDENT {
        out.push('\n');
        column = 0;
    }
    out.push_str(&" ".repeat(HELP_INDENT - column));
    let mut width = HELP_INDENT;
    for (number, word) in text.split_whitespace().enumerate() {
        if number > 0 && width + 1 + word.len() > HELP_WIDTH {
            out.push_str(&format!("\n{}", " ".repeat(HELP_INDENT)));
            width = HELP_INDENT;
        } else if number > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += word.len();
    }
    out.push('\n');
}

fn write_reference_entry(out: &mut String, setting: &Setting, defaults: &Config) {
    let (summary, rest) = setting.doc.split_once('\n').unwrap_or((setting.doc, ""));
    out.push_str(&format!("\n### {}\n\n{summary}\n\n", setting.name));
    if !setting.flags.is_empty() {
        out.push_str(&format!("- Flag: `{}`\n", flags_with_meta(setting)));
    }
    out.push_str(&format!("- Value: {}\n", kind_text(setting.kind)));
    out.push_str(&format!("- Default: {}\n", default_markdown(setting, defaults)));
    if !rest.is_empty() {
        out.push_str(&format!("\n{}\n", rest.trim()));
    }
}

fn write_not_supported(out: &mut String) {
    out.push_str("\n## Not supported yet\n\n");
    out.push_str("Settings of gunicorn that are not there. Where the table says so the server refuses to start with\n");
    out.push_str("one, unless its value is gunicorn's default; with the others it starts, and warns.\n\n");
    out.push_str("| setting | why | given all the same |\n|---|---|---|\n");
    for setting in NOT_SUPPORTED {
        if let Store::Missing(missing) = &setting.store {
            let name = setting.name;
            out.push_str(&format!("| `{name}` | {} | {} |\n", missing.reason, consequence(missing)));
        }
    }
}

fn consequence(missing: &Missing) -> &'static str {
    match missing.severity {
        _ if missing.harmless.contains(&"*") => "accepted",
        Severity::Refuse => "refused",
        Severity::Warn => "warning",
    }
}

fn kind_text(kind: Kind) -> String {
    match kind {
        Kind::Text => "a string".into(),
        Kind::Int => "an integer, not negative".into(),
        Kind::IntOrAuto => "an integer, not negative, or `auto`".into(),
        Kind::Mode => "file mode bits".into(),
        Kind::List => "a list of strings, or one; the flag may be repeated".into(),
        Kind::CommaList => "strings with commas between them, or a list".into(),
        Kind::Switch => "true or false; the flag means true".into(),
        Kind::SwitchOff => "true or false; the flag means false".into(),
        Kind::OptionalText { bare } => format!("a string; the flag alone means `{bare}`"),
        Kind::Map => "names and strings; config file only".into(),
        Kind::Hook => "a callable, or where to import it from (`module.name`); config file only".into(),
    }
}

fn default_markdown(setting: &Setting, defaults: &Config) -> String {
    let otherwise = match shown(setting, defaults).as_str() {
        "None" | "[]" => "not set".to_owned(),
        text => format!("`{text}`"),
    };
    match setting.default {
        Default::Environment { variable, .. } => {
            format!("the variable `{variable}` of the environment, else {otherwise}")
        }
        _ => otherwise,
    }
}

/// A file of the repository, for tests.
#[cfg(test)]
pub(super) fn in_the_tree(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load, read_file};
    use super::*;

    #[test]
    fn the_pages_for_users_name_only_flags_that_there_are() {
        let flags: Vec<&str> = all().chain(NOT_SUPPORTED).flat_map(|setting| setting.flags).copied().collect();
        // argparse's own flags, an abbreviated flag, a placeholder, and flags of other programs.
        let others =
            ["--help", "--version", "--gracef", "--flag", "--", "--install", "--uninstall", "--target", "--wait"];
        for page in ["docs/moving-from-gunicorn.md", "docs/differences.md"] {
            let text = std::fs::read_to_string(in_the_tree(page)).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
            for flag in words.filter(|word| word.starts_with("--") && !word.starts_with("---")) {
                assert!(flags.contains(&flag) || others.contains(&flag), "{page}: {flag}");
            }
        }
    }

    #[test]
    fn the_committed_reference_is_made_from_the_table() {
        let path = in_the_tree("docs/settings.md");
        if std::env::var_os("MONOCEROS_BLESS").is_some() {
            std::fs::write(&path, reference_markdown()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap();
        assert!(committed == reference_markdown(), "run: MONOCEROS_BLESS=1 cargo test reference");
    }

    /// In the sample a setting directly follows its `#`; prose follows after a space.
    #[test]
    fn the_sample_config_shows_the_defaults() {
        let sample = std::fs::read_to_string(in_the_tree("conf/monoceros.toml")).unwrap();
        let uncommented = |line: &str| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting.to_owned(),
            _ => line.to_owned(),
        };
        let lines: Vec<String> = sample.lines().map(uncommented).collect();
        let settings = lines.iter().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert!(settings > 30, "only {settings} settings are shown");

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("monoceros.toml");
        std::fs::write(&path, lines.join("\n")).unwrap();
        let sources = Sources { file: read_file(&path).unwrap(), ..Sources::empty() };
        let loaded = load(sources).unwrap();
        let mut expected = Config::default();
        expected.secure_scheme_headers.sort();
        assert_eq!(loaded.config, expected);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }

    #[test]
    fn help_names_every_flag_within_the_width_of_a_terminal() {
        let help = help();
        for setting in all() {
            for flag in setting.flags {
                assert!(help.contains(flag), "{flag}");
            }
        }
        for line in help.lines() {
            assert!(line.len() < 80, "{line}");
        }
    }

    #[test]
    fn the_config_is_printed_as_gunicorn_prints_it() {
        let printed = print_config(&Config::default());
        let expected = [
            "bind                               = ['127.0.0.1:8000']",
            "config                             = ./gunicorn.conf.py",
            "keepalive                          = None",
            "preload_app                        = False",
            "secure_scheme_headers              = {'X-FORWARDED-PROTOCOL': 'ssl', 'X-FORWARDED-PROTO': 'https', 'X-FORWARDED-SSL': 'on'}",
        ];
        for line in expected {
            assert!(printed.lines().any(|printed| printed == line), "{line}");
        }
        let mut sorted: Vec<&str> = printed.lines().collect();
        sorted.sort();
        assert_eq!(printed.lines().collect::<Vec<_>>(), sorted);
    }
}
