"""gunicorn's classes over gevent's own server. They are loaded when they are asked for: gevent may not be installed."""

_PYWSGI = frozenset({"GeventPyWSGIWorker", "PyWSGIHandler", "PyWSGIServer"})


def __getattr__(name):
    if name not in _PYWSGI:
        raise AttributeError(f"monoceros has no gunicorn.workers.ggevent.{name}")
    from gunicorn.workers import _pywsgi

    return getattr(_pywsgi, name)
