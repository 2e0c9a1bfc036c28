//! What proxies say: the PROXY protocol, forwarded schemes, headers with underscores. The rows PP
//! and FW of the fault table.

use std::time::Duration;

use crate::util::PATIENCE;
use crate::util::client::{Broken, Client};
use crate::util::json::Json;
use crate::util::server::{Plan, Server};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

const V1: &[u8] = b"PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n";

/// A version 2 header: the four bytes behind the signature, then the payload.
fn v2(fixed: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), fixed, payload].concat()
}

const V2_PAYLOAD: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 0, 111, 0, 222];

/// The outcome of a header in front of a request.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// The request is served: REMOTE_ADDR and, where it is known, REMOTE_PORT.
    From(&'static str, Option<&'static str>),
    Refused(u16),
}

use Outcome::{From, Refused};

fn rows() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let v1 = |line: &str| format!("PROXY {line}\r\n").into_bytes();
    let socket = From("127.0.0.1", None);
    let announced = From("1.2.3.4", Some("111"));
    let inet6 = [&[0; 15][..], &[1], &[0; 15], &[2, 0, 1, 0, 2]].concat();
    let with_tlv = |length: u8, tlv: &[u8]| v2(&[0x21, 0x11, 0, length], &[V2_PAYLOAD, tlv].concat());
    let mut rows = vec![
        ("PP-01 version 1", V1.to_vec(), announced),
        ("PP-01 version 1, IPv6", v1("TCP6 ::1 ::2 1 2"), From("::1", Some("1"))),
        ("PP-04 UNKNOWN", v1("UNKNOWN"), socket),
        ("PP-04 UNKNOWN and more", v1("UNKNOWN ff x y z"), socket),
        ("PP-12 no header", Vec::new(), socket),
        ("PP-15 version 2", v2(&[0x21, 0x11, 0, 12], V2_PAYLOAD), announced),
        ("PP-15 version 2, IPv6", v2(&[0x21, 0x21, 0, 36], &inet6), From("::1", Some("1"))),
        ("PP-16 LOCAL", v2(&[0x20, 0, 0, 0], b""), socket),
        ("PP-17 UNSPEC", v2(&[0x21, 0, 0, 0], b""), socket),
        ("PP-22 a TLV past the end", with_tlv(15, &[4, 255, 255]), announced),
        ("PP-22 eighty empty TLVs", with_tlv(252, &[4, 0, 0].repeat(80)), announced),
        (
            "PP-22 a thousand empty TLVs",
            v2(&[0x21, 0x11, 0x0b, 0xc4], &[V2_PAYLOAD, &[4, 0, 0].repeat(1000)].concat()),
            announced,
        ),
        ("PP-09 a bare line feed", b"PROXY TCP4 1.2.3.4 5.6.7.8 111 222\n".to_vec(), Refused(400)),
        ("PP-10 an endless line", [b"PROXY ".to_vec(), vec![b'A'; 200]].concat(), Refused(400)),
        ("PP-23 a wrong byte in the signature", b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\0".to_vec(), Refused(400)),
        ("PP-25 both, version 1 first", [V1, &v2(&[0x21, 0x11, 0, 12], V2_PAYLOAD)].concat(), Refused(400)),
        ("PP-25 both, version 2 first", [&v2(&[0x21, 0x11, 0, 12], V2_PAYLOAD), V1].concat(), Refused(400)),
        ("PP-03 twice", [V1, V1].concat(), Refused(400)),
        ("PP-21 too long", v2(&[0x21, 0x11, 255, 255], &[0; 100]), Refused(400)),
    ];
    for (id, line) in [
        ("PP-05", "TCP4 ::1 ::1 1 2"),
        ("PP-05", "TCP6 1.2.3.4 5.6.7.8 1 2"),
        ("PP-06", "TCP4 1.2.3.4 5.6.7.8 65536 1"),
        ("PP-06", "TCP4 1.2.3.4 5.6.7.8 -1 1"),
        ("PP-06", "TCP4 1.2.3.4 5.6.7.8 +1 1"),
        ("PP-06", "TCP4 1.2.3.4 5.6.7.8 1_0 1"),
        ("PP-06", "TCP4 1.2.3.4 5.6.7.8 01 1"),
        ("PP-06", "TCP4 1.2.3.4 5.6.7.8  1"),
        ("PP-07", " TCP4 1.2.3.4 5.6.7.8 1 2"),
        ("PP-07", "TCP4\t1.2.3.4 5.6.7.8 1 2"),
        ("PP-07", "TCP4 1.2.3.4 5.6.7.8 1 2 "),
        ("PP-08", "TCP4 1.2.3.4 5.6.7.8 1"),
        ("PP-08", "TCP4 1.2.3.4 5.6.7.8 1 2 3"),
        ("PP-14", "TCP4 1.2.3.256 5.6.7.8 1 2"),
        ("PP-14", "TCP4 01.2.3.4 5.6.7.8 1 2"),
        ("PP-14", "TCP4 1.2.3 5.6.7.8 1 2"),
        ("PP-14", "TCP4 0x7f.1 5.6.7.8 1 2"),
        ("PP-14", "TCP4 1.2.3.4\0 5.6.7.8 1 2"),
    ] {
        rows.push((id, v1(line), Refused(400)));
    }
    // PP-07: in the wrong case it is no PROXY header, and no request line either.
    rows.push(("PP-07", b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), Refused(400)));
    for (id, fixed) in [
        ("PP-18", [0x11, 0x11, 0, 12]),
        ("PP-18", [0x31, 0x11, 0, 12]),
        ("PP-18", [0x22, 0x11, 0, 12]),
        ("PP-19", [0x21, 0x12, 0, 12]),
        ("PP-19", [0x21, 0x31, 0, 12]),
        ("PP-19", [0x21, 0x41, 0, 12]),
        ("PP-20", [0x21, 0x11, 0, 11]),
        ("PP-20", [0x21, 0x21, 0, 35]),
        ("PP-20", [0x21, 0x11, 0, 0]),
    ] {
        rows.push((id, v2(&fixed, &[0; 36]), Refused(400)));
    }
    rows
}

