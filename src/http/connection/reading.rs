//! Reads what has come: a PROXY header, heads, bodies.

use std::sync::LazyLock;
use std::time::Instant;

use memchr::memmem::Finder;

use super::super::body::BodyDecoder;
use super::super::error::Error;
use super::super::proxy::{self, Parsed};
use super::super::request::{RequestHead, Status};
use super::super::response::Asked;
use super::body::{Progress, Taken};
use super::{Action, BodyReader, BodySink, Context, HeadReader, Http1, Http1Limits, Received, Stage};

/// A read of up to this many bytes goes to the input as it is: looking for the end of the head
/// first would not pay.
const SHORT_READ: usize = 2 * 1024;

/// What ends a head.
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// Whether `input` and the `bytes` behind it are the empty line that some clients send behind a
/// body (RFC 9112, 2.2), or its beginning. Nothing of a request has come then.
pub(super) fn is_stray_line_end(input: &[u8], bytes: &[u8]) -> bool {
    let count = input.len() + bytes.len();
    (1..=2).contains(&count) && input.iter().chain(bytes).eq(&b"\r\n"[..count])
}

impl Http1 {
    /// Takes a PROXY header off the input.
    pub(super) fn on_proxy_bytes<S>(&mut self, bytes: &[u8], context: Context<'_, S>, now: Instant) -> Action {
        let Context { limits, input, .. } = context;
        let Stage::Proxy { mode, tls_follows, deadline } = &mut self.stage else { return Action::Wait };
        if input.is_empty() {
            *deadline = now + limits.head_timeout;
        }
        input.extend_from_slice(bytes);
        let origin = match proxy::parse(input, *mode) {
            Ok(Parsed::Partial) => return Action::Wait,
            Ok(Parsed::Absent) if limits.requires_proxy_header => {
                return self.refused(Error::InvalidProxyHeader("missing"), input, limits, now);
            }
            Ok(Parsed::Absent) => None,
            Ok(Parsed::Header { len, origin }) => {
                input.drain(..len);
                Some(origin)
            }
            Err(error) => return self.refused(error, input, limits, now),
        };
        let deadline = Some(*deadline);
        self.stage = if *tls_follows || input.is_empty() {
            Stage::Idle { deadline }
        } else {
            Stage::Head { reader: HeadReader::new(self.protocol, self.hint), deadline }
        };
        Action::EndProxy(origin)
    }

    /// Takes bytes of a head, and what may come behind it.
    pub(super) fn on_head_bytes<S: BodySink>(&mut self, bytes: &[u8], context: Context<'_, S>, now: Instant) -> Action {
        let (mut reader, deadline) = match &self.stage {
            Stage::Idle { .. } if is_stray_line_end(context.input, bytes) => {
                context.input.extend_from_slice(bytes);
                return Action::Wait;
            }
            Stage::Idle { .. } => (HeadReader::new(self.protocol, self.hint), Some(now + context.limits.head_timeout)),
            Stage::Head { reader, deadline } => (*reader, *deadline),
            _ => return Action::Wait,
        };
        let (before, behind) = bytes.split_at(reader.split(context.input, bytes));
        context.input.extend_from_slice(before);
        self.parse(&mut reader, deadline, behind, context, now)
    }

    /// Looks for the head's end in the input, from where the `reader` is; `behind` is what has come
    /// after the input's last byte. Where the end has not come, waits for it until `deadline`.
    pub(super) fn parse<S: BodySink>(
        &mut self,
        reader: &mut HeadReader,
        deadline: Option<Instant>,
        mut behind: &[u8],
        mut context: Context<'_, S>,
        now: Instant,
    ) -> Action {
        let Context { limits, is_trusted, ref mut known, ref mut input, ref mut head, .. } = context;
        loop {
            match reader.parse(input, &limits.policy, is_trusted, known.as_deref_mut(), head) {
                Ok(Status::Partial) if behind.is_empty() => {
                    self.stage = Stage::Head { reader: *reader, deadline };
                    return Action::Wait;
                }
                Ok(Status::Partial) => input.extend_from_slice(std::mem::take(&mut behind)),
                Ok(Status::Complete) => {
                    self.hint = reader.hint();
                    return self.begin_body(behind, context, now);
                }
                Err(error) => return self.refused(error, input, limits, now),
            }
        }
    }

