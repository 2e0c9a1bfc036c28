"""Worker classes of the kinds that people derive from gunicorn's GeventWorker, and their application."""

import signal
import time
from functools import partial

import gevent
from gevent import monkey
from gevent.pywsgi import WSGIServer
from gunicorn.workers.ggevent import GeventWorker
from subclasses import Around, FailsAtErrors, Metrics
from subclasses import application as plain


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/sleep":
        time.sleep(float(query))
    elif path == "/hog":
        until = time.monotonic() + float(query)
        while time.monotonic() < until:
            pass
    elif path == "/patched":
        names = [name for name in ("socket", "ssl", "threading") if name in monkey.saved]
        start_response("200 OK", [])
        return [" ".join([*names, type(gevent.getcurrent()).__name__]).encode()]
    if path in ("/sleep", "/hog"):
        environ["PATH_INFO"], environ["QUERY_STRING"] = "/", ""
    return plain(environ, start_response)


class AroundGevent(Around, GeventWorker):
    def handle_request(self, listener_name, req, sock, addr):
        self.log.info("at %s from %s", listener_name[0], addr[0])
        self.around(partial(super().handle_request, listener_name, req, sock, addr), req, sock)

    def handle_exit(self, sig, frame):
        gevent.sleep(0.01)
        self.log.info("told to exit")
        super().handle_exit(sig, frame)

    def handle_quit(self, sig, frame):
        self.log.info("told to quit")
        super().handle_quit(sig, frame)

    def handle_abort(self, sig, frame):
        self.log.info("told to abort")
        super().handle_abort(sig, frame)

    def handle_usr1(self, sig, frame):
        gevent.sleep(0.01)
        self.log.info("told to reopen")
        super().handle_usr1(sig, frame)


class MetricsGevent(Metrics, GeventWorker):
    def handle_request(self, listener_name, req, sock, addr):
        self.counted(partial(super().handle_request, listener_name, req, sock, addr))


class FailsAtErrorsGevent(FailsAtErrors, GeventWorker):
    pass


class Limited(GeventWorker):
    """A timeout for each request, which the class answers, or leaves to the server."""

    def handle_request(self, *args):
        req = args[1]
        if req.query == "5":
            with gevent.Timeout(2):
                return super().handle_request(*args)
        with gevent.Timeout(2, False):
            return super().handle_request(*args)


class Watched(GeventWorker):
    """Traces greenlets, and watches them from a native thread."""

    def init_process(self):
        import greenlet

        self.switches = 0
        greenlet.settrace(self.trace)
        super().init_process()

    def init_signals(self):
        super().init_signals()
        signal.signal(signal.SIGUSR2, self.tell)

    def tell(self, number, frame):
        self.log.info("told by USR2")

    def trace(self, event, arguments):
        self.switches += 1

    def run(self):
        start = monkey.get_original("_thread", "start_new_thread")
        start(self.watch, ())
        super().run()
        self.log.info("switched: %s", self.switches > 0)

    def watch(self):
        self.log.info("the watchdog runs")


class Patches(GeventWorker):
    """Leaves ssl as it is, which an agent has patched."""

    def patch(self):
        monkey.patch_all(ssl=False)


class Handles(GeventWorker):
    def handle(self, listener, client, addr):
        self.log.info("its own handle, from %s", addr[0])
        super().handle(listener, client, addr)


class OwnServer(GeventWorker):
    server_class = WSGIServer
