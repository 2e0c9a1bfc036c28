"""The logger that config files subclass, and that writes all logs where Python's logging is configured.

What it writes goes to Python's logging only. If that is not configured, the server writes its logs by itself, and
`_bridge.NativeLogger` stands here in its place.
"""

import base64
import binascii
import logging
import os
import sys
import threading
import time
import traceback

import _monoceros
from gunicorn import util
from gunicorn._native import drop_handlers

SYSLOG_FACILITIES = {
    "auth": 4, "authpriv": 10, "cron": 9, "daemon": 3, "ftp": 11, "kern": 0, "lpr": 6, "mail": 2, "news": 7,
    "security": 4, "syslog": 5, "user": 1, "uucp": 8, **{f"local{number}": 16 + number for number in range(8)},
}
SYSLOG_PORT = 514
_LINE = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
_TIME = "[%Y-%m-%d %H:%M:%S %z]"


def _default_logger(name, handler):
    return {"level": "INFO", "handlers": [handler], "propagate": True, "qualname": name}


def _default_handler(stream):
    return {"class": "logging.StreamHandler", "formatter": "generic", "stream": f"ext://sys.{stream}"}


# The top-level keys of logconfig_dict and logconfig_json replace these.
CONFIG_DEFAULTS = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        "gunicorn.error": _default_logger("gunicorn.error", "error_console"),
        "gunicorn.access": _default_logger("gunicorn.access", "console"),
    },
    "handlers": {"console": _default_handler("stdout"), "error_console": _default_handler("stderr")},
    "formatters": {"generic": {"format": _LINE, "datefmt": _TIME, "class": "logging.Formatter"}},
}


# Characters that end a field or a line, or control a terminal.
_STEERING = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    **{code: f"\\u{code:04x}" for code in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))},
}
_ESCAPES = {**_STEERING, ord('"'): '\\"', ord("\\"): "\\\\"}


def _escape(value):
    if not isinstance(value, str) or (value.isprintable() and '"' not in value and "\\" not in value):
        return value
    return value.translate(_ESCAPES)


def plain(text):
    """The text as one line: characters that end it, or control a terminal, are escaped."""
    return text if text.isprintable() else text.translate(_STEERING)


class SafeAtoms(dict):
    """The atoms of an access line: none contains the end of a field or a line, and a missing one reads "-"."""

    def __init__(self, atoms):
        super().__init__((name, _escape(value)) for name, value in atoms.items())
        # Unescaped, for a form of line that has escapes of its own.
        self.raw = atoms

    def __getitem__(self, k):
        # Names of headers and variables are case-insensitive.
        return super().get(k.lower() if k.startswith("{") else k, "-")


class LogFile(logging.FileHandler):
    """A log file of the workers' user, who may reopen it. A link that this user can have made is not followed."""

    def __init__(self, path, user, group):
        self._owner = (user, group)
        super().__init__(path)

    def _open(self):
        if os.geteuid() != 0 or self._owner == (0, 0):
            return super()._open()
        return open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=self._opener)

    def _opener(self, path, flags):
        descriptor = _monoceros.open_log(path, *self._owner)
        os.set_blocking(descriptor, True)
        return descriptor


