//! The language of the case files in `tests/data/differential`: one step a line, read into a list.
//!
//! ```text
//! # a comment
//! shared NAME            a pair of servers that several cases talk to; its steps start them
//! case SENTENCE          one comparison
//!   in NAME              the steps are played against that pair
//!   env NAME=VALUE       a variable of the environment
//!   file NAME            a file in the folder that the server is started in; its lines follow, each after `| `
//!   run ARGUMENTS        run the program to its end
//!   start ARGUMENTS      start it on a free port, and wait until it listens and a worker has loaded the app
//!   launch ARGUMENTS     the same without a --bind of ours
//!   daemon ARGUMENTS     the same for one that goes into the background and leaves a file `pid`
//!   ready N              wait until the app has been loaded N times in all
//!   get TARGET           a plain request on a connection of its own; what comes back, byte for byte
//!   send BYTES           the same with a request of one's own; \r \n \t \0 \\ and \xHH are escapes
//!   signal NAME [worker N]
//!   wait TEXT            wait until the error log has TEXT once more than the last wait for it
//!   gone worker N        wait until that worker has ended
//!   children N           wait until the master has so many live workers
//!   appears FILE         wait until there is such a file
//!   cat FILE             what a file holds
//!   mode FILE            its kind and permissions
//!   ls                   the names of the files that are there
//!   titles               the process titles
//!   exit                 wait for the end: status, stdout, error log
//!   vanish               wait for the end of a daemon: stdout, error log
//!   only WORD...         keep only lines of the transcript with one of the words
//!   without WORD...      drop those with one of them
//!   settings NAME...     of the settings that --print-config shows keep only these; `common`: those of both servers
//!   differs ID           the difference that docs/differences.md holds under that id, line by line:
//!     - a line of gunicorn's transcript that ours lacks; `*` stands for any text
//!     + a line that ours has instead
//!     -- ++ the same for any number of lines, but at least one
//! ```
//!
//! `$DIR` in a step is the folder that the server is started in. The error log is stderr, and the
//! file `log` there.

use std::fs;
use std::path::Path;

/// A file's cases, and the pairs of servers that some of them share.
#[derive(Debug, Default)]
pub struct Case {
    /// Where it stands, and what it is called.
    pub title: String,
    /// The shared pair it belongs to: as a case, or as the block that starts it.
    pub pair: Pair,
    pub steps: Vec<Step>,
    pub filter: Filter,
    pub differs: Vec<Allowance>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub enum Pair {
    /// The case starts servers of its own.
    #[default]
    Own,
    /// The block that starts a shared pair.
    Starts(String),
    /// A case that talks to one.
    Uses(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Env(String, String),
    File(String, String),
    Run(String),
    Start(String),
    Launch(String),
    Daemon(String),
    Ready(usize),
    Send(Vec<u8>),
    Signal { name: String, worker: Option<usize> },
    Wait(String),
    Gone(usize),
    Children(usize),
    Appears(String),
    Cat(String),
    Mode(String),
    List,
    Titles,
    Exit,
    Vanish,
}

/// Which lines of a transcript are compared.
#[derive(Debug, Default)]
pub struct Filter {
    pub only: Vec<String>,
    pub without: Vec<String>,
    pub settings: Vec<String>,
}

/// A difference that is meant.
#[derive(Debug)]
pub struct Allowance {
    /// Its anchor in docs/differences.md.
    pub id: String,
    pub lines: Vec<Line>,
}

/// A line that differs.
#[derive(Debug)]
pub struct Line {
    /// `-` is gunicorn's, `+` ours.
    pub sign: char,
    /// Whether it stands for more than one.
    pub is_many: bool,
    pub pattern: String,
}

/// Every case of every file of a folder.
pub fn read_all(folder: &Path) -> Vec<Case> {
    let entries = fs::read_dir(folder).expect("the cases are there").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "cases")).collect();
    paths.sort();
    paths.iter().flat_map(|path| read(path)).collect()
}

fn read(path: &Path) -> Vec<Case> {
    let text = fs::read_to_string(path).expect("a case file is text");
    let name = path.file_stem().expect("a name").to_string_lossy();
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{name}:{}", number + 1);
        if !line.starts_with(' ') {
            cases.push(header(line, &place));
        } else {
            let case = cases.last_mut().unwrap_or_else(|| panic!("{place}: a step before the first case"));
            take_line(case, line, &place);
        }
    }
    cases
}

fn header(line: &str, place: &str) -> Case {
    let title = format!("{place} {line}");
    match line.split_once(' ') {
        Some(("shared", name)) => Case { title, pair: Pair::Starts(name.into()), ..Case::default() },
        Some(("case", _)) => Case { title, ..Case::default() },
        _ => panic!("{place}: neither `case` nor `shared`: {line}"),
    }
}

fn take_line(case: &mut Case, line: &str, place: &str) {
    let line = line.trim_start();
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "|" => match case.steps.last_mut() {
            Some(Step::File(_, content)) => *content += &format!("{rest}\n"),
            _ => panic!("{place}: a line of no file"),
        },
        "-" | "+" | "--" | "++" => match case.differs.last_mut() {
            Some(allowance) => allowance.lines.push(Line {
                sign: word.chars().next().expect("a sign"),
                is_many: word.len() == 2,
                pattern: rest.into(),
            }),
            None => panic!("{place}: a line of no difference"),
        },
        "in" => case.pair = Pair::Uses(rest.into()),
        "only" => case.filter.only.extend(words(rest)),
        "settings" => case.filter.settings.extend(words(rest)),
        "without" => case.filter.without.extend(words(rest)),
        "differs" => case.differs.push(Allowance { id: rest.into(), lines: Vec::new() }),
        _ => case.steps.push(step(word, rest).unwrap_or_else(|| panic!("{place}: what is {line:?}?"))),
    }
}

fn step(word: &str, rest: &str) -> Option<Step> {
    Some(match word {
        "env" => {
            let (name, value) = rest.split_once('=')?;
            Step::Env(name.into(), value.into())
        }
        "file" => Step::File(rest.into(), String::new()),
        "run" => Step::Run(rest.into()),
        "start" => Step::Start(rest.into()),
        "launch" => Step::Launch(rest.into()),
        "daemon" => Step::Daemon(rest.into()),
        "ready" => Step::Ready(rest.parse().ok()?),
        "get" => Step::Send(format!("GET {rest} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").into_bytes()),
        "send" => Step::Send(unescape(rest)?),
        "signal" => match rest.split_once(" worker ") {
            Some((name, number)) => Step::Signal { name: name.into(), worker: Some(number.parse().ok()?) },
            None => Step::Signal { name: rest.into(), worker: None },
        },
        "wait" => Step::Wait(rest.into()),
        "gone" => Step::Gone(rest.strip_prefix("worker ")?.parse().ok()?),
        "appears" => Step::Appears(rest.into()),
        "children" => Step::Children(rest.parse().ok()?),
        "cat" => Step::Cat(rest.into()),
        "mode" => Step::Mode(rest.into()),
        "ls" => Step::List,
        "titles" => Step::Titles,
        "exit" => Step::Exit,
        "vanish" => Step::Vanish,
        _ => return None,
    })
}

/// Words as a shell splits them, so that one may hold a space.
fn words(text: &str) -> Vec<String> {
    shlex::split(text).unwrap_or_else(|| panic!("an open quotation: {text}"))
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'\\' => b'\\',
                b'x' => u8::from_str_radix(std::str::from_utf8(&[rest.next()?, rest.next()?]).ok()?, 16).ok()?,
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(bytes)
}
