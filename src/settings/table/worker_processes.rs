//! Workers and their life.

use super::{number, put, seconds, size};
use crate::settings::config::WorkerClass;
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::{Value, ValueError};

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "workers",
        section: Section::WorkerProcesses,
        flags: &["-w", "--workers"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Environment { variable: "WEB_CONCURRENCY", prefix: "", otherwise: "1" },
        store: Store::Field {
            set: |config, value| put(&mut config.workers, size(value)),
            get: |config| Value::Int(config.workers as i64),
        },
        doc: "Worker processes that serve requests.

A worker runs one request at a time; connections, heads and bodies wait in its event loop without holding it. Start
with the number of CPU cores for an app that computes, and two to four times that for one that waits for a database.
The signals TTIN and TTOU add and take away one at run time.

While it is not set and the environment has `WEB_CONCURRENCY`, that is the number.",
    },
    Setting {
        name: "worker_class",
        section: Section::WorkerProcesses,
        flags: &["-k", "--worker-class"],
        meta: "STRING",
        kind: Kind::Text,
        default: Default::Text("sync"),
        store: Store::Field {
            set: |config, value| put(&mut config.worker_class, worker_class(value)),
            get: |config| config.worker_class.to_string().into(),
        },
        doc: "The kind of worker: sync.

Only `sync` is there so far (also as `gunicorn.workers.sync.SyncWorker` and `egg:gunicorn#sync`). Unlike gunicorn's it
keeps connections alive, and slow clients do not hold it.",
    },
    Setting {
        name: "worker_connections",
        section: Section::WorkerProcesses,
        flags: &["--worker-connections"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("1000"),
        store: Store::Field {
            set: |config, value| put(&mut config.worker_connections, size(value)),
            get: |config| Value::Int(config.worker_connections as i64),
        },
        doc: "Connections that a worker holds open at once.

Past that number the connections idle for longest are closed first; further ones wait in the kernel's backlog.",
    },
    Setting {
        name: "max_requests",
        section: Section::WorkerProcesses,
        flags: &["--max-requests"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.max_requests, number(value)),
            get: |config| Value::Int(config.max_requests as i64),
        },
        doc: "Requests after which a worker is replaced; 0 is never.

A help against slow memory leaks. The worker goes on serving until its replacement is ready.",
    },
    Setting {
        name: "max_requests_jitter",
        section: Section::WorkerProcesses,
        flags: &["--max-requests-jitter"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.max_requests_jitter, number(value)),
            get: |config| Value::Int(config.max_requests_jitter as i64),
        },
        doc: "The most that chance adds to max_requests.

Each worker draws a number from 0 to this one, so that they are not all replaced at once.",
    },
    Setting {
        name: "timeout",
        section: Section::WorkerProcesses,
        flags: &["-t", "--timeout"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("30"),
        store: Store::Field {
            set: |config, value| put(&mut config.timeout, seconds(value)),
            get: |config| Value::Int(config.timeout as i64),
        },
        doc: "Seconds of silence after which a worker is ended; 0 is never.

A worker is silent while it runs a request, so this is also the longest that a request may take. It gets SIGABRT, a
moment later SIGKILL, and is replaced. Slow clients are not counted: their bytes are the event loop's.",
    },
    Setting {
        name: "graceful_timeout",
        section: Section::WorkerProcesses,
        flags: &["--graceful-timeout"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("30"),
        store: Store::Field {
            set: |config, value| put(&mut config.graceful_timeout, seconds(value)),
            get: |config| Value::Int(config.graceful_timeout as i64),
        },
        doc: "Seconds that a stopping worker has to finish its requests.

Counted from the moment it is told to stop; what runs on after that is killed.",
    },
    Setting {
        name: "keepalive",
        section: Section::WorkerProcesses,
        flags: &["--keep-alive"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.keepalive, optional_seconds(value)),
            get: |config| Value::from(config.keepalive.map(|seconds| Value::Int(seconds as i64))),
        },
        doc: "Seconds that an idle connection is kept; 0 keeps none.

Unset, a sync worker keeps one for 650 seconds: longer than load balancers do (60, 75 or 600), so that the balancer
closes first and no request meets a closing connection. Idle connections cost little, and the oldest are closed when
`worker_connections` is reached. A worker without a balancer in front may well use a smaller number.",
    },
];

fn optional_seconds(value: &Value) -> Result<Option<u64>, ValueError> {
    match value {
        Value::None => Ok(None),
        _ => seconds(value).map(Some),
    }
}

fn worker_class(value: &Value) -> Result<WorkerClass, ValueError> {
    let name = value.text()?;
    match name.as_str() {
        "sync" | "gunicorn.workers.sync.SyncWorker" | "egg:gunicorn#sync" => Ok(WorkerClass::Sync),
        _ => Err(ValueError::new(&name, "is not supported yet: the only worker class is 'sync'")),
    }
}
