//! The sockets of a generation: opened, taken over from the old generation, or inherited from the
//! process that started us.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use log::{debug, error, warn};

use crate::service::{Service, identity};
use crate::settings::{Address, Config};
use crate::sys::errno::as_python_shows;
use crate::sys::signal::SignalQueue;
use crate::sys::socket::{BindAddress, BindOptions, Listener, SocketOwner};

use super::signals::told_to_stop;

/// How often the start tries a busy address, and the pause between two tries: gunicorn's numbers.
const TRIES: usize = 5;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// Why the sockets could not be opened at the start.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// The reason is in the log.
    Failed,
    /// A signal to stop has come.
    Stopped,
}

/// Opens every address of the settings that no inherited socket serves, and tries a busy one
/// several times.
pub(super) fn open_at_start(
    config: &Config,
    workers: usize,
    inherited: &[Arc<Listener>],
    signals: &SignalQueue,
) -> Result<Vec<Arc<Listener>>, NotOpened> {
    let sockets = sockets_of_a_port(config, workers, inherited);
    let mut open = Vec::new();
    for address in addresses(config) {
        let mut found = find(inherited, address);
        if found.is_empty() {
            let first = open_repeatedly(config, address, signals).inspect_err(|_| unlink_unless(&open, inherited))?;
            found.push(first);
        }
        let mut added = add_sockets(config, sockets, address, &mut found);
        if added.is_ok() && inherited.is_empty() {
            // No worker serves yet; connections wait in the kernel's queue.
            added = found.iter().filter(|it| !it.is_open()).try_for_each(|it| it.open(config.backlog));
        }
        if let Err(error) = added {
            error!("connection to {address} failed: {}", as_python_shows(&error));
            unlink_unless(&open, inherited);
            return Err(NotOpened::Failed);
        }
        open.extend(found);
    }
    Ok(open)
}

/// The sockets for changed settings: those of `current` that still fit, and new ones, tried once.
/// On an error the new ones are closed again.
pub(super) fn open_for_reload(
    config: &Config,
    workers: usize,
    current: &[Arc<Listener>],
) -> Result<Vec<Arc<Listener>>, String> {
    let sockets = sockets_of_a_port(config, workers, current);
    let mut open = Vec::new();
    for address in addresses(config) {
        let mut found = find(current, address);
        let mut opened = Ok(());
        if found.is_empty() {
            opened = open_address(config, address).map(|listener| found.push(Arc::new(listener)));
        }
        opened.and_then(|()| add_sockets(config, sockets, address, &mut found)).map_err(|error| {
            unlink_unless(&open, current);
            format!("connection to {address} failed: {}", as_python_shows(&error))
        })?;
        open.extend(found);
    }
    Ok(open)
}

/// How many sockets a TCP port has under `reuse_port`: one for each worker of a generation, but no
/// fewer than a port has already. The master closes none of them while the server listens on the
/// port, because the connections in the socket's backlog would be lost. All ports have as many,
/// because a worker tells its siblings one number for the sockets that it accepts from.
fn sockets_of_a_port(config: &Config, workers: usize, present: &[Arc<Listener>]) -> usize {
    let groups = addresses(config).filter(|address| has_group(config, address));
    groups.map(|address| find(present, address).len()).fold(workers, usize::max)
}

