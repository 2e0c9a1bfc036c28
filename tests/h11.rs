//! The program against h11, another strict parser: of any stream that both accept, both must have
//! understood the same requests. And what only the program accepts must be something that it is
//! known to accept.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use crate::util::client::Response;
use crate::util::json::Json;
use crate::util::server::Server;
use crate::util::{root, venv};

type Test = fn(&str) -> bool;

/// What is accepted here and not by h11, and how a stream shows that it holds it.
const ACCEPTED_HERE: &[(&str, Test)] = &[
    ("an empty line before a request (RFC 9112, 2.2)", has_empty_line_before_request),
    ("a further coding beneath chunked (docs/decisions/0003-compressed-transfer-codings.md)", |stream| {
        stream.contains("gzip") || stream.contains("identity")
    }),
    ("HTTP/1.0 kept alive (RFC 9112, 9.3), which h11 never does", |stream| stream.contains("HTTP/1.0")),
    ("a chunk size of more than 20 digits, all but a few of them zeros", |stream| stream.contains(&"0".repeat(20))),
    ("spaces around a chunk extension's parts (BWS; RFC 9112, 7.1.1)", |stream| {
        stream.contains(" ;") || stream.contains("; ")
    }),
];

fn has_empty_line_before_request(stream: &str) -> bool {
    let begins_request = |rest: &str| rest.lines().next().is_some_and(|line| line.contains(" HTTP/1."));
    stream.match_indices("\r\n").any(|(at, _)| !stream[..at].ends_with("\r\n") && begins_request(&stream[at + 2..]))
}

const MUTATIONS: &str = "4000";

const THREADS: usize = 4;

#[test]
fn what_both_accept_both_understand_in_the_same_way() {
    let streams = streams();
    let mut server = Server::start("echo", ["--forwarded-allow-ips", "10.0.0.1"]);
    server.allow("Invalid request");
    let queue = Mutex::new(VecDeque::from(streams));
    let faults = Mutex::new(Vec::new());
    let compared = Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(stream) = { queue.lock().expect("no panic").pop_front() } {
                    let fault = compare(&server, &stream, &mut || *compared.lock().expect("no panic") += 1);
                    let shown = |fault| format!("{fault}: {}", stream["bytes"].text().escape_default());
                    faults.lock().expect("no panic").extend(fault.map(shown));
                }
            });
        }
    });
    let faults = faults.into_inner().expect("no panic");
    assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults.join("\n"));
    // The streams are good for something only if many of them are accepted.
    let compared = compared.into_inner().expect("no panic");
    assert!(compared > 400, "only {compared} requests were compared");
    server.finish();
}

fn streams() -> Vec<Json> {
    let made = Command::new(venv().join("bin/python"))
        .arg(root().join("tests/data/h11_requests.py"))
        .arg(MUTATIONS)
        .output()
        .expect("the virtualenv has a python");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8_lossy(&made.stdout).lines().map(Json::parse).collect()
}

fn compare(server: &Server, stream: &Json, compared: &mut dyn FnMut()) -> Option<String> {
    let bytes: Vec<u8> = stream["bytes"].text().chars().map(|c| u8::try_from(c).expect("latin-1")).collect();
    let mut client = server.connect();
    let _ = client.try_send(&bytes);
    client.shutdown_write();
    let mut known = stream["requests"].list().iter();
    loop {
        let answer: Response = match client.read_for("GET") {
            Ok(answer) if answer.status == 200 => answer,
            _ => return None,
        };
        let report = answer.json();
        let Some(known) = known.next() else {
            let is_known = ACCEPTED_HERE.iter().any(|(_, holds)| holds(stream["bytes"].text()));
            return (!is_known).then(|| format!("only we accept {:?}", report["RAW_URI"]));
        };
        compared();
        if let Some(fault) = difference(&report, known) {
            return Some(fault);
        }
    }
}

fn difference(report: &Json, known: &Json) -> Option<String> {
    for key in ["REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL", "body"] {
        if report.get(key) != known.get(key) {
            return Some(format!("{key} is {:?}, to h11 {:?}", report.get(key), known.get(key)));
        }
    }
    let Json::Object(members) = report else { return Some("no report".to_owned()) };
    let is_header = |name: &str| name.starts_with("HTTP_") || ["CONTENT_TYPE", "CONTENT_LENGTH"].contains(&name);
    let headers: Vec<_> = members.iter().filter(|(name, _)| is_header(name)).collect();
    let Json::Object(wanted) = &known["environ"] else { return Some("no environ".to_owned()) };
    let is_same = |(name, value): &&(String, Json)| match known["environ"].get(name) {
        // To h11 a body in chunks has no length.
        None if name == "CONTENT_LENGTH" => {
            let is_coded = known["environ"].get("HTTP_TRANSFER_ENCODING").is_some();
            is_coded && value.text() == report["body_length"].number().to_string()
        }
        // To h11 the header counts, whatever the target says.
        Some(wanted) if name == "HTTP_HOST" => {
            let named = ["://", "@"].map(|before| format!("{before}{}", value.text()));
            wanted == value || named.iter().any(|named| report["RAW_URI"].text().contains(named))
        }
        wanted => wanted == Some(value),
    };
    let differs = headers.len() != wanted.len() || !headers.iter().all(is_same);
    differs.then(|| format!("headers are {headers:?}, to h11 {wanted:?}"))
}
