//! What earlier programs have counted: a new program goes on from there, so that no total falls at
//! an upgrade.
//!
//! Only the program that a board belongs to, and its workers, can write to it. So a new program has
//! a board of its own. It also reads those of the programs before it, whose workers go on counting
//! there until they end. Boards on which nobody counts any more are added to the new one once,
//! before it has a reader ([`Scoreboard::after`]). Each upgrade does so, and so there are never
//! many.
//!
//! Under USR2 the old program may stay after all. So it makes the board of the new one, and adds
//! its counts to its own board when the new one is gone ([`Scoreboard::add_successor`]).

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use super::boards::{
    Board, Pages, busy, kept_for, master_of, masters_kept, masters_page, pages_of, pid_in, rows_used, starts, until,
    words_of, workers_rows,
};
use super::layout::{EXIT_WORDS, MAGIC, MOST_EARLIER, MasterWord, STATE_WORDS, Tally, VERSION, WORDS};
use super::tallies::BEING_COUNTED;
use super::{FILE_NAME, Scoreboard};
use crate::sys::clock::monotonic_ns;
use crate::sys::process::{Pid, getpid, is_alive};
use crate::sys::shared::{Counters, SharedPages};

/// The boards that a program inherits from those before it.
#[derive(Debug, Default)]
pub struct InheritedBoards {
    /// The file of a board for this program, where the one before has made it.
    pub fresh: Option<OwnedFd>,
    /// The files of the boards that the program before has read, and of its own, in this order.
    pub earlier: Vec<OwnedFd>,
}

/// The words of the master's page that hold counts.
const MASTERS_COUNTS: [MasterWord; 6] = [
    MasterWord::Starts,
    MasterWord::ReloadsOk,
    MasterWord::ReloadsFailed,
    MasterWord::ScaledUp,
    MasterWord::ScaledDown,
    MasterWord::LinesDropped,
];

/// What the master's page says of the last reload.
const LAST_RELOAD: [MasterWord; 3] = [MasterWord::LastReload, MasterWord::LastReloadAt, MasterWord::LastReloadOkAt];

impl Scoreboard {
    /// A board of `rows` empty rows for this process, the master, which goes on counting from what
    /// it has inherited. An inherited board of another layout is left out: what was counted there
    /// is lost.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn after(rows: NonZeroUsize, inherited: InheritedBoards) -> io::Result<Scoreboard> {
        let length = pages_of(rows);
        let fresh = inherited.fresh.and_then(|file| SharedPages::inherited(file, length).ok().flatten());
        let pages = fresh.map_or_else(|| SharedPages::new(FILE_NAME, length), Ok)?;
        let found: Vec<Pages> = inherited.earlier.into_iter().filter_map(|file| open(file, length)).collect();
        let kept = add_ended(&pages, &found);
        let earlier = found.into_iter().zip(kept).filter_map(|(pages, is_kept)| is_kept.then(|| Arc::new(pages)));
        let board = Scoreboard(Arc::new(Board { pages: Arc::new(pages), earlier: earlier.collect() }));
        board.open_page();
        Ok(board)
    }

    /// A board for a program that is to run beside this one; `None` where the system has none to
    /// give.
    pub fn for_successor(&self) -> Option<SuccessorBoard> {
        let rows = NonZeroUsize::new(workers_rows(&self.0))?;
        SharedPages::for_successor(FILE_NAME, pages_of(rows)).ok().flatten().map(SuccessorBoard)
    }

    /// Adds the counts of a program that has run beside this one and is gone. The counts that it
    /// kept of programs before are this one's already.
    pub fn add_successor(&self, successor: &SuccessorBoard) {
        add_own(&self.0, &successor.0, |_, now| now);
    }

    /// This scoreboard without the boards of masters in other processes, which use the counts there
    /// themselves.
    pub fn of_this_process(&self) -> Scoreboard {
        let own = master_of(&self.0.pages);
        let earlier = self.0.earlier.iter().filter(|pages| master_of(pages) == own).cloned().collect();
        Scoreboard(Arc::new(Board { pages: self.0.pages.clone(), earlier }))
    }

    /// The descriptors of all boards, for the next program: the earlier ones, then this.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.0.earlier.iter().chain([&self.0.pages]).filter_map(|pages| pages.descriptor()).collect()
    }

    /// How many workers the last program of this process has wanted, and whether its health checks
    /// failed by an operator's order. `None` where none of its workers is left.
    pub fn of_last_program(&self) -> Option<(usize, bool)> {
        let own = master_of(&self.0.pages);
        let last = self.0.earlier().rev().find(|pages| master_of(pages) == own)?;
        let says = |word: MasterWord| masters_page(last)[word as usize].load(Acquire);
        Some((says(MasterWord::Wanted) as usize, says(MasterWord::Drained) == 1))
    }

    /// The number of the row that a worker of an earlier program has.
    pub fn row_of(&self, worker: Pid) -> Option<usize> {
        let is_its = |pages: &Pages, number: usize| pid_in(pages, number) == Some(worker);
        let earlier = self.0.earlier().rev();
        earlier.filter_map(|pages| (0..rows_used(pages)).find(|&number| is_its(pages, number))).next()
    }

    /// For the master: notes when a worker of an earlier program has died at a request, so that the
    /// request does not seem to run on. While the master of that board lives, it does so itself.
    pub fn note_ended(&self) {
        let is_orphaned = |pages: &Pages| !has_other_master(pages, getpid());
        for (index, pages) in self.0.earlier().enumerate().filter(|(_, pages)| is_orphaned(pages)) {
            for number in 0..rows_used(pages) {
                let ended = &kept_for(&self.0, number)[index];
                let runs = || starts(words_of(pages, number)).iter().any(|start| start.load(Relaxed) > BEING_COUNTED);
                if ended.load(Relaxed) == 0 && runs() && !pid_in(pages, number).is_some_and(is_alive) {
                    // As at the end of a request: a reader that has seen 0 has told a shorter time.
                    ended.store(BEING_COUNTED, Relaxed);
                    fence(Release);
                    ended.store(monotonic_ns(), Release);
                }
            }
        }
    }
}

