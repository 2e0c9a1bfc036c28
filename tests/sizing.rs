//! How many workers `workers = auto` starts, and when it finds another number.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGHUP, SIGTTIN};

use crate::util::cgroup::Cgroup;
use crate::util::server::Plan;
use crate::util::{is_long, python, root, wait_at_most, wait_until};

/// The variables that a platform sets, and the number of workers that they make.
const CASES: [(&[(&str, &str)], usize); 5] = [
    (&[("MONOCEROS_CPUS", "2"), ("MEMORY_LIMIT", "512M")], 2),
    (&[("MONOCEROS_CPUS", "8"), ("OPENSHIFT_GEAR_MEMORY_MB", "1024")], 4),
    (&[("MONOCEROS_CPUS", "1500m"), ("MEMORY_LIMIT", "64G")], 5),
    (&[("MONOCEROS_CPUS", "1"), ("MEMORY_LIMIT", "nothing")], 3),
    (&[("MEMORY_LIMIT", "300M")], 1),
];

#[test]
fn auto_counts_with_what_the_platform_says() {
    for (variables, count) in CASES {
        let server = auto(variables).start();
        server.wait_for_workers(count);
        server.wait_for_log(&format!("workers = auto: {count} for "));
        server.finish();
    }
}

/// For servers that know only `WEB_CONCURRENCY`.
#[test]
fn monoceros_env_finds_the_number_that_auto_finds() {
    let cases = CASES.iter().map(|(variables, _)| *variables);
    for variables in cases.chain([&[] as &[(&str, &str)], &[("MONOCEROS_CPUS", "0.5")]]) {
        let told = Command::new(python())
            .args(["-c", "import os; from monoceros_env import _sizing; print(_sizing.web_concurrency(os.environ))"])
            .env("PYTHONPATH", root().join("python"))
            .envs(variables.iter().copied())
            .output()
            .expect("a Python");
        let count = String::from_utf8_lossy(&told.stdout).trim().to_owned();
        let server = auto(variables).start();
        server.wait_for_log(&format!("workers = auto: {count} for "));
    }
}

#[test]
fn a_memory_without_room_for_a_worker_is_warned_of() {
    let mut server = auto(&[("MEMORY_LIMIT", "100M")]).start();
    server.wait_for_workers(1);
    server.wait_for_log("[WARNING] A memory of 100 MB has no room for a worker of 256 MB; one is started all the same");
    server.allow("has no room for a worker");
    server.finish();
    let mut server = Plan::app("echo").args(["--workers", "4"]).env("MEMORY_LIMIT", "100M").start();
    server.wait_for_workers(4);
    server.wait_for_log("[WARNING] 4 workers share a memory of 100 MB, which has no room for them; workers = auto");
    server.allow("which has no room for them");
    server.finish();
}

#[test]
fn processors_that_cannot_be_read_are_warned_of() {
    let mut server = auto(&[("MONOCEROS_CPUS", "all"), ("MEMORY_LIMIT", "256M")]).start();
    server.wait_for_workers(1);
    server.wait_for_log("MONOCEROS_CPUS is \"all\", not a number of processors such as 2, 1.5 or 1500m");
    server.allow("it has no effect");
    server.finish();
}

/// A gear's variables reach a server that runs through `raw_env` of its config file.
#[test]
fn a_gear_that_was_resized_has_another_number_at_the_next_reload() {
    let config =
        "workers = 'auto'\nraw_env = ['MONOCEROS_CPUS=8', 'OPENSHIFT_GEAR_MEMORY_MB=' + open('size').read()]\n";
    let plan = Plan::bare().args(["--config", "conf.py", "echo"]).chdir(crate::util::apps());
    let server = plan.working_dir(".").file("conf.py", config).file("size", "512").start();
    server.wait_for_workers(2);
    for (size, count) in [("1024", 4), ("768", 3)] {
        server.write("size", size);
        server.signal(SIGHUP);
        server.wait_for_log(&format!("workers = auto: {count} for 8 processors and a memory of {size} MB"));
        server.wait_for_workers(count);
    }
    server.finish();
}

/// Half a processor and 512 MB, then three quarters of the memory: at a HUP, and in the long form
/// by itself.
#[test]
fn a_container_that_was_resized_has_another_number() {
    let (Some(memory), Some(processors)) = (Cgroup::new("memory"), Cgroup::new("cpu")) else {
        return println!("skipped: no memory and cpu cgroups can be made here");
    };
    memory.set("memory.limit_in_bytes", 512 << 20);
    processors.set("cpu.cfs_quota_us", 150_000);
    let server = auto(&[]).start();
    memory.add(server.pid());
    processors.add(server.pid());
    server.signal(SIGHUP);
    server.wait_for_log("workers = auto: 2 for 2 processors and a memory of 512 MB");
    server.wait_for_workers(2);
    memory.set("memory.limit_in_bytes", 768 << 20);
    server.signal(SIGHUP);
    server.wait_for_log("workers = auto: 3 for 2 processors and a memory of 768 MB");
    server.wait_for_workers(3);
    if is_long() {
        // One more by hand stays until the size changes.
        server.signal(SIGTTIN);
        server.wait_for_workers(4);
        memory.set("memory.limit_in_bytes", 512 << 20);
        wait_at_most(Duration::from_secs(90), "the look once a minute", || server.has_serving(2));
        assert!(server.log().contains("The size of the machine or of its cgroup has changed"), "{}", server.log());
    }
    wait_until("no worker between two generations", || server.workers().len() < 4);
    server.finish();
}

fn auto(variables: &[(&str, &str)]) -> Plan {
    let plan = Plan::app("echo").args(["--workers", "auto"]);
    variables.iter().fold(plan, |plan, (name, value)| plan.env(name, value))
}
