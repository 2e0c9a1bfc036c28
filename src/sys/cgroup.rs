//! The limits of memory and processor time that this process's cgroup sets, and the kernel's
//! out-of-memory kills.
//!
//! Both versions of cgroups (cgroups(7)) are read, at the place where distributions and containers
//! mount them. A missing file means "unknown", never an error.

use std::fs;
use std::path::{Path, PathBuf};

/// Where cgroups are mounted, below the root; version 1 has a folder for each controller there.
const MOUNT: &str = "sys/fs/cgroup";

/// The cgroups that this process belongs to, below the root.
const MEMBERSHIPS: &str = "proc/self/cgroup";

/// Version 1 says "no limit" by a number of pages near the end of the address space.
const NO_LIMIT: u64 = 1 << 60;

/// The least memory that the process's cgroup, or one around it, may use, in bytes; None where
/// nothing limits it. `root` is the root of the file system.
pub fn memory_limit(root: &Path) -> Option<u64> {
    Group::of_this_process(root, Controller::Memory)?.memory_limit()
}

/// The least processor time that the process's cgroup, or one around it, gets, in thousandths of a
/// processor; None where nothing limits it. `root` is the root of the file system.
pub fn cpu_quota(root: &Path) -> Option<u64> {
    Group::of_this_process(root, Controller::Cpu)?.cpu_quota()
}

/// How many processes of this process's cgroup the kernel has killed for want of memory; None where
/// the kernel does not count them.
pub fn oom_kills() -> Option<u64> {
    Group::of_this_process(Path::new("/"), Controller::Memory)?.oom_kills()
}

/// How many processes of the whole system the kernel has killed for want of memory (proc(5),
/// vmstat).
pub fn system_oom_kills() -> Option<u64> {
    field(&fs::read_to_string("/proc/vmstat").ok()?, "oom_kill")
}

/// A controller accounts for one resource. In version 1 each has a hierarchy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
        }
    }
}

/// A cgroup that one controller accounts for.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    version: CgroupVersion,
    /// Its folder and those around it, the innermost first.
    folders: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CgroupVersion {
    One,
    Two,
}

impl Group {
    fn of_this_process(root: &Path, controller: Controller) -> Option<Group> {
        Group::find(&fs::read_to_string(root.join(MEMBERSHIPS)).ok()?, &root.join(MOUNT), controller)
    }

    /// Finds the group in `memberships`, lines of "number:controllers:path"; version 2 has the
    /// number 0 and no controllers. On a hybrid system the version 1 hierarchy accounts for memory
    /// and processors.
    fn find(memberships: &str, mount: &Path, controller: Controller) -> Option<Group> {
        let lines = memberships.lines().filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            Some((controllers, path))
        });
        let has_it = |(controllers, _): &(&str, &str)| controllers.split(',').any(|name| name == controller.name());
        if let Some((_, path)) = lines.clone().find(has_it) {
            return Some(Group::at(CgroupVersion::One, &mount.join(controller.name()), path));
        }
        let (_, path) = lines.clone().find(|(controllers, _)| controllers.is_empty())?;
        Some(Group::at(CgroupVersion::Two, mount, path))
    }

    /// In a container the path may be the host's, which cannot be seen from inside: then the mount
    /// itself is the group.
    fn at(version: CgroupVersion, mount: &Path, path: &str) -> Group {
        let inner = mount.join(path.trim_start_matches('/'));
        let inner = if inner.is_dir() { inner } else { mount.to_path_buf() };
        let folders = inner.ancestors().take_while(|folder| folder.starts_with(mount)).map(Path::to_path_buf).collect();
        Group { version, folders }
    }

    fn memory_limit(&self) -> Option<u64> {
        let file = match self.version {
            CgroupVersion::One => "memory.limit_in_bytes",
            CgroupVersion::Two => "memory.max",
        };
        let limits = self.folders.iter().filter_map(|folder| number(&folder.join(file)));
        limits.filter(|&limit| limit < NO_LIMIT).min()
    }

    fn cpu_quota(&self) -> Option<u64> {
        let of_folder = |folder: &PathBuf| match self.version {
            CgroupVersion::One => {
                share(number(&folder.join("cpu.cfs_quota_us"))?, number(&folder.join("cpu.cfs_period_us"))?)
            }
            CgroupVersion::Two => {
                let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
                let (quota, period) = text.trim().split_once(' ')?;
                share(quota.parse().ok()?, period.parse().ok()?)
            }
        };
        self.folders.iter().filter_map(of_folder).min()
    }

    fn oom_kills(&self) -> Option<u64> {
        let file = match self.version {
            CgroupVersion::One => "memory.oom_control",
            CgroupVersion::Two => "memory.events",
        };
        field(&fs::read_to_string(self.folders.first()?.join(file)).ok()?, "oom_kill")
    }
}

/// The number in a file; None for a word such as "max".
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A quota of microseconds in each period as thousandths of a processor.
fn share(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1000)?.checked_div(period)
}

/// The number behind `name` in lines of "name number".
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_read_with_the_tightest_limit_around_it() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("app/web");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("app/memory.max"), "1000000\n").unwrap();
        fs::write(inner.join("memory.events"), "low 0\noom 4\noom_kill 3\noom_group_kill 0\n").unwrap();
        let group = Group::find("0::/app/web\n", root.path(), Controller::Memory).unwrap();
        assert_eq!((group.memory_limit(), group.oom_kills()), (Some(1_000_000), Some(3)));
    }

    #[test]
    fn version_1_is_read_where_the_memory_controller_says() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("memory/app");
        fs::create_dir_all(&inner).unwrap();
        fs::write(root.path().join("memory/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        fs::write(inner.join("memory.limit_in_bytes"), "2000000\n").unwrap();
        fs::write(inner.join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n").unwrap();
        let memberships = "5:cpu,cpuacct:/\n4:memory:/app\n0::/elsewhere\n";
        let group = Group::find(memberships, root.path(), Controller::Memory).unwrap();
        assert_eq!((group.memory_limit(), group.oom_kills()), (Some(2_000_000), Some(1)));
    }

    #[test]
    fn a_quota_is_read_in_both_versions_with_the_tightest_around_it() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/fs/cgroup/app/web/cpu.max", "max 100000\n");
        write("sys/fs/cgroup/app/cpu.max", "150000 100000\n");
        write("sys/fs/cgroup/cpu/old/cpu.cfs_quota_us", "50000\n");
        write("sys/fs/cgroup/cpu/old/cpu.cfs_period_us", "100000\n");
        write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
        write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        for (memberships, quota) in [("0::/app/web\n", 1500), ("3:cpu,cpuacct:/old\n0::/app\n", 500)] {
            write("proc/self/cgroup", memberships);
            assert_eq!(cpu_quota(root.path()), Some(quota), "{memberships}");
        }
        write("proc/self/cgroup", "3:cpu,cpuacct:/\n");
        assert_eq!(cpu_quota(root.path()), None, "-1 is no limit");
    }

    #[test]
    fn a_path_of_the_host_means_the_mount_itself() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("memory.max"), "5000\n").unwrap();
        let group = Group::find("0::/docker/abcdef\n", root.path(), Controller::Memory).unwrap();
        assert_eq!((group.memory_limit(), group.oom_kills()), (Some(5000), None));
    }

    #[test]
    fn without_cgroups_nothing_is_known() {
        assert_eq!(Group::find("", Path::new("/proc/nonexistent"), Controller::Memory), None);
        assert_eq!(
            Group::find("0::/\n", Path::new("/proc/nonexistent"), Controller::Memory).unwrap().memory_limit(),
            None
        );
    }
}
