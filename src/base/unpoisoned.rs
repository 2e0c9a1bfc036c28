//! Locks that outlive a panic.
//!
//! The state behind each lock of this server is whole after each statement, so a panic leaves
//! nothing half done: the next thread can go on.

use std::sync::{LockResult, PoisonError};

/// The results of locking and of waiting, without regard to panics.
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
