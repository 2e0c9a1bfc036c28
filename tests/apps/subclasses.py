"""Worker classes of the kinds that people derive from gunicorn's, and an application that shows what they do.

Each stands for one that is in public use: what it overrides is that one's, what it does is cut down to what shows.
"""

import ctypes
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from gunicorn import util
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

tried = []
started = []


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise ValueError("of the application")
    if path == "/late":
        time.sleep(0.3)
        raise ValueError("late")
    if path == "/broken":
        start_response("200 OK", [("Content-Length", "100")])
        return broken()
    if path == "/again":
        tried.append(path)
        if len(tried) < 2:
            start_response("200 OK", [])
            raise ValueError("the first time")
    until = time.monotonic() + 2
    while path == "/sleep" and time.monotonic() < until:
        time.sleep(0.01)
    text = environ["QUERY_STRING"] or "HTTP_X_BY,REQUEST_METHOD,REMOTE_ADDR"
    said = {"thread": threading.current_thread().name, "body": "", "started": len(started), **environ}
    if "body" in text:
        said["body"] = environ["wsgi.input"].read().decode()
    body = " ".join(str(said.get(key, "-")) for key in text.split(",")).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def broken():
    yield b"a part"
    raise ValueError("in the middle")


class Around:
    """Before, after and around the base's method; some paths do without it."""

    def around(self, base, req, client, *arguments):
        self.log.info("before %s %s %s", req.method, req.uri, req.version)
        req.headers = [*req.headers, ("X-BY", type(self).__name__)]
        try:
            return self.special(base, req, client, *arguments)
        finally:
            self.log.info("after %s", req.uri)

    def special(self, base, req, client, *arguments):
        if req.path == "/never":
            return None
        if req.path == "/by-hand":
            return client.sendall(b"HTTP/1.1 299 By hand\r\nContent-Length: 2\r\n\r\nok")
        if req.path == "/error":
            return util.write_error(client, 503, "Service Unavailable", "sorry & <bye>")
        if req.path == "/fails":
            raise LookupError("of the class")
        if req.path == "/in-thread":
            thread = threading.Thread(target=base, name="another", daemon=True)
            thread.start()
            return thread.join()
        if req.path == "/too-late":
            threading.Timer(0.3, self.late, (base,)).start()
            return None
        try:
            return base()
        except ValueError as error:
            self.log.info("caught %s", error)
            if req.path == "/again":
                return base()
            if req.query == "swallow":
                return None
            raise

    def late(self, base):
        try:
            base()
        except RuntimeError as error:
            self.log.info("too late: %s", error)


class AroundSync(Around, SyncWorker):
    def handle_request(self, listener, req, client, addr):
        self.log.info("at %s from %s", listener.getsockname()[0], addr[0])
        self.around(partial(super().handle_request, listener, req, client, addr), req, client)


class AroundThread(Around, ThreadWorker):
    def handle_request(self, req, conn):
        self.log.info("at %s from %s", conn.server[0], conn.client[0])
        keeps = self.around(partial(super().handle_request, req, conn), req, conn.sock)
        return False if req.path == "/close" else keeps


class Altering(SyncWorker):
    """Changes every part of a request that the environ shows."""

    def handle_request(self, listener, req, client, addr):
        import io

        req.method, req.query, req.uri, req.version = "PUT", req.query + ",SERVER_PROTOCOL", "/raw", (1, 0)
        req.path, req.scheme, req.body = "/other%20path", "https", io.BytesIO(b"another body")
        super().handle_request(listener, req, client, ("192.0.2.7", 77))


class CertAuth(SyncWorker):
    """Client certificates become a header."""

    def handle_request(self, listener, req, client, addr):
        subject = {key: value for pairs in client.getpeercert()["subject"] for key, value in pairs}
        headers = dict(req.headers)
        headers["X-BY"] = subject["commonName"]
        req.headers = list(headers.items())
        super().handle_request(listener, req, client, addr)


