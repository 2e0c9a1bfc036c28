//! A file in memory into which a worker writes its stacks when it is asked by a signal, for another
//! process of the same user to read.
//!
//! The first line says that the worker knows the signal by now: to others it would be deadly.

use std::ffi::CStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::process::Pid;

const NAME: &CStr = c"monoceros-stacks";

const FIRST_LINE: &[u8] = b"monoceros-stacks 1\n";

/// What has been written is taken for all when nothing has followed for this long.
const QUIET: Duration = Duration::from_millis(30);

const LOOK: Duration = Duration::from_millis(5);

/// The signal that asks for stacks: the second real-time one. The first is the master's.
pub fn signal() -> i32 {
    libc::SIGRTMIN() + 1
}

/// The file of this process, still without its first line. Whoever writes to it writes at its end.
///
/// # Errors
/// No descriptor is left, or the machine has no such files.
pub fn create() -> io::Result<File> {
    // Kernels before 6.3 do not know the second flag; later ones warn without it.
    let not_executable = MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let file: OwnedFd = memfd_create(NAME, not_executable).or_else(|_| memfd_create(NAME, MFdFlags::MFD_CLOEXEC))?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file.into())
}

/// The process knows the signal from now on.
///
/// # Errors
/// There is no memory.
pub fn open_for_questions(file: &mut File) -> io::Result<()> {
    file.write_all(FIRST_LINE)
}

/// Why a process has not answered.
#[derive(Debug)]
pub enum NoAnswer {
    /// It has no such file, or does not know the signal yet.
    NotAsked,
    /// It belongs to another user.
    NotPermitted,
    /// It was asked, and has written nothing.
    Silent,
    /// Anything else.
    Failed(io::Error),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::NotAsked => f.write_str("it cannot be asked yet"),
            NoAnswer::NotPermitted => f.write_str("it belongs to another user; only root may ask"),
            NoAnswer::Silent => f.write_str("it does not answer: it is stopped, or waits in the kernel"),
            NoAnswer::Failed(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> NoAnswer {
        match error.kind() {
            ErrorKind::PermissionDenied => NoAnswer::NotPermitted,
            ErrorKind::NotFound => NoAnswer::NotAsked,
            _ => NoAnswer::Failed(error),
        }
    }
}

/// Asks a process for its stacks, and takes what it has written out of the file again.
pub fn ask(pid: Pid, patience: Duration) -> Result<String, NoAnswer> {
    let mut file = find(pid)?;
    let first = FIRST_LINE.len() as u64;
    if file.metadata()?.len() < first {
        return Err(NoAnswer::NotAsked);
    }
    file.set_len(first)?;
    // SAFETY: kill(2) touches no memory.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal()) }).map_err(io::Error::from)?;
    let (end, mut length, mut changed_at) = (Instant::now() + patience, first, Instant::now());
    while Instant::now() < end && (length == first || changed_at.elapsed() < QUIET) {
        std::thread::sleep(LOOK);
        let now = file.metadata()?.len();
        if now != length {
            (length, changed_at) = (now, Instant::now());
        }
    }
    let mut stacks = Vec::new();
    file.seek(SeekFrom::Start(first))?;
    file.read_to_end(&mut stacks)?;
    file.set_len(first)?;
    if stacks.is_empty() { Err(NoAnswer::Silent) } else { Ok(String::from_utf8_lossy(&stacks).into_owned()) }
}

fn find(pid: Pid) -> io::Result<File> {
    let name = format!("/memfd:{}", NAME.to_string_lossy());
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with(&name)) {
            return OpenOptions::new().read(true).write(true).open(entry.path());
        }
    }
    Err(ErrorKind::NotFound.into())
}
