"""Classes derived from gunicorn's own: the server serves for them, and calls the methods that they override.

Requests are read by the server. `run` hands the process to it, so that a class can do something before and after; what
the server has to say during that time, it says to the methods of signals. A class that overrides `handle_request` or
`handle_error` is given each request; the base's `handle_request` has the server call the application. What is not
overridden is not called.
"""

from gunicorn._amend import amend
from gunicorn.workers.base import Worker, is_made_here, is_overridden, keep

# The methods for which the server calls a class that overrides them, by what it calls them for.
_CALLED = {"handle_quit": "worker_int", "handle_abort": "worker_abort", "handle_exit": "handle_exit",
           "handle_usr1": "handle_usr1", "handle_request": "handle_request", "handle_error": "handle_request"}


@keep
class ServedWorker(Worker):
    """The base of SyncWorker, ThreadWorker and GeventWorker."""

    # Set by the server: what serves, and the numbers of its scoreboard.
    _serve = None
    _numbers = None
    # The requests that Python code has seen begin.
    _counted = 0
    # What a failed request may raise that `handle_error` is told of.
    _told = Exception

    def init_signals(self):
        """The server has installed its handlers, and keeps them."""

    def run(self):
        """Serves until the worker is told to end."""
        self._serve(self.wsgi)

    @property
    def nr(self):
        """The number of requests, up to the latest that the application was called for."""
        # The scoreboard counts a request when it is over, but also those of which no Python code here is told.
        return self._counted if self._numbers is None else max(self._counted, self._numbers.served)

    @nr.setter
    def nr(self, count):
        self._counted = count

    def handle_error(self, req, client, addr, exc):
        """Logs what a request has raised, and answers with 500 if nothing is sent."""
        _turn_of(req).fail(exc)

    def _answer(self, turn, req, client, site):
        """Has the class answer the request that came in by the listener `site`.

        Returns whether the connection may be kept, and whether the worker goes on.
        """
        # A class may hand on a copy of the request, which has this list, too.
        req._turn, req._client, req._failures = turn, client, []
        address, may_keep = req.peer_addr, False
        try:
            may_keep = self._hand_over(self._served_sockets[site], req, client, address)
        except StopIteration as error:
            self.log.debug("Closing connection. %s", error)
        except OSError as error:
            # gunicorn tells nobody of one either: most often the client is gone.
            turn.fail(error)
        except self._told as error:
            try:
                self.handle_error(req, client, address, error)
            except self._told as failure:
                turn.fail(failure)
        finally:
            _tell_of_failure(req)
        return may_keep, bool(self.alive)

    def _hand_over(self, listener, req, client, address):
        """Calls `handle_request` as the class of gunicorn's calls it; returns whether the connection may be kept."""
        raise NotImplementedError

    def _call_application(self, req, client, address):
        """What `handle_request` of gunicorn's classes does with a request."""
        turn, environ = _turn_of(req), {}
        # Of an earlier call: each has its `post_request`, before the `pre_request` of the next.
        _tell_of_failure(req)
        try:
            self.cfg.pre_request(self, req)
            self.nr += 1
            environ = turn.environ()
            amend(req, environ)
            if client is not req._client:
                environ["gunicorn.socket"] = client
            if address != req.peer_addr and isinstance(address, tuple):
                environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = address[0], str(address[1])
            turn.run(self.wsgi, environ)
        except BaseException:
            # What the client gets is known when the class has handled the error.
            req._failures.append((req, environ))
            raise
        turn.after(req, environ)


def _tell_of_failure(req):
    """Tells the access log and `post_request` of a call of the application that has failed, once."""
    while req._failures:
        failed, environ = req._failures.pop()
        failed._turn.after(failed, environ)


def _turn_of(req):
    turn = getattr(req, "_turn", None)
    if turn is None:
        raise RuntimeError(f"{req!r} is not a request that the server has given")
    return turn


def called_methods(worker_class):
    """The names under which the server calls an object of the class for what it overrides."""
    return {name for method, name in _CALLED.items() if is_overridden(worker_class, method)}


def cannot_override(worker_class):
    """The method that the class overrides although the server never calls it, if there is one."""
    return None if is_made_here(worker_class) else _first_in_vain(worker_class)


def replaced(worker_class):
    """Whether somebody has put methods that are called into this class of gunicorn's; and one that is never called."""
    return any(is_overridden(worker_class, name) for name in (*_CALLED, *_LIFE)), _first_in_vain(worker_class)


def _first_in_vain(worker_class):
    return next((name for name in _NEVER_CALLED if is_overridden(worker_class, name)), None)


# What Python code calls in the life of a worker.
_LIFE = ("__init__", "init_process", "load_wsgi", "run", "patch", "get_thread_pool")

# What belongs to how gunicorn's classes read requests and wait for them.
_NEVER_CALLED = (
    "handle", "accept", "run_for_one", "run_for_multiple", "wait", "is_parent_alive", "enqueue_req", "finish_request",
    "murder_keepalived", "on_client_socket_readable", "set_accept_enabled", "on_pending_socket_readable",
    "murder_pending", "wait_for_and_dispatch_events", "timeout_ctx", "is_already_handled", "handle_http2",
    "handle_http2_request", "server_class", "wsgi_handler",
)
