//! Header blocks that have been read before.
//!
//! A client sends the same headers with every request on its connection, often to the last byte,
//! and so do many clients of one kind. The lines between request line and body then equal those of
//! an earlier request, and a comparison replaces parsing. A caller can keep what it derives from a
//! block under the block's id ([`CachedBlockId`]). Only valid blocks are kept, each with the
//! circumstances it was valid under (`CacheKey`). The cache knows nothing of request lines, nor of
//! what happens to a request.

use super::request::{Framing, HeaderSpan, RequestHead, Scheme, Span, Version};

/// Most blocks that are kept; a new one replaces the oldest.
pub const MOST_BLOCKS: usize = 64;

/// Longer blocks are not kept: reading them costs little beside the rest of their requests.
const LONGEST_BLOCK: usize = 2048;

/// The blocks read so far. One policy must hold for all of them.
#[derive(Debug, Default)]
pub struct HeaderCache {
    blocks: Vec<CachedBlock>,
    /// The place of the oldest block, once all places are taken.
    oldest: usize,
    /// The place of the block that was last seen.
    latest: usize,
    learned: u64,
}

/// Names a block. Two requests have equal ids only if their blocks are equal, byte for byte, and
/// mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedBlockId {
    place: usize,
    /// The number of this insertion, from 1. It is never used again.
    number: u64,
}

impl CachedBlockId {
    /// The block's place in the cache, below [`MOST_BLOCKS`].
    pub fn place(self) -> usize {
        self.place
    }
}

/// What a block depends on besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CacheKey {
    pub(super) version: Version,
    pub(super) peer_is_trusted: bool,
}

/// A valid block and what it says.
#[derive(Debug, Default)]
struct CachedBlock {
    /// From the first header line to the empty line, which is included.
    bytes: Vec<u8>,
    circumstances: CacheKey,
    number: u64,
    headers: Vec<HeaderSpan>,
    framing: Framing,
    expect_continue: bool,
    keep_alive: bool,
    forwarded_scheme: Option<Scheme>,
}

impl HeaderCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills `head` from a known block if `buf` holds one at `start`, and returns its id. Looks
    /// only at the place `hint`, where the connection's last block was, and at the block that was
    /// seen last. A `head` that the same block filled before is left as it is.
    pub(super) fn lookup(
        &mut self,
        buf: &[u8],
        start: usize,
        circumstances: CacheKey,
        hint: usize,
        head: &mut RequestHead,
    ) -> Option<CachedBlockId> {
        let is_it = |place: &usize| {
            self.blocks
                .get(*place)
                .is_some_and(|block| block.circumstances == circumstances && buf[start..].starts_with(&block.bytes))
        };
        let place = [hint, self.latest].into_iter().find(is_it)?;
        self.latest = place;
        let block = &self.blocks[place];
        let id = CachedBlockId { place, number: block.number };
        if head.block.replace(id) != Some(id) {
            block.fill(head);
        }
        head.fields_start = start;
        head.len = start + block.bytes.len();
        Some(id)
    }

    /// Keeps the block that was read from `buf` at `span` into `head`. Returns its place; `None`
    /// for a block that is too long.
    pub(super) fn insert(
        &mut self,
        buf: &[u8],
        span: Span,
        circumstances: CacheKey,
        head: &RequestHead,
    ) -> Option<usize> {
        let bytes = span.of(buf);
        if bytes.len() > LONGEST_BLOCK {
            return None;
        }
        let is_it = |block: &CachedBlock| block.circumstances == circumstances && block.bytes == bytes;
        let place = match self.blocks.iter().position(is_it) {
            Some(place) => place,
            None => self.add(bytes, circumstances, head),
        };
        self.latest = place;
        Some(place)
    }

    fn add(&mut self, bytes: &[u8], circumstances: CacheKey, head: &RequestHead) -> usize {
        let place = match self.blocks.len() {
            MOST_BLOCKS => self.oldest,
            count => {
                self.blocks.push(CachedBlock::default());
                count
            }
        };
        self.oldest = (place + 1) % MOST_BLOCKS;
        self.learned += 1;
        let block = &mut self.blocks[place];
        (block.number, block.circumstances) = (self.learned, circumstances);
        block.bytes.clear();
        block.bytes.extend_from_slice(bytes);
        block.headers.clone_from(&head.headers);
        (block.framing, block.expect_continue) = (head.framing, head.expect_continue);
        (block.keep_alive, block.forwarded_scheme) = (head.keep_alive, head.forwarded_scheme);
        place
    }
}

