"""A config file with every server hook.

Each writes a line to the file `hooks` in GATE: its name, the process, what it saw.
"""

import os
import pathlib

_calls = pathlib.Path(os.environ["GATE"]) / "hooks"


def _note(name, *seen):
    with open(_calls, "a") as file:
        file.write(" ".join([name, str(os.getpid()), *map(str, seen)]) + "\n")


def nworkers_changed(server, new, old):
    _note("nworkers_changed", new, old)


def on_starting(server):
    _note("on_starting", server.pid, server.num_workers)


def when_ready(server):
    _note("when_ready", len(server.LISTENERS), server.cfg.workers)


def pre_fork(server, worker):
    worker.mark = f"worker-{worker.age}"
    _note("pre_fork", worker.age, worker.pid)


def post_fork(server, worker):
    worker.log.info("post_fork of %s", worker.pid)
    _note("post_fork", worker.pid, worker.ppid, worker.mark)


def post_worker_init(worker):
    _note("post_worker_init", callable(worker.wsgi))


def pre_request(worker, req):
    _note("pre_request", req.method, req.path, req.query, req.uri, "{}.{}".format(*req.version), req.scheme)


def post_request(worker, req, environ, resp):
    status = resp.status.replace(" ", "_")
    _note("post_request", req.path, environ.get("PATH_INFO"), resp.status_code, status, resp.sent)


def worker_int(worker):
    _note("worker_int", worker.pid)


def worker_abort(worker):
    _note("worker_abort", worker.pid)


def worker_exit(server, worker):
    _note("worker_exit", worker.pid, worker.mark)


def child_exit(server, worker):
    _note("child_exit", worker.pid, worker.mark, worker.pid in server.WORKERS)


def on_reload(server):
    _note("on_reload", server.num_workers)


def pre_exec(server):
    _note("pre_exec")


def on_exit(server):
    _note("on_exit", server.pid)
