"""``python -m monoceros.gunicorn``: other people's programs, with this server where they ask for gunicorn.

With a program it runs that one: its ``gunicorn``, and that of the programs it starts, is the one that monoceros carries,
whether they subclass ``gunicorn.app.base.BaseApplication`` or execute ``python -m gunicorn``. ``--install`` makes that
the rule for the environment.
"""

import os
import runpy
import shutil
import sys
import sysconfig

from monoceros import _monoceros

USAGE = """\
usage: python -m monoceros.gunicorn (PROGRAM | -m MODULE) [ARGUMENTS...]
       python -m monoceros.gunicorn (--install | --uninstall)"""

# A folder with a package `gunicorn` and nothing else.
SHIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_shim")
PATH_FILE = "monoceros-gunicorn.pth"
# By this line the script is known to be ours.
MARK = "# Written by python -m monoceros.gunicorn --install"


def main() -> None:
    """Does what the command line asks for."""
    arguments = sys.argv[1:]
    if arguments == ["--install"]:
        return change_environment(install)
    if arguments == ["--uninstall"]:
        return change_environment(uninstall)
    is_module = arguments[:1] == ["-m"]
    arguments = arguments[is_module:]
    if not arguments or arguments[0].startswith("-"):
        sys.exit(USAGE)
    run(is_module, arguments)


def run(is_module, arguments):
    """Runs a program with the ``gunicorn`` package that the server carries, which the programs it starts find as well."""
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


def find_script(name):
    """The path of a script: `name` itself or, for a bare name, a script of the environment."""
    if os.path.exists(name) or os.sep in name:
        return name
    return shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name) or name


def change_environment(change):
    """Changes the environment that this interpreter is of, or says why that is not possible."""
    try:
        change(os.path.join(sysconfig.get_path("purelib"), PATH_FILE), os.path.join(sysconfig.get_path("scripts"), "gunicorn"))
    except OSError as error:
        sys.exit(f"Error: {error}")


def install(path_file, script):
    """Puts the shim in front of an installed gunicorn, and a script ``gunicorn`` where there is none."""
    with open(path_file, "w") as file:
        file.write(f"import sys; sys.path.insert(0, {SHIM!r})\n")
    print(f"written: {path_file}")
    if not os.path.exists(script):
        with open(script, "w") as file:
            file.write(f"#!{sys.executable}\n{MARK}\nimport sys\n\nfrom gunicorn.app.wsgiapp import run\n\nsys.exit(run())\n")
        os.chmod(script, 0o755)
        print(f"written: {script}")
    print("gunicorn is monoceros in this environment: python -m monoceros.gunicorn --uninstall takes that back")


def uninstall(path_file, script):
    """Takes `install` back."""
    if os.path.exists(script):
        with open(script, errors="replace") as file:
            is_ours = MARK in file.read()
        if is_ours:
            remove(script)
    if os.path.exists(path_file):
        remove(path_file)


def remove(path):
    os.remove(path)
    print(f"removed: {path}")


if __name__ == "__main__":
    main()
