//! Workers and their life.

use super::{bytes, number, put, seconds, size};
use crate::settings::config::{MemoryMeasure, WorkerClass, WorkersSetting};
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::{Value, ValueError};

/// No interpreter fits into less: whoever writes `400` means megabytes.
const LEAST_MEMORY: u64 = 1 << 20;

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "workers",
        section: Section::WorkerProcesses,
        flags: &["-w", "--workers"],
        meta: "INT",
        kind: Kind::IntOrAuto,
        default: Default::Environment { variable: "WEB_CONCURRENCY", prefix: "", otherwise: "1" },
        store: Store::Field {
            set: |config, value| put(&mut config.workers, workers(value)),
            get: |config| workers_value(config.workers),
        },
        doc: "Worker processes that serve requests.

A worker runs as many requests at a time as it has `threads`. Connections, and requests that are still arriving, wait
in its event loop without occupying a thread. Start with the number of CPU cores for an app that computes, and two to
four times that for one that waits for a database. The signals TTIN and TTOU add and remove one at run time.

`auto` finds a number: two for each processor that the server may use (affinity, and the quota of its cgroup, where a
part counts as one) and one more, but not more than its memory has room for, at `max_worker_memory` each (256 MB if that
is not set), and at least one. The memory is the least of what the platform says in `MEMORY_LIMIT` (`512M`) or
`OPENSHIFT_GEAR_MEMORY_MB`, the limit of the cgroup, and the machine's. `MONOCEROS_CPUS` (`2`, `1.5`, `1500m`) says how
many processors to count on: for a pod that asks for processors and has no limit, since it may use all of its node's.
With `raw_env` a config file can set these variables, too. Each reload finds the number again, and once a minute the
server looks whether its container was resized.

While it is not set and the environment has `WEB_CONCURRENCY`, that is the number.",
    },
    Setting {
        name: "max_workers",
        section: Section::WorkerProcesses,
        flags: &["--max-workers"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.max_workers, size(value)),
            get: |config| Value::Int(config.max_workers as i64),
        },
        doc: "The most workers that `workers = auto` and `autoscale` start; 0 is no limit.

