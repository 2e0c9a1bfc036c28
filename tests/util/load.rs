//! A load client that counts every outcome. Each request is unique, so that a lost, crossed or
//! shortened answer shows.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Address, Broken, Client, Response};

/// An app that answers with a version, the query string and the length of the body; `{}` is
/// replaced by the version. It says when it is loaded.
pub const APP: &str = r#"
import os, pathlib

pathlib.Path(os.environ["GATE"], f"loaded-{os.getpid()}").touch()


def application(environ, start_response):
    length = len(environ["wsgi.input"].read())
    body = f"v{} {environ['QUERY_STRING']} {length}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"#;

/// The app in one of its versions.
pub fn version(number: usize) -> String {
    APP.replace("v{}", &format!("v{number}"))
}

/// How requests are spread over connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// Each on its own.
    Fresh,
    /// All on one, as long as the server keeps it.
    Kept,
}

/// Every third request uploads that many bytes.
const UPLOAD: usize = 16_384;

/// How long an answer may take before it counts as missing.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// The outcomes of the requests.
#[derive(Default)]
pub struct Load {
    stopped: AtomicBool,
    ok: AtomicUsize,
    refused: AtomicUsize,
    reset: AtomicUsize,
    truncated: AtomicUsize,
    errors: AtomicUsize,
    wrong: AtomicUsize,
    silent: AtomicUsize,
    /// Kept connections that the server had closed before it saw the next request: HTTP's own race,
    /// asked again (RFC 9112 section 9.3.1).
    again: AtomicUsize,
    slowest_ms: AtomicUsize,
    /// The first failures, in words.
    examples: Mutex<Vec<String>>,
}

impl Load {
    /// Runs `clients` fresh and as many kept-alive clients for as long as `drive` takes.
    pub fn during(address: &Address, clients: usize, drive: impl FnOnce(&Load)) -> Load {
        let load = Load::default();
        thread::scope(|scope| {
            // Also when `drive` panics the clients must end, or the scope would wait for ever.
            let _stop = StopWhenDropped(&load);
            for number in 0..clients {
                for connections in [Connections::Fresh, Connections::Kept] {
                    let load = &load;
                    scope.spawn(move || load.run(address, number, connections));
                }
            }
            drive(&load);
        });
        load
    }

    /// Requests that were answered as they should.
    pub fn ok(&self) -> usize {
        self.ok.load(Relaxed)
    }

    pub fn refused(&self) -> usize {
        self.refused.load(Relaxed)
    }

    /// Requests that had no right answer.
    pub fn failed(&self) -> usize {
        let kinds = [&self.refused, &self.reset, &self.truncated, &self.errors, &self.wrong, &self.silent];
        kinds.iter().map(|kind| kind.load(Relaxed)).sum()
    }

    /// Those that a server which was killed in the middle cannot help.
    pub fn cut_off(&self) -> usize {
        self.reset.load(Relaxed) + self.truncated.load(Relaxed)
    }

    #[track_caller]
    pub fn expect_no_failure(&self) {
        println!("{self}");
        assert!(self.failed() == 0, "{self}");
        assert!(self.ok() > 50, "too few requests to say anything: {self}");
    }

    fn run(&self, address: &Address, client: usize, connections: Connections) {
        let mut kept: Option<Client> = None;
        for serial in 0.. {
            if self.stopped.load(Relaxed) {
                return;
            }
            let reused = kept.is_some();
            let connected = kept.take().map_or_else(|| Client::try_connect(address), Ok);
            match connected {
                Ok(connection) => {
                    kept = self.request(connection, &format!("{client}-{serial}"), serial % 3 == 2, reused)
                }
                Err(error) => {
                    self.fail(&self.refused, format!("refused: {error}"));
                    // A server that is not there would be asked a million times.
                    thread::sleep(Duration::from_millis(5));
                }
            }
            if connections == Connections::Fresh {
                kept = None;
            }
        }
    }

    /// One request; the connection, if it goes on.
    fn request(&self, mut client: Client, id: &str, upload: bool, reused: bool) -> Option<Client> {
        let (method, body) = if upload { ("POST", vec![b'x'; UPLOAD]) } else { ("GET", Vec::new()) };
        let head = format!("{method} /?{id} HTTP/1.1\r\nHost: load\r\nContent-Length: {}\r\n\r\n", body.len());
        let start = Instant::now();
        // A server that has closed already is heard of by reading.
        let _ = client.try_send([head.into_bytes(), body.clone()].concat());
        let answer = client.read_within(method, LONGEST_ANSWER);
        self.slowest_ms.fetch_max(start.elapsed().as_millis() as usize, Relaxed);
        match answer {
            Ok(response) => self.check(&response, id, body.len()).then_some(client).filter(|_| !response.says_close()),
            Err(Broken::Closed) if reused => {
                self.again.fetch_add(1, Relaxed);
                None
            }
            Err(broken) => {
                let kind = match broken {
                    Broken::Closed => &self.reset,
                    Broken::Truncated(_) | Broken::TruncatedHead => &self.truncated,
                    Broken::Silent => &self.silent,
                    Broken::Malformed(_) => &self.wrong,
                };
                self.fail(kind, format!("request {id}: {broken:?}"));
                None
            }
        }
    }

    fn check(&self, response: &Response, id: &str, length: usize) -> bool {
        let text = response.text();
        let is_right = text.starts_with('v') && text.ends_with(&format!(" {id} {length}"));
        match response.status {
            200 if is_right => drop(self.ok.fetch_add(1, Relaxed)),
            500.. => self.fail(&self.errors, format!("request {id}: {} {text}", response.status)),
            status => self.fail(&self.wrong, format!("request {id}: {status} {text:?}")),
        }
        is_right
    }

    fn fail(&self, kind: &AtomicUsize, what: String) {
        kind.fetch_add(1, Relaxed);
        let mut examples = self.examples.lock().unwrap_or_else(PoisonError::into_inner);
        if examples.len() < 5 {
            examples.push(what);
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("ok", &self.ok),
            ("refused", &self.refused),
            ("reset", &self.reset),
            ("truncated", &self.truncated),
            ("5xx", &self.errors),
            ("wrong", &self.wrong),
            ("silent", &self.silent),
            ("asked again", &self.again),
            ("slowest ms", &self.slowest_ms),
        ];
        for (name, count) in counts {
            write!(f, "{name} {}, ", count.load(Relaxed))?;
        }
        write!(f, "{:?}", self.examples.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct StopWhenDropped<'a>(&'a Load);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Relaxed);
    }
}
