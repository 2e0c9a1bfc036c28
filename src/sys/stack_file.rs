//! A file in memory into which a worker writes its stacks when a signal asks for them. Another
//! process of the same user reads it.
//!
//! The first line says that the worker handles the signal by now: a process that does not would be
//! ended by it.

use std::ffi::CStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::process::Pid;

const NAME: &CStr = c"monoceros-stacks";

/// The name of a file to which greenlets are written as well, behind the threads. [`END`] follows
/// them.
const WITH_GREENLETS: &CStr = c"monoceros-stacks-and-greenlets";

/// The byte that ends the stacks of greenlets.
const END: u8 = 0;

const FIRST_LINE: &[u8] = b"monoceros-stacks 1\n";

/// Where an answer begins: behind the first line.
const FIRST: u64 = FIRST_LINE.len() as u64;

/// Bytes of an answer that are read: faulthandler writes at most a hundred threads of a hundred
/// frames.
const MOST_BYTES: u64 = 1 << 20;

/// An answer counts as whole when nothing has followed for this long.
const QUIET: Duration = Duration::from_millis(30);

/// How often the asker looks whether more has come.
pub const LOOK: Duration = Duration::from_millis(5);

/// The signal that asks for stacks: the second real-time one. The first is the master's.
pub fn signal() -> i32 {
    libc::SIGRTMIN() + 1
}

/// Whose stacks a process writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Those of its threads, at once, whichever thread holds the interpreter.
    Threads,
    /// Those of its threads, then those of its greenlets as soon as its main thread gets to them
    /// ([`write_greenlets`]).
    ThreadsAndGreenlets,
}

/// The file of this process, still without its first line. Every write appends to it.
///
/// # Errors
/// No descriptor is left, or the machine has no such files.
pub fn create(written: Written) -> io::Result<File> {
    let name = match written {
        Written::Threads => NAME,
        Written::ThreadsAndGreenlets => WITH_GREENLETS,
    };
    // Kernels before 6.3 do not know the second flag; later ones warn without it.
    let not_executable = MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let file: OwnedFd = memfd_create(name, not_executable).or_else(|_| memfd_create(name, MFdFlags::MFD_CLOEXEC))?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file.into())
}

/// Writes the first line: from now on the process handles the signal.
///
/// # Errors
/// There is no memory.
pub fn open_for_questions(file: &mut File) -> io::Result<()> {
    file.write_all(FIRST_LINE)
}

/// Writes the stacks of greenlets behind those of threads.
///
/// # Errors
/// There is no memory.
pub fn write_greenlets(mut file: &File, text: &str) -> io::Result<()> {
    let mut whole: Vec<u8> = text.bytes().filter(|&byte| byte != END).collect();
    whole.push(END);
    file.write_all(&whole)
}

/// Why a process has not answered.
#[derive(Debug)]
pub enum NoAnswer {
    /// The process has no such file, or does not handle the signal yet.
    NotAsked,
    /// The process belongs to another user.
    NotPermitted,
    /// The process was asked, and has written nothing.
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

/// Asks a process for its stacks, and waits for them.
///
/// # Errors
/// The process does not answer within `patience`, or cannot be asked.
pub fn ask(pid: Pid, written: Written, patience: Duration) -> Result<String, NoAnswer> {
    let mut question = Question::ask(pid, written, patience)?;
    loop {
        std::thread::sleep(LOOK);
        if let Some(answer) = question.answer(Instant::now()) {
            return answer;
        }
    }
}

/// A question to a process, for callers that cannot wait for the answer.
#[derive(Debug)]
pub struct Question {
    file: File,
    /// Whether [`END`] ends the answer. Otherwise the answer is whole when nothing has followed for
    /// [`QUIET`].
    has_end: bool,
    /// When the process must have answered.
    until: Instant,
    /// The length of the file at the last look, and when it last changed.
    length: u64,
    changed_at: Instant,
}

impl Question {
    /// Asks a process for its stacks. Those of greenlets are waited for only if `written` names
    /// them and the process writes them. The answer may take as long as `patience` says.
    ///
    /// # Errors
    /// The process cannot be asked.
    pub fn ask(pid: Pid, written: Written, patience: Duration) -> Result<Question, NoAnswer> {
        let (file, writes) = find(pid)?;
        if file.metadata()?.len() < FIRST {
            return Err(NoAnswer::NotAsked);
        }
        file.set_len(FIRST)?;
        // SAFETY: kill(2) touches no memory.
        Errno::result(unsafe { libc::kill(pid.as_raw(), signal()) }).map_err(io::Error::from)?;
        let now = Instant::now();
        let has_end = written == writes && writes == Written::ThreadsAndGreenlets;
        Ok(Question { file, has_end, until: now + patience, length: FIRST, changed_at: now })
    }