impl CachedBlock {
    fn fill(&self, head: &mut RequestHead) {
        head.headers.clone_from(&self.headers);
        head.framing = self.framing;
        head.expect_continue = self.expect_continue;
        head.keep_alive = self.keep_alive;
        head.forwarded_scheme = self.forwarded_scheme;
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::Policy;
    use super::super::request::{HeadParser, Status};
    use super::*;

    /// Reads whole heads, one after another, as they would come on one connection.
    struct Reader {
        known: HeaderCache,
        parser: HeadParser,
        head: RequestHead,
    }

    impl Reader {
        fn new() -> Reader {
            Reader { known: HeaderCache::new(), parser: HeadParser::new(), head: RequestHead::default() }
        }

        fn read(&mut self, text: &str, trusted: bool) -> Option<CachedBlockId> {
            self.parser = HeadParser::with_hint(self.parser.hint());
            let (buf, policy) = (text.as_bytes(), Policy::default());
            let status = self.parser.parse(buf, &policy, trusted, Some(&mut self.known), &mut self.head);
            assert_eq!(status, Ok(Status::Complete), "{text}");
            assert_eq!(self.head.len, text.len());
            self.head.block
        }
    }

    #[test]
    fn a_block_is_known_the_second_time_behind_any_request_line() {
        let mut reader = Reader::new();
        assert_eq!(reader.read("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", false), None);
        let again = reader.read("POST /long/path?q HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", false);
        assert!(again.is_some());
        assert_eq!(reader.read("GET /x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", false), again);
        let text = b"GET /x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
        assert_eq!(reader.head.headers(text).last(), Some((&b"X"[..], &b"y"[..])));
    }

    #[test]
    fn another_byte_version_trust_or_form_of_target_makes_it_another_block() {
        let mut reader = Reader::new();
        let block = "Host: a\r\nX-Forwarded-Proto: https\r\n\r\n";
        let request = |line: &str| format!("{line}\r\n{block}");
        reader.read(&request("GET / HTTP/1.1"), false);
        assert!(reader.read(&request("GET / HTTP/1.1"), false).is_some());
        assert_eq!(reader.head.forwarded_scheme, None);
        assert_eq!(reader.read(&request("GET / HTTP/1.0"), false), None);
        assert!(!reader.head.keep_alive);
        assert_eq!(reader.read(&request("GET / HTTP/1.1"), true), None);
        assert_eq!(reader.head.forwarded_scheme, Some(Scheme::Https));
        assert_eq!(reader.read(&request("GET http://a/ HTTP/1.1"), false), None);
        assert_eq!(reader.read(&request("GET / HTTP/1.1").replace("Host: a", "Host: b"), false), None);
        // It is not the connection's last block, so it is read again; but the cache still holds it.
        let count = reader.known.blocks.len();
        reader.parser = HeadParser::new();
        assert_eq!(reader.read(&request("GET / HTTP/1.1"), true), None);
        assert!(reader.read(&request("GET / HTTP/1.1"), true).is_some());
        assert_eq!((reader.head.forwarded_scheme, reader.known.blocks.len()), (Some(Scheme::Https), count));
    }

    #[test]
    fn the_oldest_make_room_and_their_numbers_are_not_used_again() {
        let mut reader = Reader::new();
        let request = |host: usize| format!("GET / HTTP/1.1\r\nHost: h{host}\r\n\r\n");
        reader.read(&request(0), false);
        let first = reader.read(&request(0), false).expect("it is known");
        for host in 1..=MOST_BLOCKS {
            reader.parser = HeadParser::new();
            reader.read(&request(host), false);
        }
        assert_eq!(reader.known.blocks.len(), MOST_BLOCKS);
        assert_eq!(reader.read(&request(0), false), None);
        let again = reader.read(&request(0), false).expect("it is known");
        assert_ne!(first, again);
    }

    #[test]
    fn blocks_that_never_come_again_do_not_drive_out_others() {
        let mut reader = Reader::new();
        for number in 0..100 {
            reader.read(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {number}\r\n\r\n"), false);
        }
        assert!(reader.known.blocks.len() < 12, "{}", reader.known.blocks.len());
        // A block that comes again and again is cached soon.
        let seen = (0..40).filter_map(|_| reader.read("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false)).count();
        assert!(seen > 20, "{seen}");
    }

    #[test]
    fn a_long_block_is_read_every_time() {
        let mut reader = Reader::new();
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(LONGEST_BLOCK));
        assert_eq!(reader.read(&request, false), None);
        assert_eq!(reader.read(&request, false), None);
    }
}
