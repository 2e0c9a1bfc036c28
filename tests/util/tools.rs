//! Programs that tests ask and that no virtualenv has.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use super::is_root;

/// Whether a program is there. apt brings it where it can; where not, a sentence names the package,
/// which has the same name.
pub fn has(tool: &str) -> bool {
    let is_there = bring(tool, tool);
    if !is_there {
        println!("skipped: no {tool} on this machine; Debian, Ubuntu: apt-get install {tool}");
    }
    is_there
}

/// Whether a program is there, after apt has tried to bring it with its package.
pub fn bring(tool: &str, package: &str) -> bool {
    static APT: Mutex<()> = Mutex::new(());
    let _one_at_a_time = APT.lock();
    let is_there = || Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there() && is_root() {
        let script = format!("apt-get update -qq && apt-get install -qq --yes --no-install-recommends {package}");
        let _ = Command::new("sh").args(["-c", &script]).env("DEBIAN_FRONTEND", "noninteractive").output();
    }
    is_there()
}

/// The same for programs without a `--version` by which to ask, such as many daemons: nothing is
/// fetched for them.
pub fn program_on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    let found = std::env::split_paths(&folders).chain(sbin).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        println!("skipped: no {name} on this machine; Debian: apt-get install runit s6 monit logrotate nginx");
    }
    found
}
