//! Memory in numbers: of a process, and of the machine (proc(5)); and giving some back.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};

use super::process::Pid;

/// The permissions of code in a process's map: nobody can have written to it.
const CODE: &str = "r-xp";

/// The resident set size of a process in bytes: every page it has in memory, shared ones too. None when it is gone.
pub fn resident(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    let page_size = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * page_size as u64)
}

/// The proportional set size of a process in bytes: a page that N processes share counts for its Nth part. The kernel walks
/// all its pages for that. None when it is gone, or belongs to another user.
pub fn proportional(pid: Pid) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")
}

/// The machine's memory in bytes.
pub fn total() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// Lets go of the code that the process has in memory (MADV_DONTNEED, madvise(2)): what runs next comes back from the page cache, the rest
/// does not, and no longer counts as the process's. For one that has a long start behind it and little to do from then on.
///
/// # Errors
/// The process's map cannot be read (proc(5)), or the kernel refuses.
pub fn give_back_code() -> io::Result<()> {
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        if let Some((start, length)) = code_of_a_file(line) {
            // SAFETY: the range is a mapping of a file that cannot be written through, so that each page is what the file says, and is read
            // from there again when it is next touched.
            let advised =
                unsafe { libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_DONTNEED) };
            Errno::result(advised)?;
        }
    }
    Ok(())
}

/// Start and length of the mapping in a line of the map, if it is one of a file's code:
/// `55d0c8a00000-55d0c8e00000 r-xp 00100000 fe:01 1234    /usr/bin/server`.
fn code_of_a_file(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, permissions, path) = (words.next()?, words.next()?, words.nth(3)?);
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    (permissions == CODE && path.starts_with('/') && start < end).then_some((start, end - start))
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
        assert!(total().unwrap() > resident);
    }

    #[test]
    fn only_code_of_files_is_given_back() {
        let path = "/usr/lib/a b.so";
        let line = |permissions, path| format!("7f0000001000-7f0000003000 {permissions} 00000000 fe:01 1234   {path}");
        assert_eq!(code_of_a_file(&line("r-xp", path)), Some((0x7f00_0000_1000, 0x2000)));
        for (permissions, path) in
            [("r--p", path), ("rw-p", path), ("rwxp", path), ("r-xs", path), ("r-xp", "[vdso]"), ("r-xp", "")]
        {
            assert_eq!(code_of_a_file(&line(permissions, path)), None, "{permissions} {path}");
        }
        // And life goes on.
        give_back_code().unwrap();
        give_back_code().unwrap();
    }

    #[test]
    fn a_process_that_is_gone_has_none() {
        let nobody = Pid::from_raw(4_194_304);
        assert_eq!((resident(nobody), proportional(nobody)), (None, None));
    }
}
