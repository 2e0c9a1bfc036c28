"""The logger that also counts, for `statsd_host`.

Each metric is one datagram. It must never hold a request up or fail it: what cannot be sent at once is dropped.
"""

import logging
import socket
import time

from gunicorn.glogging import Logger

METRIC_VAR = "metric"
VALUE_VAR = "value"
MTYPE_VAR = "mtype"
GAUGE_TYPE = "gauge"
COUNTER_TYPE = "counter"
HISTOGRAM_TYPE = "histogram"
TIMER_TYPE = "timer"

# Seconds between two reports of an unreachable server; without it each metric would report it.
WARN_EVERY = 60


class Statsd(Logger):
    """Counts requests, statuses, durations and errors. Any record with metric, value and mtype in `extra` is sent."""

    def __init__(self, cfg):
        # First, because the logger may write while it is set up.
        self.prefix = _with_dot(cfg.statsd_prefix or "")
        self.dogstatsd_tags = cfg.dogstatsd_tags
        self.sock = _connect(cfg.statsd_host)
        self._next_warning = 0
        super().__init__(cfg)

    def critical(self, msg, *args, **kwargs):
        super().critical(msg, *args, **kwargs)
        self.increment("gunicorn.log.critical", 1)

    def error(self, msg, *args, **kwargs):
        super().error(msg, *args, **kwargs)
        self.increment("gunicorn.log.error", 1)

    def warning(self, msg, *args, **kwargs):
        super().warning(msg, *args, **kwargs)
        self.increment("gunicorn.log.warning", 1)

    def exception(self, msg, *args, **kwargs):
        super().exception(msg, *args, **kwargs)
        self.increment("gunicorn.log.exception", 1)

    def info(self, msg, *args, **kwargs):
        self.log(logging.INFO, msg, *args, **kwargs)

    def debug(self, msg, *args, **kwargs):
        self.log(logging.DEBUG, msg, *args, **kwargs)

    def log(self, lvl, msg, *args, **kwargs):
        """A record, and its metric if it carries one. A record without text is only the metric."""
        extra = kwargs.get("extra")
        if isinstance(extra, dict):
            self._measure(extra.get(METRIC_VAR), extra.get(VALUE_VAR), extra.get(MTYPE_VAR))
        if msg:
            super().log(lvl, msg, *args, **kwargs)

    def _measure(self, name, value, kind):
        if not (name and value is not None and kind):
            return
        if kind == GAUGE_TYPE:
            self.gauge(name, value)
        elif kind == COUNTER_TYPE:
            self.increment(name, value)
        elif kind == HISTOGRAM_TYPE:
            self.histogram(name, value)
        elif kind == TIMER_TYPE:
            self.timer(name, value)

    def access(self, resp, req, environ, request_time):
        """Writes the access line, and measures the request."""
        super().access(resp, req, environ, request_time)
        self.timer("gunicorn.request.duration", request_time.seconds * 1000 + request_time.microseconds / 1000)
        self.increment("gunicorn.requests", 1)
        status = resp.status.split(None, 1)[0] if isinstance(resp.status, str) else resp.status
        # None where the connection ended before an answer.
        if status is not None:
            self.increment(f"gunicorn.request.status.{status}", 1)

    def gauge(self, name, value):
        self._send(f"{name}:{value}|g")

    def increment(self, name, value, sampling_rate=1.0):
        self._send(f"{name}:{value}|c|@{sampling_rate}")

    def decrement(self, name, value, sampling_rate=1.0):
        self._send(f"{name}:-{value}|c|@{sampling_rate}")

    def timer(self, name, value):
        self._send(f"{name}:{value}|ms")

    def histogram(self, name, value):
        self._send(f"{name}:{value}|h")

    def _send(self, metric):
        if self.sock is None:
            return
        tags = f"|#{self.dogstatsd_tags}" if self.dogstatsd_tags else ""
        try:
            self.sock.send(f"{self.prefix}{metric}{tags}".encode("ascii", "replace"))
        except BlockingIOError:
            # The queue is full; the next metric may get through.
            pass
        except OSError as error:
            self._complain(error)

    def _complain(self, error):
        if time.monotonic() >= self._next_warning:
            self._next_warning = time.monotonic() + WARN_EVERY
            Logger.warning(self, "Error sending message to statsd: %s", error)


def _with_dot(prefix):
    """The prefix with one dot behind it. gunicorn leaves a prefix of one character alone, and dashboards know."""
    bare = prefix.rstrip(".")
    return f"{bare}." if len(bare) > 1 else prefix


def _connect(address):
    """A non-blocking socket for `address`, or None if it cannot be made."""
    sock = None
    try:
        if isinstance(address, str):
            family, target = socket.AF_UNIX, address
        else:
            # IPv4 first: agents listen there, also where "localhost" means IPv6 before IPv4.
            found = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)
            family, _, _, _, target = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.connect(target)
        sock.setblocking(False)
        return sock
    except Exception:
        if sock is not None:
            sock.close()
        return None
