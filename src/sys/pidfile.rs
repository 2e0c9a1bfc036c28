//! The pid file, by which other programs find the master.
//!
//! [`PidFile`] has no destructor on purpose: forked children hold a copy, and only the master
//! removes the file, by a call.

use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use tempfile::NamedTempFile;

use super::process;

/// Bytes of the file that are read: more than a pid and the white space around it need.
const LONGEST: u64 = 64;

/// A pid file that this process has written.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    pid: Pid,
}

/// Why the pid file cannot be written.
#[derive(Debug)]
pub enum Error {
    /// The pid file names a living process.
    AlreadyRunning(Pid, PathBuf),
    /// The directory is missing.
    NoDirectory(PathBuf),
    /// A FIFO, a device or a directory is in the file's place.
    NotAFile(PathBuf),
    /// Reading or writing failed.
    Io(PathBuf, io::Error),
}

impl fmt::Display for Error {
    /// gunicorn's sentences.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::AlreadyRunning(pid, path) => {
                write!(f, "Already running on PID {pid} (or pid file '{}' is stale)", path.display())
            }
            Error::NoDirectory(path) => write!(f, "{} doesn't exist. Can't create pidfile.", path.display()),
            Error::NotAFile(path) => write!(f, "'{}' is no regular file. Can't create pidfile.", path.display()),
            Error::Io(path, error) => write!(f, "Can't write the pid file '{}': {error}", path.display()),
        }
    }
}

impl PidFile {
    /// Writes `pid` and a line end to `path`, mode 0644, whole or not at all (a new file renamed
    /// over the old one). A file that names another living process is left alone; garbage and dead
    /// pids are overwritten.
    pub fn create(path: &Path, pid: Pid) -> Result<PidFile, Error> {
        // Absolute, so that it means the same file after a chdir.
        let path = std::path::absolute(path).map_err(|error| Error::Io(path.to_path_buf(), error))?;
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(Error::NotAFile(path));
        }
        if let Some(other) = living_owner(&path).map_err(|error| Error::Io(path.clone(), error))?
            && other != pid
        {
            return Err(Error::AlreadyRunning(other, path));
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        if !directory.is_dir() {
            return Err(Error::NoDirectory(directory.to_path_buf()));
        }
        write_whole(directory, &path, pid).map_err(|error| Error::Io(path.clone(), error))?;
        Ok(PidFile { path, pid })
    }

    /// The file at `path`, if it holds `pid`: an earlier program of that process has written it.
    pub fn held(path: &Path, pid: Pid) -> Option<PidFile> {
        let path = std::path::absolute(path).ok()?;
        (read(&path).ok()? == Some(pid)).then_some(PidFile { path, pid })
    }

    /// The file's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file another name: removes the old file, writes the new one. When the new one
    /// cannot be written there is no file left.
    pub fn rename(self, path: &Path) -> Result<PidFile, Error> {
        self.remove();
        PidFile::create(path, self.pid)
    }

    /// Removes the file, if it still holds our pid.
    pub fn remove(&self) {
        if matches!(read(&self.path), Ok(Some(pid)) if pid == self.pid) {
            // A file that is gone already needs no removing.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn write_whole(directory: &Path, path: &Path, pid: Pid) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(directory)?;
    writeln!(file, "{pid}")?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// The living process that the file names, if it names one. EPERM from kill(2) means that the
/// process lives and belongs to another user.
fn living_owner(path: &Path) -> io::Result<Option<Pid>> {
    Ok(read(path)?.filter(|&pid| process::is_alive(pid)))
}

/// The pid in the file; None for no file and for garbage.
fn read(path: &Path) -> io::Result<Option<Pid>> {
    // A FIFO or a device in the file's place must not block the master.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim().parse().ok().filter(|&pid| pid > 0).map(Pid::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Pid {
        process::getpid()
    }

    #[test]
    fn it_holds_the_pid_and_goes_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let file = PidFile::create(&path, ours()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", ours()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        file.remove();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn garbage_dead_pids_and_our_own_are_written_over_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        for (content, taken) in [
            (String::new(), true),
            ("garbage".into(), true),
            ("-1\n".into(), true),
            ("0\n".into(), true),
            ("4194304\n".into(), true),
            (format!("{}\n", ours()), true),
            ("1\n".into(), false),
        ] {
            fs::write(&path, &content).unwrap();
            assert_eq!(PidFile::create(&path, ours()).is_ok(), taken, "{content:?}");
        }
        assert_eq!(
            PidFile::create(&path, ours()).unwrap_err().to_string(),
            format!("Already running on PID 1 (or pid file '{}' is stale)", path.display())
        );
    }

    #[test]
    fn what_is_no_file_is_neither_read_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [path.as_path(), folder.path(), Path::new("/dev/null")] {
            let error = PidFile::create(path, ours()).unwrap_err().to_string();
            assert_eq!(error, format!("'{}' is no regular file. Can't create pidfile.", path.display()));
            assert!(!fs::metadata(path).unwrap().is_file());
        }
        // A link to a file is replaced; the file stays.
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        fs::write(&target, "precious\n".repeat(20)).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        PidFile::create(&link, ours()).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious\n".repeat(20));
    }

    #[test]
    fn a_file_that_another_has_taken_over_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let file = PidFile::create(&path, ours()).unwrap();
        fs::write(&path, "1\n").unwrap();
        file.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn promotion_moves_it() {
        let folder = tempfile::tempdir().unwrap();
        let (second, plain) = (folder.path().join("pid.2"), folder.path().join("pid"));
        let file = PidFile::create(&second, ours()).unwrap().rename(&plain).unwrap();
        assert!(!second.exists());
        assert_eq!(file.path(), plain);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = PidFile::create(Path::new("/proc/nonexistent/pid"), ours()).unwrap_err();
        assert_eq!(error.to_string(), "/proc/nonexistent doesn't exist. Can't create pidfile.");
    }
}
