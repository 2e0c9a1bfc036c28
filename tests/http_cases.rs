//! All rows of `data/http-cases.json` against the real program: each in one segment and byte by
//! byte, with the same verdict (split invariance). The app counts its calls, so a request that was
//! refused and served all the same shows.

use std::collections::VecDeque;
use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::util::client::{Broken, Client, Response};
use crate::util::json::Json;
use crate::util::process::{anonymous, open_files, peak_during};
use crate::util::server::Server;
use crate::util::{count, root, wait_until};

/// Rows usually wait, so many of them run at once.
const THREADS: usize = 16;

/// A server that refuses closes within this.
const CLOSE: Duration = Duration::from_secs(3);

/// So long without a byte counts as "nothing comes".
const SILENCE: Duration = Duration::from_millis(300);

/// What must come back.
#[derive(Debug, Clone)]
enum Verdict {
    /// These answers, in order; then the connection is as told.
    Answers(Vec<u16>, End),
    /// One answer, one of these, then a close; nothing behind it is parsed.
    Refused(Vec<u16>),
    /// No final answer and no close: the request is not complete.
    Waits,
    /// A close without an answer, or with a 400.
    Hangup,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Open,
    Closed,
    Either,
}

/// How a row's bytes are cut.
#[derive(Debug, Clone, Copy)]
enum Pace {
    OneSegment,
    Bytewise,
    /// In one segment, with [`TAIL`] bytes of nonsense behind it.
    WithTail,
}

/// One letter many times: it neither ends a request line nor makes a chunk.
const TAIL: usize = 1 << 20;

/// Rows whose column OURS leaves a choice, and what docs/decisions has chosen.
const SPECIAL: &[(&str, Special)] = &[
    ("RL-07-two-leading-crlf", Special::Refused(&[400])),
    ("RL-22-empty-line-only", Special::Refused(&[400])),
    ("ME-12-PRI-method", Special::Parity),
    ("HO-10-bad-port", Special::Refused(&[400])),
    ("HN-25-xff-and-x_ff", Special::Parity),
    // Its five bytes of a body are no request, whatever follows them.
    ("CL-18-double-zero", Special::Answered(&[200], End::Either)),
    ("CL-33-HEAD-with-body", Special::Parity),
    ("CL-34-short-body-eof", Special::Hangup),
    ("CL-35-zero-plus-extra", Special::Parity),
    ("CL-37-huge-no-body", Special::Waits),
    ("CL-38-octal-0200", Special::Waits),
    ("TE-04-gzip-chunked", Special::Parity),
    ("TE-07-identity-chunked", Special::Answered(&[200], End::Either)),
    ("TE-34-dup-identity-chunked", Special::Answered(&[200], End::Either)),
    ("TE-42-underscore+cl", Special::Parity),
    ("CK-50-noread-bad-chunk-then-next", Special::Refused(&[400])),
    ("CK-51-noread-good-chunk-then-next", Special::Parity),
    ("CK-52-eof-before-last", Special::Hangup),
    ("CK-53-eof-mid-chunk", Special::Hangup),
    ("CK-54-eof-after-0crlf", Special::Hangup),
    ("CK-55-noread-cl-then-next", Special::Parity),
    ("CK-56-noread-cl-100k-then-next", Special::Answered(&[200, 200], End::Open)),
    ("EX-01-100cont-withbody", Special::Answered(&[200], End::Open)),
    ("EX-02-100cont-wait", Special::Answered(&[200], End::Open)),
    ("EX-03-upper", Special::Answered(&[200], End::Open)),
    ("EX-05-http10", Special::Parity),
    ("EX-06-nobody", Special::Answered(&[200], End::Open)),
    ("EX-07-noread", Special::Waits),
    ("PL-01-two", Special::Parity),
    ("PL-02-ten", Special::Parity),
    ("PL-03-close-first", Special::Parity),
    ("PL-04-bad-second", Special::Parity),
    ("PL-05-http10-default", Special::Parity),
    ("PL-06-http10-ka", Special::Parity),
    ("PL-07-conn-list", Special::Answered(&[200], End::Closed)),
    ("PL-08-conn-Close-case", Special::Parity),
    ("PL-09-post-post", Special::Parity),
    ("PL-10-chunk-then-get", Special::Parity),
    ("PL-11-extra-crlf-after-post", Special::Parity),
    ("PL-12-dup-conn", Special::Answered(&[200], End::Closed)),
    ("PL-13-bytewise", Special::Parity),
    ("UP-01-websocket", Special::Parity),
    ("UP-02-h2c", Special::Parity),
    ("UP-03-unknown", Special::Parity),
    ("UP-04-http10", Special::Parity),
    ("PX-01-xfp-https", Special::Parity),
    ("PX-03-SCRIPT_NAME-hdr", Special::Parity),
    ("PX-04-Script-Name-hdr", Special::Parity),
    ("PX-05-PROXY-hdr", Special::Parity),
    ("PX-06-remote-addr", Special::Parity),
    ("PX-07-xfp-list", Special::Parity),
    ("PX-08-PATH_INFO", Special::Parity),
    ("PX-09-wsgi.", Special::Parity),
    ("PX-10-content-type-underscore", Special::Parity),
    ("HC-01-shut-after-get", Special::Parity),
    ("HC-02-shut-after-partial", Special::Hangup),
    ("HC-03-connect-only-shut", Special::Hangup),
    ("HC-04-shut-after-post", Special::Parity),
];

