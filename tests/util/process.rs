//! Processes as the kernel shows them in /proc: children, memory, and which test they belong to.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// The live children of a process: zombies are not among them.
pub fn children(parent: i32) -> Vec<i32> {
    let mut found: Vec<i32> =
        all().filter(|&pid| stat(pid).is_some_and(|(state, ppid)| ppid == parent && state != 'Z')).collect();
    found.sort_unstable();
    found
}

/// All children of a process, zombies too.
pub fn all_children(parent: i32) -> Vec<i32> {
    all().filter(|&pid| stat(pid).is_some_and(|(_, ppid)| ppid == parent)).collect()
}

/// User and system time of a process so far, in ticks: a hundred a second (fields 14 and 15 of
/// proc(5) stat).
pub fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a command") + 2..].split(' ').collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

/// How often a process has gone to sleep and been woken, in all its threads (proc(5) status).
pub fn wake_ups(pid: i32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives").flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .filter_map(|text| {
            text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        })
        .sum()
}

/// The process that has started this one, or has taken it over.
pub fn parent(pid: i32) -> i32 {
    stat(pid).expect("the process lives").1
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Whether a process has been stopped (SIGSTOP).
pub fn is_stopped(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'T')
}

/// Whether the main thread of the process waits for something.
pub fn is_asleep(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'S')
}

/// The live processes that carry `marker` in their environment or hold a file inside `folder` open.
/// Neither alone is enough: a process title may overwrite the environment, and a daemon closes what
/// it inherited. A copy of the test itself that is just about to become another program has the
/// test's files open, and does not count yet.
pub fn belonging_to(marker: &str, folder: &Path) -> Vec<i32> {
    let program = |pid| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = program(std::process::id() as i32);
    all().filter(|&pid| is_alive(pid) && program(pid) != own && (carries(pid, marker) || holds(pid, folder))).collect()
}

/// The proportional set size, in bytes (`Pss` of proc(5) smaps_rollup).
pub fn pss(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process lives");
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).expect("smaps_rollup has Pss");
    let kilobytes: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kilobytes * 1024
}

/// The memory that is a process's alone and of no file, in bytes: unlike the PSS it does not change
/// with the processes that come and go beside it.
pub fn anonymous(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("status has RssAnon");
    let kilobytes: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kilobytes * 1024
}

/// The most memory, as [`anonymous`] counts it, that a process has had while `action` ran.
pub fn peak_during(pid: i32, action: impl FnOnce()) -> u64 {
    let (highest, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                highest.fetch_max(anonymous(pid), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        let _end = SetOnDrop(&is_over);
        action();
    });
    highest.into_inner()
}

/// Ends the threads of a scope, also when the test fails within it.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The processor time that a process has used, in user and system mode. The clock counts
/// nanoseconds, where /proc/PID/stat has whole ticks, and charges each to whoever runs at its end.
pub fn cpu_time(pid: i32) -> Duration {
    let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(pid)).expect("the process lives");
    nix::time::clock_gettime(clock).expect("the process lives").into()
}

/// How often a process has written to anything (`syscw` of proc(5) io).
pub fn written(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).expect("the process lives, and is ours");
    let line = text.lines().find_map(|line| line.strip_prefix("syscw: ")).expect("io has syscw");
    line.parse().expect("a number")
}

/// How many files a process has open.
pub fn open_files(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count())
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// State and parent of a process. The command name may hold anything, so the fields count from its
/// last `)`.
fn stat(pid: i32) -> Option<(char, i32)> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn carries(pid: i32, marker: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    memchr::memmem::find(&environment, marker.as_bytes()).is_some()
}

fn holds(pid: i32, folder: &Path) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.starts_with(folder)))
}
