//! `--reload`: notices that the application's source has changed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::python::app;

/// The files of the loaded modules and those the operator added, with the times they were last changed.
pub struct Watch {
    extra: Vec<String>,
    broken: Vec<PathBuf>,
    known: HashMap<PathBuf, SystemTime>,
}

impl Watch {
    /// Watches the modules loaded so far and later, the paths or glob patterns in `extra`, and the files that kept the application from
    /// loading, which are no modules.
    pub fn new(extra: &[String], broken: Vec<PathBuf>) -> Self {
        let mut watch = Watch { extra: extra.to_vec(), broken, known: HashMap::new() };
        watch.changed();
        watch
    }

    /// A file that has changed since the last look, if one has. Files that are new to the watch are taken as they are.
    pub fn changed(&mut self) -> Option<PathBuf> {
        let mut changed = None;
        for path in self.files() {
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
            // Settings has checked the patterns; a path that is no pattern matches itself.
            files.extend(glob::glob(pattern).into_iter().flatten().flatten());
        }
        files
    }
}
