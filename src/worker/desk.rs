//! What connections read with: one for all of a worker's, at which they take turns. Knows none of them.

use std::ops::Range;

use super::body_store::BodyStore;
use crate::http::blocks::KnownBlocks;

/// What is read from a socket at once.
const READ_SIZE: usize = 64 * 1024;

/// Most buffers that are kept for reading besides the one in use.
const MOST_SPARES: usize = 16;

/// A place to read to, and what is known from earlier reading. One policy must hold for all who use it.
pub struct Desk {
    /// Where a read puts its bytes; they mean nothing after the turn.
    pub scratch: Vec<u8>,
    /// The header blocks of earlier requests.
    pub known: KnownBlocks,
    /// What can take the place of `scratch` while that is with a request.
    spares: Vec<Vec<u8>>,
    /// How many spares have been made lately.
    made: usize,
}

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
        Desk { scratch: vec![0; READ_SIZE], known: KnownBlocks::new(), spares: Vec::new(), made: 0 }
    }

    /// A body that has been read whole and stands in the scratch at `range`: with the buffer itself where another can take its place, else
    /// as a copy. Who has the buffer gives it [back](Desk::take_back).
    pub fn take_body(&mut self, range: Range<usize>) -> BodyStore {
        match self.spares.pop() {
            Some(spare) => BodyStore::Whole(std::mem::replace(&mut self.scratch, spare), range),
            None => {
                if self.made < MOST_SPARES {
                    self.made += 1;
                    self.spares.push(vec![0; READ_SIZE]);
                }
                BodyStore::Memory(self.scratch[range].to_vec())
            }
        }
    }

    /// Takes back a buffer. One that it has not given away is of no use here.
    pub fn take_back(&mut self, buffer: Vec<u8>) {
        if buffer.len() == READ_SIZE && self.spares.len() < MOST_SPARES {
            self.spares.push(buffer);
        }
    }

    /// Makes good for buffers that do not come back, because their connections ended. To be called now and then.
    pub fn replenish(&mut self) {
        self.made = self.spares.len();
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
    fn a_body_keeps_its_buffer_as_long_as_others_are_at_hand() {
        let mut desk = Desk::new();
        assert!(is_copy(&desk.take_body(0..10)), "there is no other buffer yet");
        desk.scratch[7] = b'x';
        let body = desk.take_body(5..10);
        assert!(!is_copy(&body));
        assert_eq!(body.in_memory(), Some(&b"\0\0x\0\0"[..]));
        assert_eq!((desk.scratch.len(), desk.scratch[7]), (READ_SIZE, 0));
        let BodyStore::Whole(buffer, _) = body else { unreachable!("it is no copy") };
        desk.take_back(buffer);
        assert!(!is_copy(&desk.take_body(0..10)));
    }

    #[test]
    fn buffers_are_bounded_and_lost_ones_are_replaced() {
        let mut desk = Desk::new();
        let given: Vec<BodyStore> = (0..100).map(|_| desk.take_body(0..10)).filter(|body| !is_copy(body)).collect();
        assert_eq!(given.len(), MOST_SPARES);
        drop(given);
        assert!(is_copy(&desk.take_body(0..10)));
        desk.replenish();
        assert!(is_copy(&desk.take_body(0..10)), "there is one again now");
        assert!(!is_copy(&desk.take_body(0..10)));
        (0..100).for_each(|_| desk.take_back(vec![0; READ_SIZE]));
        assert_eq!(desk.spares.len(), MOST_SPARES);
        desk.take_back(vec![0; 10]);
    }
}
