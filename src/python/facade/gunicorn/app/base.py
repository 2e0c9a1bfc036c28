"""The classes that programs subclass in order to run the server from Python.

They gather the settings and the app, as gunicorn's do. Running is the server's: `run` hands the whole object to it, and
this must not open a socket or fork.
"""

import os
import sys

import _monoceros
from gunicorn import util
from gunicorn.config import Config, get_default_config_file


class BaseApplication:
    """An app with its settings. Subclasses set `self.cfg` in `load_config` and return the app from `load`."""

    def __init__(self, usage=None, prog=None):
        self.usage = usage
        self.cfg = None
        self.callable = None
        self.prog = prog
        self.logger = None
        self.do_load_config()

    def do_load_config(self):
        """Loads the settings. If that fails it prints why and ends the program."""
        try:
            self.load_default_config()
            self.load_config()
        except Exception as error:
            print(f"\nError: {error}", file=sys.stderr, flush=True)
            sys.exit(1)

    def load_default_config(self):
        self.cfg = Config(self.usage, prog=self.prog)

    def load_config(self):
        """Sets what differs from the defaults; a subclass writes it."""
        raise NotImplementedError("load_config() is for the subclass to write")

    def init(self, parser, opts, args):
        """Returns settings for the arguments of the program; a subclass writes it."""
        raise NotImplementedError("init() is for the subclass to write")

    def load(self):
        """Returns the WSGI app; a subclass writes it."""
        raise NotImplementedError("load() is for the subclass to write")

    def reload(self):
        self.do_load_config()

    def wsgi(self):
        """The WSGI app, loaded when it is first asked for."""
        if self.callable is None:
            self.callable = self.load()
        return self.callable

    def run(self):
        """Serves this app until the server is told to stop."""
        run_application = getattr(_monoceros, "run_application", None)
        if run_application is None:
            raise RuntimeError(
                f"{type(self).__qualname__}.run() cannot start a server inside the server: "
                "give monoceros the app as MODULE:NAME, or start the program with Python and not with monoceros"
            )
        run_application(self)


class Application(BaseApplication):
    """An app whose settings come from the command line, a config file and GUNICORN_CMD_ARGS, as the server's do."""

    def load_config(self):
        parser = self.cfg.parser()
        options = parser.parse_args()
        self.chdir()
        self._set_all(self.init(parser, options, options.args) or {})
        from_environment = parser.parse_args(self.cfg.get_cmd_args_from_env())
        # The file is searched before `chdir` applies, and overridden by the arguments that name it.
        # Start scripts pass an empty name when their user has set none.
        location = options.config or from_environment.config or get_default_config_file()
        if location:
            self.load_config_from_file(location)
        for source in (from_environment, options):
            self._set_all({name: value for name, value in vars(source).items() if value is not None})
        self.chdir()

    def _set_all(self, values):
        for name, value in values.items():
            if name.lower() in self.cfg.settings:
                self.cfg.set(name.lower(), value)

    def chdir(self):
        """Goes to the directory that `chdir` names, and imports from there."""
        os.chdir(self.cfg.chdir)
        if self.cfg.chdir not in sys.path:
            sys.path.insert(0, self.cfg.chdir)

    def load_config_from_file(self, filename):
        return self.load_config_from_module_name_or_filename(location=filename)

    def load_config_from_module_name_or_filename(self, location):
        """Sets what the config file `PATH`, `file:PATH` or `python:MODULE` sets, and returns all of its names."""
        if location.startswith("python:"):
            names = self.get_config_from_module_name(location.removeprefix("python:"))
        else:
            names = self.get_config_from_filename(location.removeprefix("file:"))
        for name, value in names.items():
            # Other names of a config file are for its own use.
            if name not in self.cfg.settings:
                continue
            try:
                self.cfg.set(name, value)
            except Exception:
                print(f"Invalid value for {name}: {value}\n", file=sys.stderr, flush=True)
                raise
        return names

    def get_config_from_module_name(self, module_name):
        import importlib

        return vars(importlib.import_module(module_name))

    def get_config_from_filename(self, filename):
        """Executes a config file and returns its names."""
        if not os.path.exists(filename):
            raise RuntimeError(f"{filename!r} doesn't exist")
        if os.path.splitext(filename)[1] not in (".py", ".pyc"):
            util.warn("configuration file should have a valid Python extension.\n")
        from importlib.machinery import SourceFileLoader
        from importlib.util import module_from_spec, spec_from_file_location

        # Named in full, because a file without .py has no loader by itself.
        loader = None if filename.endswith((".py", ".pyc")) else SourceFileLoader("__config__", filename)
        spec = spec_from_file_location("__config__", filename, loader=loader)
        module = module_from_spec(spec)
        # Where pickle and dataclasses look for the classes that it defines.
        sys.modules["__config__"] = module
        spec.loader.exec_module(module)
        return vars(module)
