//! Notices of the kernel about changed files in some folders (inotify(7)).

use std::ffi::OsString;
use std::io;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::retry::retry;

/// The folders that are watched.
pub struct Folders(Inotify);

impl Folders {
    /// Watches no folder yet.
    ///
    /// # Errors
    /// The kernel has no more instances for this user.
    pub fn new() -> io::Result<Folders> {
        Ok(Folders(Inotify::init(InitFlags::IN_CLOEXEC)?))
    }

    /// Watches one more folder for files that were closed after writing, or renamed into it. A file
    /// that is still being written is not reported.
    ///
    /// # Errors
    /// `folder` is no folder, or too many are watched.
    pub fn add(&self, folder: &Path) -> io::Result<()> {
        let news = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        self.0.add_watch(folder, news)?;
        Ok(())
    }

    /// Waits for changes, and returns the names of the files. `None` means that the kernel's queue
    /// has overflowed: any file may have changed.
    ///
    /// # Errors
    /// The descriptor cannot be read any longer.
    pub fn wait(&self) -> io::Result<Option<Vec<OsString>>> {
        let events = retry(|| Ok(self.0.read_events()?))?.unwrap_or_default();
        let has_overflown = events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW));
        Ok((!has_overflown).then(|| events.into_iter().filter_map(|event| event.name).collect()))
    }
}