enum Special {
    Answered(&'static [u16], End),
    Refused(&'static [u16]),
    Waits,
    Hangup,
    /// As gunicorn did.
    Parity,
}

/// What the app must have seen in the first request of a row: a member of its report, and the
/// value. `None`: absent.
const SEEN: &[(&str, &str, Option<&str>)] = &[
    ("TG-01-absolute", "PATH_INFO", Some("/x")),
    ("TG-01-absolute", "QUERY_STRING", Some("q=1")),
    ("TG-01-absolute", "RAW_URI", Some("http://a/x?q=1")),
    ("TG-04-absolute-no-path", "PATH_INFO", Some("/")),
    ("TG-07-asterisk-OPTIONS", "PATH_INFO", Some("*")),
    ("TG-14-fragment", "PATH_INFO", Some("/p")),
    ("TG-21-pct-nul", "PATH_INFO", Some("/a\0b")),
    ("TG-22-pct-crlf", "PATH_INFO", Some("/a\r\nX: y")),
    ("TG-23-pct-trunc", "PATH_INFO", Some("/a%")),
    ("TG-24-pct-bad", "PATH_INFO", Some("/a%zz")),
    ("TG-25-pct-slash", "PATH_INFO", Some("/a/b")),
    ("TG-25-pct-slash", "RAW_URI", Some("/a%2Fb")),
    ("TG-26-dotdot", "PATH_INFO", Some("/a/../../etc")),
    ("TG-27-double-slash", "PATH_INFO", Some("//a/b")),
    ("TG-28-triple-slash", "PATH_INFO", Some("///a")),
    ("TG-31-qmark-in-query", "QUERY_STRING", Some("a=?b&c=")),
    ("TG-32-empty-query", "QUERY_STRING", Some("")),
    ("TG-33-pct-utf8", "PATH_INFO", Some("/\u{e2}\u{80}\u{8e}/\u{c3}\u{a9}")),
    ("TG-01-absolute", "HTTP_HOST", Some("a")),
    ("TG-02-absolute-host-mismatch", "HTTP_HOST", Some("evil")),
    ("TG-03-absolute-userinfo", "HTTP_HOST", Some("a")),
    ("HN-17-underscore", "HTTP_X_A", None),
    ("HN-20-underscore-cl", "CONTENT_LENGTH", None),
    ("HN-21-underscore-te", "HTTP_TRANSFER_ENCODING", None),
    ("HN-22-underscore-xff", "HTTP_X_FORWARDED_FOR", None),
    ("HN-25-xff-and-x_ff", "HTTP_X_FORWARDED_FOR", Some("1.1.1.1")),
    ("HV-11-obs-text", "HTTP_X", Some("caf\u{c3}\u{a9}")),
    ("HV-12-xff", "HTTP_X", Some("\u{ff}\u{fe}")),
    ("HV-13-htab-inside", "HTTP_X", Some("a\tb")),
    ("HV-14-trim", "HTTP_X", Some("v")),
    ("HV-15-nbsp-edge", "HTTP_X", Some("\u{a0}v\u{85}")),
    ("HV-16-empty", "HTTP_X", Some("")),
    ("HV-17-only-ws", "HTTP_X", Some("")),
    ("HV-23-dup-join", "HTTP_X", Some("a,b")),
    ("HV-24-dup-cookie", "HTTP_COOKIE", Some("a=1; b=2")),
    ("HV-26-quoted-comma", "HTTP_X", Some("\"a,b\", c")),
    ("CL-17-leading-zeros", "body", Some("hello")),
    ("CL-18-double-zero", "body", Some("")),
    ("CL-36-POST-no-length", "body", Some("")),
    ("TE-04-gzip-chunked", "body", Some("hello")),
    ("TE-04-gzip-chunked", "CONTENT_LENGTH", None),
    ("TE-04-gzip-chunked", "HTTP_TRANSFER_ENCODING", Some("gzip, chunked")),
    ("TE-07-identity-chunked", "CONTENT_LENGTH", Some("5")),
    ("TE-42-underscore+cl", "body", Some("hello")),
    ("CK-01-valid", "body", Some("hello")),
    ("CK-01-valid", "CONTENT_LENGTH", Some("5")),
    ("CK-01-valid", "HTTP_TRANSFER_ENCODING", None),
    ("CK-02-upper-hex", "body", Some("0123456789")),
    ("CK-03-leading-zeros", "body", Some("hello")),
    ("CK-16-many-zeros", "body", Some("hello")),
    ("TR-06-ctype", "CONTENT_TYPE", None),
    ("TR-12-xff", "HTTP_X_FORWARDED_FOR", None),
    ("PX-01-xfp-https", "wsgi.url_scheme", Some("https")),
    ("PX-03-SCRIPT_NAME-hdr", "SCRIPT_NAME", Some("/app")),
    ("PX-03-SCRIPT_NAME-hdr", "PATH_INFO", Some("/x")),
    ("PX-04-Script-Name-hdr", "SCRIPT_NAME", Some("")),
    ("PX-05-PROXY-hdr", "HTTP_PROXY", Some("http://evil")),
    ("PX-06-remote-addr", "REMOTE_ADDR", Some("127.0.0.1")),
    ("PX-06-remote-addr", "HTTP_REMOTE_USER", Some("root")),
    ("PX-06-remote-addr", "REMOTE_USER", None),
    ("PX-07-xfp-list", "wsgi.url_scheme", Some("http")),
    ("PX-08-PATH_INFO", "PATH_INFO", Some("/")),
    ("PX-09-wsgi.", "wsgi.url_scheme", Some("http")),
    ("PX-10-content-type-underscore", "CONTENT_TYPE", None),
    ("PX-10-content-type-underscore", "HTTP_CONTENT_TYPE", None),
];

#[test]
fn every_row_gets_its_verdict_in_one_segment() {
    run_all(Pace::OneSegment);
}

#[test]
fn every_row_gets_the_same_verdict_byte_by_byte() {
    // AB-15. (AB-09, a request behind one that asked for a close, is the row PL-03.)
    run_all(Pace::Bytewise);
}

#[test]
fn a_megabyte_of_garbage_behind_a_row_changes_nothing_and_is_not_kept() {
    // AB-16
    let mut server = Server::start("echo", []);
    server.allow("Invalid request from ip=");
    let worker = server.wait_for_workers(1)[0];
    run_rows(&server, cases(), Pace::OneSegment);
    let before = anonymous(worker);
    let highest = peak_during(worker, || {
        // Behind a request that is not complete it would be a part of it; behind the end of the
        // stream it cannot come.
        let is_half_closed = |case: &Json| case["steps"].list().iter().any(|step| step.get("half_close").is_some());
        let is_complete = |case: &Json| !matches!(verdict(case), Verdict::Waits) && !is_half_closed(case);
        let rows: Vec<Json> = cases().into_iter().filter(is_complete).collect();
        assert!(rows.len() > 330, "only {} rows", rows.len());
        run_rows(&server, rows, Pace::WithTail);
    });
    let grown = highest.saturating_sub(before);
    println!("{grown} bytes more at the most");
    // What a few reads of each bring, not what is sent.
    assert!(grown < (THREADS * TAIL / 4) as u64, "{grown} bytes more for {THREADS} connections at a time");
    server.finish();
}

#[test]
fn all_rows_again_and_again_leave_no_file_open_and_no_memory_taken() {
    // AB-19
    let mut server = Server::start("echo", []);
    server.allow("Invalid request from ip=");
    let worker = server.wait_for_workers(1)[0];
    run_rows(&server, cases(), Pace::OneSegment);
    let (files, memory) = (server.files_at_rest(worker), anonymous(worker));
    let laps = count(10, 3);
    for _ in 0..laps {
        run_rows(&server, cases(), Pace::OneSegment);
    }
    wait_until("the connections' files to be closed", || open_files(worker) <= files);
    let grown = anonymous(worker).saturating_sub(memory);
    println!("{laps} laps: {grown} bytes more");
    assert!(grown < 1 << 20, "{laps} laps, {grown} bytes more");
    server.finish();
}

#[test]
fn the_tables_name_rows_that_exist() {
    let cases = cases();
    let ids: Vec<&str> = cases.iter().map(|case| case["id"].text()).collect();
    let named = SPECIAL.iter().map(|(id, _)| id).chain(SEEN.iter().map(|(id, _, _)| id));
    let unknown: Vec<_> = named.filter(|id| !ids.contains(id)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

fn run_all(pace: Pace) {
    let mut server = Server::start("echo", []);
    // Each refusal is logged, and that is right.
    server.allow("Invalid request from ip=");
    let served = run_rows(&server, cases(), pace);
    let calls = server.get("/calls").json().number() as usize;
    assert_eq!(calls, served, "the app was called for requests that were refused, or twice for one");
    server.finish();
}

/// Runs rows, many at a time: how many requests the app answered in them.
fn run_rows(server: &Server, rows: Vec<Json>, pace: Pace) -> usize {
    let queue = Mutex::new(VecDeque::from(rows));
    let outcome = Mutex::new((0, Vec::new()));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().expect("no panic in another thread").pop_front() else { return };
                    let (served, fault) = run(&case, pace, server);
                    let mut outcome = outcome.lock().expect("no panic in another thread");
                    outcome.0 += served;
                    outcome.1.extend(fault);
                }
            });
        }
    });
    let (served, faults) = outcome.into_inner().expect("no panic in another thread");
    assert!(faults.is_empty(), "{} rows ({pace:?}):\n{}", faults.len(), faults.join("\n"));
    served
}

