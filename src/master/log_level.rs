//! The level of the error log that an operator gives a running server.

use crate::logging::Level;
use crate::python::loggers;

use super::Master;

impl Master {
    /// Gives the error log another level: in the master and in workers forked from now on, and
    /// within a second in those that live. The level holds until a reload brings a generation with
    /// settings of its own.
    pub(super) fn set_log_level(&mut self, level: Level) {
        loggers::set_level(level);
        for generation in self.generations.iter_mut() {
            generation.log_level = Some(level);
        }
        // A level's number is 50 at most.
        self.workers.scoreboard().ask_for_log_level(level.python_number() as u8);
    }
}
