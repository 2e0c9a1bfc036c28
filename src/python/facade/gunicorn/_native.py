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


def set_up_loggers():
    """Gives `gunicorn.error` and `gunicorn.access` what apps expect to find: a level, no propagation, a handler."""
    error_log, access_log = logging.getLogger("gunicorn.error"), logging.getLogger("gunicorn.access")
    error_log.setLevel(_monoceros.log_level())
    access_log.setLevel(logging.INFO)
    error_log.propagate = access_log.propagate = False
    if not error_log.handlers:
        error_log.addHandler(NativeHandler())
