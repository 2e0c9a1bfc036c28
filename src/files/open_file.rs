//! A regular file that is open, and the validators that tell its states apart.

use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http::accept_encoding::ContentCoding;
use crate::http::conditional::Validators;

/// How long a file's validators are weak after a change (RFC 9110, 8.8.2.2). Another change within
/// that time may leave no trace in the time of change, which has the precision of the kernel's
/// clock tick, or of the file system.
const SETTLING_TIME: Duration = Duration::from_secs(2);

/// An open file, as it was when it was opened.
#[derive(Debug, Clone)]
pub(super) struct OpenFile {
    /// The file.
    pub file: Arc<OwnedFd>,
    /// Its length in bytes.
    pub length: u64,
    /// When it was last changed, in seconds since the epoch; 0 for a time before it.
    pub modified: u64,
    /// Its entity tag, with quotes.
    pub etag: String,
    is_settled: bool,
}

impl OpenFile {
    /// `file` with this `metadata`, which holds content in this `coding`, opened `now`.
    pub fn new(file: File, metadata: &Metadata, coding: Option<ContentCoding>, now: SystemTime) -> OpenFile {
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        // A time of change in the future never counts as settled: the file may change again at that
        // time.
        let is_settled = now.duration_since(modified).is_ok_and(|age| age >= SETTLING_TIME);
        let mark = if is_settled { "" } else { "W/" };
        // Two forms of one file are two representations (RFC 9110, 8.8.3.3).
        let suffix = coding.map_or("", ContentCoding::suffix).replace('.', "-");
        let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
        OpenFile {
            file: Arc::new(file.into()),
            length: metadata.len(),
            modified: u64::try_from(seconds).unwrap_or(0),
            etag: format!("{mark}\"{seconds:x}-{nanoseconds:x}-{:x}{suffix}\"", metadata.len()),
            is_settled,
        }
    }

    /// What a client's preconditions are compared with.
    pub fn validators(&self) -> Validators<'_> {
        Validators {
            etag: Some(self.etag.as_bytes()),
            modified: Some(self.modified),
            modified_is_strong: self.is_settled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_just_changed_has_weak_validators_with_the_same_tag() {
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        let open = |later: u64, coding| {
            let now = metadata.modified().unwrap() + Duration::from_secs(later);
            OpenFile::new(file.try_clone().unwrap(), &metadata, coding, now)
        };
        let (young, old) = (open(0, None), open(2, None));
        assert_eq!(young.etag, format!("W/{}", old.etag));
        assert!(!young.validators().modified_is_strong && old.validators().modified_is_strong);
        assert_ne!(open(2, Some(ContentCoding::Gzip)).etag, old.etag);
        assert!(open(2, Some(ContentCoding::Gzip)).etag.ends_with("-gz\""));
    }
}
