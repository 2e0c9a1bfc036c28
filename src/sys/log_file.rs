//! Files that root opens for another user: the logs of workers that run without root's rights.
//!
//! In a folder that the user may write to, the application may have made a link to any file of the
//! system. So the file is opened with the user's rights first, which gain an attacker nothing. Only
//! a file that these do not reach is opened with root's rights, and then by a path in which only
//! root can have made a link.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open as open_path, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::unistd;

use super::user;

/// Most links in one path: the kernel's own bound (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Every user may read a log that the server has made.
const MODE: u32 = 0o644;

/// Opens a log to append to it, and makes it if it is missing. It never blocks: a FIFO without a
/// reader is opened all the same.
///
/// Where this process is root and `owner` (user and group id) is given, the owner owns the file in
/// the end, or may write to it. With root's rights a file that belongs to neither root nor the
/// owner is not given away, and a link that a user other than root can have made is not followed:
/// both are errors that say so.
pub fn open(path: &Path, owner: Option<(u32, u32)>) -> io::Result<File> {
    let Some((uid, gid)) = owner.filter(|_| unistd::geteuid().is_root()) else { return append(path) };
    if uid != 0
        && let Some(opened) = user::acting_as(uid, gid, || append(path))
        && !opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    {
        return opened;
    }
    let (directory, name) = follow(path)?;
    let file = File::from(append_at(&directory, &name)?);
    let found = file.metadata()?;
    if found.is_file() {
        give(&file, &found, uid, gid)?;
    }
    Ok(file)
}

/// Opening a FIFO without a reader fails with ENXIO (fifo(7)). Its reader may be restarting, which
/// must keep no worker from booting. Opened for reading and writing, the FIFO takes what it has
/// room for until a reader comes.
fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => options.read(true).open(path),
        opened => opened,
    }
}

/// As [`append`], for a name in `directory`. A link is not followed.
fn append_at(directory: &OwnedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags =
        OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(MODE);
    match openat(directory, name, flags | OFlag::O_WRONLY, mode) {
        Err(Errno::ENXIO) => openat(directory, name, flags | OFlag::O_RDWR, mode),
        opened => opened,
    }
}

/// Gives the file to a user. The file must be root's or that user's, and have no second name
/// (link(2)) under which it may be another file.
fn give(file: &File, found: &Metadata, uid: u32, gid: u32) -> io::Result<()> {
    if (found.uid(), found.gid()) == (uid, gid) {
        return Ok(());
    }
    if found.uid() != 0 && found.uid() != uid {
        return Err(io::Error::other(format!("it belongs to the user {}, not to {uid}", found.uid())));
    }
    if found.nlink() > 1 {
        return Err(io::Error::other("it has another name, under which it may be anything"));
    }
    std::os::unix::fs::fchown(file, Some(uid), Some(gid))
}

/// Resolves `path` link by link, to a folder and the name in it.
fn follow(path: &Path) -> io::Result<(OwnedFd, OsString)> {
    let mut left = names(&std::path::absolute(path)?);
    let mut directory = root()?;
    let mut links = 0;
    while let Some(name) = left.pop() {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = match openat(&directory, name.as_os_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT) if left.is_empty() => return Ok((directory, name)),
            found => File::from(found?),
        };
        let link = found.metadata()?;
        if link.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::ELOOP.into());
            }
            if !is_roots_own(&link, &File::from(directory.try_clone()?).metadata()?) {
                return Err(io::Error::other(format!("'{}' is a link that others than root can lay", name.display())));
            }
            let target = PathBuf::from(readlinkat(&found, "")?);
            if target.is_absolute() {
                directory = root()?;
            }
            left.extend(names(&target));
        } else if left.is_empty() {
            return Ok((directory, name));
        } else {
            directory = found.into();
        }
    }
    Err(Errno::EISDIR.into())
}

/// The names of a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.map(|part| part.as_os_str().to_owned()).rev().collect()
}

