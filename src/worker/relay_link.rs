//! What a connection and the relay that has its TLS session tell each other.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// The link of one connection to its relay.
pub struct RelayLink {
    is_broken_off: AtomicBool,
    /// The connection has ended its side, or the client has everything.
    has_ended: AtomicBool,
    /// The client has everything, or is gone.
    is_over: AtomicBool,
    /// How many relays the worker waits for before it ends.
    awaited: Arc<AtomicUsize>,
}

impl RelayLink {
    /// The link of a relay that counts among those that are `awaited`, from the end of its
    /// connection on.
    pub fn new(awaited: &Arc<AtomicUsize>) -> RelayLink {
        RelayLink {
            is_broken_off: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            awaited: awaited.clone(),
        }
    }

    /// For the connection: its response stays incomplete.
    pub fn break_off(&self) {
        self.is_broken_off.store(true, Release);
    }

    /// For the relay: whether the end is not to be announced to the client.
    pub fn is_broken_off(&self) -> bool {
        self.is_broken_off.load(Acquire)
    }

    /// For the connection, which ends its side: has the worker wait until the client has
    /// everything.
    pub fn wait_for_client(&self) {
        if !self.has_ended.swap(true, Relaxed) {
            self.awaited.fetch_add(1, Relaxed);
        }
    }

    /// For the relay: the client has everything, or is gone.
    pub fn end(&self) {
        if !self.is_over.swap(true, Relaxed) && self.has_ended.swap(true, Relaxed) {
            self.awaited.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_awaited_from_the_end_of_its_connection_to_its_own() {
        let awaited = Arc::default();
        let link = RelayLink::new(&awaited);
        assert_eq!(awaited.load(Relaxed), 0);
        for _ in 0..2 {
            link.wait_for_client();
            assert_eq!(awaited.load(Relaxed), 1);
        }
        for _ in 0..2 {
            link.end();
            assert_eq!(awaited.load(Relaxed), 0);
        }
        let link = RelayLink::new(&awaited);
        link.end();
        link.wait_for_client();
        assert_eq!(awaited.load(Relaxed), 0, "the relay was over first");
    }
}