class Wrapping(SyncWorker):
    """Wraps the application for each request."""

    def handle_request(self, listener, req, client, addr):
        plain = self.wsgi

        def wrapped(environ, start_response):
            environ["HTTP_X_BY"] = f"wrapped {req.path}"
            return plain(environ, start_response)

        self.wsgi = wrapped
        try:
            super().handle_request(listener, req, client, addr)
        finally:
            self.wsgi = plain


class Beating(SyncWorker):
    """Loads for a while, and says meanwhile that it lives; starts a helper and stops it."""

    def load_wsgi(self):
        done = threading.Event()
        thread = threading.Thread(target=self.beat, args=(done,))
        thread.start()
        super().load_wsgi()
        done.set()
        thread.join()

    def beat(self, done):
        while not done.wait(0.01):
            self.notify()

    def run(self):
        self.helper = threading.Thread(target=self.log.info, args=("the helper runs",))
        self.helper.start()
        try:
            super().run()
        finally:
            self.log.info("run is over")

    def handle_quit(self, sig, frame):
        self.log.info("the helper is stopped")
        super().handle_quit(sig, frame)


class Metrics:
    """Counts requests and errors."""

    def counted(self, base):
        start = time.time()
        try:
            base()
        except Exception as error:
            self.log.info("failed by %s", type(error).__name__)
            raise
        self.log.info("took a moment: %s", time.time() - start < 5)

    def handle_error(self, req, client, addr, exc):
        self.log.info("handle_error %s %s %s %s", req.method, req.path, addr[0], type(exc).__name__)
        super().handle_error(req, client, addr, exc)


class MetricsSync(Metrics, SyncWorker):
    def handle_request(self, listener, req, client, addr):
        self.counted(partial(super().handle_request, listener, req, client, addr))


class MetricsThread(Metrics, ThreadWorker):
    def handle_request(self, req, conn):
        self.counted(partial(super().handle_request, req, conn))


class OnlyErrors(SyncWorker):
    """Answers errors by itself."""

    def handle_error(self, req, client, addr, exc):
        util.write_error(client, 502, "Bad Gateway", str(exc))


class FailsAtErrors:
    """Cannot even answer an error."""

    def handle_error(self, req, client, addr, exc):
        raise LookupError("of handle_error")


class FailsAtErrorsSync(FailsAtErrors, SyncWorker):
    pass


class FailsAtErrorsThread(FailsAtErrors, ThreadWorker):
    pass


class TimedOut(Exception):
    pass


class Timeout(ThreadWorker):
    """Raises into the thread of a request that takes too long, and forgets to return what the base returns."""

    def handle_request(self, req, conn):
        thread = ctypes.c_ulong(threading.get_ident())
        late = partial(ctypes.pythonapi.PyThreadState_SetAsyncExc, thread, ctypes.py_object(TimedOut))
        timer = threading.Timer(0.5, late)
        timer.start()
        try:
            super().handle_request(req, conn)
        finally:
            timer.cancel()


class Pool(ThreadWorker):
    """Threads with names of their own, each prepared."""

    def get_thread_pool(self):
        return ThreadPoolExecutor(
            max_workers=self.cfg.threads, thread_name_prefix="tenant", initializer=started.append, initargs=(1,)
        )


class Registers(ThreadWorker):
    """Handles a signal of its own."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        signal.signal(signal.SIGALRM, lambda number, frame: self.log.info("told by ALRM"))


class Enqueues(ThreadWorker):
    def enqueue_req(self, conn):
        self.log.info("its own enqueue_req, %s", self.nr_conns)
        super().enqueue_req(conn)


class Accepts(ThreadWorker):
    def accept(self, listener):
        self.log.info("its own accept")
        super().accept(listener)


class Handles(SyncWorker):
    def handle(self, listener, client, addr):
        self.log.info("its own handle, from %s", addr[0])
        super().handle(listener, client, addr)


class RunsForOne(SyncWorker):
    def run_for_one(self, timeout):
        self.log.info("its own run_for_one, %s", timeout)
        super().run_for_one(timeout)
