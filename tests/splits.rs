//! However a client's bytes are cut into segments, a connection reads the same requests from them:
//! streams with every element that a segment border can fall into, cut at every place, at every
//! pair of places, into single bytes, and at places that a seed decides.

use crate::Chance;
use crate::harness::{Conversation, Finish, converse};

/// Cuts of each stream that the seed decides.
const CHANCE_CUTS: usize = 300;

/// Flags of the harness: the default settings, and those with the PROXY protocol.
const PLAIN: u8 = 0;
const PROXY: u8 = 0x80;

/// A stream, and what must come of it.
struct Stream {
    name: &'static str,
    flags: u8,
    bytes: &'static [u8],
    /// Method, target and body.
    requests: &'static [(&'static str, &'static str, &'static str)],
    refused: Option<u16>,
}

const STREAMS: &[Stream] = &[
    Stream {
        name: "a head",
        flags: PLAIN,
        bytes: b"\r\nGET /a%20b?q=1 HTTP/1.1\r\nHost: a\r\nX: caf\xc3\xa9 \r\nCookie: a=1\r\ncookie: b=2\r\n\r\n",
        requests: &[("GET", "/a%20b?q=1", "")],
        refused: None,
    },
    Stream {
        name: "a body of known length",
        flags: PLAIN,
        bytes: b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nhello\r\n\r\n0\r\n",
        requests: &[("POST", "/p", "hello\r\n\r\n0\r\n")],
        refused: None,
    },
    Stream {
        name: "a body that was asked for",
        flags: PLAIN,
        bytes: b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
        requests: &[("PUT", "/", "hi")],
        refused: None,
    },
    Stream {
        name: "a chunked body",
        flags: PLAIN,
        bytes: b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
            5;name=\"a;b\\\"\"\r\nhello\r\n00A\r\n\r\n0\r\n\r\n456\r\n0\r\nX-Sum: 1\r\nOther: y\r\n\r\n",
        requests: &[("POST", "/c", "hello\r\n0\r\n\r\n456")],
        refused: None,
    },
    Stream {
        name: "a PROXY line",
        flags: PROXY,
        bytes: b"PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        requests: &[("GET", "/1", ""), ("GET", "/2", "")],
        refused: None,
    },
    Stream {
        name: "a PROXY header of version 2",
        flags: PROXY,
        bytes: b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\x01\x02\x03\x04\x05\x06\x07\x08\0\x6f\0\xde\x04\0\0\
            POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        requests: &[("POST", "/", "abc")],
        refused: None,
    },
    Stream {
        name: "no PROXY header where there may be one",
        flags: PROXY,
        bytes: b"\r\nPROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n",
        requests: &[("PROPFIND", "/", "")],
        refused: None,
    },
    Stream {
        name: "requests one behind the other",
        flags: PLAIN,
        bytes: b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET \
            POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
            GET /4 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\
            GET /6 HTTP/1.1\r\nHost: a\r\n\r\n",
        requests: &[("GET", "/1", ""), ("POST", "/2", "GET "), ("POST", "/3", "abc"), ("GET", "/4", ""), ("GET", "/5", "")],
        refused: None,
    },
    Stream {
        name: "a bad chunk behind a good request",
        flags: PLAIN,
        bytes: b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
            3\r\nabcd\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        requests: &[("GET", "/1", "")],
        refused: Some(400),
    },
    Stream {
        name: "two lengths",
        flags: PLAIN,
        bytes: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        requests: &[],
        refused: Some(400),
    },
    Stream {
        name: "a second PROXY line",
        flags: PROXY,
        bytes: b"PROXY UNKNOWN\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\nPROXY UNKNOWN\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        requests: &[("GET", "/1", "")],
        refused: Some(400),
    },
    Stream {
        name: "a body that breaks off",
        flags: PLAIN,
        bytes: b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello",
        requests: &[("GET", "/1", "")],
        refused: None,
    },
];

