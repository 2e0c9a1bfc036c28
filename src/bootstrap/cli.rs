//! The command line, read as Python's argparse reads gunicorn's: long flags may be shortened, short
//! ones may be run together and carry their value, the app may stand anywhere, and a mistake is two
//! lines on stderr and exit status 2.
//!
//! The module knows flags from the table of settings, and no setting by name. It only reads what
//! was typed; `settings::load` decides whether a value is valid. `GUNICORN_CMD_ARGS` goes through
//! the same reader.

use std::fmt;
use std::str::Chars;

use crate::settings::{self, Kind, Setting, Shell, Value, ValueOrigin};

/// What was typed.
#[derive(Debug)]
pub struct CommandLine {
    /// What the program does.
    pub mode: Mode,
    /// The app's spec, if one was given.
    pub app: Option<String>,
    /// The settings given by flags: each once, with its last value, or with all values for a list.
    pub assignments: Vec<settings::Assignment>,
}

impl CommandLine {
    /// A command line that says nothing.
    pub fn empty() -> CommandLine {
        CommandLine { mode: Mode::Serve, app: None, assignments: Vec::new() }
    }
}

/// What a command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Print the help and leave with status 0.
    Help,
    /// Print the version and leave with status 0.
    Version,
    /// Print the version and what the server finds here, and leave.
    VerboseVersion,
    /// Print the completions of a shell and leave with status 0.
    Completions(Shell),
    /// Everything else.
    Serve,
}

/// A command line that cannot be read. Displays as the two lines for stderr; the exit status is 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError {
    problem: String,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nmonoceros: error: {}", settings::USAGE, self.problem)
    }
}

impl std::error::Error for UsageError {}

/// The line that `--version` prints. Monitoring agents look for the words in brackets.
pub const VERSION: &str = concat!("monoceros (version ", env!("CARGO_PKG_VERSION"), ")");

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// A flag that does not exist or fits several, or lacks its value; text where a number belongs; a
/// second app.
pub fn parse(arguments: &[String]) -> Result<CommandLine, UsageError> {
    let words = classify(arguments)?;
    Parser { words: &words, at: 0, app: AppArgument::Unseen, given: Vec::new(), unrecognized: Vec::new() }.run()
}

/// Reads `GUNICORN_CMD_ARGS`, whose text is split into arguments as Python's `shlex.split` does.
/// gunicorn ignores an app in it, and the caller should too.
///
/// # Errors
/// As [`parse`], and a quotation or a text that ends too soon.
pub fn parse_environment(text: &str) -> Result<CommandLine, UsageError> {
    let read = split(text).and_then(|arguments| parse(&arguments));
    read.map_err(|error| usage(format!("{} ({})", error.problem, ValueOrigin::EnvironmentArguments)))
}

/// The crate shlex follows the shell, which has comments and drops an escaped line feed.
fn split(text: &str) -> Result<Vec<String>, UsageError> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' | '"' => take_quoted(letter, &mut letters, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(escaped(&mut letters)?),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Moves what stands before the closing `quote` to `word`.
fn take_quoted(quote: char, letters: &mut Chars<'_>, word: &mut String) -> Result<(), UsageError> {
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter == quote => return Ok(()),
            '\\' if quote == '"' => match escaped(letters)? {
                letter @ ('"' | '\\') => word.push(letter),
                letter => word.extend(['\\', letter]),
            },
            _ => word.push(letter),
        }
    }
    Err(usage("no closing quotation"))
}

fn escaped(letters: &mut Chars<'_>) -> Result<char, UsageError> {
    letters.next().ok_or_else(|| usage("no escaped character"))
}

