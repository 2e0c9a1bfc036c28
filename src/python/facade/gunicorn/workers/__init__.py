"""The worker object that hooks see, and the worker classes by name. It must not know how a worker serves."""

from gunicorn import _part

# Those that the server takes for `worker_class`; they name how many threads a worker has, and are never instantiated.
SUPPORTED_WORKERS = {
    "sync": "gunicorn.workers.sync.SyncWorker",
    "gthread": "gunicorn.workers.gthread.ThreadWorker",
}
_PARTS = frozenset({"base", "gthread", "sync"})


def __getattr__(name):
    if name in _PARTS:
        return _part(__name__, name)
    raise AttributeError(f"monoceros has no gunicorn.workers.{name}: its worker classes are sync and gthread")