class Logger:
    """Writes the error log and the access log through Python's logging."""

    LOG_LEVELS = {
        "critical": logging.CRITICAL,
        "error": logging.ERROR,
        "warning": logging.WARNING,
        "info": logging.INFO,
        "debug": logging.DEBUG,
    }
    loglevel = logging.INFO
    error_fmt = _LINE
    datefmt = _TIME
    access_fmt = "%(message)s"
    syslog_fmt = "[%(process)d] %(message)s"
    atoms_wrapper_class = SafeAtoms

    def __init__(self, cfg):
        self._take_loggers(cfg)
        self.error_log.propagate = False
        self.access_log.propagate = False
        self.setup(cfg)

    def _take_loggers(self, cfg):
        self.error_log = logging.getLogger("gunicorn.error")
        self.access_log = logging.getLogger("gunicorn.access")
        self.error_handlers = []
        self.access_handlers = []
        self.logfile = None
        self.lock = threading.Lock()
        self.cfg = cfg

    def setup(self, cfg):
        """Gives the two loggers their levels and handlers. RuntimeError where the settings cannot be used."""
        self.loglevel = self.LOG_LEVELS.get(cfg.loglevel.lower(), logging.INFO)
        self.error_log.setLevel(self.loglevel)
        self.access_log.setLevel(logging.INFO)
        # Those of the logger before a reload, whose settings may have asked for more than these do.
        drop_handlers()
        self._set_handler(self.error_log, cfg.errorlog, logging.Formatter(self.error_fmt, self.datefmt))
        if cfg.accesslog:
            self._set_handler(self.access_log, cfg.accesslog, logging.Formatter(self.access_fmt), stream=sys.stdout)
        if cfg.syslog:
            self._set_syslog_handler(self.error_log, cfg, self.syslog_fmt, "error")
            if not cfg.disable_redirect_access_to_syslog:
                self._set_syslog_handler(self.access_log, cfg, self.syslog_fmt, "access")
        self._configure(cfg)

    def _configure(self, cfg):
        """Applies the first of logconfig_dict, logconfig_json and logconfig that is given."""
        if cfg.logconfig_dict:
            _apply(cfg.logconfig_dict)
        elif cfg.logconfig_json:
            # gunicorn ignores a missing file.
            if os.path.exists(cfg.logconfig_json):
                _apply(_read_json(cfg.logconfig_json))
        elif cfg.logconfig:
            _apply_file(cfg.logconfig)

    def critical(self, msg, *args, **kwargs):
        self.error_log.critical(msg, *args, **kwargs)

    def error(self, msg, *args, **kwargs):
        self.error_log.error(msg, *args, **kwargs)

    def warning(self, msg, *args, **kwargs):
        self.error_log.warning(msg, *args, **kwargs)

    def info(self, msg, *args, **kwargs):
        self.error_log.info(msg, *args, **kwargs)

    def debug(self, msg, *args, **kwargs):
        self.error_log.debug(msg, *args, **kwargs)

    def exception(self, msg, *args, **kwargs):
        self.error_log.exception(msg, *args, **kwargs)

    def log(self, lvl, msg, *args, **kwargs):
        """A record at `lvl`: a number, or one of the names in LOG_LEVELS."""
        level = self.LOG_LEVELS.get(lvl.lower(), logging.INFO) if isinstance(lvl, str) else lvl
        self.error_log.log(level, msg, *args, **kwargs)

    # The access log

    @property
    def access_log_enabled(self):
        """Whether any setting asks for an access log."""
        cfg = self.cfg
        to_syslog = cfg.syslog and not cfg.disable_redirect_access_to_syslog
        return bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or to_syslog)

    def access(self, resp, req, environ, request_time):
        """Writes the line of one request; `request_time` is a timedelta."""
        if not self.access_log_enabled:
            return
        atoms = self.atoms_wrapper_class(self.atoms(resp, req, environ, request_time))
        try:
            self.access_log.info(self.cfg.access_log_format, atoms)
        except Exception:
            self.error(traceback.format_exc())

    def atoms(self, resp, req, environ, request_time):
        """The atoms of an access line, by the names of access_log_format."""
        status = resp.status.split(None, 1)[0] if isinstance(resp.status, str) else resp.status
        # gunicorn leaves days out of each of these.
        seconds, microseconds = request_time.seconds, request_time.microseconds
        atoms = {
            "h": environ.get("REMOTE_ADDR", "-"),
            "l": "-",
            "u": self._get_user(environ) or "-",
            "t": self.now(),
            "r": " ".join(str(environ.get(name)) for name in ("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL")),
            "s": status,
            "m": environ.get("REQUEST_METHOD"),
            "U": environ.get("PATH_INFO"),
            "q": environ.get("QUERY_STRING"),
            "H": environ.get("SERVER_PROTOCOL"),
            "b": "-" if getattr(resp, "sent", None) is None else str(resp.sent),
            "B": getattr(resp, "sent", None),
            "f": environ.get("HTTP_REFERER", "-"),
            "a": environ.get("HTTP_USER_AGENT", "-"),
            "T": seconds,
            "D": seconds * 1_000_000 + microseconds,
            "M": seconds * 1_000 + microseconds // 1_000,
            "L": f"{seconds}.{microseconds:06d}",
            "p": f"<{os.getpid()}>",
        }
        request_headers = getattr(req, "headers", req)
        for letter, source in (("i", request_headers), ("o", resp.headers), ("e", environ)):
            pairs = source.items() if hasattr(source, "items") else source
            atoms.update((f"{{{name.lower()}}}{letter}", value) for name, value in pairs)
        return atoms

    def now(self):
        """The time as access lines show it."""
        return time.strftime("[%d/%b/%Y:%H:%M:%S %z]")

    def _get_user(self, environ):
        """The name that the client gave by Basic authentication (RFC 7617), or None."""
        scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            decoded = base64.b64decode(credentials.strip().encode("utf-8")).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError, TypeError) as error:
            self.debug("Couldn't get username: %s", error)
            return None
        return decoded.partition(":")[0]

    # Files

    def reopen_files(self):
        """Opens every log file again, under its name, after a rotation."""
        reopen_files()

    def close_on_exec(self):
        """Keeps log files from the programs that this process runs."""
        for handler in _file_handlers():
            handler.acquire()
            try:
                if handler.stream:
                    util.close_on_exec(handler.stream)
            finally:
                handler.release()

    # Handlers. Those that a Logger has made are marked, so that the next one replaces them and leaves others alone.

    def _get_gunicorn_handler(self, log):
        return next((handler for handler in log.handlers if getattr(handler, "_gunicorn", False)), None)

    def _set_handler(self, log, output, fmt, stream=None):
        """Makes `log` write to `output`: a path, or "-" for `stream` (stderr). None removes the handler."""
        if old := self._get_gunicorn_handler(log):
            log.removeHandler(old)
            old.close()
        if output is None:
            return
        handler = logging.StreamHandler(stream) if output == "-" else self._open_file(output)
        handler.setFormatter(fmt)
        handler._gunicorn = True
        log.addHandler(handler)

    def _open_file(self, path):
        try:
            return LogFile(path, self.cfg.user, self.cfg.group)
        except OSError as error:
            raise RuntimeError(f"Error: '{path}' isn't writable [{error!r}]") from None

    def _set_syslog_handler(self, log, cfg, fmt, name):
        """Makes `log` write to syslog as well, with the prefix that tells whose log it is."""
        from logging.handlers import SysLogHandler

        prefix = cfg.syslog_prefix or cfg.proc_name.replace(":", ".")
        try:
            facility = SYSLOG_FACILITIES[cfg.syslog_facility.lower()]
        except KeyError:
            raise RuntimeError(f"unknown facility name: {cfg.syslog_facility!r}") from None
        kind, address = parse_syslog_address(cfg.syslog_addr)
        handler = SysLogHandler(address=address, facility=facility, socktype=kind)
        handler.setFormatter(logging.Formatter(f"gunicorn.{prefix}.{name}: {fmt}"))
        handler._gunicorn = True
        log.addHandler(handler)


