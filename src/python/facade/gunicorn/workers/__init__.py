"""The worker object that hooks see, and the worker classes by name. It must not know how a worker serves."""

from gunicorn import _part

# The aliases of `worker_class`. The server serves by itself for the first three; the others run.
SUPPORTED_WORKERS = {
    "sync": "gunicorn.workers.sync.SyncWorker",
    "gthread": "gunicorn.workers.gthread.ThreadWorker",
    "gevent": "gunicorn.workers.ggevent.GeventWorker",
    "gevent_pywsgi": "gunicorn.workers.ggevent.GeventPyWSGIWorker",
    "gevent_wsgi": "gunicorn.workers.ggevent.GeventPyWSGIWorker",
    "tornado": "gunicorn.workers.gtornado.TornadoWorker",
}
_PARTS = frozenset({"base", "ggevent", "gthread", "gtornado", "sync"})


def __getattr__(name):
    if name in _PARTS:
        return _part(__name__, name)
    raise AttributeError(f"monoceros has no gunicorn.workers.{name}: it is not one of {', '.join(sorted(_PARTS))}")
