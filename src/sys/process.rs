//! Processes: signals to them, news of their end, and becoming another program.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{self, SysconfVar, sysconf};

use super::signal::Signal;

pub use nix::unistd::{Pid, getpid, getppid};

/// The working directory by the shell's name for it (`PWD`) if that name still leads there, else by
/// its real name. The shell's name may contain a symbolic link that a deploy points elsewhere; the
/// next start and the next reload then follow the link. `/` if the working directory cannot be
/// read.
pub fn working_directory() -> PathBuf {
    let Ok(real) = std::env::current_dir() else { return PathBuf::from("/") };
    let place = |path: &Path| path.metadata().map(|data| (data.dev(), data.ino())).ok();
    let named = std::env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
    named.filter(|path| place(path).is_some() && place(path) == place(&real)).unwrap_or(real)
}

/// How many descriptors this process may have open at once (RLIMIT_NOFILE); `None` for any number.
pub fn descriptor_limit() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

/// How many processors this process may run on (its affinity, and the cpuset of its cgroup); `None`
/// where that cannot be read. `root` is the root of the file system.
pub fn usable_processors(root: &Path) -> Option<usize> {
    let status = std::fs::read_to_string(root.join("proc/self/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().split(',').map(length_of_range).sum()
}

/// How many numbers a range such as `7` or `0-3` names.
fn length_of_range(range: &str) -> Option<usize> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    last.checked_sub(first)?.checked_add(1)
}

/// Raises the soft limit of descriptors to `wanted`, or as far as the hard limit allows. A higher
/// limit stays.
///
/// # Errors
/// The kernel's, from setrlimit(2).
pub fn raise_descriptor_limit(wanted: u64) -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = wanted.min(hard);
    if raised > soft {
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
    }
    Ok(())
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It called exit with this status.
    Exited(i32),
    /// A signal with this number ended it.
    Killed(i32),
}

/// The name of a signal as Python's `signal.Signals` has it ("SIGKILL"), None for a real-time one.
pub fn signal_name(number: i32) -> Option<&'static str> {
    nix::sys::signal::Signal::try_from(number).ok().map(|signal| signal.as_str())
}

/// Sends a signal (kill(2)). ESRCH when there is no such process.
pub fn kill(pid: Pid, signal: Signal) -> io::Result<()> {
    send(pid, signal.number())
}

/// Sends SIGKILL (kill(2)). ESRCH when there is no such process.
pub fn kill_hard(pid: Pid) -> io::Result<()> {
    send(pid, libc::SIGKILL)
}

fn send(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory.
    Errno::result(unsafe { libc::kill(pid.as_raw(), number) })?;
    Ok(())
}

/// Whether a process with this pid runs, also one that we must not signal (EPERM). A zombie does
/// not run.
pub fn is_alive(pid: Pid) -> bool {
    !matches!(nix::sys::signal::kill(pid, None), Err(Errno::ESRCH)) && !is_zombie(pid)
}

/// The state is the field after the process's name in brackets, and the name may contain any
/// character (proc_pid_stat(5)). False if the system does not say.
fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let name_end = stat.iter().rposition(|&byte| byte == b')');
    name_end.is_some_and(|end| matches!(stat.get(end + 2), Some(b'Z' | b'X')))
}

/// Reaps one child without waiting (waitpid(2)); None while it lives. ECHILD (the process is not a
/// child of ours, or other code has reaped it) counts as an exit with status 0, because the true
/// status is lost.
///
/// The child is reaped by its pid: waitpid(-1) would steal the exit codes of Python's subprocesses.
pub fn reap(pid: Pid) -> Option<End> {
    reap_with_cpu(pid).map(|(end, _)| end)
}

