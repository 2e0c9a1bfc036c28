//! Listening sockets: bound, inherited, accepted from with one accept4(2) per connection.
//!
//! A listener must not know which process it is in: unlinking a unix socket's file is an explicit
//! call, because after a fork many processes hold the listener.

use std::fmt;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{self, Gid, Uid};
use socket2::{Domain, SockAddr, Socket, Type};

use super::stream::peer;
use super::tcp_info;
use crate::base::unpoisoned::Unpoisoned;

pub use super::poll::{Readiness, wait_until_ready};
pub use super::stream::{Cork, Peer, Stream};

/// Most bytes of a response that the kernel holds before it can send them (TCP_NOTSENT_LOWAT,
/// tcp(7)). Without this limit the kernel takes several megabytes for a client that reads nothing,
/// and copying them makes every other client wait for more than a millisecond. Bytes in flight to a
/// client that reads do not count.
const UNSENT_LIMIT: u32 = 512 * 1024;

/// For how many seconds the kernel keeps a silent connection back under TCP_DEFER_ACCEPT: its
/// smallest value.
const DEFERRED_FOR: libc::c_int = 1;

/// Held while the umask is that of a socket. The umask belongs to the process: of two threads that
/// change it at once, one would restore the other's.
static UMASK: Mutex<()> = Mutex::new(());

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindAddress {
    /// An IP address or host name, and a port (0: the kernel picks one).
    Tcp {
        /// `127.0.0.1`, `::1` (no brackets), a name; empty means every IPv4 address.
        host: String,
        /// 0 to 65535.
        port: u16,
    },
    /// A unix socket in the file system.
    Unix(PathBuf),
    /// A unix socket in Linux's abstract name space; the name without its leading NUL.
    Abstract(Vec<u8>),
    /// An open descriptor, inherited from systemd, supervisord or the old master of an upgrade.
    Fd(RawFd),
}

/// How to listen.
#[derive(Debug, Clone, Copy)]
pub struct BindOptions {
    /// Connections the kernel holds until they are accepted (listen(2)).
    pub backlog: u32,
    /// The permissions to remove from a unix socket's file, which starts from 0777.
    pub umask: u32,
    /// The user and group to own a unix socket's file.
    pub owner: Option<(u32, u32)>,
    /// SO_REUSEPORT: other sockets may listen on the same TCP port (socket(7)).
    pub reuse_port: bool,
}

/// A listening socket, non-blocking and closed on exec.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: BindAddress,
    local: LocalAddress,
    owner: SocketOwner,
    file: Option<SocketFile>,
}

/// What a listener is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A unix socket's path.
    Unix(PathBuf),
    /// A unix socket's abstract name, or no name at all (empty).
    Abstract(Vec<u8>),
}

/// Which program made a socket, and so ends it and removes its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketOwner {
    /// This server, perhaps the old master of an upgrade.
    Us,
    /// The service manager that passed the socket.
    ServiceManager,
}

/// The file a unix listener made. Device, inode and birth time tell it from a file that another
/// server has put in its place: the kernel may use an inode again.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// `None` where the file system does not record it.
    born: Option<SystemTime>,
}

