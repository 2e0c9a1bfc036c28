"""Finds the `gunicorn` package in the server, and makes its loggers before an app uses them.

It also lets the package `setproctitle` find the memory of the process's title.

Python rather than Rust because import hooks are written against `importlib`; that is, against what lies below it and is
loaded anyway, where `importlib` itself would bring other modules along.
"""

import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import PathFinder


class CarriedLoader:
    """Loads one module from its text in the server (PEP 302, PEP 451)."""

    def __init__(self, is_package, source):
        self._is_package = is_package
        self._source = source

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, fullname):
        # runpy calls it: `python -m gunicorn`.
        path = fullname.replace(".", "/") + ("/__init__.py" if self._is_package else ".py")
        return compile(self._source, f"<monoceros>/{path}", "exec", dont_inherit=True)

    def get_source(self, fullname):
        # Tracebacks show lines of it (linecache).
        return self._source

    def is_package(self, fullname):
        return self._is_package


class CarriedFinder:
    """Finds `gunicorn` and all modules below it.

    Also where gunicorn is installed: inside this server its modules would be those of a server that does not run.
    """

    def __init__(self, sources):
        self._sources = sources
        self._gives_way = False

    def give_way(self):
        """From now on the installed gunicorn is found, but for the server's own parts of the package."""
        self._gives_way = True

    def find_spec(self, fullname, path=None, target=None):
        if self._gives_way and fullname.partition(".")[0] == "gunicorn" and not fullname.startswith("gunicorn._"):
            return None
        if fullname in self._sources:
            is_package, source = self._sources[fullname]
            loader = CarriedLoader(is_package, source)
            return ModuleSpec(fullname, loader, origin="monoceros", is_package=is_package)
        if is_passed_on(fullname):
            return installed_spec(fullname)
        if fullname.startswith("gunicorn."):
            raise ModuleNotFoundError(
                f"No module named {fullname!r}: monoceros brings a gunicorn package of its own, which does not have it",
                name=fullname,
            )
        if fullname in _AFTERWARDS:
            return spec_with(fullname, path, _AFTERWARDS[fullname])
        return None


def is_passed_on(name):
    """Whether the module is one that an installed gunicorn has and this package lends its other parts to."""
    return name in ("gunicorn.dirty", "gunicorn.workers.workertmp") or name.startswith("gunicorn.dirty.")


def installed_spec(name):
    """The spec of an installed gunicorn's module, which is loaded as a part of this package."""
    top, *below = name.split(".")
    spec = PathFinder.find_spec(top)
    for part in below:
        folders = spec and spec.submodule_search_locations
        spec = folders and PathFinder.find_spec(f"{spec.name}.{part}", folders)
    if not spec:
        raise ModuleNotFoundError(
            f"No module named {name!r}: dirty workers are gunicorn's own code; install that beside monoceros "
            "(pip install gunicorn)",
            name=name,
        )
    return spec


def spec_with(name, path, afterwards):
    """The real module; once it is loaded, `afterwards` is called. It costs nothing until the module is imported."""
    spec = PathFinder.find_spec(name, path)
    if spec is None or spec.loader is None:
        return spec
    execute = spec.loader.exec_module

    def execute_and_go_on(module):
        execute(module)
        afterwards()

    spec.loader.exec_module = execute_and_go_on
    return spec


def forget_others():
    """Forgets an installed gunicorn that was imported before: hooks would get half of their objects from it."""
    for name in [name for name in sys.modules if name == "gunicorn" or name.startswith("gunicorn.")]:
        del sys.modules[name]


def set_up_loggers():
    """Makes the loggers. Apps use the handlers of `logging.getLogger("gunicorn.error")`, so these must exist before."""
    from gunicorn._native import set_up_loggers

    set_up_loggers()


def lend_title():
    """Lets the package use the memory of the title, as it does by itself in other programs."""
    import _monoceros

    _monoceros.lend_title(sys.modules["setproctitle"])


_AFTERWARDS = {"logging": set_up_loggers, "setproctitle": lend_title}


def install(sources):
    forget_others()
    sys.meta_path.insert(0, CarriedFinder(sources))
    for name, afterwards in _AFTERWARDS.items():
        if name in sys.modules:
            afterwards()
