//! Syslog by the server's own writer (`syslog_format = "rfc5424"`): RFC 5424 over UDP (RFC 5426),
//! over TCP with the length before each message (RFC 6587, 3.4.1), or over a unix socket.
//!
//! A daemon that is away, or does not read, costs a bounded wait at most once a second; messages
//! that the daemon does not take are dropped. The module knows bytes, a level and an address.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use chrono::SecondsFormat;
use socket2::{Domain, SockAddr, Socket, Type};

use super::line_counts::note_dropped;
use super::{Level, journal, local_time};
use crate::sys::poll::{Readiness, wait_until_ready};
use crate::sys::retry::retry;
use crate::sys::system;

/// Longest message over UDP in bytes: what every receiver should take (RFC 5426, 3.2). A longer one
/// is cut.
const LONGEST_DATAGRAM: usize = 2048;

/// Longest message over TCP and unix sockets in bytes. A longer one is cut.
const LONGEST_MESSAGE: usize = 64 * 1024;

/// The longest wait for a connect over TCP, and of a message for a socket that is full.
const PATIENCE: Duration = Duration::from_millis(200);

/// Between two attempts to connect. What is logged meanwhile is dropped.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);

/// How often a thread looks whether another has finished sending, a millisecond apart. Past it the
/// message is dropped.
const MOST_LOOKS: usize = 20;

/// Longest APP-NAME (RFC 5424, 6).
const LONGEST_NAME: usize = 48;

/// The default port (RFC 5426, 3.3).
const PORT: u16 = 514;

/// gunicorn's names of facilities.
const FACILITIES: [(&str, u8); 21] = [
    ("auth", 4),
    ("authpriv", 10),
    ("cron", 9),
    ("daemon", 3),
    ("ftp", 11),
    ("kern", 0),
    ("lpr", 6),
    ("mail", 2),
    ("news", 7),
    ("security", 4),
    ("syslog", 5),
    ("user", 1),
    ("uucp", 8),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// The settings of syslog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogSettings {
    /// `udp://HOST:PORT`, `tcp://HOST:PORT` or `unix://PATH`, perhaps with `#dgram` or `#stream`.
    pub address: String,
    /// The name of the facility, in any case.
    pub facility: String,
    /// The name of the program in each message.
    pub name: String,
    /// Whether access lines go there as well.
    pub takes_access_lines: bool,
}

/// A way to syslog.
#[derive(Debug)]
pub struct Syslog {
    target: Target,
    facility: u8,
    host: String,
    name: String,
    takes_access_lines: bool,
    link: Mutex<LinkState>,
}

/// Which of the two logs a message belongs to; its MSGID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Error,
    Access,
}

#[derive(Debug)]
enum Target {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Unix { path: String, kind: UnixKind },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnixKind {
    Datagram,
    Stream,
    /// Datagrams, or else a stream.
    Either,
}

#[derive(Debug)]
enum LinkState {
    /// There is no link. The next attempt is due at this time, or at once.
    Down(Option<Instant>),
    /// A link that the process with this pid has made. A forked child makes its own: on one stream
    /// its messages and its parent's would mix.
    Up(Link, u32),
}

#[derive(Debug)]
enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

impl Syslog {
    /// Reads the settings, and finds the host. Nothing is sent yet, so it does not matter whether
    /// somebody listens.
    ///
    /// # Errors
    /// The address or the facility is not valid, or there is no such host.
    pub(super) fn open(settings: &SyslogSettings) -> io::Result<Syslog> {
        let facility = settings.facility.to_ascii_lowercase();
        let known = FACILITIES.iter().find(|(name, _)| *name == facility);
        let (_, facility) = *known.ok_or_else(|| refused("syslog_facility is not one of auth, user, local0 ..."))?;
        Ok(Syslog {
            target: Target::parse(&settings.address)?,
            facility,
            host: printable(&system::host_name(), 255),
            name: printable(&settings.name, LONGEST_NAME),
            takes_access_lines: settings.takes_access_lines,
            link: Mutex::new(LinkState::Down(None)),
        })
    }

    /// Whether access lines go to syslog as well.
    pub fn takes_access_lines(&self) -> bool {
        self.takes_access_lines
    }

    /// Sends a message, if the daemon takes it.
    pub(super) fn send(&self, origin: Origin, level: Level, text: &str) {
        let longest = if matches!(self.target, Target::Udp(_)) { LONGEST_DATAGRAM } else { LONGEST_MESSAGE };
        let message = cut(self.message(origin, level, text), longest);
        let Some(mut state) = self.lock() else { return note_dropped(1) };
        let now = Instant::now();
        let link = match std::mem::replace(&mut *state, LinkState::Down(None)) {
            LinkState::Up(link, pid) if pid == std::process::id() => Ok(link),
            LinkState::Down(Some(due)) if due > now => {
                *state = LinkState::Down(Some(due));
                return note_dropped(1);
            }
            LinkState::Up(..) | LinkState::Down(_) => self.target.connect(),
        };
        *state = match link.and_then(|link| self.deliver(link, message.as_bytes())) {
            Ok(link) => LinkState::Up(link, std::process::id()),
            Err(_) => {
                note_dropped(1);
                LinkState::Down(Some(Instant::now() + CONNECT_AGAIN))
            }
        };
    }

