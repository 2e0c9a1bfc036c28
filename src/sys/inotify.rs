//! Being told by the kernel that files in some folders have changed (inotify(7)).

use std::ffi::OsString;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Folders that are listened to.
pub struct Folders(Inotify);

impl Folders {
    /// None yet.
    ///
    /// # Errors
    /// The kernel has no more instances for this user.
    pub fn new() -> io::Result<Folders> {
        Ok(Folders(Inotify::init(InitFlags::IN_CLOEXEC)?))
    }

    /// Listens to one more folder: for files that have been written to their end, or put in their
    /// place. Half of a file that is just being written is no news.
    ///
    /// # Errors
    /// It is no folder, or there are too many.
    pub fn add(&self, folder: &Path) -> io::Result<()> {
        let news = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        self.0.add_watch(folder, news)?;
        Ok(())
    }

    /// Waits for news, and gives the names of the files. None of them: so much has happened that
    /// the kernel has lost count.
    ///
    /// # Errors
    /// The descriptor is of no use any more.
    pub fn wait(&self) -> io::Result<Option<Vec<OsString>>> {
        let events = loop {
            match self.0.read_events() {
                Err(Errno::EINTR) => {}
                events => break events?,
            }
        };
        let has_overflown = events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW));
        Ok((!has_overflown).then(|| events.into_iter().filter_map(|event| event.name).collect()))
    }
}
