//! gunicorn's own request fixtures against the real program: the same verdict and the same request,
//! sent at once, byte by byte and in pieces of random length. They are fetched with pip when the
//! tests run (`data/gunicorn_fixtures.py`).

use std::collections::BTreeMap;
use std::process::Command;

use crate::util::client::{Broken, Client};
use crate::util::json::Json;
use crate::util::server::{Plan, Server};
use crate::util::{PATIENCE, root, venv};

/// Valid fixtures that are refused here, and why.
const REFUSED_HERE: &[(&str, &str)] = &[(
    "valid/099",
    "The body ends before its Content-Length; gunicorn gives the app what there is, here it never reaches the app.",
)];

/// How a fixture's bytes are cut.
#[derive(Debug, Clone, Copy)]
enum Pace {
    AtOnce,
    Bytewise,
    /// Into pieces that this seed decides.
    Random(u64),
}

const PACES: [Pace; 4] = [Pace::AtOnce, Pace::Bytewise, Pace::Random(1), Pace::Random(2)];

#[test]
fn every_fixture_has_its_verdict_however_it_is_cut() {
    let fixtures = fixtures();
    let valid = fixtures.iter().filter(|fixture| fixture["is_valid"] == Json::Bool(true)).count();
    assert_eq!((valid, fixtures.len() - valid), (62, 81));
    let mut groups: BTreeMap<String, Vec<&Json>> = BTreeMap::new();
    for fixture in &fixtures {
        groups.entry(config(&fixture["settings"])).or_default().push(fixture);
    }
    let mut faults = Vec::new();
    for (config, fixtures) in groups {
        let mut server = Plan::app("echo").file("settings.toml", &config);
        let path = server.path("settings.toml").display().to_string();
        server = server.args(["--config", &path]);
        let mut server = server.start();
        server.allow("Invalid request");
        server.allow("more like it");
        for fixture in fixtures {
            for pace in PACES {
                let fault = check(&server, fixture, pace);
                faults.extend(fault.map(|fault| format!("{} {pace:?}: {fault}", fixture["name"].text())));
            }
        }
        server.finish();
    }
    assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults.join("\n"));
}

fn fixtures() -> Vec<Json> {
    let folder = root().join("target");
    let made = Command::new(venv().join("bin/python"))
        .arg(root().join("tests/data/gunicorn_fixtures.py"))
        .arg(&folder)
        .output()
        .expect("the virtualenv has a python");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Json::parse(&String::from_utf8_lossy(&made.stdout)).list().to_vec()
}

/// A config file for a fixture. Half of them know no Host (docs/decisions/0001-missing-host.md).
fn config(settings: &Json) -> String {
    let Json::Object(members) = settings else { panic!("settings are an object") };
    let line = |(name, value): &(String, Json)| match value {
        // gunicorn's True.
        Json::Bool(true) if name == "proxy_protocol" => "proxy_protocol = \"auto\"\n".to_owned(),
        Json::Bool(value) => format!("{name} = {value}\n"),
        Json::Number(value) => format!("{name} = {value}\n"),
        value => format!("{name} = {:?}\n", value.text()),
    };
    let lines: String = members.iter().map(line).collect();
    lines + "permit_missing_host = true\n"
}

fn check(server: &Server, fixture: &Json, pace: Pace) -> Option<String> {
    let before = calls(server);
    let mut client = server.connect();
    let bytes: Vec<u8> = fixture["bytes"].text().chars().map(|c| u8::try_from(c).expect("latin-1")).collect();
    for piece in pieces(&bytes, pace) {
        // A server that has refused need not take the rest.
        if client.try_send(piece).is_err() {
            break;
        }
    }
    client.shutdown_write();
    let fault = if fixture["is_valid"] == Json::Bool(true) && !is_named(REFUSED_HERE, fixture) {
        valid(&mut client, fixture["expected"].list())
    } else {
        invalid(&mut client, server, before)
    };
    fault.map(|fault| format!("{fault}; gunicorn: {:?}", fixture["expected"]))
}

fn is_named(list: &[(&str, &str)], fixture: &Json) -> bool {
    list.iter().any(|(name, _)| *name == fixture["name"].text())
}

fn valid(client: &mut Client, expected: &[Json]) -> Option<String> {
    for request in expected {
        let answer = match client.read_for(request["method"].text()) {
            Ok(answer) if answer.status == 200 => answer,
            other => return Some(format!("{other:?}")),
        };
        let report = answer.json();
        let pairs = [
            ("REQUEST_METHOD", &request["method"]),
            ("RAW_URI", &request["target"]),
            ("SERVER_PROTOCOL", &request["version"]),
            ("body", &request["body"]),
        ];
        if let Some((key, wanted)) = pairs.into_iter().find(|(key, wanted)| report.get(key) != Some(wanted)) {
            return Some(format!("{key} is {:?}, not {wanted:?}", report.get(key)));
        }
        let (seen, wanted) = (headers(&report), decoded(headers(&request["environ"]), request["body"].text()));
        if seen != wanted {
            return Some(format!("headers are {seen:?}, not {wanted:?}"));
        }
    }
    None
}

/// The environ keys that headers make.
fn headers(environ: &Json) -> BTreeMap<String, String> {
    let Json::Object(members) = environ else { panic!("an environ is an object") };
    let is_header = |name: &str| name.starts_with("HTTP_") || ["CONTENT_TYPE", "CONTENT_LENGTH"].contains(&name);
    members
        .iter()
        .filter(|(name, _)| is_header(name))
        .map(|(name, value)| (name.clone(), value.text().to_owned()))
        .collect()
}

/// What gunicorn leaves coded in name only: the chunks are undone, and here the environ says so.
fn decoded(mut headers: BTreeMap<String, String>, body: &str) -> BTreeMap<String, String> {
    let codings = ["chunked", "identity, chunked", "identity,chunked"];
    let is_decoded = headers
        .get("HTTP_TRANSFER_ENCODING")
        .is_some_and(|coding| codings.contains(&coding.trim().to_lowercase().as_str()));
    if is_decoded {
        headers.remove("HTTP_TRANSFER_ENCODING");
        headers.insert("CONTENT_LENGTH".to_owned(), body.chars().count().to_string());
    }
    headers
}

/// A refusal, or a close if the request never became complete; the app is called for neither.
fn invalid(client: &mut Client, server: &Server, before: usize) -> Option<String> {
    match client.read_within("GET", PATIENCE) {
        Ok(answer) if answer.status >= 400 && answer.says_close() => {}
        Err(Broken::Closed) => {}
        other => return Some(format!("{other:?}")),
    }
    match calls(server) - before {
        0 => None,
        calls => Some(format!("{calls} requests reached the app")),
    }
}

fn calls(server: &Server) -> usize {
    // The plainest request there is: some of the limits leave no room for a Host.
    let mut client = server.connect();
    client.send("GET /calls HTTP/1.0\r\n\r\n");
    client.read().json().number() as usize
}

fn pieces(bytes: &[u8], pace: Pace) -> Vec<&[u8]> {
    match pace {
        Pace::AtOnce => vec![bytes],
        Pace::Bytewise => bytes.chunks(1).collect(),
        Pace::Random(seed) => {
            let mut state = seed ^ bytes.len() as u64;
            let mut rest = bytes;
            let mut pieces = Vec::new();
            while !rest.is_empty() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let length = 1 + (state >> 33) as usize % (rest.len().div_ceil(3));
                let (piece, left) = rest.split_at(length);
                pieces.push(piece);
                rest = left;
            }
            pieces
        }
    }
}