/// Runs one row: how many requests the app answered in it, and what is wrong, if anything is.
fn run(case: &Json, pace: Pace, server: &Server) -> (usize, Option<String>) {
    let mut client = server.connect();
    send(&mut client, case, pace);
    let verdict = verdict(case);
    if matches!(pace, Pace::WithTail) {
        let _ = client.try_send([b'A'; TAIL]);
    }
    let (answers, end) = collect(&mut client, case, &verdict, pace);
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    let fault = judge(case, &verdict, &answers, end).or_else(|| details(case, &answers));
    (served, fault.map(|fault| format!("{}: {fault}", case["id"].text())))
}

fn send(client: &mut Client, case: &Json, pace: Pace) {
    for step in case["steps"].list() {
        if let Some(wait) = step.get("wait") {
            thread::sleep(Duration::from_secs_f64(wait.number()));
        } else if step.get("half_close").is_some() {
            client.shutdown_write();
        } else {
            // A server that has refused need not take the rest.
            let bytes = bytes(&step["send"]);
            let _ = match pace {
                Pace::OneSegment | Pace::WithTail => client.try_send(&bytes),
                Pace::Bytewise => pieces(&bytes).try_for_each(|piece| client.try_send(piece)),
            };
        }
    }
}

/// Single bytes; past the part where a border can matter, odd-sized pieces, or the long rows would
/// take minutes.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (single, rest) = bytes.split_at(bytes.len().min(2000));
    single.chunks(1).chain(rest.chunks(997))
}