#[test]
fn a_proxy_header_says_whose_connection_it_is() {
    // PP-24: whole, and byte by byte.
    let mut server = Server::start("echo", ["--proxy-protocol", "auto"]);
    let mut faults = Vec::new();
    for (id, header, outcome) in rows() {
        for length in [usize::MAX, 1] {
            let mut client = server.connect();
            let stream = [&header[..], REQUEST].concat();
            let _ = stream.chunks(length.min(stream.len())).try_for_each(|piece| client.try_send(piece));
            let fault = judge(&mut client, outcome);
            faults.extend(fault.map(|fault| format!("{id}, {}: {fault}", header.escape_ascii())));
        }
    }
    assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults.join("\n"));
    server.allow("Invalid request");
    server.finish();
}

fn judge(client: &mut Client, outcome: Outcome) -> Option<String> {
    let answer = match client.read_for("GET") {
        Ok(answer) => answer,
        Err(broken) => return Some(format!("{broken:?}")),
    };
    match outcome {
        From(address, port) => {
            let report = if answer.status == 200 { answer.json() } else { return Some(answer.text()) };
            let is_right = report["REMOTE_ADDR"] == address && port.is_none_or(|port| report["REMOTE_PORT"] == port);
            // PP-02: it holds for every request of the connection.
            let again = client.get("/").json();
            let is_kept = again["REMOTE_ADDR"] == address && again["REMOTE_PORT"] == report["REMOTE_PORT"];
            (!is_right || !is_kept).then(|| format!("{:?}, then {:?}", report["REMOTE_ADDR"], again["REMOTE_ADDR"]))
        }
        Refused(status) => {
            let is_closed = matches!(client.read_for("GET"), Err(Broken::Closed));
            (answer.status != status || !is_closed).then(|| format!("{}, closed: {is_closed}", answer.status))
        }
    }
}

