//! Where a request body gathers before the application is called: in memory, then in an unlinked
//! temporary file (decision 7).

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;

use super::connection_limits::ConnectionLimits;
use super::read_context::BufferPermit;
use super::spool::temporary_file;
use crate::exchange::Body;
use crate::http::connection::Room;
use crate::sys::memory;

/// The most that is reserved for a body before its bytes arrive: a Content-Length is a claim, not
/// memory.
const FIRST_RESERVATION: usize = 64 * 1024;

/// Where memory is short, a body with more bytes than this goes to a file.
const WORTH_A_FILE: usize = 16 * 1024;

/// A body being gathered.
pub enum BodyStore {
    /// In memory.
    Memory(Vec<u8>),
    /// Complete in memory, in this range of the buffer that it was read to.
    Whole(Vec<u8>, Range<usize>, BufferPermit),
    /// In a file, which holds this many bytes.
    Spooled(File, u64),
}

/// The disk is full: the bytes were not kept. They stream to the application, and the rest follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotKept;

impl BodyStore {
    /// An empty store for a body that is `announced` bytes long, if that was said.
    pub fn new(announced: Option<u64>) -> Self {
        let announced = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        BodyStore::Memory(Vec::with_capacity(announced.min(FIRST_RESERVATION)))
    }

    /// Adds `data`, and says whether more may follow. No more may follow once the body has the
    /// greatest length that is kept, or when no file can be made: the rest then streams to the
    /// application.
    ///
    /// # Errors
    /// The data was not kept.
    pub fn add(&mut self, data: &[u8], limits: &ConnectionLimits) -> Result<Room, NotKept> {
        match self {
            BodyStore::Memory(bytes) => {
                bytes.extend_from_slice(data);
                let is_long = bytes.len() > limits.http.body_buffer
                    || bytes.len() > WORTH_A_FILE
                        && limits.spooling.most_of_body > 0
                        && limits.holdings.memory_is_short();
                Ok(if is_long { self.spool(limits) } else { Room::Left })
            }
            // The body is complete: nobody adds to it.
            BodyStore::Whole(..) => Err(NotKept),
            BodyStore::Spooled(file, length) => {
                if limits.holdings.should_move(file)
                    && let Ok(moved) = file.try_clone()
                {
                    *file = moved;
                }
                if file.write_all(data).is_err() {
                    // A part of `data` may have been written: the file ends where it was whole.
                    let _ = file.set_len(*length);
                    return Err(NotKept);
                }
                *length += data.len() as u64;
                Ok(if *length < limits.spooling.most_of_body { Room::Left } else { Room::Exhausted })
            }
        }
    }

    /// The gathered body, ready to be read from its start.
    ///
    /// # Errors
    /// The file cannot be rewound.
    pub fn into_body(self) -> io::Result<Body> {
        match self {
            BodyStore::Memory(bytes) => Ok(Body::of(bytes)),
            BodyStore::Whole(buffer, range, _) => Ok(Body::Memory(buffer, range)),
            BodyStore::Spooled(mut file, _) => {
                file.seek(SeekFrom::Start(0))?;
                Ok(Body::File(file))
            }
        }
    }

    /// The gathered body as a file, for another process; from then on the store keeps the body in
    /// that file.
    ///
    /// # Errors
    /// No descriptor or no memory is left.
    pub fn as_file(&mut self) -> io::Result<File> {
        if let BodyStore::Spooled(file, _) = self {
            return file.try_clone();
        }
        let file = memory::file_of(self.in_memory().unwrap_or_default())?;
        let copy = file.try_clone()?;
        *self = BodyStore::of_file(file)?;
        Ok(copy)
    }

    /// What has been gathered, as long as it is in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match self {
            BodyStore::Memory(bytes) => Some(bytes),
            BodyStore::Whole(buffer, range, _) => Some(&buffer[range.clone()]),
            BodyStore::Spooled(..) => None,
        }
    }

    /// How many bytes have been gathered.
    pub fn length(&self) -> u64 {
        match self {
            BodyStore::Memory(bytes) => bytes.len() as u64,
            BodyStore::Whole(_, range, _) => range.len() as u64,
            BodyStore::Spooled(_, length) => *length,
        }
    }

    /// A body that another process has gathered in `file`.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn of_file(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(BodyStore::Spooled(file, length))
    }

    /// Moves the bytes into a file. Where none can be made (a read-only root, a full disk) they
    /// stay, and the rest streams.
    fn spool(&mut self, limits: &ConnectionLimits) -> Room {
        let BodyStore::Memory(bytes) = self else { return Room::Left };
        if limits.spooling.most_of_body == 0 {
            return Room::Exhausted;
        }
        let made = temporary_file(limits).and_then(|mut file| {
            file.write_all(bytes)?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                let length = bytes.len() as u64;
                *self = BodyStore::Spooled(file, length);
                if length < limits.spooling.most_of_body { Room::Left } else { Room::Exhausted }
            }
            Err(error) => {
                log::warn!("Cannot keep a request body in a temporary file ({error}); streaming it to the application");
                Room::Exhausted
            }
        }
    }
}
