"""Loggers that measure. It must not know what is measured."""

from gunicorn import _part


def __getattr__(name):
    if name == "statsd":
        return _part(__name__, name)
    raise AttributeError(f"monoceros has no gunicorn.instrument.{name}")
