//! Files below a directory, opened so that no name leads out of it: whatever the name and the links
//! on its way are, the kernel answers with a file below, or with an error.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Opening never waits (a FIFO would) and never makes a terminal the controlling one.
const OPEN: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// How often an open is tried: a rename along the path can disturb it (openat2(2), EAGAIN).
const TRIES: usize = 8;

/// A directory, held open. It stays the same directory even if its name comes to mean another.
#[derive(Debug)]
pub struct Directory(OwnedFd);

/// Where symbolic links may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// To what lies below the directory.
    Beneath,
    /// Anywhere.
    Anywhere,
}

impl Directory {
    /// Opens the directory at `path`, whose own links are followed.
    ///
    /// # Errors
    /// The kernel's; ENOTDIR for anything else than a directory.
    pub fn open(path: &Path) -> io::Result<Directory> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Directory(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens for reading what `name` means below the directory: a file, a directory or anything
    /// else. `name` is relative, and none of its segments is `.` or `..`.
    ///
    /// # Errors
    /// The kernel's: ENOENT, ENOTDIR, EACCES and so on; EXDEV or ELOOP where a link leads out.
    /// Where the kernel has no openat2(2) (before 5.6, or forbidden by seccomp), every link counts
    /// as one that leads out.
    pub fn open_below(&self, name: &[u8], links: Links) -> io::Result<File> {
        match links {
            Links::Anywhere => Ok(rustix::fs::openat(&self.0, name, OFlags::RDONLY | OPEN, Mode::empty())?.into()),
            Links::Beneath => self.open_beneath(name),
        }
    }

    fn open_beneath(&self, name: &[u8]) -> io::Result<File> {
        /// Whether openat2(2) has been found to be missing or forbidden.
        static LACKS_OPENAT2: AtomicBool = AtomicBool::new(false);
        if LACKS_OPENAT2.load(Relaxed) {
            return self.open_by_steps(name);
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match rustix::fs::openat2(&self.0, name, OFlags::RDONLY | OPEN, Mode::empty(), resolve) {
                Ok(file) => return Ok(file.into()),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // EPERM comes from seccomp: where a file may not be opened, the kernel answers
                // EACCES.
                Err(Errno::NOSYS | Errno::PERM) => {
                    LACKS_OPENAT2.store(true, Relaxed);
                    return self.open_by_steps(name);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Opens `name` segment by segment. No segment may be a link.
    fn open_by_steps(&self, name: &[u8]) -> io::Result<File> {
        let mut directory: Option<OwnedFd> = None;
        let mut segments = name.split(|&byte| byte == b'/').peekable();
        while let Some(segment) = segments.next() {
            let below = directory.as_ref().map_or(self.0.as_fd(), AsFd::as_fd);
            if segments.peek().is_none() {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OPEN;
                return Ok(rustix::fs::openat(below, segment, flags, Mode::empty())?.into());
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            directory = Some(rustix::fs::openat(below, segment, flags, Mode::empty())?);
        }
        Err(Errno::NOENT.into())
    }
}

/// Opens the file at `path`, to be read; links are followed.
///
/// # Errors
/// The kernel's.
pub fn open_file(path: &Path) -> io::Result<File> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OPEN, Mode::empty())?.into())
}

/// Fills `buffer` from `offset` of `file` on (pread(2)).
///
/// # Errors
/// The kernel's; UnexpectedEof where the file ends before `buffer` is full.
pub fn read_exact_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(&file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether there are no more descriptors, or no memory, to open a file with (open(2), EMFILE,
/// ENFILE, ENOMEM).
pub fn is_out_of_resources(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// Whether the error says that there is no such file, or none that may be reached by this name: a
/// segment is no directory, is too long, or is a link that leads out.
pub fn is_absence(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::INVAL
        )
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    type Open = fn(&Directory, &[u8]) -> io::Result<File>;

    const BY_OPENAT2: Open = |directory, name| directory.open_below(name, Links::Beneath);
    const BY_STEPS: Open = Directory::open_by_steps;
    const ANYWHERE: Open = |directory, name| directory.open_below(name, Links::Anywhere);

    #[test]
    fn a_name_leads_nowhere_else_by_links_or_steps() {
        let top = tempfile::tempdir().unwrap();
        let tree = top.path().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(top.path().join("secret"), "secret").unwrap();
        fs::write(tree.join("file"), "file").unwrap();
        fs::write(tree.join("sub/file"), "below").unwrap();
        symlink("../file", tree.join("sub/inside")).unwrap();
        symlink("../../secret", tree.join("sub/outside")).unwrap();
        symlink(tree.join("file"), tree.join("absolute")).unwrap();
        symlink("..", tree.join("up")).unwrap();
        symlink("loop", tree.join("loop")).unwrap();
        let directory = Directory::open(&tree).unwrap();
        let read = |open: Open, name: &str| -> Option<String> {
            let mut text = String::new();
            open(&directory, name.as_bytes()).ok()?.read_to_string(&mut text).ok()?;
            Some(text)
        };
        for open in [BY_OPENAT2, BY_STEPS, ANYWHERE] {
            assert_eq!(read(open, "file").as_deref(), Some("file"));
            assert_eq!(read(open, "sub/file").as_deref(), Some("below"));
            for name in ["none", "file/more", "sub/none/file", "loop"] {
                let error = open(&directory, name.as_bytes()).unwrap_err();
                assert!(is_absence(&error), "{name}: {error}");
            }
        }
        for open in [BY_OPENAT2, BY_STEPS] {
            for name in ["sub/outside", "absolute", "up/secret", "up/tree/file"] {
                let error = open(&directory, name.as_bytes()).unwrap_err();
                assert!(is_absence(&error), "{name}: {error}");
            }
        }
        assert_eq!(read(BY_OPENAT2, "sub/inside").as_deref(), Some("file"));
        assert_eq!(read(BY_OPENAT2, "../secret"), None);
        assert_eq!(read(BY_STEPS, "sub/inside"), None, "links are not followed at all");
        assert_eq!(read(ANYWHERE, "sub/outside").as_deref(), Some("secret"));
    }

    #[test]
    fn a_pipe_is_opened_without_a_wait() {
        let top = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&top.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let directory = Directory::open(top.path()).unwrap();
        for open in [BY_OPENAT2, BY_STEPS, ANYWHERE] {
            assert!(!open(&directory, b"pipe").unwrap().metadata().unwrap().is_file());
        }
    }
}