fn root() -> nix::Result<OwnedFd> {
    open_path("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Whether only root can have put this link into that folder.
fn is_roots_own(link: &Metadata, folder: &Metadata) -> bool {
    // In a sticky folder, such as /tmp, only the owner of a file may rename it.
    let is_closed = folder.mode() & (libc::S_IWGRP | libc::S_IWOTH) == 0 || folder.mode() & libc::S_ISVTX != 0;
    link.uid() == 0 && link.nlink() == 1 && folder.uid() == 0 && is_closed
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    /// A user and a group that need no account.
    const THEM: (u32, u32) = (54321, 54322);

    /// A folder of root's that all may enter, with one of the other user's in it; `None` without
    /// root.
    fn folders() -> Option<(tempfile::TempDir, PathBuf)> {
        if !unistd::geteuid().is_root() {
            println!("not tried: this needs root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let theirs = folder.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(THEM.0), Some(THEM.1)).unwrap();
        Some((folder, theirs))
    }

    fn owner(path: &Path) -> (u32, u32) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.uid(), found.gid())
    }

    fn roots(path: &Path) -> PathBuf {
        fs::write(path, "secret\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_owned()
    }

    #[test]
    fn a_new_log_and_one_of_roots_are_given_to_the_user_in_any_folder() {
        let Some((folder, theirs)) = folders() else { return };
        for path in [
            folder.path().join("new"),
            theirs.join("new"),
            roots(&folder.path().join("old")),
            roots(&theirs.join("old")),
        ] {
            open(&path, Some(THEM)).unwrap();
            assert_eq!(owner(&path), THEM, "{path:?}");
        }
        // Only the group changes.
        let path = folder.path().join("group");
        open(&path, Some((0, THEM.1))).unwrap();
        assert_eq!(owner(&path), (0, THEM.1));
    }

    #[test]
    fn a_link_of_the_user_leads_to_no_file_that_the_user_could_not_write_to() {
        let Some((folder, theirs)) = folders() else { return };
        let secret = roots(&folder.path().join("secret"));
        let missing = folder.path().join("missing");
        symlink(&secret, theirs.join("link")).unwrap();
        symlink(&missing, theirs.join("dangling")).unwrap();
        symlink(folder.path(), theirs.join("folder")).unwrap();
        fs::hard_link(&secret, theirs.join("hard")).unwrap();
        symlink("/dev/../", theirs.join("up")).unwrap();
        for name in ["link", "dangling", "folder/secret", "folder/missing", "hard"] {
            for owner in [THEM, (0, THEM.1)] {
                assert!(open(&theirs.join(name), Some(owner)).is_err(), "{name} {owner:?}");
            }
        }
        assert_eq!((owner(&secret), fs::read_to_string(&secret).unwrap()), ((0, 0), "secret\n".into()));
        assert!(!missing.exists());
        // The user's own file is opened, whatever way leads to it.
        symlink(theirs.join("log"), theirs.join("fine")).unwrap();
        open(&theirs.join("fine"), Some(THEM)).unwrap();
        assert_eq!(owner(&theirs.join("log")), THEM);
    }

    #[test]
    fn links_of_roots_are_followed_and_a_file_of_another_user_is_not_given_away() {
        let Some((folder, _)) = folders() else { return };
        let real = folder.path().join("real");
        fs::create_dir(&real).unwrap();
        symlink("real", folder.path().join("alias")).unwrap();
        symlink("../real/target", real.join("log")).unwrap();
        open(&folder.path().join("alias/log"), Some(THEM)).unwrap();
        assert_eq!(owner(&real.join("target")), THEM);
        let strangers = roots(&real.join("strangers"));
        chown(&strangers, Some(54323), Some(54323)).unwrap();
        assert!(open(&strangers, Some(THEM)).unwrap_err().to_string().contains("belongs to the user 54323"));
        assert_eq!(owner(&strangers), (54323, 54323));
        symlink("loop", real.join("loop")).unwrap();
        assert_eq!(open(&real.join("loop"), Some((0, THEM.1))).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        // In a folder that others may write to, they may have moved a link of root's.
        fs::set_permissions(&real, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(open(&real.join("log"), Some((0, THEM.1))).is_err());
        fs::set_permissions(&real, fs::Permissions::from_mode(0o1777)).unwrap();
        open(&real.join("log"), Some(THEM)).unwrap();
    }
}
