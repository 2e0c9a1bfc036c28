//! The title under which `ps` shows a process, as setproctitle(3) of the BSDs sets it.
//!
//! Linux shows the memory that held the arguments and, once that is overwritten to its last byte,
//! the memory of the environment behind it. So the title is written there, after the environment's
//! strings have been copied to another place.
//!
//! Python's package `setproctitle` does the same with the same memory. The package searches for the
//! arguments in front of the environment, and finds neither once they are moved and overwritten;
//! [`lend`] shows it what it searches for.

use std::ffi::{CString, c_char};
use std::fs;
use std::sync::OnceLock;

/// The memory that the kernel shows as the command line.
struct Area {
    start: usize,
    length: usize,
}

/// Found at the first use.
static AREA: OnceLock<Option<Area>> = OnceLock::new();

/// Shows `title` as the command line of this process, cut to the memory's length. It does nothing
/// where the system has no such memory.
///
/// Call it while the process has a single thread: the first call moves the environment.
pub fn set(title: &str) {
    if let Some(area) = AREA.get_or_init(claim) {
        area.write(title.as_bytes());
    }
    set_name(title);
}

/// Makes the first letters of `title` the name of this thread; that of the main thread is the
/// process's (`comm`).
pub fn set_name(title: &str) {
    let shown = title.split('\0').next().unwrap_or_default();
    if let Ok(name) = CString::new(shown) {
        // It fails only for a pointer that cannot be read.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// Calls `take` while the memory looks as if the process had been started a moment ago with `count`
/// arguments, the first of which is `first`, and as if its environment stood behind them.
/// Afterwards the environment is as before; [`shown`] tells the title that `take` has written.
/// Where there is no such memory, or too little, `take` is called all the same.
pub fn lend<T>(first: &[u8], count: usize, take: impl FnOnce() -> T) -> T {
    let Some(area) = AREA.get_or_init(claim).as_ref().filter(|area| first.len() + count + 2 < area.length) else {
        return take();
    };
    let title = shown();
    let environment = area.pretend(first, count);
    let mut entries: Vec<*mut c_char> = vec![environment];
    // SAFETY: as in `move_environment`; the list that is put in its place lives until the old one
    // is back.
    let before = unsafe {
        let mut entry = libc_environ();
        while !entry.is_null() && !(*entry).is_null() {
            entries.push(*entry);
            entry = entry.add(1);
        }
        entries.push(std::ptr::null_mut());
        std::mem::replace(&mut *environ_variable(), entries.as_mut_ptr())
    };
    let taken = take();
    // SAFETY: as above. What `take` has made of the list is its own copy; the variables in it are
    // those that were there.
    unsafe { *environ_variable() = before };
    area.write(title.as_bytes());
    taken
}

/// What `ps` shows now: the title, or the arguments.
pub fn shown() -> String {
    let line = fs::read("/proc/self/cmdline").unwrap_or_default();
    String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ")
}

impl Area {
    /// Fills the memory with `count` arguments, all but the first of them empty, and one variable
    /// that takes the rest. Returns the variable.
    fn pretend(&self, first: &[u8], count: usize) -> *mut c_char {
        let mut memory = vec![b' '; self.length];
        let arguments = first.len() + count.max(1);
        memory[..arguments].fill(0);
        memory[..first.len()].copy_from_slice(first);
        memory[self.length - 1] = 0;
        // SAFETY: as in `write`: `length` bytes from `start`, and as many in `memory`.
        unsafe { std::ptr::copy_nonoverlapping(memory.as_ptr(), self.start as *mut u8, self.length) };
        (self.start + arguments) as *mut c_char
    }

    fn write(&self, title: &[u8]) {
        // One byte stays NUL: the title ends there.
        let length = title.len().min(self.length - 1);
        let memory = self.start as *mut u8;
        // SAFETY: the kernel says that `length` bytes from `start` are this process's own arguments
        // and environment, both writable; nothing reads them any more: the environment was moved
        // away, and `main` has copied the arguments.
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

/// Whether the memory really holds the command line. Under an emulator (valgrind) it holds the
/// emulator's own.
fn holds(start: usize, end: usize, command_line: &[u8]) -> bool {
    // SAFETY: the kernel says that these bytes are mapped and hold the arguments this process was
    // started with.
    let memory = unsafe { std::slice::from_raw_parts(start as *const u8, end.saturating_sub(start)) };
    !memory.is_empty() && memory == command_line
}

/// The addresses `arg_start`, `arg_end`, `env_start` and `env_end`: fields 48 to 51 of
/// proc_pid_stat(5).
fn bounds(stat: &str) -> Option<[usize; 4]> {
    // The second field is the program's name in brackets, which may hold anything; the third
    // follows its last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    let addresses: Vec<usize> =
        fields.split_ascii_whitespace().skip(48 - 3).take(4).filter_map(|field| field.parse().ok()).collect();
    <[usize; 4]>::try_from(addresses).ok().filter(|addresses| addresses[0] != 0)
}

/// Replaces each variable that lies in `range` by a copy of it, which stays for the life of the
/// process.
fn move_environment(range: std::ops::Range<usize>) {
    // SAFETY: `environ` is the list that environ(7) describes, ended by a null pointer, of
    // NUL-terminated strings; with a single thread no other code changes it meanwhile.
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
fn libc_environ() -> *mut *mut c_char {
    // SAFETY: only its value is read.
    unsafe { *environ_variable() }
}

/// Where the C library keeps that list.
fn environ_variable() -> *mut *mut *mut c_char {
    unsafe extern "C" {
        static mut environ: *mut *mut c_char;
    }
    // POSIX requires this variable of every C library; only its address is taken.
    &raw mut environ
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
