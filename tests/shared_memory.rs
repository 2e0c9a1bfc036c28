//! The memory that master and workers share: a worker can write only to its own row, whatever runs
//! in it.

use std::collections::BTreeSet;

use crate::util::json::Json;
use crate::util::server::{Plan, Server};
use crate::util::tls::{Authority, Key};
use crate::util::{PATIENCE, board, wait_until};

#[test]
fn a_worker_can_write_to_its_own_row_of_the_scoreboard_only() {
    let server = Server::start("shared_memory", ["--workers", "3"]);
    let workers = server.wait_for_workers(3);
    assert_eq!(board::serving(server.pid()), Some(3), "what all the tests wait for");
    let (mut seen, mut rows) = (BTreeSet::new(), BTreeSet::new());
    wait_until("an answer of each", || {
        let report = server.get("/").json();
        let writable = mappings(&report, "scoreboard", "made_writable");
        assert_eq!(writable.len(), 1, "{report:?}");
        assert_eq!(writable[0]["size"].number(), report["page"].number().max(8192.0), "one row");
        // The mapping is at the same place in all of them.
        if seen.insert(report["pid"].number() as i32) {
            rows.insert(writable[0]["start"].number() as u64);
        }
        seen.len() == workers.len()
    });
    assert_eq!(rows.len(), workers.len(), "each has another");
    server.finish();
}

#[test]
fn a_worker_that_writes_to_another_row_ends_and_the_others_go_on() {
    let mut server = Server::start("shared_memory", ["--workers", "2"]);
    let workers = server.wait_for_workers(2);
    let mut client = server.connect();
    client.send("GET /spoil HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_closed(PATIENCE);
    server.wait_for_log("SIGSEGV");
    let after = server.wait_for_workers(2);
    assert_eq!(workers.iter().filter(|worker| after.contains(worker)).count(), 1, "{workers:?} {after:?}");
    assert_eq!(server.get("/").status, 200);
    server.allow("SIGSEGV");
    server.finish();
}

#[test]
fn a_worker_reads_new_certificates_and_can_write_none() {
    let root = Authority::root("Test root");
    let plan = Plan::app("shared_memory").tls(&root.server(Key::Ecdsa, &["localhost"])).args(["--tls-watch"]);
    let server = plan.start().trusting(root.trust());
    server.wait_for_workers(1);
    let report = server.get("/").json();
    let (all, writable) = (mappings(&report, "seqlock", "size"), mappings(&report, "seqlock", "made_writable"));
    assert_eq!((all.len(), writable.len()), (1, 0), "{report:?}");
    server.finish();
}

/// The mappings of this name for which `key` has a value.
fn mappings<'a>(report: &'a Json, name: &str, key: &str) -> Vec<&'a Json> {
    let is_meant = |mapping: &&Json| mapping["name"].text().ends_with(name) && mapping[key] != Json::Bool(false);
    report["mappings"].list().iter().filter(is_meant).collect()
}
