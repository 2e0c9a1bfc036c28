"""The worker with one thread, by gunicorn's name. The server serves for it."""

from gunicorn.workers._served import ServedWorker


class SyncWorker(ServedWorker):
    """What `worker_class = "sync"` names."""

    ALIAS = "sync"
