//! Server hooks: functions of the operator that the server calls. Only their names are stored in
//! the config; the layer `python` holds the functions.

use crate::settings::setting::{Default, Kind, Section, Setting, Store};

/// In the order of a server's life.
pub(super) static ROWS: &[Setting] = &[
    hook(
        "on_starting",
        "Called as `on_starting(server)` when the server starts.

In the master, after the pid file is written and before the sockets are opened. If it raises, the server does not
start: exit status 1.",
    ),
    hook(
        "when_ready",
        "Called as `when_ready(server)` when the sockets are open.

In the master, before the first worker is forked. If it raises, the server does not start: exit status 1.",
    ),
    hook(
        "nworkers_changed",
        "Called as `nworkers_changed(server, new, old)` when the count is set.

The count of workers to keep. In the master: at the start, where `old` is None, after a reload and by TTIN, TTOU and WINCH.",
    ),
    hook(
        "pre_fork",
        "Called as `pre_fork(server, worker)` before each fork of a worker.

In the master. If it raises, there is no fork: the first start ends with exit status 3, a reload fails and changes
nothing, and a replacement is tried again later.",
    ),
    hook(
        "post_fork",
        "Called as `post_fork(server, worker)` after each fork of a worker.

In the worker, before it changes its user and loads the app. If it raises, the worker does not boot.",
    ),
    hook(
        "post_worker_init",
        "Called as `post_worker_init(worker)` when a worker has loaded the app.

In the worker, before its first request. If it raises, the worker does not boot.",
    ),
    hook(
        "pre_request",
        "Called as `pre_request(worker, req)` before the environ of a request is made.

In the worker, in the thread that will run the app. What it changes of `req.headers`, `req.method`, `req.path`,
`req.query`, `req.uri` and `req.scheme` shows in the environ. If it raises, the client gets 500. With this hook
or `post_request` each request costs more, for the objects that they are given.",
    ),
    hook(
        "post_request",
        "Called as `post_request(worker, req, environ, resp)` after each request.

In the worker, after the response was handed over and the app's iterable was closed. The last one or two arguments may
be left out. It runs after failed requests as well; without a response `resp` is None. If it raises, the traceback is
logged.",
    ),
    hook(
        "worker_int",
        "Called as `worker_int(worker)` when a worker gets INT or QUIT.

In the worker, in its main thread; also when `reload` has seen that code has changed.",
    ),
    hook(
        "worker_abort",
        "Called as `worker_abort(worker)` when a worker gets ABRT.

The master aborts a worker that exceeds a timeout. In the worker, in its main thread, as soon as that runs Python. The
hook has about a second.",
    ),
    hook(
        "worker_exit",
        "Called as `worker_exit(server, worker)` when a worker ends.

In the worker, after `Worker exiting` is logged. Not after SIGKILL.",
    ),
    hook(
        "child_exit",
        "Called as `child_exit(server, worker)` when a worker has ended.

In the master. If it raises, the traceback is logged.",
    ),
    hook(
        "on_reload",
        "Called as `on_reload(server)` when SIGHUP has come.

In the master, with the new settings, after the log and the sockets are in place and before the new workers are
forked. If it raises, the reload fails and changes nothing.",
    ),
    hook(
        "pre_exec",
        "Called as `pre_exec(server)` before a new master is executed (SIGUSR2).

In the child that becomes the new master. If it raises, there is no new master.",
    ),
    hook(
        "ssl_context",
        "Called as `ssl_context(config, default_ssl_context_factory)` for TLS.

In the master, at the start, for a reload and, under `tls_watch`, when a file has changed; only where `certfile` or
`keyfile` is set. Of the `ssl.SSLContext` that it returns these are taken over: the certificates and keys that its
`load_cert_chain()` was given within the hook, the certificates of its authorities, `verify_mode`, the cipher list, and the
versions between `minimum_version` and `maximum_version`. A context with an `sni_callback`, or one that checks revocation
lists, keeps the server from starting.",
    ),
    hook(
        "on_exit",
        "Called as `on_exit(server)` when the master ends.

In the master, after the pid file is removed. If it raises, the traceback is logged.",
    ),
];

const fn hook(name: &'static str, doc: &'static str) -> Setting {
    hook_in(Section::ServerHooks, name, doc)
}

/// The row of a hook, in that section.
pub(super) const fn hook_in(section: Section, name: &'static str, doc: &'static str) -> Setting {
    Setting { name, section, flags: &[], meta: "", kind: Kind::Hook, default: Default::Unset, store: Store::Hook, doc }
}
