"""The package ``gunicorn`` of programs that monoceros must serve. The one in the server replaces it.

``python -m monoceros.gunicorn`` puts the folder above this one on ``sys.path`` (docs/moving-from-gunicorn.md). It must
not do more than hand over.
"""

import importlib
import os
import sys

_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _hand_over() -> None:
    try:
        from monoceros import _monoceros
    except ImportError:
        # Another Python has inherited PYTHONPATH: it gets its own gunicorn.
        sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _FOLDER]
    else:
        _monoceros.carry_gunicorn()
    # The server may have removed it already, to make room for its own.
    sys.modules.pop("gunicorn", None)
    importlib.import_module("gunicorn")


_hand_over()