A setting of our own; gunicorn has none. The signal TTIN may go beyond it.",
    },
    Setting {
        name: "autoscale",
        section: Section::WorkerProcesses,
        flags: &["--autoscale"],
        meta: "",
        kind: Kind::Switch,
        default: Default::Bool(false),
        store: Store::Field {
            set: |config, value| put(&mut config.autoscale, value.bool()),
            get: |config| config.autoscale.into(),
        },
        doc: "Have the number of workers follow the load, up to `max_workers`.

Once a second the master looks how busy the threads of the workers were. Above three quarters for two seconds, or where
requests wait for a thread for more than 50 ms on average, it starts as many workers as would bring them to 60 %. When
fewer have been enough for 45 seconds, the surplus ends as after TTOU: the requests in flight are finished. Under gevent
and classes of other packages, whose requests have no threads, the processor's time counts in place of the threads'.

There are never more workers than the memory has room for, reckoned as for `workers = auto`; without `max_workers` there
are at most as many as that would start. TTIN and TTOU move the lower bound. Each change is a line in the log, and
counted in the metrics. A reload keeps the number.

A setting of our own; gunicorn has none.",
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
        doc: "The kind of worker: sync, gthread, gevent, or a class of Python.

`sync` runs one request at a time, in the interpreter's main thread; `gthread` runs as many as it has `threads`;
`gevent` runs each request in a greenlet, up to `worker_connections` at once, with the standard library patched. All
keep connections alive, and slow clients occupy none. gunicorn's longer names for them are understood
(`gunicorn.workers.sync.SyncWorker`, `egg:gunicorn#gthread`). `gevent` needs the package gevent, 24.10.1 or later.

Any other name is that of a class derived from `gunicorn.workers.base.Worker`, which serves by itself: a dotted path
(`uvicorn.workers.UvicornWorker`), `egg:DISTRIBUTION#NAME`, an entry point in the group `gunicorn.workers`, or one of
gunicorn's own (`tornado`, `gevent_pywsgi`). In a config file it may also be the class, or a function that returns it.
docs/worker-classes.md says which class to take.",
    },
    Setting {
        name: "threads",
        section: Section::WorkerProcesses,
        flags: &["--threads"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("1"),
        store: Store::Field {
            set: |config, value| put(&mut config.threads, threads(value)),
            get: |config| Value::Int(config.threads as i64),
        },
        doc: "Threads of a worker that run the app.

With more than 1, the class sync becomes gthread. The app must then be safe to run in several threads at once
(`wsgi.multithread` tells it). At most 1024.",
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
        doc: "Connections that a worker holds open at once; 0 is no bound.

Past that number the worker closes others: those that have been open for two seconds without a whole request, then
those idle for longest, then the oldest of those whose request is arriving, then those that send or read nothing. So
new clients and health checks are served. Clients also leave an eighth of the process's file descriptors to the app;
the server raises the soft limit of these as far as it may, up to 65536 or three times this number.",
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
        doc: "Requests after which a worker is replaced; 0 means never.

A remedy against slow memory leaks. The worker goes on serving until its replacement is ready.",
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
        doc: "The largest random number added to max_requests.

Each worker draws a number from 0 to this one, so that they are not all replaced at once.",
    },
    Setting {
        name: "max_worker_lifetime",
        section: Section::WorkerProcesses,
        flags: &["--max-worker-lifetime"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.max_worker_lifetime, seconds(value)),
            get: |config| Value::Int(config.max_worker_lifetime as i64),
        },
        doc: "Seconds after which a worker is replaced; 0 means never.

As `max_requests`, for leaks that follow the clock: the worker goes on serving until its replacement is ready. One
worker is replaced at a time. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "max_worker_lifetime_jitter",
        section: Section::WorkerProcesses,
        flags: &["--max-worker-lifetime-jitter"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.max_worker_lifetime_jitter, seconds(value)),
            get: |config| Value::Int(config.max_worker_lifetime_jitter as i64),
        },
        doc: "The most random seconds added to max_worker_lifetime.

Each worker draws a number from 0 to this one. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "max_worker_memory",
        section: Section::WorkerProcesses,
        flags: &["--max-worker-memory"],
        meta: "BYTES",
        kind: Kind::Text,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.max_worker_memory, memory_of_worker(value)),
            get: |config| Value::Int(config.max_worker_memory as i64),
        },
        doc: "Bytes of memory above which a worker is replaced; 0 means never.

A number of bytes, or one followed by `K`, `M` or `G` (powers of 1024): `400M`. Less than a megabyte is refused: no
worker could stay. The worker must be above it in several samples in a row, a second apart (five seconds for `pss`),
goes on serving until its replacement is ready, and only one worker is replaced at a time. A setting of our own;
gunicorn has none.",
    },
    Setting {
        name: "max_worker_memory_jitter",
        section: Section::WorkerProcesses,
        flags: &["--max-worker-memory-jitter"],
        meta: "BYTES",
        kind: Kind::Text,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.max_worker_memory_jitter, bytes(value)),
            get: |config| Value::Int(config.max_worker_memory_jitter as i64),
        },
        doc: "The most random bytes added to max_worker_memory.

Each worker draws a number from 0 to this one, so that workers which grow alike are not replaced in quick succession.
A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "worker_memory_measure",
        section: Section::WorkerProcesses,
        flags: &["--worker-memory-measure"],
        meta: "STRING",
        kind: Kind::Text,
        default: Default::Text("rss"),
        store: Store::Field {
            set: |config, value| put(&mut config.worker_memory_measure, memory_measure(value)),
            get: |config| config.worker_memory_measure.to_string().into(),
        },
        doc: "What max_worker_memory compares: rss or pss.

`rss` counts every page that the worker has in memory, also those it shares with the master and its siblings (most of
them, with `preload_app`). `pss` counts its part of the shared ones, which costs the kernel more to compute. A setting
of our own; gunicorn has none.",
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
        doc: "Seconds of silence after which a worker is killed; 0 means never.

