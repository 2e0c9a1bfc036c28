//! The level of the error log that an operator asks for while the server runs.
//!
//! The master writes the level on its page, and applies it to itself. Each worker looks at the page
//! once a second. A worker inherits the level in force at its fork, so it notes what stands there
//! then, and takes only what comes later.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::layout::MasterWord;
use super::{Row, Scoreboard, masters_page};

/// What a worker knows of the level.
#[derive(Debug)]
pub struct AskedLevel {
    row: Row,
    seen: AtomicU64,
}

impl AskedLevel {
    /// To be made before the fork, in the master, for the worker of this row.
    pub fn new(board: &Scoreboard, row: Row) -> AskedLevel {
        AskedLevel { row, seen: AtomicU64::new(board.get(MasterWord::LogLevel)) }
    }

    /// The level as Python's `logging` numbers it, if one was asked for since the last call.
    pub fn take(&self) -> Option<u32> {
        let asked = masters_page(&self.row.board)[MasterWord::LogLevel as usize].load(Relaxed);
        (self.seen.swap(asked, Relaxed) != asked).then_some((asked & 0xff) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_WORKERS;
    use super::*;

    #[test]
    fn each_change_is_told_once_and_not_what_was_there_before() {
        let board = Scoreboard::new(MAX_WORKERS).unwrap();
        let early = AskedLevel::new(&board, board.row(0));
        assert_eq!(early.take(), None);
        board.ask_for_log_level(10);
        let late = AskedLevel::new(&board, board.row(1));
        assert_eq!((early.take(), early.take(), late.take()), (Some(10), None, None));
        board.ask_for_log_level(10);
        assert_eq!((early.take(), late.take()), (Some(10), Some(10)), "it may have been changed otherwise meanwhile");
    }
}