/// One argument by itself. argparse classifies all of them before it acts on any.
enum Word<'a> {
    /// Not a flag: a value or the app.
    Plain(&'a str),
    /// The first `--`: all that follows is plain.
    EndOfFlags,
    /// A flag, and the value attached to it.
    Flag { flag: Flag, value: Option<Attached<'a>> },
    /// An argument that looks like a flag and is none.
    Unknown(&'a str),
}

/// A flag that exists.
#[derive(Clone, Copy)]
enum Flag {
    Help,
    Version,
    /// `--verbose`: makes `--version` say more, and has no other use.
    Verbose,
    Completions,
    Set(&'static Setting),
}

/// What stands in one argument with a flag.
#[derive(Clone, Copy)]
enum Attached<'a> {
    /// `--flag=text`
    Equals(&'a str),
    /// `-wtext`: the value of the flag or, if that takes none, more flags.
    Run(&'a str),
}

struct Parser<'a> {
    words: &'a [Word<'a>],
    at: usize,
    app: AppArgument,
    given: Vec<settings::Assignment>,
    unrecognized: Vec<String>,
}

/// argparse takes the first unbroken run of plain words for the app (and gunicorn the first word of
/// it).
enum AppArgument {
    Unseen,
    Taken(Option<String>),
}

fn usage(problem: impl Into<String>) -> UsageError {
    UsageError { problem: problem.into() }
}

fn classify(arguments: &[String]) -> Result<Vec<Word<'_>>, UsageError> {
    let mut only_plain = false;
    let mut words = Vec::with_capacity(arguments.len());
    for argument in arguments {
        words.push(match argument.as_str() {
            text if only_plain => Word::Plain(text),
            "--" => {
                only_plain = true;
                Word::EndOfFlags
            }
            text => classify_one(text)?,
        });
    }
    Ok(words)
}

fn classify_one(text: &str) -> Result<Word<'_>, UsageError> {
    if !text.starts_with('-') || text == "-" {
        return Ok(Word::Plain(text));
    }
    if let Some(flag) = exact(text) {
        return Ok(Word::Flag { flag, value: None });
    }
    if let Some(word) = with_value(text) {
        return Ok(word);
    }
    match shortened(text)? {
        Some(word) => Ok(word),
        // No flag is a number or contains a space, so these are values.
        None if is_negative_number(text) || text.contains(' ') => Ok(Word::Plain(text)),
        None => Ok(Word::Unknown(text)),
    }
}

/// Every spelling of every flag.
fn flags() -> impl Iterator<Item = (&'static str, Flag)> {
    let own = [
        ("-h", Flag::Help),
        ("--help", Flag::Help),
        ("-v", Flag::Version),
        ("--version", Flag::Version),
        ("--verbose", Flag::Verbose),
        ("--completions", Flag::Completions),
    ];
    let rows = settings::all().chain(settings::NOT_SUPPORTED);
    let of_rows = rows.flat_map(|setting| setting.flags.iter().map(move |flag| (*flag, Flag::Set(setting))));
    own.into_iter().chain(of_rows)
}

fn exact(text: &str) -> Option<Flag> {
    flags().find(|(spelling, _)| *spelling == text).map(|(_, flag)| flag)
}

/// `--flag=value`, also for short flags.
fn with_value(text: &str) -> Option<Word<'_>> {
    let (spelling, value) = text.split_once('=')?;
    Some(Word::Flag { flag: exact(spelling)?, value: Some(Attached::Equals(value)) })
}

/// A long flag cut short, or a short one with something attached.
fn shortened(text: &str) -> Result<Option<Word<'_>>, UsageError> {
    if !text.starts_with("--") {
        let end = text.char_indices().nth(2).map_or(text.len(), |(end, _)| end);
        let attached = Attached::Run(&text[end..]);
        return Ok(exact(&text[..end]).map(|flag| Word::Flag { flag, value: Some(attached) }));
    }
    let (start, value) = match text.split_once('=') {
        Some((start, value)) => (start, Some(Attached::Equals(value))),
        None => (text, None),
    };
    let fitting = flags().filter(|(spelling, _)| spelling.starts_with(start));
    // A prefix that gunicorn accepts stays valid, whatever settings this server adds.
    let (gunicorns, own): (Vec<_>, Vec<_>) = fitting.partition(|(_, flag)| flag.is_gunicorns());
    let fitting = if gunicorns.is_empty() { own } else { gunicorns };
    match &fitting[..] {
        [] => Ok(None),
        [(_, flag)] => Ok(Some(Word::Flag { flag: *flag, value })),
        _ => {
            let spellings: Vec<&str> = fitting.iter().map(|(spelling, _)| *spelling).collect();
            Err(usage(format!("ambiguous option: {text} could match {}", spellings.join(", "))))
        }
    }
}

