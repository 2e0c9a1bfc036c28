"""``python -m monoceros.gunicorn``: runs programs that use gunicorn with this server instead.

With a program it runs that one: its ``gunicorn``, and that of the programs it starts, is the one in monoceros, whether
they subclass ``gunicorn.app.base.BaseApplication`` or execute ``python -m gunicorn``. ``--install`` makes that
the rule for the environment.
"""

import os
import runpy
import shutil
import sys
import sysconfig
from collections.abc import Callable

from monoceros import _monoceros

USAGE = """\
usage: python -m monoceros.gunicorn (PROGRAM | -m MODULE) [ARGUMENTS...]
       python -m monoceros.gunicorn (--install | --uninstall)"""

# A folder with a package `gunicorn` and nothing else.
SHIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_shim")
PATH_FILE = "monoceros-gunicorn.pth"
# This line marks a script as ours.
MARK = "# Written by python -m monoceros.gunicorn --install"
SCRIPT = """\
#!{interpreter}
{mark}
import sys

from gunicorn.app.wsgiapp import run

sys.exit(run())
"""


def main() -> None:
    """Does what the command line asks for."""
    arguments = sys.argv[1:]
    changes = {"--install": install, "--uninstall": uninstall}
    if len(arguments) == 1 and arguments[0] in changes:
        change_environment(changes[arguments[0]])
        return
    is_module = arguments[:1] == ["-m"]
    arguments = arguments[is_module:]
    if not arguments or arguments[0].startswith("-"):
        sys.exit(USAGE)
    run(is_module, arguments)


def run(is_module: bool, arguments: list[str]) -> None:
    """Runs a program with the ``gunicorn`` in the server, which the programs that it starts find as well."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([SHIM, *(entry for entry in known if entry not in ("", SHIM))])
    _monoceros.carry_gunicorn()
    sys.argv[:] = arguments
    if is_module:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        script = sys.argv[0] = find_script(arguments[0])
        sys.path[0] = os.path.dirname(os.path.abspath(script))
        runpy.run_path(script, run_name="__main__")


def find_script(name: str) -> str:
    """The path of a script: `name` itself or, for a bare name, a script of the environment."""
    if os.path.exists(name) or os.sep in name:
        return name
    return shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name) or name


def change_environment(change: Callable[[str, str], None]) -> None:
    """Changes the environment of this interpreter, or prints why that is not possible."""
    try:
        path_file = os.path.join(sysconfig.get_path("purelib"), PATH_FILE)
        change(path_file, os.path.join(sysconfig.get_path("scripts"), "gunicorn"))
    except OSError as error:
        sys.exit(f"Error: {error}")


def install(path_file: str, script: str) -> None:
    """Puts the shim in front of an installed gunicorn, and a script ``gunicorn`` where there is none."""
    with open(path_file, "w") as file:
        file.write(f"import sys; sys.path.insert(0, {SHIM!r})\n")
    print(f"written: {path_file}")
    if not os.path.exists(script):
        with open(script, "w") as file:
            file.write(SCRIPT.format(interpreter=sys.executable, mark=MARK))
        os.chmod(script, 0o755)
        print(f"written: {script}")
    print("gunicorn is monoceros in this environment: python -m monoceros.gunicorn --uninstall takes that back")


def uninstall(path_file: str, script: str) -> None:
    """Undoes `install`."""
    if os.path.exists(script):
        with open(script, errors="replace") as file:
            is_ours = MARK in file.read()
        if is_ours:
            remove(script)
    if os.path.exists(path_file):
        remove(path_file)


def remove(path: str) -> None:
    os.remove(path)
    print(f"removed: {path}")


if __name__ == "__main__":
    main()
