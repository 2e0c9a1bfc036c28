//! Daemonizing: leaving the terminal, its session and the shell that waits.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{self, setsid};

use super::fork::Forked;
use super::process;

/// Where stdout and stderr of a daemon go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// To /dev/null.
    Null,
    /// Unchanged, unless they are a terminal.
    Inherited,
}

/// Leaves the foreground: fork, new session, fork again (so that no terminal can become ours),
/// umask 022, standard input on /dev/null, output and error as `output` says. Returns in the
/// grandchild only; the others end with status 0. The caller passes `fork`, because an interpreter
/// may have to be told of each fork.
pub fn daemonize(fork: impl Fn() -> io::Result<Forked>, output: Output) -> io::Result<()> {
    leave_to_child(&fork)?;
    setsid()?;
    leave_to_child(&fork)?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    close_stdio(output)
}

fn leave_to_child(fork: impl Fn() -> io::Result<Forked>) -> io::Result<()> {
    match fork()? {
        Forked::Parent(_) => process::exit_now(0),
        Forked::Child => Ok(()),
    }
}

fn close_stdio(output: Output) -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let goes = |is_terminal: bool| output == Output::Null || is_terminal;
    unistd::dup2_stdin(null.as_fd())?;
    if goes(io::stdout().is_terminal()) {
        unistd::dup2_stdout(null.as_fd())?;
    }
    if goes(io::stderr().is_terminal()) {
        unistd::dup2_stderr(null.as_fd())?;
    }
    Ok(())
}
