//! The stages of a connection, each with its data, and the actions that its caller is to take.

use std::time::Instant;

use super::super::error::Error;
use super::super::proxy::{Origin, ProxyMode};
use super::transitions::{ActionKind, StageKind};
use super::{BodyReader, HeadReader};

/// What a connection does at the moment. A deadline is when the stage's wait ends.
#[derive(Debug)]
pub enum Stage {
    /// A PROXY header may come before the first request.
    Proxy {
        /// Which headers are looked for.
        mode: ProxyMode,
        /// Whether TLS begins behind the header. Until it does, the client would not understand an
        /// error page.
        tls_follows: bool,
        /// For the header and the first request's head.
        deadline: Instant,
    },
    /// Nothing of a request has come.
    Idle {
        /// `None` while the last response is still on its way.
        deadline: Option<Instant>,
    },
    /// A part of a request's head has come.
    Head {
        /// How far it is read.
        reader: HeadReader,
        /// `None` while the last response is still on its way.
        deadline: Option<Instant>,
    },
    /// The head is whole, in front of the input. The body is being gathered.
    Body {
        /// How far it is read.
        body: BodyReader,
        /// For its next bytes.
        deadline: Instant,
    },
    /// The request is ready, or with the application.
    Serving,
    /// Nothing follows but the queued bytes.
    Closing,
    /// The answer is queued or out. What the client still sends is dropped.
    Lingering {
        /// How many more bytes are dropped before the connection is closed.
        left: usize,
        /// For the client to end its side.
        deadline: Instant,
    },
    /// The server's side is shut down, and nothing is waited for.
    Over,
}

/// What the caller is to do after an event.
#[derive(Debug)]
pub enum Action {
    /// Wait for the next event.
    Wait,
    /// Send `100 Continue`, and wait for the body (RFC 9110, 10.1.1).
    SendContinue,
    /// The PROXY header is read and taken off the input; `None` where there is none. Where the
    /// stage is now [`Stage::Head`], bytes of the request are in the input already: go on by
    /// calling [`super::Http1::on_bytes`] with no bytes.
    EndProxy(Option<Origin>),
    /// The request is ready. Its head is in front of the input, and [`Received`] says what has come
    /// of its body. Bytes behind the head belong to the next request.
    Serve(Received),
    /// Send the error's page, and end the server's side behind it.
    Refuse(Refusal),
    /// Send what is queued; tell [`super::Http1::on_flushed`] when that is out.
    Flush,
    /// The last response is out, and nothing of another request has come.
    Rest,
    /// The queued bytes are out: end the server's side.
    ShutDown,
    /// The wait for a request is over: read once more, and close the connection if nothing has
    /// come.
    LastLook,
    /// The client has gone before its request was whole.
    Left,
    /// Close the connection.
    Close,
}

/// What has come of a request's body when the request is ready.
#[derive(Debug)]
pub enum Received {
    /// There is none.
    NoBody,
    /// All of it: the last so many of the bytes that the event brought. They are neither in the
    /// input nor in the sink.
    LastBytes(usize),
    /// All of it. It is in the sink.
    Stored {
        /// Bytes, decoded.
        length: u64,
        /// When it began to come.
        began: Instant,
    },
    /// As much as the sink has room for. The rest is to be read while the application runs.
    Part(Box<BodyReader>),
}

/// Why a request is refused.
#[derive(Debug)]
pub struct Refusal {
    /// What is wrong.
    pub error: Error,
    /// Whether the request wants no body in its answer.
    pub is_head: bool,
}

impl Stage {
    pub(super) fn kind(&self) -> StageKind {
        match self {
            Stage::Proxy { .. } => StageKind::Proxy,
            Stage::Idle { .. } => StageKind::Idle,
            Stage::Head { .. } => StageKind::Head,
            Stage::Body { .. } => StageKind::Body,
            Stage::Serving => StageKind::Serving,
            Stage::Closing => StageKind::Closing,
            Stage::Lingering { .. } => StageKind::Lingering,
            Stage::Over => StageKind::Over,
        }
    }
}

impl Action {
    pub(super) fn kind(&self) -> ActionKind {
        match self {
            Action::Wait => ActionKind::Wait,
            Action::SendContinue => ActionKind::SendContinue,
            Action::EndProxy(_) => ActionKind::EndProxy,
            Action::Serve(_) => ActionKind::Serve,
            Action::Refuse(_) => ActionKind::Refuse,
            Action::Flush => ActionKind::Flush,
            Action::Rest => ActionKind::Rest,
            Action::ShutDown => ActionKind::ShutDown,
            Action::LastLook => ActionKind::LastLook,
            Action::Left => ActionKind::Left,
            Action::Close => ActionKind::Close,
        }
    }
}
