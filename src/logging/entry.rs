//! What a line of either log says, before it has a form.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use chrono::{DateTime, FixedOffset};

use super::Level;
use super::scope::{Failure, RequestIds};

/// Whose names the fields of a line have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// The server's own.
    Own,
    /// Elastic Common Schema.
    Ecs,
    /// Google Cloud Logging's.
    Gcp,
    /// OpenTelemetry's data model of logs and semantic conventions.
    Otel,
}

/// What a line of the error log says.
pub(super) struct Entry {
    pub(super) time: DateTime<FixedOffset>,
    pub(super) pid: u32,
    pub(super) worker: Option<usize>,
    pub(super) level: Level,
    /// The record's text, the traceback of `failure` included.
    pub(super) text: String,
    /// The text without the traceback.
    pub(super) message: String,
    pub(super) request: RequestIds,
    pub(super) failure: Option<Failure>,
}

/// What a line of the access log says. `None` stands for a value that is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessEntry {
    /// REMOTE_ADDR.
    pub remote_addr: String,
    /// The user of Basic authentication.
    pub user: Option<String>,
    /// The request line's three words.
    pub method: String,
    /// See `method`.
    pub target: String,
    /// See `method`.
    pub protocol: String,
    /// The status of the response.
    pub status: u16,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// How long the request took.
    pub duration: Duration,
    /// The header Referer.
    pub referer: Option<String>,
    /// The header User-Agent.
    pub user_agent: Option<String>,
    /// The header Host.
    pub host: Option<String>,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Bytes of the request.
    pub received: Option<u64>,
    /// How long the request waited before the application was called.
    pub queue: Option<Duration>,
    /// The connection's number, among those of the process.
    pub connection: Option<u64>,
    /// The socket's peer, where a PROXY header names another client.
    pub peer: Option<String>,
    /// The ids by which the request is known.
    pub request: RequestIds,
}

/// The worker number of this process, plus one; 0 in a process that is no worker.
static WORKER: AtomicUsize = AtomicUsize::new(0);

/// Notes that this process is the worker with this number.
pub fn note_worker(number: usize) {
    WORKER.store(number + 1, Relaxed);
}

pub(super) fn worker() -> Option<usize> {
    WORKER.load(Relaxed).checked_sub(1)
}
