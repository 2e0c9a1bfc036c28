"""The worker with one thread, by gunicorn's name. The server serves for it."""

from gunicorn.workers._served import ServedWorker
from gunicorn.workers.base import keep


@keep
class SyncWorker(ServedWorker):
    """What `worker_class = "sync"` names."""

    ALIAS = "sync"
    _told = BaseException

    def handle_request(self, listener, req, client, addr):
        """Has the application called for `req`, and its response sent."""
        self._call_application(req, client, addr)

    def _hand_over(self, listener, req, client, address):
        self.handle_request(listener, req, client, address)
        return True
