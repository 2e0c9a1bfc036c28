//! One connection under TLS: ciphertext on a non-blocking socket, plain bytes on the other side.
//!
//! A session reads and writes like the socket, which each call is given, and never waits. The
//! handshake goes on inside [`Session::read`] as its bytes arrive. Written bytes that the kernel
//! does not take stay in the session as ciphertext, at most [`MOST_UNSENT`]; until they are sent,
//! the session takes no more.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

use super::Acceptor;
use super::ciphers::openssl_name;
use super::client_certificate::ClientCertificate;
use crate::sys::retry::retry;
use crate::sys::socket::{Cork, Stream};

/// How many bytes are read from the socket at once: a whole record (RFC 8446, section 5.2: 2^14 +
/// 256 + 5 bytes), and the start of the next.
const READ_SIZE: usize = 20 * 1024;

/// The most bytes of ciphertext that wait for the kernel.
pub const MOST_UNSENT: usize = 64 * 1024;

/// How many decrypted bytes rustls holds (its fixed limit).
const MOST_DECRYPTED: usize = 16 * 1024;

thread_local! {
    /// Ciphertext on its way from a socket into rustls. One buffer per thread is enough: between
    /// two reads it holds nothing.
    static ARRIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
}

/// A server's side of a TLS connection.
pub struct Session {
    tls: ServerConnection,
    stage: SessionStage,
    /// Ciphertext that rustls had no room for.
    pending: Vec<u8>,
    /// Whether the socket was empty when it was last read.
    is_drained: bool,
    secured: Option<Arc<Secured>>,
    /// How the handshake came about, until [`Session::take_settled`] takes it.
    settled: Option<Settled>,
}

/// How a complete handshake came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// In full.
    InFull,
    /// By resuming an earlier session.
    Resumed,
}

/// The states of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SessionStage {
    /// Nothing has arrived.
    Silent,
    /// The handshake is under way.
    Shaking,
    /// Both sides can send.
    Open,
    /// The server has sent close_notify.
    Finished,
    /// The session must end without close_notify, so that the client sees a truncation.
    Abandoned,
    /// The handshake or the protocol failed.
    Failed(HandshakeFailure),
}

/// The result of the handshake.
#[derive(Debug)]
pub struct Secured {
    /// `TLSv1.2` or `TLSv1.3`, as in Python's `ssl`.
    pub protocol: &'static str,
    /// The cipher suite's name in OpenSSL.
    pub cipher: String,
    /// The length of the suite's key in bits.
    pub bits: u16,
    /// The client's certificate, if the client was asked for one and has sent it.
    pub certificate: Option<ClientCertificate>,
}

/// Why a session has failed. It travels inside an [`io::Error`]; see [`HandshakeFailure::of`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The client speaks plain HTTP, with these first bytes.
    PlainText(Vec<u8>),
    /// rustls's reason.
    Protocol(String),
}

impl Session {
    /// A session with a client whose first bytes, `arrived`, have been read already.
    ///
    /// # Errors
    /// rustls rejects the configuration. The acceptor has checked it before.
    pub fn new(acceptor: &Acceptor, arrived: Vec<u8>) -> io::Result<Session> {
        let mut tls = ServerConnection::new(acceptor.config.clone()).map_err(io::Error::other)?;
        tls.set_buffer_limit(Some(MOST_UNSENT));
        Ok(Session {
            tls,
            stage: SessionStage::Silent,
            pending: arrived,
            is_drained: false,
            secured: None,
            settled: None,
        })
    }

