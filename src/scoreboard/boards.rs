//! The board of a program as a reader sees it: its pages, the pages of earlier programs that still
//! count, and what is kept of the counts of others.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU64, fence};

use super::layout::{MasterWord, REQUESTS, State, Tally, WORDS, pages_for};
use super::tallies::BEING_COUNTED;
use crate::sys::process::{Pid, is_alive};
use crate::sys::shared::{Counters, SharedPages};

/// How often a reader looks again at something that is just being written.
pub(super) const LOOKS: usize = 100;

pub(super) type Pages = SharedPages<Counters<WORDS>>;

/// The pages of this program, and those of earlier programs whose workers may still count there.
#[derive(Debug)]
pub(super) struct Board {
    pub pages: Arc<Pages>,
    /// The pages of earlier programs, the oldest first; to be read only.
    pub earlier: Vec<Arc<Pages>>,
}

impl Deref for Board {
    type Target = Pages;

    fn deref(&self) -> &Pages {
        &self.pages
    }
}

impl Board {
    /// All boards, this program's first.
    fn all(&self) -> impl Iterator<Item = &Pages> {
        [&*self.pages].into_iter().chain(self.earlier())
    }

    pub(super) fn earlier(&self) -> impl DoubleEndedIterator<Item = &Pages> {
        self.earlier.iter().map(|pages| &**pages)
    }

    /// The words in which workers of a row have counted, on all boards.
    pub(super) fn tallies_of(&self, number: usize) -> impl Iterator<Item = &Counters<WORDS>> {
        self.all().flat_map(move |pages| {
            let is_used = number < rows_used(pages);
            [is_used.then(|| words_of(pages, number)), kept_if_any(pages, number)].into_iter().flatten()
        })
    }

    /// How many rows were ever used, on any board.
    pub(super) fn rows_used(&self) -> usize {
        self.all().map(rows_used).max().unwrap_or(0)
    }

    /// The total of what all masters have counted in this word.
    pub(super) fn masters_total(&self, word: usize) -> u64 {
        let pages = self.all().flat_map(|pages| [masters_page(pages), masters_kept(pages)]);
        pages.map(|words| words[word].load(Relaxed)).sum()
    }

    /// The words that hold the state of the row's worker. They are on an earlier board if the
    /// worker is one of that program.
    pub(super) fn state_of(&self, number: usize) -> &Counters<WORDS> {
        let own = pid_in(&self.pages, number);
        let is_its = |pages: &&Pages| own.is_some() && number < rows_used(pages) && pid_in(pages, number) == own;
        self.earlier().rev().find(is_its).map_or(words_of(&self.pages, number), |pages| words_of(pages, number))
    }

    /// The pids whose processor time counts for a row besides that of the dead: its worker, and the
    /// worker that any other living master has there. Of each master only the newest board is read:
    /// workers of its earlier programs have the same rows there.
    pub(super) fn pids_of(&self, number: usize) -> impl Iterator<Item = Pid> {
        let mut told = vec![master_of(&self.pages)];
        let mut is_others = move |pages: &&Pages| {
            let master = master_of(pages);
            let is_new = !told.contains(&master);
            told.push(master);
            is_new && number < rows_used(pages) && master.is_some_and(is_alive)
        };
        let others = self.earlier().rev().filter(move |pages| is_others(pages));
        [&*self.pages].into_iter().chain(others).filter_map(move |pages| pid_in(pages, number))
    }

    /// Nanoseconds that threads have been in the application in this row, on all boards, up to
    /// `now`.
    pub(super) fn busy_of(&self, number: usize, now: u64) -> u64 {
        let earlier = |(index, pages): (usize, &Pages)| {
            if number >= rows_used(pages) {
                return kept_busy(pages, number);
            }
            busy(words_of(pages, number), end_of(&self.pages, number, index, now)) + kept_busy(pages, number)
        };
        let own = busy(words_of(&self.pages, number), now) + kept_busy(&self.pages, number);
        own + self.earlier().enumerate().map(earlier).sum::<u64>()
    }
}

pub(super) fn workers_rows(board: &Pages) -> usize {
    board.count() / 2 - 1
}

