//! The client's socket in the application's hands (`gunicorn.socket`).

use std::sync::Arc;

use crate::sys::socket::Stream;
use crate::tls::Secured;

/// Whether the application was given the socket, which is blocking as long as it has the request.
pub(super) enum Lent {
    /// It was not.
    No,
    /// It was.
    Socket,
    /// It was given one end of a socket pair in place of a TLS session, which went to a relay.
    InsteadOfTls(Box<LentSession>),
}

/// A TLS session that went to a relay, as far as the connection still needs it.
pub(super) struct LentSession {
    /// The descriptor that the poll knows, until it knows it no more.
    pub(super) stream: Option<Stream>,
    pub(super) secured: Option<Arc<Secured>>,
}

impl Lent {
    /// Whether the application has, or had, the socket.
    pub(super) fn is_lent(&self) -> bool {
        !matches!(self, Lent::No)
    }

    /// The session that went away.
    pub(super) fn session(&self) -> Option<&LentSession> {
        match self {
            Lent::InsteadOfTls(session) => Some(session),
            Lent::No | Lent::Socket => None,
        }
    }

    /// The stream that the poll knows in place of the connection's, if it is another one.
    pub(super) fn known_stream(&self) -> Option<&Stream> {
        self.session()?.stream.as_ref()
    }

    /// The poll knows that stream no more.
    pub(super) fn drop_known_stream(&mut self) {
        if let Lent::InsteadOfTls(session) = self {
            session.stream = None;
        }
    }
}
