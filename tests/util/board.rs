//! The state of a master's workers, read from the scoreboard, a file in memory that the master
//! holds open.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::process::children;

/// As /proc shows it.
const NAME: &str = "/memfd:monoceros-scoreboard";

/// No test has more workers, and each new one gets the lowest row that is free.
const ROWS: u64 = 256;

/// Bytes of a row, which begins on a page.
const ROW_BYTES: u64 = 8192;

/// How a row begins whose worker serves, or serves on until it is replaced.
const SERVING: [u64; 2] = [1, 2];

/// Whether a master has this many children, and all of them report that they serve.
pub fn all_serve(master: i32, count: usize) -> bool {
    children(master).len() == count && serving(master).is_none_or(|serving| serving == count)
}

/// How many workers report that they serve; `None` for a program without a scoreboard.
pub fn serving(master: i32) -> Option<usize> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()?? as u64;
    let board = open(master)?;
    let stride = ROW_BYTES.next_multiple_of(page);
    let state = |row: u64| {
        let mut state = [0; 8];
        // The first page is the master's.
        board.read_exact_at(&mut state, (row + 1) * stride).map(|()| u64::from_ne_bytes(state))
    };
    Some((0..ROWS).filter(|&row| state(row).is_ok_and(|state| SERVING.contains(&state))).count())
}

/// Where the first page says when the program started that writes the board: its fifth word.
const STARTED_AT: u64 = 4 * 8;

/// A program that has followed another holds that one's board as well.
fn open(master: i32) -> Option<File> {
    let descriptors = fs::read_dir(format!("/proc/{master}/fd")).ok()?.flatten().map(|entry| entry.path());
    // The name is a text with more behind it, and no path.
    let is_board = |path: &PathBuf| fs::read_link(path).is_ok_and(|name| name.to_string_lossy().starts_with(NAME));
    let started_at = |board: &File| {
        let mut word = [0; 8];
        board.read_exact_at(&mut word, STARTED_AT).map_or(0, |()| u64::from_ne_bytes(word))
    };
    descriptors.filter(is_board).filter_map(|path| File::open(path).ok()).max_by_key(started_at)
}
