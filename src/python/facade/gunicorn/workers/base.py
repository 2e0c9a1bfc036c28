"""The worker as hooks see it.

The master's hooks get one for each process it forks, and the worker's hooks get its own. The process behind it is not
run by Python, so this must not serve requests, handle signals or beat the heart.
"""

import signal
import sys
import time


class Heartbeat:
    """`worker.tmp`: in gunicorn a file whose time the worker touches."""

    def notify(self):
        """Does nothing: the server sends the heartbeats of its workers, and a request must not do it for itself."""

    def last_update(self):
        """The monotonic time of the last heartbeat, in seconds: now, because a process that calls it is alive."""
        return time.monotonic()

    def close(self):
        """Does nothing: there is no file."""


class Worker:
    """One worker. `pid` is "[booting]" until it has been forked; hooks put attributes of their own on it."""

    SIGNALS = [getattr(signal, f"SIG{name}") for name in "ABRT HUP QUIT INT TERM USR1 USR2 WINCH CHLD".split()]
    PIPE = []

    def __init__(self, age, ppid, sockets, app, timeout, cfg, log):
        self.age = age
        # Which of those that live at once it is, from 0; None before the fork.
        self.number = None
        self.pid = "[booting]"
        self.ppid = ppid
        self.sockets = sockets
        self.app = app
        self.timeout = timeout
        self.cfg = cfg
        self.booted = False
        self.aborted = False
        self.reloader = None
        self.nr = 0
        # Until the fork without the jitter.
        self.max_requests = (cfg is not None and cfg.max_requests) or sys.maxsize
        # A hook that sets this to False asks for this worker to be replaced.
        self.alive = True
        self.log = log
        self.tmp = Heartbeat()
        self.wsgi = None

    def __str__(self):
        return f"<Worker {self.pid}>"

    def notify(self):
        """See `Heartbeat.notify`."""
        self.tmp.notify()

    @classmethod
    def setup(cls):
        """Called by gunicorn before it forks; here for subclasses that call it."""

    @classmethod
    def check_config(cls, cfg, log):
        """Called by gunicorn before it forks; here for subclasses that call it."""


def _unsupported(name):
    def method(self, *args, **kwargs):
        raise RuntimeError(
            f"{type(self).__qualname__}.{name} cannot run: monoceros does not run worker classes written in Python; "
            "use worker_class sync or gthread"
        )

    method.__name__ = name
    method.__qualname__ = f"Worker.{name}"
    return method


# All that a subclass overrides, or calls through super(), in order to serve.
for _name in (
    "run", "init_process", "init_signals", "load_wsgi", "handle_usr1", "handle_exit", "handle_quit", "handle_abort",
    "handle_error", "handle_winch", "handle_request", "handle", "accept", "get_thread_pool", "is_parent_alive",
):
    setattr(Worker, _name, _unsupported(_name))
