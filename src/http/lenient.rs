//! gunicorn's compatibility switches: what they permit is rewritten before the parser reads it.
//!
//! Under such a switch the head is copied into a canonical form, and the strict rules read the
//! copy. So leniency costs only where an operator asks for it, and no rule has a second version.

use super::grammar::{is_ows, trim_ows, trim_ows_end};
use super::policy::Policy;
use super::request::Span;

/// Copies the head in `buf` into `out`: everything before `block` with the method in upper case if
/// asked for, then the header lines of `block`, which ends with the empty line, unfolded and
/// without spaces before the colon if asked for.
///
/// Spans of the request line stay valid; the header block starts where it did.
pub(super) fn rewrite(buf: &[u8], method: Span, block: Span, policy: &Policy, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&buf[..block.start as usize]);
    if policy.casefold_http_method {
        out[method.start as usize..method.end as usize].make_ascii_uppercase();
    }
    for (index, line) in lines(block.of(buf)).enumerate() {
        match line.first() {
            Some(&byte) if is_ows(byte) && index > 0 && policy.permit_obsolete_folding => join(line, out),
            _ if policy.strip_header_spaces => strip(line, out),
            _ => out.extend_from_slice(line),
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The lines of a header block, without their CRLFs; the last one is empty.
pub(super) fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    block.split_inclusive(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r\n").unwrap_or(line))
}

/// Puts `line` behind the line that `out` ends with, with one space between them.
fn join(line: &[u8], out: &mut Vec<u8>) {
    let without_end = out.strip_suffix(b"\r\n").map_or(out.len(), <[u8]>::len);
    out.truncate(trim_ows_end(&out[..without_end]).len());
    out.push(b' ');
    out.extend_from_slice(trim_ows(line));
}

fn strip(line: &[u8], out: &mut Vec<u8>) {
    let colon = memchr::memchr(b':', line).unwrap_or(0);
    let (name, rest) = line.split_at(colon);
    out.extend_from_slice(trim_ows_end(name));
    out.extend_from_slice(rest);
}