impl Flag {
    fn is_gunicorns(&self) -> bool {
        match self {
            Flag::Help | Flag::Version => true,
            Flag::Verbose | Flag::Completions => false,
            Flag::Set(setting) => settings::is_gunicorns(setting),
        }
    }
}

fn is_negative_number(text: &str) -> bool {
    let digits = text.trim_start_matches('-');
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_number && digits.parse::<f64>().is_ok() && text.len() == digits.len() + 1
}

impl<'a> Parser<'a> {
    fn run(mut self) -> Result<CommandLine, UsageError> {
        while let Some(word) = self.words.get(self.at) {
            match *word {
                Word::Plain(_) | Word::EndOfFlags => self.take_app(),
                Word::Unknown(text) => {
                    self.unrecognized.push(text.to_owned());
                    self.at += 1;
                }
                Word::Flag { flag, value } => {
                    self.at += 1;
                    if let Some(mode) = self.take_flag(flag, value)? {
                        return Ok(CommandLine { mode, app: None, assignments: Vec::new() });
                    }
                }
            }
        }
        if !self.unrecognized.is_empty() {
            return Err(usage(format!("unrecognized arguments: {}", self.unrecognized.join(" "))));
        }
        let app = match self.app {
            AppArgument::Unseen => None,
            AppArgument::Taken(app) => app,
        };
        Ok(CommandLine { mode: Mode::Serve, app, assignments: merged(self.given) })
    }

    fn take_app(&mut self) {
        let mut run = Vec::new();
        while let Some(word) = self.words.get(self.at) {
            match *word {
                Word::Plain(text) => run.push(text.to_owned()),
                Word::EndOfFlags => {}
                Word::Flag { .. } | Word::Unknown(_) => break,
            }
            self.at += 1;
        }
        match self.app {
            AppArgument::Unseen => self.app = AppArgument::Taken(run.into_iter().next()),
            AppArgument::Taken(_) => self.unrecognized.extend(run),
        }
    }

    /// Stores a flag and its value. Help, version and completions end the reading at once.
    fn take_flag(&mut self, flag: Flag, attached: Option<Attached<'a>>) -> Result<Option<Mode>, UsageError> {
        match flag {
            Flag::Completions => self.take_shell(attached).map(Some),
            Flag::Set(setting) if takes_value(setting) => {
                let value = self.value_of(setting, attached)?;
                self.given.push((setting, value));
                Ok(None)
            }
            _ => self.take_switch(flag, attached),
        }
    }

    fn take_switch(&mut self, flag: Flag, attached: Option<Attached<'a>>) -> Result<Option<Mode>, UsageError> {
        if let Some(Attached::Equals(text)) = attached {
            return Err(ignored_value(flag, text));
        }
        match flag {
            Flag::Help => return Ok(Some(Mode::Help)),
            Flag::Version if self.is_verbose() => return Ok(Some(Mode::VerboseVersion)),
            Flag::Version => return Ok(Some(Mode::Version)),
            // Without --version the flag is unknown, as to gunicorn.
            Flag::Verbose => self.unrecognized.push("--verbose".to_owned()),
            Flag::Completions => unreachable!("it takes a value, and take_flag has seen to it"),
            Flag::Set(setting) => {
                self.given.push((setting, Value::Bool(setting.kind != Kind::SwitchOff)));
            }
        }
        match attached {
            Some(Attached::Run(rest)) => self.take_run(flag, rest),
            _ => Ok(None),
        }
    }

    /// Whether `--verbose` stands anywhere, also behind the flag that ends the reading.
    fn is_verbose(&self) -> bool {
        self.words.iter().any(|word| matches!(word, Word::Flag { flag: Flag::Verbose, value: None }))
    }

