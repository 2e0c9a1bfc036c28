"""The base of worker classes, and the worker as hooks see it.

A class of another package (uvicorn's, aiohttp's) serves by itself: the server makes its object in a process that it has
forked, and calls `init_process`. For sync and gthread the object only stands for a process that is not run by Python;
there the server calls none of the methods.
"""

import os
import signal
import sys
import time

from gunicorn import util

# A worker that waits for late requests gives them up this much before the master kills it, at most a quarter of
# its time. It is the number of the server's own workers.
_BEFORE_KILL = 1

# Between `worker_int` and the end: a moment for what the hook has begun. gunicorn's number.
_MOMENT = 0.1


class Heartbeat:
    """`worker.tmp`: in gunicorn a file whose time the worker touches."""

    def notify(self):
        """Does nothing: the server sends the heartbeats of its workers, and a request must not do it for itself."""

    def last_update(self):
        """The monotonic time of the last heartbeat, in seconds: now, because a process that calls it is alive."""
        return time.monotonic()

    def close(self):
        """Does nothing: there is no file."""


class Shown:
    """An attribute that is computed until somebody sets it: hooks and classes may, as with gunicorn's own."""

    def __init__(self, compute):
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, worker, owner=None):
        return self if worker is None else self._compute(worker)


class Worker:
    """One worker. `pid` is "[booting]" until it has been forked; hooks put attributes of their own on it."""

    SIGNALS = [getattr(signal, f"SIG{name}") for name in "ABRT HUP QUIT INT TERM USR1 USR2 WINCH CHLD".split()]
    PIPE = []
    # The name of the class whose requests the server reads and answers; None for one that serves by itself.
    ALIAS = None

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
        self.max_requests = _drawn_max_requests or (cfg is not None and cfg.max_requests) or sys.maxsize
        # A hook that sets this to False asks for this worker to be replaced.
        self.alive = True
        self.log = log
        self.tmp = Heartbeat()
        self.wsgi = None

    def __str__(self):
        return f"<Worker {self.pid}>"

    def notify(self):
        """Says that the worker is alive. A class calls it more often than every `timeout` seconds."""
        self.tmp.notify()

    @classmethod
    def setup(cls):
        """Called in the worker's process before the object is made; for subclasses to prepare the class."""

    @classmethod
    def check_config(cls, cfg, log):
        """Called in the worker's process before the object is made; for subclasses to refuse settings."""

    # The life of a class that serves

    def init_process(self):
        """Prepares the process, loads the app, and serves. The server has set user, directory and environment."""
        util.seed()
        self.PIPE = os.pipe()
        for descriptor in self.PIPE:
            util.set_non_blocking(descriptor)
        for listener in self.sockets:
            util.close_on_exec(listener)
        self.wait_fds = [*self.sockets, self.PIPE[0]]
        self.log.close_on_exec()
        self.init_signals()
        if self.ALIAS is None:
            prepare_for_signals(self)
        self.load_wsgi()
        self.cfg.post_worker_init(self)
        self.booted = True
        self.run()

    def run(self):
        """Serves until `alive` is False; a subclass writes it."""
        raise NotImplementedError(f"{type(self).__qualname__}.run() is for the class to write")

    def load_wsgi(self):
        """Sets `wsgi` to the app. Under `reload` one that cannot be imported is replaced by its traceback."""
        try:
            self.wsgi = self.app.wsgi()
        except Exception as error:
            if not self.cfg.reload:
                raise
            import traceback

            import _monoceros
            from gunicorn._loader import files_of

            self.log.exception("Error while loading the application; serving its traceback")
            _monoceros.watch_files(files_of(error, error.__traceback__))
            self.wsgi = util.make_fail_app("".join(traceback.format_exception(error)))

    def init_signals(self):
        """Installs the handlers of signals; every other signal of the server gets its default effect."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, self.handle_exit)
        signal.signal(signal.SIGQUIT, self.handle_quit)
        signal.signal(signal.SIGINT, self.handle_quit)
        signal.signal(signal.SIGWINCH, self.handle_winch)
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        signal.signal(signal.SIGABRT, self.handle_abort)
        # A signal must not break a request's system call.
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.siginterrupt(number, False)
        signal.set_wakeup_fd(self.PIPE[1], warn_on_full_buffer=False)

    def handle_usr1(self, sig, frame):
        self.log.reopen_files()

    def handle_exit(self, sig, frame):
        # uvicorn's class calls it for QUIT, and would go on until it is killed.
        if sig == signal.SIGQUIT:
            self.handle_quit(sig, frame)
        self.alive = False

    def handle_quit(self, sig, frame):
        self.alive = False
        self.cfg.worker_int(self)
        time.sleep(_MOMENT)
        raise QuickExit(0)

    def handle_abort(self, sig, frame):
        self.alive = False
        self.aborted = True
        self.cfg.worker_abort(self)
        sys.exit(1)

    def handle_winch(self, sig, frame):
        self.log.debug("worker: SIGWINCH ignored.")


def patience(cfg):
    """How many seconds a worker that stops may wait for its requests."""
    return cfg.graceful_timeout - min(_BEFORE_KILL, cfg.graceful_timeout / 4)


class QuickExit(SystemExit):
    """The end of a worker that was told to end at once."""


# Set while the server makes the object of a class: that one's `__init__` may pass the number on.
_drawn_max_requests = None

# The descriptor to which the stacks of an aborted worker are written.
_stacks = None


def make(worker_class, max_requests, stacks, *arguments):
    """An object of `worker_class`, which serves `max_requests` requests; 0 for no limit."""
    global _drawn_max_requests, _stacks  # noqa: PLW0603 - the base's methods have no parameters for them
    _drawn_max_requests, _stacks = max_requests or sys.maxsize, stacks
    try:
        return worker_class(*arguments)
    finally:
        _drawn_max_requests = None


def prepare_for_signals(worker):
    """Has signals end the process through Python where the class leaves them their default effect.

    So `worker_exit` and the exit functions run: uvicorn restores the handlers that it has found, and raises the signal
    again. An aborted worker writes its stacks first.
    """
    ends = {signal.SIGTERM: _end, signal.SIGINT: worker.handle_quit, signal.SIGABRT: worker.handle_abort}
    for number, end in ends.items():
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)
    if _stacks is not None:
        import faulthandler

        # Before the handlers of Python, which wait for the code that runs.
        faulthandler.disable()
        faulthandler.enable(file=_stacks, all_threads=True)
    import _monoceros

    # It came while the class had no handlers, and something has dropped the exit that it raised.
    if _monoceros.is_told_to_stop():
        signal.raise_signal(signal.SIGTERM)


def _end(number, frame):
    sys.exit(0)


def _unsupported(name):
    def method(self, *args, **kwargs):
        raise RuntimeError(
            f"{type(self).__qualname__}.{name} cannot run: monoceros does not read requests in Python; "
            "a class that calls it needs gunicorn's own code"
        )

    method.__name__ = name
    method.__qualname__ = f"Worker.{name}"
    return method


# What gunicorn's classes have for requests that they read themselves.
for _name in ("handle_error", "handle_request", "handle", "accept", "is_parent_alive"):
    setattr(Worker, _name, _unsupported(_name))


# Each class of gunicorn's as it was made here: config files and agents put methods of their own into them.
_made = {}
_NOTHING = object()


def keep(kind):
    """Remembers the class as it is."""
    _made[kind] = dict(vars(kind))
    return kind


def is_made_here(kind):
    """Whether it is one of gunicorn's classes itself."""
    return kind in _made


def is_any_changed():
    """Whether an attribute of one of gunicorn's classes is not as it was made."""
    return any(dict(vars(kind)) != made for kind, made in _made.items())


def is_overridden(kind, name):
    """Whether the attribute `name` of the class is another than that of gunicorn's class, as this was made here."""
    for base in kind.__mro__:
        made = _made.get(base)
        if made is None:
            if name in vars(base):
                # Of the class itself, or of a mixin in front of gunicorn's.
                return base is not object
        elif vars(base).get(name, _NOTHING) is not made.get(name, _NOTHING):
            return True
        elif name in made:
            return False
    return False


keep(Worker)
