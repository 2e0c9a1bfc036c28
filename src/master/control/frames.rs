//! The frames of the control protocol: four bytes of length, most significant first, then a JSON
//! object. They are gunicorn's, so that its client `gunicornc` works here.

use serde_json::{Value, json};

/// The longest frame. gunicorn takes 16 MiB; no command is longer than a line.
const MOST_BYTES: usize = 1 << 20;

/// What a client's bytes hold.
#[derive(Debug, PartialEq)]
pub(super) enum Read {
    /// The id that the reply must carry, and the words of the command. The error is gunicorn's for
    /// a text that cannot be split into words.
    Request(Value, Result<Vec<String>, String>),
    /// More is to come.
    Partial,
    /// The bytes are not of this protocol. gunicorn then closes the connection without a reply.
    Broken,
}

/// Takes a frame from the front of what has come.
pub(super) fn take(input: &mut Vec<u8>) -> Read {
    let Some(length) = input.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize) else {
        return Read::Partial;
    };
    if length == 0 || length > MOST_BYTES {
        return Read::Broken;
    }
    if input.len() < 4 + length {
        return Read::Partial;
    }
    let frame: Vec<u8> = input.drain(..4 + length).skip(4).collect();
    let Ok(Value::Object(object)) = serde_json::from_slice(&frame) else { return Read::Broken };
    let command = match object.get("command") {
        None => "",
        Some(Value::String(command)) => command,
        Some(_) => return Read::Broken,
    };
    let id = object.get("id").cloned().unwrap_or_else(|| json!(0));
    let arguments = match object.get("args") {
        Some(Value::Array(arguments)) => arguments.iter().map(as_python_shows).collect(),
        // Python iterates over the characters of a text.
        Some(Value::String(text)) => text.chars().map(String::from).collect(),
        _ => Vec::new(),
    };
    let words = shlex::split(command).ok_or_else(|| "Invalid argument: No closing quotation".to_owned());
    Read::Request(id, words.map(|words| words.into_iter().chain(arguments).collect()))
}

/// The frame that carries this object.
pub(super) fn frame(object: &Value) -> Vec<u8> {
    let text = object.to_string();
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

/// A value as Python's `str()` shows it.
fn as_python_shows(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(object: &Value) -> Read {
        take(&mut frame(object))
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole_and_what_follows_stays() {
        let whole = frame(&json!({"id": 7, "command": "worker add", "args": [2]}));
        for end in 0..whole.len() {
            assert_eq!(take(&mut whole[..end].to_vec()), Read::Partial);
        }
        let mut two = [whole, vec![0, 0]].concat();
        let words = ["worker", "add", "2"].map(str::to_owned).to_vec();
        assert_eq!(take(&mut two), Read::Request(json!(7), Ok(words)));
        assert_eq!(two, [0, 0]);
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        let words = |command: &str| match read(&json!({"command": command})) {
            Read::Request(id, words) if id == json!(0) => words,
            other => panic!("{other:?}"),
        };
        assert_eq!(words("show  'all x'").unwrap(), ["show", "all x"]);
        assert_eq!(words("show 'all").unwrap_err(), "Invalid argument: No closing quotation");
        assert_eq!(words("").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_command_is_broken() {
        for bytes in [&b"\0\0\0\0"[..], b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x02{\"", b"\0\0\0\x01\xff"] {
            assert_eq!(take(&mut bytes.to_vec()), Read::Broken, "{bytes:?}");
        }
        assert_eq!(read(&json!({"command": 1})), Read::Broken);
    }
}
