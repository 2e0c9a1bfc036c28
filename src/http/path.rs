//! A request's path as the name of a file below a directory, and which paths may name one at all.
//!
//! A path is cut at its slashes before anything in it is decoded, so that no escape can make a step
//! of its own. The module knows no file system.

use std::borrow::Cow;

use super::request::decode_path;

/// What a path names below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName<'a> {
    /// Segments with slashes between them, decoded: none of them empty, `.` or `..`, none beginning
    /// with a dot. Empty for the directory itself.
    pub name: Cow<'a, [u8]>,
    /// Whether the path ended with a slash, and so asks for a directory.
    pub is_directory: bool,
}

/// What stands in `path` behind `prefix` (decoded segments with slashes between them, one in front,
/// none at the end): nothing, or a slash and more. `None` where `path` is not below `prefix`.
pub fn below<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let mut rest = path;
    for &expected in prefix {
        let (&byte, behind) = rest.split_first()?;
        rest = match byte {
            _ if byte == expected => behind,
            // A slash that was escaped is no slash between segments.
            b'%' if expected != b'/' && decode_path(rest.get(..3)?)[..] == [expected] => &rest[3..],
            _ => return None,
        };
    }
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

/// What `rest`, the part of a path that [`below`] returns, names. `None` where no file can have
/// that name, or none that is shown: steps up, empty segments, hidden files, escaped slashes, and
/// zero bytes, which end a name for the kernel.
pub fn file_name(rest: &[u8]) -> Option<FileName<'_>> {
    let Some(path) = rest.strip_prefix(b"/") else {
        return Some(FileName { name: Cow::default(), is_directory: false });
    };
    let (path, is_directory) = match path.strip_suffix(b"/") {
        Some(path) => (path, true),
        None => (path, path.is_empty()),
    };
    if path.is_empty() && rest.len() < 2 {
        return Some(FileName { name: Cow::default(), is_directory });
    }
    let is_escaped = memchr::memchr(b'%', path).is_some();
    let mut name = Vec::new();
    for raw in path.split(|&byte| byte == b'/') {
        let segment = if is_escaped { decode_path(raw) } else { Cow::Borrowed(raw) };
        if segment.is_empty() || segment[0] == b'.' || memchr::memchr2(b'/', 0, &segment).is_some() {
            return None;
        }
        if is_escaped {
            name.extend_from_slice(if name.is_empty() { b"" } else { b"/" });
            name.extend_from_slice(&segment);
        }
    }
    Some(FileName { name: if is_escaped { name.into() } else { path.into() }, is_directory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_a_segment_does() {
        let rows = [
            ("/static/a.css", Some("/a.css")),
            ("/static/", Some("/")),
            ("/static", Some("")),
            ("/%73tati%63/a%20b", Some("/a%20b")),
            ("/statics/a", None),
            ("/stat", None),
            ("/other", None),
            ("/static%2fa", None),
            ("%2fstatic/a", None),
            ("//static/a", None),
            ("/STATIC/a", None),
            ("/s%7", None),
        ];
        for (path, expected) in rows {
            assert_eq!(below(path.as_bytes(), b"/static"), expected.map(str::as_bytes), "{path}");
        }
        assert_eq!(below(b"/a", b""), Some(&b"/a"[..]));
        assert_eq!(below(b"*", b""), None);
    }

    #[test]
    fn a_name_is_made_of_plain_segments() {
        let rows = [
            ("", Some(("", false))),
            ("/", Some(("", true))),
            ("/a.css", Some(("a.css", false))),
            ("/a/b/c.js", Some(("a/b/c.js", false))),
            ("/a/", Some(("a", true))),
            ("/a%20b/%63", Some(("a b/c", false))),
            ("/100%", Some(("100%", false))),
            ("/a..b/c.", Some(("a..b/c.", false))),
            ("/a\\..\\b", Some(("a\\..\\b", false))),
        ];
        for (rest, expected) in rows {
            let found = file_name(rest.as_bytes());
            let found = found.map(|found| (String::from_utf8(found.name.to_vec()).unwrap(), found.is_directory));
            assert_eq!(found, expected.map(|(name, is_directory)| (name.to_owned(), is_directory)), "{rest}");
        }
    }

    #[test]
    fn what_leads_elsewhere_or_is_hidden_names_nothing() {
        let paths = [
            "/..",
            "/../a",
            "/a/../b",
            "/a/..",
            "/.",
            "/./a",
            "/%2e%2e/a",
            "/%2E./a",
            "/.%2e/a",
            "/a/%2e%2e/b",
            "/..%2fa",
            "/a%2fb",
            "/a%2Fb",
            "/a%00",
            "/a\0b",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.git/config",
            "/a/.hidden",
            "/%2ehtaccess",
            "/%2f",
            "/%2f%2fetc/passwd",
        ];
        for path in paths {
            assert_eq!(file_name(path.as_bytes()), None, "{path:?}");
        }
    }
}
