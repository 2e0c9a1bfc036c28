//! The forms of `bind`: text in, an address to listen on out. Names are not resolved here.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::value::ValueError;

/// The port of an address that names none, as in gunicorn.
const DEFAULT_PORT: u16 = 8000;

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// A host name or an address in lower case, IPv6 without brackets; never empty.
        host: String,
        /// The port; 0 lets the kernel choose.
        port: u16,
    },
    /// A unix socket in the file system.
    Unix(PathBuf),
    /// A unix socket in Linux's abstract namespace (unix(7)): the name without its leading NUL.
    Abstract(Vec<u8>),
    /// A socket that is already open, by its descriptor.
    Fd(i32),
}

impl Address {
    /// Reads one `bind` value: `HOST`, `HOST:PORT`, `:PORT`, `[IPV6]:PORT`, each also after
    /// `tcp://`; `unix:PATH`, `unix://PATH`, `fd://N`. Text after `unix:` that begins with NUL
    /// names an abstract socket. The error names the part that cannot be read.
    pub fn parse(text: &str) -> Result<Address, ValueError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_address(path.strip_prefix("//").unwrap_or(path), text);
        }
        if text.starts_with('\0') {
            return unix_address(text, text);
        }
        if let Some(number) = text.strip_prefix("fd://") {
            return match number.parse() {
                Ok(fd) if fd >= 0 => Ok(Address::Fd(fd)),
                _ => Err(ValueError::new(number, "is not a valid file descriptor")),
            };
        }
        tcp_address(text.strip_prefix("tcp://").unwrap_or(text))
    }

    /// The address in the form of `bind`.
    pub fn to_bind(&self) -> String {
        match self {
            Address::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp { host, port } => format!("{host}:{port}"),
            Address::Unix(path) => format!("unix:{}", path.display()),
            Address::Abstract(name) => format!("unix:\0{}", String::from_utf8_lossy(name)),
            Address::Fd(fd) => format!("fd://{fd}"),
        }
    }
}

/// As gunicorn's log shows an address that cannot be bound: `('127.0.0.1', 8000)`, a path, a
/// number.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } => write!(f, "('{host}', {port})"),
            Address::Unix(path) => write!(f, "{}", path.display()),
            Address::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
            Address::Fd(fd) => write!(f, "{fd}"),
        }
    }
}

fn unix_address(path: &str, whole: &str) -> Result<Address, ValueError> {
    match path.strip_prefix('\0') {
        Some("") => Err(ValueError::new(whole, "names no abstract socket")),
        Some(name) => Ok(Address::Abstract(name.as_bytes().to_vec())),
        None if path.is_empty() => Err(ValueError::new(whole, "names no path")),
        None => Ok(Address::Unix(PathBuf::from(path))),
    }
}

fn tcp_address(text: &str) -> Result<Address, ValueError> {
    // A bare IPv6 address has colons of its own; gunicorn would read its last group as a port.
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(tcp(text, DEFAULT_PORT));
    }
    if let Some(rest) = text.strip_prefix('[') {
        return bracketed_address(rest, text);
    }
    match text.split_once(':') {
        Some((host, port)) => Ok(tcp(host, parse_port(port)?)),
        None => Ok(tcp(text, DEFAULT_PORT)),
    }
}

fn bracketed_address(rest: &str, whole: &str) -> Result<Address, ValueError> {
    match rest.split_once(']') {
        Some((host, "")) => Ok(tcp(host, DEFAULT_PORT)),
        Some((host, port)) if port.starts_with(':') => Ok(tcp(host, parse_port(&port[1..])?)),
        _ => Err(ValueError::new(whole, "is not an address; write an IPv6 address as [::1]:8000")),
    }
}

/// An empty host means every IPv4 address, as in Python's socket module.
fn tcp(host: &str, port: u16) -> Address {
    let host = if host.is_empty() { "0.0.0.0".to_owned() } else { host.to_ascii_lowercase() };
    Address::Tcp { host, port }
}

fn parse_port(text: &str) -> Result<u16, ValueError> {
    text.trim().parse().map_err(|_| ValueError::new(text, "is not a valid port number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_bind_is_read() {
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        let cases = [
            ("", tcp("0.0.0.0", 8000)),
            ("localhost", tcp("localhost", 8000)),
            ("LocalHost:80", tcp("localhost", 80)),
            (":9000", tcp("0.0.0.0", 9000)),
            ("127.0.0.1:0", tcp("127.0.0.1", 0)),
            ("tcp://127.0.0.1:81", tcp("127.0.0.1", 81)),
            ("[::1]", tcp("::1", 8000)),
            ("[::1]:82", tcp("::1", 82)),
            ("tcp://[FE80::1]:82", tcp("fe80::1", 82)),
            ("::1", tcp("::1", 8000)),
            ("unix:/run/a.sock", Address::Unix("/run/a.sock".into())),
            ("unix:///run/a.sock", Address::Unix("/run/a.sock".into())),
            ("unix://a.sock", Address::Unix("a.sock".into())),
            ("unix:@a", Address::Unix("@a".into())),
            ("unix:\0a", Address::Abstract(b"a".to_vec())),
            ("\0a", Address::Abstract(b"a".to_vec())),
            ("fd://3", Address::Fd(3)),
        ];
        for (text, expected) in cases {
            assert_eq!(Address::parse(text), Ok(expected.clone()), "{text:?}");
            assert_eq!(Address::parse(&expected.to_bind()), Ok(expected), "{text:?} written back");
        }
    }

    #[test]
    fn an_address_that_cannot_be_read_is_named() {
        let cases = [
            ("127.0.0.1:b", "'b' is not a valid port number"),
            ("127.0.0.1:", "'' is not a valid port number"),
            ("127.0.0.1:65536", "'65536' is not a valid port number"),
            ("127.0.0.1:-1", "'-1' is not a valid port number"),
            ("a:1,b:2", "'1,b:2' is not a valid port number"),
            ("[::1", "'[::1' is not an address; write an IPv6 address as [::1]:8000"),
            ("[::1]8", "'[::1]8' is not an address; write an IPv6 address as [::1]:8000"),
            ("fd://x", "'x' is not a valid file descriptor"),
            ("fd://-1", "'-1' is not a valid file descriptor"),
            ("unix:", "'unix:' names no path"),
            ("unix://", "'unix://' names no path"),
        ];
        for (text, expected) in cases {
            assert_eq!(Address::parse(text).unwrap_err().to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_log_names_an_address_as_gunicorn_does() {
        let cases = [
            ("127.0.0.1:80", "('127.0.0.1', 80)"),
            ("[::1]:80", "('::1', 80)"),
            ("unix:/run/a.sock", "/run/a.sock"),
            ("fd://4", "4"),
        ];
        for (text, expected) in cases {
            assert_eq!(Address::parse(text).unwrap().to_string(), expected);
        }
    }
}
