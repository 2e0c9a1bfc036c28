//! `tls_watch`: the master reads certificates again when their files change, and hands them to the
//! running workers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info};

use crate::tls::{Stamp, Tls};

use super::Master;

/// How often the master looks at the files.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Certificate files, and what they looked like. A change counts when two looks in a row have seen
/// it: certificate and key are two files, which are not written at the same moment.
pub(super) struct CertificateWatch {
    files: Vec<PathBuf>,
    /// What the files looked like when the certificates in use were read.
    known: Vec<Option<Stamp>>,
    /// What they looked like at the last look.
    seen: Vec<Option<Stamp>>,
    next_look: Instant,
}

impl CertificateWatch {
    /// Watches the files of `tls`, if its settings ask for it.
    pub fn of(tls: &Tls) -> Option<Self> {
        tls.is_watched().then(|| Self::new(tls.files()))
    }

    fn new(files: &[(PathBuf, Option<Stamp>)]) -> Self {
        let (files, stamps): (Vec<_>, Vec<_>) = files.iter().cloned().unzip();
        CertificateWatch { files, known: stamps.clone(), seen: stamps, next_look: Instant::now() + BETWEEN_LOOKS }
    }

    /// Looks at the files if it is time. Returns whether they have changed and come to rest: true
    /// once for each change.
    fn have_changed(&mut self, now: Instant) -> bool {
        if now < self.next_look {
            return false;
        }
        self.next_look = now + BETWEEN_LOOKS;
        let stamps: Vec<_> = self.files.iter().map(|path| Stamp::of(path)).collect();
        let is_settled = stamps == self.seen;
        self.seen = stamps;
        if !is_settled || self.seen == self.known {
            return false;
        }
        self.known = self.seen.clone();
        true
    }
}

impl Master {
    pub(super) fn watch_certificates(&mut self) {
        let now = Instant::now();
        let serving = &mut self.generations.serving;
        // A candidate has just read its certificates. The master watches them when the candidate
        // serves.
        if !serving.watch.as_mut().is_some_and(|watch| watch.have_changed(now)) {
            return;
        }
        let fresh = self.startup.load_tls(&serving.service.config, &serving.service.hooks);
        let renewed = fresh.and_then(|fresh| match (&mut Arc::make_mut(&mut serving.service).tls, fresh) {
            (Some(tls), Some(fresh)) => tls.renew(&fresh).map_err(|error| error.to_string()),
            _ => Ok(()),
        });
        match renewed {
            Ok(()) => info!("Certificates changed: new connections are under the new ones"),
            Err(reason) => error!("Certificates changed, but cannot be used; the old ones stay: {reason}"),
        }
    }

    /// When the master must look at the files again.
    pub(super) fn certificates_deadline(&self) -> Option<Instant> {
        self.generations.serving.watch.as_ref().map(|watch| watch.next_look)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_counts_once_and_when_it_has_come_to_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert"), folder.path().join("key"));
        for file in [&certificate, &key] {
            fs::write(file, "old").unwrap();
        }
        let files = [&certificate, &key].map(|path| (path.clone(), Stamp::of(path)));
        let mut watch = CertificateWatch::new(&files);
        let start = Instant::now();
        let mut look = |second| watch.have_changed(start + Duration::from_secs(second));
        assert!(!look(0) && !look(2));
        fs::write(&certificate, "newer").unwrap();
        assert!(!look(4));
        fs::write(&key, "newer").unwrap();
        assert!(!look(6), "the key has only just changed");
        assert!(look(8));
        assert!(!look(10));
    }
}