/// As [`reap`], with the processor time that the child has used, its own reaped children included
/// (wait4(2)); zero where the true status is lost.
pub fn reap_with_cpu(pid: Pid) -> Option<(End, Duration)> {
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both pointers are to live values, which the call fills.
    let found = unsafe { libc::wait4(pid.as_raw(), &mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match Errno::result(found) {
        Err(Errno::ECHILD) => Some((End::Exited(0), Duration::ZERO)),
        Ok(0) | Err(_) => None,
        Ok(_) => {
            // SAFETY: zeroes are a valid rusage, and the kernel has written one over them.
            let usage = unsafe { usage.assume_init() };
            let end = if libc::WIFEXITED(status) {
                End::Exited(libc::WEXITSTATUS(status))
            } else if libc::WIFSIGNALED(status) {
                End::Killed(libc::WTERMSIG(status))
            } else {
                return None;
            };
            Some((end, duration(usage.ru_utime) + duration(usage.ru_stime)))
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_usec as u32 * 1000)
}

/// The processor time and the memory that a living process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The processor time that the process has used, its reaped children included.
    pub cpu: Duration,
    /// The processor time that the process itself has used.
    pub own_cpu: Duration,
    /// Every page that the process has in memory, shared ones too, in bytes.
    pub resident: u64,
}

/// The usage of a process, by one reading (proc_pid_stat(5), fields 14 to 17 and 24). `None` when
/// the process is gone.
pub fn usage(pid: Pid) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets is the second field, and may contain any character.
    let mut fields = stat[stat.rfind(')')? + 2..].split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (own, of_children) = (ticks()? + ticks()?, ticks()? + ticks()?);
    let pages: u64 = fields.nth(6)?.parse().ok()?;
    let (per_second, page_size) = (sysconf(SysconfVar::CLK_TCK).ok()??, sysconf(SysconfVar::PAGE_SIZE).ok()??);
    let time = |ticks: u64| Duration::from_micros(ticks * 1_000_000 / per_second as u64);
    Some(Usage { cpu: time(own + of_children), own_cpu: time(own), resident: pages * page_size as u64 })
}

/// How many files a process has open. `None` when it is gone or belongs to another user.
pub fn open_files(pid: Pid) -> Option<u64> {
    let folder = format!("/proc/{pid}/fd");
    // The size of the folder is their number since Linux 6.2, and 0 before.
    let told = std::fs::metadata(&folder).ok()?.len();
    if told > 0 { Some(told) } else { Some(std::fs::read_dir(folder).ok()?.count() as u64) }
}

/// How many files a process may have open (RLIMIT_NOFILE, proc(5)); `None` without a limit, or when
/// it is gone.
pub fn open_files_limit(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let values = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    values.split_whitespace().next()?.parse().ok()
}

/// Whether a process is a child of this one, alive or a zombie.
pub fn is_child(pid: Pid) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    pid.as_raw() > 0 && !matches!(waitid(Id::Pid(pid), look), Err(Errno::ECHILD))
}

/// Reaps the orphans that the kernel hands to PID 1 and to subreapers (PR_SET_CHILD_SUBREAPER,
/// prctl(2)); other processes get none. Children for which `is_ours` holds are left to [`reap`]:
/// the function looks at each child before it takes the status.
pub fn reap_orphans(is_ours: impl Fn(Pid) -> bool) {
    let adopts = getpid().as_raw() == 1 || prctl::get_child_subreaper().unwrap_or(false);
    while adopts
        && let Some(pid) = ended_child()
        && !is_ours(pid)
    {
        let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
    }
}

/// A child that has ended and waits to be reaped, if there is one (waitid(2)). nix's call fails for
/// a child that a real-time signal has killed, and does so for ever: the child stays in place.
fn ended_child() -> Option<Pid> {
    let mut told = MaybeUninit::<libc::siginfo_t>::zeroed();
    let look = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to a live value, which the call fills.
    Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, told.as_mut_ptr(), look) }).ok()?;
    // SAFETY: zeroes are a valid siginfo_t, and so is what the kernel writes over them. The pid is
    // among what waitid(2) writes, and 0 where no child has ended.
    let pid = unsafe { told.assume_init().si_pid() };
    (pid != 0).then(|| Pid::from_raw(pid))
}

/// Asks the kernel to end this process with SIGTERM when `parent` dies (PR_SET_PDEATHSIG,
/// prctl(2)), and says whether `parent` is still there: it may have died before the request.
/// Changing user or group clears the request, so call it after privileges are dropped.
pub fn end_with_parent(parent: Pid) -> io::Result<bool> {
    prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
    Ok(getppid() == parent)
}

/// As [`end_with_parent`], with SIGKILL: for a process that may not get to handle a signal.
pub fn die_with_parent(parent: Pid) -> io::Result<bool> {
    prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Ok(getppid() == parent)
}

/// Lets a descriptor live through exec.
pub fn keep_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: only borrowed for the call; a number that is not open is answered with EBADF.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// Takes [`keep_on_exec`] back.
pub fn close_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: as in `keep_on_exec`.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Takes the descriptor that an earlier program in this process, or the parent, has left open under
/// this number; it is closed on exec from now on. Each number may be taken once, by the code that
/// it was passed to. EBADF where the number is not open, or that of a standard stream.
pub fn inherited_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= libc::STDERR_FILENO {
        return Err(Errno::EBADF.into());
    }
    close_on_exec(fd)?;
    // SAFETY: it is open, as was just seen, and the program was started with it: nothing else in
    // the process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Becomes another program (execve(2)): returns only if that fails. `program` is searched for in
/// PATH if it has no slash.
pub fn exec(program: &OsStr, arguments: &[OsString], environment: &[(OsString, OsString)]) -> io::Result<Infallible> {
    let program = CString::new(program.as_bytes())?;
    let arguments: Vec<CString> =
        arguments.iter().map(|text| CString::new(text.as_bytes())).collect::<Result<_, _>>()?;
    let environment: Vec<CString> = environment
        .iter()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<_, _>>()?;
    Ok(unistd::execvpe(&program, &arguments, &environment)?)
}

