"""What the server calls in order to run hooks and write to Python's logging. Nothing else may import it.

A `Bridge` is made from the settings in force, in the master, and again after each reload; workers inherit it through
their fork. It turns what the server tells in plain values into the objects that hooks are called with. When something
happens is the server's to know, and not to be decided here.
"""

import logging
import os
import signal
import sys
import time
import traceback
from datetime import timedelta

import _monoceros
from gunicorn import _hooks, util
from gunicorn._amend import amend, remember
from gunicorn._native import make_logger, set_up_loggers
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter, Listener, Pidfile
from gunicorn.config import Config, watch
from gunicorn.errors import ConfigError
from gunicorn.glogging import Logger, SafeAtoms, plain
from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.workers.base import Worker, is_overridden

# The server's own worker classes, as the settings name them.
_OWN_CLASSES = ("sync", "gthread", "gevent")

# With each of these settings Python's logging writes the logs.
_LOGGING = ("logconfig", "logconfig_dict", "logconfig_json", "syslog")

# The atoms that come with a line that the server has rendered, in their order.
_ATOMS_OF_LINES = ("h", "u", "m", "r", "U", "q", "H", "s", "B", "D", "f", "a")


class Bridge:
    """The hooks and the logger of one configuration, and the `server` and `worker` objects that they see."""

    def __init__(self, values, objects, origins=None, app_uri=None):
        """`values` are the settings in force as plain values, and whether Python's logging writes the logs; `objects`
        those settings that are Python objects of a config file; `origins` tells where each comes from; `app_uri` names
        the app.

        Raises ConfigError for a hook that cannot be called, or a class that cannot be used.
        """
        self._origins = origins or {}
        self.cfg = Config()
        self.values, self.objects = values, objects
        given = {**values, **objects}
        for name in self.cfg.settings.keys() & given.keys() - _hooks.PARAMETERS.keys():
            setting = self.cfg.settings[name]
            # The server has checked the plain values; only Python can check the objects.
            self._checked(name, given[name], setting.set if name in objects else setting.adopt)
        self._hooks = {name: given[name] for name in _hooks.PARAMETERS if given.get(name) is not None}
        for name, value in self._hooks.items():
            self._hooks[name] = self._set_hook(name, value)
        self.hooks = frozenset(self._hooks)
        self.python_logging = given.get("python_logging", self._asks_for_python())
        self.log = None
        self.arbiter = Arbiter()
        self._app = _application(self.cfg, app_uri)
        self.worker = None
        self._pending = None
        self._listeners = []
        # For what the worker's own methods are called, which call the hooks in their turn.
        self.methods = frozenset()

    def _asks_for_python(self):
        return (
            not self.cfg.has_default_logger
            or self.cfg.statsd_host is not None
            or any(getattr(self.cfg, name) for name in _LOGGING)
        )

    def _checked(self, name, value, take):
        try:
            return take(value)
        except (TypeError, ValueError, ConfigError, RuntimeError) as error:
            raise ConfigError(self._told(name, error)) from error

    def _told(self, name, error):
        origin = f" ({self._origins[name]})" if name in self._origins else ""
        return f"invalid value for {name!r}: {error}{origin}"

    def _note_set(self, name):
        # In a worker, a class that is not the server's may read it.
        if self.worker is None:
            _monoceros.log(
                logging.WARNING,
                f"{name!r} was set by cfg.set() after the server had read its settings. Set it in the config file.",
                None,
            )

    def given_values(self):
        """The names and plain values of the settings that are not at their defaults."""
        known = self.cfg.settings
        return [(name, value) for name, value in self.values.items()
                if name in known and value is not None and name not in self.objects and value != known[name].default]

    def _set_hook(self, name, value):
        hook = self._checked(name, value, lambda value: _hooks.resolve(name, value))
        if name in self.cfg.settings:
            self.cfg.settings[name].adopt(hook)
        return _hooks.shortened(hook, len(_hooks.PARAMETERS[name])) if name == "post_request" else hook

    def take_over(self, previous):
        """Keeps the `server` and the workers of the bridge before a reload, and what hooks have put on them."""
        self.arbiter = previous.arbiter
        self._listeners = previous._listeners
        self.worker = previous.worker
        self._pending = previous._pending

    def make_log(self):
        """Makes `self.log`, and returns the least level that it takes.

        RuntimeError where the log settings cannot be used, or whatever the class raises.
        """
        watch(self.cfg, self._note_set)
        self.log = make_logger(self._logger_class() if self.python_logging else NativeLogger, self.cfg)
        self.arbiter.log = self.log
        # A class of the user's own may have none.
        error_log = getattr(self.log, "error_log", None)
        return error_log.getEffectiveLevel() if isinstance(error_log, logging.Logger) else logging.DEBUG

    def take_log(self):
        """Makes `self.log` from the loggers as they are, after they were changed."""
        self.log = NativeLogger.of_changed(self.cfg)

    def _logger_class(self):
        try:
            return self.cfg.logger_class
        except RuntimeError as error:
            raise ConfigError(self._told("logger_class", error)) from error

    # The master

    def server(self, state):
        """Brings `server` up to date."""
        arbiter = self.arbiter
        arbiter.take_settings(self.cfg)
        arbiter.app = self._app
        arbiter.log = self.log
        if "listeners" in state and state["listeners"] != self._listeners:
            self._listeners = state["listeners"]
            arbiter.LISTENERS = [Listener(text, _address(text), descriptor) for text, descriptor in self._listeners]
        if "num_workers" in state:
            # Setting the attribute itself would ask the master for it.
            arbiter._num_workers = state["num_workers"]
        pid_file = state.get("pid_file")
        if pid_file is None or arbiter.pidfile is None or arbiter.pidfile.fname != pid_file:
            arbiter.pidfile = pid_file and Pidfile(pid_file, state["pid"])
        for name in ("pid", "master_name", "master_pid", "reexec_pid", "proc_name", "worker_age", "dirty_arbiter_pid"):
            if name in state:
                setattr(arbiter, name, state[name])

    def call_server(self, name, *extra):
        """Calls a hook of the master. The server handles what it raises."""
        if name in self._hooks:
            self._hooks[name](self.arbiter, *extra)

    def ssl_context(self):
        """The result of the hook of that name, as plain values; ConfigError for options that are not supported."""
        # Few configs need it, and it imports OpenSSL.
        from gunicorn import _ssl_context

        return _ssl_context.read(self.cfg, self._hooks["ssl_context"])

    def pre_fork(self, age):
        """Before a fork: makes the worker's object."""
        self._pending = self._new_worker(age, self.arbiter.pid)
        self.arbiter.worker_age = age
        self.call_server("pre_fork", self._pending)

    def forked(self, pid):
        """After the fork, in the master."""
        worker, self._pending = self._pending, None
        worker.pid = pid
        self.arbiter.WORKERS[pid] = worker

    def child_exit(self, pid):
        """After a worker has been reaped, perhaps one from before there were hooks."""
        worker = self.arbiter.WORKERS.pop(pid, None)
        if worker is None:
            worker = self._new_worker(0, self.arbiter.pid)
            worker.pid = pid
        self.call_server("child_exit", worker)

    def preloaded(self, app_callable):
        """In the master: the app is loaded."""
        self._app.callable = app_callable

    def _new_worker(self, age, ppid):
        arbiter = self.arbiter
        # gunicorn passes a worker half of it, because that is how often a worker must send a heartbeat.
        return self._class_to_see()(age, ppid, arbiter.LISTENERS, self._app, self.cfg.timeout / 2, self.cfg, self.log)

    def _class_to_see(self):
        """The class of the object that hooks see. One of another package is imported in the worker alone."""
        if self.cfg.settings["worker_class"].get() not in _OWN_CLASSES:
            return Worker
        kind = util.load_class(self.cfg.worker_class_str)
        # A replaced `__init__` is called where the worker serves, and only there.
        return Worker if is_overridden(kind, "__init__") else kind

    # The worker

    def enter_worker(self, state):
        """After the fork, in the worker."""
        self.worker = self._pending or self._new_worker(state["age"], state["ppid"])
        self._pending = None
        for name in ("pid", "ppid", "age"):
            if name in state:
                setattr(self.worker, name, state[name])
        self.worker._numbers = state.get("numbers")
        self.worker.max_requests = state.get("max_requests") or sys.maxsize
        self.worker.number = state.get("number")

    def post_fork(self):
        self.call_server("post_fork", self.worker)

    def post_worker_init(self, app_callable):
        """After the app was loaded. Returns the app to serve, which the hook or a tracer may have wrapped."""
        worker = self.worker
        if isinstance(worker.app, _ServedApplication):
            worker.app.loaded(app_callable)
            # Through `Application.wsgi`, because tracers wrap that method.
            worker.wsgi = worker.app.wsgi()
        else:
            # The program's own, which has loaded it.
            worker.wsgi = app_callable
        self._call_worker("post_worker_init")
        worker.booted = True
        return worker.wsgi

    def worker_int(self):
        if "worker_int" in self.methods:
            self.worker.handle_quit(signal.SIGQUIT, None)
            return
        self.worker.alive = False
        self._call_worker("worker_int")

    def worker_abort(self):
        if "worker_abort" in self.methods:
            self.worker.handle_abort(signal.SIGABRT, None)
            return
        self.worker.alive = False
        self.worker.aborted = True
        self._call_worker("worker_abort")

    def handle_exit(self):
        self.worker.handle_exit(signal.SIGTERM, None)

    def handle_usr1(self):
        self.worker.handle_usr1(signal.SIGUSR1, None)

    def worker_exit(self, served=0):
        """Before the worker ends, after `served` requests. An exception of the hook changes nothing."""
        if self.worker is None:
            # The worker has failed before its object was made.
            return
        # A worker that has never served still counts as booting, as gunicorn's flag has it.
        self.worker.alive = self.worker.alive and not self.worker.booted
        self.worker.nr = max(self.worker.nr, served)
        for listener in self.arbiter.LISTENERS:
            listener.forget()
        try:
            self.call_server("worker_exit", self.worker)
        except Exception:
            self.log.warning("Exception during worker exit:\n%s", traceback.format_exc())

    def _call_worker(self, name, *extra):
        if name in self._hooks:
            self._hooks[name](self.worker, *extra)

    # A request

    def request(self, **fields):
        # As in gunicorn, `pre_request` sees the number before its request. A class that is given requests counts them
        # when it has the application called.
        if "pre_request" not in self._hooks and "handle_request" not in self.methods:
            self.worker.nr += 1
        return remember(Request(cfg=self.cfg, **fields))

    def response(self, *, req=None, **fields):
        response = wsgi.Response(req, None, self.cfg)
        vars(response).update(fields)
        return response

    def pre_request(self, req):
        """Before the app is called; what the hook raises is an answer of 500. Returns whether the worker goes on."""
        self._call_worker("pre_request", req)
        self.worker.nr += 1
        return bool(self.worker.alive)

    def amend(self, req, environ):
        """After the environ was made: applies the hook's changes of the request to it."""
        amend(req, environ)

    def post_request(self, req, environ, resp):
        """After the app's result was closed. Returns whether the worker goes on: a hook may have set `alive`."""
        try:
            self._call_worker("post_request", req, environ, resp)
        except Exception:
            self.log.exception("Exception in post_request hook")
        return bool(self.worker.alive)

    # The logs

    def access(self, resp, req, environ, seconds):
        """Writes an access line. The failure of a logger is written to the error log."""
        try:
            self.log.access(resp, req, environ or _environ_of(req), timedelta(seconds=seconds))
        except Exception:
            self._complain("Exception in the logger's access()")

    def access_line(self, line, values):
        """Writes an access line that the server has rendered, of a request that never had an environ."""
        if not getattr(self.log, "access_log_enabled", True):
            return
        # A filter or a formatter may ask for any atom. Those of the server are escaped already.
        atoms = SafeAtoms({})
        atoms.update(zip(_ATOMS_OF_LINES, values.split("\x1f"), strict=True))
        sent, microseconds = (int(atoms[name]) if atoms[name].isdecimal() else 0 for name in "BD")
        atoms.update(
            line=line, l="-", B=sent, b=str(sent), D=microseconds, M=microseconds // 1_000, T=microseconds // 1_000_000,
            L=f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}", p=f"<{os.getpid()}>",
            t=time.strftime("[%d/%b/%Y:%H:%M:%S %z]"),
        )
        try:
            self.log.access_log.info("%(line)s", atoms)
        except Exception:
            self._complain("Exception in the access log")

    def record(self, level, text):
        """Writes a record of the server."""
        method = next(method for least, method in _METHODS if level >= least)
        try:
            # Without arguments, so that percent signs in it stay what they are.
            getattr(self.log, method)(text)
        except Exception:
            # Not by the logger, which has just failed.
            _monoceros.log(logging.ERROR, f"{text}\n{traceback.format_exc()}")

    def exception(self, text, *args):
        """Writes the exception that is being handled."""
        try:
            # The caller is handling it.
            self.log.exception(text, *map(plain, args))  # noqa: LOG004
        except Exception:
            self._complain("Exception in the logger")

    def metric(self, text, name, value, kind):
        """Writes a DEBUG record that carries a metric: "gauge", "counter", "histogram" or "timer"."""
        try:
            self.log.debug(text, extra={"metric": name, "value": value, "mtype": kind})
        except Exception:
            self._complain("Exception in the logger")

    def set_level(self, level):
        """Gives the error log a level."""
        self.log.loglevel = level
        # A class of the user's own may have none.
        error_log = getattr(self.log, "error_log", None)
        if isinstance(error_log, logging.Logger):
            error_log.setLevel(level)

    def reopen(self):
        """Opens the log files again, under their names."""
        try:
            # The server's own files are reopened already when it calls this.
            reopen = self.log.reopen_files if self.python_logging else self.log.reopen_python_files
            reopen()
        except Exception:
            self._complain("Exception while reopening the log files")

    def _complain(self, what):
        self.record(logging.ERROR, f"{what}\n{traceback.format_exc()}")


