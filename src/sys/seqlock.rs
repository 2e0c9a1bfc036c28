//! A page that one process writes again and again and its children read: bytes in shared memory,
//! with an edition number.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::shared::{Counters, SharedSlice};

/// Words in a line of the shared slice.
const LINE: usize = 8;

/// How often a reader tries to catch the writer between two editions before it leaves it for later.
const TRIES: usize = 8;

/// The page. Every process that was forked after it was made sees what is published.
///
/// The first word is the edition, odd while the page is being written (a sequence lock: readers
/// never block the writer), the second its length in bytes.
#[derive(Debug)]
pub struct SeqlockPage {
    lines: SharedSlice<Counters<LINE>>,
}

/// More bytes than the page holds.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too long for the bulletin")
    }
}

impl SeqlockPage {
    /// A page for up to `most_bytes`; what is not written costs no memory. Its edition is 0. Fails
    /// with ENOMEM.
    pub fn new(most_bytes: usize) -> io::Result<SeqlockPage> {
        let words = 2 + most_bytes.div_ceil(size_of::<u64>());
        let lines = NonZeroUsize::new(words.div_ceil(LINE)).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(SeqlockPage { lines: SharedSlice::new(c"monoceros-bulletin", lines)? })
    }

    /// Writes a new edition and returns its number. For one process only.
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
    /// look meanwhile.
    pub fn give_up_writing(&self) -> io::Result<()> {
        self.lines.give_up_writing()
    }

    /// The current edition and its number, if that is not `known`; `None` also while it is being
    /// written.
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
            // The words are read before the number is looked at again.
            fence(Ordering::Acquire);
            if self.word(0).load(Ordering::Relaxed) == version {
                return Some((version, bytes));
            }
        }
        None
    }

    fn copy(&self) -> Vec<u8> {
        let room = (self.lines.len() * LINE - 2) * size_of::<u64>();
        // A number that is just being written may be any; the edition will tell.
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
    fn an_edition_is_read_once_and_whole() {
        let bulletin = SeqlockPage::new(100).unwrap();
        assert_eq!(bulletin.read(0), None);
        for length in [0, 1, 7, 8, 9, 100] {
            let bytes: Vec<u8> = (0..length).collect();
            let known = bulletin.publish(b"older").unwrap();
            let version = bulletin.publish(&bytes).unwrap();
            assert_eq!(bulletin.read(known), Some((version, bytes)));
            assert_eq!(bulletin.read(version), None);
        }
        assert_eq!(bulletin.publish(&[0; 200]), Err(TooLong));
    }

    #[test]
    fn a_reader_beside_a_writer_never_sees_half_an_edition() {
        let bulletin = SeqlockPage::new(4096).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 0..2000_u32 {
                    bulletin.publish(&vec![round as u8; 1 + round as usize % 4000]).unwrap();
                }
            });
            let mut known = 0;
            while !writer.is_finished() {
                if let Some((version, bytes)) = bulletin.read(known) {
                    assert!(bytes.iter().all(|&byte| byte == bytes[0]) && !bytes.is_empty());
                    known = version;
                }
            }
        });
    }
}
