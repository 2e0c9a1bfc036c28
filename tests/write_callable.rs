//! The `write()` that start_response returns, called where it must not be (PEP 3333, "The write()
//! Callable"): its caller gets an error, and no byte is sent. `apps/writes.py` calls it.

use std::time::Duration;

use crate::util::server::Server;

/// Paths of the app at which something is called out of time, and the status of the answer.
const TABLE: &[(&str, u16)] = &[
    ("refused-second-start", 200),
    ("refused-second-start-and-nothing-else", 500),
    ("close-in-chunks", 200),
    ("close-with-length", 200),
    ("close-of-nothing", 200),
    ("close-of-a-file", 200),
    ("close-of-a-sent-file", 200),
    ("close-after-an-error", 500),
    ("start-in-close", 200),
    ("headers", 200),
    ("headers-in-a-thread", 200),
    ("start-in-headers", 200),
];

#[test]
fn write_at_the_wrong_time_is_an_error_and_sends_nothing() {
    for threads in ["1", "4"] {
        let mut server = Server::start("writes", ["--threads", threads]);
        for method in ["GET", "HEAD"] {
            let mut client = server.connect();
            for (name, status) in TABLE {
                let response = client.request(method, &format!("/{name}"), &[], b"");
                assert_eq!(response.status, *status, "{method} {name}");
                if *status == 200 && method == "GET" && *name != "close-of-nothing" {
                    assert_eq!(response.text(), "ok", "{name}");
                }
                if response.says_close() {
                    // Further bytes of the response would come before the end.
                    let rest = client.take_rest(Duration::from_secs(10));
                    assert!(memchr::memmem::find(&rest, b"STRAY").is_none(), "{method} {name}");
                    client = server.connect();
                }
                let outcomes = client.get("/outcomes").json();
                let outcome = outcomes[*name].text();
                assert!(["AssertionError", "RuntimeError"].contains(&outcome), "{method} {name}: {outcome}");
            }
        }
        server.allow("Error handling request");
        server.allow("Traceback");
        server.finish();
    }
}

#[test]
fn a_kept_write_belongs_to_its_own_request() {
    let server = Server::start("writes", []);
    let mut client = server.connect();
    for keeper in ["/keep", "/keep-unwritten"] {
        assert_eq!(client.get(keeper).text(), "ok");
        assert_eq!(client.request("HEAD", keeper, &[], b"").status, 200);
        assert_eq!(client.get("/kept-from-earlier").text(), "ok");
        assert_eq!(client.get("/outcomes").json()["kept-from-earlier"], "RuntimeError", "{keeper}");
    }
    server.finish();
}
