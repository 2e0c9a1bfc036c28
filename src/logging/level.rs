//! The levels of Python's `logging`, which are those of the error log. The crate `log` lacks one of
//! them: a critical record is one of its errors with the target [`CRITICAL`].

use log::{LevelFilter, Record};

use super::CRITICAL;

/// How severe a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Details, for finding a fault.
    Debug,
    /// What happens in ordinary operation.
    Info,
    /// What an operator should look at.
    Warning,
    /// What has failed.
    Error,
    /// What keeps the server or a worker from serving.
    Critical,
}

impl Level {
    /// The level that a setting names, in any case; info for every other text, as in gunicorn.
    pub(super) fn named(name: &str) -> Level {
        Level::find(name).unwrap_or(Level::Info)
    }

    /// The level of this name, in any case.
    pub fn find(name: &str) -> Option<Level> {
        match name.to_ascii_lowercase().as_str() {
            "debug" => Some(Level::Debug),
            "info" => Some(Level::Info),
            "warning" => Some(Level::Warning),
            "error" => Some(Level::Error),
            "critical" => Some(Level::Critical),
            _ => None,
        }
    }

    /// The level for a number of Python's `logging`, which may lie between two of the standard
    /// ones: the lower one.
    pub fn from_python(number: u32) -> Level {
        match number {
            50.. => Level::Critical,
            40.. => Level::Error,
            30.. => Level::Warning,
            20.. => Level::Info,
            _ => Level::Debug,
        }
    }

    /// Its number in Python's `logging`.
    pub fn python_number(self) -> u32 {
        match self {
            Level::Debug => 10,
            Level::Info => 20,
            Level::Warning => 30,
            Level::Error => 40,
            Level::Critical => 50,
        }
    }

    /// Its name in Python's `logging`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
            Level::Critical => "CRITICAL",
        }
    }

    /// The level of a record.
    pub(super) fn of(record: &Record<'_>) -> Level {
        match record.level() {
            log::Level::Error if record.target() == CRITICAL => Level::Critical,
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warning,
            log::Level::Info => Level::Info,
            log::Level::Debug | log::Level::Trace => Level::Debug,
        }
    }

    /// The level of the crate `log` that stands for this level.
    pub(super) fn in_log(self) -> log::Level {
        match self {
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warning => log::Level::Warn,
            Level::Error | Level::Critical => log::Level::Error,
        }
    }

    /// The filter of the crate `log` that lets this level pass.
    pub(super) fn filter(self) -> LevelFilter {
        self.in_log().to_level_filter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Level; 5] = [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical];

    #[test]
    fn every_level_is_found_again_by_its_name_and_its_number() {
        for level in ALL {
            assert_eq!(Level::named(level.name()), level);
            assert_eq!(Level::from_python(level.python_number()), level);
        }
    }

    #[test]
    fn an_unknown_name_is_info_and_a_number_between_two_levels_the_lower_one() {
        assert_eq!(Level::named("verbose"), Level::Info);
        for (number, level) in [(0, Level::Debug), (25, Level::Info), (39, Level::Warning), (60, Level::Critical)] {
            assert_eq!(Level::from_python(number), level);
        }
    }

    #[test]
    fn levels_are_ordered_by_severity() {
        assert!(ALL.is_sorted());
    }
}
