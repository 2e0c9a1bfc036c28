//! What may differ between any two runs, taken out of a transcript: pids, ports, times, folders, the servers' names.

use std::collections::BTreeMap;

/// What is known of a run.
#[derive(Debug, Default, Clone)]
pub struct Facts {
    pub master: i32,
    /// In the order in which they booted.
    pub workers: Vec<i32>,
    pub ports: Vec<u16>,
    /// Text, and the word that stands for it; the first one that fits counts.
    pub words: Vec<(String, String)>,
}

impl Facts {
    /// A line without what is only this run's.
    pub fn normal(&self, line: &str) -> String {
        let mut line = line.trim_end().to_string();
        for (text, word) in &self.words {
            line = line.replace(text, word);
        }
        let line = replace_numbers(&line, &|number| self.number(number));
        let line = replace_times(&line);
        let line = line.replace("gunicorn", "SERVER").replace("monoceros", "SERVER");
        line.replace("27.0.1", "VERSION").replace(env!("CARGO_PKG_VERSION"), "VERSION")
    }

    fn number(&self, text: &str) -> Option<String> {
        let number: i32 = text.parse().ok()?;
        if number == self.master {
            return Some("MASTER".into());
        }
        if let Some(at) = self.workers.iter().position(|worker| *worker == number) {
            return Some(format!("WORKER{}", at + 1));
        }
        self.ports.iter().position(|port| i32::from(*port) == number).map(|at| format!("PORT{}", at + 1))
    }
}

/// The error log, process by process: what each wrote is in order, what two of them wrote at the same time is not.
/// A line without a prefix (a traceback's) belongs to the one before it.
pub fn by_process(log: &str, facts: &Facts) -> Vec<String> {
    let mut groups: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut pids = vec![0, facts.master];
    pids.extend(&facts.workers);
    let mut at = 0;
    for line in without_inner_frames(log) {
        if let Some(pid) = log_prefix(&line) {
            at = pids.iter().position(|known| *known == pid).unwrap_or_else(|| {
                pids.push(pid);
                pids.len() - 1
            });
        }
        let mut text = facts.normal(&line);
        if at >= facts.workers.len() + 2 {
            text = text.replace(&pids[at].to_string(), &format!("OTHER{}", at - facts.workers.len() - 1));
        }
        groups.entry(at).or_default().push(text);
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
        // What no frame of the user's stands below is no traceback of theirs.
        if !skipping && !is_frame && lines.last().is_some_and(|last| last == HEADER) {
            lines.pop();
        }
        if !skipping && !is_mark {
            lines.push(line.to_string());
        }
    }
    lines
}

/// Numbers that stand alone, given to `name`.
fn replace_numbers(line: &str, name: &dyn Fn(&str) -> Option<String>) -> String {
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
        out += &name(word).unwrap_or_else(|| word.to_string());
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
