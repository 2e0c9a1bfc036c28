"""gunicorn's classes over gevent. Those over its own server import it: they are loaded when they are asked for."""

from gunicorn.workers._served import ServedWorker
from gunicorn.workers.base import Shown, keep

_PYWSGI = frozenset({"GeventPyWSGIWorker", "PyWSGIHandler", "PyWSGIServer"})


@keep
class GeventWorker(ServedWorker):
    """What `worker_class = "gevent"` names. The server runs its requests in greenlets."""

    ALIAS = "gevent"
    server_class = None
    wsgi_handler = None

    @Shown
    def worker_connections(self):
        """The most connections at once."""
        return self.cfg.worker_connections

    def patch(self):
        """Patches the standard library, before the app is loaded. The listeners are the server's."""
        from gevent import monkey

        monkey.patch_all()

    def init_process(self):
        self.patch()
        import gevent

        gevent.reinit()
        super().init_process()

    def handle_request(self, listener_name, req, sock, addr):
        """Has the application called for `req`, and its response sent."""
        self._call_application(req, sock, addr)

    def _hand_over(self, listener, req, client, address):
        self.handle_request(listener.getsockname(), req, client, address)
        return True


def __getattr__(name):
    if name not in _PYWSGI:
        raise AttributeError(f"monoceros has no gunicorn.workers.ggevent.{name}")
    from gunicorn.workers import _pywsgi

    return getattr(_pywsgi, name)
