//! The protocol of gunicorn's dirty arbiter, as far as the master needs it: a header of 16 bytes,
//! then a value as type, length and contents (TLV).
//!
//! ```text
//! "GD"  version 1  type  length: u32  id: u64  value
//! ```
//!
//! Numbers have their most significant byte first.

use serde_json::{Map, Value, json};

/// Bytes of the header.
const HEADER_BYTES: usize = 16;

/// The longest reply that is read: that of a thousand workers with long lists of apps. gunicorn's
/// own limit, for results of actions, is 64 MiB.
const MOST_BYTES: usize = 1 << 22;

/// How deep lists and dicts may lie in each other; replies to the master have three levels.
const MOST_DEPTH: u32 = 8;

const RESPONSE: u8 = 0x02;
const ERROR: u8 = 0x03;

/// What the master asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Request {
    /// The workers, and the limits of the apps.
    Status,
    /// Start this many more workers.
    Add(u32),
    /// Stop this many workers.
    Remove(u32),
}

impl Request {
    /// The request as it is sent.
    pub fn frame(self) -> Vec<u8> {
        let (kind, payload) = match self {
            Request::Status => (0x11, Vec::new()),
            Request::Add(count) => (0x12, manage(1, count)),
            Request::Remove(count) => (0x12, manage(2, count)),
        };
        frame(kind, &payload)
    }
}

/// What has come of a reply.
#[derive(Debug, PartialEq)]
pub(super) enum DirtyReply {
    /// More is to come.
    Partial,
    /// The result, or the arbiter's error.
    Whole(Result<Value, String>),
    /// The bytes are not of this protocol.
    Broken,
}

/// Reads the reply that `bytes` begin with.
pub(super) fn read(bytes: &[u8]) -> DirtyReply {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return DirtyReply::Partial };
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
    if !header.starts_with(b"GD\x01") || length > MOST_BYTES {
        return DirtyReply::Broken;
    }
    let Some(mut payload) = bytes[HEADER_BYTES..].get(..length) else { return DirtyReply::Partial };
    match (header[3], value(&mut payload, 0)) {
        (RESPONSE, Some(said)) => DirtyReply::Whole(Ok(said["result"].clone())),
        (ERROR, Some(said)) => {
            DirtyReply::Whole(Err(said["error"]["message"].as_str().unwrap_or("no reason").to_owned()))
        }
        _ => DirtyReply::Broken,
    }
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [b"GD\x01", &[kind][..], &length, &1_u64.to_be_bytes(), payload].concat()
}

fn manage(operation: i64, count: u32) -> Vec<u8> {
    let mut payload = vec![0x21, 0, 0, 0, 2];
    for (name, number) in [("op", operation), ("count", i64::from(count))] {
        payload.push(0x11);
        payload.extend((name.len() as u32).to_be_bytes());
        payload.extend(name.as_bytes());
        payload.push(0x05);
        payload.extend(number.to_be_bytes());
    }
    payload
}

/// Takes a value from the front of `bytes`; `None` if they begin with none.
fn value(bytes: &mut &[u8], depth: u32) -> Option<Value> {
    if depth > MOST_DEPTH {
        return None;
    }
    Some(match take(bytes, 1)?[0] {
        0x00 => Value::Null,
        0x01 => json!(take(bytes, 1)?[0] != 0),
        0x05 => json!(i64::from_be_bytes(take(bytes, 8)?.try_into().ok()?)),
        0x06 => json!(f64::from_be_bytes(take(bytes, 8)?.try_into().ok()?)),
        0x10 | 0x11 => {
            let length = count(bytes)?;
            json!(String::from_utf8_lossy(take(bytes, length)?))
        }
        0x20 => Value::Array((0..count(bytes)?).map(|_| value(bytes, depth + 1)).collect::<Option<_>>()?),
        0x21 => {
            let pairs = (0..count(bytes)?).map(|_| match value(bytes, depth + 1)? {
                Value::String(name) => Some((name, value(bytes, depth + 1)?)),
                _ => None,
            });
            Value::Object(pairs.collect::<Option<Map<_, _>>>()?)
        }
        _ => return None,
    })
}

