"""The package that config files, loggers and hooks get when they `import gunicorn` inside this server.

It exists so that they run unchanged. It is loaded in every process that uses hooks or Python logging, so this module
imports nothing but the native module, and each part of the package is imported when it is first touched. It must not
know how the server works: what it says is said through `_monoceros`.
"""

import _monoceros

version_info = (27, 0, 1)
__version__ = "27.0.1"
# Config files assign these two; the server reads them after the config file has run.
SERVER = "monoceros"
SERVER_SOFTWARE = _monoceros.SERVER_SOFTWARE

# In gunicorn's own process these are loaded before the config file runs, so `gunicorn.glogging.Logger` works there
# after a bare `import gunicorn`.
_PARTS = frozenset({"app", "arbiter", "config", "errors", "glogging", "http", "instrument", "sock", "util", "workers"})
_MISSING = {
    "asgi": "ASGI apps are run by worker classes of other packages",
    "ctl": "there is no control socket",
    "dirty": "it is a part of an installed gunicorn; import it by that name",
    "http2": "HTTP/2 is not supported",
    "uwsgi": "packets of the uwsgi protocol are not read in Python",
    "pidfile": "the pid file is not written by Python",
    "reloader": "files are not watched by Python",
    "systemd": "the service manager is not spoken to from Python",
}


def __getattr__(name):
    if name in _PARTS:
        return _part(__name__, name)
    reason = _MISSING.get(name, "the server does not provide it to Python")
    raise AttributeError(f"monoceros has no gunicorn.{name}: {reason}")


def _part(package, name):
    """Imports a part of `package` that was asked for as an attribute."""
    import importlib

    return importlib.import_module(f"{package}.{name}")
