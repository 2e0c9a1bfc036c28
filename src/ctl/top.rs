//! `top`: a frame again and again, until a key ends it or the server is gone.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::frame::{Line, LineStyle, Order, frame};
use super::reading::{Memory, Reading};
use super::{NOT_RUNNING, OK, status, views};
use crate::scoreboard::{Scoreboard, WorkerReading};
use crate::sys::process::is_alive;
use crate::sys::terminal::{self, Keys};

/// The pauses between two frames, in seconds, that the keys + and - choose from.
pub(super) const INTERVALS: [f64; 4] = [0.5, 1.0, 2.0, 5.0];

/// The size of a terminal that does not tell its own.
const USUAL_SIZE: (usize, usize) = (80, 24);

const CTRL_C: u8 = 3;

/// How long `top` waits for a key before it looks at the clock again.
const LOOK: Duration = Duration::from_millis(100);

/// The bytes that an arrow key sends before its letter (ECMA-48, CSI).
const ESCAPE: [u8; 2] = [0x1b, b'['];

/// What is on the screen.
enum View {
    Workers,
    /// The threads of the chosen worker.
    Threads,
    /// The stacks that the chosen worker had when they were asked for.
    Stacks(Vec<Line>),
    Help,
}

struct Screen {
    order: Order,
    interval: f64,
    memory: Memory,
    is_frozen: bool,
    view: View,
    /// The number of the chosen worker.
    chosen: Option<usize>,
    /// The numbers of the workers on the screen, from above.
    shown: Vec<usize>,
    /// Lines of a long view that are above the screen.
    scrolled: usize,
    /// How many bytes of [`ESCAPE`] have come.
    escaped: usize,
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

/// Shows the server until `q` or Ctrl-C, or until the server ends. Without a terminal, shows one
/// frame.
pub(super) fn run(board: &Scoreboard, interval: f64) -> i32 {
    let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let Some(ended) = in_terminal(|keys| Screen::new(interval, has_colours).show(board, keys)) else {
        status::print_frame(board);
        return OK;
    };
    if ended == NOT_RUNNING {
        eprintln!("monoceros ctl: the server with the master {} has ended", board.master());
    }
    ended
}

/// Calls `show` with a screen of its own, and leaves the terminal as it was, also by a panic.
/// `None` where there is no terminal.
fn in_terminal<T>(show: impl FnOnce(&Keys) -> T) -> Option<T> {
    let keys = Keys::new()?;
    let _screen = AlternateScreen::new();
    Some(show(&keys))
}

impl Screen {
    fn new(interval: f64, has_colours: bool) -> Screen {
        Screen {
            order: Order { column: 0, is_reversed: false },
            interval,
            memory: Memory::Resident,
            is_frozen: false,
            view: View::Workers,
            chosen: None,
            shown: Vec::new(),
            scrolled: 0,
            escaped: 0,
            has_colours,
        }
    }

    fn show(&mut self, board: &Scoreboard, keys: &Keys) -> i32 {
        let mut board = board.clone();
        let mut before = Reading::of(&board, self.memory);
        let mut now = None;
        self.draw(&board, &before, None);
        let mut next = Instant::now() + Duration::from_secs_f64(self.interval);
        let mut size = terminal::size();
        loop {
            let key = keys.next(LOOK.min(next.saturating_duration_since(Instant::now())));
            match key {
                Some(b'q' | CTRL_C) => return OK,
                Some(key) => self.press(key, now.as_ref().unwrap_or(&before)),
                None => {}
            }
            if !is_alive(board.master()) {
                return NOT_RUNNING;
            }
            if Instant::now() >= next {
                next = Instant::now() + Duration::from_secs_f64(self.interval);
                if !self.is_frozen {
                    // After an upgrade in place the master has another board.
                    board = Scoreboard::open(board.master()).unwrap_or(board);
                    before = now.replace(Reading::of(&board, self.memory)).unwrap_or(before);
                }
            } else if key.is_none() && size == terminal::size() {
                continue;
            }
            size = terminal::size();
            match &now {
                Some(now) => self.draw(&board, now, Some(&before)),
                None => self.draw(&board, &before, None),
            }
        }
    }

