//! Unlinked temporary files, and the one that keeps what a client has not taken of its response.
//!
//! The bytes go to the kernel from the file by sendfile(2), so they cost no memory of the worker's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::connection_limits::ConnectionLimits;

/// A file for bodies or responses, in `tmp_upload_dir` or the system's temporary directory. It has
/// no name.
///
/// # Errors
/// The directory cannot be written to, or no descriptor is left.
pub fn temporary_file(limits: &ConnectionLimits) -> io::Result<File> {
    let file = match &limits.spooling.directory {
        Some(directory) => tempfile::tempfile_in(directory),
        None => tempfile::tempfile(),
    }?;
    limits.holdings.note_descriptor(&file);
    Ok(file)
}

/// Bytes of a response that wait in a file: first in, first out.
pub struct Spool {
    file: File,
    /// The offset of the next byte to send.
    pub read: u64,
    written: u64,
}

impl Spool {
    /// An empty spool.
    ///
    /// # Errors
    /// Those of [`temporary_file`].
    pub fn new(limits: &ConnectionLimits) -> io::Result<Spool> {
        Ok(Spool { file: temporary_file(limits)?, read: 0, written: 0 })
    }

    /// Appends `bytes`, as far as the file may grow and the disk has room. Returns how many.
    pub fn append(&mut self, bytes: &[u8], limits: &ConnectionLimits) -> usize {
        let room = limits.spooling.most_of_response.saturating_sub(self.written).min(limits.holdings.spool_room());
        let count = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < count {
            match self.file.write_at(&bytes[done..count], self.written) {
                Ok(more) if more > 0 => {
                    self.written += more as u64;
                    done += more;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The disk is full: the application waits for the client instead.
                _ => break,
            }
        }
        done
    }

    /// How long the file is. Bytes that have been sent take room until all have been.
    pub fn length(&self) -> u64 {
        self.written
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }
}
