//! A client that hides nothing: raw bytes out, one strictly parsed response in.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use memchr::memmem;
use socket2::SockRef;

use super::PATIENCE;
use super::json::Json;
use super::tls::{TlsStream, Trust};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp(u16),
    Unix(PathBuf),
    /// TLS over TCP.
    Tls(u16, Trust),
}

impl Address {
    /// The port; there must be one.
    #[track_caller]
    pub fn port(&self) -> u16 {
        match self {
            Address::Tcp(port) | Address::Tls(port, _) => *port,
            Address::Unix(path) => panic!("{} is no TCP address", path.display()),
        }
    }
}

/// One connection. What has been read beyond the last response stays for the next.
pub struct Client {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

/// A response as it stood on the wire; the body without its framing.
#[derive(Debug, Default, Clone)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub reason: String,
    /// In order and in the sender's case.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// The heads of the 1xx answers before it.
    pub interim: Vec<Vec<u8>>,
}

/// How a response can fail to arrive.
#[derive(Debug)]
pub enum Broken {
    /// The server closed before the first byte.
    Closed,
    /// The server closed or reset in the middle; what came is here.
    Truncated(Box<Response>),
    /// The server closed in the middle of a head.
    TruncatedHead,
    /// Nothing came for as long as one waits.
    Silent,
    /// What came is no HTTP/1 response, and why.
    Malformed(#[expect(dead_code, reason = "shown when a test fails")] String),
}

trait Stream: Read + Write + Send {
    fn set_timeout(&self, limit: Duration) -> io::Result<()>;
    fn shutdown_write(&self) -> io::Result<()>;
    fn socket(&self) -> SockRef<'_>;
}

impl Client {
    #[track_caller]
    pub fn connect(address: &Address) -> Client {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address:?}: {error}"))
    }