#[test]
fn a_stream_means_the_expected_requests() {
    for stream in STREAMS {
        let whole = whole(stream);
        let requests: Vec<_> = whole
            .requests
            .iter()
            .map(|request| (&request.method[..], &request.target[..], &request.body[..]))
            .collect();
        let expected: Vec<_> = stream
            .requests
            .iter()
            .map(|(method, target, body)| (method.as_bytes(), target.as_bytes(), body.as_bytes()))
            .collect();
        assert_eq!((requests, whole.refused), (expected, stream.refused), "{}", stream.name);
        let is_announced = stream.name.starts_with("a PROXY");
        assert!(
            whole.clients.iter().all(|(address, _)| *address == if is_announced { "1.2.3.4" } else { "" }),
            "{}",
            stream.name
        );
    }
}

#[test]
fn one_segment_border_anywhere_changes_nothing() {
    each(|stream, length| (1..length).for_each(|cut| expect_same(stream, &[cut, length])));
}

#[test]
fn two_segment_borders_anywhere_change_nothing() {
    each(|stream, length| {
        // Of every first place, and of every third second one, or it would take long.
        (1..length).for_each(|first| {
            (first + 1..length).step_by(3).for_each(|second| expect_same(stream, &[first, second, length]))
        });
    });
}

#[test]
fn a_segment_border_behind_every_byte_changes_nothing() {
    each(|stream, length| {
        (1..5).for_each(|step| expect_same(stream, &(step..length).step_by(step).chain([length]).collect::<Vec<_>>()))
    });
}

#[test]
fn random_segment_borders_change_nothing() {
    let mut chance = Chance(0x5EED);
    each(|stream, length| {
        for _ in 0..CHANCE_CUTS {
            let mut ends: Vec<usize> =
                (0..=chance.below(12)).map(|_| 1 + chance.below(length)).chain([length]).collect();
            ends.sort_unstable();
            ends.dedup();
            expect_same(stream, &ends);
        }
    });
}

/// A read that holds a head and much of its body takes another way than a short one.
#[test]
fn a_long_body_that_comes_with_its_head_changes_nothing() {
    let body = "head\r\n\r\nGET / HTTP/1.1\r\n\r\n".repeat(120);
    let chunk = format!("{:x}\r\n{body}\r\n", body.len());
    let text = format!(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}\
         PUT /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n\
         GET /3 HTTP/1.1\r\nHost: a\r\n\r\nGET /bad HTTP/1.1\r\n\r\n{body}",
        body.len()
    );
    let stream =
        Stream { name: "long", flags: PLAIN, bytes: text.leak().as_bytes(), requests: &[], refused: Some(400) };
    let whole = whole(&stream);
    let bodies: Vec<usize> = whole.requests.iter().map(|request| request.body.len()).collect();
    assert_eq!((bodies, whole.refused), (vec![body.len(), 2 * body.len(), 0], Some(400)));
    let length = stream.bytes.len();
    (1..200).for_each(|cut| expect_same(&stream, &[cut, length]));
    let mut chance = Chance(0xB0D1E5);
    for _ in 0..CHANCE_CUTS {
        let mut ends: Vec<usize> = (0..=chance.below(4)).map(|_| 1 + chance.below(length)).chain([length]).collect();
        ends.sort_unstable();
        ends.dedup();
        expect_same(&stream, &ends);
    }
}

fn each(mut check: impl FnMut(&Stream, usize)) {
    STREAMS.iter().for_each(|stream| check(stream, stream.bytes.len()));
}

fn whole(stream: &Stream) -> Conversation {
    converse(stream.flags, stream.bytes, &[stream.bytes.len()], Finish::WithTheLast)
}

fn expect_same(stream: &Stream, ends: &[usize]) {
    for finish in [Finish::WithTheLast, Finish::AfterTheLast] {
        let pieces = converse(stream.flags, stream.bytes, ends, finish);
        assert_eq!(pieces, whole(stream), "{}, cut at {ends:?}, {finish:?}", stream.name);
    }
}
