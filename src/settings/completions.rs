//! `--completions`: the scripts by which shells complete the command line, made from the rows.
//!
//! A script is a list and nothing more: completing starts no server and no Python.

use super::program_flags::{PROGRAM_FLAGS, Shell};
use super::setting::{Kind, Setting};
use super::table::all;

/// The script for a shell: what `--completions` prints.
pub fn completions(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// The values of settings that take one of a few words. Where a row refuses every other word, its
/// error names the words, and a test compares the two.
static WORDS: &[(&str, &[&str])] = &[
    ("worker_class", &["sync", "gthread", "gevent"]),
    ("workers", &["auto"]),
    ("worker_memory_measure", &["rss", "pss"]),
    ("reload_engine", &["auto", "poll", "inotify"]),
    ("header_map", &["drop", "refuse", "dangerous"]),
    ("protocol", &["http", "uwsgi"]),
    ("proxy_protocol", &["off", "v1", "v2", "auto"]),
    ("cert_reqs", &["0", "1", "2"]),
    ("loglevel", &["debug", "info", "warning", "error", "critical"]),
    ("syslog_format", &["gunicorn", "rfc5424"]),
    ("log_format", &["text", "json", "json-ecs", "json-gcp", "json-otel"]),
];

/// The worker classes by their short names.
pub fn worker_classes() -> &'static [&'static str] {
    WORDS.iter().find(|(name, _)| *name == "worker_class").map_or(&[], |(_, words)| words)
}

/// What may stand behind a flag.
#[derive(Clone, Copy)]
enum Candidates {
    /// The flag is a switch.
    NoValue,
    Files,
    Folders,
    Words(&'static [&'static str]),
    /// A number, an address, a name: nothing to offer.
    Anything,
}

/// A flag as the scripts see it.
struct Entry {
    flags: &'static [&'static str],
    meta: &'static str,
    candidates: Candidates,
    is_list: bool,
    /// Whether the flag may stand alone.
    is_optional: bool,
    doc: &'static str,
}

fn entries() -> impl Iterator<Item = Entry> {
    let own = PROGRAM_FLAGS.iter().map(|flag| Entry {
        flags: flag.flags,
        meta: flag.meta,
        candidates: if flag.words.is_empty() { Candidates::NoValue } else { Candidates::Words(flag.words) },
        is_list: false,
        is_optional: false,
        doc: flag.doc,
    });
    let rows = all().filter(|setting| !setting.flags.is_empty());
    own.chain(rows.map(|setting| Entry {
        flags: setting.flags,
        meta: setting.meta,
        candidates: candidates_of(setting),
        is_list: setting.kind == Kind::List,
        is_optional: matches!(setting.kind, Kind::OptionalText { .. }),
        doc: setting.summary(),
    }))
}

fn candidates_of(setting: &Setting) -> Candidates {
    if let Some((_, words)) = WORDS.iter().find(|(name, _)| *name == setting.name) {
        return Candidates::Words(words);
    }
    match (setting.name, setting.kind, setting.meta) {
        (_, Kind::Switch | Kind::SwitchOff, _) => Candidates::NoValue,
        ("pythonpath", ..) => Candidates::Folders,
        ("paste" | "wsgi_file", ..) => Candidates::Files,
        (_, _, "FILE" | "FILES" | "CONFIG" | "CERT[,KEY]") => Candidates::Files,
        (_, _, "DIR") => Candidates::Folders,
        _ => Candidates::Anything,
    }
}

fn bash() -> String {
    let flags: Vec<&str> = entries().flat_map(|entry| entry.flags).copied().collect();
    let mut cases = String::new();
    for entry in entries() {
        let action = match entry.candidates {
            Candidates::NoValue => continue,
            Candidates::Files => "_monoceros_offer -o filenames -f".to_owned(),
            Candidates::Folders => "_monoceros_offer -o filenames -d".to_owned(),
            Candidates::Words(words) => format!("_monoceros_offer -W '{}'", words.join(" ")),
            Candidates::Anything => ":".to_owned(),
        };
        cases.push_str(&format!("        {}) {action}; return ;;\n", entry.flags.join("|")));
    }
    BASH.replace("@CASES@\n", &cases).replace("@FLAGS@", &flags.join(" "))
}

/// bash splits `--flag=value` at the equals sign, and an application at its colon.
const BASH: &str = r#"# bash completion of monoceros, made by: monoceros --completions bash
_monoceros() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    COMPREPLY=()
    case $before in
@CASES@
    esac
    if [[ $word == -* ]]; then
        _monoceros_offer -W '@FLAGS@'
    else
        _monoceros_offer -W "$(_monoceros_modules)"
    fi
}

_monoceros_offer() {
    if [[ $1 == -o ]]; then
        compopt -o "$2" 2>/dev/null
        shift 2
    fi
    mapfile -t COMPREPLY < <(compgen "$@" -- "$word")
}

_monoceros_modules() {
    local file
    for file in *.py */wsgi.py */asgi.py; do
        # compgen -W expands what it is given: a name that is no module's could be a command.
        [[ -e $file && $file != *[!A-Za-z0-9_./]* ]] || continue
        file=${file%.py}
        printf '%s\n' "${file//\//.}"
    done
}

complete -F _monoceros monoceros
"#;

fn zsh() -> String {
    let mut out = String::from(ZSH_HEAD);
    for entry in entries() {
        out.push_str(&format!("    {} \\\n", zsh_argument(&entry)));
    }
    out.push_str(ZSH_TAIL);
    out
}