    fn press(&mut self, key: u8, now: &Reading) {
        if ESCAPE.get(self.escaped) == Some(&key) {
            self.escaped += 1;
            return;
        }
        let is_escaped = std::mem::take(&mut self.escaped) == ESCAPE.len();
        let at = INTERVALS.iter().position(|&interval| interval >= self.interval).unwrap_or(INTERVALS.len() - 1);
        match key {
            b'A' if is_escaped => self.move_by(-1),
            b'B' if is_escaped => self.move_by(1),
            _ if is_escaped => {}
            b'k' => self.move_by(-1),
            b'j' => self.move_by(1),
            b'1'..=b'9' => self.order.column = usize::from(key - b'1'),
            b'0' => self.order.column = 9,
            b'r' => self.order.is_reversed = !self.order.is_reversed,
            b'+' => self.interval = INTERVALS[(at + 1).min(INTERVALS.len() - 1)],
            b'-' => self.interval = INTERVALS[at.saturating_sub(1)],
            b' ' => self.is_frozen = !self.is_frozen,
            b'p' => self.change_memory(),
            b's' => self.toggle(matches!(self.view, View::Threads), || View::Threads),
            b'S' => {
                let worker = self.chosen_in(now);
                let stacks = || View::Stacks(worker.map(views::stacks).unwrap_or_default());
                self.toggle(matches!(self.view, View::Stacks(_)), stacks);
            }
            b'h' | b'?' => self.toggle(matches!(self.view, View::Help), || View::Help),
            _ => {}
        }
    }

    fn change_memory(&mut self) {
        self.memory = match self.memory {
            Memory::Resident => Memory::Proportional,
            Memory::Proportional => Memory::Resident,
        };
    }

    fn toggle(&mut self, is_shown: bool, view: impl FnOnce() -> View) {
        self.scrolled = 0;
        self.view = if is_shown { View::Workers } else { view() };
    }

    /// Chooses another worker, or scrolls what is longer than the screen.
    fn move_by(&mut self, step: isize) {
        if !matches!(self.view, View::Workers) {
            self.scrolled = self.scrolled.saturating_add_signed(step);
            return;
        }
        let at = self.shown.iter().position(|&number| Some(number) == self.chosen);
        let next = at.map_or(0, |at| at.saturating_add_signed(step).min(self.shown.len().saturating_sub(1)));
        self.chosen = self.shown.get(next).copied().or(self.chosen);
    }