/// A list of latin-1 strings, or `[string, times]` for a run.
fn bytes(parts: &Json) -> Vec<u8> {
    let latin1 = |text: &Json| -> Vec<u8> { text.text().chars().map(|c| u8::try_from(c).expect("latin-1")).collect() };
    let run = |part: &Json| match part {
        Json::List(run) => latin1(&run[0]).repeat(run[1].number() as usize),
        text => latin1(text),
    };
    parts.list().iter().flat_map(run).collect()
}

/// As many answers as the verdict speaks of, and whether the connection is open after them. Open is
/// proved by one more request on it, which must be answered: so the next response is not mixed up
/// with what went before.
fn collect(client: &mut Client, case: &Json, verdict: &Verdict, pace: Pace) -> (Vec<Response>, End) {
    let methods = methods(case);
    let (expected, patience) = match verdict {
        Verdict::Answers(statuses, _) => (statuses.len(), Duration::from_secs(10)),
        Verdict::Refused(_) => (1, Duration::from_secs(10)),
        Verdict::Hangup => (1, CLOSE),
        Verdict::Waits => (1, SILENCE),
    };
    let mut answers = Vec::new();
    while answers.len() < expected {
        let method = methods.get(answers.len()).map_or("GET", String::as_str);
        match client.read_within(method, patience) {
            Ok(answer) => answers.push(answer),
            Err(Broken::Silent) => return (answers, End::Open),
            Err(_) => return (answers, End::Closed),
        }
    }
    let end = match verdict {
        // The nonsense is read as the next request, which proves as much.
        Verdict::Answers(_, End::Open) if matches!(pace, Pace::WithTail) => refuses(client),
        Verdict::Answers(_, End::Open) => still_answers(client),
        Verdict::Answers(_, End::Either) => End::Either,
        _ => closes(client),
    };
    (answers, end)
}

