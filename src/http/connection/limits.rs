//! What the connections of a worker have in common, as far as the protocol is concerned. Plain
//! durations and counts.

use std::time::Duration;

use super::super::policy::Policy;
use super::super::proxy::ProxyMode;
use super::ClientProtocol;

/// The protocol's rules and bounds.
#[derive(Debug)]
pub struct Http1Limits {
    /// What clients speak.
    pub protocol: ClientProtocol,
    /// What a request may look like.
    pub policy: Policy,
    /// From the first byte of a request to the end of its head.
    pub head_timeout: Duration,
    /// Between two arrivals of body bytes, and how long a body may arrive below its rate.
    pub body_timeout: Duration,
    /// Bytes a second that a body has to come in at; 0 is any rate.
    pub body_min_rate: u64,
    /// Bytes of a body kept in memory.
    pub body_buffer: usize,
    /// Bytes a body may have at all.
    pub limit_request_body: Option<u64>,
    /// Which PROXY headers are looked for.
    pub proxy_mode: Option<ProxyMode>,
    /// Whether a connection without a PROXY header is refused.
    pub requires_proxy_header: bool,
}
