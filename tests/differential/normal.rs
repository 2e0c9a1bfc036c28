//! What may differ between any two runs, taken out of a transcript: pids, ports, times, folders,
//! the servers' names.

use std::collections::BTreeMap;

/// What is known of a run.
#[derive(Debug, Default, Clone)]
pub struct Facts {
    pub master: i32,
    /// In the order in which they booted.
    pub workers: Vec<i32>,
    /// Masters of an upgrade and other processes that write to the log, in the order of their first
    /// lines.
    pub others: Vec<i32>,
    pub ports: Vec<u16>,
    /// Text, and the word that stands for it; the first one that fits counts.
    pub words: Vec<(String, String)>,
}

impl Facts {
    /// A line without the parts that differ from run to run.
    pub fn normal(&self, line: &str) -> String {
        let mut line = line.trim_end().to_string();
        for (text, word) in &self.words {
            line = line.replace(text, word);
        }
        // The times first: a pid may be a year.
        let line = replace_times(&line);
        let line = replace_numbers(&line, &|before, number, after| self.number(before, number, after));
        let line = line.replace("gunicorn", "SERVER").replace("monoceros", "SERVER");
        line.replace("27.0.1", "VERSION").replace(env!("CARGO_PKG_VERSION"), "VERSION")
    }

    /// The word for a process, by the order in which they appear; 0 is no process. An unknown pid
    /// is another process.
    fn group(&mut self, pid: i32) -> usize {
        let known = [self.master].into_iter().chain(self.workers.clone()).chain(self.others.clone());
        let (count, found) = (1 + self.workers.len() + self.others.len(), known.into_iter().position(|it| it == pid));
        found.unwrap_or_else(|| {
            self.others.push(pid);
            count
        }) + 1
    }

    /// The word for a number between these texts. A number is a pid only where pids are written: a
    /// process may by chance have the number of a status, a length or a setting.
    fn number(&self, before: &str, text: &str, after: &str) -> Option<String> {
        let number: i32 = text.parse().ok()?;
        let place =
            |pids: &[i32], name: &str| pids.iter().position(|pid| *pid == number).map(|at| format!("{name}{}", at + 1));
        if is_place_of_a_pid(before, after) {
            let master = (number == self.master).then(|| "MASTER".to_string());
            return master.or_else(|| place(&self.workers, "WORKER")).or_else(|| place(&self.others, "OTHER"));
        }
        // The kernel chooses them above every port that a test sets.
        self.ports.iter().position(|port| i32::from(*port) == number).map(|at| format!("PORT{}", at + 1))
    }
}

/// In brackets, behind the word, or all that a file holds (`name: 123`).
fn is_place_of_a_pid(before: &str, after: &str) -> bool {
    let is_within = |(open, close): (char, char)| before.ends_with(open) && after.starts_with(close);
    let is_all_of_a_file = || after.is_empty() && before.strip_suffix(": ").is_some_and(|name| !name.contains(' '));
    [('[', ']'), ('(', ')'), ('<', '>')].into_iter().any(is_within)
        || ["pid:", "pid: "].iter().any(|word| before.ends_with(word))
        || is_all_of_a_file()
}

/// The error log, process by process: what each wrote is in order, what two of them wrote at the
/// same time is not. A line without a prefix (a traceback's) belongs to the one before it.
pub fn by_process(log: &str, facts: &Facts) -> Vec<String> {
    let mut facts = facts.clone();
    let mut groups: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut at = 0;
    for line in without_inner_frames(log) {
        if let Some(pid) = log_prefix(&line) {
            at = facts.group(pid);
        }
        groups.entry(at).or_default().push(facts.normal(&line));
    }
    groups.into_values().flatten().collect()
}

/// The pid in `[2026-11-20 10:51:58 +0000] [2318] [INFO] ...`.
fn log_prefix(line: &str) -> Option<i32> {
    let (time, rest) = line.strip_prefix('[')?.split_once("] [")?;
    let looks_right = time.len() == 25 && time.as_bytes()[4] == b'-';
    rest.split_once("] [")?.0.parse().ok().filter(|_| looks_right)
}

