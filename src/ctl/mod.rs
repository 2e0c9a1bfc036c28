//! `monoceros ctl`: commands of the operator for a server that runs.
//!
//! `status`, `top` and `stacks` read the server's board in shared memory, so they work while
//! everything in the server hangs, and they need no setting. The other commands go through the
//! control socket. None may need Python: a health check of a container calls `status` every few
//! seconds. `ctl` is a command only in front of one of the words below: a bare `monoceros ctl`
//! serves an application of that name.

#![expect(clippy::print_stderr, reason = "a command answers on its terminal")]

mod client;
mod duration;
mod find_master;
mod frame;
mod reading;
mod stacks;
mod status;
mod top;
mod views;

use std::io::{self, Write};

use crate::scoreboard::Scoreboard;

use self::find_master::NotFound;

/// The server serves as it should, or the command was carried out.
const OK: i32 = 0;
/// The server serves less than it should (LSB, "Init Script Actions": there is a fault).
const DEGRADED: i32 = 1;
/// The command line was wrong (argparse's status).
const USAGE: i32 = 2;
/// No such server runs (LSB).
const NOT_RUNNING: i32 = 3;
/// It is not known whether the server runs (LSB).
const UNKNOWN: i32 = 4;

const HELP: &str = "usage: monoceros ctl status [--json | --probe] [PID | PIDFILE]
       monoceros ctl top [--interval SECONDS] [PID | PIDFILE]
       monoceros ctl stacks [PID | PIDFILE]
       monoceros ctl [-s SOCKET] show | worker | dirty | reload | reopen | loglevel | drain | upgrade | shutdown |
                                 help ...

status  how the server is; exits 0 if all workers serve, 1 if not, 3 if it does not run,
        4 if that cannot be told
        --json   all metrics, as JSON
        --probe  say nothing; exit 0 if requests are served, and 1 from the signal to stop on
top     the same again and again, with rates; q quits, h shows the keys
stacks  what each worker is at: its requests, and the Python stack of each thread
others  commands of the control socket, which `control_socket` opens; `help` lists them

Without PID or PIDFILE it is the one server of this machine that may be looked into.";

/// A command that reads the board.
#[derive(Debug, Clone, PartialEq)]
enum Command {
    Status(status::Form),
    Top { interval: f64 },
    Stacks,
}

/// The commands of the control socket.
const REMOTE: [&str; 10] =
    ["show", "worker", "dirty", "reload", "reopen", "loglevel", "drain", "upgrade", "shutdown", "help"];

/// Carries out the command in the program's `arguments`, and returns the exit status. `None` if
/// they are no command: then they name an application.
pub fn run(arguments: &[String]) -> Option<i32> {
    let [first, word, rest @ ..] = arguments else { return None };
    if first != "ctl" {
        return None;
    }
    if word == "-s" {
        let [path, words @ ..] = rest else { return Some(wrong_usage("-s is the path of a control socket")) };
        return Some(if words.is_empty() { wrong_usage("a command is missing") } else { client::run(path, words) });
    }
    if REMOTE.contains(&word.as_str()) {
        return Some(remote(&arguments[1..]));
    }
    let parsed = match word.as_str() {
        "status" => parse_status(rest),
        "top" => parse_top(rest),
        "stacks" => parse_plain(rest).map(|target| (Command::Stacks, target)),
        "-h" | "--help" => {
            print(HELP);
            return Some(OK);
        }
        _ => return None,
    };
    Some(match parsed {
        Ok((command, target)) => carry_out(&command, target.as_deref()),
        Err(problem) => wrong_usage(&problem),
    })
}

fn wrong_usage(problem: &str) -> i32 {
    eprintln!("{HELP}\nmonoceros ctl: error: {problem}");
    USAGE
}

/// A command for the socket of the one server that runs here.
fn remote(words: &[String]) -> i32 {
    if words.iter().any(|word| word == "-h" || word == "--help") {
        print(HELP);
        return OK;
    }
    let board = match find_master::find(None) {
        Ok(board) => board,
        Err(not_found) => return say(&Command::Stacks, &not_found),
    };
    match board.control_path() {
        path if path.is_empty() => {
            eprintln!(
                "monoceros ctl: the server with the master {} has no control socket: set control_socket",
                board.master()
            );
            DEGRADED
        }
        path => client::run(&path, words),
    }
}

