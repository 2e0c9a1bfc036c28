//! The fuzz targets' harness, for a few seconds and always in the same way: the committed corpus,
//! then mutations of it that a seed decides. docs/fuzzing.md has the long run. `splits` asks of
//! chosen streams what the fuzzer asks of any.

#[path = "../fuzz/harness.rs"]
mod harness;
mod splits;

use std::fs;
use std::path::Path;

/// Mutated inputs per target. `MONOCEROS_FUZZ_ROUNDS` sets another number.
const ROUNDS: usize = 3000;

const TARGETS: &[&str] = &["head", "chunked", "proxy", "uwsgi", "connection", "response"];

/// What a mutation puts in: the bytes and words that parsers disagree about.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"_",
    b"+",
    b"\x85",
    b"\xa0",
    b"0",
    b"chunked",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\n",
    b"HTTP/1.0",
    b"Connection: close\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"9223372036854775808",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    b"\x00\x00\x00\x00",
    b"\x0e\x00CONTENT_LENGTH\x01\x005",
    b"\x09\x00PATH_INFO\x02\x00/%",
    b"\x08\x00HTTP_X_A\x01\x00b",
];

#[test]
fn heads() {
    run("head", harness::head);
}

#[test]
fn chunked_bodies() {
    run("chunked", harness::chunked);
}

#[test]
fn response_framing() {
    run("response", harness::response);
}

#[test]
fn proxy_headers() {
    run("proxy", harness::proxy);
}

#[test]
fn uwsgi_packets() {
    run("uwsgi", harness::uwsgi);
}

#[test]
fn connections() {
    run("connection", harness::connection);
}

/// Sorted, so that no input is there twice, and the same corpus makes the same file.
#[test]
fn the_packed_corpus_is_sorted_and_in_the_form_of_a_failing_input() {
    for target in TARGETS {
        let text = packed_corpus(target);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.is_sorted_by(|one, next| one < next), "{target}: not as fuzz/corpus.py packs it");
        for (line, input) in lines.iter().zip(corpus(target)) {
            assert_eq!(input.escape_ascii().to_string(), **line, "{target}");
        }
    }
}

fn run(target: &str, check: fn(&[u8])) {
    let corpus = corpus(target);
    corpus.iter().for_each(|input| checked(check, input));
    let rounds = std::env::var("MONOCEROS_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for _ in 0..rounds {
        let mut input = corpus[chance.below(corpus.len())].clone();
        for _ in 0..=chance.below(4) {
            mutate(&mut input, &corpus, &mut chance);
        }
        checked(check, &input);
    }
}

/// Shows the input that a check fails on, in a form that can go into a test.
fn checked(check: fn(&[u8]), input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| check(input));
    assert!(outcome.is_ok(), "input: b\"{}\"", input.escape_ascii());
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    packed_corpus(target).lines().map(|line| unescape(line).unwrap_or_else(|| panic!("{target}: {line}"))).collect()
}

/// The file that `fuzz/corpus.py` packs: one input a line.
fn packed_corpus(target: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target).with_extension("txt");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The bytes of which `escape_ascii` has made the line.
fn unescape(line: &str) -> Option<Vec<u8>> {
    let mut bytes = line.bytes();
    let mut input = Vec::new();
    while let Some(byte) = bytes.next() {
        input.push(if byte == b'\\' { unescape_one(&mut bytes)? } else { byte });
    }
    Some(input)
}

/// What stands behind a backslash.
fn unescape_one(bytes: &mut std::str::Bytes<'_>) -> Option<u8> {
    let digit = |byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match bytes.next()? {
        b't' => Some(b'\t'),
        b'r' => Some(b'\r'),
        b'n' => Some(b'\n'),
        b'x' => Some(digit(bytes.next()?)? << 4 | digit(bytes.next()?)?),
        byte @ (b'\'' | b'"' | b'\\') => Some(byte),
        _ => None,
    }
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], chance: &mut Chance) {
    let at = chance.below(input.len() + 1);
    let end = (at + chance.below(8)).min(input.len());
    match chance.below(6) {
        0 => drop(input.drain(at..end)),
        1 => drop(input.splice(at..at, WORDS[chance.below(WORDS.len())].iter().copied())),
        2 => drop(input.splice(at..end, WORDS[chance.below(WORDS.len())].iter().copied())),
        3 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << chance.below(8)),
        4 => {
            let part = input[at..end].to_vec();
            drop(input.splice(at..at, part));
        }
        _ => {
            let other = &corpus[chance.below(corpus.len())];
            input.truncate(at);
            input.extend_from_slice(&other[chance.below(other.len() + 1)..]);
        }
    }
}

/// Xorshift: as good as chance, and the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}
