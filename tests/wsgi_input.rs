//! wsgi.input, call by call: WS-01 to WS-08. `apps/wsgi_input.py` runs the calls which the query
//! string names.

use crate::util::client::Client;
use crate::util::json::Json;
use crate::util::server::Server;

const LINES: &[u8] = b"line1\nline2\nline3\nrest of it";

/// Calls, the body they are made on, and what each gives.
const TABLE: &[(&str, &[u8], &str)] = &[
    // WS-01
    ("readline(3)&readline()&read(2)&read(0)", LINES, r#"["lin","e1\n","li",""]"#),
    (
        "readline()&readlines()&read()&readline()&iter",
        LINES,
        r#"["line1\n",["line2\n","line3\n","rest of it"],"","",[]]"#,
    ),
    ("readlines(1)&read()", LINES, r#"[["line1\n"],"line2\nline3\nrest of it"]"#),
    ("readlines(7)&read()", LINES, r#"[["line1\n","line2\n"],"line3\nrest of it"]"#),
    // WS-02
    ("read(-1)&read(-1)", LINES, r#"["line1\nline2\nline3\nrest of it",""]"#),
    ("read(None)&read(None)", LINES, r#"["line1\nline2\nline3\nrest of it",""]"#),
    ("readline(-1)&readline(None)&readline(0)", LINES, r#"["line1\n","line2\n",""]"#),
    ("readlines(-1)", b"a\nb", r#"[["a\n","b"]]"#),
    ("readlines(None)", b"a\nb", r#"[["a\n","b"]]"#),
    ("read(10**12)", b"few", r#"["few"]"#),
    // WS-04, WS-05
    ("iter&iter", b"a\nb\n\nlast", r#"[["a\n","b\n","\n","last"],[]]"#),
    ("iter", b"\n\n\n", r#"[["\n","\n","\n"]]"#),
    ("readline(1)&readline(1)&readline(1)", b"\n\n", r#"["\n","\n",""]"#),
    ("read(3)&iter", b"ab\ncd\nef", r#"["ab\n",["cd\n","ef"]]"#),
    // WS-07
    ("read()&readline()&readlines()&iter&read(5)", b"", r#"["","",[],[],""]"#),
];

#[test]
fn each_call_gives_what_pep_3333_says() {
    let server = Server::start("wsgi_input", []);
    let mut client = server.connect();
    for (calls, body, wanted) in TABLE {
        let wanted = Json::parse(wanted);
        assert_eq!(with_length(&mut client, calls, body), wanted, "{calls}");
        for size in [1, 3, 1000] {
            assert_eq!(in_chunks(&mut client, calls, body, size), wanted, "{calls}, chunks of {size}");
        }
    }
    server.finish();
}

#[test]
fn reading_on_after_the_end_stays_empty() {
    let server = Server::start("wsgi_input", []);
    let mut client = server.connect();
    let calls = ["read()"; 300].join("&");
    let answers = with_length(&mut client, &calls, b"body");
    assert!(answers.list()[1..].iter().all(|answer| *answer == ""));
    server.finish();
}

#[test]
fn a_pipelined_request_is_never_part_of_the_body() {
    let server = Server::start("wsgi_input", []);
    let mut client = server.connect();
    let next = "GET /?read() HTTP/1.1\r\nHost: test\r\n\r\n";
    client.send(format!("POST /?read(100)&read() HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody{next}"));
    assert_eq!(client.read().json(), Json::parse(r#"["body",""]"#));
    assert_eq!(client.read().json(), Json::parse(r#"[""]"#));
    server.finish();
}

#[test]
fn long_lines_and_many_lines_come_whole() {
    let server = Server::start("wsgi_input", []);
    let mut client = server.connect();
    let long = [vec![b'x'; 1_000_000], b"\n".to_vec(), vec![b'y'; 500_000]].concat();
    let lines = with_length(&mut client, "iter", &long);
    let lengths: Vec<usize> = lines.list()[0].texts().iter().map(|line| line.len()).collect();
    assert_eq!(lengths, [1_000_001, 500_000]);
    let many = b"a line of its own\n".repeat(50_000);
    assert_eq!(with_length(&mut client, "iter", &many).list()[0].list().len(), 50_000);
    server.finish();
}

#[test]
fn a_body_on_disk_reads_like_one_in_memory() {
    let server = Server::start("wsgi_input", ["--body-buffer", "1024"]);
    let mut client = server.connect();
    let body = b"0123456789abcde\n".repeat(2000);
    let whole = String::from_utf8(body.clone()).expect("ASCII");
    for answers in [with_length(&mut client, "read()", &body), in_chunks(&mut client, "read()", &body, 777)] {
        assert_eq!(answers.list()[0], whole.as_str());
    }
    let answers = with_length(&mut client, "readline()&read(1000)&readline()&iter", &body);
    let lengths = (answers.list()[0].text().len(), answers.list()[1].text().len(), answers.list()[3].list().len());
    assert_eq!(lengths, (16, 1000, 2000 - 1 - 63));
    server.finish();
}

fn with_length(client: &mut Client, calls: &str, body: &[u8]) -> Json {
    let target = format!("/?{}", calls.replace(' ', "%20"));
    let length = format!("Content-Length: {}", body.len());
    client.send([format!("POST {target} HTTP/1.1\r\nHost: test\r\n{length}\r\n\r\n").as_bytes(), body].concat());
    client.read().json()
}

fn in_chunks(client: &mut Client, calls: &str, body: &[u8], size: usize) -> Json {
    let head = format!("POST /?{calls} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut message = head.into_bytes();
    for chunk in body.chunks(size) {
        message.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        message.extend_from_slice(chunk);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"0\r\n\r\n");
    client.send(message);
    client.read().json()
}
