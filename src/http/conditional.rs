//! Conditional requests (RFC 9110, section 13): what a client's preconditions make of a response.
//!
//! The module knows bytes and seconds: no file, no clock.

use std::borrow::Cow;
use std::ops::Range;

use super::date;
use super::grammar::trim_ows;
use super::range::{self, Selected};
use super::request::RequestHead;

/// The fields of a request that bear on what is sent of a file.
#[derive(Debug, Clone, Default)]
pub struct Conditions<'a> {
    if_match: Option<Cow<'a, [u8]>>,
    if_none_match: Option<Cow<'a, [u8]>>,
    if_modified_since: Single<'a>,
    if_unmodified_since: Single<'a>,
    if_range: Single<'a>,
    range: Single<'a>,
    accept_encoding: Option<Cow<'a, [u8]>>,
}

/// A field that may come once. A repeated one has no value: nobody can say which of the two is
/// meant.
#[derive(Debug, Clone, Copy, Default)]
enum Single<'a> {
    #[default]
    Missing,
    Once(&'a [u8]),
    Repeated,
}

/// What tells two states of a file apart (RFC 9110, 8.8).
#[derive(Debug, Clone, Copy)]
pub struct Validators<'a> {
    /// The entity tag as sent, with its quotes, and `W/` if it is weak.
    pub etag: Option<&'a [u8]>,
    /// When it was last changed, in seconds since the epoch.
    pub modified: Option<u64>,
    /// Whether the file cannot have changed once more within the second `modified`, after it was
    /// read (RFC 9110, 8.8.2.2).
    pub modified_is_strong: bool,
}

/// What a request gets of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All of the file: 200.
    Whole,
    /// These bytes of the file: 206.
    Parts(Vec<Range<u64>>),
    /// Nothing, since the client has the file: 304.
    NotModified,
    /// Nothing, since the file is not the one that the client means: 412.
    PreconditionFailed,
    /// Nothing, since the file has no such bytes: 416.
    Unsatisfiable,
}

impl<'a> Conditions<'a> {
    /// The conditions of the request with this `head`, whose spans point into `source`.
    pub fn of(head: &'a RequestHead, source: &'a [u8]) -> Self {
        let mut conditions = Conditions::default();
        for (name, value) in head.headers(source) {
            conditions.note(name, value);
        }
        conditions
    }

    fn note(&mut self, name: &[u8], value: &'a [u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            5 if is("range") => self.range.note(value),
            8 if is("if-match") => join(&mut self.if_match, value),
            8 if is("if-range") => self.if_range.note(value),
            13 if is("if-none-match") => join(&mut self.if_none_match, value),
            15 if is("accept-encoding") => join(&mut self.accept_encoding, value),
            17 if is("if-modified-since") => self.if_modified_since.note(value),
            19 if is("if-unmodified-since") => self.if_unmodified_since.note(value),
            _ => {}
        }
    }

    /// The value of Accept-Encoding; `None` where it is not sent.
    pub fn accept_encoding(&self) -> Option<&[u8]> {
        self.accept_encoding.as_deref()
    }

    /// What a GET, or a HEAD (`is_head`), gets of a file with these `validators` and this `length`.
    /// A HEAD has no ranges (RFC 9110, 14.2). The preconditions are judged in the order of 13.2.2.
    pub fn verdict(&self, validators: &Validators<'_>, length: u64, is_head: bool) -> Verdict {
        if let Some(tags) = &self.if_match {
            if !lists(tags, validators.etag, Comparison::Strong) {
                return Verdict::PreconditionFailed;
            }
        } else if let Some(since) = self.if_unmodified_since.date()
            && validators.modified.is_some_and(|modified| modified > since)
        {
            return Verdict::PreconditionFailed;
        }
        if let Some(tags) = &self.if_none_match {
            if lists(tags, validators.etag, Comparison::Weak) {
                return Verdict::NotModified;
            }
        } else if let Some(since) = self.if_modified_since.date()
            && validators.modified.is_some_and(|modified| modified <= since)
        {
            return Verdict::NotModified;
        }
        let Single::Once(wanted) = self.range else { return Verdict::Whole };
        if is_head || !self.if_range_holds(validators) {
            return Verdict::Whole;
        }
        match range::select(wanted, length) {
            Selected::Whole => Verdict::Whole,
            Selected::Parts(parts) => Verdict::Parts(parts),
            Selected::Unsatisfiable => Verdict::Unsatisfiable,
        }
    }

    /// Whether the ranges are of the file that the client has a part of (RFC 9110, 13.1.5): only a
    /// strong validator can say so. A repeated If-Range says no.
    fn if_range_holds(&self, validators: &Validators<'_>) -> bool {
        let value = match self.if_range {
            Single::Missing => return true,
            Single::Repeated => return false,
            Single::Once(value) => value,
        };
        if value.starts_with(b"\"") || value.starts_with(b"W/") {
            return lists(value, validators.etag, Comparison::Strong) && value != b"*";
        }
        let date = date::parse(value);
        date.is_some() && date == validators.modified && validators.modified_is_strong
    }
}