impl Listener {
    /// Binds `address` and listens. A unix socket on which another server answers is EADDRINUSE; a
    /// regular file at its path is EEXIST and stays. [`BindAddress::Fd`] is used as it is.
    pub fn bind(address: &BindAddress, options: BindOptions) -> io::Result<Listener> {
        match address {
            BindAddress::Tcp { host, port } => Listener::bind_tcp(address, resolve(host, *port)?, options),
            BindAddress::Unix(path) => Listener::bind_unix(address, path, options),
            BindAddress::Abstract(name) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.bind(&abstract_address(name)?)?;
                Listener::listen(socket, address, None, options.backlog)
            }
            BindAddress::Fd(fd) => Listener::from_fd(*fd, options.backlog, SocketOwner::ServiceManager),
        }
    }

    /// Takes over an inherited descriptor under its own number (an upgrade passes it on by number).
    /// listen(2) is called only if the socket does not listen yet: a second call would undo the
    /// backlog that its maker chose. Fails with EBADF or ENOTSOCK when the descriptor is no socket.
    pub fn from_fd(fd: RawFd, backlog: u32, owner: SocketOwner) -> io::Result<Listener> {
        // SAFETY: the call asks whether the number is open. It answers an unused one with EBADF.
        let probe = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        Errno::result(probe)?;
        // SAFETY: it is open, as was just seen, and the borrow ends with the call.
        let is_stream = getsockopt(&unsafe { BorrowedFd::borrow_raw(fd) }, sockopt::SockType)? == SockType::Stream;
        if !is_stream {
            return Err(Errno::EPROTOTYPE.into());
        }
        // SAFETY: the number is an open socket that the process was started with; nothing else in
        // it owns it.
        let socket = unsafe { Socket::from_raw_fd(fd) };
        socket.set_cloexec(true)?;
        let file = match (local_address(&socket)?, owner) {
            (LocalAddress::Unix(path), SocketOwner::Us) => SocketFile::at(&path).ok(),
            _ => None,
        };
        let address = BindAddress::Fd(fd);
        let listener = Listener::wrap(socket, &address, file)?;
        if !listener.socket.is_listener()? {
            listener.open(backlog)?;
        }
        Ok(Listener { owner, ..listener })
    }

    /// Binds one more socket to the port of this one, which must have SO_REUSEPORT too. The kernel
    /// gives the new socket no connections before [`Listener::open`]. Fails with EADDRINUSE when
    /// this listener does not share its port, and with EINVAL when it has none.
    pub fn another(&self) -> io::Result<Listener> {
        let LocalAddress::Ip(ip) = self.local else { return Err(Errno::EINVAL.into()) };
        Listener::wrap(bound_tcp(ip, true)?, &self.address, None)
    }

    /// Begins to listen, with room for `backlog` connections.
    pub fn open(&self, backlog: u32) -> io::Result<()> {
        self.socket.listen(backlog.try_into().unwrap_or(i32::MAX))
    }

    /// Sets whether the kernel keeps a TCP connection until its first bytes are there
    /// (TCP_DEFER_ACCEPT, tcp(7)). A connection that stays silent is accepted after
    /// [`DEFERRED_FOR`]. Other sockets stay as they are.
    pub fn defer_accept(&self, is_on: bool) -> io::Result<()> {
        if !matches!(self.local, LocalAddress::Ip(_)) {
            return Ok(());
        }
        let seconds: libc::c_int = if is_on { DEFERRED_FOR } else { 0 };
        // SAFETY: the option takes one int, which outlives the call.
        let set = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                size_of_val(&seconds) as libc::socklen_t,
            )
        };
        Errno::result(set)?;
        Ok(())
    }

    /// Whether the socket listens.
    pub fn is_open(&self) -> bool {
        self.socket.is_listener().unwrap_or(false)
    }

    fn bind_tcp(address: &BindAddress, ip: SocketAddr, options: BindOptions) -> io::Result<Listener> {
        Listener::listen(bound_tcp(ip, options.reuse_port)?, address, None, options.backlog)
    }

    fn bind_unix(address: &BindAddress, path: &Path, options: BindOptions) -> io::Result<Listener> {
        remove_stale_socket(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let address_of_file = SockAddr::unix(path)?;
        let umask_is_ours = UMASK.lock().unpoisoned();
        // The permissions must be right from the first moment: between bind and a chmod other users
        // could connect.
        let old_umask = umask(Mode::from_bits_truncate(options.umask as libc::mode_t));
        let bound = socket.bind(&address_of_file);
        umask(old_umask);
        drop(umask_is_ours);
        bound?;
        let file = SocketFile::at(path)?;
        if let Some((user, group)) = options.owner {
            give(path, user, group).inspect_err(|_| file.remove())?;
        }
        Listener::listen(socket, address, Some(file), options.backlog)
    }

    fn listen(socket: Socket, address: &BindAddress, file: Option<SocketFile>, backlog: u32) -> io::Result<Listener> {
        let listener = Listener::wrap(socket, address, file)?;
        listener.open(backlog)?;
        Ok(listener)
    }

    fn wrap(socket: Socket, address: &BindAddress, file: Option<SocketFile>) -> io::Result<Listener> {
        socket.set_nonblocking(true)?;
        let local = local_address(&socket)?;
        if matches!(local, LocalAddress::Ip(_)) {
            // On Linux accepted sockets inherit the option: no setsockopt per connection.
            socket.set_tcp_nodelay(true)?;
            // A kernel without this option buffers more; nothing else changes.
            let _ = socket.set_tcp_notsent_lowat(UNSENT_LIMIT);
        }
        Ok(Listener { socket, address: address.clone(), local, owner: SocketOwner::Us, file })
    }

    /// Accepts one connection (accept4(2)), non-blocking and closed on exec. WouldBlock when none
    /// is waiting.
    pub fn accept(&self) -> io::Result<(Stream, Peer)> {
        let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: `storage` and `length` describe one writable buffer.
        let fd = Errno::result(unsafe {
            libc::accept4(
                self.socket.as_raw_fd(),
                storage.as_mut_ptr().cast(),
                &mut length,
                libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            )
        })?;
        // SAFETY: the kernel has just handed out this descriptor, to us alone.
        let stream = Stream::from(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: zeroes are a valid sockaddr_storage, and the kernel wrote at most `length` bytes
        // of an address over them.
        Ok((stream, peer(unsafe { storage.assume_init_ref() })))
    }

    /// What the listener is bound to, with the port the kernel picked.
    pub fn local_address(&self) -> &LocalAddress {
        &self.local
    }

    /// The listener's name in gunicorn's line "Listening at:", for clients that speak `scheme`.
    pub fn name(&self, scheme: &str) -> String {
        match &self.local {
            LocalAddress::Ip(address) => format!("{scheme}://{address}"),
            LocalAddress::Unix(path) => format!("unix:{}", path.display()),
            LocalAddress::Abstract(name) => format!("unix:@{}", name.escape_ascii()),
        }
    }

    /// Whether a setting that names `address` means this listener: its spelling or its address is
    /// the same. A port of 0 matches any port.
    pub fn serves(&self, address: &BindAddress) -> bool {
        if self.address == *address {
            return true;
        }
        match (address, &self.local) {
            (BindAddress::Tcp { host, port }, LocalAddress::Ip(local)) => {
                let same_port = |wanted: SocketAddr| *port == 0 || wanted.port() == local.port();
                resolve(host, *port).is_ok_and(|wanted| wanted.ip() == local.ip() && same_port(wanted))
            }
            (BindAddress::Unix(path), LocalAddress::Unix(local)) => path == local,
            (BindAddress::Abstract(name), LocalAddress::Abstract(local)) => name == local,
            _ => false,
        }
    }

    /// How many connections wait to be accepted, for a TCP socket (tcp(7), TCP_INFO: of a listening
    /// socket `tcpi_unacked` counts them). `None` for other sockets.
    pub fn waiting(&self) -> Option<u32> {
        tcp_info::accept_queue(self.socket.as_raw_fd()).map(|queue| queue.waiting)
    }

    /// Stops listening, in every process that shares the socket: from now on clients are refused at
    /// once. Connections in the backlog are lost, so all of them should have been accepted. A
    /// socket that was passed to the server keeps listening.
    pub fn stop_listening(&self) {
        if self.owner == SocketOwner::Us {
            // Another process that shares it may have shut it down already.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Removes the file of a unix socket, if this server made it and it is still the same one. For
    /// the last owner.
    pub fn unlink(&self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }

    /// Closes the socket, and [removes](Listener::unlink) its file if no other process has it open.
    /// For one of several owners: it connects to find out, so another owner gets a connection
    /// without a request.
    pub fn close_and_unlink(self) {
        drop(self.socket);
        // Where it stays unknown whether a process listens, the file stays: a stale one is replaced
        // at the next start.
        if let Some(file) = self.file
            && probe(&file.path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            file.remove();
        }
    }
}

impl fmt::Display for Listener {
    /// Its [name](Listener::name) over plain HTTP.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name("http"))
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<SocketFile> {
        let found = fs::symlink_metadata(path)?;
        // Absolute, so that the path means the same file after a chdir.
        let (device, inode, born) = identity(&found);
        Ok(SocketFile { path: std::path::absolute(path)?, device, inode, born })
    }

    fn remove(&self) {
        let same = |found: fs::Metadata| identity(&found) == (self.device, self.inode, self.born);
        if fs::symlink_metadata(&self.path).is_ok_and(same) {
            // A file that is gone already needs no removing.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Gives a socket's file to a user and group. Since the bind, a user who may write to the folder
/// may have put a link in the file's place.
fn give(path: &Path, user: u32, group: u32) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = fs::File::from(nix::fcntl::open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    if !found.file_type().is_socket() || found.nlink() != 1 || found.uid() != unistd::geteuid().as_raw() {
        return Err(io::Error::other(format!("{} is not the socket that was bound there", path.display())));
    }
    let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    Ok(unistd::fchownat(&file, "", user, group, AtFlags::AT_EMPTY_PATH)?)
}

fn identity(file: &fs::Metadata) -> (u64, u64, Option<SystemTime>) {
    (file.dev(), file.ino(), file.created().ok())
}

fn bound_tcp(ip: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(ip), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&ip.into())?;
    Ok(socket)
}

/// The address behind a host: IPv4 first where a name has both, as gunicorn binds names. NotFound
/// where nobody knows the name.
fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let unknown = |error| io::Error::new(io::ErrorKind::NotFound, error);
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(unknown)?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| io::Error::other(format!("no address for the host {host}")))
}

/// Makes room at `path`: a socket without a listener is removed, everything else is an error.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        let message = format!("{} exists and is not a socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    if is_answered(path) {
        return Err(Errno::EADDRINUSE.into());
    }
    fs::remove_file(path)
}

/// Whether a process listens there. EAGAIN is a listener whose backlog is full (unix(7)).
fn is_answered(path: &Path) -> bool {
    probe(path).map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |()| true)
}