/// The board of a program beside this one.
#[derive(Debug)]
pub struct SuccessorBoard(Pages);

impl SuccessorBoard {
    /// The descriptor that the program needs.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.0.descriptor()
    }

    /// Closes the file, once its descriptor has been passed on.
    pub fn close_file(&self) {
        self.0.close_file();
    }

    /// Whether somebody may still count there.
    pub fn has_writers(&self) -> bool {
        has_writers(&self.0)
    }
}

/// An earlier program's board, if it has this layout.
fn open(file: OwnedFd, length: NonZeroUsize) -> Option<Pages> {
    let pages = Pages::of_file(file).ok().flatten().filter(|pages| pages.count() == length.get())?;
    let says = |word: MasterWord| masters_page(&pages)[word as usize].load(Acquire);
    ((says(MasterWord::Magic), says(MasterWord::Version)) == (MAGIC, VERSION)).then_some(pages)
}

/// Adds to `pages` the boards on which nobody counts any more, and the oldest of the others if they
/// are too many. Returns for each board whether it is to be read further. Nobody reads `pages` yet.
fn add_ended(pages: &Pages, found: &[Pages]) -> Vec<bool> {
    let mut are_kept: Vec<bool> = found.iter().map(has_writers).collect();
    while are_kept.iter().filter(|is_kept| **is_kept).count() > MOST_EARLIER
        && let Some(oldest) = are_kept.iter().position(|is_kept| *is_kept)
    {
        are_kept[oldest] = false;
    }
    // The last program has read the others, and knows when their workers have ended.
    let last = found.last();
    let mut place = 0;
    for (index, (earlier, is_kept)) in found.iter().zip(&are_kept).enumerate() {
        let ended = |number: usize| last.filter(|_| index < MOST_EARLIER).map(|last| &kept_for(last, number)[index]);
        if *is_kept {
            for number in 0..rows_used(earlier) {
                let at = ended(number).map_or(0, |word| word.load(Acquire));
                kept_for(pages, number)[place].store(at, Relaxed);
            }
            place += 1;
        } else {
            add_own(pages, earlier, |number, now| ended(number).map_or(now, |word| until(word, now)));
            add_kept(pages, earlier);
        }
    }
    if let Some(last) = last {
        LAST_RELOAD.into_iter().for_each(|word| {
            masters_page(pages)[word as usize].store(masters_page(last)[word as usize].load(Relaxed), Relaxed);
        });
    }
    are_kept
}

/// Adds what the program of the board `other` has counted to what is kept on `pages`. A request
/// that still seems to run there counts until `end_of` its row.
fn add_own(pages: &Pages, other: &Pages, end_of: impl Fn(usize, u64) -> u64) {
    add_masters_counts(pages, masters_page(other));
    for number in 0..rows_used(other) {
        let (row, kept) = (words_of(other, number), kept_for(pages, number));
        add_tallies(kept, row);
        let end = end_of(number, monotonic_ns());
        add_word(&kept[Tally::BusyRest as usize], busy(row, end).saturating_sub(busy(row, 0)));
    }
    note_kept_rows(pages, rows_used(other));
}

