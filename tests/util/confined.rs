//! Running a command where nothing is writable but one folder, as a user without a name and without
//! a home folder: what containers and platforms like OpenShift give an application. Needs root.

use std::path::Path;

/// No account has it.
pub const UID: u32 = 1_000_670_000;

/// Root's group, as OpenShift has it. The user may read what root may, because the interpreter of
/// the tests may lie in a folder of root's; it may write nothing by that.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,bind,ro /
mount -o remount,bind,ro /dev/shm
cd "$1"
uid=$2
shift 2
exec setpriv --reuid="$uid" --regid=0 --clear-groups --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search \
  env -u USER -u LOGNAME HOME=/nonexistent "$@"
"#;

/// The words to put in front of a command so that it runs like that. `writable` becomes the user's.
pub fn words(writable: &Path) -> [String; 8] {
    std::os::unix::fs::chown(writable, Some(UID), Some(0)).expect("root may give a folder away");
    let folder = writable.display().to_string();
    let words = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", &folder, &UID.to_string()];
    words.map(str::to_string)
}
