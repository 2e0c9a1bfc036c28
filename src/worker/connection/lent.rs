//! The client's socket in the application's hands (`gunicorn.socket`).

use std::sync::Arc;

use crate::sys::socket::Stream;
use crate::tls::Secured;

/// Whether the application was given the socket. The socket blocks as long as the application has
/// the request.
pub(super) enum Lent {
    /// It was not.
    No,
    /// It was.
    Socket,
    /// It was given one end of a socket pair in place of a TLS session, which went to a relay.
    InsteadOfTls(Box<LentSession>),
}

/// What the connection still needs of a TLS session that went to a relay.
pub(super) struct LentSession {
    /// The client's stream, as long as the poll watches its descriptor.
    pub(super) stream: Option<Stream>,
    pub(super) secured: Option<Arc<Secured>>,
}

impl Lent {
    /// Whether the application has, or had, the socket.
    pub(super) fn is_lent(&self) -> bool {
        !matches!(self, Lent::No)
    }

    /// The session that went to a relay, if one did.
    pub(super) fn session(&self) -> Option<&LentSession> {
        match self {
            Lent::InsteadOfTls(session) => Some(session),
            Lent::No | Lent::Socket => None,
        }
    }

    /// The stream that the poll watches, if it is not the connection's present one.
    pub(super) fn known_stream(&self) -> Option<&Stream> {
        self.session()?.stream.as_ref()
    }

    /// Drops that stream, which the poll watches no more.
    pub(super) fn drop_known_stream(&mut self) {
        if let Lent::InsteadOfTls(session) = self {
            session.stream = None;
        }
    }
}
