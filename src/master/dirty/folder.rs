//! Where the files of a pool of dirty workers lie.

use std::os::unix::fs::chown;
use std::path::PathBuf;

use crate::service;
use crate::settings::Config;

/// The longest path of a socket (sun_path, unix(7)), without the NUL.
const LONGEST_PATH: usize = 107;

/// Room for the longest name below the folder, `4194304/worker-1000000.sock`, and a slash.
const LONGEST_NAME: usize = 28;

/// Makes a folder that only the workers' user can enter.
pub(super) fn make(config: &Config) -> Result<PathBuf, String> {
    let (user, group) = service::identity(config).map_err(|error| error.to_string())?;
    let made = tempfile::Builder::new().prefix("gunicorn-dirty-").tempdir().map_err(|error| error.to_string())?;
    let path = made.path();
    if path.as_os_str().len() + LONGEST_NAME > LONGEST_PATH {
        return Err(format!("the path '{}' is too long for sockets; set TMPDIR to a shorter one", path.display()));
    }
    if config.user.is_some() || config.group.is_some() {
        chown(path, Some(user), Some(group)).map_err(|error| error.to_string())?;
    }
    // The folder is removed by a call, not on drop: forked children hold copies of this value.
    Ok(made.keep())
}

/// The name of the pid file is gunicorn's, because operators look for the arbiter under it.
pub(super) fn pid_file_name(server: &str, is_second: bool) -> String {
    format!("gunicorn-dirty-{}{}.pid", server.replace(['/', ' '], "_"), if is_second { ".2" } else { "" })
}
