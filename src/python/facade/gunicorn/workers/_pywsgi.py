"""The worker that serves by gevent's own WSGI server. It stands apart, because it imports gevent."""

import os
import time
from datetime import timedelta

import _monoceros
import gevent
import gevent.hub
import gevent.socket
from gevent import monkey, pywsgi
from gevent.event import Event
from gevent.pool import Pool
from gunicorn import SERVER_SOFTWARE, _ssl_context
from gunicorn.http.wsgi import FileWrapper
from gunicorn.workers.base import Worker, patience

# Between two looks whether the worker is to stop, and between two heartbeats.
_TURN = 1.0
# Between two looks whether the last request is over.
_LOOK = 0.05


class Answer:
    """What the access log needs of a response."""

    def __init__(self, status, headers, sent):
        self.status = status
        self.headers = headers
        self.sent = sent


class PyWSGIHandler(pywsgi.WSGIHandler):
    """The handler of a connection, which writes gunicorn's access lines."""

    def log_request(self):
        if self.environ is None or self.headers is None:
            # What the client has sent was no request.
            return
        # What the app has written is told by the end of its request.
        self.environ["wsgi.errors"].flush()
        seconds = max(0.0, (self.time_finish or time.time()) - (self.time_start or time.time()))
        # gevent keeps it as it goes out; its own refusals are text.
        status = self.status.decode("latin-1") if isinstance(self.status, bytes) else self.status or self.code
        answer = Answer(status, self.response_headers or [], self.response_length)
        self.server.log.access(answer, self.headers.items(), self.environ, timedelta(seconds=seconds))

    def get_environ(self):
        environ = super().get_environ()
        environ["gunicorn.sock"] = self.socket
        environ["RAW_URI"] = self.path
        return environ


class PyWSGIServer(pywsgi.WSGIServer):
    """gevent's server, under gunicorn's name."""


class GeventPyWSGIWorker(Worker):
    """What `worker_class = "gevent_pywsgi"` names. Subclasses choose `server_class` and `wsgi_handler`."""

    server_class = PyWSGIServer
    wsgi_handler = PyWSGIHandler

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.worker_connections = self.cfg.worker_connections
        self._is_told_to_stop = Event()

    def patch(self):
        """Patches the standard library, before the app is loaded, and the listeners, which were made before."""
        monkey.patch_all()
        self.sockets = [
            gevent.socket.socket(listener.family, listener.type, fileno=listener.detach()) for listener in self.sockets
        ]

    def init_process(self):
        self.patch()
        gevent.hub.reinit()
        super().init_process()

    def run(self):
        self._idle = set()
        servers = [self._server(listener) for listener in self.sockets]
        for server in servers:
            server.start()
        while self.alive:
            self.notify()
            self._stop_if_orphaned()
            self._is_told_to_stop.wait(_TURN)
        self._stop(servers)

    def _server(self, listener):
        listener.setblocking(True)
        # "auto" is a number that may be any.
        are_several = self.cfg.workers != 1
        environ = {
            "SERVER_SOFTWARE": f"{pywsgi.WSGIServer.base_env['SERVER_SOFTWARE']} {SERVER_SOFTWARE}",
            "wsgi.errors": _monoceros.ErrorStream(),
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.multiprocess": are_several,
            "wsgi.multithread": True,
        }
        server = self.server_class(
            listener, application=self.wsgi, spawn=Pool(self.worker_connections or None), log=self.log,
            handler_class=_noting_idleness(self.wsgi_handler, self._idle), environ=environ, **self._tls(),
        )
        if are_several:
            # Others accept from the same socket.
            server.max_accept = 1
        return server

    def _tls(self):
        return {"ssl_context": _ssl_context.make(self.cfg)} if self.cfg.is_ssl else {}

    def _stop_if_orphaned(self):
        if self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False

    def _stop(self, servers):
        """Accepts nothing more, lets requests finish, and closes connections that wait for one."""
        for server in servers:
            server.close()
        until = time.monotonic() + patience(self.cfg)
        while any(len(server.pool) for server in servers):
            for handler in list(self._idle):
                handler.hang_up()
            if time.monotonic() > until:
                self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
                break
            self.notify()
            gevent.sleep(_LOOK)
        for server in servers:
            # It has been waited for. What still runs is ended.
            server.stop(timeout=0)

    def handle_exit(self, sig, frame):
        super().handle_exit(sig, frame)
        # The time that the master gives runs already.
        self._is_told_to_stop.set()

    # The log's locks are greenlets' own: signal handlers leave the work to one.

    def handle_usr1(self, sig, frame):
        gevent.spawn(super().handle_usr1, sig, frame)

    def handle_quit(self, sig, frame):
        # The hub passes SystemExit on to the greenlet that serves.
        gevent.spawn(super().handle_quit, sig, frame)


def _noting_idleness(handler_class, idle):
    """`handler_class`, whose objects are in `idle` while they wait for the head of a request."""

    class Handler(handler_class):
        def read_requestline(self):
            idle.add(self)
            try:
                return super().read_requestline()
            finally:
                idle.discard(self)

        def hang_up(self):
            idle.discard(self)
            try:
                # 0: SHUT_RD. What the client has sent already is still read. Under TLS the socket's own method would
                # end the session, and what is written later would go out in the clear.
                gevent.socket.socket.shutdown(self.socket, 0)
            except OSError:
                pass

    Handler.__name__ = Handler.__qualname__ = handler_class.__name__
    return Handler
