//! The commands of the control socket: one frame to the server, one back (gunicorn's protocol, see
//! `master/control`).

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::duration::duration;
use super::{DEGRADED, NOT_RUNNING, OK, UNKNOWN, harmless, print};

/// How long a reply may take: gunicornc's number. A command with `--wait` has no limit.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest reply that is read.
const MOST_BYTES: usize = 16 << 20;

/// Sends the words to the socket at this path, and prints the reply. Returns the exit status: 1 if
/// the server refuses or cannot do it, 3 if nobody listens, 4 if that cannot be told.
pub(super) fn run(path: &str, words: &[String]) -> i32 {
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) => {
            eprintln!("monoceros ctl: cannot connect to {path:?}: {error}");
            return match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => NOT_RUNNING,
                _ => UNKNOWN,
            };
        }
    };
    match ask(stream, words) {
        Ok(Ok(data)) => {
            print(&shown(&data));
            // Some of gunicorn's replies say in this way that the command has failed.
            if data["success"] == false { DEGRADED } else { OK }
        }
        Ok(Err(refusal)) => {
            eprintln!("monoceros ctl: {}", harmless(&refusal));
            DEGRADED
        }
        Err(error) => {
            eprintln!("monoceros ctl: the server has not answered: {error}");
            DEGRADED
        }
    }
}

/// Stacks as `stacks` shows them, and all else as JSON.
fn shown(data: &Value) -> String {
    let workers = data["workers"].as_array().filter(|workers| workers.iter().any(|it| it.get("stacks").is_some()));
    match workers {
        Some(workers) => workers.iter().map(stacks_of).collect::<Vec<_>>().join("\n"),
        None => format!("{data:#}"),
    }
}

fn stacks_of(worker: &Value) -> String {
    let mut text = format!(
        "worker {} (pid:{}) {}: {} requests in the application\n",
        worker["number"],
        worker["pid"],
        worker["state"].as_str().unwrap_or_default(),
        worker["in_flight"]
    );
    for request in worker["requests"].as_array().into_iter().flatten() {
        let age = duration(request["age"].as_f64().unwrap_or_default());
        let what = harmless(request["request"].as_str().unwrap_or_default());
        text.push_str(&format!("  for {age} at {what}\n"));
    }
    match (worker["stacks"].as_str(), worker["error"].as_str()) {
        (Some(stacks), _) => text.push_str(&harmless(stacks)),
        (None, reason) => text.push_str(&format!("  no stacks: {}\n", reason.unwrap_or_default())),
    }
    text
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