A worker with one thread is silent while it runs a request, so this is also the longest that a request may take. One
with several is silent only when none of its threads can run, as under gunicorn: there `request_timeout` bounds
requests. It gets SIGABRT, a moment later SIGKILL, and is replaced. Slow clients do not count: the event loop waits
for them.",
    },
    Setting {
        name: "request_timeout",
        section: Section::WorkerProcesses,
        flags: &["--request-timeout"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.request_timeout, seconds(value)),
            get: |config| Value::Int(config.request_timeout as i64),
        },
        doc: "Seconds that one request may take in the app; 0 means no limit.

Past it the worker that runs the request is killed as by `timeout`: the error log shows what it was doing, it gets
SIGABRT, a moment later SIGKILL, and is replaced. Unlike `timeout` it applies to each request by itself, in every kind
of worker. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "boot_timeout",
        section: Section::WorkerProcesses,
        flags: &["--boot-timeout"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.boot_timeout, seconds(value)),
            get: |config| Value::Int(config.boot_timeout as i64),
        },
        doc: "Seconds that a worker may take to load the app; 0 means no limit.

Past it the worker is killed as by `timeout`. At the first start that ends the server with exit status 3; during a
reload the new workers are stopped and the old ones go on. A setting of our own; gunicorn has none.",
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

Counted from the moment it is told to stop. A second before the end (of less than four seconds: a quarter before) the
request that the worker's main thread is at is unwound by `SystemExit`, so that the worker ends with its hooks and its log
lines. A worker that runs for longer is killed.",
    },
    Setting {
        name: "shutdown_delay",
        section: Section::WorkerProcesses,
        flags: &["--shutdown-delay"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.shutdown_delay, seconds(value)),
            get: |config| Value::Int(config.shutdown_delay as i64),
        },
        doc: "Seconds to go on serving after SIGTERM before the graceful stop begins.

For load balancers that go on sending requests for a while after the stop was ordered (Kubernetes). With `health_path`
their checks fail from the first of these seconds on. INT and QUIT cut it short. Counts on top of `graceful_timeout`.
A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "health_path",
        section: Section::WorkerProcesses,
        flags: &["--health-path"],
        meta: "PATH",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.health_path, health_path(value)),
            get: |config| Value::from(config.health_path.as_deref().map(Value::from)),
        },
        doc: "A path at which the server answers health checks by itself.

The event loop answers GET and HEAD without a body there, without the app and also while every thread is busy: 200
while the server serves, 503 from the signal to stop on, through `shutdown_delay` and the graceful stop. The path is
compared as the client sends it, without its query. The app does not see these requests; they are neither in the
access log nor counted by `max_requests`. The answer tells nothing about the app's own health: the app needs a path of
its own for that. Unset, every path is the app's. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "live_path",
        section: Section::WorkerProcesses,
        flags: &["--live-path"],
        meta: "PATH",
        kind: Kind::Text,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.live_path, health_path(value)),
            get: |config| Value::from(config.live_path.as_deref().map(Value::from)),
        },
        doc: "A path at which the server answers 200 for as long as it answers at all.

As `health_path`, but a signal to stop changes nothing. It is for the probes of Kubernetes: a pod that is deleted gets
no new connections by that alone, but one that says 503 as well is no longer taken for a server that finishes, and loses
the connections that are still on their way to it. A balancer outside asks `health_path`. Unset, every path is the
app's. A setting of our own; gunicorn has none.",
    },
    Setting {
        name: "reload_surge",
        section: Section::WorkerProcesses,
        flags: &["--reload-surge"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.reload_surge, size(value)),
            get: |config| Value::Int(config.reload_surge as i64),
        },
        doc: "Workers that a reload (HUP) boots at a time; 0 means all.

With 0 the whole new generation boots beside the old one, which is then told to stop: for that time there are twice as
many workers. With a smaller number no more than `workers` plus this many exist at once: as soon as that many new
workers serve, old ones are replaced step by step. A setting of our own; gunicorn has none.",
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
closes first and no request meets a closing connection. A gthread worker keeps it for gunicorn's 2. Idle connections
cost little, and the oldest are closed when `worker_connections` is reached. Without a balancer in front a smaller
number may be better.",
    },
];

