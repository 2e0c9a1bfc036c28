//! What connections read with: one for all of a worker's, at which they take turns. Knows none of them.

use std::ops::Range;
use std::sync::Arc;

use super::body_store::BodyStore;
use crate::http::blocks::KnownBlocks;

/// What is read from a socket at once.
pub const READ_SIZE: usize = 64 * 1024;

/// Most buffers that bodies keep while they wait for the application, and most that wait to be read to.
const MOST_KEPT: usize = 16;

/// A place to read to, and what is known from earlier reading. One policy must hold for all who use it.
pub struct Desk {
    /// Where a read puts its bytes; they mean nothing after the turn.
    pub scratch: Vec<u8>,
    /// The header blocks of earlier requests.
    pub known: KnownBlocks,
    /// What can take the place of `scratch` while that is with a request.
    spares: Vec<Vec<u8>>,
    /// Each body that keeps a buffer has one.
    lease: Lease,
}

/// Counts those who have one.
pub type Lease = Arc<()>;

/// Bytes that have just arrived.
pub enum Arrival<'a> {
    /// From somewhere.
    Bytes(&'a [u8]),
    /// Read at a desk, to this range of its scratch.
    AtDesk(&'a mut Desk, Range<usize>),
}

impl Arrival<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Arrival::Bytes(bytes) => bytes,
            Arrival::AtDesk(desk, range) => &desk.scratch[range.clone()],
        }
    }

    /// The header blocks that are known where they have arrived.
    pub fn known(&mut self) -> Option<&mut KnownBlocks> {
        match self {
            Arrival::Bytes(_) => None,
            Arrival::AtDesk(desk, _) => Some(&mut desk.known),
        }
    }

    /// The same without its first `count` bytes; it has so many.
    pub fn behind(self, count: usize) -> Self {
        match self {
            Arrival::Bytes(bytes) => Arrival::Bytes(&bytes[count..]),
            Arrival::AtDesk(desk, range) => Arrival::AtDesk(desk, range.start + count..range.end),
        }
    }
}

impl Desk {
    /// An empty one.
    pub fn new() -> Self {
        Desk { scratch: vec![0; READ_SIZE], known: KnownBlocks::new(), spares: Vec::new(), lease: Lease::default() }
    }

    /// A body that has been read whole and stands in the scratch at `range`: with the buffer itself, if not too many are kept by others,
    /// else as a copy. Who has the buffer in the end gives it [back](Desk::take_back).
    pub fn take_body(&mut self, range: Range<usize>) -> BodyStore {
        if Lease::strong_count(&self.lease) > MOST_KEPT {
            return BodyStore::Memory(self.scratch[range].to_vec());
        }
        let next = self.spares.pop().unwrap_or_else(|| vec![0; READ_SIZE]);
        BodyStore::Whole(std::mem::replace(&mut self.scratch, next), range, self.lease.clone())
    }

    /// Takes back a buffer. One that it has not given away is of no use here.
    pub fn take_back(&mut self, buffer: Vec<u8>) {
        if buffer.len() == READ_SIZE && buffer.capacity() == READ_SIZE && self.spares.len() < MOST_KEPT {
            self.spares.push(buffer);
        }
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_copy(body: &BodyStore) -> bool {
        matches!(body, BodyStore::Memory(_))
    }

    #[test]
    fn a_body_keeps_its_buffer_and_the_next_is_read_to_another() {
        let mut desk = Desk::new();
        desk.scratch[7] = b'x';
        let body = desk.take_body(5..10);
        assert_eq!(body.in_memory(), Some(&b"\0\0x\0\0"[..]));
        assert_eq!((desk.scratch.len(), desk.scratch[7]), (READ_SIZE, 0));
        let BodyStore::Whole(buffer, ..) = body else { panic!("it is a copy") };
        desk.take_back(buffer);
        assert!(!is_copy(&desk.take_body(0..10)));
        assert_eq!(desk.scratch[7], b'x', "it is read to again");
    }

    #[test]
    fn buffers_are_bounded() {
        let mut desk = Desk::new();
        let waiting: Vec<BodyStore> = (0..100).map(|_| desk.take_body(0..10)).collect();
        assert_eq!(waiting.iter().filter(|body| !is_copy(body)).count(), MOST_KEPT);
        drop(waiting);
        assert!(!is_copy(&desk.take_body(0..10)), "those are gone");
        (0..100).for_each(|_| desk.take_back(vec![0; READ_SIZE]));
        assert_eq!(desk.spares.len(), MOST_KEPT);
        desk.spares.clear();
        desk.take_back(vec![0; 10]);
        let mut large = Vec::with_capacity(2 * READ_SIZE);
        large.resize(READ_SIZE, 0);
        desk.take_back(large);
        assert!(desk.spares.is_empty());
    }
}
