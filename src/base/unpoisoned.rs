//! Locks that outlive a panic.
//!
//! What a lock of this server guards is whole after each statement, so a panic leaves nothing half
//! done: whoever comes next goes on.

use std::sync::{LockResult, PoisonError};

/// What locking and waiting return, whatever a panic has left behind.
pub trait Unpoisoned {
    /// The guard.
    type Guard;

    /// The guard, also of a lock that a panicking thread has held.
    fn unpoisoned(self) -> Self::Guard;
}

impl<G> Unpoisoned for LockResult<G> {
    type Guard = G;

    fn unpoisoned(self) -> G {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}
