//! Files that the server sends by itself: those of `static_map`, and those that an app names in
//! `X-Sendfile` or `X-Accel-Redirect`.
//!
//! The module finds and opens them, and says what a request gets of them: the lines of a head, and
//! the pieces of a body. The caller sends these. The module must not know connections, the event
//! loop or Python, and does not log: what has failed stands in the [`Reply`] or the
//! [`FileRefusal`].

mod app_files;
mod media_type;
mod open_file;
mod reply;
mod static_files;

pub use self::app_files::{AppFiles, Asked, FileRefusal};
pub use self::reply::{Piece, Reply};
pub use self::static_files::{StaticFiles, StaticPaths};

use std::collections::HashSet;
use std::path::Path;

use crate::settings::Config;

/// Checks that the files and directories of the settings exist, and that no prefix comes twice.
///
/// # Errors
/// The setting, and a sentence about what is wrong with it.
pub fn check(config: &Config) -> Result<(), (&'static str, String)> {
    let mut prefixes = HashSet::new();
    for map in &config.static_map {
        let path = config.chdir.join(&map.path);
        if !path.is_dir() && !path.is_file() {
            return Err(("static_map", format!("there is no directory or file '{}'", path.display())));
        }
        if !prefixes.insert(&map.prefix) {
            return Err(("static_map", format!("the prefix '{}' is mapped twice", map.prefix)));
        }
    }
    for path in &config.x_sendfile {
        check_directory("x_sendfile", &config.chdir.join(path))?;
    }
    let mut prefixes = HashSet::new();
    for map in &config.x_accel_map {
        check_directory("x_accel_map", &config.chdir.join(&map.path))?;
        if !prefixes.insert(&map.prefix) {
            return Err(("x_accel_map", format!("the prefix '{}' is mapped twice", map.prefix)));
        }
    }
    Ok(())
}

fn check_directory(setting: &'static str, path: &Path) -> Result<(), (&'static str, String)> {
    if path.is_dir() { Ok(()) } else { Err((setting, format!("there is no directory '{}'", path.display()))) }
}
