//! Addresses.

use super::put;
use crate::settings::address::Address;
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::{Value, ValueError};

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "bind",
        section: Section::ServerSocket,
        flags: &["-b", "--bind"],
        meta: "ADDRESS",
        kind: Kind::List,
        default: Default::Environment { variable: "PORT", prefix: "0.0.0.0:", otherwise: "127.0.0.1:8000" },
        store: Store::Field {
            set: |config, value| put(&mut config.bind, addresses(value)),
            get: |config| config.bind.iter().map(Address::to_bind).collect(),
        },
        doc: "The address to listen on; repeat it for several.

| form | means |
|---|---|
| `HOST:PORT`, `HOST` | a name or an address; the port is 8000 when it is left out |
| `:PORT` | every IPv4 address |
| `[::1]:PORT`, `[::1]` | IPv6; `[::]` is every address |
| `tcp://HOST:PORT` | the same, spelled out |
| `unix:PATH`, `unix:///PATH` | a unix socket; its mode is 0777 without the bits of `umask` |
| `fd://N` | a socket that is already open; with one of these, other addresses are ignored |

While it is not set and the environment has `PORT`, the address is `0.0.0.0:$PORT`. See `platform_bind` for the
variables of other platforms.",
    },
    Setting {
        name: "platform_bind",
        section: Section::ServerSocket,
        flags: &["--no-platform-bind"],
        meta: "",
        kind: Kind::SwitchOff,
        default: Default::Bool(true),
        store: Store::Field {
            set: |config, value| put(&mut config.platform_bind, value.bool()),
            get: |config| config.platform_bind.into(),
        },
        doc: "Listen where a platform's variables say, if nobody else does.

Without `bind` and without `PORT` the address is `0.0.0.0:$VCAP_APP_PORT` (Cloud Foundry), or else
`$OPENSHIFT_PYTHON_IP:$OPENSHIFT_PYTHON_PORT` (OpenShift 2, Jelastic), where the environment has these. Off, only `PORT`
counts, as under gunicorn. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "backlog",
        section: Section::ServerSocket,
        flags: &["--backlog"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("2048"),
        store: Store::Field {
            set: |config, value| put(&mut config.backlog, backlog(value)),
            get: |config| Value::Int(config.backlog.into()),
        },
        doc: "Connections that may wait to be accepted.

Handed to listen(2). The kernel caps it: on Linux at `net.core.somaxconn`.",
    },
    Setting {
        name: "reuse_port",
        section: Section::ServerSocket,
        flags: &["--reuse-port"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.reuse_port, value.bool()),
            get: |config| config.reuse_port.into(),
        },
        doc: "Bind with SO_REUSEPORT, a socket for each worker.

The kernel then spreads connections over the sockets bound to one port, whether or not their workers are busy; other
servers of the same user may bind it too. The master owns the sockets: the replacement of a worker goes on with its
socket, and the connections of a busy or missing worker go to its siblings. This is for many workers and many short
connections; otherwise the common socket spreads them more evenly. If a reload turns it on, it takes effect with the
next start.",
    },
    Setting {
        name: "defer_accept",
        section: Section::ServerSocket,
        flags: &["--defer-accept"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.defer_accept, value.bool()),
            get: |config| config.defer_accept.into(),
        },
        doc: "Let the kernel keep TCP connections until their first bytes are there.

TCP_DEFER_ACCEPT of tcp(7): a worker is not woken for a connection before it has something to read. That halves the
work of a connection that carries one request, as from a proxy that does not keep its connections. A client that
connects and sends nothing reaches a worker after about a second; until then `ss` shows it as `SYN-RECV`, and a server
that stops does not know of it.",
    },
];

/// At least one address. As in gunicorn, descriptors replace all other addresses: an operator who
/// passes open sockets means those.
fn addresses(value: &Value) -> Result<Vec<Address>, ValueError> {
    let texts = value.texts()?;
    let mut addresses = texts.iter().map(|text| Address::parse(text)).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        return Err(ValueError::new("", "is not an address to listen on"));
    }
    if addresses.iter().any(is_descriptor) {
        addresses.retain(is_descriptor);
    }
    Ok(addresses)
}

fn is_descriptor(address: &Address) -> bool {
    matches!(address, Address::Fd(_))
}

/// listen(2) takes an int.
fn backlog(value: &Value) -> Result<u32, ValueError> {
    value.count(i32::MAX.into()).map(|backlog| backlog as u32)
}