    pub fn try_connect(address: &Address) -> io::Result<Client> {
        let stream: Box<dyn Stream> = match address {
            Address::Tcp(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                // Each write is a segment of its own: the tests decide what arrives together.
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path)?),
            Address::Tls(port, trust) => Box::new(trust.connect(*port)?),
        };
        Ok(Client { stream, unread: Vec::new() })
    }

    /// A client whose kernel takes little at a time of what it does not read, so that a server soon
    /// has to wait.
    #[track_caller]
    pub fn connect_narrow(address: &Address) -> Client {
        let Address::Tcp(port) = address else { panic!("a TCP address") };
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let to = std::net::SocketAddr::from(([127, 0, 0, 1], *port));
        socket.connect(&to.into()).unwrap_or_else(|error| panic!("cannot connect to {address:?}: {error}"));
        Client { stream: Box::new(TcpStream::from(socket)), unread: Vec::new() }
    }

    /// Breaks the connection off, with a reset, as a client does that has crashed.
    pub fn reset(self) {
        self.stream.socket().set_linger(Some(Duration::ZERO)).expect("SO_LINGER can be set");
    }

    /// Drops off the network: from now on its kernel discards what the server sends and
    /// acknowledges nothing, as when its machine has lost power. The client must not send any
    /// longer.
    pub fn vanish(&self) {
        let drop_all = socket2::SockFilter::new(libc::BPF_RET as u16, 0, 0, 0);
        self.stream.socket().attach_filter(&[drop_all]).expect("a socket takes a filter");
    }

    /// How many TCP segments with data have come so far (`tcpi_data_segs_in`, linux/tcp.h; the
    /// `libc` crate ends before it).
    pub fn segments_received(&self) -> u32 {
        const PLACE: usize = 152;
        let mut info = [0u8; 256];
        let mut length = info.len() as libc::socklen_t;
        let (socket, target) = (self.stream.socket().as_raw_fd(), info.as_mut_ptr().cast());
        // SAFETY: the kernel writes at most `length` bytes, which is how long the buffer is.
        let result = unsafe { libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, target, &mut length) };
        assert!(result == 0 && length as usize >= PLACE + 4, "TCP_INFO: {result}, {length} bytes");
        u32::from_ne_bytes(info[PLACE..PLACE + 4].try_into().expect("four bytes"))
    }

    /// The client's own port.
    #[track_caller]
    pub fn port(&self) -> u16 {
        let address = self.stream.socket().local_addr().expect("an address");
        address.as_socket().expect("a TCP address").port()
    }

    /// Sends one byte out of band.
    pub fn send_urgent(&self, byte: u8) {
        self.stream.socket().send_out_of_band(&[byte]).expect("the server takes what is sent");
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the server takes what is sent");
    }

    /// Sends what a server may refuse to take any more of.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Ends the client's side.
    pub fn shutdown_write(&self) {
        // The call may fail if the server has closed already.
        let _ = self.stream.shutdown_write();
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.read()
    }

    /// A request with extra header lines (each without its CRLF) and, for a body, its
    /// Content-Length.
    #[track_caller]
    pub fn request(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Response {
        let mut message = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
        for header in headers {
            message += &format!("{header}\r\n");
        }
        if !body.is_empty() {
            message += &format!("Content-Length: {}\r\n", body.len());
        }
        message += "\r\n";
        self.send([message.as_bytes(), body].concat());
        self.read_for(method).unwrap_or_else(|broken| panic!("{method} {target}: {broken:?}"))
    }

    /// The next response to a request which may have a body in its answer.
    #[track_caller]
    pub fn read(&mut self) -> Response {
        self.read_for("GET").unwrap_or_else(|broken| panic!("no whole response: {broken:?}"))
    }

    pub fn read_for(&mut self, method: &str) -> Result<Response, Broken> {
        self.read_within(method, PATIENCE)
    }

    pub fn read_within(&mut self, method: &str, limit: Duration) -> Result<Response, Broken> {
        let end = Instant::now() + limit;
        let mut response = self.read_head_until(end)?;
        match self.read_body(&mut response, method, end) {
            Ok(()) => Ok(response),
            Err(Stop::Eof) => Err(Broken::Truncated(Box::new(response))),
            Err(Stop::Silence) => Err(Broken::Silent),
            Err(Stop::Nonsense(what)) => Err(Broken::Malformed(what)),
        }
    }

    /// Only the head: the body stays unread, for `read_until` or `take_rest`.
    pub fn read_head(&mut self) -> Result<Response, Broken> {
        self.read_head_until(Instant::now() + PATIENCE)
    }

    fn read_head_until(&mut self, end: Instant) -> Result<Response, Broken> {
        let mut interim = Vec::new();
        loop {
            let head = self.take_head(end)?;
            let mut response = parse_head(&head).map_err(Broken::Malformed)?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(head);
                continue;
            }
            response.interim = interim;
            return Ok(response);
        }
    }

    fn take_head(&mut self, end: Instant) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(at) = memmem::find(&self.unread, b"\r\n\r\n") {
                return Ok(self.unread.drain(..at + 4).collect());
            }
            match self.fill(end) {
                Ok(()) => {}
                Err(Stop::Silence) => return Err(Broken::Silent),
                Err(Stop::Nonsense(what)) => return Err(Broken::Malformed(what)),
                Err(Stop::Eof) if self.unread.is_empty() => return Err(Broken::Closed),
                Err(Stop::Eof) => return Err(Broken::TruncatedHead),
            }
        }
    }

    fn read_body(&mut self, response: &mut Response, method: &str, end: Instant) -> Result<(), Stop> {
        if method == "HEAD" || matches!(response.status, 101 | 204 | 304) {
            return Ok(());
        }
        let lengths = response.all("Content-Length");
        let length = match lengths[..] {
            [] => None,
            [one] if one.bytes().all(|byte| byte.is_ascii_digit()) => one.parse().ok(),
            _ => return Err(Stop::Nonsense(format!("Content-Length {lengths:?}"))),
        };
        if response.is_chunked() {
            return self.read_chunks(&mut response.body, end);
        }
        match length {
            Some(length) => self.take(length, &mut response.body, end),
            None => match self.read_to_end(end) {
                Stop::Eof => {
                    response.body = std::mem::take(&mut self.unread);
                    Ok(())
                }
                stop => Err(stop),
            },
        }
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>, end: Instant) -> Result<(), Stop> {
        loop {
            let line = self.take_line(end)?;
            let size = String::from_utf8_lossy(&line);
            let is_hex = size.bytes().all(|byte| byte.is_ascii_hexdigit());
            let size = usize::from_str_radix(&size, 16).ok().filter(|_| is_hex);
            let Some(size) = size else { return Err(Stop::Nonsense(format!("chunk size {line:?}"))) };
            self.take(size, body, end)?;
            let mut crlf = Vec::new();
            self.take(2, &mut crlf, end)?;
            if crlf != b"\r\n" {
                return Err(Stop::Nonsense(format!("{crlf:?} after a chunk")));
            }
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn take_line(&mut self, end: Instant) -> Result<Vec<u8>, Stop> {
        loop {
            if let Some(at) = memmem::find(&self.unread, b"\r\n") {
                let line = self.unread.drain(..at + 2).take(at).collect();
                return Ok(line);
            }
            self.fill(end)?;
        }
    }

    /// Moves `count` bytes to `into`; on a stop, what there is.
    fn take(&mut self, count: usize, into: &mut Vec<u8>, end: Instant) -> Result<(), Stop> {
        let mut wanted = count;
        loop {
            let now = wanted.min(self.unread.len());
            into.extend(self.unread.drain(..now));
            wanted -= now;
            if wanted == 0 {
                return Ok(());
            }
            self.fill(end)?;
        }
    }

    /// The next so many bytes.
    #[track_caller]
    pub fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        let taken = self.take(count, &mut bytes, Instant::now() + PATIENCE);
        assert!(taken.is_ok(), "only {} of {count} bytes came", bytes.len());
        bytes
    }

    /// Reads up to this many bytes and drops them; fewer at the end of the stream.
    pub fn read_some(&mut self, count: usize) {
        self.stream.set_timeout(PATIENCE).expect("a timeout can be set");
        let _ = self.stream.read(&mut vec![0; count]);
    }

    /// Reads on until `needle` has come, and gives everything up to and including it.
    #[track_caller]
    pub fn read_until(&mut self, needle: &[u8]) -> Vec<u8> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = memmem::find(&self.unread, needle) {
                return self.unread.drain(..at + needle.len()).collect();
            }
            let stop = self.fill(end);
            assert!(stop.is_ok(), "{:?} never came, only {:?}", String::from_utf8_lossy(needle), self.unread);
        }
    }

    /// Everything until the server closes; fails if it does not within `limit`.
    #[track_caller]
    pub fn take_rest(&mut self, limit: Duration) -> Vec<u8> {
        match self.read_to_end(Instant::now() + limit) {
            Stop::Eof => std::mem::take(&mut self.unread),
            _ => panic!("still open after {limit:?}; so far {:?}", String::from_utf8_lossy(&self.unread)),
        }
    }

    /// Nothing more comes and the server closes within `limit`.
    #[track_caller]
    pub fn expect_closed(&mut self, limit: Duration) {
        let rest = self.take_rest(limit);
        assert!(rest.is_empty(), "instead of a close came {:?}", String::from_utf8_lossy(&rest));
    }

    /// Whether neither a byte nor a close comes for that long.
    pub fn is_silent(&mut self, span: Duration) -> bool {
        self.unread.is_empty() && matches!(self.fill(Instant::now() + span), Err(Stop::Silence))
    }

    /// One read: more in `unread`, or why there is not. A reset counts as the end: only what was
    /// read matters.
    fn fill(&mut self, end: Instant) -> Result<(), Stop> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Stop::Silence);
        }
        self.stream.set_timeout(left).expect("a timeout can be set");
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Stop::Eof),
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(Stop::Silence)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(Stop::Eof),
        }
    }

    fn read_to_end(&mut self, end: Instant) -> Stop {
        loop {
            if let Err(stop) = self.fill(end) {
                return stop;
            }
        }
    }
}