#[test]
fn the_environ_says_what_a_proxy_header_said() {
    // gunicorn's keys and, for both address families, its values.
    let inet6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[2, 0, 1, 0, 2]].concat();
    let rows: [(Vec<u8>, [Option<&str>; 3]); 8] = [
        (V1.to_vec(), [Some("TCP4"), Some("5.6.7.8"), Some("222")]),
        (b"PROXY TCP6 ::1 2001:DB8:0:0::2 1 2\r\n".to_vec(), [Some("TCP6"), Some("2001:db8::2"), Some("2")]),
        (b"PROXY UNKNOWN\r\n".to_vec(), [Some("UNKNOWN"), None, None]),
        (v2(&[0x21, 0x11, 0, 12], V2_PAYLOAD), [Some("TCP4"), Some("5.6.7.8"), Some("222")]),
        (v2(&[0x21, 0x21, 0, 36], &inet6), [Some("TCP6"), Some("::2"), Some("2")]),
        (v2(&[0x20, 0, 0, 0], b""), [Some("LOCAL"), None, None]),
        (v2(&[0x21, 1, 0, 0], b""), [Some("UNSPEC"), None, None]),
        (Vec::new(), [None, None, None]),
    ];
    let server = Server::start("echo", ["--proxy-protocol", "auto"]);
    for (header, expected) in rows {
        let mut client = server.connect();
        client.send(&header);
        // For every request of the connection.
        for _ in 0..2 {
            let report = client.get("/").json();
            let said = ["PROXY_PROTOCOL", "PROXY_ADDR", "PROXY_PORT"].map(|key| report.get(key).map(Json::text));
            assert_eq!(said, expected, "{}", header.escape_ascii());
        }
    }
    server.finish();
}

#[test]
fn a_mode_takes_its_own_version_only_and_off_takes_none() {
    // PP-26 and the modes.
    let v2 = v2(&[0x21, 0x11, 0, 12], V2_PAYLOAD);
    let table: [(&[&str], &[u8], Outcome); 6] = [
        (&["--proxy-protocol", "v1"], V1, From("1.2.3.4", None)),
        (&["--proxy-protocol", "v1"], &v2, Refused(400)),
        (&["--proxy-protocol", "v2"], V1, Refused(400)),
        (&["--proxy-protocol", "v2"], &v2, From("1.2.3.4", None)),
        (&["--proxy-protocol", "off"], V1, Refused(400)),
        (&["--proxy-protocol", "off"], &v2, Refused(400)),
    ];
    for (args, header, outcome) in table {
        let mut server = Server::start("echo", [args[0], args[1]]);
        let mut client = server.connect();
        client.send([header, REQUEST].concat());
        assert_eq!(judge(&mut client, outcome), None, "{args:?} {}", header.escape_ascii());
        server.allow("Invalid request");
        server.finish();
    }
}

#[test]
fn a_header_that_is_required_may_not_be_missing() {
    // PP-12: by default it may, as the table above has it.
    let v2 = v2(&[0x21, 0x11, 0, 12], V2_PAYLOAD);
    let mut server = Server::start("echo", ["--proxy-protocol", "v1", "--require-proxy-header"]);
    for (header, outcome) in [
        (V1, From("1.2.3.4", Some("111"))),
        (b"PROXY UNKNOWN\r\n", From("127.0.0.1", None)),
        (b"", Refused(400)),
        (&v2, Refused(400)),
    ] {
        let mut client = server.connect();
        client.send([header, REQUEST].concat());
        assert_eq!(judge(&mut client, outcome), None, "{}", header.escape_ascii());
    }
    server.allow("Invalid PROXY header: missing");
    server.finish();
}

#[test]
fn only_peers_on_the_list_may_send_a_proxy_header() {
    // PP-13; networks count, and a peer on a unix socket is always on the list.
    let args = |list| ["--proxy-protocol", "auto", "--proxy-allow-from", list];
    for (list, outcome) in [
        ("10.0.0.0/8", Refused(403)),
        ("10.0.0.1,127.0.0.0/8", From("1.2.3.4", None)),
        ("*", From("1.2.3.4", None)),
        ("::1", Refused(403)),
    ] {
        let mut server = Server::start("echo", args(list));
        let mut client = server.connect();
        client.send([V1, REQUEST].concat());
        assert_eq!(judge(&mut client, outcome), None, "{list}");
        server.allow("Invalid request");
        server.finish();
    }
    let server = Plan::app("echo").unix().args(args("10.0.0.0/8")).start();
    let mut client = server.connect();
    client.send([V1, REQUEST].concat());
    assert_eq!(judge(&mut client, From("1.2.3.4", None)), None);
    server.finish();
}