def parse_syslog_address(addr):
    """A `syslog_addr` as the type of its socket (None: whichever works) and its address."""
    import socket

    kinds = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM}
    if addr.startswith("unix://"):
        path, _, kind = addr.removeprefix("unix://").partition("#")
        return kinds.get(kind), path
    for scheme, kind in (("udp://", socket.SOCK_DGRAM), ("tcp://", socket.SOCK_STREAM)):
        if addr.startswith(scheme):
            return kind, util.parse_address(addr.removeprefix(scheme), default_port=str(SYSLOG_PORT))
    raise RuntimeError(f"invalid syslog address: {addr!r}")


def loggers():
    """Every logger there is, the root among them."""
    known = logging.root.manager.loggerDict
    return [logging.root, *(logger for logger in known.values() if isinstance(logger, logging.Logger))]


def reopen_files():
    """Opens the file of every handler again, under its name: also of those that belong to the app."""
    for handler in _file_handlers():
        handler.acquire()
        try:
            # One that has not been opened yet will be, by its first record.
            if old := handler.stream:
                # If that fails, the old file stays in use.
                handler.stream = handler._open()
                old.close()
        finally:
            handler.release()


def _file_handlers():
    handlers = {handler for logger in loggers() for handler in logger.handlers}
    return [handler for handler in handlers if isinstance(handler, logging.FileHandler)]


def _apply(chosen):
    """Configures Python's logging from a dict."""
    from logging.config import dictConfig

    try:
        dictConfig({**CONFIG_DEFAULTS, **chosen})
    except (AttributeError, ImportError, ValueError, TypeError) as error:
        raise RuntimeError(_sentence("logging", error)) from error


def _read_json(path):
    import json

    try:
        with open(path) as file:
            chosen = json.load(file)
    except (OSError, ValueError) as error:
        raise RuntimeError(_sentence(path, error)) from error
    if not isinstance(chosen, dict):
        raise RuntimeError(f"log config {path!r} must hold a JSON object")
    return chosen


def _apply_file(path):
    """Configures Python's logging from a file in the format of `logging.config.fileConfig`."""
    if not os.path.exists(path):
        raise RuntimeError(f"log config {path!r} not found")
    from logging.config import fileConfig

    # For use in the file, where a percent sign is doubled.
    places = {"__file__": path, "here": os.path.dirname(path)}
    defaults = {name: place.replace("%", "%%") for name, place in places.items()}
    try:
        fileConfig(path, defaults=defaults, disable_existing_loggers=False)
    except Exception as error:
        # The parser's errors have no base class in common with those of the handlers.
        raise RuntimeError(_sentence(path, error)) from error


def _sentence(what, error):
    """Why logging cannot be configured. The cause tells more than the exception that `logging` wraps it in."""
    cause = f": {error.__cause__}" if error.__cause__ is not None else ""
    return f"the log config {what!r} cannot be used: {error}{cause}"


# What the classes have been made with. A config file may put its own formats or methods there.
_MADE = dict(vars(Logger)), dict(vars(SafeAtoms))


def is_patched():
    """Whether somebody has changed the classes, who then expects every line to be made by them."""
    return (dict(vars(Logger)), dict(vars(SafeAtoms))) != _MADE