const ZSH_HEAD: &str = r#"#compdef monoceros
# zsh completion of monoceros, made by: monoceros --completions zsh
_monoceros_modules() {
  local -a modules
  modules=(*.py(N:r) */wsgi.py(N:r:gs:/:.:) */asgi.py(N:r:gs:/:.:))
  compadd -a modules
}

_monoceros() {
  _arguments -s -S \
"#;

/// The script is loaded by `source`, or called as the function `_monoceros` from a folder of
/// `fpath`.
const ZSH_TAIL: &str = r#"    '1:application:_monoceros_modules'
}

if [[ "${funcstack[1]}" == _monoceros ]]; then
  _monoceros "$@"
else
  compdef _monoceros monoceros
fi
"#;

/// `'(-w --workers)'{-w+,--workers=}'[Worker processes that serve requests.]:INT:(auto)'`
fn zsh_argument(entry: &Entry) -> String {
    let has_value = !matches!(entry.candidates, Candidates::NoValue);
    let spelled = entry.flags.iter().map(|flag| match (has_value, flag.starts_with("--")) {
        (false, _) => (*flag).to_owned(),
        (true, true) => format!("{flag}="),
        (true, false) => format!("{flag}+"),
    });
    let spelled: Vec<String> = spelled.collect();
    let group = if entry.is_list { "'*'".to_owned() } else { format!("'({})'", entry.flags.join(" ")) };
    let spelled = match &spelled[..] {
        [one] => one.clone(),
        several => format!("{{{}}}", several.join(",")),
    };
    let colon = if entry.is_optional { "::" } else { ":" };
    let value = match entry.candidates {
        Candidates::NoValue => String::new(),
        Candidates::Files => format!("{colon}{}:_files", zsh_text(entry.meta)),
        Candidates::Folders => format!("{colon}{}:_files -/", zsh_text(entry.meta)),
        Candidates::Words(words) => format!("{colon}{}:({})", zsh_text(entry.meta), words.join(" ")),
        Candidates::Anything => format!("{colon}{}: ", zsh_text(entry.meta)),
    };
    format!("{group}{spelled}'[{}]{value}'", zsh_text(entry.doc))
}

/// Escapes what ends a description or a message of `_arguments`, in single quotes.
fn zsh_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:").replace('[', "\\[").replace(']', "\\]").replace('\'', "'\\''")
}

fn fish() -> String {
    let mut out = String::from(FISH_HEAD);
    for entry in entries() {
        let flags: Vec<String> = entry.flags.iter().map(|flag| fish_flag(flag)).collect();
        let value = match entry.candidates {
            Candidates::NoValue => String::new(),
            Candidates::Files => " -r -F".to_owned(),
            Candidates::Folders => " -x -a '(__fish_complete_directories)'".to_owned(),
            Candidates::Words(words) => format!(" -x -a '{}'", words.join(" ")),
            Candidates::Anything => " -x".to_owned(),
        };
        let doc = entry.doc.replace('\\', "\\\\").replace('\'', "\\'");
        out.push_str(&format!("complete -c monoceros {}{value} -d '{doc}'\n", flags.join(" ")));
    }
    out
}

const FISH_HEAD: &str = r"# fish completion of monoceros, made by: monoceros --completions fish
function __monoceros_modules
    for file in *.py */wsgi.py */asgi.py
        string replace -a / . (string replace -r '\.py$' '' $file)
    end
end

complete -c monoceros -f -a '(__monoceros_modules)'
";

fn fish_flag(flag: &str) -> String {
    flag.strip_prefix("--").map_or_else(|| format!("-s {}", &flag[1..]), |long| format!("-l {long}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::table::find;
    use crate::settings::{Config, Store, Value};

    /// What a row says to a value that it cannot take.
    fn complaint(setting: &Setting, value: &Value) -> Option<String> {
        let Store::Field { set, .. } = &setting.store else { return None };
        set(&mut Config::blank(), value).err().map(|error| error.to_string())
    }

    #[test]
    fn every_word_that_is_offered_is_a_value() {
        for (name, words) in WORDS {
            let setting = find(name).unwrap_or_else(|| panic!("there is no setting {name}"));
            assert!(!setting.flags.is_empty(), "{name}");
            for word in *words {
                let number = word.parse::<i64>().map(Value::Int);
                let value = number.unwrap_or_else(|_| Value::from(*word));
                assert_eq!(complaint(setting, &value), None, "{name}: {word}");
            }
        }
    }

    #[test]
    fn every_word_that_a_row_names_is_offered() {
        let mut compared = 0;
        for setting in all().filter(|setting| !setting.flags.is_empty()) {
            let said = complaint(setting, &Value::from("no such word")).unwrap_or_default();
            let named = said.split_once("is not one of ").or_else(|| said.split_once("is neither "));
            let Some((_, named)) = named else { continue };
            let named: Vec<&str> = named.split('\'').skip(1).step_by(2).collect();
            let offered = WORDS.iter().find(|(name, _)| *name == setting.name).map(|(_, words)| *words);
            assert_eq!(offered, Some(&named[..]), "{}: {said}", setting.name);
            compared += 1;
        }
        assert!(compared >= 4, "{compared}");
    }

    #[test]
    fn every_flag_is_in_every_script() {
        let flags: Vec<&str> = entries().flat_map(|entry| entry.flags).copied().collect();
        let (bash, zsh, fish) = (completions(Shell::Bash), completions(Shell::Zsh), completions(Shell::Fish));
        let holds = |script: &str, flag: &str| {
            script.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').any(|word| word == flag)
        };
        for flag in flags {
            assert!(holds(&bash, flag), "bash: {flag}");
            assert!(holds(&zsh, flag), "zsh: {flag}");
            assert!(fish.contains(&format!("{} ", fish_flag(flag))), "fish: {flag}");
        }
    }
}