    /// Sends over the link, and over a new one if that fails: the daemon may have been started
    /// again.
    fn deliver(&self, mut link: Link, message: &[u8]) -> io::Result<Link> {
        match link.send(message) {
            Ok(()) => return Ok(link),
            // A daemon that does not read this stream would not read a new one either.
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(error),
            Err(_) => link = self.target.connect()?,
        }
        link.send(message).map(|()| link)
    }

    fn message(&self, origin: Origin, level: Level, text: &str) -> String {
        let priority = 8 * self.facility + journal::priority(level);
        let time = local_time::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        let msgid = match origin {
            Origin::Error => "error",
            Origin::Access => "access",
        };
        format!("<{priority}>1 {time} {} {} {} {msgid} - {text}", self.host, self.name, std::process::id())
    }

    /// The link. `None` where another thread holds it for too long; for ever, if one held it when
    /// this process was forked.
    fn lock(&self) -> Option<MutexGuard<'_, LinkState>> {
        for _ in 0..MOST_LOOKS {
            match self.link.try_lock() {
                Ok(state) => return Some(state),
                Err(TryLockError::Poisoned(state)) => return Some(state.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }
}

impl Target {
    fn parse(address: &str) -> io::Result<Target> {
        if let Some(rest) = address.strip_prefix("unix://") {
            let (path, kind) = match rest.rsplit_once('#') {
                Some((path, "dgram")) => (path, UnixKind::Datagram),
                Some((path, "stream")) => (path, UnixKind::Stream),
                _ => (rest, UnixKind::Either),
            };
            return Ok(Target::Unix { path: path.to_owned(), kind });
        }
        match (address.strip_prefix("udp://"), address.strip_prefix("tcp://")) {
            (Some(host), _) => resolve(host).map(Target::Udp),
            (_, Some(host)) => resolve(host).map(Target::Tcp),
            _ => Err(refused("is not udp://HOST:PORT, tcp://HOST:PORT or unix://PATH")),
        }
    }

    fn connect(&self) -> io::Result<Link> {
        match self {
            Target::Udp(address) => {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_nonblocking(true)?;
                Ok(Link::Udp(socket))
            }
            Target::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_nonblocking(true)?;
                Ok(Link::Tcp(stream))
            }
            Target::Unix { path, kind: UnixKind::Datagram } => to_datagrams(path),
            Target::Unix { path, kind: UnixKind::Stream } => to_stream(path),
            Target::Unix { path, kind: UnixKind::Either } => to_datagrams(path).or_else(|_| to_stream(path)),
        }
    }
}

fn to_datagrams(path: &str) -> io::Result<Link> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(Link::Datagram(socket))
}

fn to_stream(path: &str) -> io::Result<Link> {
    // The standard library's connect would wait for a daemon whose backlog is full.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(Link::Stream(socket.into()))
}

impl Link {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Link::Udp(socket) => send_datagram(socket.as_raw_fd(), || socket.send(message)),
            Link::Datagram(socket) => send_datagram(socket.as_raw_fd(), || socket.send(message)),
            Link::Tcp(stream) => send_counted(stream, message),
            Link::Stream(stream) => send_counted(stream, message),
        }
    }
}

/// Sends a message as it is. The kernel keeps only a few for a daemon that is behind.
fn send_datagram(socket: RawFd, mut send: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    while retry(&mut send)?.is_none() {
        wait_to_write(socket, end)?;
    }
    Ok(())
}

/// Sends a message with its length before it. After an error the link is of no use any more: a part
/// of the message may have been sent.
fn send_counted(stream: &mut (impl Write + AsRawFd), message: &[u8]) -> io::Result<()> {
    let frame = [format!("{} ", message.len()).as_bytes(), message].concat();
    let (mut left, end) = (&frame[..], Instant::now() + PATIENCE);
    while !left.is_empty() {
        match retry(|| stream.write(left)) {
            Ok(Some(count)) => left = &left[count..],
            Ok(None) => wait_to_write(stream.as_raw_fd(), end)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until the daemon has made room, but not past `end`.
fn wait_to_write(link: RawFd, end: Instant) -> io::Result<()> {
    let patience = end.saturating_duration_since(Instant::now());
    if patience.is_zero() || !wait_until_ready(link, Readiness::ToWrite, patience)? {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(())
}

/// The address of `HOST[:PORT]`. IPv4 first: daemons listen there, also where `localhost` means
/// IPv6 before IPv4.
fn resolve(host: &str) -> io::Result<SocketAddr> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().map_err(|_| refused("has no such port"))?),
        _ => (host, PORT),
    };
    let found: Vec<SocketAddr> = (name.trim_matches(['[', ']']), port).to_socket_addrs()?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| ErrorKind::NotFound.into())
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, reason)
}

/// The text as a field of the header: visible ASCII, `-` for nothing.
fn printable(text: &str, longest: usize) -> String {
    let field: String = text.chars().filter(char::is_ascii_graphic).take(longest).collect();
    if field.is_empty() { "-".to_owned() } else { field }
}

