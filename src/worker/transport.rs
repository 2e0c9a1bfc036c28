//! The seam between connections and TLS: what a connection reads and writes is plain bytes, whether
//! or not they are encrypted on their way. Below it are the kernel and `tls`; code above it asks
//! whether a connection is encrypted only for what one of the two kinds cannot do.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::sys::socket::{Cork, Stream};
use crate::tls::{MOST_UNSENT, Secured, Session, Settled};
use crate::worker::relay_link::RelayLink;

/// How much of a file one call of sendfile(2) is given, and how much is read at once where sendfile
/// cannot be used.
pub const FILE_BLOCK: usize = 256 * 1024;

/// A client's bytes, both ways.
pub struct Transport {
    stream: Stream,
    tls: Option<Box<Session>>,
    /// Whether the application has the descriptor, which then is a blocking one.
    is_lent: bool,
    /// Where a relay has the session.
    relay: Option<Arc<RelayLink>>,
    /// The end is to be a reset, if it can be one.
    is_cut_short: bool,
}

impl Transport {
    /// Bytes as they are.
    pub fn plain(stream: Stream) -> Self {
        Transport { stream, tls: None, is_lent: false, relay: None, is_cut_short: false }
    }

    /// From now on the bytes go through `session`.
    pub fn begin_tls(&mut self, session: Session) {
        self.tls = Some(Box::new(session));
    }

    /// From now on the bytes go as they are: TLS never began.
    pub fn drop_tls(&mut self) {
        self.tls = None;
    }

    /// Puts another stream in place of this one, which is returned with its session. They are for
    /// the relay at the other end of this `link`.
    pub fn replace(&mut self, stream: Stream, link: Arc<RelayLink>) -> (Stream, Option<Box<Session>>) {
        self.relay = Some(link);
        (std::mem::replace(&mut self.stream, stream), self.tls.take())
    }

    /// Reads what is there; 0 when the client has ended its side. WouldBlock when nothing is.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.read(buffer),
            Some(session) => session.read(&self.stream, buffer),
        }
    }

    /// Whether a read of `count` bytes into a buffer of `size` has taken all that had arrived: the
    /// poll tells of all that comes later.
    pub fn is_drained_by(&self, count: usize, size: usize) -> bool {
        match &self.tls {
            None => count < size,
            // Where the buffer was too small the session has the rest.
            Some(session) => count < size && session.is_drained(),
        }
    }

    /// Takes what it can of `bytes` and says how much. Under TLS some of it may wait here for
    /// [`Transport::flush`], and `push` means nothing.
    pub fn write(&mut self, bytes: &[u8], push: Cork) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.write(bytes, push),
            Some(session) => session.write_vectored(&self.stream, &[IoSlice::new(bytes)]),
        }
    }

    /// The same for several pieces in a row (at most IOV_MAX).
    pub fn write_vectored(&mut self, pieces: &[IoSlice<'_>], push: Cork) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.write_vectored(pieces, push),
            Some(session) => session.write_vectored(&self.stream, pieces),
        }
    }

    /// Lends the descriptor to the application, as a blocking one, or takes it back. Reads and
    /// writes here never block.
    ///
    /// # Errors
    /// The kernel's, from fcntl(2).
    pub fn set_lent(&mut self, is_lent: bool) -> io::Result<()> {
        if is_lent != self.is_lent {
            self.stream.set_blocking(is_lent)?;
            self.is_lent = is_lent;
        }
        Ok(())
    }

    /// Whether the application has the descriptor.
    pub fn is_lent(&self) -> bool {
        self.is_lent
    }

    /// Sends a part of a file by the kernel alone, as [`Stream::send_file`]. Unsupported under TLS,
    /// and over a blocking descriptor: sendfile(2) would wait for the client there.
    pub fn send_file(&self, file: impl AsFd, offset: &mut u64, count: usize) -> io::Result<usize> {
        if self.is_lent || self.tls.is_some() {
            return Err(ErrorKind::Unsupported.into());
        }
        self.stream.send_file(file, offset, count)
    }

    /// The most bytes that are worth offering to one write.
    pub fn most_at_once(&self) -> usize {
        if self.tls.is_none() { FILE_BLOCK } else { MOST_UNSENT }
    }

    /// Sends the bytes that were taken and have not gone out; WouldBlock where the kernel does not
    /// take all of them.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(session) => session.flush(&self.stream),
        }
    }

    /// Whether something that was taken has not gone out.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.has_unsent())
    }

    /// Ends our side; under TLS, with an announcement. A connection that was cut short ends whole,
    /// by a reset.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        if self.is_cut_short && self.stream.reset().is_ok() {
            return Err(ErrorKind::ConnectionReset.into());
        }
        self.finish();
        if let Some(relay) = &self.relay {
            relay.wait_for_client();
        }
        self.stream.shutdown_write()
    }

    /// Fewer bytes were sent than were promised: the end must not look like a proper one.
    pub fn abandon(&mut self) {
        if let Some(session) = &mut self.tls {
            session.abandon();
        }
        if let Some(relay) = &self.relay {
            relay.break_off();
        }
    }

    /// The same, where nothing but the end says how many bytes there were. TLS can tell a proper
    /// end from another, TCP by a reset, a unix socket not at all.
    pub fn cut_short(&mut self) {
        self.abandon();
        self.is_cut_short = self.tls.is_none();
    }

    /// Whether the bytes are encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether a TLS handshake is under way.
    pub fn is_shaking_hands(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.is_shaking_hands())
    }

    /// What TLS has settled, once it has.
    pub fn secured(&self) -> Option<&Arc<Secured>> {
        self.tls.as_ref()?.secured()
    }

    /// How a TLS handshake came about; once, when it is complete.
    pub fn take_settled(&mut self) -> Option<Settled> {
        self.tls.as_mut()?.take_settled()
    }

    /// The socket below.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    fn finish(&mut self) {
        if let Some(session) = &mut self.tls {
            session.finish(&self.stream);
        }
    }
}

impl Drop for Transport {
    /// Under TLS the client is told of the end, unless the connection was abandoned.
    fn drop(&mut self) {
        self.finish();
    }
}
