//! Dirty workers: a pool of processes for long work, which requests call.

use super::server_hooks::hook_in;
use super::{MAX_SECONDS, put, seconds, size};
use crate::settings::setting::{Default, Kind, Section, Setting, Store};
use crate::settings::value::{Value, ValueError};

pub(super) static ROWS: &[Setting] = &[
    Setting {
        name: "dirty_apps",
        section: Section::DirtyWorkers,
        flags: &["--dirty-app"],
        meta: "STRING",
        kind: Kind::List,
        default: Default::Unset,
        store: Store::Field {
            set: |config, value| put(&mut config.dirty.apps, apps(value)),
            get: |config| config.dirty.apps.iter().map(String::as_str).collect(),
        },
        doc: "The dirty apps, each `MODULE:CLASS`, or `MODULE:CLASS:N` for at most N workers.

The flag may be repeated. Each dirty worker makes one object of each class and keeps it. Without `:N` the attribute
`workers` of the class is the limit; None means every worker. Dirty workers are started where both this and
`dirty_workers` are set. They are gunicorn's own code: the package gunicorn, 25.1 or later, must be installed beside the
server ([worker-classes.md](worker-classes.md#dirty-workers)).",
    },
    Setting {
        name: "dirty_workers",
        section: Section::DirtyWorkers,
        flags: &["--dirty-workers"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("0"),
        store: Store::Field {
            set: |config, value| put(&mut config.dirty.workers, size(value)),
            get: |config| Value::Int(config.dirty.workers as i64),
        },
        doc: "Dirty worker processes to keep running; 0 means none.

TTIN and TTOU to the dirty arbiter, their parent, add and remove one, and so do `dirty add` and `dirty remove` on the
control socket.",
    },
    Setting {
        name: "dirty_timeout",
        section: Section::DirtyWorkers,
        flags: &["--dirty-timeout"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("300"),
        store: Store::Field {
            set: |config, value| put(&mut config.dirty.timeout, seconds(value)),
            get: |config| Value::Int(config.dirty.timeout as i64),
        },
        doc: "Seconds that an action of a dirty app may take; 0 means no limit.

The caller gets an error then. A thread of Python cannot be stopped, so the action goes on. A worker that sends no
heartbeat for as long is killed.",
    },
    Setting {
        name: "dirty_threads",
        section: Section::DirtyWorkers,
        flags: &["--dirty-threads"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("1"),
        store: Store::Field {
            set: |config, value| put(&mut config.dirty.threads, threads(value)),
            get: |config| Value::Int(config.dirty.threads as i64),
        },
        doc: "Threads of a dirty worker that run actions.",
    },
    Setting {
        name: "dirty_graceful_timeout",
        section: Section::DirtyWorkers,
        flags: &["--dirty-graceful-timeout"],
        meta: "INT",
        kind: Kind::Int,
        default: Default::Text("30"),
        store: Store::Field {
            set: |config, value| put(&mut config.dirty.graceful_timeout, seconds(value)),
            get: |config| Value::Int(config.dirty.graceful_timeout as i64),
        },
        doc: "Seconds that a dirty worker which is told to end has for the actions it runs.

A stop of the server also ends after `graceful_timeout`.",
    },
    hook(
        "on_dirty_starting",
        "Called as `on_dirty_starting(arbiter)` when the dirty arbiter starts.

In the dirty arbiter, before it has workers. If it raises, the arbiter ends, and another is started later.",
    ),
    hook(
        "dirty_post_fork",
        "Called as `dirty_post_fork(arbiter, worker)` after each fork of a dirty worker.

In the dirty arbiter. If it raises, the traceback is logged.",
    ),
    hook(
        "dirty_worker_init",
        "Called as `dirty_worker_init(worker)` when a dirty worker has loaded its apps.

In the dirty worker, before its first action. If it raises, the worker does not boot.",
    ),
    hook(
        "dirty_worker_exit",
        "Called as `dirty_worker_exit(arbiter, worker)` when a dirty worker has ended.

In the dirty arbiter. If it raises, the traceback is logged.",
    ),
];

const fn hook(name: &'static str, doc: &'static str) -> Setting {
    hook_in(Section::DirtyWorkers, name, doc)
}

/// 0 is refused here, because gunicorn's pool of threads refuses it when it is made.
fn threads(value: &Value) -> Result<usize, ValueError> {
    match value.count(MAX_SECONDS)? {
        0 => Err(ValueError::new("0", "is no number of threads: a dirty worker has one at least")),
        threads => Ok(threads as usize),
    }
}

fn apps(value: &Value) -> Result<Vec<String>, ValueError> {
    let apps = value.texts()?;
    match apps.iter().find(|app| !is_app(app)) {
        Some(app) => {
            Err(ValueError::new(app, "is no dirty app: that is MODULE:CLASS, or MODULE:CLASS:N with N of at least 1"))
        }
        None => Ok(apps),
    }
}

fn is_app(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [module, class] => !module.is_empty() && !class.is_empty(),
        [module, class, count] => {
            !module.is_empty() && !class.is_empty() && count.parse().is_ok_and(|count: u32| count >= 1)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_a_class_perhaps_with_a_limit() {
        for (text, is_valid) in [
            ("a.b:C", true),
            ("a:C:2", true),
            ("a:C:0", false),
            ("a:C:x", false),
            ("a", false),
            ("a:", false),
            (":C", false),
            ("a:C:1:2", false),
        ] {
            assert_eq!(apps(&Value::from(text)).is_ok(), is_valid, "{text}");
        }
        assert_eq!(apps(&Value::None), Ok(Vec::new()));
        assert!(threads(&Value::Int(0)).is_err());
    }
}
