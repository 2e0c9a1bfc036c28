"""Runs a worker class that serves by itself. Nothing but the server may import it.

The server has forked the process, and supervises it: it starts others, replaces them and ends those that fall silent.
The class gets what gunicorn's would: settings, app, log and sockets. What its requests are is its own to know.
"""

import os
import signal
import sys
import time
import traceback

from gunicorn import _installed, util
from gunicorn._gevent import what_is_missing
from gunicorn.config import KEEPALIVE, KEEPALIVE_OF_SYNC
from gunicorn.errors import AppImportError
from gunicorn.sock import listener
from gunicorn.util import load_class
from gunicorn.workers._served import called_methods, cannot_override, replaced
from gunicorn.workers.base import QuickExit, Worker, make, prepare_for_signals

_BOOT_ERROR = 3
_APP_ERROR = 4
# A worker that fails after it has booted: gunicorn's -1.
_FAILED = 255


class SharedHeartbeat:
    """`worker.tmp` of a worker that serves by itself: each beat goes to the server's shared memory."""

    def __init__(self, worker, beat):
        self._worker = worker
        # In gunicorn a file.
        self._before = worker.tmp
        self._beat = beat
        self._last = time.monotonic()
        self._orphaned_at = None

    def notify(self):
        """Tells the server that the worker is alive, and what it says of itself."""
        worker = self._worker
        self._last = time.monotonic()
        self._beat(int(worker.nr), bool(worker.booted), bool(worker.alive))
        if worker.ppid != os.getppid():
            self._notice_death_of_master()

    def _notice_death_of_master(self):
        """The kernel has told the worker already; this is for one that has not listened, or does not end in time."""
        if self._orphaned_at is None:
            self._orphaned_at = self._last
            os.kill(os.getpid(), signal.SIGTERM)
        elif self._last - self._orphaned_at > self._worker.cfg.graceful_timeout:
            os._exit(0)

    def last_update(self):
        """The monotonic time of the last beat, in seconds."""
        return self._last

    def fileno(self):
        """The descriptor of gunicorn's file, for its own code."""
        return self._before.fileno()

    def close(self):
        self._before.close()


def load(name):
    """The worker class that `name` stands for, prepared. RuntimeError with a sentence if there is none."""
    worker_class = util.load_worker_class(name)
    if not (isinstance(worker_class, type) and issubclass(worker_class, Worker)):
        raise RuntimeError(f"the worker class {name!r} is not derived from gunicorn.workers.base.Worker")
    if worker_class.ALIAS == "gevent" and (missing := what_is_missing()):
        raise RuntimeError(missing)
    if (method := _method_of_gunicorns(worker_class)) and not _installed.is_installed():
        raise RuntimeError(
            f"the worker class {name!r} overrides {method}, by which gunicorn's own code reads requests: install that "
            "(pip install gunicorn), and the class runs by it; the server itself calls handle_request() and hooks"
        )
    if hasattr(worker_class, "setup"):
        worker_class.setup()
    return worker_class


def _method_of_gunicorns(worker_class):
    """What the class overrides that is part of gunicorn's own code, if there is something."""
    name = cannot_override(worker_class) if worker_class.ALIAS is not None else None
    return name if name is None or name in ("server_class", "wsgi_handler") else f"{name}()"


def replaced_methods(alias):
    """What somebody has put into the server's own class: whether any of it is called, and one that never is."""
    return replaced(load_class(alias))


def own_class(worker_class):
    """The worker class of the server that serves for it, or None for one that serves by itself."""
    return None if _method_of_gunicorns(worker_class) else worker_class.ALIAS


def enter(bridge, name, worker_class, state, listeners, beat):
    """Makes the worker of this process, in place of the object that the hooks of the master have seen.

    Returns whether gunicorn's own code runs it.
    """
    cfg = bridge.cfg
    if cfg.settings["keepalive"].value is None:
        # The settings know the class by name only.
        cfg.settings["keepalive"].value = KEEPALIVE_OF_SYNC if own_class(worker_class) == "sync" else KEEPALIVE
    bridge.enter_worker(state)
    seen = bridge.worker
    sockets = [listener(descriptor, text, address_of(text)) for text, descriptor in listeners]
    app, log = seen.app, bridge.log
    if is_of_gunicorn := _method_of_gunicorns(worker_class) is not None:
        worker_class, cfg, app, log = _installed.take_over(bridge, name)
    if hasattr(worker_class, "check_config"):
        worker_class.check_config(cfg, log)
    arguments = (state["age"], state["ppid"], sockets, app, cfg.timeout / 2, cfg, log)
    worker = make(worker_class, state["max_requests"], state["stacks"], *arguments)
    worker.pid = state["pid"]
    if is_of_gunicorn:
        _prepare_gunicorns(worker, state["max_requests"])
    if getattr(worker, "ALIAS", None) is None:
        worker.tmp = SharedHeartbeat(worker, beat)
    # What hooks have put on the other one.
    for attribute in vars(seen).keys() - vars(worker).keys():
        setattr(worker, attribute, vars(seen)[attribute])
    bridge.worker = worker
    return is_of_gunicorn


def _prepare_gunicorns(worker, max_requests):
    """What the base of worker classes does here, and gunicorn's does not."""
    worker.max_requests = max_requests or sys.maxsize
    worker.number = None
    install = worker.init_signals

    def init_signals():
        install()
        prepare_for_signals(worker)

    worker.init_signals = init_signals


def address_of(text):
    """What a listener that the log shows as `text` is bound to: (host, port), or the path of a unix socket."""
    return util.parse_address(text.partition("://")[2] if "://" in text else text)


def serve_by(bridge, serve, numbers):
    """Has `run` of a class that the server serves for call `serve`; `numbers` are those of the scoreboard.

    Returns for what the server must call the bridge.
    """
    worker = bridge.worker
    worker._serve, worker._numbers, worker._served_sockets = serve, numbers, list(worker.sockets)
    bridge.methods = called_methods(type(worker))
    return bridge.methods


def serve(bridge):
    """Lives the life of the worker.

    Returns its exit status, whether it was told to end at once, and why it could not begin to serve, or None.
    """
    worker = bridge.worker
    status, is_quick, failure = 0, False, None
    try:
        worker.init_process()
    except QuickExit:
        is_quick = True
    except SystemExit as end:
        status = _status_of(end)
    except AppImportError as error:
        failure = str(error)
        bridge.record(40, failure)
        status = _APP_ERROR
    except BaseException:
        bridge.exception("Exception in worker process")
        status = _FAILED if worker.booted else _BOOT_ERROR
        failure = f"Exception in worker process\n{traceback.format_exc()}"
    if getattr(worker, "ALIAS", None) is None:
        _ignore_what_stops()
    return status, is_quick, failure


def worker_exit(bridge, served):
    """The last that the worker does: its own clean-up, and the hook."""
    try:
        bridge.worker.tmp.close()
    except Exception:
        bridge.record(30, f"Exception during worker exit:\n{traceback.format_exc()}")
    bridge.worker_exit(max(served, int(bridge.worker.nr)))


def _status_of(end):
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    print(end.code, file=sys.stderr, flush=True)
    return 1


def _ignore_what_stops():
    """The process ends anyway, and a Ctrl-C reaches it twice: from the terminal and from its master."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