impl<'a> Single<'a> {
    fn note(&mut self, value: &'a [u8]) {
        *self = if matches!(self, Single::Missing) { Single::Once(value) } else { Single::Repeated };
    }

    /// The field's date. A value that is no date is ignored (RFC 9110, 13.1.3 and 13.1.4).
    fn date(self) -> Option<u64> {
        if let Single::Once(value) = self { date::parse(value) } else { None }
    }
}

/// Several lines of a list are one list (RFC 9110, 5.3).
fn join<'a>(known: &mut Option<Cow<'a, [u8]>>, value: &'a [u8]) {
    match known {
        None => *known = Some(Cow::Borrowed(value)),
        Some(list) => {
            let list = list.to_mut();
            list.extend_from_slice(b", ");
            list.extend_from_slice(value);
        }
    }
}

/// How two entity tags are compared (RFC 9110, 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Both are strong, and the same.
    Strong,
    /// They are the same but for `W/`.
    Weak,
}

/// Whether `tags`, a list of entity tags or `*`, has `etag`. List members that are no tags are
/// passed over.
fn lists(tags: &[u8], etag: Option<&[u8]>, comparison: Comparison) -> bool {
    let mut rest = trim_ows(tags);
    if rest == b"*" {
        return true;
    }
    let Some((is_weak, opaque, _)) = etag.and_then(read_tag) else { return false };
    while !rest.is_empty() {
        let Some((listed_is_weak, listed, behind)) = read_tag(rest) else {
            let next = memchr::memchr(b',', rest).map_or(rest.len(), |comma| comma + 1);
            rest = trim_ows(&rest[next..]);
            continue;
        };
        let is_comparable = comparison == Comparison::Weak || !(is_weak || listed_is_weak);
        if is_comparable && listed == opaque {
            return true;
        }
        let comma = behind.iter().position(|&byte| byte != b',' && byte != b' ' && byte != b'\t');
        rest = &behind[comma.unwrap_or(behind.len())..];
    }
    false
}

