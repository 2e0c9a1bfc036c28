"""The master as hooks see it: `server`.

A record of what the master is doing, which `Bridge` keeps up to date, with what a hook can ask of the master by signal.
It must not manage a process by itself.
"""

import os
import signal
import sys

import _monoceros
from gunicorn import util
from gunicorn.errors import HaltServer  # noqa: F401 - code outside imports it from here


class Pidfile:
    """The master's pid file. The server writes and removes it."""

    def __init__(self, fname, pid):
        self.fname = fname
        self.pid = pid


class Listener:
    """An open socket of the master's; text like http://127.0.0.1:8000. What it does not know, `sock` does."""

    def __init__(self, text, address, descriptor=-1):
        self._text = text
        self.cfg_addr = address
        self._descriptor = descriptor
        self._sock = None

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.sock, name)

    @property
    def sock(self):
        """The socket. Closing or dropping it leaves the server's own open."""
        if self._sock is None or self._sock.fileno() < 0:
            self._sock = _lent_socket(self._descriptor)
        return self._sock

    def fileno(self):
        return self._descriptor

    def close(self):
        """Drops `sock`."""
        if self._sock is not None:
            self._sock.close()

    def forget(self):
        """The server has closed it: its number may be another file's by now."""
        self.close()
        self._descriptor = -1

    def __str__(self):
        return self._text

    __repr__ = __str__

    def getsockname(self):
        """(host, port), or the path of a unix socket."""
        return self.cfg_addr


def _lent_socket(descriptor):
    # Code that uses sockets has imported it; the master need not.
    import socket

    class Lent(socket.socket):
        def close(self):
            self.detach()

        # The finalizer of a socket would close it.
        __del__ = close

    return Lent(fileno=descriptor)


class Arbiter:
    """The master. Hooks put attributes of their own on it."""

    # The exit statuses of a worker whose app cannot be served.
    WORKER_BOOT_ERROR = 3
    APP_LOAD_ERROR = 4
    START_CTX = {}
    SIGNALS = [
        getattr(signal, f"SIG{name}") for name in "HUP QUIT INT TERM TTIN TTOU USR1 USR2 WINCH".split()
    ]
    _worker_class = None
    SIG_NAMES = {number: number.name[3:].lower() for number in signal.Signals}

    def __init__(self, app=None):
        self.app = app
        self.cfg = None
        self._log = None
        self.pid = None
        self.pidfile = None
        self.systemd = False
        self.master_pid = 0
        self.master_name = "Master"
        self.reexec_pid = 0
        self.worker_age = 0
        self.dirty_arbiter_pid = 0
        self.address = []
        self.timeout = 0
        self.proc_name = None
        self.LISTENERS = []
        # By pid.
        self.WORKERS = {}
        self._num_workers = 0
        self.START_CTX = {
            "args": [sys.executable, *(getattr(sys, "argv", None) or [])], "cwd": util.getcwd(), 0: sys.executable,
        }
        if app is not None:
            self.setup(app)

    def setup(self, app):
        """Takes the settings of `app`, for programs that make an Arbiter themselves."""
        self.app = app
        self.take_settings(app.cfg)
        self._num_workers = app.cfg.workers

    def take_settings(self, cfg):
        """Sets `cfg`; the number of workers is not taken from it, because the master decides it."""
        self.cfg = cfg
        self.address = cfg.address
        self.timeout = cfg.timeout
        self.proc_name = cfg.proc_name

    @property
    def log(self):
        """The logger. A program's own arbiter makes it when it is asked for."""
        if self._log is None and self.app is not None:
            self._log = self.cfg.logger_class(self.cfg)
        return self._log

    @log.setter
    def log(self, log):
        self._log = log

    @property
    def worker_class(self):
        """The class of the workers. It is imported when it is asked for: the master does without."""
        return self._worker_class or (self.cfg and self.cfg.worker_class)

    @worker_class.setter
    def worker_class(self, worker_class):
        self._worker_class = worker_class

    @property
    def num_workers(self):
        """How many workers the master keeps."""
        return self._num_workers

    @num_workers.setter
    def num_workers(self, count):
        if not isinstance(count, int) or count < 0:
            raise TypeError(f"num_workers is a number of workers, not {count!r}")
        self._num_workers = count
        # In a worker it does not reach the master, as in gunicorn.
        if self.pid == os.getpid():
            _monoceros.want_workers(count)
            # The master looks at it when a signal wakes it, and this one has no other effect.
            os.kill(self.pid, signal.SIGCHLD)

    def run(self):
        """Serves `app`, unless a subclass overrides a method that the master would have to call."""
        overridden = sorted(name for name in _UNSUPPORTED if getattr(type(self), name) is not getattr(Arbiter, name))
        if overridden:
            raise _unsupported_error(f"{type(self).__qualname__}.{overridden[0]}")
        # An application's own `run` may have made this arbiter.
        from gunicorn.app.base import BaseApplication

        BaseApplication.run(self.app)

    def kill_worker(self, pid, sig):
        """Sends a signal to one worker. The master learns of its end by itself."""
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            pass

    def kill_workers(self, sig):
        """Sends a signal to every worker."""
        for pid in list(self.WORKERS):
            self.kill_worker(pid, sig)

    def reload(self):
        """Asks the master to reload, which it does after the hook has returned."""
        os.kill(self.pid, signal.SIGHUP)

    def stop(self, graceful=True):
        """Asks the master to end, which it does after the hook has returned."""
        os.kill(self.pid, signal.SIGTERM if graceful else signal.SIGQUIT)


def _unsupported_error(name):
    return RuntimeError(f"{name} cannot run: the master of monoceros is not written in Python")


def _unsupported(name):
    def method(self, *args, **kwargs):
        raise _unsupported_error(f"{type(self).__qualname__}.{name}")

    method.__name__ = name
    method.__qualname__ = f"Arbiter.{name}"
    return method


_UNSUPPORTED = (
    "start", "init_signals", "signal", "signal_chld", "handle_chld", "handle_hup", "handle_term", "handle_int",
    "handle_quit", "handle_ttin", "handle_ttou", "handle_usr1", "handle_usr2", "handle_winch", "maybe_promote_master",
    "wakeup", "halt", "reexec", "murder_workers", "reap_workers", "manage_workers", "spawn_worker", "spawn_workers",
    "wait_for_signals",
)
for _name in _UNSUPPORTED:
    setattr(Arbiter, _name, _unsupported(_name))
