//! Apps wrapped in wsgiref's validator: the standard library's own judge of PEP 3333.

use crate::util::server::{Plan, Server};

#[test]
fn the_validator_finds_no_fault() {
    for server in [Server::start("validated", []), Plan::app("validated").unix().start()] {
        let mut client = server.connect();
        assert_eq!(client.get("/plain").body, b"GET:");
        assert_eq!(client.request("POST", "/plain", &[], b"some body").body, b"POST:some body");
        assert_eq!(client.request("HEAD", "/plain", &[], b"").content_length(), Some(5));
        assert_eq!(client.request("DELETE", "/plain", &[], b"").body, b"DELETE:");
        assert_eq!(client.request("POST", "/lines", &[], b"one\ntwo\nthree").body, b"one\n|two\nthree");
        client.send("POST /lines HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n6\r\none\ntw\r\n3\r\no\n3\r\n0\r\n\r\n");
        assert_eq!(client.read().body, b"one\n|two\n3");
        assert_eq!(client.get("/generated").body, b"block 0\nblock 1\nblock 2\n");
        assert_eq!(client.get("/written").body, b"first second third");
        assert_eq!(client.get("/file").body, b"0123456789".repeat(1000));
        assert_eq!(client.get("/empty").status, 204);
        for path in ["/generated", "/written", "/file", "/empty"] {
            assert!(client.request("HEAD", path, &[], b"").body.is_empty());
        }
        // Faults that the validator finds too late for a 500 it reports on stderr.
        assert!(!server.log().contains("garbage collected"), "{}", server.log());
        server.finish();
    }
}
