//! gunicorn and monoceros side by side: the same command lines, environments, config files,
//! requests and signals, and the same visible results: exit status, stdout, error log, files,
//! titles, and responses byte for byte.
//!
//! The cases are data (`data/differential/*.cases`; `case.rs` tells their language). Where a case
//! differs, and should, it names the anchors of `docs/differences.md` that say so, with the lines
//! that differ: a differing line that is not allowed fails the test, and so does an allowance that
//! no line needs. `DIFFERENTIAL=words cargo test --test tests differential` plays only the cases
//! with these words in their title, and shows both transcripts.

mod case;
mod normal;
mod play;
mod verdict;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::util::root;
use case::{Case, Pair};
use play::{Player, Side};

/// How many cases run at a time. They usually wait.
const AT_ONCE: usize = 4;

/// The most jobs that are played again.
const MOST_ACCIDENTS: usize = 4;

/// The least number of cases.
const AT_LEAST: usize = 280;

#[test]
fn everything_an_operator_sees_is_gunicorns_or_a_difference_that_is_written_down() {
    let wanted = std::env::var("DIFFERENTIAL").ok();
    let cases = case::read_all(&root().join("tests/data/differential"));
    let count = cases.iter().filter(|case| !matches!(case.pair, Pair::Starts(_))).count();
    let known = fs::read_to_string(root().join("docs/differences.md")).expect("the list of differences");
    let jobs = jobs(&cases, wanted.as_deref());
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = play(job, &known, wanted.is_some());
                    if !report.is_empty() {
                        reports.lock().expect("no panic holds it").push((job, report));
                    }
                }
            });
        }
    });
    let reports = once_more(reports.into_inner().expect("no panic held it"), &known);
    assert!(reports.is_empty(), "{} of {count} cases:\n\n{}", reports.len(), reports.join("\n\n"));
    assert!(count >= AT_LEAST, "only {count} cases");
}

/// Both servers are many processes, and on a busy machine one may be late where the other is not. A
/// case that differs is played again, alone; what it shows then counts. Many that differ are no
/// accident.
fn once_more(differing: Vec<(&Job<'_>, Vec<String>)>, known: &str) -> Vec<String> {
    if differing.len() > MOST_ACCIDENTS {
        return differing.into_iter().flat_map(|(_, reports)| reports).collect();
    }
    let again = differing.into_iter().flat_map(|(job, reports)| {
        eprintln!("played again:\n{}", reports.join("\n"));
        play(job, known, false)
    });
    again.collect()
}

/// A unit of work: a case, or a pair of servers with the cases that share it.
type Job<'a> = Vec<&'a Case>;

fn jobs<'a>(cases: &'a [Case], wanted: Option<&str>) -> Vec<Job<'a>> {
    let mut shared: BTreeMap<&str, Job<'a>> = BTreeMap::new();
    let mut jobs = Vec::new();
    for case in cases {
        let is_wanted = wanted.is_none_or(|words| case.title.contains(words));
        match &case.pair {
            Pair::Own if is_wanted => jobs.push(vec![case]),
            Pair::Own => {}
            Pair::Starts(name) => drop(shared.insert(name, vec![case])),
            Pair::Uses(name) => {
                let pair = shared.get_mut(name.as_str()).unwrap_or_else(|| panic!("{}: no pair {name}", case.title));
                pair.extend(is_wanted.then_some(case));
            }
        }
    }
    // The long ones first, so that they do not run alone at the end.
    shared.into_values().filter(|job| job.len() > 1).chain(jobs).collect()
}

/// The reports of the cases that fail.
fn play(job: &[&Case], known: &str, is_verbose: bool) -> Vec<String> {
    let (gunicorn, ours) = thread::scope(|scope| {
        let gunicorn = scope.spawn(|| transcripts(job, Side::Gunicorn));
        let ours = transcripts(job, Side::Ours);
        (gunicorn.join().expect("gunicorn's player does not panic"), ours)
    });
    let judged = job.iter().zip(gunicorn.iter().zip(&ours));
    judged.filter_map(|(case, (gunicorn, ours))| report(case, gunicorn, ours, known, is_verbose)).collect()
}

/// What one of the servers shows in each case of a job.
fn transcripts(job: &[&Case], side: Side) -> Vec<Vec<String>> {
    let mut player = Player::new(side);
    let mut transcripts: Vec<_> = job.iter().map(|case| player.play(&case.steps)).collect();
    // What the server says at its end belongs to the case that started it.
    transcripts[0].extend(player.end());
    transcripts
}

fn report(case: &Case, gunicorn: &[String], ours: &[String], known: &str, is_verbose: bool) -> Option<String> {
    let faults = verdict::faults(gunicorn, ours, &case.filter, &case.differs, known);
    if is_verbose {
        eprintln!("== {}\n-- gunicorn\n{}\n-- ours\n{}\n", case.title, gunicorn.join("\n"), ours.join("\n"));
    }
    (!faults.is_empty()).then(|| format!("{}\n  {}", case.title, faults.join("\n  ")))
}
