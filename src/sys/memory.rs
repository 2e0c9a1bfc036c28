//! The memory of a process and of the machine in numbers (proc(5)), and giving some back.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{SysconfVar, sysconf};

use super::process::Pid;

/// The resident set size of a process in bytes: every page it has in memory, shared ones too. None
/// when the process is gone.
pub fn resident(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    let page_size = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * page_size as u64)
}

/// The proportional set size of a process in bytes: a page that N processes share counts for its
/// Nth part. The kernel walks all pages of the process for that. None when the process is gone, or
/// belongs to another user.
pub fn proportional(pid: Pid) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")
}

/// The machine's memory in bytes. `root` is the root of the file system.
pub fn total(root: &Path) -> Option<u64> {
    kilobytes(&fs::read_to_string(root.join("proc/meminfo")).ok()?, "MemTotal:")
}

/// An unnamed file in memory (memfd_create(2)) that holds these bytes, to be read from its start.
///
/// # Errors
/// No descriptor or no memory is left, or the machine has no such files (`vm.memfd_noexec`).
pub fn file_of(bytes: &[u8]) -> io::Result<File> {
    // Kernels before 6.3 do not know the second flag; later ones warn without it.
    let not_executable = MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let made = memfd_create(c"body", not_executable).or_else(|_| memfd_create(c"body", MFdFlags::MFD_CLOEXEC));
    let mut file = File::from(made?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Gives back the pages of code that the process has in memory (MADV_DONTNEED, madvise(2)). Code
/// that runs again is mapped from the page cache; the rest no longer counts as the process's
/// memory. This is for a process that does little after a long start. Code that a debugger, a
/// tracer or an agent has changed stays.
///
/// # Errors
/// The process's map cannot be read (proc(5)), or the kernel refuses.
pub fn give_back_code() -> io::Result<()> {
    for (start, length) in unchanged_code(&fs::read_to_string("/proc/self/smaps")?) {
        // SAFETY: the range is a private mapping of a file, not writable, of which no page is the
        // process's own: each is what the file says, and is read from there again when it is next
        // touched.
        let advised = unsafe { libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_DONTNEED) };
        Errno::result(advised)?;
    }
    Ok(())
}

/// Start and length of each mapping of a file's code in the map, if the process has no page of its
/// own in it: `55d0c8a00000-55d0c8e00000 r-xp 00100000 fe:01 1234    /usr/bin/server`, and further
/// down `Anonymous:             0 kB`.
fn unchanged_code(map: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in map.lines() {
        match line.strip_prefix("Anonymous:") {
            Some(size) if size.trim() == "0 kB" => found.extend(current.take()),
            // The first line of a mapping begins with its addresses, the others with a name.
            None if !line.starts_with(|first: char| first.is_ascii_uppercase()) => current = code_of_a_file(line),
            _ => {}
        }
    }
    found
}

fn code_of_a_file(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, permissions, path) = (words.next()?, words.next()?, words.nth(3)?);
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    (permissions == "r-xp" && path.starts_with('/') && start < end).then_some((start, end - start))
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_some_memory_and_less_of_its_own() {
        let pid = super::super::process::getpid();
        let (resident, proportional) = (resident(pid).unwrap(), proportional(pid).unwrap());
        assert!(resident > 100_000 && proportional > 100_000);
        assert!(total(Path::new("/")).unwrap() > resident);
    }

    #[test]
    fn only_unchanged_code_of_files_is_given_back() {
        let mapping = |permissions, path, anonymous| {
            let size = "Size:                  8 kB\nRss:                   8 kB";
            format!(
                "7f0000001000-7f0000003000 {permissions} 00000000 fe:01 1234   {path}\n{size}\nAnonymous:       {anonymous} kB\n"
            )
        };
        let path = "/usr/lib/a b.so";
        let kept = [
            ("r--p", path, 0),
            ("rwxp", path, 0),
            ("r-xs", path, 0),
            ("r-xp", "[vdso]", 0),
            ("r-xp", "", 0),
            ("r-xp", path, 4),
        ];
        let map = kept.map(|(permissions, path, anonymous)| mapping(permissions, path, anonymous)).concat();
        assert_eq!(unchanged_code(&map), []);
        let map = format!("{map}{}{map}", mapping("r-xp", path, 0));
        assert_eq!(unchanged_code(&map), [(0x7f00_0000_1000, 0x2000)]);
        // The process goes on.
        give_back_code().unwrap();
        give_back_code().unwrap();
    }

    #[test]
    fn a_process_that_is_gone_has_none() {
        let missing = Pid::from_raw(4_194_304);
        assert_eq!((resident(missing), proportional(missing)), (None, None));
    }
}
