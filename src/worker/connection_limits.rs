//! What holds for every connection of a worker: the protocol's rules, who is trusted, and the
//! bounds in bytes and seconds.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::connection_poll::ConnectionPoll;
use super::holdings::Holdings;
use super::request_ids::IdSource;
use super::standby::Standby;
use crate::files::StaticPaths;
use crate::http::connection::{ClientProtocol, Http1Limits};
use crate::http::policy::{Policy, UnderscoredNames};
use crate::http::proxy::{Origin, ProxyMode};
use crate::scoreboard::{Count, Row};
use crate::settings::{self, Config, ProxyProtocol, Trusted, WorkerClass};
use crate::sys::signal::term_has_come;
use crate::sys::socket::Peer;
use crate::tls::Settled;

/// How long idle connections are kept under the sync class while `keepalive` is not set: longer
/// than load balancers keep theirs (60 s, 75 s, 600 s), so that the balancer closes first and no
/// request meets a closing connection.
const SYNC_KEEPALIVE: Duration = Duration::from_secs(650);

/// The same under the other classes: gunicorn's figure, to which its users have tuned their
/// balancers.
const GTHREAD_KEEPALIVE: Duration = Duration::from_secs(2);

/// How long a stopping worker waits for kept-alive clients to send one more request, which is
/// answered with `Connection: close`.
pub const KEEPALIVE_LINGER: Duration = Duration::from_secs(2);

/// The rules of a worker, shared by its connections.
#[derive(Debug)]
pub struct ConnectionLimits {
    /// The protocol's rules and bounds.
    pub http: Http1Limits,
    /// How long a client may take nothing of the bytes that wait for it.
    pub write_timeout: Duration,
    /// How long a connection may idle between two requests; zero closes it after the response.
    pub keepalive: Duration,
    /// What is kept of bodies and responses, and where.
    pub spooling: Spooling,
    /// The paths at which the server answers by itself.
    pub own_paths: OwnPaths,
    /// Whether somebody reads the measures that cost more than an addition: the wait in the kernel
    /// and for the interpreter, and what a proxy says.
    pub measures: bool,
    /// Gives requests their ids, under `request_id_header`.
    pub request_ids: Option<Arc<IdSource>>,
    /// What all connections hold together, and may hold.
    pub holdings: Holdings,
    /// Sends what waits for more to come while the application runs.
    pub standby: Standby,
    /// How many relays have bytes for their clients after their connections have ended.
    pub relays: Arc<AtomicUsize>,
    proxy_allow_ips: Trusted,
    /// Peers that may speak for others by headers; under uwsgi, peers that may send requests at
    /// all.
    trusted: Trusted,
    heartbeat: OnceLock<Row>,
    poll: OnceLock<ConnectionPoll>,
    stopping: AtomicBool,
}

/// What is kept of bodies and responses, and where.
#[derive(Debug)]
pub struct Spooling {
    /// The most bytes of a body that are kept in a file.
    pub most_of_body: u64,
    /// The most bytes of a response that are kept in memory for a client that does not take them.
    pub response_buffer: usize,
    /// The most bytes of a response that are kept in a file for such a client.
    pub most_of_response: u64,
    /// Where the files are made; `None` is the system's temporary directory.
    pub directory: Option<PathBuf>,
    /// No file can be made for responses, which has been said in the log.
    lacks_files: AtomicBool,
}

/// The paths at which the server answers by itself.
#[derive(Debug)]
pub struct OwnPaths {
    /// The check whether the server serves (`health_path`).
    pub health: Option<String>,
    /// The check whether the worker lives (`live_path`).
    pub live: Option<String>,
    /// Files (`static_map`).
    pub files: Option<Arc<StaticPaths>>,
}