    /// Takes the stacks out of the file, once they are whole or the time is over. To be called
    /// again every [`LOOK`] until then.
    pub fn answer(&mut self, now: Instant) -> Option<Result<String, NoAnswer>> {
        match self.is_whole(now) {
            Ok(true) => Some(self.take()),
            Ok(false) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    fn is_whole(&mut self, now: Instant) -> io::Result<bool> {
        let length = self.file.metadata()?.len();
        if length != self.length {
            (self.length, self.changed_at) = (length, now);
        }
        let has_ended = if self.has_end {
            length > FIRST && self.ends()?
        } else {
            length > FIRST && now.saturating_duration_since(self.changed_at) >= QUIET
        };
        Ok(has_ended || now >= self.until)
    }

    fn ends(&self) -> io::Result<bool> {
        let mut last = [0];
        self.file.read_exact_at(&mut last, self.length - 1)?;
        Ok(last == [END])
    }

    fn take(&mut self) -> Result<String, NoAnswer> {
        let mut stacks = Vec::new();
        self.file.seek(SeekFrom::Start(FIRST))?;
        (&self.file).take(MOST_BYTES).read_to_end(&mut stacks)?;
        self.file.set_len(FIRST)?;
        stacks.retain(|&byte| byte != END);
        if stacks.is_empty() { Err(NoAnswer::Silent) } else { Ok(String::from_utf8_lossy(&stacks).into_owned()) }
    }
}

fn find(pid: Pid) -> io::Result<(File, Written)> {
    let [threads, greenlets] = [NAME, WITH_GREENLETS].map(|name| format!("/memfd:{}", name.to_string_lossy()));
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        if target.starts_with(&threads) {
            let both = target.starts_with(&greenlets);
            let written = if both { Written::ThreadsAndGreenlets } else { Written::Threads };
            if let Some(file) = open_in_memory(&entry.path())? {
                return Ok((file, written));
            }
        }
    }
    Err(ErrorKind::NotFound.into())
}

/// Opens a file that has no name anywhere. `None` for any other: the process that is asked may have
/// a file of somebody else's by such a name (mount_namespaces(7)), and asking shortens the file.
fn open_in_memory(descriptor: &Path) -> io::Result<Option<File>> {
    let found = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(descriptor)?;
    let ours = create(Written::Threads)?;
    if found.metadata()?.dev() != ours.metadata()?.dev() {
        return Ok(None);
    }
    OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", found.as_raw_fd())).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_in_memory_are_opened() {
        let ours = create(Written::Threads).unwrap();
        let descriptor = |file: &File| Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
        assert!(open_in_memory(&descriptor(&ours)).unwrap().is_some());
        let named = tempfile::NamedTempFile::new().unwrap();
        assert!(open_in_memory(&descriptor(named.as_file())).unwrap().is_none());
        let removed = tempfile::tempfile().unwrap();
        assert!(open_in_memory(&descriptor(&removed)).unwrap().is_none());
    }
}
