//! A file's type by the end of its name.
//!
//! The table is the crate's, not the system's `/etc/mime.types`: slim images do not have that file.
//! A script would be sent as a stream of bytes there, and browsers would refuse to run it.

/// The Content-Type of a file with this name. Text is said to be UTF-8: a browser that is not told
/// guesses by its user's language.
pub(super) fn of(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    match newer(&name).or_else(|| mime_guess::from_path(name.as_ref()).first_raw()) {
        Some(text) if text.starts_with("text/") => format!("{text}; charset=utf-8"),
        Some(other) => other.to_owned(),
        None => "application/octet-stream".to_owned(),
    }
}

/// Types that the crate does not know, or not by today's name.
fn newer(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    match ending.to_ascii_lowercase().as_str() {
        // RFC 9239.
        "mjs" => Some("text/javascript"),
        // RFC 8081.
        "woff" => Some("font/woff"),
        "otf" => Some("font/otf"),
        // Source maps, and the parts of a video that is streamed (RFC 8216).
        "map" => Some("application/json"),
        "m3u8" => Some("application/vnd.apple.mpegurl"),
        "ts" => Some("video/mp2t"),
        "br" => Some("application/x-brotli"),
        "zst" => Some("application/zstd"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_that_browsers_want() {
        let rows = [
            ("a.css", "text/css; charset=utf-8"),
            ("dir/a.min.JS", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.html", "text/html; charset=utf-8"),
            ("robots.txt", "text/plain; charset=utf-8"),
            ("favicon.ico", "image/x-icon"),
            ("a.svg", "image/svg+xml"),
            ("a.png", "image/png"),
            ("a.webp", "image/webp"),
            ("a.avif", "image/avif"),
            ("a.woff2", "font/woff2"),
            ("a.woff", "font/woff"),
            ("a.js.map", "application/json"),
            ("a.json", "application/json"),
            ("a.wasm", "application/wasm"),
            ("a.webmanifest", "application/manifest+json"),
            ("a.pdf", "application/pdf"),
            ("a.mp4", "video/mp4"),
            ("a.css.gz", "application/gzip"),
            ("a.css.zst", "application/zstd"),
            ("a.unheard-of", "application/octet-stream"),
            ("README", "application/octet-stream"),
            ("caf\u{e9}.png", "image/png"),
        ];
        for (name, expected) in rows {
            assert_eq!(of(name.as_bytes()), expected, "{name}");
        }
    }
}
