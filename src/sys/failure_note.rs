//! A file in memory in which a forked child leaves the reason of its failure for its parent.
//!
//! Several children may share it: each writes with one call, and the parent reads the first text.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes of a reason that are kept: a traceback of some hundred lines. Of a longer one the end is
/// kept, which says most.
pub const MOST_BYTES: usize = 16 << 10;

/// The file's name in /proc.
const NAME: &CStr = c"monoceros-failure";

/// The byte that ends a text.
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

    /// The note that this process has inherited through exec as `descriptor`; `None` if that is no
    /// note.
    pub fn inherited(descriptor: RawFd) -> Option<FailureNote> {
        let path = format!("/proc/self/fd/{descriptor}");
        let name = format!("/memfd:{}", NAME.to_string_lossy());
        let is_note = std::fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().starts_with(&name));
        let file = OpenOptions::new().read(true).append(true).open(path);
        file.ok().filter(|_| is_note).map(FailureNote)
    }

    /// Leaves a reason. If it cannot be written, it is lost.
    pub fn write(&self, text: &str) {
        let start = text.len().saturating_sub(MOST_BYTES);
        let mut kept: Vec<u8> = text.as_bytes()[start..].iter().copied().filter(|&byte| byte != END).collect();
        kept.push(END);
        let _ = (&self.0).write_all(&kept);
    }

    /// The first reason that was left, if there is one.
    pub fn read(&self) -> Option<String> {
        // Read at explicit offsets: the file's own offset is shared with children that write
        // meanwhile.
        let (mut found, mut length) = (vec![0; MOST_BYTES + 1], 0);
        while length < found.len() {
            match self.0.read_at(&mut found[length..], length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        let end = found[..length].iter().position(|&byte| byte == END).unwrap_or(length);
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
    use std::io::{Seek, SeekFrom};

    use super::*;

    #[test]
    fn the_first_reason_is_read_and_of_a_long_one_the_end() {
        let note = FailureNote::new().unwrap();
        assert_eq!(note.read(), None);
        note.write("Traceback\nImportError: no\0thing");
        note.write("another");
        assert_eq!(note.read().as_deref(), Some("Traceback\nImportError: nothing"));
        // Children that write share the offset.
        (&note.0).seek(SeekFrom::Start(3)).unwrap();
        assert!(note.read().is_some());
        assert_eq!((&note.0).stream_position().unwrap(), 3);
        let other = FailureNote::inherited(note.as_raw_fd()).expect("it is open here");
        assert_eq!(other.read(), note.read());
        assert!(FailureNote::inherited(0).is_none());
        let long = FailureNote::new().unwrap();
        long.write(&("x".repeat(MOST_BYTES) + "the end"));
        let read = long.read().unwrap();
        assert!(read.len() == MOST_BYTES && read.ends_with("the end"));
    }
}
