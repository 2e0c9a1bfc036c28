//! A page of shared memory that one process writes again and again and its children read: bytes
//! with a version number.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::shared::{Counters, SharedSlice};

/// Words in a line of the shared slice.
const LINE: usize = 8;

/// How often a reader tries to read between two writes before it gives up until the next call.
const TRIES: usize = 8;

/// The page. Every process that was forked after it was made sees what is published.
///
/// The first word is the version, odd while the page is being written (a sequence lock: readers
/// never block the writer). The second is the length in bytes.
#[derive(Debug)]
pub struct SeqlockPage {
    lines: SharedSlice<Counters<LINE>>,
}

/// More bytes than the page holds.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("longer than the shared page")
    }
}

impl SeqlockPage {
    /// A page for up to `most_bytes`; what is not written costs no memory. Its version is 0. Fails
    /// with ENOMEM.
    pub fn new(most_bytes: usize) -> io::Result<SeqlockPage> {
        let words = 2 + most_bytes.div_ceil(size_of::<u64>());
        let lines = NonZeroUsize::new(words.div_ceil(LINE)).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(SeqlockPage { lines: SharedSlice::new(c"monoceros-seqlock", lines)? })
    }

    /// Writes `bytes` as the next version and returns its number. Only one process may call it.
    pub fn publish(&self, bytes: &[u8]) -> Result<u64, TooLong> {
        let chunks = bytes.chunks(size_of::<u64>());
        if 2 + chunks.len() > self.lines.len() * LINE {
            return Err(TooLong);
        }
        let version = self.word(0).load(Ordering::Relaxed);
        self.word(0).store(version + 1, Ordering::Relaxed);
        // The odd number is seen before any of the words that follow.
        fence(Ordering::Release);
        self.word(1).store(bytes.len() as u64, Ordering::Relaxed);
        for (at, chunk) in chunks.enumerate() {
            let mut word = [0; size_of::<u64>()];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(2 + at).store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
        self.word(0).store(version + 2, Ordering::Release);
        Ok(version + 2)
    }

    /// From now on this process only reads. For a child right after the fork: no other thread may
    /// read the page meanwhile.
    pub fn give_up_writing(&self) -> io::Result<()> {
        self.lines.give_up_writing()
    }

    /// The current version and its bytes, unless the version is `known`; `None` also while the page
    /// is being written.
    pub fn read(&self, known: u64) -> Option<(u64, Vec<u8>)> {
        for _ in 0..TRIES {
            let version = self.word(0).load(Ordering::Acquire);
            if version == known {
                return None;
            }
            if version % 2 == 1 {
                continue;
            }
            let bytes = self.copy();
            // The words are read before the version is read again.
            fence(Ordering::Acquire);
            if self.word(0).load(Ordering::Relaxed) == version {
                return Some((version, bytes));
            }
        }
        None
    }

    fn copy(&self) -> Vec<u8> {
        let room = (self.lines.len() * LINE - 2) * size_of::<u64>();
        // A length that is just being written may have any value; the version tells whether it is
        // valid.
        let length = usize::try_from(self.word(1).load(Ordering::Relaxed)).unwrap_or(usize::MAX).min(room);
        let words = length.div_ceil(size_of::<u64>());
        let mut bytes: Vec<u8> =
            (0..words).flat_map(|at| self.word(2 + at).load(Ordering::Relaxed).to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.lines[at / LINE][at % LINE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_once_and_whole() {
        let page = SeqlockPage::new(100).unwrap();
        assert_eq!(page.read(0), None);
        for length in [0, 1, 7, 8, 9, 100] {
            let bytes: Vec<u8> = (0..length).collect();
            let known = page.publish(b"older").unwrap();
            let version = page.publish(&bytes).unwrap();
            assert_eq!(page.read(known), Some((version, bytes)));
            assert_eq!(page.read(version), None);
        }
        assert_eq!(page.publish(&[0; 200]), Err(TooLong));
    }

    #[test]
    fn a_reader_beside_a_writer_never_sees_half_a_version() {
        let page = SeqlockPage::new(4096).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 0..2000_u32 {
                    page.publish(&vec![round as u8; 1 + round as usize % 4000]).unwrap();
                }
            });
            let mut known = 0;
            while !writer.is_finished() {
                if let Some((version, bytes)) = page.read(known) {
                    assert!(bytes.iter().all(|&byte| byte == bytes[0]) && !bytes.is_empty());
                    known = version;
                }
            }
        });
    }
}
