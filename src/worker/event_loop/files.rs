//! Requests for files. The leader answers them, also while the application has every thread.
//!
//! To open a file may take a wait for the disk, and requests for the application wait meanwhile. So
//! only some requests for files are answered in one turn, and the rest in the next.

use std::time::Instant;

use super::unfinished::Unfinished;
use super::{EventLoop, LONGEST_WORK, idle};
use crate::files::StaticFiles;
use crate::worker::connection::{FileTerms, Step};

/// Most requests for files that are answered in one turn, however quick that is: then the loop
/// polls again.
const FILES_PER_TURN: usize = 64;

/// The requests for files, and the files.
#[derive(Default)]
pub(super) struct FileRequests {
    files: Option<(StaticFiles, FileTerms)>,
    /// Connections that have a request for a file.
    waiting: Unfinished,
}

impl FileRequests {
    /// The connection with this key has a request for a file.
    pub(super) fn push(&mut self, key: usize) {
        self.waiting.push(key);
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl EventLoop {
    /// From now on requests for these files are answered.
    pub fn send_files(&mut self, files: StaticFiles, terms: FileTerms) {
        self.queues.file_requests.files = Some((files, terms));
    }

    /// Answers requests for files in order, and begins none after [`LONGEST_WORK`].
    pub(super) fn answer_with_files(&mut self) {
        if self.queues.file_requests.is_empty() {
            return;
        }
        let end = Instant::now() + LONGEST_WORK;
        for _ in 0..FILES_PER_TURN {
            let Some(key) = self.queues.file_requests.waiting.pop() else { return };
            let step = self.answer_with_file(key);
            self.follow(key, step);
            if Instant::now() >= end {
                return;
            }
        }
    }

    fn answer_with_file(&mut self, key: usize) -> Step {
        let Some((files, terms)) = &mut self.queues.file_requests.files else { return Step::Call };
        let Some(mut connection) = idle(&self.connections, key) else { return Step::Wait };
        let step = connection.answer_with_file(files, terms, self.clock.now);
        self.unlogged.requests.extend(connection.take_late_log(false, self.clock.now));
        step
    }

    /// Closes files that nobody has asked for lately.
    pub(super) fn close_old_files(&mut self) {
        if let Some((files, _)) = &mut self.queues.file_requests.files {
            files.close_old(self.clock.now);
        }
    }
}
