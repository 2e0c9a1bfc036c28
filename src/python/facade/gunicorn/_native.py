"""The server's logs in Python's logging, where that is not configured.

Loaded as soon as an app loads `logging`, so it imports nothing else. It must not know hooks or settings.

The server writes the logs until one of the two loggers is changed. So the loggers, their handlers and their lists check
whether they are still as they were made (`look`), and tell the server: from then on its lines go through the loggers.
"""

import logging
import sys

import _monoceros

_LOGGERS = ("gunicorn.error", "gunicorn.access")


class _Watched:
    """A mixin of a logger or a handler: looks at the loggers when an attribute has changed."""

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        look()


class _WatchedList(list):
    """A list of handlers or filters: looks at the loggers when it changes."""


def _watched(method):
    def change(self, *args):
        try:
            return method(self, *args)
        finally:
            look()

    return change


_CHANGE = ("append", "clear", "extend", "insert", "pop", "remove", "__delitem__", "__iadd__", "__imul__", "__setitem__")
for _name in _CHANGE:
    setattr(_WatchedList, _name, _watched(getattr(list, _name)))


class _WatchedLevels(dict):
    """What a logger remembers of levels. `logging` clears it when any level changes, or `logging.disable` is called."""

    clear = _watched(dict.clear)


class NativeHandler(_Watched, logging.Handler):
    """Hands records to the server's error log, which puts time, pid and level before them.

    Once it is given another formatter, the text that this makes of a record is written as it is.
    """

    _gunicorn = True

    def __init__(self):
        super().__init__()
        # `basicConfig` gives a handler without a formatter its own, and apps copy what they find.
        self.formatter = _LINE

    def emit(self, record):
        try:
            if self.formatter in (None, _LINE):
                _monoceros.log(record.levelno, _BARE.format(record), _failure_of(record))
            else:
                _monoceros.write_error(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def _failure_of(record):
    """The class of a record's exception, what it says, and the traceback in its text; None without one."""
    kind, error, _ = record.exc_info or (None, None, None)
    if kind is None:
        return None
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    try:
        reason = str(error)
    except Exception:
        # The record counts more than what its exception fails to say.
        reason = ""
    return f"{module}{kind.__qualname__}", reason, record.exc_text or ""


class AccessStream(_Watched, logging.StreamHandler):
    """The access log on standard output."""

    _gunicorn = True


class AccessFile(_Watched, logging.FileHandler):
    """The access log in a file, which is opened when there is something to write."""

    _gunicorn = True


class AccessSyslog(_Watched, logging.Handler):
    """The access log in syslog, where the server itself writes that (`syslog_format = "rfc5424"`)."""

    _gunicorn = True

    def emit(self, record):
        try:
            _monoceros.write_access_to_syslog(self.format(record))
        except Exception:
            self.handleError(record)


class JsonLines(logging.Formatter):
    """Access lines under `log_format = "json"`."""

    def format(self, record):
        # Few servers need it, and it imports other modules.
        from gunicorn._json_access import line_of

        return line_of(record)


# The message, with the traceback and the stack behind it.
_BARE = logging.Formatter("%(message)s")

# The server's line, as gunicorn's formatter makes it.
_LINE = logging.Formatter("%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]")

# The level and the handlers, with their formatters, that each logger was made with. None while they are made.
_made = None

# The last class of a logger, and the handlers that it has added to the two: pairs of a logger and a handler.
_class, _of_class = None, []


def set_up_loggers():
    """Gives `gunicorn.error` and `gunicorn.access` what apps expect to find: a level, no propagation, a handler."""
    global _made  # noqa: PLW0603 - the state of the process, as the loggers are
    _made = None
    drop_handlers()
    _close(_take_of_class())
    error, access = map(logging.getLogger, _LOGGERS)
    error_handlers = [NativeHandler()]
    access_handlers = _access_handlers()
    _make(error, _monoceros.log_level(), error_handlers)
    _make(access, logging.INFO, access_handlers)
    _made = [
        (error, error.level, [(handler, handler.formatter) for handler in error_handlers]),
        (access, access.level, [(handler, handler.formatter) for handler in access_handlers]),
    ]
    look()


def make_logger(kind, cfg):
    """A logger of the class `kind`, in place of the one before.

    gunicorn makes its logger once, the server at each reload. So what the last one has added is removed first, or every
    line would be doubled. What a class of the same name adds the first time only, stays.
    """
    global _class, _of_class, _made  # noqa: PLW0603 - the state of the process, as the loggers are
    last, left = _class, _take_of_class()
    # What happens to the loggers meanwhile is not what an application has changed.
    made, _made = _made, None
    # One with a `setup` of its own would otherwise pass records back to the server.
    drop_handlers()
    before = _handlers()
    try:
        return kind(cfg)
    finally:
        added = [pair for pair in _handlers() if pair not in before and not getattr(pair[1], "_gunicorn", False)]
        if last is not None and (kind.__module__, kind.__qualname__) == (last.__module__, last.__qualname__):
            anew = {(logger, type(handler)) for logger, handler in added}
            for logger, handler in left:
                if (logger, type(handler)) not in anew:
                    logger.addHandler(handler)
                    added.append((logger, handler))
        _class, _of_class = kind, added
        _close(left)
        _made = _made or made


def _handlers():
    return [(logger, handler) for logger in map(logging.getLogger, _LOGGERS) for handler in logger.handlers]


def _take_of_class():
    """Removes the handlers that the last class of a logger has added, and returns them."""
    global _class, _of_class
    taken = _of_class
    _class, _of_class = None, []
    for logger, handler in taken:
        logger.removeHandler(handler)
    return taken


def _close(taken):
    """Closes handlers, except those that a logger still has: a class may add the same object each time."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    held = {id(handler) for logger in loggers for handler in getattr(logger, "handlers", ())}
    for _, handler in taken:
        # `dictConfig` has closed its own, and closing one again would take its name from its successor.
        if id(handler) not in held and not getattr(handler, "_closed", False):
            try:
                handler.close()
            except Exception as error:
                # A disk may be full, a network away.
                _monoceros.log(logging.WARNING, f"Cannot close {handler!r}: {error}", None)


def drop_handlers():
    """Removes the handlers that the server or gunicorn's `Logger` has added, and leaves those of others alone."""
    for logger in map(logging.getLogger, _LOGGERS):
        for handler in [handler for handler in logger.handlers if getattr(handler, "_gunicorn", False)]:
            logger.removeHandler(handler)
            handler.close()


def forget():
    """Another package takes the loggers over: whatever becomes of them, the server writes its own lines as before."""
    global _made  # noqa: PLW0603 - the state of the process, as the loggers are
    _made = None


def set_level(level):
    """Gives the error log's logger a level. It counts as the one that the logger was made with."""
    global _made  # noqa: PLW0603 - the state of the process, as the loggers are
    # Nobody looks in between.
    made, _made = _made, None
    error = logging.getLogger(_LOGGERS[0])
    is_as_made = made is not None and error.level == made[0][1]
    error.setLevel(level)
    if made is not None:
        (_, before, handlers), access = made
        _made = [(error, level if is_as_made else before, handlers), access]
        look()


def look():
    """Tells the server whether both loggers are as it made them, and the least level that the error log takes."""
    if _made is not None:
        _monoceros.loggers_are(all(_is_as_made(*made) for made in _made), _made[0][0].getEffectiveLevel())


def _is_as_made(logger, level, handlers):
    return (
        logger.level == level
        and not (logger.propagate or logger.disabled or logger.filters or logger.manager.disable)
        and len(logger.handlers) == len(handlers)
        and all(one is other for one, (other, _) in zip(logger.handlers, handlers, strict=True))
        and all(_is_plain(handler, formatter) for handler, formatter in handlers)
        and not any(hasattr(logging.Logger, name) for name in vars(logger).keys() - {"manager"})
        and all(_is_pythons(getattr(type(logger), name)) for name in ("handle", "callHandlers"))
    )


def _is_plain(handler, formatter):
    return (
        handler.formatter is formatter
        and not (handler.level or handler.filters)
        and not vars(handler).keys() & {"emit", "format", "handle"}
    )


def _is_pythons(method):
    """Whether it is the method of the standard library; agents put others in their place, for all loggers."""
    return getattr(method, "__globals__", None) is vars(logging) and not hasattr(method, "__wrapped__")


def _make(logger, level, handlers):
    if not isinstance(logger, _Watched):
        kind = type(logger)
        logger.__class__ = type(kind.__name__, (_Watched, kind), {"__module__": kind.__module__})
    if not isinstance(logger.handlers, _WatchedList):
        logger.handlers = _WatchedList(logger.handlers)
    if not isinstance(logger.filters, _WatchedList):
        logger.filters = _WatchedList(logger.filters)
    if hasattr(logger, "_cache"):
        logger._cache = _WatchedLevels()
    logger.propagate = False
    logger.setLevel(level)
    for handler in handlers:
        handler.filters = _WatchedList()
        logger.addHandler(handler)


def _access_handlers():
    target, is_json, _ = _monoceros.access_log()
    handlers = []
    if target is not None:
        handlers.append(AccessStream(sys.stdout) if target == "-" else AccessFile(target, delay=True))
    if _monoceros.has_access_syslog():
        handlers.append(AccessSyslog())
    for handler in handlers:
        handler.formatter = JsonLines() if is_json else _BARE
    return handlers
