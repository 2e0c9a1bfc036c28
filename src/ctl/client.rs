//! The commands that the control socket carries out: one frame there, one back (gunicorn's
//! protocol, see `master/control`).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::{DEGRADED, NOT_RUNNING, OK, print};

/// How long a reply may take: gunicornc's number. A reload that is waited for takes its time.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest reply that is read.
const MOST_BYTES: usize = 16 << 20;

/// Sends the words to the socket at this path, and prints the reply. Exits 1 where the server
/// refuses, 3 where nobody listens.
pub(super) fn run(path: &str, words: &[String]) -> i32 {
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) => {
            eprintln!("monoceros ctl: nobody answers at {path:?}: {error}");
            return NOT_RUNNING;
        }
    };
    match ask(stream, words) {
        Ok(Ok(data)) => {
            print(&format!("{data:#}"));
            OK
        }
        Ok(Err(refusal)) => {
            eprintln!("monoceros ctl: {refusal}");
            DEGRADED
        }
        Err(error) => {
            eprintln!("monoceros ctl: the server has not answered: {error}");
            DEGRADED
        }
    }
}

fn ask(mut stream: UnixStream, words: &[String]) -> io::Result<Result<Value, String>> {
    let waits = words.iter().any(|word| word == "--wait");
    stream.set_read_timeout((!waits).then_some(TIMEOUT))?;
    let (command, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let request = json!({"id": 1, "command": command, "args": arguments}).to_string();
    stream.write_all(&[&(request.len() as u32).to_be_bytes(), request.as_bytes()].concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MOST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply)?;
    let reply: Value = serde_json::from_slice(&reply)?;
    Ok(match reply["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(reply["data"].clone()),
    })
}