/// The path that execve(2) was called with to start this process (AT_EXECFN, getauxval(3)). For a
/// script it is the script's path, though the kernel has started the script's interpreter. None if
/// the system does not say.
pub fn executed_path() -> Option<OsString> {
    // SAFETY: getauxval(3) only reads what the kernel wrote at the start, and returns 0 for an
    // entry that is missing.
    let path = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if path.is_null() {
        return None;
    }
    // SAFETY: AT_EXECFN points to a NUL-terminated string that the kernel wrote; it stays as long
    // as the process.
    let path = unsafe { CStr::from_ptr(path) };
    Some(OsStr::from_bytes(path.to_bytes()).to_owned())
}

/// Opens /dev/null for each standard stream that is closed, so that no socket gets its number. Rust
/// does so when a program starts; a Python interpreter does not.
pub fn open_standard_streams() -> io::Result<()> {
    for number in 0..=2 {
        // SAFETY: F_GETFD touches no memory; a closed number is answered with EBADF.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
            // open(2) takes the lowest free number, which is this one. Standard streams stay open
            // on exec.
            let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
            keep_on_exec(null.into_raw_fd())?;
        }
    }
    Ok(())
}

/// Ends the process at once: no destructors, no atexit handlers (_exit(2)). For forked children:
/// these are the parent's to run.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) runs no code of ours.
    unsafe { libc::_exit(status) }
}

/// Reads an environment variable and removes it, so that neither the app nor its children see it.
/// For the master's start only.
pub fn take_environment(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    // SAFETY: the master calls this at its start, and the server starts no thread in the master.
    // Threads of Python code (an embedding program, a config file) read `os.environ`, which is a
    // copy; C code of theirs that calls getenv(3) at this moment is as exposed as when Python
    // itself removes a variable (os.unsetenv()).
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// As [`take_environment`], for a number; None if the text is not a number of this type.
pub fn take_environment_number<T: FromStr>(name: &str) -> Option<T> {
    take_environment(name)?.to_str()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::fork::{Forked, fork};
    use super::*;

    fn ended(child: std::process::Child) -> End {
        end_of(Pid::from_raw(child.id() as i32))
    }

    fn end_of(pid: Pid) -> End {
        for _ in 0..1000 {
            if let Some(end) = reap(pid) {
                return end;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_hard(pid).unwrap();
        panic!("{pid} did not end");
    }

    /// A child that does this, and ends.
    fn forked(action: impl FnOnce()) -> Pid {
        match fork().unwrap() {
            Forked::Child => {
                action();
                exit_now(0)
            }
            Forked::Parent(pid) => pid,
        }
    }

    /// Reaps orphans until this process has no child. False if one stays for seconds.
    fn reaps_all() -> bool {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        (0..500).any(|_| {
            reap_orphans(|_| false);
            std::thread::sleep(Duration::from_millis(10));
            matches!(waitid(Id::All, look), Err(Errno::ECHILD))
        })
    }

    fn shell(script: &str) -> std::process::Child {
        std::process::Command::new("sh").args(["-c", script]).spawn().unwrap()
    }

    #[test]
    fn the_end_of_a_child_says_how() {
        for (script, end) in [
            ("exit 0", End::Exited(0)),
            ("exit 3", End::Exited(3)),
            ("kill -KILL $$", End::Killed(libc::SIGKILL)),
            ("kill -SEGV $$", End::Killed(libc::SIGSEGV)),
        ] {
            assert_eq!(ended(shell(script)), end, "{script}");
        }
    }

    #[test]
    fn a_child_that_was_never_ours_has_ended() {
        assert_eq!(reap(Pid::from_raw(1)), Some(End::Exited(0)));
    }

    #[test]
    fn zombies_are_children_and_strangers_are_not() {
        let mut child = shell("exit 0");
        let pid = Pid::from_raw(child.id() as i32);
        assert!(is_child(pid));
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert!(is_child(pid));
        child.wait().unwrap();
        assert!(![pid, getpid(), getppid(), Pid::from_raw(0), Pid::from_raw(-1)].into_iter().any(is_child));
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        assert!(is_alive(pid) && is_alive(getpid()));
        drop(child.stdin.take());
        // Waits for its end and leaves it a zombie.
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert!(!is_alive(pid));
        child.wait().unwrap();
    }

    #[test]
    fn an_orphan_that_was_killed_by_a_real_time_signal_is_reaped_and_so_is_the_next() {
        let reaper = forked(|| {
            let is_set = prctl::set_child_subreaper(true).is_ok();
            for signal in [40, 0] {
                // The process between ends at once, and leaves an orphan.
                forked(|| {
                    forked(|| {
                        let _ = send(getpid(), signal);
                    });
                });
            }
            exit_now(if is_set && reaps_all() { 3 } else { 4 })
        });
        assert_eq!(end_of(reaper), End::Exited(3));
    }

    #[test]
    fn signals_have_their_names() {
        assert_eq!(signal_name(libc::SIGKILL), Some("SIGKILL"));
        assert_eq!(signal_name(40), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(exec(OsStr::new("/proc/nonexistent/program"), &[], &[]).is_err());
    }
}