/// Adds what a TCP port's `group` lacks to so many `sockets`, under `reuse_port`. The master owns
/// them all. New ones do not listen before
/// [`Generation::start_listening`](super::generation::Generation::start_listening).
fn add_sockets(config: &Config, sockets: usize, address: &Address, group: &mut Vec<Arc<Listener>>) -> io::Result<()> {
    while has_group(config, address) && group.len() < sockets {
        match group[0].another() {
            Ok(listener) => group.push(Arc::new(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // The first socket of the port was opened without SO_REUSEPORT.
                warn!("reuse_port takes effect for {address} with the next start");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes the unix socket files of `listeners` that are not among `kept`.
pub(super) fn unlink_unless(listeners: &[Arc<Listener>], kept: &[Arc<Listener>]) {
    for listener in listeners {
        if !kept.iter().any(|other| Arc::ptr_eq(other, listener)) {
            listener.unlink();
        }
    }
}

/// Takes over descriptors that this process has inherited.
pub(super) fn inherit(fds: &[RawFd], config: &Config, owner: SocketOwner) -> Result<Vec<Arc<Listener>>, String> {
    let mut inherited = Vec::new();
    for &fd in fds {
        // A descriptor that the settings name came from a service manager, even if an older master
        // has passed it on.
        let named = config.bind.contains(&Address::Fd(fd));
        let owner = if named { SocketOwner::ServiceManager } else { owner };
        match Listener::from_fd(fd, config.backlog, owner) {
            Ok(listener) => inherited.push(Arc::new(listener)),
            Err(error) => return Err(format!("can't take over the socket fd://{fd}: {}", as_python_shows(&error))),
        }
    }
    Ok(inherited)
}

/// The names of the sockets, joined as in gunicorn's "Listening at" line. The sockets of one port
/// have one name.
pub(super) fn names(service: &Service) -> String {
    let names: Vec<String> = shown(service).into_iter().map(|(name, _)| name).collect();
    names.join(",")
}

/// Each socket as hooks see it: the log's name for it, and its descriptor.
pub(super) fn shown(service: &Service) -> Vec<(String, RawFd)> {
    let scheme = if service.config.is_tls() { "https" } else { "http" };
    let named = service.listeners.iter().map(|listener| (listener.name(scheme), listener.as_raw_fd()));
    let mut shown: Vec<_> = named.collect();
    // Under `reuse_port` an address has several sockets.
    shown.dedup_by(|one, next| one.0 == next.0);
    shown
}

/// The addresses of the settings, each once: a descriptor that is named twice must not get two
/// owners.
fn addresses(config: &Config) -> impl Iterator<Item = &Address> {
    let bind = &config.bind;
    bind.iter().enumerate().filter(|(at, address)| !bind[..*at].contains(address)).map(|(_, address)| address)
}

/// Whether `reuse_port` applies to the address: unix sockets and descriptors cannot be shared that
/// way.
fn has_group(config: &Config, address: &Address) -> bool {
    config.reuse_port && matches!(address, Address::Tcp { .. })
}

fn find(listeners: &[Arc<Listener>], address: &Address) -> Vec<Arc<Listener>> {
    let wanted = bind_address(address);
    listeners.iter().filter(|listener| listener.serves(&wanted)).cloned().collect()
}

fn open_repeatedly(config: &Config, address: &Address, signals: &SignalQueue) -> Result<Arc<Listener>, NotOpened> {
    for attempt in 1..=TRIES {
        let error = match open_address(config, address) {
            Ok(listener) => return Ok(Arc::new(listener)),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::AddrInUse => error!("Connection in use: {address}"),
            io::ErrorKind::AddrNotAvailable => error!("Invalid address: {address}"),
            _ => {}
        }
        error!("connection to {address} failed: {}", as_python_shows(&error));
        if attempt == TRIES || !is_passing(&error) {
            break;
        }
        debug!("Retrying in 1 second.");
        std::thread::sleep(BETWEEN_TRIES);
        if told_to_stop(signals) {
            return Err(NotOpened::Stopped);
        }
    }
    error!("Can't connect to {address}");
    Err(NotOpened::Failed)
}

/// Whether another try can succeed: another server may be about to end, an interface about to come
/// up, a name about to be known, a volume about to be mounted.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound};
    matches!(error.kind(), AddrInUse | AddrNotAvailable | NotFound)
}

fn open_address(config: &Config, address: &Address) -> io::Result<Listener> {
    let options = BindOptions {
        backlog: config.backlog,
        umask: config.umask,
        owner: socket_owner(config)?,
        reuse_port: has_group(config, address),
    };
    Listener::bind(&bind_address(address), options)
}

/// The workers' user and group, if they are not the master's own.
fn socket_owner(config: &Config) -> io::Result<Option<(u32, u32)>> {
    if config.user.is_none() && config.group.is_none() {
        return Ok(None);
    }
    identity(config).map(Some).map_err(|unknown| io::Error::other(unknown.to_string()))
}

/// Opens a socket that is not for clients, also where another master has one at the same address.
pub(super) fn open_aside(config: &Config, address: &Address, backlog: u32) -> io::Result<Listener> {
    let (umask, owner) = (config.umask, socket_owner(config)?);
    Listener::bind(&bind_address(address), BindOptions { backlog, umask, owner, reuse_port: true })
}

pub(super) fn bind_address(address: &Address) -> BindAddress {
    match address {
        Address::Tcp { host, port } => BindAddress::Tcp { host: host.clone(), port: *port },
        Address::Unix(path) => BindAddress::Unix(path.clone()),
        Address::Abstract(name) => BindAddress::Abstract(name.clone()),
        Address::Fd(fd) => BindAddress::Fd(*fd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_added_has_as_many_sockets_as_the_others() {
        let on = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        let config = |bind| Config { bind, reuse_port: true, ..Config::default() };
        // Five workers, of which a reload leaves two: a worker in slot 3 would stand at the fourth
        // socket of the first port, and at the second of the other.
        let options = BindOptions { backlog: 1, umask: 0, owner: None, reuse_port: true };
        let first = Arc::new(Listener::bind(&bind_address(&on("127.0.0.1", 0)), options).unwrap());
        let port = match first.local_address() {
            crate::sys::socket::LocalAddress::Ip(address) => address.port(),
            other => panic!("{other:?}"),
        };
        let five = open_for_reload(&config(vec![on("127.0.0.1", port)]), 5, &[first]).unwrap();
        assert_eq!(five.len(), 5);
        let two = config(vec![on("127.0.0.1", port), on("127.0.0.2", port)]);
        assert_eq!(open_for_reload(&two, 2, &five).unwrap().len(), 10);
    }
}