fn still_answers(client: &mut Client) -> End {
    let sent = client.try_send("GET /calls HTTP/1.1\r\nHost: a\r\n\r\n");
    if sent.is_ok() && client.read_within("GET", CLOSE).is_ok_and(|answer| answer.status == 200) {
        End::Open
    } else {
        End::Closed
    }
}

fn refuses(client: &mut Client) -> End {
    match client.read_within("GET", CLOSE) {
        Ok(answer) if matches!(answer.status, 400 | 414) && answer.says_close() => End::Open,
        _ => End::Closed,
    }
}

fn closes(client: &mut Client) -> End {
    match client.read_within("GET", CLOSE) {
        Err(Broken::Closed) => End::Closed,
        _ => End::Open,
    }
}

fn judge(case: &Json, verdict: &Verdict, answers: &[Response], end: End) -> Option<String> {
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    let good = match verdict {
        Verdict::Answers(wanted, wanted_end) => statuses == *wanted && end == *wanted_end,
        Verdict::Refused(allowed) => matches!(&statuses[..], [one] if allowed.contains(one)) && end == End::Closed,
        Verdict::Waits => statuses.is_empty() && end == End::Open,
        Verdict::Hangup => matches!(&statuses[..], [] | [400]) && end == End::Closed,
    };
    let refusal = answers.iter().find(|answer| answer.status >= 400 && !answer.says_close());
    if let Some(answer) = refusal {
        return Some(format!("{} without Connection: close", answer.status));
    }
    (!good).then(|| format!("{statuses:?} {end:?}, not {verdict:?} (OURS: {})", case["ours"].text()))
}

