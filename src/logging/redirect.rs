//! Redirects records to Python's logging, where the operator has configured it.
//!
//! This layer only knows a function that takes the records. The function must not block for long,
//! nor wait for a lock that a thread may hold while it logs.

use std::sync::{Arc, RwLock};

use super::Level;
use crate::base::unpoisoned::Unpoisoned;

/// Takes a record: its level and its text.
pub type LogRedirect = Arc<dyn Fn(Level, &str) + Send + Sync>;

/// The lock is held only to copy or to exchange the pointer.
static CURRENT: RwLock<Option<LogRedirect>> = RwLock::new(None);

/// Passes records of the error log to `taker` from now on; with `None` they go to the log's own
/// target again.
pub fn redirect(taker: Option<LogRedirect>) {
    let replaced = std::mem::replace(&mut *CURRENT.write().unpoisoned(), taker);
    // Dropped after the lock was released: its destructor may log.
    drop(replaced);
}

/// The function that takes the records, if any.
pub(super) fn current() -> Option<LogRedirect> {
    CURRENT.read().unpoisoned().clone()
}
