"""The worker with several threads, by gunicorn's name. It must not serve: the server does."""

from gunicorn.workers.base import Worker


class ThreadWorker(Worker):
    """What `worker_class = "gthread"` names."""

    ALIAS = "gthread"
