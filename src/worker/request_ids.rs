//! The ids of requests (`request_id_header`): taken over from a trusted peer, or made.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::exchange::RequestId;
use crate::http::request::{RequestHead, Span};
use crate::http::request_id::find_id;
use crate::sys::random;

/// The length of an id that is made: 32 hexadecimal digits, as a trace has.
const LENGTH: usize = 32;

/// What is added to the state of splitmix64 at each step: odd, and without a pattern.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Gives requests their ids.
#[derive(Debug)]
pub struct IdSource {
    header: String,
    /// Random: no other worker has the same.
    key: u128,
    made: AtomicU64,
}

/// The id of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignedId {
    /// It came with the request, and stands here in the source of the head.
    Sent(Span),
    /// It was made here.
    Made([u8; LENGTH]),
}

impl IdSource {
    /// For ids in the header of that name.
    pub fn new(header: String) -> Self {
        IdSource { header, key: random::seed(), made: AtomicU64::new(0) }
    }

    /// The id of a request: the one that it came with, if its peer is trusted, else a new one.
    pub fn of(&self, head: &RequestHead, source: &[u8], peer_is_trusted: bool) -> AssignedId {
        let sent = if peer_is_trusted { find_id(head, source, &self.header) } else { None };
        sent.map_or_else(|| AssignedId::Made(self.make()), AssignedId::Sent)
    }

    /// `id` as it is shown with its request; `source` is that of the request's head.
    pub fn named<'a>(&'a self, id: &'a AssignedId, source: &'a [u8]) -> RequestId<'a> {
        let value = match id {
            AssignedId::Sent(span) => span.of(source),
            AssignedId::Made(digits) => digits,
        };
        RequestId { header: &self.header, value, is_made: matches!(id, AssignedId::Made(_)) }
    }

    /// A new id. Its halves are two sequences of splitmix64, which have no number twice; each
    /// worker begins them elsewhere.
    fn make(&self) -> [u8; LENGTH] {
        let count = self.made.fetch_add(1, Relaxed);
        let (high, low) = ((self.key >> 64) as u64, self.key as u64);
        let halves = [mix(high.wrapping_add(count.wrapping_mul(STEP))), mix(!low ^ count.wrapping_mul(STEP))];
        let mut digits = [0; LENGTH];
        for (place, digit) in digits.iter_mut().enumerate() {
            let (half, shift) = (halves[place / 16], 60 - 4 * (place % 16));
            *digit = b"0123456789abcdef"[(half >> shift) as usize & 15];
        }
        digits
    }
}

/// The output of splitmix64, which is a bijection.
fn mix(state: u64) -> u64 {
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_of_two_workers_are_all_different_and_hexadecimal() {
        let workers = [(); 2].map(|()| IdSource::new("X-Request-ID".to_owned()));
        let ids: HashSet<[u8; LENGTH]> = workers.iter().flat_map(|worker| (0..1000).map(|_| worker.make())).collect();
        assert_eq!(ids.len(), 2000);
        assert!(ids.iter().flatten().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
        let halves: HashSet<&[u8]> = ids.iter().flat_map(|id| id.chunks(LENGTH / 2)).collect();
        assert_eq!(halves.len(), 4000);
    }
}
