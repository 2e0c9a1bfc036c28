"""Classes derived from gunicorn's own: the server serves for them, and calls the methods that they override.

Requests are read and answered by the server. `run` hands the process to it, so that a class can do something before and
after; what the server has to say during that time, it says to the methods of signals.
"""

from gunicorn.workers.base import Worker

# The methods for which the server calls a class that overrides them, by what it calls them for.
_CALLED = {"handle_quit": "worker_int", "handle_abort": "worker_abort", "handle_exit": "handle_exit",
           "handle_usr1": "handle_usr1"}
# What a class may override besides, because Python code calls it.
_LIFE = frozenset({"__init__", "init_process", "load_wsgi", "run", "init_signals", "notify", "setup", "check_config"})


class ServedWorker(Worker):
    """The base of SyncWorker and ThreadWorker."""

    # Set by the server: what serves, and the numbers of its scoreboard.
    _serve = None
    _numbers = None
    # The requests that Python code has counted.
    _counted = 0

    def init_signals(self):
        """The server has installed its handlers, and keeps them."""

    def run(self):
        """Serves until the worker is told to end."""
        self._serve(self.wsgi)

    @property
    def nr(self):
        """The number of requests that were served."""
        return self._counted if self._numbers is None else self._numbers()[0]

    @nr.setter
    def nr(self, count):
        self._counted = count


def called_methods(worker_class):
    """The names under which the server calls an object of the class for what it overrides."""
    return {name for method, name in _CALLED.items() if _overrides(worker_class, method)}


def cannot_override(worker_class):
    """The method that the class overrides although the server never calls it, if there is one."""
    own = next(kind for kind in worker_class.__mro__ if kind.__module__.startswith("gunicorn.workers."))
    for name in _NEVER_CALLED:
        if getattr(worker_class, name, None) is not getattr(own, name, None):
            return name
    return None


# Methods of gunicorn's classes that belong to how those read and answer requests.
_NEVER_CALLED = (
    "handle_request", "handle_error", "handle", "accept", "run_for_one", "run_for_multiple", "wait", "is_parent_alive",
    "get_thread_pool", "enqueue_req", "finish_request", "murder_keepalived", "on_client_socket_readable",
)


def _overrides(worker_class, name):
    return getattr(worker_class, name) is not getattr(Worker, name)
