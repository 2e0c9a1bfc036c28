//! What connections read with. All connections of a worker use one context in turn. The module
//! knows no connection.

use std::ops::Range;
use std::sync::Arc;

use super::body_store::BodyStore;
use crate::http::header_cache::HeaderCache;

/// What is read from a socket at once.
const READ_SIZE: usize = 64 * 1024;

/// Most buffers that bodies keep while they wait for the application, and most free buffers.
const MOST_KEPT: usize = 16;

/// A buffer to read to, and the header blocks that are known. One policy must hold for all
/// connections that use it.
pub struct ReadContext {
    /// Where a read puts its bytes; they mean nothing after the turn.
    pub scratch: Vec<u8>,
    /// The header blocks of earlier requests.
    pub known: HeaderCache,
    /// Buffers that take the place of `scratch` when a body keeps it.
    free_buffers: Vec<Vec<u8>>,
    /// Each body that keeps a buffer holds a clone.
    permit: BufferPermit,
}

/// Counts the bodies that keep a buffer.
pub type BufferPermit = Arc<()>;

/// Bytes that have just arrived.
pub enum Incoming<'a> {
    /// In memory of the caller's.
    Bytes(&'a [u8]),
    /// Read to this range of the context's scratch.
    InScratch(&'a mut ReadContext, Range<usize>),
}

impl Incoming<'_> {
    /// The bytes, and the known header blocks if the bytes are in the scratch.
    pub fn parts(&mut self) -> (&[u8], Option<&mut HeaderCache>) {
        match self {
            Incoming::Bytes(bytes) => (bytes, None),
            Incoming::InScratch(read_context, range) => {
                (&read_context.scratch[range.clone()], Some(&mut read_context.known))
            }
        }
    }

    /// The last `count` bytes, as a body that has come whole. There must be that many.
    pub fn into_body(self, count: usize) -> BodyStore {
        match self {
            Incoming::Bytes(bytes) => BodyStore::Memory(bytes[bytes.len() - count..].to_vec()),
            Incoming::InScratch(read_context, range) => read_context.take_body(range.end - count..range.end),
        }
    }
}

impl ReadContext {
    /// An empty one.
    pub fn new() -> Self {
        ReadContext {
            scratch: vec![0; READ_SIZE],
            known: HeaderCache::new(),
            free_buffers: Vec::new(),
            permit: BufferPermit::default(),
        }
    }

    /// A body that has been read whole and stands in the scratch at `range`. It takes the buffer
    /// along unless other bodies keep too many; then it is a copy. Whoever has the buffer in the
    /// end returns it by [`ReadContext::return_buffer`].
    pub fn take_body(&mut self, range: Range<usize>) -> BodyStore {
        if BufferPermit::strong_count(&self.permit) > MOST_KEPT {
            return BodyStore::Memory(self.scratch[range].to_vec());
        }
        let next = self.free_buffers.pop().unwrap_or_else(|| vec![0; READ_SIZE]);
        BodyStore::Whole(std::mem::replace(&mut self.scratch, next), range, self.permit.clone())
    }

    /// Takes back a buffer. A buffer of another size is of no use here.
    pub fn return_buffer(&mut self, buffer: Vec<u8>) {
        if buffer.len() == READ_SIZE && buffer.capacity() == READ_SIZE && self.free_buffers.len() < MOST_KEPT {
            self.free_buffers.push(buffer);
        }
    }
}

impl Default for ReadContext {
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
        let mut read_context = ReadContext::new();
        read_context.scratch[7] = b'x';
        let body = read_context.take_body(5..10);
        assert_eq!(body.in_memory(), Some(&b"\0\0x\0\0"[..]));
        assert_eq!((read_context.scratch.len(), read_context.scratch[7]), (READ_SIZE, 0));
        let BodyStore::Whole(buffer, ..) = body else { panic!("it is a copy") };
        read_context.return_buffer(buffer);
        assert!(!is_copy(&read_context.take_body(0..10)));
        assert_eq!(read_context.scratch[7], b'x', "it is read to again");
    }

    #[test]
    fn buffers_are_bounded() {
        let mut read_context = ReadContext::new();
        let waiting: Vec<BodyStore> = (0..100).map(|_| read_context.take_body(0..10)).collect();
        assert_eq!(waiting.iter().filter(|body| !is_copy(body)).count(), MOST_KEPT);
        drop(waiting);
        assert!(!is_copy(&read_context.take_body(0..10)), "those are gone");
        (0..100).for_each(|_| read_context.return_buffer(vec![0; READ_SIZE]));
        assert_eq!(read_context.free_buffers.len(), MOST_KEPT);
        read_context.free_buffers.clear();
        read_context.return_buffer(vec![0; 10]);
        let mut large = Vec::with_capacity(2 * READ_SIZE);
        large.resize(READ_SIZE, 0);
        read_context.return_buffer(large);
        assert!(read_context.free_buffers.is_empty());
    }
}