    /// Reads plain bytes; 0 when the client has ended its side. WouldBlock when there are none yet,
    /// even if ciphertext has arrived.
    ///
    /// # Errors
    /// A [`HandshakeFailure`], or an error of the socket.
    pub fn read(&mut self, stream: &Stream, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        // Bytes may have come since the socket was found empty.
        self.is_drained = false;
        loop {
            match self.tls.reader().read(&mut buffer[filled..]) {
                // The end, or `buffer` is full.
                Ok(0) => return Ok(filled),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => match self.receive(stream) {
                    Ok(()) => continue,
                    Err(_) if filled > 0 => return Ok(filled),
                    Err(error) => return Err(error),
                },
                // The same end will be found by the next read.
                Err(_) if filled > 0 => return Ok(filled),
                // Many clients close without close_notify. HTTP's own framing tells whether
                // something is missing.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
            if self.is_drained && filled > 0 {
                return Ok(filled);
            }
        }
    }

    /// Whether the last read has left only bytes that the socket's next readiness event announces.
    /// That read must have had room to spare in its buffer.
    pub fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Takes bytes to send, in order, and returns how many. Those that the kernel takes are sent at
    /// once.
    ///
    /// # Errors
    /// WouldBlock while older bytes wait, and then none are taken; or an error of the socket.
    pub fn write_vectored(&mut self, stream: &Stream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(stream)?;
        let taken = match parts {
            [part] => self.tls.writer().write(part)?,
            parts => self.tls.writer().write_vectored(parts)?,
        };
        match self.flush(stream) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Sends the ciphertext that waits.
    ///
    /// # Errors
    /// WouldBlock when the kernel does not take all of it; or an error of the socket.
    pub fn flush(&mut self, stream: &Stream) -> io::Result<()> {
        while self.tls.wants_write() {
            if retry(|| self.tls.write_tls(&mut Socket(stream)))?.is_none() {
                return Err(ErrorKind::WouldBlock.into());
            }
        }
        Ok(())
    }

    /// Whether ciphertext waits for the kernel.
    pub fn has_unsent(&self) -> bool {
        self.tls.wants_write()
    }

    /// Announces the end of what the server sends (`close_notify`, RFC 8446 section 6.1), unless
    /// the session is abandoned ([`Session::abandon`]).
    pub fn finish(&mut self, stream: &Stream) {
        if self.stage == SessionStage::Open {
            self.stage = SessionStage::Finished;
            self.tls.send_close_notify();
            // A client that does not read will not read this either.
            let _ = self.flush(stream);
        }
    }

    /// From now on the session ends without close_notify: the response is incomplete.
    pub fn abandon(&mut self) {
        self.stage = SessionStage::Abandoned;
    }

    /// Whether the handshake is under way.
    pub fn is_shaking_hands(&self) -> bool {
        matches!(self.stage, SessionStage::Silent | SessionStage::Shaking)
    }

    /// The result of the handshake; `None` until it is complete.
    pub fn secured(&self) -> Option<&Arc<Secured>> {
        self.secured.as_ref()
    }

    /// How the handshake came about; once, when it is complete.
    pub fn take_settled(&mut self) -> Option<Settled> {
        self.settled.take()
    }

    /// Reads some ciphertext and passes it to rustls. The next read reports an end of the
    /// connection.
    fn receive(&mut self, stream: &Stream) -> io::Result<()> {
        if let SessionStage::Failed(failure) = &self.stage {
            return Err(failure.clone().into());
        }
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            return self.feed(stream, &pending);
        }
        ARRIVED.with_borrow_mut(|arrived| {
            let count = match stream.read(arrived) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_drained = true;
                    return Err(error);
                }
                result => result?,
            };
            self.is_drained = count > 0 && count < arrived.len();
            self.feed(stream, &arrived[..count])
        })
    }

    /// Passes ciphertext, which must not be empty, to rustls. Bytes for which it has no room are
    /// kept.
    fn feed(&mut self, stream: &Stream, mut arrived: &[u8]) -> io::Result<()> {
        if self.stage == SessionStage::Silent && !arrived.is_empty() {
            if is_plain_text(arrived) {
                return Err(self.fail(HandshakeFailure::PlainText(arrived.to_vec())));
            }
            self.stage = SessionStage::Shaking;
        }
        loop {
            // Zero bytes mean the end: of the connection, or by the client's close_notify.
            let taken = self.tls.read_tls(&mut arrived)?;
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // This sends the alert that rustls has written, if the kernel takes it.
                    let _ = self.flush(stream);
                    return Err(self.fail(HandshakeFailure::Protocol(error.to_string())));
                }
            };
            if state.peer_has_closed() {
                self.is_drained = false;
            }
            if taken == 0 || arrived.is_empty() {
                break;
            }
            if state.plaintext_bytes_to_read() >= MOST_DECRYPTED {
                self.pending = arrived.to_vec();
                self.is_drained = false;
                break;
            }
        }
        if self.stage == SessionStage::Shaking && !self.tls.is_handshaking() {
            self.stage = SessionStage::Open;
            self.secured = Some(Arc::new(Secured::by(&self.tls)));
            let is_resumed = self.tls.handshake_kind() == Some(HandshakeKind::Resumed);
            self.settled = Some(if is_resumed { Settled::Resumed } else { Settled::InFull });
        }
        match self.flush(stream) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Notes the failure. If this read still has bytes to return, the next one reports it.
    fn fail(&mut self, failure: HandshakeFailure) -> io::Error {
        self.is_drained = false;
        self.stage = SessionStage::Failed(failure.clone());
        failure.into()
    }
}

impl Secured {
    fn by(tls: &ServerConnection) -> Secured {
        let suite = tls.negotiated_cipher_suite().map(|suite| suite.suite());
        let name = suite.map(openssl_name).unwrap_or_default();
        let certificate = tls.peer_certificates().and_then(<[CertificateDer<'_>]>::first).map(ClientCertificate::new);
        Secured {
            protocol: if tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) { "TLSv1.3" } else { "TLSv1.2" },
            bits: if name.contains("AES128") || name.contains("AES_128") { 128 } else { 256 },
            cipher: name,
            certificate,
        }
    }
}

impl HandshakeFailure {
    /// The failure inside an error that a session has returned.
    pub fn of(error: &io::Error) -> Option<&HandshakeFailure> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<HandshakeFailure> for io::Error {
    fn from(failure: HandshakeFailure) -> io::Error {
        io::Error::new(ErrorKind::InvalidData, failure)
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeFailure::PlainText(_) => f.write_str("plain HTTP"),
            HandshakeFailure::Protocol(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for HandshakeFailure {}

/// Whether a client's first bytes are HTTP: a method's letter, or the empty line that may stand
/// before it. TLS begins with a record of type 22 (RFC 8446, section 5.1).
fn is_plain_text(arrived: &[u8]) -> bool {
    arrived.first().is_some_and(|&first| first.is_ascii_alphabetic() || first == b'\r' || first == b'\n')
}

/// A stream, for rustls to write to.
struct Socket<'a>(&'a Stream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes, Cork::No)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match parts {
            [part] => self.0.write(part, Cork::No),
            parts => self.0.write_vectored(parts, Cork::No),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
