"""Runs a worker class by gunicorn's own code, where gunicorn is installed. Nothing but `_foreign` and the server may
import it.

Some classes override how requests are read and waited for. There is no such Python code here, but gunicorn has it: in
the worker's process this package gives way to the installed one, the config file and the class's module are read once
more, and the class serves by itself, with gunicorn's settings, application and logger. The server supervises it as any
other class. It must not be imported by a process that goes on to serve by the server.
"""

import os
import sys
from _frozen_importlib_external import PathFinder

# Parts of this package that the server calls. gunicorn has none of these names.
_OURS = "gunicorn._"
# What the server has done already, or does by itself.
_SETTLED = {"initgroups": False, "reload": False, "daemon": False}
# Settings whose values are the server's own words.
_NOT_PASSED = frozenset({"config", "user", "group", "worker_class", "workers"})


def is_installed():
    """Whether gunicorn itself can be imported by this process."""
    spec = PathFinder.find_spec("gunicorn")
    return spec is not None and spec.origin is not None


def require_dirty():
    """RuntimeError with a sentence unless an installed gunicorn can run dirty workers."""
    spec = PathFinder.find_spec("gunicorn")
    for part in ("dirty", "tlv"):
        folders = spec and spec.submodule_search_locations
        spec = folders and PathFinder.find_spec(f"{spec.name}.{part}", folders)
    if not spec:
        raise RuntimeError(
            "dirty workers are run by gunicorn's own code: install that, version 25.1 or later (pip install gunicorn)"
        )


def take_over(bridge, name):
    """Has the installed gunicorn take this package's place. Returns what a class needs: itself, cfg, app and log.

    RuntimeError with a sentence where gunicorn refuses a setting, or has no such class.
    """
    config_path = getattr(sys.modules.get("__config__"), "__file__", None)
    _give_way()
    from gunicorn.app.wsgiapp import WSGIApplication

    class Application(WSGIApplication):
        """The app that the server's settings name."""

        def __init__(self):
            self.usage = self.prog = self.logger = self.cfg = None
            self.callable = None
            self.load_default_config()

        def load(self):
            # By the server's own loader, or of the master.
            return seen_app.wsgi()

    seen_app = bridge.worker.app
    app = Application()
    given = _configure(app, bridge, config_path)
    worker_class = _class_of(name, given)
    if hasattr(worker_class, "setup"):
        worker_class.setup()
    log = app.cfg.logger_class(app.cfg)
    return worker_class, app.cfg, app, log


def _give_way():
    """From now on `import gunicorn` finds the installed one; what was made of this package is imported anew."""
    from gunicorn import _native

    # The loggers become gunicorn's; the server writes its own lines as before.
    _native.forget()
    of_ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "gunicorn"}
    for name, module in list(sys.modules.items()):
        if name not in of_ours and _is_made_of(module, set(map(id, of_ours.values()))):
            del sys.modules[name]
    for name in of_ours:
        if not name.startswith(_OURS):
            del sys.modules[name]
    for finder in sys.meta_path:
        if hasattr(finder, "give_way"):
            finder.give_way()


def _is_made_of(module, of_ours):
    """Whether a module has something of this package among its globals."""
    if module is None or getattr(module, "__name__", "__main__") == "__main__":
        return False
    return any(id(value) in of_ours or _is_of_ours(value) for value in list(vars(module).values()))


def _is_of_ours(value):
    try:
        kinds = value.__mro__ if isinstance(value, type) else (value,) if callable(value) else ()
        return any(str(getattr(kind, "__module__", "")).partition(".")[0] == "gunicorn" for kind in kinds)
    except Exception:
        # A proxy that can be asked for nothing yet (flask.request).
        return False


def _configure(app, bridge, config_path):
    """Gives gunicorn's `cfg` the settings: those of the config file, read once more, below the values in force."""
    cfg, given = app.cfg, {}
    location = bridge.cfg.config
    if location and location.startswith("python:"):
        given = app.load_config_from_module_name_or_filename(location)
    elif config_path is not None:
        given = app.load_config_from_module_name_or_filename(f"file:{config_path}")
    for name, value in bridge.objects.items():
        # Of an embedding program, which has no config file.
        if name in cfg.settings and name not in given:
            cfg.set(name, value)
    for name, value in bridge.given_values():
        if name in cfg.settings and name not in _NOT_PASSED:
            try:
                _set(cfg, name, value)
            except Exception as error:
                raise RuntimeError(f"gunicorn does not take {value!r} for {name}: {error}") from error
    _SETTLED.update(user=os.geteuid(), group=os.getegid(), workers=max(1, bridge.arbiter.num_workers))
    for name, value in _SETTLED.items():
        cfg.set(name, value)
    return given


def _set(cfg, name, value):
    """Sets a value. Some lists gunicorn takes only as text with commas."""
    try:
        cfg.set(name, value)
    except TypeError:
        if not isinstance(value, list):
            raise
        cfg.set(name, ",".join(map(str, value)))


def _class_of(name, given):
    from gunicorn import util
    from gunicorn.workers.base import Worker

    chosen = given.get("worker_class")
    if callable(chosen) and not isinstance(chosen, type):
        chosen = chosen()
    if not isinstance(chosen, type):
        chosen = util.load_class(name.removeprefix("#"))
    if not issubclass(chosen, Worker):
        raise RuntimeError(f"the worker class {name!r} is not derived from a class of the installed gunicorn")
    return chosen