/// Tracebacks without the frames of the servers and of Python: only the user's own are comparable.
fn without_inner_frames(log: &str) -> Vec<String> {
    const HEADER: &str = "Traceback (most recent call last):";
    let mut skipping = false;
    let mut lines: Vec<String> = Vec::new();
    for line in log.lines() {
        let is_frame = line.starts_with("  File \"") && line.contains(", in ");
        if let Some(path) = line.strip_prefix("  File \"").filter(|_| is_frame).and_then(|rest| rest.split('"').next())
        {
            let is_inner = ["/gunicorn/", "/importlib/", "/lib/python", "<frozen", "loader.py", "/multiprocessing/"];
            skipping = is_inner.iter().any(|part| path.contains(part));
        } else if !line.starts_with("    ") {
            skipping = false;
        }
        // Which part of a source line is meant depends on Python's version.
        let is_mark =
            line.starts_with("    ") && line.trim_start().bytes().all(|byte| matches!(byte, b'^' | b'~' | b' '));
        let is_c_stack = is_of_c_stack(line);
        if is_c_stack && lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        // A traceback without a frame of the user's code is not the user's.
        if !skipping && !is_frame && lines.last().is_some_and(|last| last == HEADER) {
            lines.pop();
        }
        if !skipping && !is_mark && !is_c_stack {
            lines.push(line.to_string());
        }
    }
    lines
}

/// Whether faulthandler has written this line below the stacks of Python: from CPython 3.14 on a
/// stack of C (in pieces, so that a line may be split by another process's), and the modules of C.
fn is_of_c_stack(line: &str) -> bool {
    let begins = [
        "Current thread's C stack trace ",
        "  Binary file \"",
        "  <truncated rest of calls>",
        "0x",
        "Extension modules: ",
    ];
    begins.iter().any(|begin| line.starts_with(begin))
}

/// Numbers that stand alone, given to `name` with what stands before and behind them.
fn replace_numbers(line: &str, name: &dyn Fn(&str, &str, &str) -> Option<String>) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if end == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (word, left) = rest.split_at(end);
        let before = &line[..line.len() - rest.len()];
        out += &name(before, word, left).unwrap_or_else(|| word.to_string());
        rest = left;
    }
    out
}

/// Shapes of times, `0` standing for any digit and `a` for any letter, and the word for each.
const TIMES: &[(&str, &str)] = &[
    ("0000-00-00 00:00:00 +0000", "TIME"),
    ("00/aaa/0000:00:00:00 +0000", "TIME"),
    ("aaa, 00 aaa 0000 00:00:00 GMT", "DATE"),
];

fn replace_times(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    'outer: while let Some(c) = rest.chars().next() {
        for (shape, word) in TIMES {
            if has_shape(rest, shape) {
                out += word;
                rest = &rest[shape.len()..];
                continue 'outer;
            }
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

fn has_shape(text: &str, shape: &str) -> bool {
    let fits = |(byte, wanted): (u8, u8)| match wanted {
        b'0' => byte.is_ascii_digit(),
        b'a' => byte.is_ascii_alphabetic(),
        other => byte == other,
    };
    text.len() >= shape.len() && text.bytes().zip(shape.bytes()).all(fits)
}

#[test]
fn a_number_is_a_pid_only_where_pids_are_written() {
    // The numbers of a status, a year, a default and a length.
    for pid in [200, 2026, 2048, 158] {
        let facts = |master, worker| Facts { master, workers: vec![worker], ports: vec![40000], ..Facts::default() };
        for (line, as_master, as_worker) in [
            (
                "[2026-11-20 07:37:16 +0000] [PID] [INFO] Starting",
                "[TIME] [MASTER] [INFO] Starting",
                "[TIME] [WORKER1] [INFO] Starting",
            ),
            (
                "Listening at: http://127.0.0.1:40000 (PID)",
                "Listening at: http://127.0.0.1:PORT1 (MASTER)",
                "Listening at: http://127.0.0.1:PORT1 (WORKER1)",
            ),
            (
                "Worker (pid:PID) exited, pid: PID",
                "Worker (pid:MASTER) exited, pid: MASTER",
                "Worker (pid:WORKER1) exited, pid: WORKER1",
            ),
            ("first: PID", "first: MASTER", "first: WORKER1"),
            ("127.0.0.1|<PID>|", "127.0.0.1|<MASTER>|", "127.0.0.1|<WORKER1>|"),
            ("< HTTP/1.1 200 OK", "< HTTP/1.1 200 OK", "< HTTP/1.1 200 OK"),
            ("< Content-Length: 158", "< Content-Length: 158", "< Content-Length: 158"),
            ("out: backlog = 2048", "out: backlog = 2048", "out: backlog = 2048"),
        ] {
            let line = line.replace("PID", &pid.to_string());
            assert_eq!(facts(pid, 7).normal(&line), as_master, "{line}");
            assert_eq!(facts(7, pid).normal(&line), as_worker, "{line}");
        }
    }
}
