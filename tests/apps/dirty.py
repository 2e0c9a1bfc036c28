"""Calls dirty apps, some of which are here: /execute/APP/ACTION/NUMBER..., and what else gunicorn's client can do.

An answer is the JSON of the result, or of an error's class and text.
"""

import json
import os
import sys
import time

if "EAGER" in os.environ:
    # For a user that may not read the interpreter's own folder.
    import concurrent.futures.thread  # noqa: F401

    import gunicorn.dirty  # noqa: F401


class Calc:
    def init(self):
        self.calls = 0

    def __call__(self, action, *args, **kwargs):
        if action.startswith("_"):
            raise AttributeError(f"no action {action}")
        self.calls += 1
        return getattr(self, action)(*args, **kwargs)

    def close(self):
        open(os.path.join(os.environ["GATE"], f"closed-{os.getpid()}"), "w").close()

    def add(self, one, other=0):
        return one + other

    def pid(self):
        return os.getpid()

    def fail(self):
        raise ValueError("as it was told to")

    def sleep(self, milliseconds):
        open(os.path.join(os.environ["GATE"], f"entered-{os.getpid()}"), "w").close()
        time.sleep(milliseconds / 1000)
        return "slept"

    def count(self, number):
        yield from range(number)

    def user(self):
        return os.geteuid()

    def remember(self, number):
        from gunicorn.dirty import stash

        stash.put("numbers", "last", number)
        return stash.get("numbers", "last")


class Rare(Calc):
    workers = 1


def execute(app, action, *numbers):
    from gunicorn.dirty import get_dirty_client

    return get_dirty_client().execute(app, action, *map(int, numbers))


def stream(app, action, *numbers):
    from gunicorn.dirty import get_dirty_client

    return list(get_dirty_client().stream(app, action, *map(int, numbers)))


def impatient(app, action, *numbers):
    from gunicorn.dirty.client import DirtyClient, get_dirty_socket_path

    return DirtyClient(get_dirty_socket_path(), timeout=0.2).execute(app, action, *map(int, numbers))


def stash(key, number=None):
    from gunicorn.dirty import stash

    if number is not None:
        stash.put("numbers", key, int(number))
    return stash.get("numbers", key)


def loaded():
    return [name for name in sys.modules if name.startswith("gunicorn.dirty") or name == "asyncio"]


def socket():
    return os.environ.get("GUNICORN_DIRTY_SOCKET")


_ACTIONS = {action.__name__: action for action in (execute, stream, impatient, stash, loaded, socket)}


def app(environ, start_response):
    action, *words = environ["PATH_INFO"].strip("/").split("/")
    try:
        said = _ACTIONS[action](*words)
    except Exception as error:
        said = {"error": type(error).__name__, "text": str(error)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]


application = app
