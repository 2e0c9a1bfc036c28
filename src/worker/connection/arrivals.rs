//! Whether the kernel has something of a client's that the poll will not tell of.

/// What may still be read without another event. The poll tells of each arrival once.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Bytes, or the end.
    may_be_unread: bool,
    /// Whether the client has said that it sends nothing more. That is told once, while the bytes
    /// before it may still be unread.
    has_ended: bool,
}

impl Arrivals {
    /// Bytes may have come; the end has, if `ended` says so.
    pub(super) fn note(&mut self, ended: bool) {
        self.may_be_unread = true;
        self.has_ended |= ended;
    }

    /// A read has found nothing.
    pub(super) fn note_nothing(&mut self) {
        self.may_be_unread = false;
    }

    /// A read has found something; `is_drained` says that it was all. The next arrival is then a
    /// new event, but not the end, once that has been told.
    pub(super) fn note_read(&mut self, is_drained: bool) {
        self.may_be_unread = self.has_ended || !is_drained;
    }

    /// Whether a read may find something.
    pub(super) fn may_be_unread(&self) -> bool {
        self.may_be_unread
    }
}
