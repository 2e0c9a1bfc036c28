//! A cgroup (version 1) of the test's own, below the one the test runs in; gone when the test is.

use std::fs;
use std::path::{Path, PathBuf};

use super::wait_at_most;
use std::time::Duration;

pub struct Cgroup(PathBuf);

impl Cgroup {
    /// None where no such group may be made.
    pub fn new(controller: &str) -> Option<Cgroup> {
        let memberships = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = memberships.lines().find_map(|line| line.split_once(&format!(":{controller}:")))?.1.to_string();
        let parent = Path::new("/sys/fs/cgroup").join(controller).join(own.trim_start_matches('/'));
        let path = parent.join(format!("monoceros-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Cgroup(path))
    }

    #[track_caller]
    pub fn set(&self, name: &str, value: impl ToString) {
        fs::write(self.0.join(name), value.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    #[track_caller]
    pub fn add(&self, pid: i32) {
        self.set("cgroup.procs", pid);
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It can only be removed without processes in it.
        let _ = std::panic::catch_unwind(|| {
            wait_at_most(Duration::from_secs(5), "the group to be empty", || fs::remove_dir(&self.0).is_ok());
        });
    }
}