fn cut(mut message: String, longest: usize) -> String {
    if message.len() > longest {
        let end = (0..=longest).rev().find(|&end| message.is_char_boundary(end)).unwrap_or(0);
        message.truncate(end);
    }
    message
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    fn to(address: String) -> Syslog {
        let (facility, name) = ("Local3".to_owned(), "my app".to_owned());
        Syslog::open(&SyslogSettings { address, facility, name, takes_access_lines: true }).unwrap()
    }

    /// The message without its time and host.
    fn fields(message: &str) -> (String, String) {
        let words: Vec<&str> = message.splitn(8, ' ').collect();
        assert!(chrono::DateTime::parse_from_rfc3339(words[1]).is_ok(), "{message}");
        (words[0].to_owned(), [words[3], words[5], words[6], words[7]].join(" "))
    }

    #[test]
    fn a_message_over_udp_is_one_datagram_of_rfc_5424() {
        let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
        let syslog = to(format!("udp://127.0.0.1:{}", daemon.local_addr().unwrap().port()));
        syslog.send(Origin::Error, Level::Warning, "one\ntwo");
        let mut buffer = [0; 4096];
        let count = daemon.recv(&mut buffer).unwrap();
        let text = String::from_utf8(buffer[..count].to_vec()).unwrap();
        assert_eq!(fields(&text), ("<156>1".to_owned(), "myapp error - one\ntwo".to_owned()));
        syslog.send(Origin::Access, Level::Info, &"\u{e9}".repeat(5000));
        let count = daemon.recv(&mut buffer).unwrap();
        assert!(count <= LONGEST_DATAGRAM && std::str::from_utf8(&buffer[..count]).is_ok());
    }

    #[test]
    fn a_daemon_that_is_behind_gets_every_datagram() {
        const MESSAGES: usize = 200;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        daemon.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let syslog = to(format!("unix://{}#dgram", path.display()));
        // The kernel keeps a dozen.
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            (0..MESSAGES).for_each(|_| assert!(daemon.recv(&mut buffer).unwrap() > 0));
        });
        (0..MESSAGES).for_each(|_| syslog.send(Origin::Access, Level::Info, "GET /"));
        reader.join().unwrap();
    }

    #[test]
    fn messages_over_tcp_are_counted_and_go_on_when_the_daemon_was_started_again() {
        let daemon = TcpListener::bind("127.0.0.1:0").unwrap();
        let syslog = to(format!("tcp://127.0.0.1:{}", daemon.local_addr().unwrap().port()));
        syslog.send(Origin::Error, Level::Error, "first");
        syslog.send(Origin::Error, Level::Error, "second");
        let (mut stream, _) = daemon.accept().unwrap();
        let first = read_frame(&mut stream);
        assert!(first.ends_with(" error - first") && read_frame(&mut stream).ends_with(" second"));
        drop(stream);
        // The first message after the end may vanish in the kernel, as with every stream.
        let deadline = Instant::now() + Duration::from_secs(10);
        daemon.set_nonblocking(true).unwrap();
        let mut stream = loop {
            syslog.send(Origin::Error, Level::Error, "third");
            match daemon.accept() {
                Ok((stream, _)) => break stream,
                Err(_) => assert!(Instant::now() < deadline),
            }
        };
        stream.set_nonblocking(false).unwrap();
        assert!(read_frame(&mut stream).ends_with("third"));
    }

    fn read_frame(stream: &mut TcpStream) -> String {
        let mut digits = String::new();
        let mut byte = [0];
        loop {
            stream.read_exact(&mut byte).unwrap();
            if byte == *b" " {
                break;
            }
            digits.push(char::from(byte[0]));
        }
        let mut message = vec![0; digits.parse().unwrap()];
        stream.read_exact(&mut message).unwrap();
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn nobody_there_costs_little_and_a_daemon_that_comes_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let syslog = to(format!("unix://{}", path.display()));
        let start = Instant::now();
        (0..1000).for_each(|_| syslog.send(Origin::Error, Level::Info, "lost"));
        assert!(start.elapsed() < Duration::from_secs(2));
        let daemon = UnixDatagram::bind(&path).unwrap();
        daemon.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut buffer = [0; 4096];
        let heard = (0..200).any(|_| {
            syslog.send(Origin::Error, Level::Info, "found");
            daemon.recv(&mut buffer).is_ok_and(|count| buffer[..count].ends_with(b"found"))
        });
        assert!(heard);
    }

    #[test]
    fn a_wrong_setting_is_told() {
        let open = |address: &str, facility: &str| {
            let (address, facility, name) = (address.to_owned(), facility.to_owned(), String::new());
            Syslog::open(&SyslogSettings { address, facility, name, takes_access_lines: false })
        };
        assert!(open("http://localhost", "user").is_err());
        assert!(open("udp://localhost:x", "user").is_err());
        assert!(open("udp://127.0.0.1", "nobody").is_err());
        assert!(open("udp://127.0.0.1", "USER").is_ok());
    }
}
