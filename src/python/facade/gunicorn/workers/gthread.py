"""The worker with several threads, by gunicorn's name. The server serves for it."""

from gunicorn.workers._served import ServedWorker


class ThreadWorker(ServedWorker):
    """What `worker_class = "gthread"` names. What gunicorn's has for its threads can be read, for metrics."""

    ALIAS = "gthread"

    @property
    def worker_connections(self):
        """The most connections at once."""
        return self.cfg.worker_connections

    @property
    def max_keepalived(self):
        """How many of them may be idle."""
        return self.cfg.worker_connections - self.cfg.threads

    @property
    def nr_conns(self):
        """Open connections."""
        return 0 if self._numbers is None else self._numbers()[1]

    @property
    def futures(self):
        """One item for each request that runs."""
        return [None] * self._running()

    @property
    def tpool(self):
        """The threads that run requests."""
        return _Threads(self.cfg.threads)

    def _running(self):
        return 0 if self._numbers is None else self._numbers()[2]


class _Threads:
    """What code reads off a ThreadPoolExecutor. Requests wait in the event loop: its queue is empty."""

    def __init__(self, count):
        self._max_workers = count
        self._threads = frozenset(range(count))
        self._work_queue = self

    def qsize(self):
        return 0
