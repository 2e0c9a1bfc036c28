"""The request and response that hooks and loggers see. It must not know how either travels."""

from gunicorn import _part

_PARTS = frozenset({"errors", "message", "wsgi"})


def __getattr__(name):
    if name in ("Message", "Request"):
        return getattr(_part(__name__, "message"), name)
    if name in _PARTS:
        return _part(__name__, name)
    raise AttributeError(f"monoceros has no gunicorn.http.{name}: HTTP is not parsed in Python")
