//! Looking into the server.

use super::{put, seconds};
use crate::settings::address::Address;
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::{Value, ValueError};

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "metrics_bind",
        section: Section::Observing,
        flags: &["--metrics-bind"],
        meta: "ADDRESS",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.metrics_bind, metrics_address(value)),
            get: |config| Value::from(config.metrics_bind.as_ref().map(|address| Value::from(address.to_bind()))),
        },
        doc: "An address at which Prometheus can read the server's metrics.

`GET /metrics` there answers with the totals of all workers, in Prometheus' text format or, where the client asks for
it, in OpenMetrics'; `GET /healthz` with 200 while the server serves and 503 from the signal to stop on. Everything else
is 404: the app is not to be had there. Any worker answers, also while every thread is busy, and on through
`shutdown_delay` and the graceful stop. The requests are neither logged nor counted. At most four connections at a time
are served, each for one request of 8 KiB at most, within 5 seconds. There is no TLS and no password: bind it where only
your monitoring comes. [observability.md](observability.md) says what the metrics mean. Unset, there is no such
address. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "slow_request",
        section: Section::Observing,
        flags: &["--slow-request"],
        meta: "SECONDS",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.slow_request, seconds(value)),
            get: |config| Value::Int(config.slow_request as i64),
        },
        doc: "Seconds after which a running request is named in the log; 0 means never.

A warning with method, path, client and age, once for each request, while it runs: before `timeout` ends the worker, if
it does. The worker looks once a second. `slow_request_stack` adds where the request is in the code. A setting of our
own; gunicorn has none.",
    },
    Setting {
        name: "slow_request_stack",
        section: Section::Observing,
        flags: &["--slow-request-stack"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.slow_request_stack, value.bool()),
            get: |config| config.slow_request_stack.into(),
        },
        doc: "Show where in the code a slow request is.

The line of `slow_request` is followed by the Python stack of the thread or greenlet that runs the request, also where C
code holds the interpreter. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "control_socket",
        section: Section::Observing,
        flags: &["--control-socket"],
        meta: "PATH",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.control_socket, value.optional_text()),
            get: |config| Value::from(config.control_socket.as_deref().map(Value::from)),
        },
        doc:
            "The unix socket at which the master takes commands, as from `gunicornc`.

It speaks gunicorn's protocol; [observability.md](observability.md#the-control-socket) has the commands. `default` is
gunicorn's path: `gunicorn.ctl` in `$XDG_RUNTIME_DIR`, else `~/.gunicorn/gunicorn.ctl`. A relative path is one from
`chdir`. Who may connect may stop the server: the file's mode is all there is of a password. Unset, there is no socket.",
    },
    Setting {
        name: "control_socket_mode",
        section: Section::Observing,
        flags: &["--control-socket-mode"],
        meta: "INT",
        kind: Kind::Mode,
        default: Default::Text("0600"),
        store: Store::Field {
            set: |config, value| put(&mut config.control_socket_mode, value.mode()),
            get: |config| Value::Int(config.control_socket_mode.into()),
        },
        doc: "The mode of the control socket's file.

A number as text with a leading zero is octal.",
    },
    Setting {
        name: "control_socket_disable",
        section: Section::Observing,
        flags: &["--no-control-socket"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.control_socket_disable, value.bool()),
            get: |config| config.control_socket_disable.into(),
        },
        doc: "Have no control socket, whatever `control_socket` says.",
    },
];

/// Descriptors are refused: a socket of the service manager is for clients.
fn metrics_address(value: &Value) -> Result<Option<Address>, ValueError> {
    let Some(text) = value.optional_text()? else { return Ok(None) };
    match Address::parse(&text)? {
        Address::Fd(_) => Err(ValueError::new(&text, "is a socket of somebody else; name a port or a path")),
        address => Ok(Some(address)),
    }
}