impl ConnectionLimits {
    /// The rules that `config` asks for.
    pub fn new(config: &Config) -> Self {
        ConnectionLimits {
            http: http1(config),
            write_timeout: bound(config.write_timeout),
            keepalive: keepalive(config),
            spooling: Spooling::new(config),
            own_paths: OwnPaths::new(config),
            measures: config.metrics_bind.is_some() || config.autoscale || config.queue_time,
            request_ids: config.request_id_header.clone().map(|header| Arc::new(IdSource::new(header))),
            holdings: Holdings::new(config),
            standby: Standby::new(),
            heartbeat: OnceLock::new(),
            poll: OnceLock::new(),
            proxy_allow_ips: config.proxy_allow_ips.clone(),
            trusted: trusted(config).clone(),
            relays: Arc::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on heartbeats ([`ConnectionLimits::beat`]) and handshakes are written to this row.
    pub fn beat_at(&self, row: Row) {
        // There is one worker, which has one row.
        let _ = self.heartbeat.set(row);
    }

    /// From now on this poll watches the worker's connections.
    pub fn watch_by(&self, poll: ConnectionPoll) {
        // There is one event loop, which has one poll.
        let _ = self.poll.set(poll);
    }

    /// The poll that watches the worker's connections; `None` where there is no event loop.
    pub fn poll(&self) -> Option<&ConnectionPoll> {
        self.poll.get()
    }

    /// Writes the heartbeat: the worker is alive, though a thread waits for its client.
    pub fn beat(&self) {
        if let Some(row) = self.heartbeat.get() {
            row.beat();
        }
    }

    /// A TLS handshake is complete.
    pub fn count_handshake(&self, settled: Settled) {
        if let Some(row) = self.heartbeat.get() {
            row.count(match settled {
                Settled::InFull => Count::TlsFull,
                Settled::Resumed => Count::TlsResumed,
            });
        }
    }

    /// Whether the peer may set the scheme and headers with underscores; under uwsgi, whether it
    /// may send requests at all. A unix socket's peer always may, as in gunicorn.
    pub fn trusts(&self, peer: &Peer) -> bool {
        among(&self.trusted, peer)
    }

    /// As [`ConnectionLimits::trusts`], behind a PROXY header that `peer` has sent: the client that
    /// the header names must be trusted, not the proxy that passes on its bytes.
    pub fn trusts_origin(&self, origin: &Origin, peer: &Peer) -> bool {
        match origin {
            Origin::Client { client, .. } => self.trusts(&Peer::Ip(*client)),
            Origin::Local => self.trusts(peer),
            // The bytes come from a client that nobody names.
            Origin::Unknown | Origin::Unspecified => self.trusted == Trusted::Everyone,
        }
    }

    /// Whether the peer may speak for others with a PROXY header.
    pub fn takes_proxy_headers_from(&self, peer: &Peer) -> bool {
        among(&self.proxy_allow_ips, peer)
    }

    /// Whether connections may be kept after the response that is being written.
    pub fn keeps_alive(&self) -> bool {
        !self.keepalive.is_zero() && !self.is_stopping()
    }

    /// How long a connection that falls idle now is kept. A worker that is to end keeps it for a
    /// moment as well: its client was promised that.
    pub fn idle_time(&self) -> Duration {
        if self.is_stopping() { self.keepalive.min(KEEPALIVE_LINGER) } else { self.keepalive }
    }

    /// Whether the worker is to end.
    pub fn is_stopping(&self) -> bool {
        // TERM may have come while the application runs: its response then already closes the
        // connection.
        self.stopping.load(Relaxed) || term_has_come()
    }

    /// From now on every response closes its connection: the worker is to end.
    pub fn stop_keeping_alive(&self) {
        self.stopping.store(true, Relaxed);
    }
}

impl Spooling {
    fn new(config: &Config) -> Spooling {
        Spooling {
            most_of_body: config.body_spool,
            response_buffer: config.response_buffer,
            most_of_response: config.response_spool,
            // The application may change the working directory.
            directory: config.tmp_upload_dir.as_ref().map(|directory| config.chdir.join(directory)),
            lacks_files: AtomicBool::new(false),
        }
    }

    /// Whether what a client does not take of its response may go to a file.
    pub fn takes_responses(&self) -> bool {
        self.most_of_response > 0 && !self.lacks_files.load(Relaxed)
    }

    /// No file can be made for a response. From now on applications wait for clients that do not
    /// read; the log says so once.
    pub fn note_no_file(&self, error: &std::io::Error) {
        if !self.lacks_files.swap(true, Relaxed) {
            log::warn!(
                "Cannot keep a response in a temporary file ({error}); the app waits for clients that do not read"
            );
        }
    }
}

impl OwnPaths {
    fn new(config: &Config) -> OwnPaths {
        let (health, live) = (config.health_path.clone(), config.live_path.clone());
        OwnPaths { health, live, files: StaticPaths::new(config) }
    }

    /// Whether the server answers at any path by itself.
    pub fn are_given(&self) -> bool {
        self.are_checks_given() || self.files.is_some()
    }

    /// Whether there are paths for checks.
    pub fn are_checks_given(&self) -> bool {
        self.health.is_some() || self.live.is_some()
    }
}

/// A setting's seconds. 0 means for ever: a time that no connection outlives, and that clocks can
/// still add.
fn bound(seconds: u64) -> Duration {
    const FOR_EVER: u64 = u32::MAX as u64;
    Duration::from_secs(if seconds == 0 { FOR_EVER } else { seconds })
}

fn keepalive(config: &Config) -> Duration {
    match (config.keepalive, config.effective_worker_class()) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, WorkerClass::Sync) => SYNC_KEEPALIVE,
        // A foreign class has no connections of the server's; the package gives it gunicorn's
        // number.
        (None, WorkerClass::Gthread | WorkerClass::Gevent | WorkerClass::Foreign(_)) => GTHREAD_KEEPALIVE,
    }
}