    fn take_shell(&mut self, attached: Option<Attached<'a>>) -> Result<Mode, UsageError> {
        let text = self.text_of(attached).ok_or_else(|| usage("argument --completions: expected one argument"))?;
        let shell = Shell::named(text).ok_or_else(|| {
            let shown = Value::from(text).repr();
            usage(format!("argument --completions: invalid choice: {shown} (choose from 'bash', 'zsh', 'fish')"))
        })?;
        Ok(Mode::Completions(shell))
    }

    /// The short flags that follow a short switch in one argument: `-Dw4` is `-D -w 4`.
    fn take_run(&mut self, before: Flag, rest: &'a str) -> Result<Option<Mode>, UsageError> {
        let mut letters = rest.chars();
        let next = letters.next().and_then(|letter| exact(&format!("-{letter}")));
        let next = next.ok_or_else(|| ignored_value(before, rest))?;
        let attached = Some(letters.as_str()).filter(|rest| !rest.is_empty()).map(Attached::Run);
        self.take_flag(next, attached)
    }

    fn value_of(&mut self, setting: &Setting, attached: Option<Attached<'a>>) -> Result<Value, UsageError> {
        match (setting.kind, self.text_of(attached)) {
            (Kind::OptionalText { bare }, None) => Ok(bare.into()),
            (_, None) => Err(usage(format!("argument {}: expected one argument", spellings(setting)))),
            (kind, Some(text)) => read_value(kind, text).ok_or_else(|| {
                usage(format!("argument {}: invalid int value: {}", spellings(setting), Value::from(text).repr()))
            }),
        }
    }

