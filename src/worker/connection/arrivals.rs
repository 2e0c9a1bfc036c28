//! Whether the kernel may hold something from a client that the poll will not report again.

/// What may still be read without another event. The poll is edge-triggered: it reports each
/// arrival once.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Whether bytes, or the client's end, may be unread.
    may_be_unread: bool,
    /// Whether the client has ended its side. The poll reports this once, while the bytes before it
    /// may still be unread.
    has_ended: bool,
}

impl Arrivals {
    /// Bytes may have come. `ended` says that the client has ended its side.
    pub(super) fn note(&mut self, ended: bool) {
        self.may_be_unread = true;
        self.has_ended |= ended;
    }

    /// A read has found nothing.
    pub(super) fn note_nothing(&mut self) {
        self.may_be_unread = false;
    }

    /// A read has found bytes; `is_drained` says that it took them all. The next arrival is then a
    /// new event, unless it is the end that the poll has already reported.
    pub(super) fn note_read(&mut self, is_drained: bool) {
        self.may_be_unread = self.has_ended || !is_drained;
    }

    /// Whether a read may find something.
    pub(super) fn may_be_unread(&self) -> bool {
        self.may_be_unread
    }
}