pub(super) fn pages_of(rows: NonZeroUsize) -> NonZeroUsize {
    // A board has at least one row.
    NonZeroUsize::new(pages_for(rows.get())).unwrap_or(rows)
}

/// The page that the master writes.
pub(super) fn masters_page(board: &Pages) -> &Counters<WORDS> {
    board.at(0)
}

/// The words of a worker's row.
pub(super) fn words_of(board: &Pages, number: usize) -> &Counters<WORDS> {
    board.at(number + 1)
}

/// The counts of earlier programs that are kept for this row.
pub(super) fn kept_for(pages: &Pages, number: usize) -> &Counters<WORDS> {
    pages.at(1 + workers_rows(pages) + number)
}

/// The counts of earlier programs' masters that are kept.
pub(super) fn masters_kept(pages: &Pages) -> &Counters<WORDS> {
    pages.at(pages.count() - 1)
}

/// As [`kept_for`], where something is kept. Otherwise the page is not read: even a page that was
/// only read takes memory.
pub(super) fn kept_if_any(pages: &Pages, number: usize) -> Option<&Counters<WORDS>> {
    let rows = masters_kept(pages)[MasterWord::RowsUsed as usize].load(Relaxed);
    (number as u64).lt(&rows).then(|| kept_for(pages, number))
}

pub(super) fn kept_busy(pages: &Pages, number: usize) -> u64 {
    let sum = |words: &Counters<WORDS>| {
        words[Tally::Busy as usize..][..=REQUESTS].iter().map(|word| word.load(Relaxed)).sum()
    };
    kept_if_any(pages, number).map_or(0, sum)
}

/// When the requests have ended that still seem to run in this row of the earlier board with this
/// index; `now` if they do run.
pub(super) fn end_of(pages: &Pages, number: usize, index: usize, now: u64) -> u64 {
    until(&kept_for(pages, number)[index], now)
}

pub(super) fn until(ended: &AtomicU64, now: u64) -> u64 {
    for _ in 0..LOOKS {
        match ended.load(Acquire) {
            0 => return now,
            BEING_COUNTED => std::hint::spin_loop(),
            at => return at.min(now),
        }
    }
    now
}

/// How many rows were ever used, those of which something is kept included.
pub(super) fn rows_used(pages: &Pages) -> usize {
    let used =
        [masters_page(pages), masters_kept(pages)].map(|words| words[MasterWord::RowsUsed as usize].load(Relaxed));
    (used.into_iter().max().unwrap_or(0) as usize).min(workers_rows(pages))
}

pub(super) fn pid_in(pages: &Pages, number: usize) -> Option<Pid> {
    let pid = words_of(pages, number)[State::Pid as usize].load(Acquire);
    (pid != 0).then(|| Pid::from_raw(pid as i32))
}

pub(super) fn master_of(pages: &Pages) -> Option<Pid> {
    let pid = masters_page(pages)[MasterWord::Pid as usize].load(Relaxed);
    (pid != 0).then(|| Pid::from_raw(pid as i32))
}

pub(super) fn starts(words: &Counters<WORDS>) -> &[AtomicU64] {
    &words[State::Starts as usize..][..REQUESTS]
}

/// Nanoseconds that threads of a row have been in the application, running requests up to `now`
/// included. `now` is from before the words are read: so the time that is added at the end of a
/// request is never less than what a reader was told.
pub(super) fn busy(words: &Counters<WORDS>, now: u64) -> u64 {
    let has_greenlets = words[State::HasGreenlets as usize].load(Relaxed) != 0;
    let of_place = |place: usize| {
        let (start, counted) = (&starts(words)[place], &words[Tally::Busy as usize + place]);
        for _ in 0..LOOKS {
            let began = start.load(Acquire);
            let before = counted.load(Relaxed);
            fence(Acquire);
            if began == BEING_COUNTED || start.load(Relaxed) != began {
                std::hint::spin_loop();
                continue;
            }
            return if began == 0 || has_greenlets { before } else { before + now.saturating_sub(began) };
        }
        // The worker was killed while it counted; the master will clear the place.
        counted.load(Relaxed)
    };
    (0..REQUESTS).map(of_place).sum::<u64>() + words[Tally::BusyRest as usize].load(Relaxed)
}
