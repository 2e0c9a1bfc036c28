//! Whose turn it is to answer at `metrics_bind` where several programs hold the socket.
//!
//! A metrics page of a new program has what the workers of earlier programs have counted; a page of
//! an earlier one lacks what the new workers have. So once a worker of the new program has
//! answered, the earlier ones must not, or totals would fall. The turn stands in memory of its own,
//! which each program hands to the next. This module must not know what is answered.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use crate::sys::shared::{Counters, SharedSlice};

/// The name that the memory has in /proc.
const FILE_NAME: &std::ffi::CStr = c"monoceros-turn";

/// The number of the newest program whose workers answer, and the highest number that was given
/// out.
const WORDS: usize = 2;

/// A program's part in the turn. Workers inherit it; clones are the same.
#[derive(Debug, Clone)]
pub struct MetricsTurn {
    page: Arc<SharedSlice<Counters<WORDS>>>,
    number: u64,
}

impl MetricsTurn {
    /// For a program that has inherited the socket from no other.
    ///
    /// # Errors
    /// There is no room for a page.
    pub fn new() -> io::Result<MetricsTurn> {
        let turn =
            MetricsTurn { page: Arc::new(SharedSlice::for_successors(FILE_NAME, NonZeroUsize::MIN)?), number: 1 };
        turn.page[0][1].store(turn.number, Release);
        Ok(turn)
    }

    /// For the program with this number, in the memory of those before. `None` for any other file.
    ///
    /// # Errors
    /// The file cannot be mapped.
    pub fn inherited(file: OwnedFd, number: u64) -> io::Result<Option<MetricsTurn>> {
        let page = SharedSlice::inherited(file, NonZeroUsize::MIN)?;
        Ok(page.map(|page| MetricsTurn { page: Arc::new(page), number }))
    }

    /// What a new program is to be given: the descriptor, and its number. `None` on a system
    /// without files in memory.
    pub fn for_successor(&self) -> Option<(RawFd, u64)> {
        let descriptor = self.page.descriptor()?;
        Some((descriptor, self.words()[1].fetch_add(1, AcqRel) + 1))
    }

    /// Takes the turn: a worker of this program is about to answer.
    pub fn take(&self) {
        self.words()[0].fetch_max(self.number, AcqRel);
    }

    /// Takes the turn back: the programs after this one are gone.
    pub fn take_back(&self) {
        self.words()[0].store(self.number, Release);
    }

    /// Whether no later program answers.
    pub fn is_ours(&self) -> bool {
        self.words()[0].load(Acquire) <= self.number
    }

    fn words(&self) -> &[AtomicU64; WORDS] {
        &self.page[0]
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// The next program, in this process.
    fn successor(turn: &MetricsTurn) -> MetricsTurn {
        let (_, number) = turn.for_successor().unwrap();
        MetricsTurn { page: turn.page.clone(), number }
    }

    #[test]
    fn who_has_answered_last_answers_on() {
        let old = MetricsTurn::new().unwrap();
        let new = successor(&old);
        old.take();
        assert!(old.is_ours() && new.is_ours(), "until the new one takes it");
        new.take();
        old.take();
        assert!(new.is_ours() && !old.is_ours());
        old.take_back();
        let next = successor(&old);
        assert!(old.is_ours());
        next.take();
        assert!(next.is_ours() && !old.is_ours());
    }

    #[test]
    fn only_memory_that_was_made_for_it_is_inherited() {
        assert!(MetricsTurn::inherited(File::open("/proc/self/exe").unwrap().into(), 2).unwrap().is_none());
        let old = MetricsTurn::new().unwrap();
        let (descriptor, number) = old.for_successor().unwrap();
        let file = File::options().read(true).write(true).open(format!("/proc/self/fd/{descriptor}")).unwrap();
        let new = MetricsTurn::inherited(file.into(), number).unwrap().unwrap();
        new.take();
        assert!(!old.is_ours() && new.is_ours());
    }
}
