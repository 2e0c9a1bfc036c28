//! What connections read with: one for all of a worker's, at which they take turns. Knows none of them.

use crate::http::blocks::KnownBlocks;

/// What is read from a socket at once.
const READ_SIZE: usize = 64 * 1024;

/// A place to read to, and what is known from earlier reading. One policy must hold for all who use it.
pub struct Desk {
    /// Where a read puts its bytes; they mean nothing after the turn.
    pub scratch: Vec<u8>,
    /// The header blocks of earlier requests.
    pub known: KnownBlocks,
}

impl Desk {
    /// An empty one.
    pub fn new() -> Self {
        Desk { scratch: vec![0; READ_SIZE], known: KnownBlocks::new() }
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}