    /// The text of a value: in the same argument as the flag, or the next plain one.
    fn text_of(&mut self, attached: Option<Attached<'a>>) -> Option<&'a str> {
        match (attached, self.words.get(self.at)) {
            (Some(Attached::Equals(text) | Attached::Run(text)), _) => Some(text),
            (None, Some(Word::Plain(text))) => {
                self.at += 1;
                Some(*text)
            }
            (None, _) => None,
        }
    }
}

fn takes_value(setting: &Setting) -> bool {
    !matches!(setting.kind, Kind::Switch | Kind::SwitchOff)
}

/// Numbers are read here, as argparse does: text that is no number is a usage error. A mode stays
/// text, so that its leading zero keeps its meaning.
fn read_value(kind: Kind, text: &str) -> Option<Value> {
    match kind {
        Kind::Int => parse_decimal(text).map(Value::Int),
        Kind::IntOrAuto if text == "auto" => Some(text.into()),
        Kind::IntOrAuto => parse_decimal(text).map(Value::Int),
        Kind::Mode => Value::from(text).mode().is_ok().then(|| text.into()),
        _ => Some(text.into()),
    }
}

/// Python's `int(text)`: no base prefix, but leading zeros, underscores between digits and white
/// space around.
fn parse_decimal(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_clean = digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    is_clean.then(|| text.replace('_', "").parse().ok())?
}

fn ignored_value(flag: Flag, text: &str) -> UsageError {
    let spellings = match flag {
        Flag::Help => "-h/--help".to_owned(),
        Flag::Version => "-v/--version".to_owned(),
        Flag::Verbose => "--verbose".to_owned(),
        Flag::Completions => "--completions".to_owned(),
        Flag::Set(setting) => spellings(setting),
    };
    usage(format!("argument {spellings}: ignored explicit argument {}", Value::from(text).repr()))
}

/// `-w/--workers`
fn spellings(setting: &Setting) -> String {
    setting.flags.join("/")
}

/// One value for each setting: the last one, or all of them for a list.
fn merged(given: Vec<settings::Assignment>) -> Vec<settings::Assignment> {
    let mut merged: Vec<settings::Assignment> = Vec::with_capacity(given.len());
    for (setting, value) in given {
        let known = merged.iter().position(|(other, _)| other.name == setting.name);
        let is_list = setting.kind == Kind::List;
        match (known, is_list) {
            (Some(at), true) => {
                if let Value::List(items) = &mut merged[at].1 {
                    items.push(value);
                }
            }
            (Some(at), false) => merged[at].1 = value,
            (None, true) => merged.push((setting, Value::List(vec![value]))),
            (None, false) => merged.push((setting, value)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits at spaces; `''` is an empty argument.
    fn read(line: &str) -> Result<CommandLine, UsageError> {
        let arguments: Vec<String> = line.split_whitespace().map(|word| word.replace("''", "")).collect();
        parse(&arguments)
    }

    /// `app | name=value name=value`
    fn described(line: &str) -> String {
        let read = read(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let settings: Vec<String> =
            read.assignments.iter().map(|(setting, value)| format!("{}={value}", setting.name)).collect();
        format!("{} | {}", read.app.as_deref().unwrap_or("-"), settings.join(" "))
    }

    #[test]
    fn flags_are_read_as_argparse_reads_them() {
        let cases = [
            ("", "- | "),
            ("app:app", "app:app | "),
            ("-w 4 app", "app | workers=4"),
            ("app -w4", "app | workers=4"),
            ("app -w=4", "app | workers=4"),
            ("--workers 4 app", "app | workers=4"),
            ("--workers=4 app", "app | workers=4"),
            ("--workers 4", "- | workers=4"),
            ("--gra=4", "- | graceful_timeout=4"),
            ("--log-f x", "- | errorlog=x"),
            ("--boot 4", "- | boot_timeout=4"),
            ("-w 1 -w 2", "- | workers=2"),
            ("-w 0_1_0", "- | workers=10"),
            ("-w -4", "- | workers=-4"),
            ("-b a:1 --bind b:2 -bc:3", "- | bind=['a:1', 'b:2', 'c:3']"),
            ("--bin a", "- | bind=['a']"),
            ("--preload --daemon", "- | preload_app=True daemon=True"),
            ("--no-sendfile", "- | sendfile=False"),
            ("-Dw4 app", "app | daemon=True workers=4"),
            ("-Dw 4 app", "app | daemon=True workers=4"),
            ("-DR", "- | daemon=True enable_stdio_inheritance=True"),
            ("-m 0022", "- | umask=0022"),
            ("-c '' app", "app | config="),
            ("--config= app", "app | config="),
            ("--log-file - app", "app | errorlog=-"),
            ("--error-logfile=-", "- | errorlog=-"),
            ("--limit-request-field_size 7", "- | limit_request_field_size=7"),
            ("--proxy-protocol", "- | proxy_protocol=auto"),
            ("--proxy-protocol v1 app", "app | proxy_protocol=v1"),
            ("--proxy-protocol app:app", "- | proxy_protocol=app:app"),
            ("--proxy-protocol -w 4 app", "app | proxy_protocol=auto workers=4"),
            ("-e A=1 -e B=2=3", "- | raw_env=['A=1', 'B=2=3']"),
            ("-w 4 -- app", "app | workers=4"),
            ("-- -w", "-w | "),
            ("app extra", "app | "),
            ("--threads 4", "- | threads=4"),
        ];
        for (line, expected) in cases {
            assert_eq!(described(line), expected, "{line}");
        }
    }

    #[test]
    fn mistakes_are_told_in_argparses_words() {
        let cases = [
            ("--foo", "unrecognized arguments: --foo"),
            ("--foo=1 app -x", "unrecognized arguments: --foo=1 -x"),
            ("app -w 4 other", "unrecognized arguments: other"),
            ("-w", "argument -w/--workers: expected one argument"),
            ("-w --daemon", "argument -w/--workers: expected one argument"),
            ("-w -- 4", "argument -w/--workers: expected one argument"),
            ("-w abc", "argument -w/--workers: invalid int value: 'abc'"),
            ("-w 0x4", "argument -w/--workers: invalid int value: '0x4'"),
            ("-w 1.5", "argument -w/--workers: invalid int value: '1.5'"),
            ("-m 9z", "argument -m/--umask: invalid int value: '9z'"),
            ("--reload=1", "argument --reload: ignored explicit argument '1'"),
            ("-Dx", "argument -D/--daemon: ignored explicit argument 'x'"),
            ("--verbose app", "unrecognized arguments: --verbose"),
            ("--verbose=1 app", "argument --verbose: ignored explicit argument '1'"),
            ("--completions", "argument --completions: expected one argument"),
            ("--completions csh", "argument --completions: invalid choice: 'csh' (choose from 'bash', 'zsh', 'fish')"),
            ("-é", "unrecognized arguments: -é"),
            ("--access 1", "ambiguous option: --access could match --access-logfile, --access-logformat"),
            ("--help --pa", "ambiguous option: --pa could match --paste, --paster, --paste-global"),
        ];
        for (line, expected) in cases {
            let error = read(line).unwrap_err();
            assert_eq!(error.problem, expected, "{line}");
        }
        let error = read("--foo").unwrap_err().to_string();
        assert_eq!(error, "usage: monoceros [OPTIONS] [APP_MODULE]\nmonoceros: error: unrecognized arguments: --foo");
    }

    #[test]
    fn help_and_version_end_the_reading() {
        let cases = [
            ("-h", Mode::Help),
            ("--help -w", Mode::Help),
            ("app --hel", Mode::Help),
            ("-v", Mode::Version),
            ("--version --foo", Mode::Version),
            ("--foo --version", Mode::Version),
            ("-Dv", Mode::Version),
            ("--version --verbose", Mode::VerboseVersion),
            ("--verbose -v", Mode::VerboseVersion),
            ("-v --foo --verb", Mode::VerboseVersion),
            ("--version --verbose=1", Mode::Version),
            ("--ver", Mode::Version),
            ("--completions bash", Mode::Completions(Shell::Bash)),
            ("--completions=zsh -w", Mode::Completions(Shell::Zsh)),
            ("--compl fish", Mode::Completions(Shell::Fish)),
            ("app", Mode::Serve),
        ];
        for (line, expected) in cases {
            assert_eq!(read(line).unwrap().mode, expected, "{line}");
        }
    }

    #[test]
    fn the_environments_arguments_are_split_as_a_shell_splits_them() {
        let read = parse_environment(r#"--bind 'a:1' -e "A=b c" ignored:app"#).unwrap();
        let values: Vec<String> = read.assignments.iter().map(|(_, value)| value.to_string()).collect();
        assert_eq!(values, ["['a:1']", "['A=b c']"]);
        assert!(parse_environment("").unwrap().assignments.is_empty());
        let error = parse_environment("--bind 'a").unwrap_err();
        assert_eq!(error.problem, "no closing quotation (GUNICORN_CMD_ARGS)");
    }

    /// The words are those of Python's `shlex.split`.
    #[test]
    fn words_end_where_python_ends_them() {
        let cases: [(&str, &[&str]); 7] = [
            ("-n #a b#c # d", &["-n", "#a", "b#c", "#", "d"]),
            (" a\r\nb\t''\r", &["a", "b", ""]),
            (r#"a\ b 'c\' "d\e\"\\" f'g'"h""#, &["a b", r"c\", r#"d\e"\"#, "fgh"]),
            ("a\\\nb \"c\\\nd\"", &["a\nb", "c\\\nd"]),
            ("\u{a0}é", &["\u{a0}é"]),
            ("''a", &["a"]),
            ("", &[]),
        ];
        for (text, words) in cases {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for (text, problem) in [
            ("a\\", "no escaped character"),
            ("\"a\\", "no escaped character"),
            ("\"a\\\"", "no closing quotation"),
            ("'", "no closing quotation"),
        ] {
            assert_eq!(split(text).unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn every_flag_that_help_shows_is_known() {
        let shown = settings::PROGRAM_FLAGS.iter().flat_map(|flag| flag.flags);
        let known = flags().filter(|(_, flag)| !matches!(flag, Flag::Set(_))).map(|(spelling, _)| spelling);
        assert_eq!(shown.copied().collect::<Vec<_>>(), known.collect::<Vec<_>>());
    }

    #[test]
    fn every_flag_can_be_typed() {
        for setting in settings::all().chain(settings::NOT_SUPPORTED) {
            for flag in setting.flags {
                let line = if takes_value(setting) { format!("{flag} 1") } else { (*flag).to_owned() };
                let read = read(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert_eq!(read.assignments[0].0.name, setting.name, "{line}");
            }
        }
    }
}
