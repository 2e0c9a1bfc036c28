//! Memory in numbers: of a process, and of the machine (proc(5)).

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use super::process::Pid;

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
    fn a_process_that_is_gone_has_none() {
        let nobody = Pid::from_raw(4_194_304);
        assert_eq!((resident(nobody), proportional(nobody)), (None, None));
    }
}