/// A packet of uwsgi says who the client is, and all else: whoever may send one is trusted.
fn trusted(config: &Config) -> &Trusted {
    match config.protocol {
        settings::Protocol::Http => &config.forwarded_allow_ips,
        settings::Protocol::Uwsgi => &config.uwsgi_allow_ips,
    }
}

fn among(trusted: &Trusted, peer: &Peer) -> bool {
    match peer {
        Peer::Unix => true,
        Peer::Ip(address) => trusted.contains(IpAddr::to_canonical(&address.ip())),
    }
}

fn http1(config: &Config) -> Http1Limits {
    Http1Limits {
        protocol: match config.protocol {
            settings::Protocol::Http => ClientProtocol::Http,
            settings::Protocol::Uwsgi => ClientProtocol::Uwsgi,
        },
        policy: policy(config),
        head_timeout: bound(config.client_header_timeout),
        body_timeout: bound(config.client_body_timeout),
        body_min_rate: config.client_body_min_rate,
        body_buffer: config.body_buffer,
        limit_request_body: Some(config.limit_request_body).filter(|&limit| limit > 0),
        proxy_mode: match config.proxy_protocol {
            // The packet itself names the client.
            _ if config.protocol == settings::Protocol::Uwsgi => None,
            ProxyProtocol::Off => None,
            ProxyProtocol::V1 => Some(ProxyMode::V1),
            ProxyProtocol::V2 => Some(ProxyMode::V2),
            ProxyProtocol::Auto => Some(ProxyMode::Auto),
        },
        requires_proxy_header: config.require_proxy_header,
    }
}

fn policy(config: &Config) -> Policy {
    Policy {
        limit_request_line: config.limit_request_line,
        limit_request_fields: config.limit_request_fields,
        limit_request_field_size: config.limit_request_field_size,
        permit_obsolete_folding: config.permit_obsolete_folding,
        strip_header_spaces: config.strip_header_spaces,
        permit_unconventional_http_method: config.permit_unconventional_http_method,
        permit_unconventional_http_version: config.permit_unconventional_http_version,
        casefold_http_method: config.casefold_http_method,
        permit_missing_host: config.permit_missing_host,
        strict_host: config.strict_host,
        header_map: match config.header_map {
            settings::HeaderMap::Drop => UnderscoredNames::Drop,
            settings::HeaderMap::Refuse => UnderscoredNames::Refuse,
            settings::HeaderMap::Dangerous => UnderscoredNames::Dangerous,
        },
        forwarder_headers: config.forwarder_headers.clone(),
        secure_scheme_headers: config.secure_scheme_headers.clone(),
    }
}
