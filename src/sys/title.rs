//! The title under which `ps` shows a process, as setproctitle(3) of the BSDs sets it.
//!
//! Linux shows the memory that held the arguments and, once that is overwritten to its last byte, the memory of the environment behind
//! it. So the title is written there, after the environment's strings have been copied to another place.

use std::fs;
use std::sync::OnceLock;

/// The memory that the kernel shows as the command line.
struct Area {
    start: usize,
    length: usize,
}

/// Shows `title` as the command line of this process, cut to the room there is. Does nothing where the system has no such memory.
///
/// Must be called while the process has a single thread: the environment moves at the first call.
pub fn set(title: &str) {
    static AREA: OnceLock<Option<Area>> = OnceLock::new();
    if let Some(area) = AREA.get_or_init(claim) {
        area.write(title.as_bytes());
    }
}

impl Area {
    fn write(&self, title: &[u8]) {
        // One byte stays NUL: the title ends there.
        let length = title.len().min(self.length - 1);
        let memory = self.start as *mut u8;
        // SAFETY: the kernel says that `length` bytes from `start` are this process's own arguments and environment, both writable;
        // nothing reads them any more: the environment was moved away, and `main` has copied the arguments.
        unsafe {
            std::ptr::copy_nonoverlapping(title.as_ptr(), memory, length);
            std::ptr::write_bytes(memory.add(length), 0, self.length - length);
        }
    }
}

fn claim() -> Option<Area> {
    let [arguments, arguments_end, environment, environment_end] =
        bounds(&fs::read_to_string("/proc/self/stat").ok()?)?;
    if !holds(arguments, arguments_end, &fs::read("/proc/self/cmdline").ok()?) {
        return None;
    }
    if environment == arguments_end && environment_end > environment {
        move_environment(environment..environment_end);
        return Some(Area { start: arguments, length: environment_end - arguments });
    }
    (arguments_end > arguments).then(|| Area { start: arguments, length: arguments_end - arguments })
}

/// Whether the memory really holds the command line. Under an emulator (valgrind) it is the emulator's own.
fn holds(start: usize, end: usize, command_line: &[u8]) -> bool {
    // SAFETY: the kernel says that these bytes are mapped and hold the arguments this process was started with.
    let memory = unsafe { std::slice::from_raw_parts(start as *const u8, end.saturating_sub(start)) };
    !memory.is_empty() && memory == command_line
}

/// The addresses `arg_start`, `arg_end`, `env_start` and `env_end`: fields 48 to 51 of proc_pid_stat(5).
fn bounds(stat: &str) -> Option<[usize; 4]> {
    // The second field is the program's name in brackets, which may hold anything; the third follows its last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    let addresses: Vec<usize> =
        fields.split_ascii_whitespace().skip(48 - 3).take(4).filter_map(|field| field.parse().ok()).collect();
    <[usize; 4]>::try_from(addresses).ok().filter(|addresses| addresses[0] != 0)
}

/// Replaces each variable that lies in `range` by a copy of it, which stays for the life of the process.
fn move_environment(range: std::ops::Range<usize>) {
    // SAFETY: `environ` is the list that environ(7) describes, ended by a null pointer, of NUL-terminated strings; with a single thread
    // nobody else changes it meanwhile.
    unsafe {
        let mut entry = libc_environ();
        while !entry.is_null() && !(*entry).is_null() {
            if range.contains(&(*entry).addr()) {
                let copy = libc::strdup(*entry);
                if !copy.is_null() {
                    *entry = copy;
                }
            }
            entry = entry.add(1);
        }
    }
}

/// The C library's list of variables.
fn libc_environ() -> *mut *mut libc::c_char {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: POSIX requires this variable of every C library; only its value is read.
    unsafe { environ }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_found_behind_any_program_name() {
        let fields: Vec<String> = (3..=52).map(|number| number.to_string()).collect();
        let stat = format!("7 (a) b (c) {}", fields.join(" "));
        assert_eq!(bounds(&stat), Some([48, 49, 50, 51]));
        assert_eq!(bounds("7 (a) S 1"), None);
    }
}
