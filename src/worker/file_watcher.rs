//! `--reload`: notices that the application's source has changed: by a look at the files once a
//! second, and sooner where the kernel reports it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crate::base::unpoisoned::Unpoisoned;
use crate::python::app;
use crate::settings::ReloadEngine;
use crate::sys::inotify::Folders;

/// The files of the loaded modules and those the operator added, with the times they were last
/// changed.
pub struct FileWatcher {
    extra: Vec<String>,
    broken: Vec<PathBuf>,
    known: HashMap<PathBuf, SystemTime>,
    /// The folders of those files, where the kernel reports changes.
    edits: Option<Arc<ChangeNotifier>>,
    listened_to: HashSet<PathBuf>,
}

/// The kernel's reports of changes. A thread of its own waits for them, because no other thread
/// may.
pub struct ChangeNotifier {
    folders: Folders,
    /// The names of the watched files: a log that is written beside them is no reason to look at
    /// all of them.
    names: Mutex<HashSet<OsString>>,
    has_changes: AtomicBool,
}

impl FileWatcher {
    /// Watches the modules loaded so far and later, the paths or glob patterns in `extra`, and the
    /// files that kept the application from loading, which are no modules.
    ///
    /// # Errors
    /// `engine` insists on inotify, and the kernel does not grant it.
    pub fn new(extra: &[String], broken: Vec<PathBuf>, engine: ReloadEngine) -> io::Result<Self> {
        let edits = match engine {
            ReloadEngine::Poll => None,
            ReloadEngine::Auto => ChangeNotifier::new().ok(),
            ReloadEngine::Inotify => Some(ChangeNotifier::new()?),
        };
        let (known, listened_to) = (HashMap::new(), HashSet::new());
        let mut watch = FileWatcher { extra: extra.to_vec(), broken, known, edits: edits.map(Arc::new), listened_to };
        watch.changed();
        Ok(watch)
    }

    /// Watches `files` too, which kept the application from loading.
    pub fn watch_too(&mut self, files: Vec<PathBuf>) {
        self.broken.extend(files);
    }

    /// The kernel's reports, to which a thread is to listen; `None` where files are only looked at.
    pub fn edits(&self) -> Option<Arc<ChangeNotifier>> {
        self.edits.clone()
    }

    /// Whether the kernel has reported a file that may be a watched one.
    pub fn has_changes(&self) -> bool {
        self.edits.as_ref().is_some_and(|edits| edits.has_changes.load(Ordering::Acquire))
    }

    /// A file that has changed since the last look, if one has. Files that are new to the watch are
    /// taken as they are.
    pub fn changed(&mut self) -> Option<PathBuf> {
        let files = self.files();
        if let Some(edits) = &self.edits {
            // Before the look: a change during the look sets the flag again.
            edits.has_changes.store(false, Ordering::Release);
            edits.listen_to(&files, &mut self.listened_to);
        }
        let mut changed = None;
        for path in files {
            let Ok(modified) = path.metadata().and_then(|metadata| metadata.modified()) else { continue };
            match self.known.insert(path.clone(), modified) {
                Some(before) if before != modified => changed = changed.or(Some(path)),
                _ => {}
            }
        }
        changed
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = app::module_files().unwrap_or_default();
        files.extend_from_slice(&self.broken);
        for pattern in &self.extra {
            // The settings have been checked, patterns included; a path that is no pattern matches
            // itself.
            files.extend(glob::glob(pattern).into_iter().flatten().flatten());
        }
        files
    }
}

impl ChangeNotifier {
    fn new() -> io::Result<ChangeNotifier> {
        Ok(ChangeNotifier { folders: Folders::new()?, names: Mutex::default(), has_changes: AtomicBool::new(false) })
    }

    /// Waits for reports, for ever; calls `wake` when one may be about a watched file.
    pub fn listen(&self, wake: impl Fn()) {
        while let Ok(changed) = self.folders.wait() {
            let names = self.names.lock().unpoisoned();
            if changed.is_none_or(|changed| changed.iter().any(|name| names.contains(name))) {
                self.has_changes.store(true, Ordering::Release);
                wake();
            }
        }
    }

    /// Listens to the folders of `files`. Where the kernel refuses one, its files are still looked
    /// at once a second.
    fn listen_to(&self, files: &[PathBuf], listened_to: &mut HashSet<PathBuf>) {
        let targets = files.iter().filter(|file| file.is_symlink()).filter_map(|file| file.canonicalize().ok());
        let mut names = self.names.lock().unpoisoned();
        for file in files.iter().cloned().chain(targets) {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !listened_to.contains(folder) {
                let _ = self.folders.add(folder);
                listened_to.insert(folder.to_owned());
            }
            names.extend(file.file_name().map(OsString::from));
        }
    }
}
