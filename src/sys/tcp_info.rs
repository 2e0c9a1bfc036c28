//! What the kernel says of a TCP socket (tcp(7), TCP_INFO; socket(7), SO_MEMINFO).

use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use nix::errno::Errno;

/// The queue of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// How many connections may wait.
    pub limit: u32,
}

/// The queue of a listening TCP socket. `None` for other sockets.
pub fn accept_queue(listener: RawFd) -> Option<AcceptQueue> {
    // Of a listening socket these two fields hold the length of the queue and its bound.
    tcp_info(listener).map(|info| AcceptQueue { waiting: info.tcpi_unacked, limit: info.tcpi_sacked })
}

/// How many connections were dropped because the queue of a listening socket was full. `None` where
/// the kernel does not say.
pub fn drops(listener: RawFd) -> Option<u64> {
    // The order of the words is the kernel's (linux/sock_diag.h, SK_MEMINFO_DROPS is the last).
    const DROPS: usize = 8;
    const SO_MEMINFO: libc::c_int = 55;
    let mut words = [0_u32; DROPS + 1];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: `words` and `length` describe one writable buffer.
    let asked = Errno::result(unsafe {
        libc::getsockopt(listener, libc::SOL_SOCKET, SO_MEMINFO, words.as_mut_ptr().cast(), &mut length)
    });
    let is_whole = length as usize == size_of_val(&words);
    asked.ok().filter(|_| is_whole).map(|_| words[DROPS].into())
}

/// Milliseconds since the last bytes arrived, to the tick of the kernel's clock. `None` for a
/// socket that is no TCP connection.
pub fn since_last_arrival_ms(connection: RawFd) -> Option<u32> {
    tcp_info(connection).map(|info| info.tcpi_last_data_recv)
}

fn tcp_info(socket: RawFd) -> Option<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` and `length` describe one writable buffer.
    let asked = Errno::result(unsafe {
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut length)
    });
    // SAFETY: zeroes are a valid tcp_info, and the kernel wrote part of one over them.
    asked.ok().map(|_| unsafe { info.assume_init() })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_queue_of_a_listener_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // The last packet of the handshake may come after connect(2) has returned.
        let queue = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            accept_queue(listener.as_raw_fd()).filter(|queue| queue.waiting == 1)
        });
        assert!(queue.unwrap().limit >= 128);
        assert!(drops(listener.as_raw_fd()).is_none_or(|drops| drops == 0));
        let unix = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(unix.path().join("s")).unwrap();
        assert_eq!(accept_queue(unix.as_raw_fd()), None);
        assert_eq!(since_last_arrival_ms(unix.as_raw_fd()), None);
    }
}
