//! A file in memory in which a forked child leaves the reason of its failure for its parent.
//!
//! Several children may share it: each writes with one call, and what is read is the first text.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes of a reason that are kept: a traceback of some hundred lines. Of a longer one it is the
/// end, which says most.
pub const MOST_BYTES: usize = 16 << 10;

/// The name that it has in /proc.
const NAME: &CStr = c"monoceros-failure";

/// Ends a text.
const END: u8 = 0;

/// The file. Closed on exec and on drop.
#[derive(Debug)]
pub struct FailureNote(File);

impl FailureNote {
    /// An empty note.
    ///
    /// # Errors
    /// No descriptor is left, or the machine has no such files.
    pub fn new() -> io::Result<FailureNote> {
        // Kernels before 6.3 do not know the second flag; later ones warn without it.
        let not_executable = MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
        let file: OwnedFd =
            memfd_create(NAME, not_executable).or_else(|_| memfd_create(NAME, MFdFlags::MFD_CLOEXEC))?;
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        Ok(FailureNote(file.into()))
    }

    /// The note that this process has inherited as that descriptor through exec, if it is one.
    pub fn inherited(descriptor: RawFd) -> Option<FailureNote> {
        let path = format!("/proc/self/fd/{descriptor}");
        let name = format!("/memfd:{}", NAME.to_string_lossy());
        let is_note = std::fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().starts_with(&name));
        let file = OpenOptions::new().read(true).append(true).open(path);
        file.ok().filter(|_| is_note).map(FailureNote)
    }

    /// Leaves a reason. A failure of that loses it.
    pub fn write(&self, text: &str) {
        let start = text.len().saturating_sub(MOST_BYTES);
        let mut kept: Vec<u8> = text.as_bytes()[start..].iter().copied().filter(|&byte| byte != END).collect();
        kept.push(END);
        let _ = (&self.0).write_all(&kept);
    }

    /// The first reason that was left, if there is one.
    pub fn read(&self) -> Option<String> {
        let mut file = &self.0;
        let mut found = Vec::new();
        file.seek(SeekFrom::Start(0)).ok()?;
        file.take(MOST_BYTES as u64 + 1).read_to_end(&mut found).ok()?;
        let end = found.iter().position(|&byte| byte == END).unwrap_or(found.len());
        (end > 0).then(|| String::from_utf8_lossy(&found[..end]).into_owned())
    }
}

impl AsRawFd for FailureNote {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_is_read_and_of_a_long_one_the_end() {
        let note = FailureNote::new().unwrap();
        assert_eq!(note.read(), None);
        note.write("Traceback\nImportError: no\0thing");
        note.write("another");
        assert_eq!(note.read().as_deref(), Some("Traceback\nImportError: nothing"));
        let other = FailureNote::inherited(note.as_raw_fd()).expect("it is open here");
        assert_eq!(other.read(), note.read());
        assert!(FailureNote::inherited(0).is_none());
        let long = FailureNote::new().unwrap();
        long.write(&("x".repeat(MOST_BYTES) + "the end"));
        let read = long.read().unwrap();
        assert!(read.len() == MOST_BYTES && read.ends_with("the end"));
    }
}
