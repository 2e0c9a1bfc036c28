//! `top`: a frame again and again, until a key ends it or the server is gone.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::frame::{Line, Look, Order, frame};
use super::reading::Reading;
use super::{NOT_RUNNING, OK, status};
use crate::scoreboard::Scoreboard;
use crate::sys::process::is_alive;
use crate::sys::terminal::{self, Keys};

/// Seconds between two frames that the keys + and - choose from.
pub(super) const INTERVALS: [f64; 4] = [0.5, 1.0, 2.0, 5.0];

/// A terminal that does not say how large it is.
const USUAL_SIZE: (usize, usize) = (80, 24);

const CTRL_C: u8 = 3;

/// How long a key is waited for before the clock is looked at again.
const LOOK: Duration = Duration::from_millis(100);

const HELP: [&str; 9] = [
    "q         quit",
    "1 to 9, 0 sort by a column from the left; r the other way round",
    "+ and -   longer and shorter pauses: 0.5, 1, 2 or 5 s",
    "space     freeze, and go on",
    "h         this help, and back",
    "",
    "BUSY: the share of its threads' time that a worker was in the application. AVG: how",
    "long a request took, its wait included. OLDEST: for how long the slowest has run.",
    "REQS: of this worker process. 5XX: of all that had its number.",
];

struct Screen {
    order: Order,
    interval: f64,
    is_frozen: bool,
    shows_help: bool,
    has_colours: bool,
}

/// The alternate screen, which is left on drop, also by a panic.
struct AlternateScreen;

impl AlternateScreen {
    fn new() -> AlternateScreen {
        let _ = io::stdout().write_all(b"\x1b[?1049h\x1b[?25l");
        AlternateScreen
    }
}

impl Drop for AlternateScreen {
    fn drop(&mut self) {
        let _ = io::stdout().write_all(b"\x1b[0m\x1b[?25h\x1b[?1049l");
        let _ = io::stdout().flush();
    }
}

/// Shows the server until `q` or Ctrl-C. One frame where there is no terminal.
pub(super) fn run(board: &Scoreboard, interval: f64) -> i32 {
    let Some(keys) = Keys::new() else {
        status::print_frame(board);
        return OK;
    };
    let ended = {
        let _screen = AlternateScreen::new();
        let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let order = Order { column: 0, is_reversed: false };
        Screen { order, interval, is_frozen: false, shows_help: false, has_colours }.show(board, &keys)
    };
    drop(keys);
    if ended == NOT_RUNNING {
        eprintln!("monoceros ctl: the server with the master {} has ended", board.master());
    }
    ended
}

impl Screen {
    fn show(&mut self, board: &Scoreboard, keys: &Keys) -> i32 {
        let mut before = Reading::of(board);
        let mut now = None;
        self.draw(&before, None);
        let mut next = Instant::now() + Duration::from_secs_f64(self.interval);
        let mut size = terminal::size();
        loop {
            let key = keys.next(LOOK.min(next.saturating_duration_since(Instant::now())));
            match key {
                Some(b'q' | CTRL_C) => return OK,
                Some(key) => self.press(key),
                None => {}
            }
            if !is_alive(board.master()) {
                return NOT_RUNNING;
            }
            if Instant::now() >= next {
                next = Instant::now() + Duration::from_secs_f64(self.interval);
                if !self.is_frozen {
                    before = now.replace(Reading::of(board)).unwrap_or(before);
                }
            } else if key.is_none() && size == terminal::size() {
                continue;
            }
            size = terminal::size();
            match &now {
                Some(now) => self.draw(now, Some(&before)),
                None => self.draw(&before, None),
            }
        }
    }

    fn press(&mut self, key: u8) {
        let at = INTERVALS.iter().position(|&interval| interval >= self.interval).unwrap_or(INTERVALS.len() - 1);
        match key {
            b'1'..=b'9' => self.order.column = usize::from(key - b'1'),
            b'0' => self.order.column = 9,
            b'r' => self.order.is_reversed = !self.order.is_reversed,
            b'+' => self.interval = INTERVALS[(at + 1).min(INTERVALS.len() - 1)],
            b'-' => self.interval = INTERVALS[at.saturating_sub(1)],
            b' ' => self.is_frozen = !self.is_frozen,
            b'h' | b'?' => self.shows_help = !self.shows_help,
            _ => {}
        }
    }

    fn draw(&self, now: &Reading, before: Option<&Reading>) {
        let (width, height) = terminal::size().unwrap_or(USUAL_SIZE);
        let mut lines = if self.shows_help { help() } else { frame(now, before, self.order, width) };
        if self.is_frozen {
            lines.insert(0, Line { text: "frozen; space goes on".to_owned(), look: Look::Alarming });
        }
        let mut screen = String::from("\x1b[H");
        for (at, line) in lines.iter().take(height).enumerate() {
            if at > 0 {
                screen.push_str("\r\n");
            }
            let (start, end) = self.dress(line.look);
            let text: String = line.text.chars().take(width).collect();
            screen.push_str(&format!("{start}{text}{end}\x1b[K"));
        }
        screen.push_str("\x1b[J");
        // A terminal that is gone is noticed by the keys.
        let _ = io::stdout().write_all(screen.as_bytes());
        let _ = io::stdout().flush();
    }

    fn dress(&self, look: Look) -> (&'static str, &'static str) {
        match look {
            Look::Heading => ("\x1b[7m", "\x1b[0m"),
            Look::Alarming if self.has_colours => ("\x1b[31m", "\x1b[0m"),
            Look::Alarming | Look::Plain => ("", ""),
        }
    }
}

fn help() -> Vec<Line> {
    HELP.iter().map(|text| Line { text: (*text).to_owned(), look: Look::Plain }).collect()
}
