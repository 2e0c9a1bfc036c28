//! The request body, decoded as it arrives. Zero copy: the decoded data are slices of the input.

use super::chunked::ChunkedDecoder;
use super::error::Error;
use super::policy::Policy;
use super::request::Framing;

/// Tells body bytes from framing, for one request.
#[derive(Debug)]
pub enum BodyDecoder {
    /// Delimited by Content-Length: the number of bytes still to come, 0 for a request without a
    /// body.
    Length(u64),
    /// Delimited by chunks (RFC 9112, 7.1).
    Chunked(ChunkedDecoder),
}

/// One step of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes of the input are used up.
    pub consumed: usize,
    /// The body bytes among them; empty when the step was all framing.
    pub data: &'a [u8],
}

impl BodyDecoder {
    /// A decoder for the body that follows a head with this framing. The limits of chunk lines and
    /// trailers come from `policy`.
    pub fn new(framing: Framing, policy: &Policy) -> Self {
        match framing {
            Framing::None => BodyDecoder::Length(0),
            Framing::Length(length) => BodyDecoder::Length(length),
            Framing::Chunked(_) => BodyDecoder::Chunked(ChunkedDecoder::new(policy)),
        }
    }

    /// Whether the body has ended; what follows belongs to the next request.
    pub fn is_done(&self) -> bool {
        match self {
            BodyDecoder::Length(remaining) => *remaining == 0,
            BodyDecoder::Chunked(decoder) => decoder.is_done(),
        }
    }

    /// How many bytes of the body are still to come; `None` for a chunked body, whose length is not
    /// known beforehand.
    pub fn remaining_length(&self) -> Option<u64> {
        match self {
            BodyDecoder::Length(remaining) => Some(*remaining),
            BodyDecoder::Chunked(decoder) => decoder.is_done().then_some(0),
        }
    }

    /// What is malformed about a body whose sender ends its side of the connection here. `None`
    /// where the body is complete, and where some of its data is missing: such a sender has broken
    /// off.
    pub fn missing_line_end(&self) -> Option<Error> {
        match self {
            BodyDecoder::Length(_) => None,
            BodyDecoder::Chunked(decoder) => decoder.missing_line_end(),
        }
    }

    /// Takes one step into `input`, which starts where the last step ended. Call it again with the
    /// rest until the body is done or the input is empty; until then each step consumes at least
    /// one byte. Consumed bytes need not be kept. After an error the connection has no next
    /// request.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<'a>, Error> {
        match self {
            BodyDecoder::Length(remaining) => Ok(take_data(remaining, input)),
            BodyDecoder::Chunked(decoder) => decoder.decode(input),
        }
    }
}

/// As much of `input` as `remaining` allows, as data.
pub(super) fn take_data<'a>(remaining: &mut u64, input: &'a [u8]) -> Decoded<'a> {
    let length = usize::try_from(*remaining).map_or(input.len(), |remaining| remaining.min(input.len()));
    *remaining -= length as u64;
    Decoded { consumed: length, data: &input[..length] }
}