    /// The chosen worker; the first one if none was chosen, or if the chosen one is gone.
    fn chosen_in<'a>(&self, now: &'a Reading) -> Option<&'a WorkerReading> {
        now.living().find(|worker| Some(worker.number) == self.chosen).or_else(|| now.living().next())
    }

    fn lines(&mut self, board: &Scoreboard, now: &Reading, before: Option<&Reading>, width: usize) -> Vec<Line> {
        match &self.view {
            View::Help => views::keys(),
            View::Stacks(lines) => lines.clone(),
            View::Threads => self.chosen_in(now).map(|worker| views::threads(board, worker)).unwrap_or_default(),
            View::Workers => {
                let mut lines = frame(now, before, self.order, width);
                self.shown = lines.iter().filter_map(|line| line.worker).collect();
                for line in lines.iter_mut().filter(|line| line.worker.is_some() && line.worker == self.chosen) {
                    line.style = LineStyle::Heading;
                }
                lines
            }
        }
    }

    fn draw(&mut self, board: &Scoreboard, now: &Reading, before: Option<&Reading>) {
        let (width, height) = terminal::size().unwrap_or(USUAL_SIZE);
        let mut lines = self.lines(board, now, before, width);
        let above = self.scrolled.min(lines.len().saturating_sub(height));
        lines.drain(..above);
        if self.is_frozen {
            lines
                .insert(0, Line { text: "frozen; space goes on".to_owned(), style: LineStyle::Alarming, worker: None });
        }
        let mut screen = String::from("\x1b[H");
        for (at, line) in lines.iter().take(height).enumerate() {
            if at > 0 {
                screen.push_str("\r\n");
            }
            let (start, end) = self.dress(line.style);
            let text: String = line.text.chars().take(width).collect();
            screen.push_str(&format!("{start}{text}{end}\x1b[K"));
        }
        screen.push_str("\x1b[J");
        // A terminal that is gone ends the input, which counts as the key q.
        let _ = io::stdout().write_all(screen.as_bytes());
        let _ = io::stdout().flush();
    }

    fn dress(&self, style: LineStyle) -> (&'static str, &'static str) {
        match style {
            LineStyle::Heading => ("\x1b[7m", "\x1b[0m"),
            LineStyle::Alarming if self.has_colours => ("\x1b[31m", "\x1b[0m"),
            LineStyle::Alarming | LineStyle::Plain => ("", ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::scoreboard::MAX_WORKERS;
    use crate::sys::process::getpid;

    fn reading() -> (Scoreboard, Reading) {
        let board = Scoreboard::new(MAX_WORKERS).unwrap();
        for number in 0..3 {
            board.count_start(number);
            board.row(number).assign(getpid(), 1, 1);
        }
        let now = Reading::of(&board, Memory::Resident);
        (board, now)
    }

    #[test]
    fn a_worker_is_chosen_by_letters_and_by_arrows() {
        let ((board, now), mut screen) = (reading(), Screen::new(1.0, false));
        let mut press = |keys: &str| {
            for key in keys.bytes() {
                screen.lines(&board, &now, None, 80);
                screen.press(key, &now);
            }
            screen.chosen_in(&now).map(|worker| worker.number)
        };
        assert_eq!(press(""), Some(0));
        assert_eq!(press("jj"), Some(1), "the first press chooses the first one");
        assert_eq!(press("\x1b[B\x1b[B"), Some(2));
        assert_eq!(press("\x1b[A"), Some(1));
        assert_eq!(press("rk"), Some(2), "in the order of the screen");
    }

    #[test]
    fn each_view_is_left_by_the_key_that_led_to_it() {
        let ((_board, now), mut screen) = (reading(), Screen::new(1.0, false));
        for key in [b's', b'h'] {
            screen.press(key, &now);
            assert!(!matches!(screen.view, View::Workers));
            screen.press(key, &now);
            assert!(matches!(screen.view, View::Workers));
        }
        screen.press(b'p', &now);
        assert_eq!(screen.memory, Memory::Proportional);
    }

    /// Runs the test below in a terminal (script(1)), and then has that say what it is like.
    #[test]
    fn a_panic_leaves_the_terminal_as_it_was() {
        let me = std::env::current_exe().unwrap();
        let test = "ctl::top::tests::panics_in_a_terminal";
        let line = format!("'{}' --exact {test} --ignored --nocapture; stty -a", me.display());
        let Ok(ran) = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output() else {
            return println!("skipped: no script(1) on this machine; Debian: bsdutils, Fedora: util-linux-script");
        };
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let (before, after) = said.split_once("\x1b[?1049l").expect("the screen was left");
        assert!(before.contains("\x1b[?1049h") && before.contains("on purpose"), "{said}");
        let modes: Vec<&str> = after.split_whitespace().map(|mode| mode.trim_end_matches(';')).collect();
        assert!(["icanon", "echo", "isig"].iter().all(|mode| modes.contains(mode)), "{after}");
    }

    #[test]
    #[ignore = "a_panic_leaves_the_terminal_as_it_was runs it in a terminal"]
    fn panics_in_a_terminal() {
        in_terminal(|_| panic!("on purpose"));
    }
}
