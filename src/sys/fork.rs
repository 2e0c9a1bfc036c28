//! fork(2), and nothing else: who must prepare for it (CPython, the signal mask) wraps this one function.

use std::io;

use nix::unistd::{self, ForkResult};

use super::process::Pid;

/// Which side of the fork the caller finds itself on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The caller is still the old process; the new one has this pid.
    Parent(Pid),
    /// The caller is the new process.
    Child,
}

/// Forks the process (fork(2)). Fails with EAGAIN or ENOMEM when the system has no room for another process.
pub fn fork() -> io::Result<Forked> {
    // SAFETY: the master starts no thread (design, "Supervision"), so no lock can be held by a thread that the child
    // does not have, and the child may run any code.
    match unsafe { unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
        ForkResult::Child => Ok(Forked::Child),
    }
}