#[test]
fn a_proxy_header_that_does_not_end_has_the_time_of_a_head() {
    // PP-11, PP-21, PP-23.
    let mut server = Server::start("echo", ["--proxy-protocol", "auto", "--client-header-timeout", "1"]);
    let begun = [b"PROX".to_vec(), v2(&[0x21, 0x11, 1, 0], b"")];
    let clients: Vec<Client> = begun
        .iter()
        .map(|begun| {
            let mut client = server.connect();
            client.send(begun);
            client
        })
        .collect();
    for mut client in clients {
        let refusal = client.read();
        assert_eq!((refusal.status, refusal.says_close()), (408, true));
    }
    let mut client = server.connect();
    client.send(&v2(&[0x21, 0x11, 0, 12], V2_PAYLOAD)[..11]);
    client.shutdown_write();
    client.expect_closed(PATIENCE);
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn an_untrusted_peer_sets_neither_scheme_nor_script_name() {
    // FW-01
    let server = Server::start("echo", ["--forwarded-allow-ips", "10.0.0.0/8"]);
    let headers = ["X-Forwarded-Proto: https", "X-Forwarded-Ssl: on", "SCRIPT_NAME: /x"];
    let report = server.connect().request("GET", "/x/y", &headers, b"").json();
    assert_eq!(report["wsgi.url_scheme"], "http");
    assert_eq!((report["SCRIPT_NAME"].text(), report["PATH_INFO"].text()), ("", "/x/y"));
    assert_eq!(report["HTTP_X_FORWARDED_PROTO"], "https");
    assert_eq!(report.get("HTTP_SCRIPT_NAME"), None);
    server.finish();
}

#[test]
fn a_trusted_peer_sets_scheme_and_script_name() {
    // FW-04: as a peer on a unix socket always is; FW-05: as an IPv4 address is, however the kernel
    // writes it.
    let plans = [
        Plan::app("echo"),
        Plan::app("echo").unix().args(["--forwarded-allow-ips", "10.0.0.1"]),
        Plan::app("echo").args(["--forwarded-allow-ips", "*"]),
        Plan::app("echo").args(["--forwarded-allow-ips", "127.0.0.0/8"]),
    ];
    for plan in plans {
        let mut server = plan.start();
        let headers = ["X-Forwarded-Proto: https", "SCRIPT_NAME: /x"];
        let report = server.connect().request("GET", "/x/y", &headers, b"").json();
        assert_eq!(report["wsgi.url_scheme"], "https");
        assert_eq!((report["SCRIPT_NAME"].text(), report["PATH_INFO"].text()), ("/x", "/y"));
        // FW-02
        let contradiction = ["X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"];
        let refusal = server.connect().request("GET", "/", &contradiction, b"");
        assert_eq!((refusal.status, refusal.says_close()), (400, true));
        // FW-03
        let elsewhere = server.connect().request("GET", "/other", &["SCRIPT_NAME: /x"], b"");
        assert_eq!((elsewhere.status, elsewhere.says_close()), (500, true));
        server.allow("Invalid request");
        server.allow("Configuration problem");
        server.finish();
    }
}

#[test]
fn behind_a_proxy_header_the_client_that_it_names_is_asked_for() {
    // The balancer is trusted, but passes on bytes of clients that are not: its trust covers its
    // own connections only.
    let client = |address: &str| format!("PROXY TCP4 {address} 5.6.7.8 111 222\r\n").into_bytes();
    let unspecified = v2(&[0x21, 0, 0, 0], b"");
    let local = v2(&[0x20, 0, 0, 0], b"");
    let named = v2(&[0x21, 0x11, 0, 12], V2_PAYLOAD);
    let table: [(&str, &[u8], bool); 13] = [
        ("127.0.0.1", &client("1.2.3.4"), false),
        ("127.0.0.1", &named, false),
        ("127.0.0.1,1.2.3.0/24", &client("1.2.3.4"), true),
        ("127.0.0.1,1.2.3.0/24", &named, true),
        ("1.2.3.4", &client("1.2.3.4"), true),
        ("1.2.3.4", b"", false),
        ("127.0.0.1", b"", true),
        ("127.0.0.1", &local, true),
        ("127.0.0.1", &unspecified, false),
        ("127.0.0.1", b"PROXY UNKNOWN\r\n", false),
        ("*", b"PROXY UNKNOWN\r\n", true),
        ("*", &unspecified, true),
        ("*", &client("1.2.3.4"), true),
    ];
    for unix in [false, true] {
        for (trusted, header, is_believed) in table {
            // A peer on a unix socket is always trusted.
            let is_believed = is_believed || unix && (header.is_empty() || header == local);
            let plan = Plan::app("echo").args(["--proxy-protocol", "auto", "--forwarded-allow-ips", trusted]);
            let server = if unix { plan.unix() } else { plan }.start();
            let mut client = server.connect();
            client.send(header);
            // For every request of the connection.
            for _ in 0..2 {
                let report =
                    client.request("GET", "/x/y", &["X-Forwarded-Proto: https", "SCRIPT_NAME: /x"], b"").json();
                let said = (report["wsgi.url_scheme"].text(), report["SCRIPT_NAME"].text());
                let expected = if is_believed { ("https", "/x") } else { ("http", "") };
                assert_eq!(said, expected, "{trusted} {} on unix: {unix}", header.escape_ascii());
            }
            drop(client);
            server.finish();
        }
    }
}

#[test]
fn headers_with_underscores_are_mapped_as_it_is_set() {
    // FW-06, FW-07
    let row = |map: &'static str, headers: &[&str]| {
        let mut server = Server::start("echo", ["--header-map", map]);
        let answer = server.connect().request("GET", "/", headers, b"");
        server.allow("Invalid request");
        server.finish();
        answer
    };
    assert_eq!(row("drop", &["X_A: 1"]).json().get("HTTP_X_A"), None);
    let refusal = row("refuse", &["X_A: 1"]);
    assert_eq!((refusal.status, refusal.says_close()), (400, true));
    assert_eq!(row("dangerous", &["X_A: 1"]).json()["HTTP_X_A"], "1");
    for headers in [["X-Real-IP: right", "X_Real_IP: wrong"], ["X_Real_IP: wrong", "X-Real-IP: right"]] {
        assert_eq!(row("drop", &headers).json()["HTTP_X_REAL_IP"], "right");
    }
}

