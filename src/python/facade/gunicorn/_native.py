"""The server's logs as Python's logging sees them where nobody configured that.

Loaded as soon as an app loads `logging`, so it imports nothing else. It must not know hooks or settings.
"""

import logging

import _monoceros


class NativeHandler(logging.Handler):
    """Hands records to the server's error log, which puts time, pid and level before them.

    Once somebody gives it a formatter, what that makes of a record is written as it is.
    """

    _gunicorn = True

    def emit(self, record):
        try:
            if self.formatter is None:
                _monoceros.log(record.levelno, _BARE.format(record))
            else:
                _monoceros.write_error(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


# The message, with the traceback and the stack behind it.
_BARE = logging.Formatter("%(message)s")


_LOGGERS = ("gunicorn.error", "gunicorn.access")


def set_up_loggers():
    """Gives `gunicorn.error` and `gunicorn.access` what apps expect to find: a level, no propagation, a handler."""
    drop_handlers()
    for name in _LOGGERS:
        logging.getLogger(name).propagate = False
    logging.getLogger("gunicorn.error").setLevel(_monoceros.log_level())
    logging.getLogger("gunicorn.error").addHandler(NativeHandler())
    logging.getLogger("gunicorn.access").setLevel(logging.INFO)


def drop_handlers():
    """Takes away the handlers that the server or a logger class has put there, and leaves those of others alone.

    Before a logger class is made: one with a `setup` of its own would otherwise hand records back to whom they come from.
    """
    for logger in map(logging.getLogger, _LOGGERS):
        for handler in [handler for handler in logger.handlers if getattr(handler, "_gunicorn", False)]:
            logger.removeHandler(handler)
            handler.close()