/// What the app saw, and the interim answers, where the row is about them.
fn details(case: &Json, answers: &[Response]) -> Option<String> {
    let id = case["id"].text();
    let ours = case["ours"].text();
    let first = answers.first()?;
    if ["EX-02-100cont-wait", "EX-03-upper"].contains(&id) && first.interim.is_empty() {
        return Some("no 100 before the body".to_string());
    }
    if id == "EX-05-http10" && !first.interim.is_empty() {
        return Some("a 100 for HTTP/1.0".to_string());
    }
    if answers.iter().any(|answer| answer.status == 200 && answer.version != "HTTP/1.1" && !id.contains("10")) {
        return Some(format!("answered as {}", first.version));
    }
    if id == "CL-35-zero-plus-extra" && answers[1].json()["REQUEST_METHOD"] != "XGET" {
        return Some("the second method is not XGET".to_string());
    }
    if ours.contains("[5]") && first.json()["body_length"].number() != 5.0 {
        return Some(format!("the body is {:?}", first.json()["body"]));
    }
    let rows = SEEN.iter().filter(|(row, _, _)| *row == id);
    rows.filter_map(|(_, key, wanted)| wrong_member(&first.json(), key, *wanted)).next()
}

fn wrong_member(report: &Json, key: &str, wanted: Option<&str>) -> Option<String> {
    let found = report.get(key).map(Json::text);
    (found != wanted).then(|| format!("{key} is {found:?}, not {wanted:?}"))
}

/// The verdict of a row, from `SPECIAL` or else from how its column OURS begins.
fn verdict(case: &Json) -> Verdict {
    let id = case["id"].text();
    let ours = case["ours"].text();
    match SPECIAL.iter().find(|(row, _)| *row == id).map(|(_, special)| special) {
        Some(Special::Answered(statuses, end)) => Verdict::Answers(statuses.to_vec(), *end),
        Some(Special::Refused(statuses)) => Verdict::Refused(statuses.to_vec()),
        Some(Special::Waits) => Verdict::Waits,
        Some(Special::Hangup) => Verdict::Hangup,
        Some(Special::Parity) => parity(case),
        None if ours.starts_with("accept") => parity(case),
        None => Verdict::Refused(refusals(ours)),
    }
}

/// "501c/400c, never CL" allows 501 and 400; what follows a `;` or a parenthesis is commentary.
fn refusals(ours: &str) -> Vec<u16> {
    let verdict = ours.split([';', '(', ',']).next().unwrap_or_default();
    let words = verdict.split([' ', '/']);
    let statuses: Vec<u16> = words.filter_map(|word| word.strip_suffix('c')?.parse().ok()).collect();
    assert!(!statuses.is_empty(), "no verdict can be read from {ours:?}");
    statuses
}

/// What gunicorn did. "RAW" stands for an answer which its recorder could not read as one (an
/// interim one before it).
fn parity(case: &Json) -> Verdict {
    let row = &case["gunicorn"];
    let status = |status: &Json| match status {
        Json::Number(number) => *number as u16,
        _ => 200,
    };
    let end = if row["end"] == "open" { End::Open } else { End::Closed };
    Verdict::Answers(row["statuses"].list().iter().map(status).collect(), end)
}

/// The methods of a row's requests, as far as they decide how an answer is framed: HEAD or not.
fn methods(case: &Json) -> Vec<String> {
    let starts_with_head = case["steps"]
        .list()
        .first()
        .is_some_and(|step| step.get("send").is_some_and(|parts| bytes(parts).starts_with(b"HEAD ")));
    if starts_with_head { vec!["HEAD".to_string()] } else { Vec::new() }
}

fn cases() -> Vec<Json> {
    let path = root().join("tests/data/http-cases.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Json::parse(&text)["cases"].list().to_vec()
}
