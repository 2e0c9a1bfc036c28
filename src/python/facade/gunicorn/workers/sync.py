"""The worker with one thread, by gunicorn's name. It must not serve: the server does."""

from gunicorn.workers.base import Worker


class SyncWorker(Worker):
    """What `worker_class = "sync"` names."""

    ALIAS = "sync"