    /// The head is whole: decides how its body is gathered, and gathers what is there.
    fn begin_body<S: BodySink>(&mut self, behind: &[u8], mut context: Context<'_, S>, now: Instant) -> Action {
        let Context { limits, input, head, .. } = &context;
        self.note_head(input, head);
        let decoder = BodyDecoder::new(head.framing, &limits.policy);
        if decoder.is_done() {
            context.input.extend_from_slice(behind);
            return self.serve(Received::NoBody);
        }
        let announced = decoder.remaining_length();
        if let (Some(length), Some(limit)) = (announced, limits.limit_request_body)
            && length > limit
        {
            return self.refused(Error::ContentTooLarge, context.input, limits, now);
        }
        let is_at_its_head = input.len() == head.len;
        if is_at_its_head && announced == Some(behind.len() as u64) && behind.len() <= limits.body_buffer {
            // The body is all there, and nothing else. It stays in the buffer that it was read
            // into.
            return self.serve(Received::LastBytes(behind.len()));
        }
        let asks_first = is_at_its_head && behind.is_empty() && head.expect_continue;
        context.sink.begin(announced);
        self.stage = Stage::Body { body: BodyReader::new(decoder, now), deadline: now };
        match self.gather(behind, context, now) {
            Action::Wait if asks_first => Action::SendContinue,
            action => action,
        }
    }

    /// Takes the body's first bytes, which stand behind the head in the input, then those in
    /// `behind`. Bytes that the body does not use up stay in the input.
    fn gather<S: BodySink>(&mut self, behind: &[u8], context: Context<'_, S>, now: Instant) -> Action {
        let Context { limits, input, head, mut sink, .. } = context;
        let Stage::Body { body, .. } = &mut self.stage else { return Action::Wait };
        let taken = body.take(&input[head.len..], limits, &mut sink, now).and_then(|mut taken| {
            input.drain(head.len..head.len + taken.count);
            let mut rest = behind;
            if taken.progress == Progress::More {
                taken = body.take(behind, limits, &mut sink, now)?;
                rest = &behind[taken.count..];
            }
            input.extend_from_slice(rest);
            Ok(taken)
        });
        self.after_taking(taken, input, limits, now)
    }

    /// Takes bytes of a body, and what may come behind it.
    pub(super) fn on_body_bytes<S: BodySink>(&mut self, bytes: &[u8], context: Context<'_, S>, now: Instant) -> Action {
        let Context { limits, input, mut sink, .. } = context;
        let Stage::Body { body, .. } = &mut self.stage else { return Action::Wait };
        let taken = body.take(bytes, limits, &mut sink, now);
        if let Ok(taken) = &taken {
            // Pipelined: the next request's first bytes.
            input.extend_from_slice(&bytes[taken.count..]);
        }
        self.after_taking(taken, input, limits, now)
    }

    fn after_taking(
        &mut self,
        taken: Result<Taken, Error>,
        input: &mut Vec<u8>,
        limits: &Http1Limits,
        now: Instant,
    ) -> Action {
        let progress = match taken {
            Ok(taken) => taken.progress,
            Err(error) => return self.refused(error, input, limits, now),
        };
        match (progress, &mut self.stage) {
            (Progress::More, Stage::Body { body, deadline }) => {
                *deadline = body.rate().deadline(now, limits);
                Action::Wait
            }
            (Progress::Done, Stage::Body { body, .. }) => {
                let (length, began) = (body.length(), body.rate().began());
                self.serve(Received::Stored { length, began })
            }
            (_, stage) => match std::mem::replace(stage, Stage::Serving) {
                Stage::Body { mut body, .. } => {
                    body.pause(now);
                    Action::Serve(Received::Part(Box::new(body)))
                }
                _ => Action::Close,
            },
        }
    }

    /// Notes what the current request asks for, while its head stands in the input.
    pub(super) fn note_head(&mut self, input: &[u8], head: &RequestHead) {
        self.asked = Some(Asked::by(head.method.of(head.source(input))));
    }

    pub(super) fn serve(&mut self, received: Received) -> Action {
        self.stage = Stage::Serving;
        Action::Serve(received)
    }
}

/// How many of `bytes` go to the input. A long body that came with its head does not, to spare a
/// copy.
pub(super) fn end_of_head(bytes: &[u8]) -> usize {
    if bytes.len() <= SHORT_READ {
        return bytes.len();
    }
    EMPTY_LINE.find(bytes).map_or(bytes.len(), |at| at + EMPTY_LINE.needle().len())
}