/// Adds what is kept on the board `other` of the programs before it.
fn add_kept(pages: &Pages, other: &Pages) {
    add_masters_counts(pages, masters_kept(other));
    let rows = masters_kept(other)[MasterWord::RowsUsed as usize].load(Relaxed) as usize;
    let rows = rows.min(workers_rows(other));
    (0..rows).for_each(|number| add_tallies(kept_for(pages, number), kept_for(other, number)));
    note_kept_rows(pages, rows);
}

fn add_masters_counts(pages: &Pages, source: &Counters<WORDS>) {
    let counts = MASTERS_COUNTS.into_iter().map(|word| word as usize);
    let exits = (0..EXIT_WORDS).map(|cause| MasterWord::Exits as usize + cause);
    counts.chain(exits).for_each(|word| add_word(&masters_kept(pages)[word], source[word].load(Relaxed)));
}

fn note_kept_rows(pages: &Pages, rows: usize) {
    masters_kept(pages)[MasterWord::RowsUsed as usize].fetch_max(rows as u64, Relaxed);
}

fn add_tallies(kept: &Counters<WORDS>, source: &Counters<WORDS>) {
    kept.iter().zip(&source[..]).skip(STATE_WORDS).for_each(|(kept, word)| add_word(kept, word.load(Relaxed)));
}

fn add_word(kept: &AtomicU64, more: u64) {
    if more > 0 {
        kept.fetch_add(more, Relaxed);
    }
}

/// Whether the board's master lives, and is another process than `ours`.
fn has_other_master(pages: &Pages, ours: Pid) -> bool {
    master_of(pages).is_some_and(|master| master != ours && is_alive(master))
}

