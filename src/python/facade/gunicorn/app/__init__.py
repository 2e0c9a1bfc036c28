"""Applications as gunicorn names them, for programs that embed the server. It must not know the server."""

from gunicorn import _part

_PARTS = frozenset({"base", "pasterapp", "wsgiapp"})


def __getattr__(name):
    if name in _PARTS:
        return _part(__name__, name)
    raise AttributeError(f"monoceros has no gunicorn.app.{name}")