#[test]
fn no_header_changes_what_the_server_itself_says() {
    // FW-08, FW-09
    let server = Server::start("echo", ["--header-map", "dangerous"]);
    let plain = server.connect().request("POST", "/", &["Content-Type: text/plain"], b"hello").json();
    let headers = [
        "Content-Type: text/plain",
        "Content_Length: 99",
        "Request-Method: PUT",
        "Server-Name: evil",
        "Wsgi.Input: x",
        "Gunicorn.Socket: x",
        "Remote_User: root",
        "Remote-Addr: 6.6.6.6",
        "Https: on",
        "X-Forwarded-For: 6.6.6.6",
        "Path-Info: /evil",
    ];
    let report = server.connect().request("POST", "/", &headers, b"hello").json();
    let Json::Object(members) = &plain else { panic!("a report is an object") };
    let changing = ["REMOTE_PORT", "keys", "types", "pid", "exact_dict"];
    for (key, value) in members.iter().filter(|(key, _)| !changing.contains(&key.as_str())) {
        assert_eq!(report.get(key), Some(value), "{key}");
    }
    for added in ["REMOTE_USER", "HTTPS"] {
        assert_eq!(report.get(added), None, "{added}");
    }
    server.finish();
}

#[test]
fn repeated_headers_are_joined_in_their_order() {
    // FW-10
    let server = Server::start("echo", []);
    let headers: Vec<String> =
        (0..90).map(|number| format!("{}: {number}", if number % 2 == 0 { "x" } else { "X" })).collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let joined = (0..90).map(|number: i32| number.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(server.connect().request("GET", "/", &headers, b"").json()["HTTP_X"], joined.as_str());
    server.finish();
}

#[test]
fn other_protocols_are_refused_at_their_first_impossible_byte() {
    // Section 2.7: a TLS hello dribbled in, and HTTP/2 on a connection that has served.
    let mut server = Server::start("echo", []);
    let mut tls = server.connect();
    tls.send([0x16]);
    assert_eq!(tls.read().status, 400);
    tls.shutdown_write();
    tls.expect_closed(Duration::from_secs(5));
    let mut http2 = server.connect();
    assert_eq!(http2.get("/").status, 200);
    http2.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(http2.read().status, 400);
    let mut upgrade = server.connect();
    let headers = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"];
    assert_eq!(upgrade.request("POST", "/", &headers, b"hello").json()["body"], "hello");
    server.allow("Invalid request");
    server.finish();
}