impl Response {
    /// The value of a header that stands at most once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} stands {} times", values.len());
        values.first().copied()
    }

    /// Every value of that name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        same.map(|(_, value)| std::str::from_utf8(value).expect("an ASCII header")).collect()
    }

    pub fn names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub fn content_length(&self) -> Option<usize> {
        self.header("Content-Length").map(|value| value.parse().expect("Content-Length is a number"))
    }

    pub fn is_chunked(&self) -> bool {
        self.header("Transfer-Encoding") == Some("chunked")
    }

    pub fn says_close(&self) -> bool {
        self.header("Connection") == Some("close")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Json {
        assert_eq!(self.status, 200, "{}", self.text());
        Json::parse(&self.text())
    }
}

/// RFC 9112 sections 4 and 5, strictly.
fn parse_head(head: &[u8]) -> Result<Response, String> {
    let wrong = |what: &str| format!("{what}: {:?}", String::from_utf8_lossy(head));
    let mut lines =
        head[..head.len() - 4].split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status_line = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut parts = status_line.splitn(3, ' ');
    let version =
        parts.next().filter(|name| ["HTTP/1.0", "HTTP/1.1"].contains(name)).ok_or_else(|| wrong("no version"))?;
    let status = parts.next().and_then(|code| code.parse().ok()).ok_or_else(|| wrong("no status"))?;
    let reason = parts.next().unwrap_or_default();
    let headers = lines.map(|line| header(line).ok_or_else(|| wrong("a bad header line"))).collect::<Result<_, _>>()?;
    Ok(Response { version: version.into(), status, reason: reason.into(), headers, ..Response::default() })
}

fn header(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = std::str::from_utf8(&line[..colon]).ok()?;
    let is_token =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&b));
    is_token.then(|| (name.to_string(), line[colon + 1..].trim_ascii().to_vec()))
}

enum Stop {
    Eof,
    Silence,
    Nonsense(String),
}

impl Stream for TcpStream {
    fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn socket(&self) -> SockRef<'_> {
        self.into()
    }
}

impl Stream for TlsStream {
    fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        self.sock.set_read_timeout(Some(limit))
    }

    /// Without a word of TLS.
    fn shutdown_write(&self) -> io::Result<()> {
        self.sock.shutdown(Shutdown::Write)
    }

    fn socket(&self) -> SockRef<'_> {
        (&self.sock).into()
    }
}

impl Stream for UnixStream {
    fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn socket(&self) -> SockRef<'_> {
        self.into()
    }
}
