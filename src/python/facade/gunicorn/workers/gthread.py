"""The worker with several threads, by gunicorn's name. The server serves for it."""

from gunicorn.workers._served import ServedWorker
from gunicorn.workers.base import Shown, is_overridden, keep


class TConn:
    """A connection with a request, as `handle_request` gets it: `sock`, `client` and `server` are its ends."""

    def __init__(self, cfg, sock, client, server):
        self.cfg = cfg
        self.sock = sock
        self.client = client
        self.server = server
        self.timeout = None
        self.parser = None
        self.initialized = True
        self.is_http2 = False


@keep
class ThreadWorker(ServedWorker):
    """What `worker_class = "gthread"` names. What gunicorn's has for its threads can be read, for metrics."""

    ALIAS = "gthread"

    @Shown
    def worker_connections(self):
        """The most connections at once."""
        return self.cfg.worker_connections

    @Shown
    def max_keepalived(self):
        """How many of them may be idle."""
        return self.cfg.worker_connections - self.cfg.threads

    @Shown
    def nr_conns(self):
        """Open connections."""
        return 0 if self._numbers is None else self._numbers.connections

    @Shown
    def futures(self):
        """One item for each request that runs."""
        return [None] * self._running()

    @Shown
    def tpool(self):
        """The threads that run requests."""
        return _Threads(self.cfg.threads)

    def run(self):
        """Serves until the worker is told to end, by threads as `get_thread_pool` makes them."""
        if is_overridden(type(self), "get_thread_pool"):
            self._serve(self.wsgi, _terms(self.get_thread_pool(), self.cfg.threads))
        else:
            super().run()

    def get_thread_pool(self):
        """A pool whose size, thread names and initializer the server's threads get. Nothing is submitted to it."""
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(max_workers=self.cfg.threads)

    def handle_request(self, req, conn):
        """Has the application called for `req`, and its response sent. True: the connection may be kept."""
        self._call_application(req, conn.sock, conn.client)
        return True

    def _hand_over(self, listener, req, client, address):
        # Many a class forgets to return what the base has returned.
        conn = TConn(self.cfg, client, address, listener.getsockname())
        return self.handle_request(req, conn) is not False

    def _running(self):
        return 0 if self._numbers is None else self._numbers.running


class _Threads:
    """What code reads off a ThreadPoolExecutor. Requests wait in the event loop: its queue is empty."""

    def __init__(self, count):
        self._max_workers = count
        self._threads = frozenset(range(count))
        self._work_queue = self

    def qsize(self):
        return 0


def _terms(pool, count):
    """What the server's threads take over from an executor: how many there are, and what each does at its start."""
    prefix = getattr(pool, "_thread_name_prefix", None)
    # Since CPython 3.14 an executor makes a context for each thread, which knows the initializer.
    context = getattr(pool, "_create_worker_context", None)
    initializer, arguments = getattr(pool, "_initializer", None), getattr(pool, "_initargs", ())

    def start(number):
        import threading

        if prefix:
            threading.current_thread().name = f"{prefix}_{number}"
        if context is not None:
            context().initialize()
        elif initializer is not None:
            initializer(*arguments)

    return getattr(pool, "_max_workers", count), start
