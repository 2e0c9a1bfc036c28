//! Into the background: away from the terminal, its session and the shell that waits.

use std::io;
use std::os::fd::AsFd;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{self, setsid};

use super::fork::Forked;
use super::process;

/// Leaves the foreground: fork, new session, fork again (so that no terminal can become ours), umask 022, standard input,
/// output and error on /dev/null. Returns in the grandchild only; the others end with status 0. `fork` is the caller's,
/// because an interpreter may have to be told of it.
pub fn daemonize(fork: impl Fn() -> io::Result<Forked>) -> io::Result<()> {
    leave_to_child(&fork)?;
    setsid()?;
    leave_to_child(&fork)?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    close_stdio()
}

fn leave_to_child(fork: impl Fn() -> io::Result<Forked>) -> io::Result<()> {
    match fork()? {
        Forked::Parent(_) => process::exit_now(0),
        Forked::Child => Ok(()),
    }
}

fn close_stdio() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    unistd::dup2_stdin(null.as_fd())?;
    unistd::dup2_stdout(null.as_fd())?;
    unistd::dup2_stderr(null.as_fd())?;
    Ok(())
}
