"""For the applications of worker classes: how a request says that it is inside, and when it may go on."""

import itertools
import os
import pathlib

gate = pathlib.Path(os.environ.get("GATE", "."))
serial = itertools.count()

# Between two looks whether a request may go on.
LOOK = 0.01


def enter():
    (gate / f"entered-{os.getpid()}-{next(serial)}").touch()


def is_released():
    return (gate / "release").exists()


def text(query, length):
    """What every request but /wait is answered with; the tests' load looks for it."""
    return f"v{os.getpid()} {query} {length}"
