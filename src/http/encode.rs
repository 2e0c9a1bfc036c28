//! Frames a response's body while the response goes out: how many of the application's bytes are
//! admitted, what stands around them, and how many are cut or missing in the end. The counterpart
//! of [`super::body`].
//!
//! The module knows bytes and numbers only: no socket, no interpreter.

use super::request::Version;
use super::response::{self, Asked, BodyPlan};

/// The encoder of one response's body.
#[derive(Clone, Debug)]
pub struct BodyEncoder {
    plan: BodyPlan,
    /// Body bytes that `Content-Length` still promises.
    promised: u64,
    /// Body bytes admitted so far, without framing.
    admitted: u64,
    /// Body bytes that went beyond `Content-Length`.
    excess: u64,
}

/// How a block goes out, behind the bytes that [`BodyEncoder::frame`] has appended to `front`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the block is cut to what is admitted, and followed by the tail"]
pub struct Framed {
    /// How many of the offered bytes belong to the body; the rest is dropped.
    pub admitted: usize,
    /// The framing behind them.
    pub tail: &'static [u8],
}

/// How the body that the application produced differs from its `Content-Length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthFault {
    /// So many bytes more were produced, and dropped.
    Excess(u64),
    /// So many bytes are missing: only the end of the connection can tell the client (RFC 9112, 8).
    Missing(u64),
}

impl BodyEncoder {
    /// An encoder for the response to a request of this kind and version, with this status and
    /// `Content-Length` ([`response::plan_body`]).
    pub fn new(asked: Asked, version: Version, status: u16, content_length: Option<u64>) -> Self {
        let plan = response::plan_body(asked, version, status, content_length);
        BodyEncoder { plan, promised: content_length.unwrap_or(0), admitted: 0, excess: 0 }
    }

    /// An encoder for a response that has no body.
    pub fn without_body() -> Self {
        BodyEncoder { plan: BodyPlan::None, promised: 0, admitted: 0, excess: 0 }
    }

    /// How the body is delimited.
    pub fn plan(&self) -> BodyPlan {
        self.plan
    }

    /// Body bytes admitted so far, without framing.
    pub fn admitted(&self) -> u64 {
        self.admitted
    }

    /// Frames a block of `offered` bytes; `is_last` says that no other follows. Appends what stands
    /// before the block to `front`, and returns how much of the block is admitted and what stands
    /// behind it.
    pub fn frame(&mut self, front: &mut Vec<u8>, offered: usize, is_last: bool) -> Framed {
        let admitted = self.admit(offered);
        self.admitted += admitted as u64;
        if self.plan != BodyPlan::Chunked {
            return Framed { admitted, tail: b"" };
        }
        if admitted > 0 {
            response::write_chunk_size(front, admitted);
        }
        let tail: &[u8] = match (admitted > 0, is_last) {
            (true, true) => b"\r\n0\r\n\r\n",
            (true, false) => response::CHUNK_END,
            (false, true) => response::LAST_CHUNK,
            (false, false) => b"",
        };
        Framed { admitted, tail }
    }

    fn admit(&mut self, offered: usize) -> usize {
        match self.plan {
            BodyPlan::None => 0,
            BodyPlan::Chunked | BodyPlan::UntilClose => offered,
            BodyPlan::Length(_) => {
                let admitted = offered.min(usize::try_from(self.promised).unwrap_or(usize::MAX));
                self.promised -= admitted as u64;
                self.excess += (offered - admitted) as u64;
                admitted
            }
        }
    }

    /// Whether the body is complete without another byte of framing: more bytes of the application
    /// would be dropped.
    pub fn is_whole(&self) -> bool {
        match self.plan {
            BodyPlan::None => true,
            BodyPlan::Length(_) => self.promised == 0,
            BodyPlan::Chunked | BodyPlan::UntilClose => false,
        }
    }

    /// Whether bytes are missing that `Content-Length` promises.
    pub fn is_short(&self) -> bool {
        matches!(self.plan, BodyPlan::Length(_)) && self.promised > 0
    }

    /// How the body differs from its `Content-Length`, if it does.
    pub fn length_fault(&self) -> Option<LengthFault> {
        if self.excess > 0 {
            Some(LengthFault::Excess(self.excess))
        } else {
            self.is_short().then_some(LengthFault::Missing(self.promised))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::BodyDecoder;
    use crate::http::policy::Policy;
    use crate::http::request::{Coding, Framing};

    fn encoder(status: u16, content_length: Option<u64>) -> BodyEncoder {
        BodyEncoder::new(Asked::Whole, Version::Http11, status, content_length)
    }

    /// The bytes of a body that consists of `blocks`; the last of them is followed by the end.
    fn encode(encoder: &mut BodyEncoder, blocks: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            let framed = encoder.frame(&mut out, block.len(), index + 1 == blocks.len());
            out.extend_from_slice(&block[..framed.admitted]);
            out.extend_from_slice(framed.tail);
        }
        out
    }

    #[test]
    fn each_way_of_framing_writes_what_its_table_says() {
        type Row<'a> = (u16, Option<u64>, &'a [&'a [u8]], &'a [u8], Option<LengthFault>);
        let rows: [Row; 9] = [
            (200, None, &[b"one", b"two"], b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n", None),
            (200, None, &[b"one", b""], b"3\r\none\r\n0\r\n\r\n", None),
            (200, None, &[b""], b"0\r\n\r\n", None),
            (200, Some(6), &[b"one", b"two"], b"onetwo", None),
            (200, Some(4), &[b"one", b"two"], b"onet", Some(LengthFault::Excess(2))),
            (200, Some(9), &[b"one", b"two"], b"onetwo", Some(LengthFault::Missing(3))),
            (200, Some(0), &[b""], b"", None),
            (204, None, &[b"one"], b"", None),
            (304, Some(3), &[b"one"], b"", None),
        ];
        for (status, content_length, blocks, expected, fault) in rows {
            let mut encoder = encoder(status, content_length);
            let written = encode(&mut encoder, blocks);
            assert_eq!(written, expected, "{status} {content_length:?} {blocks:?}");
            assert_eq!(encoder.length_fault(), fault, "{status} {content_length:?} {blocks:?}");
        }
    }

    #[test]
    fn a_body_is_whole_when_nothing_can_be_added() {
        let mut sized = encoder(200, Some(3));
        assert!(!sized.is_whole());
        let _ = sized.frame(&mut Vec::new(), 3, false);
        assert!(sized.is_whole());
        assert!(encoder(204, None).is_whole());
        assert!(BodyEncoder::without_body().is_whole());
        let mut chunked = encoder(200, None);
        let _ = chunked.frame(&mut Vec::new(), 3, false);
        assert!(!chunked.is_whole(), "its last chunk is still to come");
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_bytes() {
        let blocks: [&[u8]; 4] = [b"a", &[b'b'; 300], b"", b"c\r\n0\r\n\r\n"];
        let body = blocks.concat();
        for content_length in [None, Some(body.len() as u64)] {
            let wire = encode(&mut encoder(200, content_length), &blocks);
            let framing = content_length.map_or(Framing::Chunked(Coding::Identity), Framing::Length);
            let mut decoder = BodyDecoder::new(framing, &Policy::default());
            let (mut rest, mut decoded) = (&wire[..], Vec::new());
            while !decoder.is_done() {
                let step = decoder.decode(rest).unwrap();
                decoded.extend_from_slice(step.data);
                rest = &rest[step.consumed..];
            }
            assert!(rest.is_empty() && decoded == body, "{content_length:?}");
        }
    }
}
