//! The process of a dirty arbiter: gunicorn's own code, which forks the dirty workers.
//!
//! It is forked and supervised by the master, and makes a worker's first steps. Then Python runs
//! it. It has no listener, no row on the scoreboard and no event loop of ours.

use std::fmt::Display;

use super::{become_user, raise_descriptor_limit};
use crate::bootstrap::PythonSetup;
use crate::python::dirty::{self, DirtyTerms};
use crate::python::hooks::Hooks;
use crate::python::signals::{self, Nudge};
use crate::python::{interpreter, title};
use crate::sys::process;
use crate::worker_init::DirtyArbiterInit;

/// gunicorn's -1.
const FAILED: i32 = 255;

/// Lives the life of an arbiter, and returns its exit status.
pub fn run(init: DirtyArbiterInit, python: &PythonSetup) -> i32 {
    title::set(&format!("monoceros: dirty-arbiter [{}]", init.config.name()));
    let status = match boot(&init, python) {
        // Python's handlers take the signals over one by one.
        Ok(_nudge) => dirty::run(&init.hooks, &terms(&init)),
        Err(_) if signals::is_told_to_stop() => 0,
        Err(reason) => {
            log::error!("Exception in dirty arbiter process\n{reason}");
            FAILED
        }
    };
    signals::ignore();
    interpreter::run_exit_functions();
    status
}

fn terms(init: &DirtyArbiterInit) -> DirtyTerms<'_> {
    DirtyTerms { folder: &init.folder, listener: &init.listener, pid_file: &init.pid_file, ppid: init.ppid }
}

/// The steps have a worker's order: what lies where only root reads is imported before the user
/// changes, and the parent is watched after that (prctl(2)).
fn boot(init: &DirtyArbiterInit, python: &PythonSetup) -> Result<Nudge, String> {
    let config = &init.config;
    python.enter(config)?;
    raise_descriptor_limit(config);
    python.start_interpreter().map_err(told)?;
    let nudge = signals::begin_in_worker(&Hooks::default()).map_err(told)?;
    if signals::is_told_to_stop() {
        return Err("told to stop".to_owned());
    }
    python.extend_path(config).map_err(told)?;
    dirty::prepare(&init.hooks).map_err(told)?;
    become_user(config).map_err(|error| error.to_string())?;
    match process::end_with_parent(init.ppid) {
        Ok(true) => Ok(nudge),
        Ok(false) => Err("the master is gone".to_owned()),
        Err(error) => {
            // Only where prctl(2) is forbidden; gunicorn's code looks once a second as well.
            log::debug!("Cannot ask to be told of the master's end: {error}");
            Ok(nudge)
        }
    }
}

fn told(error: impl Display) -> String {
    error.to_string()
}