/// Whether somebody may still count on a board of another program.
fn has_writers(pages: &Pages) -> bool {
    let is_at_work = |number| pid_in(pages, number).is_some_and(is_alive);
    has_other_master(pages, getpid()) || (0..rows_used(pages)).any(is_at_work)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, Instant};

    use super::super::{ExitCause, Row, ServedCounts};
    use super::*;

    /// A process that does not exist: above the kernel's limit (PID_MAX_LIMIT, 2^22).
    const GONE: Pid = Pid::from_raw(i32::MAX);

    const ROWS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

    /// The next program, in this process.
    fn follow(board: &Scoreboard, fresh: Option<OwnedFd>) -> Scoreboard {
        let earlier = board.descriptors().into_iter().map(opened).collect();
        Scoreboard::after(ROWS, InheritedBoards { fresh, earlier }).unwrap()
    }

    fn opened(descriptor: RawFd) -> OwnedFd {
        File::options().read(true).write(true).open(format!("/proc/self/fd/{descriptor}")).unwrap().into()
    }

    /// A worker in a row of the board, which has served a request.
    fn worker(board: &Scoreboard, number: usize, pid: Pid) -> Row {
        let row = board.row(number);
        board.count_start(number);
        row.clear();
        row.assign(pid, 1, 1);
        serve(&row);
        row
    }

    fn serve(row: &Row) {
        let began = Instant::now();
        let running = row.start_request(began);
        row.end_request(running, || began + Duration::from_secs(1));
        row.count_served(&ServedCounts { status: 200, duration: Duration::from_secs(1), ..Default::default() });
    }

    fn end(board: &Scoreboard, row: &Row) {
        board.count_exit(ExitCause::Reload);
        row.count_cpu_of_dead(Duration::from_secs(3));
        row.clear();
    }

    /// Requests and busy seconds by row; responses, starts and ends.
    fn told(board: &Scoreboard) -> (Vec<(u64, u64)>, u64, u64, u64) {
        let workers = board.read_workers();
        let rows = workers.iter().map(|worker| (worker.totals.requests, worker.totals.busy.as_secs())).collect();
        let responses = board.responses().iter().map(|(_, count)| count).sum();
        (rows, responses, board.starts(), board.exits(ExitCause::Reload))
    }

    #[test]
    fn a_worker_of_an_earlier_program_counts_on_and_its_board_is_added_when_it_has_ended() {
        let old = Scoreboard::new(ROWS).unwrap();
        let row = worker(&old, 1, getpid());
        let new = follow(&old, None);
        assert_eq!(told(&new), (vec![(0, 0), (1, 1)], 1, 1, 0));
        assert_eq!(new.row_of(getpid()), Some(1));
        serve(&row);
        let own = worker(&new, 0, getpid());
        assert_eq!(told(&new), (vec![(1, 1), (2, 2)], 3, 2, 0));
        assert_eq!(told(&follow(&new, None)), told(&new), "both are read");
        [(&old, &row), (&new, &own)].into_iter().for_each(|(board, row)| end(board, row));
        let last = follow(&new, None);
        assert!(last.0.earlier.is_empty());
        assert_eq!(told(&last), (vec![(1, 1), (2, 2)], 3, 2, 2));
        assert_eq!((told(&last), last.cpu_of(1)), (told(&new), new.cpu_of(1)));
        assert_eq!(told(&follow(&last, None)), told(&last), "and not lost by the next");
    }

    #[test]
    fn an_adopted_worker_is_seen_as_it_says_on_its_own_board() {
        let old = Scoreboard::new(ROWS).unwrap();
        let row = worker(&old, 1, getpid());
        row.set_connections(3);
        let running = row.start_request(Instant::now());
        let new = follow(&old, None);
        new.row(1).assign(getpid(), 0, 1);
        let seen = &new.read_workers()[1];
        assert_eq!((seen.connections, seen.running.len(), seen.pid), (3, 1, Some(getpid())));
        row.end_request(running, Instant::now);
        assert!(new.cpu_of(1).is_some_and(|used| used < Duration::from_secs(1000)));
    }

    #[test]
    fn a_request_of_a_dead_worker_does_not_run_on() {
        let old = Scoreboard::new(ROWS).unwrap();
        let (alive, dead) = (worker(&old, 0, getpid()), worker(&old, 1, GONE));
        let ten_seconds_ago = Instant::now() - Duration::from_secs(10);
        let running = [&alive, &dead].map(|row| row.start_request(ten_seconds_ago));
        let new = follow(&old, None);
        let busy =
            |board: &Scoreboard| board.read_workers().iter().map(|worker| worker.totals.busy).collect::<Vec<_>>();
        let before = busy(&new);
        assert!(before.iter().all(|busy| *busy >= Duration::from_secs(11)), "{before:?}");
        new.note_ended();
        let first = busy(&new);
        std::thread::sleep(Duration::from_millis(3));
        let second = busy(&new);
        assert!(second[0] > first[0] && second[1] == first[1] && first[1] >= before[1], "{first:?} {second:?}");
        // The next program knows it too, whether it still reads the board or adds it.
        let next = follow(&new, None);
        assert_eq!((next.0.earlier.len(), busy(&next)[1]), (1, first[1]));
        end(&old, &alive);
        let last = follow(&next, None);
        assert_eq!((last.0.earlier.len(), busy(&last)[1]), (0, first[1]));
        drop(running);
    }

    #[test]
    fn what_a_program_beside_has_counted_is_added_when_it_is_gone() {
        let first = Scoreboard::new(ROWS).unwrap();
        worker(&first, 0, GONE);
        let old = follow(&first, None);
        worker(&old, 0, GONE);
        let successor = old.for_successor().unwrap();
        let new = follow(&old, successor.descriptor().map(opened));
        let row = worker(&new, 2, getpid());
        assert!(successor.has_writers());
        end(&new, &row);
        assert!(!successor.has_writers());
        let before = told(&new);
        old.add_successor(&successor);
        assert_eq!(before, (vec![(2, 2), (0, 0), (1, 1)], 3, 3, 1));
        assert_eq!(told(&old), before);
    }

    #[test]
    fn a_file_that_is_no_board_of_this_layout_is_left_out() {
        let other = Scoreboard::new(ROWS).unwrap();
        worker(&other, 0, getpid());
        masters_page(&other.0)[MasterWord::Version as usize].store(VERSION + 1, Relaxed);
        let larger = Scoreboard::new(NonZeroUsize::new(5).unwrap()).unwrap();
        worker(&larger, 0, getpid());
        let files = [other.descriptors(), larger.descriptors()].concat().into_iter().map(opened);
        let earlier = files.chain([File::open("/proc/self/exe").unwrap().into()]).collect();
        let new = Scoreboard::after(ROWS, InheritedBoards { fresh: None, earlier }).unwrap();
        assert_eq!(told(&new), (vec![], 0, 0, 0));
        // Nor does a sealed one become this program's own.
        let fresh = Some(opened(other.descriptors()[0]));
        let new = Scoreboard::after(ROWS, InheritedBoards { fresh, earlier: Vec::new() }).unwrap();
        serve(&new.row(0));
        assert_eq!(told(&other).1, 1);
    }
}
