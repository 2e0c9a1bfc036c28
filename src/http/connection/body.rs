//! One request's body on its way from the client to where it is gathered.

use std::borrow::Cow;
use std::time::Instant;

use super::super::body::BodyDecoder;
use super::super::error::Error;
use super::{BodyRate, Http1Limits};

/// Where a body's data is gathered before the application is called.
pub trait BodySink {
    /// A body begins. It is `announced` bytes long, if the client has said so.
    fn begin(&mut self, announced: Option<u64>);

    /// Keeps the data, and says whether more may follow.
    fn add(&mut self, data: Cow<'_, [u8]>) -> Room;
}

/// Whether the sink can keep more of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It can.
    Left,
    /// It cannot: the application is called, and reads the rest as it comes.
    Exhausted,
}

/// How far a body is read.
#[derive(Debug)]
pub struct BodyReader {
    decoder: BodyDecoder,
    rate: BodyRate,
    length: u64,
    is_too_long: bool,
}

/// What [`BodyReader::take`] made of bytes.
pub(super) struct Taken {
    /// How many of the bytes belonged to the body.
    pub(super) count: usize,
    pub(super) progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The body goes on.
    More,
    /// All of it has come.
    Done,
    /// It goes on, and the sink has no room for more.
    Full,
}

impl BodyReader {
    pub(super) fn new(decoder: BodyDecoder, now: Instant) -> Self {
        BodyReader { decoder, rate: BodyRate::begin(now), length: 0, is_too_long: false }
    }

    /// Takes the part of `bytes` that belongs to the body, and hands its data to the sink in one
    /// piece, however small its chunks are: a call of the sink costs as much for a chunk as for a
    /// whole read.
    pub(super) fn take<S: BodySink>(
        &mut self,
        bytes: &[u8],
        limits: &Http1Limits,
        sink: &mut S,
        now: Instant,
    ) -> Result<Taken, Error> {
        let (data, count) = self.decode_all(bytes, limits)?;
        self.rate.add(data.len(), now);
        let room = if data.is_empty() { Room::Left } else { sink.add(data) };
        let progress = match room {
            _ if self.decoder.is_done() => Progress::Done,
            Room::Left => Progress::More,
            Room::Exhausted => Progress::Full,
        };
        Ok(Taken { count, progress })
    }

    /// Decodes `input`, the part of the body that has come, into `buffer`, as much as fits. Returns
    /// how many bytes of `input` were used up and how many were decoded.
    ///
    /// # Errors
    /// The body is malformed, or longer than a body may be.
    pub fn read(&mut self, input: &[u8], buffer: &mut [u8], limits: &Http1Limits) -> Result<(usize, usize), Error> {
        let (mut used, mut count) = (0, 0);
        while !self.decoder.is_done() && count < buffer.len() && used < input.len() {
            let room = buffer.len() - count;
            let end = input.len().min(used + room);
            let decoded = self.decoder.decode(&input[used..end])?;
            buffer[count..count + decoded.data.len()].copy_from_slice(decoded.data);
            (used, count) = (used + decoded.consumed, count + decoded.data.len());
        }
        self.add_length(count, limits)?;
        Ok((used, count))
    }

    /// Whether the whole body has come. One that is too long never has: what is left of it must not
    /// be taken for the next request.
    pub fn is_done(&self) -> bool {
        self.decoder.is_done() && !self.is_too_long
    }

    /// How many bytes of the body have come, decoded.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How fast the body comes.
    pub fn rate(&self) -> &BodyRate {
        &self.rate
    }

    /// Notes that `count` more bytes have come while the application runs.
    pub fn receive(&mut self, count: usize, now: Instant) {
        self.rate.add(count, now);
    }

    /// Notes that nobody waits for the body any more.
    pub fn pause(&mut self, now: Instant) {
        self.rate.pause(now);
    }

    /// Notes that the application waits for the body from now on.
    pub fn resume(&mut self, now: Instant) {
        self.rate.resume(now);
    }

    pub(super) fn missing_line_end(&self) -> Option<Error> {
        self.decoder.missing_line_end()
    }

    /// Decodes `bytes` as far as the body goes: its data, and how many bytes were used up.
    fn decode_all<'a>(&mut self, bytes: &'a [u8], limits: &Http1Limits) -> Result<(Cow<'a, [u8]>, usize), Error> {
        let (mut data, mut rest) = (Cow::Borrowed(&b""[..]), bytes);
        while !rest.is_empty() && !self.decoder.is_done() {
            let decoded = self.decoder.decode(rest)?;
            rest = &rest[decoded.consumed..];
            self.add_length(decoded.data.len(), limits)?;
            if data.is_empty() {
                data = Cow::Borrowed(decoded.data);
            } else if !decoded.data.is_empty() {
                gather(&mut data, decoded.data, rest.len());
            }
        }
        Ok((data, bytes.len() - rest.len()))
    }

    fn add_length(&mut self, count: usize, limits: &Http1Limits) -> Result<(), Error> {
        self.length += count as u64;
        self.is_too_long = limits.limit_request_body.is_some_and(|limit| self.length > limit);
        if self.is_too_long { Err(Error::ContentTooLarge) } else { Ok(()) }
    }
}

/// Appends `more` to `data`, with room for `rest` more bytes.
fn gather(data: &mut Cow<'_, [u8]>, more: &[u8], rest: usize) {
    if let Cow::Borrowed(first) = data {
        let mut gathered = Vec::with_capacity(first.len() + more.len() + rest);
        gathered.extend_from_slice(first);
        *data = Cow::Owned(gathered);
    }
    data.to_mut().extend_from_slice(more);
}