fn workers(value: &Value) -> Result<WorkersSetting, ValueError> {
    match value {
        Value::Str(text) if text.trim() == "auto" => Ok(WorkersSetting::Auto),
        _ => size(value).map(WorkersSetting::Count),
    }
}

fn workers_value(workers: WorkersSetting) -> Value {
    match workers {
        WorkersSetting::Auto => "auto".into(),
        WorkersSetting::Count(count) => Value::Int(count as i64),
    }
}

fn memory_measure(value: &Value) -> Result<MemoryMeasure, ValueError> {
    let name = value.text()?;
    let known = [MemoryMeasure::Rss, MemoryMeasure::Pss].into_iter().find(|measure| measure.to_string() == name);
    known.ok_or_else(|| ValueError::new(&name, "is neither 'rss' nor 'pss'"))
}

/// A path as it stands in a request line: without a query, and without characters that need
/// encoding.
fn health_path(value: &Value) -> Result<Option<String>, ValueError> {
    let Some(path) = value.optional_text()? else { return Ok(None) };
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    if !path.starts_with('/') || !is_plain {
        return Err(ValueError::new(&path, "is not a path such as /healthz"));
    }
    Ok(Some(path))
}

fn optional_seconds(value: &Value) -> Result<Option<u64>, ValueError> {
    match value {
        Value::None => Ok(None),
        _ => seconds(value).map(Some),
    }
}

/// More threads than this would only contend for the interpreter's lock.
const MOST_THREADS: usize = 1024;

/// gunicorn takes 0 as 1.
fn threads(value: &Value) -> Result<usize, ValueError> {
    size(value).map(|threads| threads.clamp(1, MOST_THREADS))
}

fn worker_class(value: &Value) -> Result<WorkerClass, ValueError> {
    let name = value.text()?;
    match name.as_str() {
        "sync" | "#sync" | "gunicorn.workers.sync.SyncWorker" | "egg:gunicorn#sync" => Ok(WorkerClass::Sync),
        "gthread" | "#gthread" | "gunicorn.workers.gthread.ThreadWorker" | "egg:gunicorn#gthread" => {
            Ok(WorkerClass::Gthread)
        }
        "gevent" | "#gevent" | "ggevent" | "gunicorn.workers.ggevent.GeventWorker" | "egg:gunicorn#gevent" => {
            Ok(WorkerClass::Gevent)
        }
        "" => Err(ValueError::new(&name, "names no class")),
        _ => match instead_of(&name) {
            Some(advice) => Err(ValueError::new(&name, format!("is not supported: {advice}"))),
            None => Ok(WorkerClass::Foreign(name)),
        },
    }
}

/// What to choose instead of a class of gunicorn's that this server does not have.
fn instead_of(name: &str) -> Option<&'static str> {
    match name {
        "eventlet" | "#eventlet" | "gunicorn.workers.geventlet.EventletWorker" | "egg:gunicorn#eventlet" => Some(
            "gunicorn has dropped it in version 26; take 'gevent' and leave eventlet.monkey_patch() out, because that \
             worker patches by itself, or 'gthread' with threads (Flask-SocketIO: async_mode='threading' and the \
             package simple-websocket)",
        ),
        "asgi" | "#asgi" | "gunicorn.workers.gasgi.ASGIWorker" | "egg:gunicorn#asgi" => {
            Some("take 'uvicorn.workers.UvicornWorker' (pip install uvicorn), which runs ASGI apps")
        }
        _ => None,
    }
}

/// Bytes of memory that a worker may have; 0 for any number.
fn memory_of_worker(value: &Value) -> Result<u64, ValueError> {
    let count = bytes(value)?;
    if (1..LEAST_MEMORY).contains(&count) {
        return Err(ValueError::new(&count.to_string(), "is less than any worker needs: 400 megabytes are 400M"));
    }
    Ok(count)
}
