"""gunicorn's classes over gevent. Those over its own server import it: they are loaded when they are asked for."""

from gunicorn.workers._served import ServedWorker

_PYWSGI = frozenset({"GeventPyWSGIWorker", "PyWSGIHandler", "PyWSGIServer"})


class GeventWorker(ServedWorker):
    """What `worker_class = "gevent"` names. The server runs its requests in greenlets."""

    ALIAS = "gevent"


def __getattr__(name):
    if name not in _PYWSGI:
        raise AttributeError(f"monoceros has no gunicorn.workers.ggevent.{name}")
    from gunicorn.workers import _pywsgi

    return getattr(_pywsgi, name)