fn carry_out(command: &Command, target: Option<&str>) -> i32 {
    let board = match find_master::find(target) {
        Ok(board) => board,
        Err(not_found) => return say(command, &not_found),
    };
    match command {
        Command::Status(form) => status::show(&board, *form),
        Command::Top { interval } => top::run(&board, *interval),
        Command::Stacks => stacks::show(&board),
    }
}

fn say(command: &Command, not_found: &NotFound) -> i32 {
    if *command == Command::Status(status::Form::Probe) {
        return DEGRADED;
    }
    eprintln!("monoceros ctl: {not_found}");
    match not_found {
        NotFound::NotRunning(_) => NOT_RUNNING,
        NotFound::Several(_) => USAGE,
        NotFound::Unknown(_) => UNKNOWN,
    }
}

type Parsed = Result<(Command, Option<String>), String>;

fn parse_status(words: &[String]) -> Parsed {
    let (mut form, mut rest) = (status::Form::Text, Vec::new());
    for word in words {
        match word.as_str() {
            "--json" => form = status::Form::Json,
            "--probe" => form = status::Form::Probe,
            _ => rest.push(word.clone()),
        }
    }
    parse_plain(&rest).map(|target| (Command::Status(form), target))
}

fn parse_top(words: &[String]) -> Parsed {
    let (mut interval, mut rest, mut words) = (top::INTERVALS[1], Vec::new(), words.iter());
    while let Some(word) = words.next() {
        if word == "--interval" {
            let given = words.next().and_then(|given| given.parse().ok());
            interval = given.filter(|given| (0.1..=3600.0).contains(given)).ok_or("--interval is seconds, from 0.1")?;
        } else {
            rest.push(word.clone());
        }
    }
    parse_plain(&rest).map(|target| (Command::Top { interval }, target))
}

fn parse_plain(words: &[String]) -> Result<Option<String>, String> {
    match words {
        [] => Ok(None),
        [word] if !word.starts_with('-') => Ok(Some(word.clone())),
        [target, rest @ ..] => {
            let word = if target.starts_with('-') { Some(target) } else { rest.first() };
            Err(format!("unrecognized arguments: {}", word.unwrap_or(target)))
        }
    }
}

/// Prints a line. That the reader has closed the pipe, as `head` does, is no fault.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Replaces control characters: no text of a client or an application may steer the terminal.
/// Newlines and tabs stay.
fn harmless(text: &str) -> String {
    let is_harmful = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    text.chars().map(|character| if is_harmful(character) { '?' } else { character }).collect()
}

/// Whether enough workers serve.
fn serves_fully(board: &Scoreboard) -> bool {
    let serving = board.read_workers().iter().filter(|worker| worker.is_serving()).count() as u64;
    !board.is_stopping() && serving >= board.wanted() && serving > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn an_application_may_be_named_like_a_command() {
        for arguments in ["ctl", "status", "top", "ctl:app", "ctl -w 2", "--bind :80 ctl status", "ctl other"] {
            assert_eq!(run(&words(arguments)), None, "{arguments}");
        }
    }

    #[test]
    fn a_command_of_the_socket_is_no_application() {
        // Whatever server runs here refuses it.
        assert!(run(&words("ctl dirty nothing")).is_some());
    }

    #[test]
    fn what_cannot_be_read_is_a_wrong_usage() {
        for arguments in
            ["ctl status --jsn", "ctl top 1 2", "ctl top --interval", "ctl top --interval 0", "ctl stacks -x"]
        {
            assert_eq!(run(&words(arguments)), Some(USAGE), "{arguments}");
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_told_from_a_probe_that_fails() {
        for (arguments, status) in [
            ("ctl status 2147483647", NOT_RUNNING),
            ("ctl status --probe 2147483647", DEGRADED),
            ("ctl status /nowhere/pid", NOT_RUNNING),
        ] {
            assert_eq!(run(&words(arguments)), Some(status), "{arguments}");
        }
    }
}
