"""The worker that serves by tornado, by gunicorn's name: native applications of tornado, and WSGI ones."""

import asyncio
import os

import tornado
import tornado.web
from gunicorn import SERVER_SOFTWARE, _ssl_context, util
from gunicorn.workers.base import Worker, patience
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, ResponseStartLine
from tornado.ioloop import IOLoop
from tornado.wsgi import WSGIContainer

# Between two looks whether the worker is to stop, and between two heartbeats.
_LOOK = 0.1
_BEAT = 1.0


class TornadoWorker(Worker):
    """What `worker_class = "tornado"` names."""

    @classmethod
    def setup(cls):
        """Adds this server's name to the Server header of native handlers."""
        clear = tornado.web.RequestHandler.clear
        if getattr(clear, "_names_server", False):
            return

        def clear_and_name(self):
            clear(self)
            if "Server" in self._headers:
                self.set_header("Server", f"{self._headers['Server']} ({SERVER_SOFTWARE})")

        clear_and_name._names_server = True
        tornado.web.RequestHandler.clear = clear_and_name

    def handle_request(self):
        """Called when a request was answered."""
        self.nr += 1
        if self.alive and self.nr >= self.max_requests:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False

    def init_process(self):
        # A loop does not outlive a fork. What the app schedules while it is imported runs in the one that serves.
        IOLoop.clear_current()
        super().init_process()

    def run(self):
        IOLoop.current().run_sync(self._serve)

    async def _serve(self):
        app = self.wsgi
        if not isinstance(app, (WSGIContainer, tornado.web.Application)):
            app = WSGIContainer(app)
        # Also those that a native application falls back to.
        if hasattr(WSGIContainer, "handle_request"):  # Tornado 6.3 and later.
            WSGIContainer.handle_request = _answering_failures(WSGIContainer.handle_request, self.log)
        server = _Server(app, no_keep_alive=self.cfg.keepalive <= 0, **self._tls())
        server.worker = self
        for listener in self.sockets:
            listener.setblocking(False)
            server.add_socket(listener)
        beat_at = 0
        while self.alive:
            now = asyncio.get_running_loop().time()
            if now >= beat_at:
                self.notify()
                server.forget_the_gone()
                beat_at = now + _BEAT
            if self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                self.alive = False
            await asyncio.sleep(_LOOK)
        await self._stop(server)

    async def _stop(self, server):
        """Accepts nothing more, and waits for the requests that have begun."""
        server.stop()
        now = asyncio.get_running_loop().time
        until = now() + patience(self.cfg)
        server.forget_the_gone()
        while server.running:
            if now() > until:
                self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
                break
            self.notify()
            await asyncio.sleep(_LOOK)
            server.forget_the_gone()
        await server.close_all_connections()

    def _tls(self):
        return {"ssl_options": _ssl_context.make(self.cfg)} if self.cfg.is_ssl else {}


def _answering_failures(handle_request, log):
    """`handle_request` of a WSGIContainer, with an answer where tornado has none: where the application fails."""

    async def handle(container, request):
        try:
            await handle_request(container, request)
        except Exception:
            log.exception("Error handling request %s %s", request.method, request.uri)
            connection = request.connection
            if not connection.stream.closed():
                # The container sends a response when it is whole: nothing of it has gone out.
                page = util._error_page("Internal Server Error", "")
                head = HTTPHeaders({"Content-Type": "text/html", "Content-Length": str(len(page))})
                body = None if request.method == "HEAD" else page
                connection.write_headers(ResponseStartLine("HTTP/1.1", 500, "Internal Server Error"), head, body)
                connection.finish()

    return handle


class _Server(HTTPServer):
    """Knows the requests that have begun and are not answered yet."""

    worker = None

    def initialize(self, *arguments, **options):
        super().initialize(*arguments, **options)
        # By their connections, with the stream of each: a WebSocket takes that away from its connection.
        self.running = {}

    def forget_the_gone(self):
        """Counts requests as over whose clients are gone: tornado does not tell of these."""
        for connection in [connection for connection, stream in self.running.items() if stream.closed()]:
            self.is_over(connection)

    def is_over(self, connection):
        """The request of that connection is answered, or nobody waits for it."""
        if self.running.pop(connection, None) is not None:
            self.worker.handle_request()

    def start_request(self, server_conn, request_conn):
        delegate = super().start_request(server_conn, request_conn)
        received, closed, finish = delegate.headers_received, delegate.on_connection_close, request_conn.finish

        def headers_received(start_line, headers):
            self.running[request_conn] = request_conn.stream
            return received(start_line, headers)

        def on_connection_close():
            self.is_over(request_conn)
            closed()

        def finish_and_count():
            finish()
            self.is_over(request_conn)

        delegate.headers_received = headers_received
        delegate.on_connection_close = on_connection_close
        request_conn.finish = finish_and_count
        return delegate