fn count(bytes: &mut &[u8]) -> Option<usize> {
    Some(u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?) as usize)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that gunicorn 27.0.1 has made of each value.
    const VALUES: &[(&[u8], &str)] = &[
        (b"\x00", "null"),
        (b"\x01\x00", "false"),
        (b"\x01\x01", "true"),
        (b"\x05\x00\x00\x00\x00\x00\x00\x00\x07", "7"),
        (b"\x05\xff\xff\xff\xff\xff\xff\xff\xff", "-1"),
        (b"\x06\x3f\xf8\x00\x00\x00\x00\x00\x00", "1.5"),
        (b"\x10\x00\x00\x00\x01a", "\"a\""),
        (b"\x11\x00\x00\x00\x02\xc3\xa4", "\"\u{e4}\""),
        (b"\x20\x00\x00\x00\x02\x00\x01\x01", "[null,true]"),
        (b"\x21\x00\x00\x00\x01\x11\x00\x00\x00\x01a\x20\x00\x00\x00\x00", "{\"a\":[]}"),
    ];

    #[test]
    fn every_type_of_value_is_read_and_a_cut_one_is_none() {
        for (bytes, shown) in VALUES {
            let mut rest = *bytes;
            assert_eq!(value(&mut rest, 0).map(|value| value.to_string()).as_deref(), Some(*shown), "{bytes:?}");
            assert!(rest.is_empty());
            for end in 0..bytes.len() {
                assert_eq!(value(&mut &bytes[..end], 0), None, "{bytes:?} up to {end}");
            }
        }
    }

    #[test]
    fn what_is_no_value_is_none() {
        let deep = [b"\x20\x00\x00\x00\x01".repeat(10_000), vec![0]].concat();
        let number_as_key = b"\x21\x00\x00\x00\x01\x00\x00";
        for bytes in [&b"\x02"[..], b"\x11\xff\xff\xff\xffa", b"\x20\xff\xff\xff\xff\x00", number_as_key, &deep] {
            assert_eq!(value(&mut &bytes[..], 0), None);
        }
    }

    #[test]
    fn requests_have_the_bytes_of_gunicorns() {
        assert_eq!(Request::Status.frame(), b"GD\x01\x11\0\0\0\0\0\0\0\0\0\0\0\x01");
        let add = b"GD\x01\x12\0\0\0\x28\0\0\0\0\0\0\0\x01\x21\0\0\0\x02\
                    \x11\0\0\0\x02op\x05\0\0\0\0\0\0\0\x01\x11\0\0\0\x05count\x05\0\0\0\0\0\0\0\x03";
        assert_eq!(Request::Add(3).frame(), add);
    }

    #[test]
    fn a_reply_is_read_when_it_is_whole() {
        let result = frame(RESPONSE, b"\x21\0\0\0\x01\x11\0\0\0\x06result\x01\x01");
        assert_eq!(read(&result), DirtyReply::Whole(Ok(json!(true))));
        for end in 0..result.len() {
            assert_eq!(read(&result[..end]), DirtyReply::Partial, "{end}");
        }
        let message = b"\x21\0\0\0\x01\x11\0\0\0\x07message\x11\0\0\0\x02no";
        let error = frame(ERROR, &[&b"\x21\0\0\0\x01\x11\0\0\0\x05error"[..], message].concat());
        assert_eq!(read(&error), DirtyReply::Whole(Err("no".to_owned())));
        for broken in [&b"GE\x01\x02\0\0\0\0\0\0\0\0\0\0\0\x01"[..], b"GD\x01\x02\xff\0\0\0\0\0\0\0\0\0\0\x01"] {
            assert_eq!(read(broken), DirtyReply::Broken);
        }
        assert_eq!(read(&frame(0x04, b"\0")), DirtyReply::Broken, "a chunk of a stream");
    }
}
