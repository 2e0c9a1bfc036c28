//! What all connections of a worker together hold of scarce goods: memory, room on the disk, file
//! descriptors.
//!
//! Each connection is bounded by itself, but a thousand of them at their bounds are too many.
//! Connections record here what they hold; when that is too much, the event loop ends those that
//! cost most. The module knows no connection.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use crate::settings::Config;
use crate::sys::process;

/// Of the descriptors that the process may have open, one in so many is left to the application,
/// for its files, its database and its own clients.
const RESERVE_PARTS: RawFd = 8;

/// The most descriptors that are left to the application.
const LARGEST_RESERVE: RawFd = 1024;

/// Where room is made, the bound divided by this is made in addition.
const SPARE_PARTS: u64 = 16;

/// The bounds of a worker, and how much of them is in use.
#[derive(Debug)]
pub struct Holdings {
    memory: Stock,
    spool: Stock,
    /// A new descriptor with this number or a higher one belongs to the application's reserve: the
    /// kernel always gives the lowest number that is free.
    reserve: RawFd,
    /// How far the last new descriptor there reached into the reserve, less the descriptors that
    /// clients have closed since.
    in_reserve: AtomicI32,
}

/// What one connection holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes in memory, of heads, bodies and responses.
    pub memory: u64,
    /// Bytes in files, of bodies and responses.
    pub spool: u64,
}

/// One of the goods that are bounded in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Good {
    /// See [`Held::memory`].
    Memory,
    /// See [`Held::spool`].
    Spool,
}

#[derive(Debug)]
struct Stock {
    used: AtomicU64,
    most: u64,
}

impl Stock {
    /// A bound in bytes; 0 is none.
    fn new(most: u64) -> Self {
        Stock { used: AtomicU64::new(0), most: if most == 0 { u64::MAX } else { most } }
    }

    fn replace(&self, old: u64, new: u64) {
        if new >= old {
            self.used.fetch_add(new - old, Relaxed);
        } else {
            self.used.fetch_sub(old - new, Relaxed);
        }
    }

    /// Bytes up to the bound.
    fn room(&self) -> u64 {
        self.most.saturating_sub(self.used.load(Relaxed))
    }

    /// Bytes beyond the bound.
    fn excess(&self) -> u64 {
        self.used.load(Relaxed).saturating_sub(self.most)
    }
}

impl Holdings {
    /// Nothing is held yet, within the bounds that `config` asks for.
    pub fn new(config: &Config) -> Self {
        Holdings {
            memory: Stock::new(config.worker_buffer),
            spool: Stock::new(config.worker_spool),
            reserve: process::descriptor_limit().map_or(RawFd::MAX, |limit| {
                let limit = RawFd::try_from(limit).unwrap_or(RawFd::MAX);
                limit - (limit / RESERVE_PARTS).min(LARGEST_RESERVE)
            }),
            in_reserve: AtomicI32::new(0),
        }
    }

    /// A connection holds `new` in place of `old`.
    pub fn replace(&self, old: Held, new: Held) {
        self.memory.replace(old.memory, new.memory);
        self.spool.replace(old.spool, new.spool);
    }

    /// Whether so much memory is in use that bodies had better go to files.
    pub fn memory_is_short(&self) -> bool {
        self.memory.used.load(Relaxed) > self.memory.most / 2
    }

    /// How many more bytes files may take.
    pub fn spool_room(&self) -> u64 {
        self.spool.room()
    }

    /// Whether there is too much of anything.
    pub fn is_exceeded(&self) -> bool {
        self.memory.excess() > 0 || self.spool.excess() > 0 || self.is_in_reserve()
    }

    /// What there is too much of, and how many bytes should be given back.
    pub fn excess(&self) -> Option<(Good, u64)> {
        let goods = [(Good::Memory, &self.memory), (Good::Spool, &self.spool)];
        goods.into_iter().find_map(|(good, stock)| {
            let excess = stock.excess();
            (excess > 0).then(|| (good, excess + stock.most / SPARE_PARTS))
        })
    }

    /// Takes note of a descriptor that has just been opened for a client; says whether it is in the
    /// application's reserve.
    pub fn note_descriptor(&self, descriptor: &impl AsRawFd) -> bool {
        let depth = descriptor.as_raw_fd().saturating_sub(self.reserve).saturating_add(1);
        if depth > 0 {
            self.in_reserve.store(depth, Relaxed);
        }
        depth > 0
    }

    /// Whether the descriptor still has a number of the application's reserve, though there is room
    /// below by now. It should get a lower number: a number measures how many descriptors are open
    /// only while the lower ones are in use.
    pub fn should_move(&self, descriptor: &impl AsRawFd) -> bool {
        descriptor.as_raw_fd() >= self.reserve && !self.is_in_reserve()
    }

    /// A client's descriptor has been closed.
    pub fn note_closed(&self) {
        // Every connection's end comes here: looking costs less than writing.
        if self.is_in_reserve() {
            self.in_reserve.fetch_sub(1, Relaxed);
        }
    }

    /// Assumes that clients hold no descriptor of the application's reserve.
    pub fn leave_reserve(&self) {
        self.in_reserve.store(0, Relaxed);
    }

    /// Whether clients have come to hold descriptors that should be left to the application.
    pub fn is_in_reserve(&self) -> bool {
        self.in_reserve.load(Relaxed) > 0
    }
}

impl std::ops::Add for Held {
    type Output = Held;

    fn add(self, other: Held) -> Held {
        Held { memory: self.memory + other.memory, spool: self.spool + other.spool }
    }
}

impl Held {
    /// How much of `good` is held.
    pub fn of(self, good: Good) -> u64 {
        match good {
            Good::Memory => self.memory,
            Good::Spool => self.spool,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_told_as_too_much_with_a_bit_to_spare() {
        let config = Config { worker_buffer: 1600, worker_spool: 0, ..Config::default() };
        let holdings = Holdings::new(&config);
        let held = |memory, spool| Held { memory, spool };
        holdings.replace(Held::default(), held(800, 1 << 40));
        assert!(!holdings.memory_is_short());
        assert_eq!(holdings.excess(), None, "the spool has no bound");
        holdings.replace(held(800, 1 << 40), held(1610, 0));
        assert!(holdings.memory_is_short());
        assert_eq!(holdings.excess(), Some((Good::Memory, 110)));
        holdings.replace(held(1610, 0), Held::default());
        assert_eq!(holdings.excess(), None);
    }
}