/// The entity tag at the front of `bytes`: whether it is weak, what stands between its quotes, and
/// what stands behind it.
fn read_tag(bytes: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (is_weak, quoted) = match bytes.strip_prefix(b"W/") {
        Some(quoted) => (true, quoted),
        None => (false, bytes),
    };
    let opaque = quoted.strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', opaque)?;
    Some((is_weak, &opaque[..end], &opaque[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: u64 = 784_111_777;
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";

    /// What these fields get of a file of a hundred bytes with the tag `"a,b"`, weak or strong.
    fn verdict(fields: &[(&str, &str)], is_weak: bool, is_head: bool) -> Verdict {
        let mut conditions = Conditions::default();
        fields.iter().for_each(|(name, value)| conditions.note(name.as_bytes(), value.as_bytes()));
        let etag: &[u8] = if is_weak { b"W/\"a,b\"" } else { b"\"a,b\"" };
        let validators = Validators { etag: Some(etag), modified: Some(MODIFIED), modified_is_strong: !is_weak };
        conditions.verdict(&validators, 100, is_head)
    }

    #[test]
    fn preconditions_are_judged_in_their_order() {
        use Verdict::{NotModified, PreconditionFailed, Whole};
        let rows: &[(&[(&str, &str)], Verdict)] = &[
            (&[], Whole),
            (&[("If-None-Match", "\"a,b\"")], NotModified),
            (&[("If-None-Match", "W/\"a,b\"")], NotModified),
            (&[("If-None-Match", "\"x\", \"a\" ,\"a,b\"")], NotModified),
            (&[("If-None-Match", "\"x\""), ("if-none-match", "\"a,b\"")], NotModified),
            (&[("If-None-Match", "*")], NotModified),
            (&[("If-None-Match", "\"a\", b\"")], Whole),
            (&[("If-None-Match", "nonsense, \"a,b\"")], NotModified),
            (&[("If-None-Match", "a,b")], Whole),
            (&[("If-None-Match", "")], Whole),
            (&[("If-Modified-Since", THEN)], NotModified),
            (&[("If-Modified-Since", LATER)], NotModified),
            (&[("If-Modified-Since", BEFORE)], Whole),
            (&[("If-Modified-Since", "yesterday")], Whole),
            (&[("If-Modified-Since", THEN), ("If-Modified-Since", THEN)], Whole),
            // The tag outweighs the date (13.1.3).
            (&[("If-None-Match", "\"x\""), ("If-Modified-Since", THEN)], Whole),
            (&[("If-Match", "\"a,b\"")], Whole),
            (&[("If-Match", "*")], Whole),
            (&[("If-Match", "\"x\"")], PreconditionFailed),
            (&[("If-Match", "W/\"a,b\"")], PreconditionFailed),
            (&[("If-Unmodified-Since", THEN)], Whole),
            (&[("If-Unmodified-Since", BEFORE)], PreconditionFailed),
            (&[("If-Unmodified-Since", "never")], Whole),
            (&[("If-Match", "\"a,b\""), ("If-Unmodified-Since", BEFORE)], Whole),
            (&[("If-Match", "\"x\""), ("If-None-Match", "\"a,b\"")], PreconditionFailed),
            (&[("If-Match", "\"a,b\""), ("If-None-Match", "\"a,b\"")], NotModified),
        ];
        for (fields, expected) in rows {
            assert_eq!(verdict(fields, false, false), *expected, "{fields:?}");
            assert_eq!(verdict(fields, false, true), *expected, "HEAD {fields:?}");
        }
        assert_eq!(verdict(&[("If-None-Match", "\"a,b\"")], true, false), NotModified);
        assert_eq!(verdict(&[("If-Match", "\"a,b\"")], true, false), PreconditionFailed);
    }

    #[test]
    fn ranges_count_only_for_the_file_that_the_client_knows() {
        let range = ("Range", "bytes=0-9");
        let part = || Verdict::Parts(std::iter::once(0..10).collect());
        assert_eq!(verdict(&[range], false, false), part());
        assert_eq!(verdict(&[range], false, true), Verdict::Whole, "HEAD has no ranges");
        assert_eq!(verdict(&[range, ("Range", "bytes=0-1")], false, false), Verdict::Whole);
        assert_eq!(verdict(&[("Range", "bytes=100-")], false, false), Verdict::Unsatisfiable);
        assert_eq!(verdict(&[("Range", "bytes=100-"), ("If-None-Match", "*")], false, false), Verdict::NotModified);
        for (value, strong) in [
            ("\"a,b\"", true),
            ("W/\"a,b\"", false),
            ("\"x\"", false),
            (THEN, true),
            (BEFORE, false),
            ("*", false),
            ("", false),
        ] {
            let fields = [range, ("If-Range", value)];
            assert_eq!(verdict(&fields, false, false), if strong { part() } else { Verdict::Whole }, "{value}");
            assert_eq!(verdict(&fields, true, false), Verdict::Whole, "{value}, weak validators");
        }
    }
}
