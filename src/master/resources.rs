//! What there is for workers: processors and memory, as the platform, the cgroup and the machine
//! have them.
//!
//! `python/monoceros_env/_sizing.py` reads the same, for servers that only know `WEB_CONCURRENCY`.
//! A test compares the two.

use std::num::NonZero;
use std::path::Path;
use std::thread;

use log::warn;

use crate::bootstrap::variable;
use crate::settings::Config;
use crate::sys::{cgroup, memory, process};

/// How many processors to count on, instead of those that the kernel lets the process use. It is
/// for a pod that requests processors and has no limit: such a pod may use all processors of its
/// node.
const PROCESSORS_VARIABLE: &str = "MONOCEROS_CPUS";

/// Cloud Foundry's name for the memory of an instance: `512M`, `2G`.
const MEMORY_VARIABLE: &str = "MEMORY_LIMIT";

/// OpenShift's and Jelastic's name for the memory of a gear, in MiB.
const GEAR_VARIABLE: &str = "OPENSHIFT_GEAR_MEMORY_MB";

/// What the workers may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resources {
    /// At least one.
    pub processors: usize,
    /// In bytes; `None` if unknown.
    pub memory: Option<u64>,
    /// Whether the memory is a limit that the platform or the cgroup sets, and not merely all that
    /// the machine has.
    pub is_limited: bool,
}

impl Resources {
    /// Looks at the environment that `config` makes, at the cgroup and at the machine.
    pub fn measure(config: &Config) -> Resources {
        Resources::read(&|name| variable(config, name), Path::new("/"))
    }

    fn read(environment: &dyn Fn(&str) -> Option<String>, root: &Path) -> Resources {
        let said = environment(MEMORY_VARIABLE).and_then(|text| bytes(&text));
        let of_gear = || {
            environment(GEAR_VARIABLE)
                .and_then(|text| digits(text.trim()))
                .and_then(|mebibytes| mebibytes.checked_mul(1 << 20))
        };
        let limit =
            [said.or_else(of_gear).filter(|&bytes| bytes > 0), cgroup::memory_limit(root)].into_iter().flatten().min();
        let memory = [limit, memory::total(root)].into_iter().flatten().min();
        Resources { processors: processors(environment, root), memory, is_limited: limit.is_some() && limit == memory }
    }
}

/// Warns if the operator's number of processors cannot be read, and so has no effect.
pub(super) fn warn_of_unreadable(config: &Config) {
    let given = variable(config, PROCESSORS_VARIABLE).filter(|text| !text.trim().is_empty());
    if let Some(text) = given.filter(|text| thousandths(text).is_none()) {
        warn!(
            "{PROCESSORS_VARIABLE} is {text:?}, not a number of processors such as 2, 1.5 or 1500m: it has no effect"
        );
    }
}

fn processors(environment: &dyn Fn(&str) -> Option<String>, root: &Path) -> usize {
    if let Some(thousandths) = environment(PROCESSORS_VARIABLE).and_then(|text| thousandths(&text)) {
        return whole(thousandths);
    }
    let usable = process::usable_processors(root);
    let usable = usable.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
    usable.min(cgroup::cpu_quota(root).map_or(usize::MAX, whole)).max(1)
}

/// A part of a processor counts as a whole one: a worker that waits needs none.
fn whole(thousandths: u64) -> usize {
    usize::try_from(thousandths.div_ceil(1000)).unwrap_or(usize::MAX).max(1)
}

/// Kubernetes' forms of a number of processors: `2`, `1.5`, `1500m`. More digits than three behind
/// the point do not count.
fn thousandths(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(count) = text.strip_suffix('m') {
        return digits(count).filter(|&count| count > 0);
    }
    let (before, behind) = text.split_once('.').unwrap_or((text, "0"));
    digits(behind)?;
    let behind = digits(&format!("{behind:0<3}")[..3])?;
    digits(before)?.checked_mul(1000)?.checked_add(behind).filter(|&count| count > 0)
}

/// `512M`, `2GB`, `1g`: powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_uppercase();
    let text = text.strip_suffix('B').unwrap_or(&text);
    let units = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let (count, unit) = units.into_iter().find_map(|(letter, unit)| Some((text.strip_suffix(letter)?, unit)))?;
    digits(count)?.checked_mul(unit)
}

/// A number without a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Names and what they hold.
    type Texts<'a> = &'a [(&'a str, &'a str)];

    /// A root of a file system with these files.
    fn root_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn read(variables: &[(&str, &str)], files: &[(&str, &str)]) -> Resources {
        let find = |name: &str| variables.iter().find(|(given, _)| *given == name).map(|(_, text)| (*text).to_owned());
        Resources::read(&find, root_of(files).path())
    }

    const STATUS: (&str, &str) = ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-3,8\n");
    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        4194304 kB\n");

    #[test]
    fn the_smallest_of_what_is_said_and_read_is_the_memory() {
        let group: &[(&str, &str)] =
            &[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "1073741824\n"), MACHINE];
        let cases: [(Texts<'_>, Texts<'_>, Option<u64>, bool); 9] = [
            (&[], &[], None, false),
            (&[], &[MACHINE], Some(4096), false),
            (&[], group, Some(1024), true),
            (&[(MEMORY_VARIABLE, "512M")], group, Some(512), true),
            (&[(MEMORY_VARIABLE, " 2gb ")], group, Some(1024), true),
            (&[(MEMORY_VARIABLE, "8G")], &[MACHINE], Some(4096), false),
            (&[(GEAR_VARIABLE, "768")], &[MACHINE], Some(768), true),
            (&[(MEMORY_VARIABLE, "much"), (GEAR_VARIABLE, "768")], &[], Some(768), true),
            (&[(MEMORY_VARIABLE, "-1M"), (GEAR_VARIABLE, "0")], &[MACHINE], Some(4096), false),
        ];
        for (variables, files, mebibytes, is_limited) in cases {
            let found = read(variables, files);
            assert_eq!(
                (found.memory.map(|bytes| bytes >> 20), found.is_limited),
                (mebibytes, is_limited),
                "{variables:?}"
            );
        }
    }

    #[test]
    fn processors_are_those_that_may_be_used_or_that_are_named() {
        let quota: &[(&str, &str)] =
            &[STATUS, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "150000 100000\n")];
        let cases: [(Texts<'_>, Texts<'_>, usize); 10] = [
            (&[], &[STATUS], 5),
            (&[], quota, 2),
            (&[(PROCESSORS_VARIABLE, "3")], quota, 3),
            (&[(PROCESSORS_VARIABLE, "1.5")], &[STATUS], 2),
            (&[(PROCESSORS_VARIABLE, "0.1234")], &[STATUS], 1),
            (&[(PROCESSORS_VARIABLE, "2500m")], &[STATUS], 3),
            (&[(PROCESSORS_VARIABLE, "0")], &[STATUS], 5),
            (&[(PROCESSORS_VARIABLE, "1.")], &[STATUS], 5),
            (&[(PROCESSORS_VARIABLE, "many")], &[STATUS], 5),
            (&[(PROCESSORS_VARIABLE, "")], &[STATUS], 5),
        ];
        for (variables, files, count) in cases {
            assert_eq!(read(variables, files).processors, count, "{variables:?}");
        }
    }
}
