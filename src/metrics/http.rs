//! The few requests that are answered at `metrics_bind`. Bytes in, bytes out; each answer is the
//! last on its connection.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::families::Extras;
use super::text::Format;

/// Most header fields of a scraper's request.
const FIELDS: usize = 64;

/// The pages that a client can ask for.
pub trait Pages {
    /// The metrics.
    fn metrics(&self, format: Format, extras: Extras) -> String;

    /// Whether the server serves, and is not about to stop.
    fn serves(&self) -> bool;
}

/// The whole response to what a client has sent; `None` while the head is not complete.
pub fn answer(received: &[u8], pages: &impl Pages) -> Option<Vec<u8>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(received) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(_) => return Some(plain("400 Bad Request", "bad request\n", false)),
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let is_head = method == "HEAD";
    if !is_head && method != "GET" {
        return Some(plain("405 Method Not Allowed", "only GET and HEAD\n", false));
    }
    let field = |name: &str| -> String {
        let values = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        values.map(|field| String::from_utf8_lossy(field.value)).collect::<Vec<_>>().join(",")
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some(match path {
        "/metrics" => {
            let format = wanted_format(&field("accept"));
            let is_gzip = quality(&field("accept-encoding"), "gzip") > 0.0;
            metrics(pages.metrics(format, wanted_extras(query)).as_bytes(), format, is_gzip, is_head)
        }
        "/healthz" if pages.serves() => plain("200 OK", "ok\n", is_head),
        "/healthz" => plain("503 Service Unavailable", "stopping\n", is_head),
        _ => plain("404 Not Found", "there is /metrics and /healthz\n", is_head),
    })
}

/// The answer to a head that is longer than it may be.
pub fn too_long() -> Vec<u8> {
    plain("431 Request Header Fields Too Large", "too long\n", false)
}

fn metrics(page: &[u8], format: Format, is_gzip: bool, is_head: bool) -> Vec<u8> {
    let mut coding = "";
    let mut body = page.to_vec();
    // Writing into memory cannot fail; if it did, the plain page is as good.
    let packed = || -> std::io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::with_capacity(page.len() / 4), Compression::fast());
        encoder.write_all(page)?;
        encoder.finish()
    };
    if is_gzip && let Ok(packed) = packed() {
        (coding, body) = ("Content-Encoding: gzip\r\n", packed);
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\n{coding}Vary: Accept, Accept-Encoding\r\nCache-Control: no-store\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        format.media_type(),
        body.len()
    );
    join(&head, &body, is_head)
}

fn plain(status: &str, body: &str, is_head: bool) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    join(&head, body.as_bytes(), is_head)
}

fn join(head: &str, body: &[u8], is_head: bool) -> Vec<u8> {
    if is_head { head.as_bytes().to_vec() } else { [head.as_bytes(), body].concat() }
}

/// OpenMetrics where a client names it and does not prefer plain text.
fn wanted_format(accept: &str) -> Format {
    let open_metrics = quality(accept, "application/openmetrics-text");
    if open_metrics > 0.0 && open_metrics >= quality(accept, "text/plain") {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    }
}

/// What a query asks for: `open_fds=1`, which Prometheus sends for `params: {open_fds: ["1"]}`.
fn wanted_extras(query: &str) -> Extras {
    Extras { open_fds: query.split('&').any(|part| part == "open_fds=1") }
}

/// The highest weight that a list gives to an item of this name (RFC 9110, 12.4.2); 0 if it names
/// none.
fn quality(list: &str, name: &str) -> f64 {
    let weight = |item: &str| {
        let mut parts = item.split(';').map(str::trim);
        let is_meant = parts.next().is_some_and(|found| found.eq_ignore_ascii_case(name));
        let given = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        is_meant.then(|| given.map_or(1.0, |given| given.trim().parse().unwrap_or(0.0)))
    };
    list.split(',').filter_map(weight).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    struct Serving(bool);

    impl Pages for Serving {
        fn metrics(&self, format: Format, extras: Extras) -> String {
            let files = if extras.open_fds { " with files" } else { "" };
            format!("{format:?}{files}\n").repeat(100)
        }

        fn serves(&self) -> bool {
            self.0
        }
    }

    fn ask(request: &str) -> String {
        let received = request.replace('\n', "\r\n");
        String::from_utf8(answer(received.as_bytes(), &Serving(true)).expect("a whole head")).unwrap()
    }

    #[test]
    fn a_head_is_answered_when_it_is_whole() {
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!((0..request.len()).all(|end| answer(&request[..end], &Serving(true)).is_none()));
        assert!(answer(request, &Serving(true)).is_some());
    }

    #[test]
    fn the_format_is_what_the_client_asks_for() {
        // As Prometheus 2.42 asks.
        let both = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                    text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, is_open) in [
            ("", false),
            ("*/*", false),
            (both, true),
            ("text/plain", false),
            ("application/openmetrics-text;q=0", false),
        ] {
            let answer = ask(&format!("GET /metrics?x=1 HTTP/1.1\nAccept: {accept}\n\n"));
            assert_eq!(answer.contains("Content-Type: application/openmetrics-text"), is_open, "{accept}");
            assert_eq!(answer.ends_with("OpenMetrics\n"), is_open, "{accept}");
        }
    }

    #[test]
    fn what_costs_much_is_told_to_who_asks() {
        for (query, is_told) in [("", false), ("?open_fds=0", false), ("?a=b&open_fds=1", true)] {
            let answer = ask(&format!("GET /metrics{query} HTTP/1.1\n\n"));
            assert_eq!(answer.ends_with("Prometheus with files\n"), is_told, "{query}");
        }
    }

    #[test]
    fn a_page_is_packed_for_those_who_can_unpack_it() {
        let request = b"GET /metrics HTTP/1.1\r\naccept-encoding: br, gzip;q=0.5\r\n\r\n";
        let answer = answer(request, &Serving(true)).unwrap();
        let end = memchr::memmem::find(&answer, b"\r\n\r\n").unwrap() + 4;
        assert!(String::from_utf8_lossy(&answer[..end]).contains("Content-Encoding: gzip"));
        let mut page = String::new();
        flate2::read::GzDecoder::new(&answer[end..]).read_to_string(&mut page).unwrap();
        assert_eq!(page, "Prometheus\n".repeat(100));
        assert!(!ask("GET /metrics HTTP/1.1\nAccept-Encoding: gzip;q=0\n\n").contains("Content-Encoding"));
    }

    #[test]
    fn everything_else_is_told_what_there_is() {
        for (request, status) in [
            ("GET / HTTP/1.1\n\n", "404"),
            ("GET /metrics/ HTTP/1.1\n\n", "404"),
            ("POST /metrics HTTP/1.1\n\n", "405"),
            ("GET /healthz HTTP/1.0\n\n", "200"),
            ("nonsense\n\n", "400"),
        ] {
            assert!(ask(request).starts_with(&format!("HTTP/1.1 {status}")), "{request}");
        }
        assert!(ask("HEAD /metrics HTTP/1.1\n\n").ends_with("\r\n\r\n"));
        let stopping = answer(b"GET /healthz HTTP/1.1\r\n\r\n", &Serving(false)).unwrap();
        assert!(stopping.starts_with(b"HTTP/1.1 503"));
    }
}
