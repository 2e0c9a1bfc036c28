//! Rollouts on a cluster's network: pods with the real server behind a service's address, and
//! proxies that hear late of what goes; and the scaling of a thousand of them, simulated. The
//! laboratory is tests/cluster, in Python; its proofs are started from here one by one. The numbers
//! of its long form are in docs/internals/rollouts.md.

use std::process::Command;

use crate::util::tools::bring;
use crate::util::{program, root, venv};

/// Rollouts and an eviction under load; beside them servers that stop at once, whose losses have to
/// be seen.
#[test]
fn pods_that_serve_on_until_proxies_have_heard_lose_nothing() {
    prove("lab.py", &["short"]);
}

#[test]
fn a_rollout_loses_nothing_where_a_balancer_stands_in_for_namespaces() {
    prove("lab.py", &["--network", "loopback", "rollout"]);
}

#[test]
fn the_endpoints_the_autoscaler_and_the_model_of_a_pod_are_what_is_documented() {
    prove("test_control.py", &[]);
    prove("test_autoscaling.py", &[]);
}

/// Driven by our own metric, a thousand pods at most; by processor time it never scales.
#[test]
fn ten_times_the_load_in_a_minute_is_scaled_for_without_flapping() {
    prove("autoscaling.py", &["short"]);
}

// The long form: scripts/chaos cluster::

#[test]
#[ignore = "fifty rollouts with the documented values: ten minutes"]
fn long_fifty_rollouts_lose_nothing() {
    prove("lab.py", &["fifty"]);
}

#[test]
#[ignore = "twenty cases with other values: ten minutes"]
fn long_other_values_lose_what_the_table_says() {
    prove("lab.py", &["table"]);
}

#[test]
#[ignore = "every signal with every app: minutes"]
fn long_each_signal_scales_what_the_table_says() {
    prove("autoscaling.py", &["table"]);
}

#[test]
#[ignore = "measures for a minute, and wants a calm machine"]
fn long_the_simulation_has_the_servers_figures() {
    prove("measure.py", &[]);
}

/// Runs a proof to its end; it must have held.
#[track_caller]
fn prove(laboratory: &str, arguments: &[&str]) {
    // Where nothing brings it, loopback addresses stand in for namespaces, and the laboratory says
    // so.
    bring("nft", "nftables");
    let done = Command::new(venv().join("bin/python"))
        .arg(root().join("tests/cluster").join(laboratory))
        .args(arguments)
        .env("MONOCEROS_TEST_PROGRAM", program())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("the virtualenv has a python");
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    print!("{said}");
    assert!(done.status.success(), "{said}");
}
