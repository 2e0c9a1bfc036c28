//! Records that go elsewhere: to Python's logging, where the operator has configured that.
//!
//! This floor only knows that somebody takes them. Whoever does must not block for long, nor wait
//! for a lock that a thread may hold while it logs.

use std::sync::{Arc, PoisonError, RwLock};

/// Takes a record: its level as Python's `logging` numbers it, and its text.
pub type LogRedirect = Arc<dyn Fn(u32, &str) + Send + Sync>;

/// Locked only to copy or to exchange the pointer.
static CURRENT: RwLock<Option<LogRedirect>> = RwLock::new(None);

/// From now on records of the error log go to `taker`; `None` brings them back to the log's own
/// target.
pub fn redirect(taker: Option<LogRedirect>) {
    let replaced = std::mem::replace(&mut *CURRENT.write().unwrap_or_else(PoisonError::into_inner), taker);
    // What it holds is let go with the lock open.
    drop(replaced);
}

/// Who takes the records now.
pub(super) fn current() -> Option<LogRedirect> {
    CURRENT.read().unwrap_or_else(PoisonError::into_inner).clone()
}
