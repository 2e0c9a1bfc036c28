"""``python -m monoceros.gunicorn SCRIPT``: runs a program that embeds gunicorn, and serves with this server.

Such a program subclasses ``gunicorn.app.base.BaseApplication`` and calls ``run()``. ``-m MODULE`` may stand for the
script.
"""

import os
import runpy
import sys

from monoceros import _monoceros

USAGE = "usage: python -m monoceros.gunicorn (SCRIPT | -m MODULE) [ARGUMENTS...]"


def main() -> None:
    """Runs what the command line names, with the ``gunicorn`` package that the server carries."""
    arguments = sys.argv[1:]
    is_module = arguments[:1] == ["-m"]
    arguments = arguments[is_module:]
    if not arguments or arguments[0].startswith("-"):
        sys.exit(USAGE)
    _monoceros.carry_gunicorn()
    sys.argv[:] = arguments
    if is_module:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