/// Tries to connect, without waiting.
fn probe(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn abstract_address(name: &[u8]) -> io::Result<SockAddr> {
    use std::os::unix::ffi::OsStrExt;
    // socket2 takes a path that starts with NUL for an abstract name.
    let with_nul = [b"\0", name].concat();
    SockAddr::unix(Path::new(std::ffi::OsStr::from_bytes(&with_nul)))
}

fn local_address(socket: &Socket) -> io::Result<LocalAddress> {
    let address = socket.local_addr()?;
    if let Some(ip) = address.as_socket() {
        return Ok(LocalAddress::Ip(ip));
    }
    match address.as_pathname() {
        Some(path) => Ok(LocalAddress::Unix(path.to_path_buf())),
        None if address.is_unix() => {
            Ok(LocalAddress::Abstract(address.as_abstract_namespace().unwrap_or_default().to_vec()))
        }
        None => Err(Errno::EAFNOSUPPORT.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{IoSlice, Read, Write};
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    const PLAIN: BindOptions = BindOptions { backlog: 16, umask: 0, owner: None, reuse_port: false };

    fn tcp(host: &str) -> BindAddress {
        BindAddress::Tcp { host: host.to_owned(), port: 0 }
    }

    fn port(listener: &Listener) -> u16 {
        match listener.local_address() {
            LocalAddress::Ip(address) => address.port(),
            other => panic!("not an IP address: {other:?}"),
        }
    }

    /// The client may be connected before the kernel shows it to accept4.
    fn accept(listener: &Listener) -> (Stream, Peer) {
        for _ in 0..500 {
            match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                accepted => return accepted.unwrap(),
            }
        }
        panic!("nothing to accept");
    }

    #[test]
    fn tcp_of_both_families_is_accepted_with_the_peer_s_address() {
        for (host, shown) in [("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")] {
            let listener = match Listener::bind(&tcp(host), PLAIN) {
                // A machine without IPv6.
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => continue,
                bound => bound.unwrap(),
            };
            assert_eq!(listener.to_string(), format!("{shown}{}", port(&listener)));
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let mut client = TcpStream::connect((host, port(&listener))).unwrap();
            let (stream, peer) = accept(&listener);
            assert_eq!(peer, Peer::Ip(client.local_addr().unwrap()));
            assert!(socket2::SockRef::from(&stream).tcp_nodelay().unwrap(), "not inherited from the listener");
            let mut buffer = [0; 16];
            assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            stream.set_blocking(true).unwrap();
            client.write_all(b"ping").unwrap();
            assert_eq!(stream.read(&mut buffer).unwrap(), 4);
            let sent = stream.write_vectored(&[IoSlice::new(b"po"), IoSlice::new(b"ng")], Cork::No).unwrap();
            stream.shutdown_write().unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!((sent, answer.as_str()), (4, "pong"));
        }
    }

    #[test]
    fn the_kernel_holds_little_for_a_client_that_reads_nothing() {
        let listener = Listener::bind(&tcp("127.0.0.1"), PLAIN).unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        client.connect(&SocketAddr::from(([127, 0, 0, 1], port(&listener))).into()).unwrap();
        let (stream, _) = accept(&listener);
        let response = vec![b'x'; 16 << 20];
        let mut held = 0;
        while let Ok(count) = stream.write(&response[held..], Cork::No) {
            held += count;
        }
        assert!((100_000..1 << 20).contains(&held), "{held} bytes");
    }

    #[test]
    fn a_port_in_use_is_refused_unless_both_agree_to_share_it() {
        let first = Listener::bind(&tcp("127.0.0.1"), PLAIN).unwrap();
        let same = BindAddress::Tcp { host: "127.0.0.1".into(), port: port(&first) };
        assert_eq!(Listener::bind(&same, PLAIN).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(first.serves(&same) && first.serves(&tcp("localhost")) && !first.serves(&tcp("127.0.0.2")));

        let shared = BindOptions { reuse_port: true, ..PLAIN };
        let first = Listener::bind(&tcp("127.0.0.1"), shared).unwrap();
        let same = BindAddress::Tcp { host: "127.0.0.1".into(), port: port(&first) };
        Listener::bind(&same, shared).unwrap();
    }

    #[test]
    fn a_second_socket_of_a_port_gets_connections_once_it_is_open() {
        let alone = Listener::bind(&tcp("127.0.0.1"), PLAIN).unwrap();
        assert_eq!(alone.another().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let first = Listener::bind(&tcp("127.0.0.1"), BindOptions { reuse_port: true, ..PLAIN }).unwrap();
        let second = first.another().unwrap();
        assert_eq!(port(&first), port(&second));
        let connect = || TcpStream::connect(("127.0.0.1", port(&first))).unwrap();
        let _all: Vec<TcpStream> = (0..8).map(|_| connect()).collect();
        (0..8).for_each(|_| drop(accept(&first)));
        assert_eq!(second.accept().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        second.open(16).unwrap();
        assert!(second.is_open());
        drop(first);
        // A child that another test has forked may hold a copy of the first.
        let _some: Vec<TcpStream> =
            (0..12).map(|_| TcpStream::connect(("127.0.0.1", port(&second))).unwrap()).collect();
        accept(&second);
    }

    #[test]
    fn a_unix_socket_has_the_mode_of_the_umask_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let options = BindOptions { umask: 0o027, ..PLAIN };
        let listener = Listener::bind(&BindAddress::Unix(path.clone()), options).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o750);
        assert_eq!(listener.to_string(), format!("unix:{}", path.display()));
        let _client = UnixStream::connect(&path).unwrap();
        assert_eq!(accept(&listener).1, Peer::Unix);
        listener.unlink();
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_of_ours_is_given_away_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mine = (unistd::geteuid().as_raw(), unistd::getegid().as_raw());
        let _socket = UnixListener::bind(path("socket")).unwrap();
        give(&path("socket"), mine.0, mine.1).unwrap();
        std::os::unix::fs::symlink(path("socket"), path("link")).unwrap();
        fs::write(path("file"), "").unwrap();
        for name in ["link", "file", "missing"] {
            assert!(give(&path(name), mine.0, mine.1).is_err(), "{name}");
        }
        fs::hard_link(path("socket"), path("second name")).unwrap();
        assert!(give(&path("socket"), mine.0, mine.1).is_err());
    }

    #[test]
    fn the_file_of_another_server_is_not_unlinked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = Listener::bind(&BindAddress::Unix(path.clone()), PLAIN).unwrap();
        // The old one is kept under another name: a freed inode may be given out again at once.
        fs::rename(&path, folder.path().join("moved")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        listener.unlink();
        assert!(path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_a_live_one_and_a_plain_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = BindAddress::Unix(path.clone());
        // Nobody listens, even while a child that another test has forked holds a copy.
        let stale = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        stale.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        let live = Listener::bind(&address, PLAIN).unwrap();
        assert_eq!(Listener::bind(&address, PLAIN).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);

        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert_eq!(Listener::bind(&address, PLAIN).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_that_is_too_long_leaves_the_umask_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let long = BindAddress::Unix(folder.path().join("x".repeat(200)));
        // Other tests bind sockets meanwhile, each of which sets the umask for a moment.
        let umask_is_ours = UMASK.lock().unpoisoned();
        let before = umask(Mode::empty());
        umask(before);
        drop(umask_is_ours);
        assert!(Listener::bind(&long, BindOptions { umask: 0o177, ..PLAIN }).is_err());
        let umask_is_ours = UMASK.lock().unpoisoned();
        let after = umask(before);
        drop(umask_is_ours);
        assert_eq!(after, before);
    }

    #[test]
    fn an_abstract_socket_has_a_name_and_no_file() {
        let name = format!("monoceros-{}", std::process::id()).into_bytes();
        let address = BindAddress::Abstract(name.clone());
        let listener = Listener::bind(&address, PLAIN).unwrap();
        assert_eq!(listener.local_address(), &LocalAddress::Abstract(name));
        assert_eq!(Listener::bind(&address, PLAIN).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_inherited_descriptor_keeps_its_number() {
        use std::os::fd::IntoRawFd;
        let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = plain.local_addr().unwrap().port();
        let fd = plain.into_raw_fd();
        let listener = Listener::bind(&BindAddress::Fd(fd), PLAIN).unwrap();
        assert_eq!(listener.as_raw_fd(), fd);
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        accept(&listener);
    }

    #[test]
    fn a_descriptor_that_is_no_socket_is_refused_and_left_alone() {
        let file = tempfile::tempfile().unwrap();
        let error = Listener::bind(&BindAddress::Fd(file.as_raw_fd()), PLAIN).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
        assert!(file.metadata().is_ok());
        let error = Listener::bind(&BindAddress::Fd(987_654), PLAIN).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