def _address(text):
    """What a listener that the log shows as `text` is bound to: (host, port), or the path of a unix socket."""
    return util.parse_address(text.partition("://")[2] if "://" in text else text)


def _environ_of(req):
    """The keys for the access line of a request that never had an environ."""
    address = req.remote_addr
    headers = {"HTTP_" + name.replace("-", "_"): value for name, value in req.headers or ()}
    return {
        **headers,
        "REMOTE_ADDR": address[0] if isinstance(address, tuple) else str(address or ""),
        "REQUEST_METHOD": req.method,
        "RAW_URI": req.uri,
        "PATH_INFO": req.path,
        "QUERY_STRING": req.query,
        "SERVER_PROTOCOL": "HTTP/{}.{}".format(*req.version),
    }


_METHODS = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
    (logging.NOTSET, "debug"),
)


def _application(cfg, app_uri):
    """`server.app`: the application object of a program that embeds the server, else one of our own."""
    from gunicorn import _embedded

    return _embedded.application or _ServedApplication(cfg, app_uri)


class _ServedApplication(WSGIApplication):
    """`server.app` and `worker.app`: the app that the settings name."""

    def __init__(self, cfg, app_uri):
        # Not the base's, which would load settings from the command line.
        self.usage = None
        self.prog = None
        self.cfg = cfg
        self.logger = None
        self.callable = None
        self.app_uri = app_uri
        self._loaded = None

    def loaded(self, app_callable):
        """The server has loaded `app`, which the worker serves."""
        self._loaded, self.callable = app_callable, None

    def load(self):
        return super().load() if self._loaded is None else self._loaded


class NativeLogger(Logger):
    """The logger where Python's logging is not configured: the server writes until a logger is changed."""

    @classmethod
    def of_changed(cls, cfg):
        """A logger over the two as they are."""
        made = cls.__new__(cls)
        made._take_loggers(cfg)
        return made

    def setup(self, cfg):
        set_up_loggers()
        self.loglevel = self.error_log.level

    def reopen_files(self):
        """Reopens the server's log files, and those of handlers that the application has added."""
        _monoceros.reopen_logs()
        self.reopen_python_files()

    def reopen_python_files(self):
        super().reopen_files()
